//! Names of rooms within the node: those of tenants, and every user's own.
//!
//! A client names a room as its application does. Within the node a tenant's room has the tenant's name
//! in front of it, so that a tenant can only ever name its own rooms. What joins the two is a control
//! character, which neither a room's name nor a tenant's may hold, so no name can be read in two ways.
//! The room of a user, by which all connections of one user are found, begins with another. What is published
//! to everyone, or to connections by their ids, goes by a name as well, which begins with a third.

use std::borrow::Cow;

/// Between the tenant and what the tenant named ("unit separator").
const TENANT: char = '\u{1f}';
/// In front of a user's name ("record separator").
const USER: char = '\u{1e}';
/// In front of what stands for connections that are in no room together ("group separator").
const CROWD: char = '\u{1d}';
const EVERYONE: &str = "everyone";
const CONNECTIONS: &str = "connections";

/// The name within the node of the room that a client of this tenant calls `name`.
#[must_use]
pub fn room<'a>(tenant: Option<&str>, name: &'a str) -> Cow<'a, str> {
    match tenant {
        None => Cow::Borrowed(name),
        Some(tenant) => Cow::Owned(format!("{tenant}{TENANT}{name}")),
    }
}

/// The name within the node of a user's own room. No client can name it.
#[must_use]
pub fn user_room(tenant: Option<&str>, user: &str) -> String {
    match tenant {
        None => format!("{USER}{user}"),
        Some(tenant) => format!("{tenant}{TENANT}{USER}{user}"),
    }
}

/// The tenant and the user whose own room has that name.
#[must_use]
pub fn user_of(own: &str) -> (Option<&str>, &str) {
    let (tenant, rest) = match own.split_once(TENANT) {
        Some((tenant, rest)) => (Some(tenant), rest),
        None => (None, own),
    };
    (tenant, rest.strip_prefix(USER).unwrap_or(rest))
}

/// The tenant whose room has that name within the node; `None` where there are none.
#[must_use]
pub fn tenant_of(room: &str) -> Option<&str> {
    room.split_once(TENANT).map(|(tenant, _)| tenant)
}

/// What the clients in it call the room of that name within the node.
#[must_use]
pub fn plain(room: &str) -> &str {
    room.split_once(TENANT).map_or(room, |(_, name)| name)
}

/// True for a user's own room.
#[must_use]
pub fn is_user_room(room: &str) -> bool {
    plain(room).starts_with(USER)
}

/// What a name within the node stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// A room, by the name that the clients in it use.
    Room(&'a str),
    /// All connections of a user.
    User,
    /// Connections by their ids.
    Connections,
    /// All connections of a tenant.
    Everyone,
}

/// What the name within the node stands for.
#[must_use]
pub fn place(name: &str) -> Place<'_> {
    let plain = plain(name);
    match plain.strip_prefix(CROWD) {
        Some(EVERYONE) => Place::Everyone,
        Some(_) => Place::Connections,
        None if plain.starts_with(USER) => Place::User,
        None => Place::Room(plain),
    }
}

/// The name within the node of everyone of a tenant. No client can name it.
#[must_use]
pub fn everyone(tenant: Option<&str>) -> String {
    crowd(tenant, EVERYONE)
}

/// The name within the node of connections of a tenant that are named one by one. No client can name it.
#[must_use]
pub fn connections(tenant: Option<&str>) -> String {
    crowd(tenant, CONNECTIONS)
}

fn crowd(tenant: Option<&str>, what: &str) -> String {
    match tenant {
        None => format!("{CROWD}{what}"),
        Some(tenant) => format!("{tenant}{TENANT}{CROWD}{what}"),
    }
}
