// The first of everything: the first byte of an event stream, straight from the engine and through an nginx that was
// told nothing about streams, and a new user's first published message.

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { get } from "node:http";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { ROOT, THRONG, engine, start } from "../tools/servers.mjs";

const NGINX = "/usr/sbin/nginx";
const ROUNDS = 5;
/** The longest wait for a server that was started, in milliseconds. */
const PATIENCE_MS = 10_000;

/** Milliseconds from the request of a stream to the first byte of its body; several times, by each way. */
export async function firstBytes(driver, { cores, out }) {
  const log = join(out, `first-${driver}.log`);
  writeFileSync(log, "");
  const server = await start({ name: driver, command: engine(driver), cores: cores.server, log });
  const proxy = await nginx(server.address);
  try {
    const found = { direct: [], proxied: [] };
    for (let round = 0; round < ROUNDS; round += 1) {
      found.direct.push(await firstByte(server.address));
      found.proxied.push(await firstByte(proxy.address));
    }
    return found;
  } finally {
    await proxy.stop();
    await server.stop();
  }
}

/** Milliseconds from the start of the engine, as README.md has it, until a message that a back end published is heard. */
export async function firstMessage({ cores, out }) {
  const readme = readFileSync(join(ROOT, "README.md"), "utf8");
  const section = /## Publish from a back end\n(.*?)\n## /s.exec(readme)[1];
  const config = /<<'END'\n(.*?) +END\n/s.exec(section)[1].replace("127.0.0.1:8081", "127.0.0.1:0");
  const [, stream] = /curl -N 'http:\/\/127\.0\.0\.1:8080([^']*)'/.exec(section);
  const [, header] = /-H 'Authorization: ([^']*)'/.exec(section);
  const [, body] = /-d '([^']*)'/.exec(section);
  const file = join(out, "first.toml");
  writeFileSync(file, config);
  const log = join(out, "first-message.log");
  writeFileSync(log, "");
  const began = performance.now();
  const command = [THRONG, "run", "--config", file, "--set", "server.listen=127.0.0.1:0"];
  const server = await start({ name: "README.md", command, cores: cores.server, log });
  try {
    const [, admin] = /admin on (http:\/\/\S+)/.exec(server.said);
    const heard = listen(server.address, stream, JSON.parse(body).payload.text);
    await heard.begun;
    const answer = await fetch(`${admin}/v1/publish`, { method: "POST", headers: { authorization: header }, body });
    if (!answer.ok) throw new Error(`publishing was answered with ${answer.status}`);
    await heard.done;
    return performance.now() - began;
  } finally {
    await server.stop();
  }
}

function firstByte(address) {
  return new Promise((done, fail) => {
    const began = performance.now();
    const request = get(`http://${address}/sse?room=first`, (response) => {
      response.once("data", () => {
        request.destroy();
        done(performance.now() - began);
      });
    });
    request.once("error", fail);
  });
}

/** A stream: when it has begun, and when a text was in it. */
function listen(address, target, text) {
  let begin;
  const begun = new Promise((resolve) => (begin = resolve));
  const done = new Promise((resolve, fail) => {
    let heard = "";
    const request = get(`http://${address}${target}`, (response) => {
      response.setEncoding("utf8");
      response.on("data", (piece) => {
        heard += piece;
        if (heard.includes('"ref":"join","ok":true')) begin();
        if (heard.includes(text)) {
          request.destroy();
          resolve();
        }
      });
    });
    request.once("error", fail);
  });
  return { begun, done };
}

/** An nginx whose only word about the engine is where it is. */
async function nginx(upstream) {
  const folder = mkdtempSync(join(tmpdir(), "throng-nginx-"));
  const port = await freePort();
  const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${name};`);
  const site = `server { listen 127.0.0.1:${port}; location / { proxy_pass http://${upstream}; } }`;
  writeFileSync(
    join(folder, "nginx.conf"),
    `daemon off; worker_processes 1; pid nginx.pid; error_log error.log; events {}\nhttp { access_log off; ${paths.join(" ")} ${site} }\n`,
  );
  const child = spawn(NGINX, ["-p", folder, "-c", "nginx.conf", "-e", "error.log"], { stdio: "ignore" });
  const exited = new Promise((done, fail) => {
    child.once("close", done);
    child.once("error", () => fail(new Error(`${NGINX} cannot be started: install the package nginx`)));
  });
  const stop = async () => {
    child.kill("SIGTERM");
    await exited;
    rmSync(folder, { recursive: true });
  };
  const address = `127.0.0.1:${port}`;
  for (const until = performance.now() + PATIENCE_MS; ; ) {
    const status = await Promise.race([exited, fetch(`http://${address}/`).then(({ ok }) => ok, () => false)]);
    if (status === true) return { address, stop };
    if (performance.now() > until || child.exitCode !== null) throw new Error("nginx serves nothing");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function freePort() {
  return new Promise((done) => {
    const probe = createServer();
    probe.listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => done(port));
    });
  });
}
