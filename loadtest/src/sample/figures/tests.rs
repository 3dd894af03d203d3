//! Figures of made-up snapshots.

use std::time::{Duration, Instant};

use super::*;

fn snapshot(zero: Instant, second: u64, server: Option<Process>) -> Snapshot {
    Snapshot {
        at: zero + Duration::from_secs(second),
        server,
        own: Process::default(),
        cores: BTreeMap::new(),
        detail: Some(Detail::default()),
    }
}

fn named<V>(pairs: &[(&str, V)]) -> BTreeMap<String, V>
where
    V: Copy,
{
    pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

fn process(cpu_s: f64, rss_anon: u64) -> Process {
    Process { cpu_s, rss_anon }
}

/// Ten seconds of connecting, ten of messages, one of closing.
fn run() -> [Snapshot; 4] {
    let zero = crate::clock::now();
    let mut start = snapshot(zero, 0, Some(process(1.0, 1_000_000)));
    let mut from = snapshot(zero, 10, Some(process(3.0, 1_640_000)));
    let mut to = snapshot(zero, 20, Some(process(9.0, 3_000_000)));
    let end = snapshot(zero, 21, Some(process(9.0, 1_100_000)));
    let second = rustix::param::clock_ticks_per_second();
    from.cores = BTreeMap::from([(0, Core::default()), (1, Core::default())]);
    let core = |busy, idle, stolen| Core {
        busy: busy * second,
        idle: idle * second,
        stolen: stolen * second,
    };
    to.cores = BTreeMap::from([(0, core(8, 1, 1)), (1, core(5, 5, 0))]);
    start.own = process(0.5, 2_000_000);
    from.own = process(1.0, 9_500_000);
    to.own = process(3.5, 9_500_000);
    if let (Some(before), Some(between), Some(after)) =
        (&mut start.detail, &mut from.detail, &mut to.detail)
    {
        before.slabs = named(&[("TCP", 1_000_u64), ("all", 10_000_000)]);
        between.slabs = named(&[("TCP", 500), ("all", 49_950_000)]);
        before.sockets = named(&[("TCP.inuse", 1_i64)]);
        between.sockets = named(&[("TCP.inuse", 10_001)]);
        between.counters = named(&[(FRAMES, 100.0), (WRITES, 100.0)]);
        after.counters = named(&[(FRAMES, 1_000_100.0), (WRITES, 250_100.0), ("turns_total", 7.0)]);
        before.pss_anon = Some(1_000_000);
        (between.others_cpu_s, after.others_cpu_s) = (50.0, 50.5);
        (after.server_cores, after.own_cores) = (vec![0], vec![1]);
    }
    [start, from, to, end]
}

fn marks(run: &[Snapshot; 4]) -> Marks<'_> {
    let [start, from, to, end] = run;
    Marks { start, connected: from, measured_from: from, paced_to: None, measured_to: to, end }
}

const COUNTS: Counts = Counts { sessions: 10_000, messages: 1_000_000 };

fn near(found: impl Into<Option<f64>>, expected: f64) {
    let found = found.into().expect("a figure");
    assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
}

#[test]
fn the_costs_of_a_server_are_of_its_measured_part_and_its_own_cores() {
    let run = run();
    let server = server_use(&marks(&run), COUNTS).expect("a server");
    near(server.cpu_s, 6.0);
    near(server.cpu_us_per_message, 6.0);
    near(server.cpu_us_per_session, 200.0);
    near(server.core_busy, 0.8);
    near(server.core_busy_us_per_message, 8.0);
    near(server.frames_per_write, 4.0);
    near(server.counters.get("turns_total").copied(), 7.0);
}

#[test]
fn memory_is_the_growth_until_all_were_connected() {
    let run = run();
    let memory = server_use(&marks(&run), COUNTS).expect("a server").memory;
    near(memory.user_bytes_per_connection, 64.0);
    near(memory.kernel_bytes_per_connection, 3_995.0);
    assert_eq!(memory.pss_anon_per_connection, None, "it was read once only");
    assert_eq!(memory.slabs, named(&[("TCP", -500), ("all", 39_950_000)]));
    assert_eq!(memory.sockets, named(&[("TCP.inuse", 10_000)]));
    let levels = [memory.rss_anon_start, memory.rss_anon_connected, memory.rss_anon_end];
    assert_eq!(levels, [1_000_000, 1_640_000, 1_100_000]);
    assert_eq!(memory.rss_anon_peak, 3_000_000);
}

#[test]
fn what_goes_to_everyone_after_a_paced_load_does_not_count_as_busy() {
    let run = run();
    let mut quiet = run[1].clone();
    quiet.cores.values_mut().for_each(|core| core.idle += 1_000);
    let marks = Marks { paced_to: Some(&quiet), ..marks(&run) };
    near(generator_use(&marks, COUNTS).core_busy, 0.0);
    near(generator_use(&marks, COUNTS).cpu_s, 2.5);
}

#[test]
fn the_generator_answers_for_its_cores_for_others_and_for_what_was_stolen() {
    let run = run();
    let own = generator_use(&marks(&run), COUNTS);
    near(own.cpu_s, 2.5);
    near(own.cpu_us_per_message, 2.5);
    near(own.core_busy, 0.5);
    near(own.bytes_per_client, 750.0);
    near(own.foreign, 0.05);
    near(own.stolen, 0.1);
}

#[test]
fn without_a_server_or_counts_there_are_no_figures_of_them() {
    let mut run = run();
    run[2].server = None;
    assert!(server_use(&marks(&run), COUNTS).is_none());
    let own = generator_use(&marks(&run), Counts::default());
    assert_eq!((own.cpu_us_per_message, own.bytes_per_client), (None, None));
    let same = [0; 4].map(|_| run[0].clone());
    let own = generator_use(&marks(&same), COUNTS);
    assert_eq!((own.foreign, own.stolen, own.core_busy), (0.0, 0.0, 0.0));
}

#[test]
fn usage_is_in_cores() {
    let run = run();
    let used = usage(&run[1], &run[2]);
    near(used.server, 0.6);
    near(used.own, 0.25);
    assert_eq!(usage(&run[1], &run[1]), Usage::default());
}
