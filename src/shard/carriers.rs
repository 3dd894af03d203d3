//! What stands in the place of a socket where a client polls.
//!
//! A session of long polling is a connection like any other, with a place in the table, a queue, deadlines and limits,
//! but no socket: requests come and go, and it stays. Instead of the driver a carrier takes its operations. A write
//! stays with the carrier, in flight as far as the connection can tell, until a request comes for it; so a client
//! that does not come fills its queue and is a slow consumer like one that does not read. What a request brings
//! is handed to the connection as frames. So everything above is the code of WebSockets, and the rules are the
//! same.
//!
//! Here is what carriers know and the bytes on both sides of them. Nothing here acts; `polling` does.

use std::collections::VecDeque;
use std::fmt::Write as _;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::base::id::{ConnAddress, ConnId};
use crate::base::map::{Map, Seed};
use crate::connection::Poll;
use crate::contract::{Op, SendBatch};
use crate::shard::probes::{Probes, Stage};
use crate::wire::{engineio, http};

/// Bytes of bodies that a shard gathers at one time, those included that are still to come.
const MOST_BYTES: usize = 16 << 20;

/// A request of long polling, on the shard that its socket belongs to.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) conn: ConnId,
    pub(super) poll: Poll,
    /// All of it is here and on its way to its session.
    pub(super) is_sent: bool,
    /// Its session was asked to say something, as the request cannot wait any longer.
    pub(super) is_late: bool,
}

/// Something that a client has brought, and where the answer goes.
#[derive(Debug)]
struct Brought {
    to: ConnAddress,
    body: Vec<u8>,
}

/// One session that polls.
#[derive(Debug)]
struct Carrier {
    conn: ConnId,
    /// What stands behind its address in its id; whoever knows that is let into the session.
    secret: u128,
    /// The page whose it is; `None` for a program.
    origin: Option<Box<str>>,
    /// The request that waits for something to be said.
    waiting: Option<ConnAddress>,
    /// What awaits that the connection is read from again.
    brought: Option<Brought>,
    /// What is to be said next.
    said: Option<SendBatch>,
    state: State,
}

/// What the connection has asked of its carrier besides.
#[derive(Debug, Default)]
struct State {
    is_paused: bool,
    /// Its FIN: nothing more will be said.
    has_ended: bool,
    /// It asks whether anything lies unread.
    looks: bool,
    /// It is to go; with a reset when true.
    released: Option<bool>,
    /// Its place is on the list.
    is_listed: bool,
}

/// What a carrier has to do next.
#[derive(Debug)]
pub(super) enum Step {
    /// A request is to be answered with this.
    Say { to: ConnAddress, origin: Option<Box<str>>, batch: SendBatch },
    /// The connection hears this, and the request is answered.
    Hear { to: ConnAddress, origin: Option<Box<str>>, body: Vec<u8> },
    /// The connection hears that nothing lies unread.
    Look,
    /// The connection hears that the client has ended.
    End,
    /// The connection is gone, and so is its carrier; a request may still wait.
    Gone { to: Option<ConnAddress>, origin: Option<Box<str>> },
}

/// What a carrier leaves to the socket that takes its place.
#[derive(Debug)]
pub(super) struct Left {
    /// What is to be said next.
    pub(super) said: Option<SendBatch>,
    /// What is to be done behind that, in order.
    pub(super) ops: Vec<Op>,
}

/// The sessions that poll, and their requests.
#[derive(Debug)]
pub(super) struct Carriers {
    key: hmac::Key,
    /// By the connections' places.
    carriers: Map<u32, Carrier>,
    /// By the places of the connections that ask.
    requests: Map<u32, Request>,
    /// Bytes of bodies that are gathered.
    bytes: usize,
    /// Carriers that may have something to do.
    ready: VecDeque<u32>,
    /// WebSockets that may take the place of carriers.
    pub(super) probes: Probes,
}

