//! What is so on this machine: read from the kernel, judged elsewhere.
//!
//! What cannot be read is `None`, as in containers that hide it; the judgement then says so instead of
//! guessing.

use std::fs;
use std::net::SocketAddr;
use std::str::FromStr;
use std::thread::available_parallelism;

use rustix::process::{Resource, getrlimit};

use crate::driver::{self, Choice};
use crate::node::config::Config;
use crate::node::settings;
use crate::sys::{listener, memory};

/// Limits of descriptors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Descriptors {
    /// `RLIMIT_NOFILE`, to which the node raises its own; `None`: without end.
    pub(super) hard: Option<u64>,
    /// `fs.nr_open`.
    pub(super) ceiling: Option<u64>,
    /// `fs.file-max`.
    pub(super) system: Option<u64>,
}

/// Settings of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Network {
    /// `net.core.somaxconn`.
    pub(super) backlog: Option<u64>,
    /// `net.ipv4.tcp_max_syn_backlog`.
    pub(super) syn_backlog: Option<u64>,
    /// The last number of `net.ipv4.tcp_mem`, in bytes.
    pub(super) tcp_bytes: Option<u64>,
    /// `net.ipv4.ip_local_port_range`.
    pub(super) ports: Option<(u16, u16)>,
    /// `net.netfilter.nf_conntrack_max`; `None` where nothing is tracked.
    pub(super) tracked: Option<u64>,
}

/// Memory and its settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Bytes that this process may use, by the machine and its control group.
    pub(super) available: u64,
    /// Bytes that may be locked; `None`: without end.
    pub(super) locked: Option<u64>,
    /// What stands in brackets in `transparent_hugepage/enabled`.
    pub(super) huge_pages: Option<String>,
}

/// Everything that is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) descriptors: Descriptors,
    pub(super) network: Network,
    pub(super) memory: Memory,
    pub(super) cores: usize,
    /// Why io_uring cannot be had; `None` when it can.
    pub(super) no_uring: Option<String>,
    pub(super) clock: Option<String>,
    /// The addresses that the configuration names, by key, and why each cannot be listened on.
    pub(super) addresses: Vec<(&'static str, SocketAddr, Option<String>)>,
}

impl Facts {
    /// Reads everything.
    pub(super) fn gather(config: &Config) -> Self {
        let limit = |resource| getrlimit(resource).maximum;
        let page = rustix::param::page_size() as u64;
        let tcp_pages: Option<u64> = last("/proc/sys/net/ipv4/tcp_mem");
        let ports = words("/proc/sys/net/ipv4/ip_local_port_range");
        let addresses = [
            ("server.listen", config.server.listen),
            ("tls.listen", config.transport.tls.listen),
            ("admin.listen", config.admin.listen),
        ];
        let looked_at = addresses.into_iter().filter_map(|(key, address)| {
            let address = address?;
            let why = listener::ensure_free(address).err().map(|error| error.to_string());
            Some((key, address, why))
        });
        Self {
            descriptors: Descriptors {
                hard: limit(Resource::Nofile),
                ceiling: last("/proc/sys/fs/nr_open"),
                system: last("/proc/sys/fs/file-max"),
            },
            network: Network {
                backlog: last("/proc/sys/net/core/somaxconn"),
                syn_backlog: last("/proc/sys/net/ipv4/tcp_max_syn_backlog"),
                tcp_bytes: tcp_pages.map(|pages| pages.saturating_mul(page)),
                ports: match ports[..] {
                    [first, last] => Some((first, last)),
                    _ => None,
                },
                tracked: last("/proc/sys/net/netfilter/nf_conntrack_max"),
            },
            memory: Memory {
                available: memory::available(),
                locked: limit(Resource::Memlock),
                huge_pages: chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
            },
            cores: available_parallelism().map_or(1, std::num::NonZero::get),
            no_uring: no_uring(config),
            clock: text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            addresses: looked_at.collect(),
        }
    }
}

/// Asks the kernel on a thread of its own, as the node does.
fn no_uring(config: &Config) -> Option<String> {
    let options = settings::uring_options(config);
    let probe = std::thread::Builder::new().spawn(move || driver::probe(Choice::Uring, &options));
    match probe.map(std::thread::JoinHandle::join) {
        Ok(Ok(Ok(_))) => None,
        Ok(Ok(Err(error))) => Some(error.0.to_string()),
        Ok(Err(_)) => Some("asking for it failed".to_owned()),
        Err(error) => Some(format!("a thread to ask cannot be started: {error}")),
    }
}

fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn words<T: FromStr>(path: &str) -> Vec<T> {
    text(path).unwrap_or_default().split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn last<T: FromStr + Copy>(path: &str) -> Option<T> {
    words(path).last().copied()
}

/// The word in brackets.
fn chosen(path: &str) -> Option<String> {
    let text = text(path)?;
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::config::Origin;

    #[test]
    fn facts_of_this_machine_can_be_read() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = taken.local_addr().expect("an address");
        let sets = vec![format!("server.listen={address}"), "admin.listen=127.0.0.1:0".to_owned()];
        let config = Origin { file: None, sets }.load().expect("a valid configuration");
        let facts = Facts::gather(&config);
        assert!(facts.cores > 0 && facts.memory.available > 1 << 20, "{facts:?}");
        let [(first, _, busy), (second, _, free)] = &facts.addresses[..] else {
            panic!("two addresses: {facts:?}");
        };
        assert_eq!((*first, *second), ("server.listen", "admin.listen"));
        assert!(busy.as_ref().is_some_and(|why| why.contains("in use")), "{busy:?}");
        assert_eq!(*free, None);
    }
}
