// The demo page in headless Chromium, against a real engine on each driver.
//
// Two kinds of tests. The first look at the whole path: two browser contexts on two shards, and what one
// types the other sees. The second put words in the server's mouth (an intercepted WebSocket and a clock
// that is moved by hand), because the advice a client must follow is given too rarely to wait for.
// Every page is held to this: no console error, and no request to anywhere but the engine it came from.

import assert from "node:assert/strict";
import { connect } from "node:net";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";

import { DRIVERS, startEngine } from "../tools/engine.mjs";
import { KNOWN, OUT, SUITE_MS, Visitor, WAIT_MS, adminOf, comesTo, withAdmin } from "./visitor.mjs";

/** Coming back waits for a jittered delay that may have grown while the engine was away. */
const RETURN_MS = 60_000;
/** With two shards, missing one of them this often in a row is a one in 2^40 accident. */
const SHARD_ATTEMPTS = 40;

/** In a page: hears a room by an event stream and by a WebSocket, and publishes to it. */
async function listenBothWays({ room, messages }) {
  const source = new EventSource(`/sse?room=${room}`);
  const socket = new WebSocket(`ws://${location.host}/ws`, "throng.v1.json");
  const events = [];
  const texts = [];
  const isOurs = (data) => JSON.parse(data).type === "line";
  const ready = (target, type, is) =>
    new Promise((resolve, reject) => {
      target.addEventListener(type, (event) => is(event) && resolve());
      target.addEventListener("error", () => reject(new Error(`the ${type} did not come`)));
    });
  const replied = ({ data }) => JSON.parse(data).ok === true;
  const listens = ready(source, "message", replied);
  const joins = ready(socket, "message", replied);
  source.addEventListener("message", ({ data, lastEventId }) => isOurs(data) && events.push({ data, lastEventId }));
  socket.addEventListener("message", ({ data }) => isOurs(data) && texts.push(data));
  await ready(socket, "open", () => true);
  socket.send(JSON.stringify({ type: "throng:join", room, ref: 1 }));
  await Promise.all([listens, joins]);
  for (let n = 0; n < messages; n += 1) {
    socket.send(JSON.stringify({ type: "line", room, payload: `one\r\ntwo\nthree\u2028${n}` }));
  }
  while (events.length < messages || texts.length < messages) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  source.close();
  socket.close();
  return { events, texts };
}

