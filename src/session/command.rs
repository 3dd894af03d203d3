//! What a client asks: from the text of a message to a [`Request`].
//!
//! Types that begin with `throng:` are the engine's commands. Every other type is the application's
//! and means a publication. Both are read strictly: a field that does not apply, comes twice or has a
//! value it cannot have is an error, because a field that is silently ignored is a message that does
//! something else than its author meant. Bounds come in as [`CommandLimits`].
//!
//! Everything in a request borrows from the message. In the common case (no escapes in names, at most
//! two rooms) reading one allocates nothing.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::value::RawValue;

use super::envelope::{Envelope, Field, bad, flag, nearest, shown, text, token};
use super::error::{Code, CommandError};
use super::inbox;
use super::presence::{self, Subjects, Whois};
use super::protocol::Status;
use super::resume::{self, Return};
use super::scan::{Excess, scan};
use super::targets::{Except, Targets};
use crate::base::cursor::Cursor;
use crate::base::inbox::{Marked, Span};
use crate::base::packed::Packed;

/// The prefix of the engine's own types and rooms.
pub const RESERVED: &str = "throng:";

/// The commands, without their prefix. The last is named only where it is allowed.
const COMMANDS: &[&str] = &[
    "join", "leave", "ping", "status", "members", "watch", "unwatch", "whois", "auth", "inbox",
    "read", "restore", "history", "panic",
];

const ROOM_FIELDS: &[Field] = &[Field::Type, Field::Room, Field::Ref];
const JOIN_FIELDS: &[Field] = &[Field::Type, Field::Room, Field::Since, Field::Ref];
const RESTORE_FIELDS: &[Field] = &[Field::Type, Field::Rooms, Field::Ref];
const HISTORY_FIELDS: &[Field] =
    &[Field::Type, Field::Room, Field::Since, Field::Before, Field::Limit, Field::Ref];
const PLAIN_FIELDS: &[Field] = &[Field::Type, Field::Ref];
const STATUS_FIELDS: &[Field] = &[Field::Type, Field::Status, Field::Ref];
const AUTH_FIELDS: &[Field] = &[Field::Type, Field::Token, Field::Ref];
const INBOX_FIELDS: &[Field] = &[Field::Type, Field::After, Field::Until, Field::Limit, Field::Ref];
const READ_FIELDS: &[Field] = &[Field::Type, Field::Ids, Field::All, Field::Ref];
const WATCH_FIELDS: &[Field] = &[Field::Type, Field::Users, Field::Room, Field::Ref];
const WHOIS_FIELDS: &[Field] =
    &[Field::Type, Field::Users, Field::Room, Field::After, Field::Limit, Field::Ref];
const PUBLISH_FIELDS: &[Field] = &[
    Field::Type,
    Field::Room,
    Field::Rooms,
    Field::Payload,
    Field::Id,
    Field::Ref,
    Field::Key,
    Field::Except,
    Field::TtlMs,
    Field::Users,
    Field::Connections,
    Field::Everyone,
    Field::Persist,
];

/// How many one publication may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudienceLimits {
    /// Users, and connections.
    pub targets: usize,
    /// Connections, users and rooms together that are excepted.
    pub except: usize,
}

/// Bounds on a message. The size of the whole is bounded before it gets here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLimits {
    /// Levels of nesting, the message itself included.
    pub max_depth: usize,
    /// Keys in the whole message.
    pub max_keys: usize,
    /// Bytes of a room's name, as UTF-8.
    pub max_room_bytes: usize,
    /// Rooms of one publication.
    pub max_rooms: usize,
    /// Whom one publication may name beside rooms.
    pub audience: AudienceLimits,
    /// Users of one command.
    pub max_users: usize,
    /// Bytes of a type, as UTF-8.
    pub max_type_bytes: usize,
    /// Bytes of `id` and `ref` as written, and of `key` as UTF-8.
    pub max_id_bytes: usize,
    /// Rooms that one message may restore. Such a message may have four keys for each of them, whatever
    /// `max_keys` says.
    pub max_restore: usize,
    /// Publications of one page of history.
    pub max_history: usize,
    /// Notifications in one answer.
    pub max_page: usize,
    /// True to obey `throng:panic`, which tests use to show that a panic stays within one connection.
    pub allow_panic: bool,
}

impl Default for CommandLimits {
    fn default() -> Self {
        Self {
            max_depth: 32,
            max_keys: 256,
            max_room_bytes: 128,
            max_rooms: 16,
            audience: AudienceLimits { targets: 64, except: 64 },
            max_users: 64,
            max_type_bytes: 64,
            max_id_bytes: 64,
            max_restore: 100,
            max_history: 100,
            max_page: 100,
            allow_panic: false,
        }
    }
}

