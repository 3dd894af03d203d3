// One run of the generator, and whether it counts.
//
// What the generator wrote of a run is kept as it is, so that `throng-load compare` can read it too. A run
// that it calls void does not count, nor does one that failed. No flag that makes a scenario is known here.

import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, relative } from "node:path";

import { LOAD, ROOT, pinned } from "./servers.mjs";

/**
 * Runs the generator on a core and gives its outcome and what it printed.
 *
 * `args` make the scenario, its address included; `pid` is the server's process, `log` the file that its
 * counters are read from, if it tells any. It ends with 1 when messages were lost, which its outcome tells
 * better. Rejects when there is no outcome, or none within `limit` milliseconds.
 */
export async function generate({ args, core, pid, log, json, limit, started }) {
  rmSync(json, { force: true });
  mkdirSync(dirname(json), { recursive: true });
  const watched = ["--pid", String(pid), ...(log === undefined ? [] : ["--server-log", relative(ROOT, log)])];
  const all = [...args, "--cores", String(core), "--quiet", ...watched, "--json", relative(ROOT, json)];
  const stdio = ["ignore", "pipe", "pipe"];
  const child = pinned(core, [LOAD, ...all], { cwd: ROOT, stdio, timeout: limit });
  started?.(child.pid);
  const said = { stdout: "", stderr: "" };
  for (const stream of Object.keys(said)) {
    child[stream].setEncoding("utf8");
    child[stream].on("data", (text) => {
      said[stream] = (said[stream] + text).slice(-8000);
    });
  }
  const end = await new Promise((done) => {
    child.once("close", (code, signal) => done(signal ?? `exit code ${code}`));
    child.once("error", (error) => done(error.message));
  });
  if (!existsSync(json)) {
    const last = said.stderr.trim().split("\n").slice(-3).join("; ");
    throw new Error(`throng-load ${all.join(" ")}: no outcome, ${end}: ${last}`);
  }
  return { outcome: JSON.parse(readFileSync(json, "utf8")), printed: said.stdout };
}

/** Whether the figures of a run may be used. */
export function counts({ outcome }) {
  return outcome !== undefined && outcome.verdict.passed && !outcome.verdict.void;
}

/** Why a run does not count. */
export function reasons({ outcome, failure }) {
  if (outcome === undefined) return failure;
  return [...outcome.verdict.faults, ...outcome.verdict.doubts].join("; ");
}

/** One kind of latency of an outcome, such as `delivery`; undefined where nothing of the kind arrived. */
export function latency(outcome, name) {
  return outcome?.latencies.find((candidate) => candidate.name === name);
}
