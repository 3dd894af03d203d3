// The table: what the runs gave, as Markdown.
//
// A cell is the median of the runs that count, with the lowest and the highest behind it. A run that the
// generator calls void does not count, nor does one that failed; both are listed under the table with the
// reasons, so that nothing is left out in silence. Nothing here runs or measures anything.

/** One line for each figure, one column for each server. */
export function table({ runs, scenarios, peers }) {
  const head = ["scenario", "figure", ...peers.map((peer) => peer.name)];
  const lines = [row(head), row(head.map((_, column) => (column < 2 ? "---" : "---:")))];
  for (const scenario of scenarios) {
    for (const [nth, figure] of scenario.figures.entries()) {
      const cells = peers.map((peer) => {
        const own = runs.filter((run) => run.scenario === scenario.name && run.peer === peer.name);
        return cell(own.filter(counts).map((run) => figure.read(run.outcome)));
      });
      lines.push(row([nth === 0 ? scenario.title : "", figure.what, ...cells]));
    }
  }
  return lines.join("\n");
}

/** The runs that do not count, each with the reasons. */
export function exceptions(runs) {
  return runs.filter((run) => !counts(run)).map((run) => {
    const kind = run.outcome?.verdict.passed ? "void" : "failed";
    return `- ${kind}: ${run.scenario}, ${run.peer}, round ${run.round}: ${reasons(run)}`;
  });
}

export function counts({ outcome }) {
  return outcome !== undefined && outcome.verdict.passed && !outcome.verdict.void;
}

/** Why a run does not count. */
export function reasons({ outcome, failure }) {
  if (outcome === undefined) return failure;
  return [...outcome.verdict.faults, ...outcome.verdict.doubts].join("; ");
}

function row(cells) {
  return `| ${cells.join(" | ")} |`;
}

function cell(values) {
  const known = values.filter((value) => typeof value === "number").sort((a, b) => a - b);
  if (known.length === 0) return "-";
  const [lowest, highest] = [known[0], known.at(-1)];
  const median = (known[(known.length - 1) >> 1] + known[known.length >> 1]) / 2;
  if (known.length === 1) return figures(median);
  return `${figures(median)} (${figures(lowest)}-${figures(highest)})`;
}

/** Three significant digits, and thousands apart. */
function figures(value) {
  if (value === 0) return "0";
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  const rounded = digits > 0 ? value : Number(value.toPrecision(3));
  const shown = { minimumFractionDigits: Math.min(digits, 3), maximumFractionDigits: Math.min(digits, 3) };
  return rounded.toLocaleString("en-US", shown);
}
