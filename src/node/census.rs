//! Who is there, for back ends: a question to all shards, and their answers put together.
//!
//! The question travels as the desk's other mail does; the answers come by the board, in bounds. Of a
//! question that nobody waits for any more nothing is kept.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};

use crate::admin::{Census, MemberSeen, PresenceAsk, PresenceSeen, Refused, UserSeen};
use crate::auth::{room, user_of, user_room};
use crate::base::map::{Map, Seed};
use crate::node::desk::{Mutex, NodeDesk};
use crate::session::Status;
use crate::session::presence::State;
use crate::shard::{
    Abroad, Attendance, Elsewhere, Guest, Inquire, Inspected, Mail, Page, Reply, stand_in_a_word,
};

/// The questions under way.
#[derive(Debug)]
pub(super) struct Questions {
    pub(super) next: AtomicU64,
    open: Mutex<Map<u64, Open>>,
}

/// A question that somebody waits for.
#[derive(Debug, Default)]
pub(super) struct Open {
    /// Shards that have yet to answer.
    pub(super) waiting: Vec<u16>,
    /// The rooms of the users' own, in the order of the question.
    users: Vec<(Arc<str>, Option<UserSeen>)>,
    members: u64,
    guests: Vec<Guest>,
    /// The members of one page.
    limit: usize,
    /// What other nodes have answered, once they have, where they are asked.
    abroad: Option<Abroad>,
    pub(super) elsewhere: Option<Elsewhere>,
    pub(super) asks_abroad: bool,
    /// What is known of rooms and connections.
    pub(super) inspected: Vec<Inspected>,
}

impl Questions {
    pub(super) fn new() -> Self {
        // Numbers come one after another, and nobody else chooses them.
        Self { next: AtomicU64::new(0), open: Mutex::new(Seed::new(0).map()) }
    }

    pub(super) fn open(&self) -> MutexGuard<'_, Map<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// A question to so many shards.
    pub(super) fn to(shards: u16) -> Self {
        Self { waiting: (0..shards).collect(), ..Self::default() }
    }

    /// True when all who were asked have answered.
    pub(super) fn is_complete(&self) -> bool {
        self.waiting.is_empty()
            && (!self.asks_abroad || self.abroad.is_some() || self.elsewhere.is_some())
    }

    fn take(&mut self, reply: Reply) {
        match reply.found {
            Attendance::Abroad(abroad) => {
                self.members += abroad.members;
                self.abroad = Some(abroad);
                return;
            }
            Attendance::Elsewhere(elsewhere) => return self.elsewhere = Some(elsewhere),
            _ => {}
        }
        let before = self.waiting.len();
        self.waiting.retain(|shard| *shard != reply.shard.0);
        if self.waiting.len() == before {
            return;
        }
        match reply.found {
            Attendance::Users(sights) => {
                for (at, sight) in sights {
                    let Some((own, seen)) = self.users.get_mut(at) else { continue };
                    *seen = Some(UserSeen {
                        user: user_of(own).1.to_owned(),
                        state: stand_in_a_word(sight.stand),
                        last_seen: sight.last_seen,
                    });
                }
            }
            Attendance::Members(members, guests) => {
                self.members += members;
                self.guests.extend(guests);
            }
            Attendance::Inspected(found) => self.inspected.push(found),
            Attendance::Abroad(_) | Attendance::Elsewhere(_) => {}
        }
    }

    fn into_seen(mut self) -> PresenceSeen {
        // Who has not answered in time is somebody, but nobody knows who.
        let late = || Abroad { missing: self.asks_abroad.then(Vec::new), ..Abroad::default() };
        let mut abroad = self.abroad.take().unwrap_or_else(late);
        let is_more = abroad.merge(&mut self.guests, self.limit);
        let names = |names: Vec<Arc<str>>| names.iter().map(ToString::to_string).collect();
        PresenceSeen {
            is_more,
            absent: abroad.missing.map(names),
            users: self.users.into_iter().filter_map(|(_, seen)| seen).collect(),
            members: self.members,
            connections: self.guests.into_iter().map(member).collect(),
            missing: self.waiting,
        }
    }
}

fn member(guest: Guest) -> MemberSeen {
    let is_kept = guest.about.is_some();
    let (connected, agent) =
        guest.about.map_or((None, None), |record| (Some(record.connected), record.agent));
    MemberSeen {
        client: guest.client,
        user: guest.user.map(|own| user_of(&own).1.to_owned()),
        state: match guest.status {
            Status::Active => State::Online.as_str(),
            Status::Idle => State::Idle.as_str(),
        },
        connected,
        address: guest.address.filter(|_| is_kept).map(|address| address.to_string()),
        agent: agent.map(|agent| agent.to_string()),
        meta: guest.meta,
    }
}

impl NodeDesk {
    /// Takes in what shards have answered.
    pub(super) fn hear(&self) {
        let mut open = self.questions.open();
        for reply in self.board.replies() {
            if let Some(question) = open.get_mut(&reply.number) {
                question.take(reply);
            }
        }
    }
}

impl NodeDesk {
    /// What is known. Users are known over nodes, as far as the link to them carries.
    fn seen(&self, question: Open) -> PresenceSeen {
        let of_users = !question.users.is_empty();
        let absent = of_users.then(|| self.absent_nodes()).flatten();
        let seen = question.into_seen();
        PresenceSeen { absent: absent.or(seen.absent), ..seen }
    }
}

impl Census for NodeDesk {
    fn ask_presence(&self, tenant: Option<&str>, ask: &PresenceAsk) -> Result<u64, Refused> {
        let number = self.questions.next.fetch_add(1, Ordering::Relaxed);
        let mut question = Open::to(self.shards);
        let inquire = match ask {
            PresenceAsk::Users(users) => {
                let own = |user: &String| Arc::from(user_room(tenant, user));
                let users: Vec<Arc<str>> = users.iter().map(own).collect();
                question.users = users.iter().map(|own| (Arc::clone(own), None)).collect();
                Inquire::Users(users)
            }
            PresenceAsk::Room { room: name, after, limit } => {
                question.limit = *limit;
                Inquire::Members(Page {
                    room: Arc::from(&*room(tenant, name)),
                    after: *after,
                    // One more tells whether there is another page.
                    limit: limit + 1,
                })
            }
        };
        let inquire = Arc::new(inquire);
        question.asks_abroad = matches!(*inquire, Inquire::Members(_)) && self.has_others();
        let asks_abroad = question.asks_abroad;
        self.questions.open().insert(number, question);
        if asks_abroad {
            // What it has no space for is not answered, and so somebody is missing.
            let _ = self.post_bridge(Mail::Inquire(number, Arc::clone(&inquire)));
        }
        let posted = self.post_all(|| Some(Mail::Inquire(number, Arc::clone(&inquire))));
        posted.map(|_| number).inspect_err(|_| {
            self.questions.open().remove(&number);
        })
    }

    fn presence(&self, number: u64) -> Option<PresenceSeen> {
        self.out().offer();
        self.hear();
        let mut open = self.questions.open();
        let is_complete = open.get(&number).is_some_and(Open::is_complete);
        let question = is_complete.then(|| open.remove(&number)).flatten();
        question.map(|question| self.seen(question))
    }

    fn part_of_presence(&self, number: u64) -> PresenceSeen {
        self.hear();
        let question = self.questions.open().remove(&number);
        question.map_or_else(PresenceSeen::default, |question| self.seen(question))
    }
}