impl Carriers {
    /// No sessions; `number` is known to nobody else.
    pub(super) fn new(seed: &Seed, number: u64) -> Self {
        let parts = [0, 1, 2].map(|part: u64| seed.hash_one(("polling", number, part)));
        let bytes: Vec<u8> =
            parts.iter().chain([&number]).flat_map(|part| part.to_le_bytes()).collect();
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &bytes),
            carriers: seed.map(),
            requests: seed.map(),
            bytes: 0,
            ready: VecDeque::new(),
            probes: Probes::new(seed),
        }
    }

    /// Sessions that poll.
    pub(super) fn len(&self) -> usize {
        self.carriers.len()
    }

    /// What they hold, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        let brought = |carrier: &Carrier| carrier.brought.as_ref().map_or(0, |one| one.body.len());
        (self.bytes + self.carriers.values().map(brought).sum::<usize>()) as u64
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// A session begins for which a request waits.
    pub(super) fn begin(&mut self, own: ConnAddress, to: ConnAddress, origin: Option<&str>) {
        let mut secret = [0; 16];
        let tag = hmac::sign(&self.key, own.to_string().as_bytes());
        secret.copy_from_slice(&tag.as_ref()[..16]);
        let carrier = Carrier {
            conn: own.conn,
            secret: u128::from_be_bytes(secret),
            origin: origin.map(Box::from),
            waiting: Some(to),
            brought: None,
            said: None,
            state: State::default(),
        };
        self.carriers.insert(own.conn.index, carrier);
    }

    /// The id of the session on the connection at that address; `None` when it does not poll.
    pub(super) fn session(&self, own: ConnAddress) -> Option<String> {
        let carrier = self.carriers.get(&own.conn.index).filter(|one| one.conn == own.conn)?;
        Some(format!("{own}_{:032x}", carrier.secret))
    }

    /// Where the session of that id lives, as it says, and what else it has to be right about.
    pub(super) fn parse(session: &str) -> Option<(ConnAddress, u128)> {
        let (address, secret) = session.split_once('_')?;
        let is_whole = secret.len() == 32 && !secret.starts_with('+');
        let secret = u128::from_str_radix(secret, 16).ok().filter(|_| is_whole)?;
        Some((address.parse().ok()?, secret))
    }

    /// True when there is that session.
    pub(super) fn knows(&self, conn: ConnId, secret: u128) -> bool {
        let carrier = self.carriers.get(&conn.index).filter(|carrier| carrier.conn == conn);
        carrier.is_some_and(|carrier| carrier.secret == secret && carrier.state.released.is_none())
    }

    /// A request waits for what the session says next. The one that waited before, which is to be answered with
    /// nothing: whoever asks again does not read the older answer.
    pub(super) fn fetch(&mut self, conn: ConnId, to: ConnAddress) -> Option<ConnAddress> {
        let before = self.carriers.get_mut(&conn.index)?.waiting.replace(to);
        self.enlist(conn.index);
        before.filter(|before| *before != to)
    }

    /// The request can wait no longer: it is taken out and to be answered, unless it has been.
    pub(super) fn hurry(&mut self, conn: ConnId, to: ConnAddress) -> bool {
        let carrier = self.carriers.get_mut(&conn.index).filter(|carrier| carrier.conn == conn);
        carrier.is_some_and(|carrier| carrier.waiting.take_if(|waiting| *waiting == to).is_some())
    }

    /// A request brings something. False when the one before has not been heard yet, which no client waits for.
    pub(super) fn bring(&mut self, conn: ConnId, to: ConnAddress, body: Vec<u8>) -> bool {
        let Some(carrier) = self.carriers.get_mut(&conn.index) else { return false };
        if carrier.brought.is_some() {
            return false;
        }
        carrier.brought = Some(Brought { to, body });
        self.enlist(conn.index);
        true
    }

    /// True unless a session that a page has begun is asked for by another page.
    pub(super) fn is_for(&self, conn: ConnId, origin: Option<&str>) -> bool {
        let own = self.carriers.get(&conn.index).and_then(|carrier| carrier.origin.as_deref());
        own.is_none() || origin.is_none() || own == origin
    }

    /// The request that waits for something to be said, which is not said to it any more.
    pub(super) fn take_waiting(&mut self, conn: ConnId) -> Option<ConnAddress> {
        self.carriers.get_mut(&conn.index)?.waiting.take()
    }

    /// What was brought and not heard yet, and where the answer goes.
    pub(super) fn take_brought(&mut self, conn: ConnId) -> Option<(ConnAddress, Vec<u8>)> {
        let brought = self.carriers.get_mut(&conn.index)?.brought.take()?;
        Some((brought.to, brought.body))
    }

    /// True when requests say and bring nothing any more, as the session goes on by WebSocket.
    pub(super) fn is_switching(&self, conn: ConnId) -> bool {
        self.probes.of(conn).is_some_and(|(_, stage)| stage == Stage::Switching)
    }

    /// A socket takes the place of the carrier, if there is one still.
    pub(super) fn dissolve(&mut self, conn: ConnId) -> Option<Left> {
        self.carriers.get(&conn.index).filter(|carrier| carrier.conn == conn)?;
        let Carrier { said, state, .. } = self.carriers.remove(&conn.index)?;
        let ops = [
            state.is_paused.then_some(Op::PauseReads { conn }),
            state.looks.then_some(Op::Look { conn }),
            state.has_ended.then_some(Op::ShutdownWrite { conn }),
            state.released.map(|abort| Op::Close { conn, abort }),
        ];
        // What a reset would lose is not begun.
        let said = said.filter(|_| state.released.is_none());
        Some(Left { said, ops: ops.into_iter().flatten().collect() })
    }

    /// The page that may read what the session is told, if this one may.
    pub(super) fn origin(&self, conn: ConnId) -> Option<Box<str>> {
        self.carriers.get(&conn.index)?.origin.clone()
    }

    /// Takes an operation on a connection that a carrier is the socket of.
    pub(super) fn take(&mut self, op: Op) -> Result<(), Op> {
        let conn = match &op {
            Op::Send { conn, .. }
            | Op::ShutdownWrite { conn }
            | Op::PauseReads { conn }
            | Op::ResumeReads { conn }
            | Op::Look { conn }
            | Op::Close { conn, .. } => *conn,
            _ => return Err(op),
        };
        let own = self.carriers.get_mut(&conn.index).filter(|carrier| carrier.conn == conn);
        let Some(carrier) = own else { return Err(op) };
        match op {
            Op::Send { batch, .. } => carrier.said = Some(batch),
            Op::ShutdownWrite { .. } => carrier.state.has_ended = true,
            Op::PauseReads { .. } => carrier.state.is_paused = true,
            Op::ResumeReads { .. } => carrier.state.is_paused = false,
            Op::Look { .. } => carrier.state.looks = true,
            Op::Close { abort, .. } => carrier.state.released = Some(abort),
            other => return Err(other),
        }
        self.enlist(conn.index);
        Ok(())
    }

    /// A carrier that may have something to do; each is given out once for each time that it was listed.
    pub(super) fn pop(&mut self) -> Option<ConnId> {
        while let Some(index) = self.ready.pop_front() {
            if let Some(carrier) = self.carriers.get_mut(&index) {
                carrier.state.is_listed = false;
                return Some(carrier.conn);
            }
        }
        None
    }

    /// How many [`Carriers::pop`] may give out.
    pub(super) fn listed(&self) -> usize {
        self.ready.len()
    }

    /// What the carrier of that connection has to do next; `None` when nothing.
    pub(super) fn step(&mut self, conn: ConnId) -> Option<Step> {
        let carrier = self.carriers.get_mut(&conn.index).filter(|carrier| carrier.conn == conn)?;
        if carrier.state.released == Some(true) {
            // What was to be said is lost, as it is where a socket is reset.
            carrier.said = None;
        }
        let is_switching = self.probes.of(conn).is_some_and(|(_, stage)| stage == Stage::Switching);
        if is_switching && (carrier.state.released.is_none() || carrier.said.is_some()) {
            return None;
        }
        if let Some(to) = carrier.waiting.take_if(|_| carrier.said.is_some())
            && let Some(batch) = carrier.said.take()
        {
            return Some(Step::Say { to, origin: carrier.origin.clone(), batch });
        }
        if carrier.state.released.is_some() && carrier.said.is_none() {
            let carrier = self.carriers.remove(&conn.index)?;
            let to = carrier.waiting.or(carrier.brought.map(|brought| brought.to));
            return Some(Step::Gone { to, origin: carrier.origin });
        }
        if std::mem::take(&mut carrier.state.looks) {
            return Some(Step::Look);
        }
        if carrier.state.has_ended && carrier.said.is_none() {
            carrier.state.has_ended = false;
            return Some(Step::End);
        }
        let brought = carrier.brought.take_if(|_| !carrier.state.is_paused)?;
        Some(Step::Hear { to: brought.to, origin: carrier.origin.clone(), body: brought.body })
    }

    fn enlist(&mut self, index: u32) {
        if let Some(carrier) = self.carriers.get_mut(&index)
            && !std::mem::replace(&mut carrier.state.is_listed, true)
        {
            self.ready.push_back(index);
        }
    }

    /// Keeps a request. False when so much is gathered that it has no space.
    pub(super) fn ask(&mut self, conn: ConnId, poll: Poll) -> bool {
        if self.bytes + poll.length > MOST_BYTES {
            return false;
        }
        self.bytes += poll.length;
        let request = Request { conn, poll, is_sent: false, is_late: false };
        self.requests.insert(conn.index, request);
        true
    }

    /// The request on that connection.
    pub(super) fn request(&mut self, conn: ConnId) -> Option<&mut Request> {
        self.requests.get_mut(&conn.index).filter(|request| request.conn == conn)
    }

    /// True while the connection is there for a request only.
    pub(super) fn is_request(&self, conn: ConnId) -> bool {
        self.requests.get(&conn.index).is_some_and(|request| request.conn == conn)
    }

    /// The connection has ended.
    pub(super) fn forget(&mut self, conn: ConnId) {
        if self.is_request(conn)
            && let Some(request) = self.requests.remove(&conn.index)
        {
            self.bytes -= request.poll.length;
        }
    }

    /// Asserts what holds between any two events. `is_carried` says it of a connection that is there.
    ///
    /// # Panics
    /// When it does not hold.
    pub(super) fn check(
        &self,
        is_carried: impl Fn(ConnId) -> bool,
        is_there: impl Fn(ConnId) -> bool,
    ) {
        for carrier in self.carriers.values() {
            assert!(is_carried(carrier.conn), "a carrier of nobody: {carrier:?}");
            let is_listed = self.ready.contains(&carrier.conn.index);
            assert!(
                is_listed || !carrier.state.is_listed,
                "a carrier that is on no list: {carrier:?}"
            );
        }
        for request in self.requests.values() {
            assert!(is_there(request.conn), "a request of nobody: {request:?}");
        }
        let bytes: usize = self.requests.values().map(|request| request.poll.length).sum();
        assert_eq!(bytes, self.bytes, "bytes of requests");
    }
}

