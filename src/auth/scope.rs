//! Names of rooms within the node: those of tenants, and every user's own.
//!
//! A client names a room as its application does. Within the node a tenant's room has the tenant's name
//! in front of it, so that a tenant can only ever name its own rooms. What joins the two is a control
//! character, which neither a room's name nor a tenant's may hold, so no name can be read in two ways.
//! The room of a user, by which all connections of one user are found, begins with another.

use std::borrow::Cow;

/// Between the tenant and what the tenant named ("unit separator").
const TENANT: char = '\u{1f}';
/// In front of a user's name ("record separator").
const USER: char = '\u{1e}';

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
