// Measures the goals: each beside the floor of the same round, both drivers interleaved, as one table.
//
//   node goals.mjs [--only GOAL,...] [--rounds N] [--more] [--quick] [--cores SERVER,GENERATOR[,SECOND]] [--mesh]
//   node goals.mjs --table          the table of what was kept, without running anything
//
// A round is every step that the goals ask for, against the floor, epoll and io_uring in turn; which of them
// begins changes with the round. Each run has a fresh server. A run that the generator calls void, or that
// failed, is made again at most twice and listed when it never counted. What the generator wrote is kept in
// target/goals; --more adds its rounds to those kept, where the machine is not free for all of them at one
// time. --quick only shows that everything runs: once, small, void runs counted. SECOND is the core of a second shard, where a goal is about two of them.

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import { join, relative } from "node:path";
import { parseArgs } from "node:util";

import { counts, generate, reasons } from "../tools/generator.mjs";
import { surroundings } from "../tools/machine.mjs";
import { LOAD, ROOT, start } from "../tools/servers.mjs";
import { ELSEWHERE, GOALS } from "./lines.mjs";
import { argumentsOf, commandOf, steps } from "./steps.mjs";
import { table } from "./table.mjs";

const OUT = join(ROOT, "target/goals");
const INDEX = join(OUT, "index.json");
/** Longest that one run of the generator may take, in milliseconds; a search is many runs. */
const RUN_LIMIT_MS = 600_000;
/** How often a run that does not count is made again. */
const AGAIN = 2;

const say = (text) => process.stderr.write(`${text}\n`);

try {
  const options = readOptions();
  if (!options.tableOnly) await measure(options);
  report(options);
} catch (error) {
  say(`goals.mjs: ${error.message}`);
  process.exitCode = 1;
}

function readOptions() {
  const args = process.argv.slice(2);
  const { values } = parseArgs({
    args,
    options: {
      only: { type: "string" },
      rounds: { type: "string" },
      cores: { type: "string", default: "0,1" },
      more: { type: "boolean", default: false },
      quick: { type: "boolean", default: false },
      mesh: { type: "boolean", default: false },
      table: { type: "boolean", default: false },
    },
  });
  const rounds = Number(values.rounds ?? (values.quick ? 1 : 5));
  if (!Number.isInteger(rounds) || rounds < 1) throw new Error("--rounds takes a whole number from 1");
  const [serverCore, generatorCore, secondCore = os.cpus().length > 2 ? 2 : generatorCore] = values.cores.split(",").map(Number);
  if (!Number.isInteger(generatorCore) || !Number.isInteger(secondCore) || serverCore === generatorCore) {
    throw new Error("--cores takes the server's core and another, the generator's, as 0,1; a third is a second shard's");
  }
  const cores = { server: serverCore, generator: generatorCore, second: secondCore };
  return { args, rounds, cores, quick: values.quick, more: values.more, mesh: values.mesh, tableOnly: values.table, goals: chosen(values.only) };
}

function chosen(names) {
  if (names === undefined) return GOALS;
  const asked = names.split(",");
  for (const name of asked) {
    if (ELSEWHERE[name]) throw new Error(`--only: ${name} is measured by '${ELSEWHERE[name]}'`);
    if (!GOALS.some(({ id }) => id === name)) {
      throw new Error(`--only: no ${name}; there are ${GOALS.map(({ id }) => id).join(", ")}`);
    }
  }
  return GOALS.filter(({ id }) => asked.includes(id));
}

async function measure(options) {
  if (!existsSync(LOAD)) throw new Error(`there is no ${relative(ROOT, LOAD)}; run 'make goals'`);
  const { rounds, goals, quick, cores } = options;
  const before = options.more && existsSync(INDEX) ? JSON.parse(readFileSync(INDEX, "utf8")) : undefined;
  if (before && before.quick !== quick) throw new Error("--more: what is kept was measured otherwise, with or without --quick");
  if (!before) rmSync(OUT, { recursive: true, force: true });
  mkdirSync(join(OUT, "runs"), { recursive: true });
  const known = stepsOf(quick);
  const wanted = new Set(goals.flatMap(({ lines }) => lines.flatMap(({ steps: names }) => names)));
  const names = Object.keys(known).filter((name) => wanted.has(name));
  const command = `node benches/goals/goals.mjs ${options.args.join(" ")}`.trim();
  const kept = {
    command: before ? `${before.command} && ${command}` : command,
    lines: surroundings({ serverCores: cores.server, generatorCore: cores.generator }),
    quick,
    runs: before?.runs ?? [],
  };
  // Each step goes on from its own last round, whichever goals were asked for before.
  const last = (name) => kept.runs.reduce((most, { step, round }) => (step === name ? Math.max(most, round) : most), 0);
  const done = Object.fromEntries(names.map((name) => [name, last(name)]));
  for (let more = 1; more <= rounds; more += 1) {
    for (const name of names) {
      const round = done[name] + more;
      for (const variant of turned(known[name].variants, round - 1)) {
        await tried({ round, step: name, variant }, known[name], options, kept);
      }
    }
  }
  if (options.mesh) kept.mesh = hop();
  writeFileSync(INDEX, JSON.stringify(kept, null, 2));
}

