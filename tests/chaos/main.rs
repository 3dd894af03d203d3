//! Nodes and Redis are killed and paused at random under load, and then everything is counted. Rows O1, O2 and O4.
//!
//! Three `throng` processes share a Redis; twelve clients publish to rooms that share their history and to rooms
//! that do not, and come back to any node when they lose theirs. `CHAOS_SECONDS` says for how long they are
//! disturbed, `CHAOS_SEED` by which plan; both are printed. In the end what the clients saw must be what was
//! acknowledged: in rooms with a shared history each publication exactly once, under one number, in one order for
//! all; one without an acknowledgement at most once; in the others each at most once, and every loss told by a gap.
//! And those are online who are connected.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails here has failed")]

mod client;
mod ledger;
mod machines;
mod stage;
#[path = "../it/support.rs"]
#[expect(dead_code, unused_macros, unused_imports, reason = "the other tests need more of it")]
mod support;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fastrand::Rng;
use serde_json::{Value, json};

use client::Client;
use ledger::judge;
use machines::{Cluster, NODES};
use stage::{CLIENTS, Curtain, LEAVING, PLAIN, SHARED, Stage, act, clock, pass};

pub(crate) const SECRET: &str = "a secret of no less than 32 byte";

/// How long it is disturbed where nothing else is said, in seconds.
const SECONDS: u64 = 10;
/// How long a cluster that nobody disturbs any more may take to be as it should.
const PATIENCE: Duration = Duration::from_secs(60);

/// A token of these claims.
pub(crate) fn token(claims: &Value) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let message = format!("{}.{}", part(r#"{"alg":"HS256"}"#), part(&claims.to_string()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn number(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} = {text}: expected a number")),
        Err(_) => otherwise,
    }
}

/// What is still to be undone: when, of which machine.
type Undoing = Vec<(Instant, usize)>;

/// Does something to somebody; what it was.
fn disturb(cluster: &mut Cluster, stage: &Stage, rng: &mut Rng, undoing: &mut Undoing) -> String {
    let victim = rng.usize(..cluster.machines.len());
    let until = clock() + Duration::from_millis(rng.u64(..2000));
    let dice = rng.u8(..10);
    let machine = &mut cluster.machines[victim];
    let is_well = machine.is_running() && !machine.is_paused();
    match dice {
        0..5 if is_well => {
            machine.kill();
            undoing.push((until, victim));
            format!("killed {}", machine.name)
        }
        5..7 if is_well => {
            machine.pause(true);
            undoing.push((until, victim));
            format!("paused {}", machine.name)
        }
        7 => {
            let done = cluster.redis(&["CLIENT", "KILL", "TYPE", "pubsub"]);
            format!("killed subscriptions: {done:?}")
        }
        8 => {
            let chased = rng.usize(..CLIENTS);
            stage.places[chased].is_chased.store(true, Ordering::Release);
            format!("chased client {chased}")
        }
        9 => {
            let done = cluster.redis(&["SCRIPT", "FLUSH", "SYNC"]);
            format!("flushed the scripts: {done:?}")
        }
        _ => "nothing".to_owned(),
    }
}

fn undo(cluster: &mut Cluster, undoing: &mut Undoing) {
    let now = clock();
    for (_, victim) in undoing.extract_if(.., |(due, _)| *due <= now) {
        let machine = &mut cluster.machines[victim];
        if machine.is_paused() {
            machine.pause(false);
        } else if !machine.is_running() {
            machine.start();
        }
    }
    for at in 0..cluster.machines.len() {
        assert!(!cluster.machines[at].has_failed(), "{}", cluster.machines[at].last_words());
    }
}

/// Disturbs the cluster for so long; how often.
fn storm(cluster: &mut Cluster, stage: &Stage, rng: &mut Rng, length: Duration) -> usize {
    let (begin, mut undoing, mut times) = (clock(), Undoing::new(), 0);
    let mut next = begin;
    while clock() - begin < length {
        if clock() >= next {
            let what = disturb(cluster, stage, rng, &mut undoing);
            println!("chaos: {:7.2} s: {what}", (clock() - begin).as_secs_f64());
            times += usize::from(what != "nothing");
            next = clock() + Duration::from_millis(rng.u64(50..1500));
        }
        undo(cluster, &mut undoing);
        pass(Duration::from_millis(20));
    }
    cluster.mend();
    times
}

/// Waits until something holds in a cluster that nobody disturbs.
fn wait(what: &str, cluster: &Cluster, mut holds: impl FnMut() -> bool) {
    let begin = clock();
    while !holds() {
        assert!(clock() - begin < PATIENCE, "in vain: {what}\n{}", cluster.last_words());
        pass(Duration::from_millis(20));
    }
}

