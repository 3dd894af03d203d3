// What the suites of the client share: an engine whose visitors are known, tokens for it, and a wire that can be cut.
//
// The wire is a proxy that keeps what each connection has said: the head of its request and every text message. It
// can fall silent, swallow what the engine answers, end all connections, or take none, which is how a client meets
// everything that happens to connections. Nothing here waits by the clock: a wait is for a condition, and it has a
// limit.

import { createHmac, randomUUID } from "node:crypto";
import net from "node:net";
import { join } from "node:path";

import { ROOT, startEngine } from "../../../tests/tools/engine.mjs";
import { Throng } from "../throng.js";

export const OUT = join(ROOT, "target/client-tests");
/** Longest wait for anything that should follow soon; generous, for machines that are busy. */
export const WAIT_MS = 30_000;
const SECRET = "a secret of no less than 32 bytes";
const KEY = "a secret of sixteen bytes or more";

/** Settings of an engine that knows its visitors by tokens, with rooms of every kind that the suites need. */
export const KNOWN = {
  "server.shards": 2,
  "auth.mode": "token",
  "auth.secret": SECRET,
  "auth.require_expiry": false,
  "auth.leeway_ms": 0,
  "auth.reauth_before_ms": 1000,
  "auth.sources": '["subprotocol", "header", "query", "ticket"]',
  "admin.listen": "127.0.0.1:0",
  "presence.grace_ms": 300,
  "presence.interval_ms": 20,
  key: `[{name="tests", secret="${KEY}", scopes=["notify", "revoke", "tickets"]}]`,
  namespace: '[{pattern="short:*", history_count=5}, {pattern="*", history_count=1000, idempotency_window_ms=60000}]',
};

/** An engine, with the address of its admin listener where it has one. */
export async function engineOf(driver, settings, name) {
  const log = join(OUT, `${driver}-${name}.log`);
  const engine = await startEngine({ settings: { "server.driver": driver, ...settings }, log });
  engine.admin = /admin on (http:\/\/[^\s/]+)/.exec(engine.said)?.[1];
  return engine;
}

/** A token, good for everything unless `claims` say otherwise. */
export function tokenOf(user, claims = {}) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const all = { sub: user, rooms: ["*"], jti: randomUUID(), ...claims };
  const message = `${part({ alg: "HS256" })}.${part(all)}`;
  return `${message}.${createHmac("sha256", SECRET).update(message).digest("base64url")}`;
}

/** Seconds since 1970 that many milliseconds from now. */
export const inSeconds = (ms) => Math.floor((Date.now() + ms) / 1000);

/** Asks the admin listener for something; the answer's document. */
export async function administer(engine, path, document) {
  const headers = { authorization: `Bearer ${KEY}` };
  const answer = await fetch(`${engine.admin}${path}`, { method: "POST", headers, body: JSON.stringify(document) });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${text}`);
  return JSON.parse(text);
}

/** Waits until `holds` returns something true; that. */
export async function until(what, holds) {
  const limit = Date.now() + WAIT_MS;
  for (;;) {
    const found = holds();
    if (found) return found;
    if (Date.now() > limit) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** The next event of that kind for which `fits` holds. */
export function next(emitter, type, fits = () => true) {
  return new Promise((resolve, reject) => {
    const limit = setTimeout(() => reject(new Error(`no event ${type} came`)), WAIT_MS);
    const off = emitter.on(type, (detail) => {
      if (!fits(detail)) return;
      clearTimeout(limit);
      off();
      resolve(detail);
    });
  });
}

/** Clients of one suite, closed at its end whatever has happened. */
export class Visitors {
  #all = [];

  /** A client that comes back soon. */
  client(address, options = {}) {
    const client = new Throng(`ws://${address}/ws`, { backoffBaseMs: 20, backoffCapMs: 200, ...options });
    this.#all.push(client);
    return client;
  }

  leave() {
    for (const client of this.#all.splice(0)) client.close();
  }
}

/** The texts in what a client has sent, of which the end may be missing; and the bytes that are no whole frame. */
function texts(bytes) {
  const found = [];
  for (;;) {
    if (bytes.length < 2) return [found, bytes];
    let [length, at] = [bytes[1] & 127, 2];
    if (length === 126) {
      if (bytes.length < 4) return [found, bytes];
      [length, at] = [bytes.readUInt16BE(2), 4];
    } else if (length === 127) {
      if (bytes.length < 10) return [found, bytes];
      [length, at] = [Number(bytes.readBigUInt64BE(2)), 10];
    }
    if (bytes.length < at + 4 + length) return [found, bytes];
    const mask = bytes.subarray(at, at + 4);
    const body = Buffer.from(bytes.subarray(at + 4, at + 4 + length)).map((byte, index) => byte ^ mask[index % 4]);
    if ((bytes[0] & 15) === 1) found.push(JSON.parse(body.toString()));
    bytes = bytes.subarray(at + 4 + length);
  }
}

/** A wire to an engine: a listener that passes on what it hears, and keeps it. */
export class Wire {
  /** Of each connection: `head`, `said` (messages of the client), and its sockets. */
  connections = [];
  /** Requests that came while none was taken. */
  refused = 0;
  takes = true;
  isMute = false;

  static async to(address) {
    const wire = new Wire();
    wire.target = address;
    wire.server = net.createServer((socket) => wire.#connect(socket));
    await new Promise((resolve) => wire.server.listen(0, "127.0.0.1", resolve));
    wire.address = `127.0.0.1:${wire.server.address().port}`;
    return wire;
  }

  #connect(near) {
    near.on("error", () => {});
    if (!this.takes) {
      near.once("data", () => {
        this.refused += 1;
        near.destroy();
      });
      return;
    }
    const [host, port] = this.target.split(":");
    const far = net.connect(Number(port), host);
    far.on("error", () => near.destroy());
    const connection = { near, far, head: null, said: [], isStalled: false };
    this.connections.push(connection);
    let rest = Buffer.alloc(0);
    near.on("data", (bytes) => {
      if (connection.isStalled) return;
      far.write(bytes);
      rest = Buffer.concat([rest, bytes]);
      if (connection.head === null) {
        const end = rest.indexOf("\r\n\r\n");
        if (end < 0) return;
        connection.head = rest.subarray(0, end).toString();
        rest = rest.subarray(end + 4);
      }
      const [found, left] = texts(rest);
      connection.said.push(...found);
      rest = left;
    });
    far.on("data", (bytes) => this.isMute || connection.isStalled || near.write(bytes));
    near.on("close", () => far.destroy());
    far.on("close", () => near.destroy());
  }

  /** Everything that was said on all connections. */
  get said() {
    return this.connections.flatMap(({ said }) => said);
  }

  /** Ends all connections without a word. */
  cut() {
    for (const { near } of this.connections) near.destroy();
  }

  /** Passes nothing on any more in the connections that there are, and ends none. */
  stall() {
    for (const connection of this.connections) connection.isStalled = true;
  }

  close() {
    this.takes = false;
    this.server.close();
    this.cut();
  }
}
