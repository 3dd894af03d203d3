// The goals: what each of them reads from the runs of a round, and the limit it is held to.
//
// A goal has lines. `value` takes the figure of a server from the outcomes of its steps in one round (`at`
// gives the outcome of a step, undefined when no run of it counted), `floor` that of the bare server from
// its own, and `judged` the number that is held against `most` or `least`: the ratio of both, or the value
// itself. A line without a limit only informs. The median over the rounds decides, and the ratio is taken
// within each round, since a machine drifts by more between rounds than servers differ.

import { latency } from "../tools/generator.mjs";
import { SLOW_LIMIT, SLOW_SHARE } from "./steps.mjs";

/** Kernel memory of the server's end of a connection that the goal is about, in bytes. */
const SERVER_END = 3_995;

const cpu = (step) => (at) => at(step)?.server?.cpu_us_per_message;
const opening = (step) => (at) => at(step)?.server?.cpu_us_per_session;
const memory = (step, name) => (at) => at(step)?.server?.memory[name];
const p99 = (step, ...names) => (at) => names.map((name) => latency(at(step), name)?.p99_us).find(Number.isFinite);
const ratio = (value, floor) => value / floor;

function perFloor({ step, ...line }) {
  return { steps: [step], value: cpu(step), floor: cpu(step), judged: ratio, ...line };
}

/** How many frames a write of the engine carried in a step. */
function frames(step) {
  return {
    axis: "the same, frames per write",
    target: "",
    steps: [step],
    value: (at) => at(step)?.server?.frames_per_write,
  };
}

/** The rate in publications a second that a search of the generator ended with. */
const kept = (step) => (at) => {
  const found = /highest rate kept: (\d+)/.exec(at(step)?.printed ?? "");
  return found ? Number(found[1]) : undefined;
};

/** What one core delivers to a room of so many when every frame has a write of its own, a second. */
function alone(at) {
  const outcome = at("fan1000");
  return 1e6 / (outcome?.server?.cpu_us_per_message * outcome?.about.clients);
}

/** How far the memory grew while some had stopped reading, as a share of what their queues may hold. */
function held(at) {
  const outcome = at("slow");
  if (outcome?.server === undefined) return undefined;
  const { rss_anon_peak: peak, rss_anon_connected: connected } = outcome.server.memory;
  return (peak - connected) / (SLOW_LIMIT * Math.round(outcome.about.clients * SLOW_SHARE));
}

function capacity(step) {
  const both = (at) => at(step)?.server?.cpu_us_per_message / at(step)?.generator.cpu_us_per_message;
  return { target: ">= 2", steps: [step], value: both, judged: (value) => value, least: 2 };
}

