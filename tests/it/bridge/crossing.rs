//! What crosses: publications, their targets and their exceptions, once each. Rows O1, R5 and R7.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use throng::node::Node;

use super::cluster::{Redis, bridge, linked, members, unlinked};
use crate::admin::{ask, with_admin};
use crate::auth::{SECRET, enter, knock, token, token_under};
use crate::backend::{Backend, SHARED, ok};
use crate::support::{Client, on_both_drivers, wait_for, wait_until};

/// A linked node where everybody must say who they are.
fn guarded(driver: &str, redis: &Redis) -> Node {
    let secret = format!("auth.secret={SECRET:?}");
    let sets = ["auth.mode=token", secret.as_str(), "auth.require_expiry=false"];
    linked(driver, redis.address(), &sets)
}

fn chat(room: &str, payload: &Value) -> Value {
    json!({"type": "chat", "room": room, "payload": payload})
}

/// Publications of each author in the test of order.
const NUMBERS: usize = 500;

/// Reads all that a member of the rooms gets of both authors: each once, and none before what its author
/// published earlier to the room by which it came.
fn for_each_once_and_in_order(
    client: &mut Client,
    own: &[String],
    targets: &dyn Fn(usize) -> Vec<String>,
) {
    let meant = |number: usize| targets(number).iter().any(|room| own.contains(room));
    let expected = (0..NUMBERS).filter(|number| meant(*number)).count();
    let mut seen = [BTreeSet::new(), BTreeSet::new()];
    while seen.iter().any(|seen| seen.len() < expected) {
        let push = client.next();
        let number = usize::try_from(push["payload"].as_u64().unwrap()).unwrap();
        let seen = &mut seen[usize::from(push["type"] == "program")];
        assert!(seen.insert(number), "twice: {push}");
        let room = push["room"].as_str().unwrap().to_owned();
        let missed = (0..number).find(|at| targets(*at).contains(&room) && !seen.contains(at));
        assert_eq!(missed, None, "{push}");
    }
}

/// How often each way to be refused is tried.
const ROUNDS: u64 = 10;

