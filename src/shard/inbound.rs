//! From lent bytes to commands.
//!
//! The decoder is taken out of its connection while a read is worked through, so that a message which
//! lies in the decoder's own buffer can be acted upon while the rest of the shard is free to change.

use std::rc::Rc;

use serde_json::value::RawValue;

use crate::auth::{Admission, TokenError};
use crate::base::id::ConnId;
use crate::base::shared::Shared;
use crate::base::time::Time;
use crate::connection::{self, Connection, Disconnect, Knock, Phase};
use crate::flow::outbound::Control;
use crate::session::{Code, Command, CommandError, Incoming, Protocol, Request, Session};
use crate::shard::farewells::Told;
use crate::shard::held::Arrival;
use crate::shard::ledger::Figure;
use crate::shard::login::Judged;
use crate::shard::pace::{Load, Pace};
use crate::shard::people::Offer;
use crate::shard::seats::ANNOUNCED;
use crate::shard::settings::Settings;
use crate::shard::state::{Shard, enlist};
use crate::wire::http::{EIO_TRANSPORT, EIO_VERSION, Extra, Head, Refusal, Upgrade};
use crate::wire::websocket::{self, CloseCode, Decoder, Input, Item, Violation};

impl Shard {
    pub(super) fn handle_received(&mut self, conn: ConnId, bytes: &mut [u8], now: Time) {
        self.counters.received_bytes_total += bytes.len() as u64;
        let Some(connection) = self.table.get(conn) else { return };
        connection.handle_life(now.tick());
        if self.gate.people.petitions.passages.gather(conn, bytes) {
            return;
        }
        if self.settings.capacity.told != Told::Nothing {
            self.measures.farewells.count(conn.index, 0, bytes.len());
        }
        if connection.is_opening() && self.gate.seats.has(conn.index, ANNOUNCED) {
            // What a proxy says of the client stands before everything, TLS included.
            let Some(mut rest) = self.handle_preface(conn, bytes, now) else { return };
            self.evict_some(now);
            if !rest.is_empty() {
                self.take_in(conn, &mut rest, now);
            }
            return;
        }
        self.take_in(conn, bytes, now);
    }

    fn take_in(&mut self, conn: ConnId, bytes: &mut [u8], now: Time) {
        if self.table.peek(conn.index).is_some_and(Connection::is_secure) {
            self.handle_sealed(conn, bytes, now);
        } else {
            self.handle_plain(conn, bytes, now);
        }
    }

    /// Takes in what a connection says, by TLS or without.
    pub(super) fn handle_plain(&mut self, conn: ConnId, bytes: &mut [u8], now: Time) {
        let Some(connection) = self.table.get(conn) else { return };
        let rest = match connection.phase() {
            Phase::Opening { .. } => match self.handle_head(conn, bytes, now) {
                Some(used) => &mut bytes[used..],
                None => return,
            },
            Phase::Open(_) | Phase::Closing(_) => bytes,
        };
        if !rest.is_empty() {
            self.handle_frames(conn, rest, now);
        }
    }

