//! How another thread wakes a worker that sleeps in its driver.
//!
//! A [`Waker`] adds to an eventfd; the driver watches the other face of it, a [`WakeSource`], edge
//! triggered. Every write is an edge even while the count is not zero, so nobody ever reads the count
//! back: that saves a system call per wake-up, and 2^64 - 2 writes do not happen.
//!
//! Both faces share one descriptor. When workers part their descriptor tables (see
//! [`super::descriptors::separate`]) the number stays valid in each table that was copied after the
//! eventfd was made: make all of a node's wakers before the first worker separates.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// Wakes one worker. Cheap to clone, may be used from any thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

/// What the worker's driver watches.
#[derive(Debug)]
pub struct WakeSource(Arc<OwnedFd>);

/// Makes the two faces of one wake-up.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM.
pub fn pair() -> io::Result<(Waker, WakeSource)> {
    let fd = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    Ok((Waker(Arc::clone(&fd)), WakeSource(fd)))
}

impl Waker {
    /// Ends the worker's present wait, or its next one if it is awake. Costs a system call.
    pub fn wake(&self) {
        // The write fails with EAGAIN when the count is at its limit: then a wake-up is pending
        // already. It cannot fail otherwise while the descriptor is open, and it is.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    /// The other face, for the driver of the thread to be woken.
    #[must_use]
    pub fn source(&self) -> WakeSource {
        WakeSource(Arc::clone(&self.0))
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for WakeSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
