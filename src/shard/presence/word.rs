//! What shards tell and ask each other about presence.
//!
//! It travels as other mail does: what may cause more mail in the lane of requests, answers and news in
//! that of deliveries. What follows from an answer is done in the turn's own time and not while it is taken.

use std::sync::Arc;

use crate::base::id::{ConnAddress, ConnId, ShardId};
use crate::hub::{Display, Sight};
use crate::shard::presence::Guest;

/// A page of a room's members, in the order of their addresses.
#[derive(Clone, Debug)]
pub struct Page {
    /// The room, as it is called within the node.
    pub room: Arc<str>,
    /// Only members behind this one.
    pub after: Option<ConnAddress>,
    /// The most members.
    pub limit: usize,
}

/// What shards tell and ask each other about presence.
#[derive(Clone, Debug)]
pub enum Word {
    /// Request: the sender wants, or does not want any more, news of a user or room whose home the receiver is.
    Watch {
        /// A room, or the room of a user's own.
        subject: Arc<str>,
        /// The sender.
        shard: ShardId,
        /// Whether it wants them.
        on: bool,
    },
    /// Request: say again how this user stands, whose home you are, with the news of this turn: by then you have
    /// taken in what had been sent to you before this.
    Repeat {
        /// The room of the user's own.
        user: Arc<str>,
    },
    /// Request: a new observer wants the room as it is.
    Show {
        /// The room.
        room: Arc<str>,
        /// The observer.
        to: ConnAddress,
    },
    /// Request: which users of yours are in this room?
    Roll {
        /// The room.
        room: Arc<str>,
        /// The number of the roll.
        number: u64,
        /// The room's home, which asks.
        home: ShardId,
    },
    /// Request: how do these users stand, whose home you are?
    Find {
        /// The number of the question.
        number: u64,
        /// Who asks.
        from: ShardId,
        /// The users, each with its place in the question.
        users: Vec<(usize, Arc<str>)>,
    },
    /// Request: your part of this page?
    List {
        /// The number of the question.
        number: u64,
        /// Who asks.
        from: ShardId,
        /// The page.
        page: Page,
    },
    /// Delivery: how a user stands now.
    News {
        /// The room of the user's own.
        user: Arc<str>,
        /// How the user stands.
        sight: Sight,
    },
    /// Delivery: the answer to a `Roll`; no list when it would be too long.
    Present {
        /// The room.
        room: Arc<str>,
        /// The number of the roll.
        number: u64,
        /// Who answers.
        shard: ShardId,
        /// The rooms of the users' own.
        users: Option<Vec<Arc<str>>>,
    },
    /// Delivery: for all your observers of the room.
    Shown(Arc<Display>),
    /// Delivery: the room as it is, for a new observer.
    Whole {
        /// The observer.
        to: ConnId,
        /// The room.
        display: Display,
    },
    /// Delivery: the answer to a `Find`.
    Found {
        /// The number of the question.
        number: u64,
        /// What is known, by places in the question.
        sights: Vec<(usize, Sight)>,
    },
    /// Delivery: the answer to a `List`.
    Listed {
        /// The number of the question.
        number: u64,
        /// Members of the room in the shard.
        members: u64,
        /// The part of the page.
        guests: Vec<Guest>,
    },
    /// Delivery, from the bridge: the answer of all other nodes to a `List`.
    Abroad {
        /// The number of the question.
        number: u64,
        /// What they have answered.
        abroad: Abroad,
    },
}

/// Members of a room in other nodes.
#[derive(Clone, Debug, Default)]
pub struct Abroad {
    /// How many there are, in the nodes that have answered.
    pub members: u64,
    /// Those of the page, in order.
    pub guests: Vec<Guest>,
    /// Beyond this one not all are known that may be on the page.
    pub until: Option<ConnAddress>,
    /// The names of nodes that have not answered. `None`: all have. Empty: nobody knows who they are.
    pub missing: Option<Vec<Arc<str>>>,
}

impl Abroad {
    /// Adds those of the page to guests of this node, in order, and leaves `limit` of them; true when there is
    /// another page.
    pub fn merge(&mut self, guests: &mut Vec<Guest>, limit: usize) -> bool {
        guests.append(&mut self.guests);
        guests.sort_unstable_by_key(|guest| guest.client);
        let known = |guest: &Guest| self.until.is_none_or(|until| guest.client <= until);
        guests.truncate(guests.iter().take_while(|guest| known(guest)).count());
        let is_more = self.until.is_some() || guests.len() > limit;
        guests.truncate(limit);
        is_more
    }
}

impl Word {
    /// True for what may produce other mail.
    #[must_use]
    pub fn is_request(&self) -> bool {
        match self {
            Self::Watch { .. }
            | Self::Repeat { .. }
            | Self::Show { .. }
            | Self::Roll { .. }
            | Self::Find { .. }
            | Self::List { .. } => true,
            Self::News { .. }
            | Self::Present { .. }
            | Self::Shown(_)
            | Self::Whole { .. }
            | Self::Found { .. }
            | Self::Listed { .. }
            | Self::Abroad { .. } => false,
        }
    }

    /// What it costs while it waits, about, in bytes.
    pub(in crate::shard) fn cost(&self) -> usize {
        let extra = match self {
            Self::Find { users, .. } => size_of_val(users.as_slice()),
            Self::Present { users, .. } => users.as_deref().map_or(0, size_of_val),
            Self::Whole { display, .. } => size_of_val(display.joined.as_slice()),
            Self::Found { sights, .. } => size_of_val(sights.as_slice()),
            Self::Listed { guests, .. } => size_of_val(guests.as_slice()),
            Self::Abroad { abroad, .. } => size_of_val(abroad.guests.as_slice()),
            _ => 0,
        };
        size_of::<Self>() + extra
    }
}

/// A user who has come, or who has gone offline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastSeen {
    /// Whose user; `None` where there are no tenants.
    pub tenant: Option<Box<str>>,
    /// The user.
    pub user: Box<str>,
    /// When the last connection ended, or the first one came, in milliseconds since 1970.
    pub unix_ms: u64,
    /// True for one who has come. A return within the grace is no coming.
    pub here: bool,
}
