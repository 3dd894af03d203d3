//! The node's side of questions about rooms and connections on all nodes, and of orders to send connections away.
//!
//! They travel as questions about members do ([`super::polling`]). What the desk asks its shards the bridge asks the other
//! nodes, each of which asks its own shards and answers, by its name, when all of them have. So whatever is counted is
//! summed as it is over shards, and pages are merged by the order they are in. An answer is bounded in bytes: a page ends
//! where the first of the answers does that were cut short.
//!
//! An order is a question that does something. A node that does not answer it in time may obey it later; one that never
//! heard it does not. So who gives one is told the names of both kinds, and may give it again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::base::id::{ConnAddress, ShardId};
use crate::base::time::Time;
use crate::bridge::{Poll, Survey, Surveyed, Word};
use crate::hub::Slip;
use crate::node::link::Link;
use crate::node::polling::Asker;
use crate::shard::{
    Attendance, ConnectionSeen, Elsewhere, Inquire, Inspect, Inspected, Mail, Reply, RoomSeen,
    Until, Whom,
};
use crate::wire::websocket::CloseCode;

/// Questions of other nodes that may be under way, and for how long the shards may take.
const OPEN: usize = 256;
const PATIENCE: Duration = Duration::from_secs(10);
/// Rooms or connections in one answer, and rooms in one question.
const PAGE: usize = 1001;
/// The bytes of an answer, after which no further room or connection is added.
const PAGE_BYTES: usize = 262_144;
/// Bytes of a reason: what a close frame carries beside its code.
const REASON_BYTES: usize = 123;
/// What connections speak, in the words in which that is told.
const TRANSPORTS: [&str; 3] = ["websocket", "sse", "socketio"];

/// A question, as nodes ask it: in an object of its own, by which it is told from others.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Question {
    look: Asked,
}

/// What is asked. Rooms stand by their names within a node.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Asked {
    Rooms {
        tenant: Option<String>,
        prefix: String,
        after: Option<String>,
        largest: bool,
        limit: usize,
    },
    Counts {
        rooms: Vec<String>,
    },
    Connections {
        room: String,
        after: Option<String>,
        limit: usize,
    },
    Connection {
        id: String,
        tenant: Option<String>,
    },
    Dismiss {
        /// One of both.
        connection: Option<String>,
        room: Option<String>,
        tenant: Option<String>,
        code: u16,
        words: Option<String>,
    },
}

/// By which questions of this kind are known.
#[derive(Deserialize)]
struct Probe<'a> {
    #[serde(borrow, default)]
    look: Option<&'a RawValue>,
}

/// An answer.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Told {
    /// The name of the node that answers.
    node: String,
    /// Rooms with members there, and how many.
    rooms: Vec<(String, u64)>,
    untold: u64,
    connections: Vec<Row>,
    members: u64,
    dismissed: u64,
    /// There are more rooms or connections behind the last.
    cut: bool,
}

/// A connection, as nodes tell of it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Row {
    client: String,
    who: Option<(Option<String>, String)>,
    waiting: u64,
    rooms: usize,
    names: Vec<String>,
    life: u64,
    transport: String,
    tls: bool,
}

/// A question of another node.
#[derive(Debug)]
struct Open {
    to: u32,
    number: u64,
    until: Time,
    what: Arc<Inspect>,
    /// Shards that have yet to answer.
    waiting: u16,
    parts: Vec<Inspected>,
}

/// Questions of other nodes.
#[derive(Debug, Default)]
pub(super) struct Looking {
    /// This node's name.
    name: Arc<str>,
    /// By numbers, which grow with time.
    open: BTreeMap<u64, Open>,
    last: u64,
}

impl Looking {
    pub(super) fn of(name: &str) -> Self {
        Self { name: Arc::from(name), ..Self::default() }
    }
}

