//! The contract over io_uring (Linux 6.1 or later).
//!
//! | file | subject |
//! |---|---|
//! | `driver` | the driver: operations in, completions out |
//! | `accept` | the listeners: multishot accept, its pauses and its end |
//! | `connections` | opening, reading, writing, closing one connection |
//! | `ring` | one ring: pushing requests, entering the kernel, reaping answers |
//! | `token` | what a request's answer is recognised by |
//! | `buffers` | the ring of provided buffers that reads land in |
//! | `sends` | writes in flight and the memory the kernel reads for them |
//! | `probe` | whether the kernel lets us, and what forbids it |
//!
//! Everything asked of the kernel in one turn goes down in one `io_uring_enter`, which also waits.
//! Memory that the kernel may still touch is owned by the driver until the last answer is in; a
//! driver that cannot get that answer at its end leaks the memory rather than free it.

mod accept;
mod buffers;
mod connections;
mod driver;
mod probe;
mod ring;
mod sends;
mod token;

pub use driver::Uring;
pub use probe::{Refusal, probe};

/// Sizes and forms that only io_uring has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Requests that fit in the submission queue; a power of two, the kernel caps it at 32,768.
    pub entries: u32,
    /// Provided buffers; a power of two, at most 32,768. Not used by the polling forms.
    pub buffers: u16,
    /// Bytes of each.
    pub buffer_bytes: u32,
    /// How connections with nothing to say are watched.
    pub idle: Idle,
}

impl Default for Options {
    fn default() -> Self {
        Self { entries: 1024, buffers: 1024, buffer_bytes: 8192, idle: Idle::MultishotPoll }
    }
}

/// How the ring watches a connection that has nothing to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Idle {
    /// A multishot recv into the provided buffers: no system call per read. Costs 520 to 750 bytes
    /// of kernel memory more than epoll per connection. While reading is paused, and after the peer's
    /// end of stream, a reset is noticed by the next write or on resuming.
    MultishotRecv,
    /// A multishot poll; reads are plain `recv` calls into one buffer.
    MultishotPoll,
    /// The sockets sit in an epoll set, and the ring polls the set: kernel memory as under epoll,
    /// reads are plain `recv` calls, writes are still batched by the ring.
    EpollSet,
}
