// Runs Autobahn's fuzzing client against the engine's echo endpoint, on every driver at once, and holds
// the verdict on each case against `expected.txt`.
//
// Autobahn itself never fails a run: it writes reports, and "non-strict" is a passing colour in them.
// Here a case passes only with the word that is checked in, and a case that did not run has not passed.
// Of groups 12 and 13 (compression) some cases are run, with an engine that has it on: some of all 216 take a minute and
// more each, mostly of Autobahn's own.
//
// Autobahn judges some cases by its own clock, and gives half a second for an answer that takes a
// millisecond. On a machine that is busy with something else a case can fail for that alone, so a few
// cases that failed are run once more by themselves, and each of them is named in the output. What
// fails again, or is one of many, has failed.
//
// Exit codes: 0 all as expected, or Python 2.7 is missing and nothing was run (said loudly);
// 1 otherwise.

import { spawn } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { DRIVERS, ROOT, startEngine } from "../tools/engine.mjs";

const HERE = join(ROOT, "tests/conformance");
const OUT = join(HERE, "out");
const GROUPS = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"];
const COMPRESSED = [
  "12.1.1", "12.1.5", "12.4.12", "13.1.1", "13.2.2", "13.3.3", "13.4.4", "13.5.5", "13.6.6", "13.7.7",
];
const ECHO_PATH = "/echo";
/** More failures than this are no accident of time, and are not run again. */
const AGAIN_LIMIT = 10;
/** The whole run takes about a minute and a half; a client still busy after this long is stuck. */
const RUN_LIMIT_MS = 10 * 60_000;

/** Runs a program to its end; resolves with its exit code and standard output. */
function run(program, args, { cwd, limitMs } = {}) {
  return new Promise((done, reject) => {
    const child = spawn(program, args, { cwd, stdio: ["ignore", "pipe", "pipe"] });
    const limit = limitMs && setTimeout(() => child.kill("SIGKILL"), limitMs);
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (text) => (stdout += text));
    child.stderr.on("data", (text) => (stderr += text));
    child.once("error", reject);
    child.once("close", (code, signal) => {
      clearTimeout(limit);
      done({ code: code ?? signal, stdout, stderr });
    });
  });
}

function expectations() {
  const lines = readFileSync(join(HERE, "expected.txt"), "utf8").split("\n");
  const cases = lines.filter((line) => line !== "" && !line.startsWith("#")).map((line) => line.split(" "));
  return new Map(cases.map(([id, behavior, behaviorClose]) => [id, { behavior, behaviorClose }]));
}

/** Compares one driver's verdicts with what is expected; returns a line by case for each disagreement. */
function disagreements(expected, verdicts) {
  const lines = new Map();
  for (const [id, want] of expected) {
    const got = verdicts[id];
    if (got === undefined) {
      lines.set(id, `case ${id} did not run`);
    } else if (got.behavior !== want.behavior || got.behaviorClose !== want.behaviorClose) {
      lines.set(
        id,
        `case ${id}: ${got.behavior}, close ${got.behaviorClose} (code ${got.remoteCloseCode}); ` +
          `expected ${want.behavior}, close ${want.behaviorClose}`,
      );
    }
  }
  for (const id of Object.keys(verdicts)) {
    if (!expected.has(id)) lines.set(id, `case ${id} ran but expected.txt does not know it`);
  }
  return lines;
}

/** All cases on one driver, and those of a few failures once more. */
async function conform(driver, wstest, expected) {
  const started = performance.now();
  const first = await fuzz(driver, wstest, [...GROUPS, ...COMPRESSED], join(OUT, driver));
  let lines = disagreements(expected, first.verdicts);
  const again = [];
  let second = first;
  if (lines.size > 0 && lines.size <= AGAIN_LIMIT) {
    again.push(...lines.values());
    second = await fuzz(driver, wstest, [...lines.keys()], join(OUT, `${driver}-again`));
    lines = disagreements(expected, { ...first.verdicts, ...second.verdicts });
  }
  const faults = [...lines.values()];
  for (const end of new Set([first.end, second.end])) {
    if (end.code !== 0) faults.push(`the engine ended with ${end.signal ?? `exit code ${end.code}`}`);
  }
  return { driver, lines: faults, again, seconds: (performance.now() - started) / 1000 };
}

/** Runs the named cases against an engine of their own; resolves with Autobahn's verdicts and its end. */
async function fuzz(driver, wstest, cases, folder) {
  mkdirSync(folder, { recursive: true });
  const engine = await startEngine({
    settings: {
      "server.driver": driver,
      "server.shards": 1,
      "debug.echo_path": ECHO_PATH,
      "compression.enabled": true,
      "compression.min_bytes": 16,
    },
    log: join(folder, "engine.log"),
  });
  const spec = {
    outdir: "reports",
    servers: [{ agent: driver, url: `ws://${engine.address}${ECHO_PATH}`, options: { version: 18 } }],
    cases,
    "exclude-cases": [],
    "exclude-agent-cases": {},
  };
  writeFileSync(join(folder, "spec.json"), JSON.stringify(spec, null, 2));
  const client = await run(wstest, ["-m", "fuzzingclient", "-s", "spec.json"], {
    cwd: folder,
    limitMs: RUN_LIMIT_MS,
  });
  writeFileSync(join(folder, "client.log"), client.stdout + client.stderr);
  const end = await engine.stop();
  return { verdicts: readVerdicts(folder, driver), end };
}

function readVerdicts(folder, driver) {
  try {
    return JSON.parse(readFileSync(join(folder, "reports/index.json"), "utf8"))[driver] ?? {};
  } catch (error) {
    if (error.code === "ENOENT") return {};
    throw error;
  }
}

const install = await run("bash", [join(HERE, "install.sh")]);
if (install.code === 3) {
  console.log("conformance: AUTOBAHN WAS LEFT OUT. Its testsuite runs on Python 2.7 only, and there is none here.");
  console.log("conformance: install one (pyenv install 2.7.18) or name it in PYTHON27 to run the 311 cases.");
  console.log("conformance: 0 passed, 0 failed");
  process.exit(0);
}
if (install.code !== 0) {
  console.error(`conformance: Autobahn could not be installed\n${install.stderr}`);
  process.exit(1);
}

rmSync(OUT, { recursive: true, force: true });
const expected = expectations();
const results = await Promise.all(
  DRIVERS.map((driver) =>
    conform(driver, install.stdout.trim(), expected).catch((error) => ({
      driver,
      lines: [...expected.keys()].map((id) => `case ${id} did not run`),
      again: [],
      broken: error.message,
      seconds: 0,
    })),
  ),
);

let passed = 0;
let failed = 0;
for (const { driver, lines, again, seconds, broken } of results) {
  if (broken) console.log(`  ${driver}: ${broken}`);
  const good = Math.max(0, expected.size - lines.length);
  passed += good;
  failed += lines.length;
  for (const line of again) console.log(`  ${driver}: run again by itself: ${line}`);
  for (const line of lines.slice(0, 40)) console.log(`  ${driver}: ${line}`);
  if (lines.length > 40) console.log(`  ${driver}: and ${lines.length - 40} more`);
  console.log(`conformance ${driver}: ${good} of ${expected.size} cases as expected, ${seconds.toFixed(0)} s`);
}
console.log(`conformance: ${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
