# Every entry is one command; what is more than that lives in tests/tools.

.DEFAULT_GOAL := help
.PHONY: help run test check bench peers fuzz sim chaos scale bridge doc conformance client socketio browser dashboard api load goals million edges clean

# Arguments for `make run`, such as ARGS="--set server.shards=4", and for each run of `make load`, such as
# ARGS="--duration 3".
ARGS ?=
# Arguments for `make peers`, such as PEERS_ARGS="--quick --only throng-epoll,bun --scenario echo".
PEERS_ARGS ?=
# Arguments for `make goals`, such as GOALS_ARGS="--only G4,G7 --rounds 3".
GOALS_ARGS ?=
# Arguments for `make million`, such as MILLION_ARGS="--clients 100000 --driver uring".
MILLION_ARGS ?=
# Arguments for `make edges`, such as EDGES_ARGS="--only publish --driver epoll".
EDGES_ARGS ?=
# Arguments for `make bridge`, such as BRIDGE_ARGS="--only redis --seconds 2".
BRIDGE_ARGS ?=
# Seconds for each fuzz target, and which: all there are unless named here.
SECONDS_EACH ?= 120
TARGETS ?=
# Seeds of the simulator: how many to run from the first, and which of its stories: all there are unless named
# here. `make sim SEEDS=8000 ONLY=resumes_lose_and_repeat_nothing_in_long` is a million returns of clients.
SEEDS ?= 1000
ONLY ?=
# How long nodes and Redis are killed by `make chaos`, in seconds, and by which plan: another one each time
# unless named here.
CHAOS_SECONDS ?= 600
CHAOS_SEED ?=
# The engine that `make load` is to meet, such as URL=ws://127.0.0.1:8080/ws; without one it starts its own.
URL ?=

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Build for speed and serve on 127.0.0.1:8080, no configuration needed
	cargo run --release --bin throng -- run $(ARGS)

test: ## Install what the tests need and run every one of them
	tests/tools/run-all.sh

check: ## Format, lints, types, and what dependencies may be, without running anything
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo check --locked --manifest-path tests/fuzz/Cargo.toml
	tests/tools/dependencies.sh

bench: ## Run the benches
	cargo bench

peers: ## The same scenarios against the engine and other servers, interleaved, as one table
	benches/peers/peers.sh $(PEERS_ARGS)

goals: ## Measure the goals that figures decide, beside the floor and interleaved, as one table
	cargo build --release --workspace
	node benches/goals/goals.mjs $(GOALS_ARGS)

million: ## A million connections on this machine, both ends: time, memory, heartbeats, a broadcast
	cargo build --release --workspace
	node benches/goals/million.mjs $(MILLION_ARGS)

edges: ## What back ends that publish, large rooms and event streams cost, against their limits
	cargo build --release --workspace
	node benches/edges/edges.mjs $(EDGES_ARGS)

fuzz: ## Fuzz each target for SECONDS_EACH seconds
	tests/tools/fuzz.sh $(SECONDS_EACH) $(TARGETS)

sim: ## Run whole nodes in the simulator under SEEDS seeds
	SEEDS=$(SEEDS) cargo test --release --test sim $(ONLY) -- --nocapture

chaos: ## Kill nodes and Redis at random under load for CHAOS_SECONDS, and count every delivery
	CHAOS_SECONDS=$(CHAOS_SECONDS) $(if $(CHAOS_SEED),CHAOS_SEED=$(CHAOS_SEED)) cargo test --test chaos -- --nocapture

scale: ## What many nodes do to Redis: the formula, and fifty nodes before one that counts
	cargo test --lib bridge::scale -- --nocapture

bridge: ## Measure what publications cost Redis and the nodes that share it
	cargo build --release --bin throng
	node benches/bridge/bridge.mjs $(BRIDGE_ARGS)

doc: ## Build the documentation of the code
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --workspace --no-deps --document-private-items

conformance: ## Autobahn's cases against the echo endpoint, on every driver
	tests/tools/run-all.sh build conformance

api: ## What the admin listener's OpenAPI document says, asked of a running node, on every driver
	tests/tools/run-all.sh build api

client: ## The JavaScript client against real engines, on every driver
	tests/tools/run-all.sh build client

socketio: ## The library of Socket.IO against real engines, on every driver
	tests/tools/run-all.sh build socketio

dashboard: ## The Grafana dashboard against the schema that Grafana publishes
	tests/tools/run-all.sh dashboard

browser: ## The demo page and the client in headless Chromium, on every driver
	tests/tools/run-all.sh build browser

load: ## Every scenario of the load generator, in short, and count every delivery
	cargo build --release --bin throng
	cargo build --release --package loadtest
	tests/tools/load.sh $(if $(URL),--url $(URL)) $(ARGS)

clean: ## Remove what was built and what the tests left
	cargo clean
	rm -rf benches/peers/node_modules clients/js/node_modules tests/dashboard/node_modules tests/socketio/node_modules tests/browser/node_modules tests/browser/out tests/conformance/out
