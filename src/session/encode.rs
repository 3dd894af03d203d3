//! What the server says, as JSON text appended to a buffer.
//!
//! A reply is sent only to a command that carried a `ref`: who does not ask for one does not pay for
//! it. Some answers are sent always because they are all the command is for (`throng:pong`, the count of
//! `throng:members` and the page of `throng:history`), and so are errors, because a mistake must not go unseen. Epochs are
//! written as strings: they are compared and never counted with, and they do not fit the 53 bits that
//! a JavaScript number keeps.

use serde_json::value::RawValue;

use super::error::{Code, CommandError};
use super::object::Object;
use super::protocol::{Protocol, Status};
use crate::base::cursor::{Cursor, Stale};
use crate::base::id::ConnAddress;

/// The contents of `throng:connected`, the first push of every session.
#[derive(Clone, Copy, Debug)]
pub struct Connected<'a> {
    /// The connection's own id, to be named in `except`.
    pub client: ConnAddress,
    /// Who the client was authenticated as; `None` is written as null.
    pub user: Option<&'a str>,
    /// Changes when the node starts anew, and with it all that a client may remember.
    pub session_epoch: u64,
    /// How often the server pings, in milliseconds.
    pub ping_interval_ms: u64,
    /// How long after a ping it waits for any sign of life, in milliseconds.
    pub ping_timeout_ms: u64,
    /// The largest message it takes, in bytes.
    pub max_message_bytes: u64,
    /// Rooms that one connection may be in.
    pub max_rooms: u64,
    /// Rooms of one publication.
    pub max_rooms_per_publish: u64,
    /// The protocol of the session.
    pub protocol: Protocol,
}

/// What a command that was obeyed is answered with.
#[derive(Clone, Copy, Debug)]
pub enum Reply<'a> {
    /// To `throng:join`.
    Joined {
        /// The room's name.
        room: &'a str,
        /// Its members, the new one included.
        members: u64,
        /// The offset of its latest publication; 0 before the first.
        offset: u64,
        /// Which numbering the offset belongs to.
        epoch: u64,
        /// Where the client came back with a cursor: whether everything after it follows.
        recovered: Option<bool>,
    },
    /// To `throng:restore`: a result for each room, in the order of the command.
    Restored(&'a [Restored]),
    /// To `throng:history`.
    History {
        /// The room's name.
        room: &'a str,
        /// The offset of its latest publication; 0 before the first.
        offset: u64,
        /// Which numbering the offsets belong to.
        epoch: u64,
        /// Publications, oldest first.
        messages: &'a [Push<'a>],
        /// True when there are earlier ones, or later ones where it was asked for what came since.
        more: bool,
        /// Whether these are what came since a cursor; `None` when that was not asked.
        recovered: Option<bool>,
    },
    /// To a publication that was taken before under the same `id`, and is not sent again.
    Repeated,
    /// To `throng:leave`.
    Left {
        /// The room's name.
        room: &'a str,
    },
    /// To a publication to a room whose history all nodes share: the number that it was given, now or before.
    Numbered {
        /// Its number; nothing is known of it when that is zero.
        position: Cursor,
        /// True when it was taken before, and is not sent again.
        repeated: bool,
    },
    /// To a publication: it was taken, which is not to say that anyone has received it.
    Published,
    /// To a publication that is stored.
    Stored {
        /// The room's name.
        room: &'a str,
        /// The number it was given.
        position: Cursor,
        /// The author's identifier for it.
        id: Option<&'a RawValue>,
    },
    /// To `throng:status`.
    Status(Status),
    /// To `throng:watch` and `throng:unwatch`.
    Watching {
        /// How many users and rooms the connection watches now.
        watching: u64,
    },
    /// To `throng:auth`.
    Authenticated {
        /// Who the client is.
        user: &'a str,
        /// When it has to show a fresh token, in seconds since 1970; `None` is written as null.
        expires: Option<u64>,
    },
    /// To `throng:members`.
    Members {
        /// The room's name.
        room: &'a str,
        /// Its members.
        members: u64,
    },
}

/// What became of one room of a `throng:restore`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The room's name.
    pub room: Box<str>,
    /// The membership, or why there is none.
    pub result: Result<Restoration, (Code, String)>,
}

/// A membership that was restored; the fields of [`Reply::Joined`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restoration {
    /// The room's members, the new one included.
    pub members: u64,
    /// The room's latest publication.
    pub position: Cursor,
    /// Where there was a cursor: whether everything after it is sent.
    pub recovered: Option<bool>,
}

/// By what a receiver was meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom<'a> {
    /// As a member of this room.
    Room(&'a str),
    /// As a connection of its user.
    User,
    /// By its own id.
    Connection,
    /// As one of all.
    Everyone,
}

