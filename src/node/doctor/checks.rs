//! Judgements over facts; nothing is read or touched here.

use super::Verdict;
use super::facts::Facts;
use crate::node::config::Config;
use crate::node::config::values::DriverChoice;
use crate::node::doctor::estimate::{self, Kind};
use crate::node::settings;
use crate::sys::descriptors::RESERVED;

/// What was found about one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    pub(super) what: &'static str,
    pub(super) found: String,
    pub(super) needed: String,
    /// The lines that mend it; none when it is good.
    pub(super) fix: Vec<String>,
}

/// What the configuration asks of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Want {
    /// Connections of the whole node; `None`: as many as descriptors allow.
    pub(super) connections: Option<u64>,
    pub(super) shards: u64,
    pub(super) backlog: u64,
    pub(super) driver: DriverChoice,
    pub(super) tls: bool,
}

impl Want {
    pub(super) fn of(config: &Config) -> Self {
        let most = u64::from(config.server.max_connections);
        Self {
            connections: (most > 0).then_some(most),
            shards: u64::from(settings::shards(config)).max(1),
            backlog: u64::from(config.server.backlog),
            driver: config.server.driver,
            tls: config.transport.tls.listen.is_some(),
        }
    }

    /// Descriptors that each shard's table must have: the kernel deals connections out evenly but not exactly.
    fn table(&self, connections: u64) -> u64 {
        let each = connections.div_ceil(self.shards);
        each + each / 16 + RESERVED
    }
}

/// Everything that is judged, in the order in which it is told.
pub(super) fn findings(facts: &Facts, want: &Want) -> Vec<Finding> {
    let mut all = addresses(facts);
    all.extend([
        open_files(facts, want),
        system_files(facts, want),
        sysctl(
            "net.core.somaxconn",
            facts.network.backlog,
            want.backlog,
            "cuts server.backlog: a storm of newcomers overflows a short queue",
        ),
        sysctl(
            "net.ipv4.tcp_max_syn_backlog",
            facts.network.syn_backlog,
            want.backlog,
            "handshakes under way in the kernel",
        ),
        tcp_memory(facts, want),
        ports(facts),
        tracking(facts, want),
        memory(facts, want),
        huge_pages(facts),
        locked(facts, want),
        uring(facts, want),
        clock(facts),
        cores(facts, want),
    ]);
    all
}

fn judged(
    verdict: Verdict,
    what: &'static str,
    found: impl ToString,
    needed: impl ToString,
    fix: &[String],
) -> Finding {
    let fix = if verdict == Verdict::Good { Vec::new() } else { fix.to_vec() };
    Finding { verdict, what, found: found.to_string(), needed: needed.to_string(), fix }
}

/// Good when it holds, else the other verdict.
fn unless(holds: bool, otherwise: Verdict) -> Verdict {
    if holds { Verdict::Good } else { otherwise }
}

fn shown(value: Option<u64>) -> String {
    value.map_or_else(|| "nothing that can be read".to_owned(), |value| value.to_string())
}

/// The lines that set a kernel variable now and after the next start.
fn set(name: &str, value: impl ToString) -> Vec<String> {
    let value = value.to_string();
    let value = if value.contains(' ') { format!("\"{value}\"") } else { value };
    let line = format!("sysctl -w {name}={value}");
    let keep =
        format!("echo '{name} = {}' >> /etc/sysctl.d/90-throng.conf", value.trim_matches('"'));
    vec![line, keep]
}

/// A variable that must be as large as something, if it is there at all.
fn sysctl(name: &'static str, found: Option<u64>, needed: u64, why: &str) -> Finding {
    let verdict = unless(found.is_none_or(|found| found >= needed), Verdict::Warning);
    judged(verdict, name, shown(found), format!("{needed}: {why}"), &set(name, needed))
}

fn addresses(facts: &Facts) -> Vec<Finding> {
    let judge = |(key, address, why): &(&'static str, std::net::SocketAddr, Option<String>)| {
        let found = why.clone().unwrap_or_else(|| "it is free".to_owned());
        let port = address.port();
        let fix = [format!(
            "ss -ltnp 'sport = :{port}'   # says who listens there; or set another {key}"
        )];
        let verdict = unless(why.is_none(), Verdict::Bad);
        judged(verdict, key, found, format!("{address} to itself"), &fix)
    };
    facts.addresses.iter().map(judge).collect()
}

