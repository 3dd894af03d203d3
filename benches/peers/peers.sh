#!/usr/bin/env bash
# Installs and builds the peers and the engine, checks that every peer does the work, and measures.
#
#   peers.sh [ARGUMENTS...]      arguments of run.mjs
#
# Versions are those of the lock files. Needs Node.js 20 or later, npm, and taskset of util-linux.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

npm ci --prefix benches/peers
cargo build --release --locked --manifest-path benches/peers/rust/Cargo.toml --target-dir target/peers/build
cargo build --release --workspace
node benches/peers/check.mjs
node benches/peers/run.mjs "$@"
