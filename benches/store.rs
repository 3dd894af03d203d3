//! What a start after a crash waits for: a store of a million users of whom nobody saw that they went.
//!
//! The file is that of a process that was killed: it is copied while another one has it open. What is timed is
//! what `throng run` does with it before it serves: opening, with the check that a crash makes necessary, giving
//! everybody a last-seen time, and reading those who were there last.

use std::fs;
use std::path::Path;
use std::time::Duration;

use criterion::Criterion;
use throng::store::{Answer, Ask, Disk, Limits, Seen, Store};
use throng::sys::clock::Clock;

/// Few where the bench is only tried.
const USERS: u64 = if cfg!(debug_assertions) { 10_000 } else { 1_000_000 };

/// As many as `presence.remembered_max` says.
const REMEMBERED: usize = 100_000;

const DAY_MS: u64 = 86_400_000;
const NOW: u64 = 1_790_000_000_000;
const CACHE: usize = 16 << 20;

fn main() {
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    start(&mut criterion);
    criterion.final_summary();
}

fn open(path: &Path) -> Disk {
    let (count, bytes) = (1000, 1 << 20);
    let limits =
        Limits { count, bytes, age_ms: 30 * DAY_MS, seen_age_ms: 90 * DAY_MS, revocations: 1000 };
    match Disk::open(path, limits, CACHE) {
        Ok(disk) => disk,
        Err(fault) => panic!("{fault}"),
    }
}

fn ask(disk: &mut Disk, ask: Ask) -> Answer {
    match disk.commit(&[ask], NOW).map(|mut all| all.pop()) {
        Ok(Some(Ok(answer))) => answer,
        other => panic!("{other:?}"),
    }
}

/// Puts everybody in the file, in no order of names.
fn fill(disk: &mut Disk) {
    let name =
        |number: u64| format!("\u{1}user-{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let here = |number| Seen { owner: name(number).into(), at: NOW - number % DAY_MS, here: true };
    for first in (0..USERS).step_by(4096) {
        ask(disk, Ask::Seen((first..(first + 4096).min(USERS)).map(here).collect()));
    }
    ask(disk, Ask::Alive);
}

/// What a start does with the store; how many users it remembers.
fn take_over(path: &Path) -> usize {
    let mut disk = open(path);
    while let Answer::Settled { more: true } = ask(&mut disk, Ask::Settle) {}
    match ask(&mut disk, Ask::Recent { limit: REMEMBERED }) {
        Answer::Recent(all) => all.len(),
        other => panic!("{other:?}"),
    }
}

fn start(criterion: &mut Criterion) {
    let Ok(folder) = tempfile::tempdir() else { panic!("a folder for the file") };
    let (path, copy) = (folder.path().join("killed.redb"), folder.path().join("found.redb"));
    let mut disk = open(&path);
    fill(&mut disk);
    let bytes = fs::metadata(&path).map_or(0, |file| file.len());
    println!("{USERS} users who were here, in a file of {} MiB", bytes >> 20);
    let clock = Clock::start();
    criterion.bench_function("start after a crash", |bencher| {
        bencher.iter_custom(|times| {
            let mut all = Duration::ZERO;
            for _ in 0..times {
                assert!(fs::copy(&path, &copy).is_ok(), "the file can be copied");
                let begin = clock.now();
                assert_eq!(take_over(&copy), REMEMBERED.min(usize::try_from(USERS).unwrap_or(0)));
                all += clock.now().since(begin);
            }
            all
        });
    });
}
