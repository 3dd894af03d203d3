// Clients of one kind that come, and stay or go at once; a process of its own, since a descriptor table is small.
//
//   node listeners.mjs ADDRESS KIND FIRST_SOURCE SOURCES hold COUNT
//   node listeners.mjs ADDRESS KIND FIRST_SOURCE SOURCES churn COUNT AT_ONCE
//
// KIND is `sse` or `ws`; both end up in the room `lobby` and are counted when they have heard that they are.
// `hold` prints `ready` and stays until its standard input ends. `churn` breaks each connection with a reset as
// soon as it is in the room, and prints `done`.

import net from "node:net";
import process from "node:process";

const [address, kind, firstSource, sources, what, ...rest] = process.argv.slice(2);
const [host, port] = address.split(":");
const [count, atOnce = 500] = rest.map(Number);
/** Connections under way at one time. */
const OPENING = 200;

const WS = ["GET /ws HTTP/1.1", `host: ${address}`, "upgrade: websocket", "connection: upgrade", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-version: 13"];
const SSE = ["GET /sse?room=lobby HTTP/1.1", `host: ${address}`];
const HEAD = `${(kind === "ws" ? WS : SSE).join("\r\n")}\r\n\r\n`;

/** One client that is in the room; rejects when it gets no further. */
function client(nth) {
  const source = `127.0.0.${Number(firstSource) + (nth % Number(sources))}`;
  const socket = net.connect({ host, port: Number(port), localAddress: source });
  return new Promise((done, fail) => {
    let said = "";
    let asked = false;
    socket.once("error", fail);
    socket.once("close", () => fail(new Error(`closed after ${JSON.stringify(said.slice(0, 200))}`)));
    socket.write(HEAD);
    socket.on("data", (bytes) => {
      said += bytes.toString("latin1");
      if (kind === "ws" && !asked && said.includes("throng:connected")) {
        asked = true;
        socket.write(joining());
      }
      if (!said.includes("throng:reply")) return;
      for (const event of ["data", "error", "close"]) socket.removeAllListeners(event);
      // A reset is how these connections end, and nothing else is read from them.
      socket.on("error", () => {});
      socket.resume();
      done(socket);
    });
  });
}

/** The command to join, under a mask of zeros. */
function joining() {
  const text = Buffer.from('{"type":"throng:join","room":"lobby","ref":1}');
  return Buffer.concat([Buffer.from([0x81, 0x80 | text.length, 0, 0, 0, 0]), text]);
}

/** Calls `work` for each number, so many at a time. */
async function each(total, most, work) {
  let next = 0;
  const one = async () => {
    while (next < total) await work(next++);
  };
  await Promise.all(Array.from({ length: Math.min(most, total) }, one));
}

try {
  if (what === "hold") {
    const held = [];
    await each(count, OPENING, async (nth) => held.push(await client(nth)));
    process.stdout.write("ready\n");
    process.stdin.resume();
    await new Promise((done) => process.stdin.once("end", done));
    process.exit(held.length === count ? 0 : 1);
  }
  await each(count, atOnce, async (nth) => {
    const socket = await client(nth);
    socket.resetAndDestroy();
  });
  process.stdout.write("done\n");
  process.exit(0);
} catch (error) {
  process.stderr.write(`listeners.mjs: ${error.message}\n`);
  process.exit(1);
}
