#!/usr/bin/env bash
# Installs what the tests need, runs every suite, and closes with one line of real numbers.
#
#   run-all.sh [STEP...]      all steps without arguments, else the named ones in the given order:
#                             fmt clippy build cargo load api client socketio browser conformance dashboard image
#
# A suite's own summary is what is counted; nothing is counted twice or by guess. A step that ends badly
# without naming a failed test counts as one failure, and so does a suite that ran no test at all, so that
# a broken runner cannot look like success. A failed step does not stop the later ones, except that
# nothing runs without a build. Logs are in target/test-logs.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
logs=target/test-logs
mkdir -p "$logs"

passed=0
failed=0
failures=()

say() { printf '%s\n' "$*"; }

# Puts Debian packages on the machine: needs apt and root, and says what is missing where it has neither.
apt_install() {
    if ! command -v apt-get >/dev/null; then
        say "  $* missing, and there is no apt-get here to install it: please install it by hand"
        return 1
    fi
    local as_root=()
    if [[ $(id -u) != 0 ]]; then
        if ! sudo -n true 2>/dev/null; then
            say "  $* missing: run 'sudo apt-get install $*' and start again"
            return 1
        fi
        as_root=(sudo -n)
    fi
    "${as_root[@]}" apt-get update -q && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "$@"
}

need_node() {
    if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
        apt_install nodejs npm || return 1
    fi
    if ! node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)'; then
        say "  Node.js 20 or later is needed, here is $(node --version)"
        return 1
    fi
}

find_chromium() {
    local candidate
    for candidate in "${CHROMIUM:-}" chromium chromium-browser google-chrome; do
        if [[ -n $candidate ]] && command -v "$candidate"; then return; fi
    done
    return 1
}

need_browser() {
    need_node || return 1
    if ! find_chromium >/dev/null; then apt_install chromium || return 1; fi
    local installed=tests/browser/node_modules/.package-lock.json
    if [[ ! -e $installed || tests/browser/package-lock.json -nt $installed ]]; then
        npm ci --prefix tests/browser --no-audit --no-fund || return 1
    fi
}

# Each step prints to its log only. `count_*` reads the log and prints "passed failed".

