// From what was seen of a run with a million connections to its table and its verdicts. Nothing is measured here.

import { figures, median, row } from "../tools/figures.mjs";
import { latency } from "../tools/generator.mjs";
import { before, within } from "./watch.mjs";

/** The goals for a million connections: G9 in seconds and bytes, G10 in microseconds and cores. */
const GOAL = { establish: 40, rss: 256 * 2 ** 20, total: 11e9, turn: 2000, bookkeeping: 0.005 };
/** A second with more pings than this many times an even spread over the interval is a burst. */
const BURST = 3;
/** How far the generator's clock of its phases and the server's log may differ, in milliseconds. */
const SKEW_MS = 20;

/** The Markdown block of a run. */
export function report(made) {
  const seen = account(made);
  const { options, outcome, heartbeat } = made;
  const lines = [
    `${figures(options.clients)} connections, ${options.driver}, ${options.shards} shards on one core, heartbeat every ${heartbeat / 1000} s:`,
    "",
    row(["what", "figure"]),
    row(["---", "---:"]),
    ...table(seen, made).map(row),
    "",
    row(["goal", "what", "limit", "found", "met"]),
    row(["---", "---", "---:", "---:", "---"]),
    ...verdicts(seen, made).map(row),
    "",
    notes(seen, made),
  ];
  const { passed, faults, void: isVoid, doubts } = outcome.verdict;
  lines.push("", `The generator's verdict: ${passed ? "passed" : "FAILED"}${isVoid ? ", but void" : ""}.`);
  lines.push(...[...faults, ...doubts].map((why) => `- ${why}`));
  return lines.join("\n").trimEnd();
}

/** The figures, by their names; those that could not be had are undefined. */
function account({ options, outcome, looks, lines, profile, available, heartbeat }) {
  const span = (name) => spanOf(outcome, name);
  const [began, connected] = span("connect") ?? [looks[0].at, looks[0].at];
  const hold = span("hold");
  const publish = span("publish");
  const steady = publish && [publish[0], Math.min(publish[1], publish[0] + Number(options.duration) * 1000)];
  // The broadcast leaves when the steady room's time is over.
  const broadcast = publish && [steady[1], (span("settle") ?? publish)[1]];
  const full = before(looks, connected + 1000);
  const holding = hold ? within(looks, hold) : [];
  const [first, last] = [holding[0], holding.at(-1)];
  const { memory } = outcome.server ?? {};
  const beats = hold ? pings(within(lines, hold)) : {};
  const even = (options.clients * 1000) / heartbeat;
  return {
    establish: (connected - began) / 1000,
    rss: memory?.rss_anon_connected,
    rssEach: memory?.user_bytes_per_connection,
    slab: memory?.slabs.all,
    generator: full.generator?.rss,
    generatorEach: outcome.generator.bytes_per_client,
    total: available - full.available,
    beats: { ...beats, even },
    holdTurn: hold && longest(during(lines, hold)),
    steadyTurn: steady && longest(during(lines, steady)),
    broadcastTurn: broadcast && longest(during(lines, broadcast, 500)),
    joinTurn: publish && span("join") && longest(during(lines, [span("join")[0], publish[0]])),
    userCores: first && ((last.server.user - first.server.user) * 1000) / (last.at - first.at),
    systemCores: first && ((last.server.system - first.server.system) * 1000) / (last.at - first.at),
    join: duration(span("join")),
    close: duration(span("close")),
    steady: room(outcome, steady),
    last: latency(outcome, "last"),
    profile,
  };
}

/** The wall-clock time of a phase of the run. */
function spanOf({ about, phases }, name) {
  const found = phases.find((phase) => phase.name === name);
  return found && [found.from_s, found.to_s].map((at) => about.started_unix_ms + at * 1000);
}

/**
 * The lines that tell of turns within a span: those written after its beginning, and up to `late` milliseconds
 * after its end. The generator asks right before a phase begins, so that line belongs to what was before.
 */
function during(lines, [from, to], late = 0) {
  return within(lines, [from + SKEW_MS, to + SKEW_MS + late]);
}

function duration(span) {
  return span && (span[1] - span[0]) / 1000;
}

/** The most of what each line says of the turns since the line before it. */
function longest(lines) {
  const timed = lines.filter((line) => line.longest_turn_us !== undefined);
  if (timed.length === 0) return undefined;
  const sum = (name) => timed.reduce((all, line) => all + (line[name] ?? 0), 0);
  return {
    us: Math.max(...timed.map((line) => line.longest_turn_us)),
    turns: sum("turns_timed"),
    over1: sum("turns_over_1ms"),
    over2: sum("turns_over_2ms"),
  };
}

/** Pings sent during some lines: in all, each second on average, and in the fullest second. */
function pings(lines) {
  const rates = [];
  for (const [nth, line] of lines.entries()) {
    const past = lines[nth - 1];
    const seconds = past && (line.at - past.at) / 1000;
    // Lines close together, one asked for by each of two, say nothing of a second.
    if (seconds > 0.5) rates.push(((line.pings_total ?? 0) - (past.pings_total ?? 0)) / seconds);
  }
  if (rates.length === 0) return {};
  const [from, to] = [lines[0], lines.at(-1)];
  const sent = (to.pings_total ?? 0) - (from.pings_total ?? 0);
  return { sent, mean: (sent * 1000) / (to.at - from.at), most: Math.max(...rates) };
}

