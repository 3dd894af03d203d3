// A certificate for engines that are measured with TLS, made once by openssl(1) and kept in target/goals-tls.

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";

import { ROOT } from "./servers.mjs";

const FOLDER = join(ROOT, "target/goals-tls");

/** The engine's settings to speak TLS and nothing else, so that the address it names is that of TLS. */
export function secured() {
  const [chain, key] = ["chain.pem", "key.pem"].map((name) => join(FOLDER, name));
  if (!existsSync(chain)) {
    mkdirSync(FOLDER, { recursive: true });
    const made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650", "-subj", "/CN=localhost"];
    const names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
    execFileSync("openssl", ["req", "-x509", ...made, ...names, "-keyout", key, "-out", chain], { stdio: ["ignore", "ignore", "pipe"] });
  }
  return {
    "server.listen": "",
    "tls.listen": "127.0.0.1:0",
    certificate: `[{chain=${JSON.stringify(chain)}, key=${JSON.stringify(key)}}]`,
  };
}
