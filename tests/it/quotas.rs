//! Limits of users and tenants over real sockets and both shards.

use serde_json::{Value, json};

use crate::auth::{SECRET, enter, guarded, token};
use crate::process::Program;
use crate::support::{Client, node, on_both_drivers, wait_for, wait_until};

fn of(user: &str, tenant: &str) -> Value {
    json!({"sub": user, "tenant": tenant, "rooms": ["*"]})
}

on_both_drivers! {
    fn a_user_keeps_its_newest_connections(driver) {
        let node = guarded(driver, &["limits_user.max_connections=3"]);
        let mut bob = enter(node.address(), &of("bob", "x"));
        let mut line: Vec<Client> = Vec::new();
        for number in 0..8 {
            line.push(enter(node.address(), &of("ada", "x")));
            // One after another, so that it is known who is the oldest.
            let gone = u64::try_from(line.len()).unwrap().saturating_sub(3);
            wait_for(&node, &format!("{number} are counted"), |c| c.replaced_total == gone);
        }
        let newest = line.split_off(5);
        for client in line {
            assert_eq!(client.close_code(), 4409);
        }
        for mut client in newest {
            client.expect_silence();
        }
        bob.expect_silence();
        drop(bob);
        wait_for(&node, "nobody is counted", |c| c.connections == 0 && c.counted_parties == 0);
    }

    fn a_tenant_has_its_number_of_rooms_over_all_shards(driver) {
        let node = guarded(driver, &["limits_tenant.max_rooms=4"]);
        let mut of_x: Vec<Client> =
            (0..6).map(|number| enter(node.address(), &of(&format!("u{number}"), "x"))).collect();
        wait_for(&node, "six have come", |c| c.authenticated_connections == 6);
        for number in 0..12 {
            let room = format!("room-{number}");
            let reply = of_x[number % 6].ask(json!({"type": "throng:join", "room": room}));
            if number < 4 {
                assert_eq!(reply["ok"], json!(true), "{reply}");
            } else {
                assert_eq!(reply["code"], "tenant_limit", "{reply}");
            }
        }
        wait_for(&node, "the others have ended", |c| c.counted_rooms == 4);
        let mut other = enter(node.address(), &of("eve", "y"));
        other.join("room-11");
        assert_eq!(of_x[0].ask(json!({"type": "throng:leave", "room": "room-0"}))["ok"], json!(true));
        wait_for(&node, "there is a place", |c| c.counted_rooms == 4 && c.rooms_refused_total == 8);
        of_x[1].join("room-8");
        drop((of_x, other));
        wait_for(&node, "nothing is left", |c| {
            c.connections == 0 && c.counted_rooms == 0 && c.counted_parties == 0
        });
    }

    fn a_tenant_over_its_connections_is_closed_with_1013(driver) {
        let node = guarded(driver, &["limits_tenant.max_connections=2"]);
        let mut stay: Vec<Client> =
            ["ada", "bob"].map(|user| enter(node.address(), &of(user, "x"))).into();
        wait_for(&node, "two have come", |c| c.authenticated_connections == 2);
        let bearer = format!("Bearer {}", token(&of("eve", "x")));
        let late = Client::connect_unheard(node.address(), &[("authorization", &bearer)]);
        assert_eq!(late.close_code(), 1013);
        for client in &mut stay {
            client.expect_silence();
        }
        wait_for(&node, "it is counted", |c| c.parties_refused_total == 1 && c.connections == 2);
    }

    fn a_users_connections_share_a_rate_over_all_shards(driver) {
        let node = guarded(driver, &[
            "limits_user.publishes_per_second=1", "limits_user.burst_ms=10000",
        ]);
        let mut clients: Vec<Client> =
            (0..2).map(|_| enter(node.address(), &of("ada", "x"))).collect();
        let mut bob = enter(node.address(), &of("bob", "x"));
        let mut refused = 0;
        for number in 0..60 {
            let answer = clients[number % 2].ask(json!({"type": "t", "rooms": ["a", "b"]}));
            refused += u64::from(answer["code"] == "rate_limited");
        }
        // Ten at once and one a second; a message is two publications. Two shards may give ten each before they
        // hear of each other.
        assert!(refused >= 40, "{refused} of 60");
        assert_eq!(bob.ask(json!({"type": "t", "room": "a"}))["ok"], json!(true));
        assert_eq!(clients[0].ask(json!({"type": "throng:ping"}))["type"], "throng:pong");
        wait_for(&node, "they are counted", |c| c.rate_limited_total == refused);
    }

    fn a_namespace_limits_how_often_a_connection_publishes_there(driver) {
        let rule = "namespace=[{pattern=\"chat:*\", publishes_per_second=1}]";
        let node = guarded(driver, &[rule, "limits.burst_ms=3000"]);
        let mut client = enter(node.address(), &of("ada", "x"));
        let mut answers = |room: &str| -> Vec<Value> {
            let publish = json!({"type": "t", "room": room});
            (0..20).map(|_| client.ask(publish.clone())["code"].clone()).collect()
        };
        let chat = answers("chat:a");
        assert_eq!(chat[..3], [json!(null), json!(null), json!(null)], "three at once");
        assert!(chat.contains(&json!("rate_limited")), "{chat:?}");
        assert!(answers("else").iter().all(Value::is_null));
    }

    fn where_a_user_is_delayed_nothing_is_lost(driver) {
        let node = guarded(driver, &[
            "limits_user.messages_per_second=500", "limits_user.burst_ms=100",
            "limits_user.over_rate=delay",
        ]);
        let mut client = enter(node.address(), &of("ada", "x"));
        for number in 0..1000 {
            client.send(&json!({"type": "throng:ping", "ref": number}));
        }
        for number in 0..1000 {
            assert_eq!(client.next()["ref"], json!(number));
        }
        assert!(node.counters().rate_delays_total > 0);
    }

    fn what_a_token_says_of_limits_holds_for_its_connection(driver) {
        let node = guarded(driver, &[]);
        let mut claims = of("ada", "x");
        claims["limits"] = json!({"rooms": 1, "message_bytes": 256, "messages_per_second": 2});
        let mut client = enter(node.address(), &claims);
        client.join("a");
        assert_eq!(client.ask(json!({"type": "throng:join", "room": "b"}))["code"], "room_limit");
        let late = (0..20).any(|_| {
            client.ask(json!({"type": "throng:ping"}))["code"] == "rate_limited"
        });
        assert!(late, "twenty at once");
        client.send(&json!({"type": "t", "room": "a", "payload": "x".repeat(300)}));
        assert_eq!(client.close_code(), 1009);
    }
}

