//! Who is there: what clients ask about it, and what they are told.
//!
//! A subject is a list of users or one room. What is told of a user is a state, and of one who is offline
//! when the last connection ended. Of a room the whole list is told once and differences from then on; a room that
//! is too large has a number of members and no list, and says so.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;

use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::command::{CommandLimits, room};
use super::envelope::{Envelope, Field, bad, shown, text, texts};
use super::error::{Code, CommandError};
use super::object::{Object, string};
use crate::base::id::ConnAddress;

/// Bytes of a user's name; that is how long a token may make it.
const USER_BYTES: usize = 256;

/// Whom or what a command is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subjects<'a> {
    /// These users, each once; never none.
    Users(SmallVec<[Cow<'a, str>; 2]>),
    /// This room.
    Room(Cow<'a, str>),
}

/// A question for users, or for a page of a room's members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whois<'a> {
    /// Who.
    pub subjects: Subjects<'a>,
    /// Where the page begins: behind this connection; `None` for the first page.
    pub after: Option<ConnAddress>,
    /// The most connections on the page; `None` for as many as may be.
    pub limit: Option<u16>,
}

/// How a user stands, as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Somebody sits in front of one of the user's connections.
    Online,
    /// Nobody does.
    Idle,
    /// There is no connection.
    Offline,
}

impl State {
    /// The state as clients read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Idle => "idle",
            Self::Offline => "offline",
        }
    }
}

/// A user and the user's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserState<'a> {
    /// The user.
    pub user: &'a str,
    /// How the user stands.
    pub state: State,
    /// When the last connection of one who is offline ended, in milliseconds since 1970, if that is known.
    pub last_seen: Option<u64>,
}

/// What observers of a room are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomNews<'a> {
    /// The room.
    pub room: &'a str,
    /// Its members: connections, whoever they are.
    pub members: u64,
    /// What is told of its users.
    pub users: RoomUsers<'a>,
}

/// What is told of a room's users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoomUsers<'a> {
    /// Nothing: there are too many.
    Unlisted,
    /// All of them.
    All(Vec<UserState<'a>>),
    /// What has changed: who has come, who has gone, who stands otherwise than before.
    Changes(Vec<UserState<'a>>, Vec<&'a str>, Vec<UserState<'a>>),
}

/// A connection that is a member of a room.
#[derive(Clone, Debug)]
pub struct Attendant<'a> {
    /// The connection.
    pub client: ConnAddress,
    /// Whose it is; `None` for nobody in particular.
    pub user: Option<&'a str>,
    /// Whether somebody sits in front of it.
    pub state: State,
    /// What else is known of it, where that is kept.
    pub about: Option<About<'a>>,
}

/// What is known of a connection.
#[derive(Clone, Debug)]
pub struct About<'a> {
    /// Since when it is open, in milliseconds since 1970.
    pub connected: u64,
    /// The client's address, or its network.
    pub address: Option<Cow<'a, str>>,
    /// The program, as it called itself.
    pub agent: Option<&'a str>,
    /// What the token says about it, as it was written.
    pub meta: Option<&'a RawValue>,
}

/// Whom or what a command names.
pub(super) fn subjects<'a>(
    envelope: &Envelope<'a>,
    kind: &str,
    limits: &CommandLimits,
) -> Result<Subjects<'a>, CommandError> {
    match (envelope.get(Field::Users), envelope.get(Field::Room)) {
        (Some(value), None) => users(value, limits).map(Subjects::Users),
        (None, Some(value)) => room(Field::Room, value, limits).map(Subjects::Room),
        (Some(_), Some(value)) => Err(bad(Field::Room, value.get(), "no `room` beside `users`")),
        (None, None) => {
            let message = format!("{kind} needs `users` or `room`");
            Err(CommandError::new(Code::MissingField, message, None))
        }
    }
}

/// What `throng:whois` asks.
pub(super) fn whois<'a>(
    envelope: &Envelope<'a>,
    kind: &str,
    limits: &CommandLimits,
) -> Result<Whois<'a>, CommandError> {
    let subjects = subjects(envelope, kind, limits)?;
    let (after, limit) = (envelope.get(Field::After), envelope.get(Field::Limit));
    if let (Subjects::Users(_), Some(value)) = (&subjects, after.or(limit)) {
        let field = if after.is_some() { Field::After } else { Field::Limit };
        return Err(bad(field, value.get(), "a `room`, of whose members there are pages"));
    }
    let after = after
        .map(|value| {
            let found = || bad(Field::After, value.get(), "a connection id (`clientId`)");
            text(Field::After, value)?.parse().map_err(|_| found())
        })
        .transpose()?;
    let limit = limit
        .map(|value| {
            let number = value.get().parse().ok().filter(|number| *number > 0);
            number.ok_or_else(|| bad(Field::Limit, value.get(), "a whole number from 1 to 65535"))
        })
        .transpose()?;
    Ok(Whois { subjects, after, limit })
}