/// A message that was understood.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The client's `ref`, a string or a number, to be echoed as it was written.
    pub reference: Option<&'a RawValue>,
    /// What is asked.
    pub command: Command<'a>,
}

/// What a client asks.
#[derive(Clone, Debug)]
pub enum Command<'a> {
    /// Become a member of a room; no change for one who is.
    Join {
        /// The room's name.
        room: Cow<'a, str>,
        /// Everything up to here has been seen; what came after it is asked for.
        since: Option<Cursor>,
    },
    /// Become a member of several rooms, as by a join of each.
    Restore {
        /// The rooms; not empty. Their names are not checked yet: a wrong one spoils no other.
        rooms: Vec<Return<'a>>,
    },
    /// Answer with a part of what was published in a room lately.
    History {
        /// The room's name.
        room: Cow<'a, str>,
        /// Only what came after it, the earliest first; not with `before`.
        since: Option<Cursor>,
        /// Only what has a lower offset; `None` for the newest.
        before: Option<u64>,
        /// Publications at most.
        limit: usize,
    },
    /// Stop being a member of a room.
    Leave {
        /// The room's name.
        room: Cow<'a, str>,
    },
    /// Send a publication.
    Publish(Publish<'a>),
    /// Answer with the time.
    Ping,
    /// Note whether someone sits in front of the client.
    Status(Status),
    /// Answer with the number of a room's members.
    Members {
        /// The room's name.
        room: Cow<'a, str>,
    },
    /// Tell of users or of a room from now on.
    Watch(Subjects<'a>),
    /// Tell of them no more.
    Unwatch(Subjects<'a>),
    /// Answer with who they are.
    Whois(Whois<'a>),
    /// Say who the client is, or show that it still is.
    Auth {
        /// The token, not checked in any way.
        token: Cow<'a, str>,
    },
    /// Answer with what is unread in the user's inbox.
    Inbox(Span),
    /// Note what of the user's inbox was read.
    Read(Marked),
    /// Panic; given only where the limits allow it.
    Panic,
}

impl Command<'_> {
    /// The type of the message, as it is meant.
    #[must_use]
    pub fn type_name(&self) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            Self::Publish(publish) => return publish.type_name(),
            Self::Join { .. } => "throng:join",
            Self::Restore { .. } => "throng:restore",
            Self::History { .. } => "throng:history",
            Self::Leave { .. } => "throng:leave",
            Self::Ping => "throng:ping",
            Self::Status(_) => "throng:status",
            Self::Members { .. } => "throng:members",
            Self::Watch(_) => "throng:watch",
            Self::Unwatch(_) => "throng:unwatch",
            Self::Whois(_) => "throng:whois",
            Self::Auth { .. } => "throng:auth",
            Self::Inbox(_) => "throng:inbox",
            Self::Read(_) => "throng:read",
            Self::Panic => "throng:panic",
        })
    }
}

impl Publish<'_> {
    /// The type as it is meant, whatever escapes it is written with.
    #[must_use]
    pub fn type_name(&self) -> Cow<'_, str> {
        let written = self.kind.get();
        let inner = written.trim_matches('"');
        if inner.contains('\\') {
            serde_json::from_str(written).map_or(Cow::Borrowed(inner), Cow::Owned)
        } else {
            Cow::Borrowed(inner)
        }
    }
}

/// A publication as its author wrote it.
#[derive(Clone, Debug)]
pub struct Publish<'a> {
    /// The type as written, quotes included; never one of the engine's.
    pub kind: &'a RawValue,
    /// Who shall receive it.
    pub targets: Targets<'a>,
    /// Any JSON, as written.
    pub payload: Option<&'a RawValue>,
    /// The author's identifier, a string or a number, as written.
    pub id: Option<&'a RawValue>,
    /// What it replaces in a queue that conflates: earlier ones of the same room and key.
    pub key: Option<Cow<'a, str>>,
    /// Who shall not receive it, whatever the targets say; on the heap, as it is rare.
    pub except: Option<Box<Except<'a>>>,
    /// How long it is worth delivering; `None` for as long as it is there.
    pub ttl: Option<Duration>,
    /// Whether it is to be stored before anybody has it; then it is to one room and to nobody else.
    pub persist: bool,
    /// What the payload was compressed to, if it was; nothing that is read says so.
    pub packed: Option<Packed>,
}

