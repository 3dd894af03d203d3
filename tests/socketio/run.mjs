// The library of Socket.IO as npm has it, against a real engine, on every driver: rows T8, T9, A5, R14 and R15.
//
// Nothing of the library is changed or reached into; what is looked at is what an application sees. Where a
// connection has to be lost, a wire between the two is cut. Nothing here waits by the clock: a wait is for an event,
// and it has a limit.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import net from "node:net";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";

import { io } from "socket.io-client";

import { DRIVERS, ROOT, startEngine } from "../tools/engine.mjs";

const OUT = join(ROOT, "target/socketio-tests");
const SUITE_MS = 120_000;
/** Longest wait for anything that should follow soon; generous, for machines that are busy. */
const WAIT_MS = 30_000;
const SECRET = "a secret of no less than 32 bytes";
const KEY = "a secret of sixteen bytes or more";

/** A token, good for everything unless `claims` say otherwise. */
function tokenOf(user, claims = {}) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const message = `${part({ alg: "HS256" })}.${part({ sub: user, rooms: ["*"], ...claims })}`;
  return `${message}.${createHmac("sha256", SECRET).update(message).digest("base64url")}`;
}

/** The arguments of the next event of that name for which `fits` holds. */
function next(emitter, name, fits = () => true) {
  return new Promise((resolve, reject) => {
    const limit = setTimeout(() => reject(new Error(`no event ${name} came`)), WAIT_MS);
    const hear = (...args) => {
      if (!fits(...args)) return;
      clearTimeout(limit);
      emitter.off(name, hear);
      resolve(args);
    };
    emitter.on(name, hear);
  });
}

