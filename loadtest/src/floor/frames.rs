//! Frames of clients turned into frames of a server, in place.
//!
//! A server's frame is its client's without the four bytes of the mask, so the header is moved up against
//! the payload, the payload is unmasked where it is, and what was received can be sent as it lies in the
//! receive buffer. Nothing is copied but the header. Not a codec: reserved bits, fragments and unmasked
//! frames pass as they are, and lengths are believed.

use std::ops::Range;

/// A frame that is whole, rewritten for sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    /// Where the server's frame lies in the buffer, header and payload.
    pub(super) bytes: Range<usize>,
}

/// What is to be done with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text, binary or a continuation.
    Data,
    /// A ping, already rewritten as the answer to it.
    Pong,
    /// A close, which is its own answer; the connection ends behind it.
    Close,
    /// A pong, which asks for nothing.
    Nothing,
}

const MASKED: u8 = 0x80;
const OPCODE: u8 = 0x0f;
const CONTROL: u8 = 0x08;
const CLOSE: u8 = 0x08;
const PING: u8 = 0x09;
const PONG: u8 = 0x0a;

/// Rewrites the frame that begins at `at` and gives it, or nothing when it is not whole yet.
///
/// The client's frame ends where the server's does, so the next one begins at `bytes.end`.
pub(super) fn rewrite(buffer: &mut [u8], at: usize) -> Option<Frame> {
    let &[first, second, ..] = buffer.get(at..)? else { return None };
    let (header, length) = match second & !MASKED {
        126 => (4, usize::from(u16::from_be_bytes(extended(buffer, at)?))),
        127 => (10, usize::try_from(u64::from_be_bytes(extended(buffer, at)?)).ok()?),
        short => (2, usize::from(short)),
    };
    let mask_len = if second & MASKED == 0 { 0 } else { 4 };
    let payload = at + header + mask_len;
    let end = payload.checked_add(length)?;
    if end > buffer.len() {
        return None;
    }
    if let Some(mask) = buffer[at + header..payload].first_chunk().copied() {
        unmask(mask, &mut buffer[payload..end]);
    }
    let start = at + mask_len;
    buffer.copy_within(at..at + header, start);
    buffer[start + 1] &= !MASKED;
    let kind = match first & OPCODE {
        PING => {
            buffer[start] = first & !OPCODE | PONG;
            Kind::Pong
        }
        CLOSE => Kind::Close,
        control if control & CONTROL != 0 => Kind::Nothing,
        _ => Kind::Data,
    };
    Some(Frame { kind, bytes: start..end })
}

/// The bytes of an extended length.
fn extended<const N: usize>(buffer: &[u8], at: usize) -> Option<[u8; N]> {
    buffer.get(at + 2..)?.first_chunk().copied()
}

/// Eight bytes at a time, which the compiler widens further.
fn unmask(mask: [u8; 4], payload: &mut [u8]) {
    let word = u64::from(u32::from_ne_bytes(mask));
    let word = word | word << 32;
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(word.to_ne_bytes()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let mut frame = vec![first];
        match payload.len() {
            short if short < 126 => frame.push(MASKED | u8::try_from(short).expect("short")),
            middle if middle < 65_536 => {
                frame.push(MASKED | 126);
                frame.extend(u16::try_from(middle).expect("middle").to_be_bytes());
            }
            long => {
                frame.push(MASKED | 127);
                frame.extend(u64::try_from(long).expect("long").to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        frame
    }

    #[test]
    fn payloads_of_every_length_class_come_out_unmasked_with_their_header() {
        for (length, header) in
            [(0, 2), (1, 2), (7, 2), (8, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)]
        {
            let payload: Vec<u8> = (0..=250).cycle().take(length).collect();
            let mut buffer = vec![0xee; 3];
            buffer.extend(client_frame(0x81, &payload));
            let frame = rewrite(&mut buffer, 3).expect("whole");
            assert_eq!(frame.bytes.end, buffer.len());
            let sent = &buffer[frame.bytes];
            assert_eq!(sent.len(), header + length);
            assert_eq!(sent[0], 0x81);
            assert_eq!(sent[1] & MASKED, 0);
            assert_eq!(&sent[header..], payload);
        }
    }

    #[test]
    fn a_frame_cut_anywhere_is_not_whole_and_stays_as_it_was() {
        let whole = client_frame(0x82, &[7; 300]);
        for cut in 0..whole.len() {
            let mut part = whole[..cut].to_vec();
            assert_eq!(rewrite(&mut part, 0), None);
            assert_eq!(part, whole[..cut]);
        }
        let mut endless = vec![0x82, 0xff, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0];
        assert_eq!(rewrite(&mut endless, 0), None);
    }

    #[test]
    fn pings_become_pongs_and_closes_their_echo() {
        let mut ping = client_frame(0x89, b"hm");
        let frame = rewrite(&mut ping, 0).expect("whole");
        assert_eq!(frame.kind, Kind::Pong);
        assert_eq!(&ping[frame.bytes], b"\x8a\x02hm");
        let mut close = client_frame(0x88, &[3, 232]);
        let frame = rewrite(&mut close, 0).expect("whole");
        assert_eq!(frame.kind, Kind::Close);
        assert_eq!(&close[frame.bytes], [0x88, 2, 3, 232]);
        let kind = rewrite(&mut client_frame(0x8a, b""), 0).map(|frame| frame.kind);
        assert_eq!(kind, Some(Kind::Nothing));
    }
}
