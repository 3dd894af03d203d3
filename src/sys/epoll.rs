//! An epoll set with a timeout in nanoseconds.
//!
//! The usual `epoll_wait` counts milliseconds, which would stretch a flush window of 500 us to a
//! whole one; `epoll_pwait2` (Linux 5.11) takes a timespec. Every descriptor is added once, with one
//! of three interests, and never modified: streams are edge triggered in both directions from the
//! start, which saves an `epoll_ctl` per short write.

#![expect(unsafe_code, reason = "epoll_pwait2 has no safe wrapper among the features we use")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll;

/// What to watch a descriptor for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Sockets to accept; reported again as long as there are some.
    Listener,
    /// Writes to an eventfd; each is reported once.
    Wake,
    /// Data, room for data, and the peer's end; each change is reported once.
    Stream,
    /// Data and the peer's end, where somebody else looks after writing.
    StreamReads,
}

/// What happened to one descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// The number given when the descriptor was added.
    pub token: u64,
    bits: u32,
}

impl Readiness {
    /// There may be something to read, be it an end or an error.
    #[must_use]
    pub fn readable(self) -> bool {
        self.has(libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR)
    }

    /// There may be room to write, or an error to be found by writing.
    #[must_use]
    pub fn writable(self) -> bool {
        self.has(libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR)
    }

    /// The peer's end of stream or an error stands behind the data.
    #[must_use]
    pub fn ending(self) -> bool {
        self.has(libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR)
    }

    /// The socket has failed.
    #[must_use]
    pub fn failed(self) -> bool {
        self.has(libc::EPOLLERR)
    }

    /// The readiness that `poll` bits describe; the values are those of epoll.
    #[must_use]
    pub fn from_poll(token: u64, bits: u32) -> Self {
        Self { token, bits }
    }

    fn has(self, bits: i32) -> bool {
        self.bits & bits.cast_unsigned() != 0
    }
}

/// An epoll set and the list that its waits fill.
#[derive(Debug)]
pub struct Poll {
    fd: OwnedFd,
    events: Box<[libc::epoll_event]>,
    filled: usize,
}

impl Poll {
    /// An empty set that reports at most `events` descriptors per wait.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new(events: usize) -> io::Result<Self> {
        let blank = libc::epoll_event { events: 0, u64: 0 };
        Ok(Self {
            fd: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: vec![blank; events.max(1)].into_boxed_slice(),
            filled: 0,
        })
    }

    /// Watches `fd`. It leaves the set when its last reference is closed.
    ///
    /// # Errors
    /// ENOMEM; ENOSPC at the limit `fs.epoll.max_user_watches`; EEXIST when added twice.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        use epoll::EventFlags as Bits;
        let bits = match interest {
            Interest::Listener => Bits::IN,
            Interest::Wake => Bits::IN | Bits::ET,
            Interest::Stream => Bits::IN | Bits::OUT | Bits::RDHUP | Bits::ET,
            Interest::StreamReads => Bits::IN | Bits::RDHUP | Bits::ET,
        };
        epoll::add(&self.fd, fd, epoll::EventData::new_u64(token), bits)?;
        Ok(())
    }

    /// Watches `fd` no longer.
    ///
    /// # Errors
    /// ENOENT when it is not in the set.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        epoll::delete(&self.fd, fd)?;
        Ok(())
    }

    /// Waits until something is ready, `timeout` has passed or a signal arrives, and returns how many
    /// descriptors are ready. Read them with [`Poll::ready`].
    ///
    /// # Errors
    /// ENOSYS before Linux 5.11.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        self.filled = 0;
        let limit = timeout.map(|wait| libc::timespec {
            tv_sec: libc::time_t::try_from(wait.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(wait.subsec_nanos().cast_signed()),
        });
        let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let room = i32::try_from(self.events.len()).unwrap_or(i32::MAX);
        // SAFETY: the list has `room` elements and outlives the call, `limit` is null or points to a
        // timespec of this frame, and a null signal mask leaves the mask alone.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.fd.as_raw_fd(),
                self.events.as_mut_ptr(),
                room,
                limit,
                std::ptr::null::<libc::sigset_t>(),
                0_usize,
            )
        };
        match usize::try_from(count) {
            Ok(count) => self.filled = count,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
        Ok(self.filled)
    }

    /// The descriptor at place `at` of the last wait.
    ///
    /// # Panics
    /// When the last wait reported fewer.
    #[must_use]
    pub fn ready(&self, at: usize) -> Readiness {
        let event = self.events[..self.filled][at];
        Readiness { token: event.u64, bits: event.events }
    }
}

impl AsFd for Poll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Time;
    use crate::sys::{clock::Clock, eventfd};

    #[test]
    fn every_write_to_an_eventfd_is_reported_once() {
        let mut poll = Poll::new(4).expect("epoll");
        let (waker, source) = eventfd::pair().expect("eventfd");
        poll.add(source.as_fd(), 7, Interest::Wake).expect("add");
        for _ in 0..3 {
            waker.wake();
            assert_eq!(poll.wait(Some(Duration::from_secs(10))).expect("wait"), 1);
            assert_eq!(poll.ready(0).token, 7);
            assert_eq!(poll.wait(Some(Duration::ZERO)).expect("wait"), 0);
        }
    }

    #[test]
    fn a_timeout_below_a_millisecond_is_kept() {
        let mut poll = Poll::new(1).expect("epoll");
        let clock = Clock::start();
        let wait = Duration::from_micros(200);
        let shortest = (0..20)
            .map(|_| {
                let before: Time = clock.now();
                assert_eq!(poll.wait(Some(wait)).expect("wait"), 0);
                clock.now().since(before)
            })
            .min()
            .expect("twenty waits");
        assert!(shortest >= wait, "{shortest:?}");
        assert!(shortest < Duration::from_millis(1), "{shortest:?}");
    }
}
