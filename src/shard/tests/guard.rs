//! A shard where everybody must say who they are, tokens for it, and clients that knock.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::auth::{Access, Algorithm, Key, KeySet, Mode, Source, TicketKey, Who};
use crate::base::id::ConnId;
use crate::shard::Settings;
use crate::shard::tests::rig::{Heard, Rig, settings};

const SECRET: &[u8; 32] = b"a secret of no less than 32 byte";
const HEAD: &str = "Host: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A token of these claims; the rig's clock begins 60 s after 1970.
pub(super) fn token(claims: &Value) -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let message =
        format!("{}.{}", encode(br#"{"alg":"HS256"}"#), encode(claims.to_string().as_bytes()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    format!("{message}.{}", encode(tag.as_ref()))
}

pub(super) fn ada() -> Value {
    json!({"sub": "ada", "jti": "t-1", "iat": 50, "exp": 5000, "rooms": ["a", "b*"]})
}

pub(super) fn keys() -> KeySet {
    KeySet::new(vec![Key::from_secret(Algorithm::Hs256, SECRET, None).expect("a key")])
        .expect("a set")
}

pub(super) fn tickets() -> TicketKey {
    TicketKey::new(&[7; 32])
}

/// A shard where everybody must say who they are, in one of these places.
pub(super) fn guarded(sources: &[Source], change: impl FnOnce(&mut Access)) -> Settings {
    let mut access = Access { mode: Mode::Token, max_revocations: 100, ..Access::default() };
    access.verifier.keys = keys();
    access.verifier.rules.leeway = 0;
    access.sources.order = sources.to_vec();
    access.sources.cookie = "t".to_owned();
    access.tickets = Some(tickets());
    access.reauth_before = Duration::from_secs(10);
    change(&mut access);
    let mut settings = settings();
    settings.access = Arc::new(access);
    settings.own_keys = keys();
    settings.rooms.join = Who::Granted;
    settings.rooms.publish = Who::Granted;
    settings
}

pub(super) fn by_header() -> Rig {
    Rig::new(0, 1, guarded(&[Source::Header], |_| {}))
}

/// Sends a request with these headers and lets the shard answer.
pub(super) fn knock(rig: &mut Rig, target: &str, headers: &str) -> ConnId {
    let conn = rig.accept().expect("let in");
    rig.receive(conn, format!("GET {target} HTTP/1.1\r\n{HEAD}{headers}\r\n").as_bytes());
    rig.settle();
    conn
}

/// The response to a request, and the frames behind it.
pub(super) fn answer(rig: &mut Rig, conn: ConnId) -> (String, Vec<Heard>) {
    let bytes = rig.bytes(conn);
    let end = bytes.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
    let (head, rest) = bytes.split_at(end);
    let head = String::from_utf8_lossy(head).into_owned();
    let frames = if head.starts_with("HTTP/1.1 101 ") { rig.frames(rest) } else { Vec::new() };
    (head, frames)
}

pub(super) fn bearer(claims: &Value) -> String {
    format!("Authorization: Bearer {}\r\n", token(claims))
}

/// A client with that token, greeted.
pub(super) fn enter(rig: &mut Rig, claims: &Value) -> ConnId {
    let conn = knock(rig, "/ws", &bearer(claims));
    let (head, frames) = answer(rig, conn);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let [Heard::Text(hello)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((&hello["type"], &hello["userId"]), (&json!("throng:connected"), &claims["sub"]));
    conn
}

pub(super) fn ask(rig: &mut Rig, conn: ConnId, text: &str) -> Value {
    rig.say(conn, text);
    rig.settle();
    match rig.heard(conn).pop() {
        Some(Heard::Text(reply)) => reply,
        other => panic!("{text} -> {other:?}"),
    }
}

pub(super) fn join(room: &str) -> String {
    json!({"type": "throng:join", "room": room, "ref": 1}).to_string()
}

pub(super) fn login(claims: &Value) -> String {
    json!({"type": "throng:auth", "token": token(claims), "ref": 9}).to_string()
}
