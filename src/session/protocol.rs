//! Which protocol a client speaks, and what a session remembers.
//!
//! A client names protocols in the `Sec-WebSocket-Protocol` header (RFC 6455, section 1.9); one that
//! names none speaks the engine's JSON. A session remembers so little that it is one byte, because
//! there are a million of them and most are idle. `Echo` is no protocol that a client can ask for: a
//! debugging endpoint gives it, and it sends every message back as it came.

use super::command::{CommandLimits, Request, parse};
use super::error::{Code, CommandError};

/// The name of the JSON protocol, as clients offer it.
pub const JSON_V1: &str = "throng.v1.json";

/// A language that a session speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `throng.v1.json`.
    Json,
    /// The pushes of `throng.v1.json` as an event stream; the client asks for everything with its request.
    Events,
    /// What `throng.v1.json` says in packets of Socket.IO.
    Packets,
    /// One question by plain HTTP, which stands in the request, and its answer.
    Page,
    /// What a client of Socket.IO says to find out whether a WebSocket carries its session, which polls.
    Probe,
    /// Every message comes back as it went.
    Echo,
}

/// What server and client agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The protocol of the session.
    pub protocol: Protocol,
    /// The subprotocol to name in the answer; `None` when the client offered none, as naming one that
    /// was not offered makes it fail the connection (RFC 6455, section 4.1).
    pub echo: Option<&'static str>,
}

impl Protocol {
    /// The agreement with a client that offers these subprotocols, or `None` when it offers some but
    /// none is known here. Names are compared exactly, as the RFC has them case-sensitive.
    #[must_use]
    pub fn from_subprotocol(offered: &[&str]) -> Option<Agreement> {
        if offered.is_empty() {
            return Some(Agreement { protocol: Self::Json, echo: None });
        }
        offered
            .contains(&JSON_V1)
            .then_some(Agreement { protocol: Self::Json, echo: Some(JSON_V1) })
    }

    /// The protocol's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => JSON_V1,
            Self::Events => "sse",
            Self::Packets => "socket.io",
            Self::Page => "http",
            Self::Probe => "probe",
            Self::Echo => "echo",
        }
    }
}

/// Whether someone sits in front of the client, as the client says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Status {
    /// Someone does; every session begins so.
    #[default]
    Active,
    /// Nobody does.
    Idle,
}

impl Status {
    /// The status as clients write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Idle => "idle",
        }
    }
}

/// What a message means to the connection that received it.
#[derive(Clone, Debug)]
pub enum Incoming<'a> {
    /// Something is asked.
    Request(Request<'a>),
    /// The message goes back as it came.
    Bounce,
}

/// Application state over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// Speaks `throng.v1.json`, be it in packets of Socket.IO.
    Json(Status),
    /// Speaks `throng.v1.json` once the client has said who it is.
    Login,
    /// Speaks it in packets of Socket.IO once the client has entered a namespace; whoever it is, that is known.
    Knock,
    /// Listens to an event stream and says nothing.
    Events,
    /// Waits for the answer to its one question.
    Page,
    /// Is none yet: it may become the transport of one that polls.
    Probe,
    /// Sends everything back.
    Echo,
}

impl Session {
    /// A session that has heard nothing yet.
    #[must_use]
    pub const fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Json => Self::Json(Status::Active),
            Protocol::Events => Self::Events,
            Protocol::Packets => Self::Knock,
            Protocol::Page => Self::Page,
            Protocol::Probe => Self::Probe,
            Protocol::Echo => Self::Echo,
        }
    }

    /// Reads a text message.
    ///
    /// # Errors
    /// A message that is not understood; to be answered with [`super::encode::error`].
    pub fn handle_text<'a>(
        self,
        text: &'a str,
        limits: &CommandLimits,
    ) -> Result<Incoming<'a>, CommandError> {
        if self == Self::Echo {
            return Ok(Incoming::Bounce);
        }
        parse(text, limits).map(Incoming::Request)
    }

    /// Reads a binary message, whose bytes no present protocol looks at.
    ///
    /// # Errors
    /// `binary_unsupported` where the protocol is text.
    pub fn handle_binary<'a>(self) -> Result<Incoming<'a>, CommandError> {
        if self == Self::Echo {
            return Ok(Incoming::Bounce);
        }
        let message = format!("{JSON_V1} is text; send this as a text message");
        Err(CommandError::new(Code::BinaryUnsupported, message, None))
    }

    /// The protocol spoken.
    #[must_use]
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::Json(_) | Self::Login => Protocol::Json,
            Self::Knock => Protocol::Packets,
            Self::Events => Protocol::Events,
            Self::Page => Protocol::Page,
            Self::Probe => Protocol::Probe,
            Self::Echo => Protocol::Echo,
        }
    }

    /// The client's status.
    #[must_use]
    pub const fn status(self) -> Status {
        match self {
            Self::Json(status) => status,
            _ => Status::Active,
        }
    }

    /// Notes what the client says of itself; an echo has no status.
    pub fn set_status(&mut self, status: Status) {
        if let Self::Json(old) = self {
            *old = status;
        }
    }
}
