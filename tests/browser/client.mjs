// The JavaScript client in headless Chromium, on every driver: what only a browser does to a client.
//
// The page is the engine's own, for its origin and its policy; the client in it is another than the page's.

import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";

import { DRIVERS, startEngine } from "../tools/engine.mjs";
import { KNOWN, OUT, SUITE_MS, Visitor, WAIT_MS, adminOf, comesTo, tokenOf, withAdmin } from "./visitor.mjs";

const ADMIN_KEY = "a secret of the operator";

/** In a page: a client that comes back soon, as `window.client`, with what it is told in `window.told`. */
async function begin({ room, ...options }) {
  const { Throng } = await import("/throng.js");
  const client = new Throng("/ws", { backoffBaseMs: 50, backoffCapMs: 500, ...options });
  Object.assign(window, { client, told: [] });
  for (const type of ["open", "closed", "reconnecting", "stopped"]) {
    client.on(type, ({ code, reason, why, delayMs }) => window.told.push({ type, code, reason, why, delayMs }));
  }
  client.join(room).on("message", ({ payload }) => window.told.push({ type: "message", payload }));
  client.connect();
}

/** Waits until the client in the page is as asked. */
const comes = (visitor, holds, argument) => visitor.page.waitForFunction(holds, argument, { timeout: WAIT_MS });
const isOpen = (visitor) => comes(visitor, () => window.client.isOpen && window.client.room("lobby").joined);
const toldOf = (visitor, type) => visitor.page.evaluate((kind) => window.told.filter((told) => told.type === kind), type);

for (const driver of DRIVERS) {
  describe(`the client in a browser on ${driver}`, { timeout: SUITE_MS }, () => {
    let engine;
    let admin;

    before(async () => {
      const settings = {
        "server.driver": driver,
        ...KNOWN,
        "auth.sources": '["cookie", "subprotocol"]',
        "auth.browser_errors": true,
        "presence.grace_ms": 300,
        "presence.interval_ms": 50,
        ...withAdmin(ADMIN_KEY, "revoke"),
        namespace: '[{pattern="*", history_count=100}]',
      };
      engine = await startEngine({ settings, log: join(OUT, `${driver}-client-engine.log`) });
      admin = adminOf(engine);
    });

    after(async () => {
      assert.equal((await engine?.stop())?.code, 0, "the engine did not end cleanly");
    });

    /** Sends connections of a user away with a code that says to come back. */
    async function sendAway(user) {
      const headers = { authorization: `Bearer ${ADMIN_KEY}` };
      const body = JSON.stringify({ user, code: 1012, reason: "go" });
      const answer = await fetch(`${admin}/v1/disconnect`, { method: "POST", headers, body });
      assert.equal(answer.status, 200, await answer.text());
    }

    /** A page of that user, with a client in it beside the page's own. */
    async function pageWith(user, options = {}) {
      const visitor = await comesTo(engine, user);
      await visitor.page.evaluate(begin, { room: "lobby", token: tokenOf(user), ...options });
      await isOpen(visitor);
      return visitor;
    }

    it("comes_back_with_the_network_and_hears_what_was_said_meanwhile", async () => {
      const ada = await pageWith("ada", { backoffCapMs: 60_000 });
      const bob = await pageWith("bob");
      // A network that is switched off may take the process behind it with it, and so the others' connections.
      for (const visitor of [ada, bob]) visitor.mayLoseServer = true;
      await ada.page.evaluate(() => window.client.room("lobby").publish("line", "before"));
      await ada.page.context().setOffline(true);
      await sendAway("ada");
      await comes(ada, () => window.told.some(({ type }) => type === "reconnecting"));
      await bob.page.evaluate(() => window.client.room("lobby").publish("line", "meanwhile"));
      assert.equal((await toldOf(ada, "open")).length, 1, "there is no way back without a network");
      await ada.page.context().setOffline(false);
      await comes(ada, () => window.told.some(({ payload }) => payload === "meanwhile"));
      const heard = (await toldOf(ada, "message")).map(({ payload }) => payload).filter((text) => typeof text === "string");
      assert.deepEqual(heard, ["before", "meanwhile"]);
      for (const visitor of [ada, bob]) await visitor.leave();
    });

    it("is_idle_behind_another_tab_and_lives_there", async () => {
      const ada = await pageWith("ada", { heartbeat: { silenceMs: 200, answerMs: 5000 } });
      const bob = await comesTo(engine, "bob");
      const sees = (state) => bob.page.locator(`[data-testid="person"][data-state="${state}"]`).filter({ hasText: "ada" }).waitFor();
      await sees("online");
      const look = (hidden) => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
      };
      await ada.page.evaluate(look, true);
      await sees("idle");
      const before = await ada.page.evaluate(() => window.client.received);
      await comes(ada, (count) => window.client.received >= count + 3, before);
      await ada.page.evaluate(look, false);
      await sees("online");
      assert.deepEqual(await toldOf(ada, "closed"), []);
      for (const visitor of [ada, bob]) await visitor.leave();
    });

    it("goes_when_its_page_goes_and_another_goes_on_from_its_cursor", async () => {
      const ada = await pageWith("ada");
      await ada.page.evaluate(() => window.client.room("lobby").publish("line", "one"));
      await comes(ada, () => window.told.some(({ payload }) => payload === "one"));
      const since = await ada.page.evaluate(() => window.client.room("lobby").cursor);
      const bob = await pageWith("bob");
      await ada.page.goto("about:blank");
      await bob.page.evaluate(() => window.client.room("lobby").publish("line", "two"));
      await ada.page.goto(`http://${engine.address}/#lobby`);
      await ada.settled();
      const heard = await ada.page.evaluate(async (cursor) => {
        const { Throng } = await import("/throng.js");
        const client = new Throng("/ws");
        const room = client.join("lobby", { since: cursor });
        const lines = [];
        client.connect();
        await new Promise((resolve) => room.on("message", ({ type, payload }) => {
          if (type === "line" && lines.push(payload) && payload === "two") resolve();
        }));
        client.close();
        return lines;
      }, since);
      assert.deepEqual(heard, ["two"]);
      for (const visitor of [ada, bob]) await visitor.leave();
    });

    it("is_told_why_its_token_is_refused_and_stops", async () => {
      const somebody = await Visitor.arrive(engine.address);
      const refused = (token) => somebody.page.evaluate(async (shown) => {
        const { Throng } = await import("/throng.js");
        let attempts = 0;
        const getToken = () => (attempts += 1) && shown;
        const client = new Throng("/ws", { getToken, backoffBaseMs: 1, backoffCapMs: 1 });
        const stopped = new Promise((resolve) => client.on("stopped", resolve));
        client.connect();
        const { code, reason, why } = await stopped;
        return { code, reason, why, attempts, state: client.state };
      }, token);
      const once = { code: 1008, why: "refused", attempts: 1, state: "stopped" };
      const wrong = `${tokenOf("ada")}x`;
      assert.deepEqual(await refused(wrong), { ...once, reason: "the token is not valid" });
      const over = tokenOf("ada", { exp: 1000 });
      assert.deepEqual(await refused(over), { ...once, reason: "the token has expired" });
      await somebody.leave();
    });
  });
}
