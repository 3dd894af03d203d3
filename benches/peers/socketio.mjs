// The peer Socket.IO, on Node.js.
//
// Settings from its pages on performance and on memory: WebSocket only, no compression, the native add-on
// bufferutil, and the first HTTP request of each session let go. The engine stays ws: the page also names
// eiows, which does not support the Node versions this runs on, and uWebSockets.js, which is not on npm.
// It speaks its own protocol, hence events instead of paths: `join`, `publish` and `echo`.
// A room is its own kind of room; its adapter encodes a broadcast once for all members.
//
// Heartbeats are at their defaults, a ping every 25 s. A slow client is the library's affair: it queues
// without a bound.

import { createServer } from "node:http";

import { Server } from "socket.io";

const port = Number(process.argv[2] ?? process.env.PORT ?? 0);
const server = createServer();
const io = new Server(server, {
  transports: ["websocket"],
  serveClient: false,
  perMessageDeflate: false,
  httpCompression: false,
});

io.engine.on("connection", (raw) => {
  raw.request = null;
});

function join(room) {
  this.join(room);
  this.emit("joined", room);
}

function publish(room, payload) {
  io.to(room).emit("m", room, payload);
}

function echo(payload) {
  this.emit("echo", payload);
}

io.on("connection", (socket) => {
  socket.on("join", join);
  socket.on("publish", publish);
  socket.on("echo", echo);
});

server.listen({ port, host: "127.0.0.1", backlog: 4096 }, () => {
  console.log(`peer serves ws://127.0.0.1:${server.address().port}`);
});
