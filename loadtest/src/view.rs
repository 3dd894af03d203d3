//! What a run shows while it lasts.
//!
//! On a terminal three lines that are redrawn: the phase and how far it is, the figures of the last
//! second, and the received rate of the last minute as a sparkline. Elsewhere (a log, CI) one plain line
//! each ten seconds and at each new phase, so that a run that hangs can be told from one that works.
//! With `quiet` nothing. All of it goes to standard error; standard output is the summary's alone. The
//! view measures nothing and keeps nothing but the rates it draws.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::clock;
use crate::human;

/// What there is to show at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Frame {
    pub(crate) phase: String,
    /// How far the phase is: `done` of `of` sessions, messages or seconds, whichever it counts. An `of`
    /// of zero means that nobody knows.
    pub(crate) done: u64,
    pub(crate) of: u64,
    pub(crate) connected: u64,
    pub(crate) sent_per_s: f64,
    pub(crate) received_per_s: f64,
    pub(crate) p99_us: Option<f64>,
    pub(crate) failures: u64,
    /// Cores' worth of processor time of the server.
    pub(crate) server_cores: Option<f64>,
}

/// The view of one run.
#[derive(Debug)]
pub(crate) struct View {
    scenario: String,
    shown: Shown,
    /// Received rates, one a second, the newest last; at most a minute's.
    rates: VecDeque<f64>,
    sampled: Option<Instant>,
}

/// Where the view goes.
#[derive(Debug)]
enum Shown {
    Nowhere,
    /// Plain lines; when the last one was written, and of which phase.
    Lines(Option<(Instant, String)>),
    Terminal(ProgressBar),
}

impl View {
    /// A view of standard error, as its kind allows; none at all when `quiet`.
    pub(crate) fn new(scenario: &str, quiet: bool) -> Self {
        let shown = match (quiet, io::stderr().is_terminal()) {
            (true, _) => Shown::Nowhere,
            (false, false) => Shown::Lines(None),
            (false, true) => Shown::Terminal(bar()),
        };
        Self { scenario: scenario.to_owned(), shown, rates: VecDeque::new(), sampled: None }
    }

    /// Shows a moment. May be called as often as is convenient.
    pub(crate) fn update(&mut self, frame: &Frame) {
        let now = clock::now();
        self.sample(frame.received_per_s, now);
        match &mut self.shown {
            Shown::Nowhere => {}
            Shown::Lines(last) => {
                if is_due(last.as_ref(), &frame.phase, now) {
                    // A run goes on when nobody can read of it any more.
                    let _ = writeln!(io::stderr(), "{}", plain(&self.scenario, frame));
                    *last = Some((now, frame.phase.clone()));
                }
            }
            Shown::Terminal(bar) => {
                bar.set_length(frame.of.max(frame.done));
                bar.set_position(frame.done);
                bar.set_prefix(format!("{} {}", self.scenario, frame.phase));
                bar.set_message(format!("{}\n{}", figures(frame), history(&self.rates)));
            }
        }
    }

    /// Takes the view off the terminal, where the summary is to come.
    pub(crate) fn finish(&mut self) {
        if let Shown::Terminal(bar) = &self.shown {
            bar.finish_and_clear();
        }
        self.shown = Shown::Nowhere;
    }

