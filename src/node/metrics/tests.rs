//! Everything is exported once, and what is exported is what the format asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::base::histogram::PLACES;
use crate::node::metrics::families::{LEFT_OUT, grouped};

/// A sample: its name, its labels, its value.
pub(crate) type Sample = (String, BTreeMap<String, String>, f64);

/// Reads a document strictly: every line in its place, every name of its family, no series twice,
/// histograms cumulative up to their count.
pub(crate) fn parse(text: &str) -> Vec<Sample> {
    assert!(text.ends_with('\n'), "the last line ends");
    let (mut samples, mut families, mut series) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let help = line.strip_prefix("# HELP ").unwrap_or_else(|| panic!("no help: {line}"));
        let (family, help) = help.split_once(' ').expect("a text");
        assert!(!help.is_empty() && help.trim() == help, "{line}");
        assert!(
            is_name(family) && families.insert(family.to_owned()),
            "{family} twice, or no name"
        );
        let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {family} ")));
        let kind = kind.unwrap_or_else(|| panic!("no type of {family}"));
        assert_eq!(kind == "counter", family.ends_with("_total"), "{family} is a {kind}");
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let (name, labels, value) = sample(line);
            let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{name} in {family}"));
            let suffixes: &[&str] =
                if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&suffix), "{name} in {family}");
            assert_eq!(labels.contains_key("le"), suffix == "_bucket", "{line}");
            assert!(kind != "counter" || value >= 0.0, "{line}");
            assert!(series.insert((name.clone(), labels.clone())), "twice: {line}");
            samples.push((name, labels, value));
        }
        if kind == "histogram" {
            check_histogram(family, &samples);
        }
    }
    samples
}

fn is_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

fn sample(line: &str) -> Sample {
    let (head, value) = line.rsplit_once(' ').expect("a value");
    let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
    let Some((name, rest)) = head.split_once('{') else {
        assert!(is_name(head), "{line}");
        return (head.to_owned(), BTreeMap::new(), value);
    };
    assert!(is_name(name), "{line}");
    let mut labels = BTreeMap::new();
    let mut rest = rest;
    while !rest.is_empty() && rest != "}" {
        let (label, after) = rest.split_once("=\"").expect("a label");
        assert!(is_name(label), "{line}");
        let (mut text, mut end) = (String::new(), None);
        let mut characters = after.char_indices();
        while let Some((at, c)) = characters.next() {
            match c {
                '"' => end = Some(at),
                '\\' => match characters.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, escaped @ ('\\' | '"'))) => text.push(escaped),
                    other => panic!("{other:?} escaped: {line}"),
                },
                other => text.push(other),
            }
            if end.is_some() {
                break;
            }
        }
        assert!(labels.insert(label.to_owned(), text).is_none(), "a label twice: {line}");
        rest = &after[end.expect("an end") + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    assert_eq!(rest, "}", "{line}");
    (name.to_owned(), labels, value)
}

fn check_histogram(family: &str, samples: &[Sample]) {
    let mut by_series: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
    for (name, labels, value) in samples {
        if *name == format!("{family}_bucket") {
            let mut labels = labels.clone();
            let bound = labels.remove("le").expect("a bound").parse().expect("a number or +Inf");
            by_series.entry(labels).or_default().push((bound, *value));
        }
    }
    assert!(!by_series.is_empty(), "{family} has buckets");
    for (labels, buckets) in by_series {
        let grows = |pair: &[(f64, f64)]| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1;
        assert!(buckets.windows(2).all(grows), "{family} {labels:?}: {buckets:?}");
        let (bound, count) = buckets[buckets.len() - 1];
        assert!(bound.is_infinite(), "{family} {labels:?} ends at {bound}");
        let own = |suffix: &str| {
            let name = format!("{family}{suffix}");
            let found = samples.iter().find(|(n, l, _)| *n == name && *l == labels);
            found.unwrap_or_else(|| panic!("{name} {labels:?}")).2
        };
        assert!((own("_count") - count).abs() < 0.5, "{family} {labels:?}");
        assert!(own("_sum") >= 0.0, "{family} {labels:?}");
    }
}

fn document(board: &Board, shards: usize) -> String {
    let about = About {
        namespaces: vec!["game:*".to_owned(), "game:*".to_owned(), "a\"b\\c".to_owned()],
        driver: "epoll".to_owned(),
        ..About::default()
    };
    let mut out = Exposition::default();
    expose(&mut out, board, &about, &vec![[1, 2]; shards]);
    out.finish()
}

fn value(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let labels: BTreeMap<String, String> =
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let found = samples.iter().find(|(n, l, _)| n == name && *l == labels);
    found.unwrap_or_else(|| panic!("there is no {name} {labels:?}")).2
}

