//! Messages that were good once: shared by the simulator and the suite over real sockets.

const GOOD: [&str; 8] = [
    r#"{"type":"throng:join","room":"lobby","ref":1}"#,
    r#"{"type":"throng:leave","room":"lobby","ref":"a"}"#,
    r#"{"type":"throng:members","room":"l\u00f6bby","ref":2}"#,
    r#"{"type":"throng:status","status":"idle"}"#,
    r#"{"type":"throng:ping","ref":-1.5e3}"#,
    r#"{"type":"chat","room":"lobby","payload":{"text":"häh \"?\"","n":[1,2.5,null,true]},"ref":3}"#,
    r#"{"type":"price","rooms":["a","b"],"payload":[[[{}]]],"id":"x","key":"k","except":["0-0-0"]}"#,
    r#"{"type":"x","room":"lobby"}"#,
];

/// Headers that no client may send: a reserved opcode, a reserved bit, no mask, a long ping.
pub(crate) const BROKEN: [[u8; 2]; 4] = [[0x83, 0x80], [0xc1, 0x80], [0x81, 0x01], [0x89, 0xfe]];

/// A frame that is more than 64 KiB long, or so it says, or the first of many that are so together.
pub(crate) fn too_long(rng: &mut fastrand::Rng) -> Vec<u8> {
    if rng.bool() {
        let length = rng.u64(65_537..1 << 63).to_be_bytes();
        return [&[0x81, 0xff][..], &length, &[0; 4]].concat();
    }
    // A text, then continuations, of a kilobyte each.
    let piece = |first: u8| [&[first, 0xfe, 4, 0, 0, 0, 0, 0][..], &[b'a'; 1024]].concat();
    let mut frames = piece(0x01);
    (0..64).for_each(|_| frames.extend(piece(0x00)));
    frames
}

/// A good message with bytes changed, pieces cut out, doubled or put in.
pub(crate) fn damaged(rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut text = GOOD[rng.usize(..GOOD.len())].as_bytes().to_vec();
    for _ in 0..rng.usize(1..4) {
        let at = rng.usize(..=text.len());
        let end = text.len().min(at + rng.usize(1..12));
        match rng.u32(0..6) {
            0 if at < text.len() => text[at] = rng.u8(..),
            1 => drop(text.drain(at..end)),
            2 => text.truncate(at),
            3 => text.extend_from_within(at..end),
            4 => text.insert(at, rng.u8(..0x80)),
            _ => text.insert(at, b"{}[]\",:\\0"[rng.usize(..9)]),
        }
    }
    text
}
