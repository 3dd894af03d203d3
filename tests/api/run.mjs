// Asks a running node all that its own OpenAPI document allows, and what it does not allow, on every driver.
//
// Schemathesis reads `/v1/openapi.json` from the node and makes requests of it: good ones, broken ones, with keys
// and without. Each answer must have a status, a type, headers and a form that the document gives, none may be a
// server's error, and what the document forbids must be refused. One of its checks is left out: that whatever fits
// the schema is accepted. Some rules no schema can say, such as lengths in bytes, one field of three, and a
// whole number that is not to be written as 5.0.
//
// Requests are made from a fixed seed, so a run can be repeated. Exit codes: 0 all as described, or there is
// no Python that will do and nothing was run (said loudly); 1 otherwise.

import { spawn } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { DRIVERS, ROOT, startEngine } from "../tools/engine.mjs";

const HERE = join(ROOT, "tests/api");
const OUT = join(ROOT, "target/api");
const SECRET = "a secret of sixteen bytes or more";
const SCOPES = ["tickets", "revoke", "inspect", "notify", "publish"];
/** Requests made up for each endpoint, beside those at the edges of what is allowed. */
const EXAMPLES = 50;
/** A run takes some twenty seconds; one that is still busy after this long is stuck. */
const RUN_LIMIT_MS = 5 * 60_000;
/** Endpoints in the document, at the least: a run that saw fewer did not read it. */
const ENDPOINTS = 20;

/** Runs a program to its end; resolves with its exit code and what it wrote. */
function run(program, args, options = {}) {
  return new Promise((done, reject) => {
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], ...options });
    const limit = setTimeout(() => child.kill("SIGKILL"), RUN_LIMIT_MS);
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

/** Everything about one driver: how many requests were as described, how many not, and what to say of those. */
async function conform(driver, st) {
  const folder = join(OUT, driver);
  mkdirSync(folder, { recursive: true });
  const engine = await startEngine({
    settings: {
      "server.driver": driver,
      "server.shards": 2,
      "admin.listen": "127.0.0.1:0",
      "admin.requests_per_second": 1_000_000,
      // A busy machine is no fault of the node.
      "admin.shard_timeout_ms": 10_000,
      key: `[{name="api", secret="${SECRET}", scopes=${JSON.stringify(SCOPES)}}]`,
      "auth.mode": "token",
      "auth.secret": JSON.stringify("a secret of no less than 32 byte"),
      "auth.sources": JSON.stringify(["ticket", "header"]),
    },
    log: join(folder, "engine.log"),
  });
  const url = /admin on (http:\/\/[\d.]+:\d+)/.exec(engine.said)?.[1];
  if (url === undefined) throw new Error(`the engine named no admin listener:\n${engine.said}`);
  const args = ["run", `${url}/v1/openapi.json`, "--url", url, "-H", `Authorization: Bearer ${SECRET}`];
  args.push("--phases", "coverage,fuzzing", "--exclude-checks", "positive_data_acceptance");
  args.push("--max-examples", String(EXAMPLES), "--seed", "1", "--no-color", "--workers", "1");
  const client = await run(st, args, { cwd: folder });
  writeFileSync(join(folder, "client.log"), client.stdout + client.stderr);
  const end = await engine.stop();
  const faults = [];
  if (end.code !== 0) faults.push(`the engine ended with ${end.signal ?? `exit code ${end.code}`}`);
  const tested = Number(/^\s+Tested: (\d+)$/m.exec(client.stdout)?.[1] ?? 0);
  if (tested < ENDPOINTS) faults.push(`${tested} endpoints were tried, at least ${ENDPOINTS} were to be`);
  const made = Number(/^\s+(\d+) generated/m.exec(client.stdout)?.[1] ?? 0);
  if (client.code !== 0) {
    const from = client.stdout.indexOf("= FAILURES");
    faults.push((from < 0 ? client.stdout.slice(-4000) : client.stdout.slice(from)) + client.stderr);
  }
  return { made, faults };
}

const install = await run("bash", [join(HERE, "install.sh")]);
if (install.code === 3) {
  console.log("api: SCHEMATHESIS WAS LEFT OUT. It runs on Python 3.10 or later with venv, and there is none here.");
  console.log("api: install one (apt-get install python3-venv) or name it in PYTHON3.");
  console.log("api: 0 passed, 0 failed");
  process.exit(0);
}
if (install.code !== 0) {
  console.error(`api: Schemathesis could not be installed\n${install.stderr}`);
  process.exit(1);
}

rmSync(OUT, { recursive: true, force: true });
let passed = 0;
let failed = 0;
for (const driver of DRIVERS) {
  const { made, faults } = await conform(driver, install.stdout.trim()).catch((error) => ({
    made: 0,
    faults: [error.message],
  }));
  passed += Math.max(0, made - faults.length);
  failed += faults.length;
  for (const fault of faults) console.log(`  ${driver}: ${fault}`);
  console.log(`api ${driver}: ${made} requests, ${faults.length} faults`);
}
console.log(`api: ${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
