// What is measured: each scenario as the generator's arguments, and the figures that are read from it.
//
// This is the only file that knows the generator's flags and the names in its outcome. A scenario is the
// same for every server except for the dialect and the address, which `target` gives. Rates are modest on
// purpose: every peer must keep up, or its processor time per message would be that of a queue. Payloads
// are 64 bytes, because bytes are nearly free and messages are not.

const SIZE = ["--size", "64"];
/** Source addresses, so that ports of closed connections do not run out. */
const SOURCES = ["--src", "127.0.0.1-40"];

/** A figure of the table: `read` takes it from an outcome, undefined where it is not known. */
const cpu = { what: "CPU, us/msg", read: (outcome) => outcome.server?.cpu_us_per_message };
const core = { what: "core busy, us/msg", read: (outcome) => outcome.server?.core_busy_us_per_message };
const memory = { what: "user B/connection", read: (outcome) => outcome.server?.memory.user_bytes_per_connection };
const opening = { what: "CPU to connect, us", read: (outcome) => outcome.server?.cpu_us_per_session };
const session = {
  what: "CPU, us/session",
  read: (outcome) => outcome.server?.cpu_us_per_session ?? outcome.server?.cpu_us_per_message,
};

/** The 99th percentile of one kind of latency, in milliseconds. */
function p99(name) {
  const read = ({ latencies }) => {
    const latency = latencies.find((candidate) => candidate.name === name);
    return latency && latency.p99_us / 1000;
  };
  return { what: `p99 ${name}, ms`, read };
}

/**
 * Every scenario, in the order of the table.
 *
 * `load` gives the arguments, `small` those of a quick run. `warm` runs the small one first on the same
 * server and forgets it, so that compilers that work at run time have done so; memory is taken from a
 * fresh server instead. `floor` is set where the bare server has a part in it. `own` is set where the
 * engine speaks its own protocol; elsewhere its echo endpoint is used.
 */
export const SCENARIOS = [
  {
    name: "idle",
    title: "10,000 idle connections",
    own: true,
    load: ["idle", "--clients", "10000", "--hold", "5", ...SOURCES],
    small: ["idle", "--clients", "1000", "--hold", "1", ...SOURCES],
    figures: [memory, opening],
  },
  {
    name: "echo",
    title: "echo, 1,000 connections, 1 at a time",
    floor: true,
    warm: true,
    load: ["echo", "--clients", "1000", "--depth", "1", "--duration", "10", ...SIZE],
    small: ["echo", "--clients", "1000", "--depth", "1", "--duration", "2", ...SIZE],
    figures: [cpu, core, p99("echo")],
  },
  {
    name: "echo16",
    title: "echo, 1,000 connections, 16 at a time",
    floor: true,
    warm: true,
    load: ["echo", "--clients", "1000", "--depth", "16", "--duration", "10", ...SIZE],
    small: ["echo", "--clients", "1000", "--depth", "16", "--duration", "2", ...SIZE],
    figures: [cpu, core, p99("echo")],
  },
  {
    name: "fanout",
    title: "room of 1,000, 50 publications/s",
    floor: true,
    own: true,
    warm: true,
    load: fanout({ members: 1000, rate: 50, messages: 500 }),
    small: fanout({ members: 1000, rate: 50, messages: 100 }),
    figures: [cpu, core, p99("delivery")],
  },
  {
    name: "burst",
    title: "room of 1,000, 8 publications at once, 64/s",
    floor: true,
    own: true,
    warm: true,
    load: fanout({ members: 1000, rate: 64, messages: 640, burst: 8 }),
    small: fanout({ members: 1000, rate: 64, messages: 128, burst: 8 }),
    figures: [cpu, core, p99("delivery")],
  },
  {
    name: "fanout10k",
    title: "room of 10,000, 4 publications/s",
    floor: true,
    own: true,
    warm: true,
    load: fanout({ members: 10_000, rate: 4, messages: 40 }),
    small: fanout({ members: 10_000, rate: 4, messages: 8 }),
    figures: [cpu, core, p99("delivery")],
  },
  {
    name: "churn",
    title: "connect, join, close",
    floor: true,
    own: true,
    warm: true,
    load: ["churn", "--clients", "100", "--stay", "0.03", "--abort", "0", "--rate", "1", "--rooms", "1", "--duration", "10", ...SIZE, ...SOURCES],
    small: ["churn", "--clients", "100", "--stay", "0.03", "--abort", "0", "--rate", "1", "--rooms", "1", "--duration", "2", ...SIZE, ...SOURCES],
    figures: [session, p99("connect")],
  },
];

function fanout({ members, rate, messages, burst }) {
  const bursts = burst === undefined ? [] : ["--burst", String(burst)];
  const plan = ["--schedule", "constant", "--rate", String(rate), "--messages", String(messages), ...bursts];
  return ["fanout", "--clients", String(members), "--publishers", "1", ...plan, ...SIZE, ...SOURCES];
}

/** The arguments that make a scenario, for a server that is up. */
export function scenarioArguments({ scenario, server, quick }) {
  const load = quick ? scenario.small : scenario.load;
  return [...load, ...target(scenario, server), "--threads", "1"];
}

/** Where to connect and what to speak. The plain dialect and Socket.IO append their own paths. */
function target(scenario, { peer, address }) {
  const ownProtocol = peer.speaks === "throng" && scenario.own;
  const dialect = peer.speaks === "throng" && !scenario.own ? "plain" : peer.speaks;
  return ["--url", `ws://${address}${ownProtocol ? "/ws" : ""}`, "--dialect", dialect];
}
