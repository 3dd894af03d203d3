//! What a peer can do to a connection without a single wrong byte: vanish, reset, half-close, not read.

use serde_json::json;

use super::arena::Arena;
use super::peer::{End, GOOD, Peer, masked, text};
use crate::support::{Client, on_both_drivers};

type Deed = fn(&Arena);

const JOIN: &str = r#"{"type":"throng:join","room":"arena2"}"#;

/// Cases by name; each leaves nothing of its own open. These cost little, and are done many times over.
const DEEDS: [(&str, Deed); 13] = [
    ("connections that end at once", |arena| {
        (0..200).for_each(|_| drop(Peer::connect(arena.address())));
    }),
    ("connections that are reset at once", |arena| {
        (0..200).for_each(|_| Peer::connect(arena.address()).reset());
    }),
    ("an end in the middle of a head", |arena| {
        let mut peer = Peer::connect(arena.address());
        peer.send(&GOOD.as_bytes()[..20]);
        peer.finish();
        peer.expect("an end in a head", &End::Gone);
    }),
    ("a reset in the middle of a head", |arena| {
        for sent in 1..GOOD.len() {
            let mut peer = Peer::connect(arena.address());
            peer.send(&GOOD.as_bytes()[..sent]);
            peer.reset();
        }
    }),
    ("a reset right behind a head", |arena| {
        for _ in 0..100 {
            let mut peer = Peer::connect(arena.address());
            peer.send(GOOD.as_bytes());
            peer.reset();
        }
    }),
    ("an end right behind the handshake", |arena| {
        let mut peer = Peer::upgraded(arena.address());
        peer.finish();
        peer.expect("an end behind the handshake", &End::Gone);
    }),
    ("an end in the middle of a frame", |arena| {
        let mut peer = Peer::upgraded(arena.address());
        peer.send(&text(JOIN)[..9]);
        peer.finish();
        peer.expect("an end in a frame", &End::Gone);
    }),
    ("a reset in the middle of a frame", |arena| {
        let frame = text(JOIN);
        for sent in 0..frame.len() {
            let mut peer = Peer::upgraded(arena.address());
            peer.send(&frame[..sent]);
            peer.reset();
        }
    }),
    ("a reset while a join is under way", |arena| {
        for _ in 0..100 {
            let mut peer = Peer::upgraded(arena.address());
            peer.send(&text(JOIN));
            peer.reset();
        }
    }),
    ("a close frame and then a reset", |arena| {
        for _ in 0..100 {
            let mut peer = Peer::upgraded(arena.address());
            peer.send(&masked(0x88, &[3, 232]));
            peer.reset();
        }
    }),
    ("a close frame that is never answered", |arena| {
        let mut peer = Peer::upgraded(arena.address());
        peer.send(&[0x81, 0x00]);
        // The server's close frame comes, and ours never does: it gives up by itself.
        peer.expect("no answer to a close", &End::Gone);
    }),
    ("bytes out of band", |arena| {
        let mut peer = Peer::upgraded(arena.address());
        peer.urge();
        peer.expect("a byte out of band", &End::Lives);
    }),
    ("a member that half-closes while others publish", half_closed_member),
];

/// What takes a lot of memory while it lasts.
const LARGE: [(&str, Deed); 3] = [
    ("a reset in the middle of a large message", |arena| {
        let frame = masked(0x81, &vec![b'a'; 65_000]);
        for sent in [7, 100, 30_000, 64_999] {
            let mut peer = Peer::upgraded(arena.address());
            peer.send(&frame[..sent]);
            peer.reset();
        }
    }),
    ("a member that does not read and then resets", deaf_member),
    ("five hundred handshakes that stop half way", |arena| {
        let mut peers: Vec<Peer> = (0..500).map(|_| Peer::connect(arena.address())).collect();
        peers.iter_mut().for_each(|peer| peer.send(&GOOD.as_bytes()[..50]));
        let mut client = Client::connect(arena.address());
        client.expect_silence();
    }),
];

fn half_closed_member(arena: &Arena) {
    let mut member = Peer::upgraded(arena.address());
    member.send(&text(JOIN));
    let mut author = Client::connect(arena.address());
    member.finish();
    for number in 0..100 {
        author.send(&json!({"type": "x", "room": "arena2", "payload": number}));
    }
    member.expect("a member that has half-closed", &End::Gone);
    author.expect_silence();
}

fn deaf_member(arena: &Arena) {
    let mut member = Peer::upgraded(arena.address());
    member.send(&text(JOIN));
    let mut author = Client::connect(arena.address());
    let payload = "x".repeat(10_000);
    for _ in 0..1000 {
        author.send(&json!({"type": "x", "room": "arena2", "payload": payload}));
    }
    author.expect_silence();
    member.reset();
    author.expect_silence();
}

/// How many cases there are here.
pub(super) fn count() -> usize {
    DEEDS.len() + LARGE.len()
}

on_both_drivers! {
    fn whatever_a_peer_does_to_its_connection_nobody_else_notices(driver) {
        let arena = Arena::open(driver);
        for (name, deed) in DEEDS.into_iter().chain(LARGE) {
            deed(&arena);
            arena.check(name);
        }
        arena.repeat("what peers do to their connections", || {
            DEEDS.iter().for_each(|(_, deed)| deed(&arena));
        });
        arena.close();
    }
}
