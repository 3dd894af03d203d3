/**
 * The client of Throng for browsers and Node.js: one module that depends on nothing.
 *
 * What it is for is everything between two messages: to come back after a connection has ended, as late as the server
 * asks and spread over time where it does not ask; with a token that is fresh at that moment, and not at all after a
 * refusal; to enter all rooms again in one message, each with the cursor up to which it was seen; to send again under
 * the same id what nobody has confirmed; to notice a connection that is dead without having ended; and never to keep
 * more unsent than a bound.
 *
 * It knows the protocol `throng.v1.json` (docs/protocol.md) and nothing of what applications say in it. Handlers,
 * rooms and watches belong to the client and not to a connection, so they survive all of that.
 *
 * Replies are handled where they are read and not behind promises: a push may follow its reply in the same read, and
 * has to find the room as the reply has left it.
 *
 * @module throng-client
 */

/** The subprotocol that this client speaks. */
export const PROTOCOL = "throng.v1.json";

/** What holds unless the application says otherwise. Times are in milliseconds. */
const DEFAULTS = {
  tokenBy: "subprotocol",
  transport: "websocket",
  status: "auto",
  inbox: false,
  withCredentials: false,
  resend: "known",
  backoffBaseMs: 1000,
  backoffCapMs: 30_000,
  stableMs: 10_000,
  connectTimeoutMs: 15_000,
  tokenTimeoutMs: 30_000,
  requestTimeoutMs: 30_000,
  queueMax: 1000,
  queueBytes: 1_048_576,
  bufferedMax: 1_048_576,
};

/** Close codes of the client's own. */
const SILENT = 4000;
/** Closes after which the same client with the same token would only be sent away again. */
const FINAL = new Set([1000, 1002, 1003, 1007, 1008, 4409]);
const TOKEN_EXPIRED = 4401;
/** Rooms of one `throng:restore`, users of one `throng:watch`, and ids of one `throng:read`. */
const RESTORE_ROOMS = 100;
const WATCH_USERS = 64;
const READ_IDS = 1000;
/** Pushes that wait for a page of history before the page is given up. */
const HELD_PUSHES = 1000;
/** Refusals of a publication that may pass, until its author is told. */
const RETRIES = 8;
/** Publications that may be on their way at a time, at most; fewer where the server takes them more slowly. */
const WINDOW = 128;
/** How often a socket that has enough to send is looked at. Nothing tells when it has less. */
const BUFFER_LOOK_MS = 50;
/** Attempts in a row of which none succeeded, after which event streams are tried too where they may be. */
const HOPELESS = 3;
/** The longest answer that a connection is given to prove itself after the network has changed. */
const PROBE_MS = 10_000;

/** What the module's own classes do to each other and applications do not. */
const INNER = Symbol("inner");
const EMIT = Symbol("emit");

/** A refusal by the server, or by the client itself; `code` is for programs. */
export class ThrongError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {{retryAfterMs?: number}} [more]
   */
  constructor(code, message, more = {}) {
    super(message);
    this.name = "ThrongError";
    this.code = code;
    if (more.retryAfterMs !== undefined) this.retryAfterMs = more.retryAfterMs;
  }
}

/** Tells the host of a handler that threw, without keeping the other handlers from being called. */
function report(error) {
  if (typeof globalThis.reportError === "function") globalThis.reportError(error);
  else queueMicrotask(() => { throw error; });
}

/** Handlers by name. */
class Emitter {
  #handlers = new Map();

  /** Calls `handler` at each such event; returns a function that ends it. */
  on(type, handler) {
    if (typeof handler !== "function") throw new TypeError(`the handler of ${type} is not a function`);
    if (!this.#handlers.has(type)) this.#handlers.set(type, new Set());
    this.#handlers.get(type).add(handler);
    return () => this.off(type, handler);
  }

  /** Calls `handler` at the next such event. */
  once(type, handler) {
    const off = this.on(type, (detail) => { off(); handler(detail); });
    return off;
  }

  off(type, handler) {
    this.#handlers.get(type)?.delete(handler);
  }

  [EMIT](type, detail) {
    for (const handler of [...(this.#handlers.get(type) ?? [])]) {
      try { handler(detail); } catch (error) { report(error); }
    }
  }
}

/**
 * What is to be done after a connection has ended, by the table of docs/protocol.md:
 * `stop`, `token` (come back, but not with the same token), `sleep` (come back when there is something to say) or
 * `retry`, after `delayMs` where the server has said so, and later than usual where it is `crowded`.
 *
 * @param {number} code
 * @param {string} [reason]
 */
export function advice(code, reason = "") {
  if (FINAL.has(code)) return { action: "stop" };
  if (code === TOKEN_EXPIRED) return { action: "token" };
  if (code === 1001 && reason === "idle for too long") return { action: "sleep" };
  if (code !== 1013) return { action: "retry" };
  const asked = /come back in (\d+) s/.exec(reason);
  if (!asked) return { action: "retry", crowded: true };
  const told = { action: "retry", delayMs: 1000 * Number(asked[1]) };
  // A place in the line says nothing of when a connection of the same user or address ends.
  return reason.startsWith("too many") ? { ...told, crowded: true } : told;
}

/** A random time below a ceiling that doubles: a crowd that was cut off at once must not return at once. */
class Backoff {
  failures = 0;

  constructor({ backoffBaseMs, backoffCapMs, random }) {
    this.base = backoffBaseMs;
    this.cap = backoffCapMs;
    this.random = random;
  }

  /** The delay before the next attempt. `crowded`: the server has too many already. */
  next(crowded = false) {
    const exponent = crowded ? Math.max(this.failures, 3) : this.failures;
    this.failures = Math.min(exponent + 1, 30);
    return this.random() * Math.min(this.cap, this.base * 2 ** exponent);
  }

  reset() {
    this.failures = 0;
  }
}

/** An event stream in the place of a socket: it is heard and cannot be spoken to. */
class EventStream {
  readyState = 0;
  bufferedAmount = 0;
  receiveOnly = true;

  constructor(url, Source, withCredentials) {
    this.source = new Source(url, { withCredentials });
    this.source.onopen = () => (this.readyState = 1);
    this.source.onmessage = ({ data }) => this.onmessage?.({ data });
    // It would come back by itself, but neither as late as it should nor with a fresh token.
    this.source.onerror = () => this.#end(1006, "");
  }

  send() {}

  close() {
    this.readyState = 3;
    this.source.close();
  }

  #end(code, reason) {
    if (this.readyState === 3) return;
    this.close();
    this.onclose?.({ code, reason });
  }
}

/** Notices that a connection is dead though it has not ended. */
class Heart {
  #timer;
  #probe;
  #heardAt = 0;
  #beats = 0;

  /** `ask` sends a ping, `lost` is called when nothing at all came after one. */
  constructor({ silenceMs, answerMs, ask, lost }) {
    Object.assign(this, { silenceMs, answerMs, ask, lost });
    this.heard();
    this.#arm(silenceMs);
  }

  heard() {
    this.#heardAt = performance.now();
    this.#beats += 1;
  }

  /** Asks now, as the network may have changed. */
  probe(answerMs = this.answerMs) {
    if (this.#probe !== undefined) return;
    const beats = this.#beats;
    this.ask();
    // A machine that slept wakes up with this timer overdue: what has arrived meanwhile is to be read before.
    this.#probe = setTimeout(() => {
      this.#probe = setTimeout(() => {
        this.#probe = undefined;
        if (beats === this.#beats) this.lost();
      }, 0);
    }, answerMs);
  }

