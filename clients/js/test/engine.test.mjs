// The client against real engines, on every driver: what it does when connections end, and how.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";

import { DRIVERS } from "../../../tests/tools/engine.mjs";
import { KNOWN, Visitors, WAIT_MS, Wire, administer, engineOf, inSeconds, next, tokenOf, until } from "./support.mjs";

/** A suite takes a quarter of a minute; one that takes this long is stuck. */
const LIMIT = { timeout: 10 * WAIT_MS };
const ROOMS = 50;

const joins = ({ type }) => type === "throng:restore" || type === "throng:join";
const tokenIn = ({ head }) => /throng\.token\.(\S+?)(?:,|\r|$)/m.exec(head)[1];
const whole = (count) => Array.from({ length: count }, (_, at) => at + 1);

for (const driver of DRIVERS) {
  describe(`the client on ${driver}`, LIMIT, () => {
    const visitors = new Visitors();
    let engine;
    let wire;

    before(async () => {
      engine = await engineOf(driver, KNOWN, "client");
    });
    beforeEach(async () => {
      wire = await Wire.to(engine.address);
    });
    afterEach(() => {
      visitors.leave();
      wire.close();
    });
    after(async () => {
      assert.equal((await engine?.stop())?.code, 0, "the engine did not end cleanly");
    });

    /** Somebody on the wire, about to be let in. */
    function onWire(options = {}) {
      const client = visitors.client(wire.address, { token: tokenOf("ada"), ...options });
      client.connect();
      return client;
    }

    /** Somebody whose connection nothing happens to. */
    async function other(user = "bob") {
      const client = visitors.client(engine.address, { token: tokenOf(user) });
      await client.connect();
      return client;
    }

    it("comes_back_to_all_its_rooms_in_one_message_and_misses_and_repeats_nothing", async () => {
      const bob = await other();
      const ada = visitors.client(wire.address, { getToken: () => tokenOf("ada") });
      const names = whole(ROOMS).map((number) => `many:${driver}:${number}`);
      const heard = new Map();
      const shown = new Map();
      for (const name of names) {
        heard.set(name, []);
        ada.join(name).on("message", ({ offset }) => heard.get(name).push(offset));
      }
      await ada.connect();
      await Promise.all(names.map((name) => ada.room(name).ready));
      let published = 0;
      const publish = async () => {
        await Promise.all(names.map((room) => bob.publish("line", published, { room })));
        published += 1;
      };
      for (let round = 0; round < 3; round += 1) {
        await publish();
        await until("what was published is heard", () => names.every((name) => heard.get(name).length === published));
        for (const name of names) shown.set(name, ada.room(name).cursor);
        const back = next(ada, "open");
        const before = wire.connections.length;
        wire.takes = false;
        wire.cut();
        await until("it tries to come back", () => wire.refused > 0);
        await publish();
        wire.takes = true;
        await Promise.all([publish(), back]);
        await until("what was missed is heard", () => names.every((name) => heard.get(name).length >= published));
        assert.equal(wire.connections.length, before + 1);
        const said = wire.connections.at(-1).said.filter(joins);
        assert.equal(said.length, 1, "the rooms are one message");
        assert.deepEqual(said[0].rooms, names.map((room) => ({ room, since: shown.get(room) })));
      }
      for (const name of names) assert.deepEqual(heard.get(name), whole(published), name);
    });

    it("begins_with_all_its_rooms_in_one_message_and_joins_later_ones_together", async () => {
      const ada = visitors.client(wire.address, { token: tokenOf("ada"), rooms: ["one", { room: "two" }] });
      await ada.connect();
      const rooms = [ada.room("one"), ada.room("two"), ada.join("three"), ada.join("four")];
      await Promise.all(rooms.map((room) => room.ready));
      assert.equal(ada.join("three"), rooms[2], "a room is joined once");
      const asked = wire.said.filter(joins).map((message) => message.rooms.map(({ room }) => room));
      assert.deepEqual(asked, [["one", "two"], ["three", "four"]]);
      const taken = await ada.join("five").publish("line", "at once");
      assert.ok(taken.id, "what is published behind a join comes behind it");
    });

    it("publishes_once_over_a_lost_connection", async () => {
      const bob = await other();
      const heard = [];
      const room = bob.join("orders");
      room.on("message", ({ id }) => heard.push(id));
      await room.ready;
      const ada = onWire();
      await ada.join("orders").ready;
      wire.isMute = true;
      const taken = ada.room("orders").publish("order", { dish: 4 });
      await until("the order has been taken", () => heard.length === 1);
      wire.isMute = false;
      wire.cut();
      const { id, duplicate } = await taken;
      assert.equal(duplicate, true);
      const orders = wire.said.filter(({ type }) => type === "order");
      assert.equal(orders.length, 2);
      assert.deepEqual(orders[0], orders[1]);
      const later = await ada.room("orders").publish("order", { dish: 5 });
      await until("the later one is heard", () => heard.length > 1);
      assert.deepEqual(heard, [id, later.id]);
    });

    it("does_not_send_again_what_is_not_to_be_and_says_that_nobody_knows", async () => {
      const bob = await other();
      const room = bob.join("dice");
      await room.ready;
      const rolled = next(room, "message");
      const ada = onWire();
      await ada.join("dice").ready;
      wire.isMute = true;
      const taken = ada.room("dice").publish("roll", 6, { resend: false });
      const told = next(ada, "undelivered");
      await rolled;
      wire.isMute = false;
      wire.cut();
      await assert.rejects(taken, { code: "unconfirmed" });
      assert.equal((await told).error.code, "unconfirmed");
      await next(ada, "open");
      await ada.room("dice").publish("roll", 5);
      assert.deepEqual(wire.said.filter(({ type }) => type === "roll").map(({ payload }) => payload), [6, 5]);
    });

    it("keeps_what_is_published_while_away_in_order_and_within_a_bound", async () => {
      const bob = await other();
      const heard = [];
      const room = bob.join("diary");
      room.on("message", ({ payload }) => heard.push(payload));
      await room.ready;
      const ada = onWire({ queueMax: 10 });
      await ada.join("diary").ready;
      wire.takes = false;
      wire.cut();
      await next(ada, "reconnecting");
      const taken = whole(10).map((line) => ada.room("diary").publish("line", line));
      assert.ok(ada.bufferedAmount > 10);
      assert.equal(ada.room("diary").send("line", 12), false, "what nobody confirms does not wait");
      await assert.rejects(ada.room("diary").publish("line", 11), { code: "queue_full" });
      assert.equal(ada.writable, false);
      const drained = next(ada, "drain");
      wire.takes = true;
      await Promise.all(taken);
      await drained;
      assert.deepEqual([ada.writable, ada.pending, ada.bufferedAmount], [true, 0, 0]);
      await until("all is heard", () => heard.length === 10);
      assert.deepEqual(heard, whole(10));
    });

    it("asks_for_a_token_before_every_attempt_and_uses_none_whose_time_is_over", async () => {
      const tokens = [];
      const getToken = async () => {
        // Good for one second to two, as ends are whole seconds.
        tokens.push({ end: inSeconds(2000), refused: wire.refused });
        tokens.at(-1).token = tokenOf("ada", { exp: tokens.at(-1).end });
        return tokens.at(-1).token;
      };
      const ada = visitors.client(wire.address, { getToken });
      wire.takes = false;
      ada.connect();
      await until("the first token is over", () => wire.refused >= 3 && tokens[0].end * 1000 < Date.now());
      assert.ok(tokens.length >= wire.refused);
      tokens.slice(0, wire.refused).forEach(({ refused }, at) => assert.equal(refused, at, "one for each attempt"));
      wire.takes = true;
      await until("it is in", () => ada.isOpen);
      assert.equal(ada.userId, "ada");
      assert.equal(wire.connections.length, 1);
      assert.equal(tokenIn(wire.connections[0]), tokens.findLast(({ token }) => token === tokenIn(wire.connections[0])).token);
      assert.equal(tokens.findIndex(({ token }) => token === tokenIn(wire.connections[0])), wire.refused);
    });

    it("stops_after_a_revocation_until_it_is_given_a_new_token", async () => {
      const jti = `taken-back-${driver}`;
      const ada = onWire({ token: tokenOf("ada", { jti }), backoffBaseMs: 1, backoffCapMs: 1 });
      await ada.join("lobby").ready;
      const stopped = next(ada, "stopped");
      await administer(engine, "/v1/revocations", { tokenId: jti });
      assert.deepEqual((await stopped).code, 1008);
      // While another comes back twenty times, with delays as short as its own, it does not come back once.
      const second = await Wire.to(engine.address);
      const bob = visitors.client(second.address, { token: tokenOf("bob"), backoffBaseMs: 1, backoffCapMs: 1 });
      await bob.connect();
      for (let round = 0; round < 20; round += 1) {
        const back = next(bob, "open");
        second.cut();
        await back;
      }
      second.close();
      assert.deepEqual([ada.state, wire.connections.length], ["stopped", 1]);
      const joined = next(ada.room("lobby"), "joined");
      await ada.setToken(tokenOf("ada"));
      await joined;
      assert.equal(wire.connections.length, 2);
    });

    it("stops_when_the_only_token_it_has_is_over", async () => {
      const ada = visitors.client(wire.address, { token: tokenOf("ada", { exp: inSeconds(2000) }) });
      await ada.connect();
      assert.equal((await next(ada, "stopped")).code, 4401);
      assert.equal(wire.connections.length, 1);
      await ada.setToken(tokenOf("ada"));
      await until("it is in again", () => ada.isOpen);
    });

    it("comes_back_with_a_fresh_token_when_the_old_one_is_over_and_not_with_the_same", async () => {
      const last = tokenOf("ada", { exp: inSeconds(4000) });
      const given = [tokenOf("ada", { exp: inSeconds(2000) }), last, last];
      const getToken = ({ why }) => (why === "connect" ? given.shift() : Promise.reject(new Error("not now")));
      const ada = visitors.client(wire.address, { getToken });
      await ada.connect();
      assert.equal((await next(ada, "closed")).code, 4401);
      await next(ada, "open");
      const { why, code } = await next(ada, "stopped");
      assert.deepEqual([why, code, given.length], ["token", 1008, 0]);
      assert.equal(wire.connections.length, 2, "the token that was over was shown again");
    });

    it("goes_on_with_a_fresh_token_when_it_is_asked_for_one", async () => {
      const asked = [];
      const getToken = ({ why }) => {
        asked.push(why);
        return tokenOf("ada", { exp: inSeconds(why === "reauth" ? 600_000 : 2000) });
      };
      const ada = visitors.client(wire.address, { getToken });
      await ada.connect();
      const { userId } = await next(ada, "reauthed");
      assert.equal(userId, "ada");
      assert.deepEqual(asked, ["connect", "reauth"]);
      assert.deepEqual([ada.isOpen, wire.connections.length], [true, 1]);
    });

    it("tells_of_a_room_that_is_refused_and_joins_it_when_a_token_grants_it", async () => {
      const ada = visitors.client(wire.address, { token: tokenOf("ada", { rooms: ["lobby"] }) });
      const vault = ada.join("vault");
      const lobby = ada.join("lobby");
      await ada.connect();
      await lobby.ready;
      await assert.rejects(vault.ready, { code: "forbidden" });
      const joined = next(vault, "joined");
      await ada.setToken(tokenOf("ada"));
      await joined;
      const left = next(lobby, "left");
      await ada.setToken(tokenOf("ada", { rooms: ["vault"] }));
      assert.equal((await left).reason, "forbidden");
      assert.deepEqual([vault.joined, lobby.joined], [true, false]);
    });

    it("says_so_where_a_cursor_is_too_old_and_goes_on_from_the_newest", async () => {
      const bob = await other();
      const name = `short:${driver}`;
      await bob.join(name).ready;
      const first = bob.room(name).cursor;
      for (const line of whole(20)) await bob.publish("line", line, { room: name });
      const ada = visitors.client(wire.address, { token: tokenOf("ada") });
      const room = ada.join(name, { since: first });
      const told = [];
      room.on("resync", ({ reason, offset }) => told.push([reason, offset]));
      room.on("message", ({ offset }) => told.push(offset));
      await ada.connect();
      await room.ready;
      await bob.publish("line", 21, { room: name });
      await until("what is new is heard", () => told.length === 2);
      assert.deepEqual(told, [["too_old", 20], 21]);
      assert.deepEqual(room.cursor, { epoch: first.epoch, offset: 21 });
    });

    it("shows_what_was_said_before_and_then_what_is_new_and_nothing_twice", async () => {
      const bob = await other();
      const name = `past:${driver}`;
      await bob.join(name).ready;
      let published = 0;
      const publish = async (count) => {
        for (let n = 0; n < count; n += 1) await bob.publish("line", (published += 1), { room: name });
      };
      await publish(30);
      const ada = visitors.client(wire.address, { token: tokenOf("ada") });
      await ada.connect();
      const room = ada.join(name, { history: 10 });
      const seen = [];
      room.on("history", ({ messages, more }) => seen.push(...messages.map(({ offset }) => offset), more));
      room.on("message", ({ offset }) => seen.push(offset));
      await publish(30);
      await until("all is seen", () => seen.includes(60));
      const more = seen.indexOf(true);
      assert.equal(more, 10);
      const first = seen[0];
      assert.deepEqual(seen.filter((number) => number !== true), whole(60).slice(first - 1));
      const page = await room.history({ before: first, limit: 5 });
      assert.deepEqual(page.messages.map(({ offset }) => offset), whole(60).slice(first - 6, first - 1));
    });

    it("notices_a_connection_that_is_dead_and_comes_back", async () => {
      const ada = onWire({ heartbeat: { silenceMs: 300, answerMs: 300 } });
      await ada.join("lobby").ready;
      await until("it has asked, and lives", () => wire.said.some(({ type }) => type === "throng:ping"));
      await ada.ping();
      assert.equal(wire.connections.length, 1, "one that answers is left alone");
      wire.stall();
      assert.equal((await next(ada, "closed")).code, 4000);
      await next(ada, "open");
      assert.ok((await ada.ping()) > 0);
    });

    it("tells_how_users_are_and_who_is_in_a_room_over_connections", async () => {
      const bob = await other();
      await bob.join("hall").ready;
      const ada = visitors.client(wire.address, { token: tokenOf("ada") });
      const hall = ada.join("hall", { presence: true });
      const states = [];
      ada.on("presence", ({ room, users = [] }) => room === undefined && states.push(...users.map(({ state }) => state)));
      ada.watch(["bob"]);
      await ada.connect();
      await until("bob is there", () => hall.presence.users.get("bob")?.state === "online" && states.at(-1) === "online");
      bob.setStatus("idle");
      await until("bob looks away", () => hall.presence.users.get("bob")?.state === "idle" && states.at(-1) === "idle");
      const back = next(ada, "open");
      wire.cut();
      await back;
      bob.close();
      await until("bob has gone", () => !hall.presence.users.has("bob") && states.at(-1) === "offline");
      await until("ada alone is counted", () => hall.members === 1);
      const [{ user, state }] = await ada.whois(["bob"]);
      assert.deepEqual([user, state], ["bob", "offline"]);
      assert.equal(await hall.count(), 1);
      const { connections } = await hall.whois();
      assert.equal(connections[0].clientId, ada.clientId);
    });

    it("keeps_notifications_equal_to_the_servers_over_connections_and_devices", async () => {
      const user = `reader-${driver}`;
      const notify = (text) => administer(engine, "/v1/notify", { user, payload: { text } });
      await notify("first");
      const here = visitors.client(wire.address, { token: tokenOf(user), inbox: true });
      const there = visitors.client(engine.address, { token: tokenOf(user), inbox: true });
      const told = [];
      here.on("notification", ({ payload }) => told.push(payload.text));
      await Promise.all([here.connect(), there.connect()]);
      const texts = (client) => [...client.notifications.items.values()].map(({ payload }) => payload.text).join();
      await until("the first is listed", () => [here, there].every((client) => texts(client) === "first"));
      await notify("second");
      await until("the second is pushed", () => [here, there].every((client) => texts(client) === "first,second"));
      wire.takes = false;
      wire.cut();
      await next(here, "reconnecting");
      await notify("third");
      await there.notifications.markRead([[...there.notifications.items.keys()][0]]);
      wire.takes = true;
      await until("both have the same", () => [here, there].every((client) => texts(client) === "second,third"));
      assert.deepEqual([here.notifications.unread, there.notifications.unread], [2, 2]);
      assert.deepEqual(told, ["first", "second", "third"]);
      await here.notifications.markAllRead();
      await until("nothing is left", () => [here, there].every((client) => client.notifications.unread === 0 && texts(client) === ""));
    });

    it("comes_back_by_an_event_stream_to_all_its_rooms_and_misses_and_repeats_nothing", async () => {
      const bob = await other();
      const names = ["one", "zwei \u00fc", "three"].map((name) => `feed:${driver}:${name}`);
      // A room of which nothing is kept ends with its last member, and begins anew.
      for (const room of names) await bob.publish("line", "before", { room });
      const ada = visitors.client(wire.address, { token: tokenOf("ada"), tokenBy: "query", transport: "sse" });
      const seen = new Map(names.map((name) => [name, []]));
      const resyncs = [];
      const rooms = names.map((name) => ada.join(name));
      for (const room of rooms) {
        room.on("message", ({ payload }) => seen.get(room.name).push(payload));
        room.on("resync", (told) => resyncs.push(told));
      }
      await ada.connect();
      await Promise.all(rooms.map((room) => room.ready));
      for (let round = 0; round < 3; round += 1) {
        await bob.publish("line", `live ${round}`, { room: names[round % 2] });
        await until("it is heard", () => seen.get(names[round % 2]).includes(`live ${round}`));
        wire.takes = false;
        wire.cut();
        await next(ada, "reconnecting");
        for (const room of names) await bob.publish("line", `meanwhile ${round}`, { room });
        wire.takes = true;
        await until("what was missed is heard", () => names.every((name) => seen.get(name).includes(`meanwhile ${round}`)));
      }
      const rounds = [0, 1, 2];
      names.forEach((name, at) => {
        const own = (round) => (at === round % 2 ? [`live ${round}`] : []);
        assert.deepEqual(seen.get(name), rounds.flatMap((round) => [...own(round), `meanwhile ${round}`]), name);
      });
      assert.deepEqual(resyncs, []);
    });

    it("tries_an_event_stream_where_no_websocket_ever_gets_through", async () => {
      const bob = await other();
      const name = `blocked:${driver}`;
      let attempts = 0;
      /** A WebSocket whose way is blocked, as by a proxy that knows nothing of upgrades. */
      class Blocked {
        readyState = 0;
        constructor() {
          attempts += 1;
          setTimeout(() => {
            this.readyState = 3;
            this.onerror?.({});
            this.onclose?.({ code: 1006, reason: "" });
          });
        }
        close() {}
        send() {}
      }
      const options = { token: tokenOf("ada"), tokenBy: "query", transport: "auto", WebSocket: Blocked };
      const ada = visitors.client(wire.address, options);
      const room = ada.join(name);
      const heard = [];
      room.on("message", ({ payload }) => heard.push(payload));
      await ada.connect();
      await room.ready;
      assert.ok(attempts >= 3, `${attempts} attempts by WebSocket before`);
      assert.match(wire.connections[0].head, /^GET \/sse\?/);
      await bob.publish("line", "through", { room: name });
      await until("it is heard", () => heard.length === 1);
      // One that has come in by a WebSocket never asks for a stream.
      const eve = visitors.client(wire.address, { token: tokenOf("eve"), transport: "auto" });
      await eve.connect();
      wire.takes = false;
      wire.cut();
      await until("it has tried often", () => wire.refused > 8);
      wire.takes = true;
      await until("both are back", () => ada.state === "open" && eve.state === "open" && wire.connections.length >= 4);
      const heads = wire.connections.map(({ head }) => head.split(" ")[1].split("?")[0]);
      assert.deepEqual([...new Set(heads.slice(1))].sort(), ["/sse", "/ws"], "each by its own way");
      assert.equal(wire.connections.filter(({ head }) => head.startsWith("GET /ws")).length, 2);
    });

    it("asks_for_a_ticket_for_each_attempt_and_shows_none_twice", async () => {
      const given = [];
      const token = async () => {
        const order = { user: "ada", rooms: { "*": ["join", "publish"] } };
        const { ticket } = await administer(engine, "/v1/tickets", order);
        given.push(ticket);
        return ticket;
      };
      const ada = onWire({ token: undefined, getToken: token, tokenBy: "ticket" });
      const room = ada.join(`tickets:${driver}`);
      await room.ready;
      for (let round = 0; round < 3; round += 1) {
        wire.cut();
        await next(ada, "open");
      }
      assert.equal(ada.userId, "ada");
      const shown = wire.connections.map(({ head }) => /[?&]ticket=([^&\s]+)/.exec(head)?.[1]);
      assert.equal(new Set(shown).size, 4, "one for each connection");
      assert.deepEqual(shown.map(decodeURIComponent), given);
      assert.ok(wire.connections.every(({ head }) => !head.includes("throng.token.")), "and nowhere else");
      // The same again lets nobody in.
      const late = visitors.client(wire.address, { token: given[0], tokenBy: "ticket" });
      late.connect().catch(() => {});
      await next(late, "reconnecting");
      assert.match(wire.connections.at(-1).head, /[?&]ticket=/);
      assert.equal(late.hello, null);
    });

    it("hears_by_an_event_stream_what_it_would_by_a_websocket_and_comes_back", async () => {
      const bob = await other();
      const name = `feed:${driver}`;
      const ada = visitors.client(wire.address, { token: tokenOf("ada"), tokenBy: "query", transport: "sse" });
      const room = ada.join(name);
      const seen = [];
      room.on("message", ({ payload, offset }) => seen.push([payload, offset]));
      await ada.connect();
      await room.ready;
      await bob.publish("line", "one", { room: name });
      await until("it is heard", () => seen.length === 1);
      wire.takes = false;
      wire.cut();
      await next(ada, "reconnecting");
      await bob.publish("line", "two", { room: name });
      wire.takes = true;
      await until("what was missed is heard", () => seen.length === 2);
      assert.deepEqual(seen, [["one", 1], ["two", 2]]);
      await assert.rejects(room.history(), { code: "receive_only" });
      const later = ada.join(`${name}:later`);
      await later.ready;
      const heard = next(later, "message");
      await bob.publish("line", "three", { room: later.name });
      assert.equal((await heard).payload, "three");
    });
  });

  describe(`the client and an engine that goes away, on ${driver}`, LIMIT, () => {
    const visitors = new Visitors();
    const settings = { "server.driver": driver, "server.shards": 2, "server.reconnect_spread_ms": 500 };
    let engine;

    before(async () => {
      engine = await engineOf(driver, settings, "away");
    });
    after(async () => {
      visitors.leave();
      assert.equal((await engine?.stop())?.code, 0, "the engine did not end cleanly");
    });

    const again = () => engineOf(driver, { ...settings, "server.listen": engine.address }, "away");

    it("comes_back_after_it_was_killed_with_its_handlers_and_is_told_to_begin_anew", async () => {
      const ada = visitors.client(engine.address);
      const room = ada.join("lobby");
      const heard = [];
      room.on("message", ({ payload }) => heard.push(payload));
      await ada.connect();
      await room.ready;
      const before = room.cursor;
      await room.publish("line", "before");
      await until("it is heard", () => heard.length === 1);
      const told = next(room, "resync");
      const tries = next(ada, "reconnecting");
      await engine.kill();
      await tries;
      const waited = room.publish("line", "after");
      engine = await again();
      assert.equal((await told).reason, "epoch");
      assert.notEqual(room.cursor.epoch, before.epoch);
      await waited;
      await until("its handlers hear", () => heard.length === 2);
      assert.deepEqual(heard, ["before", "after"]);
    });

    it("waits_as_long_as_a_drain_asks_and_comes_back", async () => {
      const ada = visitors.client(engine.address);
      ada.connect();
      await ada.join("lobby").ready;
      const [reload, closed, back] = [next(ada, "reload"), next(ada, "closed"), next(ada, "reconnecting")];
      assert.equal((await engine.stop()).code, 0);
      const { reconnectDelayMs } = await reload;
      assert.equal((await closed).code, 1012);
      assert.equal((await back).delayMs, reconnectDelayMs);
      assert.ok(reconnectDelayMs <= 500, `${reconnectDelayMs}`);
      const joined = next(ada.room("lobby"), "joined");
      engine = await again();
      await joined;
    });
  });

  describe(`the client and a first message that says who it is, on ${driver}`, LIMIT, () => {
    const visitors = new Visitors();
    let engine;

    before(async () => {
      engine = await engineOf(driver, { ...KNOWN, "auth.sources": '["message"]' }, "login");
    });
    after(async () => {
      visitors.leave();
      assert.equal((await engine?.stop())?.code, 0, "the engine did not end cleanly");
    });

    it("is_let_in_by_a_good_token_and_stops_after_a_wrong_one", async () => {
      const ada = visitors.client(engine.address, { token: "not a token", tokenBy: "message" });
      const stopped = next(ada, "stopped");
      await assert.rejects(ada.connect(), { code: "stopped" });
      const { code, reason, why } = await stopped;
      assert.deepEqual([code, reason, why, ada.state], [1008, "the token is not valid", "refused", "stopped"]);
      await ada.setToken(tokenOf("ada"));
      assert.equal((await ada.connect()).userId, "ada");
    });
  });
}
