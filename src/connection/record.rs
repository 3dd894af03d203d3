//! The record of a connection: 64 bytes, and nothing else while it is idle.
//!
//! A million of these stand in slabs, so every field is weighed. What only some connections need at
//! some times lies elsewhere: a half-read head or message in a box that exists while it is half-read,
//! queued frames in the shard's arena, memberships in the hub, the deadline in the wheel. The layout is
//! in `docs/architecture.md`; a test holds the size.

use crate::base::id::ConnId;
use crate::base::time::Tick;
use crate::connection::closing::{Closing, Stage};
use crate::connection::opening::HalfHead;
use crate::contract::{Op, SendBatch};
use crate::flow::outbound::{Outbound, Store};
use crate::hub::MemberRef;
use crate::session::{Protocol, Session};
use crate::wire::websocket::Decoder;

/// Where a connection is in its life.
#[derive(Debug)]
pub enum Phase {
    /// The request head is being read.
    Opening {
        /// What arrived of a head that is not complete yet; `None` while nothing did.
        head: Option<Box<HalfHead>>,
    },
    /// The handshake is done and no end has begun.
    Open(Open),
    /// The end has begun.
    Closing(Closing),
}

/// The state of an open connection.
#[derive(Debug)]
pub struct Open {
    /// What the two ends speak, and what the session remembers.
    pub session: Session,
    /// When a ping was last queued; `Tick(0)` before the first.
    pub pinged: Tick,
    /// When the last data message arrived.
    pub active: Tick,
}

/// Why reads are paused; each reason is lifted by the one who set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Pause {
    /// The outbound queue is over its high water mark.
    Congested = 1,
    /// The connection publishes and mail to another shard is parked.
    Mail = 2,
    /// Its TLS handshake waits for a turn with time for it.
    Handshake = 32,
    /// It has sent more than its rate allows and waits until that is earned back.
    Rate = 128,
    /// It publishes and memory is short.
    Memory = 256,
}

/// What stands between a connection's queue and the kernel besides the queue's own write in flight.
#[derive(Clone, Copy, Debug)]
pub struct Lane {
    /// What is queued can be written.
    pub is_open: bool,
    /// Nothing is written or to be written that the queue does not know of.
    pub is_idle: bool,
}

impl Lane {
    /// Nothing.
    pub const PLAIN: Self = Self { is_open: true, is_idle: true };
}

const TOLD_PAUSED: u16 = 4;
const QUEUED: u16 = 8;
/// Set with a pause, and cleared by the first look at the deadlines after its end.
const WAS_PAUSED: u16 = 16;
const PAUSES: u16 = Pause::Congested as u16
    | Pause::Mail as u16
    | Pause::Handshake as u16
    | Pause::Rate as u16
    | Pause::Memory as u16;
/// What goes over the wire is sealed: the shard has a TLS layer for it, or will have with its first byte.
const SECURE: u16 = 64;
/// It listens to an event stream, or did before its end began.
const STREAM: u16 = 512;
/// It speaks in packets of Socket.IO, or did before its end began.
const PACKETS: u16 = 1024;
/// It has no socket; whatever it says waits for a request.
const CARRIED: u16 = 2048;

/// The power of two of the peer's window for compressed messages, less 7, in the four highest bits; 0 where none are
/// agreed on.
const WINDOW_SHIFT: u32 = 12;

/// In which form a connection reads what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// WebSocket frames with the JSON protocol.
    Frame,
    /// Events of a stream.
    Event,
    /// WebSocket frames with packets of Socket.IO.
    Packet,
}

impl Form {
    /// The form as operators see it.
    #[must_use]
    pub const fn transport(self) -> &'static str {
        match self {
            Self::Frame => "websocket",
            Self::Event => "sse",
            Self::Packet => "socketio",
        }
    }
}

/// One client, as its shard keeps it.
#[derive(Debug)]
pub struct Connection {
    generation: u32,
    /// When a byte last arrived.
    pub last_seen: Tick,
    /// When what is being read was begun: the request head, with the socket's arrival; later the
    /// message, and then it has a meaning only while the decoder is mid-message.
    pub since: Tick,
    /// What awaits the kernel.
    pub outbound: Outbound,
    /// The memberships, kept by the hub.
    pub member: MemberRef,
    /// Taken out by the shard while a message is handled.
    pub decoder: Decoder,
    phase: Phase,
    /// Pause reasons, old and present, whether the driver was told, whether the shard has this in its
    /// list, whether it speaks TLS, and the peer's window for compressed messages.
    flags: u16,
}

/// What one write may carry: enough that a burst of small frames leaves in one system call.
const BATCH_BYTES: usize = 256 * 1024;
const BATCH_PARTS: usize = 256;

