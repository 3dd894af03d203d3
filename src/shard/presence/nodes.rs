//! As a home: users of this node are told to the other nodes, and those of theirs are there as well.
//!
//! Both go by way of the bridge, in pieces, and only how a user stands in a whole node, so what connections do
//! within one is no news to others. A node that works alone has nothing to do with any of this.

use crate::base::time::Time;
use crate::hub::{Afar, Here};
use crate::shard::mail::Mail;
use crate::shard::state::Shard;

/// Users in one piece of mail.
const PIECE: usize = 256;

impl Shard {
    /// Tells the bridge what has changed about users in this node.
    pub(in crate::shard) fn post_here(&mut self) {
        loop {
            let users = &mut self.rooms.directory.users;
            let piece: Vec<Here> = std::iter::from_fn(|| users.poll_here()).take(PIECE).collect();
            if piece.is_empty() {
                return;
            }
            self.push_across(Mail::Here(piece));
        }
    }

    /// Takes in how users stand in other nodes.
    pub(in crate::shard) fn handle_afar(&mut self, news: Vec<Afar>, now: Time) {
        let grace = u64::try_from(self.settings.rooms.presence.grace.as_millis());
        let unix_ms = self.unix_ms(now);
        for mut afar in news {
            // A node that has fallen silent was last heard a while ago, and a grace is counted from then.
            let end = afar.unix_ms.saturating_add(grace.unwrap_or(u64::MAX));
            afar.ended &= end <= unix_ms;
            self.rooms.directory.users.set_afar(&afar, now);
        }
    }
}
