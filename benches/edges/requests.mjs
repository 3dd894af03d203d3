// A few back ends that ask the admin listener again and again, each over one connection that stays open.
//
// Requests are made beforehand, so that this program's core is spent on sending them. An answer is read as far as
// its length and its status; anything but 200 ends the run, since a refusal costs the server less than an answer.

import net from "node:net";

/** Runs `clients` connections that each send one of `requests` after another, until `until` says so. Gives the answers. */
export async function ask({ address, requests, clients, until }) {
  const counts = await Promise.all(Array.from({ length: clients }, (_, nth) => one(address, requests, nth, until)));
  return counts.reduce((all, count) => all + count, 0);
}

/** A request with a body, as bytes. */
export function request({ address, path, secret, body }) {
  const head = [
    `POST ${path} HTTP/1.1`,
    `host: ${address}`,
    `authorization: Bearer ${secret}`,
    "content-type: application/json",
    `content-length: ${Buffer.byteLength(body)}`,
  ];
  return Buffer.from(`${head.join("\r\n")}\r\n\r\n${body}`);
}

function one(address, requests, first, until) {
  const [host, port] = address.split(":");
  const socket = net.connect({ host, port: Number(port), noDelay: true });
  let nth = first;
  let answers = 0;
  let rest = Buffer.alloc(0);
  return new Promise((done, fail) => {
    const next = () => socket.write(requests[nth++ % requests.length]);
    socket.on("connect", next);
    socket.on("error", fail);
    socket.on("close", () => fail(new Error("the listener closed a connection")));
    socket.on("data", (bytes) => {
      rest = rest.length === 0 ? bytes : Buffer.concat([rest, bytes]);
      const length = whole(rest);
      if (length === undefined) return;
      if (rest.length !== length || !rest.subarray(0, 13).toString("latin1").endsWith(" 200 ")) {
        return fail(new Error(`an answer that was not asked for: ${rest.toString("utf8", 0, 300)}`));
      }
      rest = Buffer.alloc(0);
      answers += 1;
      if (!until()) return next();
      socket.removeAllListeners("close");
      socket.destroy();
      return done(answers);
    });
  });
}

/** The length of an answer, once it is there. */
function whole(bytes) {
  const end = bytes.indexOf("\r\n\r\n");
  if (end < 0) return undefined;
  const found = /^content-length: (\d+)/im.exec(bytes.toString("latin1", 0, end + 2));
  const length = end + 4 + Number(found?.[1] ?? 0);
  return bytes.length >= length ? length : undefined;
}
