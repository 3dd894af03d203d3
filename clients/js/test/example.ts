// What an application in TypeScript writes, for the compiler: nothing here is run. What must not compile says so.

import { Throng, ThrongError, type Cursor, type Message } from "../throng.js";

interface Line {
  text: string;
}

const client = new Throng("wss://example.com/ws", {
  getToken: async ({ why }) => (why === "connect" ? "a token" : null),
  rooms: ["news", { room: "lobby", history: 50 }],
  inbox: true,
  heartbeat: { silenceMs: 20_000 },
  decide: (code) => (code === 4100 ? false : undefined),
});

client.on("open", ({ clientId, returned }) => console.log(clientId.length, returned));
client.on("stopped", ({ why, code }) => console.log(why === "refused", code + 1));
client.on("notification", ({ id, unread }) => void client.notifications.markRead([id, unread]));
const off: () => void = client.on("drain", () => off());

const room = client.join("lobby", { presence: true, since: { epoch: "5bd1e995", offset: 17 } });
room.on("message", ({ payload, offset }: Message<Line>) => console.log(payload?.text, offset));
room.on("resync", async ({ reason }) => {
  const { messages, more } = await room.history({ limit: 50 });
  console.log(reason, messages.length, more);
});
const people: Map<string, { state: string }> = room.presence.users;
const seen: Cursor | null = room.cursor;

export async function say(text: string): Promise<boolean> {
  await room.ready;
  try {
    const { duplicate } = await room.publish("chat", { text }, { persist: true, timeoutMs: 5000 });
    return duplicate && people.size > 0 && seen !== null;
  } catch (error) {
    if (error instanceof ThrongError && error.code === "queue_full") return false;
    throw error;
  }
}

// @ts-expect-error there is no such event
client.on("opened", () => {});
// @ts-expect-error an offset is a number
client.join("lobby", { since: { epoch: "a", offset: "17" } });
// @ts-expect-error rooms are made by join
new (room.constructor as typeof import("../throng.js").Room)();
// @ts-expect-error the state is the client's
client.state = "open";
