//! The authorisation webhook of a whole node: rows A5 and A11, over real sockets, both shards.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::bounded;
use serde_json::{Value, json};
use throng::node::Node;

use crate::admin::{ask, with_admin};
use crate::auth::{enter, guarded, knock, status, token};
use crate::backend::{Backend, Posted, SHARED, ok, response};
use crate::process::Program;
use crate::stream::Listener;
use crate::support::{Client, node, on_both_drivers, wait_for, wait_until};

const YES: &str = r#"{"allow":true}"#;
const ROOMS: &str = r#"namespace=[{pattern="club:*", join="webhook", publish="webhook"}]"#;

/// A node that asks this back end, where everybody has a token.
fn asking(driver: &str, url: &str, sets: &[&str]) -> Node {
    let url = format!("auth_webhook.url={url}");
    let secret = format!("auth_webhook.secret={SHARED}");
    guarded(driver, &[&[url.as_str(), &secret, ROOMS], sets].concat())
}

/// Who may join: everybody whose name does not begin with "b".
fn doorkeeper(posted: &Posted) -> Option<String> {
    let user = posted.body["userId"].as_str().unwrap_or("b");
    if user.starts_with('b') {
        return ok(r#"{"allow":false,"code":401,"message":"your account is suspended"}"#);
    }
    ok(YES)
}

/// Who may use a room: everybody if its name begins with "club:open".
fn steward(posted: &Posted) -> Option<String> {
    let is_open = posted.body["room"].as_str().is_some_and(|room| room.starts_with("club:open"));
    ok(if is_open { YES } else { r#"{"allow":false,"message":"members only"}"# })
}

fn bearer(user: &str) -> String {
    format!("Bearer {}", token(&json!({ "sub": user })))
}

/// A listener who has read the greeting.
fn listen(node: &Node, target: &str, user: &str, last: Option<&str>) -> Listener {
    let last = last.map_or(String::new(), |last| format!("Last-Event-ID: {last}\r\n"));
    let headers = format!("Authorization: {}\r\n{last}", bearer(user));
    let mut listener = Listener::connect(node.address(), target, &headers);
    assert_eq!(listener.status(), "200");
    assert_eq!(listener.next().1["type"], "throng:connected");
    listener
}

fn clients(address: SocketAddr, user: &str) -> [Client; 2] {
    let claims = json!({ "sub": user });
    let mut one = enter(address, &claims);
    for _ in 0..200 {
        let two = enter(address, &claims);
        if two.shard() != one.shard() {
            return [one, two];
        }
        one = two;
    }
    panic!("200 connections and all on one shard");
}

on_both_drivers! {
    fn the_back_end_says_who_may_come_in_and_in_which_words_others_may_not(driver) {
        let backend = Backend::open(doorkeeper);
        let node = asking(driver, &backend.url(), &["auth_webhook.connect=true", "presence.metadata=true"]);
        let mut ada = enter(node.address(), &json!({"sub": "ada", "meta": {"plan": "pro"}}));
        ada.expect_silence();
        let posted = backend.next();
        assert_eq!((posted.path.as_str(), &posted.body["question"]), ("/hook", &json!("connect")));
        assert_eq!(posted.body["meta"], json!({"plan": "pro"}));
        assert_eq!(posted.body["address"], "127.0.0.1");
        let answer = knock(node.address(), "/ws", &[("Authorization", &bearer("bob"))]);
        assert_eq!(status(&answer), "401");
        assert!(answer.ends_with("\r\n\r\nyour account is suspended\n"), "{answer}");
        assert_eq!(status(&knock(node.address(), "/ws", &[])), "401", "a token is asked for first");
        wait_for(&node, "all is counted", |c| (c.auth_vetoed_total, c.auth_missing_total) == (1, 1));
        assert_eq!(node.counters().questions_total, 2);
    }

    fn a_room_that_the_back_end_refuses_is_not_joined_and_one_that_it_allows_is(driver) {
        let backend = Backend::open(|posted: &Posted| {
            let is_open = posted.body["room"] == "club:open";
            ok(if is_open { YES } else { r#"{"allow":false,"message":"members only"}"# })
        });
        let node = asking(driver, &backend.url(), &[]);
        let mut clients = clients(node.address(), "ada");
        for client in &mut clients {
            client.join("club:open");
            let refused = client.ask(json!({"type": "throng:join", "room": "club:closed"}));
            assert_eq!((&refused["code"], &refused["message"]), (&json!("forbidden"), &json!("members only")));
            let refused = client.ask(json!({"type": "t", "rooms": ["club:open", "club:closed"]}));
            assert_eq!(refused["code"], "forbidden");
        }
        let [one, two] = &mut clients;
        one.send(&json!({"type": "t", "room": "club:open", "payload": 1}));
        for client in [&mut *one, &mut *two] {
            assert_eq!(client.next()["payload"], 1);
            client.expect_silence();
        }
        assert_eq!(node.counters().forbidden_total, 4);
        let questions: Vec<Value> = (0..backend.waiting()).map(|_| backend.next().body).collect();
        assert!(questions.iter().all(|question| question["userId"] == "ada"), "{questions:?}");
    }

    fn a_back_end_that_never_answers_holds_up_nobody_but_those_it_is_asked_about(driver) {
        let opens = Arc::new(AtomicBool::new(false));
        let open = Arc::clone(&opens);
        let backend = Backend::open(move |_: &Posted| {
            if open.load(Ordering::SeqCst) { ok(YES) } else { None }
        });
        let sets = with_admin(r#""inspect""#);
        let limits = ["auth_webhook.max_concurrent=2", "auth_webhook.max_waiting=3",
            "auth_webhook.timeout_ms=300"];
        let node = asking(driver, &backend.url(), &[&limits[..], &[&sets[0], &sets[1]]].concat());
        let mut held: Vec<Client> = (0..8)
            .map(|user| enter(node.address(), &json!({"sub": format!("u{user}"), "rooms": ["hall"]})))
            .collect();
        for client in &mut held {
            client.send(&json!({"type": "throng:join", "room": "club:a", "ref": "late"}));
        }
        // Whoever waits for the answer is served in everything else, and so are the others.
        for client in &mut held {
            client.send(&json!({"type": "throng:join", "room": "hall", "ref": "hall"}));
        }
        for client in &mut held {
            let mut said = [client.next(), client.next()];
            said.sort_by_key(|reply| reply["ref"].as_str().map(str::to_owned));
            assert_eq!((&said[0]["ref"], &said[0]["ok"]), (&json!("hall"), &json!(true)), "{said:?}");
            assert_eq!((&said[1]["ref"], &said[1]["code"]), (&json!("late"), &json!("overloaded")));
        }
        assert!(backend.most_at_once() <= 2, "{} at a time", backend.most_at_once());
        wait_for(&node, "all are undecided", |c| c.questions_undecided_total == 8);
        let (_, counters) = ask(node.admin_address().unwrap(), "GET /v1/counters", "");
        let counters: Value = serde_json::from_str(&counters).unwrap();
        let of = |name: &str| counters[format!("auth_webhook_{name}_total")].as_u64().unwrap();
        // Three more may have been too many for their shard already.
        assert!((5..=8).contains(&(of("failed") + of("late") + of("overflow"))), "{counters}");
        assert!(of("failed") >= 2 && of("posted") == of("failed"), "{counters}");
        opens.store(true, Ordering::SeqCst);
        for client in &mut held {
            client.join("club:a");
        }
        wait_for(&node, "nothing is held", |counters| counters.held_commands == 0);
    }

    fn a_back_end_that_is_down_or_talks_nonsense_lets_nobody_in_unless_it_is_to(driver) {
        let at = std::sync::atomic::AtomicUsize::new(0);
        let backend = Backend::open(move |_: &Posted| Some(match at.fetch_add(1, Ordering::SeqCst) {
            0 => response("500 Internal Server Error", YES),
            1 => response("302 Found", YES),
            2 => response("200 OK", "yes"),
            3 => response("200 OK", r#"{"allow":false,"code":200}"#),
            4 => response("200 OK", &format!("{{\"allow\":true{}}}", " ".repeat(100_000))),
            5 => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"allow\":true}".to_owned(),
            6 => String::new(),
            _ => response("200 OK", YES),
        }));
        let node = asking(driver, &backend.url(), &["auth_webhook.connect=true"]);
        for _ in 0..7 {
            let answer = knock(node.address(), "/ws", &[("Authorization", &bearer("ada"))]);
            let after = answer.split("Retry-After: ").nth(1).and_then(|rest| rest.lines().next());
            let seconds = after.and_then(|after| after.parse().ok());
            let is_place = seconds.is_some_and(|seconds: u32| (1..=61).contains(&seconds));
            assert!(status(&answer) == "503" && is_place, "{answer}");
        }
        enter(node.address(), &json!({"sub": "ada"})).expect_silence();
        assert_eq!(node.counters().questions_undecided_total, 7);
        // Nothing listens there.
        let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let url = format!("http://{nowhere}/");
        let lenient = ["auth_webhook.connect=true", "auth_webhook.fail=allow"];
        let node = asking(driver, &url, &lenient);
        enter(node.address(), &json!({"sub": "ada"})).expect_silence();
        assert_eq!(node.counters().questions_undecided_total, 1);
    }

    fn who_is_gone_before_the_answer_leaves_nothing(driver) {
        let backend = Backend::open(|_: &Posted| None);
        let sets = ["auth_webhook.connect=true", "auth_webhook.timeout_ms=300"];
        let node = asking(driver, &backend.url(), &sets);
        let bearer = bearer("ada");
        let head = format!("GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
            Authorization: {bearer}\r\n\r\n");
        let mut stream = std::net::TcpStream::connect(node.address()).unwrap();
        std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
        backend.next();
        drop(stream);
        wait_for(&node, "it is gone", |c| c.connections == 0 && c.pending_questions == 0);
        let counters = node.counters();
        assert_eq!((counters.pending_tickets, counters.handshakes_total), (0, 0));
        assert_eq!(counters.memberships, 0);
    }

    fn an_event_stream_is_asked_about_like_any_client(driver) {
        let backend = Backend::open(|posted: &Posted| match &posted.body["room"] {
            Value::Null => doorkeeper(posted),
            _ => steward(posted),
        });
        let node = asking(driver, &backend.url(), &["auth_webhook.connect=true"]);
        let target = "/sse?room=club:open&room=club:closed";
        let bob = format!("Authorization: {}\r\n", bearer("bob"));
        assert_eq!(Listener::connect(node.address(), target, &bob).status(), "401");
        assert_eq!(backend.next().body["question"], "connect");
        wait_for(&node, "the refused one is gone", |c| (c.auth_vetoed_total, c.connections) == (1, 0));
        assert_eq!((backend.waiting(), node.counters().memberships), (0, 0), "no room was asked about");
        let mut listener = listen(&node, target, "ada", None);
        // The answers come in the order of the back end and not of the request.
        let mut said = [listener.next().1, listener.next().1];
        said.sort_by_key(|reply| reply["ok"] == json!(true));
        let refused = (&said[0]["code"], &said[0]["message"]);
        assert_eq!(refused, (&json!("forbidden"), &json!("members only")), "{said:?}");
        assert_eq!((&said[1]["ok"], &said[1]["room"]), (&json!(true), &json!("club:open")), "{said:?}");
        wait_for(&node, "in one room beside the user's own", |c| (c.memberships, c.home_rooms) == (2, 1));
        let mut author = enter(node.address(), &json!({"sub": "ann", "rooms": ["*"]}));
        for (room, payload) in [("club:closed", 1), ("club:open", 2)] {
            let sent = author.ask(json!({"type": "t", "room": room, "payload": payload}));
            assert_eq!(sent["ok"], true, "{sent}");
        }
        assert_eq!(listener.next().1["payload"], 2);
    }

    fn a_stream_that_comes_back_gets_what_it_missed_of_the_rooms_it_is_allowed(driver) {
        let backend = Backend::open(steward);
        let url = format!("auth_webhook.url={}", backend.url());
        let secret = format!("auth_webhook.secret={SHARED}");
        let rooms = ROOMS.replace("}]", ", history_count=100, history_age_ms=60000}]");
        let node = guarded(driver, &[&url, &secret, &rooms]);
        let mut author = enter(node.address(), &json!({"sub": "ann", "rooms": ["*"]}));
        let mut publish = |room: &str, payload: u64| {
            let sent = author.ask(json!({"type": "t", "room": room, "payload": payload}));
            assert_eq!(sent["ok"], true, "{sent}");
            sent
        };
        let target = "/sse?room=club:open&room=club:closed&room=club:open:2";
        /// How many replies say yes, no, and that nothing was missed; and the payloads, in order.
        fn sorted(events: &[Value]) -> ([usize; 3], Vec<u64>) {
            let count = |key: &str, value: Value| events.iter().filter(|e| e[key] == value).count();
            let replies = [count("ok", json!(true)), count("code", json!("forbidden")), count("recovered", json!(true))];
            (replies, events.iter().filter_map(|event| event["payload"].as_u64()).collect())
        }
        let mut listener = listen(&node, target, "ada", None);
        let replies: Vec<Value> = (0..3).map(|_| listener.next().1).collect();
        assert_eq!(sorted(&replies), ([2, 1, 0], vec![]), "{replies:?}");
        publish("club:closed", 1);
        publish("club:open", 2);
        let (last, event) = listener.next();
        assert_eq!(event["payload"], 2);
        drop(listener);
        wait_for(&node, "the listener has gone", |c| c.stream_connections == 0);
        publish("club:open", 3);
        publish("club:open:2", 4);
        let closed = publish("club:closed", 5);
        publish("club:open", 6);
        let mut listener = listen(&node, target, "ada", last.as_deref());
        let events: Vec<Value> = (0..6).map(|_| listener.next().1).collect();
        assert_eq!(sorted(&events), ([2, 1, 1], vec![3, 6]), "{events:?}");
        // Of the other room nothing was kept when its only member went, so it has begun anew, and that is told.
        let anew: Vec<&Value> = events.iter().filter(|event| event["type"] == "throng:resync").collect();
        let told: Vec<_> = anew.iter().map(|event| (&event["room"], &event["reason"])).collect();
        assert_eq!(told, [(&json!("club:open:2"), &json!("epoch"))], "{events:?}");
        // Who names an event of a room that it may not join learns nothing of it.
        let at = format!("{}.0.club:closed", closed["epoch"].as_str().unwrap_or("1"));
        let mut curious = listen(&node, target, "ada", Some(&at));
        let events: Vec<Value> = (0..3).map(|_| curious.next().1).collect();
        assert_eq!(sorted(&events), ([2, 1, 0], vec![]), "{events:?}");
        publish("club:open", 7);
        assert_eq!([listener.next().1, curious.next().1].map(|event| event["payload"].clone()), [7, 7]);
    }

    fn a_stream_that_is_gone_before_the_answer_joins_nothing(driver) {
        let (answer, wait) = bounded(1);
        let backend = Backend::open(move |_: &Posted| {
            wait.recv().unwrap();
            ok(YES)
        });
        let node = asking(driver, &backend.url(), &["auth_webhook.timeout_ms=60000"]);
        let listener = listen(&node, "/sse?room=club:a", "ada", None);
        assert_eq!(backend.waiting(), 0);
        wait_for(&node, "it is held", |c| (c.held_commands, c.pending_questions) == (1, 1));
        drop(listener);
        wait_for(&node, "it is gone", |c| (c.connections, c.held_commands) == (0, 0));
        // Whoever comes now may stand where the listener stood, and gets nothing of what it asked for.
        let mut others: Vec<Client> =
            (0..4).map(|_| enter(node.address(), &json!({"sub": "eve"}))).collect();
        wait_for(&node, "each in its user's own room", |counters| counters.memberships == 4);
        answer.send(()).unwrap();
        assert_eq!(backend.next().body["room"], "club:a");
        wait_for(&node, "the answer is there", |c| c.pending_questions == 0);
        others.iter_mut().for_each(Client::expect_silence);
        let counters = node.counters();
        assert_eq!((counters.memberships, counters.home_rooms, counters.forbidden_total), (4, 0, 0));
    }

    fn without_authentication_rooms_may_be_asked_about_too(driver) {
        let backend = Backend::open(|posted: &Posted| {
            assert_eq!(posted.body["userId"], Value::Null);
            ok(YES)
        });
        let url = format!("auth_webhook.url={}", backend.url());
        let secret = format!("auth_webhook.secret={SHARED}");
        let node = node(driver, &[&url, &secret, ROOMS]);
        let mut client = Client::connect(node.address());
        client.join("club:a");
        client.join("hall");
        assert_eq!(backend.next().body["clientId"], client.id.as_str());
        assert_eq!(node.counters().questions_total, 1);
    }
}

#[test]
fn sighup_changes_what_an_unanswered_question_counts_as() {
    // Nothing listens there, so that every question stays without an answer.
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("throng.toml");
    let write = |fail: &str| {
        let hook = format!("[auth_webhook]\nurl = \"http://{nowhere}/\"\nsecret = \"{SHARED}\"");
        let room = "[[namespace]]\npattern = \"club:*\"\njoin = \"webhook\"";
        std::fs::write(&file, format!("{hook}\nfail = \"{fail}\"\n{room}\n")).unwrap();
    };
    write("refuse");
    let program = Program::start(&["--config", file.to_str().unwrap()]);
    let mut client = Client::connect(program.address);
    let join = json!({"type": "throng:join", "room": "club:a"});
    assert_eq!(client.ask(join.clone())["code"], "overloaded");
    write("allow");
    program.signal("-HUP");
    wait_until("the new word holds", || client.ask(join.clone())["ok"] == json!(true));
    program.signal("-TERM");
    drop(client);
    assert_eq!(program.exit_code(), Some(0));
}
