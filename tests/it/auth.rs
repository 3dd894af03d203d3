//! Who may connect: rows A1 to A3, A5 to A7, A9, A11 and A16, over real sockets.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use throng::auth::{Revocation, TokenError};
use throng::node::Node;

use crate::support::{Client, exchange, node, on_both_drivers, wait_for};

pub(crate) const SECRET: &str = "a secret of no less than 32 byte";

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token of these claims; without an end unless they give one.
pub(crate) fn token(claims: &Value) -> String {
    token_under(r#"{"alg":"HS256"}"#, SECRET, claims)
}

/// A token with this header, signed with this secret.
pub(crate) fn token_under(header: &str, secret: &str, claims: &Value) -> String {
    let message = format!("{}.{}", b64(header), b64(claims.to_string()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("{message}.{}", b64(hmac::sign(&key, message.as_bytes())))
}

/// A node where everybody must say who they are.
pub(crate) fn guarded(driver: &str, sets: &[&str]) -> Node {
    let secret = format!("auth.secret={SECRET:?}");
    let own = ["auth.mode=token", secret.as_str(), "auth.require_expiry=false"];
    node(driver, &[&own, sets].concat())
}

/// What a request for an upgrade is answered, up to the end of the stream.
pub(crate) fn knock(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> String {
    let mut request = format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    );
    for (name, value) in headers {
        let _ = write!(request, "{name}: {value}\r\n");
    }
    // A close frame ends what was upgraded; who was refused is gone already.
    let mut bytes = format!("{request}\r\n").into_bytes();
    bytes.extend([0x88, 0x80, 0, 0, 0, 0]);
    exchange(address, &bytes)
}

pub(crate) fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or(answer)
}

pub(crate) fn enter(address: SocketAddr, claims: &Value) -> Client {
    let bearer = format!("Bearer {}", token(claims));
    Client::connect_with(address, "/ws", &[("authorization", &bearer)])
}

on_both_drivers! {
    fn a_bad_or_missing_token_gets_401_and_the_connection_closes(driver) {
        let node = guarded(driver, &[]);
        let good = token(&json!({"sub": "ada"}));
        let bad = [
            String::new(),
            "Bearer".to_owned(),
            "Bearer x".to_owned(),
            format!("Bearer {}", &good[..good.len() - 1]),
            format!("Bearer {good}x"),
            format!("Basic {good}"),
            format!("Bearer {}", token(&json!({"sub": "ada", "exp": 1000}))),
            format!("Bearer {}", token(&json!({"exp": 9_999_999_999_u64}))),
            format!("Bearer {}.{}.", b64(r#"{"alg":"none"}"#), b64(r#"{"sub":"ada"}"#)),
            format!("Bearer {}", "a".repeat(9000)),
        ];
        for value in &bad {
            let answer = knock(node.address(), "/ws", &[("Authorization", value)]);
            assert_eq!(status(&answer), "401", "{value}");
            assert!(answer.contains("WWW-Authenticate: Bearer"), "{answer}");
            assert!(!answer.contains(&good[..20]), "an echo: {answer}");
        }
        // One that is in order is as good as missing in a URL, where nobody has said to look.
        let answer = knock(node.address(), &format!("/ws?token={good}"), &[]);
        assert_eq!(status(&answer), "401", "{answer}");
        wait_for(&node, "nobody is left", |c| c.connections == 0);
        let counters = node.counters();
        assert_eq!(counters.auth_refused_total, bad.len() as u64 + 1);
        assert_eq!((counters.handshakes_total, counters.logins_total), (0, 0));
        assert_eq!((counters.rooms, counters.memberships, counters.home_rooms), (0, 0, 0));
        assert_eq!(counters.mail_sent_total, 0);
        let mut client = enter(node.address(), &json!({"sub": "ada", "rooms": ["lobby"]}));
        client.join("lobby");
    }

    fn a_token_is_taken_only_where_the_configuration_looks_for_it(driver) {
        let good = token(&json!({"sub": "ada"}));
        let (bearer, cookie) = (format!("Bearer {good}"), format!("throng_token={good}"));
        let (offer, query) =
            (format!("throng.v1.json, throng.token.{good}"), format!("/ws?token={good}"));
        let host = ("Origin", "http://localhost");
        for source in ["header", "cookie", "subprotocol", "query"] {
            let node = guarded(driver, &[&format!("auth.sources=[{source:?}]")]);
            let places = [
                ("header", knock(node.address(), "/ws", &[("Authorization", &bearer), host])),
                ("cookie", knock(node.address(), "/ws", &[("Cookie", &cookie), host])),
                (
                    "subprotocol",
                    knock(node.address(), "/ws", &[("Sec-WebSocket-Protocol", &offer), host]),
                ),
                ("query", knock(node.address(), &query, &[host])),
            ];
            for (place, answer) in &places {
                let expected = if *place == source { "101" } else { "401" };
                assert_eq!(status(answer), expected, "{source} listed, {place} used");
                assert!(!answer.contains(&good), "an echo of the token: {answer}");
            }
        }
    }

    /// Row A4: what a token must say, and under which names, is what the configuration says.
    fn claims_are_held_to_the_configuration_and_read_under_its_names(driver) {
        let sets = [
            "auth.require_expiry=true",
            "auth.leeway_ms=60000",
            "auth.max_token_bytes=600",
            r#"auth.audiences=["throng"]"#,
            r#"auth.issuers=["https://issuer.example"]"#,
            "auth.user_claim=uid",
            "auth.tenant_claim=tenantId",
            "auth.rooms_claim=channels",
            "auth.limits_claim=most",
            "auth.deny_claim=suspended",
        ];
        let node = guarded(driver, &sets);
        let now = unix_seconds();
        let good = json!({"uid": "ada", "tenantId": "acme", "channels": ["lobby", "hall"], "most": {"rooms": 1},
            "aud": ["x", "throng"], "iss": "https://issuer.example", "exp": now + 3600, "nbf": now + 30});
        let mut client = enter(node.address(), &good);
        client.join("lobby");
        let refused = client.ask(json!({"type": "throng:join", "room": "hall"}));
        assert_eq!(refused["code"], "room_limit", "the token's own limit: {refused}");
        let refused = client.ask(json!({"type": "throng:join", "room": "other"}));
        assert_eq!(refused["code"], "forbidden");
        // Of the same tenant by the same claim, and of none by another.
        let mut colleague = enter(node.address(), &good);
        let mut other = good.clone();
        (other["tenantId"], other["tenant"]) = (Value::Null, json!("acme"));
        let mut stranger = enter(node.address(), &other);
        for member in [&mut colleague, &mut stranger] {
            member.join("lobby");
        }
        client.send(&json!({"type": "t", "room": "lobby", "payload": 7}));
        for member in [&mut client, &mut colleague] {
            assert_eq!(member.next()["payload"], 7);
        }
        stranger.expect_silence();
        let refused = |claim: &str, value: Value| {
            let mut claims = good.clone();
            claims[claim] = value;
            let bearer = format!("Bearer {}", token(&claims));
            status(&knock(node.address(), "/ws", &[("Authorization", &bearer)])).to_owned()
        };
        for (claim, value, code) in [
            ("x", json!(1), "101"),
            ("exp", json!(now - 30), "101"),
            ("exp", json!(now - 90), "401"),
            ("exp", Value::Null, "401"),
            ("nbf", json!(now + 120), "401"),
            ("aud", json!("elsewhere"), "401"),
            ("iss", json!("https://other.example"), "401"),
            ("uid", Value::Null, "401"),
            ("suspended", json!(true), "403"),
            ("x", json!("x".repeat(600)), "401"),
        ] {
            assert_eq!(refused(claim, value.clone()), code, "{claim} = {value}");
        }
    }

    fn a_foreign_page_is_refused_with_403(driver) {
        let node = guarded(driver, &["auth.allowed_origins=[\"https://*.example.com\"]"]);
        let bearer = format!("Bearer {}", token(&json!({"sub": "ada"})));
        let from = |origin: &str| {
            let headers = [("Authorization", bearer.as_str()), ("Origin", origin)];
            status(&knock(node.address(), "/ws", &headers)).to_owned()
        };
        assert_eq!(from("https://app.example.com"), "101");
        assert_eq!(from("https://example.com.evil.com"), "403");
        assert_eq!(from("null"), "403");
        wait_for(&node, "both are counted", |c| c.origin_refused_total == 2);
    }

    fn where_a_cookie_lets_in_only_pages_of_the_same_origin_may_bring_it(driver) {
        let node = guarded(driver, &[r#"auth.sources=["cookie", "header"]"#]);
        let token = token(&json!({"sub": "ada"}));
        let (cookie, bearer) = (format!("throng_token={token}"), format!("Bearer {token}"));
        let answer = |shown: (&str, &str), origin: Option<&str>| {
            let origin = origin.map(|origin| ("Origin", origin));
            let headers: Vec<(&str, &str)> = [shown].into_iter().chain(origin).collect();
            status(&knock(node.address(), "/ws", &headers)).to_owned()
        };
        for (origin, expected) in [
            (Some("http://localhost"), "101"),
            (Some("https://localhost"), "101"),
            (Some("https://evil.example"), "403"),
            (Some("http://localhost.evil.example"), "403"),
            (Some("http://localhost:81"), "403"),
            (Some("null"), "403"),
            (None, "403"),
        ] {
            assert_eq!(answer(("Cookie", &cookie), origin), expected, "{origin:?}");
        }
        // A header is shown by who has the token; but a browser may have added its cookies to the request of any page.
        assert_eq!(answer(("Authorization", &bearer), None), "101");
        assert_eq!(answer(("Authorization", &bearer), Some("https://evil.example")), "403");
        wait_for(&node, "each is counted", |c| (c.origin_refused_total, c.logins_total) == (6, 3));
        assert_eq!(node.counters().auth_refused_total, 0);
    }

    fn a_namespace_is_for_pages_of_its_origins(driver) {
        let rule = "namespace=[{pattern=\"admin:*\", origins=[\"https://admin.example\"]}]";
        let node = guarded(driver, &[rule]);
        let bearer = format!("Bearer {}", token(&json!({"sub": "ada", "rooms": ["*"]})));
        for (origin, code) in [
            ("https://admin.example", json!(null)),
            ("https://shop.example", json!("forbidden")),
        ] {
            let headers = [("authorization", bearer.as_str()), ("origin", origin)];
            let mut client = Client::connect_with(node.address(), "/ws", &headers);
            let reply = client.ask(json!({"type": "throng:join", "room": "admin:x"}));
            assert_eq!(reply["code"], code, "{origin}: {reply}");
            client.join("lobby");
        }
    }

    fn a_fresh_token_that_grants_less_ends_memberships(driver) {
        let node = guarded(driver, &[]);
        let of = |rooms: &[&str]| json!({"sub": "ada", "rooms": rooms});
        let mut clients: Vec<Client> =
            (0..6).map(|_| enter(node.address(), &of(&["a", "b"]))).collect();
        for client in &mut clients {
            client.join("a");
            client.join("b");
        }
        let fresh = json!({"type": "throng:auth", "token": token(&of(&["b"])), "ref": "fresh"});
        for client in &mut clients {
            client.send(&fresh);
            let left = json!({"type": "throng:left", "room": "a", "reason": "forbidden"});
            assert_eq!(client.next(), left);
            assert_eq!(client.next()["ref"], "fresh");
        }
        wait_for(&node, "all are counted", |c| c.withdrawn_total == 6);
        let mut author = enter(node.address(), &of(&["*"]));
        for room in ["a", "b"] {
            assert_eq!(author.ask(json!({"type": "t", "room": room}))["ok"], json!(true));
        }
        for client in &mut clients {
            assert_eq!(client.next()["room"], "b");
            client.expect_silence();
        }
    }

    fn rights_and_tenants_hold_across_shards(driver) {
        let node = guarded(driver, &["namespace=[{pattern=\"news\", join=\"anyone\", publish=\"nobody\"}]"]);
        let of = |tenant: &str| json!({"sub": "ada", "tenant": tenant, "rooms": ["lobby"]});
        let mut clients: Vec<Client> = Vec::new();
        for number in 0..8 {
            let mut client = enter(node.address(), &of(if number % 2 == 0 { "x" } else { "y" }));
            client.join("lobby");
            client.join("news");
            assert_eq!(
                client.ask(json!({"type": "throng:join", "room": "other"}))["code"],
                "forbidden"
            );
            assert_eq!(client.ask(json!({"type": "t", "room": "news"}))["code"], "forbidden");
            clients.push(client);
        }
        let count = clients[0].ask(json!({"type": "throng:members", "room": "lobby"}));
        assert_eq!(count["members"], json!(4));
        clients[0].send(&json!({"type": "t", "room": "lobby", "payload": 7}));
        for (number, client) in clients.iter_mut().enumerate() {
            if number % 2 == 0 {
                let push = client.next();
                assert_eq!((&push["room"], &push["payload"]), (&json!("lobby"), &json!(7)));
            }
            client.expect_silence();
        }
        wait_for(&node, "all are known", |c| c.authenticated_connections == 8);
        drop(clients);
        wait_for(&node, "nothing is left", |c| c.connections == 0 && c.home_rooms == 0);
    }

    fn a_ticket_lets_in_one_client_of_the_node(driver) {
        let node = guarded(driver, &["auth.sources=[\"ticket\"]"]);
        for _ in 0..8 {
            let claims = r#"{"sub":"ada","rooms":["lobby"]}"#;
            let ticket = node.mint_ticket(claims, 60).expect("a ticket");
            let target = format!("/ws?ticket={ticket}");
            Client::connect_with(node.address(), &target, &[]).join("lobby");
            for _ in 0..4 {
                assert_eq!(status(&knock(node.address(), &target, &[])), "401");
            }
        }
        wait_for(&node, "all are counted", |c| c.auth_ticket_total == 32);
        assert!(node.mint_ticket("{}", 60).is_err());
    }

    fn a_revocation_closes_its_connections_on_every_shard(driver) {
        let node = guarded(driver, &[]);
        let of = |user: &str, id: u32| json!({"sub": user, "iat": 1000, "jti": format!("j{id}")});
        let ada: Vec<Client> = (0..8).map(|id| enter(node.address(), &of("ada", id))).collect();
        let bob = enter(node.address(), &of("bob", 70));
        let mut eve = enter(node.address(), &of("eve", 80));
        let until = u64::MAX;
        node.revoke(Revocation::User { tenant: None, user: "ada".into(), issued: 1000, until });
        node.revoke(Revocation::Token { id: "j70".into(), until });
        for client in ada.into_iter().chain([bob]) {
            assert_eq!(client.close_code(), 1008);
        }
        eve.expect_silence();
        for (user, id) in [("ada", 99), ("bob", 70)] {
            let bearer = format!("Bearer {}", token(&of(user, id)));
            let answer = knock(node.address(), "/ws", &[("Authorization", &bearer)]);
            assert_eq!(status(&answer), "401");
            assert!(answer.contains(TokenError::Revoked.public()), "{answer}");
        }
        enter(node.address(), &json!({"sub": "ada", "iat": 1001})).expect_silence();
        enter(node.address(), &of("bob", 71)).expect_silence();
    }

    fn a_first_message_logs_in_and_anything_else_closes_with_1008(driver) {
        let node = guarded(driver, &["auth.sources=[\"message\"]"]);
        let mut client = Client::connect_silent(node.address());
        let login = json!({"type": "throng:auth", "token": token(&json!({"sub": "ada"}))});
        client.send(&login);
        assert_eq!(client.next()["userId"], "ada");
        client.expect_silence();
        for wrong in [json!({"type": "throng:ping"}), json!({"type": "throng:auth", "token": "x"})] {
            let mut client = Client::connect_silent(node.address());
            client.send(&wrong);
            assert_eq!(client.close_code(), 1008);
        }
        let node = guarded(driver, &["auth.sources=[\"message\"]", "auth.deadline_ms=100"]);
        assert_eq!(Client::connect_silent(node.address()).close_code(), 1008);
    }

    fn the_end_of_a_token_closes_with_4401_unless_a_fresh_one_comes(driver) {
        let node = guarded(driver, &["auth.leeway_ms=0", "auth.reauth_before_ms=3600000"]);
        let now = unix_seconds();
        let of = |exp: u64| json!({"sub": "ada", "exp": exp});
        let mut stays = enter(node.address(), &of(now + 2));
        let mut goes = enter(node.address(), &of(now + 2));
        assert_eq!(goes.next()["type"], "throng:reauth");
        assert_eq!(stays.next()["type"], "throng:reauth");
        let fresh = json!({"type": "throng:auth", "token": token(&of(now + 7200))});
        assert_eq!(stays.ask(fresh)["userId"], "ada");
        assert_eq!(goes.close_code(), 4401);
        stays.expect_silence();
        wait_for(&node, "the end is counted", |c| c.expired_total == 1);
    }
}

/// A key set with one public key, and how its owner signs.
fn curve() -> (tempfile::NamedTempFile, Ed25519KeyPair) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let key = json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": b64(pair.public_key())});
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), json!({ "keys": [key] }).to_string()).unwrap();
    (file, pair)
}

/// A token that only a public key can check.
fn dear(pair: &Ed25519KeyPair, claims: &Value) -> String {
    let message = format!("{}.{}", b64(r#"{"alg":"EdDSA"}"#), b64(claims.to_string()));
    let signature = pair.sign(message.as_bytes());
    format!("{message}.{}", b64(signature))
}

on_both_drivers! {
    fn a_token_that_is_dear_to_check_is_checked_beside_the_shards(driver) {
        let (file, pair) = curve();
        let set = format!("auth.jwks_file={:?}", file.path());
        let node = guarded(driver, &[&set, "auth.check_waiting=1", r#"auth.sources=["header","message"]"#]);
        let claims = json!({"sub": "ada", "rooms": ["lobby"]});
        let bearer = format!("Bearer {}", dear(&pair, &claims));
        let mut client = Client::connect_with(node.address(), "/ws", &[("authorization", &bearer)]);
        assert_eq!(client.join("lobby")["ok"], json!(true));
        let fresh = dear(&pair, &json!({"sub": "ada", "rooms": ["attic"]}));
        client.send(&json!({"type": "throng:auth", "token": fresh, "ref": 1}));
        client.send(&json!({"type": "throng:join", "room": "attic", "ref": 2}));
        let replies: Vec<Value> = std::iter::from_fn(|| Some(client.next()))
            .filter(|reply| reply["ref"].is_number())
            .take(2)
            .collect();
        assert_eq!((&replies[0]["userId"], &replies[1]["ok"]), (&json!("ada"), &json!(true)));
        let forged = format!("{bearer}x");
        assert_eq!(status(&knock(node.address(), "/ws", &[("Authorization", &forged)])), "401");
        enter(node.address(), &claims);
        wait_for(&node, "the figures", |counters| {
            counters.auth_proofs_total == 3
                && (counters.logins_total, counters.reauths_total) == (2, 1)
                && counters.auth_refused_total == 1
        });
    }

    fn a_crowd_with_dear_tokens_is_let_in_or_asked_to_come_back_and_nobody_else_waits(driver) {
        let (file, pair) = curve();
        let set = format!("auth.jwks_file={:?}", file.path());
        let sets = [set.as_str(), "auth.check_waiting=2", "auth.check_threads=2", "server.shards=1"];
        let node = guarded(driver, &sets);
        let bearer = format!("Bearer {}", dear(&pair, &json!({"sub": "ada"})));
        // All requests are there before the first answer is read.
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Authorization: {bearer}\r\n\r\n"
        );
        let clients: Vec<TcpStream> = (0..200)
            .map(|_| {
                let mut socket = TcpStream::connect(node.address()).unwrap();
                socket.write_all(request.as_bytes()).unwrap();
                socket
            })
            .collect();
        let mut told = [0, 0];
        for mut client in clients {
            let mut head = [0; 12];
            client.read_exact(&mut head).unwrap();
            match &head[9..] {
                b"101" => told[0] += 1,
                b"503" => told[1] += 1,
                other => panic!("{}", String::from_utf8_lossy(other)),
            }
        }
        assert!(told[0] > 0, "{told:?}");
        enter(node.address(), &json!({"sub": "bob"}));
        wait_for(&node, "all were answered", |counters| {
            counters.auth_proofs_total == told[0] && counters.auth_proofs_shed_total == told[1]
        });
    }
}

#[expect(clippy::disallowed_methods, reason = "a token's end is a moment of the real clock")]
fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}
