//! What clients of Socket.IO ask for: sessions, what is said in them, and another transport for one.
//!
//! All of it comes to one path, and the query says what it is. A WebSocket without a session begins one, as a first
//! request of long polling does; a WebSocket that names a session may become its transport. What is wrong with a
//! request is said by the numbers that Engine.IO has for it.

use std::borrow::Cow;

use crate::connection::opening::{Door, Knock, Read, Routes, Verdict, plain, switching};
use crate::session::Protocol;
use crate::wire::http::{self, Body, Head, Parsed, Refusal, Upgrade};

/// A request of long polling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poll {
    /// What it is about.
    pub ask: Ask,
    /// The page that asks; `None` for programs.
    pub origin: Option<String>,
    /// What has arrived of it; what follows it may be among that.
    pub bytes: Vec<u8>,
    /// Bytes of its head.
    pub head: usize,
    /// Bytes of all of it, head and body.
    pub length: usize,
}

/// What a request of long polling is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A session.
    Begin,
    /// What is to be said in the session of that id, as soon as there is something.
    Fetch(String),
    /// It brings what the client says in that session.
    Bring(String),
}

/// A WebSocket that a client of Socket.IO tries for a session that polls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The session, as the client names it.
    pub session: String,
    /// The 101 response.
    pub response: Vec<u8>,
    /// The power of two of the client's window, where messages may be compressed.
    pub window: Option<u8>,
    /// What has arrived, the request included.
    pub bytes: Vec<u8>,
    /// Bytes of the request.
    pub head: usize,
}

/// Answers the request of a client of Socket.IO. What its transport has numbers for is said with them, and
/// the rest is a handshake like any other.
pub(super) fn read(parsed: &Parsed<'_>, routes: &Routes, door: Door<'_>) -> Result<Read, Refusal> {
    let head = &parsed.head;
    let (mut version, mut transport) = (None, None);
    for (name, value) in form_urlencoded::parse(head.query().unwrap_or_default().as_bytes()) {
        match &*name {
            "EIO" => version = Some(value),
            "transport" => transport = Some(value),
            _ => {}
        }
    }
    let session = session(head).map(Cow::into_owned);
    if version.as_deref() != Some("4") {
        return Err(Refusal::engineio(http::EIO_VERSION, "Unsupported protocol version"));
    }
    if let (Some("polling"), Some(most)) = (transport.as_deref(), routes.polling) {
        return poll(parsed, session, most, door);
    }
    if transport.as_deref() != Some("websocket") {
        return Err(Refusal::engineio(http::EIO_TRANSPORT, "Transport unknown"));
    }
    if let Some(session) = session {
        // A session that never polled has its transport already.
        let unknown = Refusal::engineio(http::EIO_SESSION, "Session ID unknown");
        return routes.polling.map_or(Err(unknown), |_| probe(parsed, session, routes, door));
    }
    let upgrade = http::upgrade(head)?;
    let dismissed = match door(Knock::Enters, head, &upgrade) {
        Verdict::Welcome => None,
        Verdict::Refuse(refusal) => return Err(refusal),
        Verdict::Dismiss(why) => Some(why),
    };
    let (response, window) = switching(&upgrade, None, routes);
    Ok(Read::Upgrade {
        protocol: Protocol::Packets,
        response,
        length: parsed.length,
        dismissed,
        window,
        wish: None,
    })
}

/// The session that a request names.
#[must_use]
pub fn session<'h>(head: &Head<'h>) -> Option<Cow<'h, str>> {
    let query = head.query().unwrap_or_default();
    let named = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "sid");
    named.last().map(|(_, value)| value)
}

/// What a WebSocket for a session that polls comes to.
fn probe(
    parsed: &Parsed<'_>,
    session: String,
    routes: &Routes,
    door: Door<'_>,
) -> Result<Read, Refusal> {
    let upgrade = http::upgrade(&parsed.head)?;
    match door(Knock::Probes, &parsed.head, &upgrade) {
        Verdict::Welcome => {}
        Verdict::Refuse(refusal) => return Err(refusal),
        // The library shows nothing of it, and the session goes on as it does.
        Verdict::Dismiss(why) => return Err(plain(why)),
    }
    let offer = switching(&upgrade, None, routes);
    Ok(Read::Probe { session, offer, head: parsed.length })
}

/// What a request of long polling comes to, once its head is here. Who begins a session is judged where it begins,
/// and the id of one is what lets in afterwards, from pages that are welcome.
fn poll(
    parsed: &Parsed<'_>,
    session: Option<String>,
    most: u64,
    door: Door<'_>,
) -> Result<Read, Refusal> {
    let head = &parsed.head;
    if head.method() == "OPTIONS" {
        let request = http::stream_request(head)?;
        return match door(Knock::AsksFirst, head, &request) {
            Verdict::Welcome => {
                Ok(Read::Preflight(http::preflight_of("GET, POST", request.origin)))
            }
            Verdict::Refuse(refusal) => Err(refusal),
            Verdict::Dismiss(why) => Err(plain(why)),
        };
    }
    let origin = http::origin(head)?;
    let (ask, body) = match (head.method(), session) {
        ("GET", None) => (Ask::Begin, 0),
        ("GET", Some(session)) => (Ask::Fetch(session), 0),
        ("POST", Some(session)) => match head.body() {
            Body::None => (Ask::Bring(session), 0),
            Body::Length(bytes) => (Ask::Bring(session), bytes),
            Body::Chunked => return Err(Refusal::length_required()),
        },
        _ => return Err(Refusal::engineio(http::EIO_METHOD, "Bad handshake method")),
    };
    if !matches!(ask, Ask::Bring(_)) {
        head.refuse_body()?;
    }
    if ask != Ask::Begin
        && let Verdict::Refuse(refusal) =
            door(Knock::GoesOn, head, &Upgrade { origin, ..Upgrade::none() })
    {
        return Err(refusal);
    }
    let too_large = || Refusal::too_large(format!("a body may have {most} bytes here"));
    let body = usize::try_from(body).ok().filter(|bytes| *bytes as u64 <= most);
    let length = parsed.length + body.ok_or_else(too_large)?;
    Ok(Read::Poll { ask, origin: origin.map(str::to_owned), head: parsed.length, length })
}
