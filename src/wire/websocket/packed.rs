//! Messages around a part that was compressed before them.
//!
//! A long part of messages may be compressed apart from them, by another thread and once for all of them: blocks of
//! deflate stand beside each other, so the part's own are put between stored ones with what is around it in each
//! message. What is left to do for a message is to copy.

use super::deflate::{RSV1, payload};
use crate::base::packed::Packed;

/// A plain frame of one whole message as a compressed one, in which `packed` stands for `part`; `None` when it would
/// not be shorter by that, or `part` is not in it.
#[must_use]
pub fn frame_around(packed: &Packed, part: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
    let message = payload(plain);
    let (first, begin) = (*plain.first()?, *part.first()?);
    // What stands before the part is short, so is the way to it.
    let last = message.len().checked_sub(part.len())?;
    let is_it = |at: &usize| message[*at] == begin && message[*at..].starts_with(part);
    let at = (0..=last).find(is_it)?;
    let (before, behind) = (&message[..at], &message[at + part.len()..]);
    let blocks = packed.blocks();
    let length = blocks.len() + stored_bytes(before) + stored_bytes(behind) + END.len();
    if blocks.is_empty() || length >= message.len() {
        return None;
    }
    let mut frame = super::encode::frame_with(super::encode::BINARY, length, |out| {
        store(out, before);
        out.extend_from_slice(blocks);
        store(out, behind);
        out.extend_from_slice(&END);
    });
    frame[0] = first | RSV1;
    Some(frame)
}

/// Appends bytes as they are, in blocks (RFC 1951, section 3.2.4) behind a whole number of bytes.
fn store(out: &mut Vec<u8>, bytes: &[u8]) {
    for block in bytes.chunks(STORED_BYTES) {
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        out.push(0);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
}

/// How many bytes those are in blocks.
fn stored_bytes(bytes: &[u8]) -> usize {
    bytes.len() + bytes.len().div_ceil(STORED_BYTES) * STORED_HEAD_BYTES
}

/// The longest block of bytes that are stored as they are.
const STORED_BYTES: usize = u16::MAX as usize;

/// What stands before the bytes of such a block: its kind in a byte, its length, and the length's complement.
const STORED_HEAD_BYTES: usize = 5;

/// An empty block as the wire has it, without the tail that every flush ends with (RFC 7692, section 7.2.1).
const END: [u8; 1] = [0];

#[cfg(test)]
mod tests {
    use flate2::{Decompress, FlushDecompress};
    use proptest::prelude::*;

    use super::super::{BINARY, Deflator, Inflator, TEXT, WINDOW_BITS, frame};
    use super::*;

    /// What a client reads of a payload, by the library.
    fn read(payload: &[u8], most: usize) -> Vec<u8> {
        let mut client = Decompress::new_with_window_bits(false, WINDOW_BITS);
        let mut out = Vec::with_capacity(most + 64);
        let whole = [payload, &[0, 0, 0xff, 0xff]].concat();
        client.decompress_vec(&whole, &mut out, FlushDecompress::Sync).expect("deflate");
        out
    }

    #[test]
    fn a_part_that_was_compressed_before_stands_in_whatever_is_around_it() {
        let part = br#"{"line":"the same words again and again, the same words again and again"}"#
            .repeat(40);
        let mut deflator = Deflator::new(3);
        let packed = deflator.pack(&part);
        assert!((1..part.len()).contains(&packed.blocks().len()));
        let long = vec![b'x'; STORED_BYTES + 7];
        for (before, behind) in
            [(&b""[..], &b""[..]), (b"{\"payload\":", b"}"), (b"42", b""), (b"", &long)]
        {
            let message = [before, &part, behind].concat();
            let plain = frame(TEXT, &message);
            let small = frame_around(&packed, &part, &plain).expect("it is shorter");
            assert_eq!(small[0], plain[0] | RSV1);
            assert_eq!(read(payload(&small), message.len()), message);
            assert_eq!(
                Inflator::default().inflate(payload(&small), message.len()),
                Ok(&message[..])
            );
            assert_eq!(small.capacity(), small.len(), "laid out at once");
        }
    }

    #[test]
    fn a_part_is_left_plain_where_it_is_not_in_the_message_or_nothing_is_gained() {
        let mut deflator = Deflator::new(3);
        let part = b"words and words and words and words and words and words and words".repeat(9);
        let packed = deflator.pack(&part);
        assert_eq!(frame_around(&packed, &part, &frame(TEXT, b"something else")), None);
        let cut = [&b"{"[..], &part[..part.len() - 1], b"}"].concat();
        assert_eq!(frame_around(&packed, &part, &frame(TEXT, &cut)), None);
        assert_eq!(frame_around(&packed, b"", &frame(TEXT, &part)), None);
        assert_eq!(frame_around(&packed, &part, b""), None);
        let next = |state: &u64| {
            Some(
                state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407),
            )
        };
        let noise = std::iter::successors(Some(1u64), next).take(999);
        let noise: Vec<u8> = noise.map(|state| state.to_be_bytes()[0]).collect();
        let noise = deflator.pack(&noise);
        assert_eq!(noise, Packed::default());
        assert_eq!(frame_around(&noise, &part, &frame(BINARY, &part)), None);
    }

    proptest! {
        #[test]
        fn whatever_is_around_a_part_a_client_reads_the_whole(
            before in proptest::collection::vec(any::<u8>(), 0..300),
            part in proptest::collection::vec(0u8..4, 1..3000),
            behind in proptest::collection::vec(any::<u8>(), 0..300),
            level in 1u8..=9,
        ) {
            let message = [&before[..], &part, &behind].concat();
            let plain = frame(BINARY, &message);
            let packed = Deflator::new(level).pack(&part);
            if let Some(small) = frame_around(&packed, &part, &plain) {
                prop_assert!(small.len() < plain.len());
                prop_assert_eq!(read(payload(&small), message.len()), message);
            }
        }
    }
}
