//! The machine that a run was made on, for its report.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::{cores, proc};
use crate::outcome::Environment;

/// Describes the machine and what this program was allowed. Called before any thread is pinned.
pub(crate) fn environment() -> Environment {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let (processor, cores, virtualised) = processor(&cpuinfo);
    let ports = read("/proc/sys/net/ipv4/ip_local_port_range");
    Environment {
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        processor,
        cores,
        memory_bytes: proc::bytes(&read("/proc/meminfo"), "MemTotal").unwrap_or_default(),
        virtualised,
        descriptors: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        port_range: ports.split_ascii_whitespace().collect::<Vec<_>>().join("-"),
        own_cores: cores::own(),
    }
}

/// Model, number of cores, and whether a hypervisor says that it is there.
fn processor(cpuinfo: &str) -> (String, u64, bool) {
    let model = proc::field(cpuinfo, "model name").unwrap_or("unknown").to_owned();
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let flags = proc::field(cpuinfo, "flags").unwrap_or_default();
    let virtualised = flags.split_ascii_whitespace().any(|flag| flag == "hypervisor");
    (model, u64::try_from(cores).unwrap_or_default(), virtualised)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_described() {
        let text = "processor\t: 0\nmodel name\t: A Chip @ 3GHz\nflags\t\t: fpu hypervisor avx\n\n\
                    processor\t: 1\nmodel name\t: A Chip @ 3GHz\nflags\t\t: fpu hypervisor avx\n";
        assert_eq!(processor(text), ("A Chip @ 3GHz".to_owned(), 2, true));
        assert_eq!(processor("processor : 0\nFeatures : x\n"), ("unknown".to_owned(), 1, false));
    }

    #[test]
    fn this_machine_has_a_kernel_memory_and_cores() {
        let here = environment();
        assert!(!here.kernel.is_empty() && here.memory_bytes > 0 && here.cores > 0);
        assert!(!here.own_cores.is_empty() && here.descriptors > 0);
    }
}