fn open_files(facts: &Facts, want: &Want) -> Finding {
    let limits = facts.descriptors;
    let highest = limits.ceiling.unwrap_or(1 << 20);
    let hard = limits.hard.unwrap_or(highest);
    let Some(connections) = want.connections else {
        let takes = hard.saturating_sub(RESERVED).saturating_mul(want.shards);
        let needed = format!("no number: the node takes {takes} connections by this");
        return judged(Verdict::Good, "open files", hard, needed, &[]);
    };
    let needed = want.table(connections);
    let mut fix = Vec::new();
    if needed > highest {
        fix.extend(set("fs.nr_open", needed));
    }
    fix.push(format!(
        "LimitNOFILE={needed}   # in the systemd unit; `ulimit -Hn {needed}` in a shell of root"
    ));
    let why =
        format!("{needed} for each of {} shards to take {connections} connections", want.shards);
    judged(unless(hard >= needed, Verdict::Bad), "open files", hard, why, &fix)
}

fn system_files(facts: &Facts, want: &Want) -> Finding {
    let found = facts.descriptors.system;
    // The rest of the machine has files open too.
    let needed = want.connections.unwrap_or(0) + 65_536;
    let verdict = unless(found.is_none_or(|found| found >= needed), Verdict::Bad);
    let name = "fs.file-max";
    judged(
        verdict,
        name,
        shown(found),
        format!("{needed} for the whole system"),
        &set(name, needed),
    )
}

/// Half of what buffers may take before the kernel squeezes every socket: a third of them waiting with a
/// frame of a page each.
fn tcp_memory(facts: &Facts, want: &Want) -> Finding {
    let found = facts.network.tcp_bytes;
    let needed = want.connections.unwrap_or(0).saturating_mul(4096) / 3 + (64 << 20);
    let verdict = unless(found.is_none_or(|found| found >= needed), Verdict::Warning);
    let pages = needed.div_ceil(4096);
    let values = format!("{} {} {pages}", pages / 2, pages * 3 / 4);
    let why = format!("{needed} bytes for the buffers of all sockets");
    judged(verdict, "net.ipv4.tcp_mem", shown(found), why, &set("net.ipv4.tcp_mem", values))
}

/// Only who connects needs ports: a proxy on this machine, or the load generator.
fn ports(facts: &Facts) -> Finding {
    let name = "net.ipv4.ip_local_port_range";
    let Some((first, last)) = facts.network.ports else {
        return judged(Verdict::Good, name, shown(None), "no number of its own", &[]);
    };
    let count = last.saturating_sub(first);
    let verdict = unless(count >= 28_000, Verdict::Warning);
    let why = "28000: a proxy or a load generator on this machine has one port for each connection";
    judged(verdict, name, format!("{first} to {last}"), why, &set(name, "10000 65535"))
}

fn tracking(facts: &Facts, want: &Want) -> Finding {
    let name = "net.netfilter.nf_conntrack_max";
    let Some(found) = facts.network.tracked else {
        return judged(Verdict::Good, name, "no tracking", "no number then", &[]);
    };
    let connections = want.connections.unwrap_or(0);
    let needed = connections + connections / 4 + 16_384;
    let why = format!(
        "{needed}: a full table drops packets of newcomers, unless the port is not tracked"
    );
    judged(unless(found >= needed, Verdict::Warning), name, found, why, &set(name, needed))
}

fn memory(facts: &Facts, want: &Want) -> Finding {
    let available = facts.memory.available;
    let kind = if want.tls { Kind::Secure } else { Kind::Stranger };
    let needed = estimate::bytes(want.connections.unwrap_or(0), kind) + (64 << 20);
    let verdict = unless(available >= needed, Verdict::Bad);
    let why = format!("{} for idle connections alone", estimate::shown(needed));
    let fix =
        ["MemoryMax=   # higher in the systemd unit, or a lower server.max_connections".to_owned()];
    judged(verdict, "memory of machine and cgroup", estimate::shown(available), why, &fix)
}

fn huge_pages(facts: &Facts) -> Finding {
    let found = facts.memory.huge_pages.clone().unwrap_or_else(|| "no such setting".to_owned());
    let verdict = unless(found != "always", Verdict::Warning);
    let path = "/sys/kernel/mm/transparent_hugepage/enabled";
    let fix = [format!("echo madvise > {path}")];
    let why = "madvise: with always, memory that comes back after a crowd stays resident";
    judged(verdict, "transparent huge pages", found, why, &fix)
}

