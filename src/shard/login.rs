//! How a connection becomes somebody's, and how that ends.
//!
//! At the door a token is checked before anything exists that would have to be undone. A ticket is asked
//! after at its home shard, and the handshake waits; should the client go away meanwhile, the answer finds
//! nobody and the ticket stays used. Somebody known is a member of a room of its own that nobody else can
//! name, by which all connections of one user are found. The wheel looks at each once before its token
//! ends and once at the end; a revocation finds its connections by the user's room, or by looking at
//! everyone, a slice a turn.

use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::auth::{
    Admission, Denied, Identity, KeySet, Mode, Revocation, Source, Ticket, TokenError, Veto,
    user_room,
};
use crate::base::id::{ConnAddress, ConnId, ShardId};
use crate::base::party::Party;
use crate::base::time::{Tick, Time};
use crate::connection::{Disconnect, Phase, Verdict};
use crate::session::encode::{self, Reply};
use crate::session::{Code, CommandError, Protocol, Session};
use crate::shard::held::Arrival;
use crate::shard::mail::{Claim, Mail};
use crate::shard::people::{ASKED, Offer, Pending, Person, hash};
use crate::shard::state::Shard;
use crate::wire::http::{Head, Refusal, Upgrade};

/// What is known of a client by its request alone.
#[derive(Debug)]
pub(super) struct Judged {
    /// Who comes in.
    pub(super) who: Admission,
    /// What the application says to somebody who does not.
    pub(super) words: Option<Box<str>>,
    /// Where it came from, where the back end is to be asked about it.
    pub(super) arrival: Option<Arrival>,
    /// It is a page and is to be told by a close frame why it must go.
    pub(super) tells: bool,
}

impl Default for Judged {
    /// Nothing.
    fn default() -> Self {
        Self { who: Admission::Anonymous, words: None, arrival: None, tells: false }
    }
}

impl Judged {
    /// True when the handshake is held until something is known.
    pub(super) fn waits(&self) -> bool {
        match self.who {
            Admission::Ticket(_) | Admission::Unproven(_) => true,
            Admission::Later => false,
            Admission::Anonymous | Admission::Known(_) => self.arrival.is_some(),
        }
    }
}

/// Connections that one turn looks at for those whose tokens were taken back.
const SWEEP_SLICE: usize = 1024;

impl Shard {
    /// Seconds since 1970.
    pub(super) fn unix(&self, now: Time) -> u64 {
        self.unix_ms(now) / 1000
    }

    /// The moment of the node's own time at which it is `unix` seconds since 1970; `Time::ZERO` when that was
    /// before the start.
    fn moment(&self, unix: u64) -> Time {
        let millis = unix.saturating_mul(1000).saturating_sub(self.identity.started_unix_ms);
        Time::ZERO.plus(Duration::from_millis(millis))
    }

