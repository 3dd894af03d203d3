//! Tests of the simulated network, a file per theme.

mod riot;
mod steps;

use super::*;
use crate::base::shared::Shared;
use crate::contract::SendBatch;

fn batch(bytes: &[u8]) -> SendBatch {
    let mut batch = SendBatch::new();
    for part in bytes.chunks(1000) {
        batch.push(Shared::kept(part));
    }
    batch
}

/// Bytes that show where they are out of place.
fn pattern(count: usize) -> Vec<u8> {
    let period: Vec<u8> = (0..251).collect();
    let mut bytes = period.repeat(count.div_ceil(251));
    bytes.truncate(count);
    bytes
}

/// Takes the next `count` bytes of an endless pattern, of which `at` have been taken.
fn next(at: &mut usize, count: usize) -> Vec<u8> {
    let bytes = pattern(*at % 251 + count).split_off(*at % 251);
    *at += count;
    bytes
}

fn read(peer: &mut Peer) -> Vec<u8> {
    let mut bytes = Vec::new();
    peer.read(&mut bytes);
    bytes
}
