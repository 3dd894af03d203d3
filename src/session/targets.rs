//! Whom a publication is for, and whom it is not for.
//!
//! Targets are rooms, users, connections and everyone, in any mixture; whoever is meant twice receives it
//! once. What excepts somebody is of the same three kinds, and they are kept apart, so that to except one
//! connection of a user never silences the others. Names are the client's; what they mean within the
//! node, and who may use them, is not known here.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::command::{CommandLimits, check_room, room};
use super::envelope::{Envelope, Field, List, bad, shown, texts};
use super::error::{Code, CommandError};
use crate::base::id::ConnAddress;

/// Bytes of a user's name, as of one in a token.
pub const MAX_USER_BYTES: usize = 128;

/// Who shall receive a publication; never nobody.
#[derive(Clone, Debug, Default)]
pub struct Targets<'a> {
    /// The members of these rooms, each named once.
    pub rooms: SmallVec<[Cow<'a, str>; 2]>,
    /// Who is named beside them; on the heap, as it is rare.
    named: Option<Box<Named<'a>>>,
    /// All connections of the tenant.
    pub everyone: bool,
}

/// Those who are named one by one.
#[derive(Clone, Debug, Default)]
struct Named<'a> {
    users: Vec<Cow<'a, str>>,
    connections: Vec<ConnAddress>,
}

/// Who shall not receive it, whatever the targets say.
#[derive(Clone, Debug, Default)]
pub struct Except<'a> {
    /// These connections.
    pub connections: Vec<ConnAddress>,
    /// All connections of these users.
    pub users: Vec<Cow<'a, str>>,
    /// The members of these rooms.
    pub rooms: Vec<Cow<'a, str>>,
}

impl<'a> Targets<'a> {
    pub(super) fn read(
        envelope: &Envelope<'a>,
        limits: &CommandLimits,
    ) -> Result<Self, CommandError> {
        let users = match envelope.get(Field::Users) {
            Some(value) => users(Field::Users, few(Field::Users, value, limits.audience.targets)?)?,
            None => Vec::new(),
        };
        let connections = match envelope.get(Field::Connections) {
            Some(value) => {
                let field = Field::Connections;
                let mut list = addresses(field, few(field, value, limits.audience.targets)?)?;
                list.sort_unstable();
                list.dedup();
                list
            }
            None => Vec::new(),
        };
        let everyone = match envelope.get(Field::Everyone) {
            Some(value) if value.get() == "true" => true,
            Some(value) => return Err(bad(Field::Everyone, value.get(), "true, or no field")),
            None => false,
        };
        let any = !users.is_empty() || !connections.is_empty();
        let named = any.then(|| Box::new(Named { users, connections }));
        let targets = Self { rooms: rooms(envelope, limits)?, named, everyone };
        if targets.is_empty() {
            let message = "a publication needs `room`, `rooms`, `users` or `connections` with at \
                           least one name, or `everyone`";
            return Err(CommandError::new(Code::NoRoom, message, None).about("room"));
        }
        Ok(targets)
    }

    /// True when nobody is named any more; targets that were read name somebody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All connections of these users, each named once.
    #[must_use]
    pub fn users(&self) -> &[Cow<'a, str>] {
        self.named.as_ref().map_or(&[], |named| &named.users)
    }

    /// These connections, each named once, in the order of their addresses.
    #[must_use]
    pub fn connections(&self) -> &[ConnAddress] {
        self.named.as_ref().map_or(&[], |named| &named.connections)
    }

    /// Rooms, users and connections together; everyone counts for one.
    #[must_use]
    pub fn len(&self) -> usize {
        let named = self.rooms.len() + self.users().len() + self.connections().len();
        named + usize::from(self.everyone)
    }
}

/// The kinds of exceptions, one by one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kinds<'a> {
    #[serde(default, borrow, deserialize_with = "given")]
    connections: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "given")]
    users: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "given")]
    rooms: Option<&'a RawValue>,
}

