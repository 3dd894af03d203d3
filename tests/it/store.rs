//! What is kept in a file: it survives ends of every kind, and a disk that fails harms nobody else.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};
use throng::sys::clock::unix_millis;

use crate::admin::{ask, with_admin};
use crate::auth::{SECRET, enter, knock, status, token};
use crate::inbox::{notify, post_office};
use crate::process::Program;
use crate::support::{Client, free_port, on_both_drivers, wait_for, wait_until};

/// Ends by SIGKILL in the middle of writing.
const KILLS: u32 = 24;

fn path_set(folder: &Path) -> String {
    format!("store.path={}", folder.join("throng.redb").display())
}

/// Arguments for a program with users, a store and a listener that notifies. Its port is one that the kernel gives to
/// nobody: an answer by somebody else's program, on the port of one that was killed, would count as its own.
fn arguments(folder: &Path, more: &[&str]) -> Vec<String> {
    let admin = with_admin(r#""notify", "inspect""#);
    let listen = format!("admin.listen=127.0.0.1:{}", free_port());
    let secret = format!("auth.secret={SECRET:?}");
    let path = path_set(folder);
    let own = [
        "auth.mode=token",
        "auth.require_expiry=false",
        "admin.requests_per_second=1000000",
        "store.inbox_count=10000",
        "store.inbox_bytes=100000000",
        &secret,
        &path,
        &listen,
        &admin[1],
    ];
    own.iter().chain(more).flat_map(|set| ["--set".to_owned(), (*set).to_owned()]).collect()
}

fn admin_of(program: &Program) -> SocketAddr {
    let (_, rest) = program.said.split_once("admin on http://").expect("the address");
    rest.lines().next().unwrap().parse().unwrap()
}

/// The payloads in a user's inbox, by HTTP, page by page.
fn listed(admin: SocketAddr, user: &str) -> BTreeSet<u64> {
    let (mut all, mut after) = (BTreeSet::new(), 0);
    loop {
        let (code, body) =
            ask(admin, &format!("GET /v1/inbox?user={user}&after={after}&limit=1000"), "");
        assert_eq!(code, 200, "{body}");
        let page: Value = serde_json::from_str(&body).unwrap();
        for item in page["items"].as_array().unwrap() {
            after = item["id"].as_u64().unwrap();
            assert!(all.insert(item["payload"].as_u64().unwrap()), "{item} twice");
        }
        if page["more"] == false {
            return all;
        }
    }
}

on_both_drivers! {
    fn notifications_and_revocations_outlive_the_node(driver) {
        let folder = tempfile::tempdir().unwrap();
        let path = path_set(folder.path());
        let bearer = |user: &str| {
            let token = token(&json!({"sub": user, "iat": 1000, "jti": format!("token of {user}")}));
            format!("Bearer {token}")
        };
        let knocks = |address: SocketAddr, user: &str| {
            let answer = knock(address, "/ws", &[("Authorization", &bearer(user))]);
            status(&answer).to_owned()
        };
        let (node, admin) = post_office(driver, &[&path]);
        notify(admin, "ada", &json!(1));
        for body in [r#"{"user":"bob","rememberMs":600000}"#, r#"{"tokenId":"token of eve"}"#] {
            assert_eq!(ask(admin, "POST /v1/revocations", body).0, 200);
        }
        node.stop().unwrap();
        let (node, admin) = post_office(driver, &[&path]);
        assert_eq!(listed(admin, "ada"), BTreeSet::from([1]));
        for _ in 0..4 {
            assert_eq!(knocks(node.address(), "bob"), "401");
            assert_eq!(knocks(node.address(), "eve"), "401");
            assert_eq!(knocks(node.address(), "ada"), "101");
        }
        wait_for(&node, "two are remembered in each of two shards", |c| c.revocations == 4);
        let mut ada = enter(node.address(), &json!({"sub": "ada"}));
        let page = ada.ask(json!({"type": "throng:inbox"}));
        let told = notify(admin, "ada", &json!(2));
        assert!(told["id"].as_u64() > page["newest"].as_u64(), "ids go on");
        assert_eq!(ada.next()["id"], told["id"]);
    }

    fn when_users_were_last_here_is_known_after_a_restart(driver) {
        let folder = tempfile::tempdir().unwrap();
        let path = path_set(folder.path());
        let observer = json!({"sub": "eve", "rooms": {"user:*": ["presence"]}});
        let mut gone = Vec::new();
        // One grace is over when the node ends, the other is not.
        for (user, grace) in [("ada", "presence.grace_ms=0"), ("bob", "presence.grace_ms=3600000")] {
            let (node, _) = post_office(driver, &[&path, grace]);
            let mut eve = enter(node.address(), &observer);
            drop(enter(node.address(), &json!({"sub": user})));
            wait_for(&node, "only the observer is there", |c| c.users_online == 1 && c.logins_total == 2);
            if user == "ada" {
                wait_until("it is offline", || whois(&mut eve, &[user])[0].get("lastSeen").is_some());
                gone = whois(&mut eve, &[user]);
            }
            node.stop().unwrap();
        }
        let (node, _) = post_office(driver, &[&path]);
        let mut eve = enter(node.address(), &observer);
        let told = whois(&mut eve, &["ada", "bob", "nobody"]);
        assert_eq!(told[0], gone[0]);
        let last = |told: &Value| told["lastSeen"].as_u64();
        assert!(last(&told[1]) >= last(&told[0]) && told[1]["state"] == "offline", "{told:?}");
        assert_eq!(last(&told[2]), None);
    }
}

/// What `throng:whois` says of these users.
fn whois(client: &mut Client, users: &[&str]) -> Vec<Value> {
    let reply = client.ask(json!({"type": "throng:whois", "users": users}));
    users
        .iter()
        .map(|user| {
            let found =
                reply["users"].as_array().unwrap().iter().find(|told| told["user"] == *user);
            found.unwrap_or_else(|| panic!("{user}: {reply}")).clone()
        })
        .collect()
}

#[test]
fn nothing_that_was_acknowledged_is_lost_when_the_program_is_killed_while_it_writes() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = arguments(folder.path(), &[]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let next = AtomicU64::new(0);
    let mut kept: BTreeSet<u64> = BTreeSet::new();
    for round in 0..KILLS {
        let program = Program::start(&arguments);
        let admin = admin_of(&program);
        let found = listed(admin, "ada");
        assert!(kept.is_subset(&found), "round {round}: lost {:?}", kept.difference(&found));
        let dead = AtomicBool::new(false);
        let acknowledged = AtomicU64::new(0);
        kept.extend(std::thread::scope(|scope| {
            let senders: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut mine = Vec::new();
                        while !dead.load(Ordering::Acquire) {
                            let number = next.fetch_add(1, Ordering::Relaxed);
                            let body = json!({"user": "ada", "payload": number}).to_string();
                            let (code, answer) = ask(admin, "POST /v1/notify", &body);
                            if code == 201 && serde_json::from_str::<Value>(&answer).is_ok() {
                                mine.push(number);
                                acknowledged.fetch_add(1, Ordering::Release);
                            }
                        }
                        mine
                    })
                })
                .collect();
            // Each round a little later, so that the end meets another moment of a transaction.
            let wanted = u64::from(round) + 5;
            wait_until("it keeps", || acknowledged.load(Ordering::Acquire) >= wanted);
            program.signal("-KILL");
            dead.store(true, Ordering::Release);
            senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect::<Vec<_>>()
        }));
    }
    let program = Program::start(&arguments);
    let found = listed(admin_of(&program), "ada");
    assert!(kept.is_subset(&found), "lost {:?}", kept.difference(&found));
    assert!(kept.len() >= KILLS as usize * 5, "{}", kept.len());
    program.signal("-TERM");
    assert_eq!(program.exit_code(), Some(0));
}

