// Event streams in crowds: what is left of a hundred thousand that came and broke off, and what as many cost that
// are silent, beside as many silent WebSockets.
//
// Clients are processes of their own (`listeners.mjs`). All are in one room, since a stream always is in one. What
// is left is judged a minute after the last has gone, against a node that has served a small crowd before: its
// first connections make it read in pages of the program that then stay.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import process from "node:process";

import { shardsFor } from "../goals/needs.mjs";
import { counterLines } from "../goals/watch.mjs";
import { bytes, descriptors, read } from "../tools/machine.mjs";
import { engine, pinned, start } from "../tools/servers.mjs";

const SCRIPT = fileURLToPath(new URL("listeners.mjs", import.meta.url));
/** Of the memory at the start, how much more there may be a minute after the crowd. */
export const LEFT = 0.02;
/** Of what an idle WebSocket costs, what an idle stream may. */
export const SAME = 1.05;
const WARM = 2_000;
const AT_ONCE = 1_000;
const MINUTE_MS = 60_000;
/** Descriptors of a client process that are no connection. */
const RESERVE = 2_000;
/** Source addresses of a client process. */
const SOURCES = 2;

/** So many streams that come and break off. */
export async function coming(driver, { members, cores, out }) {
  const { server, count } = await serving(driver, "coming", AT_ONCE * 2, { cores, out });
  try {
    await clients(server, "sse", 0, ["churn", WARM, AT_ONCE], cores);
    await pause(15_000);
    const before = memory(server.pid);
    const began = performance.now();
    await clients(server, "sse", 0, ["churn", members, AT_ONCE], cores);
    const took = (performance.now() - began) / 1000;
    const most = memory(server.pid);
    await pause(MINUTE_MS);
    const after = memory(server.pid);
    const counters = await count();
    return { driver, before, most, after, took, connections: counters.connections ?? 0, accepted: counters.handshakes_total - WARM };
  } finally {
    await server.stop();
  }
}

/** So many silent clients of a kind: what each costs. */
export async function idle(driver, kind, { members, cores, out }) {
  const { server, count } = await serving(driver, `idle-${kind}`, members, { cores, out });
  const held = [];
  try {
    await pause(500);
    const before = { ...memory(server.pid), slab: bytes(read("/proc/meminfo"), "Slab") };
    const each = Math.floor(descriptors() - RESERVE);
    for (let left = members; left > 0; left -= each) {
      held.push(clients(server, kind, held.length, ["hold", Math.min(left, each)], cores));
    }
    const ends = await Promise.all(held);
    await pause(2_000);
    const after = { ...memory(server.pid), slab: bytes(read("/proc/meminfo"), "Slab") };
    const counters = await count();
    ends.forEach((end) => end());
    return {
      driver,
      kind,
      user: (after.anonymous - before.anonymous) / members,
      kernel: (after.slab - before.slab) / members,
      connections: counters.connections ?? 0,
      streams: counters.stream_connections ?? 0,
    };
  } finally {
    await server.stop();
  }
}

async function serving(driver, name, most, { cores, out }) {
  const log = join(out, `streams-${name}-${driver}.log`);
  writeFileSync(log, "");
  // Nobody here answers a ping.
  const command = engine(driver, { "server.shards": shardsFor(most), "heartbeat.ping_interval_ms": 600_000 });
  const server = await start({ name: driver, command, cores: cores.server, log });
  const count = async () => {
    const lines = counterLines(log).length;
    server.child.kill("SIGUSR1");
    while (counterLines(log).length === lines) await pause(50);
    return counterLines(log).at(-1);
  };
  return { server, count };
}

/** Runs clients: until they are done, or until they are ready; then gives what ends them. */
function clients({ address }, kind, nth, what, cores) {
  const args = [address, kind, 10 + nth * SOURCES, SOURCES, ...what].map(String);
  const child = pinned(cores.generator, [process.execPath, SCRIPT, ...args], { stdio: ["pipe", "pipe", "inherit"] });
  return new Promise((done, fail) => {
    child.stdout.setEncoding("utf8");
    child.stdout.on("data", () => done(() => child.stdin.end()));
    child.once("close", (code) => (code === 0 ? done() : fail(new Error(`listeners.mjs ended with ${code}`))));
  });
}

function memory(pid) {
  const text = read(`/proc/${pid}/status`);
  return { all: bytes(text, "VmRSS"), anonymous: bytes(text, "RssAnon") };
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
