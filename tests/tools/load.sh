#!/usr/bin/env bash
# Every scenario of loadtest/scenarios against an engine, judged by what was counted and never by a time.
#
#   load.sh [--quick] [--url URL] [FLAG...]     FLAGs go to every run of the generator
#
# Without a URL it starts engines of its own, one after another for each driver: what `make run` starts,
# on a free port and with the echo endpoint. An engine at a URL has no echo endpoint unless it was told to,
# and then that scenario is left out with a word. `--quick` is for continuous integration: debug builds, few
# clients, two seconds each. The generator needs io_uring: where the kernel forbids it, all is left out.
# `THRONG_BIN`, `THRONG_LOAD_BIN` and `THRONG_DRIVERS=epoll` narrow a run by hand.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
build=release
url=""
while (($# > 0)); do
    case $1 in
    --quick) build=debug && shift ;;
    --url) url=${2:?--url needs a URL} && shift 2 ;;
    *) break ;;
    esac
done
flags=("$@")
engine=${THRONG_BIN:-target/$build/throng}
generator=${THRONG_LOAD_BIN:-target/$build/throng-load}
drivers=${THRONG_DRIVERS:-epoll,uring}
logs=target/test-logs
mkdir -p "$logs"

# Longest wait for the line that names the address, and for the answer to a request, in seconds.
start_limit=20

passed=0
failed=0

# An interrupted run must not leave its engine behind.
trap 'kill -KILL $(jobs -p) 2>/dev/null || true' EXIT

# What shortens a scenario: a file is made for figures, and counts need less.
shortened() {
    if [[ $build == release ]]; then
        echo "--duration 6 --hold 5"
        return
    fi
    case $1 in
    idle) echo "--clients 300 --hold 1" ;;
    echo) echo "--clients 100 --duration 2" ;;
    rooms | mixed) echo "--clients 200 --rooms 20 --rate 300 --duration 2" ;;
    churn) echo "--clients 100 --rate 50 --stay 0.5 --duration 2" ;;
    storm | deploy) echo "--clients 200 --drop-at 0.5 --return-within 0.5 --duration 2" ;;
    *) echo "--clients 100 --rate 50 --duration 2" ;;
    esac
}

# Prints the status line of an answer to a plain request for the URL.
status_of() {
    local rest=${1#ws://} status=""
    local authority=${rest%%/*}
    (
        exec 3<>"/dev/tcp/${authority%:*}/${authority##*:}"
        printf 'GET /%s HTTP/1.1\r\nHost: %s\r\n\r\n' "${rest#*/}" "$authority" >&3
        read -r -t "$start_limit" status <&3
        echo "$status"
    ) 2>/dev/null
}

# Prints what an outcome says under a name, at its first place.
outcome() { awk -v name="\"$2\":" '$1 == name { sub(/,$/, "", $2); print $2; exit }' "$1"; }

# Runs one scenario at a URL on an engine called $2; the rest are flags. Returns 2 when it cannot run at all.
scenario() {
    local file=$1 on=$2 at=$3 name status=0 word counts="" key
    shift 3
    name=$(basename "$file" .toml)
    local log=$logs/load-$name-$on.log json=$logs/load-$name-$on.json
    rm -f "$json"
    # shellcheck disable=SC2046 # the flags are words
    "$generator" run "$file" --quiet --url "$at" --json "$json" $(shortened "$name") "$@" \
        ${flags[@]+"${flags[@]}"} >"$log" 2>&1 || status=$?
    if ((status == 2)) && grep -q 'io_uring is not available' "$log"; then
        echo "load: LEFT OUT, as the generator cannot run here: io_uring is not available"
        return 2
    fi
    if ((status == 0)); then
        passed=$((passed + 1))
        word=passed
        # Times are in doubt where the machine is shared; counts are not.
        if [[ $(outcome "$json" void) == true ]]; then word="passed (void as a measurement)"; fi
    else
        failed=$((failed + 1))
        word=FAILED
    fi
    if [[ -e $json ]]; then
        for key in expected received dropped_by_policy lost duplicates reordered corrupt; do
            counts+=", $(outcome "$json" "$key") ${key//_/ }"
        done
    fi
    printf '%-7s on %-6s %s: %s\n' "$name" "$on" "$word" "${counts#, }"
    if ((status != 0)); then sed 's/^/    /' "$log"; fi
}