/** Latencies of the steady room: its own histogram where there is one, else those of each second of it. */
function room(outcome, span) {
  const own = latency(outcome, "side");
  if (own) return { p99: own.p99_us, p999: own.p999_us, how: "over all its deliveries" };
  if (span === undefined) return {};
  const at = ({ at_s: end }) => outcome.about.started_unix_ms + end * 1000;
  const seconds = outcome.series.filter((second) => at(second) > span[0] + 1000 && at(second) <= span[1]);
  const known = seconds.map((second) => second.p99_us).filter(Number.isFinite);
  return { p99: median(known), how: "median of its seconds" };
}

const ms = (us) => (us === undefined ? "-" : `${figures(us / 1000)} ms`);
const seconds = (s) => (s === undefined ? "-" : `${figures(s)} s`);
const mb = (amount) => (Number.isFinite(amount) ? `${figures(amount / 1e6)} MB` : "-");
const each = (amount, clients) => (Number.isFinite(amount) ? `, ${figures(amount / clients)} B each` : "");
const cores = (share) => (Number.isFinite(share) ? `${figures(share * 100)} % of a core` : "-");
const turn = (found) =>
  found ? `${ms(found.us)} of ${figures(found.turns)}, ${found.over1} above 1 ms, ${found.over2} above 2 ms` : "-";

function table(seen, { options, outcome }) {
  const { clients } = options;
  const { beats } = seen;
  const messages = outcome.totals.messages;
  return [
    ["all established after", seconds(seen.establish)],
    ["server, RssAnon", `${mb(seen.rss)}${each(seen.rssEach * clients, clients)}`],
    ["kernel, slabs of both ends", `${mb(seen.slab)}${each(seen.slab, clients)}`],
    ["generator, RssAnon", `${mb(seen.generator)}${each(seen.generatorEach * clients, clients)}`],
    ["all together, by MemAvailable", `${mb(seen.total)}${each(seen.total, clients)}`],
    [`pings in ${options.hold} s of holding`, beats.sent === undefined ? "-" : figures(beats.sent)],
    ["pings a second, mean, most, and spread evenly", beats.sent === undefined ? "-" : `${figures(beats.mean)}, ${figures(beats.most)}, ${figures(beats.even)}`],
    ["server while holding, user and system", `${cores(seen.userCores)}, ${cores(seen.systemCores)}`],
    ["longest turn while holding", turn(seen.holdTurn)],
    [`joining: everybody one room, ${figures(options.side)} another`, `${seconds(seen.join)}; longest turn ${turn(seen.joinTurn)}`],
    [`room of ${figures(options.side)}, ${options.rate} publications/s, while the rest idles, p99`, ms(seen.steady.p99)],
    ["the same, p99.9", ms(seen.steady.p999)],
    ["longest turn meanwhile", turn(seen.steadyTurn)],
    ["one publication to everybody, until the last has it", ms(seen.last?.max_us)],
    ["longest turn meanwhile", turn(seen.broadcastTurn)],
    ["closing, in order", seconds(seen.close)],
    ["deliveries expected, received, lost", `${figures(messages.expected)}, ${figures(messages.received)}, ${messages.lost}`],
  ];
}

function verdicts(seen, { options, outcome }) {
  const { beats, profile } = seen;
  // A hold in which nobody was due for a ping says nothing of heartbeats.
  const beating = beats.sent > 0 ? 1 : NaN;
  const doubtful = outcome.verdict.passed && !outcome.verdict.void ? "" : ", but the run does not count";
  const scale = options.clients / 1e6;
  const judge = (goal, what, limit, found, value, most) => {
    const met = Number.isFinite(value) ? `${value <= most ? "yes" : "no"}${doubtful}` : "n/a";
    return [goal, what, limit, found, met];
  };
  return [
    judge("G9", "established", `${GOAL.establish * scale} s`, seconds(seen.establish), seen.establish, GOAL.establish * scale),
    judge("G9", "server RssAnon", mb(GOAL.rss * scale), mb(seen.rss), seen.rss, GOAL.rss * scale),
    judge("G9", "both ends, all memory", mb(GOAL.total * scale), mb(seen.total), seen.total, GOAL.total * scale),
    judge("G10", "longest turn, thread CPU, holding", ms(GOAL.turn), ms(seen.holdTurn?.us), seen.holdTurn?.us, GOAL.turn),
    judge("G10", "longest turn, thread CPU, steady room", ms(GOAL.turn), ms(seen.steadyTurn?.us), seen.steadyTurn?.us, GOAL.turn),
    judge("G10", "pings, fullest second against an even spread", `${BURST} x`, `${figures(beats.most / beats.even)} x`, (beating * beats.most) / beats.even, BURST),
    judge("G10", "bookkeeping, estimate", cores(GOAL.bookkeeping), cores(profile.bookkeeping), beating * profile.bookkeeping, GOAL.bookkeeping),
  ];
}

function notes({ profile, steady }, { options }) {
  const scaled = options.clients === 1e6 ? "" : " The limits of G9 are scaled by the number of connections.";
  const room = `The p99 of the steady room is taken ${steady.how ?? "from nothing"}.`;
  if (profile.why !== undefined) return `Bookkeeping n/a: ${profile.why}. ${room}${scaled}`;
  const names = profile.names.length > 0 ? `: ${profile.names.join(", ")}` : "";
  return (
    `Bookkeeping: share of perf's samples in the engine's functions that are named after the wheel, heartbeats, time-outs or pings, ` +
    `times the processor time used; an estimate from ${figures(profile.samples)} samples${names}. ` +
    `All of the engine's user space came to ${cores(profile.user)} of ${cores(profile.all)} in all. ${room}${scaled}`
  );
}
