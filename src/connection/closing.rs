//! The end of a connection, in order.
//!
//! Closing a TCP socket while the peer still sends makes the kernel answer with a reset, which may
//! destroy our last bytes on their way. So an orderly end has stages: our queue is flushed (the close
//! frame is its last item), a FIN follows, and what the peer still sends is read and discarded until
//! its own end or the deadline. RFC 6455 section 7.1.1 asks the server to close first; the FIN does.

use crate::base::id::ConnId;
use crate::base::shared::Shared;
use crate::base::time::Tick;
use crate::connection::disconnect::Disconnect;
use crate::connection::record::{Connection, Lane, Pause, Phase};
use crate::contract::Op;
use crate::flow::outbound::{Control, Outbound, Store};
use crate::session::{Code, Session, encode, packets};
use crate::wire::socketio::ROOT;
use crate::wire::sse;
use crate::wire::websocket::{self, CloseCode};

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Our close frame is queued or sent; the peer's is awaited.
    AwaitingClose,
    /// The queue is to be flushed, then FIN.
    Flushing,
    /// FIN is sent, behind what is in flight; input is discarded until the peer's end.
    Lingering,
    /// The socket is to leave, open as it is, once nothing is in flight.
    Leaving,
    /// The descriptor is to be released, with a reset when `abort`.
    Releasing {
        /// Discard what the kernel holds and reset the peer.
        abort: bool,
    },
    /// The driver was told; only its `Closed` is awaited.
    Released,
}

/// The state of a closing connection.
#[derive(Debug)]
pub struct Closing {
    /// Why it ends.
    pub why: Disconnect,
    stage: Stage,
    /// True once the peer has sent its FIN.
    ended: bool,
    /// When patience ends.
    pub deadline: Tick,
}

impl Closing {
    /// How far the end has come.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The FIN goes down right behind the last write, which need not have come back for that; letting go
    /// must wait for it, or our last words could be lost.
    pub(super) fn poll_op(&mut self, conn: ConnId, outbound: &Outbound, lane: Lane) -> Option<Op> {
        if self.is_flushing(outbound) && lane.is_idle {
            if !self.ended {
                self.stage = Stage::Lingering;
                return Some(Op::ShutdownWrite { conn });
            }
            if !outbound.in_flight() {
                self.stage = Stage::Releasing { abort: false };
            }
        }
        let is_written = outbound.is_empty() && !outbound.in_flight();
        if self.stage == Stage::Leaving && lane.is_idle && is_written {
            self.stage = Stage::Released;
            return Some(Op::HandOver { conn });
        }
        if let Stage::Releasing { abort } = self.stage
            && (abort || !outbound.in_flight())
        {
            self.stage = Stage::Released;
            return Some(Op::Close { conn, abort });
        }
        None
    }

    /// True when a write that has come back may leave something to be done.
    pub(super) fn awaits_write(&self) -> bool {
        matches!(self.stage, Stage::Flushing | Stage::Leaving | Stage::Releasing { .. })
    }

    /// True when the queue has been flushed and the FIN is next.
    pub(super) fn is_flushed(&self, outbound: &Outbound) -> bool {
        self.is_flushing(outbound) && !outbound.in_flight()
    }

    /// True when all that was queued was handed over, though it may be in flight.
    pub(super) fn is_flushing(&self, outbound: &Outbound) -> bool {
        self.stage == Stage::Flushing && outbound.is_empty()
    }

    pub(super) fn check(&self) {
        if self.ended {
            assert!(
                !matches!(self.stage, Stage::AwaitingClose | Stage::Lingering),
                "waiting for a peer that has ended: {self:?}"
            );
        }
    }
}

impl Connection {
    /// Begins the end. What is queued is still sent when somebody may be there to read it. Does nothing
    /// when the end has begun already.
    pub fn begin_close(&mut self, why: Disconnect, deadline: Tick, queues: &mut Store, key: u32) {
        self.begin_close_saying(why, None, deadline, queues, key);
    }

    /// The same, with `words` in the close frame instead of the usual ones; at most 123 bytes.
    pub fn begin_close_saying(
        &mut self,
        why: Disconnect,
        words: Option<&str>,
        deadline: Tick,
        queues: &mut Store,
        key: u32,
    ) {
        let was_open = match self.phase() {
            Phase::Closing(_) => return,
            Phase::Open(_) => true,
            Phase::Opening { .. } => false,
        };
        let is_page = self.open().is_some_and(|open| open.session == Session::Page);
        // Nothing can be said any more to one who broke TLS but the alert, which is on no queue.
        if matches!(why, Disconnect::SlowConsumer | Disconnect::MemoryShort | Disconnect::TlsFailed)
        {
            self.outbound.discard(queues, key);
        }
        let stage = match (why, why.close_frame()) {
            (Disconnect::HeartbeatLost | Disconnect::Lost | Disconnect::Unannounced, _) => {
                self.outbound.discard(queues, key);
                Stage::Releasing { abort: true }
            }
            // Its answer is on the queue, or there is none.
            _ if is_page => Stage::Flushing,
            (_, Some((code, reason))) if was_open && self.is_stream() => {
                let mut text = Vec::new();
                encode::close(&mut text, code.get(), words.unwrap_or(&reason));
                let event = Shared::kept(sse::event(None, None, &text));
                self.outbound.push_control(queues, event, Control::Close, deadline);
                Stage::Flushing
            }
            (_, Some((code, reason))) if was_open => {
                let words = words.unwrap_or(&reason);
                let mut frame = self.last_packets(why, code, words);
                frame.extend_from_slice(&websocket::close(code, words));
                let frame = Shared::kept(frame);
                self.outbound.push_control(queues, frame, Control::Close, deadline);
                // After a violation the peer's bytes have no meaning, a panic may have lost the place in
                // them, and short memory may not hold them, so the peer's close frame cannot be awaited.
                let is_lost = matches!(
                    why,
                    Disconnect::Violated(_) | Disconnect::Panicked | Disconnect::MemoryShort
                );
                if is_lost { Stage::Flushing } else { Stage::AwaitingClose }
            }
            _ => Stage::Flushing,
        };
        let ended = matches!(why, Disconnect::Vanished | Disconnect::Lost);
        self.end(Closing { why, stage, ended, deadline });
    }

