//! Readers of the kernel's texts: pure functions from what stands in `/proc` to numbers.
//!
//! A line that is not as expected is left out; nothing here fails, since a figure that is missing is said
//! to be missing by whoever asked for it.

use std::collections::BTreeMap;

/// Processor time of one process, in clock ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ticks {
    /// Of all its threads, ended ones included.
    pub(super) own: u64,
    /// Of its children that ended and were waited for, and of theirs.
    pub(super) reaped: u64,
    /// True for a thread of the kernel.
    pub(super) kernel: bool,
}

/// What one core did since the start of the machine, in clock ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Core {
    /// In programs, in the kernel for them, and in interrupts.
    pub(crate) busy: u64,
    /// With nothing to do, waiting for disks included.
    pub(crate) idle: u64,
    /// Taken by the hypervisor.
    pub(crate) stolen: u64,
}

/// `PF_KTHREAD` of the kernel's `sched.h`.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// The name under which [`slabs`] gives the sum of all caches.
pub(super) const ALL_SLABS: &str = "all";

/// Reads `/proc/PID/stat`. The name of the program may hold anything, so the fields are counted from the
/// last parenthesis on.
pub(super) fn ticks(stat: &str) -> Option<Ticks> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let flags: u64 = fields.nth(6)?.parse().ok()?;
    let mut times = fields.skip(4).map_while(|field| field.parse::<u64>().ok());
    let (user, system, reaped_user, reaped_system) =
        (times.next()?, times.next()?, times.next()?, times.next()?);
    Some(Ticks {
        own: user + system,
        reaped: reaped_user + reaped_system,
        kernel: flags & KERNEL_THREAD != 0,
    })
}

/// What stands behind `NAME:` in a file of such lines, as `/proc/PID/status`.
pub(crate) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim_end() == name).then(|| value.trim())
    })
}

/// A field that is given in kB, in bytes.
pub(crate) fn bytes(text: &str, name: &str) -> Option<u64> {
    let number: u64 = field(text, name)?.strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(number * 1024)
}

/// True when the process of a `/proc/PID/status` has a handler for a signal.
pub(super) fn handles(status: &str, signal: u32) -> bool {
    let mask = field(status, "SigCgt").and_then(|mask| u64::from_str_radix(mask, 16).ok());
    mask.is_some_and(|mask| mask >> signal.saturating_sub(1) & 1 == 1)
}

/// Reads the cores of `/proc/stat`.
pub(super) fn cores(stat: &str) -> BTreeMap<u32, Core> {
    let cores = stat.lines().filter_map(|line| {
        let (name, times) = line.split_once(' ')?;
        // The line of all cores together has no number.
        let number = name.strip_prefix("cpu")?.parse().ok()?;
        let times = times.split_ascii_whitespace().map_while(|field| field.parse().ok());
        let times: Vec<u64> = times.collect();
        // Guests are counted in `user` already.
        let [user, nice, system, idle, disk, interrupts, soft, stolen, ..] = times[..] else {
            return None;
        };
        let busy = user + nice + system + interrupts + soft;
        Some((number, Core { busy, idle: idle + disk, stolen }))
    });
    cores.collect()
}

/// Reads `/proc/slabinfo`: the bytes of each cache, and of all under [`ALL_SLABS`]. Empty when unreadable.
pub(super) fn slabs(slabinfo: &str, page: u64) -> BTreeMap<String, u64> {
    let caches = slabinfo.lines().filter_map(|line| {
        let (objects, slabs) = line.split_once(": slabdata")?;
        let mut fields = objects.split_ascii_whitespace();
        let name = fields.next()?;
        let pages: u64 = fields.nth(4)?.parse().ok()?;
        let count: u64 = slabs.split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some((name.to_owned(), count * pages * page))
    });
    let mut caches: BTreeMap<String, u64> = caches.collect();
    if !caches.is_empty() {
        let all = caches.values().sum();
        caches.insert(ALL_SLABS.to_owned(), all);
    }
    caches
}

/// Reads `/proc/net/sockstat`, as `TCP.inuse`.
pub(crate) fn sockets(sockstat: &str) -> BTreeMap<String, i64> {
    let mut found = BTreeMap::new();
    for (protocol, rest) in sockstat.lines().filter_map(|line| line.split_once(':')) {
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        for pair in fields.chunks_exact(2) {
            if let Ok(value) = pair[1].parse() {
                found.insert(format!("{protocol}.{}", pair[0]), value);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_a_process_are_found_behind_any_name() {
        let stat = "4242 (a) R 1 (b) S 1 4242 4242 0 -1 4194560 899 17 0 0 250 125 30 3 20 0 5 0 \
                    1234 999 77";
        let expected = Ticks { own: 375, reaped: 33, kernel: false };
        assert_eq!(ticks(stat), Some(expected));
        let thread = "14 (ksoftirqd/0) S 2 0 0 0 -1 69238848 0 0 0 0 1 5 0 0 20 0 1 0 8 0";
        assert_eq!(ticks(thread), Some(Ticks { own: 6, reaped: 0, kernel: true }));
        assert_eq!(ticks("12 (cut short) S 1 1"), None);
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let status = "Name:\tthrong\nVmRSS:\t    9000 kB\nRssAnon:\t    1368 kB\nSigCgt:\t0000000000000a00\n\
                      Cpus_allowed_list:\t0-1\n";
        assert_eq!(field(status, "Name"), Some("throng"));
        assert_eq!(field(status, "Rss"), None);
        assert_eq!(bytes(status, "RssAnon"), Some(1_400_832));
        assert_eq!(bytes(status, "Name"), None);
        assert!(handles(status, 10) && handles(status, 12));
        assert!(!handles(status, 11) && !handles("", 10));
        assert_eq!(field("model name\t: A Chip\n", "model name"), Some("A Chip"));
    }

    #[test]
    fn interrupts_are_busy_time_and_waiting_for_disks_is_not() {
        let stat = "cpu  30 0 0 300 0 0 0 0 0 0\ncpu0 1 2 4 100 10 8 16 3 1 0\ncpu11 5 0 0 50 0 0 0 0 0 0\n\
                    intr 1 2\n";
        let found = cores(stat);
        assert_eq!(found.len(), 2);
        assert_eq!(found[&0], Core { busy: 31, idle: 110, stolen: 3 });
        assert_eq!(found[&11], Core { busy: 5, idle: 50, stolen: 0 });
    }

    #[test]
    fn slabs_are_counted_in_whole_slabs() {
        let text = "slabinfo - version: 2.1\n\
            # name <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables\n\
            TCP   50  52 2368   13    8 : tunables    0    0    0 : slabdata      4      4      0\n\
            dentry 9 42 192 21 1 : tunables 0 0 0 : slabdata 1 2 0\n";
        let found = slabs(text, 4096);
        assert_eq!(found["TCP"], 4 * 8 * 4096);
        assert_eq!(found["dentry"], 2 * 4096);
        assert_eq!(found[ALL_SLABS], 34 * 4096);
        assert!(slabs("", 4096).is_empty());
    }

    #[test]
    fn sockets_are_named_by_protocol_and_state() {
        let found =
            sockets("sockets: used 14\nTCP: inuse 3 orphan 0 tw 2 alloc 4 mem 154\nFRAG: x\n");
        assert_eq!(found["TCP.inuse"], 3);
        assert_eq!(found["TCP.tw"], 2);
        assert_eq!(found["sockets.used"], 14);
        assert_eq!(found.len(), 6);
    }
}