    /// What a valid upgrade gets, and who comes in by it.
    pub(super) fn judge(
        &mut self,
        conn: ConnId,
        head: &Head<'_>,
        upgrade: &Upgrade<'_>,
        now: Time,
    ) -> (Verdict, Judged) {
        let (unix, settings) = (self.unix(now), Rc::clone(&self.settings));
        let access = &settings.access;
        let mut said: Option<Veto> = None;
        let shows = access.mode == Mode::Token && access.sources.has(Source::Certificate);
        let peer = if shows { self.peer(conn) } else { None };
        // Its library shows scripts nothing but what comes in packets.
        let packets = settings.routes.is_packets(head.path());
        let later = if packets { Source::Payload } else { Source::Message };
        let tells = packets || access.browser_errors && upgrade.origin.is_some();
        let admission =
            access.admit(head, upgrade, peer.as_ref(), later, unix).and_then(|admission| {
                let identity = match &admission {
                    Admission::Known(identity) => Some(&**identity),
                    Admission::Ticket(read) => Some(&read.identity),
                    Admission::Anonymous | Admission::Later | Admission::Unproven(_) => None,
                };
                let revocations = &self.gate.people.revocations;
                let is_void = identity.is_some_and(|identity| revocations.holds(identity, unix));
                said = identity.and_then(|identity| identity.veto.as_deref().cloned());
                match (is_void, &said) {
                    (true, _) => Err(Denied::Token(TokenError::Revoked)),
                    (false, Some(_)) => Err(Denied::Token(TokenError::Vetoed)),
                    (false, None) => Ok(admission),
                }
            });
        // A session that began now would be closed before it could say much.
        let full = self.is_full() || self.gate.drain.is_some();
        let verdict = match admission {
            Ok(_) if full => Verdict::Refuse(Refusal::unavailable(None)),
            Ok(who) => {
                let arrival = self.arrival(head, upgrade);
                return (Verdict::Welcome, Judged { who, words: None, arrival, tells });
            }
            Err(Denied::Origin(error)) => {
                self.counters.origin_refused_total += 1;
                Verdict::Refuse(Refusal::forbidden(error.public()))
            }
            Err(Denied::Token(error)) => {
                self.note_refused_token(error);
                let veto = said.filter(|_| error == TokenError::Vetoed);
                if tells {
                    let words = veto.map(|veto| veto.words);
                    let verdict = Verdict::Dismiss(Disconnect::Denied(error));
                    return (verdict, Judged { words, ..Judged::default() });
                }
                let wrong = error != TokenError::Missing;
                let refusal = Refusal::unauthorized(error.public(), wrong);
                Verdict::Refuse(
                    veto.map_or(refusal, |veto| Refusal::vetoed(veto.status, &veto.words)),
                )
            }
        };
        (verdict, Judged::default())
    }

    pub(super) fn note_refused_token(&mut self, error: TokenError) {
        let counters = &mut self.counters;
        counters.auth_refused_total += 1;
        let kind = match error {
            TokenError::Missing => &mut counters.auth_missing_total,
            TokenError::Expired | TokenError::NotYetValid => &mut counters.auth_expired_total,
            TokenError::Revoked => &mut counters.auth_revoked_total,
            TokenError::Vetoed => &mut counters.auth_vetoed_total,
            TokenError::Ticket => &mut counters.auth_ticket_total,
            TokenError::UnknownKey => &mut counters.auth_unknown_key_total,
            TokenError::Unsigned
            | TokenError::UnknownAlgorithm
            | TokenError::Critical
            | TokenError::Signature => &mut counters.auth_untrusted_total,
            TokenError::NoExpiry
            | TokenError::Audience
            | TokenError::Issuer
            | TokenError::OtherUser => &mut counters.auth_unsuited_total,
            TokenError::Ambiguous
            | TokenError::TooLong
            | TokenError::Shape
            | TokenError::Header
            | TokenError::Claims
            | TokenError::Claim(_) => &mut counters.auth_malformed_total,
        };
        *kind += 1;
    }

    /// Holds a handshake until its ticket's home has answered or its token is checked, and the back end has answered
    /// where that is asked. `rest` came behind the head.
    pub(super) fn hold(
        &mut self,
        conn: ConnId,
        offer: Offer,
        mut judged: Judged,
        rest: &[u8],
        now: Time,
    ) {
        let (mut ticket, mut token, mut claim) = (None, None, None);
        match &mut judged.who {
            Admission::Ticket(read) if read.shared => {
                let Ticket { id, expires } = read.ticket;
                claim = Some(Claim { to: self.address(conn), id, expires });
            }
            Admission::Ticket(read) => ticket = Some(read.ticket),
            Admission::Unproven(text) => token = Some(std::mem::take(text)),
            Admission::Anonymous | Admission::Known(_) | Admission::Later => {}
        }
        let pending = Pending::of(conn, offer, judged, rest);
        self.gate.people.pending.insert(conn.index, Box::new(pending));
        if let Some(token) = token {
            return self.prove_newcomer(conn, &token, now);
        }
        if let Some(claim) = claim {
            return self.push_across(Mail::Claim(Box::new(claim)));
        }
        let Some(ticket) = ticket else { return self.ask_door(conn, now) };
        let shards = u128::from(self.identity.shards.max(1));
        let home = ShardId(u16::try_from(ticket.id % shards).unwrap_or(0));
        let to = self.address(conn);
        if home == self.identity.id {
            self.redeem(to, ticket, now);
        } else {
            self.outbox.push(home, Mail::Redeem(Box::new((to, ticket))));
        }
    }

