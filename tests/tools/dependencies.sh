#!/usr/bin/env bash
# Holds the dependencies to deny.toml: licences, sources, banned crates, known holes.
#
#   dependencies.sh
#
# Those of the engine, and those of the packages that are workspaces of their own, each by its lock file as it stands.
# cargo-deny is installed where it is missing. The list of known holes (RustSec) comes from the network.
# Where either cannot be had, what was not checked is said in a line that begins with LEFT OUT, and what can
# be checked still is.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

manifests=(Cargo.toml tests/fuzz/Cargo.toml benches/peers/rust/Cargo.toml)

left_out() { printf 'LEFT OUT: %s\n' "$*"; }

if ! cargo deny --version >/dev/null 2>&1; then
    printf 'installing cargo-deny\n'
    if ! cargo install --locked --quiet cargo-deny; then
        left_out 'cargo-deny cannot be installed here: licences, sources and known holes of the dependencies are unchecked'
        exit 0
    fi
fi

deny() { cargo deny --log-level error --locked "$@"; }

for manifest in "${manifests[@]}"; do
    deny --manifest-path "$manifest" --config "$PWD/deny.toml" check --hide-inclusion-graph bans licenses sources
done

# One list serves all.
if deny fetch db; then
    for manifest in "${manifests[@]}"; do
        deny --offline --manifest-path "$manifest" --config "$PWD/deny.toml" check advisories
    done
else
    left_out 'the list of known holes cannot be fetched here: the dependencies are unchecked against RustSec'
fi