/** A wire to the engine that can be cut. */
async function wireTo(address) {
  const [host, port] = address.split(":");
  const ends = new Set();
  const server = net.createServer((near) => {
    const far = net.connect(Number(port), host);
    for (const [one, other] of [[near, far], [far, near]]) {
      ends.add(one);
      one.on("error", () => other.destroy());
      one.on("close", () => {
        ends.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  return {
    address: `127.0.0.1:${server.address().port}`,
    cut: () => ends.forEach((end) => end.destroy()),
    close: () => {
      ends.forEach((end) => end.destroy());
      return new Promise((closed) => server.close(closed));
    },
  };
}

/** A way to the engine that keeps WebSockets waiting until it is opened. */
async function gateTo(address) {
  const [host, port] = address.split(":");
  let open;
  const opened = new Promise((resolve) => (open = resolve));
  const ends = new Set();
  const server = net.createServer((near) => {
    ends.add(near);
    near.on("error", () => near.destroy());
    near.once("data", async (first) => {
      near.pause();
      if (first.includes("transport=websocket")) await opened;
      const far = net.connect(Number(port), host);
      ends.add(far);
      far.on("error", () => near.destroy());
      far.on("close", () => near.destroy());
      near.on("close", () => far.destroy());
      far.write(first);
      near.pipe(far);
      far.pipe(near);
    });
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  return {
    address: `127.0.0.1:${server.address().port}`,
    open,
    close: () => {
      ends.forEach((end) => end.destroy());
      return new Promise((closed) => server.close(closed));
    },
  };
}

for (const driver of DRIVERS) {
  describe(`the library on ${driver}`, { timeout: SUITE_MS }, () => {
    let engine;
    let admin;
    let visitors = [];

    before(async () => {
      const settings = {
        "server.driver": driver,
        "server.shards": 2,
        "server.socketio_path": "/socket.io/",
        "server.socketio_recovery_ms": 60_000,
        "auth.mode": "token",
        "auth.secret": SECRET,
        "auth.require_expiry": false,
        "auth.sources": '["payload", "query", "header"]',
        "admin.listen": "127.0.0.1:0",
        "heartbeat.ping_interval_ms": 300,
        "heartbeat.ping_timeout_ms": 5000,
        // One test asks 200 questions at once; how fast they come must not decide about their answers.
        "limits.messages_per_second": 0,
        key: `[{name="tests", secret="${KEY}", scopes=["notify", "revoke", "publish"]}]`,
        namespace: '[{pattern="log:*", history_count=1000}]',
      };
      engine = await startEngine({ settings, log: join(OUT, `${driver}.log`) });
      admin = /admin on (http:\/\/[^\s/]+)/.exec(engine.said)[1];
    });

    after(async () => {
      for (const socket of visitors) socket.disconnect();
      assert.equal((await engine?.stop())?.code, 0, "the engine did not end cleanly");
    });

    function visitor(options = {}, address = engine.address) {
      const socket = io(`http://${address}${options.namespace ?? ""}`, {
        transports: ["websocket"],
        forceNew: true,
        reconnectionDelay: 20,
        reconnectionDelayMax: 200,
        ...options,
      });
      visitors.push(socket);
      return socket;
    }

    /** One who is in, as that user, in these rooms. */
    async function member(user, ...rooms) {
      const socket = visitor({ auth: { token: tokenOf(user) } });
      await next(socket, "connect");
      for (const room of rooms) {
        const reply = await socket.timeout(WAIT_MS).emitWithAck("throng:join", { room });
        assert.equal(reply.ok, true, JSON.stringify(reply));
      }
      return socket;
    }

    async function order(path, document) {
      const headers = { authorization: `Bearer ${KEY}` };
      const answer = await fetch(`${admin}${path}`, { method: "POST", headers, body: JSON.stringify(document) });
      assert.ok(answer.ok, `${path}: ${answer.status} ${await answer.clone().text()}`);
      return answer.json();
    }

    it("connects_and_hears_who_it_is_before_anything_else", async () => {
      const socket = visitor({ auth: { token: tokenOf("ada") } });
      const heard = [];
      socket.onAny((name) => heard.push(name));
      const [greeting] = await next(socket, "throng:connected");
      assert.deepEqual(heard, ["throng:connected"]);
      assert.equal(greeting.userId, "ada");
      assert.equal(greeting.protocol, "socket.io");
      assert.equal(socket.id, greeting.clientId);
      assert.equal(socket.io.engine.transport.name, "websocket");
    });

    it("joins_rooms_and_hears_what_is_published_with_what_is_known_of_it", async () => {
      const [ada, bob] = [await member("ada", "lobby"), await member("bob", "lobby")];
      const heard = next(bob, "chat");
      const reply = await ada.timeout(WAIT_MS).emitWithAck("chat", { text: "hello", at: 1.5 }, { room: "lobby" });
      assert.equal(reply.ok, true);
      const [payload, known] = await heard;
      assert.deepEqual(payload, { text: "hello", at: 1.5 });
      assert.deepEqual([known.room, known.from], ["lobby", ada.id]);
      assert.equal(typeof known.offset, "number");
    });

    it("gets_every_answer_to_its_own_question", async () => {
      const ada = await member("ada", "lobby");
      const asked = [];
      for (let number = 0; number < 200; number += 1) {
        asked.push(
          number % 2 === 0
            ? ada.timeout(WAIT_MS).emitWithAck("throng:members", { room: "lobby" })
            : ada.timeout(WAIT_MS).emitWithAck("throng:leave", { room: `no such room ${number}` }),
        );
        if (number % 50 === 49) await Promise.all(asked);
      }
      const answers = await Promise.all(asked);
      answers.forEach((answer, number) => {
        if (number % 2 === 0) assert.equal(answer.room, "lobby");
        else assert.equal(answer.code, "not_member");
      });
    });

    it("is_told_of_a_mistake_and_lives_on", async () => {
      const ada = await member("ada");
      const wrong = await ada.timeout(WAIT_MS).emitWithAck("chat", "hi", { room: "lobby", excpet: [] });
      assert.deepEqual([wrong.type, wrong.code], ["throng:error", "unknown_field"]);
      const error = next(ada, "throng:error");
      ada.emit("chat", "to nobody");
      assert.equal((await error)[0].code, "no_room");
      const binary = await ada.timeout(WAIT_MS).emitWithAck("chat", Buffer.from([1, 2, 3]), { room: "lobby" });
      assert.equal(binary.code, "binary_unsupported");
      const pong = await ada.timeout(WAIT_MS).emitWithAck("throng:ping");
      assert.equal(pong.type, "throng:pong");
      assert.equal(ada.connected, true);
    });

    it("hears_publications_of_types_that_the_library_keeps_for_itself", async () => {
      const bob = await member("bob", "lobby");
      const heard = next(bob, "throng:publication");
      await order("/v1/publish", { type: "connect_error", room: "lobby", payload: { n: 1 } });
      const [payload, known] = await heard;
      assert.deepEqual([payload, known.type, known.room], [{ n: 1 }, "connect_error", "lobby"]);
    });

    it("is_refused_with_the_reason_where_the_application_looks_for_it", async () => {
      const late = tokenOf("ada", { exp: 1000 });
      for (const options of [
        { auth: { token: late } },
        { auth: {} },
        { query: { token: late } },
        { extraHeaders: { authorization: `Bearer ${late}` } },
      ]) {
        const socket = visitor(options);
        const [error] = await next(socket, "connect_error");
        assert.equal(error.data?.code, "unauthorized", `${JSON.stringify(options)}: ${error.message}`);
        assert.notEqual(error.message, "websocket error");
        assert.equal(socket.active, false, "it does not try again by itself");
      }
      const suspended = visitor({ auth: { token: tokenOf("ada", { deny: "your account is suspended" }) } });
      assert.equal((await next(suspended, "connect_error"))[0].message, "your account is suspended");
    });

    it("is_told_that_there_is_no_other_namespace", async () => {
      const socket = visitor({ namespace: "/admin", auth: { token: tokenOf("ada") } });
      assert.equal((await next(socket, "connect_error"))[0].message, "Invalid namespace");
    });

    it("comes_back_when_the_wire_is_cut_and_goes_on_where_it_was", async () => {
      const wire = await wireTo(engine.address);
      const ada = visitor({ auth: { token: tokenOf("ada") } }, wire.address);
      await next(ada, "connect");
      const cursor = await ada.timeout(WAIT_MS).emitWithAck("throng:join", { room: "log:a" });
      const heard = [];
      ada.on("line", (payload, known) => {
        heard.push(payload);
        cursor.offset = known.offset;
      });
      const back = next(ada, "connect");
      ada.on("connect", () => {
        ada.emit("throng:join", { room: "log:a", since: { epoch: cursor.epoch, offset: cursor.offset } });
      });
      const bob = await member("bob", "log:a");
      for (let number = 0; number < 50; number += 1) {
        await bob.timeout(WAIT_MS).emitWithAck("line", number, { room: "log:a" });
        if (number === 20) wire.cut();
      }
      await back;
      const last = next(ada, "line", (payload) => payload === "end");
      await bob.timeout(WAIT_MS).emitWithAck("line", "end", { room: "log:a" });
      await last;
      assert.deepEqual(heard, [...Array(50).keys(), "end"], "nothing twice, nothing missing, in order");
      ada.disconnect();
      await wire.close();
    });

    it("is_recovered_by_itself_with_its_rooms_and_all_it_missed", async () => {
      const wire = await wireTo(engine.address);
      const rooms = ["log:one", "log:two", "quiet"];
      const keeper = await member("bob", ...rooms);
      const ada = visitor({ auth: { token: tokenOf("ada") } }, wire.address);
      const states = [];
      ada.on("connect", () => states.push(ada.recovered));
      await next(ada, "connect");
      for (const room of rooms) await ada.timeout(WAIT_MS).emitWithAck("throng:join", { room });
      const heard = [];
      ada.on("line", (payload, known) => heard.push([known.room, payload]));
      const sent = { "log:one": [], "log:two": [] };
      for (let number = 0; number < 200; number += 1) {
        const room = rooms[number % 2];
        sent[room].push(number);
        await keeper.timeout(WAIT_MS).emitWithAck("line", number, { room });
        if (number % 50 === 20) {
          const back = next(ada, "connect");
          wire.cut();
          if (number !== 120) await back;
        }
      }
      while (heard.length < 200) await next(ada, "line");
      for (const room of ["log:one", "log:two"]) {
        const own = heard.filter(([of]) => of === room).map(([, payload]) => payload);
        assert.deepEqual(own, sent[room], "nothing twice, nothing missing, in order");
      }
      assert.deepEqual(new Set(states.slice(1)), new Set([true]));
      assert.equal(states[0], false);
      // What no history has cannot come back: it is a new client then, in no room.
      const gone = next(ada, "disconnect");
      ada.io.reconnection(false);
      ada.io.engine.close();
      await gone;
      await keeper.timeout(WAIT_MS).emitWithAck("line", "missed", { room: "quiet" });
      const anew = next(ada, "connect");
      ada.connect();
      await anew;
      assert.equal(ada.recovered, false);
      const reply = await ada.timeout(WAIT_MS).emitWithAck("throng:leave", { room: "log:one" });
      assert.equal(reply.code, "not_member");
      // Who goes on purpose is not waited for.
      ada.disconnect();
      const fresh = next(ada, "connect");
      ada.connect();
      await fresh;
      assert.equal(ada.recovered, false);
      ada.disconnect();
      await wire.close();
    });

    it("begins_by_polling_and_goes_on_by_websocket_while_messages_come_and_go", async () => {
      const COUNT = 5000;
      const gate = await gateTo(engine.address);
      // The library's own order of transports.
      const ada = visitor({ auth: { token: tokenOf("ada") }, transports: undefined }, gate.address);
      const upgraded = new Promise((resolve) => ada.io.engine.once("upgrade", (to) => resolve(to.name)));
      await next(ada, "connect");
      assert.equal(ada.io.engine.transport.name, "polling");
      const bob = await member("bob", "stream");
      const joined = await ada.timeout(WAIT_MS).emitWithAck("throng:join", { room: "stream" });
      assert.equal(joined.ok, true, JSON.stringify(joined));
      const [down, up, back] = [[], [], []];
      ada.on("down", (number) => down.push(number));
      ada.on("up", (number) => back.push(number));
      bob.on("up", (number) => up.push(number));
      // So many at once, so that no queue loses any: what is looked for is the change of transport.
      for (let number = 0; number < COUNT; number += 50) {
        if (number === 1000) gate.open();
        if (number === 4000) assert.equal(await upgraded, "websocket");
        const replies = [];
        for (let one = number; one < number + 50; one += 1) {
          replies.push(bob.timeout(WAIT_MS).emitWithAck("down", one, { room: "stream" }));
          replies.push(ada.timeout(WAIT_MS).emitWithAck("up", one, { room: "stream" }));
        }
        for (const reply of await Promise.all(replies)) assert.equal(reply.ok, true, JSON.stringify(reply));
      }
      while (down.length < COUNT) await next(ada, "down");
      while (up.length < COUNT) await next(bob, "up");
      while (back.length < COUNT) await next(ada, "up");
      const all = Array.from({ length: COUNT }, (_, number) => number);
      assert.deepEqual(down, all);
      assert.deepEqual(up, all);
      assert.deepEqual(back, all);
      assert.equal(ada.io.engine.transport.name, "websocket");
      assert.equal(ada.recovered, false, "it never was away");
      ada.disconnect();
      bob.disconnect();
      await gate.close();
    });

    it("goes_on_by_websocket_whichever_shard_that_comes_to", async () => {
      for (let round = 0; round < 10; round += 1) {
        const ada = visitor({ auth: { token: tokenOf("ada") }, transports: ["polling", "websocket"] });
        const upgraded = new Promise((resolve) => ada.io.engine.once("upgrade", (to) => resolve(to.name)));
        await next(ada, "connect");
        assert.equal(await upgraded, "websocket");
        assert.equal((await ada.timeout(WAIT_MS).emitWithAck("throng:join", { room: "stream" })).ok, true);
        ada.disconnect();
      }
    });

    it("stays_for_many_pings_while_it_talks_and_while_it_is_silent", async () => {
      const [silent, busy] = [await member("ada"), await member("bob")];
      let pings = 0;
      const counted = new Promise((resolve) => {
        silent.io.on("ping", () => {
          pings += 1;
          if (pings === 5) resolve();
        });
      });
      const talked = new Promise((resolve) => {
        let heard = 0;
        const talk = () => busy.connected && busy.emit("throng:ping", () => setImmediate(talk));
        busy.io.on("ping", () => {
          heard += 1;
          if (heard === 5) resolve();
        });
        talk();
      });
      await Promise.all([counted, talked]);
      assert.deepEqual([silent.connected, busy.connected], [true, true]);
      busy.disconnect();
    });

    it("is_sent_away_for_good_or_comes_back_as_the_back_end_says", async () => {
      const ada = await member("carl");
      const told = next(ada, "throng:close");
      const gone = next(ada, "disconnect");
      await order("/v1/disconnect", { user: "carl", code: 4100, reason: "the game is over" });
      assert.deepEqual(await told, [{ code: 4100, reason: "the game is over" }]);
      assert.equal((await gone)[0], "io server disconnect");
      assert.equal(ada.active, false);

      const bob = await member("dave");
      const back = next(bob, "connect");
      await order("/v1/disconnect", { user: "dave", code: 1012, reason: "go" });
      await back;
      assert.equal(bob.connected, true);
    });

    it("leaves_and_the_room_is_without_it", async () => {
      const [ada, bob] = [await member("ada", "hall"), await member("bob", "hall")];
      ada.disconnect();
      for (;;) {
        const { members } = await bob.timeout(WAIT_MS).emitWithAck("throng:members", { room: "hall" });
        if (members === 1) break;
      }
    });
  });
}
