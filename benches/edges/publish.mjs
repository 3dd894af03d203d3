// The publish API: how many publications a second the admin listener takes on one core.
//
// A few back ends post batches over connections that stay open. The figure is publications for each second of the
// admin thread's own processor time: on a machine of few cores it shares one with the shard and the kernel, and
// what all of them did together is told beside it. With members the engine's counters must say that everything
// was delivered.

import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";

import { counterLines } from "../goals/watch.mjs";
import { threads } from "../tools/machine.mjs";
import { engine, start } from "../tools/servers.mjs";
import { ask, request } from "./requests.mjs";

/** The goal: single publications a second on one core. */
export const LEAST = 100_000;
const SECRET = "a secret of the bench, which is long enough";
const BATCH = 100;
const CLIENTS = 4;
const ROOMS = 100;
const PAYLOAD = { text: "x".repeat(40), n: 1 };

/** The cases: what the rooms are, and how many members each has. */
export const CASES = [
  { name: "100 rooms without members", rooms: ROOMS, members: 0 },
  { name: "100 rooms with a member", rooms: ROOMS, members: 1 },
  { name: "one room without members", rooms: 1, members: 0 },
  { name: "one room with a member", rooms: 1, members: 1 },
];

const CONFIG = `
[admin]
listen = "127.0.0.1:0"
requests_per_second = 1000000

[limits]
max_rooms = ${ROOMS}

[[key]]
name = "bench"
secret = "${SECRET}"
scopes = ["publish"]
`;

/** One case against one driver, for so many seconds. */
export async function publishing({ name, rooms, members }, { driver, cores, seconds, out }) {
  const config = join(out, "publish.toml");
  writeFileSync(config, CONFIG);
  const log = join(out, `publish-${driver}-${rooms}-${members}.log`);
  writeFileSync(log, "");
  const command = [...engine(driver), "--config", config];
  const server = await start({ name: driver, command, cores: cores.server, log });
  const sockets = [];
  try {
    for (let nth = 0; nth < members; nth += 1) sockets.push(await member(server.address, rooms));
    const address = /admin on http:\/\/(\S+)/.exec(readFileSync(log, "utf8"))[1];
    const requests = bodies(rooms).map((body) => request({ address, path: "/v1/publish", secret: SECRET, body }));
    const told = await counted(server);
    const [before, began] = [threads(server.pid), performance.now()];
    const until = () => performance.now() - began >= seconds * 1000;
    const publications = BATCH * (await ask({ address, requests, clients: CLIENTS, until }));
    const took = (performance.now() - began) / 1000;
    const after = threads(server.pid);
    const now = await counted(server, told.deliveries_total + publications * members);
    const used = (wanted) => sum(after, wanted) - sum(before, wanted);
    return {
      name,
      driver,
      publications,
      rate: publications / took,
      admin: publications / used((thread) => thread === "admin"),
      all: publications / used(() => true),
      delivered: now.deliveries_total - told.deliveries_total,
      expected: publications * members,
    };
  } finally {
    sockets.forEach((socket) => socket.destroy());
    await server.stop();
  }
}

/** Seconds of the threads whose names are wanted. */
function sum(found, wanted) {
  return found.filter(({ name }) => wanted(name)).reduce((all, { cpu }) => all + cpu, 0);
}

/** Batches that name the rooms in turn. */
function bodies(rooms) {
  return Array.from({ length: 8 }, (_, nth) => {
    const batch = Array.from({ length: BATCH }, (_, at) => ({
      type: "tick",
      room: `room:${(nth * BATCH + at) % rooms}`,
      payload: PAYLOAD,
    }));
    return JSON.stringify(batch);
  });
}

/** The engine's counters, once it has delivered so much or gives up hope. */
async function counted(server, deliveries = 0) {
  for (let look = 0; ; look += 1) {
    const lines = counterLines(server.log).length;
    server.child.kill("SIGUSR1");
    while (counterLines(server.log).length === lines) await pause(20);
    const last = counterLines(server.log).at(-1);
    if ((last.deliveries_total ?? 0) >= deliveries || look === 50) return { ...last, deliveries_total: last.deliveries_total ?? 0 };
    await pause(100);
  }
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** A member of all rooms that throws away what it reads. */
async function member(address, rooms) {
  const [host, port] = address.split(":");
  const socket = net.connect({ host, port: Number(port) });
  const key = "dGhlIHNhbXBsZSBub25jZQ==";
  const head = ["GET /ws HTTP/1.1", `host: ${address}`, "upgrade: websocket", "connection: upgrade", `sec-websocket-key: ${key}`, "sec-websocket-version: 13"];
  socket.write(`${head.join("\r\n")}\r\n\r\n`);
  await once(socket, "data");
  for (let room = 0; room < rooms; room += 1) socket.write(frame(JSON.stringify({ type: "throng:join", room: `room:${room}`, ref: room })));
  // The answer to the last join.
  let said = "";
  while (!said.includes(`"ref":${rooms - 1}`)) said += (await once(socket, "data"))[0].toString("latin1");
  socket.resume();
  return socket;
}

/** A short text frame under a mask of zeros. */
function frame(text) {
  const body = Buffer.from(text);
  if (body.length > 125) throw new Error("a frame too long for its head");
  return Buffer.concat([Buffer.from([0x81, 0x80 | body.length, 0, 0, 0, 0]), body]);
}