  stop() {
    clearTimeout(this.#timer);
    clearTimeout(this.#probe);
  }

  #arm(ms) {
    this.#timer = setTimeout(() => {
      const silent = performance.now() - this.#heardAt;
      if (silent >= this.silenceMs) this.probe();
      this.#arm(silent >= this.silenceMs ? this.silenceMs : this.silenceMs - silent);
    }, ms);
  }
}

/** What was published and not confirmed yet, in the order it was published in. */
class Outbox {
  /** Not handed to the present connection. */
  unsent = [];
  /** Handed to it, by `ref`. */
  flying = new Map();
  bytes = 0;
  wasFull = false;
  /** As many may fly: half as many after each refusal for haste, and slowly more with each that is taken. */
  window = WINDOW;

  constructor({ queueMax, queueBytes }) {
    this.most = queueMax;
    this.mostBytes = queueBytes;
  }

  get count() {
    return this.unsent.length + this.flying.size;
  }

  /** Whether that many bytes more may wait. */
  takes(bytes) {
    const fits = this.count < this.most && this.bytes + bytes <= this.mostBytes;
    if (!fits) this.wasFull = true;
    return fits;
  }

  add(entry) {
    this.bytes += entry.bytes;
    this.unsent.push(entry);
  }

  /** Puts one back among those that are to be sent, where it was. */
  again(entry) {
    this.flying.delete(entry.ref);
    const at = this.unsent.findIndex((other) => other.ref > entry.ref);
    this.unsent.splice(at < 0 ? this.unsent.length : at, 0, entry);
  }

  remove(entry) {
    clearTimeout(entry.timer);
    this.bytes -= entry.bytes;
    if (this.flying.delete(entry.ref)) return;
    const at = this.unsent.indexOf(entry);
    if (at >= 0) this.unsent.splice(at, 1);
  }

  /** True once after it was full and is half empty again. */
  hasDrained() {
    const drained = this.wasFull && this.count <= this.most / 2 && this.bytes <= this.mostBytes / 2;
    if (drained) this.wasFull = false;
    return drained;
  }
}

/**
 * A room, from `client.join(name)` to `leave()`, over as many connections as it takes.
 *
 * Events: `message`, `joined`, `left`, `resync`, `gap`, `presence`, `history`, `error`.
 */
export class Room extends Emitter {
  /** Connections in the room, as far as is known. */
  members = null;
  /** True while this connection is a member. */
  joined = false;
  /** Who is there, where `presence` was asked for. */
  presence = { members: null, listed: true, users: new Map() };

  constructor(client, name, options = {}) {
    super();
    this.name = name;
    let settle;
    /** Resolves at the first join, rejects when that is refused. */
    this.ready = new Promise((resolve, reject) => (settle = { resolve, reject }));
    this.ready.catch(() => {});
    this[INNER] = {
      client,
      settle,
      cursor: options.since ? { epoch: String(options.since.epoch), offset: options.since.offset } : null,
      /** The cursor that the join which is under way has shown. */
      shown: null,
      /** A number that was pushed before the reply which says of what epoch it is. */
      early: 0,
      /** Publications to be asked for at the first join. */
      history: options.since ? 0 : options.history ?? 0,
      /** Pushes that wait for them. */
      held: null,
      watched: options.presence === true,
      refused: false,
      retries: 0,
      moved: 0,
    };
  }

  /** Up to where the room was seen: to be kept and given to `join` as `since`. Null before the first join. */
  get cursor() {
    const { cursor } = this[INNER];
    return cursor === null ? null : { ...cursor };
  }

  /** Publishes; resolves when the server has taken it. */
  publish(type, payload, options) {
    return this[INNER].client.publish(type, payload, { ...options, room: this.name });
  }

  /** Sends without a confirmation, if that can be done now: returns whether it was. */
  send(type, payload, options) {
    return this[INNER].client.send(type, payload, { ...options, room: this.name });
  }

  /** Ends the membership. The room object is not used any more. */
  leave() {
    return this[INNER].client[INNER].leave(this);
  }

  /** A page of what was said: `{before, limit}` or `{since, limit}`. */
  async history(options = {}) {
    return this[INNER].client.request({ type: "throng:history", room: this.name, ...options });
  }

  /** How many connections are in the room now. */
  async count() {
    const { members } = await this[INNER].client.request({ type: "throng:members", room: this.name });
    return (this.members = members);
  }

  /** Begins to be told who is there, by `presence`. */
  watch() {
    this[INNER].watched = true;
    return this[INNER].client[INNER].watchRoom(this);
  }

  /** Ends it. */
  async unwatch() {
    this[INNER].watched = false;
    this.presence = { members: null, listed: true, users: new Map() };
    await this[INNER].client.request({ type: "throng:unwatch", room: this.name });
  }

  /** Who is there by connections and pages: `{after, limit}`. */
  async whois(options = {}) {
    return this[INNER].client.request({ type: "throng:whois", room: this.name, ...options });
  }
}

/** The unread notifications of a user that is known, kept equal to the server's. */
class Notifications {
  /** By id, oldest first. */
  items = new Map();
  unread = 0;
  #client;
  #round = 0;
  #newest = 0;
  /** Pushes that came while the list did. Null: there is no list under way. */
  #behind = null;
  #listed = false;

