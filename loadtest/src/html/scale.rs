//! Where values lie on an axis, and which of them get a tick.
//!
//! Three axes: linear from zero for rates and memory, logarithmic for latencies, and time. Ticks fall on
//! 1, 2 and 5 times a power of the unit's base, or for time on what clocks count in, so that a reader
//! can divide between them in the head. All of it is arithmetic on numbers; nothing is drawn here.

/// An axis from `low` to `high`, which differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Scale {
    /// From `low` to `high`, evenly. A range of no length is widened.
    pub(super) fn linear(low: f64, high: f64) -> Self {
        Self { low, high: if high > low { high } else { low + 1.0 }, logarithmic: false }
    }

    /// From zero to the first round number at or above `peak`; `base` is the step of the unit's
    /// prefixes, 1,000 or 1,024.
    pub(super) fn from_zero(peak: f64, base: f64) -> Self {
        if peak <= 0.0 {
            return Self::linear(0.0, 1.0);
        }
        let step = step(peak, base);
        Self::linear(0.0, (peak / step - 1e-9).ceil() * step)
    }

    /// Logarithmic, from the last of 1, 2 and 5 times a power of ten at or below `low` to the first at
    /// or above `high`. Values of zero or less are drawn at the lower end.
    pub(super) fn logarithmic(low: f64, high: f64) -> Self {
        let low = if low > 0.0 { low } else { 1.0 };
        let high = high.max(low);
        let below = round_numbers(low).into_iter().filter(|n| *n <= low).fold(0.0, f64::max);
        let above = round_numbers(high).into_iter().filter(|n| *n >= high);
        let above = above.fold(f64::INFINITY, f64::min);
        let above = if above > below { above } else { below * 10.0 };
        Self { low: below, high: above, logarithmic: true }
    }

    /// Where a value lies, from 0 to 1; beyond the ends at the end.
    pub(super) fn share(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        if self.logarithmic {
            (value / self.low).log10() / (self.high / self.low).log10()
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    /// The ticks: about four of a linear axis, ends included; of a logarithmic one the powers of ten, with
    /// 2 and 5 times them where `room` is for as many.
    pub(super) fn ticks(&self, base: f64, room: usize) -> Vec<f64> {
        if !self.logarithmic {
            let step = step(self.high - self.low, base);
            return stepped(self.low, self.high, step);
        }
        let fine = self.multiples(&[1.0, 2.0, 5.0]);
        if fine.len() <= room { fine } else { self.multiples(&[1.0]) }
    }

    /// What lies on the axis of the factors times the powers of ten.
    fn multiples(&self, factors: &[f64]) -> Vec<f64> {
        let mut found = Vec::new();
        let mut power = 10_f64.powf(self.low.log10().floor());
        while power <= self.high * 1.001 {
            found.extend(factors.iter().map(|factor| factor * power));
            power *= 10.0;
        }
        found.retain(|tick| *tick >= self.low * 0.999 && *tick <= self.high * 1.001);
        found
    }
}

/// Ticks of a time axis from zero to `end` seconds, and their labels.
pub(super) fn time_ticks(end: f64) -> Vec<(f64, String)> {
    let wanted = end / 8.0;
    let step = TIME_STEPS.into_iter().find(|step| *step >= wanted).unwrap_or_else(|| {
        // Days of load: whole multiples of the longest step.
        (wanted / 86_400.0).ceil() * 86_400.0
    });
    let label = |at: f64| match step {
        step if step < 60.0 => format!("{at} s"),
        step if step < 3600.0 => format!("{:.0} min", at / 60.0),
        _ => format!("{:.0} h", at / 3600.0),
    };
    stepped(0.0, end, step).into_iter().map(|at| (at, label(at))).collect()
}

/// Multiples of `step` from `low` to `high`.
fn stepped(low: f64, high: f64, step: f64) -> Vec<f64> {
    let tick = |at: i32| low + f64::from(at) * step;
    (0..64).map(tick).take_while(|at| *at <= high + step * 1e-6).collect()
}

/// A round step that divides `range` in three to five.
fn step(range: f64, base: f64) -> f64 {
    // Memory is round in its own prefixes: 64 KiB, not 65.5.
    let mut unit = 1.0;
    while range / unit >= base {
        unit *= base;
    }
    let wanted = range / unit / 4.0;
    let power = 10_f64.powf(wanted.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0].into_iter().find(|f| f * power >= wanted * 0.999);
    factor.unwrap_or(10.0) * power * unit
}

/// 1, 2 and 5 times the powers of ten around a number.
fn round_numbers(number: f64) -> [f64; 7] {
    let power = 10_f64.powf(number.log10().floor());
    [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0].map(|factor| factor * power)
}

const TIME_STEPS: [f64; 19] = [
    0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0,
    3600.0, 7200.0, 21_600.0, 86_400.0,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_axis_ends_on_a_tick_at_or_above_the_peak() {
        for peak in [0.3, 1.0, 17.0, 203_517.0, 1e9] {
            let scale = Scale::from_zero(peak, 1000.0);
            let ticks = scale.ticks(1000.0, 8);
            assert!((3..=6).contains(&ticks.len()), "{peak}: {ticks:?}");
            assert!(ticks.last().is_some_and(|last| *last >= peak * 0.999), "{peak}: {ticks:?}");
            assert!(scale.share(peak) > 0.6 && scale.share(0.0) == 0.0, "{peak}: {scale:?}");
        }
    }

    #[test]
    fn memory_is_round_in_its_own_prefixes() {
        let ticks = Scale::from_zero(10_000_000.0, 1024.0).ticks(1024.0, 8);
        let mebibytes: Vec<_> = ticks.iter().map(|tick| tick / 1_048_576.0).collect();
        assert_eq!(mebibytes, [0.0, 2.5, 5.0, 7.5, 10.0]);
    }

    #[test]
    fn a_logarithmic_axis_begins_and_ends_on_round_numbers() {
        let scale = Scale::logarithmic(2100.0, 81_000.0);
        assert_eq!(scale.ticks(10.0, 8), [2000.0, 5000.0, 10_000.0, 20_000.0, 50_000.0, 100_000.0]);
        assert!((scale.share(14_142.0) - 0.5).abs() < 0.01, "{scale:?}");
        assert_eq!((scale.share(0.0), scale.share(1e9)), (0.0, 1.0));
        let flat = Scale::logarithmic(100.0, 100.0);
        assert!(flat.ticks(10.0, 8).len() > 1, "{flat:?}");
        assert!(Scale::logarithmic(1.0, 1e7).ticks(10.0, 8).len() == 8);
    }

    #[test]
    fn time_is_counted_as_clocks_count() {
        let last = |end| time_ticks(end).last().map(|(_, label)| label.clone());
        assert_eq!(last(69.0).as_deref(), Some("60 s"));
        assert_eq!(last(0.8).as_deref(), Some("0.8 s"));
        assert_eq!(last(1900.0).as_deref(), Some("30 min"));
        assert_eq!(last(90_000.0).as_deref(), Some("24 h"));
        assert!(time_ticks(1e6).len() < 12);
    }
}
