//! The node's side of rooms whose history all nodes share: drafts become publications to be numbered, and what is
//! numbered becomes mail for homes.
//!
//! What the bridge is to tell of is known here by a ticket: a receipt, or a question of a home. There are no more
//! of them than the bridge has work for; what it has no space for it refuses at once, and the ticket is gone. Mail
//! to one home goes in one lane, so a home hears everything about a room in the order in which it happened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::{plain, room};
use crate::base::cursor::{Cursor, Stale};
use crate::base::id::{ConnAddress, ShardId};
use crate::base::time::Time;
use crate::bridge::{
    Append, Bound, Entry, Fetch, Found, Lost, Refusal, Refused, Shares, Verdict, Word,
};
use crate::hub::{self, Origin, Portion, Publication, Receipt, Terms};
use crate::node::crossing::{self, channel_of, room_of};
use crate::node::link::Link;
use crate::session::{Order, parse_orders};
use crate::shard::{Asked, Author, Decided, Fetched, Joining, Joint, Mail, Places, Question};

/// What the bridge is to tell of.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    receipts: BTreeMap<u64, (Arc<str>, Receipt)>,
    questions: BTreeMap<u64, Question>,
    last: u64,
}

impl Sharing {
    fn ticket(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl Link {
    /// What a shard says becomes a word for the bridge.
    pub(super) fn share(&mut self, joint: Joint) -> Option<Word> {
        match joint {
            Joint::Keep(draft) => self.append(draft).map(Word::Append),
            Joint::Follow(room) => Some(Word::Follow(channel_of(&room))),
            Joint::Fetch(question, portion) => self.look_up(question, portion).map(Word::Fetch),
            // Nothing else is sent here.
            _ => None,
        }
    }

    fn append(&mut self, mut draft: Publication) -> Option<Append> {
        let keep = draft.terms.keep.take()?;
        let memory = self.rules.memory_of(plain(&draft.room));
        let name = Arc::clone(&draft.room);
        let limits = memory.history?;
        let id = draft.id.as_ref().filter(|_| !memory.repeats.is_zero());
        let once = id.and_then(|id| serde_json::to_string(&(&keep.author, id)).ok());
        let Some(parcel) = crossing::parcel(&[Arc::new(draft)], true, self.clock.now()) else {
            // Nobody is to have it any more; it was taken and that is all.
            let (receipt, none) = (keep.receipt, Cursor::default());
            self.tell(receipt, Decided::Taken(name, none));
            return None;
        };
        let ticket = self.sharing.ticket();
        self.sharing.receipts.insert(ticket, (Arc::clone(&name), keep.receipt));
        Some(Append {
            channel: channel_of(&name),
            order: parcel.order,
            from: parcel.from,
            once: once.map(|once| (once, memory.repeats)),
            bound: Bound { count: limits.count, bytes: limits.bytes, age: limits.age },
            ticket,
        })
    }

    fn look_up(&mut self, question: Question, portion: Portion) -> Option<Fetch> {
        let after = match question.asked {
            Asked::Join(Joining { since, .. }) => since?,
            Asked::Missed { after, .. } | Asked::Reach { since: after } => after,
            Asked::Members | Asked::Page { .. } | Asked::Once => return None,
        };
        let ticket = self.sharing.ticket();
        let channel = channel_of(&question.room);
        self.sharing.questions.insert(ticket, question);
        Some(Fetch { channel, after, count: portion.count, bytes: portion.bytes, ticket })
    }

    /// Why an order is none for this way: its rooms are numbered elsewhere.
    pub(super) fn refuse_shared(&self, order: &Order<'_>) -> Result<(), String> {
        let tenant = order.tenant.as_deref();
        let is_shared = |name: &&str| self.rules.shares(&room(tenant, name));
        match order.publish.targets.rooms.iter().map(|name| &**name).find(is_shared) {
            None => Ok(()),
            Some(name) => Err(format!(
                "the history of {name:?} is shared, and what is published there must be numbered: expected \
                 POST /v1/publish of a node"
            )),
        }
    }

    fn send_home(&mut self, room: &str, joint: Joint) {
        let home = hub::home(&self.seed, room, self.shards());
        self.waiting.lines[usize::from(home.0)].push_back(Mail::Joint(Box::new(joint)));
    }

    fn tell(&mut self, receipt: Receipt, decided: Decided) {
        let shard = match &receipt {
            Receipt::Client { to, .. } => to.shard,
            Receipt::Order { .. } => ShardId(0),
        };
        let mail = Mail::Joint(Box::new(Joint::Told(receipt, decided)));
        self.waiting.lines[usize::from(shard.0)].push_back(mail);
    }

    /// A publication that was numbered elsewhere.
    fn draft(&self, channel: &str, entry: &Entry, now: Time) -> Result<Publication, String> {
        let limits = &self.limits[1];
        let mut orders =
            parse_orders(&entry.order, limits, 1).map_err(|wrong| wrong.error.message)?;
        let (Some(mut order), true) = (orders.list.pop(), orders.list.is_empty()) else {
            return Err("expected one publication".to_owned());
        };
        self.making.prepare(&mut order.publish);
        let origin = match entry.from.as_deref().map(str::parse::<ConnAddress>) {
            None => Origin::BackEnd(None),
            Some(Ok(address)) => Origin::Connection(address),
            Some(Err(error)) => return Err(error.to_string()),
        };
        // What it had left when it was numbered, less what has passed since; what is over keeps its number.
        let left = |ttl: Duration| now.plus(ttl.saturating_sub(entry.age));
        let until = order.publish.ttl.map(left);
        let terms = |_: &str| Terms { until, ..Terms::default() };
        let author = Author { tenant: order.tenant.as_deref(), origin, at: now, across: false };
        let (shards, rules, node) = (self.shards(), &self.rules, self.node);
        let places = Places { seed: &self.seed, shards, rules, node };
        let mut parts = places.parts(&order.publish, &author, &terms);
        let drafts = parts.homes.pop().filter(|_| parts.homes.is_empty()).map(|(_, drafts)| drafts);
        match drafts.map(|drafts| drafts.into_vec()).as_mut().map(|list| (list.pop(), list.len())) {
            Some((Some(draft), 0)) if *channel_of(&draft.room) == *channel => Ok(draft),
            _ => Err("expected a publication to the room of the channel alone".to_owned()),
        }
    }

    fn inner(channel: &str) -> Option<Arc<str>> {
        let (tenant, name) = room_of(channel)?;
        Some(Arc::from(&*room(tenant.as_deref(), name)))
    }
}

impl Shares for Link {
    fn arrived(&mut self, channel: &str, epoch: u64, entry: &Entry) -> Result<(), Refused> {
        if self.is_full() {
            return Err(Refused::Full);
        }
        let strange = || Refused::Malformed("expected the channel of a room".to_owned());
        let name = Self::inner(channel).ok_or_else(strange)?;
        let at = Cursor { epoch, offset: entry.offset };
        let draft = self.draft(channel, entry, self.clock.now());
        let (draft, result) = match draft {
            Ok(draft) => (Some(draft), Ok(())),
            Err(why) => (None, Err(Refused::Malformed(why))),
        };
        self.send_home(&Arc::clone(&name), Joint::Arrived(name, at, draft));
        result
    }

    fn followed(&mut self, channel: &str, at: Option<Cursor>) {
        if let Some(name) = Self::inner(channel) {
            self.send_home(&Arc::clone(&name), Joint::Followed(name, at));
        }
    }

    fn reset(&mut self, channel: &str, at: Cursor, why: Stale) {
        if let Some(name) = Self::inner(channel) {
            self.send_home(&Arc::clone(&name), Joint::Reset(name, at, why));
        }
    }

    fn decided(&mut self, ticket: u64, verdict: Verdict) {
        let Some((name, receipt)) = self.sharing.receipts.remove(&ticket) else { return };
        let decided = match verdict {
            Verdict::Taken(at) => Decided::Taken(name, at),
            Verdict::Repeat(at) => Decided::Repeat(name, at),
            Verdict::Refused(refusal) => Decided::Refused(name, reason(refusal)),
        };
        let silent = matches!(
            &receipt,
            Receipt::Client { reference: None, .. } | Receipt::Client { waits: false, .. }
        );
        if !silent || matches!(decided, Decided::Refused(..)) {
            self.tell(receipt, decided);
        }
    }

    fn fetched(&mut self, ticket: u64, found: Result<Found, Lost>) {
        let Some(question) = self.sharing.questions.remove(&ticket) else { return };
        let (channel, now) = (channel_of(&question.room), self.clock.now());
        let fetched = match found {
            Err(Lost::Away) => Fetched::Away,
            Err(Lost::Stale(stale)) => Fetched::Stale(stale),
            Ok(found) => {
                let after = match question.asked {
                    Asked::Join(Joining { since, .. }) => since.unwrap_or_default(),
                    Asked::Missed { after, .. } | Asked::Reach { since: after } => after,
                    Asked::Members | Asked::Page { .. } | Asked::Once => return,
                };
                let numbered = |entry: &Entry| {
                    let mut draft = self.draft(&channel, entry, now).ok()?;
                    draft.cursor = Cursor { offset: entry.offset, ..after };
                    Some(draft)
                };
                // What cannot be read ends it; who asks for what comes behind begins anew.
                let list: Vec<Publication> = found.entries.iter().map_while(numbered).collect();
                if list.is_empty() && !found.entries.is_empty() {
                    Fetched::Stale(Stale::TooOld)
                } else {
                    Fetched::Publications(list)
                }
            }
        };
        self.send_home(&Arc::clone(&question.room), Joint::Fetched(question, fetched));
    }
}

/// What authors are told.
fn reason(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Queue => {
            "too much waits for Redis, by which its history is shared; try again after a pause"
        }
        Refusal::Memory => {
            "Redis, by which its history is shared, has no memory left; try again after a pause"
        }
        Refusal::Failed => {
            "Redis, by which its history is shared, does not take it; its operator has to see to it"
        }
    }
}