    /// Keeps what arrives while a handshake is held; false when it is not held.
    pub(super) fn keep_held(&mut self, conn: ConnId, bytes: &[u8], now: Time) -> bool {
        let most = self.settings.head.head_bytes;
        let Some(pending) = self.gate.people.pending.get_mut(&conn.index) else { return false };
        if pending.rest.len() + bytes.len() > most {
            // Nobody has answered yet, so nothing was to be said yet.
            self.close(conn, Disconnect::HandshakeTimeout, now);
        } else {
            pending.rest.extend_from_slice(bytes);
        }
        true
    }

    /// As the ticket's home: answers whether it was used before.
    pub(super) fn redeem(&mut self, to: ConnAddress, ticket: Ticket, now: Time) {
        let unix = self.unix(now);
        let fresh = self.gate.people.redeem(ticket, unix);
        if to.shard == self.identity.id {
            self.handle_redeemed(to.conn, Some(fresh), now);
        } else {
            self.outbox.push(to.shard, Mail::Redeemed { to: to.conn, fresh: Some(fresh) });
        }
    }

    /// The ticket's home has answered, or the bridge. The client may be gone by now, and its index in other hands.
    pub(super) fn handle_redeemed(&mut self, conn: ConnId, fresh: Option<bool>, now: Time) {
        let pending = self.gate.people.pending.get(&conn.index);
        let Some(pending) = pending.filter(|pending| pending.conn == conn) else { return };
        let Some(fresh) = fresh else {
            self.counters.tickets_unsure_total += 1;
            return self.put_off(conn, now);
        };
        if !fresh {
            self.turn_down(conn, TokenError::Ticket, now);
        } else if pending.arrival.is_some() {
            self.ask_door(conn, now);
        } else {
            self.let_in(conn, now);
        }
    }

    /// Ends a handshake that is held.
    fn turn_down(&mut self, conn: ConnId, error: TokenError, now: Time) {
        self.note_refused_token(error);
        let refusal = Refusal::unauthorized(error.public(), true);
        self.turn_back(conn, Disconnect::Denied(error), None, &refusal, now);
    }

    /// Goes on with a handshake that is held, unless its token was revoked meanwhile.
    pub(super) fn let_in(&mut self, conn: ConnId, now: Time) {
        let (unix, people) = (self.unix(now), &mut self.gate.people);
        let Some(pending) = people.pending.get(&conn.index) else { return };
        let identity = pending.identity.as_ref();
        if identity.is_some_and(|identity| people.revocations.holds(identity, unix)) {
            return self.turn_down(conn, TokenError::Revoked, now);
        }
        let Some(pending) = people.pending.remove(&conn.index) else { return };
        let Pending { offer, identity, mut rest, .. } = *pending;
        let Offer { protocol, response, window, wish } = offer;
        self.begin_reading(conn, wish.as_deref());
        self.open(conn, protocol, (response, window), now);
        if protocol == Protocol::Packets {
            self.await_connect(conn, identity, now);
        } else {
            if let Some(identity) = identity {
                self.recognise(conn, identity, now);
            }
            self.welcome(conn, protocol, now);
            self.grant(conn, wish, now);
        }
        if !rest.is_empty() {
            self.handle_frames(conn, &mut rest, now);
        }
    }