  constructor(client) {
    this.#client = client;
    this[INNER] = {
      push: (note) => this.#push(note),
      begin: () => { this.#listed = false; this.#list(); },
      unread: ({ unread }) => {
        this.#counts(unread);
        // Another connection has read some; which ones, only the list says.
        if (this.#listed) this.#list();
      },
    };
  }

  /** Asks for the whole list anew; `inbox` tells when it is here. */
  refresh() {
    this.#list();
  }

  /** Marks these as read, here and on all devices. */
  async markRead(ids) {
    const list = [...ids];
    for (let at = 0; at < list.length; at += READ_IDS) {
      const some = list.slice(at, at + READ_IDS);
      const { unread } = await this.#client.request({ type: "throng:read", ids: some });
      for (const id of some) this.items.delete(id);
      this.#counts(unread);
    }
  }

  /** Marks all as read. */
  async markAllRead() {
    const { unread } = await this.#client.request({ type: "throng:read", all: true });
    this.items.clear();
    this.#counts(unread);
  }

  #counts(unread) {
    if (unread === this.unread) return;
    this.unread = unread;
    this.#client[EMIT]("unread", { unread });
  }

  #push(note) {
    // Before the first answer of a connection the list has it too.
    if (!this.#listed && this.#behind === null) return;
    if (this.#behind !== null) this.#behind.push(note);
    else this.#add(note);
  }

  #add({ id, at, kind, payload, unread }) {
    const isNew = id > this.#newest;
    this.items.set(id, { id, at, kind, payload });
    if (unread !== undefined) this.#counts(unread);
    if (!isNew) return;
    this.#newest = id;
    this.#client[EMIT]("notification", { id, at, kind, payload, unread: this.unread });
  }

  #list() {
    const round = (this.#round += 1);
    const found = [];
    this.#behind = this.#listed ? [] : null;
    const page = (after, until) => {
      const ask = { type: "throng:inbox", ...(until === undefined ? {} : { after, until }) };
      this.#client[INNER].ask(ask, (error, reply) => {
        if (round !== this.#round) return;
        if (error) return this.#given(error);
        // What is pushed from here on is newer than all that is listed.
        this.#behind = until === undefined ? [] : this.#behind;
        found.push(...reply.items);
        if (reply.more && found.length > 0) return page(found.at(-1).id, until ?? reply.newest);
        this.#take(found, reply.unread);
      });
    };
    page();
  }

  #take(found, unread) {
    const behind = this.#behind ?? [];
    this.#behind = null;
    this.#listed = true;
    this.items.clear();
    this.#counts(unread);
    for (const note of found) this.#add(note);
    for (const note of behind) this.#add(note);
    this.#client[EMIT]("inbox", { items: [...this.items.values()], unread: this.unread });
  }

  #given(error) {
    this.#behind = null;
    if (error.code === "disconnected") return;
    this.#listed = true;
    this.#client[EMIT]("error", error);
  }
}

/** Rooms of a stream that an event's id can name beside its own. */
const STREAM_ROOMS = 65;

/** A room's name as the ids of events have it: hashed by FNV-1a, which is the same everywhere. */
function sign(name) {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash.toString(16);
}

/** The id of the event after which a stream has come so far in these rooms, each a name and a cursor. */
function eventId([[name, { epoch, offset }], ...others]) {
  const places = others.map(([other, cursor]) => `${sign(other)}-${cursor.epoch}-${cursor.offset.toString(16)}`);
  return `${places.length > 0 ? `~${places.join(",")}~` : ""}${epoch}.${offset}.${name}`;
}

/** Whether a value is something that a token, a ticket or an address can be. */
const isText = (value) => typeof value === "string" && value !== "";

/** The address of the WebSocket: absolute, or relative to the page. */
function socketUrl(url) {
  const full = new URL(url, globalThis.location?.href);
  full.protocol = full.protocol.replace(/^http/, "ws");
  full.hash = "";
  return full;
}

/** A promise that rejects when another takes too long. */
function within(ms, promise, what) {
  let timer;
  const limit = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new ThrongError("timeout", `${what} took longer than ${ms} ms`)), ms);
  });
  return Promise.race([promise, limit]).finally(() => clearTimeout(timer));
}

/**
 * A client, from `connect()` to `close()`, over as many connections as it takes.
 *
 * `state` is `idle` (before `connect`), `connecting`, `open`, `waiting` (it will come back), `asleep` (it will come
 * back when there is something to say), `stopped` (it will not before `setToken` or `connect`) or `closed`.
 *
 * Events: `open`, `closed`, `reconnecting`, `stopped`, `state`, `message`, `gap`, `resync`, `presence`,
 * `notification`, `unread`, `inbox`, `reload`, `reauth`, `reauthed`, `undelivered`, `drain`, `error`.
 */
export class Throng extends Emitter {
  state = "idle";
  /** The first push of the present connection, or null. */
  hello = null;
  /** Messages that came and went, and pushes that came twice and were not passed on. */
  received = 0;
  sent = 0;
  duplicates = 0;
  notifications = new Notifications(this);

  #options;
  #url;
  #socket = null;
  /** Counts attempts: whatever belongs to an earlier one is void. */
  #serial = 0;
  #attempts = 0;
  #everOpen = false;
  #everSpoke = false;
  #backoff;
  #advised = null;
  #refusal = null;
  #timers = {};
  /** The server has asked for the delay that runs, so nothing cuts it short. */
  #isAdvised = false;
  #heart = null;
  #token;
  /** The token of the last attempt, the one that was refused, and the one with which nothing was opened. */
  #used;
  #refused;
  #futile;
  #replies = new Map();
  #reference = 0;
  #rooms = new Map();
  #joining = new Set();
  #joinsAreDue = false;
  #moves = 0;
  #watched = new Set();
  #status = "active";
  #told = "active";
  #outbox;
  #pausedUntil = 0;
  #name;
  #publications = 0;
  #openers = [];
  #listeners = [];

  /**
   * @param {string | URL} url of the WebSocket, such as `wss://example.com/ws` or `/ws`
   * @param {import("./throng.js").ThrongOptions} [options]
   */
  constructor(url, options = {}) {
    super();
    this.#options = { ...DEFAULTS, random: Math.random, ...options };
    this.#url = socketUrl(url);
    this.#token = options.token;
    this.#backoff = new Backoff(this.#options);
    this.#outbox = new Outbox(this.#options);
    const random = new Uint32Array(3);
    globalThis.crypto.getRandomValues(random);
    this.#name = [...random].map((part) => part.toString(36)).join("");
    this[INNER] = {
      ask: (message, done) => this.#ask(message, done),
      leave: (room) => this.#leave(room),
      watchRoom: (room) => this.#watchRoom(room),
    };
    for (const room of options.rooms ?? []) {
      if (typeof room === "string") this.join(room);
      else this.join(room.room, room);
    }
  }