#[test]
fn a_tenants_own_limits_are_taken_over_on_sighup() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("throng.toml");
    let write = |rooms: u32| {
        let text = format!(
            "[auth]\nmode = \"token\"\nsecret = {SECRET:?}\nrequire_expiry = false\n\
             [limits_tenant]\nmax_rooms = 1\n[[tenant]]\nname = \"x\"\nmax_rooms = {rooms}\n"
        );
        std::fs::write(&file, text).unwrap();
    };
    write(2);
    let program = Program::start(&["--config", file.to_str().unwrap()]);
    let mut own = enter(program.address, &of("ada", "x"));
    let mut other = enter(program.address, &of("ada", "y"));
    for client in [&mut own, &mut other] {
        client.join("a");
    }
    own.join("b");
    for (client, room) in [(&mut own, "c"), (&mut other, "b")] {
        let join = json!({"type": "throng:join", "room": room});
        assert_eq!(client.ask(join)["code"], "tenant_limit");
    }
    write(3);
    program.signal("-HUP");
    wait_until("the new limit holds", || {
        own.ask(json!({"type": "throng:join", "room": "c"}))["ok"] == json!(true)
    });
    assert_eq!(other.ask(json!({"type": "throng:join", "room": "b"}))["code"], "tenant_limit");
    program.signal("-TERM");
    drop((own, other));
    assert_eq!(program.exit_code(), Some(0));
}

on_both_drivers! {
    fn a_type_of_message_has_a_rate_of_its_own(driver) {
        let rate = "rate=[{type=\"typing\", per_second=1}, {type=\"throng:ping\", per_second=1, over_rate=\"close\"}]";
        let node = node(driver, &[rate, "limits.burst_ms=1", "limits.messages_per_second=0"]);
        let mut client = Client::connect(node.address());
        for _ in 0..20 {
            client.send(&json!({"type": "typing", "room": "r"}));
        }
        assert_eq!(client.next()["code"], "rate_limited", "twenty have not come in a second");
        wait_for(&node, "all were weighed", |counters| counters.received_messages_total == 20);
        assert!(node.counters().rate_limited_total >= 10);
        let mut other = Client::connect(node.address());
        for _ in 0..20 {
            other.send(&json!({"type": "throng:ping"}));
        }
        assert_eq!(other.close_code(), 1008);
    }
}
