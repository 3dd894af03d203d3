//! What the application's back ends are told, as rules.
//!
//! A room's publications go to its members, to the back ends, or to both: where the application decides what
//! becomes of a message, it goes to the back ends alone, and what comes of it is published by them.

use crate::base::glob::Glob;
use crate::base::tidings::TidingKinds;

/// Where clients' publications to a room go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deliver {
    /// To its members.
    #[default]
    Members,
    /// To the back ends, and to no member.
    Webhook,
    /// To both.
    Both,
    /// To a stream that back ends read, and to no member.
    Stream,
}

/// What the application's back ends are told.
#[derive(Clone, Debug, Default)]
pub struct Reporting {
    /// The kinds of events that somebody wants to hear of.
    pub kinds: TidingKinds,
    /// Where publications go, by name pattern; the first match decides. Empty where all go to members.
    pub deliver: Vec<(Glob, Deliver)>,
}

impl Reporting {
    /// Where clients' publications to the room go that they call so.
    #[must_use]
    pub fn deliver_of(&self, room: &str) -> Deliver {
        let found = self.deliver.iter().find(|(pattern, _)| pattern.matches(room));
        found.map_or(Deliver::Members, |(_, deliver)| *deliver)
    }
}
