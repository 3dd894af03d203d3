//! Questions about who is there: the endpoints, and what they ask of the node.
//!
//! A question goes to every shard and is answered when all of them have, or, when the time is over, by those
//! that have; then the answer names the others. Pages are bounded, and so are the users of one question.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::body::Object;
use super::desk::{Desk, Refused};
use super::gather::Gathered;
use super::guard;
use super::options::Scope;
use super::refusal::{Refusal, json};
use super::routes::{Answer, Api, NAME_BYTES};
use crate::base::id::ConnAddress;

/// Users of one question.
const USERS: usize = 100;
/// Connections on one page.
const PAGE: u64 = 1000;
/// Bytes of a room's name.
pub(super) const ROOM_BYTES: usize = 1024;

/// A question about presence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PresenceAsk {
    /// How these users are.
    Users(Vec<String>),
    /// Who is in a room.
    Room {
        /// The room, as its clients call it.
        room: String,
        /// Only members behind this connection.
        after: Option<ConnAddress>,
        /// The most members.
        limit: usize,
    },
}

/// How a user is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserSeen {
    /// The user.
    pub user: String,
    /// In a word, as clients are told.
    pub state: &'static str,
    /// When the last connection ended, in milliseconds since 1970, if that is known and there is none.
    pub last_seen: Option<u64>,
}

/// A member of a room.
#[derive(Clone, Debug)]
pub struct MemberSeen {
    /// The connection.
    pub client: ConnAddress,
    /// Whose it is; `None` for nobody in particular.
    pub user: Option<String>,
    /// How it is, in a word, as clients are told.
    pub state: &'static str,
    /// Since when it is open, in milliseconds since 1970, where that is kept.
    pub connected: Option<u64>,
    /// The address, where the rest is kept.
    pub address: Option<String>,
    /// The program, where that is kept.
    pub agent: Option<String>,
    /// What the token says about it, where that is kept.
    pub meta: Option<Box<RawValue>>,
}

/// An answer about presence, of the shards that have answered.
#[derive(Clone, Debug, Default)]
pub struct PresenceSeen {
    /// The users in the order of the question; those whose home is missing are left out.
    pub users: Vec<UserSeen>,
    /// Members of the room in all.
    pub members: u64,
    /// A page of them, in order, and perhaps more.
    pub connections: Vec<MemberSeen>,
    /// There is another page, whatever is on this one.
    pub is_more: bool,
    /// Shards that have not answered.
    pub missing: Vec<u16>,
    /// Where there are several nodes, and some whose users, or members of the room, are not all known: their names.
    pub absent: Option<Vec<String>>,
}

/// Who knows who is there. None of these calls waits.
pub trait Census {
    /// Asks all shards. The number of the question.
    ///
    /// # Errors
    /// When too much mail waits for them already.
    fn ask_presence(&self, tenant: Option<&str>, ask: &PresenceAsk) -> Result<u64, Refused>;

    /// The answer, once all shards have given theirs; then it is forgotten.
    fn presence(&self, number: u64) -> Option<PresenceSeen>;

    /// What is known of the answer; then it is forgotten.
    fn part_of_presence(&self, number: u64) -> PresenceSeen;
}

impl Gathered for PresenceSeen {
    fn whole(desk: &dyn Desk, number: u64) -> Option<Self> {
        desk.presence(number)
    }

    fn part(desk: &dyn Desk, number: u64) -> Self {
        desk.part_of_presence(number)
    }

    fn missing(&self) -> &[u16] {
        &self.missing
    }
}

impl Api {
    /// Asks all shards, and waits for them as long as an answer may take.
    async fn census(
        &self,
        tenant: Option<&str>,
        ask: &PresenceAsk,
    ) -> Result<PresenceSeen, Refusal> {
        self.gather(self.desk.ask_presence(tenant, ask)?).await
    }
}

