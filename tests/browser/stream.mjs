// Event streams as Chromium reads them: several rooms that come back, another origin, comments in between.
//
// What an EventSource does by itself is the point here: it keeps the id of the last event, and comes back with
// it after a while when its stream has ended. Nothing in these pages knows the protocol of the engine.

import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";

import { DRIVERS, startEngine } from "../tools/engine.mjs";
import { OUT, SUITE_MS, WAIT_MS, adminOf, another, withAdmin } from "./visitor.mjs";

const KEY = "a secret of the back end";

/** In a page: listens, and keeps all that it hears. */
function listen({ url, credentials }) {
  window.heard = [];
  window.source = new EventSource(url, { withCredentials: credentials });
  window.source.onmessage = ({ data, lastEventId }) => window.heard.push({ ...JSON.parse(data), lastEventId });
}

const waits = (page, is, argument) => page.waitForFunction(is, argument, { timeout: WAIT_MS });
const payloads = (page, room) =>
  page.evaluate((room) => window.heard.filter((event) => event.room === room && "payload" in event).map(({ payload }) => payload), room);

for (const driver of DRIVERS) {
  describe(`event streams on ${driver}`, { timeout: SUITE_MS }, () => {
    const settings = { "server.driver": driver, "server.shards": 2, ...withAdmin(KEY, "publish", "revoke") };
    let browser;
    let engine;
    let page;

    before(async () => {
      browser = await another();
      const history = '[{pattern="*", history_count=100, history_age_ms=600000}]';
      const more = { namespace: history, "heartbeat.ping_interval_ms": 1000 };
      engine = await startEngine({ settings: { ...settings, ...more }, log: join(OUT, `${driver}-stream-engine.log`) });
      page = await browser.browser.newPage();
      await page.goto(`http://${engine.address}/`);
    });

    after(async () => {
      await browser?.close();
      assert.equal((await engine?.stop())?.code, 0, "the engine did not end cleanly");
    });

    async function ask(path, order, of = engine) {
      const headers = { authorization: `Bearer ${KEY}` };
      const answer = await fetch(`${adminOf(of)}${path}`, { method: "POST", headers, body: JSON.stringify(order) });
      assert.equal(answer.status, 200, await answer.text());
    }
    const publish = (room, payload, of) => ask("/v1/publish", { type: "line", room, payload }, of);

    it("comes_back_to_every_room_of_a_stream_and_misses_and_repeats_nothing", async () => {
      const rooms = ["one", "two words", "three"];
      // A room of which nothing is kept ends with its last member, and begins anew.
      for (const room of rooms) await publish(room, "before");
      const query = rooms.map((room) => `room=${encodeURIComponent(room)}`).join("&");
      await page.evaluate(listen, { url: `/sse?${query}` });
      await waits(page, () => window.heard.filter(({ ok }) => ok).length === 3);
      const said = { one: [], "two words": [], three: [] };
      const say = async (room, payload) => {
        said[room].push(payload);
        await publish(room, payload);
      };
      for (let round = 0; round < 2; round += 1) {
        await say("one", `live ${round}`);
        await say("two words", `live ${round}`);
        await waits(page, (text) => window.heard.filter(({ payload }) => payload === text).length === 2, `live ${round}`);
        await ask("/v1/disconnect", { room: "one", code: 1012, reason: "go" });
        await waits(page, () => window.source.readyState === EventSource.CONNECTING);
        for (const room of rooms) await say(room, `meanwhile ${round}`);
        const times = round + 2;
        await waits(page, (times) => window.heard.filter(({ type }) => type === "throng:connected").length === times, times);
        await waits(page, (times) => window.heard.filter(({ ok }) => ok).length === 3 * times, times);
      }
      await say("three", "the last");
      await waits(page, () => window.heard.some(({ payload }) => payload === "the last"));
      for (const room of rooms) assert.deepEqual(await payloads(page, room), said[room], room);
      const replies = await page.evaluate(() => window.heard.filter(({ ok }) => ok).slice(3));
      assert.ok(replies.every(({ recovered }) => recovered === true), JSON.stringify(replies));
      assert.deepEqual(await page.evaluate(() => window.heard.filter(({ type }) => type === "throng:resync")), []);
      await page.evaluate(() => window.source.close());
    });

    it("gets_comments_at_the_interval_that_is_configured_and_no_events_of_them", async () => {
      await page.evaluate(listen, { url: "/sse?room=quiet" });
      await waits(page, () => window.heard.length === 2);
      const comments = await page.evaluate(async () => {
        const reader = (await fetch("/sse?room=quiet")).body.pipeThrough(new TextDecoderStream()).getReader();
        let text = "";
        while (text.split(": ping\n\n").length < 4) text += (await reader.read()).value;
        await reader.cancel();
        return text.split("\n\n").filter((block) => block.startsWith(":")).length;
      });
      assert.ok(comments >= 3, `${comments} comments`);
      assert.equal(await page.evaluate(() => window.heard.length), 2, "a comment fired an event");
      await page.evaluate(() => window.source.close());
    });

    it("is_read_by_pages_of_other_origins_where_they_may_with_credentials", async () => {
      const own = `http://${engine.address}`;
      const start = (origins, name) => {
        const rule = { "auth.allowed_origins": JSON.stringify(origins) };
        return startEngine({ settings: { ...settings, ...rule }, log: join(OUT, `${driver}-${name}-engine.log`) });
      };
      const open = await start([own], "open");
      const closed = await start(["https://elsewhere.example"], "closed");
      // The demo page may speak to its own engine only; what is said of a missing page has no such rule.
      await page.goto(`${own}/nothing`);
      for (const credentials of [true, false]) {
        await page.evaluate(listen, { url: `http://${open.address}/sse?room=far`, credentials });
        await waits(page, () => window.heard.some(({ ok }) => ok));
        await publish("far", `to you ${credentials}`, open);
        await waits(page, (text) => window.heard.some(({ payload }) => payload === text), `to you ${credentials}`);
        await page.evaluate(() => window.source.close());
        await page.evaluate(listen, { url: `http://${closed.address}/sse?room=far`, credentials });
        await waits(page, () => window.source.readyState === EventSource.CLOSED);
        assert.deepEqual(await page.evaluate(() => window.heard), []);
      }
      for (const other of [open, closed]) assert.equal((await other.stop()).code, 0, "it did not end cleanly");
    });
  });
}
