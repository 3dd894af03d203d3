//! Why a message was not obeyed.
//!
//! A mistake in a command is answered and the session lives: the application has a bug, the transport
//! has not. So every such mistake has a code that a program can act on and a message that a person can
//! act on; the message names the field, the value and what was expected. Mistakes that break the
//! transport itself end the connection with a close code and are not found here.

use std::fmt;
use std::time::Duration;

use serde_json::value::RawValue;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// What went wrong, for programs. New codes may be added; clients treat an unknown one as a
        /// refusal.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The code as clients see it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

codes! {
    /// The text is not JSON.
    BadJson = "bad_json",
    /// The text is JSON but not an object.
    NotAnObject = "not_an_object",
    /// The message nests too deep.
    TooDeep = "too_deep",
    /// The message has too many keys.
    TooManyKeys = "too_many_keys",
    /// A binary message on a protocol of text.
    BinaryUnsupported = "binary_unsupported",
    /// A type of the engine's that does not exist.
    UnknownCommand = "unknown_command",
    /// A field that this type of message does not have.
    UnknownField = "unknown_field",
    /// A field that this type of message needs.
    MissingField = "missing_field",
    /// A field that is given twice.
    RepeatedField = "repeated_field",
    /// A field with a value it cannot have.
    BadField = "bad_field",
    /// A payload that does not fit the schema that the operator has given for its type.
    InvalidPayload = "invalid_payload",
    /// A payload that is larger than it may be in the room.
    TooLarge = "too_large",
    /// A publication that names no target.
    NoRoom = "no_room",
    /// A publication to too many rooms.
    TooManyRooms = "too_many_rooms",
    /// A join past the number of rooms one connection may be in.
    RoomLimit = "room_limit",
    /// A join that would begin a room more than the tenant may have.
    TenantLimit = "tenant_limit",
    /// More users and rooms than one connection may watch.
    WatchLimit = "watch_limit",
    /// The connection is not a member of the room.
    NotMember = "not_member",
    /// The user has no right to do this in the room.
    Forbidden = "forbidden",
    /// A token that is not accepted.
    Unauthorized = "unauthorized",
    /// More than the rate allows; the same may be sent again after the time that is told.
    RateLimited = "rate_limited",
    /// There is nothing in which it could be stored; the message says what is missing.
    CannotPersist = "cannot_persist",
    /// It is not known yet whether it is stored; sent again under the same `id` it is not published twice.
    Unconfirmed = "unconfirmed",
    /// The engine cannot take this now; the same may be sent again after a pause.
    Overloaded = "overloaded",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A command that was not obeyed.
#[derive(Clone, Debug)]
pub struct CommandError {
    /// What went wrong, for programs.
    pub code: Code,
    /// What went wrong, for people.
    pub message: String,
    /// The `ref` of the command; `None` when it had none or none that could be read.
    pub reference: Option<Box<RawValue>>,
    /// When the same may be sent again, where that is known.
    pub retry_after: Option<Duration>,
    /// The field that is to blame, where one is.
    pub field: Option<Box<str>>,
    /// The place in that field that is to blame, as a JSON pointer, where one is known.
    pub path: Option<Box<str>>,
    /// True where it is one too many of what the client may have a number of.
    pub is_excess: bool,
}

impl CommandError {
    /// An error in answer to the command that carried `reference`.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>, reference: Option<&RawValue>) -> Self {
        let reference = reference.map(RawValue::to_owned);
        let message = message.into();
        let is_excess =
            matches!(code, Code::RoomLimit | Code::TenantLimit | Code::WatchLimit | Code::TooLarge);
        Self { code, message, reference, retry_after: None, field: None, path: None, is_excess }
    }

    /// The command came sooner than its rate allows.
    #[must_use]
    pub fn rate_limited(wait: Duration, reference: Option<Box<RawValue>>) -> Self {
        let message =
            "more than the rate allows; send the same again after retryAfterMs".to_owned();
        let code = Code::RateLimited;
        let retry_after = Some(wait);
        Self { code, message, reference, retry_after, field: None, path: None, is_excess: false }
    }

    /// More is asked at once than the client may await answers to.
    #[must_use]
    pub fn outstanding(reference: Option<&RawValue>) -> Self {
        let message = "too much that this connection, its user or its tenant has asked is yet to be answered; wait for replies";
        Self { is_excess: true, ..Self::new(Code::Overloaded, message, reference) }
    }

    /// The same error, blaming a field.
    #[must_use]
    pub(crate) fn about(mut self, field: &str) -> Self {
        self.field = Some(field.into());
        self
    }

    /// The same error, with the place in the field.
    #[must_use]
    pub(super) fn at(mut self, path: &str) -> Self {
        self.path = Some(path.into());
        self
    }

    /// The same error, naming the command it answers.
    #[must_use]
    pub(super) fn answering(mut self, reference: Option<&RawValue>) -> Self {
        self.reference = reference.map(RawValue::to_owned);
        self
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for CommandError {}
