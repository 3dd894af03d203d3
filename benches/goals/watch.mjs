// Looks at the machine, the server and the generator once a second, and asks the server for its counters.
//
// The server prints its counters into its log on SIGUSR1, with the longest turn since it was last asked when
// its turn clock is on. The generator asks too, between its phases, and whoever asks starts the turns afresh;
// so the lines of the log are read afterwards, all of them, each with its time, whoever had asked.

import { readFileSync } from "node:fs";

import { bytes, read } from "../tools/machine.mjs";

/** Ticks of /proc/PID/stat in a second. */
const TICKS = 100;

/** One look a second, kept. `stop` ends it and gives the looks. */
export class Watch {
  constructor(server) {
    this.server = server;
    this.generator = undefined;
    this.looks = [this.look()];
    this.timer = setInterval(() => {
      this.looks.push(this.look());
      this.server.child.kill("SIGUSR1");
    }, 1000);
  }

  look() {
    const memory = read("/proc/meminfo");
    return {
      at: Date.now(),
      available: bytes(memory, "MemAvailable"),
      slab: bytes(memory, "Slab"),
      server: process(this.server.pid),
      generator: this.generator && process(this.generator),
    };
  }

  stop() {
    clearInterval(this.timer);
    this.looks.push(this.look());
    return this.looks;
  }
}

/** What a process has used: seconds in user space and in the kernel, and anonymous memory. */
function process(pid) {
  // The name may hold spaces and brackets; what follows the last bracket does not.
  const fields = read(`/proc/${pid}/stat`).split(") ").at(-1).split(" ");
  const rss = bytes(read(`/proc/${pid}/status`), "RssAnon");
  return { user: Number(fields[11]) / TICKS, system: Number(fields[12]) / TICKS, rss };
}

/** Every line of counters in a log: when it was written, and the counters by their names. */
export function counterLines(log) {
  const lines = readFileSync(log, "utf8").split("\n").filter((line) => line.includes(" counters: "));
  return lines.map((line) => {
    const [head, pairs] = line.split(" counters: ");
    const values = pairs.trim().split(/\s+/).map((pair) => pair.split("="));
    return { at: Date.parse(/\d{4}-\S+Z/.exec(head)?.[0]), ...Object.fromEntries(values.map(([k, v]) => [k, Number(v)])) };
  });
}

/** The part of what was seen, looks or lines, that lies within a span of wall-clock time. */
export function within(seen, [from, to]) {
  return seen.filter(({ at }) => at >= from && at <= to);
}

/** The last that was seen before a moment, or the first of all. */
export function before(seen, moment) {
  return seen.filter(({ at }) => at <= moment).at(-1) ?? seen[0];
}