    /// An open connection is somebody's from now on.
    pub(super) fn recognise(&mut self, conn: ConnId, identity: Identity, now: Time) {
        if self.is_reading(conn) {
            return self.recognise_reader(conn, identity);
        }
        let own = user_room(identity.tenant.as_deref(), &identity.user);
        let Some(connection) = self.table.get(conn) else { return };
        let hub = &mut self.rooms.hub;
        if hub.join(&mut connection.member, conn.index, &own, usize::MAX).is_ok() {
            // Nothing was numbered before that the member must not get.
            hub.confirm(&connection.member, &own);
        }
        if let Some(tenant) = &identity.tenant {
            self.measures.ledger.enter(conn.index, tenant);
            self.charge_tenant(conn.index, tenant);
        }
        self.note_person(conn.index, identity, &own);
        self.note_rooms(conn.index);
        self.counters.logins_total += 1;
        self.watch(conn, now);
        self.arrive(conn, now);
    }

    pub(super) fn note_person(&mut self, index: u32, mut identity: Identity, own: &str) {
        self.limit_messages(&mut identity);
        let name = self.rooms.hub.name(own).map_or_else(|| Arc::from(own), Arc::clone);
        self.gate.people.settle(index, identity, name, &self.identity.seed);
    }

    /// What its user's and its tenant's messages may have is part of what is known of who logs in.
    fn limit_messages(&self, identity: &mut Identity) {
        let limits = &self.settings.limits;
        let tenant = identity.tenant.as_deref();
        let tenant = tenant.map(|tenant| limits.of(Party::tenant(&self.identity.seed, tenant)));
        let all = [Some(&limits.user), tenant].into_iter().flatten();
        let most = all.filter_map(|party| NonZeroU32::new(party.message_bytes)).min();
        let Some(most) = most else { return };
        let own = &mut identity.limits.get_or_insert_default().message_bytes;
        *own = Some(own.map_or(most, |own| own.min(most)));
    }

    /// Sees to it that the wheel looks at the connection when its token needs it.
    fn watch(&mut self, conn: ConnId, now: Time) {
        let Some(next) = self.next_of_token(conn.index, now) else { return };
        let wheel = &mut self.table.wheel;
        if wheel.deadline(conn.index).is_none_or(|deadline| deadline > next) {
            wheel.set(conn.index, next);
        }
    }

    /// When the token of the connection at that index needs a look; `None` when never.
    pub(super) fn next_of_token(&self, index: u32, now: Time) -> Option<Tick> {
        let person = self.gate.people.get(index)?;
        let access = &self.settings.access;
        let (expires, before) = (person.expires()?, access.reauth_before);
        let next = if before.is_zero() || person.has(ASKED) {
            self.moment(access.end_of(expires))
        } else {
            self.moment(expires).before(before)
        };
        Some(ceiling(next).max(now.tick()))
    }

