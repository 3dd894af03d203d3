//! From the first byte to an answer: what a request head gets.
//!
//! The same head gets the same answer however it was cut. What arrived of an incomplete one is kept
//! with the mark of how far it was read, so a head that drips in costs no more than one that came whole.
//! This file knows the paths; what a valid upgrade is, `wire::http` knows.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::auth::TOKEN_SUBPROTOCOL;
use crate::connection::disconnect::Disconnect;
use crate::connection::engineio::{self, Ask, Poll, Probe};
use crate::session::{Agreement, Protocol};
use crate::wire::http::{self, Body, Deflate, Head, HeadLimits, Parsed, Refusal, Scan, Upgrade};
use crate::wire::tls;

/// Which path is what, and which listener.
#[derive(Clone, Debug)]
pub struct Routes {
    /// Where sessions begin.
    pub sessions: String,
    /// Where event streams begin; `None`: nowhere.
    pub streams: Option<String>,
    /// Where clients of Socket.IO begin, with the slash at its end that they send; `None`: nowhere.
    pub packets: Option<String>,
    /// Bytes that a client of Socket.IO may bring in one body of long polling; `None`: none may poll.
    pub polling: Option<u64>,
    /// Where rooms are read by plain HTTP; `None`: nowhere.
    pub history: Option<String>,
    /// Where messages bounce, for conformance tests; `None`: nowhere.
    pub echo: Option<String>,
    /// Whether compressed messages are agreed on with who offers them.
    pub deflate: bool,
    /// What is served to whoever asks.
    pub pages: Arc<[Page]>,
    /// What others answer, by how paths begin.
    pub fronts: Arc<[Front]>,
    /// The listener that speaks TLS, and as whom; `None`: none does.
    pub tls: Option<tls::SecureListener>,
}

impl Routes {
    /// True for the path of Socket.IO, be it with the slash at its end or without.
    #[must_use]
    pub fn is_packets(&self, path: &str) -> bool {
        let own = self.packets.as_deref();
        own.is_some_and(|own| path == own || own.strip_suffix('/') == Some(path))
    }
}

/// A document that never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its path.
    pub path: &'static str,
    /// The whole response.
    pub response: Arc<[u8]>,
}

/// Paths whose plain requests somebody else answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Front {
    /// How the paths begin.
    pub path: String,
    /// Bytes that a request's body may have, as far as the request says how many there are.
    pub body_bytes: u64,
    /// True when the socket leaves for whoever answers, with all that comes over it; bodies without a length and
    /// upgrades are then theirs to judge.
    pub leaves: bool,
}

/// A head of which a part has arrived.
#[derive(Debug, Default)]
pub struct HalfHead {
    bytes: Vec<u8>,
    scan: Scan,
}

impl HalfHead {
    /// Bytes that nothing has looked at yet.
    #[must_use]
    pub fn unread(bytes: Vec<u8>) -> Self {
        Self { bytes, scan: Scan::default() }
    }

    /// What arrived so far.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// What a request head gets.
#[derive(Debug)]
pub enum Answer {
    /// More bytes are needed; this is to be kept until they come.
    More(Box<HalfHead>),
    /// The upgrade: this protocol, this response, and how many of the latest bytes were the head's.
    Upgrade {
        /// What the two ends speak from now on.
        protocol: Protocol,
        /// The 101 response.
        response: Vec<u8>,
        /// What follows in the latest bytes is the protocol's.
        used: usize,
        /// Set when the upgrade is made only to say why there will be no session.
        dismissed: Option<Disconnect>,
        /// The power of two of the client's window, where messages may be compressed.
        window: Option<u8>,
        /// What an event stream is to carry; `None` for whoever can ask later.
        wish: Option<Box<Wish>>,
    },
    /// A request that somebody else answers.
    Petition {
        /// What has arrived of it; what follows it may be among that.
        bytes: Vec<u8>,
        /// Bytes of all of it, head and body.
        length: usize,
    },
    /// A request of a client of Socket.IO that polls.
    Poll(Box<Poll>),
    /// A WebSocket that may become the transport of a session of Socket.IO.
    Probe(Box<Probe>),
    /// A request that leaves with its socket.
    Passage {
        /// What has arrived of it, and behind it.
        bytes: Vec<u8>,
        /// The path that it is for, as [`Routes::fronts`] has it.
        front: String,
    },
    /// A page.
    Page(Arc<[u8]>),
    /// The answer to what a browser asks before it asks for a stream.
    Preflight(Vec<u8>),
    /// A refusal.
    Refuse(Refusal),
}

/// What the request for an event stream asks for; there is nothing else by which it could.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The rooms, as named; at least one.
    pub rooms: Vec<String>,
    /// The id of the last event that the client has seen, as it came.
    pub last: Option<String>,
    /// Set when a part of the one room's history is wanted, and nothing else.
    pub page: Option<PageWish>,
}

