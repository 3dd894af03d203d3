//! The codec against the vectors of RFC 7692 and against the library itself as a client, and what a bomb gets.

use proptest::prelude::*;

use super::super::{BINARY, TEXT, frame};
use super::*;

/// A message as a client compresses it: at this level, with this window, in pieces that it flushes.
fn squeezed(message: &[u8], level: u32, window: u8, piece: usize) -> Vec<u8> {
    let mut client = Compress::new_with_window_bits(Compression::new(level), false, window);
    let mut out = Vec::with_capacity(2 * message.len() + 1024);
    for piece in message.chunks(piece.max(1)) {
        client.compress_vec(piece, &mut out, FlushCompress::Partial).expect("space");
        out.reserve(message.len() + 1024);
    }
    client.compress_vec(&[], &mut out, FlushCompress::Sync).expect("space");
    if !out.ends_with(&TAIL) {
        out.extend(TAIL);
    }
    out.truncate(out.len() - TAIL.len());
    out
}

/// What a client reads of a payload, by the library.
fn read(payload: &[u8], window: u8, most: usize) -> Vec<u8> {
    let mut client = Decompress::new_with_window_bits(false, window);
    let mut out = Vec::with_capacity(most + 64);
    let whole = [payload, &TAIL].concat();
    client.decompress_vec(&whole, &mut out, FlushDecompress::Sync).expect("deflate");
    out
}

#[test]
fn the_examples_of_the_rfc_are_read() {
    // RFC 7692, sections 7.2.3.1 and 7.2.3.3 to 7.2.3.6.
    let examples: [(&[u8], &[u8]); 5] = [
        (&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], b"Hello"),
        (&[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00], b"Hello"),
        (&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00], b"Hello"),
        (&[0xf2, 0x48, 0x05, 0, 0, 0, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00], b"Hello"),
        (&[0x00], b""),
    ];
    let mut inflator = Inflator::default();
    for (payload, message) in examples {
        assert_eq!(inflator.inflate(payload, 5), Ok(message), "{payload:x?}");
    }
    // A client may also send nothing at all for nothing.
    assert_eq!(inflator.inflate(&[], 0), Ok(&[][..]));
}

#[test]
fn a_message_that_needs_the_one_before_it_is_refused() {
    // RFC 7692, section 7.2.3.2: the second message refers to the window of the first.
    let mut inflator = Inflator::default();
    assert!(inflator.inflate(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], 5).is_ok());
    let second = inflator.inflate(&[0xf2, 0x00, 0x11, 0x00, 0x00], 5);
    assert_eq!(second, Err(Violation::NotDeflate));
}

#[test]
fn a_message_that_is_cut_or_is_no_deflate_is_refused_and_the_next_is_read() {
    let whole = squeezed(&b"The quick brown fox, the quick brown dog. ".repeat(20), 6, 15, 4096);
    let mut inflator = Inflator::default();
    for length in 1..whole.len() {
        let cut = inflator.inflate(&whole[..length], 1 << 16).map(<[u8]>::len);
        assert_eq!(cut, Err(Violation::NotDeflate), "{length} of {}", whole.len());
    }
    for wrong in [&[0xff; 4][..], &[6, 7], &[0, 1, 0, 0, 0]] {
        assert_eq!(inflator.inflate(wrong, 9).err(), Some(Violation::NotDeflate), "{wrong:?}");
    }
    assert_eq!(inflator.inflate(&whole, 1 << 16).map(<[u8]>::len), Ok(840));
}

#[test]
fn a_megabyte_that_would_be_a_gigabyte_ends_at_the_limit_and_leaves_no_memory() {
    // Every piece ends in a flush and refers to nothing before it, so they are one message together.
    let piece = [squeezed(&vec![0; 1 << 20], 9, 15, 1 << 20), TAIL.to_vec()].concat();
    let bomb = piece.repeat(1 << 10);
    assert!((1 << 20..2 << 20).contains(&bomb.len()), "{} bytes", bomb.len());
    let mut inflator = Inflator::default();
    for limit in [0, 1, 4096, 65_536, 1 << 20] {
        assert_eq!(inflator.inflate(&bomb, limit).err(), Some(Violation::MessageTooBig));
        assert!(inflator.capacity() <= (limit + 1).max(STEP_BYTES + 1).max(KEPT_BYTES), "{limit}");
    }
    assert_eq!(inflator.inflate(&[0], 9), Ok(&[][..]));
    assert!(inflator.capacity() <= KEPT_BYTES);
}

