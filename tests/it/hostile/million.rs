//! A million malformed messages through real sockets: row A13.
//!
//! The simulator's test has the same generator and judges every byte of the answers; this one goes
//! through the kernel, both drivers and two shards. Each batch of messages that are not JSON must be
//! answered by exactly as many errors; one that is not UTF-8, too long, no frame, or a stranger's first and no
//! login, by its close code.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::de::IgnoredAny;
use serde_json::json;

use super::arena::Arena;
use super::damage::{BROKEN, damaged, too_long};
use super::peer::{End, GOOD, Peer, masked, text};
use crate::auth::token;
use crate::support::on_both_drivers;

const MESSAGES: u32 = 1_000_000;
const BATCH: usize = 200;
/// Of the messages that end a connection one in so many is sent: each costs a port of the machine for a
/// minute.
const FATAL: u32 = 128;

/// The next message that is not JSON, or now and then one that ends its connection, with its close code.
fn next(rng: &mut fastrand::Rng) -> (Vec<u8>, Option<u16>) {
    loop {
        match rng.u32(0..20_000) {
            0 => return (BROKEN[rng.usize(..BROKEN.len())].to_vec(), Some(1002)),
            1 => return (too_long(rng), Some(1009)),
            _ => {}
        }
        let message = damaged(rng);
        match std::str::from_utf8(&message) {
            Err(_) if rng.u32(0..FATAL) == 0 => return (masked(0x81, &message), Some(1007)),
            Ok(text) if serde_json::from_str::<IgnoredAny>(text).is_err() => {
                return (masked(0x81, &message), None);
            }
            _ => {}
        }
    }
}

/// One who has shown a token and was greeted.
fn member(address: SocketAddr) -> Peer {
    let token = token(&json!({"sub": "ada", "rooms": ["*"]}));
    let mut peer = Peer::connect(address);
    peer.send(
        GOOD.replacen("Host: a", &format!("Host: a\r\nAuthorization: Bearer {token}"), 1)
            .as_bytes(),
    );
    peer.expect_upgraded("a member", &End::Lives);
    peer
}

/// One who has yet to say who it is, and says something else; with which code it is closed.
fn stranger(address: SocketAddr, rng: &mut fastrand::Rng) -> u16 {
    let message = damaged(rng);
    let code = if std::str::from_utf8(&message).is_ok() { 1008 } else { 1007 };
    let mut peer = Peer::connect(address);
    peer.send(&[GOOD.as_bytes(), &masked(0x81, &message)].concat());
    peer.expect_unheard("a stranger", code);
    code
}

on_both_drivers! {
    fn a_million_malformed_messages_through_sockets_yield_errors_and_closes_only(driver) {
        let arena = Arena::open_guarded(driver, r#"["header", "message"]"#);
        let mut rng = fastrand::Rng::with_seed(if driver == "epoll" { 1 } else { 2 });
        let mut peer = member(arena.address());
        let (mut sent, mut batches) = (0, 0);
        let mut codes = BTreeMap::<u16, u32>::new();
        while sent < MESSAGES {
            let (mut bytes, mut errors, mut fatal) = (Vec::new(), 0, None);
            while errors < BATCH && fatal.is_none() {
                let (message, code) = next(&mut rng);
                bytes.extend(message);
                fatal = code;
                errors += usize::from(code.is_none());
                sent += 1;
            }
            peer.send(&bytes);
            for _ in 0..errors {
                let answer = peer.message().expect("an answer to each");
                assert_eq!(answer["type"], "throng:error", "{answer}");
            }
            match fatal {
                Some(code) => {
                    peer.expect("a fatal message", &End::Close(code));
                    peer = member(arena.address());
                    *codes.entry(code).or_default() += 1;
                }
                None => peer.expect("a batch", &End::Lives),
            }
            batches += 1;
            if batches % 32 == 0 {
                *codes.entry(stranger(arena.address(), &mut rng)).or_default() += 1;
                sent += 1;
            }
        }
        let seen: Vec<u16> = codes.keys().copied().collect();
        assert_eq!(seen, [1002, 1007, 1008, 1009], "{codes:?}");
        assert!(codes.values().all(|times| *times > 20), "{codes:?}");
        peer.send(&text("{"));
        peer.expect("the last", &End::Error("bad_json"));
        drop(peer);
        arena.check("a million malformed messages");
        arena.close();
    }
}