/// Waits until everybody has everything.
fn settle(cluster: &Cluster, stage: &Stage) {
    stage.play(act::SETTLE);
    wait("every node is ready and linked", cluster, || cluster.is_whole());
    let is_settled = |place: &stage::Place| place.is_settled.load(Ordering::Acquire);
    wait("every client is settled", cluster, || stage.all(is_settled));
    for (room, name) in SHARED.iter().enumerate() {
        let key = format!("throng:place:room:{name}");
        let newest = match cluster.redis(&["HGET", &key, "n"]) {
            Some(redis::Value::BulkString(digits)) => String::from_utf8(digits).unwrap(),
            other => panic!("{name} has no place: {other:?}"),
        };
        let newest: u64 = newest.parse().unwrap();
        let has = |place: &stage::Place| place.offsets[room].load(Ordering::Acquire) >= newest;
        let where_are =
            || stage.places.each_ref().map(|place| place.offsets[room].load(Ordering::Acquire));
        let begin = clock();
        wait(&format!("everybody has {name} up to {newest}"), cluster, || {
            assert!(clock() - begin < PATIENCE / 2, "{name}: {newest} {:?}", where_are());
            stage.all(has)
        });
    }
    let node_of = |place: &stage::Place| place.node.load(Ordering::Acquire);
    let nodes: std::collections::BTreeSet<usize> = stage.places.iter().map(node_of).collect();
    for name in PLAIN {
        let channel = format!("throng:room:{name}");
        wait("subscriptions are made", cluster, || {
            match cluster.redis(&["PUBSUB", "NUMSUB", &channel]) {
                Some(redis::Value::Array(pair)) => {
                    pair[1] == redis::Value::Int(nodes.len().try_into().unwrap())
                }
                _ => false,
            }
        });
    }
    stage.play(act::CLOSE);
    let has_all =
        |place: &stage::Place| place.closings.load(Ordering::Acquire) == CLIENTS * PLAIN.len();
    wait("everybody has everybody's last words", cluster, || stage.all(has_all));
}

/// Waits until those are online who are connected: by the node where they are, and by no node who has left.
fn wait_for_presence(cluster: &Cluster, stage: &Stage) {
    stage.play(act::LEAVE);
    let query: Vec<String> = (0..CLIENTS).map(|client| format!("user=u{client}")).collect();
    let path = format!("/v1/presence/users?{}", query.join("&"));
    let is_exact = |node: usize| {
        let Some(answer) = cluster.ask(node, &path) else { return false };
        (0..CLIENTS).all(|client| {
            let state = &answer["users"][client]["state"];
            assert_eq!(answer["users"][client]["user"], json!(format!("u{client}")), "{answer}");
            let has_left = client >= CLIENTS - LEAVING;
            let is_here = stage.places[client].node.load(Ordering::Acquire) == node;
            if has_left { state == "offline" } else { !is_here || state == "online" }
        })
    };
    wait("presence is exact", cluster, || (0..NODES).all(is_exact));
}

#[test]
fn nothing_is_lost_or_repeated_however_nodes_and_redis_are_killed() {
    let seed = number("CHAOS_SEED", fastrand::u64(..));
    let length = Duration::from_secs(number("CHAOS_SECONDS", SECONDS));
    println!("chaos: CHAOS_SEED={seed} CHAOS_SECONDS={}", length.as_secs());
    let secret = format!("auth.secret={SECRET:?}");
    let key = format!(r#"key=[{{name="test", secret="{SECRET}", scopes=["inspect"]}}]"#);
    let namespace = r#"namespace=[{pattern="*", overflow="disconnect", history_count=1000000, history_bytes=1073741824, history_age_ms=86400000, idempotency_window_ms=600000}]"#;
    let mut cluster = Cluster::start(&[
        "server.shards=2",
        "server.pin=false",
        "limits.messages_per_second=0",
        "auth.mode=token",
        &secret,
        "auth.require_expiry=false",
        &key,
        namespace,
        r#"bridge.shared_rooms=["shared:*"]"#,
        "bridge.canary_interval_ms=200",
        "bridge.command_timeout_ms=1000",
        "bridge.linger_ms=500",
    ]);
    wait("every node is ready and linked", &cluster, || cluster.is_whole());
    let stage = Stage::new(cluster.doors);
    let ledgers = std::thread::scope(|scope| {
        let curtain = Curtain(&stage);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let client = Client::new(number, &stage, seed);
                scope.spawn(move || client.live())
            })
            .collect();
        let is_settled = |place: &stage::Place| place.is_settled.load(Ordering::Acquire);
        wait("every client has joined", &cluster, || stage.all(is_settled));
        stage.play(act::STORM);
        let times = storm(&mut cluster, &stage, &mut Rng::with_seed(seed), length);
        println!("chaos: {times} disturbances");
        settle(&cluster, &stage);
        wait_for_presence(&cluster, &stage);
        drop(curtain);
        clients.into_iter().map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    let (sum, troubles) = judge(&ledgers);
    println!("chaos: {sum:?}");
    assert!(sum.acknowledged > 0 && sum.words > 0, "nothing was tried: {sum:?}");
    assert!(
        troubles.is_empty(),
        "seed {seed}: {} troubles:\n{}\n{}",
        troubles.len(),
        troubles.join("\n"),
        cluster.last_words()
    );
}