/// What a session says, as the body of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Packets; and whether the session has said its last.
    Packets { body: Vec<u8>, is_last: bool },
    /// The session has not begun: this is the whole answer.
    Refused(Vec<u8>),
}

/// Reads what the connection has written.
pub(super) fn said(written: &[u8]) -> Said {
    let mut rest = written;
    if rest.starts_with(b"HTTP/1.1 ") {
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end.filter(|_| rest.starts_with(b"HTTP/1.1 101 ")) else {
            return Said::Refused(written.to_vec());
        };
        rest = &rest[end + 4..];
    }
    let (mut body, mut is_last) = (Vec::new(), false);
    while let Some((opcode, payload, behind)) = split(rest) {
        match opcode {
            TEXT => engineio::append(&mut body, payload),
            CLOSE => {
                is_last = true;
                engineio::append(&mut body, engineio::CLOSE);
            }
            _ => {}
        }
        rest = behind;
    }
    if body.is_empty() {
        body.extend_from_slice(engineio::NOOP);
    }
    Said::Packets { body, is_last }
}

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;

/// The first frame of our own: its opcode, its payload, and what stands behind it.
fn split(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = match head[1] {
        126 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        127 => {
            let (length, rest) = rest.split_first_chunk::<8>()?;
            (usize::try_from(u64::from_be_bytes(*length)).ok()?, rest)
        }
        length => (usize::from(length), rest),
    };
    let (payload, behind) = rest.split_at_checked(length)?;
    Some((head[0] & 0x0f, payload, behind))
}