/// A publication as its receivers see it.
#[derive(Clone, Copy, Debug)]
pub struct Push<'a> {
    /// The type as its author wrote it, quotes included.
    pub kind: &'a RawValue,
    /// By what the receiver was meant.
    pub whom: Whom<'a>,
    /// Its number in the room; not written where there is no room.
    pub offset: u64,
    /// The payload as its author wrote it.
    pub payload: Option<&'a RawValue>,
    /// The author's identifier as written.
    pub id: Option<&'a RawValue>,
    /// The author's connection; `None` for what no connection published.
    pub from: Option<ConnAddress>,
}

/// Appends the first push of a session.
pub fn connected(out: &mut Vec<u8>, fields: &Connected<'_>) {
    let object = Object::typed(out, "throng:connected").quoted("clientId", fields.client);
    let object = match fields.user {
        Some(user) => object.text("userId", user),
        None => object.plain("userId", "null"),
    };
    object
        .quoted("sessionEpoch", format_args!("{:x}", fields.session_epoch))
        .object("heartbeat", |heartbeat| {
            heartbeat
                .plain("intervalMs", fields.ping_interval_ms)
                .plain("timeoutMs", fields.ping_timeout_ms)
        })
        .object("limits", |limits| {
            limits
                .plain("maxMessageBytes", fields.max_message_bytes)
                .plain("maxRooms", fields.max_rooms)
                .plain("maxRoomsPerPublish", fields.max_rooms_per_publish)
        })
        .text("protocol", fields.protocol.name())
        .end();
}

/// Appends a reply, and says so; without a `ref` only what is answered always.
pub fn reply(out: &mut Vec<u8>, reference: Option<&RawValue>, reply: &Reply<'_>) -> bool {
    if reference.is_none() && !matches!(reply, Reply::Members { .. } | Reply::History { .. }) {
        return false;
    }
    let object = Object::typed(out, "throng:reply").raw("ref", reference).plain("ok", true);
    let object = match *reply {
        Reply::Joined { room, members, offset, epoch, recovered } => {
            let position = Cursor { epoch, offset };
            joined(object.text("room", room), Restoration { members, position, recovered })
        }
        Reply::Restored(rooms) => object.list("rooms", rooms, |object, restored| {
            let object = object.text("room", &restored.room);
            match &restored.result {
                Ok(restoration) => joined(object.plain("ok", true), *restoration),
                Err((code, message)) => {
                    object.plain("ok", false).text("code", code.as_str()).text("message", message)
                }
            }
        }),
        Reply::History { room, offset, epoch, messages, more, recovered } => {
            let object = object
                .text("room", room)
                .plain("offset", offset)
                .quoted("epoch", format_args!("{epoch:x}"))
                .list("messages", messages, pushed)
                .plain("more", more);
            match recovered {
                Some(recovered) => object.plain("recovered", recovered),
                None => object,
            }
        }
        Reply::Repeated => object.plain("duplicate", true),
        Reply::Left { room } => object.text("room", room),
        Reply::Published => object,
        Reply::Numbered { position, repeated } => {
            let object = if repeated { object.plain("duplicate", true) } else { object };
            match position.offset {
                0 => object,
                offset => object
                    .plain("offset", offset)
                    .quoted("epoch", format_args!("{:x}", position.epoch)),
            }
        }
        Reply::Stored { room, position: Cursor { epoch, offset }, id } => object
            .text("room", room)
            .plain("offset", offset)
            .quoted("epoch", format_args!("{epoch:x}"))
            .raw("id", id),
        Reply::Status(status) => object.text("status", status.as_str()),
        Reply::Watching { watching } => object.plain("watching", watching),
        Reply::Authenticated { user, expires } => {
            let object = object.text("userId", user);
            match expires {
                Some(expires) => object.plain("expiresAt", expires),
                None => object.plain("expiresAt", "null"),
            }
        }
        Reply::Members { room, members } => object.text("room", room).plain("members", members),
    };
    object.end();
    true
}

/// Appends the answer to `throng:ping`. `unix_ms` is the wall clock, in milliseconds.
pub fn pong(out: &mut Vec<u8>, reference: Option<&RawValue>, unix_ms: u64) {
    Object::typed(out, "throng:pong").raw("ref", reference).plain("time", unix_ms).end();
}

/// Appends the answer to a command that was not obeyed.
pub fn error(out: &mut Vec<u8>, error: &CommandError) {
    let object = Object::typed(out, "throng:error")
        .raw("ref", error.reference.as_deref())
        .text("code", error.code.as_str())
        .text("message", &error.message);
    let object = match &error.path {
        Some(path) => object.text("path", path),
        None => object,
    };
    match error.retry_after {
        // Rounded up: who comes at the moment that was told is not early.
        Some(wait) => object.plain("retryAfterMs", wait.as_nanos().div_ceil(1_000_000)).end(),
        None => object.end(),
    }
}

