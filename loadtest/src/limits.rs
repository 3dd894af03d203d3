//! What the machine must allow before a run begins, and what to change where it does not.
//!
//! A run that stops at its twenty-eight-thousandth client with "address not available" says nothing of the
//! server. So the limits are read first and compared with what the run needs; each complaint names the
//! limit, its value, and the command that sets it. What surely fails is an error; what may fail, depending
//! on what else the machine does, is a warning. Nothing is changed but this process's own soft limit of
//! descriptors. The limits of a server on another host are not known here.

use std::collections::BTreeMap;
use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::sample::proc;

/// What a run is going to take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    /// Connections open at once.
    pub(crate) clients: u64,
    /// Load threads, each with a descriptor table of its own.
    pub(crate) threads: u64,
    /// Source addresses to connect from.
    pub(crate) sources: u64,
    /// True when the server is on this host too, so that both ends of each connection are.
    pub(crate) local: bool,
}

/// What the machine allows. A limit that could not be read is not there, and then not complained of.
#[derive(Clone, Debug, Default)]
struct Facts {
    /// Per table.
    descriptors: u64,
    /// First and last.
    ports: Option<(u64, u64)>,
    /// Bytes.
    memory_available: Option<u64>,
    /// Numbers of files below `/proc/sys`, by their path there.
    sysctls: BTreeMap<&'static str, Vec<u64>>,
    /// TCP sockets in use and in `TIME_WAIT`.
    sockets: u64,
    /// Descriptors open on the whole machine.
    files: u64,
}

/// Descriptors of a thread that are no client: its ring, wake-ups, the standard streams, libraries.
const SPARE: u64 = 64;
/// Kernel memory of a connection with both its ends on this host, measured on Linux 6.18.
const PAIR_BYTES: u64 = 9_000;
/// What the generator itself may take for a client.
const OWN_BYTES: u64 = 1_536;
/// A listener that is handed connections faster than it accepts drops those beyond this.
const DEEP_BACKLOG: u64 = 4096;

const CONNTRACK_MAX: &str = "net/netfilter/nf_conntrack_max";
const CONNTRACK_COUNT: &str = "net/netfilter/nf_conntrack_count";
const SOMAXCONN: &str = "net/core/somaxconn";
const TCP_MEM: &str = "net/ipv4/tcp_mem";
const FILE_MAX: &str = "fs/file-max";
const THREADS_MAX: &str = "kernel/threads-max";
const SYSCTLS: [&str; 6] =
    [CONNTRACK_MAX, CONNTRACK_COUNT, SOMAXCONN, TCP_MEM, FILE_MAX, THREADS_MAX];

/// Compares what a run needs with what the machine allows, after raising the limit of descriptors to the
/// most this process may have. Gives warnings.
///
/// # Errors
///
/// What surely is too low, each on a line with the command that raises it.
pub(crate) fn check(needs: &Needs) -> Result<Vec<String>, String> {
    compare(needs, &facts(raise_descriptors()))
}

/// Raises the limit of descriptors to the most this process may have, and gives what it then is.
///
/// Descriptors are counted for each table, so for each thread that has its own.
pub(crate) fn raise_descriptors() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = if raised.is_ok() { maximum } else { current };
    limit.unwrap_or(u64::MAX)
}

/// The fewest threads whose descriptor tables of `descriptors` entries hold so many clients; at least one.
pub(crate) fn threads_for(clients: usize, descriptors: u64) -> usize {
    let room = usize::try_from(descriptors.saturating_sub(SPARE)).unwrap_or(usize::MAX).max(1);
    clients.div_ceil(room).max(1)
}

