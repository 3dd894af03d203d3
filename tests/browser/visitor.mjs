// What all suites of the demo page share: a visitor in Chromium, and an engine that knows its visitors.
//
// A visitor is a browser context of its own, so that two of them have nothing in common but the engine. Each
// is held to this: no console error, and no request to anywhere but the engine it came from.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { after, before } from "node:test";

import { chromium } from "playwright-core";

import { ROOT } from "../tools/engine.mjs";

export const OUT = join(ROOT, "tests/browser/out");
/** Longest wait for anything that should follow at once; generous, for machines that are busy. */
export const WAIT_MS = 30_000;
/** A suite takes a quarter of a minute; one that takes this long is stuck. */
export const SUITE_MS = 400_000;
const CHROMIUM = {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  headless: true,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
};

let common;

before(async () => {
  mkdirSync(OUT, { recursive: true });
  common = await chromium.launch(CHROMIUM);
});

after(() => common?.close());

/** What gives an engine an admin listener with one key for these scopes. */
export const withAdmin = (secret, ...scopes) => ({
  "admin.listen": "127.0.0.1:0",
  key: `[{name="tests", secret="${secret}", scopes=${JSON.stringify(scopes)}}]`,
});

/** Where that listener is. */
export const adminOf = (engine) => /admin on (http:\/\/[^\s/]+)/.exec(engine.said)[1];

/** Another Chromium, with processes of its own: the browser, and the id of the first of them. */
export async function another() {
  const server = await chromium.launchServer(CHROMIUM);
  return { browser: await chromium.connect(server.wsEndpoint()), pid: server.process().pid, close: () => server.close() };
}

/** One visitor: a browser context of its own, watched for errors and strange requests. */
export class Visitor {
  static async arrive(address, { browser = common, room = "lobby", query = "", name, ...options } = {}) {
    const visitor = new Visitor();
    visitor.faults = [];
    visitor.mayLoseServer = false;
    visitor.context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
    visitor.context.setDefaultTimeout(WAIT_MS);
    visitor.page = await visitor.context.newPage();
    visitor.#watch(address);
    await options.prepare?.(visitor.page);
    await visitor.page.goto(`http://${address}/${query}#${encodeURIComponent(room)}`);
    if (name) await visitor.at("name").fill(name);
    return visitor;
  }

  #watch(address) {
    const foreign = (url) => !["data:", "blob:"].includes(url.protocol) && url.host !== address;
    const judge = (kind, text) => foreign(new URL(text)) && this.faults.push(`${kind} to ${text}`);
    this.page.on("request", (request) => judge("request", request.url()));
    this.page.on("websocket", (socket) => judge("websocket", socket.url()));
    this.page.on("dialog", (dialog) => this.faults.push(`dialog: ${dialog.message()}`) && dialog.dismiss());
    this.page.on("pageerror", (error) => this.faults.push(`uncaught: ${error.message}`));
    this.page.on("console", (message) => {
      const lost = this.mayLoseServer && message.text().startsWith("WebSocket connection to");
      const refused = this.mayBeRefused && message.text().includes("status of 401");
      const gone = this.mayLoseServer && message.text().includes("net::ERR_");
      if (message.type() === "error" && !lost && !refused && !gone) this.faults.push(`console: ${message.text()}`);
    });
  }

  at(testid) {
    return this.page.getByTestId(testid);
  }

  /** Waits until the element's text is, or matches, what is expected. */
  sees(testid, text, timeout = WAIT_MS) {
    return this.at(testid).filter({ hasText: text }).first().waitFor({ timeout });
  }

  state(state, timeout = WAIT_MS) {
    return this.page
      .locator(`[data-testid="connection-state"][data-state="${state}"]`)
      .waitFor({ timeout });
  }

  /** Waits until the page has joined its room; the number of the shard it is on. */
  async settled(timeout = WAIT_MS) {
    await this.state("open", timeout);
    await this.sees("member-count", /^\d+$/, timeout);
    const said = await this.at("shard").textContent();
    return Number(/^You are on shard (\d+)$/.exec(said)[1]);
  }

  async says(text) {
    await this.at("composer").fill(text);
    await this.at("send").click();
    // Confirmed: the message came back from the room and is pending no more.
    await this.page
      .locator('[data-testid="message"].mine:not(.pending)')
      .filter({ hasText: text })
      .waitFor();
  }

  heard(text) {
    return this.at("message-text").getByText(text, { exact: true });
  }

  async leave() {
    await this.page.close({ runBeforeUnload: false });
    await this.context.close();
    assert.deepEqual(this.faults, [], "the page misbehaved");
  }
}

const SECRET = "a secret of no less than 32 bytes";
/** Settings of an engine whose visitors are known by a cookie. */
export const KNOWN = {
  "server.shards": 2,
  "auth.mode": "token",
  "auth.secret": SECRET,
  "auth.require_expiry": false,
  "auth.sources": '["cookie"]',
};

/** A tab of that user. */
export async function comesTo(engine, user, options = {}) {
  const [host] = engine.address.split(":");
  const cookie = { name: "throng_token", value: tokenOf(user), domain: host, path: "/" };
  const storageState = { cookies: [{ ...cookie, expires: -1, httpOnly: true, secure: false, sameSite: "Strict" }], origins: [] };
  const visitor = await Visitor.arrive(engine.address, { storageState, ...options });
  await visitor.settled();
  await visitor.at("bell").waitFor();
  return visitor;
}

/** A token of that user, signed with the engine's secret. */
export function tokenOf(user, claims = {}) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const message = `${part({ alg: "HS256" })}.${part({ sub: user, rooms: ["*"], ...claims })}`;
  return `${message}.${createHmac("sha256", SECRET).update(message).digest("base64url")}`;
}