export const GOALS = [
  {
    id: "G1",
    note: "RssAnon of the server before the first connection and after the last, heartbeat armed.",
    lines: [{ axis: "user B per idle connection", target: "<= 128", steps: ["idle"], value: memory("idle", "user_bytes_per_connection"), most: 128 }],
  },
  {
    id: "G2",
    note: "One room joined: by users with a token each, who are in a room of their own besides, and by strangers.",
    lines: [
      { axis: "user B per user's connection in one room", target: "<= 320", steps: ["known"], value: memory("known", "user_bytes_per_connection"), most: 320 },
      { axis: "the same, strangers", target: "", steps: ["joined"], value: memory("joined", "user_bytes_per_connection") },
    ],
  },
  {
    id: "G3",
    note:
      "Growth of all slabs, which has both ends; the generator's end is the same with either server, so the difference to the " +
      `floor is the server's. Judged is 1 + difference / ${SERVER_END}.`,
    lines: [
      {
        axis: "kernel B per connection, both ends",
        target: "server end <= 1.02 x floor's",
        steps: ["crowd"],
        value: memory("crowd", "kernel_bytes_per_connection"),
        floor: memory("crowd", "kernel_bytes_per_connection"),
        judged: (value, floor) => 1 + (value - floor) / SERVER_END,
        most: 1.02,
      },
    ],
  },
  {
    id: "G4",
    note: "One publication at a time; a write that carries more than one frame would make the ratio worthless, so the frames are counted.",
    lines: [
      perFloor({ step: "fan1000", axis: "CPU per delivery, 1,000 members, us", target: "<= 1.05 x floor", most: 1.05 }),
      frames("fan1000"),
      perFloor({ step: "fan10000", axis: "CPU per delivery, 10,000 members, us", target: "<= 1.05 x floor", most: 1.05 }),
      frames("fan10000"),
    ],
  },
  {
    id: "G5",
    note: "The floor writes as many frames of the same length with one writev as one recv brought it.",
    lines: [
      perFloor({ step: "burst16", axis: "CPU per delivery, 16 at once, us", target: "<= 1.1 x floor", most: 1.1 }),
      frames("burst16"),
      perFloor({ step: "burst128", axis: "CPU per delivery, 128 at once, us", target: "<= 1.1 x floor", most: 1.1 }),
      frames("burst128"),
    ],
  },
  {
    id: "G6",
    note:
      "The highest rate whose p99 stays within 5 ms without loss, flush window 1 ms, beside what one core could do with one frame a " +
      "write: 1 / (CPU per delivery of G4 x members). Latency is that of every tenth member; the others read 25 times a second and " +
      "are counted like all.",
    lines: [
      {
        axis: "publications/s to 1,000, p99 <= 5 ms",
        target: ">= 5 x one frame a write",
        steps: ["cap", "fan1000"],
        value: kept("cap"),
        judged: (value, floor, at) => value / alone(at),
        least: 5,
      },
      { axis: "one frame a write, reckoned", target: "", steps: ["fan1000"], value: alone },
    ],
  },
  {
    id: "G7",
    note: "The engine's echo endpoint beside the floor's: the same frames.",
    lines: [perFloor({ step: "echo", axis: "CPU per echo, 1,000 connections, us", target: "<= 1.08 x floor", most: 1.08 })],
  },
  {
    id: "G8",
    note:
      "Processor time while the crowd connects. With a token: HS256, one for each client, and the floor verifies none. The last line has " +
      "the greeting of the engine's protocol too, and no token.",
    lines: [
      {
        axis: "CPU per handshake with a token, us",
        target: "<= 1.2 x floor",
        steps: ["doors", "crowd"],
        value: opening("doors"),
        floor: opening("crowd"),
        judged: ratio,
        most: 1.2,
      },
      perFloor({ step: "crowd", axis: "without a token, us", target: "", value: opening("crowd"), floor: opening("crowd") }),
      { axis: "the same with a greeting", target: "", steps: ["greeted"], value: opening("greeted") },
    ],
  },
  {
    id: "G11",
    note: "Both ends share the machine: when the generator is the slower one the run is void.",
    lines: [
      {
        axis: "storm, until the last of 100,000 is back, s",
        target: "<= 5 s",
        steps: ["storm"],
        value: (at) => latency(at("storm"), "return")?.max_us / 1e6,
        most: 5,
      },
      { axis: "p99 of those who stayed, ms", target: "<= 10 ms", steps: ["storm"], value: (at) => p99("storm", "stayed")(at) / 1000, most: 10 },
    ],
  },
  {
    id: "G12",
    note: "Publications are shared by all who wait for them, so memory is far below the limit of all queues together.",
    lines: [
      { axis: "memory / (limit x stopped readers)", target: "<= 1.05", steps: ["slow"], value: held, most: 1.05 },
      {
        axis: "p99 of who reads, 10 % stopped, us",
        target: "<= 1.1 x none stopped",
        steps: ["slow", "brisk"],
        value: p99("slow", "healthy", "delivery"),
        judged: (value, floor, at) => value / p99("brisk", "healthy", "delivery")(at),
        most: 1.1,
      },
    ],
  },
  {
    id: "G13",
    note:
      "Eight members and a publisher over two shards on two cores, beside one shard: p99 of the delivery with two less that with one. " +
      "The kernel spreads the connections, so about half of the deliveries cross. On a machine of two cores the second shard shares " +
      "the generator's core, which is in the figure. The hop alone: cargo bench --bench mesh.",
    lines: [
      {
        axis: "added p99 of two shards, us",
        target: "<= 100 us",
        steps: ["two", "one"],
        value: (at) => p99("two", "delivery")(at) - p99("one", "delivery")(at),
        most: 100,
      },
      { axis: "p99 with one shard, us", target: "", steps: ["one"], value: p99("one", "delivery") },
    ],
  },
  {
    id: "G15",
    note:
      "Memory as G1's, with TLS 1.3; the kernel's part is the same as without. The rate is told by its cost: processor time per " +
      "delivery without TLS over that with it, in the same round.",
    lines: [
      { axis: "user B per idle TLS connection", target: "<= 6,144", steps: ["secureIdle"], value: memory("secureIdle", "user_bytes_per_connection"), most: 6_144 },
      {
        axis: "CPU per delivery over TLS, 1,000 members, us",
        target: ">= 0.75 x plain rate",
        steps: ["secureFan1000", "fan1000"],
        value: cpu("secureFan1000"),
        judged: (value, floor, at) => cpu("fan1000")(at) / value,
        least: 0.75,
      },
      { axis: "CPU per TLS handshake, us", target: "", steps: ["secureGreeted"], value: opening("secureGreeted") },
    ],
  },
  {
    id: "G16",
    note:
      "Receiving is the server's processor time per delivery over the generator's, closed loop with the server at its limit. It " +
      "certifies itself: void runs do not count and are listed.",
    lines: [
      { axis: "generator, B per client", target: "<= 1,536", steps: ["idle"], value: (at) => at("idle")?.generator.bytes_per_client, most: 1_536 },
      { axis: "receives, one frame a write", ...capacity("single") },
      { axis: "receives, frames gathered", ...capacity("gathered") },
    ],
  },
];

/** Goals that another command measures. */
export const ELSEWHERE = { G9: "make million", G10: "make million" };
