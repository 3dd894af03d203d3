//! Clients of Socket.IO that poll.
//!
//! A request comes over a connection of its own, which is there for one answer. The session it belongs to is another
//! connection, whose socket is a carrier (see [`super::carriers`]). The request that begins a session is turned into the
//! handshake of a WebSocket and judged as one; from then on the session's id is what lets in, where the page may connect and
//! is the one that began. The id says which shard has the session, so that a request which arrives elsewhere is
//! handed on.
//!
//! A request that waits is answered with nothing before the time of a handshake is over. Only the session decides that,
//! so that nothing it says is on its way to a request that has been given up.

use crate::auth::OriginError;
use crate::base::id::{ConnAddress, ConnId, ShardId};
use crate::base::party::Party;
use crate::base::time::Time;
use crate::connection::{Ask, Poll};
use crate::contract::{Event, Op};
use crate::session::Protocol;
use crate::shard::carriers::{self, Carriers, Said, Step};
use crate::shard::mail::Mail;
use crate::shard::petitions::LATER;
use crate::shard::seats::TRUSTED;
use crate::shard::state::Shard;
use crate::wire::engineio;
use crate::wire::http::{self, EIO_REQUEST, EIO_SESSION, Refusal, Via};

/// A request for a session that another shard may have.
#[derive(Debug)]
pub struct Polling {
    /// Where the answer goes.
    pub(super) to: ConnAddress,
    /// The session's connection, and what its id says besides.
    pub(super) session: (ConnId, u128),
    /// The page that asks; `None` for a program.
    pub(super) origin: Option<String>,
    pub(super) what: What,
}

/// What a request wants of its session.
#[derive(Debug)]
pub(super) enum What {
    /// What it says next.
    Fetch,
    /// That this is heard.
    Bring(Vec<u8>),
    /// An answer, be it nothing: it can wait no longer.
    Hurry,
}

impl Polling {
    /// What it costs while it waits, in bytes.
    pub(super) fn cost(&self) -> usize {
        let body = match &self.what {
            What::Bring(body) => body.len(),
            What::Fetch | What::Hurry => 0,
        };
        body + self.origin.as_ref().map_or(0, String::len)
    }
}

impl Shard {
    fn carriers(&mut self) -> &mut Carriers {
        &mut self.gate.people.petitions.carriers
    }

    /// A request has come whose head is here.
    pub(super) fn begin_poll(&mut self, conn: ConnId, mut poll: Poll, now: Time) {
        self.counters.polls_total += 1;
        poll.bytes.truncate(poll.length);
        let session = match &poll.ask {
            Ask::Begin => return self.begin_session(conn, poll, now),
            Ask::Fetch(session) | Ask::Bring(session) => Carriers::parse(session),
        };
        let known = session.filter(|(own, secret)| {
            let is_here = own.node == self.identity.node && own.shard.0 < self.identity.shards;
            is_here && (own.shard != self.identity.id || self.carriers().knows(own.conn, *secret))
        });
        if known.is_none() {
            return self.refuse_handshake(conn, &unknown(), now);
        }
        if !self.carriers().ask(conn, poll) {
            return self.refuse_handshake(conn, &Refusal::unavailable(Some(LATER)), now);
        }
        self.send_poll(conn, now);
    }

    /// Keeps more of a request whose body is still to come; false when the connection has none.
    pub(super) fn gather_poll(&mut self, conn: ConnId, bytes: &[u8], now: Time) -> bool {
        let Some(request) = self.carriers().request(conn) else { return false };
        let wanted = request.poll.length.saturating_sub(request.poll.bytes.len());
        if !request.is_sent {
            request.poll.bytes.extend_from_slice(&bytes[..bytes.len().min(wanted)]);
            self.send_poll(conn, now);
        }
        true
    }

    /// Hands a request to its session once all of it is here.
    fn send_poll(&mut self, conn: ConnId, now: Time) {
        let to = self.address(conn);
        let Some(request) = self.carriers().request(conn) else { return };
        if request.poll.bytes.len() < request.poll.length {
            return;
        }
        request.is_sent = true;
        let bytes = std::mem::take(&mut request.poll.bytes);
        let origin = request.poll.origin.take();
        let (what, session) = match &request.poll.ask {
            Ask::Begin => return,
            Ask::Fetch(session) => (What::Fetch, Carriers::parse(session)),
            Ask::Bring(session) => {
                (What::Bring(bytes[request.poll.head..].to_vec()), Carriers::parse(session))
            }
        };
        let Some((own, secret)) = session else { return };
        // From here on the connection waits for an answer and is none at its handshake.
        self.open(conn, Protocol::Page, (Vec::new(), None), now);
        let session = (own.conn, secret);
        self.pass_poll(own.shard, Polling { to, session, origin, what }, now);
    }