    /// Reads on in the request head. After an upgrade: how many of `bytes` belonged to the head.
    fn handle_head(&mut self, conn: ConnId, bytes: &[u8], now: Time) -> Option<usize> {
        if self.keep_held(conn, bytes, now)
            || self.gate.people.petitions.len() > 0 && self.gather(conn, bytes)
            || self.gather_poll(conn, bytes, now)
        {
            return None;
        }
        let settings = Rc::clone(&self.settings);
        let half = self.table.get(conn)?.take_head();
        let mut judged = Judged::default();
        let mut door = |knock: Knock, head: &Head<'_>, upgrade: &Upgrade<'_>| {
            match knock {
                Knock::Enters => {}
                Knock::Probes => return self.judge_probe(conn, head, upgrade, now),
                Knock::AsksFirst | Knock::GoesOn => return self.judge_page(knock, head, upgrade),
            }
            // Cheap questions first: a crowd at the door costs no signatures.
            if let Some(verdict) = self.screen(conn, head, upgrade, now) {
                return verdict;
            }
            let (verdict, known) = self.judge(conn, head, upgrade, now);
            if settings.rooms.have_origins() {
                let host = head.values("host").next().and_then(|host| str::from_utf8(host).ok());
                self.gate.people.pages.note(conn.index, upgrade.origin, host);
            }
            self.note_guest(conn, head, now);
            judged = known;
            verdict
        };
        let answer = connection::answer(half, bytes, &settings.head, &settings.routes, &mut door);
        match answer {
            connection::Answer::More(half) => self.table.get(conn)?.keep_head(half),
            connection::Answer::Upgrade { protocol, response, used, dismissed, window, wish } => {
                if judged.waits() {
                    let offer = Offer { protocol, response, window, wish };
                    self.hold(conn, offer, judged, &bytes[used..], now);
                    return None;
                }
                let Judged { who, words, arrival, .. } = judged;
                self.begin_reading(conn, wish.as_deref());
                self.open(conn, protocol, (response, window), now);
                match dismissed {
                    Some(why) => self.close_saying(conn, why, words.as_deref(), now),
                    None => {
                        self.admit(conn, protocol, who, arrival, now);
                        self.grant(conn, wish, now);
                    }
                }
                return Some(used);
            }
            connection::Answer::Petition { bytes, length } => {
                self.begin_petition(conn, bytes, length, now);
            }
            connection::Answer::Poll(poll) => self.begin_poll(conn, *poll, now),
            connection::Answer::Probe(probe) => self.begin_probe(conn, *probe, now),
            connection::Answer::Passage { bytes, front } => {
                self.begin_passage(conn, bytes, &front, now);
            }
            connection::Answer::Page(page) => self.respond_with(conn, Shared::common(page), now),
            connection::Answer::Preflight(response) => self.respond(conn, response, now),
            connection::Answer::Refuse(refusal) => self.refuse_handshake(conn, &refusal, now),
        }
        None
    }

    /// The handshake is done: whoever came in is welcomed, or asked who it is.
    fn admit(
        &mut self,
        conn: ConnId,
        protocol: Protocol,
        who: Admission,
        arrival: Option<Arrival>,
        now: Time,
    ) {
        match who {
            Admission::Later if matches!(protocol, Protocol::Json | Protocol::Packets) => {
                if let Some(connection) = self.table.get(conn) {
                    connection.await_login();
                }
                self.table.wheel.set(conn.index, now.tick().plus(self.settings.timeouts.login));
                let arrivals = &mut self.gate.people.consults.arrivals;
                arrivals.extend(arrival.map(|arrival| (conn.index, Box::new(arrival))));
                return;
            }
            Admission::Later if protocol == Protocol::Page => {
                self.note_refused_token(TokenError::Missing);
                let message = TokenError::Missing.public();
                let error = CommandError::new(Code::Unauthorized, message, None);
                return self.refuse(conn, &error, now);
            }
            // Where nothing is heard, or everything bounces, no message could say who it is.
            Admission::Later => {
                return self.close(conn, Disconnect::Denied(TokenError::Missing), now);
            }
            Admission::Known(identity) if protocol == Protocol::Packets => {
                return self.await_connect(conn, Some(*identity), now);
            }
            _ if protocol == Protocol::Packets => return self.await_connect(conn, None, now),
            Admission::Known(identity) => self.recognise(conn, *identity, now),
            Admission::Anonymous | Admission::Ticket(_) | Admission::Unproven(_) => {}
        }
        self.welcome(conn, protocol, now);
    }

    /// Answers a handshake that comes to nothing, counts it by its status, and ends.
    pub(super) fn refuse_handshake(&mut self, conn: ConnId, refusal: &Refusal, now: Time) {
        self.counters.count_refusal(refusal.status);
        if let Extra::EngineIo(code) = refusal.extra {
            *match code {
                EIO_VERSION => &mut self.counters.socketio_version_refused_total,
                EIO_TRANSPORT => &mut self.counters.socketio_transport_refused_total,
                _ => &mut self.counters.socketio_request_refused_total,
            } += 1;
        }
        self.respond(conn, refusal.response(), now);
    }

    /// Answers a request with a whole response, and ends.
    pub(super) fn respond(&mut self, conn: ConnId, response: Vec<u8>, now: Time) {
        self.respond_with(conn, Shared::kept(response), now);
    }

    fn respond_with(&mut self, conn: ConnId, response: Shared, now: Time) {
        if let Some(connection) = self.table.get(conn) {
            let queues = &mut self.queues;
            connection.outbound.push_control(queues, response, Control::Close, now.tick());
        }
        self.close(conn, Disconnect::Answered, now);
    }