impl Link {
    /// What the desk asks about rooms and connections, for the bridge, where other nodes can know of it.
    pub(super) fn look_elsewhere(&mut self, number: u64, what: &Inspect) -> Option<Word> {
        let one = match what {
            Inspect::Explain(_) => return None,
            Inspect::Connection(address, _)
            | Inspect::Dismiss { whom: Whom::Connection(address, _), .. } => Some(address),
            _ => None,
        };
        if one.is_some_and(|address| address.node == self.node) {
            self.tell_elsewhere(number, Surveyed::default());
            return None;
        }
        let text = serde_json::to_string(&Question { look: asked(what)? }).unwrap_or_default();
        let ticket = self.polling.number();
        self.polling.asked.insert(ticket, (Asker::Look(number), 0));
        Some(Word::Ask(Survey { ticket, text }))
    }

    /// Another node asks; nothing when it is a question of another kind.
    pub(super) fn look_for(&mut self, poll: &Poll) -> Option<Result<(), String>> {
        let probe: Probe<'_> = serde_json::from_str(&poll.text).ok()?;
        probe.look?;
        let what = match read(&poll.text) {
            Ok(what) => Arc::new(what),
            Err(why) => return Some(Err(why)),
        };
        let now = self.clock.now();
        let open = &mut self.polling.looking.open;
        open.retain(|_, open| open.until > now);
        // Who finds no place is not answered, and names this node as missing.
        if open.len() >= OPEN || self.is_full() {
            return Some(Ok(()));
        }
        if let Inspect::Dismiss { whom, code, .. } = &*what {
            tracing::info!(?whom, code = code.get(), "another node has connections sent away");
        }
        let (until, waiting) = (now.plus(PATIENCE), self.shards());
        let looking = &mut self.polling.looking;
        looking.last += 1;
        let number = Slip::AFAR + looking.last;
        let inquire = Arc::new(Inquire::Inspect(Arc::clone(&what)));
        let (to, parts) = (poll.to, Vec::new());
        let open = Open { to, number: poll.number, until, what, waiting, parts };
        looking.open.insert(number, open);
        for waiting in &mut self.waiting.lines {
            waiting.push_back(Mail::Inquire(number, Arc::clone(&inquire)));
        }
        Some(Ok(()))
    }

    /// A shard has told its part of what another node asks.
    pub(super) fn hear_reply(&mut self, reply: Reply) -> Option<Word> {
        let looking = &mut self.polling.looking;
        let open = looking.open.get_mut(&reply.number)?;
        let Attendance::Inspected(part) = reply.found else { return None };
        open.parts.push(part);
        open.waiting -= 1;
        if open.waiting > 0 {
            return None;
        }
        let Open { to, number, what, parts, .. } = looking.open.remove(&reply.number)?;
        let text = serde_json::to_string(&told(&looking.name, &what, parts)).unwrap_or_default();
        Some(Word::Answer(Poll { to, number, text }))
    }

    /// What came of a question of the desk.
    pub(super) fn tell_elsewhere(&mut self, number: u64, surveyed: Surveyed) {
        let own = Arc::clone(&self.polling.looking.name);
        let found = Attendance::Elsewhere(elsewhere(own, surveyed));
        let shard = ShardId(self.shards());
        self.polling.reply(Reply { number, shard, found });
    }
}

fn asked(what: &Inspect) -> Option<Asked> {
    let text = |name: &Arc<str>| name.to_string();
    Some(match what {
        Inspect::Rooms { tenant, prefix, after, largest, limit } => Asked::Rooms {
            tenant: tenant.as_ref().map(text),
            prefix: text(prefix),
            after: after.as_ref().map(text),
            largest: *largest,
            limit: *limit,
        },
        Inspect::Counts(rooms) => Asked::Counts { rooms: rooms.iter().map(text).collect() },
        Inspect::Connections { room, after, limit } => {
            let after = after.map(|after| after.to_string());
            Asked::Connections { room: text(room), after, limit: *limit }
        }
        Inspect::Connection(id, tenant) => {
            Asked::Connection { id: id.to_string(), tenant: tenant.as_ref().map(text) }
        }
        Inspect::Explain(_) => return None,
        Inspect::Dismiss { whom, code, words } => {
            let (connection, room, tenant) = match whom {
                Whom::Connection(id, tenant) => (Some(id.to_string()), None, tenant.as_ref()),
                Whom::Members(room) => (None, Some(text(room)), None),
            };
            let (tenant, words) = (tenant.map(text), words.as_ref().map(text));
            Asked::Dismiss { connection, room, tenant, code: code.get(), words }
        }
    })
}

