//! Memory going back to the kernel.
//!
//! Two ways, for two kinds of memory. Tables that were reserved once keep their address space and lose
//! their pages ([`Pages`]). What was allocated piece by piece and freed again stays with the allocator,
//! which gives it back when it is asked to ([`collect`]), and by itself only when it is busy.
//!
//! When to do either is decided elsewhere; both take time in proportion to what is given back.

#![expect(unsafe_code, reason = "madvise and the allocator's own interface")]

use std::mem::MaybeUninit;
use std::time::Duration;

use rustix::mm::{Advice, madvise};

use crate::base::spare::Release;

/// Gives whole pages back to the kernel; they read as zeros when they are next used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pages;

impl Release for Pages {
    fn release<T>(&mut self, spare: &mut [MaybeUninit<T>]) {
        let page = rustix::param::page_size();
        let range = spare.as_mut_ptr_range();
        let (start, end) = (range.start.cast::<u8>(), range.end.cast::<u8>());
        let before = start.align_offset(page);
        let length = (end.addr() - start.addr()).saturating_sub(before) / page * page;
        if length == 0 {
            return;
        }
        // SAFETY: the pages lie wholly within the slice: they begin at its first page boundary and end
        // no later than it. The slice is borrowed exclusively and promises no values, so whatever they
        // hold afterwards is right: zeros, or what they held if the kernel refuses.
        let _ = unsafe { madvise(start.add(before).cast(), length, Advice::LinuxDontNeed) };
    }
}

/// Asks the program's allocator to give back what the calling thread has freed. Does nothing where the
/// program has chosen another one.
pub fn collect() {
    // SAFETY: takes a flag; to be called from any thread at any time, and it touches only memory that
    // is free. A thread that never allocated by mimalloc has no heap there, which is allowed for.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// What the kernel charges this process with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in memory.
    pub resident: u64,
    /// Those of them that no file stands behind: what the program asked for.
    pub anonymous: u64,
    /// Processor time, user and system.
    pub processor: Duration,
}

/// What this process uses; zeros where the kernel does not tell.
#[must_use]
pub fn usage() -> Usage {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0_u64)
    };
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold anything, stand numbers; the 12th and 13th are the times.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|text| text.parse::<u64>().ok()).sum();
    let second = rustix::param::clock_ticks_per_second().max(1);
    Usage {
        resident: kilobytes("VmRSS:") << 10,
        anonymous: kilobytes("RssAnon:") << 10,
        processor: Duration::from_millis(ticks.saturating_mul(1000) / second),
    }
}

/// Bytes of memory that this process may use: those of the machine, or of the control group it was put
/// into if that has fewer.
#[must_use]
pub fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = total.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    let all = kilobytes.map_or(u64::MAX, |kilobytes: u64| kilobytes.saturating_mul(1024));
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    groups.lines().filter_map(limit_of).fold(all, u64::min)
}

/// The limit of a line of `/proc/self/cgroup` (`number:controllers:path`), in either version.
fn limit_of(line: &str) -> Option<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let folders: &[(&str, &str)] = match controllers {
        "" => &[("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/unified", "memory.max")],
        _ if controllers.split(',').any(|name| name == "memory") => {
            &[("/sys/fs/cgroup/memory", "memory.limit_in_bytes")]
        }
        _ => return None,
    };
    // Within a container the path is the host's and its own folder is the root.
    let places = folders
        .iter()
        .flat_map(|(root, file)| [format!("{root}{path}/{file}"), format!("{root}/{file}")]);
    // "max" is no number and no limit.
    places.filter_map(|place| std::fs::read_to_string(place).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::spare::cut;

    #[test]
    fn a_cut_table_keeps_its_entries_and_grows_again_in_place() {
        let mut table: Vec<u64> = Vec::with_capacity(1 << 16);
        table.extend(0..1 << 16);
        let place = table.as_ptr();
        cut(&mut table, 700, &mut Pages);
        assert!(table.iter().copied().eq(0..700));
        // What was released reads as zeros; the rest of the page in use was not touched.
        table.extend(700..1 << 16);
        assert!(table.iter().copied().eq(0..1 << 16));
        assert_eq!(table.as_ptr(), place, "the reservation stayed");
    }

    #[test]
    fn resident_memory_falls_by_what_was_cut() {
        let megabytes = 64;
        let mut table: Vec<u64> = vec![1; megabytes << 17];
        let before = resident();
        cut(&mut table, 1 << 10, &mut Pages);
        assert!(before - resident() > (megabytes as u64 - 8) << 20, "of {before} bytes");
        assert_eq!(table.iter().sum::<u64>(), 1 << 10);
    }

    #[test]
    fn collecting_is_harmless_under_another_allocator() {
        let kept = vec![7; 1000];
        collect();
        assert_eq!(kept, vec![7; 1000]);
    }

    #[test]
    fn some_memory_is_available_and_not_more_than_the_machine_has() {
        let text = std::fs::read_to_string("/proc/meminfo").expect("a kernel that tells");
        let kilobytes: u64 =
            text.split_whitespace().nth(1).expect("a number").parse().expect("one");
        let available = available();
        assert!(available > 1 << 20 && available <= kilobytes << 10, "{available}");
        assert_eq!(limit_of("nonsense"), None);
        assert_eq!(limit_of("4:cpu,cpuacct:/"), None);
    }

    #[test]
    fn usage_is_what_the_kernel_tells_elsewhere() {
        let usage = usage();
        assert!(usage.anonymous > 0 && usage.anonymous <= usage.resident, "{usage:?}");
        assert!(usage.resident.abs_diff(resident()) < 64 << 20, "{usage:?}");
    }

    /// Bytes of this process in memory.
    fn resident() -> u64 {
        let text = std::fs::read_to_string("/proc/self/statm").expect("a kernel that tells");
        let pages: u64 = text.split(' ').nth(1).expect("a second number").parse().expect("pages");
        pages * rustix::param::page_size() as u64
    }
}
