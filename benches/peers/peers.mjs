// Who is measured: how each server is started, what it speaks and which version it is.
//
// This is the only file that knows the peers by name; the check and the runner walk the list. A server is
// a child process on a core of its own. It is ready when it prints its address, and it is ended by the
// handle kept here and by nothing else.

import { spawn } from "node:child_process";
import { createWriteStream, existsSync, mkdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
/** The root of the source tree. */
export const ROOT = resolve(HERE, "../..");
/** Where results, logs and the Rust peers go. */
export const OUT = join(ROOT, "target/peers");

const BUN = join(HERE, "node_modules/.bin/bun");
const THRONG = resolve(ROOT, process.env.THRONG_BIN ?? "target/release/throng");
/** The generator, which also serves the floors. */
export const LOAD = resolve(ROOT, process.env.THRONG_LOAD ?? "target/release/throng-load");

/** Longest wait for the line that names the address, in milliseconds. */
const START_LIMIT_MS = 20_000;
/** Longest wait for an exit after SIGTERM before SIGKILL, in milliseconds. */
const STOP_LIMIT_MS = 20_000;

const ADDRESS = /\b(\d{1,3}(?:\.\d{1,3}){3}:\d+)\b/;
/** Raises the limit on descriptors as far as it goes, then becomes the program: the process id stays. */
const PINNED = 'ulimit -n "$(ulimit -Hn)"; core=$1; shift; exec taskset -c "$core" "$@"';

/**
 * Every server, in the order of the table.
 *
 * `command` is what to start, given the scenario and the core; nothing for a scenario the server has no
 * part in. `speaks` is its dialect. `own` marks what is not a peer: the floor and ours.
 */
export const PEERS = [
  {
    name: "floor",
    own: true,
    speaks: "plain",
    command: (scenario, core) =>
      scenario?.floor && [LOAD, "floor", scenario.floor, "--listen", "127.0.0.1:0", "--core", String(core)],
    version: () => "bare system calls",
  },
  { name: "throng-epoll", own: true, speaks: "throng", command: () => throng("epoll"), version: throngVersion },
  { name: "throng-uring", own: true, speaks: "throng", command: () => throng("uring"), version: throngVersion },
  { name: "bun", speaks: "plain", command: () => [BUN, join(HERE, "bun.mjs")], version: () => npmVersion("bun") },
  {
    name: "tokio-tungstenite",
    speaks: "plain",
    command: () => [join(OUT, "build/release/tokio-tungstenite")],
    version: () => `${cargoVersion("tokio-tungstenite")}, tokio ${cargoVersion("tokio")}`,
  },
  {
    name: "fastwebsockets",
    speaks: "plain",
    command: () => [join(OUT, "build/release/fastwebsockets")],
    version: () => `${cargoVersion("fastwebsockets")}, hyper ${cargoVersion("hyper")}`,
  },
  {
    name: "ws",
    speaks: "plain",
    command: () => [process.execPath, join(HERE, "ws.mjs")],
    version: () => `${npmVersion("ws")}, bufferutil ${npmVersion("bufferutil")}, Node ${process.version}`,
  },
  {
    name: "socketio",
    speaks: "socketio",
    command: () => [process.execPath, join(HERE, "socketio.mjs")],
    version: () => `${npmVersion("socket.io")}, Node ${process.version}`,
  },
];

function throng(driver) {
  const settings = {
    "server.listen": "127.0.0.1:0",
    "server.shards": 1,
    "server.driver": driver,
    "server.pin": false,
    "debug.echo_path": "/echo",
  };
  const args = Object.entries(settings).flatMap(([key, value]) => ["--set", `${key}=${value}`]);
  return [THRONG, "run", ...args];
}

function throngVersion() {
  return /^version = "(.*)"/m.exec(readFileSync(join(ROOT, "Cargo.toml"), "utf8"))[1];
}

function npmVersion(name) {
  return JSON.parse(readFileSync(join(HERE, "node_modules", name, "package.json"), "utf8")).version;
}

function cargoVersion(name) {
  const lock = readFileSync(join(HERE, "rust/Cargo.lock"), "utf8");
  return new RegExp(`name = "${name}"\nversion = "(.*)"`).exec(lock)[1];
}

/** Runs a program on one core, with as many descriptors as it may have. It does not outlive this process. */
export function pinned(core, command, options) {
  const child = spawn("bash", ["-c", PINNED, "bash", String(core), ...command], options);
  const orphan = () => child.kill("SIGKILL");
  process.once("exit", orphan);
  child.once("exit", () => process.removeListener("exit", orphan));
  return child;
}

for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));

/** Starts a peer for a scenario and resolves once it has named its address. */
export async function start(peer, { core, scenario, log }) {
  const command = peer.command(scenario, core);
  if (!existsSync(command[0])) {
    throw new Error(`${peer.name}: there is no ${relative(ROOT, command[0])}; run 'make peers'`);
  }
  mkdirSync(dirname(log), { recursive: true });
  const child = pinned(core, command, { cwd: ROOT, stdio: ["ignore", "pipe", "pipe"] });
  const server = new Server(peer, child, createWriteStream(log, { flags: "a" }));
  server.address = await server.announced();
  return server;
}

class Server {
  constructor(peer, child, sink) {
    this.peer = peer;
    this.child = child;
    this.pid = child.pid;
    this.said = "";
    this.exited = new Promise((done) => {
      child.once("exit", (code, signal) => done(signal ?? `exit code ${code}`));
      child.once("error", (error) => done(error.message));
    });
    this.exited.then(() => sink.end());
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8");
      stream.on("data", (text) => {
        if (!sink.writableEnded) sink.write(text);
        if (this.address === undefined) this.said += text;
        this.heard?.();
      });
    }
  }

  /** Resolves with `host:port` when the server says it; rejects when it ends or stays silent instead. */
  announced() {
    return new Promise((resolveAddress, reject) => {
      const fail = (why) => {
        this.child.kill("SIGKILL");
        reject(new Error(`${this.peer.name}: ${why}\n${this.said}`));
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
