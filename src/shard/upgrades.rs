//! A session that polls goes on by WebSocket.
//!
//! The WebSocket is a connection of its own until its client says that it is the session's from now on: it has been
//! judged at the door, is bounded by the time of a handshake, and ends without a trace in the session. Then its socket
//! leaves it, with its TLS and all that was read behind that word, and takes the place of the session's carrier. What
//! the session was about to say to the next request is the first that it says there, and what a request has brought is
//! heard before anything that comes by the socket. So nothing is lost, said twice or out of order, and the session is
//! a client's that never polled.
//!
//! Who may do that: whoever knows the session's id, which lets in a request of long polling as well. Its secret part was told
//! to whoever has begun the session and been judged for that, by token where one is asked for; another token would be no better
//! proof, and a page could not always show one. But pages send the header `Origin` whether they want to or not,
//! so a page of another origin than the session's is refused though it knew the id.

use crate::auth::OriginError;
use crate::base::id::ConnId;
use crate::base::outside::Handed;
use crate::base::time::Time;
use crate::connection::{self, Disconnect, Knock, Probe, Verdict};
use crate::contract::{Event, Op};
use crate::session::Protocol;
use crate::shard::carriers::{self, Carriers, Left};
use crate::shard::passages::To;
use crate::shard::polling::unknown;
use crate::shard::probes::Stage;
use crate::shard::state::Shard;
use crate::wire::engineio::{PROBE, Packet};
use crate::wire::http::{self, EIO_REQUEST, Head, Refusal, Upgrade};
use crate::wire::tls::Layer;
use crate::wire::websocket;

/// The answer to the question that a WebSocket is tried by.
const ANSWER: &[u8] = b"3probe";

/// A socket that a session goes on by, and what has come over it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) socket: Handed,
    pub(super) layer: Option<Box<Layer>>,
    /// The power of two of the client's window, where messages may be compressed.
    pub(super) window: Option<u8>,
    /// What was read behind the client's word, as far as it was opened.
    pub(super) said: Vec<u8>,
    /// What came behind that.
    pub(super) unread: Vec<u8>,
}

impl Shard {
    fn sessions(&mut self) -> &mut Carriers {
        &mut self.gate.people.petitions.carriers
    }

    /// What a WebSocket gets that names a session. Where that is another shard's, it is judged there.
    pub(super) fn judge_probe(
        &mut self,
        conn: ConnId,
        head: &Head<'_>,
        upgrade: &Upgrade<'_>,
        now: Time,
    ) -> Verdict {
        let (node, shards) = (self.identity.node, self.identity.shards);
        let session = connection::session(head).unwrap_or_default();
        let own = Carriers::parse(&session);
        let own = own.filter(|(own, _)| own.node == node && own.shard.0 < shards);
        let Some((own, secret)) = own else { return Verdict::Refuse(unknown()) };
        if own.shard != self.identity.id {
            return Verdict::Welcome;
        }
        if !self.sessions().knows(own.conn, secret) {
            return Verdict::Refuse(unknown());
        }
        if let Some(verdict) = self.screen(conn, head, upgrade, now) {
            return verdict;
        }
        let verdict = self.judge_page(Knock::GoesOn, head, upgrade);
        if !matches!(verdict, Verdict::Welcome) {
            return verdict;
        }
        if !self.sessions().is_for(own.conn, upgrade.origin) {
            self.counters.origin_refused_total += 1;
            return Verdict::Refuse(Refusal::forbidden(OriginError::Foreign.public()));
        }
        if self.gate.drain.is_some() {
            return Verdict::Refuse(Refusal::unavailable(None));
        }
        if self.sessions().probes.of(own.conn).is_some() {
            return Verdict::Refuse(Refusal::engineio(EIO_REQUEST, "Bad request"));
        }
        Verdict::Welcome
    }

    /// A WebSocket was let in that names a session.
    pub(super) fn begin_probe(&mut self, conn: ConnId, probe: Probe, now: Time) {
        let Probe { session, response, window, mut bytes, head } = probe;
        let Some((own, _)) = Carriers::parse(&session) else { return };
        if own.shard != self.identity.id {
            return self.begin_transfer(conn, own.shard, bytes, now);
        }
        self.open(conn, Protocol::Probe, (response, window), now);
        self.sessions().probes.begin(conn, own.conn);
        let mut rest = bytes.split_off(head);
        if !rest.is_empty() {
            self.handle_frames(conn, &mut rest, now);
        }
    }

