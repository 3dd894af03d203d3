//! Tokens at the door, in every place they may stand, and by a first message.

use std::time::Duration;

use serde_json::json;

use crate::auth::{OriginRule, Source};
use crate::base::id::ConnId;
use crate::contract::Event;
use crate::shard::tests::guard::{
    ada, answer, ask, bearer, by_header, enter, guarded, join, knock, login, token,
};
use crate::shard::tests::rig::{Heard, Rig, frame};

#[test]
fn a_bad_or_missing_token_gets_401_and_nothing_comes_of_it() {
    let mut rig = by_header();
    let expired = bearer(&json!({"sub": "ada", "exp": 59}));
    let forged = bearer(&ada()).replace('.', ".x");
    for (headers, challenge) in [
        ("", "WWW-Authenticate: Bearer\r\n"),
        ("Cookie: t=x\r\n", "WWW-Authenticate: Bearer\r\n"),
        ("Authorization: Bearer x\r\n", "Bearer error=\"invalid_token\"\r\n"),
        (&expired, "Bearer error=\"invalid_token\"\r\n"),
        (&forged, "Bearer error=\"invalid_token\"\r\n"),
    ] {
        let conn = knock(&mut rig, "/ws", headers);
        let (head, _) = answer(&mut rig, conn);
        assert!(head.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{head}");
        assert!(head.contains(challenge) && head.contains("Connection: close"), "{head}");
        assert!(rig.shard.table.peek(conn.index).is_some_and(|c| !c.is_living()));
    }
    let counters = rig.shard.counters();
    assert_eq!(counters.auth_refused_total, 5);
    assert_eq!((counters.auth_missing_total, counters.auth_expired_total), (2, 1));
    assert_eq!((counters.auth_malformed_total, counters.auth_untrusted_total), (1, 1));
    assert_eq!(counters.handshakes_refused_total, 5);
    assert_eq!((counters.handshakes_total, counters.logins_total), (0, 0));
    assert_eq!((counters.rooms, counters.memberships, counters.home_rooms), (0, 0, 0));
    assert_eq!((counters.mail_sent_total, counters.authenticated_connections), (0, 0));
}

#[test]
fn a_good_token_names_the_user_and_its_own_room_ends_with_the_connection() {
    let mut rig = by_header();
    let conn = enter(&mut rig, &ada());
    rig.settle();
    let counters = rig.shard.counters();
    assert_eq!((counters.authenticated_connections, counters.logins_total), (1, 1));
    assert_eq!((counters.rooms, counters.memberships, counters.users_online), (1, 1, 1));
    assert_eq!(counters.home_rooms, 0, "the roster has the user, at less cost");
    rig.event(Event::ReceivedEnd { conn });
    rig.settle();
    let counters = rig.shard.counters();
    assert_eq!((counters.authenticated_connections, counters.rooms), (0, 0));
    assert_eq!((counters.users_online, counters.connections), (0, 0));
}

#[test]
fn a_token_offered_as_a_subprotocol_is_taken_and_never_named_in_the_answer() {
    let mut rig = Rig::new(0, 1, guarded(&[Source::Subprotocol], |_| {}));
    let token = token(&ada());
    let headers = format!("Sec-WebSocket-Protocol: throng.token.{token}, throng.v1.json\r\n");
    let conn = knock(&mut rig, "/ws", &headers);
    let (head, frames) = answer(&mut rig, conn);
    assert!(head.contains("Sec-WebSocket-Protocol: throng.v1.json\r\n"), "{head}");
    assert!(!head.contains("token") && frames.len() == 1, "{head}");
    let alone = format!("Sec-WebSocket-Protocol: throng.token.{token}\r\n");
    let conn = knock(&mut rig, "/ws", &alone);
    let (head, _) = answer(&mut rig, conn);
    assert!(head.starts_with("HTTP/1.1 400 ") && !head.contains(&token), "{head}");
}

#[test]
fn a_foreign_page_is_refused_with_403_before_its_token_is_looked_at() {
    let settings = guarded(&[Source::Header, Source::Cookie], |access| {
        access.origins.allowed = vec![OriginRule::parse("https://app.example").expect("a rule")];
        access.origins.cookies = true;
    });
    let mut rig = Rig::new(0, 1, settings);
    let cookie = format!("Cookie: t={}\r\n", token(&ada()));
    let cases = [
        ("Origin: https://evil.example\r\nAuthorization: Bearer x\r\n".to_owned(), "403"),
        (format!("Origin: https://evil.example\r\n{cookie}"), "403"),
        (cookie.clone(), "403"),
        (format!("Origin: https://app.example\r\n{cookie}"), "101"),
        (bearer(&ada()), "101"),
        ("Origin: https://app.example\r\n".to_owned(), "401"),
    ];
    for (headers, status) in &cases {
        let conn = knock(&mut rig, "/ws", headers);
        let (head, _) = answer(&mut rig, conn);
        assert_eq!(&head[9..12], *status, "{headers}");
    }
    let counters = rig.shard.counters();
    assert_eq!((counters.origin_refused_total, counters.auth_refused_total), (3, 1));
    assert_eq!(counters.handshakes_total, 2);
}

#[test]
fn a_browser_may_be_told_by_a_close_frame_and_a_program_gets_its_401() {
    let settings = guarded(&[Source::Header], |access| access.browser_errors = true);
    let mut rig = Rig::new(0, 1, settings);
    let conn = knock(&mut rig, "/ws", "Origin: https://a\r\n");
    let (head, frames) = answer(&mut rig, conn);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(frames, [Heard::Close(1008)]);
    let conn = knock(&mut rig, "/ws", "");
    assert!(answer(&mut rig, conn).0.starts_with("HTTP/1.1 401 "));
    let counters = rig.shard.counters();
    assert_eq!((counters.auth_closed_total, counters.auth_missing_total), (1, 2));
    assert_eq!((counters.handshakes_total, counters.rooms), (0, 0));
}

/// A client that has said nothing yet and may do so by its first message.
fn silent(rig: &mut Rig) -> ConnId {
    let conn = knock(rig, "/ws", "");
    let (head, frames) = answer(rig, conn);
    assert!(head.starts_with("HTTP/1.1 101 ") && frames.is_empty(), "{head} {frames:?}");
    conn
}

#[test]
fn a_first_message_may_say_who_the_client_is() {
    let mut rig = Rig::new(0, 1, guarded(&[Source::Message], |_| {}));
    let conn = silent(&mut rig);
    assert_eq!(rig.shard.counters().handshakes_total, 0, "nobody has come in yet");
    rig.say(conn, &login(&ada()));
    rig.settle();
    let heard = rig.heard(conn);
    let [Heard::Text(hello), Heard::Text(reply)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((&hello["type"], &hello["userId"]), (&json!("throng:connected"), &json!("ada")));
    assert_eq!((&reply["ref"], &reply["expiresAt"]), (&json!(9), &json!(5000)));
    assert_eq!(ask(&mut rig, conn, &join("a"))["ok"], json!(true));
    let first_is_wrong = [
        login(&json!({"sub": "ada", "exp": 59})),
        r#"{"type":"throng:auth","token":7}"#.to_owned(),
        join("a"),
        "nonsense".to_owned(),
    ];
    for text in &first_is_wrong {
        let conn = silent(&mut rig);
        rig.say(conn, text);
        rig.settle();
        assert_eq!(rig.heard(conn), [Heard::Close(1008)], "{text}");
    }
    let conn = silent(&mut rig);
    rig.receive(conn, &frame(0x82, b"binary"));
    rig.settle();
    assert_eq!(rig.heard(conn), [Heard::Close(1008)]);
    let counters = rig.shard.counters();
    assert_eq!((counters.auth_closed_total, counters.logins_total), (5, 1));
}

#[test]
fn who_says_nothing_until_the_deadline_is_closed_with_1008() {
    let mut rig = Rig::new(0, 1, guarded(&[Source::Message], |_| {}));
    let conn = silent(&mut rig);
    rig.later(Duration::from_secs(9));
    rig.settle();
    assert_eq!(rig.heard(conn), []);
    rig.later(Duration::from_secs(2));
    rig.settle();
    assert_eq!(rig.heard(conn), [Heard::Close(1008)]);
    assert_eq!(rig.shard.counters().auth_closed_total, 1);
}

#[test]
fn an_open_shard_knows_nobody_and_asks_for_nothing() {
    let mut rig = Rig::alone();
    let conn = knock(&mut rig, "/ws?token=x", "Authorization: Bearer x\r\n");
    let (head, frames) = answer(&mut rig, conn);
    assert!(head.starts_with("HTTP/1.1 101 ") && frames.len() == 1, "{head}");
    let error = ask(&mut rig, conn, &login(&ada()));
    assert_eq!(error["code"], "unauthorized");
    assert_eq!(rig.shard.counters().authenticated_connections, 0);
    assert_eq!(rig.shard.gate.people.bound(), 0, "anonymous connections cost nothing there");
}