#[test]
fn who_was_connected_when_the_program_was_killed_was_last_seen_when_it_last_lived() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = arguments(folder.path(), &[]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let observer = json!({"sub": "eve", "rooms": {"user:*": ["presence"]}});
    let last_seen = |program: &Program, users: &[&str]| -> Vec<Option<u64>> {
        let mut eve = enter(program.address, &observer);
        whois(&mut eve, users).iter().map(|told| told["lastSeen"].as_u64()).collect()
    };
    let program = Program::start(&arguments);
    let admin = admin_of(&program);
    let counted = |name: &str| {
        let counters: Value = serde_json::from_str(&ask(admin, "GET /v1/counters", "").1).unwrap();
        counters[name].as_u64().unwrap()
    };
    let ada = enter(program.address, &json!({"sub": "ada"}));
    wait_until("it is kept that ada is here", || counted("store_requests_total") == 1);
    let here = unix_millis();
    let commits = counted("store_commits_total");
    // The first of them may have been on its way, or have dropped what is old.
    wait_until("the program lives", || counted("store_commits_total") >= commits + 2);
    let bob = enter(program.address, &json!({"sub": "bob"}));
    wait_until("it is kept that bob is here", || counted("store_requests_total") == 2);
    program.signal("-KILL");
    assert_eq!(program.exit_code(), None, "killed");
    let killed = unix_millis();
    drop((ada, bob));
    let program = Program::start(&arguments);
    let told = last_seen(&program, &["ada", "bob", "carl"]);
    assert!(told[0] >= Some(here) && told[0] <= Some(killed), "{told:?}: {here} to {killed}");
    assert!(told[1] >= told[0] && told[1] <= Some(killed), "{told:?}: {here} to {killed}");
    assert_eq!(told[2], None, "who never came");
    program.signal("-KILL");
    assert_eq!(program.exit_code(), None, "killed again");
    let program = Program::start(&arguments);
    let again = last_seen(&program, &["ada", "bob", "carl"]);
    assert_eq!(again, told, "they did not come back meanwhile");
}

