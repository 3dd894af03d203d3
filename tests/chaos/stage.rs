//! What the clients and the story tell each other, without a lock: the act that is played, and how far each client
//! has come in it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::machines::NODES;

/// How many clients there are; each is in all rooms.
pub(crate) const CLIENTS: usize = 12;
/// Of these the last leave at the end.
pub(crate) const LEAVING: usize = 3;
/// The rooms: with shared histories, and without.
pub(crate) const SHARED: [&str; 3] = ["shared:0", "shared:1", "shared:2"];
pub(crate) const PLAIN: [&str; 2] = ["plain:0", "plain:1"];

/// The acts, in their order.
pub(crate) mod act {
    /// All join.
    pub(crate) const ENTER: u8 = 0;
    /// All publish, whatever happens.
    pub(crate) const STORM: u8 = 1;
    /// Nothing new is published, and what is under way comes to its end.
    pub(crate) const SETTLE: u8 = 2;
    /// Each publishes a last word to each room without a shared history.
    pub(crate) const CLOSE: u8 = 3;
    /// Some leave.
    pub(crate) const LEAVE: u8 = 4;
    /// All leave.
    pub(crate) const OVER: u8 = 5;
}

#[expect(clippy::disallowed_methods, reason = "real processes are disturbed in real time")]
pub(crate) fn clock() -> Instant {
    Instant::now()
}

/// Lets time pass in which nothing is to be done.
pub(crate) fn pass(time: Duration) {
    std::thread::park_timeout(time);
}

/// How far a client has come.
#[derive(Default)]
pub(crate) struct Place {
    /// It is connected, has joined everything and waits for nothing.
    pub(crate) is_settled: AtomicBool,
    /// The node where it is.
    pub(crate) node: AtomicUsize,
    /// The number up to which it has each room with a shared history.
    pub(crate) offsets: [AtomicU64; SHARED.len()],
    /// Last words received, its own too.
    pub(crate) closings: AtomicUsize,
    /// It is to go to another node.
    pub(crate) is_chased: AtomicBool,
}

/// What is shared.
pub(crate) struct Stage {
    pub(crate) doors: [SocketAddr; NODES],
    act: AtomicU8,
    pub(crate) places: [Place; CLIENTS],
}

impl Stage {
    pub(crate) fn new(doors: [SocketAddr; NODES]) -> Self {
        Self { doors, act: AtomicU8::new(act::ENTER), places: Default::default() }
    }

    pub(crate) fn act(&self) -> u8 {
        self.act.load(Ordering::Acquire)
    }

    pub(crate) fn play(&self, act: u8) {
        self.act.store(act, Ordering::Release);
    }

    pub(crate) fn all(&self, holds: impl Fn(&Place) -> bool) -> bool {
        self.places.iter().all(holds)
    }
}

/// Ends the play whatever happens, so that no client goes on behind a story that has failed.
pub(crate) struct Curtain<'a>(pub(crate) &'a Stage);

impl Drop for Curtain<'_> {
    fn drop(&mut self) {
        self.0.play(act::OVER);
    }
}
