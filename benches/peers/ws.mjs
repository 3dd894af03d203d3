// The peer ws, the usual WebSocket server of Node.js.
//
// Settings from its documentation. perMessageDeflate is off, which it advises for performance and memory.
// The native add-on bufferutil is installed, which it loads by itself where Node has nothing of the kind
// built in; for UTF-8 Node has. clientTracking is off, since the rooms know their members. It documents
// skipUTF8Validation too, but only for clients that are trusted, and every other peer here validates: off.
// A broadcast is the loop of its README. The message arrives and is sent as one Buffer, so nothing is
// serialised for each member; a way to frame it once is not documented.
//
// Handlers are shared functions and not closures, so that a connection costs what the library makes it
// cost. A slow client is the library's affair: it queues without a bound.

import { STATUS_CODES, createServer } from "node:http";

import { WebSocket, WebSocketServer } from "ws";

const port = Number(process.argv[2] ?? process.env.PORT ?? 0);
const wss = new WebSocketServer({ noServer: true, perMessageDeflate: false, clientTracking: false });
/** Members by the name of their room. */
const rooms = new Map();

function echo(data, isBinary) {
  this.send(data, { binary: isBinary });
}

function publish(data, isBinary) {
  const options = { binary: isBinary };
  for (const member of this.room) {
    if (member.readyState === WebSocket.OPEN) member.send(data, options);
  }
}

function leave() {
  this.room.delete(this);
}

/** Errors close the connection, which is all there is to do about them. */
function ignore() {}

function roomOf(name) {
  if (!rooms.has(name)) rooms.set(name, new Set());
  return rooms.get(name);
}

const server = createServer((_, response) => response.writeHead(426).end());

server.on("upgrade", (request, socket, head) => {
  const [, kind, name] = request.url.split("/");
  const known = kind === "echo" ? name === undefined : (kind === "room" || kind === "publish") && name;
  if (!known) {
    socket.end(`HTTP/1.1 404 ${STATUS_CODES[404]}\r\nConnection: close\r\n\r\n`);
    return;
  }
  wss.handleUpgrade(request, socket, head, (client) => {
    client.on("error", ignore);
    if (kind === "echo") {
      client.on("message", echo);
      return;
    }
    client.room = roomOf(name);
    client.on("message", publish);
    if (kind === "room") {
      client.room.add(client);
      client.on("close", leave);
    }
  });
});

server.listen({ port, host: "127.0.0.1", backlog: 4096 }, () => {
  console.log(`peer serves ws://127.0.0.1:${server.address().port}`);
});