    fn pass_poll(&mut self, shard: ShardId, polling: Polling, now: Time) {
        if shard == self.identity.id {
            return self.handle_polling(polling, now);
        }
        if self.outbox.len() >= self.settings.capacity.parked_mail {
            let response = Refusal::unavailable(Some(LATER)).response();
            return self.respond(polling.to.conn, response, now);
        }
        self.outbox.push(shard, Mail::Polling(Box::new(polling)));
    }

    /// A request for a session of this shard.
    pub(super) fn handle_polling(&mut self, polling: Polling, now: Time) {
        let Polling { to, session: (conn, secret), origin, what } = polling;
        if !self.carriers().knows(conn, secret) {
            return self.answer_poll(to, unknown().response(), now);
        }
        if self.carriers().is_switching(conn) {
            let refusal = Refusal::engineio(EIO_REQUEST, "Bad request");
            return self.answer_poll(to, refusal.response(), now);
        }
        // Both pages may connect. But a session has the rights of the page that began it, which answers name.
        if !self.carriers().is_for(conn, origin.as_deref()) {
            self.counters.origin_refused_total += 1;
            let refusal = Refusal::forbidden(OriginError::Foreign.public());
            return self.answer_poll(to, refusal.response(), now);
        }
        match what {
            What::Fetch => {
                if let Some(before) = self.carriers().fetch(conn, to) {
                    self.answer_nothing(before, conn, now);
                }
            }
            What::Bring(body) => {
                if !self.carriers().bring(conn, to, body) {
                    let refusal = Refusal::engineio(EIO_REQUEST, "Bad request");
                    self.answer_poll(to, refusal.response(), now);
                }
            }
            What::Hurry => {
                if self.carriers().hurry(conn, to) {
                    self.answer_nothing(to, conn, now);
                }
            }
        }
    }

    pub(super) fn answer_nothing(&mut self, to: ConnAddress, conn: ConnId, now: Time) {
        let origin = self.carriers().origin(conn);
        self.answer_poll(to, http::polled(origin.as_deref(), engineio::NOOP), now);
    }

    /// Answers a request, wherever its socket is.
    pub(super) fn answer_poll(&mut self, to: ConnAddress, response: Vec<u8>, now: Time) {
        if to.shard == self.identity.id {
            return self.handle_polled(to.conn, response, now);
        }
        self.outbox.push(to.shard, Mail::Polled(Box::new((to.conn, response))));
    }

    /// The answer to a request of this shard, whose client may be gone by now.
    pub(super) fn handle_polled(&mut self, conn: ConnId, response: Vec<u8>, now: Time) {
        if self.carriers().is_request(conn) {
            self.respond(conn, response, now);
        }
    }

    /// True while the connection is there for one answer of a session that polls.
    pub(super) fn is_polling(&self, conn: ConnId) -> bool {
        self.gate.people.petitions.carriers.is_request(conn)
    }

    /// A request has waited as long as it may.
    pub(super) fn hurry_poll(&mut self, conn: ConnId, now: Time) {
        let to = self.address(conn);
        self.table.wheel.set(conn.index, now.tick().plus(self.settings.timeouts.handshake));
        let Some(request) = self.carriers().request(conn) else { return };
        let session = match &request.poll.ask {
            Ask::Fetch(session) if request.is_sent && !request.is_late => Carriers::parse(session),
            _ => None,
        };
        request.is_late = true;
        match session {
            Some((own, secret)) => {
                let (session, what) = ((own.conn, secret), What::Hurry);
                self.pass_poll(own.shard, Polling { to, session, origin: None, what }, now);
            }
            None => self.respond(conn, Refusal::timeout().response(), now),
        }
    }

    /// Gives a client that wants to poll a connection of its own, and has the door judge that.
    fn begin_session(&mut self, asking: ConnId, poll: Poll, now: Time) {
        let handshake = carriers::handshake(&poll.bytes[..poll.head]);
        let Some(mut handshake) = handshake else {
            let refusal = Refusal::engineio(EIO_REQUEST, "Bad request");
            return self.refuse_handshake(asking, &refusal, now);
        };
        let origin = poll.origin.clone();
        let is_closed = self.gate.drain.is_some() || self.is_beyond();
        if is_closed || !self.carriers().ask(asking, poll) {
            let wait = self.next_place(now);
            return self.refuse_handshake(asking, &Refusal::unavailable(Some(wait)), now);
        }
        self.open(asking, Protocol::Page, (Vec::new(), None), now);
        let conn = self.table.insert(now.tick());
        if let Some(connection) = self.table.get(conn) {
            connection.set_carried();
        }
        self.gate.opening += 1;
        self.table.wheel.set(conn.index, now.tick().plus(self.settings.timeouts.handshake));
        let (own, to) = (self.address(conn), self.address(asking));
        self.carriers().begin(own, to, origin.as_deref());
        self.seat_like(conn, asking);
        self.handle_event(Event::Received { conn, bytes: &mut handshake }, now);
    }

