// What the engine's own code does with the processor while everybody idles: an estimate from samples.
//
// perf interrupts the server by the processor's time and notes where it was. Of the samples, those in the
// program itself are user space; those in functions whose names tell of the wheel, heartbeats, deadlines or
// time passing are bookkeeping. What was inlined into them counts with them, and what they were inlined
// into does not, so the figure is as good as the names are; user space as a whole is its upper bound.

import { execFileSync, spawn } from "node:child_process";
import { basename } from "node:path";

import { THRONG } from "../tools/servers.mjs";

const OWN = /\bthrong::/;
const BOOKKEEPING = /wheel|heartbeat|timeout|deadline|ping|pong|advance|pass_time|last_seen/i;
/** Samples a second; no divisor of the heartbeat or of the scheduler's tick. */
const FREQUENCY = 1999;

/** Starts perf on a process for so many seconds. Resolves with shares of its samples, or why there are none. */
export function profile(pid, seconds, core, file) {
  const record = ["record", "-q", "-e", "cpu-clock", "-F", String(FREQUENCY), "-p", String(pid), "-o", file];
  return new Promise((done) => {
    const command = ["-c", String(core), "perf", ...record, "--", "sleep", String(seconds)];
    const child = spawn("taskset", command, { stdio: ["ignore", "ignore", "pipe"] });
    let said = "";
    child.stderr.on("data", (text) => {
      said = (said + text).slice(-500);
    });
    child.once("error", (error) => done({ why: error.message }));
    child.once("close", (code) => {
      if (code !== 0) return done({ why: said.trim().split("\n").at(-1) || `perf ended with ${code}` });
      done({ file, seconds });
    });
  });
}

/** Reads what `profile` recorded; called when the run is over, since it takes long. */
export function shares(recorded) {
  if (recorded?.file === undefined) return { why: recorded?.why ?? "perf was not run" };
  try {
    const args = ["report", "-i", recorded.file, "--stdio", "-q", "--no-children", "--percent-limit", "0", "-F", "sample,dso,symbol", "-t", "\t"];
    const text = execFileSync("perf", args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"], maxBuffer: 2 ** 26 });
    return sum(text, recorded.seconds);
  } catch (error) {
    return { why: error.message.split("\n")[0] };
  }
}

function sum(text, seconds) {
  const lines = text.split("\n").map((line) => line.split("\t").map((part) => part.trim()));
  const rows = lines.filter((parts) => parts.length >= 3 && Number.isFinite(Number(parts[0])) && parts[0] !== "");
  const own = rows.filter(([, object]) => object === basename(THRONG));
  const books = own.filter(([, , symbol]) => OWN.test(symbol) && BOOKKEEPING.test(symbol));
  const total = (some) => some.reduce((all, [samples]) => all + Number(samples), 0);
  const cores = (some) => total(some) / FREQUENCY / seconds;
  const names = books.slice(0, 8).map(([samples, , symbol]) => `${symbol.replace(/^\[.\] /, "")} x ${samples}`);
  return { samples: total(rows), all: cores(rows), user: cores(own), bookkeeping: cores(books), names };
}
