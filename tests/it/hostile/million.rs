//! A million malformed messages through real sockets: row A13.
//!
//! The simulator's test has the same generator and judges every byte of the answers; this one goes
//! through the kernel, both drivers and two shards. Each batch of messages that are not JSON must be
//! answered by exactly as many errors; one that is not UTF-8, or no frame, by its close code.

use serde::de::IgnoredAny;

use super::arena::Arena;
use super::damage::{BROKEN, damaged};
use super::peer::{End, Peer, masked, text};
use crate::support::on_both_drivers;

const MESSAGES: u32 = 1_000_000;
const BATCH: usize = 200;
/// Of the messages that end a connection one in so many is sent: each costs a port of the machine for a
/// minute.
const FATAL: u32 = 128;

/// The next message that is not JSON, or now and then one that ends its connection, with its close code.
fn next(rng: &mut fastrand::Rng) -> (Vec<u8>, Option<u16>) {
    loop {
        if rng.u32(0..20_000) == 0 {
            return (BROKEN[rng.usize(..BROKEN.len())].to_vec(), Some(1002));
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

on_both_drivers! {
    fn a_million_malformed_messages_through_sockets_yield_errors_and_closes_only(driver) {
        let arena = Arena::open(driver);
        let mut rng = fastrand::Rng::with_seed(if driver == "epoll" { 1 } else { 2 });
        let mut peer = Peer::upgraded(arena.address());
        let (mut sent, mut ended) = (0, 0);
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
                    peer = Peer::upgraded(arena.address());
                    ended += 1;
                }
                None => peer.expect("a batch", &End::Lives),
            }
        }
        assert!(ended > 100, "{ended} ends");
        peer.send(&text("{"));
        peer.expect("the last", &End::Error("bad_json"));
        drop(peer);
        arena.check("a million malformed messages");
        arena.close();
    }
}
