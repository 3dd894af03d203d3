//! Takes snapshots of the server, this program and the machine.
//!
//! A snapshot of each second reads four small files. A full one also reads what grows with the machine: the
//! slabs, all processes, the threads of the server, and it asks the server for its counters, which may take
//! up to a second; it belongs between the phases of a run, never within one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::time::{ClockId, clock_gettime};

use super::counters::Counters;
use super::proc::{self, Core};
use super::{cores, figures};
use crate::clock::now;
use crate::outcome::ServerUse;

/// Watches one server, or none, and this program.
#[derive(Debug)]
pub(crate) struct Sampler {
    pid: Option<u32>,
    command: String,
    counters: Option<Counters>,
    /// The highest seen in any snapshot.
    server_peak: u64,
}

/// The state at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) at: Instant,
    /// Absent without a server, and once it has ended.
    pub(crate) server: Option<Process>,
    pub(crate) own: Process,
    /// By number.
    pub(crate) cores: BTreeMap<u32, Core>,
    /// Only in full snapshots.
    pub(crate) detail: Option<Detail>,
}

/// What one process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Process {
    /// Seconds of processor time of all its threads. Of the server it is known to a tick, mostly 10 ms.
    pub(crate) cpu_s: f64,
    pub(crate) rss_anon: u64,
}

/// What is too dear to look at each second.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Detail {
    /// Of the server.
    pub(crate) pss_anon: Option<u64>,
    /// Bytes of the caches that connections live in, and `all`; empty when the kernel does not show them.
    pub(crate) slabs: BTreeMap<String, u64>,
    pub(crate) sockets: BTreeMap<String, i64>,
    /// Seconds of processor time that all other programs have used. Threads of the kernel are not counted:
    /// they work for whoever sends.
    pub(crate) others_cpu_s: f64,
    /// The cores that any thread of the server may run on, ascending.
    pub(crate) server_cores: Vec<u32>,
    /// The cores that any thread of this program may run on, ascending.
    pub(crate) own_cores: Vec<u32>,
    /// Empty when the server offers none.
    pub(crate) counters: BTreeMap<String, f64>,
}

/// The caches whose growth is told; a connection has one object in each.
const CACHES: [&str; 5] = ["TCP", "sock_inode_cache", "filp", "dentry", "eventpoll_epi"];

impl Sampler {
    /// Watches the process `pid`, which writes its counters to `server_log` on SIGUSR1.
    ///
    /// # Errors
    ///
    /// There is no such process or file, the process does not handle the signal, or there is a log without
    /// a process.
    pub(crate) fn new(pid: Option<u32>, server_log: Option<PathBuf>) -> Result<Self, String> {
        let counters = match (pid, server_log) {
            (Some(pid), Some(path)) => Some(Counters::open(pid, path)?),
            (None, Some(_)) => return Err("--server-log needs --pid".to_owned()),
            (_, None) => None,
        };
        let mut command = String::new();
        if let Some(pid) = pid {
            let line = fs::read(format!("/proc/{pid}/cmdline"))
                .map_err(|error| format!("--pid {pid}: {error}"))?;
            let words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
            command = words.collect::<Vec<_>>().join(" ").trim_end().to_owned();
        }
        Ok(Self { pid, command, counters, server_peak: 0 })
    }

    /// A cheap snapshot, for each second.
    pub(crate) fn take(&mut self) -> Snapshot {
        let server = self.pid.and_then(server);
        if let Some(server) = server {
            self.server_peak = self.server_peak.max(server.rss_anon);
        }
        let cores = proc::cores(&read("/proc/stat"));
        Snapshot { at: now(), server, own: own(), cores, detail: None }
    }

    /// A full snapshot, for the borders of phases. Takes milliseconds, and up to a second more when the
    /// server does not answer.
    pub(crate) fn take_full(&mut self) -> Snapshot {
        let own_pid = std::process::id();
        let mut detail = Detail {
            slabs: slabs(),
            sockets: proc::sockets(&read("/proc/net/sockstat")),
            others_cpu_s: seconds(others(self.pid, own_pid)),
            own_cores: allowed(own_pid),
            ..Detail::default()
        };
        if let Some(pid) = self.pid {
            detail.pss_anon = proc::bytes(&read(format!("/proc/{pid}/smaps_rollup")), "Pss_Anon");
            detail.server_cores = allowed(pid);
        }
        if let Some(counters) = &self.counters {
            detail.counters = counters.ask();
        }
        Snapshot { detail: Some(detail), ..self.take() }
    }

