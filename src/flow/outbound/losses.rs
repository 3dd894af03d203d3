//! Which publications queues have lost, for whoever remembers what became of them.
//!
//! A queue knows when it drops something, and not whose it is; its owner knows that, and not what was dropped. So
//! losses wait here from the call that causes them to the next one, and the owner fetches them in between. Nothing
//! is noted while nobody asks for it, and nothing of what carries no [`Trace`]. What waits is bounded by what one
//! queue holds.

use crate::base::shared::{Overflow, Shared, Trace};

/// How a publication was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By this policy, above the high water mark.
    Dropped(Overflow),
    /// A newer one of its key took its place.
    Replaced,
    /// With everything queued, as the connection ends.
    Discarded,
}

/// One publication, or several of one room that were queued as one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The first of them.
    pub trace: Trace,
    /// How many.
    pub frames: u32,
    /// How.
    pub how: How,
}

/// What queues have lost since somebody last asked.
#[derive(Debug, Default)]
pub struct Losses {
    /// True while somebody asks.
    is_wanted: bool,
    list: Vec<Lost>,
}

/// Losses for which space is kept.
const KEPT: usize = 64;

impl Losses {
    /// Whether losses are noted from now on. Those noted before are forgotten.
    pub fn want(&mut self, is_wanted: bool) {
        *self = Self { is_wanted, list: Vec::new() };
    }

    pub(super) fn note(&mut self, item: Option<&Shared>, how: How) {
        if self.is_wanted
            && let Some(item) = item
            && item.trace().is_some()
        {
            self.list.push(Lost { trace: item.trace(), frames: item.frames(), how });
        }
    }

    /// True when nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Hands out what waits, in the order in which it was lost.
    pub fn drain(&mut self) -> impl Iterator<Item = Lost> {
        self.list.drain(..)
    }

    pub(super) fn relax(&mut self) {
        if self.list.is_empty() {
            self.list.shrink_to(KEPT);
        }
    }
}
