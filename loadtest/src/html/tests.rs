//! The page as a whole: complete, self-contained, well-formed, and safe whatever the texts hold.

use super::*;
use crate::outcome::{Latency, Second};

/// Every tag that is opened is closed, in order; what needs no closing tag is left out.
fn assert_well_formed(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let body = page.split("</style>").nth(1).expect("a style sheet");
    for part in body.split('<').skip(1) {
        let (tag, _) = part.split_once('>').expect("a tag ends");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().expect("a name");
        if tag.starts_with('/') {
            let last = open.pop();
            assert!(last == Some(name) || ["head", "html"].contains(&name), "{last:?} </{tag}>");
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn a_page_is_well_formed_and_asks_for_nothing() {
    for outcome in [sample::fanout(), sample::idle(), sample::failed(), Outcome::default()] {
        let page = page(&outcome);
        assert_well_formed(&page);
        for wanting in
            ["<script", "<link", "<img", "src=", "href=", "@import", "url(", "NaN", "inf"]
        {
            assert!(!page.contains(wanting), "{wanting}: {}", outcome.about.scenario);
        }
    }
}

#[test]
fn a_page_shows_what_was_measured_and_nothing_else() {
    let full = page(&sample::fanout());
    for title in ["Latency by percentile", "Messages received", "Processor time", "Memory of the"] {
        assert!(full.contains(title), "{title}");
    }
    let idle = page(&sample::idle());
    assert!(!idle.contains("Messages") && idle.contains("Connections"));
    let failed = page(&sample::failed());
    assert!(!failed.contains("Memory of the server") && failed.contains("12 messages were lost"));
}

#[test]
fn texts_from_outside_cannot_break_out() {
    let mut outcome = sample::failed();
    let text = "</style></pre><b a=\"'>&";
    outcome.about.scenario = text.into();
    outcome.about.scenario_toml = text.into();
    outcome.about.environment.kernel = text.into();
    outcome.verdict.faults.push(text.into());
    outcome.latencies[0].name = text.into();
    outcome.phases[2].name = text.into();
    let page = page(&outcome);
    assert_well_formed(&page);
    assert!(!page.contains("<b a"));
    assert_eq!(escape("a\u{0}\n"), "a\u{fffd}\n");
}

#[test]
fn rates_of_one_size_share_a_plot() {
    let mut outcome = sample::fanout();
    for second in &mut outcome.series {
        second.received = second.sent;
    }
    let page = page(&outcome);
    assert!(!page.contains("Messages received") && page.contains("<figcaption>Messages <span>"));
}

#[test]
fn a_day_of_seconds_makes_a_page_no_larger_than_six_minutes() {
    let second = |at: u32| Second {
        at_s: f64::from(at),
        connected: 5,
        p99_us: Some(100.0),
        ..Second::default()
    };
    let run =
        |seconds| Outcome { series: (1..=seconds).map(second).collect(), ..Outcome::default() };
    let (short, long) = (page(&run(360)), page(&run(86_400)));
    assert!(long.len() < short.len() * 2, "{} and {}", short.len(), long.len());
    assert!(long.contains("worst of every 240 seconds"));
}

#[test]
fn a_latency_whose_histogram_cannot_be_read_keeps_its_row() {
    let mut outcome = sample::fanout();
    outcome.latencies =
        vec![Latency { name: "echo".into(), count: 3, p99_us: 5.0, ..Latency::default() }];
    let page = page(&outcome);
    assert!(page.contains("<th>echo</th>") && !page.contains("Latency by percentile"));
}