/// The rings of one shard with their buffers, about; kernels from 5.12 charge them to the control group.
const RING_BYTES: u64 = 1 << 20;

fn locked(facts: &Facts, want: &Want) -> Finding {
    let needed = if want.driver == DriverChoice::Epoll { 0 } else { want.shards * RING_BYTES };
    let found = facts.memory.locked;
    let verdict = unless(found.is_none_or(|found| found >= needed), Verdict::Warning);
    let why = format!("{needed} bytes for the rings of io_uring, on kernels that count them");
    let found = found.map_or_else(|| "no limit".to_owned(), |found| found.to_string());
    let fix = [format!(
        "LimitMEMLOCK={needed}   # in the systemd unit; `ulimit -l {}` in a shell",
        needed >> 10
    )];
    judged(verdict, "locked memory", found, why, &fix)
}

fn uring(facts: &Facts, want: &Want) -> Finding {
    let found = facts.no_uring.clone().unwrap_or_else(|| "it is permitted".to_owned());
    let (verdict, needed) = match want.driver {
        DriverChoice::Epoll => (Verdict::Good, "nothing: server.driver = \"epoll\""),
        DriverChoice::Auto => {
            (Verdict::Good, "nothing: server.driver = \"auto\" takes epoll where it is forbidden")
        }
        DriverChoice::Uring => {
            let verdict = unless(facts.no_uring.is_none(), Verdict::Bad);
            (verdict, "permission: server.driver = \"uring\"")
        }
    };
    let mut fix = set("kernel.io_uring_disabled", 0);
    fix.push(
        "or --set server.driver=auto; in a container, permit the system calls by a seccomp profile"
            .to_owned(),
    );
    judged(verdict, "io_uring", found, needed, &fix)
}

fn clock(facts: &Facts) -> Finding {
    let found = facts.clock.clone().unwrap_or_else(|| "nothing that can be read".to_owned());
    let is_slow =
        ["hpet", "acpi_pm", "refined-jiffies", "jiffies", "pit", "xen"].contains(&&*found);
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let fix = [format!("echo tsc > {path}   # if it is among the available ones beside it")];
    let why = "tsc, kvm-clock or the like: others make every reading of the clock a system call";
    judged(unless(!is_slow, Verdict::Warning), "clock source", found, why, &fix)
}

