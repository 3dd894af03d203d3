//! The two kernel interfaces behind one contract, and the choice between them.
//!
//! [`epoll`] runs on any kernel we support; [`uring`] needs Linux 6.1 and a sandbox that lets it be.
//! `auto` does not trust version numbers: it builds a ring with the very flags the driver uses,
//! registers a buffer ring, asks for every opcode, and says in one line what it chose and why. The
//! same contract tests run over all drivers, so the choice is one of speed and memory only.
//!
//! A driver owns descriptors and what is in flight for them. It never names a frame or a room.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use crate::contract::Driver;
use crate::sys::eventfd::WakeSource;

pub mod epoll;
pub mod sim;
mod streams;
mod table;
#[cfg(test)]
mod tests;
pub mod uring;

/// What the operator asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Choice {
    /// Whatever [`PREFERRED`] says, as far as the kernel permits.
    #[default]
    Auto,
    /// epoll.
    Epoll,
    /// io_uring, or refuse to start.
    Uring,
}

/// What runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`epoll::Epoll`].
    Epoll,
    /// [`uring::Uring`].
    Uring,
}

/// What `auto` takes where both work. Decision 0003 holds the measurements.
pub const PREFERRED: Kind = Kind::Epoll;

/// Kernel reports handled per wait. A turn reads from this many sockets and then writes to them: with
/// few, the second finds them in the core's cache. Echoing 64 bytes over 1,000 connections under epoll
/// cost 1.25 times a bare loop with 1,024, 1.07 with 64 and 1.01 with 32 (decision 0003).
pub const EVENTS_PER_WAIT: usize = 32;

/// The same for io_uring, which does not gain from few; with many more a turn takes several milliseconds.
pub const ANSWERS_PER_WAIT: usize = 256;

/// Sockets accepted per wait under epoll: with their registration about a millisecond in a storm.
const ACCEPTS_PER_WAIT: usize = 128;

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Epoll => "epoll",
            Self::Uring => "io_uring",
        })
    }
}

/// What a driver is made with.
#[derive(Debug)]
pub struct Options {
    /// Where connections arrive; each is named in `contract::Event::Accepted` by its place here.
    pub listeners: Vec<OwnedFd>,
    /// What ends a wait from another thread.
    pub wake: WakeSource,
    /// Connections to reserve address space for; more are possible.
    pub connections: usize,
    /// Kernel reports handled per wait.
    pub events_per_wait: usize,
    /// Sockets accepted per wait (epoll; io_uring is bounded by its completion queue).
    pub accepts_per_wait: usize,
    /// Bytes of the buffer that all connections of the driver read into.
    pub read_buffer: usize,
    /// Times one connection may fill that buffer per wait before others get their turn.
    pub reads_per_turn: usize,
    /// What only io_uring needs.
    pub uring: uring::Options,
}

impl Options {
    /// The usual sizes.
    #[must_use]
    pub fn new(listeners: Vec<OwnedFd>, wake: WakeSource, connections: usize) -> Self {
        Self {
            listeners,
            wake,
            connections,
            events_per_wait: EVENTS_PER_WAIT,
            accepts_per_wait: ACCEPTS_PER_WAIT,
            read_buffer: 64 * 1024,
            reads_per_turn: 4,
            uring: uring::Options::default(),
        }
    }
}

/// io_uring was asked for and cannot be had.
#[derive(Debug)]
pub struct ProbeError(pub uring::Refusal);

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "driver = \"uring\" cannot be used here: {}", self.0)
    }
}

impl std::error::Error for ProbeError {}

/// Decides which driver runs and says why, in one line for the log.
///
/// # Errors
/// When io_uring was asked for by name and the kernel refuses it; the text says what forbids it.
pub fn probe(choice: Choice, options: &uring::Options) -> Result<(Kind, String), ProbeError> {
    match choice {
        Choice::Epoll => Ok((Kind::Epoll, "epoll: asked for".to_owned())),
        Choice::Uring => match uring::probe(options) {
            Ok(()) => {
                Ok((Kind::Uring, "io_uring: asked for, and the kernel permits it".to_owned()))
            }
            Err(refusal) => Err(ProbeError(refusal)),
        },
        Choice::Auto => Ok(match (PREFERRED, uring::probe(options)) {
            (_, Err(refusal)) => (Kind::Epoll, format!("epoll: no io_uring here: {refusal}")),
            (kind, Ok(())) => {
                (kind, format!("{kind}: preferred; epoll and io_uring both work here"))
            }
        }),
    }
}

/// Makes the driver. To be called on the thread that will use it.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM, and for io_uring what [`probe`] would have reported.
pub fn build(kind: Kind, options: Options) -> io::Result<Box<dyn Driver>> {
    Ok(match kind {
        Kind::Epoll => Box::new(epoll::Epoll::new(options)?),
        Kind::Uring => Box::new(uring::Uring::new(options)?),
    })
}
