// Who is measured: how each server is started, what it speaks and which version it is.
//
// This is the only file that knows the peers by name; the check and the runner walk the list.

import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { ROOT, engine, floor, start as startServer } from "../tools/servers.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
/** Where results, logs and the Rust peers go. */
export const OUT = join(ROOT, "target/peers");

const BUN = join(HERE, "node_modules/.bin/bun");

/**
 * Every server, in the order of the table.
 *
 * `command` is what to start, given the scenario; nothing for a scenario the server has no
 * part in. `speaks` is its dialect. `own` marks what is not a peer: the floor and ours.
 */
export const PEERS = [
  {
    name: "floor",
    own: true,
    speaks: "plain",
    command: (scenario) => scenario?.floor && floor(),
    version: () => "bare system calls",
  },
  { name: "throng-epoll", own: true, speaks: "throng", command: () => engine("epoll"), version: throngVersion },
  { name: "throng-uring", own: true, speaks: "throng", command: () => engine("uring"), version: throngVersion },
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

/** Starts a peer for a scenario and resolves once it has named its address. */
export async function start(peer, { core, scenario, log }) {
  const server = await startServer({ name: peer.name, command: peer.command(scenario), cores: core, log });
  server.peer = peer;
  return server;
}