    pub(super) fn open(
        &mut self,
        conn: ConnId,
        protocol: Protocol,
        (mut response, window): (Vec<u8>, Option<u8>),
        now: Time,
    ) {
        let tick = now.tick();
        if protocol == Protocol::Packets {
            self.append_opening(conn, &mut response);
        }
        let Some(connection) = self.table.get(conn) else { return };
        connection.handle_upgrade(protocol, tick);
        self.counters.stream_connections += u64::from(connection.is_stream());
        self.counters.packet_connections += u64::from(connection.speaks_packets());
        if let Some(bits) = window {
            connection.set_window(bits);
            self.counters.deflate_connections += 1;
        }
        let response = Shared::kept(response);
        connection.outbound.push(
            &mut self.queues,
            conn.index,
            response,
            tick,
            &self.settings.queue,
        );
        let first = self.settings.timeouts.first(tick, self.rng.u32(..));
        let is_brief = matches!(protocol, Protocol::Page | Protocol::Probe);
        let first = if is_brief { tick.plus(self.settings.timeouts.handshake) } else { first };
        self.table.wheel.set(conn.index, first);
        self.counters.open_connections += 1;
        self.gate.opening -= 1;
        self.enlist(conn.index);
    }

    /// Says who the client is and what holds; the first thing that is said.
    pub(super) fn welcome(&mut self, conn: ConnId, protocol: Protocol, now: Time) {
        self.counters.handshakes_total += 1;
        if !matches!(protocol, Protocol::Echo | Protocol::Page) {
            self.greet(conn, protocol, now);
            self.report_arrival(conn, now);
        }
    }

    pub(super) fn handle_frames(&mut self, conn: ConnId, bytes: &mut [u8], now: Time) {
        // Whoever listens to a stream has said everything with its request.
        let Some(connection) = self.table.get(conn).filter(|c| c.may_speak()) else { return };
        let mut decoder = std::mem::take(&mut connection.decoder);
        // What is taken out is not counted until it is back, so a panic in between loses nothing.
        self.gate.pressure.half_read -= decoder.buffered_capacity() as u64;
        let was_mid_message = decoder.is_mid_message();
        self.decode(conn, &mut decoder, bytes, now);
        let Some(connection) = self.table.get(conn) else { return };
        if decoder.is_mid_message() && !was_mid_message {
            connection.since = now.tick();
        }
        if connection.is_listening() {
            self.gate.pressure.half_read += decoder.buffered_capacity() as u64;
            connection.decoder = decoder;
        }
    }

    fn decode(&mut self, id: ConnId, decoder: &mut Decoder, bytes: &mut [u8], now: Time) {
        let settings = Rc::clone(&self.settings);
        let Some(connection) = self.table.get(id) else { return };
        let mut limits = *settings.messages_of(connection);
        limits.deflated = connection.window().is_some();
        limits.message_bytes = self.message_limit(id, limits.message_bytes);
        let mut allowance = self.allowance(bytes.len(), limits.message_bytes);
        let mut input = Input::new(bytes);
        while self.table.get(id).is_some_and(|connection| connection.is_listening()) {
            match decoder.decode(&mut input, &limits) {
                Ok(None) => break,
                Ok(Some(Item::Text(text))) => self.handle_text(id, text, &settings, now),
                Ok(Some(Item::Binary(data))) => self.handle_binary(id, data, now),
                Ok(Some(Item::Deflated(kind, payload))) => {
                    let message = (kind, payload);
                    let done = self.handle_deflated(id, message, &mut allowance, &settings, now);
                    if let Err(violation) = done {
                        decoder.refuse();
                        return self.handle_violation(id, violation, now);
                    }
                }
                Ok(Some(Item::Ping(data))) => self.handle_ping(id, data, now),
                Ok(Some(Item::Pong(_))) => {}
                Ok(Some(Item::Close(close))) => {
                    return self.handle_close_frame(id, close.map(|(code, _)| code), now);
                }
                Err(violation) => return self.handle_violation(id, violation, now),
            }
        }
        if !input.is_empty() {
            self.gate.people.petitions.passages.keep(id, input.rest());
        }
    }

    fn handle_violation(&mut self, id: ConnId, violation: Violation, now: Time) {
        let Some(connection) = self.table.get(id) else { return };
        if connection.is_living() {
            self.close(id, Disconnect::Violated(violation), now);
        } else {
            connection.handle_violation();
            self.enlist(id.index);
        }
    }