impl Connection {
    /// A connection whose socket was just accepted.
    #[must_use]
    pub fn accepted(generation: u32, now: Tick) -> Self {
        Self {
            generation,
            last_seen: now,
            since: now,
            outbound: Outbound::default(),
            member: MemberRef::default(),
            decoder: Decoder::default(),
            phase: Phase::Opening { head: None },
            flags: 0,
        }
    }

    /// What this connection sends and receives goes through a TLS layer.
    pub fn set_secure(&mut self) {
        self.flags |= SECURE;
    }

    /// True when it does.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.flags & SECURE != 0
    }

    /// This connection has no socket.
    pub fn set_carried(&mut self) {
        self.flags |= CARRIED;
    }

    /// This connection has a socket from now on, which did without one.
    pub fn set_socket(&mut self) {
        self.flags &= !CARRIED;
    }

    /// True while a WebSocket may become the transport of a session that polls.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.open().is_some_and(|open| open.session == Session::Probe)
    }

    /// True when it has none.
    #[must_use]
    pub fn is_carried(&self) -> bool {
        self.flags & CARRIED != 0
    }

    /// True when it listens to an event stream, or did before its end began.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.flags & STREAM != 0
    }

    /// True when it speaks in packets of Socket.IO, or did before its end began.
    #[must_use]
    pub fn speaks_packets(&self) -> bool {
        self.flags & PACKETS != 0
    }

    /// In which form it reads what it is told.
    #[must_use]
    pub fn form(&self) -> Form {
        match self.flags & (STREAM | PACKETS) {
            0 => Form::Frame,
            STREAM => Form::Event,
            _ => Form::Packet,
        }
    }

    /// Messages may be compressed in both directions, and the peer has a window of 2 to the `bits` bytes, 8 to 15.
    pub fn set_window(&mut self, bits: u8) {
        assert!((8..=15).contains(&bits), "a window of {bits} bits");
        self.flags |= u16::from(bits - 7) << WINDOW_SHIFT;
    }

    /// The power of two of that window; `None` where messages come and go plain.
    #[must_use]
    pub fn window(&self) -> Option<u8> {
        let bits = self.flags.to_be_bytes()[0] >> (WINDOW_SHIFT - 8);
        (bits > 0).then_some(bits + 7)
    }

    /// True where what the peer sends behind its request has a meaning: not where it has asked for everything with it.
    #[must_use]
    pub fn may_speak(&self) -> bool {
        let asks = self.open().is_some_and(|open| open.session == Session::Page);
        !self.is_stream() && !asks
    }

    /// Tells this user of the slab index from earlier and later ones.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Where the connection is in its life.
    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The state of an open connection; `None` before and after.
    #[must_use]
    pub fn open(&self) -> Option<&Open> {
        match &self.phase {
            Phase::Open(open) => Some(open),
            Phase::Opening { .. } | Phase::Closing(_) => None,
        }
    }

    /// The state of an open connection; `None` before and after.
    pub fn open_mut(&mut self) -> Option<&mut Open> {
        match &mut self.phase {
            Phase::Open(open) => Some(open),
            Phase::Opening { .. } | Phase::Closing(_) => None,
        }
    }

    /// The state of a closing connection.
    pub fn closing_mut(&mut self) -> Option<&mut Closing> {
        match &mut self.phase {
            Phase::Closing(closing) => Some(closing),
            Phase::Opening { .. } | Phase::Open(_) => None,
        }
    }

    /// True while the request is awaited.
    #[must_use]
    pub fn is_opening(&self) -> bool {
        matches!(self.phase, Phase::Opening { .. })
    }

    /// True while the connection has not begun to close.
    #[must_use]
    pub fn is_living(&self) -> bool {
        !matches!(self.phase, Phase::Closing(_))
    }

    /// True while what the peer sends has a meaning: until its close frame or a violation.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        match &self.phase {
            Phase::Opening { .. } => false,
            Phase::Open(_) => true,
            Phase::Closing(closing) => closing.stage() == Stage::AwaitingClose,
        }
    }

    /// What arrived of an incomplete head so far; `None` when nothing did or the head is done.
    pub fn take_head(&mut self) -> Option<Box<HalfHead>> {
        match &mut self.phase {
            Phase::Opening { head } => head.take(),
            Phase::Open(_) | Phase::Closing(_) => None,
        }
    }

    /// Keeps an incomplete head until more arrives.
    pub fn keep_head(&mut self, half: Box<HalfHead>) {
        if let Phase::Opening { head } = &mut self.phase {
            *head = Some(half);
        }
    }

    /// The handshake is done: the session speaks `protocol` from now on.
    pub fn handle_upgrade(&mut self, protocol: Protocol, now: Tick) {
        self.flags |= match protocol {
            Protocol::Events => STREAM,
            Protocol::Packets => PACKETS,
            Protocol::Json | Protocol::Page | Protocol::Probe | Protocol::Echo => 0,
        };
        self.phase =
            Phase::Open(Open { session: Session::new(protocol), pinged: Tick(0), active: now });
    }

    /// The handshake is done, and the client has yet to say who it is.
    pub fn await_login(&mut self) {
        if let Some(open) = self.open_mut() {
            open.session = Session::Login;
        }
    }

    pub(super) fn set_phase(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// Notes that a byte arrived.
    pub fn handle_life(&mut self, now: Tick) {
        self.last_seen = now;
    }

    /// Sets or lifts one reason not to read; true when it was not so before.
    pub fn set_pause(&mut self, why: Pause, paused: bool) -> bool {
        let before = self.flags & why as u16 != 0;
        if paused {
            self.flags |= why as u16 | WAS_PAUSED;
        } else {
            self.flags &= !(why as u16);
        }
        before != paused
    }

    /// True while any reason not to read stands.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.flags & PAUSES != 0
    }

    /// True while that is one of the reasons not to read.
    #[must_use]
    pub fn is_paused_for(&self, why: Pause) -> bool {
        self.flags & why as u16 != 0
    }

    /// True while the driver has been told not to read.
    #[must_use]
    pub fn is_told_paused(&self) -> bool {
        self.flags & TOLD_PAUSED != 0
    }

    /// True when any reason not to read stood at some time since this was last asked.
    pub(super) fn take_was_paused(&mut self) -> bool {
        let was_paused = self.flags & WAS_PAUSED != 0;
        if !self.is_paused() {
            self.flags &= !WAS_PAUSED;
        }
        was_paused
    }

    /// Puts the connection on the shard's list of those with something to say; false when it was on it
    /// already, or has nothing to say ever again. That one may be gone, and its index in other hands,
    /// before the list is walked.
    pub fn enlist(&mut self) -> bool {
        let fresh = self.flags & QUEUED == 0 && !self.is_released();
        if fresh {
            self.flags |= QUEUED;
        }
        fresh
    }

    /// True when what the peer sends is to be read at all: a head, messages, its close frame.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        matches!(self.phase, Phase::Opening { .. }) || self.is_listening()
    }

    /// True when the end has begun, all that was queued is written, and FIN is next.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        matches!(&self.phase, Phase::Closing(closing) if closing.is_flushed(&self.outbound))
    }

    /// True when the driver was told to close and nothing but its last word is awaited.
    #[must_use]
    pub fn is_released(&self) -> bool {
        matches!(&self.phase, Phase::Closing(closing) if closing.stage() == Stage::Released)
    }

    /// True when everything that is left to say was handed over, and FIN is next though it may be in flight.
    #[must_use]
    pub fn is_flushing(&self) -> bool {
        matches!(&self.phase, Phase::Closing(closing) if closing.is_flushing(&self.outbound))
    }

    /// True when a write that has come back may leave something to be done that is not on the queue.
    #[must_use]
    pub fn awaits_write(&self) -> bool {
        matches!(&self.phase, Phase::Closing(closing) if closing.awaits_write())
    }

    /// Takes the connection off that list.
    pub fn delist(&mut self) {
        self.flags &= !QUEUED;
    }

    /// True when it is on that list.
    #[must_use]
    pub fn is_enlisted(&self) -> bool {
        self.flags & QUEUED != 0
    }

    /// What the connection wants of the kernel next; `None` when nothing. At most one write is in
    /// flight, so after a [`Op::Send`] the next one comes no sooner than its completion; a FIN may follow at
    /// once.
    pub fn poll_op(
        &mut self,
        id: ConnId,
        queues: &mut Store,
        spare: &mut Vec<SendBatch>,
        lane: Lane,
    ) -> Option<Op> {
        if let Phase::Closing(closing) = &mut self.phase
            && let Some(op) = closing.poll_op(id, &self.outbound, lane)
        {
            return Some(op);
        }
        if self.is_released() {
            return None;
        }
        let told = self.is_told_paused();
        let paused = self.is_paused() && self.is_living();
        if paused != told {
            self.flags ^= TOLD_PAUSED;
            let op =
                if paused { Op::PauseReads { conn: id } } else { Op::ResumeReads { conn: id } };
            return Some(op);
        }
        if !lane.is_open || self.outbound.in_flight() || self.outbound.is_empty() {
            return None;
        }
        let mut batch = spare.pop().unwrap_or_default();
        self.outbound.take_batch(queues, id.index, &mut batch, BATCH_BYTES, BATCH_PARTS);
        Some(Op::Send { conn: id, batch })
    }

    /// Asserts what holds between any two events.
    ///
    /// # Panics
    /// When it does not.
    pub fn check(&self, queues: &Store, key: u32) {
        self.outbound.check(queues, key);
        if let Phase::Closing(closing) = &self.phase {
            closing.check();
        }
        if matches!(self.phase, Phase::Opening { .. }) {
            assert!(!self.decoder.is_mid_message(), "a message before the handshake");
        }
    }
}