/// A question as shards are asked it.
fn read(text: &str) -> Result<Inspect, String> {
    let question: Question = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let address = |id: String| id.parse::<ConnAddress>().map_err(|error| format!("{id}: {error}"));
    Ok(match question.look {
        Asked::Rooms { tenant, prefix, after, largest, limit } => Inspect::Rooms {
            tenant: tenant.map(Arc::from),
            prefix: Arc::from(prefix),
            after: after.map(Arc::from),
            largest,
            limit: limit.clamp(1, PAGE),
        },
        Asked::Counts { rooms } if rooms.len() > PAGE => {
            return Err(format!("{} rooms; expected {PAGE} at most", rooms.len()));
        }
        Asked::Counts { rooms } => Inspect::Counts(rooms.into_iter().map(Arc::from).collect()),
        Asked::Connections { room, after, limit } => Inspect::Connections {
            room: Arc::from(room),
            after: after.map(address).transpose()?,
            limit: limit.clamp(1, PAGE),
        },
        Asked::Connection { id, tenant } => {
            Inspect::Connection(address(id)?, tenant.map(Arc::from))
        }
        Asked::Dismiss { connection, room, tenant, code, words } => {
            let whom = match (connection, room) {
                (Some(id), None) => Whom::Connection(address(id)?, tenant.map(Arc::from)),
                (None, Some(room)) => Whom::Members(Arc::from(room)),
                _ => return Err("expected either a connection or a room".to_owned()),
            };
            if words.as_ref().is_some_and(|words| words.len() > REASON_BYTES) {
                return Err(format!("words: expected {REASON_BYTES} bytes at most"));
            }
            let code = CloseCode::new(code).ok_or("code: expected that of a close frame")?;
            Inspect::Dismiss { whom, code, words: words.map(Arc::from) }
        }
    })
}

/// The answers of all shards as one, in so many bytes and one room or connection more.
fn told(name: &str, what: &Inspect, parts: Vec<Inspected>) -> Told {
    let mut told = Told { node: name.to_owned(), ..Told::default() };
    let mut rooms: BTreeMap<Arc<str>, u64> = BTreeMap::new();
    let mut connections = Vec::new();
    for part in parts {
        told.untold = told.untold.saturating_add(part.untold);
        told.members += part.members;
        told.dismissed += part.dismissed;
        connections.extend(part.connections);
        for seen in part.rooms.into_iter().filter(|seen| seen.members > 0) {
            *rooms.entry(seen.room).or_default() += seen.members;
        }
    }
    let mut rooms: Vec<(Arc<str>, u64)> = rooms.into_iter().collect();
    let (largest, limit) = match what {
        Inspect::Rooms { largest, limit, .. } => (*largest, *limit),
        Inspect::Connections { limit, .. } => (false, *limit),
        _ => (false, PAGE),
    };
    if largest {
        rooms.sort_by_key(|(_, members)| std::cmp::Reverse(*members));
    }
    connections.sort_unstable_by_key(|seen| seen.conn);
    let (found, mut bytes) = (rooms.len(), 0);
    for (room, members) in rooms.into_iter().take(limit) {
        if bytes >= PAGE_BYTES {
            break;
        }
        bytes += room.len() + 32;
        told.rooms.push((room.to_string(), members));
    }
    if told.rooms.len() < found && largest {
        // One that is not named may have as many as the last that is, and in each shard as many as were not told.
        let last = told.rooms.last().map_or(0, |(_, members)| *members);
        told.untold = told.untold.saturating_add(last);
    }
    told.cut = !largest && told.rooms.len() < found.min(limit);
    for seen in connections.into_iter().take(limit) {
        if bytes >= PAGE_BYTES {
            told.cut = true;
            break;
        }
        let row = row(seen);
        bytes += 192 + row.names.iter().map(String::len).sum::<usize>();
        told.connections.push(row);
    }
    told
}

