//! Medians and the bootstrap.
//!
//! The ratio of two medians has no handy formula for its uncertainty and latencies have no handy
//! distribution, so the samples themselves are drawn from, with replacement, many times, and the middle
//! 95 % of the ratios that come out are the interval. The seed is fixed: the same files give the same
//! answer. The percentile form is used, which with three runs a side spans all that was seen; that is
//! wide, and right so. Numbers in, numbers out.

/// The middle 95 % of what the ratio may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Interval {
    pub(super) low: f64,
    pub(super) high: f64,
}

/// The median; absent of nothing. Of an even number the mean of the middle two.
pub(super) fn median(sample: &[f64]) -> Option<f64> {
    median_in(&mut sample.to_vec())
}

/// How many times the median of `a` the median of `b` is; absent where that is no number.
pub(super) fn ratio(a: &[f64], b: &[f64]) -> Option<f64> {
    divide(median(a)?, median(b)?)
}

/// The interval of [`ratio`] by the bootstrap; absent where a resample has no ratio.
pub(super) fn interval(a: &[f64], b: &[f64]) -> Option<Interval> {
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut ratios = Vec::with_capacity(RESAMPLES);
    let (mut drawn_a, mut drawn_b) = (Vec::new(), Vec::new());
    for _ in 0..RESAMPLES {
        draw(&mut random, a, &mut drawn_a);
        draw(&mut random, b, &mut drawn_b);
        ratios.push(divide(median_in(&mut drawn_a)?, median_in(&mut drawn_b)?)?);
    }
    ratios.sort_by(f64::total_cmp);
    let tail = RESAMPLES / 40;
    Some(Interval { low: *ratios.get(tail)?, high: *ratios.get(RESAMPLES - 1 - tail)? })
}

/// As many values as the sample has, each chosen from all of them.
fn draw(random: &mut fastrand::Rng, sample: &[f64], drawn: &mut Vec<f64>) {
    drawn.clear();
    drawn.extend(sample.iter().filter_map(|_| sample.get(random.usize(..sample.len()))));
}

/// The median of values that may be put in another order.
fn median_in(values: &mut [f64]) -> Option<f64> {
    let middle = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    let even = values.len().is_multiple_of(2);
    let (below, upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    if !even {
        return Some(*upper);
    }
    let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Some(f64::midpoint(lower, *upper))
}

fn divide(a: f64, b: f64) -> Option<f64> {
    let ratio = b / a;
    (a > 0.0 && ratio.is_finite()).then_some(ratio)
}

const SEED: u64 = 0x7468_726f_6e67;
const RESAMPLES: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Values around `mean`, within a tenth of it.
    fn noise(seed: u64, count: usize, mean: f64) -> Vec<f64> {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..count).map(|_| mean * (0.95 + 0.1 * random.f64())).collect()
    }

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[2.0, 2.0, 9.0, 2.0]), Some(2.0));
    }

    #[test]
    fn constant_samples_leave_no_doubt() {
        let found = interval(&[4.0; 5], &[5.0; 5]).expect("an interval");
        assert_eq!(found, Interval { low: 1.25, high: 1.25 });
        assert_eq!(ratio(&[4.0; 5], &[5.0; 5]), Some(1.25));
    }

    #[test]
    fn with_three_runs_a_side_the_interval_spans_what_was_seen() {
        let found = interval(&[1.0, 1.1, 1.2], &[1.3, 1.4, 1.5]).expect("an interval");
        assert!(found.low < 1.3 / 1.1 && found.high > 1.5 / 1.1, "{found:?}");
        assert!(found.low >= 1.3 / 1.2 && found.high <= 1.5 / 1.0, "{found:?}");
    }

    #[test]
    fn the_interval_holds_the_ratio_and_repeats_itself() {
        let (a, b) = (noise(1, 7, 10.0), noise(2, 7, 11.0));
        let found = interval(&a, &b).expect("an interval");
        let middle = ratio(&a, &b).expect("a ratio");
        assert!(found.low <= middle && middle <= found.high, "{found:?} {middle}");
        assert_eq!(interval(&a, &b), Some(found));
        let turned = interval(&b, &a).expect("an interval");
        assert!((turned.low * found.high - 1.0).abs() < 0.02, "{found:?} {turned:?}");
    }

    #[test]
    fn ten_percent_are_found_and_nothing_is_not() {
        let a = noise(3, 60, 100.0);
        let worse = interval(&a, &noise(4, 60, 110.0)).expect("an interval");
        assert!(worse.low > 1.05 && worse.high < 1.15, "{worse:?}");
        let same = interval(&a, &noise(5, 60, 100.0)).expect("an interval");
        assert!(same.low < 1.0 && same.high > 1.0 && same.high < 1.05, "{same:?}");
    }

    #[test]
    fn nothing_and_zero_have_no_ratio() {
        assert_eq!(ratio(&[], &[1.0]), None);
        assert_eq!(ratio(&[0.0], &[1.0]), None);
        assert_eq!(interval(&[0.0; 3], &[1.0; 3]), None);
        assert_eq!(interval(&[1.0], &[]), None);
    }
}
