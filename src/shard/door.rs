//! Who a newcomer is, and whether it comes in.
//!
//! A connection's address is its socket's, unless the socket is a trusted proxy's: then the proxy may say
//! it ahead of the first byte (PROXY protocol), in the request, or both, and until it has, nobody is
//! counted. What counts for a whole party is asked of the party's home shard, by mail when that is
//! another one. Nobody waits for its answer: whoever is one too many hears 503 if the verdict comes
//! before the request, and is closed with 1013 if it comes after.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::base::id::ConnId;
use crate::base::party::Party;
use crate::base::time::Time;
use crate::connection::{Disconnect, HalfHead, Phase, Verdict};
use crate::hub::Excess;
use crate::shard::ledger::Figure;
use crate::shard::memory::Level;
use crate::shard::seats::{ANNOUNCED, COUNTED, CROWDED, REFUSED, TRUSTED};
use crate::shard::settings::Preface;
use crate::shard::state::Shard;
use crate::wire::http::{self, Head, Refusal, Upgrade, Via};
use crate::wire::proxy;

impl Shard {
    /// A connection was accepted from this address, if the kernel still knew it.
    pub(super) fn seat(&mut self, conn: ConnId, peer: Option<IpAddr>) {
        let clients = &self.settings.limits.clients;
        let trusted = peer.is_some_and(|peer| clients.trusts(peer));
        let announced = trusted && clients.preface != Preface::Off;
        let named = trusted && clients.via != Via::Nothing;
        let seats = &mut self.gate.seats;
        seats.leave(conn.index);
        seats.sit(conn.index, peer.map(Party::of));
        seats.set(conn.index, ANNOUNCED, announced);
        seats.set(conn.index, TRUSTED, trusted);
        if !announced && !named {
            self.enter(conn);
        }
    }

    /// True when a socket from this address may not even speak: it would have to announce a client and
    /// is not trusted to.
    pub(super) fn is_stranger(&self, peer: Option<IpAddr>) -> bool {
        let clients = &self.settings.limits.clients;
        clients.preface == Preface::Required && !peer.is_some_and(|peer| clients.trusts(peer))
    }

    /// Reads on in what stands before the client's own words. What follows it; `None` when more must come,
    /// or nothing is to be read ever.
    pub(super) fn handle_preface(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
        now: Time,
    ) -> Option<Vec<u8>> {
        let half = self.table.get(conn)?.take_head();
        let before = half.as_ref().map_or(&[][..], |half| half.bytes());
        let mut so_far = [before, bytes].concat();
        let required = self.settings.limits.clients.preface == Preface::Required;
        match proxy::parse(&so_far) {
            Ok(proxy::Preface::More) => {
                self.table.get(conn)?.keep_head(Box::new(HalfHead::unread(so_far)));
                None
            }
            Ok(proxy::Preface::Present { length, source }) => {
                self.announce(conn, source.map(|source| source.ip()));
                Some(so_far.split_off(length))
            }
            Ok(proxy::Preface::Absent) if !required => {
                self.announce(conn, None);
                Some(so_far)
            }
            Ok(proxy::Preface::Absent) | Err(_) => {
                self.close(conn, Disconnect::Unannounced, now);
                None
            }
        }
    }

    /// The peer has said who it speaks for, or that it speaks for itself.
    fn announce(&mut self, conn: ConnId, source: Option<IpAddr>) {
        let clients = &self.settings.limits.clients;
        let seats = &mut self.gate.seats;
        seats.set(conn.index, ANNOUNCED, false);
        if let Some(source) = source {
            let trusted = clients.trusts(source);
            seats.sit(conn.index, Some(Party::of(source)));
            seats.set(conn.index, TRUSTED, trusted);
        }
        if !(seats.has(conn.index, TRUSTED) && clients.via != Via::Nothing) {
            self.enter(conn);
        }
    }

    /// What a valid upgrade gets, whoever it is, or `None` when it may come in as far as is known here.
    pub(super) fn screen(
        &mut self,
        conn: ConnId,
        head: &Head<'_>,
        upgrade: &Upgrade<'_>,
        now: Time,
    ) -> Option<Verdict> {
        self.identify(conn, head);
        self.evict_some(now);
        if self.gate.pressure.level == Level::Refuse {
            self.counters.memory_refused_total += 1;
            let wait = self.next_place(now);
            return Some(Verdict::Refuse(Refusal::unavailable(Some(wait))));
        }
        let tell = self.settings.limits.door.browser_errors && upgrade.origin.is_some();
        if self.gate.seats.has(conn.index, REFUSED) {
            let wait = self.next_place(now);
            if tell {
                return Some(Verdict::Dismiss(Disconnect::too_many(wait)));
            }
            self.counters.parties_refused_total += 1;
            return Some(Verdict::Refuse(Refusal::unavailable(Some(wait))));
        }
        let delay = self.turn_away(conn, now)?;
        self.counters.handshakes_deferred_total += 1;
        if tell {
            return Some(Verdict::Dismiss(Disconnect::later(delay)));
        }
        Some(Verdict::Refuse(Refusal::unavailable(Some(delay))))
    }

