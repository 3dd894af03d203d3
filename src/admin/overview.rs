//! Rooms and connections, and who is sent away: the endpoints, and what they ask of the node.
//!
//! A question goes to every shard and is answered when all of them have, or, when the time is over, by those that
//! have; then the answer names the others. Every list is bounded. Which rooms have most members no
//! shard knows, for each sees its own members only: so each names its largest, and all are asked how many
//! members those have. That is exact unless a room that none of them named could have as many; the answer says so.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::body::{Object, missing};
use super::desk::{Desk, Refused};
use super::explain::Subject;
use super::gather::Gathered;
use super::guard;
use super::options::Scope;
use super::presence::{ROOM_BYTES, answered, checked_room};
use super::refusal::{Refusal, json};
use super::routes::{Answer, Api, NAME_BYTES};
use crate::base::fate::Account;
use crate::base::id::ConnAddress;

/// Rooms or connections on one page.
const PAGE: u64 = 1000;
/// Rooms of the largest that are told.
const LARGEST: u64 = 100;
/// Rooms that each shard names beyond those that are asked for, so that most answers are exact.
const SPARE: usize = 100;
/// Rooms that are counted for it at most.
const MOST_NAMED: usize = 1000;
/// Bytes of a reason: what a close frame carries beside its code (RFC 6455, section 5.5).
const REASON_BYTES: usize = 123;
/// The code of who is sent away without one: not to be tried again before something has changed.
const CODE: u64 = 1008;

/// A question about rooms and connections, or an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Rooms with members: the first by name, or in each shard those with most members there.
    Rooms {
        /// How their names begin.
        prefix: String,
        /// Only behind this one.
        after: Option<String>,
        /// True for those with most members.
        largest: bool,
        /// The most rooms of each shard.
        limit: usize,
    },
    /// How many members these rooms have.
    Counts(Vec<String>),
    /// Connections, by their ids.
    Connections {
        /// Whose.
        of: Crowd,
        /// Only behind this one.
        after: Option<ConnAddress>,
        /// The most connections of each shard.
        limit: usize,
    },
    /// One connection.
    Connection(ConnAddress),
    /// What became of a publication.
    Explain {
        /// Its room.
        room: String,
        /// Its number in the room.
        offset: u64,
        /// For whom.
        of: Subject,
    },
    /// Closes connections.
    Disconnect(Dismissal),
}

/// Connections that have something in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Crowd {
    /// The user they are of.
    User(String),
    /// The room they are in.
    Room(String),
}

/// Who is sent away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// One connection.
    Connection(ConnAddress),
    /// Many.
    Crowd(Crowd),
}

/// An order to send connections away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dismissal {
    /// Which.
    pub whom: Whom,
    /// The close code.
    pub code: u16,
    /// The reason in the close frame, at most 123 bytes.
    pub reason: Option<String>,
}

/// A room with members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomSeen {
    /// As its members call it.
    pub room: String,
    /// How many they are, as far as shards have told.
    pub members: u64,
    /// Epoch and offset of the newest publication, where that was asked and is known.
    pub position: Option<(u64, u64)>,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionSeen {
    /// Which.
    pub client: ConnAddress,
    /// Whose user.
    pub tenant: Option<String>,
    /// The user, if it is known.
    pub user: Option<String>,
    /// Bytes that wait for it.
    pub waiting: u64,
    /// Rooms it is in.
    pub rooms: usize,
    /// Names of some of them, where one connection was asked for.
    pub names: Vec<String>,
    /// How long ago its socket was accepted.
    pub life: Duration,
    /// What it speaks.
    pub transport: &'static str,
    /// True where TLS ends in the node.
    pub is_secure: bool,
}

/// The answer of the shards that have answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overview {
    /// Rooms by name.
    pub rooms: Vec<RoomSeen>,
    /// Members that a room may have of which no shard has told, had each as many to tell of as it may.
    pub untold: u64,
    /// Connections by their ids, perhaps more than were asked for.
    pub connections: Vec<ConnectionSeen>,
    /// How many there are in all.
    pub members: u64,
    /// How many were closed.
    pub disconnected: u64,
    /// What became of a publication, as each shard knows it.
    pub accounts: Vec<Account>,
    /// Shards that have not answered.
    pub missing: Vec<u16>,
    /// Where other nodes were asked: how many each has closed, this one included, by its name.
    pub nodes: Vec<(String, u64)>,
    /// Where some of them have not answered: their names.
    pub absent: Option<Vec<String>>,
    /// There are more rooms or connections, however few are here.
    pub is_cut: bool,
}

