//! What a shard has to do with other nodes, all of it by mail to the bridge.
//!
//! The bridge is one more receiver of mail, with the number that follows those of the shards; what it has no
//! space for is parked like all mail, and stops publishers by the same rules. A node that works alone has no
//! bridge: then nothing here does anything. To the bridge goes what is to be sent on, once for each command,
//! and which rooms have members here, as their homes know. What comes from other nodes comes as drafts to
//! homes, as if a back end of this node had published it, but not to be sent on again.

use std::sync::Arc;

use crate::auth::plain;
use crate::base::id::ShardId;
use crate::base::shared::Shared;
use crate::base::time::Time;
use crate::hub::Publication;
use crate::session::encode;
use crate::shard::mail::{Crossing, Mail, Whole};
use crate::shard::state::Shard;

impl Shard {
    /// True when the node is one of several.
    pub(super) fn is_linked(&self) -> bool {
        self.identity.node.is_some()
    }

    pub(super) fn push_across(&mut self, mail: Mail) {
        if self.is_linked() {
            self.outbox.push(ShardId(self.identity.shards), mail);
        }
    }

    /// Sends a publication, which is the whole of its command, on to the other nodes.
    pub(super) fn send_across(&mut self, publication: Arc<Publication>) {
        self.counters.sent_across_total += 1;
        let (home, crossing) = (self.identity.id, Crossing::One(publication));
        self.push_across(Mail::Across { home, crossing });
    }

    /// Tells the bridge, if it is to know, that this shard's part of a command has its place in the shard's
    /// order. To be told whatever became of the drafts, as the bridge waits for it.
    pub(super) fn send_part(&mut self, whole: Option<Arc<Whole>>) {
        let Some(whole) = whole else { return };
        self.counters.sent_across_total += 1;
        let (home, crossing) = (self.identity.id, Crossing::Part(whole));
        self.push_across(Mail::Across { home, crossing });
    }

    /// As the room's home: tells the bridge if the room has members now and had none before, or the other way.
    pub(super) fn note_interest(&mut self, room: &Arc<str>, had: bool, now: Time) {
        if !self.is_linked() {
            return;
        }
        let wanted = self.rooms.directory.has_members(room);
        if wanted != had {
            self.push_across(Mail::Interest { room: Arc::clone(room), wanted });
            if !wanted {
                self.end_following(room, now);
            }
        }
    }

    /// Tells members that they may have missed what other nodes published.
    pub(super) fn handle_astray(&mut self, rooms: &[Arc<str>], now: Time) {
        for room in rooms {
            if self.rooms.hub.members(room).is_empty() {
                continue;
            }
            let mut text = Vec::new();
            encode::astray(&mut text, plain(room));
            let forms = self.forms_of(&text).map(Shared::kept);
            self.deliver_kept(room, forms, None, now);
        }
    }
}
