//! As the shard of observers: what they ask, and what they are told.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::auth::{Right, is_user_room, plain, user_of, user_room};
use crate::base::id::ConnId;
use crate::base::shared::Shared;
use crate::base::time::Time;
use crate::hub::{Display, Joined, Known, Stand, TooManyRooms};
use crate::session::encode::Reply;
use crate::session::presence::{RoomNews, RoomUsers, UserState, room_news, users_news};
use crate::session::{Code, CommandError, Status, Subjects};
use crate::shard::command::overloaded;
use crate::shard::forms::Forms;
use crate::shard::presence::{Word, state};
use crate::shard::state::Shard;

/// Observers told of users in one turn.
const TOLD_PER_TURN: usize = 256;

/// Observers of rooms for whom news are queued in one turn.
pub(super) const NOTICES_PER_TURN: usize = 2048;

/// News of a room on their way to its observers.
#[derive(Debug)]
pub(in crate::shard) struct Notice {
    room: Arc<str>,
    forms: Forms<Shared>,
    /// Who has yet to get them.
    waiting: Vec<ConnId>,
}

/// What the right to observe a user is granted by: a pattern for names that begin so.
const USERS: &str = "user:";

impl Shard {
    /// Notes whether someone sits in front of the client.
    pub(in crate::shard) fn note_status(&mut self, id: ConnId, status: Status) {
        let Some(connection) = self.table.get(id) else { return };
        let Some(open) = connection.open_mut() else { return };
        open.session.set_status(status);
        if let Some(person) = self.gate.people.get(id.index) {
            let idle = status == Status::Idle;
            self.rooms.hub.set_idle(&connection.member, person.own(), idle);
        }
    }

    /// `throng:watch`.
    pub(in crate::shard) fn watch_subjects(
        &mut self,
        id: ConnId,
        subjects: &Subjects<'_>,
        reference: Option<&RawValue>,
        now: Time,
    ) {
        if self.is_overloaded() {
            return self.refuse(id, &overloaded(reference), now);
        }
        let watched = match subjects {
            Subjects::Users(users) => self.watch_users(id, users, reference),
            Subjects::Room(room) => self.watch_room(id, room, reference).map(Some),
        };
        let room = match watched {
            Ok(room) => room,
            Err(error) => return self.refuse(id, &error, now),
        };
        self.reply_watching(id, reference, now);
        // The home learns of this shard before it is asked on behalf of an observer.
        self.post_wants(now);
        if let Some(room) = room {
            let (home, to) = (self.home(&room), self.address(id));
            self.run(home, Word::Show { room, to }, now);
        }
        self.tell_some(now);
    }

    /// `throng:unwatch`. Who does not watch it is answered all the same.
    pub(in crate::shard) fn unwatch_subjects(
        &mut self,
        id: ConnId,
        subjects: &Subjects<'_>,
        reference: Option<&RawValue>,
        now: Time,
    ) {
        match subjects {
            Subjects::Users(users) => {
                for user in users {
                    let own = self.user_name(id, user);
                    self.rooms.presence.lookout.unwatch(id.index, &own);
                }
            }
            Subjects::Room(room) => {
                let room = self.inner_name(id, room);
                self.rooms.presence.lookout.unwatch(id.index, &room);
            }
        }
        self.reply_watching(id, reference, now);
    }

    /// Takes from the connection what it watches and its fresh token does not let it watch.
    pub(in crate::shard) fn withdraw_watches(&mut self, id: ConnId) {
        let lookout = &self.rooms.presence.lookout;
        let subjects = lookout.subjects_of(id.index);
        let may_not = |subject: &Arc<str>| {
            if is_user_room(subject) {
                !self.may_observe(id, user_of(subject).1)
            } else {
                !self.may_see(id.index, plain(subject))
            }
        };
        let lost: Vec<Arc<str>> = subjects.filter(|subject| may_not(subject)).cloned().collect();
        for subject in lost {
            self.rooms.presence.lookout.unwatch(id.index, &subject);
        }
    }

    fn reply_watching(&mut self, id: ConnId, reference: Option<&RawValue>, now: Time) {
        let watching = self.rooms.presence.lookout.count_of(id.index) as u64;
        self.reply(id, reference, &Reply::Watching { watching }, now);
    }

