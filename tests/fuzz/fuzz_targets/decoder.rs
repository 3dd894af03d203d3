//! The WebSocket decoder: any bytes in any pieces.
//!
//! The first bytes of the input choose limits and piece sizes, the rest is the stream. Pieces must give
//! the items and the end of the whole; no message is over its limit; memory follows what has arrived;
//! nothing comes after the end; and between messages nothing is held.

#![no_main]

use libfuzzer_sys::fuzz_target;
use throng::wire::websocket::{DecodeLimits, Decoder, Input, Item, Violation};

fuzz_target!(|data: &[u8]| {
    let [limit, fragments, cuts @ ..] = data.get(..8).unwrap_or_default() else { return };
    let limits = DecodeLimits {
        message_bytes: usize::from(*limit) * 64,
        fragments: u32::from(*fragments % 16),
        deflated: *fragments >= 128,
    };
    let stream = &data[8..];
    let whole = run(stream, &[], &limits);
    assert!(run(stream, cuts, &limits) == whole, "pieces and whole disagree");
    assert!(run(stream, &[0], &limits) == whole, "single bytes and whole disagree");
});

type Outcome = (Vec<String>, Option<Violation>);

/// Decodes `stream` in pieces of one byte more than each of `cuts` in turn, or whole without any.
fn run(stream: &[u8], cuts: &[u8], limits: &DecodeLimits) -> Outcome {
    let mut stream = stream.to_vec();
    let (mut rest, mut cuts) = (stream.as_mut_slice(), cuts.iter().cycle());
    let mut decoder = Decoder::default();
    let (mut items, mut end, mut fed) = (Vec::new(), None, 0);
    while !rest.is_empty() {
        let cut = cuts.next().map_or(rest.len(), |cut| rest.len().min(usize::from(*cut) + 1));
        let (piece, after) = rest.split_at_mut(cut);
        (rest, fed) = (after, fed + cut);
        let mut input = Input::new(piece);
        loop {
            let was_ended = decoder.is_ended();
            match decoder.decode(&mut input, limits) {
                Ok(Some(item)) => {
                    assert!(!was_ended, "an item after the end");
                    items.push(seen(&item, limits));
                }
                Ok(None) => break,
                Err(violation) => {
                    assert!(!was_ended, "a violation after the end");
                    end = Some(violation);
                }
            }
            decoder.check();
        }
        assert!(input.is_empty(), "input was left behind");
        decoder.check();
        assert!(decoder.buffered_capacity() <= 2 * fed + 512, "memory ahead of bytes");
        if !decoder.is_mid_message() && !decoder.is_ended() {
            assert_eq!(decoder.buffered_capacity(), 0, "memory between messages");
        }
    }
    (items, end)
}

/// The item as text, its limits checked.
fn seen(item: &Item<'_>, limits: &DecodeLimits) -> String {
    let (length, limit) = match item {
        Item::Text(text) => (text.len(), limits.message_bytes),
        Item::Binary(bytes) => (bytes.len(), limits.message_bytes),
        Item::Deflated(_, bytes) => (bytes.len(), limits.message_bytes + limits.message_bytes / 256 + 64),
        Item::Ping(bytes) | Item::Pong(bytes) => (bytes.len(), 125),
        Item::Close(close) => (close.map_or(0, |(_, reason)| reason.len()), 123),
    };
    assert!(length <= limit, "an item over its limit");
    format!("{item:?}")
}