#[test]
fn a_message_of_exactly_the_limit_is_read_and_one_more_byte_is_not() {
    let mut inflator = Inflator::default();
    for length in [1, 4095, 4096, 4097, 65_536, 100_000] {
        let payload = squeezed(&vec![b'a'; length], 6, 15, length);
        assert_eq!(inflator.inflate(&payload, length).map(<[u8]>::len), Ok(length));
        assert_eq!(inflator.inflate(&payload, length - 1), Err(Violation::MessageTooBig));
    }
}

#[test]
fn a_frame_keeps_its_opcode_and_gets_the_bit_and_one_that_would_not_shrink_stays() {
    let mut deflator = Deflator::new(6);
    for (opcode, first) in [(TEXT, 0xc1), (BINARY, 0xc2)] {
        for length in [40, 125, 126, 65_535, 65_536] {
            let plain = frame(opcode, &vec![b'x'; length]);
            let deflated = deflator.frame(&plain).expect("it shrinks");
            assert_eq!(deflated[0], first);
            assert!(deflated.len() < plain.len());
            assert_eq!(read(payload(&deflated), 15, length), payload(&plain));
        }
    }
    for message in [&b""[..], b"a", b"abcdefgh"] {
        assert_eq!(deflator.frame(&frame(TEXT, message)), None);
    }
}

#[test]
fn the_length_of_one_message_says_nothing_about_another() {
    let mut deflator = Deflator::new(6);
    let message = b"{\"secret\":\"swordfish\"} and {\"secret\":\"swordfish\"}";
    let alone = deflator.deflate(message).expect("it shrinks").to_vec();
    let _ = deflator.deflate(&b"{\"secret\":\"swordfish\"}".repeat(9));
    assert_eq!(deflator.deflate(message).expect("it shrinks"), alone);
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        "[a-f ]{0,200}".prop_map(String::into_bytes),
        (any::<u8>(), 0usize..9000).prop_map(|(byte, count)| vec![byte; count]),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn whatever_a_client_compresses_is_read_as_it_was(
        messages in prop::collection::vec((message(), 0u32..10, 9u8..16, 1usize..5000), 1..5),
    ) {
        let mut inflator = Inflator::default();
        for (message, level, window, piece) in messages {
            let payload = squeezed(&message, level, window, piece);
            prop_assert_eq!(inflator.inflate(&payload, message.len()), Ok(&message[..]));
            if !message.is_empty() {
                let less = inflator.inflate(&payload, message.len() - 1);
                prop_assert_eq!(less, Err(Violation::MessageTooBig));
            }
        }
    }

    #[test]
    fn whatever_is_compressed_here_a_client_reads_with_the_window_it_wants(
        messages in prop::collection::vec((message(), 9u8..16), 1..5),
        level in 0u8..12,
    ) {
        let mut deflator = Deflator::new(level);
        for (message, window) in messages {
            let plain = frame(BINARY, &message);
            if let Some(deflated) = deflator.frame(&plain) {
                prop_assert!(deflated.len() < plain.len());
                if fits(&plain, window) {
                    prop_assert_eq!(read(payload(&deflated), window, message.len()), message);
                }
            }
        }
    }

    #[test]
    fn any_bytes_at_all_are_read_or_refused_within_the_limit(
        payload in prop::collection::vec(any::<u8>(), 0..400),
        limit in 0usize..9000,
    ) {
        let mut inflator = Inflator::default();
        match inflator.inflate(&payload, limit) {
            Ok(message) => prop_assert!(message.len() <= limit),
            Err(violation) => {
                let known = [Violation::NotDeflate, Violation::MessageTooBig];
                prop_assert!(known.contains(&violation));
            }
        }
        prop_assert!(inflator.capacity() <= limit.max(STEP_BYTES) + 1);
    }
}
