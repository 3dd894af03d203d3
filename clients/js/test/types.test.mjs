// The declarations: they compile in an application, and say of the module neither more nor less than there is.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";

import * as module from "../throng.js";

const HERE = dirname(fileURLToPath(import.meta.url));
const FLAGS = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom"];

/** The names that a class has in the declarations, those of the events left out. */
function declared(name) {
  const text = readFileSync(join(HERE, "../throng.d.ts"), "utf8");
  const body = new RegExp(`export (?:class|interface) ${name} \\{\\n(.*?)\\n\\}`, "s").exec(text)[1];
  const names = [...body.matchAll(/^ {2}(?:readonly )?(\w+)\s*[(:]/gm)].map(([, found]) => found);
  return [...new Set(names)].filter((found) => found !== "constructor").sort();
}

/** The names that an object and its class really have. */
function present(object) {
  const own = Object.keys(object);
  const methods = Object.getOwnPropertyNames(Object.getPrototypeOf(object));
  return [...own, ...methods].filter((found) => found !== "constructor").sort();
}

describe("the declarations", () => {
  it("compile_in_an_application_and_refuse_what_is_wrong_there", () => {
    const tsc = join(HERE, "../node_modules/typescript/bin/tsc");
    execFileSync(process.execPath, [tsc, ...FLAGS, join(HERE, "example.ts")], { stdio: ["ignore", "inherit", "inherit"] });
  });

  it("name_all_that_there_is_and_nothing_else", () => {
    const client = new module.Throng("ws://example.com/ws");
    assert.deepEqual(declared("Throng"), present(client));
    assert.deepEqual(declared("Room"), present(client.join("lobby")));
    assert.deepEqual(declared("Notifications"), present(client.notifications));
    assert.deepEqual(Object.keys(module).sort(), ["PROTOCOL", "Room", "Throng", "ThrongError", "advice"]);
  });
});
