//! Descriptor tables and their limits.
//!
//! Threads of a process share one descriptor table behind one lock; every accept and close takes it.
//! A worker therefore parts with the common table once, at its start, and has its own. The copy it
//! gets holds everything that was open at that moment, for instance another worker's listener, which
//! would then stay bound after its owner closed it: [`separate`] closes all but what is named.
//!
//! The limit on open descriptors (`RLIMIT_NOFILE`) holds per table, not per process, once tables are
//! separate. [`raise_limit`] lifts it as far as the kernel lets us; what it returns minus
//! [`RESERVED`] is how many connections one worker may hold.

#![expect(unsafe_code, reason = "unshare and close_range have no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Descriptors that a worker needs for itself: standard streams, listener, rings, eventfds of all
/// its peers, and a margin for the libraries.
pub const RESERVED: u64 = 256;

/// Gives the calling thread a descriptor table of its own that holds the standard streams and `keep`.
///
/// To be called first thing on a new thread that uses no descriptors but those in `keep`. What other
/// threads have open stays open in their table.
///
/// # Errors
/// ENOMEM from unshare, EPERM under some sandboxes; then the thread still shares the common table
/// and nothing was closed.
pub fn separate(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    // SAFETY: with FILES alone unshare copies the descriptor table and nothing else: every number
    // this thread holds means the same file afterwards. Threads that rely on seeing each other's
    // later opens are excluded by the condition in this function's documentation.
    unsafe { unshare_unsafe(UnshareFlags::FILES)? };
    let mut kept: Vec<u32> = keep.iter().filter_map(|fd| fd.as_raw_fd().try_into().ok()).collect();
    kept.sort_unstable();
    let mut from = 3;
    for fd in kept {
        if fd > from {
            close_range(from, fd - 1)?;
        }
        from = from.max(fd + 1);
    }
    close_range(from, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: takes three numbers. The descriptors in the range are this thread's private copies
    // (the table was parted just before), which by `separate`'s condition nothing on it uses.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The most that the kernel lets any limit on descriptors be (`fs.nr_open`); 2^20 where it does not say.
#[must_use]
pub fn ceiling() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/fs/nr_open").unwrap_or_default();
    text.trim().parse().unwrap_or(1 << 20)
}

/// Raises the soft limit on descriptors to `wanted`, and the hard limit with it where permitted.
/// Returns the limit now in force, which may be lower than wanted but is never lowered.
#[must_use]
pub fn raise_limit(wanted: u64) -> u64 {
    let now = getrlimit(Resource::Nofile);
    let current = now.current.unwrap_or(u64::MAX);
    if current >= wanted {
        return current;
    }
    let ceiling = now.maximum.unwrap_or(u64::MAX);
    let attempts = [
        (wanted, ceiling.max(wanted)), // Needs CAP_SYS_RESOURCE when above the hard limit.
        (wanted.min(ceiling), ceiling),
    ];
    for (soft, hard) in attempts {
        let limit = Rlimit { current: Some(soft), maximum: now.maximum.map(|_| hard) };
        if setrlimit(Resource::Nofile, limit).is_ok() {
            break;
        }
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many connections fit into one descriptor table under `limit`.
#[must_use]
pub fn connections_within(limit: u64) -> usize {
    usize::try_from(limit.saturating_sub(RESERVED)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::eventfd;
    use std::os::fd::AsFd;

    #[test]
    fn a_separated_thread_keeps_what_it_names_and_closes_only_its_copies() {
        let (kept, _source) = eventfd::pair().expect("eventfd");
        let (other, _source) = eventfd::pair().expect("eventfd");
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    separate(&[kept.as_fd()]).expect("separate");
                    assert!(rustix::io::fcntl_getfd(&kept).is_ok());
                    assert!(rustix::io::fcntl_getfd(&other).is_err());
                })
                .join()
                .expect("the thread's assertions hold");
        });
        assert!(rustix::io::fcntl_getfd(&kept).is_ok());
        assert!(rustix::io::fcntl_getfd(&other).is_ok());
    }

    #[test]
    fn the_limit_is_never_lowered() {
        let before = raise_limit(0);
        assert_eq!(raise_limit(before), before);
        assert!(raise_limit(before.saturating_add(1)) >= before);
        assert_eq!(connections_within(10), 0);
        assert_eq!(connections_within(RESERVED + 5), 5);
    }
}
