//! Who is there, for the connections of a shard and for the users and rooms whose home it is.
//!
//! A shard tells the home of a user how its connections stand, and hears of the users and rooms that its own
//! connections observe. Everything travels as mail and is gathered: by the turn on the way to a home, by
//! windows on the way to observers. What nobody observes costs the users' entries at their homes and nothing
//! else.
//!
//! | file | subject |
//! |---|---|
//! | `word` | what shards tell and ask each other about presence |
//! | `homes` | as a home: users come and go, rooms are shown |
//! | `nodes` | as a home: users of this node for the others, and theirs |
//! | `watch` | as the shard of observers: the commands, and what is told |
//! | `guests` | what is kept of connections, and pages of them |
//! | `inquire` | questions of the node |
//! | `whois` | questions: users, and pages of a room's members |
//!
//! The structures are the hub's (`roster`, `lookout`, `showcase`); here is what they are fed with.

mod guests;
mod homes;
mod inquire;
mod nodes;
mod watch;
mod whois;
mod word;

use std::collections::VecDeque;

use crate::base::counters::Counters;
use crate::base::id::ConnAddress;
use crate::base::map::Seed;
use crate::base::time::Time;
use crate::hub::{Lookout, Showcase, Stand};
use crate::session::presence::State;

pub(super) use guests::Guests;
pub use guests::{Guest, Record};
use inquire::Replies;
pub use inquire::{Attendance, Inquire, Reply, stand_in_a_word};
use watch::Notice;
use whois::Questions;
pub use word::{Abroad, LastSeen, Page, Word};

/// What a shard knows about presence besides the users whose home it is.
#[derive(Debug)]
pub(super) struct Presence {
    /// What its connections observe.
    pub(super) lookout: Lookout,
    /// Observed rooms whose home it is.
    pub(super) showcase: Showcase<ConnAddress>,
    /// What its connections have asked and homes have yet to answer.
    pub(super) questions: Questions,
    /// News of rooms that observers have yet to get.
    pub(super) notices: VecDeque<Notice>,
    /// Observers for whom news of rooms were queued in this turn.
    pub(super) spread: usize,
    /// What the node has yet to fetch.
    pub(super) replies: Replies,
    /// What is known of connections, where that is kept.
    pub(super) guests: Guests,
    /// The time of this turn.
    pub(super) now: Time,
}

impl Presence {
    pub(super) fn new(seed: &Seed) -> Self {
        Self {
            lookout: Lookout::new(seed),
            showcase: Showcase::new(seed),
            questions: Questions::new(seed),
            notices: VecDeque::new(),
            spread: 0,
            replies: Replies::default(),
            guests: Guests::new(seed),
            now: Time::ZERO,
        }
    }

    /// When there is something to do, even if nothing happens until then.
    pub(super) fn due(&self) -> Option<Time> {
        let notices = (!self.notices.is_empty()).then_some(Time::ZERO);
        [self.lookout.due(), self.showcase.due(), notices].into_iter().flatten().min()
    }

    /// A connection has gone.
    pub(super) fn leave(&mut self, index: u32) {
        self.lookout.leave(index);
        self.guests.remove(index);
    }

    pub(super) fn count(&self, counters: &mut Counters) {
        counters.presence_watches = self.lookout.len() as u64;
        counters.presence_rooms = self.showcase.len() as u64;
    }

    pub(super) fn check(&self) {
        self.lookout.check();
        self.showcase.check();
    }
}

/// A stand as clients read it.
fn state(stand: Stand) -> State {
    match stand {
        Stand::Gone => State::Offline,
        Stand::Idle => State::Idle,
        Stand::Active => State::Online,
    }
}
