// Runs the same scenarios against the engine and its peers, interleaved, and prints one table.
//
//   node run.mjs [--more] [--rounds N] [--only PEER,...] [--scenario NAME,...] [--quick] [--cores SERVER,GENERATOR]
//   node run.mjs --table          the table of what was kept, without running anything
//
// A machine drifts between minutes by more than servers differ. So a round is every scenario against every
// server in turn, and rounds follow each other, rather than one server being measured to the end before
// the next. Each run has a fresh server on one core and the generator on another. What the generator wrote
// of every run is kept as it is under target/peers/runs, so that `throng-load compare` can read it too, the
// table in target/peers/table.md; --more adds rounds to what is kept, for a machine that is not free long
// enough for all of them at once; progress goes to standard error. Nothing in this file knows a server or a
// flag of the generator: peers.mjs and scenarios.mjs do.

import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { parseArgs } from "node:util";

import { counts, generate, reasons } from "../tools/generator.mjs";
import { surroundings } from "../tools/machine.mjs";
import { LOAD, ROOT } from "../tools/servers.mjs";
import { OUT, PEERS, start } from "./peers.mjs";
import { SCENARIOS, scenarioArguments } from "./scenarios.mjs";
import { exceptions, table } from "./table.mjs";

const RUNS = join(OUT, "runs");
/** Which runs there were, and where and with what they were made. */
const INDEX = join(RUNS, "index.json");
/** Longest a run of the generator may take, in milliseconds; a run is planned for a tenth of it. */
const RUN_LIMIT_MS = 300_000;

const say = (text) => process.stderr.write(`${text}\n`);

let options;
try {
  options = read(process.argv.slice(2));
  if (!options.tableOnly) await measure();
  report();
} catch (error) {
  say(`run.mjs: ${error.message}`);
  process.exitCode = 1;
}

function read(args) {
  const { values } = parseArgs({
    args,
    options: {
      rounds: { type: "string" },
      only: { type: "string" },
      scenario: { type: "string" },
      cores: { type: "string", default: "0,1" },
      quick: { type: "boolean", default: false },
      table: { type: "boolean", default: false },
      more: { type: "boolean", default: false },
    },
  });
  const rounds = Number(values.rounds ?? (values.quick ? 1 : 5));
  const cores = values.cores.split(",").map(Number);
  if (!Number.isInteger(rounds) || rounds < 1) throw new Error("--rounds takes a whole number from 1");
  if (cores.length !== 2 || !cores.every(Number.isInteger) || cores[0] === cores[1]) {
    throw new Error("--cores takes two different cores, the server's and the generator's, as 0,1");
  }
  return {
    args,
    rounds,
    serverCore: cores[0],
    generatorCore: cores[1],
    quick: values.quick,
    tableOnly: values.table,
    more: values.more,
    peers: chosen(PEERS, values.only, "--only"),
    scenarios: chosen(SCENARIOS, values.scenario, "--scenario"),
  };
}

/** The named ones in their usual order, all when nothing is named. */
function chosen(all, names, flag) {
  if (names === undefined) return all;
  const known = all.map((one) => one.name);
  for (const name of names.split(",")) {
    if (!known.includes(name)) throw new Error(`${flag}: no ${name}; there are ${known.join(", ")}`);
  }
  return all.filter((one) => names.split(",").includes(one.name));
}