/// Appends the push that tells a slow reader how many publications of one kind it has missed.
pub fn gap(out: &mut Vec<u8>, whom: Whom<'_>, lost: u64) {
    meant(Object::typed(out, "throng:gap"), whom).plain("lost", lost).end();
}

/// Says by what a receiver was meant.
pub(super) fn meant<'o>(object: Object<'o>, whom: Whom<'_>) -> Object<'o> {
    match whom {
        Whom::Room(room) => object.text("room", room),
        Whom::User => object.plain("user", true),
        Whom::Connection => object.plain("connection", true),
        Whom::Everyone => object.plain("everyone", true),
    }
}

/// Appends the push that tells members of a room that they may have missed publications, nobody knows how
/// many.
pub fn astray(out: &mut Vec<u8>, room: &str) {
    Object::typed(out, "throng:gap").text("room", room).plain("lost", "null").end();
}

/// Appends the push that says that the connection is no longer in the room, and why: the code of an error.
pub fn left(out: &mut Vec<u8>, room: &str, reason: &str) {
    Object::typed(out, "throng:left").text("room", room).text("reason", reason).end();
}

/// Appends the push that asks for a fresh token within `in_ms`; then the connection is closed.
pub fn reauth(out: &mut Vec<u8>, in_ms: u64) {
    Object::typed(out, "throng:reauth").plain("inMs", in_ms).end();
}

/// Appends the push that asks a client to come back in `delay_ms`; the connection is closed soon.
pub fn reload(out: &mut Vec<u8>, delay_ms: u64, reason: &str) {
    Object::typed(out, "throng:reload")
        .plain("reconnectDelayMs", delay_ms)
        .text("reason", reason)
        .end();
}

/// Appends the push that tells a client that it has to begin anew in a room, and from where.
pub fn resync(out: &mut Vec<u8>, room: &str, reason: Stale, position: Cursor) {
    Object::typed(out, "throng:resync")
        .text("room", room)
        .text("reason", reason.as_str())
        .quoted("epoch", format_args!("{:x}", position.epoch))
        .plain("offset", position.offset)
        .end();
}

/// Appends the command that joins a room, on behalf of a client that cannot send it.
pub fn join(out: &mut Vec<u8>, room: &str, since: Option<Cursor>) {
    let object = Object::typed(out, "throng:join").text("room", room).text("ref", "join");
    let object = match since {
        Some(Cursor { epoch, offset }) => object.object("since", |since| {
            since.quoted("epoch", format_args!("{epoch:x}")).plain("offset", offset)
        }),
        None => object,
    };
    object.end();
}

/// Appends the command that asks for a part of a room's history, on behalf of a client that cannot send it.
/// What is no number is written as it was said, for the answer to name it.
pub fn history(
    out: &mut Vec<u8>,
    room: &str,
    since: Option<Cursor>,
    [before, limit]: [Option<&str>; 2],
) {
    let object = Object::typed(out, "throng:history").text("room", room);
    let mut object = match since {
        Some(Cursor { epoch, offset }) => object.object("since", |since| {
            since.quoted("epoch", format_args!("{epoch:x}")).plain("offset", offset)
        }),
        None => object,
    };
    for (name, value) in [("before", before), ("limit", limit)] {
        object = match value.map(|value| (value, value.parse::<u64>())) {
            Some((_, Ok(number))) => object.plain(name, number),
            Some((text, Err(_))) => object.text(name, text),
            None => object,
        };
    }
    object.end();
}

/// Appends the last event of a stream, in the place of a close frame.
pub fn close(out: &mut Vec<u8>, code: u16, reason: &str) {
    Object::typed(out, "throng:close").plain("code", code).text("reason", reason).end();
}

/// Appends a publication.
pub fn publication(out: &mut Vec<u8>, push: &Push<'_>) {
    pushed(Object::begin(out), push).end();
}

fn pushed<'o>(object: Object<'o>, push: &Push<'_>) -> Object<'o> {
    let object = meant(object.raw("type", Some(push.kind)), push.whom);
    let object = match push.whom {
        Whom::Room(_) => object.plain("offset", push.offset),
        Whom::User | Whom::Connection | Whom::Everyone => object,
    };
    let object = object.raw("payload", push.payload).raw("id", push.id);
    match push.from {
        Some(from) => object.quoted("from", from),
        None => object,
    }
}

fn joined(object: Object<'_>, restoration: Restoration) -> Object<'_> {
    let Restoration { members, position, recovered } = restoration;
    let object = object
        .plain("members", members)
        .plain("offset", position.offset)
        .quoted("epoch", format_args!("{:x}", position.epoch));
    match recovered {
        Some(recovered) => object.plain("recovered", recovered),
        None => object,
    }
}
