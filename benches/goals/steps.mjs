// What is run for the goals: each step as the generator's arguments and the servers that take part.
//
// This is the only file of the goals that knows the generator's flags. A step is run against every variant
// that it names, on the same round's minutes; several goals may read the same step. `pick(full, small)`
// gives the one or the other, the small one only to see that everything runs.

import { secured } from "../tools/certificate.mjs";
import { engine, floor } from "../tools/servers.mjs";
import { shardsFor, sourcesFor } from "./needs.mjs";

const ENGINES = ["epoll", "uring"];
/** The floor has one descriptor table and so a share of the connections that the engine can have. */
const ALL = ["floor", ...ENGINES];
const SIZE = ["--size", "64"];
const SOURCES = ["--src", "127.0.0.1-4"];

/** What makes the engine ask everybody for a token, and the generator show one. */
const SECRET = "throng".repeat(6);
const DOOR = { "auth.mode": "token", "auth.secret": SECRET };
const KNOWN = ["--token-secret", SECRET];

/** A crowd over as many shards and source addresses as it needs, when it has up to so many sockets for each client. */
function wide(clients, sockets = 1) {
  const most = clients * sockets;
  return { settings: { "server.shards": shardsFor(most) }, crowd: ["--clients", clients, "--src", sourcesFor(most)] };
}

function fanout({ members, rate, burst = 1, seconds }) {
  const load = ["--rate", rate, "--burst", burst, "--duration", seconds];
  return ["fanout", "--clients", members, "--threads", 1, ...load, ...SIZE, ...SOURCES];
}

/**
 * Every step by its name. `args` make the scenario, without where it goes; `variants` are the servers;
 * `own` is set where the engine speaks its own protocol, elsewhere its echo endpoint is used. `settings` are
 * the engine's. `second` is set where the server takes another core as well, `secure` where both speak TLS.
 */