/** A client without a browser that joins a room and then reads nothing any more; with its id. */
async function neverReads(address, room) {
  const [host, port] = address.split(":");
  const socket = connect({ host, port: Number(port) });
  socket.setEncoding("latin1");
  const frame = Buffer.from(JSON.stringify({ type: "throng:join", room, ref: 1 }));
  // Short, and masked with zeros, which leave it as it is.
  const join = Buffer.concat([Buffer.from([0x81, 0x80 | frame.length, 0, 0, 0, 0]), frame]);
  socket.write(
    `GET /ws HTTP/1.1\r\nHost: ${address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
      "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: throng.v1.json\r\n\r\n",
  );
  socket.write(join);
  let heard = "";
  await new Promise((done, fail) => {
    socket.on("error", fail);
    socket.on("data", (text) => {
      heard += text;
      if (heard.includes('"ok":true')) done();
    });
  });
  socket.removeAllListeners("data");
  socket.pause();
  return { socket, id: /"clientId":"([^"]+)"/.exec(heard)[1] };
}

/** In a page: publishes to a room as fast as it is allowed to, for as long as it is left alone. */
function floods({ room }) {
  window.isEnough = false;
  const socket = new WebSocket(`ws://${location.host}/ws`, "throng.v1.json");
  const payload = "x".repeat(30_000);
  const say = () => socket.send(JSON.stringify({ type: "fill", room, payload, ref: 1 }));
  socket.onmessage = () => (window.isEnough ? socket.close() : setTimeout(say, 10));
}

/** Two visitors of one room on two different shards. */
async function pairAcrossShards(address, options) {
  const one = await Visitor.arrive(address, { name: "Ada", ...options });
  const here = await one.settled();
  for (let attempt = 0; attempt < SHARD_ATTEMPTS; attempt += 1) {
    const other = await Visitor.arrive(address, { name: "Grace", colorScheme: "dark", ...options });
    if ((await other.settled()) !== here) return [one, other];
    await other.leave();
  }
  throw new Error(`${SHARD_ATTEMPTS} connections in a row landed on shard ${here}`);
}

for (const driver of DRIVERS) {
  describe(`the demo page on ${driver}`, { timeout: SUITE_MS }, () => {
    const settings = { "server.driver": driver, "server.shards": 2 };
    const log = join(OUT, `${driver}-engine.log`);
    let engine;
    let ada;
    let grace;

    before(async () => {
      engine = await startEngine({ settings, log });
      [ada, grace] = await pairAcrossShards(engine.address);
    });

    after(async () => {
      await ada?.leave();
      const end = await engine?.stop();
      assert.equal(end?.code, 0, "the engine did not end cleanly");
    });

    it("counts_both_visitors", async () => {
      await ada.sees("member-count", /^2$/);
      await grace.sees("member-count", /^2$/);
    });

    it("carries_a_message_to_the_other_shard_and_names_the_senders", async () => {
      await ada.says("across the shards");
      await grace.heard("across the shards").waitFor();
      const message = grace.at("message").filter({ hasText: "across the shards" });
      assert.equal(await message.getByTestId("message-from").textContent(), "Ada");
      const senders = `shard ${await ada.settled()}`;
      assert.equal(await message.getByTestId("message-shard").textContent(), senders);
      await grace.says("and back again");
      await ada.heard("and back again").waitFor();
    });

    it("measures_its_round_trip", async () => {
      await ada.sees("latency", /^\d+(\.\d)? ms$/);
    });

    it("listens_by_an_event_stream_where_it_is_asked_to_or_there_is_no_websocket", async () => {
      const withoutSockets = (page) => page.addInitScript(() => delete window.WebSocket);
      for (const [way, options] of [["asked", { query: "?sse" }], ["has none", { prepare: withoutSockets }]]) {
        const sockets = [];
        const prepare = (page) => {
          page.on("websocket", (socket) => sockets.push(socket.url()));
          return options.prepare?.(page);
        };
        const listener = await Visitor.arrive(engine.address, { ...options, prepare });
        await listener.state("open");
        await listener.sees("connection-state", /^Listening/);
        const placeholder = await listener.at("composer").getAttribute("placeholder");
        assert.match(placeholder, /^Read only: .* event stream$/);
        assert.ok(await listener.at("composer").isDisabled(), "there is nothing to write in");
        await ada.says(`to those who ${way}`);
        await listener.heard(`to those who ${way}`).waitFor();
        const message = listener.at("message").filter({ hasText: `to those who ${way}` });
        assert.equal(await message.getByTestId("message-from").textContent(), "Ada");
        // It goes to another room by another stream, and hears the first no more.
        await listener.at("room-input").fill(`beside ${way}`);
        await listener.at("room-join").click();
        await listener.sees("room-name", new RegExp(`^beside ${way}$`));
        await listener.state("open");
        assert.equal(await listener.heard(`to those who ${way}`).count(), 0);
        assert.deepEqual(sockets, []);
        await listener.leave();
      }
    });

    it("gives_an_event_source_what_it_gives_a_websocket", async () => {
      const { events, texts } = await ada.page.evaluate(listenBothWays, { room: "feed", messages: 20 });
      assert.deepEqual(events.map(({ data }) => data), texts);
      assert.equal(events.length, 20);
      for (const { data, lastEventId } of events) {
        const { offset, room, payload } = JSON.parse(data);
        assert.ok(lastEventId.endsWith(`.${offset}.${room}`), lastEventId);
        assert.ok(payload.startsWith("one\r\ntwo\nthree\u2028"), payload);
      }
    });

    it("shows_who_is_typing_until_they_stop", async () => {
      await ada.at("composer").pressSequentially("hm");
      await grace.sees("typing", "Ada is typing");
      assert.equal(await ada.at("typing").isVisible(), false, "the typist was told of herself");
      await grace.at("typing").waitFor({ state: "hidden" });
      await ada.at("composer").fill("");
    });

    it("shows_markup_as_the_text_it_is", async () => {
      const markup = '<img src=x onerror="alert(1)"><script>alert(2)</script>&amp;';
      await ada.says(markup);
      await grace.heard(markup).waitFor();
      assert.equal(await grace.at("log").locator("img, script").count(), 0);
    });

    it("draws_the_traffic_of_a_burst", async () => {
      await ada.at("pulse").click();
      await grace.sees("rate-in", /^\d{2,}$/);
      const heights = await grace.at("spark").locator("polyline.in").getAttribute("points");
      assert.ok(new Set(heights.split(" ").map((point) => point.split(",")[1])).size > 1, "a flat line");
    });

    it("keeps_its_photograph", async () => {
      await ada.page.screenshot({ path: join(OUT, `${driver}-light.png`) });
      await grace.page.screenshot({ path: join(OUT, `${driver}-dark.png`) });
    });

    it("isolates_rooms_from_each_other", async () => {
      await grace.at("room-input").fill("elsewhere");
      await grace.at("room-join").click();
      await grace.sees("room-name", "elsewhere");
      await grace.sees("member-count", /^1$/);
      await ada.sees("member-count", /^1$/);
      await ada.says("for the lobby only");
      // Ada's next message comes after the one that must not arrive, so its arrival ends the wait.
      await ada.page.evaluate(() => (location.hash = "elsewhere"));
      await ada.sees("member-count", /^2$/);
      await ada.says("for elsewhere");
      await grace.heard("for elsewhere").waitFor();
      assert.equal(await grace.heard("for the lobby only").count(), 0);
    });

    it("comes_back_after_the_engine_was_killed_and_talks_again", async () => {
      for (const visitor of [ada, grace]) visitor.mayLoseServer = true;
      await engine.kill();
      await Promise.all([ada, grace].map((visitor) => visitor.sees("shard", "Not on a shard")));
      engine = await startEngine({ settings: { ...settings, "server.listen": engine.address }, log });
      await Promise.all([ada, grace].map((visitor) => visitor.settled(RETURN_MS)));
      for (const visitor of [ada, grace]) visitor.mayLoseServer = false;
      await ada.sees("member-count", /^2$/);
      await ada.says("still here");
      await grace.heard("still here").waitFor();
    });

    it("counts_down_when_a_visitor_leaves", async () => {
      await grace.leave();
      await ada.sees("member-count", /^1$/);
    });

    it("bounds_its_transcript", async () => {
      await ada.page.evaluate(publishChats, { room: "elsewhere", count: 520 });
      await ada.heard("number 519").waitFor();
      assert.equal(await ada.at("log").locator("> *").count(), 500);
    });
  });
}

describe("the operator's page", { timeout: SUITE_MS }, () => {
  const secret = "a secret for the operator's page";
  const log = join(OUT, "operator-engine.log");
  let engine;
  let admin;
  let demo;
  let operator;

  before(async () => {
    const key = `[{name="page", secret="${secret}", scopes=["inspect"]}]`;
    const settings = { "server.driver": DRIVERS[0], "server.shards": 2, "admin.listen": "127.0.0.1:0", key };
    engine = await startEngine({ settings, log });
    admin = /admin on http:\/\/(\S+)/.exec(engine.said)[1];
    demo = /open http:\/\/([^/]+)/.exec(engine.said)[1];
    operator = await Visitor.arrive(admin);
  });

  after(async () => {
    await operator?.leave();
    assert.equal((await engine?.stop())?.code, 0, "the engine did not end cleanly");
  });

  it("tells_nothing_without_a_key_and_says_when_one_is_refused", async () => {
    await operator.at("door").waitFor();
    await operator.sees("connections", /^–$/);
    operator.mayBeRefused = true;
    await operator.at("key").fill("not the secret at all");
    await operator.at("open").click();
    await operator.at("door").getByText("The node does not take this key.").waitFor();
    operator.mayBeRefused = false;
    await operator.sees("connections", /^–$/);
  });

  it("shows_connections_shards_and_ends_as_they_come", async () => {
    await operator.at("key").fill(secret);
    await operator.at("open").click();
    await operator.state("live");
    await operator.at("door").waitFor({ state: "hidden" });
    await operator.sees("connections", /^0$/);
    assert.equal(await operator.at("shards").locator("tbody tr").count(), 2);
    const ada = await Visitor.arrive(demo, { name: "Ada" });
    await ada.settled();
    await operator.sees("connections", /^1$/);
    await operator.sees("laggards", /nobody has anything to read/);
    await operator.sees("rooms", /lobby\s*1/);
    await operator.page.screenshot({ path: join(OUT, "operator.png"), fullPage: true });
    await ada.leave();
    await operator.sees("connections", /^0$/);
    await operator.sees("rooms", /nobody is in a room/);
    await operator.sees("reasons", /ended: (lost|closed)/);
  });

  it("names_the_slowest_reader", async () => {
    const slow = await neverReads(demo, "slow");
    const ada = await Visitor.arrive(demo, { name: "Ada" });
    await ada.settled();
    await ada.page.evaluate(floods, { room: "slow" });
    await operator.sees("laggards", /KiB|kB|MiB/);
    assert.match(await operator.at("laggards").locator("tbody tr").first().textContent(), new RegExp(await slow.id));
    await ada.page.evaluate(() => (window.isEnough = true));
    slow.socket.destroy();
    await operator.sees("laggards", /nobody has anything to read/);
    await ada.leave();
  });

  it("keeps_its_key_over_a_reload_and_says_when_the_node_is_gone", async () => {
    await operator.page.reload();
    await operator.state("live");
    await operator.page.context().setOffline(true);
    operator.mayLoseServer = true;
    await operator.state("lost");
    await operator.page.context().setOffline(false);
    await operator.state("live");
  });
});

/** Runs in the page: a second client that publishes one message after another, each after its echo. */
function publishChats({ room, count }) {
  return new Promise((done, fail) => {
    const socket = new WebSocket(`ws://${location.host}/ws`, "throng.v1.json");
    let next = 0;
    const publish = () => {
      if (next === count) return socket.close();
      socket.send(JSON.stringify({ type: "chat", room, payload: { name: "Crowd", text: `number ${next}` } }));
      next += 1;
    };
    socket.onclose = () => (next === count ? done() : fail(new Error(`closed after ${next} messages`)));
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === "throng:connected") {
        socket.send(JSON.stringify({ type: "throng:join", room, ref: 1 }));
      } else if (message.type === "throng:reply" || message.payload?.name === "Crowd") {
        publish();
      } else if (message.type === "throng:error") {
        fail(new Error(data));
      }
    };
  });
}