fn row(seen: ConnectionSeen) -> Row {
    Row {
        client: seen.conn.to_string(),
        who: seen.who.map(|(tenant, user)| (tenant.map(String::from), String::from(user))),
        waiting: seen.waiting,
        rooms: seen.rooms,
        names: seen.names.iter().map(ToString::to_string).collect(),
        life: u64::try_from(seen.life.as_millis()).unwrap_or(u64::MAX),
        transport: seen.transport.to_owned(),
        tls: seen.is_secure,
    }
}

fn connection(row: Row) -> Option<ConnectionSeen> {
    Some(ConnectionSeen {
        conn: row.client.parse().ok()?,
        who: row.who.map(|(tenant, user)| (tenant.map(Box::from), Box::from(user))),
        waiting: row.waiting,
        rooms: row.rooms,
        names: row.names.into_iter().map(Arc::from).collect(),
        life: Duration::from_millis(row.life),
        transport: TRANSPORTS.into_iter().find(|known| *known == row.transport)?,
        is_secure: row.tls,
    })
}

/// What the others have answered.
fn elsewhere(own: Arc<str>, surveyed: Surveyed) -> Elsewhere {
    let mut all = Elsewhere { own, missing: surveyed.missing, ..Elsewhere::default() };
    for text in surveyed.answers {
        // Who answers what nobody understands has told nothing.
        let Ok(told) = serde_json::from_str::<Told>(&text) else {
            all.missing.get_or_insert_default();
            continue;
        };
        let seen = |(room, members)| RoomSeen { room: Arc::from(room), members, position: None };
        let part = Inspected {
            rooms: told.rooms.into_iter().map(seen).collect(),
            connections: told.connections.into_iter().filter_map(connection).collect(),
            members: told.members,
            dismissed: told.dismissed,
            account: None,
            untold: told.untold,
        };
        if told.cut {
            all.until = earlier(all.until.take(), &part);
        }
        all.nodes.push((Arc::from(told.node), part));
    }
    all.nodes.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// The first of two ends: that so far, and that of an answer that was cut short.
fn earlier(until: Option<Until>, part: &Inspected) -> Option<Until> {
    let end = match (part.rooms.last(), part.connections.last()) {
        (_, Some(last)) => Until::Connection(last.conn),
        (Some(last), None) => Until::Room(Arc::clone(&last.room)),
        (None, None) => return until,
    };
    Some(match (until, end) {
        (Some(Until::Room(a)), Until::Room(b)) => Until::Room(a.min(b)),
        (Some(Until::Connection(a)), Until::Connection(b)) => Until::Connection(a.min(b)),
        (_, end) => end,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn every_question() -> Vec<Inspect> {
        let id: ConnAddress = "7-0-1-2".parse().expect("an address");
        let (room, code) = (Arc::<str>::from("a\"b"), CloseCode::new(4100).expect("a code"));
        let dismiss = |whom| Inspect::Dismiss { whom, code, words: Some(Arc::from("bye")) };
        vec![
            Inspect::Rooms {
                tenant: Some(Arc::from("t")),
                prefix: Arc::from("p"),
                after: Some(Arc::clone(&room)),
                largest: true,
                limit: 3,
            },
            Inspect::Counts(vec![Arc::clone(&room)]),
            Inspect::Connections { room: Arc::clone(&room), after: Some(id), limit: 3 },
            Inspect::Connection(id, Some(Arc::from("t"))),
            dismiss(Whom::Connection(id, None)),
            dismiss(Whom::Members(room)),
        ]
    }

    #[test]
    fn a_question_is_read_as_it_was_asked_and_nothing_else_is_one() {
        for what in every_question() {
            let look = asked(&what).expect("a question");
            let text = serde_json::to_string(&Question { look }).expect("JSON");
            let again = read(&text).expect("a question");
            assert_eq!(format!("{again:?}"), format!("{what:?}"));
        }
        let many = format!(r#"{{"look":{{"counts":{{"rooms":{:?}}}}}}}"#, vec!["a"; PAGE + 1]);
        let long = "a".repeat(REASON_BYTES + 1);
        for wrong in [
            "",
            "{}",
            r#"{"look":{}}"#,
            r#"{"look":{"rooms":{}}}"#,
            r#"{"look":{"connection":{"id":"x"}}}"#,
            r#"{"look":{"dismiss":{"code":1008}}}"#,
            r#"{"look":{"dismiss":{"room":"a","connection":"0-0-0","code":1008}}}"#,
            r#"{"look":{"dismiss":{"room":"a","code":1006}}}"#,
            r#"{"look":{"dismiss":{"room":"a","code":1008}},"more":1}"#,
            &format!(r#"{{"look":{{"dismiss":{{"room":"a","code":1008,"words":"{long}"}}}}}}"#),
            &many,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    fn rooms(largest: bool, limit: usize) -> Inspect {
        let prefix = Arc::from("");
        Inspect::Rooms { tenant: None, prefix, after: None, largest, limit }
    }

    fn seen(rooms: &[(&str, u64)], untold: u64) -> Inspected {
        let seen = |(room, members): &(&str, u64)| RoomSeen {
            room: Arc::from(*room),
            members: *members,
            position: None,
        };
        Inspected { rooms: rooms.iter().map(seen).collect(), untold, ..Inspected::default() }
    }

    fn carried(told: &[Told]) -> Elsewhere {
        let text = |told: &Told| serde_json::to_string(told).expect("JSON");
        let answers = told.iter().map(text).collect();
        elsewhere(Arc::from("own"), Surveyed { answers, missing: None })
    }

    #[test]
    fn shards_are_summed_and_what_is_left_out_of_the_largest_is_accounted_for() {
        let parts = || vec![seen(&[("a", 5), ("b", 2)], 2), seen(&[("b", 4), ("c", 1)], 1)];
        let all = carried(&[told("n", &rooms(true, 9), parts())]);
        assert_eq!(&*all.nodes[0].0, "n");
        assert_eq!(all.nodes[0].1, seen(&[("b", 6), ("a", 5), ("c", 1)], 3));
        let all = carried(&[told("n", &rooms(true, 2), parts())]);
        assert_eq!(all.nodes[0].1, seen(&[("b", 6), ("a", 5)], 8));
        let all = carried(&[told("n", &rooms(false, 2), parts())]);
        assert_eq!((&all.nodes[0].1, all.until), (&seen(&[("a", 5), ("b", 6)], 3), None));
    }

    #[test]
    fn a_page_ends_where_the_first_of_the_long_answers_does() {
        let long = |from: u32| -> Vec<String> {
            (from..from + 900).map(|at| format!("{at:04}{}", "x".repeat(996))).collect()
        };
        let tell = |names: &[String]| {
            let rooms: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
            told("n", &super::tests::rooms(false, PAGE), vec![seen(&rooms, 0)])
        };
        let all = carried(&[tell(&long(100)), tell(&long(0)), tell(&["zz".to_owned()])]);
        let Some(Until::Room(until)) = all.until else { panic!("{:?}", all.until) };
        let at: u32 = until[..4].parse().expect("a number");
        assert!((200..300).contains(&at), "{at} of 1 kB each in {PAGE_BYTES} bytes");
    }

    #[test]
    fn an_answer_that_nobody_understands_makes_the_rest_a_part() {
        let answers = vec!["{\"x\":1}".to_owned(), "{\"node\":\"n\",\"dismissed\":3}".to_owned()];
        let all = elsewhere(Arc::from("own"), Surveyed { answers, missing: None });
        assert_eq!((all.nodes[0].1.dismissed, all.missing), (3, Some(Vec::new())));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in ".*") {
            let _ = read(&text);
            let _ = elsewhere(Arc::from(""), Surveyed { answers: vec![text], missing: None });
        }
    }
}
