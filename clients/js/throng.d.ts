/** The subprotocol that this client speaks. */
export const PROTOCOL: "throng.v1.json";

/** Up to where a room was seen. Offsets of different epochs have nothing to do with each other. */
export interface Cursor {
  epoch: string;
  offset: number;
}

/** A publication as it arrives. */
export interface Message<Payload = any> {
  type: string;
  payload?: Payload;
  room?: string;
  /** Its number in the room. */
  offset?: number;
  /** True where it came to the user, the connection or everyone instead of a room. */
  user?: true;
  connection?: true;
  everyone?: true;
  id?: string | number;
  /** The author's `clientId`; absent where a back end published it. */
  from?: string;
}

/** The server's first push on a connection. */
export interface Hello {
  clientId: string;
  userId: string | null;
  sessionEpoch: string;
  heartbeat: { intervalMs: number; timeoutMs: number };
  limits: { maxMessageBytes: number; maxRooms: number; maxRoomsPerPublish: number; [name: string]: unknown };
  protocol: string;
}

export type State = "idle" | "connecting" | "open" | "waiting" | "asleep" | "stopped" | "closed";
export type PresenceState = "online" | "idle" | "offline";

export interface UserState {
  user: string;
  state: PresenceState;
  /** Milliseconds since 1970. */
  lastSeen?: number;
}

export interface Presence {
  /** Absent where it is about users that are watched one by one. */
  room?: string;
  members?: number;
  listed?: boolean;
  users?: UserState[];
  joined?: UserState[];
  left?: string[];
  states?: UserState[];
}

export interface Gap {
  room?: string;
  user?: true;
  connection?: true;
  everyone?: true;
  /** How many publications; null where nobody knows. */
  lost: number | null;
}

export interface Resync extends Cursor {
  room: string;
  /** `stream`: an event stream came back, which goes on with one of its rooms only. */
  reason: "too_old" | "epoch" | "ahead" | "lost" | "stream" | (string & {});
}

export interface Notification<Payload = any> {
  id: number;
  /** Milliseconds since 1970. */
  at: number;
  kind?: string;
  payload: Payload;
}

/** A refusal by the server or by the client itself. */
export class ThrongError extends Error {
  constructor(code: string, message: string, more?: { retryAfterMs?: number });
  /** For programs: the codes of the protocol, and `queue_full`, `too_large`, `disconnected`, `unconfirmed`,
   * `receive_only`, `timeout`, `stopped`, `closed` and `left` of the client's own. */
  code: string;
  retryAfterMs?: number;
}

export interface PublishOptions {
  rooms?: string[];
  room?: string;
  users?: string[];
  connections?: string[];
  everyone?: true;
  /** By which a repeat is found out; made up where there is none. */
  id?: string | number;
  key?: string;
  ttlMs?: number;
  except?: string[] | { connections?: string[]; users?: string[]; rooms?: string[] };
  persist?: boolean;
  /** Gives up after so many milliseconds. */
  timeoutMs?: number;
  /** Whether it is sent again when a connection has ended before the confirmation; see `ThrongOptions.resend`. */
  resend?: boolean | "known";
}

/** What can be said of a publication that nobody confirms. */
export type SendOptions = Omit<PublishOptions, "timeoutMs" | "resend" | "persist">;

export interface Taken {
  id: string | number;
  /** Its number, where the server tells it. */
  offset?: number;
  epoch?: string;
  /** It had been taken before. */
  duplicate: boolean;
}

export interface Page {
  room: string;
  offset: number;
  epoch: string;
  messages: Message[];
  more: boolean;
  recovered?: boolean;
}

export interface JoinOptions {
  /** Goes on from here: what was published since then comes first. */
  since?: Cursor;
  /** Asks for so many of the newest publications once, by the event `history`, before anything new. */
  history?: number;
  /** Asks who is there, by the event `presence`. */
  presence?: boolean;
}

export interface Attendants {
  room: string;
  members: number;
  connections: Array<{ clientId: string; user: string | null; state: PresenceState; [name: string]: unknown }>;
  next?: string;
}

export interface RoomEvents {
  message: Message;
  joined: { members?: number; recovered: boolean | null; cursor: Cursor | null };
  left: { room: string; reason: string };
  resync: Resync;
  gap: Gap;
  presence: Presence;
  history: { messages: Message[]; more: boolean };
  error: ThrongError;
}

export interface ThrongEvents {
  /** A connection is open and its rooms are asked for; `returned` says that it is not the first. */
  open: Hello & { returned: boolean };
  /** A connection that was open has ended. */
  closed: { code: number; reason: string };
  /** It will come back by itself after `delayMs`. */
  reconnecting: { attempt: number; delayMs: number; code: number; reason: string };
  /** It will not come back before `setToken` or `connect`. */
  stopped: { why: "refused" | "token" | "replaced" | "closed" | "protocol"; code: number; reason: string };
  state: { state: State };
  message: Message;
  gap: Gap;
  resync: Resync;
  presence: Presence;
  notification: Notification & { unread: number };
  unread: { unread: number };
  /** The list of notifications is here, or anew. */
  inbox: { items: Notification[]; unread: number };
  /** The server restarts soon. */
  reload: { reconnectDelayMs?: number; reason?: string };
  /** The token ends soon. `getToken` is asked by itself; without one `setToken` is to be called. */
  reauth: { inMs: number };
  reauthed: { userId: string | null; expiresAt: number | null };
  /** A publication was given up; its promise was rejected with the same error. */
  undelivered: { id: string | number; type: string; error: ThrongError };
  /** The queue was full and is half empty again. */
  drain: {};
  error: ThrongError;
}