fn facts(descriptors: u64) -> Facts {
    let numbers = |text: String| -> Vec<u64> {
        text.split_ascii_whitespace().map_while(|number| number.parse().ok()).collect()
    };
    let read = |path: &str| fs::read_to_string(format!("/proc/{path}")).unwrap_or_default();
    let sysctls = SYSCTLS.iter().map(|name| (*name, numbers(read(&format!("sys/{name}")))));
    let range = numbers(read("sys/net/ipv4/ip_local_port_range"));
    let sockets = proc::sockets(&read("net/sockstat"));
    let sockets = ["TCP.inuse", "TCP.tw"].iter().filter_map(|name| sockets.get(*name));
    Facts {
        descriptors,
        ports: if let [first, last] = range[..] { Some((first, last)) } else { None },
        memory_available: proc::bytes(&read("meminfo"), "MemAvailable"),
        sysctls: sysctls.filter(|(_, numbers)| !numbers.is_empty()).collect(),
        sockets: sockets.filter_map(|count| u64::try_from(*count).ok()).sum(),
        files: numbers(read("sys/fs/file-nr")).first().copied().unwrap_or_default(),
    }
}

/// Complaints of both weights, in the order they were found.
#[derive(Default)]
struct Complaints {
    errors: Vec<String>,
    warnings: Vec<String>,
}

fn compare(needs: &Needs, facts: &Facts) -> Result<Vec<String>, String> {
    let mut found = Complaints::default();
    descriptors(needs, facts, &mut found);
    ports(needs, facts, &mut found);
    conntrack(needs, facts, &mut found);
    memory(needs, facts, &mut found);
    others(needs, facts, &mut found);
    if found.errors.is_empty() { Ok(found.warnings) } else { Err(found.errors.join("\n")) }
}

fn descriptors(needs: &Needs, facts: &Facts, found: &mut Complaints) {
    let each = needs.clients.div_ceil(needs.threads.max(1)) + SPARE;
    if each > facts.descriptors {
        let clients = usize::try_from(needs.clients).unwrap_or(usize::MAX);
        found.errors.push(format!(
            "RLIMIT_NOFILE is {} and each of {} threads needs {each} descriptors: take --threads {}, \
             or raise the limit with `ulimit -n {each}` as root, or LimitNOFILE= of the service",
            facts.descriptors,
            needs.threads,
            threads_for(clients, facts.descriptors),
        ));
    }
}

fn ports(needs: &Needs, facts: &Facts, found: &mut Complaints) {
    let Some((first, last)) = facts.ports else { return };
    let ports = (last + 1).saturating_sub(first).max(1);
    let each = needs.clients.div_ceil(needs.sources.max(1));
    let limit = format!("net.ipv4.ip_local_port_range is {first} {last}, {ports} ports an address");
    // A port in TIME_WAIT may be taken again after a second at the earliest, and other addresses may be
    // those who use the ports, so what is in use only warns.
    if each > ports {
        found.errors.push(format!(
            "{limit}, and each of {} source addresses needs {each}: give {} of them with --src, or \
             `sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\"`",
            needs.sources,
            needs.clients.div_ceil(ports),
        ));
    } else if each > ports.saturating_sub(facts.sockets) {
        found.warnings.push(format!(
            "{limit}, {} TCP sockets are in use or in TIME_WAIT, and each of {} source addresses needs \
             {each}: give more of them with --src, or wait a minute",
            facts.sockets, needs.sources,
        ));
    } else if each > ports / 2 {
        // Linux takes the ports of one parity first (__inet_hash_connect) and goes through all of them again
        // for each connection beyond; a million sockets were seen to come to fifty a second.
        found.warnings.push(format!(
            "{limit}, and each of {} source addresses needs {each}: beyond half of them connecting becomes \
             very slow; give {} addresses with --src",
            needs.sources,
            needs.clients.div_ceil((ports / 2).max(1)),
        ));
    }
}

fn conntrack(needs: &Needs, facts: &Facts, found: &mut Complaints) {
    let (Some(max), Some(count)) = (facts.sysctl(CONNTRACK_MAX), facts.sysctl(CONNTRACK_COUNT))
    else {
        return;
    };
    let needed = needs.clients + count;
    if needed <= max {
        return;
    }
    let text = format!(
        "net.netfilter.nf_conntrack_max is {max}, {count} connections are tracked and {} will be added",
        needs.clients
    );
    let remedy = format!("`sysctl -w net.netfilter.nf_conntrack_max={}`", needed + needed / 10);
    // The module counts nothing until a rule of the firewall asks for it, and then everything.
    if count == 0 && facts.sockets > 0 {
        found.warnings.push(format!("{text}, if a firewall rule tracks them; then {remedy}"));
    } else {
        found.errors.push(format!("{text}: {remedy}"));
    }
}

