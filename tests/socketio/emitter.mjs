// The emitter of Socket.IO as npm has it, a real Redis, two real engines and the library's clients: row R7.
//
// A back end that emits by `@socket.io/redis-emitter` goes on as it is. Nothing of the packages is changed or reached
// into. Nothing here waits by the clock: a wait is for an event, and it has a limit.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";

import { Emitter } from "@socket.io/redis-emitter";
import { createClient } from "redis";
import { io } from "socket.io-client";

import { DRIVERS, ROOT, startEngine } from "../tools/engine.mjs";

const OUT = join(ROOT, "target/socketio-tests");
const SUITE_MS = 120_000;
const WAIT_MS = 30_000;
const KEY = "a secret of sixteen bytes or more";

/** The arguments of the next event of that name. */
function next(socket, name) {
  return new Promise((resolve, reject) => {
    const limit = setTimeout(() => reject(new Error(`no event ${name} came`)), WAIT_MS);
    socket.once(name, (...args) => {
      clearTimeout(limit);
      resolve(args);
    });
  });
}

/** Asks again and again until it holds. */
async function until(what, holds) {
  const limit = AbortSignal.timeout(WAIT_MS);
  while (!(await holds())) {
    if (limit.aborted) throw new Error(`in vain: ${what}`);
    await new Promise((turn) => setImmediate(turn));
  }
}

async function startRedis(path) {
  const child = spawn("redis-server", ["--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let said = "";
  await new Promise((ready, failed) => {
    child.once("error", failed);
    child.once("exit", () => failed(new Error(`redis-server ended: ${said}`)));
    child.stdout.on("data", (text) => {
      said += text;
      if (/ready to accept connections/i.test(said)) ready();
    });
  });
  return child;
}

for (const driver of DRIVERS) {
  describe(`the emitter on ${driver}`, { timeout: SUITE_MS }, () => {
    const visitors = [];
    let folder;
    let redis;
    let client;
    let emitter;
    let engines = [];

    before(async () => {
      folder = mkdtempSync(join(tmpdir(), "throng-emitter-"));
      const path = join(folder, "redis.sock");
      redis = await startRedis(path);
      client = createClient({ socket: { path } });
      await client.connect();
      emitter = new Emitter(client);
      for (const name of ["a", "b"]) {
        const settings = {
          "server.driver": driver,
          "server.shards": 2,
          "server.socketio_path": "/socket.io/",
          "bridge.url": `redis+unix://${path}`,
          "bridge.node": name,
          "bridge.emitter": "socket.io",
          "admin.listen": "127.0.0.1:0",
          "admin.requests_per_second": 1_000_000,
          key: `[{name="tests", secret="${KEY}", scopes=["inspect"]}]`,
        };
        const engine = await startEngine({ settings, log: join(OUT, `emitter-${driver}-${name}.log`) });
        engine.admin = /admin on (http:\/\/[^\s/]+)/.exec(engine.said)[1];
        engines.push(engine);
      }
      for (const engine of engines) {
        await until("the link is up", async () => (await fetch(`${engine.admin}/readyz`)).ok);
      }
    });

    after(async () => {
      for (const socket of visitors) socket.disconnect();
      const ends = await Promise.all(engines.map((engine) => engine.stop()));
      await client?.disconnect();
      redis?.kill();
      if (folder) rmSync(folder, { recursive: true });
      assert.deepEqual(ends.map(({ code }) => code), [0, 0], "an engine did not end cleanly");
    });

    /** One who is in these rooms, and what it hears of chat. */
    async function member(engine, ...rooms) {
      const socket = io(`http://${engine.address}`, { transports: ["websocket"], forceNew: true });
      visitors.push(socket);
      socket.heard = [];
      socket.on("chat", (payload) => socket.heard.push(payload));
      await next(socket, "connect");
      for (const room of rooms) {
        const reply = await socket.timeout(WAIT_MS).emitWithAck("throng:join", { room });
        assert.equal(reply.ok, true, JSON.stringify(reply));
      }
      return socket;
    }

    function subscribed(room, count) {
      const channel = `socket.io#/#${room}#`;
      return until(channel, async () => (await client.pubSubNumSub(channel))[channel] === count);
    }

    async function counter(engine, name) {
      const answer = await fetch(`${engine.admin}/v1/counters`, { headers: { authorization: `Bearer ${KEY}` } });
      return (await answer.json())[name];
    }

    it("reaches_everyone_on_every_node", async () => {
      const sockets = [await member(engines[0]), await member(engines[1])];
      const heard = sockets.map((socket) => next(socket, "news"));
      const news = { text: "h\u00e9llo \u{1f600}", list: [1, -1, 2.5, 2 ** 40, null, true], none: undefined, deep: { a: [] } };
      emitter.emit("news", news);
      delete news.none;
      for (const [payload, known] of await Promise.all(heard)) {
        assert.deepEqual([payload, known.from], [news, undefined]);
      }
    });

    it("reaches_rooms_but_not_those_who_are_excepted_and_each_once", async () => {
      const ada = await member(engines[0], "lobby", "stage");
      const bob = await member(engines[1], "lobby", "muted");
      await Promise.all([subscribed("lobby", 2), subscribed("stage", 1), subscribed("muted", 1)]);
      emitter.to("lobby").emit("chat", 1);
      emitter.to("lobby").except("muted").emit("chat", 2);
      emitter.in("lobby").except([ada.id]).emit("chat", 3);
      emitter.volatile.compress(false).to("lobby").emit("chat", 4);
      await until("all came", () => ada.heard.includes(4) && bob.heard.includes(4));
      assert.deepEqual([ada.heard, bob.heard], [[1, 2, 4], [1, 3, 4]]);
      emitter.to(["lobby", "stage"]).emit("chat", 5);
      await until("both came", () => ada.heard.includes(5) && bob.heard.includes(5));
      emitter.to("lobby").emit("chat", 6);
      await until("the last came", () => ada.heard.includes(6) && bob.heard.includes(6));
      assert.deepEqual([ada.heard, bob.heard], [[1, 2, 4, 5, 6], [1, 3, 4, 5, 6]]);
    });

    it("reaches_one_socket_by_its_id_with_several_arguments_as_a_list", async () => {
      const [ada, bob] = [await member(engines[0]), await member(engines[1])];
      const heard = next(bob, "private");
      const at = new Date("2026-11-26T16:46:23.007Z");
      emitter.to(bob.id).emit("private", "one", { two: 2 }, at);
      assert.deepEqual((await heard)[0], ["one", { two: 2 }, at.toISOString()]);
      assert.deepEqual([ada.heard, bob.heard], [[], []]);
    });

    it("is_not_obeyed_where_it_asks_for_what_the_librarys_servers_do", async () => {
      const ada = await member(engines[0], "hall");
      await subscribed("hall", 1);
      emitter.in("hall").socketsJoin("elsewhere");
      emitter.in("hall").disconnectSockets(true);
      emitter.serverSideEmit("ping");
      await until("they are counted", async () => (await counter(engines[0], "bridge_emitter_unsupported_total")) === 3);
      emitter.to("hall").emit("chat", Buffer.from([1, 2, 3]));
      await until("bytes are counted", async () => (await counter(engines[0], "bridge_malformed_total")) === 1);
      emitter.of("/admin").to("hall").emit("chat", "another namespace");
      emitter.to("hall").emit("chat", "here");
      await until("the last came", () => ada.heard.includes("here"));
      assert.deepEqual(ada.heard, ["here"]);
      assert.equal(ada.connected, true);
    });
  });
}
