//! Unmasking by whole words (RFC 6455, section 5.3).
//!
//! The mask is four bytes, applied cyclically from the payload's first byte. Sixteen bytes at a time it
//! is one exclusive-or, which the compiler turns into vector instructions without any unsafe of ours.
//! A payload that arrives in pieces goes on where the last piece stopped: that is the phase.

/// Applies `mask` to `bytes` in place. `phase` is the number of payload bytes before `bytes[0]`; only its
/// remainder by four matters. Applying the same mask again restores the bytes.
pub fn unmask(bytes: &mut [u8], mask: [u8; 4], phase: usize) {
    let mut turned = mask;
    turned.rotate_left(phase % 4);
    let word = u128::from_ne_bytes(std::array::from_fn(|at| turned[at % 4]));
    let (words, tail) = bytes.as_chunks_mut::<16>();
    for chunk in words {
        *chunk = (u128::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    // Sixteen is a multiple of four, so the tail begins at the same phase.
    for (at, byte) in tail.iter_mut().enumerate() {
        *byte ^= turned[at % 4];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn words_at_a_time_equal_bytes_at_a_time(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            mask: [u8; 4],
            phase in 0usize..1000,
        ) {
            let naive: Vec<u8> =
                bytes.iter().enumerate().map(|(at, b)| b ^ mask[(at + phase) % 4]).collect();
            let mut fast = bytes;
            unmask(&mut fast, mask, phase);
            prop_assert_eq!(fast, naive);
        }
    }
}
