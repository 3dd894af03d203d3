//! Questions of the node about who is there, each asked of all shards.
//!
//! A shard answers for the users whose home it is, or its part of a page of a room's members. Answers wait
//! here, in bounds, until the node fetches them; whoever asks puts them together.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::base::id::ShardId;
use crate::hub::{Sight, Slip, Stand};
use crate::shard::inspect::{Elsewhere, Inspect, Inspected};
use crate::shard::presence::{Abroad, Guest, Page, state};
use crate::shard::state::Shard;

/// A question of the node.
#[derive(Clone, Debug)]
pub enum Inquire {
    /// How these users stand, by the rooms of their own.
    Users(Vec<Arc<str>>),
    /// A page of a room's members.
    Members(Page),
    /// About rooms and connections, in slices.
    Inspect(Arc<Inspect>),
}

/// A shard's answer to it.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The number of the question.
    pub number: u64,
    /// Who answers.
    pub shard: ShardId,
    /// What it knows.
    pub found: Attendance,
}

/// What a shard knows.
#[derive(Clone, Debug)]
pub enum Attendance {
    /// Of users whose home it is, by their places in the question.
    Users(Vec<(usize, Sight)>),
    /// How many members the room has in it, and its part of the page.
    Members(u64, Vec<Guest>),
    /// Of rooms and connections.
    Inspected(Inspected),
    /// Of members of the room in other nodes; from the bridge.
    Abroad(Abroad),
    /// Of rooms and connections of other nodes; from the bridge.
    Elsewhere(Elsewhere),
}

impl Reply {
    /// True for the answer to a question of another node.
    #[must_use]
    pub const fn is_afar(&self) -> bool {
        self.number >= Slip::AFAR
    }
}

/// Answers that the node has yet to fetch.
const MOST: usize = 256;

/// Answers on their way to the node.
#[derive(Debug, Default)]
pub(in crate::shard) struct Replies(VecDeque<Reply>);

impl Shard {
    /// Answers a question of the node.
    pub(in crate::shard) fn handle_inquire(&mut self, number: u64, inquire: &Inquire) {
        let found = match inquire {
            Inquire::Users(users) => {
                let here = users.iter().enumerate().filter(|(_, user)| self.is_home(user));
                let known = &self.rooms.directory.users;
                Attendance::Users(here.map(|(at, user)| (at, known.sight(user))).collect())
            }
            Inquire::Members(page) => {
                let (members, guests) = self.list(page);
                Attendance::Members(members, guests)
            }
            Inquire::Inspect(what) => return self.begin_inspection(number, what),
        };
        self.reply_to_node(number, found);
    }

    /// Keeps an answer until the node fetches it.
    pub(in crate::shard) fn reply_to_node(&mut self, number: u64, found: Attendance) {
        let replies = &mut self.rooms.presence.replies.0;
        if replies.len() >= MOST {
            replies.pop_front();
            self.counters.replies_lost_total += 1;
        }
        replies.push_back(Reply { number, shard: self.identity.id, found });
    }

    fn is_home(&self, user: &str) -> bool {
        self.home(user) == self.identity.id
    }

    /// Hands the node what was answered; `take` gives back what it has no space for.
    pub fn poll_replies(&mut self, take: &mut dyn FnMut(Reply) -> Result<(), Reply>) {
        while let Some(reply) = self.rooms.presence.replies.0.pop_front() {
            if let Err(reply) = take(reply) {
                self.rooms.presence.replies.0.push_front(reply);
                return;
            }
        }
    }
}

/// A stand as clients read it.
#[must_use]
pub fn stand_in_a_word(stand: Stand) -> &'static str {
    state(stand).as_str()
}