impl Overview {
    /// An answer that names who is missing in it.
    fn answered(&self, mut body: Value) -> Value {
        if let Some(absent) = &self.absent {
            body["missingNodes"] = absent.as_slice().into();
        }
        answered(body, &self.missing)
    }
}

/// Who knows rooms and connections. None of these calls waits.
pub trait Registry {
    /// Asks all shards. The number of the question.
    ///
    /// # Errors
    /// When too much mail waits for them already, or the question makes no sense.
    fn look_up(&self, tenant: Option<&str>, ask: &Lookup) -> Result<u64, Refused>;

    /// The answer, once all shards have given theirs; then it is forgotten.
    fn looked_up(&self, number: u64) -> Option<Overview>;

    /// What is known of the answer; then it is forgotten.
    fn part_looked_up(&self, number: u64) -> Overview;
}

impl Gathered for Overview {
    fn whole(desk: &dyn Desk, number: u64) -> Option<Self> {
        desk.looked_up(number)
    }

    fn part(desk: &dyn Desk, number: u64) -> Self {
        desk.part_looked_up(number)
    }

    fn missing(&self) -> &[u16] {
        &self.missing
    }
}

impl Api {
    /// Asks all shards, and waits for them as long as an answer may take.
    pub(super) async fn look_up(
        &self,
        tenant: Option<&str>,
        ask: &Lookup,
    ) -> Result<Overview, Refusal> {
        self.gather(self.desk.look_up(tenant, ask)?).await
    }

    /// The rooms with most members, and whether there can be no others.
    async fn largest(
        &self,
        tenant: Option<&str>,
        prefix: String,
        limit: usize,
    ) -> Result<(Overview, bool), Refusal> {
        let fetched = limit + SPARE;
        let ask = Lookup::Rooms { prefix, after: None, largest: true, limit: fetched };
        let mut named = self.look_up(tenant, &ask).await?;
        // A room that is not among the named has in each shard no more members than the last one there.
        let untold = if named.rooms.len() < fetched { 0 } else { named.untold };
        if named.rooms.is_empty() {
            return Ok((named, true));
        }
        let most = MOST_NAMED.max(fetched);
        // With many shards or nodes there are more than are worth counting: those with most members as far as is known.
        named.rooms.sort_by(|a, b| (b.members, &a.room).cmp(&(a.members, &b.room)));
        let left_out = named.rooms.get(most).map_or(0, |room| room.members);
        named.rooms.truncate(most);
        let mut names: Vec<String> = named.rooms.iter().map(|room| room.room.clone()).collect();
        names.sort_unstable();
        let counted = self.look_up(tenant, &Lookup::Counts(names)).await?;
        named.rooms = counted.rooms;
        named.rooms.retain(|room| room.members > 0);
        named.rooms.sort_by(|a, b| (b.members, &a.room).cmp(&(a.members, &b.room)));
        let untold = if left_out > 0 { untold.saturating_add(left_out) } else { untold };
        let last = named.rooms.get(limit - 1);
        let is_exact = untold == 0 || last.is_some_and(|last| last.members >= untold);
        named.rooms.truncate(limit);
        named.missing.extend(counted.missing);
        named.missing.sort_unstable();
        named.missing.dedup();
        named.absent = match (named.absent.take(), counted.absent) {
            (Some(mut some), Some(others)) => {
                some.extend(others);
                some.sort_unstable();
                some.dedup();
                Some(some)
            }
            (some, others) => some.or(others),
        };
        Ok((named, is_exact))
    }
}

