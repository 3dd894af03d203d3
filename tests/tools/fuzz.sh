#!/usr/bin/env bash
# Runs fuzz targets one after another: `fuzz.sh SECONDS [TARGET...]`, all of them when none is named. The
# first finding ends the run with cargo-fuzz's own report of how to repeat it. Needs a nightly toolchain,
# for the sanitizer's sake.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
seconds=$1
shift
if (($# == 0)); then
    mapfile -t targets < <(sed -n '/^\[\[bin\]\]/,/^name/ s/^name = "\(.*\)"/\1/p' tests/fuzz/Cargo.toml)
    set -- "${targets[@]}"
fi

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "fuzzing needs a nightly toolchain: rustup toolchain install nightly" >&2
    exit 1
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
    cargo install --locked cargo-fuzz
fi

for target in "$@"; do
    echo "fuzz: $target for $seconds s"
    cargo +nightly fuzz run --fuzz-dir tests/fuzz "$target" -- -max_total_time="$seconds"
done
echo "fuzz: $# targets, $seconds s each, no finding"
