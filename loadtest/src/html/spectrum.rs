//! The latency spectrum: which share of messages was at least how late.
//!
//! The axis across is that of HdrHistogram's plots: each step to the right is ten times fewer messages,
//! so that the slowest in ten thousand has as much room as the fastest half. A curve ends where its
//! count does: of a thousand messages no 99.99 % can be told.

use super::plot::{Line, Plot};
use super::scale::Scale;
use crate::hdr::Hist;
use crate::human;
use crate::outcome::Outcome;

/// The plot; nothing where no latency was measured.
pub(super) fn plot(outcome: &Outcome) -> String {
    let curves: Vec<Curve> =
        outcome.latencies.iter().take(CLASSES.len()).filter_map(curve).collect();
    let nines = curves.iter().map(|curve| curve.nines).fold(0.0, f64::max);
    if nines <= 0.0 {
        return String::new();
    }
    let values = || curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.1));
    let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let scale = Scale::logarithmic(least, most);
    let end = nines.clamp(1.0, MOST_NINES);
    let lines = curves.iter().zip(CLASSES).map(|(curve, class)| {
        let place = |(nines, us): &(f64, f64)| Some((nines / end, scale.share(*us)));
        let points = curve.points.iter().map(place).collect();
        let label_at = curve.points.last().map_or(0.0, |(_, us)| scale.share(*us));
        Line { label: curve.name.clone(), class, points, label_at, filled: false }
    });
    let tick = |(nines, label): &(f64, &str)| (nines / end, (*label).to_owned());
    Plot {
        height: HEIGHT,
        title: "Latency by percentile".to_owned(),
        note: "each step to the right is ten times fewer messages; both axes logarithmic"
            .to_owned(),
        across: TICKS.iter().filter(|(nines, _)| *nines <= end).map(tick).collect(),
        up: scale
            .ticks(10.0, Plot::room(HEIGHT))
            .into_iter()
            .map(|us| (scale.share(us), human::short(&human::micros(us))))
            .collect(),
        lines: lines.collect(),
        strips: strips(&curves, end),
        ..Plot::default()
    }
    .render()
}

/// One latency: how many nines its count allows, and the value at each step of them.
struct Curve {
    name: String,
    nines: f64,
    points: Vec<(f64, f64)>,
    hist: Hist,
}

fn curve(latency: &crate::outcome::Latency) -> Option<Curve> {
    // A histogram that cannot be read leaves the table of percentiles, which needs none.
    let hist = Hist::from_latency(latency).ok().filter(|hist| !hist.is_empty())?;
    let nines = (hist.count() as f64).log10().min(MOST_NINES);
    let at = |step: u32| nines * f64::from(step) / f64::from(STEPS);
    let mut points: Vec<_> =
        (0..STEPS).filter_map(|step| Some((at(step), value(&hist, at(step))?))).collect();
    // The last of the messages is the slowest.
    points.extend(hist.max_us().map(|max| (nines, max)));
    Some(Curve { name: latency.name.clone(), nines, points, hist })
}

/// The latency in microseconds that all but one in 10^`nines` messages keep within.
fn value(hist: &Hist, nines: f64) -> Option<f64> {
    hist.quantile_us(1.0 - 10_f64.powf(-nines))
}

/// The figures of each part of the axis, shown under the pointer.
fn strips(curves: &[Curve], end: f64) -> Vec<(f64, f64, String)> {
    let width = 1.0 / f64::from(STRIPS);
    let strip = |at: u32| {
        let from = f64::from(at) * width;
        let nines = (from + width / 2.0) * end;
        let mut text = format!("{} % within", percentile(nines));
        for curve in curves.iter().filter(|curve| curve.nines >= nines) {
            if let Some(us) = value(&curve.hist, nines) {
                text.push_str(&format!("\n{} {}", curve.name, human::micros(us)));
            }
        }
        (from, width, text)
    };
    (0..STRIPS).map(strip).collect()
}

/// The percentage, with as many digits as tell it from 100.
fn percentile(nines: f64) -> String {
    let percent = 100.0 * (1.0 - 10_f64.powf(-nines));
    match nines {
        nines if nines < 2.0 => format!("{percent:.1}"),
        nines if nines < 3.0 => format!("{percent:.2}"),
        nines if nines < 4.0 => format!("{percent:.3}"),
        _ => format!("{percent:.5}"),
    }
}

const CLASSES: [&str; 6] = ["s1", "s2", "s3", "s4", "s5", "s6"];
const TICKS: [(f64, &str); 9] = [
    (0.0, "0 %"),
    (std::f64::consts::LOG10_2, "50 %"),
    (1.0, "90 %"),
    (2.0, "99 %"),
    (3.0, "99.9 %"),
    (4.0, "99.99 %"),
    (5.0, "99.999 %"),
    (6.0, "99.9999 %"),
    (7.0, "99.99999 %"),
];
const HEIGHT: f64 = 260.0;
const MOST_NINES: f64 = 7.0;
const STEPS: u32 = 240;
const STRIPS: u32 = 120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_has_the_digits_that_tell_it_from_all() {
        assert_eq!(percentile(1.0), "90.0");
        assert_eq!(percentile(2.0), "99.00");
        assert_eq!(percentile(3.0), "99.900");
        assert_eq!(percentile(5.0), "99.99900");
    }

    #[test]
    fn a_curve_ends_where_its_count_does() {
        let mut hist = Hist::fine();
        for ms in 1..=1000 {
            hist.record_ns(ms * 1_000_000);
        }
        let curve = curve(&hist.latency("echo")).expect("a curve");
        assert!((curve.nines - 3.0).abs() < 1e-9);
        let (_, last) = curve.points.last().expect("points");
        assert!(*last > 998_000.0, "{last}");
        assert!(super::curve(&Hist::fine().latency("echo")).is_none());
    }
}
