// Nodes that share a Redis, a member of one room on each, and a client that publishes on the first.
//
// Every member must have everything once, which is counted by the members themselves.

import { once } from "node:events";
import { writeFileSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";

import { engine, start } from "../tools/servers.mjs";
import { startRedis, used } from "./redis.mjs";

/** How many nodes. */
export const NODES = [1, 2, 4];
/** Publications at a time, and how long until the next. */
const AT_ONCE = 20;
const PAUSE_MS = 10;
const PAYLOAD = "x".repeat(40);

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** One case, for so many seconds. */
export async function crossing({ kind, count, seconds, driver, cores, out }) {
  const redis = await startRedis(cores.servers);
  const nodes = [];
  try {
    const room = kind === "shared" ? "shared:1" : "plain:1";
    for (let nth = 0; nth < count; nth += 1) {
      const log = join(out, `${kind}-${count}-${nth}.log`);
      writeFileSync(log, "");
      const settings = { "bridge.url": `redis://127.0.0.1:${redis.port}`, "bridge.shared_rooms": '["shared:*"]' };
      nodes.push(await start({ name: `node ${nth}`, command: engine(driver, settings), cores: cores.servers, log }));
    }
    const members = [];
    for (const node of nodes) members.push(await Member.open(node.address, room));
    const author = await Member.open(nodes[0].address, undefined);
    await probe(author, members, room);
    const before = [redis, ...nodes].map(({ pid }) => used(pid));
    const heard = members.map((member) => member.heard);
    const [began, text] = [performance.now(), publication(room, "tick")];
    let published = 0;
    while (performance.now() - began < seconds * 1000) {
      for (let nth = 0; nth < AT_ONCE; nth += 1) author.send(text);
      published += AT_ONCE;
      await pause(PAUSE_MS);
    }
    const expected = published * count;
    const delivered = () => members.reduce((all, member, nth) => all + member.heard - heard[nth], 0);
    for (let look = 0; delivered() < expected && look < 100; look += 1) await pause(50);
    const micros = [redis, ...nodes].map(({ pid }, nth) => ((used(pid) - before[nth]) / published) * 1e6);
    const others = micros.slice(2);
    return {
      redis: micros[0],
      author: micros[1],
      others: others.reduce((all, one) => all + one, 0) / others.length,
      delivered: delivered(),
      expected,
    };
  } finally {
    // Nobody is left who would have to be told.
    for (const node of nodes) node.child.kill("SIGKILL");
    redis.stop();
  }
}

/** Publishes until every member hears it: then all subscriptions are there. */
async function probe(author, members, room) {
  for (let look = 0; look < 100; look += 1) {
    const before = members.map((member) => member.probes);
    author.send(publication(room, "probe"));
    await pause(100);
    if (members.every((member, nth) => member.probes > before[nth])) return;
  }
  throw new Error("a member hears nothing");
}

const publication = (room, type) => JSON.stringify({ type, room, payload: PAYLOAD });

/** A client that counts what it hears. */
class Member {
  static async open(address, room) {
    const [host, port] = address.split(":");
    const socket = net.connect({ host, port: Number(port), noDelay: true });
    const key = "dGhlIHNhbXBsZSBub25jZQ==";
    const head = ["GET /ws HTTP/1.1", `host: ${address}`, "upgrade: websocket", "connection: upgrade", `sec-websocket-key: ${key}`, "sec-websocket-version: 13"];
    socket.write(`${head.join("\r\n")}\r\n\r\n`);
    await once(socket, "data");
    const member = new Member(socket);
    while (room !== undefined && !member.joined) {
      member.send(JSON.stringify({ type: "throng:join", room, ref: 1 }));
      await pause(100);
    }
    return member;
  }

  constructor(socket) {
    this.socket = socket;
    this.heard = 0;
    this.probes = 0;
    this.joined = false;
    this.rest = "";
    // A member that is lost hears nothing more, which is counted.
    socket.on("error", () => {});
    socket.on("data", (bytes) => {
      const text = this.rest + bytes.toString("latin1");
      const count = (sign) => text.split(sign).length - 1;
      this.heard += count('"type":"tick"');
      this.probes += count('"type":"probe"');
      this.joined ||= /"ref":1,"ok":true/.test(text);
      // A sign may be cut in two, but is counted in one piece only: what is kept is shorter than any.
      this.rest = text.slice(-12).replace(/^.*"type":"(tick|probe)"/s, "");
    });
  }

  send(text) {
    const body = Buffer.from(text);
    if (body.length > 125) throw new Error("a frame too long for its head");
    this.socket.write(Buffer.concat([Buffer.from([0x81, 0x80 | body.length, 0, 0, 0, 0]), body]));
  }
}