/// Wrong tokens of three kinds in all places, each refused with 401, or by a close frame once it is a message.
fn refuse_by_token(node: &Node) {
    let claims = json!({"sub": "ada", "rooms": ["*"]});
    let expired = token(&json!({"sub": "ada", "rooms": ["*"], "exp": 1000}));
    let foreign = token_under(r#"{"alg":"HS256"}"#, &"x".repeat(32), &claims);
    for token in ["a.b.c", &expired, &foreign] {
        let (bearer, cookie) = (format!("Bearer {token}"), format!("throng_token={token}"));
        let offer = format!("throng.v1.json, throng.token.{token}");
        let page = ("Origin", "https://app.example");
        for (target, headers) in [
            ("/ws".to_owned(), vec![("Authorization", bearer.as_str())]),
            ("/ws".to_owned(), vec![("Cookie", &cookie), page]),
            ("/ws".to_owned(), vec![("Sec-WebSocket-Protocol", &offer)]),
            (format!("/ws?token={token}&room=lobby"), vec![]),
            (format!("/ws?ticket={token}&room=lobby"), vec![]),
            (format!("/sse?token={token}&room=lobby"), vec![]),
            ("/sse?room=lobby".to_owned(), vec![("Cookie", &cookie), page]),
            (format!("/history?token={token}&room=lobby"), vec![]),
        ] {
            let answer = knock(node.address(), &target, &headers);
            assert!(answer.starts_with("HTTP/1.1 401 "), "{target} {headers:?}: {answer}");
        }
        let mut client = Client::connect_silent(node.address());
        client.send(&json!({"type": "throng:auth", "token": token}));
        assert_eq!(client.close_code(), 1008);
    }
}

/// A token in order, from a page that may not connect or that does not say what it is.
fn refuse_by_page(node: &Node) {
    let good = token(&json!({"sub": "ada", "rooms": ["*"]}));
    let (bearer, cookie) = (format!("Bearer {good}"), format!("throng_token={good}"));
    let page = ("Origin", "https://evil.example");
    for headers in [
        vec![("Authorization", bearer.as_str()), page],
        vec![("Cookie", &cookie), page],
        vec![("Cookie", &cookie)],
    ] {
        let answer = knock(node.address(), "/ws", &headers);
        assert!(answer.starts_with("HTTP/1.1 403 "), "{headers:?}: {answer}");
    }
}

on_both_drivers! {
    /// Row A1: nothing of a refused client is work for a session, a room or Redis, wherever its token stood and
    /// whatever was wrong with it.
    fn whoever_is_refused_at_the_door_is_no_work_for_redis(driver) {
        let redis = Redis::start();
        let backend = Backend::open(|_| ok(r#"{"allow":false,"message":"not you"}"#));
        let sets = [
            "bridge.canary_interval_ms=600000",
            "auth.mode=token",
            &format!("auth.secret={SECRET:?}"),
            "auth.require_expiry=false",
            r#"auth.sources=["header", "cookie", "subprotocol", "query", "ticket", "message"]"#,
            r#"auth.allowed_origins=["https://app.example"]"#,
            r#"namespace=[{pattern="*", history_count=8}]"#,
            &format!("auth_webhook.url={}", backend.url()),
            &format!("auth_webhook.secret={SHARED}"),
            "auth_webhook.connect=true",
        ];
        let node = linked(driver, redis.address(), &sets);
        let seen = || {
            let counters = node.bridge_counters();
            let moved = |name: &str| !name.ends_with("_up") && !name.contains("canar");
            let own: Vec<(&str, u64)> = counters.into_iter().filter(|(name, _)| moved(name)).collect();
            // Redis tells them in an order of its own, which changes when its table grows.
            let redis::Value::Array(channels) = redis.ask(&["PUBSUB", "CHANNELS"]) else { panic!("a list") };
            let mut channels: Vec<String> = channels.iter().map(|name| format!("{name:?}")).collect();
            channels.sort_unstable();
            (own, channels)
        };
        let before = (seen(), node.counters().mail_sent_total);
        for round in 0..ROUNDS {
            refuse_by_token(&node);
            refuse_by_page(&node);
            // The back end says no to whoever has a token in order, and is asked about nobody else.
            let bearer = format!("Bearer {}", token(&json!({"sub": format!("u{round}"), "rooms": ["*"]})));
            let answer = knock(node.address(), "/ws", &[("Authorization", &bearer)]);
            assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("not you"), "{answer}");
        }
        wait_for(&node, "all are gone", |c| c.connections == 0 && c.auth_vetoed_total == ROUNDS);
        let c = node.counters();
        assert_eq!((c.auth_refused_total, c.origin_refused_total), (ROUNDS * 28, ROUNDS * 3));
        assert_eq!((c.auth_expired_total, c.auth_untrusted_total), (ROUNDS * 8, ROUNDS * 8));
        assert_eq!(u64::try_from(backend.waiting()).unwrap(), ROUNDS);
        // Those who were to say who they are in a message have no session before they do.
        assert_eq!((c.handshakes_total, c.logins_total), (0, 0));
        assert_eq!((c.rooms, c.memberships, c.home_rooms), (0, 0, 0));
        assert_eq!((seen(), c.mail_sent_total), before);
    }

    fn a_publication_on_either_node_reaches_members_on_both_exactly_once(driver) {
        let redis = Redis::start();
        let nodes = [(); 3].map(|()| linked(driver, redis.address(), &[]));
        let mut clients = members(&redis, &[&nodes[0], &nodes[1], &nodes[2]], "lobby");
        for number in 0..30_u64 {
            let author = usize::try_from(number % 3).unwrap();
            clients[author].send(&chat("lobby", &json!(number)));
            // Each hears it before the next is published, so the numbers come once each and in order.
            let id = clients[author].id.clone();
            for client in &mut clients {
                let push = client.next();
                assert_eq!((&push["payload"], &push["from"]), (&json!(number), &json!(id)));
                assert_eq!((&push["room"], &push["type"]), (&json!("lobby"), &json!("chat")));
            }
        }
        clients.iter_mut().for_each(Client::expect_silence);
        for node in &nodes {
            // They are counted a moment after they have gone on.
            let counted = || (bridge(node, "bridge_published_total"), bridge(node, "bridge_delivered_total"));
            wait_until("all are counted", || counted() == (10, 20));
            // Each is told of its own by Redis too, and knows it.
            wait_until("its own", || bridge(node, "bridge_echoes_total") == 10);
        }
    }

    fn many_publications_keep_the_order_of_their_author(driver) {
        let redis = Redis::start();
        let nodes = [(); 2].map(|()| linked(driver, redis.address(), &[]));
        let mut clients = members(&redis, &[&nodes[0], &nodes[1]], "lobby");
        for number in 0..2000 {
            clients[0].send(&chat("lobby", &json!(number)));
        }
        for number in 0..2000 {
            assert_eq!(clients[1].next()["payload"], json!(number));
        }
        clients[1].expect_silence();
    }

    fn who_is_in_two_of_the_rooms_has_one_copy_on_every_node(driver) {
        let redis = Redis::start();
        let nodes = [(); 2].map(|()| linked(driver, redis.address(), &[]));
        let rooms: Vec<String> = (0..6).map(|room| format!("r{room}")).collect();
        let mut clients = [0, 1].map(|node: usize| Client::connect(nodes[node].address()));
        for room in &rooms {
            clients.iter_mut().for_each(|client| _ = client.join(room));
        }
        rooms.iter().for_each(|room| redis.wait_for_room(room, 2));
        let whole = json!({"type": "x", "rooms": rooms, "payload": 1});
        clients[0].send(&whole);
        clients[0].send(&chat("r5", &json!("after")));
        for client in &mut clients {
            assert_eq!(client.next()["payload"], 1);
            assert_eq!(client.next()["payload"], "after", "and no second copy");
        }
        wait_until("the other copies", || bridge(&nodes[1], "bridge_duplicates_total") == 5);
    }

    fn an_author_keeps_its_order_to_every_target_whatever_it_publishes_to(driver) {
        let redis = Redis::start();
        let sets = with_admin(r#""publish""#);
        let nodes = [(); 2].map(|()| linked(driver, redis.address(), &[&sets[0], &sets[1]]));
        let rooms: Vec<String> = (0..6).map(|room| format!("r{room}")).collect();
        let mut author = Client::connect(nodes[0].address());
        // On each node one in all of the rooms, and for each room one that is in no other.
        let mut listeners: Vec<(Client, Vec<String>)> = Vec::new();
        for node in &nodes {
            let alone = rooms.iter().map(|room| vec![room.clone()]);
            for own in alone.chain([rooms.clone()]) {
                let mut client = Client::connect(node.address());
                own.iter().for_each(|room| _ = client.join(room));
                listeners.push((client, own));
            }
        }
        rooms.iter().for_each(|room| redis.wait_for_room(room, 2));
        // To all of the rooms, to pairs of them, and between these to single ones. Back ends do the same over HTTP.
        let targets = |number: usize| match number % 4 {
            0 => rooms.clone(),
            2 => vec![rooms[number / 2 % 6].clone(), rooms[(number / 2 + 1) % 6].clone()],
            _ => vec![rooms[(number + 1) / 4 % 6].clone()],
        };
        let order = |kind: &str, number: usize| match &targets(number)[..] {
            [room] => json!({"type": kind, "room": room, "payload": number}),
            rooms => json!({"type": kind, "rooms": rooms, "payload": number}),
        };
        let admin = nodes[0].admin_address().unwrap();
        for number in 0..NUMBERS {
            author.send(&order("client", number));
            if number % 10 == 0 {
                let list: Vec<Value> = (number..number + 10).map(|at| order("program", at)).collect();
                assert_eq!(ask(admin, "POST /v1/publish", &json!(list).to_string()).0, 200);
            }
        }
        for (client, own) in &mut listeners {
            for_each_once_and_in_order(client, own, &targets);
            client.expect_silence();
        }
    }

    fn exceptions_of_connections_users_and_rooms_hold_on_the_other_node(driver) {
        let redis = Redis::start();
        let nodes = [(); 2].map(|()| guarded(driver, &redis));
        let on = |node: usize, user: &str| {
            let mut client = enter(nodes[node].address(), &json!({"sub": user, "rooms": ["*"]}));
            client.join("lobby");
            client
        };
        let (mut author, mut here) = (on(0, "author"), on(0, "ada"));
        let mut there = [on(1, "ada"), on(1, "ada"), on(1, "bob")];
        there[2].join("quiet");
        redis.wait_for_room("lobby", 2);
        redis.wait_for_room("quiet", 1);
        let cases = [
            (json!([there[0].id]), [true, false, true, true]),
            (json!({"connections": [there[0].id, here.id]}), [false, false, true, true]),
            (json!({"users": ["ada"]}), [false, false, false, true]),
            (json!({"rooms": ["quiet"]}), [true, true, true, false]),
            (json!({"users": ["ada"], "rooms": ["quiet"]}), [false; 4]),
        ];
        for (number, (except, reached)) in (0..).zip(cases) {
            let mut message = chat("lobby", &json!(number));
            message["except"] = except;
            author.send(&message);
            author.send(&chat("lobby", &json!("marker")));
            for (client, reached) in std::iter::once(&mut here).chain(&mut there).zip(reached) {
                if reached {
                    assert_eq!(client.next()["payload"], json!(number), "{message}");
                }
                assert_eq!(client.next()["payload"], "marker", "{message}");
            }
        }
    }

    fn users_connections_and_everyone_are_reached_on_every_node(driver) {
        let redis = Redis::start();
        let nodes = [(); 2].map(|()| guarded(driver, &redis));
        let rights = json!({"*": ["join", "publish"], "user:*": ["publish"],
            "connections": ["publish"], "everyone": ["publish"]});
        let on = |node: usize, user: &str| {
            enter(nodes[node].address(), &json!({"sub": user, "rooms": rights}))
        };
        let (mut author, mut ada, mut bob) = (on(0, "author"), on(1, "ada"), on(1, "bob"));
        bob.join("lobby");
        redis.wait_for_room("lobby", 1);
        let cases = [
            (json!({"users": ["ada"]}), [true, false]),
            (json!({"connections": [bob.id]}), [false, true]),
            (json!({"connections": [bob.id], "users": ["ada", "bob"], "room": "lobby"}), [true, true]),
            (json!({"everyone": true, "room": "lobby", "except": {"users": ["ada"]}}), [false, true]),
        ];
        for (number, (mut message, reached)) in (0..).zip(cases) {
            message["type"] = json!("x");
            message["payload"] = json!(number);
            author.send(&message);
            for (client, reached) in [&mut ada, &mut bob].into_iter().zip(reached) {
                if reached {
                    assert_eq!(client.next()["payload"], json!(number), "{message}");
                }
            }
        }
        // What is for everyone goes behind everything that was for everyone: no copy was left over.
        author.send(&json!({"type": "x", "everyone": true, "payload": "end"}));
        for client in [&mut ada, &mut bob] {
            assert_eq!(client.next()["payload"], "end");
            client.expect_silence();
        }
    }

    fn an_acl_user_with_the_documented_rights_is_enough_and_a_wrong_password_is_no_link(driver) {
        let redis = Redis::start();
        redis.ask(&["ACL", "SETUSER", "throng", "on", ">secret", "resetchannels", "&throng:*",
            "+@connection", "+@pubsub"]);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "secret\n").unwrap();
        let path = format!("bridge.password_file={}", file.path().display());
        let nodes = [&path[..], "bridge.password=secret"]
            .map(|set| linked(driver, redis.address(), &["bridge.user=throng", set]));
        let mut clients = members(&redis, &[&nodes[0], &nodes[1]], "lobby");
        clients[0].send(&chat("lobby", &json!(1)));
        clients.iter_mut().for_each(|client| assert_eq!(client.next()["payload"], 1));
        let sets = ["bridge.user=throng", "bridge.password=wrong"];
        let wrong = unlinked(driver, redis.address(), &sets);
        wait_until("it is refused", || bridge(&wrong, "bridge_failures_total") > 1);
        assert_eq!(bridge(&wrong, "bridge_up"), 0);
    }

    fn any_program_publishes_by_redis_and_what_is_malformed_is_counted(driver) {
        let redis = Redis::start();
        let sets = with_admin(r#""publish""#);
        let nodes = [(); 2].map(|()| linked(driver, redis.address(), &[&sets[0], &sets[1]]));
        let mut clients = members(&redis, &[&nodes[0], &nodes[1]], "lobby");
        redis.publish("throng:room:lobby", r#"{"type":"chat","payload":{"a":1.50}}"#);
        let wrong = [
            "hello",
            "{}",
            r#"{"type":"throng:join"}"#,
            r#"{"type":"x","room":"elsewhere"}"#,
            r#"{"v":2,"type":"x"}"#,
            r#"{"type":"x","unknown":1}"#,
        ];
        wrong.iter().for_each(|text| redis.publish("throng:room:lobby", text));
        let body = r#"{"type":"by http","room":"lobby"}"#;
        let admin = nodes[1].admin_address().unwrap();
        for client in &mut clients {
            let push = client.next();
            let expected = json!({"type": "chat", "room": "lobby", "offset": 1, "payload": {"a": 1.5}});
            assert_eq!(push, expected, "and no connection is named as its author");
        }
        redis.publish("throng:all", r#"{"type":"news","everyone":true}"#);
        for client in &mut clients {
            assert_eq!(client.next()["type"], "news");
        }
        assert_eq!(ask(admin, "POST /v1/publish", body).0, 200);
        for client in &mut clients {
            assert_eq!(client.next()["type"], "by http");
            client.expect_silence();
        }
        for node in &nodes {
            assert_eq!(bridge(node, "bridge_malformed_total"), wrong.len() as u64);
        }
    }
}
