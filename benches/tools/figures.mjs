// Numbers and rows of the tables, so that all of them look alike.

/** A row of a Markdown table. */
export function row(cells) {
  return `| ${cells.join(" | ")} |`;
}

/** The numbers among some values, ascending. */
function known(values) {
  return values.filter((value) => Number.isFinite(value)).sort((a, b) => a - b);
}

/** The median of the numbers among some values; undefined when there are none. */
export function median(values) {
  const sorted = known(values);
  if (sorted.length === 0) return undefined;
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}

/** The median, with the lowest and the highest in brackets when there are several. */
export function spread(values) {
  const sorted = known(values);
  if (sorted.length === 0) return "-";
  const middle = figures(median(sorted));
  return sorted.length === 1 ? middle : `${middle} (${figures(sorted[0])}-${figures(sorted.at(-1))})`;
}

/** Three significant digits, and thousands apart. */
export function figures(value) {
  if (!Number.isFinite(value)) return "-";
  if (value === 0) return "0";
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  const rounded = digits > 0 ? value : Number(value.toPrecision(3));
  const shown = { minimumFractionDigits: Math.min(digits, 3), maximumFractionDigits: Math.min(digits, 3) };
  return rounded.toLocaleString("en-US", shown);
}