    /// All of the users or none.
    fn watch_users(
        &mut self,
        id: ConnId,
        users: &[Cow<'_, str>],
        reference: Option<&RawValue>,
    ) -> Result<Option<Arc<str>>, CommandError> {
        let limit = self.settings.rooms.presence.watches;
        let names = self.users_for(id, users, reference)?;
        let lookout = &mut self.rooms.presence.lookout;
        let mut new = Vec::new();
        for name in &names {
            match lookout.watch_user(id.index, name, limit) {
                Ok(Joined::New) => new.push(name),
                Ok(Joined::Already) => {}
                Err(TooManyRooms { limit }) => {
                    for name in new {
                        lookout.unwatch(id.index, name);
                    }
                    return Err(watch_limit(limit, reference));
                }
            }
        }
        Ok(None)
    }

    fn watch_room(
        &mut self,
        id: ConnId,
        room: &str,
        reference: Option<&RawValue>,
    ) -> Result<Arc<str>, CommandError> {
        let limit = self.settings.rooms.presence.watches;
        let room = self.room_for(id, room, Right::Presence, reference)?;
        let lookout = &mut self.rooms.presence.lookout;
        match lookout.watch_room(id.index, &room, limit) {
            Ok(_) => Ok(Arc::from(&*room)),
            Err(TooManyRooms { limit }) => Err(watch_limit(limit, reference)),
        }
    }

    /// The names within the node of users whom the connection may observe.
    ///
    /// # Errors
    /// The answer to a client that may not, of one of them.
    pub(super) fn users_for(
        &mut self,
        id: ConnId,
        users: &[Cow<'_, str>],
        reference: Option<&RawValue>,
    ) -> Result<Vec<String>, CommandError> {
        if users.iter().all(|user| self.may_observe(id, user)) {
            return Ok(users.iter().map(|user| self.user_name(id, user)).collect());
        }
        self.counters.forbidden_total += 1;
        let message = "the right to presence of one of these users is missing";
        Err(CommandError::new(Code::Forbidden, message, reference))
    }

    /// True when the connection may observe that user of its tenant.
    fn may_observe(&self, id: ConnId, user: &str) -> bool {
        let person = self.gate.people.get(id.index);
        let is_own = person.is_some_and(|person| person.names().1 == user);
        let grants = person.map(|person| &person.grants);
        let who = self.settings.rooms.join;
        is_own || who.lets(grants, &format!("{USERS}{user}"), Right::Presence)
    }

    /// The room of a user's own, for a user of the connection's tenant.
    fn user_name(&self, id: ConnId, user: &str) -> String {
        let person = self.gate.people.get(id.index);
        user_room(person.and_then(|person| person.names().0), user)
    }

    /// Tells observers of users what there is to tell, a slice of them.
    pub(super) fn tell_some(&mut self, now: Time) {
        for _ in 0..TOLD_PER_TURN {
            let Some((index, users)) = self.rooms.presence.lookout.poll_told() else { return };
            let Some((id, _)) = self.table.at(index) else { continue };
            let users: Vec<UserState<'_>> = users.iter().map(standing).collect();
            let mut text = Vec::new();
            users_news(&mut text, &users);
            self.counters.presence_pushes_total += 1;
            self.push_text(id, &text, now);
        }
    }

    /// News of a room, for all who observe it in this shard now; encoded once, and queued in slices.
    pub(super) fn handle_shown(&mut self, display: &Display, now: Time) {
        let observers = self.rooms.presence.lookout.observers(&display.room);
        let confirmed = observers.iter().filter(|member| member.is_confirmed());
        let there = confirmed.filter_map(|member| {
            let connection = self.table.peek(member.conn)?;
            Some(ConnId { index: member.conn, generation: connection.generation() })
        });
        let waiting: Vec<ConnId> = there.collect();
        let forms = self.forms_of(&encoded(display)).map(Shared::kept);
        let room = Arc::clone(&display.room);
        self.rooms.presence.notices.push_back(Notice { room, forms, waiting });
        self.spread_notices(now);
    }

    /// Queues news of rooms for their observers: so many in one turn, in the order of the news.
    pub(super) fn spread_notices(&mut self, now: Time) {
        let limits = self.settings.queue.clone();
        while self.rooms.presence.spread < NOTICES_PER_TURN
            && let Some(notice) = self.rooms.presence.notices.front_mut()
        {
            let Some(id) = notice.waiting.pop() else {
                self.rooms.presence.notices.pop_front();
                continue;
            };
            self.rooms.presence.spread += 1;
            let connection = self.table.get(id).filter(|connection| connection.is_living());
            if let Some(form) = connection.map(|connection| connection.form()) {
                let frame = notice.forms.of(form).clone();
                self.counters.presence_pushes_total += 1;
                self.push_item(id.index, frame, &limits, now);
            }
        }
    }

    /// A room as it is, for a new observer.
    pub(super) fn handle_whole(&mut self, to: ConnId, display: &Display, now: Time) {
        let is_there = self.table.get(to).is_some();
        if is_there && self.rooms.presence.lookout.confirm_room(to.index, &display.room) {
            // News from before are in it.
            for notice in &mut self.rooms.presence.notices {
                if notice.room == display.room {
                    notice.waiting.retain(|id| *id != to);
                }
            }
            self.counters.presence_pushes_total += 1;
            self.push_text(to, &encoded(display), now);
        }
    }
}

pub(super) fn standing((own, sight): &Known) -> UserState<'_> {
    let (_, user) = user_of(own);
    UserState { user, state: state(sight.stand), last_seen: sight.last_seen }
}

fn encoded(display: &Display) -> Vec<u8> {
    let users = if !display.listed {
        RoomUsers::Unlisted
    } else if display.whole {
        RoomUsers::All(listed(&display.joined))
    } else {
        let left = display.left.iter().map(|own| user_of(own).1).collect();
        RoomUsers::Changes(listed(&display.joined), left, listed(&display.states))
    };
    let mut text = Vec::new();
    room_news(&mut text, &RoomNews { room: plain(&display.room), members: display.members, users });
    text
}

fn listed(users: &[(Arc<str>, Stand)]) -> Vec<UserState<'_>> {
    let users = users.iter();
    users
        .map(|(own, stand)| UserState {
            user: user_of(own).1,
            state: state(*stand),
            last_seen: None,
        })
        .collect()
}

fn watch_limit(limit: usize, reference: Option<&RawValue>) -> CommandError {
    let message = format!("one connection may watch {limit} users and rooms at most");
    CommandError::new(Code::WatchLimit, message, reference)
}