function stepsOf(quick) {
  return steps((full, small) => (quick ? small : full));
}

/** The same list begun further on. */
function turned(list, by) {
  const at = by % list.length;
  return [...list.slice(at), ...list.slice(0, at)];
}

/** A run, and again while it does not count. Only the last is read; all are kept. */
async function tried(run, step, options, kept) {
  for (let attempt = 0; attempt <= AGAIN; attempt += 1) {
    const made = await once({ ...run, attempt }, step, options);
    kept.runs.push({ ...made, outcome: undefined });
    writeFileSync(INDEX, JSON.stringify(kept, null, 2));
    const what = `round ${run.round}: ${run.step} ${run.variant}`;
    if (counts(made)) return say(`${what}: counts`);
    say(`${what}: does not count: ${reasons(made)}`);
    if (options.quick) return undefined;
  }
  return undefined;
}

async function once(run, step, { cores }) {
  const log = join(OUT, "logs", `${run.step}-${run.variant}-${run.round}-${run.attempt}.log`);
  let server;
  try {
    const serverCores = step.second ? `${cores.server},${cores.second}` : cores.server;
    server = await start({ name: run.variant, command: commandOf(step, run.variant), cores: serverCores, log });
    // The floor tells no counters.
    const counters = run.variant === "floor" ? {} : { log };
    const place = { core: cores.generator, pid: server.pid, ...counters, json: outcomeOf(run), limit: RUN_LIMIT_MS };
    const { outcome, printed } = await generate({ args: argumentsOf(step, run.variant, server.address), ...place });
    return { ...run, outcome, printed: printed.split("\n").find((line) => line.startsWith("highest rate")) };
  } catch (error) {
    return { ...run, failure: error.message };
  } finally {
    await server?.stop();
  }
}

function outcomeOf({ step, variant, round, attempt }) {
  return join(OUT, "runs", `${step}-${variant}-${round}-${attempt}.json`);
}

/** The bench of one hop between shards, as its own lines. */
function hop() {
  const bench = ["bench", "--bench", "mesh", "--", "--quick"];
  const text = execFileSync("cargo", bench, { cwd: ROOT, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
  return text.split("\n").filter((line) => line.includes("time:")).map((line) => line.trim().replaceAll(/\s+/g, " "));
}

function report(options) {
  if (!existsSync(INDEX)) throw new Error(`nothing is kept in ${relative(ROOT, OUT)}`);
  const { command, lines, quick, mesh, runs: index } = JSON.parse(readFileSync(INDEX, "utf8"));
  const runs = index.map((run) => {
    if (run.failure !== undefined) return run;
    return { ...run, outcome: { ...JSON.parse(readFileSync(outcomeOf(run), "utf8")), printed: run.printed } };
  });
  const known = stepsOf(quick);
  const goals = options.goals.filter((goal) => goal.lines.some((line) => line.steps.some((name) => runs.some(({ step }) => step === name))));
  const text = [
    table({ goals, runs, steps: known, counts: quick ? ({ outcome }) => outcome?.verdict.passed : counts }),
    ...(quick ? ["Quick: small numbers, and void runs counted with the rest. These figures mean nothing."] : []),
    goals.map(({ id, note }) => `- ${id}: ${note}`).join("\n"),
    ...(mesh ? [`One hop between shards:\n\n${mesh.map((line) => `    ${line}`).join("\n")}`] : []),
    `    ${command}`,
    lines.join("\n"),
    ...listed(runs),
  ].join("\n\n");
  writeFileSync(join(OUT, "table.md"), `${text}\n`);
  process.stdout.write(`${text}\n`);
  say(`kept in ${relative(ROOT, OUT)}`);
  if (!quick && !runs.some(counts)) process.exitCode = 1;
}

/** Runs that do not count, each with the reasons. */
function listed(runs) {
  const out = runs.filter((run) => !counts(run)).map((run) => {
    const kind = run.outcome?.verdict.passed ? "void" : "failed";
    return `- ${kind}: ${run.step}, ${run.variant}, round ${run.round}, attempt ${run.attempt + 1}: ${reasons(run)}`;
  });
  return out.length > 0 ? [`Runs that do not count:\n\n${out.join("\n")}`] : [];
}