    /// What is said to a client of Socket.IO ahead of the close frame, which its library does not show: why its
    /// connect came to nothing, or what the last event of a stream says and whether to come back.
    fn last_packets(&self, why: Disconnect, code: CloseCode, words: &str) -> Vec<u8> {
        let session = self.open().map(|open| open.session);
        if !self.speaks_packets() {
            return Vec::new();
        }
        if matches!(session, Some(Session::Knock | Session::Login)) {
            // After a refusal the library gives up; whoever is to come back sees nothing but the end.
            let kind = match why {
                Disconnect::Denied(_) | Disconnect::Revoked => Code::Unauthorized,
                Disconnect::Dismissed(_) if !why.may_return() => Code::Forbidden,
                _ => return Vec::new(),
            };
            let refused = packets::refused(ROOT, kind.as_str(), words, Some(code.get()));
            return websocket::text(&refused);
        }
        let mut text = Vec::new();
        encode::close(&mut text, code.get(), words);
        let mut frames = websocket::text(&packets::said(&String::from_utf8_lossy(&text)));
        // Its library comes back by itself unless it is told not to. With a token that has expired it may: the
        // page is asked for another one, or hears that it needs one.
        if !why.may_return() {
            frames.extend_from_slice(&websocket::text(&packets::sent_away()));
        }
        frames
    }

    /// The socket is to leave for somebody else, who goes on with what was said on it, once what is queued is written.
    pub fn begin_passage(&mut self, deadline: Tick) {
        let (why, stage) = (Disconnect::HandedOver, Stage::Leaving);
        self.end(Closing { why, stage, ended: false, deadline });
    }

    fn end(&mut self, closing: Closing) {
        self.set_phase(Phase::Closing(closing));
        for why in [Pause::Congested, Pause::Mail, Pause::Handshake, Pause::Rate, Pause::Memory] {
            self.set_pause(why, false);
        }
    }

    /// The peer's close frame arrived: it is answered with the same code, or it answers ours.
    pub fn handle_close_frame(
        &mut self,
        code: Option<CloseCode>,
        deadline: Tick,
        queues: &mut Store,
        key: u32,
    ) {
        match self.closing_mut() {
            Some(closing) if closing.stage == Stage::AwaitingClose => {
                closing.stage = Stage::Flushing
            }
            Some(_) => {}
            None => {
                let frame = match code {
                    Some(code) => websocket::close(code, ""),
                    None => websocket::CLOSE.to_vec(),
                };
                self.outbound.push_control(queues, Shared::kept(frame), Control::Close, deadline);
                self.begin_close(Disconnect::ClosedByClient, deadline, queues, key);
            }
        }
    }

    /// The peer broke the protocol while it was to answer our close frame: none can be found any more.
    pub fn handle_violation(&mut self) {
        if let Some(closing) = self.closing_mut()
            && closing.stage == Stage::AwaitingClose
        {
            closing.stage = Stage::Flushing;
        }
    }

    /// The peer broke TLS while the connection was closing: nothing it sends can be read any more, and
    /// what is queued cannot be said.
    pub fn handle_fault(&mut self, queues: &mut Store, key: u32) {
        self.handle_violation();
        self.outbound.discard(queues, key);
    }

    /// The peer's FIN arrived while the connection was closing.
    pub fn handle_end(&mut self) {
        if let Some(closing) = self.closing_mut() {
            closing.ended = true;
            match closing.stage {
                Stage::AwaitingClose => closing.stage = Stage::Flushing,
                Stage::Lingering => closing.stage = Stage::Releasing { abort: false },
                Stage::Flushing | Stage::Leaving | Stage::Releasing { .. } | Stage::Released => {}
            }
        }
    }

    /// The network failed while the connection was closing.
    pub fn handle_lost(&mut self, queues: &mut Store, key: u32) {
        if let Some(closing) = self.closing_mut()
            && closing.stage != Stage::Released
        {
            closing.ended = true;
            closing.stage = Stage::Releasing { abort: true };
            self.outbound.discard(queues, key);
        }
    }

    /// Patience has ended: what is not done by now is dropped.
    pub fn handle_close_deadline(&mut self, queues: &mut Store, key: u32) {
        let in_flight = self.outbound.in_flight();
        if let Some(closing) = self.closing_mut() {
            let abort = closing.stage != Stage::Lingering || in_flight;
            if closing.stage != Stage::Released {
                closing.stage = Stage::Releasing { abort };
                self.outbound.discard(queues, key);
            }
        }
    }
}
