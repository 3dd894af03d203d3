//! Memory that is reserved and holds nothing.
//!
//! The tables of a shard are reserved for the largest crowd it may see, and a page of them costs
//! nothing before it is first written to. After a crowd has gone its pages hold no values but cost as
//! before. Giving them back is the kernel's business, so whoever owns such a table lends its spare part
//! to a [`Release`] that knows the kernel; the reservation stays, and nothing moves.

use std::mem::MaybeUninit;

/// Takes the cost away from memory that holds no values.
pub trait Release {
    /// The contents may change to anything.
    fn release<T>(&mut self, spare: &mut [MaybeUninit<T>]);
}

/// Shortens a table to its first `keep` entries and releases what they leave.
pub fn cut<T>(table: &mut Vec<T>, keep: usize, to: &mut impl Release) {
    let Some(cut) = table.len().checked_sub(keep).filter(|cut| *cut > 0) else { return };
    table.truncate(keep);
    let spare = table.spare_capacity_mut();
    // As much again behind it: the page that this cut shares with the one before is free only now.
    let length = spare.len().min(cut.saturating_mul(2));
    to.release(&mut spare[..length]);
}
