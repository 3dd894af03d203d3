// The table of the goals, as Markdown. Nothing here runs or measures anything.

import { figures, median, row, spread } from "../tools/figures.mjs";

const DRIVERS = ["epoll", "uring"];

/**
 * One row for each line of each goal: medians with lowest and highest, paired ratios, and whether it is met.
 * `counts` says of a run whether it does.
 */
export function table({ goals, runs, steps, counts }) {
  const head = ["goal", "axis", "target", "floor", "epoll", "io_uring", "ratio, epoll / io_uring", "met, epoll / io_uring", "command"];
  const counted = runs.filter(counts);
  const lines = [row(head), row(head.map((_, column) => (column > 2 && column < 7 ? "---:" : "---")))];
  for (const { id, lines: own } of goals) {
    let before;
    for (const [nth, line] of own.entries()) {
      const made = command(line, steps);
      lines.push(row([nth === 0 ? id : "", ...cells(line, counted), made === before ? "" : made]));
      before = made;
    }
  }
  return lines.join("\n");
}

function cells(line, runs) {
  const rounds = [...new Set(runs.map(({ round }) => round))];
  const floors = rounds.map((round) => line.floor?.(reader(runs, round, "floor")));
  const found = DRIVERS.map((driver) => {
    const values = [];
    const judged = [];
    for (const [nth, round] of rounds.entries()) {
      const at = reader(runs, round, driver);
      values.push(line.value(at));
      judged.push(line.judged ? line.judged(values[nth], floors[nth], at) : values[nth]);
    }
    return { values, judged };
  });
  const ratios = line.judged ? found.map(({ judged }) => figures(median(judged))).join(" / ") : "-";
  const met = line.most === undefined && line.least === undefined ? "" : found.map(({ judged }) => verdict(line, median(judged))).join(" / ");
  const shown = found.map(({ values }) => spread(values));
  return [line.axis, line.target, spread(floors), ...shown, ratios, met];
}

/** Gives the outcome of a step in a round against a server, when it has one. */
function reader(runs, round, variant) {
  return (step) => runs.find((run) => run.step === step && run.round === round && run.variant === variant)?.outcome;
}

function verdict({ most = Infinity, least = -Infinity }, value) {
  if (!Number.isFinite(value)) return "n/a";
  return value <= most && value >= least ? "yes" : "no";
}

/** What the generator ran, without where it went and what it wrote; settings of the engine that were not the usual ones. */
function command({ steps: names }, steps) {
  const lines = names.map((name) => {
    const { args, settings } = steps[name];
    const set = Object.entries(settings ?? {}).map(([key, value]) => `${key}=${value}`);
    return `\`throng-load ${args.join(" ")}\`${set.length > 0 ? ` at ${set.join(", ")}` : ""}`;
  });
  return lines.join("; ");
}