/// What a body brings, as the frames in which a client would have sent it.
pub(super) fn frames(body: &[u8]) -> Vec<u8> {
    let mut frames = Vec::with_capacity(body.len() + 16);
    for packet in body.split(|byte| *byte == engineio::SEPARATOR) {
        // A binary message is the letter b and base64 here. One that is none is heard as the text that it is.
        let binary = packet.strip_prefix(b"b").and_then(|text| STANDARD.decode(text).ok());
        match binary {
            Some(bytes) => frame(BINARY, &bytes, &mut frames),
            None => frame(TEXT, packet, &mut frames),
        }
    }
    frames
}

/// The close frame of a client that answers ours.
pub(super) fn goodbye() -> Vec<u8> {
    let mut frames = Vec::new();
    frame(CLOSE, &[], &mut frames);
    frames
}

/// Appends a frame with a mask that changes nothing.
fn frame(opcode: u8, payload: &[u8], frames: &mut Vec<u8>) {
    frames.push(0x80 | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ 0..126), _) => frames.push(0x80 | length),
        (_, Ok(length)) => {
            frames.push(0x80 | 126);
            frames.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            frames.push(0x80 | 127);
            frames.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frames.extend_from_slice(&[0; 4]);
    frames.extend_from_slice(payload);
}

/// The handshake of a WebSocket that stands for the request which begins a session: the same target and headers, so
/// that the door has the same to judge. `None` when the request does not name its transport as it is.
pub(super) fn handshake(head: &[u8]) -> Option<Vec<u8>> {
    const OWN: [&str; 3] = ["connection", "upgrade", "content-length"];
    let text = str::from_utf8(head).ok()?;
    let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let first = lines.next()?;
    let target = first.strip_prefix("GET ")?.rsplit_once(' ')?.0;
    if target.matches("transport=polling").count() != 1 {
        return None;
    }
    let target = target.replace("transport=polling", "transport=websocket");
    let mut out = format!("GET {target} HTTP/1.1\r\n");
    let (mut origin, mut host, mut is_own_page) = (false, None, false);
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        let name = name.to_ascii_lowercase();
        if OWN.contains(&&*name) || name.starts_with("sec-websocket-") {
            continue;
        }
        origin |= name == "origin";
        is_own_page |= name == http::FETCH_SITE && value.trim() == http::SAME_ORIGIN;
        if name == "host" {
            host = Some(value.trim());
        }
        out.push_str(line);
        out.push_str("\r\n");
    }
    // A page names itself in a GET of its own origin by this header alone, which no script can set.
    if let Some(host) = host.filter(|_| is_own_page && !origin) {
        // Writing to memory cannot fail.
        let _ = write!(out, "Origin: {}\r\n", http::own_origin(host));
    }
    out.push_str(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    );
    Some(out.into_bytes())
}

/// Everything a batch has.
pub(super) fn written(batch: &SendBatch) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(batch.left());
    batch.slices().for_each(|slice| bytes.extend_from_slice(slice));
    bytes
}

#[cfg(test)]
#[path = "carriers_tests.rs"]
mod tests;