/// A value that is there; `null` is one, and none that a list may have.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl<'a> Except<'a> {
    pub(super) fn read(value: &'a RawValue, limits: &CommandLimits) -> Result<Self, CommandError> {
        let kinds = if value.get().starts_with('{') {
            serde_json::from_str(value.get()).map_err(|_| {
                let expected = "an object with no more than `connections`, `users` and `rooms`, \
                                each a list, or a list of connection ids";
                bad(Field::Except, value.get(), expected)
            })?
        } else {
            Kinds { connections: Some(value), users: None, rooms: None }
        };
        let mut left = limits.audience.except;
        let mut list = |kind: Option<&'a RawValue>| -> Result<Option<List<'a>>, CommandError> {
            let Some(value) = kind else { return Ok(None) };
            let list = texts(Field::Except, value, left)?;
            if list.count > left {
                let most = limits.audience.except;
                let found = format!("a list of {}", list.count + most - left);
                let expected = format!("at most {most} connection ids, users and rooms");
                return Err(bad(Field::Except, &found, &expected));
            }
            left -= list.count;
            Ok(Some(list))
        };
        let (connections, people, places) =
            (list(kinds.connections)?, list(kinds.users)?, list(kinds.rooms)?);
        Ok(Self {
            connections: match connections {
                Some(list) => addresses(Field::Except, list)?,
                None => Vec::new(),
            },
            users: people.map_or(Ok(Vec::new()), |list| users(Field::Except, list))?,
            rooms: match places {
                Some(list) => {
                    let kept = list.kept.into_iter();
                    kept.map(|name| check_room(Field::Except, name, limits))
                        .collect::<Result<_, _>>()?
                }
                None => Vec::new(),
            },
        })
    }

    /// True when it excepts nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Connections, users and rooms together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connections.len() + self.users.len() + self.rooms.len()
    }
}

fn rooms<'a>(
    envelope: &Envelope<'a>,
    limits: &CommandLimits,
) -> Result<SmallVec<[Cow<'a, str>; 2]>, CommandError> {
    let mut rooms = SmallVec::new();
    match (envelope.get(Field::Room), envelope.get(Field::Rooms)) {
        (Some(value), None) => rooms.push(room(Field::Room, value, limits)?),
        (None, Some(value)) => {
            let list = texts(Field::Rooms, value, limits.max_rooms)?;
            if list.count > limits.max_rooms {
                let message = format!(
                    "`rooms` names {} rooms; at most {} may be",
                    list.count, limits.max_rooms
                );
                let error = CommandError::new(Code::TooManyRooms, message, None);
                return Err(error.about("rooms"));
            }
            for name in list.kept {
                let name = check_room(Field::Rooms, name, limits)?;
                if !rooms.contains(&name) {
                    rooms.push(name);
                }
            }
        }
        (Some(_), Some(value)) => {
            return Err(bad(Field::Rooms, value.get(), "no `rooms` beside `room`"));
        }
        (None, None) => {}
    }
    Ok(rooms)
}

/// A list of at most `most` texts.
fn few(field: Field, value: &RawValue, most: usize) -> Result<List<'_>, CommandError> {
    let list = texts(field, value, most)?;
    if list.count > most {
        let found = format!("a list of {}", list.count);
        return Err(bad(field, &found, &format!("at most {most} names")));
    }
    Ok(list)
}

fn users<'a>(field: Field, list: List<'a>) -> Result<Vec<Cow<'a, str>>, CommandError> {
    let mut users: Vec<Cow<'a, str>> = Vec::with_capacity(list.kept.len());
    for name in list.kept {
        if name.is_empty() || name.len() > MAX_USER_BYTES || name.contains(char::is_control) {
            let expected =
                format!("users of 1 to {MAX_USER_BYTES} bytes without control characters");
            return Err(bad(field, &format!("{:?}", shown(&name)), &expected));
        }
        if !users.contains(&name) {
            users.push(name);
        }
    }
    Ok(users)
}

fn addresses(field: Field, list: List<'_>) -> Result<Vec<ConnAddress>, CommandError> {
    let address = |entry: &Cow<'_, str>| {
        entry
            .parse()
            .map_err(|_| bad(field, &format!("{:?}", shown(entry)), "connection ids (`clientId`)"))
    };
    list.kept.iter().map(address).collect()
}
