// What the machine is and what it has left, from /proc.

import { execFileSync } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import os from "node:os";

import { ROOT } from "./servers.mjs";

/** A file of the kernel, or nothing when it is not to be read. */
export function read(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

/** The numbers of a file such as those below /proc/sys. */
export function numbers(path) {
  return read(path).split(/\s+/).filter(Boolean).map(Number);
}

/** Bytes of a line such as `MemAvailable:  123 kB`; undefined when it is not there. */
export function bytes(text, name) {
  const found = new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text);
  return found ? Number(found[1]) * 1024 : undefined;
}

/** The threads of a process: their names, and the seconds of processor time that each has used. */
export function threads(pid) {
  return readdirSync(`/proc/${pid}/task`).map((task) => {
    const path = `/proc/${pid}/task/${task}`;
    return { name: read(`${path}/comm`).trim(), cpu: Number(read(`${path}/schedstat`).split(" ")[0]) / 1e9 };
  });
}

/** The most descriptors that a table may have. */
export function descriptors() {
  return Number(execFileSync("bash", ["-c", "ulimit -Hn"], { encoding: "utf8" })) || Infinity;
}

/** Where and with what runs are made, as lines of a list. */
export function surroundings({ serverCores, generatorCore }) {
  const gib = (os.totalmem() / 2 ** 30).toFixed(1);
  return [
    `- ${new Date().toISOString()}, revision ${revision()}`,
    `- kernel ${os.release()}, ${os.cpus()[0].model}, ${os.cpus().length} cores, ${gib} GiB`,
    `- server on core ${serverCores}, generator on core ${generatorCore}, loopback`,
  ];
}

function revision() {
  try {
    return execFileSync("git", ["describe", "--always", "--dirty"], { cwd: ROOT, encoding: "utf8" }).trim();
  } catch {
    return "unknown";
  }
}
