// How long turns of the loop keep a core while the engine is under load, by its own clock.
//
// The load profile is a handful of scenarios that a node meets in earnest, each run against a fresh engine of one
// shard, with its turn clock on. What counts is the share of turns of more than a millisecond of processor time.

import { writeFileSync } from "node:fs";
import { join } from "node:path";

import { counterLines } from "../goals/watch.mjs";
import { generate } from "../tools/generator.mjs";
import { engine, start } from "../tools/servers.mjs";

/** Of turns, how many may be longer than a millisecond. */
export const MOST = 0.001;
const SECRET = "throng".repeat(6);
const SOURCES = ["--src", "127.0.0.1-4"];

/** The load profile. */
export const PROFILE = [
  { name: "mixed: 2,000 clients, 100 rooms, 1,000 publications/s at random of 64 B to 32 KiB", args: ["mixed", "--clients", 2000, "--rooms", 100, "--rate", 1000, "--duration", 15] },
  { name: "a room of 1,000, 200 publications/s", args: ["fanout", "--clients", 1000, "--rate", 200, "--duration", 15] },
  { name: "a room of 10,000, 8 publications/s", args: ["fanout", "--clients", 10_000, "--rate", 8, "--duration", 15] },
  { name: "echo: 1,000 clients, closed loop", args: ["echo", "--clients", 1000, "--duration", 10], echo: true },
  { name: "churn: 2,000 clients that come and go with tokens, 200 publications/s", args: ["churn", "--clients", 2000, "--rate", 200, "--duration", 15, "--token-secret", SECRET], tokens: true },
  { name: "storm: half of 10,000 drop and return with tokens", args: ["storm", "--clients", 10_000, "--rooms", 10, "--drop", 0.5, "--rate", 20, "--duration", 15, "--token-secret", SECRET], tokens: true },
];

/** One scenario against one driver: its turns from the first connection to the last close. */
export async function turns({ name, args, echo, tokens }, { driver, cores, out }) {
  const log = join(out, `turns-${driver}-${args[0]}-${args[2]}.log`);
  writeFileSync(log, "");
  const door = tokens ? { "auth.mode": "token", "auth.secret": SECRET } : {};
  const command = engine(driver, { "debug.turn_clock": true, ...door });
  const server = await start({ name: driver, command, cores: cores.server, log });
  try {
    const url = `ws://${server.address}${echo ? "/echo" : "/ws"}`;
    const dialect = echo ? "plain" : "throng";
    const all = [...args.map(String), ...SOURCES, "--url", url, "--dialect", dialect];
    const json = join(out, `turns-${driver}-${args[0]}-${args[2]}.json`);
    const { outcome } = await generate({ args: all, core: cores.generator, pid: server.pid, log, json, limit: 120_000 });
    if (!outcome.verdict.passed) throw new Error(`${name}, ${driver}: ${outcome.verdict.faults.join("; ")}`);
    const lines = counterLines(log);
    const sum = (key) => lines.reduce((total, line) => total + (line[key] ?? 0), 0);
    const longest = Math.max(...lines.map((line) => line.longest_turn_us ?? 0));
    return { name, driver, turns: sum("turns_timed"), over: sum("turns_over_1ms"), over2: sum("turns_over_2ms"), longest };
  } finally {
    await server.stop();
  }
}