/// Which part of a room's history is wanted, as the request says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageWish {
    /// Only what came after this event.
    pub since: Option<String>,
    /// Only what has a lower offset.
    pub before: Option<String>,
    /// Publications at most.
    pub limit: Option<String>,
    /// The page that may read the answer; `None` for programs.
    pub origin: Option<String>,
}

/// What whoever watches the door says to a valid upgrade.
#[derive(Debug)]
pub enum Verdict {
    /// Come in.
    Welcome,
    /// No, and this is why.
    Refuse(Refusal),
    /// No, but as scripts in a browser see no response, the upgrade is made and ended for this reason.
    Dismiss(Disconnect),
}

/// What the door is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knock {
    /// Who comes in.
    Enters,
    /// A browser asks whether its page may send a request.
    AsksFirst,
    /// A request for a session that has begun: its id lets in, and only the page counts.
    GoesOn,
    /// A WebSocket that may become the transport of one.
    Probes,
}

/// Watches the door: is asked once for a head that is a valid upgrade, and after all else was found in
/// order, so that nobody is told to come back later with what will be refused then too.
pub type Door<'d> = &'d mut dyn FnMut(Knock, &Head<'_>, &Upgrade<'_>) -> Verdict;

/// Answers a head of which `half` came before and `bytes` now.
#[must_use]
pub fn answer(
    half: Option<Box<HalfHead>>,
    bytes: &[u8],
    limits: &HeadLimits,
    routes: &Routes,
    door: Door<'_>,
) -> Answer {
    let mut half = half;
    let before = half.as_ref().map_or(0, |half| half.bytes.len());
    let mut fresh = Scan::default();
    let (scan, head) = match half.as_deref_mut() {
        Some(HalfHead { bytes: kept, scan }) => {
            // One byte past the limit is enough to know that the head is too long.
            let space = (limits.head_bytes + 1).saturating_sub(kept.len());
            kept.extend_from_slice(&bytes[..bytes.len().min(space)]);
            (scan, kept.as_slice())
        }
        None => (&mut fresh, bytes),
    };
    match read(scan, head, limits, routes, door) {
        Ok(Some(Read::Upgrade { protocol, response, length, dismissed, window, wish })) => {
            let used = length.saturating_sub(before);
            Answer::Upgrade { protocol, response, used, dismissed, window, wish }
        }
        // The half that was kept ends at the limit of heads, and a body may have come behind it.
        Ok(Some(Read::Petition { length })) => {
            Answer::Petition { bytes: so_far(half.as_deref(), before, bytes), length }
        }
        Ok(Some(Read::Passage { front })) => {
            Answer::Passage { bytes: so_far(half.as_deref(), before, bytes), front }
        }
        Ok(Some(Read::Poll { ask, origin, head, length })) => {
            let bytes = so_far(half.as_deref(), before, bytes);
            Answer::Poll(Box::new(Poll { ask, origin, bytes, head, length }))
        }
        Ok(Some(Read::Probe { session, offer: (response, window), head })) => {
            let bytes = so_far(half.as_deref(), before, bytes);
            Answer::Probe(Box::new(Probe { session, response, window, bytes, head }))
        }
        Ok(Some(Read::Preflight(response))) => Answer::Preflight(response),
        Ok(Some(Read::Page(page))) => Answer::Page(page),
        Ok(None) => Answer::More(
            half.unwrap_or_else(|| Box::new(HalfHead { bytes: bytes.to_vec(), scan: fresh })),
        ),
        Err(refusal) => Answer::Refuse(refusal),
    }
}

fn so_far(half: Option<&HalfHead>, before: usize, bytes: &[u8]) -> Vec<u8> {
    let first = half.map_or(&[][..], |half| &half.bytes[..before]);
    [first, bytes].concat()
}