step_fmt() { cargo fmt --all --check; }
step_clippy() { cargo clippy --workspace --all-targets -- -D warnings; }
step_build() { cargo build --workspace; }
# What some tests of the cargo step drive; each says so and is left out where its program is missing.
need_peers() {
    local program missing=()
    for program in prometheus nginx haproxy redis-server; do
        if ! PATH=$PATH:/usr/sbin command -v "$program" >/dev/null; then missing+=("$program"); fi
    done
    ((${#missing[@]} == 0)) || apt_install "${missing[@]}" || true
}
# The unit tests are built without the optimisation that the simulator and the integration tests are worth: it would take
# longer to have than it saves. Some integration tests mostly wait, so three run on two cores.
step_cargo() {
    local status=0 threads=$(($(nproc) * 3 / 2))
    need_peers
    timeout 1200 cargo test --workspace --lib --no-fail-fast --config profile.dev.package.throng.opt-level=0 || status=1
    timeout 2400 cargo test --workspace --bins --test '*' --no-fail-fast -- --test-threads "$threads" || status=1
    return "$status"
}
count_cargo() {
    awk '/^test result:/ { for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) p += $(i-1); if ($i ~ /^failed/) f += $(i-1) } }
        # A binary that a signal ended says nothing of its tests.
        /process didn.t exit successfully: .*signal:/ { f++ }
        END { print p + 0, f + 0 }' "$1"
}
step_load() { timeout 600 tests/tools/load.sh --quick; }
count_load() {
    awk '/^load: [0-9]+ passed, [0-9]+ failed$/ { p = $2; f = $4 } END { print p + 0, f + 0 }' "$1"
}
need_python() {
    if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then apt_install python3-venv || true; fi
}
step_api() { need_node && need_python && timeout 900 node tests/api/run.mjs; }
count_api() {
    awk '/^api: [0-9]+ passed, [0-9]+ failed$/ { p = $2; f = $4 } END { print p + 0, f + 0 }' "$1"
}
need_client() {
    need_node || return 1
    local installed=clients/js/node_modules/.package-lock.json
    if [[ ! -e $installed || clients/js/package-lock.json -nt $installed ]]; then
        npm ci --prefix clients/js --no-audit --no-fund || return 1
    fi
}
# The flags are for Node.js 20, which has both and does not show them.
step_client() {
    need_client || return 1
    timeout 900 node --experimental-websocket --experimental-eventsource --no-warnings --test --test-concurrency=1 \
        --test-reporter=tap clients/js/test/{unit,engine,types}.test.mjs
}
count_client() { count_browser "$1"; }
step_socketio() {
    need_node && need_peers || return 1
    local installed=tests/socketio/node_modules/.package-lock.json
    if [[ ! -e $installed || tests/socketio/package-lock.json -nt $installed ]]; then
        npm ci --prefix tests/socketio --no-audit --no-fund || return 1
    fi
    timeout 900 node --test --test-concurrency=1 --test-reporter=tap tests/socketio/run.mjs tests/socketio/emitter.mjs
}
count_socketio() { count_browser "$1"; }
step_browser() {
    need_browser || return 1
    CHROMIUM=$(find_chromium) timeout 900 node --test --test-concurrency=1 --test-reporter=tap tests/browser/{run,lid,client,stream}.mjs
}
count_browser() {
    # Tests cancelled because something before them broke have failed too.
    awk '$1 == "#" && $2 == "pass" { p = $3 } $1 == "#" && ($2 == "fail" || $2 == "cancelled") { f += $3 }
        END { print p + 0, f + 0 }' "$1"
}
step_conformance() { need_node && timeout 900 node tests/conformance/run.mjs; }
count_conformance() {
    awk '/^conformance: [0-9]+ passed, [0-9]+ failed$/ { p = $2; f = $4 } END { print p + 0, f + 0 }' "$1"
}

step_dashboard() {
    need_node || return 1
    local installed=tests/dashboard/node_modules/.package-lock.json
    if [[ ! -e $installed || tests/dashboard/package-lock.json -nt $installed ]]; then
        npm ci --prefix tests/dashboard --no-audit --no-fund || return 1
    fi
    timeout 300 node --test --test-concurrency=1 --test-reporter=tap tests/dashboard/run.mjs
}
count_dashboard() { count_browser "$1"; }

step_image() { need_python && timeout 300 tests/deploy/lint.sh; }
count_image() {
    awk '/^image: [0-9]+ passed, [0-9]+ failed$/ { p = $2; f = $4 } END { print p + 0, f + 0 }' "$1"
}

# Runs a step that is a gate (no tests of its own) or a suite (with a counter); adds to the sums.
run_step() {
    local name=$1 log=$logs/$1.log began=$SECONDS status=0 p=0 f=0
    printf '%-12s ' "$name"
    "step_$name" >"$log" 2>&1 || status=$?
    if declare -F "count_$name" >/dev/null; then
        read -r p f < <("count_$name" "$log")
        if ((status == 0 && p == 0 && f == 0)) && ! grep -q 'LEFT OUT' "$log"; then
            say "  the $name suite ran no test" >>"$log"
            status=1
        fi
    fi
    if ((status != 0 && f == 0)); then f=1; fi
    passed=$((passed + p))
    failed=$((failed + f))
    if ((f == 0)); then
        printf 'ok      %5d s' $((SECONDS - began))
        if ((p > 0)); then printf '  %d passed' "$p"; fi
        printf '\n'
        grep 'LEFT OUT' "$log" | sed 's/^/  /' || true
        return 0
    fi
    printf 'FAILED  %5d s  %d passed, %d failed; the end of %s:\n' $((SECONDS - began)) "$p" "$f" "$log"
    show_failure "$name" "$log"
    failures+=("$name")
    return 1
}

show_failure() {
    case $1 in
    cargo) grep -E -A 1 '^(test .* FAILED|error|thread .* panicked)' "$2" | head -n 80 || true ;;
    client | socketio | browser | dashboard) grep -E '^ *not ok|^ *error:' "$2" | head -n 40 || true ;;
    esac
    tail -n 25 "$2" | sed 's/^/    /'
}

steps=("$@")
if ((${#steps[@]} == 0)); then steps=(fmt clippy build cargo load api client socketio browser conformance dashboard image); fi

for step in "${steps[@]}"; do
    if ! declare -F "step_$step" >/dev/null; then
        say "no such step: $step (there are fmt clippy build cargo load api client socketio browser conformance dashboard image)" >&2
        exit 2
    fi
done

for step in "${steps[@]}"; do
    if ! run_step "$step" && [[ $step == build ]]; then
        say "nothing more can run without a build"
        break
    fi
done

if ((${#failures[@]} > 0)); then say "failed: ${failures[*]}"; fi
say "$passed passed, $failed failed"
((failed == 0))