pub(super) async fn users(State(api): State<Arc<Api>>, request: Request) -> Answer {
    let key = api.admit(request.headers(), Scope::Inspect)?;
    let query = request.uri().query().unwrap_or_default();
    let (mut users, mut rest) = (Vec::new(), Vec::new());
    for part in query.split('&').filter(|part| !part.is_empty()) {
        // The name is repeated here and nowhere else; the rest is read as everywhere.
        if part.starts_with("user=") {
            let user = Object::of_query(part)?.text("user", NAME_BYTES)?.unwrap_or_default();
            users.push(user);
        } else {
            rest.push(part);
        }
    }
    let mut object = Object::of_query(&rest.join("&"))?;
    let tenant = object.text("tenant", NAME_BYTES)?;
    object.finish()?;
    if users.is_empty() || users.len() > USERS {
        return Err(Refusal::field("user", format!("expected 1 to {USERS} of them")));
    }
    let tenant = guard::tenant(&key, tenant)?;
    let seen = api.census(tenant.as_deref(), &PresenceAsk::Users(users)).await?;
    let users: Vec<Value> = seen.users.iter().map(user_seen).collect();
    let mut body = json!({ "users": users });
    if let Some(absent) = seen.absent {
        body["missingNodes"] = absent.into();
    }
    Ok(json(StatusCode::OK, answered(body, &seen.missing)))
}

pub(super) async fn room(
    State(api): State<Arc<Api>>,
    Path(room): Path<String>,
    request: Request,
) -> Answer {
    let key = api.admit(request.headers(), Scope::Inspect)?;
    let mut object = Object::of_query(request.uri().query().unwrap_or_default())?;
    let tenant = object.text("tenant", NAME_BYTES)?;
    let after = object.text("after", NAME_BYTES)?;
    let limit = object.whole("limit", 1, PAGE)?.unwrap_or(100);
    object.finish()?;
    checked_room(&room)?;
    let after = after.map(|after| after.parse()).transpose();
    let after = after.map_err(|_| Refusal::field("after", "expected a connection's id"))?;
    let tenant = guard::tenant(&key, tenant)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let ask = PresenceAsk::Room { room: room.clone(), after, limit };
    let mut seen = api.census(tenant.as_deref(), &ask).await?;
    let is_more = seen.is_more || seen.connections.len() > limit;
    seen.connections.truncate(limit);
    let connections: Vec<Value> = seen.connections.iter().map(member_seen).collect();
    let mut body = json!({ "room": room, "members": seen.members, "connections": connections });
    if let (true, Some(last)) = (is_more, seen.connections.last()) {
        body["next"] = last.client.to_string().into();
    }
    if let Some(absent) = seen.absent {
        body["missingNodes"] = absent.into();
    }
    Ok(json(StatusCode::OK, answered(body, &seen.missing)))
}

/// Refuses a name that no room can have.
pub(super) fn checked_room(room: &str) -> Result<(), Refusal> {
    if room.is_empty() || room.len() > ROOM_BYTES || room.chars().any(char::is_control) {
        let expected = format!("expected 1 to {ROOM_BYTES} bytes without control characters");
        return Err(Refusal::field("room", expected));
    }
    Ok(())
}

/// The answer, with the shards that are missing in it where there are any.
pub(super) fn answered(mut body: Value, missing: &[u16]) -> Value {
    if !missing.is_empty() {
        body["missingShards"] = missing.into();
    }
    body
}

fn user_seen(seen: &UserSeen) -> Value {
    let mut user = json!({ "user": seen.user, "state": seen.state });
    if let Some(unix_ms) = seen.last_seen {
        user["lastSeen"] = unix_ms.into();
    }
    user
}

fn member_seen(seen: &MemberSeen) -> Value {
    let mut member = Map::new();
    member.insert("clientId".to_owned(), seen.client.to_string().into());
    member.insert("user".to_owned(), seen.user.clone().into());
    member.insert("state".to_owned(), seen.state.into());
    let meta = seen.meta.as_deref().and_then(|meta| serde_json::from_str(meta.get()).ok());
    let more = [
        ("connectedAt", seen.connected.map(Value::from)),
        ("address", seen.address.clone().map(Value::from)),
        ("userAgent", seen.agent.clone().map(Value::from)),
        ("meta", meta),
    ];
    for (name, value) in more {
        member.extend(value.map(|value| (name.to_owned(), value)));
    }
    member.into()
}
