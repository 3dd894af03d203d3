// A redis-server alone: what a publication costs it with so many subscribers.
//
// One connection publishes, as a node's bridge does: batches of commands, the next when the last is answered. Each
// subscriber is a connection, as each node is one.

import { once } from "node:events";
import { readFileSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";

import { threads } from "../tools/machine.mjs";
import { ROOT, pinned } from "../tools/servers.mjs";

/** Subscribers. */
export const COUNTS = [0, 1, 2, 4, 8, 16, 32, 64];
/** Commands in a batch. */
const BATCH = 64;
const SCRIPT = readFileSync(join(ROOT, "src/bridge/streams/append.lua"), "utf8");
const ORDER = `{"type":"chat","rooms":["r000001"],"payload":"${"x".repeat(98)}"}`;
const ENVELOPE = `{"v":1,"node":"1000002a","epoch":1785000000000000000,"seq":123456,"from":"1000002a-1-1f4a7-3c1","order":${ORDER}}`;
const KEPT = `{"from":"1000002a-1-1f4a7-3c1","order":${ORDER}}`;
const CHANNEL = "throng:room:r000001";

const bulk = (text) => `$${Buffer.byteLength(text)}\r\n${text}\r\n`;
const command = (...words) => `*${words.length}\r\n${words.map((word) => bulk(String(word))).join("")}`;

/** A port that nobody has. */
export async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** A redis-server on some cores. */
export async function startRedis(cores) {
  const port = await freePort();
  const words = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
  const child = pinned(cores, words.map(String), { stdio: "ignore" });
  for (let look = 0; look < 100; look += 1) {
    const line = await Line.open(port).catch(() => undefined);
    if (line) return { port, pid: child.pid, line, stop: () => child.kill("SIGKILL") };
    await new Promise((done) => setTimeout(done, 50));
  }
  throw new Error("redis-server does not answer");
}

/** A connection to Redis. */
class Line {
  static async open(port) {
    const socket = net.connect({ host: "127.0.0.1", port, noDelay: true });
    socket.on("error", () => {});
    await Promise.race([once(socket, "connect"), once(socket, "close").then(() => Promise.reject(new Error("refused")))]);
    return new Line(socket);
  }

  constructor(socket) {
    this.socket = socket;
  }

  /** Sends commands and resolves with what comes, once it holds so many answers that begin so. */
  async ask(text, answers, sign) {
    this.socket.write(text);
    let said = "";
    while (said.split(sign).length - 1 < answers) said += (await once(this.socket, "data"))[0].toString("latin1");
    return said;
  }
}

/** The seconds that a process has used. */
export const used = (pid) => threads(pid).reduce((all, { cpu }) => all + cpu, 0);

async function totals(line) {
  const said = await line.ask(command("INFO", "stats"), 1, "total_net_output_bytes:");
  const value = (name) => Number(new RegExp(`${name}:(\\d+)`).exec(said)[1]);
  return [value("total_net_input_bytes"), value("total_net_output_bytes")];
}

/** One case, for so many seconds. */
export async function publishing({ kind, subscribers, seconds, cores }) {
  const redis = await startRedis(cores.servers);
  try {
    for (let nth = 0; nth < subscribers; nth += 1) {
      const line = await Line.open(redis.port);
      await line.ask(`${command("HELLO", 3)}${command("SUBSCRIBE", CHANNEL)}`, 1, "subscribe");
      line.socket.resume();
    }
    const publisher = await Line.open(redis.port);
    const name = /(\w{40})/.exec(await publisher.ask(command("SCRIPT", "LOAD", SCRIPT), 1, "$40"))[1];
    let written = 0;
    const numbered = () => {
      written += 1;
      const keys = [`throng:place:room:r000001`, `throng:history:room:r000001`, `throng:sent:1000002a:room:r000001`, "throng:once:"];
      return command("EVALSHA", name, 4, ...keys, CHANNEL, KEPT, written, "8fedcba987654321", "0", 0, 1000, 1048576, 300000, 0);
    };
    const plain = command("PUBLISH", CHANNEL, ENVELOPE);
    const batch = () => (kind === "plain" ? plain.repeat(BATCH) : Array.from({ length: BATCH }, numbered).join(""));
    const sign = kind === "plain" ? ":" : "taken";
    const look = await Line.open(redis.port);
    const [cpu, [bytesIn, bytesOut]] = [used(redis.pid), await totals(look)];
    const began = performance.now();
    let publications = 0;
    while (performance.now() - began < seconds * 1000) {
      await publisher.ask(batch(), BATCH, sign);
      publications += BATCH;
    }
    const [cpuNow, [inNow, outNow]] = [used(redis.pid), await totals(look)];
    return {
      subscribers,
      micros: ((cpuNow - cpu) / publications) * 1e6,
      bytesIn: (inNow - bytesIn) / publications,
      bytesOut: (outNow - bytesOut) / publications,
    };
  } finally {
    redis.stop();
  }
}

/** The straight line through some points: where it begins and how it rises. */
export function line(points) {
  const n = points.length;
  const sum = (of) => points.reduce((all, point) => all + of(point), 0);
  const [x, y] = [sum(([at]) => at) / n, sum(([, value]) => value) / n];
  const rise = sum(([at, value]) => (at - x) * (value - y)) / sum(([at]) => (at - x) ** 2);
  return [y - rise * x, rise];
}
