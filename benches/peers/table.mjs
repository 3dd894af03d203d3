// The table: what the runs gave, as Markdown.
//
// A cell is the median of the runs that count, with the lowest and the highest behind it. A run that the
// generator calls void does not count, nor does one that failed; both are listed under the table with the
// reasons, so that nothing is left out in silence. Nothing here runs or measures anything.

import { counts, reasons } from "../tools/generator.mjs";
import { row, spread } from "../tools/figures.mjs";

/** One line for each figure, one column for each server. */
export function table({ runs, scenarios, peers }) {
  const head = ["scenario", "figure", ...peers.map((peer) => peer.name)];
  const lines = [row(head), row(head.map((_, column) => (column < 2 ? "---" : "---:")))];
  for (const scenario of scenarios) {
    for (const [nth, figure] of scenario.figures.entries()) {
      const cells = peers.map((peer) => {
        const own = runs.filter((run) => run.scenario === scenario.name && run.peer === peer.name);
        return spread(own.filter(counts).map((run) => figure.read(run.outcome)));
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