    /// Keeps a rate when a second has passed since the last one kept.
    fn sample(&mut self, rate: f64, now: Instant) {
        if self.sampled.is_some_and(|at| now.duration_since(at) < SAMPLE) {
            return;
        }
        self.sampled = Some(now);
        if self.rates.len() == SAMPLES {
            self.rates.pop_front();
        }
        self.rates.push_back(rate);
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    match ProgressStyle::with_template(TEMPLATE) {
        Ok(style) => bar.with_style(style.progress_chars("\u{2501}\u{2578}\u{2500}")),
        Err(_) => bar,
    }
}

/// True for the first line, for a new phase, and when ten seconds have passed.
fn is_due(last: Option<&(Instant, String)>, phase: &str, now: Instant) -> bool {
    last.is_none_or(|(at, of)| of != phase || now.duration_since(*at) >= LINE)
}

/// The figures of a moment in one line; what there is not is left out.
fn figures(frame: &Frame) -> String {
    let mut parts = vec![
        format!("sent {}", human::rate(frame.sent_per_s.round())),
        format!("received {}", human::rate(frame.received_per_s.round())),
    ];
    parts.extend(frame.p99_us.map(|us| format!("p99 {}", human::micros(us))));
    parts.push(format!("connected {}", human::count(frame.connected)));
    parts
        .extend((frame.failures > 0).then(|| format!("failures {}", human::count(frame.failures))));
    parts.extend(frame.server_cores.map(|cores| format!("server {cores:.2} cores")));
    parts.join("  ")
}

/// A moment in one line of a log.
fn plain(scenario: &str, frame: &Frame) -> String {
    let done = match frame.of {
        0 => human::count(frame.done),
        of => format!("{} of {}", human::count(frame.done), human::count(of)),
    };
    format!("{scenario} {}: {done}  {}", frame.phase, figures(frame))
}

/// The sparkline with its scale; nothing until something was received.
fn history(rates: &VecDeque<f64>) -> String {
    let peak = rates.iter().copied().fold(0.0, f64::max);
    if peak <= 0.0 {
        return String::new();
    }
    let line: String = rates.iter().map(|rate| spark(rate / peak)).collect();
    format!("{line} peak {}", human::rate(peak.round()))
}

/// The block whose height is nearest to a share from 0 to 1.
fn spark(share: f64) -> char {
    let step = 1.0 / 7.0;
    let at = (1..BLOCKS.len()).filter(|at| share >= (*at as f64 - 0.5) * step).count();
    BLOCKS.get(at).copied().unwrap_or(' ')
}

const BLOCKS: [char; 8] = [
    '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}',
];
const TEMPLATE: &str = "{prefix}  {wide_bar:.cyan/dim} {human_pos}/{human_len}  {elapsed}\n{msg}";
const SAMPLES: usize = 60;
const SAMPLE: Duration = Duration::from_secs(1);
const LINE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        Frame {
            phase: "publish".into(),
            done: 400,
            of: 1200,
            connected: 10_000,
            sent_per_s: 20.4,
            received_per_s: 203_517.0,
            ..Frame::default()
        }
    }

    #[test]
    fn a_line_leaves_out_what_there_is_not() {
        let text = plain("fanout", &frame());
        let wanted = "fanout publish: 400 of 1,200  sent 20/s  received 204 k/s  connected 10,000";
        assert_eq!(text, wanted);
        let full =
            Frame { p99_us: Some(1234.0), failures: 3, server_cores: Some(0.931), ..frame() };
        let text = figures(&full);
        assert!(text.contains("p99 1.23 ms  connected 10,000  failures 3  server 0.93"), "{text}");
    }

    #[test]
    fn the_sparkline_spans_from_nothing_to_the_peak() {
        let rates = VecDeque::from([0.0, 50.0, 100.0]);
        assert_eq!(history(&rates), "\u{2581}\u{2585}\u{2588} peak 100/s");
        assert_eq!(history(&VecDeque::from([0.0])), "");
    }

    #[test]
    fn lines_come_at_each_phase_and_every_ten_seconds() {
        let start = clock::now();
        let last = (start, "connect".to_owned());
        assert!(is_due(None, "connect", start));
        assert!(!is_due(Some(&last), "connect", start + Duration::from_secs(9)));
        assert!(is_due(Some(&last), "connect", start + LINE));
        assert!(is_due(Some(&last), "hold", start));
    }

    #[test]
    fn a_rate_is_kept_each_second_for_a_minute() {
        let mut view = View::new("fanout", true);
        let start = clock::now();
        for tenth in 0..1000 {
            view.sample(f64::from(tenth), start + Duration::from_millis(100) * tenth);
        }
        assert_eq!(view.rates.len(), SAMPLES);
        assert_eq!(view.rates.back(), Some(&990.0));
    }

    #[test]
    fn the_template_of_the_bar_is_one_that_indicatif_reads() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }

    #[test]
    fn a_quiet_view_may_be_updated_and_finished() {
        let mut view = View::new("echo", true);
        view.update(&frame());
        view.finish();
        view.update(&frame());
    }
}