    pub(super) fn handle_text(&mut self, id: ConnId, text: &str, settings: &Settings, now: Time) {
        let Some(connection) = self.table.get(id) else { return };
        if connection.speaks_packets() {
            return self.handle_packet(id, text, settings, now);
        }
        if connection.is_probe() {
            return self.handle_probe(id, text, now);
        }
        let Some(session) = self.note_message(id, text.len(), now) else { return };
        match session.handle_text(text, &settings.commands) {
            Ok(Incoming::Bounce) => self.push_kept(id, websocket::text(text.as_bytes()), now),
            message => self.weigh(id, session, (text, text.len()), message, now),
        }
    }

    pub(super) fn handle_binary(&mut self, id: ConnId, data: &[u8], now: Time) {
        if self.table.get(id).is_some_and(|connection| connection.is_probe()) {
            return self.close(id, Disconnect::Answered, now);
        }
        let Some(session) = self.note_message(id, data.len(), now) else { return };
        if self.table.get(id).is_some_and(|connection| connection.speaks_packets()) {
            // The packet in front of it was answered.
            self.keeps_pace(id, data.len(), now);
            return;
        }
        match session.handle_binary() {
            Ok(Incoming::Bounce) => self.push_kept(id, websocket::binary(data), now),
            message => self.weigh(id, session, ("", data.len()), message, now),
        }
    }

    /// Obeys or refuses a message of a session, unless it comes sooner than its rates allow.
    pub(super) fn weigh(
        &mut self,
        id: ConnId,
        session: Session,
        (text, bytes): (&str, usize),
        message: Result<Incoming<'_>, CommandError>,
        now: Time,
    ) {
        let pace = self.pace(id, &Load::of(&message, bytes), now);
        match (pace, message) {
            (Pace::Go, Err(error)) if session == Session::Login && self.waits_for_login(id) => {
                self.refuse(id, &error, now);
            }
            (Pace::Go, _) if session == Session::Login && self.waits_for_login(id) => {
                self.keep_behind_login(id, text, now);
            }
            (
                Pace::Go,
                Ok(Incoming::Request(Request { command: Command::Auth { token }, reference })),
            ) => {
                // One after the other: what the later one grants is what holds.
                if self.waits_for_login(id) {
                    return self.keep_behind_login(id, text, now);
                }
                self.login(id, &token, reference, None, now);
            }
            (Pace::Go, _) if session == Session::Login => self.deny_stranger(id, now),
            (Pace::Go, Ok(Incoming::Request(request))) => {
                self.consider(id, request, text, None, now);
            }
            (Pace::Go, Err(error)) => self.refuse(id, &error, now),
            (Pace::Late(wait), message) => {
                let reference = match message {
                    Ok(Incoming::Request(request)) => request.reference.map(RawValue::to_owned),
                    Ok(Incoming::Bounce) => None,
                    Err(error) => error.reference,
                };
                self.refuse(id, &CommandError::rate_limited(wait, reference), now);
            }
            (Pace::Go, Ok(Incoming::Bounce)) | (Pace::Over, _) => {}
        }
    }

    /// Counts a data message; `None` when the connection has begun to close and the message is moot.
    pub(super) fn note_message(&mut self, id: ConnId, bytes: usize, now: Time) -> Option<Session> {
        self.counters.received_messages_total += 1;
        self.measures.ledger.count(id.index, Figure::Messages, 1);
        self.measures.ledger.count(id.index, Figure::Bytes, bytes as u64);
        let connection = self.table.get(id)?;
        // The next one begins no earlier, also when it begins in the same read.
        connection.since = now.tick();
        let open = connection.open_mut()?;
        open.active = now.tick();
        Some(open.session)
    }

    fn handle_ping(&mut self, id: ConnId, data: &[u8], now: Time) {
        let pong = Shared::kept(websocket::pong(data));
        if let Some(connection) = self.table.get(id).filter(|c| c.is_living()) {
            connection.outbound.push_control(&mut self.queues, pong, Control::Pong, now.tick());
            enlist(connection, id.index, &mut self.writes);
        }
    }

    pub(super) fn handle_close_frame(&mut self, id: ConnId, code: Option<CloseCode>, now: Time) {
        self.settle(now);
        let deadline = now.tick().plus(self.settings.timeouts.close);
        let Some(connection) = self.table.get(id) else { return };
        let was_open = connection.open().is_some();
        connection.handle_close_frame(code, deadline, &mut self.queues, id.index);
        if was_open {
            self.after_close(id, Disconnect::ClosedByClient, true, now);
        } else {
            self.enlist(id.index);
        }
    }
}