pub(super) enum Read {
    Upgrade {
        protocol: Protocol,
        response: Vec<u8>,
        length: usize,
        dismissed: Option<Disconnect>,
        window: Option<u8>,
        wish: Option<Box<Wish>>,
    },
    Petition {
        length: usize,
    },
    Passage {
        front: String,
    },
    Poll {
        ask: Ask,
        origin: Option<String>,
        head: usize,
        length: usize,
    },
    Probe {
        session: String,
        offer: (Vec<u8>, Option<u8>),
        head: usize,
    },
    Page(Arc<[u8]>),
    Preflight(Vec<u8>),
}

fn read(
    scan: &mut Scan,
    bytes: &[u8],
    limits: &HeadLimits,
    routes: &Routes,
    door: Door<'_>,
) -> Result<Option<Read>, Refusal> {
    let Some(parsed) = http::parse_more(scan, bytes, limits)? else { return Ok(None) };
    let path = parsed.head.path();
    if routes.streams.as_deref() == Some(path) {
        return stream(&parsed, door).map(Some);
    }
    if routes.history.as_deref() == Some(path) {
        return reading(&parsed, door).map(Some);
    }
    if routes.is_packets(path) {
        return engineio::read(&parsed, routes, door).map(Some);
    }
    let echo = routes.echo.as_deref() == Some(path);
    if !echo && path != routes.sessions {
        if let Some(front) = front(path, routes) {
            return petition(&parsed, front).map(Some);
        }
        return page(&parsed.head, routes).map(Some);
    }
    let upgrade = http::upgrade(&parsed.head)?;
    let (protocol, named) = if echo {
        (Protocol::Echo, None)
    } else {
        let agreement = agree(&upgrade.protocols)?;
        (agreement.protocol, agreement.echo)
    };
    let dismissed = match door(Knock::Enters, &parsed.head, &upgrade) {
        Verdict::Welcome => None,
        Verdict::Refuse(refusal) => return Err(refusal),
        Verdict::Dismiss(why) => Some(why),
    };
    let (response, window) = switching(&upgrade, named, routes);
    let length = parsed.length;
    Ok(Some(Read::Upgrade { protocol, response, length, dismissed, window, wish: None }))
}

/// The 101 response, and the client's window where messages may be compressed.
pub(super) fn switching(
    upgrade: &Upgrade<'_>,
    protocol: Option<&str>,
    routes: &Routes,
) -> (Vec<u8>, Option<u8>) {
    let deflate = routes.deflate.then(|| Deflate::of(upgrade)).flatten();
    (http::switching(upgrade, protocol, deflate), deflate.map(Deflate::window_bits))
}

/// The front that a path belongs to: the one that says most of it.
fn front<'r>(path: &str, routes: &'r Routes) -> Option<&'r Front> {
    let fitting = routes.fronts.iter().filter(|front| path.starts_with(&front.path));
    fitting.max_by_key(|front| front.path.len())
}

/// What a request that somebody else answers comes to, once its head is here.
fn petition(parsed: &Parsed<'_>, front: &Front) -> Result<Read, Refusal> {
    let head = &parsed.head;
    if !front.leaves && head.values("upgrade").next().is_some() {
        return Err(Refusal::not_found());
    }
    let body = match head.body() {
        Body::None => 0,
        Body::Length(bytes) => bytes,
        Body::Chunked if front.leaves => 0,
        Body::Chunked => return Err(Refusal::length_required()),
    };
    let too_large =
        || Refusal::too_large(format!("the body has more than {} bytes", front.body_bytes));
    if body > front.body_bytes {
        return Err(too_large());
    }
    if front.leaves {
        return Ok(Read::Passage { front: front.path.clone() });
    }
    let body = usize::try_from(body).map_err(|_| too_large())?;
    Ok(Read::Petition { length: parsed.length + body })
}

fn knock(asks_first: bool) -> Knock {
    if asks_first { Knock::AsksFirst } else { Knock::Enters }
}

/// Answers the request for an event stream, or what a browser asks before it.
fn stream(parsed: &Parsed<'_>, door: Door<'_>) -> Result<Read, Refusal> {
    let head = &parsed.head;
    let request = http::stream_request(head)?;
    let asks_first = head.method() == "OPTIONS";
    let wish = if asks_first { Wish::default() } else { wish(head)? };
    let dismissed = match door(knock(asks_first), head, &request) {
        Verdict::Welcome => None,
        Verdict::Refuse(refusal) => return Err(refusal),
        Verdict::Dismiss(why) => Some(why),
    };
    if asks_first {
        return Ok(Read::Preflight(http::preflight(request.origin)));
    }
    Ok(Read::Upgrade {
        protocol: Protocol::Events,
        response: http::stream(request.origin),
        length: parsed.length,
        dismissed,
        window: None,
        wish: Some(Box::new(wish)),
    })
}