export interface Emitter<Events> {
  on<Type extends keyof Events>(type: Type, handler: (detail: Events[Type]) => void): () => void;
  once<Type extends keyof Events>(type: Type, handler: (detail: Events[Type]) => void): () => void;
  off<Type extends keyof Events>(type: Type, handler: (detail: Events[Type]) => void): void;
}

export interface ThrongOptions {
  /** A token that lasts. */
  token?: string;
  /** Asked for a fresh token before every attempt and when the server asks for one; null: there is none to be had. */
  getToken?: (asked: { why: "connect" | "reauth" }) => string | null | undefined | Promise<string | null | undefined>;
  /** Where the server looks for it (`auth.sources`). */
  tokenBy?: "subprotocol" | "message" | "ticket" | "query";
  /** Rooms to join from the beginning. */
  rooms?: Array<string | ({ room: string } & JoinOptions)>;
  /** `sse`: only listen, by an event stream. `auto`: where WebSockets do not get through. */
  transport?: "websocket" | "sse" | "auto";
  /** Where event streams begin; beside the WebSocket, at `sse`, without it. */
  streamUrl?: string | URL;
  /** Whether event streams of other origins come with cookies. */
  withCredentials?: boolean;
  /** `auto`: the tab's visibility decides. */
  status?: "auto" | "manual";
  /** Keeps `notifications` equal to the server's. */
  inbox?: boolean;
  /** Whether publications without a confirmation are sent again: always, never, or for users who are known. */
  resend?: boolean | "known";
  /** Overrules what is done after a close: false stops, a number waits so many milliseconds. */
  decide?: (code: number, reason: string) => boolean | number | undefined;
  /** Silence after which the connection is tried, and how long its answer may take, in milliseconds. */
  heartbeat?: { silenceMs?: number; answerMs?: number };
  backoffBaseMs?: number;
  backoffCapMs?: number;
  /** A connection that has lasted so long is a success. */
  stableMs?: number;
  connectTimeoutMs?: number;
  tokenTimeoutMs?: number;
  requestTimeoutMs?: number;
  /** Publications, and bytes of them, that may wait for their confirmation. */
  queueMax?: number;
  queueBytes?: number;
  /** Bytes in the socket above which nothing more is handed to it. */
  bufferedMax?: number;
  /** A random number from 0 to 1. */
  random?: () => number;
  WebSocket?: new (url: string, protocols?: string[]) => any;
  EventSource?: new (url: string, init?: any) => any;
}

export interface Room extends Emitter<RoomEvents> {}
/** A room, from `join` to `leave`, over as many connections as it takes. */
export class Room {
  private constructor();
  readonly name: string;
  readonly members: number | null;
  readonly joined: boolean;
  readonly cursor: Cursor | null;
  /** Resolves at the first join, rejects when that is refused. */
  readonly ready: Promise<Room>;
  readonly presence: {
    members: number | null;
    listed: boolean;
    users: Map<string, { state: PresenceState; lastSeen?: number }>;
  };
  publish(type: string, payload?: unknown, options?: Omit<PublishOptions, "room">): Promise<Taken>;
  send(type: string, payload?: unknown, options?: Omit<SendOptions, "room">): boolean;
  leave(): Promise<void>;
  history(page?: { before?: number; since?: Cursor; limit?: number }): Promise<Page>;
  count(): Promise<number>;
  watch(): Promise<void>;
  unwatch(): Promise<void>;
  whois(page?: { after?: string; limit?: number }): Promise<Attendants>;
}

/** The unread notifications of a user that is known. */
export interface Notifications {
  readonly items: ReadonlyMap<number, Notification>;
  readonly unread: number;
  refresh(): void;
  markRead(ids: Iterable<number>): Promise<void>;
  markAllRead(): Promise<void>;
}

export interface Throng extends Emitter<ThrongEvents> {}
/** A client, from `connect` to `close`, over as many connections as it takes. */
export class Throng {
  constructor(url: string | URL, options?: ThrongOptions);
  readonly state: State;
  readonly isOpen: boolean;
  readonly hello: Hello | null;
  readonly clientId: string | null;
  readonly userId: string | null;
  readonly rooms: Map<string, Room>;
  readonly notifications: Notifications;
  /** Bytes that are published and have not left this machine. */
  readonly bufferedAmount: number;
  /** Publications that nobody has confirmed yet. */
  readonly pending: number;
  /** False while the queue takes nothing more, until `drain`. */
  readonly writable: boolean;
  /** Messages that came and went, and pushes that came twice and were not passed on. */
  readonly received: number;
  readonly sent: number;
  readonly duplicates: number;
  connect(): Promise<Hello>;
  close(): void;
  setToken(token: string): Promise<unknown>;
  join(room: string, options?: JoinOptions): Room;
  room(name: string): Room | undefined;
  publish(type: string, payload?: unknown, options?: PublishOptions): Promise<Taken>;
  send(type: string, payload?: unknown, options?: SendOptions): boolean;
  request(message: { type: string; [field: string]: unknown }): Promise<any>;
  ping(): Promise<number>;
  setStatus(status: "active" | "idle"): void;
  watch(users: Iterable<string>): Promise<void>;
  unwatch(users: Iterable<string>): Promise<void>;
  whois(users: Iterable<string>): Promise<UserState[]>;
}

/** What is to be done after a close, by the table of the protocol. */
export function advice(code: number, reason?: string):
  | { action: "stop" | "token" | "sleep" }
  | { action: "retry"; delayMs?: number; crowded?: true };