const KEY = "a secret of the back end";

for (const driver of DRIVERS) {
  describe(`the bell on ${driver}`, { timeout: SUITE_MS }, () => {
    let engine;
    let admin;

    before(async () => {
      const settings = {
        "server.driver": driver,
        ...KNOWN,
        ...withAdmin(KEY, "notify"),
      };
      engine = await startEngine({ settings, log: join(OUT, `${driver}-bell-engine.log`) });
      admin = adminOf(engine);
    });

    after(async () => {
      assert.equal((await engine?.stop())?.code, 0, "the engine did not end cleanly");
    });

    const comes = (user) => comesTo(engine, user);

    async function notify(user, text) {
      const body = JSON.stringify({ user, payload: { text } });
      const headers = { authorization: `Bearer ${KEY}` };
      const answer = await fetch(`${admin}/v1/notify`, { method: "POST", body, headers });
      assert.equal(answer.status, 201, await answer.text());
    }

    it("shows_what_came_while_away_what_comes_now_and_what_another_tab_has_read", async () => {
      await notify("ada", "while you were away");
      const one = await comes("ada");
      const other = await comes("ada");
      const stranger = await comes("bob");
      for (const tab of [one, other]) await tab.sees("unread", /^1$/);
      await notify("ada", "and <b>now</b>");
      for (const tab of [one, other]) await tab.sees("unread", /^2$/);
      assert.equal(await stranger.at("unread").isVisible(), false);
      await one.at("bell").click();
      await one.sees("note", "while you were away");
      await one.sees("note", "and <b>now</b>");
      await one.page.screenshot({ path: join(OUT, `${driver}-bell.png`) });
      await one.at("read-all").click();
      for (const tab of [one, other]) await tab.at("unread").waitFor({ state: "hidden" });
      assert.equal(await one.at("note").count(), 0);
      await one.page.reload();
      await one.settled();
      await one.at("bell").waitFor();
      await notify("ada", "after that");
      for (const tab of [one, other]) await tab.sees("unread", /^1$/);
      for (const tab of [one, other, stranger]) await tab.leave();
    });
  });
}

