//! What an answer is recognised by: 64 bits that travel with a request.
//!
//! Four bits say what was asked, 28 the low part of the connection's generation, 32 its index. An
//! index is not reused before every request of its connection has been answered, so the generation
//! is a check and not a necessity, and 28 bits of it are plenty.

use crate::base::id::ConnId;

/// What was asked of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Multishot accept on a listener.
    Accept,
    /// Multishot poll of the eventfd.
    Wake,
    /// Multishot poll of the epoll set.
    Set,
    /// Multishot recv of a connection.
    Recv,
    /// Multishot poll of a connection.
    Poll,
    /// One write of a connection.
    Send,
    /// Cancellation of a connection's requests.
    Cancel,
    /// Cancellation that nobody waits for.
    Other,
}

const KINDS: [Kind; 8] = [
    Kind::Accept,
    Kind::Wake,
    Kind::Set,
    Kind::Recv,
    Kind::Poll,
    Kind::Send,
    Kind::Cancel,
    Kind::Other,
];

const GENERATION_BITS: u32 = 28;
const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;

/// A kind of request and whom it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) index: u32,
    generation: u32,
}

impl Token {
    /// About a connection.
    pub(super) fn of(kind: Kind, conn: ConnId) -> Self {
        Self { kind, index: conn.index, generation: conn.generation & GENERATION_MASK }
    }

    /// About one of the driver's listeners.
    pub(super) const fn listener(at: u8) -> Self {
        Self { kind: Kind::Accept, index: at as u32, generation: 0 }
    }

    /// About the driver itself.
    pub(super) const fn own(kind: Kind) -> Self {
        Self { kind, index: u32::MAX, generation: 0 }
    }

    /// True when the request was made for a connection of this generation.
    pub(super) fn fits(self, generation: u32) -> bool {
        self.generation == generation & GENERATION_MASK
    }

    pub(super) fn to_bits(self) -> u64 {
        (self.kind as u64) << 60 | u64::from(self.generation) << 32 | u64::from(self.index)
    }

    #[expect(clippy::cast_possible_truncation, reason = "takes the fields that `to_bits` joined")]
    pub(super) fn from_bits(bits: u64) -> Self {
        let kind = KINDS.get((bits >> 60) as usize).copied().unwrap_or(Kind::Other);
        let generation = (bits >> 32) as u32 & GENERATION_MASK;
        Self { kind, index: bits as u32, generation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_token_reads_back_as_written(kind in 0_usize..8, index: u32, generation: u32) {
            let conn = ConnId { index, generation };
            let token = Token::of(KINDS[kind], conn);
            let back = Token::from_bits(token.to_bits());
            prop_assert_eq!(back, token);
            prop_assert!(back.fits(generation));
            prop_assert!(!back.fits(generation.wrapping_add(1)));
        }
    }

    #[test]
    fn kinds_stand_at_their_own_numbers() {
        for (at, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
        }
    }
}
