//! Inboxes, and the senders that wait for space in them.
//!
//! An inbox lane is a bounded crossbeam channel. Its receiving end would allow many consumers, so it
//! never leaves the port. A sender whose mail did not fit signs itself up with that lane and tries once
//! more; a receiver that takes mail looks whether anyone has signed up. Both pass a sequentially
//! consistent fence in between (the argument stands in `waker`), so either the second attempt finds
//! the space or the receiver finds the name. Waking a sender for every single piece taken would make
//! two cores take turns through the kernel, so it happens once half a lane has been taken since. The
//! lane was full when the sender signed up, so that moment comes while the owner goes on taking.
//!
//! A port that is dropped is a worker that has ended: nobody will read its mail, so posting to it
//! succeeds and the mail is dropped, and those who waited for space there are told.

use std::cell::Cell;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::waker::Waker;
use crate::sys::eventfd::WakeSource;

/// One of the two lanes of an inbox; the module's essay says why there are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Mail whose handling may produce deliveries.
    Request,
    /// Mail whose handling produces no mail.
    Delivery,
}

impl Lane {
    /// Both lanes.
    pub const ALL: [Self; 2] = [Self::Request, Self::Delivery];

    fn index(self) -> usize {
        match self {
            Self::Request => 0,
            Self::Delivery => 1,
        }
    }
}

/// The senders that found a lane full: one bit per port.
#[derive(Debug)]
#[repr(align(128))]
struct Waiting {
    /// True when a bit of `ports` may be set; spares the receiver the walk.
    any: AtomicBool,
    ports: Box<[AtomicU64]>,
}