    /// A WebSocket that is tried says something.
    pub(super) fn handle_probe(&mut self, conn: ConnId, text: &str, now: Time) {
        let Some((session, stage)) = self.sessions().probes.session(conn) else { return };
        match (Packet::read(text), stage) {
            (Ok(Packet::Ping(PROBE)), Stage::Opened) => {
                self.sessions().probes.advance(session, Stage::Answered);
                self.push_kept(conn, websocket::text(ANSWER), now);
                // From now on the wheel looks again and again for a request that waits.
                self.table.wheel.set(conn.index, now.tick());
                self.urge_poll(conn, now);
            }
            (Ok(Packet::Upgrade), Stage::Answered) => self.begin_switch(conn, session, now),
            _ => self.close(conn, Disconnect::Answered, now),
        }
    }

    /// Answers the request that waits, if one does, with nothing: its client waits for that before it goes on by
    /// WebSocket.
    pub(super) fn urge_poll(&mut self, conn: ConnId, now: Time) {
        let Some((session, Stage::Answered)) = self.sessions().probes.session(conn) else { return };
        if let Some(to) = self.sessions().take_waiting(session) {
            self.answer_nothing(to, session, now);
        }
    }

    /// The session goes on by this WebSocket.
    fn begin_switch(&mut self, conn: ConnId, session: ConnId, now: Time) {
        self.sessions().probes.advance(session, Stage::Switching);
        if let Some(to) = self.sessions().take_waiting(session) {
            self.answer_nothing(to, session, now);
        }
        if let Some((to, body)) = self.sessions().take_brought(session) {
            let origin = self.sessions().origin(session);
            let mut frames = carriers::frames(&body);
            self.handle_event(Event::Received { conn: session, bytes: &mut frames }, now);
            self.answer_poll(to, http::polled(origin.as_deref(), b"ok"), now);
        }
        self.send_off(conn, To::Session(session), Vec::new(), now);
    }

    /// The socket is free: it is the session's from now on.
    pub(super) fn switch(&mut self, session: ConnId, line: Line, now: Time) {
        let Line { socket, layer, window, mut said, mut unread } = line;
        self.sessions().probes.end(session);
        let Some(Left { said: batch, ops }) = self.sessions().dissolve(session) else { return };
        let Some(connection) = self.table.get(session) else { return };
        connection.set_socket();
        if let Some(bits) = window.filter(|_| connection.open().is_some()) {
            connection.set_window(bits);
            self.counters.deflate_connections += 1;
        }
        self.writes.ops.push_back(Op::Adopt { conn: session, socket });
        if let Some(layer) = layer {
            self.put_layer(session, layer);
        }
        if let Some(batch) = batch {
            let send = Op::Send { conn: session, batch };
            let is_secure = self.table.get(session).is_some_and(|one| one.is_secure());
            let send = if is_secure { self.gate.layers.seal(session, send) } else { Some(send) };
            self.writes.ops.extend(send);
        }
        self.writes.ops.extend(ops);
        self.counters.socketio_upgrades_total += 1;
        self.enlist(session.index);
        if !said.is_empty() {
            self.handle_plain(session, &mut said, now);
        }
        if !unread.is_empty() {
            self.handle_sealed(session, &mut unread, now);
        }
    }

    /// The end of a WebSocket has begun that may have been tried for a session; true when it was. One that the session goes on by
    /// is seen to when its socket is free.
    pub(super) fn end_probe(&mut self, conn: ConnId) -> bool {
        match self.sessions().probes.session(conn) {
            Some((_, Stage::Switching)) => true,
            Some((session, _)) => {
                self.sessions().probes.end(session);
                self.counters.socketio_upgrades_failed_total += 1;
                true
            }
            None => false,
        }
    }

    /// The socket is gone that a session was to go on by, and its client waits for nothing else.
    pub(super) fn lose_switch(&mut self, session: ConnId, now: Time) {
        self.sessions().probes.end(session);
        self.counters.socketio_upgrades_failed_total += 1;
        self.handle_lost(session, now);
    }

    /// A session has ended; what was tried for it is for nothing.
    pub(super) fn drop_probe(&mut self, session: ConnId, now: Time) {
        if let Some((conn, stage)) = self.sessions().probes.end(session) {
            self.counters.socketio_upgrades_failed_total += 1;
            if stage != Stage::Switching {
                self.close(conn, Disconnect::Answered, now);
            }
        }
    }
}