    /// Does what the token of the connection at that index needs: nothing, a request for a fresh one, or the
    /// end, and then this is true.
    pub(super) fn tend_token(&mut self, id: ConnId, now: Time) -> bool {
        let person = self.gate.people.get(id.index);
        let Some(expires) = person.and_then(Person::expires) else { return false };
        let settings = Rc::clone(&self.settings);
        let access = &settings.access;
        let end = self.moment(access.end_of(expires));
        if end <= now {
            self.close(id, Disconnect::Expired, now);
            return true;
        }
        // The leeway is for clocks that disagree. Who is asked has to answer before the token's own end.
        let before = access.reauth_before;
        let is_time = !before.is_zero() && self.moment(expires).before(before) <= now;
        let person = self.gate.people.get_mut(id.index);
        if is_time && person.is_some_and(|person| person.set(ASKED)) {
            let left = end.since(now);
            let mut text = Vec::new();
            encode::reauth(&mut text, u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
            self.push_text(id, &text, now);
        }
        false
    }

    /// `throng:auth`: the first message of who has yet to say who it is, or a fresh token. `place` is where it stood
    /// if it was held before.
    pub(super) fn login(
        &mut self,
        id: ConnId,
        token: &str,
        reference: Option<&RawValue>,
        place: Option<u64>,
        now: Time,
    ) {
        let (unix, settings) = (self.unix(now), Rc::clone(&self.settings));
        let access = &settings.access;
        let waits = self.awaits_login(id);
        let before = self.gate.people.get(id.index);
        if access.mode == Mode::Open || !waits && before.is_none() {
            let message = "no token is asked for here";
            let error = CommandError::new(Code::Unauthorized, message, reference);
            return self.refuse(id, &error, now);
        }
        if access.is_dear(token) {
            return self.prove_login(id, token, reference, place, now);
        }
        self.finish_check(id, access.verifier.verify(token, unix), reference, place, now);
    }

    /// Obeys a `throng:auth` whose token was checked.
    pub(super) fn finish_check(
        &mut self,
        id: ConnId,
        verdict: Result<Identity, TokenError>,
        reference: Option<&RawValue>,
        place: Option<u64>,
        now: Time,
    ) {
        let (unix, settings) = (self.unix(now), Rc::clone(&self.settings));
        let access = &settings.access;
        let waits = self.awaits_login(id);
        let before = self.gate.people.get(id.index);
        let mut words: Option<Box<str>> = None;
        let verdict = verdict.and_then(|identity| {
            let is_void = self.gate.people.revocations.holds(&identity, unix);
            let is_other = before.is_some_and(|person| !person.is(&identity));
            match (is_void, is_other, &identity.veto) {
                (true, _, _) => Err(TokenError::Revoked),
                (false, true, _) => Err(TokenError::OtherUser),
                (false, false, Some(veto)) => {
                    words = Some(veto.words.clone());
                    Err(TokenError::Vetoed)
                }
                (false, false, None) => Ok(identity),
            }
        });
        let asks = waits && access.consult.is_some_and(|consult| consult.connect);
        match verdict {
            Ok(identity) if asks => self.ask_login(id, identity, reference, place, now),
            Ok(identity) => self.accept_token(id, identity, waits, reference, now),
            Err(error) => {
                self.note_refused_token(error);
                if waits {
                    let why = Disconnect::Denied(error);
                    return self.close_saying(id, why, words.as_deref(), now);
                }
                let message = words.as_deref().unwrap_or(error.public());
                self.refuse(id, &CommandError::new(Code::Unauthorized, message, reference), now);
            }
        }
    }

    pub(super) fn accept_token(
        &mut self,
        id: ConnId,
        identity: Identity,
        waits: bool,
        reference: Option<&RawValue>,
        now: Time,
    ) {
        let (user, expires) = (identity.user.clone(), identity.expires);
        if waits {
            let first = self.settings.timeouts.first(now.tick(), self.rng.u32(..));
            if let Some(open) = self.table.get(id).and_then(|connection| connection.open_mut()) {
                open.session = Session::new(Protocol::Json);
            }
            self.table.wheel.set(id.index, first);
            self.recognise(id, identity, now);
            let packets = self.table.get(id).is_some_and(|connection| connection.speaks_packets());
            let protocol = if packets { Protocol::Packets } else { Protocol::Json };
            self.welcome(id, protocol, now);
        } else {
            self.counters.reauths_total += 1;
            let own = user_room(identity.tenant.as_deref(), &identity.user);
            self.note_person(id.index, identity, &own);
            self.withdraw(id, now);
            self.watch(id, now);
        }
        self.reply(id, reference, &Reply::Authenticated { user: &user, expires }, now);
    }

    /// True while the connection has yet to say who it is.
    pub(super) fn awaits_login(&mut self, id: ConnId) -> bool {
        let open = self.table.get(id).and_then(|connection| connection.open_mut());
        open.is_some_and(|open| open.session == Session::Login)
    }

    /// The first message was something else than a login.
    pub(super) fn deny_stranger(&mut self, id: ConnId, now: Time) {
        self.note_refused_token(TokenError::Missing);
        self.close(id, Disconnect::Denied(TokenError::Missing), now);
    }

    /// Remembers a revocation and closes whom it takes.
    pub(super) fn handle_revoke(&mut self, revocation: &Arc<Revocation>, now: Time) {
        let unix = self.unix(now);
        if self.gate.people.revocations.add(revocation, unix).is_err() {
            self.counters.revocations_lost_total += 1;
        }
        match &**revocation {
            Revocation::User { tenant, user, .. } => {
                let own = user_room(tenant.as_deref(), user);
                let members = self.rooms.hub.members(&own).iter().map(|member| member.conn);
                for index in members.collect::<Vec<u32>>() {
                    self.close_if_taken(index, revocation, now);
                }
            }
            Revocation::Token { id, .. } => {
                self.gate.people.sweeps.begin(hash(&self.identity.seed, id));
            }
        }
        self.close_pending(revocation, now);
    }

    /// Takes over revocations of an earlier life of the node, before anybody is here.
    pub fn remember(&mut self, revocations: &[Revocation], now: Time) {
        let unix = self.unix(now);
        for revocation in revocations {
            if self.gate.people.revocations.add(revocation, unix).is_err() {
                self.counters.revocations_lost_total += 1;
            }
        }
    }

    fn close_pending(&mut self, revocation: &Revocation, now: Time) {
        let pending = self.gate.people.pending.values();
        let taken = pending.filter(|pending| {
            pending.identity.as_ref().is_some_and(|identity| revocation.takes(identity))
        });
        for conn in taken.map(|pending| pending.conn).collect::<Vec<_>>() {
            self.turn_down(conn, TokenError::Revoked, now);
        }
    }

    fn close_if_taken(&mut self, index: u32, revocation: &Revocation, now: Time) {
        let (person, seed) = (self.gate.people.get(index), &self.identity.seed);
        if person.is_some_and(|person| person.is_taken_by(revocation, seed))
            && let Some((id, _)) = self.table.at(index)
        {
            self.close(id, Disconnect::Revoked, now);
        }
    }

    /// Looks on for those whose token was taken back.
    pub(super) fn sweep_some(&mut self, now: Time) {
        let people = &mut self.gate.people;
        if people.sweeps.is_empty() {
            return;
        }
        let bound = people.bound();
        let slice = people.sweeps.next(bound, SWEEP_SLICE);
        let people = &self.gate.people;
        let is_taken = |index: &u32| {
            people.get(*index).is_some_and(|person| people.sweeps.wants(person.token()))
        };
        let indexes = slice.map(|index| u32::try_from(index).unwrap_or(u32::MAX));
        let taken: Vec<u32> = indexes.filter(is_taken).collect();
        for index in taken {
            if let Some((id, _)) = self.table.at(index) {
                self.close(id, Disconnect::Revoked, now);
            }
        }
        self.gate.people.sweeps.end(bound);
    }

    /// Takes over keys that were fetched while the node runs, in place of those fetched before.
    pub(super) fn handle_keys(&mut self, keys: Arc<KeySet>) {
        self.gate.people.fetched = Some(keys);
        self.join_keys();
    }

    /// Puts the fetched keys beside those of the configuration.
    pub(super) fn join_keys(&mut self) {
        let Some(fetched) = self.gate.people.fetched.clone() else { return };
        let mut settings = (*self.settings).clone();
        let mut access = (*settings.access).clone();
        let own = settings.own_keys.clone();
        let Ok(keys) = own.and((*fetched).clone()) else {
            self.counters.keys_refused_total += 1;
            return;
        };
        access.verifier.keys = keys;
        settings.access = Arc::new(access);
        self.settings = Rc::new(settings);
    }

    /// What holds of those who are known.
    pub(super) fn check_people(&self) {
        let people = &self.gate.people;
        let mut known = 0;
        for (index, connection) in self.table.iter() {
            let is_known = people.get(index).is_some();
            known += usize::from(is_known);
            assert!(
                !is_known || connection.open().is_some(),
                "connection {index} is known and not open"
            );
            if people.pending.contains_key(&index) {
                let opening = matches!(connection.phase(), Phase::Opening { .. });
                assert!(opening, "connection {index} is held and not opening");
            }
        }
        assert_eq!(known, people.len(), "people known");
    }
}

/// The first tick that does not begin before `time`.
fn ceiling(time: Time) -> Tick {
    let tick = time.tick();
    if tick.start() < time { Tick(tick.0.saturating_add(1)) } else { tick }
}