/// Reads a message.
///
/// # Errors
/// Whatever is wrong with it first: the code says what, the message names field, value and expectation,
/// and the reference is the message's where one could be read.
pub fn parse<'a>(text: &'a str, limits: &CommandLimits) -> Result<Request<'a>, CommandError> {
    // A restore says more of each room than most messages say at all.
    let most = limits.max_keys.max(limits.max_restore * RESTORE_KEYS + RESTORE_FIELDS.len());
    let (envelope, keys) = open(text, limits, most)?;
    if keys > limits.max_keys && !is_restore(&envelope) {
        return Err(too_many_keys(limits));
    }
    let reference = envelope
        .get(Field::Ref)
        .map(|value| token(Field::Ref, value, limits.max_id_bytes))
        .transpose()?;
    match command(&envelope, limits) {
        Ok(command) => Ok(Request { reference, command }),
        Err(error) => Err(error.answering(reference)),
    }
}

/// Keys that a restore has for each room: its name, its cursor, and the two parts of that.
const RESTORE_KEYS: usize = 4;

fn is_restore(envelope: &Envelope<'_>) -> bool {
    envelope.get(Field::Type).is_some_and(|kind| kind.get() == "\"throng:restore\"")
}

fn too_many_keys(limits: &CommandLimits) -> CommandError {
    let message = format!("the message has more than {} keys", limits.max_keys);
    CommandError::new(Code::TooManyKeys, message, None)
}

/// The fields of a message within the bound of depth and `most` keys, and how many keys it has.
pub(super) fn open<'a>(
    text: &'a str,
    limits: &CommandLimits,
    most: usize,
) -> Result<(Envelope<'a>, usize), CommandError> {
    let keys = scan(text, limits.max_depth, most).map_err(|excess| match excess {
        Excess::Depth => {
            let message = format!("the message nests deeper than {} levels", limits.max_depth);
            CommandError::new(Code::TooDeep, message, None)
        }
        Excess::Keys => too_many_keys(limits),
    })?;
    Ok((Envelope::read(text)?, keys))
}

fn command<'a>(
    envelope: &Envelope<'a>,
    limits: &CommandLimits,
) -> Result<Command<'a>, CommandError> {
    let (raw, kind) = kind_of(envelope, limits)?;
    if !kind.starts_with(RESERVED) {
        envelope.only(&kind, PUBLISH_FIELDS)?;
        return publish(envelope, raw, limits).map(Command::Publish);
    }
    let fields = match &*kind {
        "throng:join" => JOIN_FIELDS,
        "throng:leave" | "throng:members" => ROOM_FIELDS,
        "throng:restore" => RESTORE_FIELDS,
        "throng:history" => HISTORY_FIELDS,
        "throng:ping" => PLAIN_FIELDS,
        "throng:status" => STATUS_FIELDS,
        "throng:watch" | "throng:unwatch" => WATCH_FIELDS,
        "throng:whois" => WHOIS_FIELDS,
        "throng:auth" => AUTH_FIELDS,
        "throng:inbox" => INBOX_FIELDS,
        "throng:read" => READ_FIELDS,
        "throng:panic" if limits.allow_panic => PLAIN_FIELDS,
        _ => return Err(unknown_command(&kind, limits)),
    };
    envelope.only(&kind, fields)?;
    let the_room = || room(Field::Room, envelope.require(Field::Room, &kind)?, limits);
    Ok(match &*kind {
        "throng:join" => {
            let since = envelope.get(Field::Since).map(resume::since).transpose()?;
            Command::Join { room: the_room()?, since }
        }
        "throng:restore" => {
            let rooms = envelope.require(Field::Rooms, &kind)?;
            Command::Restore { rooms: resume::returns(rooms, limits)? }
        }
        "throng:history" => history(envelope, the_room()?, limits)?,
        "throng:leave" => Command::Leave { room: the_room()? },
        "throng:members" => Command::Members { room: the_room()? },
        "throng:status" => Command::Status(status(envelope.require(Field::Status, &kind)?)?),
        "throng:ping" => Command::Ping,
        "throng:inbox" => Command::Inbox(inbox::span(envelope, limits.max_page)?),
        "throng:read" => Command::Read(inbox::marked(envelope)?),
        "throng:watch" => Command::Watch(presence::subjects(envelope, &kind, limits)?),
        "throng:unwatch" => Command::Unwatch(presence::subjects(envelope, &kind, limits)?),
        "throng:whois" => Command::Whois(presence::whois(envelope, &kind, limits)?),
        "throng:auth" => {
            Command::Auth { token: token_text(envelope.require(Field::Token, &kind)?)? }
        }
        _ => Command::Panic,
    })
}

fn history<'a>(
    envelope: &Envelope<'a>,
    room: Cow<'a, str>,
    limits: &CommandLimits,
) -> Result<Command<'a>, CommandError> {
    let since = envelope.get(Field::Since).map(resume::since).transpose()?;
    let before = envelope.get(Field::Before);
    if let (Some(_), Some(before)) = (since, before) {
        return Err(bad(Field::Before, before.get(), "one of `before` and `since`"));
    }
    let before = before.map(|value| resume::offset(Field::Before, value));
    let limit = envelope.get(Field::Limit).map(|value| resume::limit(value, limits));
    let limit = limit.transpose()?.unwrap_or(limits.max_history);
    Ok(Command::History { room, since, before: before.transpose()?, limit })
}