for (const driver of DRIVERS) {
  describe(`the people of a room on ${driver}`, { timeout: SUITE_MS }, () => {
    let engine;

    before(async () => {
      const settings = { "server.driver": driver, ...KNOWN, "presence.grace_ms": 300, "presence.interval_ms": 50 };
      engine = await startEngine({ settings, log: join(OUT, `${driver}-people-engine.log`) });
    });

    after(async () => {
      assert.equal((await engine?.stop())?.code, 0, "the engine did not end cleanly");
    });

    it("shows_who_is_there_who_looks_away_and_when_somebody_was_last_seen", async () => {
      const ada = await comesTo(engine, "ada");
      const bob = await comesTo(engine, "bob");
      const other = await comesTo(engine, "bob");
      const sees = (state, text) => {
        const person = ada.page.locator(`[data-testid="person"][data-state="${state}"]`);
        return person.filter({ hasText: "bob" }).filter({ hasText: text }).waitFor();
      };
      await sees("online", "online");
      assert.equal(await ada.at("person").filter({ hasText: "bob" }).count(), 1, "two tabs are one person");
      const look = (hidden) => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
      };
      await bob.page.evaluate(look, true);
      await other.page.evaluate(look, true);
      await sees("idle", "idle");
      await bob.page.evaluate(look, false);
      await sees("online", "online");
      await bob.leave();
      await sees("idle", "idle");
      await ada.page.screenshot({ path: join(OUT, `${driver}-people.png`) });
      await other.leave();
      await sees("offline", "last seen");
      await ada.leave();
    });
  });
}