pub(super) async fn rooms(State(api): State<Arc<Api>>, request: Request) -> Answer {
    let key = api.admit(request.headers(), Scope::Inspect)?;
    let mut object = Object::of_query(request.uri().query().unwrap_or_default())?;
    let tenant = object.text("tenant", NAME_BYTES)?;
    let prefix = object.text("prefix", ROOM_BYTES)?.unwrap_or_default();
    let after = object.text("afterRoom", ROOM_BYTES)?;
    let order = object.text("order", NAME_BYTES)?;
    let limit = object.whole("limit", 1, PAGE)?;
    object.finish()?;
    let tenant = guard::tenant(&key, tenant)?;
    let limit_of = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
    match order.as_deref().unwrap_or("name") {
        "name" => {}
        "members" if after.is_some() => {
            let message = "only rooms in the order of their names have pages";
            return Err(Refusal::field("afterRoom", message));
        }
        "members" => {
            let limit = limit_of(limit.unwrap_or(20));
            if limit > limit_of(LARGEST) {
                let expected = format!("expected 1 to {LARGEST} of the largest rooms");
                return Err(Refusal::field("limit", expected));
            }
            let (seen, exact) = api.largest(tenant.as_deref(), prefix, limit).await?;
            let rooms: Vec<Value> = seen.rooms.iter().map(room_seen).collect();
            let is_whole = seen.missing.is_empty() && seen.absent.is_none();
            let body = json!({ "rooms": rooms, "exact": exact && is_whole });
            return Ok(json(StatusCode::OK, seen.answered(body)));
        }
        _ => return Err(Refusal::field("order", "expected \"name\" or \"members\"")),
    }
    let limit = limit_of(limit.unwrap_or(100));
    // One more tells whether there is another page.
    let ask = Lookup::Rooms { prefix, after, largest: false, limit: limit + 1 };
    let seen = api.look_up(tenant.as_deref(), &ask).await?;
    let is_more = seen.is_cut || seen.rooms.len() > limit;
    let page = &seen.rooms[..seen.rooms.len().min(limit)];
    let rooms: Vec<Value> = page.iter().map(room_seen).collect();
    let mut body = json!({ "rooms": rooms });
    if let (true, Some(last)) = (is_more, page.last()) {
        body["next"] = last.room.as_str().into();
    }
    Ok(json(StatusCode::OK, seen.answered(body)))
}

pub(super) async fn room(
    State(api): State<Arc<Api>>,
    Path(room): Path<String>,
    request: Request,
) -> Answer {
    let key = api.admit(request.headers(), Scope::Inspect)?;
    let mut object = Object::of_query(request.uri().query().unwrap_or_default())?;
    let tenant = object.text("tenant", NAME_BYTES)?;
    object.finish()?;
    checked_room(&room)?;
    let tenant = guard::tenant(&key, tenant)?;
    let seen = api.look_up(tenant.as_deref(), &Lookup::Counts(vec![room.clone()])).await?;
    let found = seen.rooms.first().cloned();
    let found = found.unwrap_or_else(|| RoomSeen { room, ..RoomSeen::default() });
    Ok(json(StatusCode::OK, seen.answered(room_seen(&found))))
}

pub(super) async fn connections(State(api): State<Arc<Api>>, request: Request) -> Answer {
    let key = api.admit(request.headers(), Scope::Inspect)?;
    let mut object = Object::of_query(request.uri().query().unwrap_or_default())?;
    let tenant = object.text("tenant", NAME_BYTES)?;
    let (user, room) = (object.text("user", NAME_BYTES)?, object.text("room", ROOM_BYTES)?);
    let after = object.text("after", NAME_BYTES)?;
    let limit = object.whole("limit", 1, PAGE)?.unwrap_or(100);
    object.finish()?;
    let of = crowd(user, room)?.ok_or_else(|| missing("user"))?;
    let after = after.map(|after| after.parse()).transpose();
    let after = after.map_err(|_| Refusal::field("after", "expected a connection's id"))?;
    let tenant = guard::tenant(&key, tenant)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    // One more tells whether there is another page.
    let ask = Lookup::Connections { of, after, limit: limit + 1 };
    let seen = api.look_up(tenant.as_deref(), &ask).await?;
    let page = &seen.connections[..seen.connections.len().min(limit)];
    let connections: Vec<Value> = page.iter().map(|seen| connection_seen(seen).into()).collect();
    let mut body = json!({ "connections": connections, "total": seen.members });
    let is_more = seen.is_cut || seen.connections.len() > limit;
    if let (true, Some(last)) = (is_more, page.last()) {
        body["next"] = last.client.to_string().into();
    }
    Ok(json(StatusCode::OK, seen.answered(body)))
}