    /// Counts a connection for whoever the other one is counted for.
    fn seat_like(&mut self, conn: ConnId, other: ConnId) {
        let seats = &self.gate.seats;
        let (party, trusted) = (seats.party(other.index), seats.has(other.index, TRUSTED));
        self.seat_as(conn, party, trusted);
    }

    /// Counts a connection for that party. `trusted`: a request that comes by it may name the client instead.
    pub(super) fn seat_as(&mut self, conn: ConnId, party: Option<Party>, trusted: bool) {
        let seats = &mut self.gate.seats;
        seats.leave(conn.index);
        seats.sit(conn.index, party);
        seats.set(conn.index, TRUSTED, trusted);
        let named = trusted && self.settings.limits.clients.via != Via::Nothing;
        if !named {
            self.enter(conn);
        }
    }

    pub(super) fn has_carriers_ready(&self) -> bool {
        self.gate.people.petitions.carriers.is_ready()
    }

    /// Does what carriers have to do.
    pub(super) fn tend_carriers(&mut self, now: Time) {
        for _ in 0..self.carriers().listed() {
            let Some(conn) = self.carriers().pop() else { return };
            while let Some(step) = self.carriers().step(conn) {
                self.carry_on(conn, step, now);
            }
        }
    }

    fn carry_on(&mut self, conn: ConnId, step: Step, now: Time) {
        match step {
            Step::Say { to, origin, mut batch } => {
                let written = carriers::written(&batch);
                let bytes = batch.left();
                batch.advance(bytes);
                let (response, is_last) = match carriers::said(&written) {
                    Said::Refused(response) => (response, false),
                    Said::Packets { body, is_last } => {
                        (http::polled(origin.as_deref(), &body), is_last)
                    }
                };
                self.answer_poll(to, response, now);
                self.handle_event(Event::Sent { conn, batch, bytes }, now);
                if is_last {
                    // The client cannot answer a close frame that it has not seen as one.
                    let mut goodbye = carriers::goodbye();
                    self.handle_event(Event::Received { conn, bytes: &mut goodbye }, now);
                }
            }
            Step::Hear { to, origin, body } => {
                let mut frames = carriers::frames(&body);
                self.handle_event(Event::Received { conn, bytes: &mut frames }, now);
                self.answer_poll(to, http::polled(origin.as_deref(), b"ok"), now);
            }
            Step::Look => self.handle_event(Event::Looked { conn, unread: false }, now),
            Step::End => self.handle_event(Event::ReceivedEnd { conn }, now),
            Step::Gone { to, origin } => {
                self.drop_probe(conn, now);
                if let Some(to) = to {
                    let response = http::polled(origin.as_deref(), engineio::CLOSE);
                    self.answer_poll(to, response, now);
                }
                self.handle_event(Event::Closed { conn }, now);
            }
        }
    }

    /// Takes an operation on a connection without a socket; gives others back.
    pub(super) fn carry(&mut self, op: Op) -> Result<(), Op> {
        self.carriers().take(op)
    }

    /// Asserts that carriers and their connections are there for each other.
    pub(super) fn check_carriers(&self) {
        let is = |conn: ConnId, carried: Option<bool>| {
            let connection = self.table.peek(conn.index);
            connection.is_some_and(|own| {
                own.generation() == conn.generation
                    && carried.is_none_or(|carried| own.is_carried() == carried)
            })
        };
        let carriers = &self.gate.people.petitions.carriers;
        carriers.check(|conn| is(conn, Some(true)), |conn| is(conn, Some(false)));
        carriers.probes.check(|conn| is(conn, Some(false)), |conn| is(conn, Some(true)));
        let carried = self.table.iter().filter(|(_, connection)| connection.is_carried()).count();
        assert_eq!(carried, carriers.len(), "connections without a socket or a carrier");
    }
}

pub(super) fn unknown() -> Refusal {
    Refusal::engineio(EIO_SESSION, "Session ID unknown")
}
