// The client against a server that is the test itself, by a clock that stands still until it is moved: advice that is
// given too rarely to wait for, delays to the millisecond, and hours in which nothing may happen.

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it, mock } from "node:test";

import { Throng, advice } from "../throng.js";

const HOUR = 3_600_000;
const HELLO = {
  type: "throng:connected",
  clientId: "0-1-1",
  userId: null,
  sessionEpoch: "e",
  heartbeat: { intervalMs: 25_000, timeoutMs: 20_000 },
  limits: { maxMessageBytes: 1000 },
};

/** A socket whose other end is the test. */
class Socket {
  static all = [];
  readyState = 0;
  bufferedAmount = 0;
  said = [];

  constructor(url, protocols) {
    Object.assign(this, { url, protocols });
    Socket.all.push(this);
  }

  send(text) {
    this.said.push(JSON.parse(text));
  }

  close(code) {
    this.readyState = 3;
    this.closedWith = code;
  }

  hears(message) {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  opens(hello = {}) {
    this.readyState = 1;
    this.hears({ ...HELLO, ...hello });
  }

  ends(code, reason = "") {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }
}

/** Lets what is behind promises happen. */
const settle = async () => {
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
};

async function tick(ms) {
  mock.timers.tick(ms);
  await settle();
}

const socket = () => Socket.all.at(-1);

describe("the client by itself", () => {
  let clients = [];

  beforeEach(() => {
    Socket.all = [];
    mock.timers.enable({ apis: ["setTimeout"] });
  });
  afterEach(() => {
    for (const client of clients.splice(0)) client.close();
    mock.timers.reset();
  });

  async function begins(options = {}) {
    const client = new Throng("http://example.com/ws", { WebSocket: Socket, random: () => 0.5, ...options });
    clients.push(client);
    client.connect();
    await settle();
    return client;
  }

  /** Passes when the next attempt is made after that long and not before. */
  async function returnsAfter(ms) {
    const before = Socket.all.length;
    await tick(ms - 1);
    assert.equal(Socket.all.length, before, `it came back before ${ms} ms`);
    await tick(1);
    assert.equal(Socket.all.length, before + 1, `it was not back after ${ms} ms`);
  }

  it("obeys_every_close_code_as_the_protocol_says", () => {
    for (const code of [1000, 1002, 1003, 1007, 1008, 4409]) assert.equal(advice(code).action, "stop", code);
    for (const code of [1001, 1006, 1009, 1011, 1012, 4000, 4100]) assert.deepEqual(advice(code), { action: "retry" });
    assert.deepEqual(advice(4401), { action: "token" });
    assert.deepEqual(advice(1001, "idle for too long"), { action: "sleep" });
    assert.deepEqual(advice(1013, "busy: come back in 7 s"), { action: "retry", delayMs: 7000 });
    const slow = "slow consumer: reads too slowly, come back later";
    assert.deepEqual(advice(1013, slow), { action: "retry", crowded: true });
    const crowded = { action: "retry", delayMs: 3000, crowded: true };
    assert.deepEqual(advice(1013, "too many connections: come back in 3 s"), crowded);
  });

  it("waits_a_random_part_of_a_ceiling_that_doubles_up_to_a_cap", async () => {
    const draws = [0.5, 0, 0.999, 0.25, 0.5, 0.5, 0.5];
    const ceilings = [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000];
    const waits = [];
    const left = [...draws];
    const client = await begins({ random: () => left.shift() });
    client.on("reconnecting", ({ delayMs }) => waits.push(delayMs));
    for (let turn = 0; turn < draws.length; turn += 1) {
      socket().ends(1006);
      await tick(waits.at(-1));
    }
    assert.deepEqual(waits, draws.map((draw, at) => draw * ceilings[at]));
    assert.equal(Socket.all.length, draws.length + 1);
  });

  it("forgets_its_failures_only_after_a_connection_that_lasted", async () => {
    await begins();
    socket().ends(1006);
    await returnsAfter(500);
    socket().opens();
    await tick(9999);
    socket().ends(1006);
    await returnsAfter(1000);
    socket().opens();
    await tick(10_000);
    socket().ends(1006);
    await returnsAfter(500);
  });

  it("comes_back_when_a_reload_or_a_place_in_line_says_and_not_by_chance", async () => {
    await begins();
    socket().opens();
    socket().hears({ type: "throng:reload", reconnectDelayMs: 7000 });
    socket().ends(1012);
    await returnsAfter(7000);
    socket().ends(1013, "busy: come back in 12 s");
    await returnsAfter(12_000);
    socket().ends(1013, "too many connections: come back in 3 s");
    await returnsAfter(4000);
    socket().ends(1013, "too many connections: come back in 20 s");
    await returnsAfter(20_000);
  });

  it("stays_away_after_a_refusal_until_it_is_given_a_new_token", async () => {
    const asked = [];
    const getToken = () => asked.push("token") && "once";
    const client = await begins({ getToken });
    assert.deepEqual(socket().protocols, ["throng.v1.json", "throng.token.once"]);
    assert.equal(socket().url, "ws://example.com/ws");
    socket().opens();
    socket().ends(1008, "the token was revoked");
    assert.equal(client.state, "stopped");
    await tick(HOUR);
    assert.deepEqual([Socket.all.length, asked.length], [1, 1]);
    client.setToken("another");
    await settle();
    assert.deepEqual([Socket.all.length, asked.length], [2, 1]);
    assert.equal(socket().protocols[1], "throng.token.another");
  });

  it("stops_when_the_socket_tells_of_401_or_403_or_when_there_is_no_token", async () => {
    for (const status of [401, 403]) {
      const client = await begins({ token: "wrong" });
      const before = Socket.all.length;
      socket().onerror({ message: `Unexpected server response: ${status}` });
      socket().ends(1006);
      await tick(HOUR);
      assert.deepEqual([client.state, Socket.all.length], ["stopped", before]);
    }
    const before = Socket.all.length;
    const client = await begins({ getToken: async () => null });
    await tick(HOUR);
    assert.deepEqual([client.state, Socket.all.length], ["stopped", before]);
  });

  it("does_not_show_a_token_again_that_opened_nothing_and_is_over", async () => {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const over = `${part({})}.${part({ exp: 1 })}.x`;
    const client = await begins({ token: over });
    socket().ends(1006);
    await tick(HOUR);
    assert.deepEqual([client.state, Socket.all.length], ["stopped", 1]);
  });

  it("asks_again_for_a_token_that_could_not_be_had", async () => {
    let asked = 0;
    const getToken = async () => {
      asked += 1;
      if (asked < 3) throw new Error("the back end is away");
      return "third";
    };
    await begins({ getToken });
    assert.equal(Socket.all.length, 0);
    await tick(500);
    assert.deepEqual([asked, Socket.all.length], [2, 0]);
    await tick(1000);
    assert.deepEqual([asked, Socket.all.length], [3, 1]);
  });

  it("sleeps_after_an_idle_end_until_there_is_something_to_say", async () => {
    const client = await begins();
    socket().opens();
    socket().ends(1001, "idle for too long");
    await tick(HOUR);
    assert.deepEqual([client.state, Socket.all.length], ["asleep", 1]);
    client.publish("line", 1, { room: "lobby" });
    await settle();
    assert.equal(Socket.all.length, 2);
    socket().opens();
    assert.equal(socket().said[0].type, "line");
    client.join("lobby");
    await settle();
    socket().ends(1001, "idle for too long");
    assert.equal(client.state, "waiting", "who listens comes back");
  });

  it("leaves_the_decision_about_codes_of_its_own_to_the_application", async () => {
    const client = await begins({ decide: (code) => ({ 4100: false, 4101: 60_000 })[code] });
    socket().opens();
    socket().ends(4101);
    await returnsAfter(60_000);
    socket().opens();
    socket().ends(4100, "the game is over");
    await tick(HOUR);
    assert.deepEqual([client.state, Socket.all.length], ["stopped", 2]);
  });

  it("gives_up_an_attempt_that_nobody_answers", async () => {
    await begins();
    await tick(14_999);
    assert.equal(socket().closedWith, undefined);
    await tick(1);
    assert.equal(socket().closedWith, 1000);
    await returnsAfter(500);
  });

  it("hands_no_more_to_a_socket_than_it_can_send", async () => {
    const client = await begins({ bufferedMax: 100 });
    socket().opens();
    socket().bufferedAmount = 101;
    client.publish("line", 1, { room: "lobby" });
    assert.equal(client.send("line", 0, { room: "lobby" }), false);
    assert.equal(socket().said.length, 0);
    assert.ok(client.bufferedAmount > 101);
    await tick(50);
    assert.equal(socket().said.length, 0);
    socket().bufferedAmount = 0;
    await tick(50);
    assert.equal(socket().said.length, 1);
  });

  it("slows_down_when_it_is_told_to_and_keeps_the_order", async () => {
    const client = await begins();
    socket().opens();
    const taken = [1, 2, 3].map((n) => client.publish("line", n, { room: "lobby" }));
    const [first, second, third] = socket().said;
    socket().hears({ type: "throng:reply", ref: first.ref, ok: true });
    for (const { ref } of [second, third]) {
      socket().hears({ type: "throng:error", ref, code: "rate_limited", message: "", retryAfterMs: 40 });
    }
    assert.equal(socket().said.length, 3);
    await tick(39);
    assert.equal(socket().said.length, 3);
    await tick(1);
    const again = socket().said.slice(3);
    assert.deepEqual(again.map(({ payload, id }) => [payload, id]), [second, third].map(({ payload, id }) => [payload, id]));
    for (const { ref } of again) socket().hears({ type: "throng:reply", ref, ok: true });
    assert.equal((await Promise.all(taken)).length, 3);
  });

  it("does_not_send_what_is_too_large_and_does_not_repeat_what_was", async () => {
    const client = await begins({ resend: true });
    socket().opens();
    await assert.rejects(client.publish("line", "x".repeat(1000), { room: "lobby" }), { code: "too_large" });
    assert.equal(socket().said.length, 0);
    const early = await begins();
    const waits = [early.publish("line", "x".repeat(1000), { room: "lobby" }), early.publish("line", "z", { room: "lobby" })];
    socket().opens();
    await assert.rejects(waits[0], { code: "too_large" });
    assert.deepEqual(socket().said.map(({ payload }) => payload), ["z"], "the other one is none the worse");
    early.close();
    await assert.rejects(waits[1], { code: "closed" });
    Socket.all.pop();
    const taken = client.publish("line", "y", { room: "lobby" });
    socket().ends(1009);
    await assert.rejects(taken, { code: "too_large" });
    await returnsAfter(500);
    socket().opens();
    assert.equal(socket().said.length, 0);
  });

  it("keeps_no_push_twice_and_goes_on_from_a_resync", async () => {
    const client = await begins();
    const room = client.join("lobby", { since: { epoch: "a", offset: 5 } });
    const heard = [];
    room.on("message", ({ offset }) => heard.push(offset));
    socket().opens();
    assert.deepEqual(socket().said[0].since, { epoch: "a", offset: 5 });
    socket().hears({ type: "throng:reply", ref: socket().said[0].ref, ok: true, room: "lobby", members: 1, offset: 7, epoch: "a", recovered: true });
    for (const offset of [6, 7, 7, 6, 8]) socket().hears({ type: "line", room: "lobby", offset });
    assert.deepEqual([heard, client.duplicates], [[6, 7, 8], 2]);
    socket().hears({ type: "throng:resync", room: "lobby", reason: "epoch", epoch: "b", offset: 2 });
    for (const offset of [2, 3]) socket().hears({ type: "line", room: "lobby", offset });
    assert.deepEqual(heard, [6, 7, 8, 3]);
    assert.deepEqual(room.cursor, { epoch: "b", offset: 3 });
  });

  it("tries_a_join_again_that_is_refused_for_now", async () => {
    const client = await begins();
    const room = client.join("lobby");
    socket().opens();
    const [{ ref }] = socket().said;
    socket().hears({ type: "throng:error", ref, code: "rate_limited", message: "", retryAfterMs: 300 });
    await tick(300);
    const again = socket().said[1];
    assert.deepEqual([again.type, again.room], ["throng:join", "lobby"]);
    socket().hears({ type: "throng:reply", ref: again.ref, ok: true, room: "lobby", members: 1, offset: 0, epoch: "a" });
    assert.equal(await room.ready, room);
  });

  it("calls_all_handlers_though_one_fails", async () => {
    const client = await begins();
    const told = [];
    globalThis.reportError = (error) => told.push(error.message);
    client.on("open", () => { throw new Error("broken"); });
    client.on("open", () => told.push("open"));
    socket().opens();
    delete globalThis.reportError;
    assert.deepEqual(told, ["broken", "open"]);
  });
});
