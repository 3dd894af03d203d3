// Measures the edges: what back ends, large rooms and event streams cost, each as a table with its limit.
//
//   node edges.mjs [--only publish,...] [--driver epoll,uring] [--seconds N] [--members N]
//                  [--cores SERVER,GENERATOR]
//
// Servers have a core of their own and whoever loads them another. Logs and outcomes are kept in target/edges.

import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";

import { figures, median, row } from "../tools/figures.mjs";
import { surroundings } from "../tools/machine.mjs";
import { ROOT } from "../tools/servers.mjs";
import { BUDGET, everybody } from "./fanout.mjs";
import { firstBytes, firstMessage } from "./first.mjs";
import { CASES, LEAST, publishing } from "./publish.mjs";
import { LEFT, SAME, coming, idle } from "./streams.mjs";
import { MOST, PROFILE, turns } from "./turns.mjs";

const OUT = join(ROOT, "target/edges");
const say = (text) => process.stderr.write(`${text}\n`);
const PARTS = { publish, fanout, turns: profile, gone, streams, first };

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
      members: { type: "string", default: "100000" },
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
  const members = Number(values.members);
  if (!(members >= 1)) throw new Error("--members takes a number from 1");
  return { only, drivers, seconds, members, cores: { server, generator }, out: OUT };
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

async function fanout(options) {
  const head = ["one publication to a room", "server", "last byte queued, ms", "written, ms", "the slowest", "to the floor", "last receiver, ms", "received", "met"];
  const lines = [row(head), row(head.map((_, nth) => (nth < 2 ? "---" : "---:")))];
  const scale = options.members / 100_000;
  let floor;
  for (const variant of ["floor", ...options.drivers]) {
    const made = await everybody(variant, options);
    floor ??= made;
    const ratio = made.written / floor.written;
    const fits = made.queued <= BUDGET.queued * scale && made.written <= BUDGET.written * scale && made.last <= BUDGET.last * scale && ratio <= BUDGET.ratio;
    const judged = variant === "floor" ? "" : met(fits);
    lines.push(row([`${figures(options.members)} members, median of ${made.seen}`, variant, figures(made.queued), figures(made.written), figures(made.worst), figures(ratio), figures(made.last), made.counted, judged]));
    say(lines.at(-1));
  }
  return lines.join("\n");
}

async function profile(options) {
  const head = ["load profile", "driver", "turns", "above 1 ms", "share", "above 2 ms", "longest, ms", "met"];
  const lines = [row(head), row(head.map((_, nth) => (nth < 2 ? "---" : "---:")))];
  for (const scenario of PROFILE) {
    for (const driver of options.drivers) {
      const made = await turns(scenario, { ...options, driver });
      const share = made.over / made.turns;
      lines.push(row([made.name, driver, figures(made.turns), made.over, `${figures(share * 100)} %`, made.over2, figures(made.longest / 1000), met(share <= MOST)]));
      say(lines.at(-1));
    }
  }
  return lines.join("\n");
}

async function gone(options) {
  const head = ["event streams that came and broke off", "driver", "in, s", "connections left", "RSS at the start, MB", "at the end of the crowd", "a minute later", "of the start", "met"];
  const lines = [row(head), row(head.map((_, nth) => (nth < 2 ? "---" : "---:")))];
  for (const driver of options.drivers) {
    const made = await coming(driver, options);
    const ratio = made.after.all / made.before.all;
    const holds = made.accepted === options.members && made.connections === 0 && ratio <= 1 + LEFT;
    const mb = ({ all, anonymous }) => `${figures(all / 1e6)} (${figures(anonymous / 1e6)} anonymous)`;
    lines.push(row([figures(made.accepted), driver, figures(made.took), made.connections, mb(made.before), mb(made.most), mb(made.after), `${figures(ratio)} x`, met(holds)]));
    say(lines.at(-1));
  }
  return lines.join("\n");
}

async function streams(options) {
  const head = ["silent clients in one room", "driver", "kind", "user B each", "kernel B, both ends", "of a WebSocket's user B", "met"];
  const lines = [row(head), row(head.map((_, nth) => (nth < 3 ? "---" : "---:")))];
  for (const driver of options.drivers) {
    let socket;
    for (const kind of ["ws", "sse"]) {
      const made = await idle(driver, kind, options);
      socket ??= made;
      const all = made.connections === options.members && made.streams === (kind === "sse" ? options.members : 0);
      const ratio = made.user / socket.user;
      const judged = kind === "ws" ? "" : met(all && ratio <= SAME);
      lines.push(row([figures(made.connections), driver, kind, figures(made.user), figures(made.kernel), `${figures(ratio)} x`, judged]));
      say(lines.at(-1));
    }
  }
  return lines.join("\n");
}

async function first(options) {
  const head = ["the first", "driver", "median, ms", "each, ms", "limit, ms", "met"];
  const lines = [row(head), row(head.map((_, nth) => (nth < 2 ? "---" : "---:")))];
  const add = (name, driver, values, limit) => {
    const middle = median(values);
    lines.push(row([name, driver, figures(middle), values.map(figures).join(", "), figures(limit), met(middle <= limit)]));
    say(lines.at(-1));
  };
  for (const driver of options.drivers) {
    const { direct, proxied } = await firstBytes(driver, options);
    add("byte of a stream, from the engine", driver, direct, 1_000);
    add("byte of a stream, through an nginx that was told nothing", driver, proxied, 1_000);
  }
  const messages = [];
  for (let round = 0; round < 5; round += 1) messages.push(await firstMessage(options));
  add("message, from the start of the program", "auto", messages, 120_000);
  return lines.join("\n");
}
