// The peer Bun, whose server is uWebSockets.
//
// Settings from its documentation: routes instead of a parsed URL, native topics for the rooms,
// perMessageDeflate off, and development off, as it advises for production. Rooms are published to by
// `server.publish`, which reaches all subscribers, so publishToSelf has nothing to add. Pings and the idle
// time-out are at their defaults (on, 120 s). Bun gathers what one turn of its loop sends by itself.
//
// A connection's data is the route, one object for all that share it. A slow client is Bun's affair: it
// drops what exceeds the backpressure limit.

const port = Number(process.argv[2] ?? process.env.PORT ?? 0);

const ECHO = { topic: undefined, member: false };
/** The data of members and publishers by their path. */
const shared = new Map();

function dataOf(kind, topic) {
  const key = `${kind}/${topic}`;
  if (!shared.has(key)) shared.set(key, { topic, member: kind === "room" });
  return shared.get(key);
}

function upgrade(request, data) {
  if (!server.upgrade(request, { data })) return new Response("an upgrade is required", { status: 426 });
}

const server = Bun.serve({
  port,
  hostname: "127.0.0.1",
  development: false,
  routes: {
    "/echo": (request) => upgrade(request, ECHO),
    "/room/:name": (request) => upgrade(request, dataOf("room", request.params.name)),
    "/publish/:name": (request) => upgrade(request, dataOf("publish", request.params.name)),
  },
  fetch: () => new Response("no such path", { status: 404 }),
  websocket: {
    perMessageDeflate: false,
    open(client) {
      if (client.data.member) client.subscribe(client.data.topic);
    },
    message(client, message) {
      if (client.data.topic === undefined) client.send(message);
      else server.publish(client.data.topic, message);
    },
  },
});

console.log(`peer serves ws://127.0.0.1:${server.port}`);