impl Waiting {
    fn new(ports: usize) -> Self {
        let words = (0..ports.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { any: AtomicBool::new(false), ports: words }
    }

    fn sign_up(&self, port: usize) {
        self.ports[port / 64].fetch_or(1 << (port % 64), Ordering::Relaxed);
        // Release, so that whoever sees the mark sees the bit.
        self.any.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// Calls `each` for every port that signed up and forgets it.
    fn release(&self, mut each: impl FnMut(usize)) {
        // The mark goes first: a bit set after the walk then finds it clear and sets it again.
        if !self.any.swap(false, Ordering::Acquire) {
            return;
        }
        for (word, bits) in self.ports.iter().enumerate() {
            let mut bits = bits.swap(0, Ordering::Relaxed);
            while bits != 0 {
                each(word * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }
}

/// What all know of one inbox.
#[derive(Debug)]
struct Inbox<M> {
    lanes: [Sender<M>; 2],
    waiting: [Waiting; 2],
    waker: Waker,
}

/// What the ports share.
#[derive(Debug)]
struct Hall<M> {
    inboxes: Box<[Inbox<M>]>,
}

impl<M> Hall<M> {
    fn tell_waiting(&self, inbox: usize, lane: Lane) {
        self.inboxes[inbox].waiting[lane.index()].release(|port| self.inboxes[port].waker.space());
    }
}

/// One shard's end of the mesh. Moves to the shard's thread and stays there.
#[derive(Debug)]
pub struct Port<M> {
    /// Declared before `farewell`, so that the lanes are closed when that runs.
    lanes: [Receiver<M>; 2],
    /// Pieces taken from each lane while someone waited for space in it.
    taken: [Cell<usize>; 2],
    capacity: usize,
    farewell: Farewell<M>,
}

/// Tells the senders that wait for a port that it is gone.
#[derive(Debug)]
struct Farewell<M> {
    hall: Arc<Hall<M>>,
    index: usize,
}

impl<M> Drop for Farewell<M> {
    fn drop(&mut self) {
        fence(Ordering::SeqCst);
        for lane in Lane::ALL {
            self.hall.tell_waiting(self.index, lane);
        }
    }
}

/// Makes `ports` ports, each with an inbox of two lanes of `capacity` pieces of mail. To be called
/// before the threads that own the ports unshare their descriptor tables.
///
/// # Errors
/// When the kernel refuses an eventfd (EMFILE, ENFILE, ENOMEM).
///
/// # Panics
/// When `capacity` is 0: such a lane would take mail only from a sender that waits, and none does.
pub fn mesh<M: Send>(ports: usize, capacity: usize) -> io::Result<Vec<Port<M>>> {
    assert!(capacity > 0, "an inbox lane of no capacity");
    let mut inboxes = Vec::with_capacity(ports);
    let mut receivers = Vec::with_capacity(ports);
    for _ in 0..ports {
        let (request_in, request_out) = bounded(capacity);
        let (delivery_in, delivery_out) = bounded(capacity);
        inboxes.push(Inbox {
            lanes: [request_in, delivery_in],
            waiting: [Waiting::new(ports), Waiting::new(ports)],
            waker: Waker::new()?,
        });
        receivers.push([request_out, delivery_out]);
    }
    let hall = Arc::new(Hall { inboxes: inboxes.into_boxed_slice() });
    let port = |(index, lanes)| Port {
        lanes,
        taken: [Cell::new(0), Cell::new(0)],
        capacity,
        farewell: Farewell { hall: Arc::clone(&hall), index },
    };
    Ok(receivers.into_iter().enumerate().map(port).collect())
}

impl<M: Send> Port<M> {
    /// This port's number, counted from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.farewell.index
    }

    /// The number of ports in the mesh.
    #[must_use]
    pub fn ports(&self) -> usize {
        self.hall().inboxes.len()
    }

    /// Posts mail to a lane of port `to` and wakes its owner if it sleeps. Mail of one sender arrives
    /// in the order posted, within a lane. Mail to a port that was dropped is dropped.
    ///
    /// # Errors
    /// A full lane gives the mail back. This port is then woken, and kept from sleeping once, when the
    /// lane has space.
    ///
    /// # Panics
    /// When the mesh has no port `to`.
    pub fn post(&self, to: usize, lane: Lane, mail: M) -> Result<(), M> {
        let inbox = &self.hall().inboxes[to];
        let sender = &inbox.lanes[lane.index()];
        let mail = match sender.try_send(mail) {
            Err(TrySendError::Full(mail)) => mail,
            sent => {
                if sent.is_ok() {
                    inbox.waker.wake();
                }
                return Ok(());
            }
        };
        inbox.waiting[lane.index()].sign_up(self.index());
        match sender.try_send(mail) {
            // The name stays on the list and costs this port one needless turn at most.
            Ok(()) => inbox.waker.wake(),
            Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(mail)) => return Err(mail),
        }
        Ok(())
    }

    /// Pieces of mail that wait in a lane of port `to`.
    ///
    /// # Panics
    /// When the mesh has no port `to`.
    #[must_use]
    pub fn depth(&self, to: usize, lane: Lane) -> usize {
        self.hall().inboxes[to].lanes[lane.index()].len()
    }

    /// The next mail of one of this port's own lanes; never waits.
    #[must_use]
    pub fn take(&self, lane: Lane) -> Option<M> {
        let mail = self.lanes[lane.index()].try_recv().ok()?;
        fence(Ordering::SeqCst);
        let inbox = &self.hall().inboxes[self.index()];
        if inbox.waiting[lane.index()].any.load(Ordering::Relaxed) {
            self.taken_while_waited_for(lane);
        }
        Some(mail)
    }

    #[cold]
    fn taken_while_waited_for(&self, lane: Lane) {
        let taken = &self.taken[lane.index()];
        taken.set(taken.get() + 1);
        if taken.get() >= self.capacity.div_ceil(2) {
            taken.set(0);
            self.hall().tell_waiting(self.index(), lane);
        }
    }

    /// The eventfd that wakes this port's owner. The driver waits for it to become readable and drains
    /// it; the mesh only writes.
    #[must_use]
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.hall().inboxes[self.index()].waker.fd()
    }

    /// The same, for the driver to hold.
    #[must_use]
    pub fn wake_source(&self) -> WakeSource {
        self.hall().inboxes[self.index()].waker.source()
    }

    /// The eventfds of all ports: what a worker keeps when it parts with the common descriptor table.
    #[must_use]
    pub fn wake_fds(&self) -> Vec<BorrowedFd<'_>> {
        self.hall().inboxes.iter().map(|inbox| inbox.waker.fd()).collect()
    }

    /// Announces that the owner is about to sleep until [`Port::wake_fd`] is readable. `lanes` are the
    /// lanes it would take from now: one that refuses requests, because its own deliveries are parked,
    /// must name only [`Lane::Delivery`], or it would never get to sleep over the requests it refuses.
    ///
    /// False means do not sleep but take another turn: there is mail in one of the lanes, or an inbox
    /// that was full has space again. Otherwise, whatever of that comes about later makes the eventfd
    /// readable.
    #[must_use]
    pub fn before_sleep(&self, lanes: &[Lane]) -> bool {
        let waker = &self.hall().inboxes[self.index()].waker;
        waker.before_sleep(|| lanes.iter().any(|lane| !self.lanes[lane.index()].is_empty()))
    }

    /// Ends the announcement of [`Port::before_sleep`]; until the next one nobody spends a system call
    /// on this port. To be called before parked mail is tried again, as it uses up the notice of space.
    pub fn awake(&self) {
        self.hall().inboxes[self.index()].waker.awake();
    }

    fn hall(&self) -> &Hall<M> {
        &self.farewell.hall
    }
}
