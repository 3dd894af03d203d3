//! Rooms and connections, for back ends: a question to all shards and nodes, and their answers put together.
//!
//! Travels the way of questions about presence ([`super::census`]), and where there are other nodes by the bridge to them as
//! well. A room may have members in every shard and on every node, so what they say of it is summed; pages are merged by
//! the order they are in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::admin::{
    ConnectionSeen, Crowd, Dismissal, Lookup, Overview, Refused, Registry, RoomSeen, Subject, Whom,
};
use crate::auth::{plain, room, user_room};
use crate::node::census::Open;
use crate::node::desk::NodeDesk;
use crate::shard::{self, Elsewhere, Explain, Inquire, Inspect, Inspected, Mail, Recipient, Until};
use crate::wire::websocket::CloseCode;

/// Questions about rooms and connections, and about presence, that may be under way.
const OPEN: usize = 256;

impl Registry for NodeDesk {
    fn look_up(&self, tenant: Option<&str>, ask: &Lookup) -> Result<u64, Refused> {
        let inquire = Arc::new(Inquire::Inspect(Arc::new(inspect(tenant, ask)?)));
        let number = self.questions.next.fetch_add(1, Ordering::Relaxed);
        let asks_abroad = !matches!(ask, Lookup::Explain { .. }) && self.has_others();
        let mut question = Open::to(self.shards);
        question.asks_abroad = asks_abroad;
        {
            let mut open = self.questions.open();
            if open.len() >= OPEN {
                return Err(Refused::Busy);
            }
            open.insert(number, question);
        }
        let posted = self.post_all(|| Some(Mail::Inquire(number, Arc::clone(&inquire))));
        if posted.is_err() {
            self.questions.open().remove(&number);
        } else if asks_abroad {
            // What it has no space for is not answered, and so somebody is missing.
            let _ = self.post_bridge(Mail::Inquire(number, Arc::clone(&inquire)));
        }
        posted.map(|_| number)
    }

    fn looked_up(&self, number: u64) -> Option<Overview> {
        self.out().offer();
        self.hear();
        let mut open = self.questions.open();
        let is_complete = open.get(&number).is_some_and(Open::is_complete);
        is_complete.then(|| open.remove(&number)).flatten().map(overview)
    }

    fn part_looked_up(&self, number: u64) -> Overview {
        self.hear();
        let question = self.questions.open().remove(&number);
        question.map_or_else(Overview::default, overview)
    }
}

/// A question as shards are asked it.
fn inspect(tenant: Option<&str>, ask: &Lookup) -> Result<Inspect, Refused> {
    let owner = || tenant.map(Arc::from);
    let within = |name: &str| Arc::from(&*room(tenant, name));
    let crowd = |crowd: &Crowd| match crowd {
        Crowd::User(user) => Arc::from(user_room(tenant, user)),
        Crowd::Room(name) => within(name),
    };
    Ok(match ask {
        Lookup::Rooms { prefix, after, largest, limit } => Inspect::Rooms {
            tenant: owner(),
            prefix: Arc::from(prefix.as_str()),
            after: after.as_deref().map(within),
            largest: *largest,
            limit: *limit,
        },
        Lookup::Counts(rooms) => Inspect::Counts(rooms.iter().map(|room| within(room)).collect()),
        Lookup::Connections { of, after, limit } => {
            Inspect::Connections { room: crowd(of), after: *after, limit: *limit }
        }
        Lookup::Connection(address) => Inspect::Connection(*address, owner()),
        Lookup::Explain { room, offset, of } => Inspect::Explain(Explain {
            room: within(room),
            offset: *offset,
            of: match of {
                Subject::User(user) => Recipient::User(Arc::from(user_room(tenant, user))),
                Subject::Connection(address) => Recipient::Connection(*address, owner()),
            },
        }),
        Lookup::Disconnect(Dismissal { whom, code, reason }) => Inspect::Dismiss {
            whom: match whom {
                Whom::Connection(address) => shard::Whom::Connection(*address, owner()),
                Whom::Crowd(members) => shard::Whom::Members(crowd(members)),
            },
            code: CloseCode::new(*code).ok_or_else(|| Refused::Field {
                name: "code",
                why: "expected a code that may stand in a close frame".to_owned(),
            })?,
            words: reason.as_deref().map(Arc::from),
        },
    })
}

/// The answers of all shards and nodes that have answered, put together.
fn overview(mut question: Open) -> Overview {
    // Who has not answered in time is somebody, but nobody knows who.
    let elsewhere = question.elsewhere.take();
    let is_late = question.asks_abroad && elsewhere.is_none();
    let mut seen = Overview {
        missing: std::mem::take(&mut question.waiting),
        absent: is_late.then(Vec::new),
        ..Overview::default()
    };
    let mut rooms = BTreeMap::new();
    for part in std::mem::take(&mut question.inspected) {
        add(&mut seen, &mut rooms, part);
    }
    if let Some(Elsewhere { own, nodes, missing, until }) = elsewhere {
        let here = (own.to_string(), seen.disconnected);
        let there = nodes.iter().map(|(name, part)| (name.to_string(), part.dismissed));
        seen.nodes = std::iter::once(here).chain(there).collect();
        seen.nodes.sort();
        nodes.into_iter().for_each(|(_, part)| add(&mut seen, &mut rooms, part));
        let text = |name: &Arc<str>| name.to_string();
        seen.absent = missing.map(|names| names.iter().map(text).collect());
        seen.is_cut = until.is_some();
        match until {
            Some(Until::Room(last)) => rooms.retain(|name, _| *name <= last),
            Some(Until::Connection(last)) => seen.connections.retain(|seen| seen.client <= last),
            None => {}
        }
    }
    seen.rooms = rooms.into_values().collect();
    seen.connections.sort_unstable_by_key(|connection| connection.client);
    seen
}

/// Adds what a shard or a node has told.
fn add(seen: &mut Overview, rooms: &mut BTreeMap<Arc<str>, RoomSeen>, part: Inspected) {
    seen.accounts.extend(part.account.map(|account| *account));
    seen.untold = seen.untold.saturating_add(part.untold);
    seen.members = seen.members.saturating_add(part.members);
    seen.disconnected = seen.disconnected.saturating_add(part.dismissed);
    seen.connections.extend(part.connections.into_iter().map(connection));
    for here in part.rooms {
        let room = rooms.entry(Arc::clone(&here.room)).or_insert_with(|| RoomSeen {
            room: plain(&here.room).to_owned(),
            ..RoomSeen::default()
        });
        room.members = room.members.saturating_add(here.members);
        if let Some(position) = here.position {
            room.position = Some((position.epoch, position.offset));
        }
    }
}

fn connection(seen: shard::ConnectionSeen) -> ConnectionSeen {
    let (tenant, user) = match seen.who {
        Some((tenant, user)) => (tenant.map(String::from), Some(String::from(user))),
        None => (None, None),
    };
    ConnectionSeen {
        client: seen.conn,
        tenant,
        user,
        waiting: seen.waiting,
        rooms: seen.rooms,
        names: seen.names.iter().map(|name| plain(name).to_owned()).collect(),
        life: seen.life,
        transport: seen.transport,
        is_secure: seen.is_secure,
    }
}