/// Answers the request for a part of a room's history, or what a browser asks before it.
fn reading(parsed: &Parsed<'_>, door: Door<'_>) -> Result<Read, Refusal> {
    let head = &parsed.head;
    let request = http::stream_request(head)?;
    let asks_first = head.method() == "OPTIONS";
    let wish = if asks_first { Wish::default() } else { page_wish(head, request.origin)? };
    match door(knock(asks_first), head, &request) {
        Verdict::Welcome => {}
        Verdict::Refuse(refusal) => return Err(refusal),
        Verdict::Dismiss(why) => return Err(plain(why)),
    }
    if asks_first {
        return Ok(Read::Preflight(http::preflight(request.origin)));
    }
    Ok(Read::Upgrade {
        protocol: Protocol::Page,
        response: Vec::new(),
        length: parsed.length,
        dismissed: None,
        window: None,
        wish: Some(Box::new(wish)),
    })
}

/// The plain answer to one who would be told by a close frame elsewhere. Scripts see its status, so nothing need be
/// opened to tell them.
pub(super) fn plain(why: Disconnect) -> Refusal {
    match why {
        Disconnect::Denied(error) => Refusal::unauthorized(error.public(), true),
        why => Refusal::unavailable(why.return_after()),
    }
}

fn page_wish(head: &Head<'_>, origin: Option<&str>) -> Result<Wish, Refusal> {
    let mut wish = Wish::default();
    let mut page = PageWish { origin: origin.map(str::to_owned), ..PageWish::default() };
    for (name, value) in form_urlencoded::parse(head.query().unwrap_or_default().as_bytes()) {
        let value = value.into_owned();
        match &*name {
            "room" => wish.rooms.push(value),
            "since" => page.since = Some(value),
            "before" => page.before = Some(value),
            "limit" => page.limit = Some(value),
            _ => {}
        }
    }
    if wish.rooms.len() != 1 {
        return Err(Refusal::bad_request("name one room to read, as in ?room=lobby"));
    }
    wish.page = Some(page);
    Ok(wish)
}

fn wish(head: &Head<'_>) -> Result<Wish, Refusal> {
    let mut wish = Wish::default();
    for (name, value) in form_urlencoded::parse(head.query().unwrap_or_default().as_bytes()) {
        match &*name {
            "room" => wish.rooms.push(value.into_owned()),
            // For those who cannot set a header and begin where they have left off.
            "lastEventId" => wish.last = Some(value.into_owned()),
            _ => {}
        }
    }
    if wish.rooms.is_empty() {
        let message = "name the rooms to listen to, as in ?room=lobby&room=news";
        return Err(Refusal::bad_request(message));
    }
    if let Some(last) = head.only("Last-Event-ID")? {
        wish.last = str::from_utf8(last).ok().map(str::to_owned);
    }
    Ok(wish)
}

/// What both ends will speak. A subprotocol that is a token is none, and is never named in the answer; a
/// client that offers nothing else would fail a connection whose answer names nothing.
fn agree(offered: &[&str]) -> Result<Agreement, Refusal> {
    let spoken: SmallVec<[&str; 4]> =
        offered.iter().copied().filter(|name| !name.starts_with(TOKEN_SUBPROTOCOL)).collect();
    let known = Protocol::from_subprotocol(&spoken);
    known.filter(|_| offered.is_empty() || !spoken.is_empty()).ok_or_else(|| {
        Refusal::bad_request("none of the offered subprotocols is known; throng.v1.json is")
    })
}

fn page(head: &Head<'_>, routes: &Routes) -> Result<Read, Refusal> {
    let asks_upgrade = head.values("upgrade").next().is_some();
    let found = routes.pages.iter().find(|page| page.path == head.path() && !asks_upgrade);
    let Some(page) = found else { return Err(Refusal::not_found()) };
    if head.method() != "GET" {
        return Err(Refusal::method_not_allowed("GET"));
    }
    head.refuse_body()?;
    Ok(Read::Page(Arc::clone(&page.response)))
}
