//! What is no token, over the wire: in every place that the node looks at, and as a message.

use serde_json::json;

use super::arena::{Arena, CHEAP};
use super::peer::{End, Peer, text};
use crate::auth::{SECRET, b64, token, token_under};
use crate::support::on_both_drivers;

const HS: &str = r#"{"alg":"HS256"}"#;

/// Signed by us, with claims that need not even be JSON.
fn of(claims: &[u8]) -> String {
    under(HS.as_bytes(), claims)
}

fn under(header: &[u8], claims: &[u8]) -> String {
    let message = format!("{}.{}", b64(header), b64(claims));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("{message}.{}", b64(aws_lc_rs::hmac::sign(&key, message.as_bytes())))
}

/// Tokens that are cut, joined, or no tokens at all.
fn shapes() -> Vec<(&'static str, String)> {
    let good = token(&json!({"sub": "ada"}));
    let (message, tag) = good.rsplit_once('.').unwrap();
    let (header, claims) = message.split_once('.').unwrap();
    vec![
        ("one letter", "a".to_owned()),
        ("one dot", ".".to_owned()),
        ("two dots", "..".to_owned()),
        ("a thousand dots", ".".repeat(1000)),
        ("only a header", header.to_owned()),
        ("no signature", message.to_owned()),
        ("an empty signature", format!("{message}.")),
        ("an empty header", format!(".{claims}.{tag}")),
        ("empty claims", format!("{header}..{tag}")),
        ("five parts", format!("{good}.{tag}.{tag}")),
        ("the signature twice", format!("{message}.{tag}{tag}")),
        ("the signature cut", format!("{message}.{}", &tag[..tag.len() - 4])),
        ("a signature of zeros", format!("{message}.{}", b64([0; 32]))),
        ("a signature of ten thousand bits", format!("{message}.{}", "A".repeat(1700))),
        ("base64 of the other alphabet", format!("{header}+/.{claims}.{tag}")),
        ("padding", format!("{header}==.{claims}.{tag}")),
        ("parts in another order", format!("{claims}.{header}.{tag}")),
        ("another's secret", token_under(HS, &"x".repeat(32), &json!({"sub": "ada"}))),
        ("more bytes than a token has", format!("{message}.{}", "A".repeat(8200))),
    ]
}

