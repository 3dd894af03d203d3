//! Waking a worker that sleeps, and only then.
//!
//! A write to an eventfd costs its caller some microseconds, so it is done once per sleep: the owner
//! announces that it is about to sleep, and the first who has news takes the announcement back and
//! writes. Everyone else sees that the owner is awake, and it will look before it sleeps again.
//!
//! That is Dekker's argument and needs sequentially consistent fences on both sides. The one with news
//! publishes it, passes a fence and reads the announcement; the owner announces, passes a fence and
//! looks for news. Of two such fences one comes first: if the owner's does, the other side sees the
//! announcement and writes; if the other side's does, the owner sees the news and does not sleep.
//! Release and acquire would not do, as both could then read the old value.
//!
//! The eventfd is made with the mesh, before the workers unshare their descriptor tables, so its
//! number is valid in all of them. The driver that waits for it also drains it; the waker only writes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crate::sys::eventfd::{self, WakeSource};

/// One worker's alarm. Aligned so that two workers' alarms never share a cache line, nor the pair of
/// lines that x86 prefetches together.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Waker {
    /// True from the owner's announcement until someone has undertaken to write, or it is awake.
    asleep: AtomicBool,
    /// True when a sender that this owner failed to post to has space again.
    space: AtomicBool,
    event: eventfd::Waker,
}

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        let (event, _) = eventfd::pair()?;
        Ok(Self { asleep: AtomicBool::new(false), space: AtomicBool::new(false), event })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    pub(super) fn source(&self) -> WakeSource {
        self.event.source()
    }

    /// Wakes the owner if it sleeps. What it shall find must have been published before.
    pub(super) fn wake(&self) {
        fence(Ordering::SeqCst);
        // The plain read first: an owner that is awake must not lose its cache line to every sender.
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            self.event.wake();
        }
    }

    /// Tells the owner, asleep or not, that an inbox it found full has space.
    pub(super) fn space(&self) {
        // Release: an owner that has read the notice must see the space when it posts again.
        self.space.store(true, Ordering::Release);
        self.wake();
    }

    /// Announces sleep, then looks for news once more. False, and no announcement, when there is some.
    pub(super) fn before_sleep(&self, news: impl FnOnce() -> bool) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.space.load(Ordering::Relaxed) || news() {
            self.awake();
            return false;
        }
        true
    }

    /// Begins a turn: takes the announcement back, and the notice of space, which this turn will use.
    pub(super) fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
        if self.space.load(Ordering::Relaxed) {
            self.space.swap(false, Ordering::Acquire);
        }
    }
}
