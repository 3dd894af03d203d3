// Whether every peer does what it is measured at, seen by a foreign client.
//
//   node check.mjs [PEER...]      all peers without arguments; exit code 1 when one of them fails
//
// A peer that lost a publication, or left out the sender, would look faster than it is. Nothing here waits
// by the clock to see that nothing comes: what must not arrive is ruled out by what arrives next, since a
// connection keeps its order.

import assert from "node:assert/strict";
import { once } from "node:events";
import { join } from "node:path";

import { WebSocket } from "ws";

import { OUT, PEERS, start } from "./peers.mjs";

/** Longest wait for anything that should follow at once; generous, for machines that are busy. */
const WAIT_MS = 20_000;

/** A client that keeps what arrives until it is asked for. */
class Client {
  static async plain(address, path) {
    const client = new Client(new WebSocket(`ws://${address}${path}`, { perMessageDeflate: false }));
    await once(client.socket, "open");
    return client;
  }

  /** Engine.IO and Socket.IO by hand: the other end must not be checked by its own library. */
  static async socketio(address) {
    const client = await Client.plain(address, "/socket.io/?EIO=4&transport=websocket");
    assert.match(await client.text(), /^0\{/);
    client.socket.send("40");
    assert.match(await client.text(), /^40\{"sid":/);
    return client;
  }

  constructor(socket) {
    this.socket = socket;
    this.arrived = [];
    this.waiting = [];
    socket.on("message", (data, isBinary) => {
      const message = { data, isBinary };
      const waiter = this.waiting.shift();
      if (waiter) waiter(message);
      else this.arrived.push(message);
    });
  }

  async next() {
    if (this.arrived.length > 0) return this.arrived.shift();
    return within("a message", new Promise((done) => this.waiting.push(done)));
  }

  async text() {
    const { data, isBinary } = await this.next();
    assert.equal(isBinary, false, "a text message");
    return data.toString();
  }

  async event() {
    const text = await this.text();
    assert.match(text, /^42\[/);
    return JSON.parse(text.slice(2));
  }

  emit(...event) {
    this.socket.send(`42${JSON.stringify(event)}`);
  }

  async close() {
    const closed = within("the close frame", once(this.socket, "close"));
    this.socket.close(1000);
    assert.equal((await closed)[0], 1000, "the close code comes back");
  }
}

function within(what, promise) {
  let limit;
  const late = new Promise((_, fail) => {
    limit = setTimeout(() => fail(new Error(`${what} did not come in time`)), WAIT_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(limit));
}

async function checkPlain(address) {
  const echo = await Client.plain(address, "/echo");
  const sent = ["short", "größer als ASCII", "x".repeat(70_000), ...Array.from({ length: 16 }, (_, n) => `${n}`)];
  for (const text of sent) echo.socket.send(text);
  for (const text of sent) assert.equal(await echo.text(), text, "an echo, in order");
  echo.socket.send(Buffer.from([0, 255, 1]));
  assert.deepEqual(await echo.next(), { data: Buffer.from([0, 255, 1]), isBinary: true });
  await pong(echo);

  const members = [];
  for (let n = 0; n < 3; n += 1) members.push(await Client.plain(address, "/room/one"));
  const stranger = await Client.plain(address, "/room/two");
  const publisher = await Client.plain(address, "/publish/one");
  members[0].socket.send("from a member");
  for (const member of members) assert.equal(await member.text(), "from a member");
  for (let n = 0; n < 8; n += 1) publisher.socket.send(`burst ${n}`);
  for (const member of members) {
    for (let n = 0; n < 8; n += 1) assert.equal(await member.text(), `burst ${n}`);
  }
  await pong(publisher);
  assert.equal(publisher.arrived.length, 0, "a publisher is no member");
  stranger.socket.send("elsewhere");
  assert.equal(await stranger.text(), "elsewhere", "rooms are apart");
  await pong(members[1]);

  await members[2].close();
  publisher.socket.send("after one left");
  for (const member of members.slice(0, 2)) assert.equal(await member.text(), "after one left");
  for (const client of [...members.slice(0, 2), echo, stranger]) await client.close();
  await publisher.close();

  const refused = new WebSocket(`ws://${address}/elsewhere`);
  const [error] = await within("a refusal", once(refused, "error"));
  assert.match(error.message, /404/, "a path that is not served is refused");
}

async function pong(client) {
  const answer = within("a pong", once(client.socket, "pong"));
  client.socket.ping("are you there");
  assert.equal((await answer)[0].toString(), "are you there");
}

async function checkSocketio(address) {
  const clients = [];
  for (let n = 0; n < 5; n += 1) clients.push(await Client.socketio(address));
  const [publisher, stranger, ...members] = clients;
  for (const text of ["short", "größer als ASCII", "x".repeat(70_000)]) {
    publisher.emit("echo", text);
    assert.deepEqual(await publisher.event(), ["echo", text]);
  }
  for (const [client, room] of [[stranger, "two"], ...members.map((member) => [member, "one"])]) {
    client.emit("join", room);
    assert.deepEqual(await client.event(), ["joined", room]);
  }
  members[0].emit("publish", "one", "from a member");
  for (const member of members) assert.deepEqual(await member.event(), ["m", "one", "from a member"]);
  for (let n = 0; n < 8; n += 1) publisher.emit("publish", "one", `burst ${n}`);
  for (const member of members) {
    for (let n = 0; n < 8; n += 1) assert.deepEqual(await member.event(), ["m", "one", `burst ${n}`]);
  }
  for (const client of [publisher, stranger]) {
    client.emit("echo", "last");
    assert.deepEqual(await client.event(), ["echo", "last"], "who is no member gets nothing");
  }
  for (const client of clients) await client.close();
}

const asked = process.argv.slice(2);
const checked = PEERS.filter((peer) => !peer.own && (asked.length === 0 || asked.includes(peer.name)));
for (const peer of checked) {
  const server = await start(peer, { core: 0, log: join(OUT, "logs", `check-${peer.name}.log`) });
  try {
    await (peer.speaks === "socketio" ? checkSocketio : checkPlain)(server.address);
    console.log(`ok      ${peer.name} ${peer.version()}`);
  } catch (error) {
    console.log(`failed  ${peer.name} ${peer.version()}: ${error.stack}`);
    process.exitCode = 1;
  } finally {
    await server.stop();
  }
}
if (checked.length === 0) {
  console.log(`no such peer: ${asked.join(", ")}`);
  process.exitCode = 1;
}
