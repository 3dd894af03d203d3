//! Frames that break RFC 6455, declare what they do not bring, or come without end.

use super::arena::{Arena, CROWD, Case};
use super::peer::{End, Peer, masked, text};
use crate::support::on_both_drivers;

const PING: &str = r#"{"type":"throng:ping"}"#;

/// Headers that no client may send.
fn bad_headers() -> Vec<Case<'static>> {
    let mut cases: Vec<Case<'_>> = [0x40, 0x20, 0x10, 0x70]
        .map(|bits| ("reserved bits", masked(0x81 | bits, b"{}"), End::Close(1002)))
        .to_vec();
    let opcodes = [3, 4, 5, 6, 7, 11, 12, 13, 14, 15];
    cases.extend(opcodes.map(|code| ("an opcode", masked(0x80 | code, b""), End::Close(1002))));
    cases.extend([
        ("a text without a mask", vec![0x81, 2, b'{', b'}'], End::Close(1002)),
        ("a ping without a mask", vec![0x89, 0], End::Close(1002)),
        ("a close without a mask", vec![0x88, 0], End::Close(1002)),
        ("a ping of 126 bytes", masked(0x89, &[0; 126]), End::Close(1002)),
        ("a pong of 64 KiB", masked(0x8a, &[0; 65_535]), End::Close(1002)),
        ("a ping in fragments", masked(0x09, b"a"), End::Close(1002)),
        ("a close in fragments", masked(0x08, &[3, 232]), End::Close(1002)),
        ("a continuation of nothing", masked(0x80, b"a"), End::Close(1002)),
        ("a last continuation of nothing", masked(0x00, b"a"), End::Close(1002)),
        (
            "a text inside a text",
            [masked(0x01, b"a"), masked(0x81, b"b")].concat(),
            End::Close(1002),
        ),
        (
            "a binary inside a text",
            [masked(0x01, b"a"), masked(0x02, b"b")].concat(),
            End::Close(1002),
        ),
        ("a short length in 16 bits", vec![0x81, 0xfe, 0, 5, 0, 0, 0, 0], End::Close(1002)),
        (
            "a length in 64 bits",
            [vec![0x81, 0xff], vec![0; 6], vec![1, 0], vec![0; 4]].concat(),
            End::Close(1002),
        ),
        (
            "a length with the highest bit",
            [vec![0x81, 0xff, 0x80], vec![0; 11]].concat(),
            End::Close(1002),
        ),
    ]);
    cases
}

/// What is too much, declared or sent.
fn bombs() -> Vec<Case<'static>> {
    let declare =
        |length: u64| [vec![0x81, 0xff], length.to_be_bytes().to_vec(), vec![0; 4]].concat();
    let many = |count: usize, payload: &[u8]| {
        let first = masked(0x01, payload);
        [first, masked(0x00, payload).repeat(count)].concat()
    };
    vec![
        ("a declared length of 2^62", declare(1 << 62), End::Close(1009)),
        ("a declared length of 2^63 - 1", declare((1 << 63) - 1), End::Close(1009)),
        ("a declared length of 4 GiB", declare(1 << 32), End::Close(1009)),
        ("one byte over the limit", masked(0x81, &vec![b'a'; 65_537]), End::Close(1009)),
        ("ten megabytes", masked(0x81, &vec![b'a'; 10 << 20]), End::Close(1009)),
        ("fragments that add up", many(64, &[b'a'; 1024]), End::Close(1009)),
        (
            "a fragment that tips it",
            [masked(0x01, &vec![b'a'; 65_536]), masked(0x80, b"a")].concat(),
            End::Close(1009),
        ),
        ("empty fragments", many(100_000, b""), End::Close(1009)),
        ("fragments of a byte", many(10_000, b"a"), End::Close(1009)),
        ("binary of ten megabytes", masked(0x82, &vec![0; 10 << 20]), End::Close(1009)),
    ]
}

