#!/usr/bin/env bash
# The load generator's smoke run against a real engine with two shards, on every driver.
#
# The engine is given port 0 and says where it serves; nothing else is waited for. A driver has passed when
# the generator found no loss, duplicate or reordering and the engine then ended in order. The generator
# itself needs io_uring: where the kernel forbids it, that is said and the suite is left out.
# `THRONG_BIN`, `THRONG_LOAD_BIN` and `THRONG_DRIVERS=epoll` narrow a run by hand.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
engine=${THRONG_BIN:-target/debug/throng}
generator=${THRONG_LOAD_BIN:-target/debug/throng-load}
drivers=${THRONG_DRIVERS:-epoll,uring}
logs=target/test-logs
mkdir -p "$logs"

# Longest wait for the line that names the address, in seconds.
start_limit=20

passed=0
failed=0

# An interrupted run must not leave its engine behind.
trap 'kill -KILL $(jobs -p) 2>/dev/null || true' EXIT

run() {
    local driver=$1 line="" url="" load=0 end=0
    coproc ENGINE {
        exec "$engine" run --set server.listen=127.0.0.1:0 --set server.shards=2 \
            --set "server.driver=$driver" 2>"$logs/smoke-engine-$driver.log"
    }
    # Bash forgets both as soon as the engine has ended.
    local pid=$ENGINE_PID out
    exec {out}<&"${ENGINE[0]}"
    while [[ -z $url ]] && read -r -t "$start_limit" -u "$out" line; do
        if [[ $line =~ ws://[^[:space:]]+ ]]; then url=${BASH_REMATCH[0]}; fi
    done
    if [[ -n $url ]]; then
        "$generator" smoke --url "$url" --clients 100 --messages 100 --timeout-ms 120000 \
            >"$logs/smoke-load-$driver.log" 2>&1 || load=$?
        cat "$logs/smoke-load-$driver.log"
    else
        echo "the engine named no address; it said:"
        tail -n 5 "$logs/smoke-engine-$driver.log"
        load=1
    fi
    kill -TERM "$pid" 2>/dev/null || true
    wait "$pid" || end=$?
    exec {out}<&-
    if ((load == 2)) && grep -q 'io_uring is not available' "$logs/smoke-load-$driver.log"; then
        echo "smoke on $driver: LEFT OUT, as the generator cannot run here"
    elif ((load == 0 && end == 0)); then
        passed=$((passed + 1))
        echo "smoke on $driver: passed"
    else
        failed=$((failed + 1))
        echo "smoke on $driver: FAILED (generator $load, engine $end)"
    fi
}

for driver in ${drivers//,/ }; do run "$driver"; done

echo "smoke: $passed passed, $failed failed"
((failed == 0))