fn memory(needs: &Needs, facts: &Facts, found: &mut Complaints) {
    let Some(available) = facts.memory_available else { return };
    let kernel = if needs.local { PAIR_BYTES } else { PAIR_BYTES / 2 };
    let needed = needs.clients.saturating_mul(kernel + OWN_BYTES);
    let (needed_mb, available_mb) = (needed / 1_000_000, available / 1_000_000);
    let text = format!("{} clients take about {needed_mb} MB", needs.clients);
    if needed > available {
        let most = available / (kernel + OWN_BYTES);
        found.errors.push(format!(
            "{text} and MemAvailable is {available_mb} MB: take --clients {most} at most, or free memory"
        ));
    } else if needed > available / 10 * 9 {
        found.warnings.push(format!("{text} of the {available_mb} MB that MemAvailable is"));
    }
}

fn others(needs: &Needs, facts: &Facts, found: &mut Complaints) {
    if let Some(backlog) = facts.sysctl(SOMAXCONN)
        && needs.local
        && needs.clients > backlog
        && backlog < DEEP_BACKLOG
    {
        found.warnings.push(format!(
            "net.core.somaxconn is {backlog}, so a steep ramp overflows the listener: \
             `sysctl -w net.core.somaxconn={DEEP_BACKLOG}`"
        ));
    }
    // Low, pressure and high; a socket with anything queued holds a page or more.
    if let Some([low, pressure, high]) = facts.sysctls.get(TCP_MEM).map(|numbers| &numbers[..])
        && needs.clients > *pressure
    {
        let clients = needs.clients;
        found.warnings.push(format!(
            "net.ipv4.tcp_mem is {low} {pressure} {high} pages, less than one for each of {clients} \
             sockets with something queued: `sysctl -w net.ipv4.tcp_mem=\"{clients} {} {}\"`",
            clients * 2,
            clients * 3,
        ));
    }
    let files = needs.clients * if needs.local { 2 } else { 1 };
    if let Some(most) = facts.sysctl(FILE_MAX)
        && files + facts.files > most
    {
        found.errors.push(format!(
            "fs.file-max is {most}, {} files are open and {files} will be added: \
             `sysctl -w fs.file-max={}`",
            facts.files,
            (files + facts.files) * 2,
        ));
    }
    if let Some(most) = facts.sysctl(THREADS_MAX)
        && needs.threads + SPARE > most
    {
        found.errors.push(format!(
            "kernel.threads-max is {most} and the run starts {} threads: take fewer with --threads, or \
             `sysctl -w kernel.threads-max={}`",
            needs.threads,
            needs.threads * 2 + SPARE,
        ));
    }
}

