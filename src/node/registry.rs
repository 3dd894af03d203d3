//! Rooms and connections, for back ends: a question to all shards, and their answers put together.
//!
//! Travels the way of questions about presence ([`super::census`]). A room may have members in every shard, so
//! what the shards say of it is summed; pages are merged by the order they are in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::admin::{
    ConnectionSeen, Crowd, Dismissal, Lookup, Overview, Refused, Registry, RoomSeen, Subject, Whom,
};
use crate::auth::{plain, room, user_room};
use crate::node::census::Open;
use crate::node::desk::NodeDesk;
use crate::shard::{self, Explain, Inquire, Inspect, Inspected, Mail, Recipient};
use crate::wire::websocket::CloseCode;

/// Questions about rooms and connections, and about presence, that may be under way.
const OPEN: usize = 256;

impl Registry for NodeDesk {
    fn look_up(&self, tenant: Option<&str>, ask: &Lookup) -> Result<u64, Refused> {
        let inquire = Arc::new(Inquire::Inspect(Arc::new(inspect(tenant, ask)?)));
        let number = self.questions.next.fetch_add(1, Ordering::Relaxed);
        let question = Open::to(self.shards);
        {
            let mut open = self.questions.open();
            if open.len() >= OPEN {
                return Err(Refused::Busy);
            }
            open.insert(number, question);
        }
        let posted = self.post_all(|| Some(Mail::Inquire(number, Arc::clone(&inquire))));
        posted.map(|_| number).inspect_err(|_| {
            self.questions.open().remove(&number);
        })
    }

    fn looked_up(&self, number: u64) -> Option<Overview> {
        self.out().offer();
        self.hear();
        let mut open = self.questions.open();
        let is_complete = open.get(&number).is_some_and(|question| question.waiting.is_empty());
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

/// The answers of all shards that have answered, put together.
fn overview(question: Open) -> Overview {
    let mut rooms: BTreeMap<Arc<str>, RoomSeen> = BTreeMap::new();
    let mut seen = Overview { missing: question.waiting, ..Overview::default() };
    for Inspected { rooms: here, connections, members, dismissed, account } in question.inspected {
        seen.accounts.extend(account.map(|account| *account));
        seen.untold += here.last().map_or(0, |last| last.members);
        seen.members += members;
        seen.disconnected += dismissed;
        seen.connections.extend(connections.into_iter().map(connection));
        for part in here {
            let room = rooms.entry(Arc::clone(&part.room)).or_insert_with(|| RoomSeen {
                room: plain(&part.room).to_owned(),
                ..RoomSeen::default()
            });
            room.members += part.members;
            if let Some(position) = part.position {
                room.position = Some((position.epoch, position.offset));
            }
        }
    }
    seen.rooms = rooms.into_values().collect();
    seen.connections.sort_unstable_by_key(|connection| connection.client);
    seen
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