    /// Learns from the request who the client is, if a proxy is to be believed.
    fn identify(&mut self, conn: ConnId, head: &Head<'_>) {
        let clients = &self.settings.limits.clients;
        let seats = &mut self.gate.seats;
        if !seats.has(conn.index, TRUSTED) || clients.via == Via::Nothing {
            return;
        }
        if let Some(client) = http::client(head, clients.via, |hop| clients.trusts(hop)) {
            seats.sit(conn.index, Some(Party::of(client)));
        }
        seats.set(conn.index, TRUSTED, false);
        self.enter(conn);
    }

    /// Charges a handshake, or says how long to wait for a place.
    fn turn_away(&mut self, conn: ConnId, now: Time) -> Option<Duration> {
        let settings = Rc::clone(&self.settings);
        let limits = &settings.limits;
        let (rates, cost) = (limits.address.shared(), [0, 0, 0, 0, 1]);
        let party = self.gate.seats.party(conn.index);
        let crowded = self.gate.seats.has(conn.index, CROWDED);
        let paces = &mut self.gate.paces;
        let late =
            party.map_or(Duration::ZERO, |party| paces.parties.until(party, &rates, cost, now));
        let allowed =
            limits.door.handshakes.is_none_or(|rate| paces.door.until(rate, 1, now).is_zero());
        if allowed && !crowded && late.is_zero() {
            if let Some(rate) = limits.door.handshakes {
                paces.door.spend(rate, 1, now);
            }
            if let Some(party) = party {
                paces.parties.spend(party, &rates, cost, now);
                self.tell_home(party, now);
            }
            return None;
        }
        if let Some(party) = party.filter(|_| !late.is_zero()) {
            paces.parties.want(party, cost);
            self.tell_home(party, now);
        }
        // An address that comes too often waits for itself, and not ahead of others.
        Some(self.next_place(now).max(late))
    }

    /// The next place of the line, as the time to wait for it. Whoever is asked to come back has one, for whatever
    /// reason: a delay that all have in common would bring a crowd back as a crowd.
    pub(super) fn next_place(&mut self, now: Time) -> Duration {
        let rate = self.settings.limits.door.handshakes;
        let per_second = rate.map_or(UNLIMITED, |rate| rate.per_second);
        self.gate.paces.line.place(per_second, self.rng.u32(..), now)
    }

    /// Ends a handshake that is held and can come to nothing now; the client is asked to come back.
    pub(super) fn put_off(&mut self, conn: ConnId, now: Time) {
        let wait = self.next_place(now);
        let refusal = Refusal::unavailable(Some(wait));
        self.turn_back(conn, Disconnect::later(wait), None, &refusal, now);
    }

    /// Closes a connection of which nothing can be decided now; the client is asked to come back.
    pub(super) fn close_for_now(&mut self, conn: ConnId, now: Time) {
        let why = Disconnect::later(self.next_place(now));
        self.close(conn, why, now);
    }

    /// Tells the home of the connection's address of it, where an address's connections are limited.
    pub(super) fn enter(&mut self, conn: ConnId) {
        let most = self.settings.limits.address.connections;
        let Some(party) = self.gate.seats.party(conn.index).filter(|_| most > 0) else { return };
        let counted = self.tell_arrival(party, conn, most);
        self.gate.seats.set(conn.index, if counted { COUNTED } else { REFUSED }, true);
    }

    /// The end of a connection has begun: its party's home is told, if it was told of the begin.
    pub(super) fn depart(&mut self, conn: ConnId) {
        self.gate.paces.forget(conn.index, self.settings.rooms.rates.len());
        if !self.gate.seats.has(conn.index, COUNTED) {
            return;
        }
        self.gate.seats.set(conn.index, COUNTED, false);
        let Some(party) = self.gate.seats.party(conn.index) else { return };
        self.tell_departure(party, conn);
    }

    /// Sends those away who are one too many.
    pub(super) fn evict_some(&mut self, now: Time) {
        while let Some((conn, excess)) = self.gate.evicted.pop() {
            self.handle_evict(conn, excess, now);
        }
    }

    /// This connection is one too many of its party, and goes because it is the newest or the oldest.
    pub(super) fn handle_evict(&mut self, conn: ConnId, excess: Excess, now: Time) {
        match self.table.get(conn).map(|connection| connection.phase()) {
            Some(Phase::Opening { .. }) if self.gate.people.pending.contains_key(&conn.index) => {
                // Its request was judged already, and waits for nothing but its ticket.
                self.counters.parties_refused_total += 1;
                let wait = self.next_place(now);
                self.respond(conn, Refusal::unavailable(Some(wait)).response(), now);
            }
            Some(Phase::Opening { .. }) => self.gate.seats.set(conn.index, REFUSED, true),
            Some(Phase::Open(_)) => {
                self.measures.ledger.count(conn.index, Figure::Evicted, 1);
                let why = match excess {
                    Excess::Newest => Disconnect::too_many(self.next_place(now)),
                    Excess::Oldest => Disconnect::Replaced,
                };
                self.close(conn, why, now);
            }
            Some(Phase::Closing(_)) | None => {}
        }
    }
}

/// The rate of the line where handshakes have none.
const UNLIMITED: u32 = 1000;
