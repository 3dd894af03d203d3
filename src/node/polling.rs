//! The node's side of questions to all nodes: who is in a room, wherever its members are connected.
//!
//! A shard or the desk asks the bridge what it asks the shards, and gets one answer that stands for all the other
//! nodes. A question of another node goes to the shards as one of their own does, with the bridge as the one
//! who asks, and is answered when all of them have. Pages are merged by the addresses of connections, in which the node
//! comes first, so a page over nodes goes on where the last one ended like one of a single node. What a node tells in one
//! answer is bounded in bytes; a page ends where the first of such answers does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::base::id::{ConnAddress, ShardId};
use crate::base::time::Time;
use crate::bridge::{Poll, Polled, Survey, Surveyed, Word};
use crate::hub::Slip;
use crate::node::counting::{self, Counting};
use crate::node::link::Link;
use crate::node::looking::Looking;
use crate::session::Status;
use crate::shard::{
    Abroad, Attendance, Guest, Inquire, Mail, Page, Record, Reply, Word as PresenceWord,
};

/// Questions of other nodes that may be under way, and for how long the shards may take.
const POLLS: usize = 256;
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest page that is told, and its bytes, after which no further member is added.
const PAGE: usize = 1001;
const PAGE_BYTES: usize = 262_144;
/// Answers for the desk that may wait.
const REPLIES: usize = 256;

/// A question, as nodes ask it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// The room, by its name within a node.
    room: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<String>,
    limit: usize,
}

/// An answer, as nodes give it.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Told {
    members: u64,
    guests: Vec<Row>,
    /// There are more behind the last, though the page has space.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
}

/// A member, as nodes tell of it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Row {
    client: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    idle: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connected: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    meta: Option<Box<RawValue>>,
}

/// Who in this node asks.
#[derive(Debug)]
pub(super) enum Asker {
    Shard(ShardId, u64),
    Desk(u64),
    /// How many connections of other nodes this has reached.
    Count(Slip),
    /// The desk, about rooms and connections.
    Look(u64),
}

/// A question of another node.
#[derive(Debug)]
struct Open {
    to: u32,
    number: u64,
    limit: usize,
    until: Time,
    /// Shards that have yet to answer.
    waiting: u16,
    members: u64,
    guests: Vec<Guest>,
}

/// Questions both ways.
#[derive(Debug, Default)]
pub(super) struct Polling {
    /// Who asks what the others are asked, with the members of a page; by tickets.
    pub(super) asked: BTreeMap<u64, (Asker, usize)>,
    /// What others ask; by numbers, which grow with time.
    open: BTreeMap<u64, Open>,
    last: u64,
    /// How many publications reach, here and elsewhere.
    pub(super) counting: Counting,
    /// What others ask about rooms and connections.
    pub(super) looking: Looking,
    /// For the desk.
    pub(super) replies: Vec<Reply>,
}

impl Polling {
    /// That of a node of this name.
    pub(super) fn of(name: &str) -> Self {
        Self { looking: Looking::of(name), ..Self::default() }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Answers the desk; what finds no place nobody waits for any more.
    pub(super) fn reply(&mut self, reply: Reply) {
        if self.replies.len() < REPLIES {
            self.replies.push(reply);
        }
    }
}

impl Link {
    /// What a shard asks or answers becomes a word for the bridge.
    pub(super) fn hear_word(&mut self, word: PresenceWord) -> Option<Word> {
        match word {
            PresenceWord::List { number, from, page } => {
                Some(self.ask_others(Asker::Shard(from, number), &page))
            }
            PresenceWord::Listed { number, members, guests } => {
                self.hear_listed(number, members, guests)
            }
            // Nothing else is sent here.
            _ => None,
        }
    }

    /// What the desk asks becomes a word for the bridge.
    pub(super) fn hear_inquiry(&mut self, number: u64, inquire: &Inquire) -> Option<Word> {
        match inquire {
            Inquire::Members(page) => Some(self.ask_others(Asker::Desk(number), page)),
            Inquire::Inspect(what) => self.look_elsewhere(number, what),
            Inquire::Users(_) => None,
        }
    }