fn cores(facts: &Facts, want: &Want) -> Finding {
    let fits = want.shards <= facts.cores as u64;
    let why = format!("one for each of {} shards", want.shards);
    let fix = [format!("--set server.shards={}", facts.cores)];
    judged(unless(fits, Verdict::Warning), "cores", facts.cores, why, &fix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::doctor::facts::{Descriptors, Memory, Network};

    fn good() -> Facts {
        Facts {
            descriptors: Descriptors {
                hard: Some(1 << 20),
                ceiling: Some(1 << 20),
                system: Some(1 << 22),
            },
            network: Network {
                backlog: Some(65_535),
                syn_backlog: Some(65_535),
                tcp_bytes: Some(8 << 30),
                ports: Some((10_000, 65_535)),
                tracked: None,
            },
            memory: Memory {
                available: 64 << 30,
                locked: None,
                huge_pages: Some("madvise".to_owned()),
            },
            cores: 8,
            no_uring: None,
            clock: Some("tsc".to_owned()),
            addresses: vec![("server.listen", ([127, 0, 0, 1], 80).into(), None)],
        }
    }

    fn want() -> Want {
        Want {
            connections: Some(1_000_000),
            shards: 8,
            backlog: 4096,
            driver: DriverChoice::Uring,
            tls: false,
        }
    }

    /// What is not good, with its verdict and the lines that mend it.
    fn faults(facts: &Facts, want: &Want) -> Vec<(&'static str, Verdict, Vec<String>)> {
        let all = findings(facts, want).into_iter();
        let faulty = all.filter(|finding| finding.verdict > Verdict::Good);
        faulty.map(|finding| (finding.what, finding.verdict, finding.fix)).collect()
    }

    #[test]
    fn a_good_machine_has_nothing_to_mend() {
        assert_eq!(faults(&good(), &want()), []);
        let open = Want { connections: None, ..want() };
        assert_eq!(faults(&good(), &open), []);
        assert!(findings(&good(), &want()).iter().all(|finding| finding.fix.is_empty()));
    }

    type Change = fn(&mut Facts);
    type Case = (Change, &'static str, Verdict, &'static str);
    const BAD: Verdict = Verdict::Bad;
    const WARNING: Verdict = Verdict::Warning;

    /// Every fault by itself: what is changed, what is found, how bad it is, and a part of the line that
    /// mends it.
    const CASES: &[Case] = &[
        (|f| f.descriptors.hard = Some(20_000), "open files", BAD, "LimitNOFILE=133068"),
        (
            |f| f.descriptors.system = Some(100_000),
            "fs.file-max",
            BAD,
            "sysctl -w fs.file-max=1065536",
        ),
        (
            |f| f.network.backlog = Some(128),
            "net.core.somaxconn",
            WARNING,
            "sysctl -w net.core.somaxconn=4096",
        ),
        (
            |f| f.network.syn_backlog = Some(128),
            "net.ipv4.tcp_max_syn_backlog",
            WARNING,
            "echo 'net.ipv4.tcp_max_syn_backlog = 4096' >> /etc/sysctl.d/90-throng.conf",
        ),
        (
            |f| f.network.tcp_bytes = Some(1 << 20),
            "net.ipv4.tcp_mem",
            WARNING,
            "sysctl -w net.ipv4.tcp_mem=\"174859 262288 349718\"",
        ),
        (
            |f| f.network.ports = Some((32_768, 40_000)),
            "net.ipv4.ip_local_port_range",
            WARNING,
            "sysctl -w net.ipv4.ip_local_port_range=\"10000 65535\"",
        ),
        (
            |f| f.network.tracked = Some(65_536),
            "net.netfilter.nf_conntrack_max",
            WARNING,
            "sysctl -w net.netfilter.nf_conntrack_max=1266384",
        ),
        (|f| f.memory.available = 1 << 30, "memory of machine and cgroup", BAD, "MemoryMax="),
        (
            |f| f.memory.huge_pages = Some("always".to_owned()),
            "transparent huge pages",
            WARNING,
            "echo madvise >",
        ),
        (|f| f.memory.locked = Some(8192), "locked memory", WARNING, "LimitMEMLOCK=8388608"),
        (
            |f| f.no_uring = Some("EPERM".to_owned()),
            "io_uring",
            BAD,
            "sysctl -w kernel.io_uring_disabled=0",
        ),
        (|f| f.clock = Some("hpet".to_owned()), "clock source", WARNING, "echo tsc >"),
        (|f| f.cores = 2, "cores", WARNING, "--set server.shards=2"),
        (
            |f| f.addresses[0].2 = Some("in use".to_owned()),
            "server.listen",
            BAD,
            "ss -ltnp 'sport = :80'",
        ),
    ];

    #[test]
    fn every_fault_is_found_and_told_how_to_mend() {
        for (change, what, verdict, line) in CASES {
            let mut facts = good();
            change(&mut facts);
            let found = faults(&facts, &want());
            let [(name, how, fix)] = &found[..] else { panic!("{what}: {found:?}") };
            assert_eq!((name, how), (what, verdict));
            assert!(fix.iter().any(|own| own.contains(line)), "{line} in {fix:?}");
        }
        let judged = findings(&good(), &want()).len();
        assert_eq!(CASES.len(), judged, "every judgement has a case");
    }

    #[test]
    fn a_table_beyond_the_ceiling_of_the_kernel_raises_that_first() {
        let wants = Want { shards: 1, connections: Some(2_000_000), ..want() };
        let (_, _, fix) = faults(&good(), &wants)
            .into_iter()
            .find(|(what, _, _)| *what == "open files")
            .expect("a fault");
        assert_eq!(fix[0], "sysctl -w fs.nr_open=2125256");
        assert!(fix[2].starts_with("LimitNOFILE=2125256"), "{fix:?}");
    }

    #[test]
    fn what_cannot_be_read_is_no_fault() {
        let hidden = Facts { addresses: Vec::new(), cores: 8, ..Facts::default() };
        let hidden = Facts { memory: good().memory, ..hidden };
        assert_eq!(faults(&hidden, &Want { connections: None, ..want() }), []);
    }

    #[test]
    fn a_driver_that_is_not_asked_for_is_not_missed() {
        let facts = Facts { no_uring: Some("EPERM".to_owned()), ..good() };
        for driver in [DriverChoice::Auto, DriverChoice::Epoll] {
            assert_eq!(faults(&facts, &Want { driver, ..want() }), []);
        }
    }
}