fn users<'a>(
    value: &'a RawValue,
    limits: &CommandLimits,
) -> Result<SmallVec<[Cow<'a, str>; 2]>, CommandError> {
    let most = limits.max_users;
    let list = texts(Field::Users, value, most)?;
    if list.count == 0 || list.count > most {
        let found = format!("a list of {}", list.count);
        return Err(bad(Field::Users, &found, &format!("1 to {most} users")));
    }
    let mut users = SmallVec::new();
    for user in list.kept {
        if user.is_empty() || user.len() > USER_BYTES || user.contains(char::is_control) {
            let expected = format!("names of 1 to {USER_BYTES} bytes without control characters");
            return Err(bad(Field::Users, &format!("{:?}", shown(&user)), &expected));
        }
        if !users.contains(&user) {
            users.push(user);
        }
    }
    Ok(users)
}

/// Appends the push that tells an observer of users.
pub fn users_news(out: &mut Vec<u8>, users: &[UserState<'_>]) {
    Object::typed(out, "throng:presence").values("users", users, standing).end();
}

/// Appends the push that tells an observer of a room.
pub fn room_news(out: &mut Vec<u8>, news: &RoomNews<'_>) {
    let object = Object::typed(out, "throng:presence")
        .text("room", news.room)
        .plain("members", news.members);
    match &news.users {
        RoomUsers::Unlisted => object.plain("listed", false),
        RoomUsers::All(users) => object.values("users", users, standing),
        RoomUsers::Changes(joined, left, states) => {
            let object = some(object, "joined", joined, standing);
            let object = some(object, "left", left, |out, user: &&str| string(out, user));
            some(object, "states", states, standing)
        }
    }
    .end();
}

/// Appends the answer to a question for users.
pub fn whois_users(out: &mut Vec<u8>, reference: Option<&RawValue>, users: &[UserState<'_>]) {
    replied(out, reference).values("users", users, standing).end();
}

/// Appends the answer to a question for a room's members: a page of them, and where the next one begins.
pub fn whois_room(
    out: &mut Vec<u8>,
    reference: Option<&RawValue>,
    (room, members): (&str, u64),
    page: &[Attendant<'_>],
    (next, missing): (Option<ConnAddress>, Option<&[Arc<str>]>),
) {
    let object = replied(out, reference).text("room", room).plain("members", members);
    let object = object.values("connections", page, attendant);
    let object = optional(object, "next", next);
    match missing {
        Some(nodes) => object.values("missingNodes", nodes, |out, node| string(out, node)).end(),
        None => object.end(),
    }
}

fn replied<'o>(out: &'o mut Vec<u8>, reference: Option<&RawValue>) -> Object<'o> {
    Object::typed(out, "throng:reply").raw("ref", reference).plain("ok", true)
}

/// A list that is left out when there is nothing in it.
fn some<'o, T>(
    object: Object<'o>,
    key: &str,
    items: &[T],
    write: impl FnMut(&mut Vec<u8>, &T),
) -> Object<'o> {
    if items.is_empty() { object } else { object.values(key, items, write) }
}

fn optional<'o>(object: Object<'o>, key: &str, value: Option<impl Display>) -> Object<'o> {
    match value {
        Some(value) => object.quoted(key, value),
        None => object,
    }
}

fn standing(out: &mut Vec<u8>, standing: &UserState<'_>) {
    let object =
        Object::begin(out).text("user", standing.user).text("state", standing.state.as_str());
    match standing.last_seen {
        Some(unix_ms) => object.plain("lastSeen", unix_ms).end(),
        None => object.end(),
    }
}

fn attendant(out: &mut Vec<u8>, attendant: &Attendant<'_>) {
    let object = Object::begin(out).quoted("clientId", attendant.client);
    let object = match attendant.user {
        Some(user) => object.text("user", user),
        None => object.plain("user", "null"),
    };
    let object = object.text("state", attendant.state.as_str());
    let Some(about) = &attendant.about else { return object.end() };
    let object = object.plain("connectedAt", about.connected);
    let object = match &about.address {
        Some(address) => object.text("address", address),
        None => object,
    };
    let object = match about.agent {
        Some(agent) => object.text("userAgent", agent),
        None => object,
    };
    object.raw("meta", about.meta).end();
}