#[test]
fn a_full_disk_refuses_what_needs_it_with_an_error_that_names_it_and_everything_else_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = arguments(folder.path(), &["admin.max_body_bytes=1000000"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // The file of an empty store has about 1.5 MiB, and no file may grow beyond this.
    let mut program = Program::start_with_files_of(8 << 20, &arguments);
    let admin = admin_of(&program);
    let mut clients =
        [(); 2].map(|()| enter(program.address, &json!({"sub": "ada", "rooms": ["*"]})));
    for client in &mut clients {
        client.join("lobby");
    }
    let large = json!({"user": "bob", "payload": "x".repeat(60_000)}).to_string();
    let mut kept = 0;
    let refused = loop {
        let (code, answer) = ask(admin, "POST /v1/notify", &large);
        if code != 201 {
            break (code, answer);
        }
        kept += 1;
        assert!(kept < 1000, "the disk is never full");
    };
    assert!(refused.0 == 503 && refused.1.contains("store_failed"), "{refused:?}");
    let reason = r#"{"degraded":["the store fails"],"ready":false,"reasons":["the store fails"]}"#;
    wait_until("the node says that it is not ready, and why", || {
        // A transaction in between that needs no space is one that succeeds.
        assert_eq!(ask(admin, "POST /v1/notify", &large).0, 503);
        let (code, answer) = ask(admin, "GET /readyz", "");
        code == 503 && answer.trim() == reason
    });
    wait_until("so does its metric", || {
        assert_eq!(ask(admin, "POST /v1/notify", &large).0, 503);
        ask(admin, "GET /metrics", "").1.contains("throng_store_broken 1\n")
    });
    assert_eq!(ask(admin, "POST /v1/notify", &large).0, 503);
    let [one, other] = &mut clients;
    one.send(&json!({"type": "chat", "room": "lobby", "payload": 1}));
    assert_eq!(other.next()["payload"], 1, "rooms do not need the disk");
    let refused = other.ask(json!({"type": "throng:read", "all": true}));
    assert!(refused["ok"] == true || refused["code"] == "overloaded", "{refused}");
    assert_eq!(ask(admin, "GET /healthz", "").0, 200);
    let (_, counters) = ask(admin, "GET /v1/counters", "");
    let counters: Value = serde_json::from_str(&counters).unwrap();
    assert!(counters["store_faults_total"].as_u64() >= Some(3), "{counters}");
    assert_eq!(counters["store_kept_total"].as_u64(), Some(kept));
    let (_, metrics) = ask(admin, "GET /metrics", "");
    assert!(metrics.contains(&format!("throng_store_kept_total {kept}\n")), "{metrics}");
    assert!(metrics.contains("# TYPE throng_store_broken gauge\n"), "{metrics}");
    assert!(program.counters_line().contains("store_faults_total="), "the log tells it as well");
    drop(clients);
    program.signal("-TERM");
    let (code, log) = program.end();
    assert_eq!(code.code(), Some(0), "{log}");
    // With space again everything that was acknowledged is there.
    let program = Program::start(&arguments);
    let (code, body) = ask(admin_of(&program), "GET /v1/inbox?user=bob&limit=0", "");
    let page: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, page["unread"].as_u64()), (200, Some(kept)), "{body}");
    let ready = "{\"ready\":true,\"reasons\":[]}\n".to_owned();
    assert_eq!(ask(admin_of(&program), "GET /readyz", ""), (200, ready));
    let (code, answer) = ask(admin_of(&program), "POST /v1/notify", &large);
    assert_eq!(code, 201, "{answer}");
}

#[test]
fn a_store_that_cannot_be_opened_keeps_the_node_from_starting_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("throng.redb"), "not a store").unwrap();
    for (folder, why) in [(Path::new("/nowhere"), "No such file"), (folder.path(), "")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_throng"));
        let set = path_set(folder);
        command.args(["run", "--set", "server.listen=127.0.0.1:0", "--set", &set]);
        let output = command.output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        let named = format!("store.path: {}", folder.join("throng.redb").display());
        assert_eq!(output.status.code(), Some(1));
        assert!(error.contains(&named) && error.contains(why), "{error}");
    }
}

#[test]
fn the_start_up_log_says_what_a_store_in_memory_means() {
    let program = Program::start(&[]);
    let mut client = Client::connect(program.address);
    client.expect_silence();
    program.signal("-TERM");
    drop(client);
    let (_, log) = program.end();
    assert!(log.contains("store.path is empty") && log.contains("are gone"), "{log}");
}