  /** True while there is a connection that may be spoken to. */
  get isOpen() { return this.state === "open" && this.#socket !== null; }
  /** This connection's address, or null. */
  get clientId() { return this.hello?.clientId ?? null; }
  /** Who the server takes this client for, or null. */
  get userId() { return this.hello?.userId ?? null; }
  /** The rooms that were joined and not left, by name. */
  get rooms() { return new Map(this.#rooms); }
  /** Bytes that are published and have not left this machine: those of the queue and those in the socket. */
  get bufferedAmount() {
    return (this.#socket?.bufferedAmount ?? 0) + this.#outbox.unsent.reduce((sum, entry) => sum + entry.bytes, 0);
  }
  /** Publications that nobody has confirmed yet. */
  get pending() { return this.#outbox.count; }
  /** False while the queue takes nothing more, until `drain`. */
  get writable() { return !this.#outbox.wasFull; }

  /** Connects, at once. Resolves with the server's first push, rejects when the client stops or is closed before. */
  connect() {
    if (this.isOpen) return Promise.resolve(this.hello);
    const opened = new Promise((resolve, reject) => this.#openers.push({ resolve, reject }));
    opened.catch(() => {});
    if (this.state !== "connecting") {
      this.#refused = undefined;
      this.#listen();
      this.#attempt();
    }
    return opened;
  }

  /** Ends for good: what is not confirmed is given up. `connect()` begins anew. */
  close() {
    if (this.state === "closed") return;
    this.#unlisten();
    const wasOpen = this.state === "open";
    this.#drop(1000, "");
    this.#enter("closed");
    const error = new ThrongError("closed", "the client was closed");
    this.#settleOpeners(error);
    for (const entry of [...this.#outbox.flying.values(), ...this.#outbox.unsent]) this.#fail(entry, error);
    if (wasOpen) this[EMIT]("closed", { code: 1000, reason: "" });
  }

  /**
   * Gives a new token. An open connection goes on with it, a stopped one begins again, and any other takes it for its
   * next attempt. Resolves when an open connection's server has taken it, at once otherwise.
   */
  async setToken(token) {
    // Who is asked for a fresh token at every attempt is not to be given an older one then.
    if (!this.isOpen || this.#options.getToken === undefined) this.#token = token;
    if (this.isOpen) return this.#authenticate(token);
    if (this.state === "stopped") this.connect();
    return undefined;
  }

  /** Joins a room and stays in it over all connections. `options`: `since`, `history`, `presence`. */
  join(name, options = {}) {
    const known = this.#rooms.get(name);
    if (known !== undefined) {
      if (options.presence === true && !known[INNER].watched) known.watch().catch(() => {});
      return known;
    }
    const room = new Room(this, name, options);
    this.#rooms.set(name, room);
    this.#wake();
    this.#joinSoon([room]);
    return room;
  }

  /** The room of that name, if it was joined. */
  room(name) {
    return this.#rooms.get(name);
  }

  /**
   * Publishes to `room`, `rooms`, `users`, `connections` or `everyone`; resolves when the server has taken it. What
   * cannot be sent now waits in the queue, and what a lost connection has left unconfirmed is sent again.
   */
  publish(type, payload, options = {}) {
    const { timeoutMs, resend = this.#options.resend, ...fields } = options;
    if (this.state === "closed") return Promise.reject(new ThrongError("closed", "the client was closed"));
    const id = fields.id ?? `${this.#name}-${(this.#publications += 1)}`;
    const ref = (this.#reference += 1);
    const text = JSON.stringify({ type, ...fields, payload, id, ref });
    const bytes = bytesOf(text);
    if (bytes > this.#mostBytes) return Promise.reject(this.#tooLarge(bytes));
    if (bytes > this.#options.queueBytes) {
      return Promise.reject(new ThrongError("too_large", `a message of ${bytes} bytes does not fit into the queue`));
    }
    if (!this.#outbox.takes(bytes)) {
      return Promise.reject(new ThrongError("queue_full", `${this.#outbox.count} publications wait; go on after drain`));
    }
    const entry = { ref, id, type, text, bytes, resend, retries: 0 };
    const taken = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
    // Who does not look at the promise is told by `undelivered`.
    taken.catch(() => {});
    this.#outbox.add(entry);
    if (timeoutMs !== undefined) {
      const late = () => this.#fail(entry, new ThrongError("timeout", `not confirmed in ${timeoutMs} ms`));
      entry.timer = setTimeout(late, timeoutMs);
    }
    this.#wake();
    this.#flush();
    return taken;
  }

  /** Sends a publication without a confirmation, if that can be done now: returns whether it was. */
  send(type, payload, options = {}) {
    this.#joinDue();
    if (!this.#canSend() || this.#socket.bufferedAmount > this.#options.bufferedMax) return false;
    return this.#write({ type, ...options, payload });
  }

  /** Sends any command of the protocol and resolves with its reply. It is not kept over connections. */
  request(message) {
    return new Promise((resolve, reject) => {
      this.#ask(message, (error, reply) => (error ? reject(error) : resolve(reply)));
    });
  }

  /** The time to the server and back in milliseconds. */
  async ping() {
    const begin = performance.now();
    await this.request({ type: "throng:ping" });
    return performance.now() - begin;
  }

  /** Says that somebody sits in front of this client (`active`) or nobody does (`idle`). */
  setStatus(status) {
    this.#status = status;
    this.#tellStatus();
  }

  /** Begins to be told how these users are, by `presence`. */
  async watch(users) {
    const news = [...users].filter((user) => !this.#watched.has(user));
    for (const user of news) this.#watched.add(user);
    if (this.#canSend()) await this.#watchUsers(news);
  }

  /** Ends it. */
  async unwatch(users) {
    const gone = [...users].filter((user) => this.#watched.delete(user));
    if (!this.#canSend()) return;
    for (const some of parts(gone, WATCH_USERS)) await this.request({ type: "throng:unwatch", users: some });
  }

  /** How these users are now. */
  async whois(users) {
    const all = [];
    for (const some of parts([...users], WATCH_USERS)) {
      all.push(...(await this.request({ type: "throng:whois", users: some })).users);
    }
    return all;
  }

  // ---- From one connection to the next.

  #enter(state) {
    if (state === this.state) return;
    this.state = state;
    this[EMIT]("state", { state });
  }

  #wake() {
    if (this.state === "asleep") this.#attempt();
  }

  /** The token for the next attempt; undefined where there are none, null when there is none to be had. */
  async #freshToken(why) {
    const { getToken, tokenTimeoutMs } = this.#options;
    const given = this.#token;
    if (getToken === undefined) return given;
    if (isText(given)) {
      this.#token = undefined;
      return given;
    }
    const token = await within(tokenTimeoutMs, Promise.resolve(getToken({ why })), "getToken");
    return token === undefined ? null : token;
  }

  async #attempt() {
    clearTimeout(this.#timers.retry);
    const serial = (this.#serial += 1);
    this.#attempts += 1;
    this.#refusal = null;
    this.#enter("connecting");
    let token;
    try {
      token = await this.#freshToken("connect");
    } catch (error) {
      if (serial === this.#serial) this.#ended(1006, `no token: ${error?.message ?? error}`);
      return;
    }
    if (serial !== this.#serial) return;
    if (token === null) return this.#stop({ why: "token", code: 1006, reason: "there is no token" });
    if (isText(token) && (token === this.#refused || (token === this.#futile && hasEnded(token)))) {
      return this.#stop({ why: "token", code: 1008, reason: "the token is good no more, and there is no other" });
    }
    this.#used = token;
    this.#open(serial, token);
  }

  #open(serial, token) {
    const stream = this.#takesStream();
    if (stream && this.#rooms.size === 0) return this.#enter("asleep");
    let socket;
    try {
      socket = stream ? this.#openStream(token) : this.#openSocket(token);
    } catch (error) {
      return this.#ended(1006, String(error?.message ?? error));
    }
    this.#socket = socket;
    socket.onmessage = ({ data }) => serial === this.#serial && this.#take(data);
    // Some sockets tell in words with what status an upgrade was refused; those of browsers do not.
    socket.onerror = (event) => {
      const status = /(?:response|status)\D*(\d{3})/.exec(event?.message ?? "");
      if (status !== null && serial === this.#serial) this.#refusal = Number(status[1]);
      // The close that has to follow does not where the socket is that of an older Node.js.
      if (serial === this.#serial) this.#timers.error = setTimeout(() => this.#failed(serial), 0);
    };
    socket.onclose = ({ code, reason }) => serial === this.#serial && this.#ended(code, String(reason ?? ""));
    const { connectTimeoutMs } = this.#options;
    this.#timers.connect = setTimeout(() => this.#ended(1006, "no answer in time"), connectTimeoutMs);
  }

  #failed(serial) {
    if (serial === this.#serial && this.state === "connecting") this.#ended(1006, "");
  }

  #openSocket(token) {
    const { tokenBy, WebSocket: Socket = globalThis.WebSocket } = this.#options;
    const url = new URL(this.#url);
    const protocols = [PROTOCOL];
    if (isText(token) && tokenBy === "subprotocol") protocols.push(`throng.token.${token}`);
    if (isText(token) && tokenBy === "ticket") url.searchParams.set("ticket", token);
    if (isText(token) && tokenBy === "query") url.searchParams.set("token", token);
    const socket = new Socket(url.href, protocols);
    if (isText(token) && tokenBy === "message") {
      socket.onopen = () => socket.send(JSON.stringify({ type: "throng:auth", token, ref: "throng-login" }));
    }
    return socket;
  }

  /** Whether the next attempt is to be an event stream. */
  #takesStream() {
    const { transport, WebSocket: Socket = globalThis.WebSocket } = this.#options;
    if (transport !== "auto") return transport === "sse";
    if (Socket === undefined) return true;
    if (this.#everSpoke) return false;
    // Where WebSockets never get through, streams may; they are tried in turns, as the server may just be away, and
    // first where one did get through.
    return this.#everOpen ? this.#attempts % 2 === 1 : this.#attempts > HOPELESS && this.#attempts % 2 === 0;
  }

  #openStream(token) {
    const { streamUrl, tokenBy, withCredentials, EventSource: Source = globalThis.EventSource } = this.#options;
    const url = streamUrl === undefined ? new URL(this.#url) : socketUrl(streamUrl);
    if (streamUrl === undefined) url.pathname = url.pathname.replace(/[^/]*$/, "sse");
    url.protocol = url.protocol.replace(/^ws/, "http");
    const seen = [];
    for (const [name, room] of this.#rooms) {
      url.searchParams.append("room", name);
      room[INNER].shown = null;
      if (room[INNER].cursor !== null) seen.push(room);
    }
    seen.sort((one, other) => other[INNER].moved - one[INNER].moved).splice(STREAM_ROOMS);
    for (const room of seen) room[INNER].shown = { ...room[INNER].cursor };
    if (seen.length > 0) url.searchParams.set("lastEventId", eventId(seen.map((room) => [room.name, room[INNER].cursor])));
    if (isText(token)) url.searchParams.set(tokenBy === "ticket" ? "ticket" : "token", token);
    return new EventStream(url.href, Source, withCredentials);
  }

  /** Gives the present connection up; nothing of it is heard any more. */
  #drop(code, reason) {
    const serial = (this.#serial += 1);
    const socket = this.#socket;
    this.#socket = null;
    this.hello = null;
    this.#told = "active";
    this.#heart?.stop();
    this.#heart = null;
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    this.#timers = {};
    if (socket !== null) {
      socket.onmessage = socket.onclose = null;
      // Some sockets throw what they have to say when there is nobody to be told.
      socket.onerror = () => {};
      if (socket.readyState < 2) socket.close(code, reason);
    }
    this.#joining.clear();
    for (const room of this.#rooms.values()) {
      room.joined = false;
      room[INNER].shown = null;
      this.#release(room);
    }
    const lost = new ThrongError("disconnected", "the connection ended before the reply");
    const replies = [...this.#replies.values()];
    this.#replies.clear();
    for (const { done, timer } of replies) {
      clearTimeout(timer);
      done(lost);
    }
    return serial;
  }

  #ended(code, reason) {
    const wasOpen = this.state === "open";
    const known = this.userId !== null;
    const isOurs = code === SILENT;
    const serial = this.#drop(isOurs ? SILENT : 1000, isOurs ? reason : "");
    this.#futile = wasOpen ? undefined : this.#used;
    this.#recall(code, known);
    if (wasOpen) this[EMIT]("closed", { code, reason });
    // A handler may have closed the client, or connected it.
    if (serial !== this.#serial) return;
    const advised = this.#advised;
    this.#advised = null;
    const status = this.#refusal;
    if (status === 401 || status === 403) {
      this.#refused = this.#used;
      return this.#stop({ why: "refused", code, reason: `the server answered ${status}` });
    }
    const decided = this.#options.decide?.(code, reason);
    const { action, delayMs, crowded } = decided === undefined ? advice(code, reason) : decisionOf(decided);
    if (action === "stop") return this.#stop({ why: whyOf(code), code, reason });
    if (action === "token") return this.#expired(code, reason);
    const listens = this.#rooms.size > 0 || this.#watched.size > 0 || this.#outbox.count > 0 || this.#options.inbox;
    if (action === "sleep" && !listens) return this.#enter("asleep");
    const asked = delayMs ?? advised;
    this.#isAdvised = asked !== null || crowded === true;
    const delay = asked === null || crowded ? Math.max(asked ?? 0, this.#backoff.next(crowded)) : asked;
    this.#wait(delay, code, reason);
  }

  /** Comes back with another token, if there can be one. */
  #expired(code, reason) {
    this.#refused = this.#used;
    if (this.#options.getToken === undefined && !(isText(this.#token) && this.#token !== this.#used)) {
      return this.#stop({ why: "token", code, reason });
    }
    this.#isAdvised = false;
    return this.#wait(this.#backoff.next(), code, reason);
  }

  #stop(detail) {
    if (detail.why === "refused") this.#refused = this.#used;
    this.#serial += 1;
    this.#enter("stopped");
    this[EMIT]("stopped", detail);
    this.#settleOpeners(new ThrongError("stopped", detail.reason || `closed with ${detail.code}`));
  }

  #wait(delayMs, code, reason) {
    this.#timers.retry = setTimeout(() => this.#return(), delayMs);
    this.#enter("waiting");
    this[EMIT]("reconnecting", { attempt: this.#backoff.failures, delayMs, code, reason });
  }

  /** The delay is over. Without a network there is nothing to try; what the browser says of that may be wrong. */
  #return() {
    if (globalThis.navigator?.onLine !== false) return this.#attempt();
    this.#timers.retry = setTimeout(() => this.#attempt(), this.#options.backoffCapMs);
    return undefined;
  }

  #settleOpeners(error) {
    const openers = this.#openers.splice(0);
    for (const { resolve, reject } of openers) error ? reject(error) : resolve(this.hello);
  }

  // ---- What the page tells: the network, the tab, the end.

  #listen() {
    const { document } = globalThis;
    if (document === undefined || this.#listeners.length > 0) return;
    const add = (target, type, handler) => {
      target.addEventListener(type, handler);
      this.#listeners.push(() => target.removeEventListener(type, handler));
    };
    const looks = () => {
      if (this.#options.status === "auto") this.setStatus(document.hidden ? "idle" : "active");
      if (!document.hidden) this.#hasChanged();
    };
    add(globalThis, "online", () => this.#hasChanged());
    add(globalThis, "offline", () => this.#heart?.probe(this.#probeMs()));
    add(document, "visibilitychange", looks);
    // A page with a connection is not kept for the way back, and presence should learn of its end.
    add(globalThis, "pagehide", () => this.#suspend());
    add(globalThis, "pageshow", ({ persisted }) => persisted && this.state === "waiting" && this.#attempt());
    if (this.#options.status === "auto") this.#status = document.hidden ? "idle" : "active";
  }

  #unlisten() {
    for (const remove of this.#listeners.splice(0)) remove();
  }

  #suspend() {
    if (this.state === "stopped" || this.state === "idle") return;
    const wasOpen = this.state === "open";
    const known = this.userId !== null;
    this.#drop(1000, "");
    this.#recall(1001, known);
    this.#enter("waiting");
    if (wasOpen) this[EMIT]("closed", { code: 1000, reason: "the page was left" });
  }

  #probeMs() {
    return Math.min(this.#heart?.answerMs ?? PROBE_MS, PROBE_MS);
  }

  /** There is a network again, or somebody looks: what the server has asked for holds, what was chance is cut short. */
  #hasChanged() {
    if (this.state === "open") return this.#heart?.probe(this.#probeMs());
    if (this.state !== "waiting" || this.#timers.retry === undefined || this.#isAdvised) return;
    clearTimeout(this.#timers.retry);
    const { random, backoffBaseMs } = this.#options;
    // A whole office may have its network back at once.
    this.#timers.retry = setTimeout(() => this.#return(), random() * backoffBaseMs);
  }

  // ---- What the server says.

  #take(data) {
    this.received += 1;
    this.#heart?.heard();
    let message;
    try { message = JSON.parse(data); } catch { return; }
    switch (message.type) {
      case "throng:connected": return this.#welcome(message);
      case "throng:reply":
      case "throng:pong": return this.#replied(message);
      case "throng:error": return this.#refuse(message);
      case "throng:reload":
        this.#advised = message.reconnectDelayMs ?? null;
        return this[EMIT]("reload", message);
      case "throng:close": return this.#ended(message.code, message.reason ?? "");
      case "throng:reauth": return this.#reauth(message.inMs);
      case "throng:left": return this.#left(message);
      case "throng:resync": return this.#resync(message);
      case "throng:gap":
        this.#rooms.get(message.room)?.[EMIT]("gap", message);
        return this[EMIT]("gap", message);
      case "throng:presence": return this.#presence(message);
      case "throng:notification": return this.notifications[INNER].push(message);
      case "throng:unread": return this.notifications[INNER].unread(message);
      default:
        if (!String(message.type).startsWith("throng:")) this.#push(message);
    }
  }

  #welcome(hello) {
    clearTimeout(this.#timers.connect);
    this.hello = hello;
    const isFirst = !this.#everOpen;
    this.#everOpen = true;
    this.#everSpoke ||= !this.#socket.receiveOnly;
    this.#attempts = 0;
    this.#advised = null;
    this.#timers.stable = setTimeout(() => this.#backoff.reset(), this.#options.stableMs);
    if (!this.#socket.receiveOnly) this.#beginHeart(hello.heartbeat ?? {});
    this.#enter("open");
    if (this.hello !== hello) return;
    this.#restore();
    this[EMIT]("open", { ...hello, returned: !isFirst });
    if (this.hello !== hello) return;
    this.#settleOpeners();
    this.#flush();
  }

  #beginHeart({ intervalMs = 25_000, timeoutMs = 20_000 }) {
    const { silenceMs = intervalMs + timeoutMs, answerMs = Math.min(timeoutMs, PROBE_MS) } = this.#options.heartbeat ?? {};
    const serial = this.#serial;
    this.#heart = new Heart({
      silenceMs,
      answerMs,
      ask: () => this.#ask({ type: "throng:ping" }, () => {}),
      lost: () => serial === this.#serial && this.#ended(SILENT, "the connection fell silent"),
    });
  }

  /** Everything that a new connection has to be told before anything else is said on it. */
  #restore() {
    if (this.#socket.receiveOnly) return;
    this.#tellStatus();
    this.#joining.clear();
    this.#joinAll([...this.#rooms.values()]);
    this.#watchUsers([...this.#watched]).catch((error) => this.#complain(error));
    if (this.#options.inbox && this.userId !== null) this.notifications[INNER].begin();
  }

  #replied(message) {
    const waiting = this.#replies.get(message.ref);
    if (waiting !== undefined) {
      this.#replies.delete(message.ref);
      clearTimeout(waiting.timer);
      return waiting.done(null, message);
    }
    const entry = this.#outbox.flying.get(message.ref);
    if (entry !== undefined) return this.#confirm(entry, message);
    // An event stream has joined for us.
    if (message.ref === "join" && this.#rooms.has(message.room)) this.#joined(this.#rooms.get(message.room), message);
    return undefined;
  }

  #refuse(message) {
    const error = new ThrongError(message.code, message.message, message);
    const waiting = this.#replies.get(message.ref);
    if (waiting !== undefined) {
      this.#replies.delete(message.ref);
      clearTimeout(waiting.timer);
      return waiting.done(error);
    }
    const entry = this.#outbox.flying.get(message.ref);
    if (entry !== undefined) return this.#refusePublication(entry, error);
    return this[EMIT]("error", error);
  }

  #complain(error) {
    if (error.code !== "disconnected" && error.code !== "closed") this[EMIT]("error", error);
  }

  #push(message) {
    const { room: name, offset } = message;
    const room = name === undefined ? undefined : this.#rooms.get(name);
    // What a room still says behind its leave is not for anybody.
    if (name !== undefined && room === undefined) return;
    if (room !== undefined && Number.isInteger(offset)) {
      const inner = room[INNER];
      if (inner.cursor === null) {
        inner.early = Math.max(inner.early, offset);
      } else if (offset <= inner.cursor.offset) {
        this.duplicates += 1;
        return;
      } else {
        inner.cursor.offset = offset;
      }
      inner.moved = this.#moves += 1;
      if (inner.held !== null) {
        inner.held.push(message);
        if (inner.held.length > HELD_PUSHES) this.#historyCame(room, { messages: [], more: true });
        return;
      }
    }
    this.#deliver(room, message);
  }

  #deliver(room, message) {
    room?.[EMIT]("message", message);
    this[EMIT]("message", message);
  }

  // ---- Rooms.

  /** Joins of one turn go out together. */
  #joinSoon(rooms) {
    if (!this.isOpen) return;
    for (const room of rooms) this.#joining.add(room);
    if (this.#joinsAreDue) return;
    this.#joinsAreDue = true;
    queueMicrotask(() => {
      this.#joinsAreDue = false;
      this.#joinDue();
    });
  }

  /** What is said to a room comes behind its join. */
  #joinDue() {
    if (this.#joining.size === 0 || !this.isOpen) return;
    const due = [...this.#joining].filter((room) => this.#rooms.get(room.name) === room && !room.joined);
    this.#joining.clear();
    if (due.length === 0) return;
    if (!this.#socket.receiveOnly) return this.#joinAll(due);
    // A stream has the rooms of its beginning: another one begins.
    this.#drop(1000, "");
    this.#attempt();
  }

  /** All rooms in as few messages as there can be, which is one unless they are too many for the server. */
  #joinAll(rooms) {
    const most = this.hello?.limits?.maxMessageBytes ?? 65_536;
    let batch = [];
    let bytes = 0;
    for (const room of rooms) {
      const size = bytesOf(JSON.stringify(wishOf(room))) + 1;
      if (batch.length === RESTORE_ROOMS || (batch.length > 0 && bytes + size > most - 100)) {
        this.#joinBatch(batch);
        [batch, bytes] = [[], 0];
      }
      batch.push(room);
      bytes += size;
    }
    if (batch.length > 0) this.#joinBatch(batch);
    for (const room of rooms) if (room[INNER].watched) this.#watchRoom(room).catch((error) => this.#complainIn(room, error));
  }

  #joinBatch(rooms) {
    for (const room of rooms) {
      room[INNER].shown = room[INNER].cursor === null ? null : { ...room[INNER].cursor };
      room[INNER].early = 0;
    }
    const wishes = rooms.map(wishOf);
    const message = rooms.length === 1 ? { type: "throng:join", ...wishes[0] } : { type: "throng:restore", rooms: wishes };
    this.#ask(message, (error, reply) => {
      if (error?.code === "disconnected") return;
      const results = error || rooms.length === 1 ? [reply] : reply.rooms ?? [];
      rooms.forEach((room, at) => {
        if (this.#rooms.get(room.name) !== room) return;
        const result = results[at];
        if (error) this.#notJoined(room, error);
        else if (result?.ok) this.#joined(room, result);
        else this.#notJoined(room, new ThrongError(result?.code ?? "unknown", result?.message ?? "no result", result));
      });
    });
  }

  #joined(room, { members, epoch, offset, recovered }) {
    const inner = room[INNER];
    const { shown } = inner;
    const isFirst = inner.settle !== null;
    inner.refused = false;
    inner.retries = 0;
    room.joined = true;
    room.members = members ?? null;
    let missed = false;
    if (epoch !== undefined) {
      if (inner.cursor === null) {
        inner.cursor = { epoch, offset: Math.max(offset, inner.early) };
      } else if (shown === null) {
        // A stream goes on with so many rooms and begins the others with their newest.
        missed = inner.cursor.epoch !== epoch || inner.cursor.offset !== offset;
        inner.cursor = { epoch, offset };
      } else if (recovered !== true && inner.cursor.epoch !== epoch) {
        inner.cursor = { epoch, offset };
      }
    }
    if (isFirst) {
      inner.settle.resolve(room);
      inner.settle = null;
    }
    if (inner.history > 0) this.#askHistory(room, offset);
    room[EMIT]("joined", { members, recovered: recovered ?? null, cursor: room.cursor });
    if (missed) this.#resync({ type: "throng:resync", room: room.name, reason: "stream", epoch, offset });
  }

  #notJoined(room, error) {
    const inner = room[INNER];
    if (isPassing(error) && inner.retries < RETRIES) {
      const serial = this.#serial;
      inner.retries += 1;
      setTimeout(() => serial === this.#serial && !room.joined && this.#joinSoon([room]), this.#pauseAfter(error, inner.retries));
      return;
    }
    inner.refused = true;
    inner.settle?.reject(error);
    inner.settle = null;
    this.#complainIn(room, error);
  }

  #complainIn(room, error) {
    if (error.code !== "disconnected" && error.code !== "closed") room[EMIT]("error", error);
  }

  /** How long to wait after a refusal that passes: as long as the server says, or a random time that grows. */
  #pauseAfter(error, retries) {
    const { random, backoffBaseMs, backoffCapMs } = this.#options;
    return error.retryAfterMs ?? random() * Math.min(backoffCapMs, backoffBaseMs * 2 ** retries);
  }

  async #leave(room) {
    if (this.#rooms.get(room.name) !== room) return;
    const isTold = this.#canSend();
    this.#rooms.delete(room.name);
    room.joined = false;
    room[INNER].held = null;
    room[INNER].settle?.reject(new ThrongError("left", "the room was left before it was joined"));
    room[INNER].settle = null;
    if (!isTold) return;
    if (room[INNER].watched) this.#ask({ type: "throng:unwatch", room: room.name }, () => {});
    await this.request({ type: "throng:leave", room: room.name }).catch((error) => {
      // The end of the connection is the end of its memberships.
      if (error.code !== "disconnected") throw error;
    });
  }

  #left(message) {
    const room = this.#rooms.get(message.room);
    if (room === undefined) return;
    room.joined = false;
    room[INNER].refused = true;
    room[EMIT]("left", message);
  }

  #resync(message) {
    const room = this.#rooms.get(message.room);
    if (room !== undefined) {
      room[INNER].cursor = { epoch: message.epoch, offset: message.offset };
      room[EMIT]("resync", message);
    }
    this[EMIT]("resync", message);
  }

  #askHistory(room, offset = 0) {
    const inner = room[INNER];
    const limit = inner.history;
    inner.history = 0;
    inner.held = [];
    this.#ask({ type: "throng:history", room: room.name, before: offset + 1, limit }, (error, reply) => {
      if (this.#rooms.get(room.name) !== room || inner.held === null) return;
      if (error) {
        this.#complainIn(room, error);
        this.#release(room);
      } else {
        this.#historyCame(room, reply);
      }
    });
  }

  #historyCame(room, { messages, more }) {
    room[EMIT]("history", { messages, more });
    this.#release(room);
  }

  /** Passes on what has waited for a page of history. */
  #release(room) {
    const held = room[INNER].held ?? [];
    room[INNER].held = null;
    for (const message of held) this.#deliver(room, message);
  }

  // ---- Presence and status.

  #tellStatus() {
    if (!this.#canSend() || this.#told === this.#status) return;
    this.#told = this.#status;
    this.#write({ type: "throng:status", status: this.#status });
  }

  async #watchUsers(users) {
    await Promise.all(parts(users, WATCH_USERS).map((some) => this.request({ type: "throng:watch", users: some })));
  }

  async #watchRoom(room) {
    if (this.#canSend()) await this.request({ type: "throng:watch", room: room.name });
  }

  #presence(message) {
    const { room: name, members, listed, users, joined = [], left = [], states = [] } = message;
    const room = this.#rooms.get(name);
    if (room !== undefined) {
      const known = room.presence;
      known.members = members;
      known.listed = listed !== false;
      room.members = members;
      if (users !== undefined || !known.listed) known.users.clear();
      for (const { user, ...how } of [...(users ?? []), ...joined, ...states]) known.users.set(user, how);
      for (const user of left) known.users.delete(user);
      room[EMIT]("presence", message);
    }
    this[EMIT]("presence", message);
  }

  // ---- Tokens on an open connection.

  async #reauth(inMs) {
    this[EMIT]("reauth", { inMs });
    if (this.#options.getToken === undefined) return;
    const serial = this.#serial;
    try {
      const token = await this.#freshToken("reauth");
      if (serial === this.#serial && isText(token)) await this.#authenticate(token);
    } catch (error) {
      if (serial !== this.#serial) return;
      this.#complain(error);
      // The old token goes on for a while: there is time for another attempt or two.
      const left = inMs / 2;
      if (left >= 250) this.#timers.reauth = setTimeout(() => this.#reauth(left), left / 2);
    }
  }

  async #authenticate(token) {
    const reply = await this.request({ type: "throng:auth", token });
    this.#used = token;
    this[EMIT]("reauthed", { userId: reply.userId, expiresAt: reply.expiresAt });
    // What was refused may be granted now.
    this.#joinSoon([...this.#rooms.values()].filter((room) => room[INNER].refused));
    return reply;
  }

  // ---- What is sent.

  #canSend() {
    return this.isOpen && !this.#socket.receiveOnly && this.#socket.readyState === 1;
  }

  /** Bytes that a message may have, as far as the server has said so. */
  get #mostBytes() {
    return this.hello?.limits?.maxMessageBytes ?? Infinity;
  }

  #tooLarge(bytes) {
    return new ThrongError("too_large", `a message of ${bytes} bytes, and at most ${this.#mostBytes} are taken`);
  }

  #write(message) {
    return this.#writeText(JSON.stringify(message));
  }

  #writeText(text) {
    this.#socket.send(text);
    this.sent += 1;
    return true;
  }

  /** Sends a command; `done(error, reply)` is called once, also when the connection ends before the reply. */
  #ask(message, done) {
    this.#joinDue();
    if (!this.#canSend()) {
      const only = this.#socket?.receiveOnly === true;
      return done(only ? new ThrongError("receive_only", "an event stream only listens")
        : new ThrongError("disconnected", "there is no connection"));
    }
    const ref = (this.#reference += 1);
    const timer = setTimeout(() => {
      this.#replies.delete(ref);
      done(new ThrongError("timeout", `no reply to ${message.type}`));
    }, this.#options.requestTimeoutMs);
    this.#replies.set(ref, { done, timer });
    return this.#write({ ...message, ref });
  }

  #flush() {
    this.#joinDue();
    if (!this.#canSend() || this.#timers.pause !== undefined) return;
    const { unsent, flying, window } = this.#outbox;
    while (unsent.length > 0 && flying.size < window) {
      if (this.#socket.bufferedAmount > this.#options.bufferedMax) {
        this.#timers.buffer ??= setTimeout(() => {
          this.#timers.buffer = undefined;
          this.#flush();
        }, BUFFER_LOOK_MS);
        break;
      }
      const entry = unsent.shift();
      if (entry.bytes > this.#mostBytes) {
        this.#fail(entry, this.#tooLarge(entry.bytes));
        continue;
      }
      flying.set(entry.ref, entry);
      this.#writeText(entry.text);
    }
    if (this.#outbox.hasDrained()) this[EMIT]("drain", {});
  }

  #confirm(entry, reply) {
    this.#outbox.remove(entry);
    const { offset, epoch, duplicate } = reply;
    this.#outbox.window = Math.min(WINDOW, this.#outbox.window + 0.1);
    entry.resolve({ id: entry.id, offset, epoch, duplicate: duplicate === true });
    this.#flush();
    if (this.#outbox.hasDrained()) this[EMIT]("drain", {});
  }

  #fail(entry, error) {
    this.#outbox.remove(entry);
    entry.reject(error);
    this[EMIT]("undelivered", { id: entry.id, type: entry.type, error });
    if (this.#outbox.hasDrained()) this[EMIT]("drain", {});
  }

  #refusePublication(entry, error) {
    const maySend = error.code === "unconfirmed" ? this.#mayRepeat(entry, this.userId !== null) : isPassing(error);
    if (!maySend || entry.retries >= RETRIES) return this.#fail(entry, error);
    const isHaste = error.code === "rate_limited";
    if (!isHaste) entry.retries += 1;
    else if (this.#timers.pause === undefined) this.#outbox.window = Math.max(1, this.#outbox.window / 2);
    this.#outbox.again(entry);
    // All that was published later waits too, for the order of it.
    this.#timers.pause ??= setTimeout(() => {
      this.#timers.pause = undefined;
      this.#flush();
    }, this.#pauseAfter(error, entry.retries));
    return undefined;
  }

  /** Whether a publication that may have been taken is sent again: the server finds repeats of known users out. */
  #mayRepeat(entry, isKnown) {
    return entry.resend === "known" ? isKnown : entry.resend === true;
  }

  /** What becomes of what was sent and not confirmed when the connection ends. */
  #recall(code, known) {
    for (const entry of [...this.#outbox.flying.values()]) {
      if (code === 1009) {
        this.#fail(entry, new ThrongError("too_large", "the server takes no message as large as one of the last"));
      } else if (this.#mayRepeat(entry, known)) {
        this.#outbox.again(entry);
      } else {
        this.#fail(entry, new ThrongError("unconfirmed", "the connection ended before the confirmation"));
      }
    }
  }
}

/** What a room asks for when it is joined. */
function wishOf(room) {
  const { cursor } = room[INNER];
  return cursor === null ? { room: room.name } : { room: room.name, since: cursor };
}

/** An answer of the application's `decide`: false, or a number of milliseconds. */
function decisionOf(decided) {
  return decided === false ? { action: "stop" } : { action: "retry", delayMs: typeof decided === "number" ? decided : undefined };
}

/** Whether a token says that its time is over. One that cannot be read says nothing. */
function hasEnded(token) {
  try {
    const { exp } = JSON.parse(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
    return exp * 1000 < Date.now();
  } catch {
    return false;
  }
}

function whyOf(code) {
  if (code === 4409) return "replaced";
  if (code === 1008) return "refused";
  return code === 1000 ? "closed" : "protocol";
}

/** Refusals of which nothing was done and that may pass. */
const isPassing = ({ code }) => code === "rate_limited" || code === "overloaded";

function parts(list, size) {
  const all = [];
  for (let at = 0; at < list.length; at += size) all.push(list.slice(at, at + size));
  return all;
}

const encoder = new TextEncoder();
const bytesOf = (text) => encoder.encode(text).length;
