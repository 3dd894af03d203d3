//! What servers speak: paths, commands out, messages in. Slices and no sockets.
//!
//! `throng` is the engine's own protocol. `plain` has no protocol at all: the path says what a connection is for,
//! and messages are payloads. `socketio` is Socket.IO 4 over WebSocket alone. The last two exist so that other
//! servers, and the bare loops that give the floors, can be measured by the same clients.
//!
//! Reading is the hot path of the generator. Each dialect recognises the exact shape of a delivery by scanning
//! and hands on slices; whatever has another shape goes through a JSON parser and means the same.

mod native;
mod plain;
mod socketio;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The dialects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Dialect {
    Throng,
    Plain,
    SocketIo,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role<'a> {
    Member(&'a str),
    Publisher(&'a str),
    Echo,
    Idle,
}

/// What a message from the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Push<'a> {
    /// The greeting.
    Connected,
    /// The transport is open; the dialect wants an answer before it greets.
    Opened,
    Reply {
        reference: u64,
        ok: bool,
        offset: Option<u64>,
        /// Which numbering the offset belongs to.
        epoch: Option<String>,
        /// Whether everything after the cursor that was shown follows.
        recovered: Option<bool>,
    },
    /// The reply to a join that an event stream's request asked for.
    Listening {
        offset: Option<u64>,
        epoch: Option<String>,
        recovered: Option<bool>,
    },
    /// The last event of a stream, with what would be the close code.
    Closing(u16),
    /// `room` is empty where the dialect does not say it.
    Publication {
        room: Cow<'a, [u8]>,
        offset: Option<u64>,
        payload: Cow<'a, [u8]>,
    },
    Echo {
        payload: Cow<'a, [u8]>,
    },
    Gap {
        room: Cow<'a, [u8]>,
        lost: u64,
    },
    Pong {
        reference: u64,
    },
    /// The server's complaint, in its words.
    Error(String),
    Reload,
    /// A ping of the dialect's own, to be answered.
    HeartbeatPing,
    /// Something of others, or of no interest.
    Ignored,
}

impl Dialect {
    /// The subprotocol to offer.
    pub(crate) fn subprotocol(self) -> Option<&'static str> {
        match self {
            Self::Throng => Some("throng.v1.json"),
            Self::Plain | Self::SocketIo => None,
        }
    }

    /// Whether the server speaks first.
    pub(crate) fn greets(self, echo: bool) -> bool {
        match self {
            // The engine's echo endpoint has no session.
            Self::Throng => !echo,
            Self::Plain => false,
            Self::SocketIo => true,
        }
    }

    /// The path to ask for, `base` being the URL's.
    pub(crate) fn path(self, base: &str, role: Role<'_>) -> String {
        match self {
            Self::Throng => base.to_owned(),
            Self::Plain => plain::path(role),
            Self::SocketIo => socketio::PATH.to_owned(),
        }
    }

    /// Appends the command to join a room. False when being connected is being in it.
    pub(crate) fn join(self, room: &str, reference: u64, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Throng => native::join(room, reference, out),
            Self::Plain => return false,
            Self::SocketIo => socketio::join(room, out),
        }
        true
    }

    /// Appends the command to join a room again, from a cursor on. Only the engine's own dialect has one.
    pub(crate) fn rejoin(
        self,
        room: &str,
        reference: u64,
        (epoch, offset): (&str, u64),
        out: &mut Vec<u8>,
    ) -> bool {
        match self {
            Self::Throng => native::rejoin(room, reference, (epoch, offset), out),
            Self::Plain | Self::SocketIo => return self.join(room, reference, out),
        }
        true
    }

    /// Appends the publication of a payload.
    pub(crate) fn publish(self, room: &str, payload: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Throng => native::publish(room, payload, out),
            Self::Plain => out.extend_from_slice(payload),
            Self::SocketIo => socketio::publish(room, payload, out),
        }
    }

    /// Appends a message that is to come back.
    pub(crate) fn echo(self, payload: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Throng | Self::Plain => out.extend_from_slice(payload),
            Self::SocketIo => socketio::echo(payload, out),
        }
    }

    /// Appends a ping of the application with this number. False when the dialect has none and an echo must do.
    pub(crate) fn ping(self, number: u64, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Throng => native::ping(number, out),
            Self::Plain | Self::SocketIo => return false,
        }
        true
    }

    /// Understands a message. `echo`: the connection is there for echoes.
    ///
    /// # Errors
    /// When the message is none of the dialect's.
    pub(crate) fn parse(self, text: &[u8], echo: bool) -> Result<Push<'_>, String> {
        match self {
            Self::Throng if echo => Ok(Push::Echo { payload: Cow::Borrowed(text) }),
            Self::Throng => native::parse(text),
            Self::Plain => Ok(plain::parse(text, echo)),
            Self::SocketIo => socketio::parse(text),
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Throng => "throng",
            Self::Plain => "plain",
            Self::SocketIo => "socketio",
        })
    }
}

impl FromStr for Dialect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "throng" => Ok(Self::Throng),
            "plain" => Ok(Self::Plain),
            "socketio" => Ok(Self::SocketIo),
            _ => Err(format!("{text:?}: expected throng, plain or socketio")),
        }
    }
}

/// Appends a JSON string.
fn quote(text: &str, out: &mut Vec<u8>) {
    let written = serde_json::to_writer(&mut *out, text);
    debug_assert!(written.is_ok(), "writing to memory cannot fail");
}

/// Appends a number.
fn number(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(value.to_string().as_bytes());
}

/// Takes a literal off the front.
fn literal<'a>(text: &'a [u8], literal: &[u8]) -> Option<&'a [u8]> {
    text.strip_prefix(literal)
}

/// Takes what stands before the next quote off the front; none when it holds an escape.
fn string(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr2(b'"', b'\\', text)?;
    (text[end] == b'"').then(|| (&text[..end], &text[end + 1..]))
}

#[cfg(test)]
mod tests;
