//! Questions of clients: how users stand, and pages of a room's members.
//!
//! A question goes to the homes of the users it is about, or to every shard that may have members, and is
//! answered when all of them have. It counts as outstanding until then.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::auth::{Right, plain, user_of};
use crate::base::id::{ConnAddress, ConnId, ShardId};
use crate::base::map::{Map, Seed};
use crate::base::time::Time;
use crate::hub::{Known, Sight, Stand};
use crate::session::presence::{About, Attendant, UserState, whois_room, whois_users};
use crate::session::{CommandError, Status, Subjects, Whois};
use crate::shard::command::overloaded;
use crate::shard::presence::watch::standing;
use crate::shard::presence::{Abroad, Guest, Page, Word, state};
use crate::shard::state::Shard;

/// What the connections of a shard have asked.
#[derive(Debug)]
pub(in crate::shard) struct Questions {
    /// By number.
    open: Map<u64, Question>,
    next: u64,
}

/// A question that is not answered yet.
#[derive(Debug)]
struct Question {
    conn: ConnId,
    reference: Option<Box<RawValue>>,
    /// Shards that have yet to answer.
    waiting: usize,
    about: Matter,
}

/// What a question is about, and what is known so far.
#[derive(Debug)]
enum Matter {
    Users(Vec<Known>),
    Room { room: Arc<str>, limit: usize, members: u64, guests: Vec<Guest>, abroad: Abroad },
}

/// A user with its place in a question.
type Asked = (usize, Arc<str>);

impl Questions {
    pub(super) fn new(seed: &Seed) -> Self {
        Self { open: seed.map(), next: 0 }
    }
}

impl Shard {
    /// `throng:whois`.
    pub(in crate::shard) fn whois(
        &mut self,
        id: ConnId,
        whois: &Whois<'_>,
        reference: Option<&RawValue>,
        now: Time,
    ) {
        if self.is_overloaded() {
            return self.refuse(id, &overloaded(reference), now);
        }
        if self.has_asked_enough(id) {
            return self.refuse(id, &CommandError::outstanding(reference), now);
        }
        let asked = match &whois.subjects {
            Subjects::Users(users) => self.users_for(id, users, reference).map(|names| {
                let unknown = |name: String| (Arc::from(name), Sight::default());
                Matter::Users(names.into_iter().map(unknown).collect())
            }),
            Subjects::Room(room) => self.page_for(id, room, whois, reference),
        };
        match asked {
            Ok(about) => self.inquire(id, about, whois.after, reference, now),
            Err(error) => self.refuse(id, &error, now),
        }
    }

    fn page_for(
        &mut self,
        id: ConnId,
        room: &str,
        whois: &Whois<'_>,
        reference: Option<&RawValue>,
    ) -> Result<Matter, CommandError> {
        let room = Arc::from(&*self.room_for(id, room, Right::Presence, reference)?);
        let most = self.settings.rooms.presence.page;
        let limit = whois.limit.map_or(most, |limit| usize::from(limit).min(most));
        Ok(Matter::Room { room, limit, members: 0, guests: Vec::new(), abroad: Abroad::default() })
    }

    /// Asks the shards that know.
    fn inquire(
        &mut self,
        conn: ConnId,
        about: Matter,
        after: Option<ConnAddress>,
        reference: Option<&RawValue>,
        now: Time,
    ) {
        let from = self.identity.id;
        let number = self.rooms.presence.questions.next;
        self.rooms.presence.questions.next += 1;
        let words = match &about {
            Matter::Users(users) => self.ask_homes(number, users),
            Matter::Room { room, limit, .. } => {
                // The bridge is the receiver behind the shards, and answers for all other nodes.
                let receivers = self.identity.shards + u16::from(self.is_linked());
                let shards = (0..receivers).map(ShardId);
                // One more than the page holds tells whether there is another page.
                let page = Page { room: Arc::clone(room), after, limit: limit + 1 };
                shards
                    .map(|shard| (shard, Word::List { number, from, page: page.clone() }))
                    .collect()
            }
        };
        let question = Question {
            conn,
            reference: reference.map(RawValue::to_owned),
            waiting: words.len(),
            about,
        };
        self.note_asked(conn);
        self.rooms.presence.questions.open.insert(number, question);
        for (shard, word) in words {
            self.run(shard, word, now);
        }
    }

