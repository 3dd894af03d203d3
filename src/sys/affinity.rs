//! Which cores this process may use, and how a worker binds itself to one.
//!
//! A shard's memory is touched by one thread only; pinning that thread keeps the memory in one core's
//! caches and makes `SO_INCOMING_CPU` and interrupt steering meaningful. Pinning may be forbidden by
//! a container; that costs speed, not correctness, so the caller logs the error and goes on.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores that the calling thread may run on, ascending.
///
/// # Errors
/// When the kernel has more cores than the mask holds (1,024).
pub fn cores() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// Binds the calling thread to one core.
///
/// # Errors
/// EINVAL when the core does not exist or is not one of [`cores`]; EPERM under some sandboxes.
pub fn pin(core: usize) -> io::Result<()> {
    if core >= CpuSet::MAX_CPU {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_may_use_that_core_only() {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let last = *cores().expect("cores").last().expect("at least one core");
                pin(last).expect("pin");
                assert_eq!(cores().expect("cores"), [last]);
            });
        });
    }

    #[test]
    fn a_core_that_does_not_exist_is_refused() {
        assert!(pin(usize::MAX).is_err());
        assert!(pin(CpuSet::MAX_CPU - 1).is_err() || cores().expect("cores").len() > 1000);
    }
}