export function steps(pick) {
  const many = pick(100_000, 2_000);
  const storming = pick(110_000, 2_200);
  const members = pick(1_000, 100);
  const room = pick(10_000, 500);
  const seconds = pick(10, 1);
  const idle = wide(many);
  const crowd = ["echo", "--clients", pick(15_000, 1_000), "--threads", 1, "--rate", 200, "--duration", 1, ...SIZE, ...SOURCES];
  // Who returns may do so before the server has closed what was dropped.
  const storm = wide(storming, 2);
  // With all of them eager the generator's core would be the one that saturates, and its queue the latency.
  const cap = ["fanout", "--clients", members, "--lazy", 0.9, "--threads", 1, "--rate", pick(1_000, 500), "--duration", pick(3, 0.2), "--find-cap", 5, ...SIZE, ...SOURCES];
  const slow = ["slow", "--clients", room, "--slow-kind", "stop", "--rate", 6, "--size", 8192, "--duration", pick(20, 1), ...SOURCES];
  const few = ["fanout", "--clients", 8, "--threads", 1, "--rate", 200, "--duration", seconds, ...SIZE];
  const full = (window) => ["fanout", "--clients", members, "--threads", 1, "--window", window, "--duration", pick(5, 1), ...SIZE, ...SOURCES];
  return {
    idle: {
      variants: ENGINES,
      own: true,
      settings: idle.settings,
      args: ["idle", ...idle.crowd, "--hold", 0, "--set", "crowd.roll_calls=1"],
    },
    joined: {
      variants: ENGINES,
      own: true,
      settings: idle.settings,
      args: ["fanout", ...idle.crowd, "--rate", 1, "--messages", 1],
    },
    known: {
      variants: ENGINES,
      own: true,
      settings: { ...idle.settings, ...DOOR },
      args: ["fanout", ...idle.crowd, "--rate", 1, "--messages", 1, ...KNOWN],
    },
    crowd: { variants: ALL, args: crowd },
    doors: { variants: ENGINES, settings: DOOR, args: [...crowd, ...KNOWN] },
    greeted: {
      variants: ENGINES,
      own: true,
      args: ["idle", "--clients", pick(15_000, 1_000), "--threads", 1, "--hold", 0, "--set", "crowd.roll_calls=1", ...SOURCES],
    },
    fan1000: { variants: ALL, own: true, args: fanout({ members, rate: 50, seconds }) },
    secureIdle: {
      variants: ENGINES,
      own: true,
      secure: true,
      args: ["idle", "--clients", pick(10_000, 500), "--threads", 1, "--hold", 0, "--set", "crowd.roll_calls=1", ...SOURCES],
    },
    secureGreeted: {
      variants: ENGINES,
      own: true,
      secure: true,
      args: ["idle", "--clients", pick(5_000, 500), "--threads", 1, "--hold", 0, "--set", "crowd.roll_calls=1", ...SOURCES],
    },
    secureFan1000: { variants: ENGINES, own: true, secure: true, args: fanout({ members, rate: 50, seconds }) },
    fan10000: { variants: ALL, own: true, args: fanout({ members: room, rate: 4, seconds }) },
    burst16: { variants: ALL, own: true, args: fanout({ members, rate: 800, burst: 16, seconds }) },
    burst128: { variants: ALL, own: true, args: fanout({ members, rate: 1_024, burst: 128, seconds }) },
    cap: { variants: ENGINES, own: true, settings: { "queue.flush_window_us": 1000 }, args: cap },
    echo: {
      variants: ALL,
      args: ["echo", "--clients", members, "--threads", 1, "--depth", 1, "--duration", seconds, ...SIZE, ...SOURCES],
    },
    storm: {
      variants: ENGINES,
      own: true,
      settings: storm.settings,
      // Rooms of a thousand: one room of all would be a fan-out and not a storm.
      args: ["storm", ...storm.crowd, "--rooms", pick(110, 11), "--drop", 0.91, "--drop-at", pick(2, 0.5), "--return-within", 0, "--rate", 20, "--duration", pick(12, 2), ...SIZE],
    },
    slow: { variants: ENGINES, own: true, settings: { "queue.max_bytes": SLOW_LIMIT }, args: [...slow, "--slow", SLOW_SHARE] },
    brisk: { variants: ENGINES, own: true, settings: { "queue.max_bytes": SLOW_LIMIT }, args: [...slow, "--slow", 0] },
    one: { variants: ENGINES, own: true, args: few },
    two: { variants: ENGINES, own: true, second: true, settings: { "server.shards": 2, "server.pin": true }, args: few },
    single: { variants: ENGINES, own: true, args: full(1) },
    gathered: { variants: ENGINES, own: true, args: full(32) },
  };
}

/** The engine's limit of what waits for a stopped reader, in bytes: its default. */
export const SLOW_LIMIT = 1_048_576;
/** The share of a room that stops reading. */
export const SLOW_SHARE = 0.1;

/** The command of a variant for a step. */
export function commandOf(step, variant) {
  if (variant === "floor") return floor();
  return engine(variant, step.secure ? { ...secured(), ...step.settings } : step.settings);
}

/** Bytes of a payload of 64 in the engine's protocol, whose envelope names the room, the offset and the author. */
const ENVELOPED = 150;

/**
 * The whole command line of the generator for a step against a server that is up. Where the engine speaks its
 * own protocol the floor, which has none, carries payloads that make its frames as long.
 */
export function argumentsOf(step, variant, address) {
  const own = step.own && variant !== "floor";
  const args = step.args.map(String);
  if (step.own && variant === "floor" && args.includes("--size")) args[args.indexOf("--size") + 1] = String(ENVELOPED);
  const url = `${step.secure ? "wss" : "ws"}://${address}${own ? "/ws" : ""}`;
  return [...args, "--url", url, ...(step.secure ? ["--insecure"] : []), "--dialect", own ? "throng" : "plain"];
}