describe("the demo page follows advice", { timeout: SUITE_MS }, () => {
  const log = join(OUT, "advice-engine.log");
  let engine;

  before(async () => {
    engine = await startEngine({ settings: { "server.driver": DRIVERS[0], "server.shards": 1 }, log });
  });

  after(() => engine?.stop());

  /** A visitor whose server is the test itself: `attempts` holds the sockets it opened, in order. */
  async function listener({ onAttempt, ...options } = {}) {
    const attempts = [];
    let arrived = () => {};
    attempts.next = () => {
      return new Promise((done, fail) => {
        const limit = setTimeout(() => fail(new Error("no further attempt")), WAIT_MS);
        arrived = () => done(clearTimeout(limit));
      });
    };
    const visitor = await Visitor.arrive(engine.address, {
      ...options,
      prepare: async (page) => {
        // Stands still until a test moves it, so that a margin of milliseconds is a margin.
        await page.clock.install({ time: 0 });
        await page.clock.pauseAt(1000);
        await page.addInitScript(() => (Math.random = () => 0.5));
        await page.routeWebSocket("**/ws", (socket) => {
          attempts.push(socket);
          (onAttempt ?? greet)(socket);
          arrived();
        });
      },
    });
    return { visitor, attempts, clock: visitor.page.clock };
  }

  function greet(socket) {
    socket.send(
      JSON.stringify({
        type: "throng:connected",
        clientId: "3-1f-1",
        heartbeat: { intervalMs: 25_000, timeoutMs: 20_000 },
        limits: { maxMessageBytes: 65_536 },
        protocol: "throng.v1.json",
      }),
    );
    socket.onMessage((data) => {
      const { type, ref, room } = JSON.parse(data);
      const reply = type === "throng:ping" ? { type: "throng:pong", ref } : { type: "throng:reply", ref, ok: true, room, members: 1 };
      if (ref !== undefined) socket.send(JSON.stringify(reply));
    });
  }

  /** Passes when the next attempt happens after `ms` and not before. */
  async function returnsAfter({ visitor, attempts, clock }, ms) {
    const before = attempts.length;
    await visitor.state("waiting");
    // The step that brought the last attempt may have run up to 20 ms past it, into this delay.
    await clock.runFor(ms - 100);
    assert.equal(await visitor.at("connection-state").getAttribute("data-state"), "waiting", `came back before ${ms} ms`);
    assert.equal(attempts.length, before);
    const next = attempts.next();
    await clock.runFor(120);
    await next;
  }

  it("stops_for_good_when_refused_by_policy", async () => {
    const { visitor, attempts, clock } = await listener();
    await visitor.settled();
    await attempts[0].close({ code: 1008, reason: "not welcome" });
    await visitor.state("refused");
    await visitor.sees("connection-state", "not welcome");
    await clock.runFor(120_000);
    assert.equal(attempts.length, 1);
    await visitor.at("retry").click();
    await visitor.settled();
    assert.equal(attempts.length, 2);
    await visitor.leave();
  });

  it("waits_as_long_as_a_reload_asks", async () => {
    const listening = await listener();
    const { visitor, attempts } = listening;
    await visitor.settled();
    attempts[0].send(JSON.stringify({ type: "throng:reload", reconnectDelayMs: 7000 }));
    await visitor.sees("notice", "restarting");
    await attempts[0].close({ code: 1012, reason: "restart" });
    await returnsAfter(listening, 7000);
    await visitor.settled();
    await visitor.leave();
  });

  it("doubles_a_jittered_delay_up_to_the_cap", async () => {
    const listening = await listener({ onAttempt: (socket) => socket.close({ code: 1001 }) });
    for (const ceiling of [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]) {
      await returnsAfter(listening, ceiling / 2);
    }
    await listening.visitor.leave();
  });

  it("forgets_its_failures_only_after_a_stable_while", async () => {
    const listening = await listener();
    const { visitor, attempts, clock } = listening;
    await visitor.settled();
    await attempts.at(-1).close({ code: 1001 });
    await returnsAfter(listening, 500);
    await visitor.settled();
    await attempts.at(-1).close({ code: 1001 });
    await returnsAfter(listening, 1000);
    await visitor.settled();
    await clock.runFor(11_000);
    await attempts.at(-1).close({ code: 1001 });
    await returnsAfter(listening, 500);
    await visitor.leave();
  });

  it("gives_up_a_connection_that_fell_silent", async () => {
    const { visitor, attempts, clock } = await listener();
    await visitor.settled();
    attempts[0].onMessage(() => {});
    await clock.runFor(30_000);
    await visitor.state("open");
    assert.equal(attempts.length, 2);
    await visitor.leave();
  });

  it("tells_of_lost_messages_and_refused_commands", async () => {
    const { visitor, attempts } = await listener();
    await visitor.settled();
    attempts[0].send(JSON.stringify({ type: "throng:gap", room: "lobby", lost: 12 }));
    await visitor.sees("notice", "12 messages in #lobby did not reach you");
    attempts[0].send(JSON.stringify({ type: "throng:error", code: "too_deep", message: "33 levels, at most 32" }));
    await visitor.sees("notice", "too_deep");
    await visitor.leave();
  });

  it("fits_a_telephone", async () => {
    const { visitor } = await listener({ viewport: { width: 360, height: 720 } });
    await visitor.settled();
    const wide = await visitor.page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(wide <= 360, `the page is ${wide} px wide`);
    assert.ok(await visitor.at("send").isVisible());
    await visitor.page.screenshot({ path: join(OUT, "phone.png") });
    await visitor.leave();
  });
});
