// Starts and stops a real engine for the suites that look at it from outside.
//
// The engine is a child process like any other: it is given port 0, says on its output which address it
// got, and is stopped by the handle kept here. Nothing in this file knows the protocol. A suite learns
// that the engine is ready from what the engine prints and from nothing else; there is no polling of
// ports and no waiting by the clock.

import { spawn } from "node:child_process";
import { createWriteStream, existsSync, mkdirSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** The root of the source tree. */
export const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), "../..");

/** The drivers every outside suite runs on. `THRONG_DRIVERS=epoll` narrows a run by hand. */
export const DRIVERS = (process.env.THRONG_DRIVERS ?? "epoll,uring").split(",");

/** Longest wait for the line that names the address, in milliseconds. */
const START_LIMIT_MS = 20_000;
/** Longest wait for an exit after SIGTERM before SIGKILL, in milliseconds. */
const STOP_LIMIT_MS = 20_000;

/** Where clients are served; the admin listener is named before it. */
const ADDRESS = /(?<!admin on )https?:\/\/((?:\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-f:]+\]|localhost):\d+)/;

/** The binary under test: `THRONG_BIN`, or the debug build. */
export function binary() {
  const path = resolve(ROOT, process.env.THRONG_BIN ?? "target/debug/throng");
  if (!existsSync(path)) {
    throw new Error(`no engine at ${path}: build it with 'cargo build' or name it in THRONG_BIN`);
  }
  return path;
}

/**
 * Starts an engine and resolves once it has named its address.
 *
 * `settings` are configuration keys; `log` is the file that keeps everything the engine says, so that a
 * failed run can be read afterwards.
 */
export async function startEngine({ settings = {}, log }) {
  const args = ["run"];
  for (const [key, value] of Object.entries({ "server.listen": "127.0.0.1:0", ...settings })) {
    args.push("--set", `${key}=${value}`);
  }
  mkdirSync(dirname(log), { recursive: true });
  const sink = createWriteStream(log, { flags: "a" });
  const child = spawn(binary(), args, { cwd: ROOT, stdio: ["ignore", "pipe", "pipe"] });
  const engine = new Engine(child, sink);
  engine.address = await engine.announced(args);
  return engine;
}

class Engine {
  constructor(child, sink) {
    this.child = child;
    this.said = "";
    this.exited = new Promise((done) => {
      child.once("exit", (code, signal) => done({ code, signal }));
      child.once("error", (error) => done({ code: null, signal: error.code }));
    });
    // A runner that dies of something else must not leave its engine behind.
    const orphan = () => child.kill("SIGKILL");
    process.once("exit", orphan);
    this.exited.then(() => {
      process.removeListener("exit", orphan);
      sink.end();
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8");
      stream.on("data", (text) => {
        if (!sink.writableEnded) sink.write(text);
        if (this.address === undefined) this.said += text;
        this.heard?.();
      });
    }
  }

  /** Resolves with `host:port` when the engine says it; rejects when it ends or stays silent instead. */
  announced(args) {
    return new Promise((resolveAddress, reject) => {
      const fail = (why) => {
        this.child.kill("SIGKILL");
        reject(new Error(`throng ${args.join(" ")}: ${why}\n${this.said}`));
      };
      const limit = setTimeout(() => fail("named no address in time"), START_LIMIT_MS);
      this.heard = () => {
        const found = ADDRESS.exec(this.said.replaceAll(/\x1b\[[0-9;]*m/g, ""));
        if (found === null) return;
        clearTimeout(limit);
        this.heard = undefined;
        resolveAddress(found[1]);
      };
      this.exited.then(({ code, signal }) => {
        clearTimeout(limit);
        fail(`ended before it named an address (${signal ?? `exit code ${code}`})`);
      });
    });
  }

  /** Ends the engine as a crash would. */
  async kill() {
    this.child.kill("SIGKILL");
    return this.exited;
  }

  /** Ends the engine as an operator would, and insists after a while. */
  async stop() {
    const insist = setTimeout(() => this.child.kill("SIGKILL"), STOP_LIMIT_MS);
    this.child.kill("SIGTERM");
    const end = await this.exited;
    clearTimeout(insist);
    return end;
  }
}
