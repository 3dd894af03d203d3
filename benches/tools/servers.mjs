// How a server is started, found and ended, whoever it is.
//
// A server is a child process on cores of its own. It is ready when it prints its address on standard output,
// and it is ended by the handle kept here and by nothing else. What it says goes to a file, standard error
// directly, so that nobody who measures it has to carry its log. The engine and the generator's bare server,
// the floor, are known here because everything that measures starts them; other servers bring a command.

import { spawn } from "node:child_process";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeSync } from "node:fs";
import { dirname, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** The root of the source tree. */
export const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
/** The engine. */
export const THRONG = resolve(ROOT, process.env.THRONG_BIN ?? "target/release/throng");
/** The generator, which also serves the floor. */
export const LOAD = resolve(ROOT, process.env.THRONG_LOAD_BIN ?? "target/release/throng-load");

/** Longest wait for the line that names the address, in milliseconds. */
const START_LIMIT_MS = 20_000;
/** Longest wait for an exit after SIGTERM before SIGKILL, in milliseconds. */
const STOP_LIMIT_MS = 20_000;

const ADDRESS = /\b(\d{1,3}(?:\.\d{1,3}){3}:\d+)\b/;
/** Raises the limit on descriptors as far as it goes, then becomes the program: the process id stays. */
const PINNED = 'ulimit -n "$(ulimit -Hn)"; cores=$1; shift; exec taskset -c "$cores" "$@"';

/** The command of the engine with one shard and an echo endpoint, as far as `settings` say nothing else. */
export function engine(driver, settings = {}) {
  const all = {
    "server.listen": "127.0.0.1:0",
    "server.shards": 1,
    "server.driver": driver,
    "server.pin": false,
    "debug.echo_path": "/echo",
    // What is measured is sent faster than a client may send by default.
    "limits.messages_per_second": 0,
    ...settings,
  };
  return [THRONG, "run", ...Object.entries(all).flatMap(([key, value]) => ["--set", `${key}=${value}`])];
}

/** The command of the floor. */
export function floor() {
  return [LOAD, "floor", "--listen", "127.0.0.1:0"];
}

/** Runs a program on some cores, with as many descriptors as it may have. It does not outlive this process. */
export function pinned(cores, command, options) {
  const child = spawn("bash", ["-c", PINNED, "bash", String(cores), ...command], options);
  const orphan = () => child.kill("SIGKILL");
  process.once("exit", orphan);
  child.once("exit", () => process.removeListener("exit", orphan));
  return child;
}

for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));

/** Starts a server on some cores and resolves once it has named its address. `log` is a file, appended to. */
export async function start({ name, command, cores, log }) {
  if (!existsSync(command[0])) {
    throw new Error(`${name}: there is no ${relative(ROOT, command[0])}; see benches/README.md`);
  }
  mkdirSync(dirname(log), { recursive: true });
  const server = new Server(name, command, cores, log);
  server.address = await server.announced();
  return server;
}

class Server {
  constructor(name, command, cores, log) {
    this.name = name;
    this.log = log;
    this.sink = openSync(log, "a");
    this.child = pinned(cores, command, { cwd: ROOT, stdio: ["ignore", "pipe", this.sink] });
    this.pid = this.child.pid;
    this.said = "";
    this.exited = new Promise((done) => {
      this.child.once("close", (code, signal) => done(signal ?? `exit code ${code}`));
      this.child.once("error", (error) => done(error.message));
    });
    this.exited.then(() => closeSync(this.sink));
    this.child.stdout.setEncoding("utf8");
    this.child.stdout.on("data", (text) => {
      writeSync(this.sink, text);
      if (this.address === undefined) this.said += text;
      this.heard?.();
    });
  }

  /** Resolves with `host:port` when the server says it; rejects when it ends or stays silent instead. */
  announced() {
    return new Promise((resolveAddress, reject) => {
      const fail = (why) => {
        this.child.kill("SIGKILL");
        const last = readFileSync(this.log, "utf8").trim().split("\n").slice(-5).join("\n");
        reject(new Error(`${this.name}: ${why}\n${last}`));
      };
      const limit = setTimeout(() => fail("named no address in time"), START_LIMIT_MS);
      this.heard = () => {
        const found = ADDRESS.exec(this.said.replaceAll(/\x1b\[[0-9;]*m/g, ""));
        if (found === null) return;
        clearTimeout(limit);
        this.heard = undefined;
        resolveAddress(found[1]);
      };
      this.exited.then((end) => {
        clearTimeout(limit);
        fail(`ended before it named an address (${end})`);
      });
    });
  }

  /** Ends the server, and insists after a while. */
  async stop() {
    this.child.kill("SIGTERM");
    const insist = setTimeout(() => this.child.kill("SIGKILL"), STOP_LIMIT_MS);
    await this.exited;
    clearTimeout(insist);
  }
}