/// Text that is none.
fn broken_text() -> Vec<Case<'static>> {
    let broken: [(&str, &[u8]); 9] = [
        ("a byte that is never UTF-8", b"{\"\xff\":1}"),
        ("a character cut at the end", b"{}\xe2\x82"),
        ("a continuation byte alone", b"\x80{}"),
        ("an overlong slash", b"\xc0\xaf"),
        ("an overlong NUL in three", b"\xe0\x80\x80"),
        ("a surrogate", b"\xed\xa0\x80"),
        ("beyond the last character", b"\xf4\x90\x80\x80"),
        ("a five byte form", b"\xf8\x88\x80\x80\x80"),
        ("a character cut by a quote", b"\"\xe2\x82\""),
    ];
    let mut cases: Vec<Case<'_>> =
        broken.map(|(name, bytes)| (name, masked(0x81, bytes), End::Close(1007))).to_vec();
    let late = [masked(0x01, b"{}"), masked(0x00, b"  "), masked(0x80, b"\xff")].concat();
    let early = [masked(0x01, b"\xff"), masked(0x00, b"never finished")].concat();
    let whole = "{\"type\":\"throng:ping\",\"ref\":\"\u{20ac}\"}".as_bytes();
    let cut = whole.len() - 4;
    let split = [masked(0x01, &whole[..cut]), masked(0x80, &whole[cut..])].concat();
    cases.extend([
        ("broken in the last fragment", late, End::Close(1007)),
        ("broken in the first fragment", early, End::Close(1007)),
        ("a character in two fragments", split, End::Lives),
    ]);
    cases
}

/// Closes, in order and not.
fn closes() -> Vec<Case<'static>> {
    let mut cases: Vec<Case<'_>> = [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535_u16]
        .map(|code| ("a code not to be sent", masked(0x88, &code.to_be_bytes()), End::Close(1002)))
        .to_vec();
    let after = [masked(0x88, &[3, 232]), text(PING), vec![0xff; 1000]].concat();
    let cut = [masked(0x01, b"half a"), masked(0x88, &[3, 232])].concat();
    cases.extend([
        ("a close of one byte", masked(0x88, &[3]), End::Close(1002)),
        ("a close whose reason is not UTF-8", masked(0x88, &[3, 232, 0xff]), End::Close(1007)),
        ("garbage after a close", after, End::Close(1000)),
        ("a close in the middle of a message", cut, End::Close(1000)),
        ("a code of one's own", masked(0x88, &4999_u16.to_be_bytes()), End::Close(4999)),
    ]);
    cases
}

/// Control frames without end.
fn floods() -> Vec<Case<'static>> {
    let pings = masked(0x89, &[b'a'; 125]);
    let inside = [masked(0x01, PING.as_bytes()), pings.repeat(100), masked(0x80, b"")].concat();
    vec![
        ("ten thousand pings", pings.repeat(10_000), End::Lives),
        ("ten thousand pongs", masked(0x8a, b"unasked").repeat(10_000), End::Lives),
        ("a hundred pings inside a message", inside, End::Lives),
        ("a hundred thousand empty pings", masked(0x89, b"").repeat(100_000), End::Lives),
    ]
}

/// Messages that begin and never end.
fn unending() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("half a header", vec![0x81]),
        ("a header without its payload", vec![0x81, 0xfe, 1, 0, 0, 0, 0, 0]),
        ("a payload cut short", text(PING)[..12].to_vec()),
        ("a first fragment", masked(0x01, b"{")),
        ("a first fragment and pings", [masked(0x01, b"{"), masked(0x89, b"").repeat(3)].concat()),
    ]
}

/// How many cases there are here.
pub(super) fn count() -> usize {
    let tables = [bad_headers(), bombs(), broken_text(), closes(), floods()];
    tables.iter().map(Vec::len).sum::<usize>() + unending().len()
}

on_both_drivers! {
    fn hostile_frames_end_their_own_connection_only(driver) {
        let arena = Arena::open(driver);
        arena.run_upgraded(bad_headers());
        arena.run_upgraded(bombs());
        arena.run_upgraded(broken_text());
        arena.run_upgraded(closes());
        arena.run_upgraded(floods());
        arena.close();
    }

    fn messages_that_never_end_are_closed_with_1008(driver) {
        let arena = Arena::open_impatient(driver);
        let all_by = |count: usize| {
            let mut peers: Vec<(&str, Peer)> = (0..count)
                .flat_map(|_| unending())
                .map(|(name, bytes)| {
                    let mut peer = Peer::upgraded(arena.address());
                    peer.send(&bytes);
                    (name, peer)
                })
                .collect();
            for (name, peer) in &mut peers {
                peer.expect(name, &End::Close(1008));
            }
        };
        all_by(1);
        arena.check("messages that never end");
        arena.repeat("messages that never end", || all_by(CROWD));
        arena.close();
    }
}