    /// What the run cost the server; absent without one.
    pub(crate) fn server_use(
        &self,
        marks: &figures::Marks<'_>,
        counts: figures::Counts,
    ) -> Option<ServerUse> {
        let mut figures = figures::server_use(marks, counts)?;
        figures.pid = self.pid?;
        figures.command.clone_from(&self.command);
        figures.memory.rss_anon_peak = figures.memory.rss_anon_peak.max(self.server_peak);
        Some(figures)
    }
}

/// A file of the kernel, or nothing when it is not to be read.
fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / clock_ticks_per_second() as f64
}

fn server(pid: u32) -> Option<Process> {
    let ticks = proc::ticks(&read(format!("/proc/{pid}/stat")))?;
    // A process that has ended and was not waited for has no memory.
    let rss_anon = proc::bytes(&read(format!("/proc/{pid}/status")), "RssAnon")?;
    Some(Process { cpu_s: seconds(ticks.own), rss_anon })
}

fn own() -> Process {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let rss_anon = proc::bytes(&read("/proc/self/status"), "RssAnon").unwrap_or_default();
    Process { cpu_s: used.tv_sec as f64 + used.tv_nsec as f64 / 1e9, rss_anon }
}

fn slabs() -> BTreeMap<String, u64> {
    let page = u64::try_from(page_size()).unwrap_or_default();
    let all = proc::slabs(&read("/proc/slabinfo"), page);
    let names = CACHES.iter().chain([&proc::ALL_SLABS]);
    let found =
        names.filter_map(|name| Some(((*name).to_owned(), *all.get(&listed(name, &all)?)?)));
    found.collect()
}

/// The name under which the kernel lists a cache: its own, or that of one it was merged with because their
/// objects are of one size. Then the figure is that of all who share it.
fn listed(name: &str, slabs: &BTreeMap<String, u64>) -> Option<String> {
    if slabs.contains_key(name) {
        return Some(name.to_owned());
    }
    let shared = fs::read_link(format!("/sys/kernel/slab/{name}")).ok()?;
    let aliases = fs::read_dir("/sys/kernel/slab").ok()?.filter_map(Result::ok);
    let same = aliases.filter(|alias| fs::read_link(alias.path()).is_ok_and(|to| to == shared));
    same.filter_map(|alias| alias.file_name().into_string().ok()).find(|n| slabs.contains_key(n))
}

/// The numbers that a folder of `/proc` has entries for.
fn numbers(folder: &str) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Ticks of all other processes. Those of a process that ended are those of its parent's reaped children
/// then, so that the sum only grows.
fn others(server: Option<u32>, own: u32) -> u64 {
    let others = numbers("/proc").filter(|pid| *pid != own && Some(*pid) != server);
    let ticks = others.filter_map(|pid| proc::ticks(&read(format!("/proc/{pid}/stat"))));
    ticks.filter(|ticks| !ticks.kernel).map(|ticks| ticks.own + ticks.reaped).sum()
}

/// The cores that any thread of a process may run on.
fn allowed(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for thread in numbers(&format!("/proc/{pid}/task")) {
        let status = read(format!("/proc/{pid}/task/{thread}/status"));
        let list = proc::field(&status, "Cpus_allowed_list").unwrap_or_default();
        found.extend(cores::parse_list(list));
    }
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::super::stand_in::StandIn;
    use super::*;

    #[test]
    fn a_sampler_sees_a_server_until_it_ends() {
        let other = StandIn::start();
        let mut sampler = Sampler::new(Some(other.pid()), None).expect("a process");
        assert_eq!(sampler.command, "cat");
        let full = sampler.take_full();
        assert!(full.server.expect("it lives").rss_anon > 0);
        assert_eq!(sampler.server_peak, full.server.expect("it lives").rss_anon);
        let detail = full.detail.expect("a full one");
        assert!(!detail.server_cores.is_empty() && !detail.own_cores.is_empty());
        assert!(detail.pss_anon.is_some() && detail.counters.is_empty());
        assert!(full.own.rss_anon > 0 && full.own.cpu_s > 0.0 && !full.cores.is_empty());
        assert!(other.end());
        assert!(sampler.take().server.is_none());
    }

    #[test]
    fn what_cannot_be_watched_is_refused() {
        assert!(Sampler::new(None, Some("log".into())).expect_err("no pid").contains("--pid"));
        assert!(Sampler::new(Some(u32::MAX), None).is_err());
        let mut none = Sampler::new(None, None).expect("nothing to watch");
        assert!(none.take_full().server.is_none());
    }

    #[test]
    fn a_cache_that_was_merged_is_found_under_its_alias_or_not_at_all() {
        let slabs = BTreeMap::from([("TCP".to_owned(), 1)]);
        assert_eq!(listed("TCP", &slabs).as_deref(), Some("TCP"));
        assert_eq!(listed("no such cache", &slabs), None);
    }
}
