//! What every message carries, so that its receiver can judge it alone.
//!
//! A payload is ASCII that needs no escape in a JSON string: a header of fixed width in lowercase hexadecimal
//! (run, stream, sequence number, planned moment, flag, checksum) and padding up to the wanted size. The
//! checksum covers everything else, padding included, so one changed byte anywhere is found.

/// What a payload says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Tells runs apart that share a room.
    pub(crate) run: u32,
    /// The stream: one publisher's messages to one room; for echoes the client.
    pub(crate) publisher: u32,
    /// Counts from 1 within the stream; 48 bits are kept.
    pub(crate) seq: u64,
    /// When it was to leave, in nanoseconds of the monotonic clock.
    pub(crate) at_ns: u64,
    /// True for the last of its stream.
    pub(crate) last: bool,
}

/// Why bytes are no payload of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PayloadError {
    /// There is no header.
    NotOurs,
    /// The checksum is another one.
    Corrupt,
}

/// Widths of the header's fields, in digits; the checksum is the last.
const RUN: usize = 8;
const PUBLISHER: usize = 8;
const SEQ: usize = 12;
const AT: usize = 16;
const FLAG: usize = 1;
const CHECK: usize = 8;
const CHECKED: usize = RUN + PUBLISHER + SEQ + AT + FLAG;

/// What pads: any letters will do, and a shift of one is noticed.
const PAD: &[u8] =
    b"the quick brown fox jumps over the lazy dog and the five boxing wizards jump quickly ";

impl Stamp {
    /// Bytes of the header, and so of the smallest payload.
    pub(crate) const MIN_BYTES: usize = CHECKED + CHECK;

    /// Appends a payload of `size` bytes, or of [`Self::MIN_BYTES`] when that is more.
    pub(crate) fn write(&self, size: usize, out: &mut Vec<u8>) {
        let size = size.max(Self::MIN_BYTES);
        let begin = out.len();
        out.reserve(size);
        hex(u64::from(self.run), RUN, out);
        hex(u64::from(self.publisher), PUBLISHER, out);
        hex(self.seq, SEQ, out);
        hex(self.at_ns, AT, out);
        hex(u64::from(self.last), FLAG, out);
        let check = out.len();
        out.extend_from_slice(&[b'0'; CHECK]);
        let mut left = size - Self::MIN_BYTES;
        while left > 0 {
            let piece = &PAD[..left.min(PAD.len())];
            out.extend_from_slice(piece);
            left -= piece.len();
        }
        let sum = checksum(&out[begin..]);
        let mut digits = Vec::with_capacity(CHECK);
        hex(u64::from(sum), CHECK, &mut digits);
        out[check..check + CHECK].copy_from_slice(&digits);
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// See [`PayloadError`].
    pub(crate) fn read(payload: &[u8]) -> Result<Self, PayloadError> {
        let mut rest = payload;
        let mut field = |width| unhex(&mut rest, width).ok_or(PayloadError::NotOurs);
        let run = u32::try_from(field(RUN)?).unwrap_or(0);
        let publisher = u32::try_from(field(PUBLISHER)?).unwrap_or(0);
        let (seq, at_ns, flag) = (field(SEQ)?, field(AT)?, field(FLAG)?);
        if field(CHECK)? != u64::from(checksum(payload)) {
            return Err(PayloadError::Corrupt);
        }
        Ok(Self { run, publisher, seq, at_ns, last: flag == 1 })
    }
}

/// The checksum of a payload whose header is whole, its own digits left out.
fn checksum(payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&payload[..CHECKED]);
    hasher.update(&payload[CHECKED + CHECK..]);
    hasher.finalize()
}

fn hex(value: u64, width: usize, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let nibbles = value.to_be_bytes().into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
    out.extend(nibbles.skip(16 - width).map(|nibble| DIGITS[usize::from(nibble)]));
}

/// The value of each digit; [`NO_DIGIT`] for all other bytes.
const NIBBLES: [u8; 256] = nibbles();
const NO_DIGIT: u8 = 0x80;

const fn nibbles() -> [u8; 256] {
    let mut table = [NO_DIGIT; 256];
    let digits = b"0123456789abcdef";
    let mut value = 0;
    while value < 16 {
        table[digits[value as usize] as usize] = value;
        value += 1;
    }
    table
}

fn unhex(rest: &mut &[u8], width: usize) -> Option<u64> {
    let (digits, after) = rest.split_at_checked(width)?;
    *rest = after;
    let (mut value, mut wrong) = (0, 0);
    for digit in digits {
        let nibble = NIBBLES[usize::from(*digit)];
        wrong |= nibble;
        value = value << 4 | u64::from(nibble & 15);
    }
    (wrong & NO_DIGIT == 0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn stamps()(run: u32, publisher: u32, seq in 0..1u64 << 48, at_ns: u64, last: bool) -> Stamp {
            Stamp { run, publisher, seq, at_ns, last }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(stamp in stamps(), size in 0..2000usize) {
            let mut payload = b"before".to_vec();
            stamp.write(size, &mut payload);
            let payload = &payload[6..];
            prop_assert_eq!(payload.len(), size.max(Stamp::MIN_BYTES));
            prop_assert_eq!(Stamp::read(payload), Ok(stamp));
            prop_assert!(payload.iter().all(|b| b.is_ascii_graphic() || *b == b' '));
        }

        #[test]
        fn one_changed_byte_is_found(stamp in stamps(), size in 0..300usize, at: usize, by in 1..=255u8) {
            let mut payload = Vec::new();
            stamp.write(size, &mut payload);
            let at = at % payload.len();
            payload[at] ^= by;
            prop_assert!(Stamp::read(&payload).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            prop_assert!(Stamp::read(&bytes).is_err());
        }
    }
}