/// Headers that ask for something else than what we know.
fn headers() -> Vec<(&'static str, String)> {
    let good = br#"{"sub":"ada"}"#;
    let unsigned = |name: &str| format!("{}.{}.", b64(format!("{{\"alg\":{name:?}}}")), b64(good));
    let deep = format!("{{\"alg\":{}1{}}}", "[".repeat(900), "]".repeat(900));
    vec![
        ("no algorithm at all", unsigned("none")),
        ("no algorithm in capitals", unsigned("NONE")),
        ("no algorithm in a mixture", unsigned("nOnE")),
        ("an algorithm of public keys", under(br#"{"alg":"RS256"}"#, good)),
        ("an algorithm nobody knows", under(br#"{"alg":"HS1"}"#, good)),
        ("an algorithm that is a number", under(br#"{"alg":7}"#, good)),
        ("an algorithm that is a pit", under(deep.as_bytes(), good)),
        ("two algorithms", under(br#"{"alg":"HS256","alg":"none"}"#, good)),
        ("an extension that must be known", under(br#"{"alg":"HS256","crit":["x"]}"#, good)),
        ("a header that is a list", under(b"[\"HS256\"]", good)),
        ("a header that is no JSON", under(b"alg=HS256", good)),
        ("a header that is not UTF-8", under(b"{\"alg\":\"\xff\"}", good)),
        ("a header of NULs", under(&[0; 40], good)),
    ]
}

/// Claims that cannot be, all of them signed as they should.
fn claims() -> Vec<(&'static str, String)> {
    let long = json!({"sub": "a".repeat(129)}).to_string();
    let many = json!({"sub": "ada", "rooms": vec!["r"; 257]}).to_string();
    let pit = format!("{{\"sub\":{}1{}}}", "[".repeat(2000), "]".repeat(2000));
    vec![
        ("claims that are null", of(b"null")),
        ("claims that are a list", of(b"[{\"sub\":\"ada\"}]")),
        ("claims cut short", of(br#"{"sub":"ada""#)),
        ("claims with more behind them", of(br#"{"sub":"ada"}{}"#)),
        ("claims that are not UTF-8", of(b"{\"sub\":\"\xc3\"}")),
        ("a claim twice", of(br#"{"sub":"ada","sub":"bob"}"#)),
        ("a claim twice, once in disguise", of(br#"{"sub":"ada","\u0073ub":"bob"}"#)),
        ("nobody", of(b"{}")),
        ("a user without a name", of(br#"{"sub":""}"#)),
        ("a user who is a number", of(br#"{"sub":7}"#)),
        ("a user who is a pit", of(pit.as_bytes())),
        ("a user of the node's own", of(br#"{"sub":"\u001eada"}"#)),
        ("a user with a NUL", of(br#"{"sub":"a\u0000b"}"#)),
        ("a name too long", of(long.as_bytes())),
        ("a tenant that reaches into another", of(br#"{"sub":"ada","tenant":"x\u001fy"}"#)),
        ("an end long ago", of(br#"{"sub":"ada","exp":1}"#)),
        ("an end before all time", of(br#"{"sub":"ada","exp":-1}"#)),
        ("an end beyond all numbers", of(br#"{"sub":"ada","exp":99999999999999999999999}"#)),
        ("an end in words", of(br#"{"sub":"ada","exp":"tomorrow"}"#)),
        ("a begin far ahead", of(br#"{"sub":"ada","nbf":99999999999}"#)),
        ("another audience", of(br#"{"sub":"ada","aud":"somebody else"}"#)),
        ("rooms that are a word", of(br#"{"sub":"ada","rooms":"*"}"#)),
        ("a right nobody has", of(br#"{"sub":"ada","rooms":{"*":["reign"]}}"#)),
        ("more rooms than a token has", of(many.as_bytes())),
        ("limits that are a list", of(br#"{"sub":"ada","limits":[1]}"#)),
        ("a limit below nothing", of(br#"{"sub":"ada","limits":{"messages_per_second":-5}}"#)),
        ("a limit of nothing", of(br#"{"sub":"ada","limits":{"bytes_per_second":0}}"#)),
        ("a limit beyond all numbers", of(br#"{"sub":"ada","limits":{"rooms":1e99}}"#)),
    ]
}

fn all() -> Vec<(&'static str, String)> {
    [shapes(), headers(), claims()].concat()
}

fn request(target: &str, lines: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Origin: http://a\r\n{lines}\r\n"
    )
    .into_bytes()
}

/// Places that hold what no token could stand in, or more than one.
fn places() -> Vec<(&'static str, Vec<u8>, End)> {
    let good = token(&json!({"sub": "ada"}));
    let bearer = format!("Authorization: Bearer {good}\r\n");
    let cookie = format!("Cookie: throng_token={good}\r\n");
    let offer = format!("Sec-WebSocket-Protocol: throng.v1.json, throng.token.{good}");
    let no = End::Status(401);
    vec![
        ("no token", request("/ws", ""), no.clone()),
        ("two headers", request("/ws", &bearer.repeat(2)), no.clone()),
        ("another scheme", request("/ws", "Authorization: Basic YTpi\r\n"), no.clone()),
        ("a scheme alone", request("/ws", "Authorization: Bearer\r\n"), no.clone()),
        ("an empty header", request("/ws", "Authorization:\r\n"), no.clone()),
        (
            "two tokens in one header",
            request("/ws", &format!("Authorization: Bearer {good}, {good}\r\n")),
            no.clone(),
        ),
        (
            "a header that is not ASCII",
            request("/ws", "Authorization: Bearer \u{e9}.\u{e9}.\u{e9}\r\n"),
            no.clone(),
        ),
        ("an empty cookie", request("/ws", "Cookie: throng_token=\r\n"), no.clone()),
        (
            "two cookies that differ",
            request("/ws", &format!("{cookie}Cookie: throng_token=x\r\n")),
            no.clone(),
        ),
        (
            "two tokens offered",
            request("/ws", &format!("{offer}, throng.token.x.y.z\r\n")),
            no.clone(),
        ),
        (
            "an empty offer",
            request("/ws", "Sec-WebSocket-Protocol: throng.v1.json, throng.token.\r\n"),
            no.clone(),
        ),
        ("an empty query", request("/ws?token=", ""), no.clone()),
        ("a query of nonsense", request("/ws?token=%00%ff%zz", ""), no.clone()),
        ("two queries", request(&format!("/ws?token={good}&token={good}"), ""), no.clone()),
        ("a ticket of nonsense", request("/ws?ticket=AAAA.AAAA", ""), no.clone()),
        ("a token for a ticket", request(&format!("/ws?ticket={good}"), ""), no),
        (
            "a megabyte of token",
            request("/ws", &format!("Authorization: Bearer {}\r\n", "a".repeat(1 << 20))),
            End::Status(431),
        ),
    ]
}

/// First messages that hold no token.
const MESSAGES: [(&str, &str); 5] = [
    ("no token", r#"{"type":"throng:auth"}"#),
    ("a token that is a number", r#"{"type":"throng:auth","token":7}"#),
    ("two tokens", r#"{"type":"throng:auth","token":"a","token":"b"}"#),
    ("another command", r#"{"type":"throng:ping"}"#),
    ("no JSON", "token"),
];

/// How often a wave does each of them.
const AGAIN: usize = 2;

/// How many say all of them, one after another, in a wave.
const TALKERS: usize = 10;

/// How many cases there are here.
pub(super) fn count() -> usize {
    all().len() + places().len() + MESSAGES.len()
}

/// What is no token, in every place that a handshake has for one.
fn knock_everywhere(arena: &Arena, (name, token): &(&str, String)) {
    let requests = [
        request("/ws", &format!("Authorization: Bearer {token}\r\n")),
        request("/ws", &format!("Cookie: throng_token={token}\r\n")),
        request(
            "/ws",
            &format!("Sec-WebSocket-Protocol: throng.v1.json, throng.token.{token}\r\n"),
        ),
        request(&format!("/ws?token={token}"), ""),
        request(&format!("/ws?ticket={token}"), ""),
    ];
    for (place, bytes) in requests.into_iter().enumerate() {
        // What no subprotocol's name or target can hold is no request either.
        let is_unwritable = place == 2 && token.contains(['/', '=', '+']);
        let is_long = token.len() > 8100 && place > 2;
        let status = match (is_unwritable, is_long) {
            (true, _) => 400,
            (_, true) => 414,
            _ => 401,
        };
        let mut peer = Peer::connect(arena.address());
        peer.send(&bytes);
        peer.expect(&format!("{name} in place {place}"), &End::Status(status));
    }
}

/// What is no token, as a first message.
fn say_first(arena: &Arena, name: &str, message: &str) {
    let mut peer = Peer::connect(arena.address());
    peer.send(&request("/ws", ""));
    peer.send(&text(message));
    peer.expect_unheard(name, 1008);
}

/// What is no token, on a connection that has shown one.
fn say_later(peer: &mut Peer, name: &str, token: &str) {
    peer.send(&text(&json!({"type": "throng:auth", "token": token}).to_string()));
    peer.expect(name, &End::Error("unauthorized"));
    // Its first token holds still: it does what that one allows.
    peer.send(&text(r#"{"type":"throng:join","room":"own","ref":"own"}"#));
    let reply = peer.message().expect("a reply");
    assert_eq!((&reply["ref"], &reply["ok"]), (&json!("own"), &json!(true)), "{name}: {reply}");
    peer.send(&text(r#"{"type":"throng:leave","room":"own","ref":"gone"}"#));
    assert_eq!(peer.message().expect("a reply")["ref"], "gone", "{name}");
}

on_both_drivers! {
    fn what_is_no_token_is_refused_wherever_it_stands(driver) {
        let sources = r#"["header", "cookie", "subprotocol", "query", "ticket"]"#;
        let arena = Arena::open_guarded(driver, sources);
        let tokens = all();
        assert!(tokens.len() >= 60, "{} kinds", tokens.len());
        for token in &tokens {
            knock_everywhere(&arena, token);
            arena.check(token.0);
        }
        let cheap = || tokens.iter().filter(|(_, token)| token.len() <= CHEAP);
        arena.repeat("tokens everywhere", || {
            (0..AGAIN).for_each(|_| cheap().for_each(|token| knock_everywhere(&arena, token)));
        });
        arena.run_raw(places());
        let counters = arena.counters();
        assert_eq!(counters["logins_total"], counters["handshakes_total"], "only fresh clients");
        arena.close();
    }

    fn what_is_no_token_in_a_first_message_closes_with_1008(driver) {
        let arena = Arena::open_guarded(driver, r#"["header", "message"]"#);
        let tokens = all().into_iter().map(|(name, token)| {
            (name, json!({"type": "throng:auth", "token": token}).to_string())
        });
        let others = MESSAGES.map(|(name, message)| (name, message.to_owned()));
        let messages: Vec<(&str, String)> = tokens.chain(others).collect();
        for (name, message) in &messages {
            say_first(&arena, name, message);
            arena.check(name);
        }
        let cheap = || messages.iter().filter(|(_, message)| message.len() <= CHEAP);
        arena.repeat("first messages", || {
            for _ in 0..AGAIN {
                cheap().for_each(|(name, message)| say_first(&arena, name, message));
            }
        });
        arena.close();
    }

    fn what_is_no_token_on_an_open_connection_is_answered_and_the_old_one_holds(driver) {
        let arena = Arena::open_guarded(driver, r#"["header"]"#);
        let good = token(&json!({"sub": "ada", "rooms": ["own"]}));
        let bearer = format!("Authorization: Bearer {good}\r\n");
        let enter = || {
            let mut peer = Peer::connect(arena.address());
            peer.send(&request("/ws", &bearer));
            peer.expect_upgraded("the first token", &End::Lives);
            peer
        };
        let tokens = all();
        let mut peer = enter();
        for (name, token) in &tokens {
            say_later(&mut peer, name, token);
            // Others are served beside it.
            arena.serve(name);
        }
        drop(peer);
        arena.check("all kinds on one connection");
        let cheap = || tokens.iter().filter(|(_, token)| token.len() <= CHEAP);
        arena.repeat("tokens on open connections", || {
            for _ in 0..TALKERS {
                let mut peer = enter();
                cheap().for_each(|(name, token)| say_later(&mut peer, name, token));
            }
        });
        arena.close();
    }
}
