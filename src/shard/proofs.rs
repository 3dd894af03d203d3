//! Tokens whose check is dear: they leave as values and come back as mail, and no turn waits for them.
//!
//! What a public key signs takes tens of microseconds to check, which a turn cannot spend on everyone of a
//! crowd. Meanwhile the handshake is held like one that waits for its ticket, and a login like one that waits
//! for the back end. How many wait is bounded here: above it a newcomer hears 503 and when to come back, and
//! nothing queues. A client that goes away leaves its number, whose answer then finds nobody.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::auth::{Proof, Proven, TokenError};
use crate::base::id::ConnId;
use crate::base::map::{Map, Seed};
use crate::base::time::Time;
use crate::connection::Disconnect;
use crate::session::{Code, CommandError};
use crate::shard::held::{About, Held, Kept, Verdict, Wait};
use crate::shard::state::Shard;
use crate::wire::http::Refusal;

/// The tokens of a shard that are checked elsewhere.
#[derive(Debug)]
pub(super) struct Proofs {
    /// Whose each is, by its number.
    waiting: Map<u64, (ConnId, About)>,
    numbers: u64,
    /// On their way out of the shard.
    out: VecDeque<Proof>,
}

impl Proofs {
    pub(super) fn new(seed: &Seed) -> Self {
        Self { waiting: seed.map(), numbers: 0, out: VecDeque::new() }
    }

    /// Gives back what a crowd has left.
    pub(super) fn purge(&mut self) {
        self.waiting.shrink_to(self.waiting.len() * 2);
        self.out.shrink_to(self.out.len() * 2);
    }

    /// Bytes of what has yet to leave.
    pub(super) fn bytes(&self) -> u64 {
        self.out.iter().map(|proof| proof.token.len() as u64).sum()
    }

    /// Asserts what holds between any two events.
    pub(super) fn check(&self) {
        for proof in &self.out {
            assert!(self.waiting.contains_key(&proof.number), "a check for nobody");
        }
    }
}

impl Shard {
    /// Offers the tokens that are to be checked elsewhere to `post`, in order, until it gives one back.
    pub fn poll_proofs(&mut self, post: &mut dyn FnMut(Proof) -> Result<(), Proof>) {
        let out = &mut self.gate.people.consults.proofs.out;
        while let Some(proof) = out.pop_front() {
            if let Err(proof) = post(proof) {
                return out.push_front(proof);
            }
        }
    }

    /// Has a token checked; false when too many wait.
    fn prove(&mut self, conn: ConnId, about: About, token: &str, now: Time) -> bool {
        let (unix, from) = (self.unix(now), self.identity.id);
        let own = &mut self.gate.people.consults.proofs;
        if own.waiting.len() >= self.settings.access.proofs.most_waiting {
            self.counters.auth_proofs_shed_total += 1;
            return false;
        }
        own.numbers += 1;
        let number = own.numbers;
        own.waiting.insert(number, (conn, about));
        let access = Arc::clone(&self.settings.access);
        own.out.push_back(Proof { from, number, token: token.into(), access, unix });
        self.counters.auth_proofs_total += 1;
        true
    }

    /// Has the token of a handshake checked that is held.
    pub(super) fn prove_newcomer(&mut self, conn: ConnId, token: &str, now: Time) {
        if !self.prove(conn, About::Door, token, now) {
            self.put_off(conn, now);
        }
    }

    /// Has the token of a `throng:auth` checked, and holds what is said behind it.
    pub(super) fn prove_login(
        &mut self,
        id: ConnId,
        token: &str,
        reference: Option<&RawValue>,
        place: Option<u64>,
        now: Time,
    ) {
        let place = place.unwrap_or_else(|| self.gate.people.consults.place());
        if self.prove(id, About::Held(place), token, now) {
            let kept = Kept::Token { reference: reference.map(RawValue::to_owned) };
            let held = Held { place, kept, wait: Wait::Proof(None) };
            return self.hold_command(id, held);
        }
        if self.awaits_login(id) {
            return self.close_for_now(id, now);
        }
        let message = "too many tokens wait to be checked; send it again after a pause";
        self.refuse(id, &CommandError::new(Code::Overloaded, message, reference), now);
    }

    /// A token was checked. Its client may be gone by now, and its index in other hands.
    pub(super) fn handle_proven(&mut self, proven: Proven, now: Time) {
        let Proven { number, verdict } = proven;
        let waiting = &mut self.gate.people.consults.proofs.waiting;
        match waiting.remove(&number) {
            Some((conn, About::Door)) => self.finish_newcomer(conn, verdict, now),
            Some((conn, About::Held(place))) => {
                self.gate.people.consults.note_verdict(conn, place, verdict);
                self.advance(conn, now);
            }
            None => {}
        }
    }

    fn finish_newcomer(&mut self, conn: ConnId, verdict: Verdict, now: Time) {
        let unix = self.unix(now);
        let people = &mut self.gate.people;
        let pending = people.pending.get_mut(&conn.index);
        let Some(pending) = pending.filter(|pending| pending.conn == conn) else { return };
        let mut veto = None;
        let verdict = verdict.and_then(|mut identity| {
            if people.revocations.holds(&identity, unix) {
                return Err(TokenError::Revoked);
            }
            veto = identity.veto.take();
            if veto.is_some() { Err(TokenError::Vetoed) } else { Ok(identity) }
        });
        match verdict {
            Ok(identity) => {
                let asks = pending.arrival.is_some();
                pending.identity = Some(identity);
                if asks { self.ask_door(conn, now) } else { self.let_in(conn, now) }
            }
            Err(error) => {
                self.note_refused_token(error);
                let (why, words) = (Disconnect::Denied(error), veto.as_deref());
                let refusal = words.map_or_else(
                    || Refusal::unauthorized(error.public(), true),
                    |veto| Refusal::vetoed(veto.status, &veto.words),
                );
                let words = words.map(|veto| veto.words.clone());
                self.turn_back(conn, why, words.as_deref(), &refusal, now);
            }
        }
    }
}