    fn ask_others(&mut self, asker: Asker, page: &Page) -> Word {
        let after = page.after.map(|after| after.to_string());
        let asked = Asked { room: page.room.to_string(), after, limit: page.limit };
        let ticket = self.polling.number();
        self.polling.asked.insert(ticket, (asker, page.limit));
        Word::Ask(Survey { ticket, text: serde_json::to_string(&asked).unwrap_or_default() })
    }

    /// A shard has told its part of what another node asks.
    fn hear_listed(&mut self, number: u64, members: u64, guests: Vec<Guest>) -> Option<Word> {
        let open = self.polling.open.get_mut(&number)?;
        open.members += members;
        open.guests.extend(guests);
        open.waiting -= 1;
        if open.waiting > 0 {
            return None;
        }
        let Open { to, number, limit, members, mut guests, .. } =
            self.polling.open.remove(&number)?;
        guests.sort_unstable_by_key(|guest| guest.client);
        guests.truncate(limit);
        let text = told(members, guests);
        Some(Word::Answer(Poll { to, number, text }))
    }
}

impl Polled for Link {
    fn polled(&mut self, poll: Poll) -> Result<(), String> {
        if counting::is_about_reach(&poll.text) {
            self.polling.counting.ask(&poll, self.clock.now());
            return Ok(());
        }
        if let Some(looked) = self.look_for(&poll) {
            return looked;
        }
        let asked: Asked = serde_json::from_str(&poll.text).map_err(|error| error.to_string())?;
        let after = asked.after.as_deref().map(str::parse::<ConnAddress>).transpose();
        let after = after.map_err(|error| format!("after: {error}"))?;
        let now = self.clock.now();
        // Shards answer sooner or later; who asked has long stopped waiting for these.
        self.polling.open.retain(|_, open| open.until > now);
        if self.polling.open.len() >= POLLS || self.is_full() {
            return Ok(());
        }
        let page = Page { room: Arc::from(asked.room), after, limit: asked.limit.min(PAGE) };
        let (number, shards) = (self.polling.number(), self.shards());
        let open = Open {
            to: poll.to,
            number: poll.number,
            limit: page.limit,
            until: now.plus(PATIENCE),
            waiting: shards,
            members: 0,
            guests: Vec::new(),
        };
        self.polling.open.insert(number, open);
        // The bridge is the receiver behind the shards.
        let from = ShardId(shards);
        for waiting in &mut self.waiting.lines {
            let word = PresenceWord::List { number, from, page: page.clone() };
            waiting.push_back(Mail::Presence(Box::new(word)));
        }
        Ok(())
    }

