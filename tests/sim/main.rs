//! Whole nodes under one seed: shards, mail and clients over an in-memory network.
//!
//! Everything that happens follows from the seed: which shard turns next, how bytes are cut, what is
//! lost, who stalls, who stops reading, when somebody leaves. After every step the shards' invariants
//! are asserted; at the end the network heals and every living client must have what it was promised.
//! `SEEDS=1000` runs more seeds than the usual 100, `SEED=7` one alone; `cargo test --test sim resumes`
//! looks at those who come back only, and says how often they did. A seed that fails is printed and
//! becomes a test of its own in `named.rs`.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails here has failed")]

#[allow(dead_code, reason = "other tests use more of it")]
#[path = "../support/authority.rs"]
mod authority;
mod client;
mod crowd;
mod damage;
mod malformed;
mod named;
mod presence;
mod rates;
mod resume;
mod revoked;
mod story;
mod tenants;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs every seed; the failing ones are named all together.
fn run_seeds(what: &str, run: impl Fn(u64)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(100),
    };
    assert!(!seeds.is_empty(), "no seeds to run");
    let failed: Vec<u64> =
        seeds.filter(|seed| catch_unwind(AssertUnwindSafe(|| run(*seed))).is_err()).collect();
    assert!(failed.is_empty(), "{what}: SEED={} fails (all: {failed:?})", failed[0]);
}

#[test]
fn every_seed_keeps_its_promises_in_a_rough_network() {
    run_seeds("rough", |seed| story::run(seed, &story::Plan::rough(seed)));
}

#[test]
fn every_seed_keeps_its_promises_though_links_are_reset() {
    run_seeds("hostile", |seed| story::run(seed, &story::Plan::hostile(seed)));
}

#[test]
fn inboxes_of_one_never_deadlock() {
    run_seeds("inboxes of one", |seed| story::run(seed, &story::Plan::tight(seed)));
}

#[test]
fn every_seed_keeps_its_promises_to_secure_clients_too() {
    run_seeds("secure", |seed| story::run(seed, &story::Plan::secure(seed)));
}

#[test]
fn what_observers_know_is_true_in_the_end_in_every_seed() {
    run_seeds("presence", presence::run);
}

#[test]
fn every_seed_holds_users_and_tenants_to_their_numbers_over_all_shards() {
    let seen = std::cell::Cell::new((0, 0, 0));
    run_seeds("tenants", |seed| {
        let (rooms, replaced, refused) = tenants::run(seed);
        let (a, b, c) = seen.get();
        seen.set((a + rooms, b + replaced, c + refused));
    });
    let (rooms, replaced, refused) = seen.get();
    let one = std::env::var("SEED").is_ok();
    assert!(one || rooms * replaced * refused > 0, "no limit was reached: {:?}", seen.get());
}

#[test]
fn every_seed_gives_a_user_one_rate_over_all_shards() {
    let tolls = std::cell::Cell::new(0);
    run_seeds("rates", |seed| tolls.set(tolls.get() + rates::run(seed)));
    assert!(tolls.get() > 0, "no home was told anything");
}

#[test]
fn a_drain_in_the_middle_of_it_all_ends() {
    run_seeds("drain", |seed| story::run(seed, &story::Plan::draining(seed)));
}

/// Runs a plan of [`resume`] for every seed and sums up what happened.
fn run_resumes(what: &str, plan: impl Fn(u64) -> resume::Plan) {
    let sum = std::cell::Cell::new(resume::Sum::default());
    run_seeds(what, |seed| {
        let (mut all, one) = (sum.get(), resume::run(seed, &plan(seed)));
        all.returns += one.returns;
        all.recovered += one.recovered;
        all.resyncs += one.resyncs;
        all.published += one.published;
        sum.set(all);
    });
    println!("{what}: {:?}", sum.get());
    let sum = sum.get();
    assert!(sum.returns > 0 && sum.recovered > 0 && sum.published > 0, "nothing happened: {sum:?}");
}

#[test]
fn resumes_lose_and_repeat_nothing_in_long_lives() {
    run_resumes("long resumes", resume::Plan::long);
}

#[test]
fn resumes_lose_and_repeat_nothing_in_any_order_of_a_few_deeds() {
    run_resumes("short resumes", resume::Plan::short);
}