    fn ask_homes(&self, number: u64, users: &[Known]) -> Vec<(ShardId, Word)> {
        let from = self.identity.id;
        let mut homes: SmallVec<[(ShardId, Vec<Asked>); 4]> = SmallVec::new();
        for (at, (user, _)) in users.iter().enumerate() {
            let (home, entry) = (self.home(user), (at, Arc::clone(user)));
            match homes.iter_mut().find(|(shard, _)| *shard == home) {
                Some((_, users)) => users.push(entry),
                None => homes.push((home, vec![entry])),
            }
        }
        let find = |(home, users)| (home, Word::Find { number, from, users });
        homes.into_iter().map(find).collect()
    }

    /// A home has answered how users stand.
    pub(super) fn handle_found(&mut self, number: u64, sights: &[(usize, Sight)], now: Time) {
        let Some(question) = self.rooms.presence.questions.open.get_mut(&number) else { return };
        if let Matter::Users(users) = &mut question.about {
            for (at, sight) in sights {
                if let Some(user) = users.get_mut(*at) {
                    user.1 = *sight;
                }
            }
        }
        self.count_down(number, now);
    }

    /// A shard has sent its part of a page.
    pub(super) fn handle_listed(&mut self, number: u64, part: u64, listed: Vec<Guest>, now: Time) {
        let Some(question) = self.rooms.presence.questions.open.get_mut(&number) else { return };
        if let Matter::Room { members, guests, .. } = &mut question.about {
            *members += part;
            guests.extend(listed);
        }
        self.count_down(number, now);
    }

    /// The other nodes have told their part of a page.
    pub(super) fn handle_abroad(&mut self, number: u64, found: Abroad, now: Time) {
        let Some(question) = self.rooms.presence.questions.open.get_mut(&number) else { return };
        if let Matter::Room { members, abroad, .. } = &mut question.about {
            *members += found.members;
            *abroad = found;
        }
        self.count_down(number, now);
    }

    /// One shard fewer is awaited; after the last one the client is answered, if it is still there.
    fn count_down(&mut self, number: u64, now: Time) {
        let open = &mut self.rooms.presence.questions.open;
        let Some(question) = open.get_mut(&number) else { return };
        question.waiting -= 1;
        if question.waiting > 0 {
            return;
        }
        let Some(Question { conn, reference, about, .. }) = open.remove(&number) else { return };
        if open.is_empty() {
            open.shrink_to_fit();
        }
        if self.table.get(conn).is_none() {
            return;
        }
        self.note_answered(conn);
        let (mut text, reference) = (Vec::new(), reference.as_deref());
        match about {
            Matter::Users(users) => {
                let users: Vec<UserState<'_>> = users.iter().map(standing).collect();
                whois_users(&mut text, reference, &users);
            }
            Matter::Room { room, limit, members, mut guests, mut abroad } => {
                let is_more = abroad.merge(&mut guests, limit);
                let page: Vec<Attendant<'_>> = guests.iter().map(attendant).collect();
                let next = guests.last().filter(|_| is_more).map(|guest| guest.client);
                let found = (plain(&room), members);
                whois_room(&mut text, reference, found, &page, (next, abroad.missing.as_deref()));
            }
        }
        self.push_text(conn, &text, now);
    }
}

fn attendant(guest: &Guest) -> Attendant<'_> {
    let stand = match guest.status {
        Status::Active => Stand::Active,
        Status::Idle => Stand::Idle,
    };
    Attendant {
        client: guest.client,
        user: guest.user.as_deref().map(|own| user_of(own).1),
        state: state(stand),
        about: guest.about.as_ref().map(|record| About {
            connected: record.connected,
            address: guest.address.as_deref().map(Cow::Borrowed),
            agent: record.agent.as_deref(),
            meta: guest.meta.as_deref(),
        }),
    }
}