#[test]
fn what_is_exported_is_what_the_format_asks_for() {
    let samples = parse(&document(&Board::new(3), 3));
    assert!((value(&samples, "throng_accepting", &[]) - 1.0).abs() < 0.1);
    let labels = [("shard", "2"), ("lane", "delivery")];
    assert!((value(&samples, "throng_shard_inbox_mail", &labels) - 2.0).abs() < 0.1);
    // Of two namespaces with one pattern the first has all the rooms.
    value(&samples, "throng_dropped_total", &[("namespace", "game:*"), ("policy", "conflate")]);
    value(&samples, "throng_dropped_total", &[("namespace", "a\"b\\c"), ("policy", "drop_new")]);
}

#[test]
fn every_counter_is_exported_once_or_left_out_with_a_reason() {
    let samples = parse(&document(&Board::new(1), 1));
    for name in Counters::NAMES {
        // A family of that name with labels is a group's, and what it tells apart has a counter of its own.
        let is_own = |(n, labels, _): &&Sample| *n == format!("throng_{name}") && labels.is_empty();
        let own = samples.iter().filter(is_own).count();
        let members: Vec<_> = grouped().filter(|(_, _, counter)| counter == name).collect();
        for (family, label, _) in &members {
            let is_told = |(n, labels, _): &Sample| n == family && labels.values().eq([label]);
            assert_eq!(samples.iter().filter(|sample| is_told(sample)).count(), 1, "{name}");
        }
        let left_out =
            LEFT_OUT.iter().filter(|(left, why)| left == name && !why.is_empty()).count();
        assert_eq!(own + members.len() + left_out, 1, "{name}");
    }
    for (name, _) in LEFT_OUT {
        assert!(Counters::NAMES.contains(name), "{name} is left out and does not exist");
    }
    for (_, _, name) in grouped() {
        assert!(Counters::NAMES.contains(&name), "{name} is grouped and does not exist");
    }
}

#[test]
fn a_node_that_is_full_or_short_of_memory_says_so() {
    let about = About { connections: 10, budget: 100_000, ..About::default() };
    let counters = |open_connections, charged_bytes| Counters {
        open_connections,
        charged_bytes,
        ..Counters::default()
    };
    let of = |open, charged| about.shortages(&counters(open, charged), false);
    let (full, short) = ("it has as many connections as it takes", "memory is short");
    assert_eq!(of(9, 94_999), Vec::<&str>::new());
    assert_eq!(of(10, 94_999), [full]);
    assert_eq!(of(9, 95_000), [short]);
    assert_eq!(of(11, 200_000), [full, short]);
    assert_eq!(about.shortages(&counters(0, 0), true), [BROKEN]);
    let without = About { ready_without: [true; 2], ..about };
    assert_eq!(without.shortages(&counters(0, 0), true), Vec::<&str>::new());
    assert_eq!(without.troubles(true), [BROKEN], "and it says so all the same");
}

#[test]
fn the_number_of_series_is_bounded_by_shards_and_namespaces() {
    let series = |shards: u16| parse(&document(&Board::new(shards), usize::from(shards))).len();
    let (one, two, nine) = (series(1), series(2), series(9));
    let each = two - one;
    assert_eq!(nine, one + 8 * each, "every shard has as many");
    assert!(each <= PLACES + 12, "{each} for a shard");
    assert!(one < 400, "{one} with one shard");
}

/// A driver whose first write takes 50 milliseconds: something keeps the core, and the loop with it.
struct Stalling {
    left: u32,
    never: crossbeam_channel::Receiver<()>,
    _keep: crossbeam_channel::Sender<()>,
}

impl crate::contract::Driver for Stalling {
    fn submit(&mut self, _: crate::contract::Op) -> Option<crate::contract::Event<'static>> {
        if self.left > 0 {
            self.left -= 1;
            let _ = self.never.recv_timeout(Duration::from_millis(50));
        }
        None
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        on_event: &mut dyn FnMut(crate::contract::Event<'_>),
    ) -> io::Result<()> {
        if timeout != Some(Duration::ZERO) {
            let socket = crate::contract::SocketTicket(1);
            let listener = crate::contract::ListenerId(0);
            on_event(crate::contract::Event::Accepted { socket, listener, peer: None });
        }
        Ok(())
    }
}

#[test]
fn a_stall_of_50_ms_shows_in_the_next_scrape() {
    let (keep, never) = crossbeam_channel::bounded(1);
    let driver = |left| Stalling { left, never: never.clone(), _keep: keep.clone() };
    for stalls in [0, 1] {
        let board = Arc::new(Board::new(1));
        crate::node::worker::tests::turns(Box::new(driver(stalls)), &board, 5);
        let samples = parse(&document(&board, 1));
        let up_to = |bound: &str| {
            let labels = [("shard", "0"), ("le", bound)];
            value(&samples, "throng_loop_lag_seconds_bucket", &labels)
        };
        // Nothing but the stall is held to a length: a busy machine may add to any turn.
        assert!(up_to("+Inf") >= 4.0, "turns are counted");
        assert!(up_to("+Inf") - up_to("0.032768") >= f64::from(stalls), "{stalls} stalls");
        let sum = value(&samples, "throng_loop_lag_seconds_sum", &[("shard", "0")]);
        assert!(sum >= 0.05 * f64::from(stalls), "{sum}");
    }
}