async function measure() {
  const { peers, scenarios } = options;
  if (!existsSync(LOAD)) throw new Error(`there is no generator at ${LOAD}; run 'make peers'`);
  const before = options.more && existsSync(INDEX) ? JSON.parse(readFileSync(INDEX, "utf8")).runs : [];
  if (!options.more) rmSync(RUNS, { recursive: true, force: true });
  mkdirSync(RUNS, { recursive: true });
  const kept = { ...about(), runs: before };
  const pairs = scenarios.flatMap((scenario) => peers.map((peer) => ({ scenario, peer })));
  const plan = pairs.filter(({ scenario, peer }) => peer.command(scenario));
  const first = Math.max(0, ...before.map(({ round }) => round)) + 1;
  const last = first + options.rounds - 1;
  for (let round = first; round <= last; round += 1) {
    for (const [nth, { scenario, peer }] of plan.entries()) {
      const run = await once(round, scenario, peer);
      kept.runs.push({ ...run, outcome: undefined });
      writeFileSync(INDEX, JSON.stringify(kept, null, 2));
      const place = `round ${round}/${last}, ${nth + 1}/${plan.length}`;
      say(`${place}: ${scenario.name} ${peer.name}: ${summary(scenario, run)}`);
    }
  }
}

/** A server, the scenario once for warmth where it asks for that, once for the figures, and the end. */
async function once(round, scenario, peer) {
  const run = { round, scenario: scenario.name, peer: peer.name };
  let server;
  try {
    const log = join(OUT, "logs", `${scenario.name}-${peer.name}.log`);
    server = await start(peer, { core: options.serverCore, scenario, log });
    if (scenario.warm) await play({ scenario, server, quick: true, json: join(OUT, "warm.json") });
    run.outcome = await play({ scenario, server, quick: options.quick, json: outcomeOf(run) });
  } catch (error) {
    run.failure = error.message;
  } finally {
    await server?.stop();
  }
  return run;
}

/** One run of the generator, of the scenario or of its small form. */
async function play({ scenario, server, quick, json }) {
  const args = scenarioArguments({ scenario, server, quick });
  const place = { core: options.generatorCore, pid: server.pid, json, limit: RUN_LIMIT_MS };
  return (await generate({ args, ...place })).outcome;
}

function outcomeOf({ round, scenario, peer }) {
  return join(RUNS, `${scenario}-${peer}-${round}.json`);
}

function summary(scenario, run) {
  if (!counts(run)) return `does not count: ${reasons(run)}`;
  const figures = scenario.figures.map(({ what, read }) => [what, read(run.outcome)]);
  return figures.map(([what, value]) => `${what} ${value?.toFixed(2) ?? "unknown"}`).join(", ");
}

/** Where and with what the runs were made, as lines. */
function about() {
  const { peers } = options;
  return {
    command: `node benches/peers/run.mjs ${options.args.join(" ")}`.trim(),
    lines: [
      ...surroundings({ serverCores: options.serverCore, generatorCore: options.generatorCore }),
      ...peers.map((peer) => `- ${peer.name}: ${peer.version()}`),
    ],
  };
}

function report() {
  const { peers, scenarios } = options;
  if (!existsSync(INDEX)) throw new Error(`nothing is kept under ${relative(ROOT, RUNS)}`);
  const { command, lines, runs: index } = JSON.parse(readFileSync(INDEX, "utf8"));
  const runs = index.map((run) => {
    if (run.failure !== undefined) return run;
    return { ...run, outcome: JSON.parse(readFileSync(outcomeOf(run), "utf8")) };
  });
  const seen = (key, one) => runs.some((run) => run[key] === one.name);
  const shown = {
    runs,
    scenarios: scenarios.filter((scenario) => seen("scenario", scenario)),
    peers: peers.filter((peer) => seen("peer", peer)),
  };
  const out = exceptions(runs);
  const text = [
    table(shown),
    `Medians, lowest and highest in brackets; ${Math.max(...runs.map((run) => run.round))} interleaved rounds.`,
    `    ${command}`,
    lines.join("\n"),
    ...(out.length > 0 ? [`Runs that do not count:\n\n${out.join("\n")}`] : []),
  ].join("\n\n");
  writeFileSync(join(OUT, "table.md"), `${text}\n`);
  console.log(text);
  say(`kept in ${relative(ROOT, OUT)}`);
  if (!runs.some(counts)) process.exitCode = 1;
}