pub(super) async fn connection(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    request: Request,
) -> Answer {
    let key = api.admit(request.headers(), Scope::Inspect)?;
    let mut object = Object::of_query(request.uri().query().unwrap_or_default())?;
    let tenant = object.text("tenant", NAME_BYTES)?;
    object.finish()?;
    let id = id.parse().map_err(|_| Refusal::field("id", "expected a connection's id"))?;
    let tenant = guard::tenant(&key, tenant)?;
    let seen = api.look_up(tenant.as_deref(), &Lookup::Connection(id)).await?;
    let Some(found) = seen.connections.first() else {
        if !seen.missing.is_empty() {
            return Err(Refusal::overloaded("not every shard has answered in time"));
        }
        if seen.absent.is_some() {
            return Err(Refusal::overloaded("not every node has answered in time"));
        }
        let message = "there is no such connection";
        return Err(Refusal::new(StatusCode::NOT_FOUND, "not_found", message).about("id"));
    };
    let mut body = connection_seen(found);
    body.insert("roomNames".to_owned(), found.names.clone().into());
    Ok(json(StatusCode::OK, Value::from(body)))
}

pub(super) async fn disconnect(State(api): State<Arc<Api>>, request: Request) -> Answer {
    let (head, body) = request.into_parts();
    let key = api.admit(&head.headers, Scope::Revoke)?;
    let mut object = api.object(body).await?;
    let tenant = object.text("tenant", NAME_BYTES)?;
    let (user, room) = (object.text("user", NAME_BYTES)?, object.text("room", ROOM_BYTES)?);
    let connection = object.text("connection", NAME_BYTES)?;
    let code = object.whole("code", 1000, 4999)?.unwrap_or(CODE);
    let reason = object.text("reason", REASON_BYTES)?;
    object.finish()?;
    let whom = match (connection, crowd(user, room)?) {
        (Some(id), None) => {
            let id = id.parse();
            Whom::Connection(
                id.map_err(|_| Refusal::field("connection", "expected a connection's id"))?,
            )
        }
        (None, Some(crowd)) => Whom::Crowd(crowd),
        (None, None) => return Err(missing("connection")),
        (Some(_), Some(_)) => {
            return Err(Refusal::field("connection", "name one of connection, user and room"));
        }
    };
    if !matches!(code, 1000 | 1001 | 1008 | 1012 | 1013 | 4000..) {
        let expected = "expected 1000, 1001, 1008, 1012, 1013, or 4000 to 4999";
        return Err(Refusal::field("code", expected));
    }
    let tenant = guard::tenant(&key, tenant)?;
    let dismissal = Dismissal { whom, code: u16::try_from(code).unwrap_or(1008), reason };
    tracing::info!(key = key.name, tenant, ?dismissal, "connections are sent away");
    let seen = api.look_up(tenant.as_deref(), &Lookup::Disconnect(dismissal)).await?;
    let mut body = json!({ "disconnected": seen.disconnected });
    if !seen.nodes.is_empty() {
        let node = |(name, count): &(String, u64)| json!({ "node": name, "disconnected": count });
        body["nodes"] = seen.nodes.iter().map(node).collect();
    }
    Ok(json(StatusCode::OK, seen.answered(body)))
}

/// The crowd that a user or a room stands for.
fn crowd(user: Option<String>, room: Option<String>) -> Result<Option<Crowd>, Refusal> {
    match (user, room) {
        (Some(_), Some(_)) => Err(Refusal::field("room", "name a user or a room, not both")),
        (Some(user), None) => Ok(Some(Crowd::User(user))),
        (None, Some(room)) => Ok(Some(Crowd::Room(room))),
        (None, None) => Ok(None),
    }
}

fn room_seen(seen: &RoomSeen) -> Value {
    let mut room = json!({ "room": seen.room, "members": seen.members });
    if let Some((epoch, offset)) = seen.position {
        room["offset"] = offset.into();
        room["epoch"] = format!("{epoch:x}").into();
    }
    room
}

fn connection_seen(seen: &ConnectionSeen) -> Map<String, Value> {
    let fields = [
        ("clientId", Some(seen.client.to_string().into())),
        ("tenant", seen.tenant.clone().map(Value::from)),
        ("user", seen.user.clone().map(Value::from)),
        ("transport", Some(seen.transport.into())),
        ("tls", Some(seen.is_secure.into())),
        ("seconds", Some(seen.life.as_secs().into())),
        ("waitingBytes", Some(seen.waiting.into())),
        ("rooms", Some(seen.rooms.into())),
    ];
    let given = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    given.collect()
}
