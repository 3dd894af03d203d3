//! Comparisons of whole outcomes, as files and in memory.

use super::table::{Finding, Line};
use super::*;
use crate::html::sample;

/// Runs of which each has the processor time and the memory of the last times `factor`, with noise.
fn runs(count: u64, factor: f64) -> Side {
    let run = |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut run = sample::fanout();
        let noise = 0.99 + 0.02 * random.f64();
        let server = run.server.as_mut().expect("a server");
        server.cpu_us_per_message = Some(4.8 * factor * noise);
        for second in &mut run.series {
            second.server_cores = second.server_cores.map(|cores| cores * factor);
        }
        run
    };
    Side { runs: (0..count).map(run).collect(), left_out: Vec::new() }
}

fn line(a: &Side, b: &Side, name: &str) -> Line {
    let (mut lines, _) = compare(a, b, &[name.to_owned()]).expect("comparable");
    lines.remove(0)
}

#[test]
fn a_tenth_more_processor_time_is_worse_by_runs_and_by_seconds() {
    for count in [5, 1] {
        let found = line(&runs(count, 1.0), &runs(count, 1.1), "cpu_us_per_message");
        assert_eq!(found.finding(1.05), Finding::Worse, "{found:?}");
        assert_eq!(found.finding(1.2), Finding::Open, "{found:?}");
        let found = line(&runs(count, 1.1), &runs(count, 1.0), "cpu_us_per_message");
        assert_eq!(found.finding(1.05), Finding::Better, "{found:?}");
        let found = line(&runs(count, 1.0), &runs(count, 1.0), "cpu_us_per_message");
        assert_eq!(found.finding(1.05), Finding::Open, "{found:?}");
    }
}

#[test]
fn where_more_is_better_less_is_worse() {
    let (a, mut b) = (runs(3, 1.0), runs(3, 1.0));
    for second in b.runs.iter_mut().flat_map(|run| &mut run.series) {
        second.received = second.received * 4 / 5;
    }
    assert_eq!(line(&a, &b, "received_per_s").finding(1.05), Finding::Worse);
    assert_eq!(line(&b, &a, "received_per_s").finding(1.05), Finding::Better);
}

#[test]
fn one_run_of_a_figure_without_a_series_is_not_judged() {
    let (a, mut b) = (runs(1, 1.0), runs(1, 1.0));
    let server = b.runs[0].server.as_mut().expect("a server");
    server.memory.user_bytes_per_connection = Some(9999.0);
    let found = line(&a, &b, "user_bytes_per_connection");
    assert_eq!(found.finding(1.05), Finding::Open);
    let text = table::render(&[found], 1.05);
    assert!(text.contains("none") && text.contains("give three runs a side"), "{text}");
}

#[test]
fn a_figure_that_one_side_lacks_is_left_out_or_refused_by_name() {
    let (a, mut b) = (runs(3, 1.0), runs(3, 1.0));
    for run in &mut b.runs {
        run.server = None;
    }
    let (lines, _) = compare(&a, &b, &[]).expect("comparable");
    let text = table::render(&lines, 1.05);
    assert!(!text.contains("\ncpu_us") && text.contains("delivery_p99_us"), "{text}");
    let error = compare(&a, &b, &["delivery_p98_us".to_owned()]).map(|_| ()).expect_err("unknown");
    assert!(error.contains("the nearest is delivery_p99_us"), "{error}");
}

#[test]
fn runs_of_different_things_are_refused() {
    let a = runs(1, 1.0);
    let mut b = runs(1, 1.0);
    b.runs[0].about.clients = 7;
    let (_, notes) = compare(&a, &b, &[]).expect("comparable");
    assert_eq!(notes, ["clients differ, 10000 and 7"]);
    b.runs[0].about.open_loop = false;
    assert!(compare(&a, &b, &[]).is_err());
    b = runs(1, 1.0);
    b.runs[0].about.scenario = "echo".into();
    assert!(compare(&a, &b, &[]).is_err());
}

#[test]
fn files_are_read_or_refused_with_their_name() {
    let folder = std::env::temp_dir().join(format!("throng-load-compare-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let write = |name: &str, run: &Outcome| {
        let path = folder.join(name);
        fs::write(&path, serde_json::to_vec(run).expect("JSON")).expect("a file");
        path
    };
    let good = write("good.json", &sample::fanout());
    let failed = write("failed.json", &sample::failed());
    let newer = write("newer.json", &Outcome { format: FORMAT + 1, ..sample::fanout() });
    let args = |a: &PathBuf, b: &PathBuf| Args {
        a: vec![a.clone()],
        b: vec![b.clone()],
        metrics: Vec::new(),
        worse: 1.05,
    };
    assert_eq!(args(&good, &good).run(), Ok(true));
    let refused = [(&newer, "newer.json: format 2"), (&failed, "no run to believe")];
    for (path, why) in refused {
        let error = args(&good, path).run().expect_err(why);
        assert!(error.contains(why), "{error}");
    }
    let found = side("A", &[good, failed]).expect("one good run");
    assert_eq!((found.runs.len(), found.left_out.len()), (1, 1));
    fs::remove_dir_all(&folder).expect("the folder is there");
}

#[test]
fn a_figure_that_is_absent_gives_its_seconds_to_no_other() {
    let mut run = sample::idle();
    // Seconds without messages lie in the series of a run that has no rate.
    run.phases.clear();
    let found = metrics::collect(&[run]);
    assert!(found.iter().all(|metric| metric.name != "received_per_s"), "{found:?}");
    assert!(found.iter().all(|metric| metric.seconds.is_empty()), "{found:?}");
}

#[test]
fn the_ratio_allowed_is_at_least_one() {
    assert_eq!(ratio("1.05"), Ok(1.05));
    for text in ["0.9", "x", "NaN", ""] {
        assert!(ratio(text).is_err(), "{text}");
    }
}