# Runs every scenario on the engine at a URL, or those of `only`; the rest are flags.
scenarios() {
    local on=$1 base=$2 file at
    shift 2
    for file in ${only:-loadtest/scenarios/*.toml}; do
        at=$base
        if [[ $file == */echo.toml ]]; then
            at=${base%/*}/echo
            if [[ $(status_of "$at") == *" 404 "* ]]; then
                echo "echo    on $on LEFT OUT: no endpoint at $at (--set debug.echo_path=/echo gives the engine one)"
                continue
            fi
        fi
        scenario "$file" "$on" "$at" "$@" || return
    done
}

# What engines are told besides, and what the generator is.
sets=()
own_flags=()

# Starts an engine, runs every scenario on it and sees it end in order. What follows the driver is the
# name that this goes by.
drive() {
    local driver=$1 name=${2:-$1} line="" own="" end=0 result=0
    coproc ENGINE {
        exec "$engine" run --set server.listen=127.0.0.1:0 --set debug.echo_path=/echo \
            --set limits.messages_per_second=0 \
            --set "server.driver=$driver" ${sets[@]+"${sets[@]}"} 2>"$logs/load-engine-$name.log"
    }
    # Bash forgets both as soon as the engine has ended.
    local pid=$ENGINE_PID out
    exec {out}<&"${ENGINE[0]}"
    while [[ -z $own ]] && read -r -t "$start_limit" -u "$out" line; do
        if [[ $line =~ wss?://[^[:space:]]+ ]]; then own=${BASH_REMATCH[0]}; fi
    done
    if [[ -n $own ]]; then
        # Known by its number, the engine is not taken for foreign load.
        scenarios "$name" "$own" --pid "$pid" ${own_flags[@]+"${own_flags[@]}"} || result=$?
    fi
    kill -TERM "$pid" 2>/dev/null || true
    wait "$pid" || end=$?
    exec {out}<&-
    if [[ -z $own ]] || ((end != 0)); then
        failed=$((failed + 1))
        echo "the engine on $name FAILED with $end; it said:"
        tail -n 5 "$logs/load-engine-$name.log" | sed 's/^/    /'
    fi
    return "$result"
}

if [[ -n $url ]]; then
    if [[ -n $(status_of "$url") ]]; then
        scenarios given "$url" || true
    else
        failed=1
        echo "nothing answers at $url; without a URL an engine is started"
    fi
else
    for driver in ${drivers//,/ }; do drive "$driver" || break; done
    only="loadtest/scenarios/fanout.toml loadtest/scenarios/churn.toml"
    # Once more with every client known by a token of its own.
    secret=$(printf 'throng%.0s' {1..6})
    sets=(--set auth.mode=token --set "auth.secret=$secret")
    own_flags=(--token-secret "$secret")
    for driver in ${drivers//,/ }; do drive "$driver" "$driver-tokens" || break; done
    # Half of the clients by event streams.
    sets=()
    own_flags=(--streams 0.5)
    drive auto streams || true
    # And over TLS, by an authority that the clients believe.
    ca=$logs/load-ca.pem chain=$logs/load-chain.pem key=$logs/load-key.pem
    curve=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
    openssl req -x509 "${curve[@]}" -days 30 -subj '/CN=an authority' \
        -keyout "$logs/load-ca-key.pem" -out "$ca" 2>"$logs/load-openssl.log"
    openssl req -x509 "${curve[@]}" -days 30 -subj /CN=localhost -CA "$ca" -CAkey "$logs/load-ca-key.pem" \
        -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE \
        -keyout "$key" -out "$chain" 2>>"$logs/load-openssl.log"
    sets=(--set server.listen= --set tls.listen=127.0.0.1:0 --set "certificate=[{chain=\"$chain\", key=\"$key\"}]")
    own_flags=(--ca "$ca")
    for driver in ${drivers//,/ }; do drive "$driver" "$driver-tls" || break; done
fi

echo "load: $passed passed, $failed failed"
((failed == 0))
