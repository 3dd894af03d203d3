//! Messages in less space (RFC 7692): raw deflate over one message at a time.
//!
//! Neither side takes its context over from one message to the next, and that is a decision: a shard needs
//! one [`Deflator`] and one [`Inflator`] for all of its connections, so an idle one costs nothing; a frame
//! that is compressed once is right for every reader; and what was said before to somebody cannot be
//! guessed from the length of what is said now. What each has to give back is its memory: a reset keeps it.
//!
//! A peer decides how much a message of its becomes, so it is inflated in steps, and refused in the step that
//! goes over the limit. A message is a whole number of blocks: behind it and the four bytes that every sender
//! leaves out goes an empty last block, and only if that ends the stream had the message an end of its own.
//! The compressor's window is the largest. Where a client wants a smaller one, no distance in a message is
//! longer than the message, so a message no longer than that window may be compressed, and the others go plain
//! ([`fits`]). What was negotiated, and whether to compress at all, is not known here.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::violation::Violation;
use crate::base::packed::Packed;

/// The compressor of a shard.
#[derive(Debug)]
pub struct Deflator {
    state: Compress,
    /// What the last message became.
    out: Vec<u8>,
}

/// The decompressor of a shard.
#[derive(Debug)]
pub struct Inflator {
    state: Decompress,
    /// What the last message became.
    out: Vec<u8>,
}

impl Deflator {
    /// One that works as hard as `level` says, 1 to 9.
    #[must_use]
    pub fn new(level: u8) -> Self {
        let level = Compression::new(u32::from(level.clamp(1, 9)));
        Self { state: Compress::new_with_window_bits(level, false, WINDOW_BITS), out: Vec::new() }
    }

    /// A message as the payload of one compressed frame; `None` when it would not be shorter by that.
    pub fn deflate(&mut self, message: &[u8]) -> Option<&[u8]> {
        self.state.reset();
        self.out.clear();
        shrink(&mut self.out);
        // One byte more than is of use, so that a stream which has just space enough is seen to have ended.
        self.out.reserve_exact(message.len() + TAIL.len());
        let status = self.state.compress_vec(message, &mut self.out, FlushCompress::Sync).ok()?;
        let is_done = status == Status::Ok
            && self.state.total_in() == message.len() as u64
            && self.out.len() < self.out.capacity();
        let payload = self.out.strip_suffix(&TAIL).filter(|_| is_done)?;
        (payload.len() < message.len()).then_some(payload)
    }

    /// A plain frame of one whole message as a compressed one; `None` when it would not be shorter by that.
    pub fn frame(&mut self, plain: &[u8]) -> Option<Vec<u8>> {
        let message = payload(plain);
        let first = *plain.first()?;
        let payload = self.deflate(message)?;
        let mut frame = super::encode::frame(super::encode::BINARY, payload);
        frame[0] = first | RSV1;
        Some(frame)
    }

    /// Compresses what is to be a part of messages.
    pub fn pack(&mut self, part: &[u8]) -> Packed {
        let blocks = self.deflate(part).map(|blocks| [blocks, &TAIL].concat());
        Packed::of(blocks.unwrap_or_default())
    }
}

impl Default for Inflator {
    fn default() -> Self {
        Self { state: Decompress::new_with_window_bits(false, WINDOW_BITS), out: Vec::new() }
    }
}

impl Inflator {
    /// The message that came as this payload; it is lent until the next one.
    ///
    /// # Errors
    /// [`Violation::NotDeflate`] when it is none, and [`Violation::MessageTooBig`] when it has more than
    /// `limit` bytes; no more than those are ever held, and a step.
    pub fn inflate(&mut self, payload: &[u8], limit: usize) -> Result<&[u8], Violation> {
        self.out.clear();
        shrink(&mut self.out);
        self.state.reset(false);
        let mut rest = payload;
        while !rest.is_empty() {
            if self.blocks(&mut rest, limit)? {
                // A last block, and something behind it. What follows begins anew, as after any message.
                self.state.reset(false);
                if rest.is_empty() {
                    return Ok(&self.out);
                }
            }
        }
        let mut end = &END[..];
        if payload.is_empty() || self.blocks(&mut end, limit)? && end.is_empty() {
            return Ok(&self.out);
        }
        Err(Violation::NotDeflate)
    }

    /// Bytes of memory that the last message has left behind.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.out.capacity()
    }

    /// Inflates until `rest` is used up, or a last block ends; true when that was it.
    fn blocks(&mut self, rest: &mut &[u8], limit: usize) -> Result<bool, Violation> {
        loop {
            if self.out.len() == self.out.capacity() {
                // By doubling, as everything that grows with what a peer sends, and by one byte over the limit at most.
                let wanted = (2 * self.out.len()).clamp(STEP_BYTES, limit.max(STEP_BYTES) + 1);
                self.out.reserve_exact(wanted.saturating_sub(self.out.len()).max(1));
            }
            let (read, written) = (self.state.total_in(), self.out.len());
            let flush = FlushDecompress::None;
            let status = self.state.decompress_vec(rest, &mut self.out, flush);
            let status = status.map_err(|_| Violation::NotDeflate)?;
            let read = usize::try_from(self.state.total_in() - read).unwrap_or(usize::MAX);
            *rest = rest.get(read..).unwrap_or_default();
            if self.out.len() > limit {
                return Err(Violation::MessageTooBig);
            }
            let is_full = self.out.len() == self.out.capacity();
            match status {
                Status::StreamEnd => return Ok(true),
                _ if is_full => {}
                _ if rest.is_empty() => return Ok(false),
                _ if read == 0 && self.out.len() == written => return Err(Violation::NotDeflate),
                _ => {}
            }
        }
    }
}

/// True where a compressed frame may go to a reader with a window of 2 to the `bits` bytes: one that has no
/// distances which are longer. `plain` is the frame it was made of.
#[must_use]
pub fn fits(plain: &[u8], bits: u8) -> bool {
    bits >= WINDOW_BITS || payload(plain).len() <= 1 << bits
}

/// What stands behind the header of a frame of ours, which has no mask.
#[must_use]
pub fn payload(frame: &[u8]) -> &[u8] {
    let header = match frame.get(1) {
        Some(126) => 4,
        Some(127) => 10,
        _ => 2,
    };
    frame.get(header..).unwrap_or_default()
}

/// Gives back what a large message needed.
fn shrink(out: &mut Vec<u8>) {
    if out.capacity() > KEPT_BYTES {
        *out = Vec::new();
    }
}

/// The largest window of deflate, 32 KiB.
pub const WINDOW_BITS: u8 = 15;

/// The bit of the first header byte that says so (RFC 7692, section 6).
pub(super) const RSV1: u8 = 0x40;

/// What ends every flush, and is left out on the wire (RFC 7692, section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// The same, and an empty last block.
const END: [u8; 6] = [0, 0, 0xff, 0xff, 3, 0];

/// What is inflated in the first step.
const STEP_BYTES: usize = 4 << 10;

/// What is kept from one message to the next.
const KEPT_BYTES: usize = 64 << 10;

#[cfg(test)]
#[path = "deflate_tests.rs"]
mod tests;
