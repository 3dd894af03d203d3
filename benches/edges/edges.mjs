// Measures the edges: what back ends, large rooms and event streams cost, each as a table with its limit.
//
//   node edges.mjs [--only publish,...] [--driver epoll,uring] [--seconds N] [--cores SERVER,GENERATOR]
//
// Servers have a core of their own and whoever loads them another. Logs and outcomes are kept in target/edges.

import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";

import { figures, row } from "../tools/figures.mjs";
import { surroundings } from "../tools/machine.mjs";
import { ROOT } from "../tools/servers.mjs";
import { CASES, LEAST, publishing } from "./publish.mjs";

const OUT = join(ROOT, "target/edges");
const say = (text) => process.stderr.write(`${text}\n`);
const PARTS = { publish };

try {
  const options = readOptions();
  mkdirSync(OUT, { recursive: true });
  // This program keeps off the server's core.
  execFileSync("taskset", ["-acp", String(options.cores.generator), String(process.pid)], { stdio: "ignore" });
  for (const part of options.only) process.stdout.write(`${await PARTS[part](options)}\n\n`);
  const lines = surroundings({ serverCores: options.cores.server, generatorCore: options.cores.generator });
  process.stdout.write(`${lines.join("\n")}\n`);
} catch (error) {
  say(`edges.mjs: ${error.message}`);
  process.exitCode = 1;
}

function readOptions() {
  const { values } = parseArgs({
    options: {
      only: { type: "string", default: Object.keys(PARTS).join(",") },
      driver: { type: "string", default: "epoll,uring" },
      seconds: { type: "string", default: "5" },
      cores: { type: "string", default: "0,1" },
    },
  });
  const only = values.only.split(",");
  for (const part of only) {
    if (!PARTS[part]) throw new Error(`--only: no ${part}; there are ${Object.keys(PARTS).join(", ")}`);
  }
  const drivers = values.driver.split(",");
  for (const driver of drivers) {
    if (!["epoll", "uring"].includes(driver)) throw new Error(`--driver: no ${driver}; there are epoll and uring`);
  }
  const [server, generator] = values.cores.split(",").map(Number);
  if (!Number.isInteger(generator) || server === generator) {
    throw new Error("--cores takes two different cores, the server's and the generator's, as 0,1");
  }
  const seconds = Number(values.seconds);
  if (!(seconds > 0)) throw new Error("--seconds takes a number above 0");
  return { only, drivers, seconds, cores: { server, generator }, out: OUT };
}

/** Says whether a limit is met, and remembers when it is not. */
function met(holds) {
  if (!holds) process.exitCode = 1;
  return holds ? "yes" : "NO";
}

async function publish(options) {
  const head = ["publishing, batches of 100", "driver", "publications/s of the admin thread's core", "of the whole server's core", "observed /s", "delivered", "met"];
  const lines = [row(head), row(head.map((_, nth) => (nth < 2 ? "---" : "---:")))];
  for (const found of CASES) {
    for (const driver of options.drivers) {
      const made = await publishing(found, { ...options, driver });
      const whole = made.delivered === made.expected;
      const delivered = made.expected === 0 ? "-" : `${made.delivered} of ${made.expected}`;
      lines.push(row([made.name, driver, figures(made.admin), figures(made.all), figures(made.rate), delivered, met(whole && made.admin >= LEAST)]));
      say(lines.at(-1));
    }
  }
  return lines.join("\n");
}