/// The type, as it was written and as it is read.
pub(super) fn kind_of<'a>(
    envelope: &Envelope<'a>,
    limits: &CommandLimits,
) -> Result<(&'a RawValue, Cow<'a, str>), CommandError> {
    let raw = envelope.require(Field::Type, "every message")?;
    let kind = text(Field::Type, raw)?;
    if kind.is_empty() || kind.len() > limits.max_type_bytes {
        let expected = format!("1 to {} bytes", limits.max_type_bytes);
        return Err(bad(Field::Type, raw.get(), &expected));
    }
    Ok((raw, kind))
}

fn unknown_command(kind: &str, limits: &CommandLimits) -> CommandError {
    let offered = if limits.allow_panic { COMMANDS } else { &COMMANDS[..COMMANDS.len() - 1] };
    let hint = match nearest(&kind[RESERVED.len()..], offered) {
        Some(near) => format!("did you mean `{RESERVED}{near}`?"),
        None => format!("after `{RESERVED}` comes one of {}", offered.join(", ")),
    };
    let message = format!("there is no command `{}`; {hint}", shown(kind));
    CommandError::new(Code::UnknownCommand, message, None)
}

/// A mistake in a token is told without any part of it.
fn token_text(value: &RawValue) -> Result<Cow<'_, str>, CommandError> {
    text(Field::Token, value).map_err(|_| bad(Field::Token, "***", "a string"))
}

fn status(value: &RawValue) -> Result<Status, CommandError> {
    match text(Field::Status, value).as_deref() {
        Ok("active") => Ok(Status::Active),
        Ok("idle") => Ok(Status::Idle),
        _ => Err(bad(Field::Status, value.get(), "\"active\" or \"idle\"")),
    }
}

pub(super) fn publish<'a>(
    envelope: &Envelope<'a>,
    kind: &'a RawValue,
    limits: &CommandLimits,
) -> Result<Publish<'a>, CommandError> {
    let id = envelope
        .get(Field::Id)
        .map(|value| token(Field::Id, value, limits.max_id_bytes))
        .transpose()?;
    let key = envelope.get(Field::Key).map(|value| key(value, limits)).transpose()?;
    let except = envelope
        .get(Field::Except)
        .map(|value| Except::read(value, limits).map(Box::new))
        .transpose()?;
    let ttl = envelope.get(Field::TtlMs).map(resume::ttl).transpose()?;
    let targets = Targets::read(envelope, limits)?;
    let persist = flag(Field::Persist, envelope.get(Field::Persist))?;
    if persist && (targets.rooms.len() != 1 || targets.len() != 1) {
        return Err(bad(Field::Persist, "true", "false where it is not one room alone"));
    }
    let payload = envelope.get(Field::Payload);
    Ok(Publish { kind, targets, payload, id, key, except, ttl, persist, packed: None })
}

pub(super) fn room<'a>(
    field: Field,
    value: &'a RawValue,
    limits: &CommandLimits,
) -> Result<Cow<'a, str>, CommandError> {
    check_room(field, text(field, value)?, limits)
}

/// Checks a room's name that a list of rooms to come back to has.
///
/// # Errors
/// When no room can have it.
pub fn check_return<'a>(
    name: Cow<'a, str>,
    limits: &CommandLimits,
) -> Result<Cow<'a, str>, CommandError> {
    check_room(Field::Room, name, limits)
}

/// Control characters are refused because names go into logs, metrics and terminals.
pub(super) fn check_room<'a>(
    field: Field,
    name: Cow<'a, str>,
    limits: &CommandLimits,
) -> Result<Cow<'a, str>, CommandError> {
    if name.is_empty() || name.len() > limits.max_room_bytes || name.contains(char::is_control) {
        let most = limits.max_room_bytes;
        let expected = format!("a name of 1 to {most} bytes without control characters");
        return Err(bad(field, &format!("{:?}", shown(&name)), &expected));
    }
    if name.starts_with(RESERVED) {
        let expected = format!("a name that does not begin with `{RESERVED}`");
        return Err(bad(field, &format!("{:?}", shown(&name)), &expected));
    }
    Ok(name)
}

fn key<'a>(value: &'a RawValue, limits: &CommandLimits) -> Result<Cow<'a, str>, CommandError> {
    let key = text(Field::Key, value)?;
    if key.is_empty() || key.len() > limits.max_id_bytes {
        let expected = format!("a string of 1 to {} bytes", limits.max_id_bytes);
        return Err(bad(Field::Key, value.get(), &expected));
    }
    Ok(key)
}
