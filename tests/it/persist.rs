//! Publications that are stored before anybody has them, over real ends of the program: R9, R11, R12.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};
use throng::node::Node;

use crate::admin::{ask, with_admin};
use crate::auth::{enter, guarded};
use crate::process::Program;
use crate::support::{Client, node, on_both_drivers, wait_for, wait_until};

/// Ends by SIGKILL in the middle of writing.
const KILLS: u64 = 20;

const KEEPS: &str = r#"namespace=[{pattern="r*", overflow="disconnect", history_count=100000, history_bytes=67108864, idempotency_window_ms=600000}]"#;

fn sets(folder: &Path) -> Vec<String> {
    let admin = with_admin(r#""publish", "inspect""#);
    let path = format!("store.path={}", folder.join("throng.redb").display());
    let rate = "admin.requests_per_second=1000000".to_owned();
    let own = [path, rate, KEEPS.to_owned(), "server.shards=2".to_owned()];
    let fast = ["limits.messages_per_second=0".to_owned()];
    admin.into_iter().chain(own).chain(fast).collect()
}

fn start(driver: &str, folder: &Path) -> (Node, SocketAddr) {
    let sets = sets(folder);
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    let node = node(driver, &sets);
    let admin = node.admin_address().expect("an admin listener");
    (node, admin)
}

/// A back end's publication that is to be stored; the answer.
fn persist(admin: SocketAddr, room: &str, payload: u64) -> (u16, Value) {
    let id = format!("id-{payload}");
    let body = json!({"type": "x", "room": room, "payload": payload, "id": id, "persist": true});
    let (code, answer) = ask(admin, "POST /v1/publish", &body.to_string());
    (code, serde_json::from_str(&answer).unwrap_or_default())
}

fn join_since(client: &mut Client, room: &str, since: &Value) -> Value {
    let since = json!({"epoch": since["epoch"], "offset": since["offset"]});
    client.ask(json!({"type": "throng:join", "room": room, "since": since}))
}

/// The next pushes of a room, by payload.
fn payloads(client: &mut Client, count: usize) -> Vec<u64> {
    let push = |_| {
        let push = client.next();
        assert_eq!(push["type"], "x", "{push}");
        push["payload"].as_u64().unwrap()
    };
    (0..count).map(push).collect()
}

on_both_drivers! {
    fn a_room_goes_on_after_a_restart_with_its_numbers_and_without_a_gap(driver) {
        let folder = tempfile::tempdir().unwrap();
        let rooms = ["r1", "r2", "r3", "r4"];
        let mut cursors: BTreeMap<&str, Value> = BTreeMap::new();
        for life in 0..3_u64 {
            let (node, admin) = start(driver, folder.path());
            for room in rooms {
                let mut member = Client::connect(node.address());
                let joined = match cursors.get(room) {
                    Some(cursor) => {
                        let joined = join_since(&mut member, room, cursor);
                        assert_eq!(joined["recovered"], true, "{room} in life {life}: {joined}");
                        assert_eq!(payloads(&mut member, 2), [life * 100 - 98, life * 100 - 97]);
                        joined
                    }
                    None => member.join(room),
                };
                let mut author = Client::connect(node.address());
                let text = json!({"type": "x", "room": room, "payload": life * 100, "id": "mine", "persist": true});
                let reply = author.ask(text);
                assert_eq!((&reply["ok"], &reply["id"]), (&json!(true), &json!("mine")), "{reply}");
                assert_eq!(reply["offset"].as_u64(), joined["offset"].as_u64().map(|offset| offset + 1));
                assert_eq!(reply["epoch"], joined["epoch"]);
                let push = member.next();
                assert_eq!((&push["offset"], &push["id"]), (&reply["offset"], &json!("mine")));
                let (code, answer) = persist(admin, room, life * 100 + 1);
                assert_eq!(code, 200, "{answer}");
                let push = member.next();
                assert_eq!(answer["offsets"][room]["offset"], push["offset"]);
                cursors.insert(room, json!({"epoch": reply["epoch"], "offset": push["offset"]}));
                drop(member);
                for number in [2, 3] {
                    assert_eq!(persist(admin, room, life * 100 + number).0, 200);
                }
            }
            wait_for(&node, "all are stored", |c| c.stored_total == 16);
            node.stop().unwrap();
        }
        // What was published before the end under an id is known after it.
        let (node, admin) = start(driver, folder.path());
        let mut member = Client::connect(node.address());
        let joined = join_since(&mut member, "r1", &cursors["r1"]);
        assert_eq!((payloads(&mut member, 2), &joined["recovered"]), (vec![202, 203], &json!(true)));
        let repeat = persist(admin, "r1", 203).1;
        assert_eq!(repeat, json!({"offsets": {}, "duplicate": true}));
        member.expect_silence();
        assert_eq!(persist(admin, "r1", 999).0, 200);
        assert_eq!(payloads(&mut member, 1), [999]);
    }

    fn what_was_not_stored_is_told_to_be_gone_and_what_was_follows(driver) {
        let folder = tempfile::tempdir().unwrap();
        let (node, admin) = start(driver, folder.path());
        let mut member = Client::connect(node.address());
        let joined = member.join("r");
        for number in 1..=9 {
            if number % 3 == 0 {
                assert_eq!(persist(admin, "r", number).0, 200);
            } else {
                member.send(&json!({"type": "x", "room": "r", "payload": number}));
            }
            assert_eq!(payloads(&mut member, 1), [number]);
        }
        node.stop().unwrap();
        let (node, admin) = start(driver, folder.path());
        let mut member = Client::connect(node.address());
        let cursor = json!({"epoch": joined["epoch"], "offset": 4});
        let reply = join_since(&mut member, "r", &cursor);
        assert_eq!((&reply["recovered"], &reply["epoch"]), (&json!(false), &joined["epoch"]));
        let resync = json!({"type": "throng:resync", "room": "r", "reason": "lost", "epoch": joined["epoch"], "offset": 4});
        assert_eq!(member.next(), resync, "once, and before what is left");
        let pushes = [(); 2].map(|()| member.next());
        assert_eq!(pushes.map(|push| (push["payload"].clone(), push["offset"].clone())), [
            (json!(6), json!(6)),
            (json!(9), json!(9)),
        ]);
        // No number is given out twice.
        let answer = persist(admin, "r", 10).1;
        assert!(answer["offsets"]["r"]["offset"].as_u64() > Some(9), "{answer}");
        assert_eq!(payloads(&mut member, 1), [10]);
        let page = member.ask(json!({"type": "throng:history", "room": "r"}));
        assert_eq!(page["messages"].as_array().unwrap().len(), 4, "{page}");
    }

    fn who_was_excepted_does_not_get_it_on_any_later_connection_nor_after_a_restart(driver) {
        let folder = tempfile::tempdir().unwrap();
        let sets = sets(folder.path());
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let claims = |user: &str| json!({"sub": user, "rooms": ["*"]});
        let node = guarded(driver, &sets);
        let mut first = enter(node.address(), &claims("ada"));
        let joined = first.join("r");
        let admin = node.admin_address().unwrap();
        for (number, except) in [(1, "ada"), (2, "bob"), (3, "ada")] {
            let body = json!({"type": "x", "room": "r", "payload": number, "except": {"users": [except]}, "persist": true});
            let (code, answer) = ask(admin, "POST /v1/publish", &body.to_string());
            assert_eq!(code, 200, "{answer}");
        }
        assert_eq!(payloads(&mut first, 1), [2]);
        drop(first);
        let comes_back = |node: &Node, user: &str, expected: &[u64]| {
            // By both shards, on another connection each time.
            for _ in 0..6 {
                let mut client = enter(node.address(), &claims(user));
                let reply = join_since(&mut client, "r", &joined);
                assert_eq!(reply["recovered"], true, "{reply}");
                assert_eq!(payloads(&mut client, expected.len()), expected);
                let page = client.ask(json!({"type": "throng:history", "room": "r"}));
                assert_eq!(page["messages"].as_array().unwrap().len(), expected.len(), "{page}");
            }
        };
        comes_back(&node, "ada", &[2]);
        comes_back(&node, "bob", &[1, 3]);
        comes_back(&node, "eve", &[1, 2, 3]);
        node.stop().unwrap();
        let node = guarded(driver, &sets);
        comes_back(&node, "ada", &[2]);
        comes_back(&node, "bob", &[1, 3]);
        comes_back(&node, "eve", &[1, 2, 3]);
    }

    fn nothing_is_stored_where_nothing_could_be_found_again(driver) {
        let admin = with_admin(r#""publish""#);
        let without = node(driver, &[&admin[0], &admin[1], KEEPS]);
        let folder = tempfile::tempdir().unwrap();
        let (with, address) = start(driver, folder.path());
        let lobby = |persist: bool| json!({"type": "x", "room": "lobby", "payload": 1, "persist": persist});
        for (node, room, missing) in [(&without, "r", "store.path"), (&with, "lobby", "namespace.history_count")] {
            let mut client = Client::connect(node.address());
            let refused = client.ask(json!({"type": "x", "room": room, "persist": true}));
            assert_eq!(refused["code"], "cannot_persist", "{refused}");
            assert!(refused["message"].as_str().unwrap().contains(missing), "{refused}");
            let (code, answer) = persist(node.admin_address().unwrap(), room, 1);
            assert_eq!((code, &answer["error"]["code"]), (400, &json!("cannot_persist")), "{answer}");
            assert!(answer["error"]["message"].as_str().unwrap().contains(missing), "{answer}");
        }
        let batch = json!([lobby(false), lobby(true)]).to_string();
        let (code, answer) = ask(address, "POST /v1/publish", &batch);
        assert!(code == 400 && answer.contains("[1].persist"), "{answer}");
        let mut client = Client::connect(with.address());
        for rooms in [json!({"rooms": ["r1", "r2"]}), json!({"room": "r1", "users": ["ada"]}), json!({"everyone": true})] {
            let mut command = json!({"type": "x", "persist": true});
            command.as_object_mut().unwrap().extend(rooms.as_object().unwrap().clone());
            assert_eq!(client.ask(command)["code"], "bad_field");
        }
    }
}

/// What is in the histories of rooms, by a client that begins at the beginning.
fn found(
    program: &Program,
    rooms: &[&str],
    starts: &BTreeMap<String, Value>,
) -> BTreeMap<String, BTreeSet<u64>> {
    let mut client = Client::connect(program.address);
    let mut all: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for room in rooms {
        let reply = join_since(&mut client, room, &starts[*room]);
        assert_eq!(reply["recovered"], true, "{room}: {reply}");
        assert_eq!(reply["epoch"], starts[*room]["epoch"], "{room} goes on");
        let count = reply["offset"].as_u64().unwrap();
        let own = all.entry((*room).to_owned()).or_default();
        for offset in 1..=count {
            let push = client.next();
            assert_eq!(
                (&push["room"], push["offset"].as_u64()),
                (&json!(room), Some(offset)),
                "{push}"
            );
            assert!(own.insert(push["payload"].as_u64().unwrap()), "{push} twice");
        }
    }
    all
}

#[test]
fn no_publication_that_was_acknowledged_is_lost_when_the_program_is_killed_while_it_writes() {
    let folder = tempfile::tempdir().unwrap();
    let arguments: Vec<String> =
        sets(folder.path()).into_iter().flat_map(|set| ["--set".to_owned(), set]).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let rooms = ["r-a", "r-b", "r-c"];
    let next = AtomicU64::new(0);
    let mut kept: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    let mut starts: BTreeMap<String, Value> = BTreeMap::new();
    for round in 0..=KILLS {
        let program = Program::start(&arguments);
        if round == 0 {
            let mut client = Client::connect(program.address);
            for room in rooms {
                // From now on the room is known over any end.
                let text =
                    json!({"type": "x", "room": room, "payload": 1_000_000, "persist": true});
                let reply = client.ask(text);
                starts.insert(room.to_owned(), json!({"epoch": reply["epoch"], "offset": 0}));
            }
        }
        let there = found(&program, &rooms, &starts);
        for (room, kept) in &kept {
            let lost: Vec<_> = kept.difference(&there[room]).collect();
            assert!(lost.is_empty(), "round {round}: {room} lost {lost:?}");
        }
        if round == KILLS {
            assert!(kept.values().map(BTreeSet::len).sum::<usize>() as u64 >= KILLS * 5);
            program.signal("-TERM");
            assert_eq!(program.exit_code(), Some(0));
            return;
        }
        let (address, dead, acknowledged) =
            (program.address, AtomicBool::new(false), AtomicU64::new(0));
        let told = std::thread::scope(|scope| {
            let authors: Vec<_> = (0..4_usize)
                .map(|author| {
                    let (next, dead, acknowledged) = (&next, &dead, &acknowledged);
                    let mut client = Client::connect(address);
                    scope.spawn(move || {
                        let mut mine = Vec::new();
                        while !dead.load(Ordering::Acquire) {
                            let (number, room) = (next.fetch_add(1, Ordering::Relaxed), rooms[author % 3]);
                            let text = json!({"type": "x", "room": room, "payload": number, "persist": true, "ref": 1});
                            let Some(reply) = client.try_ask(&text) else { break };
                            assert_eq!(reply["ok"], true, "{reply}");
                            mine.push((room, number));
                            acknowledged.fetch_add(1, Ordering::Release);
                        }
                        mine
                    })
                })
                .collect();
            // Each round a little later, so that the end meets another moment of a transaction.
            wait_until("it keeps", || acknowledged.load(Ordering::Acquire) >= round % 7 + 5);
            program.signal("-KILL");
            dead.store(true, Ordering::Release);
            authors.into_iter().flat_map(|author| author.join().unwrap()).collect::<Vec<_>>()
        });
        for (room, number) in told {
            kept.entry(room.to_owned()).or_default().insert(number);
        }
        assert_eq!(program.exit_code(), None, "killed");
    }
}

#[test]
fn a_full_disk_refuses_what_is_to_be_stored_and_the_room_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let arguments: Vec<String> =
        sets(folder.path()).into_iter().flat_map(|set| ["--set".to_owned(), set]).collect();
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    arguments.extend(["--set", "limits.max_message_bytes=100000"]);
    let program = Program::start_with_files_of(8 << 20, &arguments);
    let mut client = Client::connect(program.address);
    let mut start = Value::Null;
    let large = "x".repeat(60_000);
    let mut kept = 0;
    let refused = loop {
        let text = json!({"type": "x", "room": "r", "payload": large, "persist": true});
        let reply = client.ask(text);
        if reply["type"] == "throng:error" {
            break reply;
        }
        kept += 1;
        start = json!({"epoch": reply["epoch"], "offset": 0});
        assert_eq!(reply["offset"], json!(kept), "{reply}");
        assert!(kept < 1000, "the disk is never full");
    };
    assert_eq!(refused["code"], "overloaded", "{refused}");
    let mut other = Client::connect(program.address);
    other.join("r2");
    other.send(&json!({"type": "x", "room": "r2", "payload": 5}));
    assert_eq!(payloads(&mut other, 1), [5], "other rooms do not need the disk");
    drop((client, other));
    program.signal("-TERM");
    let (code, log) = program.end();
    assert_eq!(code.code(), Some(0), "{log}");
    let program = Program::start(&arguments);
    let mut client = Client::connect(program.address);
    let reply = join_since(&mut client, "r", &start);
    assert_eq!((&reply["recovered"], &reply["offset"]), (&json!(true), &json!(kept)), "{reply}");
}
