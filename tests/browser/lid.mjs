// Tabs, a page that is loaded anew and a lid that is shut, in a Chromium whose processes are stopped.
//
// Everybody in the room watches who is there, so one page hears what is told of another's user. All of it is
// kept, and in the end it must be what happened: nothing more, as no news of a tab that another makes up for
// may be told, nor of a page that comes back within the grace.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";

import { DRIVERS, startEngine } from "../tools/engine.mjs";
import { KNOWN, OUT, SUITE_MS, another, comesTo } from "./visitor.mjs";

/** Long enough for a page that is loaded anew on a busy machine. */
const GRACE_MS = 4000;
/** A stopped process is given up two of these after it was last heard. */
const BEAT_MS = 1000;

/** A process and everything it has started that lives, parents first. */
function family(pid) {
  const parents = readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map((name) => [Number(name), parentOf(name)]);
  const all = [pid];
  for (const member of all) all.push(...parents.filter(([, parent]) => parent === member).map(([child]) => child));
  return all;
}

/** The parent of a process; undefined when it has ended meanwhile. */
function parentOf(pid) {
  try {
    // The name may hold spaces and brackets; what follows the last bracket does not.
    return Number(readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1).split(" ")[1]);
  } catch (error) {
    if (["ENOENT", "ESRCH"].includes(error.code)) return undefined;
    throw error;
  }
}

/** Keeps what a page's socket is told of a user, as a user and as somebody in the room, in the order it came. */
function heardOf(visitor, user) {
  const heard = { user: [], room: [] };
  visitor.page.on("websocket", (socket) => {
    socket.on("framereceived", ({ payload }) => {
      const { type, room, users = [], joined = [], states = [], left = [] } = JSON.parse(payload);
      if (type !== "throng:presence") return;
      const list = room === undefined ? heard.user : heard.room;
      const news = [...users, ...joined, ...states].filter((entry) => entry.user === user);
      list.push(...news.map((entry) => entry.state));
      if (left.includes(user)) list.push("left");
    });
  });
  return heard;
}

for (const driver of DRIVERS) {
  describe(`a lid on ${driver}`, { timeout: SUITE_MS }, () => {
    let engine;
    let laptop;

    before(async () => {
      const settings = {
        "server.driver": driver,
        ...KNOWN,
        "presence.grace_ms": GRACE_MS,
        "presence.interval_ms": 50,
        "heartbeat.ping_interval_ms": BEAT_MS,
        "heartbeat.ping_timeout_ms": BEAT_MS,
      };
      engine = await startEngine({ settings, log: join(OUT, `${driver}-lid-engine.log`) });
      laptop = await another();
    });

    after(async () => {
      await laptop?.close();
      assert.equal((await engine?.stop())?.code, 0, "the engine did not end cleanly");
    });

    it("shut_makes_its_user_vanish_and_opened_brings_it_back_and_nothing_else_is_news", async () => {
      const ada = await comesTo(engine, "ada");
      const heard = heardOf(ada, "bob");
      await ada.page.reload();
      await ada.settled();
      const sees = (state) => {
        return ada.page.locator(`[data-testid="person"][data-state="${state}"]`).filter({ hasText: "bob" }).waitFor();
      };
      const tabs = [];
      for (let tab = 0; tab < 2; tab += 1) tabs.push(await comesTo(engine, "bob", { browser: laptop.browser }));
      await sees("online");
      await tabs.pop().leave();
      const [bob] = tabs;
      await bob.page.reload();
      await bob.settled();
      await bob.says("still here");
      await ada.heard("still here").waitFor();
      assert.deepEqual(heard, { user: ["online"], room: ["online"] }, "a tab of two and a page loaded anew are no news");
      const processes = family(laptop.pid);
      processes.forEach((pid) => process.kill(pid, "SIGSTOP"));
      try {
        await sees("offline");
      } finally {
        processes.forEach((pid) => process.kill(pid, "SIGCONT"));
      }
      bob.mayLoseServer = true;
      await sees("online");
      await bob.settled();
      await bob.says("back again");
      await ada.heard("back again").waitFor();
      await bob.leave();
      await sees("offline");
      const [here, gone] = ["online", "offline"];
      assert.deepEqual(heard, { user: [here, gone, here, gone], room: [here, "left", here, "left"] });
      await ada.leave();
    });
  });
}
