// One publication to a room of a hundred thousand: until the last byte is queued, written, and received.
//
// The floor is the generator's bare server with as many descriptor tables as the engine has shards: one `send` a
// member and nothing else. It says itself when it began and ended to write; of the engine the admin listener is
// asked for its counters every few milliseconds, so its figures are coarser, and never too low by more than one
// such look. Both ends share the machine: what the last receiver waits for is mostly the generator's own queue.

import http from "node:http";
import os from "node:os";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { shardsFor, sourcesFor } from "../goals/needs.mjs";
import { median } from "../tools/figures.mjs";
import { generate, latency } from "../tools/generator.mjs";
import { LOAD, engine, start } from "../tools/servers.mjs";

/** The budget of R16, in milliseconds for 100,000 members on one core, and against the floor. */
export const BUDGET = { queued: 150, written: 1_000, ratio: 1.1, last: 1_500 };
const PUBLICATIONS = 5;
/** Between two looks at the counters, in milliseconds. */
const LOOK_MS = 4;
const SECRET = "a secret of the bench, which is long enough";
const CONFIG = `
[admin]
listen = "127.0.0.1:0"
requests_per_second = 1000000

# No ping may be taken for a part of the publication.
[heartbeat]
ping_interval_ms = 600000

[[key]]
name = "bench"
secret = "${SECRET}"
scopes = ["inspect"]
`;
/** Bytes of a payload of 64 in the engine's protocol; the floor, which has none, carries as much. */
const SIZES = { own: 64, floor: 150 };

/** Five publications to so many members of one variant: medians in milliseconds. */
export async function everybody(variant, { members, cores, out }) {
  const tables = shardsFor(members);
  const log = join(out, `fanout-${variant}.log`);
  writeFileSync(log, "");
  const config = join(out, "fanout.toml");
  writeFileSync(config, CONFIG);
  const bare = variant === "floor";
  const command = bare
    ? [LOAD, "floor", "--listen", "127.0.0.1:0", "--tables", String(tables), "--tell"]
    : [...engine(variant, { "server.shards": tables }), "--config", config];
  const server = await start({ name: variant, command, cores: cores.server, log });
  let looking;
  try {
    if (!bare) looking = new Looks(/admin on (http:\/\/\S+)/.exec(readFileSync(log, "utf8"))[1]);
    const load = ["--rate", "0.25", "--messages", String(PUBLICATIONS), "--duration", "0"];
    const crowd = ["--clients", String(members), "--src", sourcesFor(members)];
    const size = ["--size", String(bare ? SIZES.floor : SIZES.own)];
    const target = ["--url", `ws://${server.address}${bare ? "" : "/ws"}`, "--dialect", bare ? "plain" : "throng"];
    const args = ["fanout", ...crowd, ...load, ...size, ...target, "--patience-ms", "60000"];
    const json = join(out, `fanout-${variant}.json`);
    const { outcome } = await generate({ args, core: cores.generator, pid: server.pid, json, limit: 200_000 });
    if (!outcome.verdict.passed) throw new Error(`${variant}: ${outcome.verdict.faults.join("; ")}`);
    const own = bare ? floors(readFileSync(log, "utf8"), members) : await looking.spans(members);
    const messages = outcome.totals.messages;
    return {
      variant,
      queued: median(own.map(({ queued }) => queued)),
      written: median(own.map(({ written }) => written)),
      worst: Math.max(...own.map(({ written }) => written)),
      last: latency(outcome, "last").p50_us / 1000,
      counted: `${messages.received} of ${messages.expected}`,
      seen: own.length,
    };
  } finally {
    looking?.end();
    await server.stop();
  }
}

/** What the tables of the floor have told of each publication. */
function floors(text, members) {
  const told = [...text.matchAll(/wrote to (\d+) from (\d+) to (\d+)/g)];
  const parts = told.map(([, count, from, to]) => ({ count: Number(count), from: Number(from), to: Number(to) }));
  parts.sort((a, b) => a.from - b.from);
  const found = [];
  for (let left = 0, all; parts.length > 0; ) {
    const part = parts.shift();
    if (left === 0) found.push((all = { from: part.from, to: part.to })), (left = members);
    all.to = Math.max(all.to, part.to);
    left -= part.count;
  }
  return found.map(({ from, to }) => ({ written: (to - from) / 1e6 }));
}

/** Looks at an engine's counters again and again, ahead of everybody on this core. */
class Looks {
  constructor(url) {
    this.url = `${url}/v1/counters`;
    this.agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    this.seen = [];
    this.over = false;
    try {
      os.setPriority(-20);
    } catch {
      // Without the right to it looks come later, and figures are too high rather than too low.
    }
    this.done = this.look();
  }

  async look() {
    while (!this.over) {
      const counters = await this.ask();
      const { publications_total: publications, deliveries_total: queued, sent_frames_total: written } = counters;
      this.seen.push({ at: performance.now(), publications, queued, written });
      await new Promise((done) => setTimeout(done, LOOK_MS));
    }
  }

  ask() {
    const headers = { authorization: `Bearer ${SECRET}` };
    return new Promise((done, fail) => {
      const request = http.get(this.url, { agent: this.agent, headers }, (response) => {
        let text = "";
        response.setEncoding("utf8");
        response.on("data", (part) => (text += part));
        response.on("end", () => done(JSON.parse(text)));
      });
      request.on("error", fail);
    });
  }

  end() {
    this.over = true;
    os.setPriority(0);
    this.agent.destroy();
    this.done.catch(() => {});
  }

  /** For each publication: from the last look that did not know it to the first that knew it queued, or written. */
  async spans(members) {
    const spans = [];
    for (const [nth, look] of this.seen.entries()) {
      const before = this.seen[nth - 1];
      if (before === undefined) continue;
      // The board tells of deliveries and of the publication at the end of a shard's turn, in no order.
      const begins = look.queued > before.queued && (spans.length === 0 || spans.at(-1).written !== undefined);
      if (begins) spans.push({ from: before.at, base: before });
      const span = spans.at(-1);
      if (span === undefined || span.written !== undefined) continue;
      if (span.queued === undefined && look.queued - span.base.queued >= members) span.queued = look.at - span.from;
      if (look.written - span.base.written >= members) span.written = look.at - span.from;
    }
    return spans.filter(({ written }) => written !== undefined);
  }
}