impl Facts {
    fn sysctl(&self, name: &str) -> Option<u64> {
        self.sysctls.get(name)?.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Facts {
        Facts {
            descriptors: 20_000,
            ports: Some((32_768, 60_999)),
            memory_available: Some(24_000_000_000),
            sysctls: BTreeMap::from([
                (SOMAXCONN, vec![4096]),
                (TCP_MEM, vec![287_901, 383_868, 575_802]),
                (FILE_MAX, vec![9_000_000]),
                (THREADS_MAX, vec![190_000]),
            ]),
            sockets: 10,
            files: 1000,
        }
    }

    fn needs(clients: u64) -> Needs {
        Needs { clients, threads: clients.div_ceil(19_000), sources: 80, local: true }
    }

    /// The one complaint there is, with its weight.
    fn complaint(needs: &Needs, facts: &Facts) -> (bool, String) {
        match compare(needs, facts) {
            Ok(warnings) => {
                assert_eq!(warnings.len(), 1, "{warnings:?}");
                (false, warnings.concat())
            }
            Err(errors) => {
                assert_eq!(errors.lines().count(), 1, "{errors}");
                (true, errors)
            }
        }
    }

    fn expect(needs: &Needs, facts: &Facts, error: bool, parts: &[&str]) {
        let (weight, text) = complaint(needs, facts);
        assert_eq!(weight, error, "{text}");
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    }

    #[test]
    fn a_machine_that_allows_enough_is_not_complained_of() {
        assert_eq!(compare(&needs(300_000), &machine()), Ok(Vec::new()));
        assert_eq!(
            compare(&needs(1_000_000), &Facts { descriptors: 20_000, ..Facts::default() }),
            Ok(vec![])
        );
    }

    #[test]
    fn too_few_descriptors_for_a_thread_name_the_threads_that_would_do() {
        let needs = Needs { threads: 2, ..needs(100_000) };
        expect(&needs, &machine(), true, &["RLIMIT_NOFILE is 20000", "50064", "--threads 6"]);
        assert_eq!(threads_for(100_000, 20_000), 6);
        assert_eq!(threads_for(19_936, 20_000), 1);
        assert_eq!(threads_for(19_937, 20_000), 2);
        assert_eq!(threads_for(0, 20_000), 1);
        assert_eq!(threads_for(3, 10), 3);
    }

    #[test]
    fn too_few_ports_are_an_error_and_ports_in_use_a_warning() {
        let one = Needs { sources: 1, ..needs(28_233) };
        expect(
            &one,
            &machine(),
            true,
            &["32768 60999", "28232 ports", "give 2 of them", "sysctl -w"],
        );
        let all = Needs { sources: 1, ..needs(28_232) };
        expect(&all, &machine(), false, &["10 TCP sockets", "--src"]);
        let most = Needs { sources: 1, ..needs(14_117) };
        expect(&most, &machine(), false, &["beyond half", "give 2 addresses"]);
        assert_eq!(compare(&Needs { sources: 1, ..needs(14_116) }, &machine()), Ok(Vec::new()));
    }

    #[test]
    fn tracked_connections_are_an_error_only_where_they_are_counted() {
        let mut facts = machine();
        facts.sysctls.insert(CONNTRACK_MAX, vec![262_144]);
        facts.sysctls.insert(CONNTRACK_COUNT, vec![5]);
        expect(&needs(300_000), &facts, true, &["262144", "nf_conntrack_max=330005"]);
        facts.sysctls.insert(CONNTRACK_COUNT, vec![0]);
        expect(&needs(300_000), &facts, false, &["262144", "firewall"]);
        assert_eq!(compare(&needs(200_000), &facts), Ok(Vec::new()));
    }

    #[test]
    fn memory_is_reckoned_for_both_ends_on_one_host() {
        let mut wide = Facts { memory_available: Some(10_500_000_000), ..machine() };
        wide.sysctls.remove(TCP_MEM);
        let million = needs(950_000);
        expect(&million, &wide, false, &["10009 MB", "10500 MB"]);
        let remote = Needs { local: false, ..million };
        assert_eq!(compare(&remote, &wide), Ok(Vec::new()));
        wide.memory_available = Some(5_000_000_000);
        expect(&million, &wide, true, &["5000 MB", "--clients 474563"]);
    }

    #[test]
    fn the_other_limits_name_their_sysctl() {
        let mut facts = machine();
        facts.sysctls.insert(SOMAXCONN, vec![128]);
        expect(&needs(1000), &facts, false, &["net.core.somaxconn is 128", "somaxconn=4096"]);
        expect(&needs(400_000), &machine(), false, &["tcp_mem is 287901 383868 575802", "400000 "]);
        let mut facts = machine();
        facts.sysctls.insert(FILE_MAX, vec![100_000]);
        expect(&needs(50_000), &facts, true, &["fs.file-max is 100000", "fs.file-max=202000"]);
        let mut facts = machine();
        facts.sysctls.insert(THREADS_MAX, vec![65]);
        expect(&needs(50_000), &facts, true, &["kernel.threads-max is 65", "3 threads"]);
    }

    #[test]
    fn this_machine_can_be_asked() {
        let facts = facts(raise_descriptors());
        assert!(facts.descriptors > 0 && facts.ports.is_some() && facts.memory_available.is_some());
        let few = Needs { clients: 1, threads: 1, sources: 1, local: true };
        assert!(check(&few).is_ok());
    }
}
