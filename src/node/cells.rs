//! One shard's measures as atomics: written by its worker, read by whoever asks.
//!
//! A histogram takes two stores for an amount, and only the places that have changed are stored. There is
//! one writer, so nothing here is a read-modify-write: a relaxed load and a relaxed store do.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::base::histogram::{self, Histogram, PLACES};
use crate::shard::{LOSS_ROWS, Losses, Shard};

/// A histogram that others may read.
#[derive(Debug)]
pub(super) struct HistogramCells {
    counts: [AtomicU64; PLACES],
    sum: AtomicU64,
}

impl Default for HistogramCells {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU64::new(0)), sum: AtomicU64::new(0) }
    }
}

/// A histogram as read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spread {
    pub(super) counts: [u64; PLACES],
    pub(super) sum: u64,
}

impl Spread {
    /// Adds another shard's.
    pub(super) fn and(mut self, other: Self) -> Self {
        for (mine, others) in self.counts.iter_mut().zip(other.counts) {
            *mine += others;
        }
        self.sum = self.sum.wrapping_add(other.sum);
        self
    }
}

fn add(cell: &AtomicU64, amount: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

impl HistogramCells {
    /// Notes an amount; `grain` of it make a grain. Only the one writer may call it.
    fn note(&self, amount: u64, grain: u64) {
        add(&self.counts[histogram::place(amount.div_ceil(grain))], 1);
        add(&self.sum, amount);
    }

    fn take(&self, from: &mut Histogram) {
        let sum =
            from.take_changes(|place, count| self.counts[place].store(count, Ordering::Relaxed));
        if let Some(sum) = sum {
            self.sum.store(sum, Ordering::Relaxed);
        }
    }

    fn read(&self) -> Spread {
        let load = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        Spread { counts: self.counts.each_ref().map(load), sum: load(&self.sum) }
    }
}

/// Everything that one shard measures.
#[derive(Debug)]
pub(super) struct Cells {
    /// In nanoseconds: for how long a turn kept what arrived meanwhile waiting.
    lag: HistogramCells,
    histograms: [HistogramCells; 3],
    lengths: [AtomicU32; PLACES],
    /// The version of the lengths that were copied last.
    version: AtomicU32,
    losses: [[AtomicU64; 4]; LOSS_ROWS],
}

/// Everything that one shard measures, or all of them together, as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Measured {
    /// In nanoseconds.
    pub(super) lag: Spread,
    /// In nanoseconds.
    pub(super) fan_out: Spread,
    pub(super) frames: Spread,
    /// In milliseconds.
    pub(super) lives: Spread,
    /// Queues by KiB, but for those of at most one.
    pub(super) lengths: [u64; PLACES],
    pub(super) losses: [Losses; LOSS_ROWS],
}

/// Nanoseconds in the smallest bound of a turn's length.
const MICRO: u64 = 1000;

impl Default for Cells {
    fn default() -> Self {
        let zeros = || std::array::from_fn(|_| AtomicU64::new(0));
        Self {
            lag: HistogramCells::default(),
            histograms: Default::default(),
            lengths: std::array::from_fn(|_| AtomicU32::new(0)),
            version: AtomicU32::new(0),
            losses: std::array::from_fn(|_| zeros()),
        }
    }
}

impl Cells {
    /// Copies what the shard has measured since the last time.
    pub(super) fn take(&self, shard: &mut Shard) {
        let measures = shard.measures();
        for (cells, histogram) in self.histograms.iter().zip(measures.histograms()) {
            cells.take(histogram);
        }
        measures.take_losses(|row, losses| {
            for (cell, count) in self.losses[row].iter().zip(losses) {
                cell.store(count, Ordering::Relaxed);
            }
        });
        let lengths = shard.queue_lengths();
        if lengths.version != self.version.load(Ordering::Relaxed) {
            self.version.store(lengths.version, Ordering::Relaxed);
            for (cell, count) in self.lengths.iter().zip(lengths.places) {
                cell.store(count, Ordering::Relaxed);
            }
        }
    }

    /// Notes for how long a turn kept what arrived meanwhile waiting.
    pub(super) fn note_lag(&self, lag: Duration) {
        self.lag.note(u64::try_from(lag.as_nanos()).unwrap_or(u64::MAX), MICRO);
    }

    pub(super) fn read(&self) -> Measured {
        let [fan_out, frames, lives] = self.histograms.each_ref().map(HistogramCells::read);
        let load = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        Measured {
            lag: self.lag.read(),
            fan_out,
            frames,
            lives,
            lengths: self.lengths.each_ref().map(|cell| u64::from(cell.load(Ordering::Relaxed))),
            losses: self.losses.each_ref().map(|row| row.each_ref().map(load)),
        }
    }
}

impl Measured {
    /// Adds another shard's.
    pub(super) fn and(mut self, other: &Self) -> Self {
        self.lag = self.lag.and(other.lag);
        self.fan_out = self.fan_out.and(other.fan_out);
        self.frames = self.frames.and(other.frames);
        self.lives = self.lives.and(other.lives);
        for (mine, others) in self.lengths.iter_mut().zip(other.lengths) {
            *mine += others;
        }
        for (mine, others) in
            self.losses.as_flattened_mut().iter_mut().zip(other.losses.as_flattened())
        {
            *mine += others;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_shards_measured_is_added() {
        let cells = [Cells::default(), Cells::default()];
        cells[0].note_lag(Duration::from_micros(3));
        cells[1].note_lag(Duration::from_micros(4));
        cells[1].note_lag(Duration::from_secs(60));
        cells[1].lengths[2].store(5, Ordering::Relaxed);
        cells[0].losses[1][3].store(7, Ordering::Relaxed);
        let both = cells[0].read().and(&cells[1].read());
        assert_eq!((both.lag.counts[2], both.lag.counts[PLACES - 1]), (2, 1));
        assert_eq!(both.lag.sum, 60_000_007_000);
        assert_eq!((both.lengths[2], both.losses[1][3]), (5, 7));
    }

    #[test]
    fn a_histogram_arrives_whole_however_often_it_is_taken() {
        let (cells, mut histogram) = (HistogramCells::default(), Histogram::default());
        for amount in [1, 3, 3, 900_000_000] {
            histogram.note(amount, 1);
            cells.take(&mut histogram);
        }
        assert_eq!(cells.read().counts, *histogram.counts());
        assert_eq!(cells.read().sum, histogram.sum());
    }
}
