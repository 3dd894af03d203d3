//! When messages are to leave.
//!
//! An open loop sends by a plan made beforehand, whatever the server does, and latency counts from the planned
//! moment; so a server that stalls is charged for every message that should have left meanwhile. [`Arrivals`]
//! yields those moments one after another from a rate, a shape and a seed.

use serde::{Deserialize, Serialize};

/// The shape of the rate over the measured time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    /// Equal intervals.
    Constant,
    /// Exponential intervals of the same mean: arrivals that know nothing of each other.
    Poisson,
    /// `rate` during the first half, `rate_to` during the second.
    Step,
    /// From `rate` to `rate_to`, linearly.
    Ramp,
}

/// A stream of planned moments, in nanoseconds from its start.
#[derive(Clone, Debug)]
pub(crate) struct Arrivals {
    shape: Shape,
    /// Per nanosecond.
    rate: f64,
    rate_to: f64,
    /// Nanoseconds over which step and ramp run their course.
    length: f64,
    /// Moment of the last arrival.
    at: f64,
    random: fastrand::Rng,
}

impl Arrivals {
    /// Arrivals at `rate` a second; `rate_to` and `length_ns` matter to step and ramp.
    pub(crate) fn new(shape: Shape, rate: f64, rate_to: f64, length_ns: f64, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let (rate, rate_to) = (rate / 1e9, rate_to / 1e9);
        Self { shape, rate, rate_to, length: length_ns.max(1.0), at: 0.0, random }
    }

    /// The rate in force at a moment, per nanosecond.
    fn rate_at(&self, at: f64) -> f64 {
        match self.shape {
            Shape::Constant | Shape::Poisson => self.rate,
            Shape::Step if at < self.length / 2.0 => self.rate,
            Shape::Step => self.rate_to,
            Shape::Ramp => {
                let part = (at / self.length).min(1.0);
                self.rate + (self.rate_to - self.rate) * part
            }
        }
    }

    /// The next planned moment.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, in range"
    )]
    pub(crate) fn next_ns(&mut self) -> u64 {
        let rate = self.rate_at(self.at).max(1e-12);
        let gap = match self.shape {
            // One minus the draw is never zero.
            Shape::Poisson => -(1.0 - self.random.f64()).ln() / rate,
            _ => 1.0 / rate,
        };
        self.at += gap;
        self.at as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: f64 = 1e9;

    fn count(shape: Shape, rate: f64, rate_to: f64, from: u64, to: u64) -> usize {
        let mut arrivals = Arrivals::new(shape, rate, rate_to, 10.0 * SECOND, 7);
        std::iter::from_fn(|| Some(arrivals.next_ns()))
            .take_while(|at| *at < to)
            .filter(|at| *at >= from)
            .count()
    }

    #[test]
    fn a_constant_rate_has_equal_intervals() {
        let mut arrivals = Arrivals::new(Shape::Constant, 1000.0, 0.0, SECOND, 1);
        let moments: Vec<u64> = (0..3).map(|_| arrivals.next_ns()).collect();
        assert_eq!(moments, [1_000_000, 2_000_000, 3_000_000]);
    }

    #[test]
    fn poisson_arrivals_keep_the_rate_and_vary() {
        let found = count(Shape::Poisson, 1000.0, 0.0, 0, 10_000_000_000);
        assert!((9_500..10_500).contains(&found), "{found}");
        let mut arrivals = Arrivals::new(Shape::Poisson, 1000.0, 0.0, SECOND, 1);
        assert_ne!(arrivals.next_ns() * 2, arrivals.next_ns());
    }

    #[test]
    fn a_step_changes_the_rate_halfway_and_a_ramp_all_along() {
        let half = 5_000_000_000;
        let first = count(Shape::Step, 100.0, 1000.0, 0, half);
        let second = count(Shape::Step, 100.0, 1000.0, half, 2 * half);
        assert!((490..=510).contains(&first) && (4_900..=5_100).contains(&second));
        let first = count(Shape::Ramp, 100.0, 1000.0, 0, half);
        let second = count(Shape::Ramp, 100.0, 1000.0, half, 2 * half);
        assert!(first < second && (5_300..5_700).contains(&(first + second)), "{first} {second}");
    }
}
