// The dashboard is one that Grafana reads without edits: it fits the types that Grafana publishes of its dashboards and
// panels, and names no data source and no variable that it does not bring. Whether its queries have data is tested with
// a Prometheus (tests/it/metrics.rs).

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, describe, it } from "node:test";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
const TSC = join(HERE, "node_modules/typescript/bin/tsc");
const FLAGS = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom", "--skipLibCheck"];
const FILE = join(HERE, "../../docs/grafana/throng.json");

const read = () => JSON.parse(readFileSync(FILE, "utf8"));

// Beside the installed schema, where the compiler finds it.
const scratch = mkdtempSync(join(HERE, "node_modules/.dashboard-"));
after(() => rmSync(scratch, { recursive: true }));

/** The panels that show something; rows only stand between them. */
const shown = (dashboard) => dashboard.panels.filter(({ type }) => type !== "row");

/** A type as JSON has it: the words of an enumeration stand for its members. */
const PLAIN = "type Plain<T> = T extends string ? `${T}` : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;";

/** The dashboard as a module, each of its panels once more as one of its own kind. */
function source(dashboard) {
  const kinds = [...new Set(shown(dashboard).map(({ type }) => type))];
  const lines = ['import type { Dashboard } from "@grafana/schema";', PLAIN];
  for (const kind of kinds) {
    const path = `../@grafana/schema/dist/types/raw/composable/${kind}/panelcfg/x/types.gen.d.ts`;
    lines.push(`import type { Options as ${kind} } from "${path}";`);
  }
  const { title, uid, tags, editable, schemaVersion, version, refresh, time, timezone, templating, annotations, panels, ...rest } = dashboard;
  assert.deepEqual(Object.keys(rest), [], "what the check below would pass over");
  const whole = { title, uid, tags, editable, schemaVersion, version, refresh, time, timezone, templating, annotations, panels };
  lines.push(`export const dashboard: Plain<Dashboard> = ${JSON.stringify(whole)};`);
  shown(dashboard).forEach(({ type, options }, at) => {
    lines.push(`export const panel${at}: Plain<Partial<${type}>> = ${JSON.stringify(options ?? {})};`);
  });
  return lines.join("\n");
}

/** What the compiler says of it; nothing when it fits. */
function complaints(dashboard, name) {
  const file = join(scratch, `${name}.mts`);
  writeFileSync(file, source(dashboard));
  try {
    execFileSync(process.execPath, [TSC, ...FLAGS, file], { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
    return "";
  } catch (error) {
    return error.stdout;
  }
}

describe("the dashboard", () => {
  it("fits_the_schema_of_grafana", () => {
    assert.equal(complaints(read(), "own"), "");
  });

  it("would_not_with_a_field_or_an_option_that_grafana_does_not_know", () => {
    const field = read();
    shown(field)[0].colour = "red";
    assert.match(complaints(field, "field"), /'"?colour"?' does not exist/);
    const option = read();
    shown(option)[0].options.legend.placement = "left";
    assert.match(complaints(option, "option"), /"left"' is not assignable/);
  });

  it("brings_every_variable_that_it_uses_and_asks_for_nothing_when_it_is_loaded", () => {
    const dashboard = read();
    assert.equal("__inputs" in dashboard, false, "a dashboard with inputs cannot be provisioned from a file");
    const own = new Set(dashboard.templating.list.map(({ name }) => name));
    const used = readFileSync(FILE, "utf8").match(/\$(?:\{\w+|\w+)/g).map((name) => name.replace(/\W/g, ""));
    const unknown = [...new Set(used)].filter((name) => !own.has(name) && !name.startsWith("__"));
    assert.deepEqual(unknown, []);
    for (const { datasource, targets, title } of shown(dashboard)) {
      for (const asked of [datasource, ...targets.map((target) => target.datasource)]) {
        assert.deepEqual(asked, { type: "prometheus", uid: "${DS_PROMETHEUS}" }, title);
      }
    }
  });

  it("has_panels_that_do_not_cover_each_other_each_with_an_id_of_its_own", () => {
    const { panels } = read();
    assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
    const cells = new Map();
    for (const { id, gridPos: { x, y, w, h } } of panels) {
      assert.ok(x >= 0 && x + w <= 24, `panel ${id} lies within the 24 columns`);
      for (let column = x; column < x + w; column += 1) {
        for (let row = y; row < y + h; row += 1) {
          const cell = `${column} ${row}`;
          assert.equal(cells.get(cell), undefined, `panels ${cells.get(cell)} and ${id}`);
          cells.set(cell, id);
        }
      }
    }
  });
});
