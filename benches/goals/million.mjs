// A million connections on one machine, both ends: what it takes to establish them, to hold them, to serve a
// busy room while they idle, and to reach all of them at once.
//
//   node million.mjs [--clients N] [--driver epoll|uring] [--cores SERVER,GENERATOR] [--hold S]
//                    [--side MEMBERS] [--rate PER_S] [--duration S] [--roll-calls N] [--check] [--force]
//
// The engine runs on one core with as many shards as descriptor tables are needed, the generator on another.
// --check only says what the machine needs. Everything is kept in target/million: the generator's outcome and
// page, the server's log, what was seen each second, and the table, which is printed too.

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";

import { figures } from "../tools/figures.mjs";
import { generate } from "../tools/generator.mjs";
import { bytes, read, surroundings } from "../tools/machine.mjs";
import { LOAD, ROOT, engine, start } from "../tools/servers.mjs";
import { report } from "./account.mjs";
import { needs, shardsFor, sourcesFor } from "./needs.mjs";
import { profile, shares } from "./profile.mjs";
import { Watch, counterLines } from "./watch.mjs";

const OUT = join(ROOT, "target/million");
const HEARTBEAT_MS = 30_000;
/** Longest that the whole run may take, in milliseconds. */
const RUN_LIMIT_MS = 1_200_000;
/** Seconds of the hold that are profiled, at most half of it. */
const PROFILE_S = 10;

const say = (text) => process.stderr.write(`${text}\n`);

try {
  const options = readOptions();
  if (sufficient(options) && !options.check) await measure(options);
} catch (error) {
  say(`million.mjs: ${error.message}`);
  process.exitCode = 1;
}

function readOptions() {
  const { values } = parseArgs({
    options: {
      clients: { type: "string", default: "1000000" },
      driver: { type: "string", default: "epoll" },
      cores: { type: "string", default: "0,1" },
      hold: { type: "string", default: "60" },
      side: { type: "string", default: "10000" },
      rate: { type: "string", default: "2" },
      duration: { type: "string", default: "30" },
      "roll-calls": { type: "string", default: "0" },
      check: { type: "boolean", default: false },
      force: { type: "boolean", default: false },
    },
  });
  const clients = Number(values.clients);
  if (!Number.isInteger(clients) || clients < 1) throw new Error("--clients takes a whole number from 1");
  if (!["epoll", "uring"].includes(values.driver)) throw new Error("--driver takes epoll or uring");
  const [serverCore, generatorCore] = values.cores.split(",").map(Number);
  if (!Number.isInteger(generatorCore) || serverCore === generatorCore) {
    throw new Error("--cores takes two different cores, the server's and the generator's, as 0,1");
  }
  return {
    ...values,
    clients,
    side: Math.min(Number(values.side), clients),
    hold: Number(values.hold),
    serverCore,
    generatorCore,
    shards: shardsFor(clients),
    sources: sourcesFor(clients),
  };
}

/** Says what the machine needs, and whether that will do. */
function sufficient({ clients, force }) {
  const found = needs(clients);
  say(`${figures(clients)} connections, both ends on this machine:`);
  for (const { what, needed, has, enough, hard, note, remedy } of found) {
    const mark = enough ? "ok      " : hard ? "too low " : "low     ";
    say(`${mark} ${what}: needs ${needed}, has ${has ?? "unknown"}${note && ` (${note})`}`);
    if (!enough) say(`         ${remedy}`);
  }
  const short = found.filter(({ enough, hard }) => hard && !enough);
  if (short.length === 0 || force) return true;
  say("What is too low makes the run impossible; change it, or try all the same with --force.");
  process.exitCode = 1;
  return false;
}

async function measure(options) {
  if (!existsSync(LOAD)) throw new Error(`there is no ${relative(ROOT, LOAD)}; run 'make million'`);
  rmSync(OUT, { recursive: true, force: true });
  mkdirSync(OUT, { recursive: true });
  // This program and whatever it starts keep off the server's core.
  execFileSync("taskset", ["-acp", String(options.generatorCore), String(process.pid)], { stdio: "ignore" });
  const log = join(OUT, "server.log");
  const command = engine(options.driver, {
    "server.shards": options.shards,
    "heartbeat.ping_interval_ms": HEARTBEAT_MS,
    "debug.turn_clock": true,
  });
  const available = bytes(read("/proc/meminfo"), "MemAvailable");
  const server = await start({ name: "throng", command, cores: options.serverCore, log });
  const watch = new Watch(server);
  let run, looks, recorded;
  try {
    const args = scenario(options, server);
    say(`throng-load ${args.join(" ")}`);
    // Opening a connection over loopback is billed to whoever connects, so the generator may use what the
    // server leaves of its core until everybody is there; from then on each has its own.
    const cores = `${options.serverCore},${options.generatorCore}`;
    const place = { core: cores, pid: server.pid, log, json: join(OUT, "outcome.json") };
    const part = () =>
      execFileSync("taskset", ["-acp", String(options.generatorCore), String(watch.generator)], { stdio: "ignore" });
    const profiling = profileInHold(options, server, part);
    try {
      run = await generate({ args, ...place, limit: RUN_LIMIT_MS, started: (pid) => (watch.generator = pid) });
    } finally {
      recorded = await profiling.end();
    }
  } finally {
    looks = watch.stop();
    await server.stop();
    writeFileSync(join(OUT, "looks.json"), JSON.stringify(looks));
  }
  const made = { options, outcome: run.outcome, looks, lines: counterLines(log), profile: shares(recorded), available, heartbeat: HEARTBEAT_MS };
  const lines = surroundings({ serverCores: options.serverCore, generatorCore: options.generatorCore });
  const text = `${report(made)}\n\n${lines.join("\n")}\n`;
  writeFileSync(join(OUT, "table.md"), text);
  process.stdout.write(text);
  say(`kept in ${relative(ROOT, OUT)}; the page of the run is ${relative(ROOT, join(OUT, "report.html"))}`);
  if (!run.outcome.verdict.passed) process.exitCode = 1;
}

function scenario(options, { address }) {
  const { clients, sources, hold, side, rate, duration } = options;
  const crowd = ["--clients", String(clients), "--src", sources, "--hold", String(hold)];
  const load = ["--side", String(side), "--rate", rate, "--duration", duration, "--broadcast", "1"];
  const rest = ["--set", `crowd.roll_calls=${options["roll-calls"]}`, "--set", "crowd.at_once=2048", "--patience-ms", "60000"];
  const page = ["--report", relative(ROOT, join(OUT, "report.html"))];
  return ["idle", "--url", `ws://${address}/ws`, ...crowd, ...load, ...rest, ...page];
}

/** Calls `part` once everybody is there and profiles the server in the middle of the hold. Its counters tell when everybody is there; the generator says it at the end only. */
function profileInHold({ clients, hold, generatorCore }, server, part) {
  let recording, later;
  const seconds = Math.min(PROFILE_S, Math.floor(hold / 2));
  const timer = setInterval(() => {
    const open = counterLines(server.log).at(-1)?.open_connections ?? 0;
    if (open < clients || seconds === 0) return;
    clearInterval(timer);
    part();
    later = setTimeout(
      () => {
        recording = profile(server.pid, seconds, generatorCore, join(OUT, "perf.data"));
      },
      ((hold - seconds) / 2) * 1000,
    );
  }, 1000);
  return {
    end: () => {
      clearInterval(timer);
      clearTimeout(later);
      return recording;
    },
  };
}