    fn surveyed(&mut self, ticket: u64, surveyed: Surveyed) {
        let Some((asker, limit)) = self.polling.asked.remove(&ticket) else { return };
        match asker {
            Asker::Count(slip) => self.polling.counting.tell(slip, surveyed),
            Asker::Shard(shard, number) => {
                let abroad = abroad(surveyed, limit);
                let word = PresenceWord::Abroad { number, abroad };
                self.waiting.lines[usize::from(shard.0)].push_back(Mail::Presence(Box::new(word)));
            }
            Asker::Desk(number) => {
                let shard = ShardId(self.shards());
                let found = Attendance::Abroad(abroad(surveyed, limit));
                self.polling.reply(Reply { number, shard, found });
            }
            Asker::Look(number) => self.tell_elsewhere(number, surveyed),
        }
    }
}

/// An answer in so many bytes, and one member more.
fn told(members: u64, guests: Vec<Guest>) -> String {
    let mut told = Told { members, ..Told::default() };
    let mut bytes = 0;
    for guest in guests {
        if bytes >= PAGE_BYTES {
            told.cut = true;
            break;
        }
        let row = row(guest);
        bytes += 64
            + row.user.as_ref().map_or(0, String::len)
            + row.agent.as_ref().map_or(0, String::len)
            + row.meta.as_ref().map_or(0, |meta| meta.get().len());
        told.guests.push(row);
    }
    serde_json::to_string(&told).unwrap_or_default()
}

fn row(guest: Guest) -> Row {
    Row {
        client: guest.client.to_string(),
        user: guest.user.as_deref().map(str::to_owned),
        idle: guest.status == Status::Idle,
        connected: guest.about.as_ref().map(|about| about.connected),
        address: guest.address.as_deref().map(str::to_owned),
        agent: guest.about.and_then(|about| about.agent).as_deref().map(str::to_owned),
        meta: guest.meta,
    }
}

fn guest(row: Row) -> Option<Guest> {
    let agent = row.agent.map(Arc::from);
    Some(Guest {
        client: row.client.parse().ok()?,
        user: row.user.map(Arc::from),
        status: if row.idle { Status::Idle } else { Status::Active },
        about: row.connected.map(|connected| Record { connected, agent }),
        address: row.address.map(Arc::from),
        meta: row.meta,
    })
}

/// What the others have answered, put together.
fn abroad(surveyed: Surveyed, limit: usize) -> Abroad {
    let mut abroad = Abroad { missing: surveyed.missing, ..Abroad::default() };
    for text in surveyed.answers {
        // Who answers what nobody understands has told nothing: its number of members is not known either.
        let Ok(told) = serde_json::from_str::<Told>(&text) else {
            abroad.missing.get_or_insert_default();
            continue;
        };
        abroad.members += told.members;
        let before = abroad.guests.len();
        abroad.guests.extend(told.guests.into_iter().filter_map(guest));
        let last = abroad.guests[before..].last().filter(|_| told.cut).map(|guest| guest.client);
        abroad.until = [abroad.until, last].into_iter().flatten().min();
    }
    abroad.guests.sort_unstable_by_key(|guest| guest.client);
    abroad.guests.truncate(limit);
    abroad
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: u32, index: u32, meta: usize) -> Guest {
        let client = format!("{node:x}-0-{index:x}-0").parse().expect("an address");
        let meta = RawValue::from_string(format!("\"{}\"", "m".repeat(meta))).expect("JSON");
        Guest {
            client,
            user: Some(Arc::from(format!("\u{1e}u{index}"))),
            status: Status::Idle,
            about: Some(Record { connected: 7, agent: Some(Arc::from("x \"y\"")) }),
            address: Some(Arc::from("192.0.2.1")),
            meta: Some(meta),
        }
    }

    fn surveyed(answers: Vec<String>) -> Surveyed {
        Surveyed { answers, missing: None }
    }

    #[test]
    fn what_a_node_tells_of_its_members_is_read_as_it_was() {
        let all = vec![member(1, 1, 3), member(1, 2, 3)];
        let read = abroad(surveyed(vec![told(2, all.clone())]), 10);
        assert_eq!((read.members, read.until, read.missing), (2, None, None));
        assert_eq!(format!("{:?}", read.guests), format!("{all:?}"));
    }

    #[test]
    fn a_page_ends_where_the_first_cut_answer_does() {
        let long: Vec<Guest> = (0..100).map(|index| member(1, index, 10_000)).collect();
        let short = vec![member(2, 0, 1)];
        let read = abroad(surveyed(vec![told(1, short), told(100, long)]), 1000);
        assert_eq!(read.members, 101);
        let until = read.until.expect("an end");
        assert_eq!(until.node.0, 1);
        let known = read.guests.iter().filter(|guest| guest.client <= until).count();
        assert!((20..40).contains(&known), "{known} members in {PAGE_BYTES} bytes");
    }

    #[test]
    fn an_answer_that_nobody_understands_makes_the_rest_a_part() {
        let read = abroad(surveyed(vec!["{\"x\":1}".to_owned(), told(3, Vec::new())]), 10);
        assert_eq!((read.members, read.missing), (3, Some(Vec::new())));
    }
}
