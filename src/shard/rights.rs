//! What somebody may do in a room, and how much.
//!
//! Two have a say: the namespace of the room, which may be for some people and for pages of some origins
//! only, and the token, which grants rooms by pattern; a third may be asked (`consult`). A fresh token may
//! grant less than the one before; then its connection leaves the rooms that it may no longer be in, and is
//! told so.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::auth::{Mode, Right, Who, is_user_room, plain, room};
use crate::base::id::ConnId;
use crate::base::time::Time;
use crate::session::{Code, CommandError};
use crate::shard::state::Shard;

impl Shard {
    /// The name within the node of the room that the connection calls `name`, if it may use `right` there.
    ///
    /// # Errors
    /// The answer to a client that may not.
    pub(super) fn room_for<'a>(
        &mut self,
        id: ConnId,
        name: &'a str,
        right: Right,
        reference: Option<&RawValue>,
    ) -> Result<Cow<'a, str>, CommandError> {
        let message = if !self.may_from_there(id.index, name) {
            "pages of this origin may not use that room".to_owned()
        } else if !(self.has_right(id.index, name, right)
            || self.is_asked_about(name, right) && self.has_pass(id))
        {
            format!("the right to {} in that room is missing", right.name())
        } else {
            let person = self.gate.people.get(id.index);
            return Ok(room(person.and_then(|person| person.names().0), name));
        };
        self.counters.forbidden_total += 1;
        Err(CommandError::new(Code::Forbidden, message, reference))
    }

    /// Whether the connection may publish to what rights call `name`; where nobody has to say who they are,
    /// `open` says.
    ///
    /// # Errors
    /// The answer to a client that may not.
    pub(super) fn may_reach(
        &mut self,
        id: ConnId,
        name: &str,
        open: bool,
        reference: Option<&RawValue>,
    ) -> Result<(), CommandError> {
        let may = match self.settings.access.mode {
            Mode::Open => open,
            Mode::Token => self.has_right(id.index, name, Right::Publish),
        };
        if may && self.may_from_there(id.index, name) {
            return Ok(());
        }
        self.counters.forbidden_total += 1;
        let message = format!("the right to publish to `{name}` is missing");
        Err(CommandError::new(Code::Forbidden, message, reference))
    }

    /// True when the connection may be in the room that it calls `name`, or the application's back end has to
    /// say: whoever is there by its word stays.
    pub(super) fn may_join(&self, index: u32, name: &str) -> bool {
        self.may_from_there(index, name)
            && (self.has_right(index, name, Right::Join) || self.is_asked_about(name, Right::Join))
    }

    /// True when the connection may see who is in the room that it calls `name`, or may have asked the back end.
    pub(super) fn may_see(&self, index: u32, name: &str) -> bool {
        let by_token = self.has_right(index, name, Right::Presence);
        self.may_from_there(index, name) && (by_token || self.is_asked_about(name, Right::Presence))
    }

    /// True when the back end says who may use the right there besides those whose token grants it.
    pub(super) fn is_asked_about(&self, name: &str, right: Right) -> bool {
        self.settings.rooms.who(name, right) == Who::Webhook
            && self.settings.access.consult.is_some()
    }

    pub(super) fn has_right(&self, index: u32, name: &str, right: Right) -> bool {
        let grants = self.gate.people.get(index).map(|person| &person.grants);
        self.settings.rooms.who(name, right).lets(grants, name, right)
    }

    /// True when the room is for pages such as the one that the connection came from, and for programs.
    pub(super) fn may_from_there(&self, index: u32, name: &str) -> bool {
        let rules = self.settings.rooms.origins_of(name);
        rules.is_none_or(|rules| self.gate.people.pages.may(index, rules))
    }

    /// Takes the connection out of rooms that its fresh token does not let it be in or see.
    pub(super) fn withdraw(&mut self, id: ConnId, now: Time) {
        self.withdraw_watches(id);
        let Some(connection) = self.table.peek(id.index) else { return };
        let rooms = self.rooms.hub.rooms_of(&connection.member);
        let lost: Vec<Arc<str>> = rooms
            .filter(|room| !is_user_room(room) && !self.may_join(id.index, plain(room)))
            .map(Arc::clone)
            .collect();
        if lost.is_empty() {
            return;
        }
        // What was delivered before is still for this member.
        self.settle(now);
        for room in lost {
            self.leave_room(id, &room, Code::Forbidden, now);
            self.counters.withdrawn_total += 1;
        }
    }

    /// Rooms that the connection may be in: its own does not count.
    pub(super) fn room_limit(&self, id: ConnId) -> (usize, usize) {
        let limit = self.settings.rooms.per_connection;
        let people = &self.gate.people;
        if people.get(id.index).is_none() {
            return (limit, limit);
        }
        let own = people.limits(id.index).and_then(|limits| limits.rooms);
        let limit = own.map_or(limit, |own| limit.min(own as usize));
        (limit, limit.saturating_add(1))
    }

    /// Bytes that a message of the connection may have, where everybody's may have `most`.
    pub(super) fn message_limit(&self, id: ConnId, most: usize) -> usize {
        let limits = self.gate.people.limits(id.index);
        let own = limits.and_then(|limits| limits.message_bytes);
        own.map_or(most, |own| most.min(own.get() as usize))
    }
}
