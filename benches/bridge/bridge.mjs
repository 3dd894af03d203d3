// What nodes that work as one cost Redis and each other, in processor time for each publication.
//
//   node bridge.mjs [--only redis,nodes] [--seconds N] [--cores SERVERS,CLIENTS] [--driver epoll]
//
// `redis` asks a redis-server alone: a publication with so many subscribers, plain and numbered by the engine's own
// script. `nodes` runs 1, 2 and 4 nodes with a member on each and publishes on one. Time is what the processes used
// themselves, so other programs on the machine do not enter it but by what they do to caches.

import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";

import { figures, row } from "../tools/figures.mjs";
import { surroundings } from "../tools/machine.mjs";
import { ROOT } from "../tools/servers.mjs";
import { COUNTS, line, publishing } from "./redis.mjs";
import { NODES, crossing } from "./nodes.mjs";

const OUT = join(ROOT, "target/bridge");
const PARTS = { redis, nodes };

try {
  const options = readOptions();
  mkdirSync(OUT, { recursive: true });
  execFileSync("taskset", ["-acp", String(options.cores.clients), String(process.pid)], { stdio: "ignore" });
  for (const part of options.only) process.stdout.write(`${await PARTS[part](options)}\n\n`);
  const lines = surroundings({ serverCores: options.cores.servers, generatorCore: options.cores.clients });
  process.stdout.write(`${lines.join("\n")}\n`);
} catch (error) {
  process.stderr.write(`bridge.mjs: ${error.message}\n`);
  process.exitCode = 1;
}
process.exit();

function readOptions() {
  const { values } = parseArgs({
    options: {
      only: { type: "string", default: Object.keys(PARTS).join(",") },
      seconds: { type: "string", default: "5" },
      cores: { type: "string", default: "0,1" },
      driver: { type: "string", default: "epoll" },
    },
  });
  const only = values.only.split(",");
  for (const part of only) {
    if (!PARTS[part]) throw new Error(`--only: no ${part}; there are ${Object.keys(PARTS).join(", ")}`);
  }
  const [servers, clients] = values.cores.split(",").map(Number);
  if (!Number.isInteger(clients)) throw new Error("--cores takes two cores, the servers' and the clients', as 0,1");
  const seconds = Number(values.seconds);
  if (!(seconds > 0)) throw new Error("--seconds takes a number above 0");
  return { only, seconds, driver: values.driver, cores: { servers, clients }, out: OUT };
}

async function redis(options) {
  const head = ["Redis alone", "subscribers", "CPU per publication, us", "bytes in", "bytes out"];
  const lines = [row(head), row(head.map((_, nth) => (nth < 1 ? "---" : "---:")))];
  const fits = [];
  for (const kind of ["plain", "numbered"]) {
    const made = [];
    for (const subscribers of COUNTS) {
      const found = await publishing({ kind, subscribers, ...options });
      made.push(found);
      lines.push(row([kind, subscribers, figures(found.micros), figures(found.bytesIn), figures(found.bytesOut)]));
    }
    const [first, each] = line(made.map(({ subscribers, micros }) => [subscribers, micros]));
    fits.push(`${kind}: ${figures(first)} us and ${figures(each)} us for each subscriber`);
  }
  return [...lines, "", ...fits].join("\n");
}

async function nodes(options) {
  const head = ["room", "nodes", "Redis, us", "the author's node, us", "each other node, us", "delivered", "met"];
  const lines = [row(head), row(head.map((_, nth) => (nth < 1 ? "---" : "---:")))];
  for (const kind of ["plain", "shared"]) {
    for (const count of NODES) {
      const made = await crossing({ kind, count, ...options });
      const whole = made.delivered === made.expected;
      if (!whole) process.exitCode = 1;
      const others = count > 1 ? figures(made.others) : "-";
      lines.push(row([kind, count, figures(made.redis), figures(made.author), others, `${made.delivered} of ${made.expected}`, whole ? "yes" : "NO"]));
    }
  }
  return lines.join("\n");
}
