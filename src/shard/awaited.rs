//! Commands that have been accepted and await their answer: how many of a connection, its user and its tenant.
//!
//! A command counts from when it is accepted until it is answered, wherever it waits meanwhile: on its way to another
//! shard and back, in this one for the verdict on a room or for the store, at the bridge for a number, or held until the
//! application's back end has said whether it may be obeyed, and behind one that is. It is answered in any case, by
//! an error if not otherwise, and what a connection has not been answered when it ends counts no more. Whatever waits
//! in vain, in a shard or beyond the bridge, so costs a connection one of its own and ends with it.
//!
//! What one connection asks is counted where it lives, exactly. Users and tenants may have connections in several
//! shards: those tell each other what they have, by way of the party's home, as `flow::sums` says. Each may go over
//! by an eighth of its part of the limit without telling, so that who asks little costs no mail.

use crate::base::id::{ConnId, ShardId};
use crate::base::map::{Map, Seed};
use crate::base::party::Party;
use crate::flow::sums::Sums;
use crate::shard::mail::Mail;
use crate::shard::state::Shard;

/// What shards tell each other of the commands of a user or tenant that await their answers.
#[derive(Clone, Copy, Debug)]
pub struct Awaits {
    /// The user or tenant.
    pub party: Party,
    /// To the home: whose count it is.
    pub from: ShardId,
    /// To the home: the commands in that shard. From it: those in all others.
    pub count: u32,
}

/// The user and the tenant that a connection's commands count for, where these have a limit.
type Askers = [Option<Party>; 2];

#[derive(Debug)]
struct Asker {
    conn: ConnId,
    /// Never zero.
    count: u32,
    /// Whom all of these count for.
    parties: Askers,
}

/// The commands of a shard that await their answers.
#[derive(Debug)]
pub(super) struct Awaited {
    conns: Map<u32, Asker>,
    /// Those of users and tenants with a limit.
    pub(super) sums: Sums<Party>,
    /// The sum over all connections.
    total: u64,
    /// The connection whose command is taken up again that was held: it was accepted before, and is so still.
    accepted: Option<ConnId>,
}

/// Into how many grains a shard's part of a limit is divided; one is told to nobody.
const GRAINS: u32 = 8;

impl Awaited {
    pub(super) fn new(seed: &Seed) -> Self {
        Self { conns: seed.map(), sums: Sums::new(seed), total: 0, accepted: None }
    }

    /// Commands that await their answers.
    pub(super) fn len(&self) -> u64 {
        self.total
    }

    /// Those of a connection.
    pub(super) fn count(&self, conn: ConnId) -> u32 {
        self.conns.get(&conn.index).filter(|asker| asker.conn == conn).map_or(0, |own| own.count)
    }

    /// One more, for these parties. Those that were open count for them as well from now on: the connection may have
    /// said who it is, and a limit may have come or gone.
    fn begin(&mut self, conn: ConnId, parties: Askers) {
        let asker = self.conns.entry(conn.index).or_insert(Asker { conn, count: 0, parties });
        if asker.parties != parties {
            asker.parties.iter().flatten().for_each(|party| self.sums.take(*party, asker.count));
            parties.iter().flatten().for_each(|party| self.sums.add(*party, asker.count));
            asker.parties = parties;
        }
        asker.count += 1;
        self.total += 1;
        parties.iter().flatten().for_each(|party| self.sums.add(*party, 1));
    }

    /// One was answered, if the connection is still there.
    fn end(&mut self, conn: ConnId) {
        let Some(asker) = self.conns.get_mut(&conn.index).filter(|asker| asker.conn == conn) else {
            return;
        };
        asker.count -= 1;
        self.total -= 1;
        asker.parties.iter().flatten().for_each(|party| self.sums.take(*party, 1));
        if asker.count == 0 {
            self.conns.remove(&conn.index);
        }
    }

    /// The connection at that index has ended.
    pub(super) fn forget(&mut self, index: u32) {
        let Some(asker) = self.conns.remove(&index) else { return };
        self.total -= u64::from(asker.count);
        asker.parties.iter().flatten().for_each(|party| self.sums.take(*party, asker.count));
    }

    /// Verifies the counts. `held` says how many commands of a connection are held, of which `all` are.
    ///
    /// # Panics
    /// When one is wrong.
    pub(super) fn check(
        &self,
        is_open: impl Fn(ConnId) -> bool,
        (held, all): (impl Fn(ConnId) -> usize, usize),
    ) {
        for asker in self.conns.values() {
            let Asker { conn, count, .. } = asker;
            assert!(*count > 0 && is_open(*conn), "{conn:?} is not open and awaits {count}");
            assert!(held(*conn) <= *count as usize, "{conn:?} awaits {count} and has more held");
        }
        let total: u64 = self.conns.values().map(|asker| u64::from(asker.count)).sum();
        assert_eq!(total, self.total, "commands that await their answers");
        assert!(all as u64 <= total, "{all} commands are held and {total} await their answers");
        assert!(self.accepted.is_none(), "a command is accepted and not taken up");
        self.sums.check();
    }
}

impl Shard {
    /// True when no further command may be accepted that awaits its answer. What was held is asked for once, and may
    /// go on whatever others ask now.
    pub(super) fn has_asked_enough(&mut self, id: ConnId) -> bool {
        self.gate.paces.awaited.accepted.take() != Some(id) && self.awaits_enough(id)
    }

    /// True when as much awaits its answer as may: of the connection, or of its user or its tenant in the node, as
    /// far as that is known here.
    pub(super) fn awaits_enough(&self, id: ConnId) -> bool {
        let (limits, awaited) = (&self.settings.limits, &self.gate.paces.awaited);
        awaited.count(id) >= u32::from(limits.outstanding)
            || self
                .askers(id.index)
                .into_iter()
                .flatten()
                .any(|party| awaited.sums.of(party) >= limits.of(party).outstanding)
    }

    /// Notes that a command awaits its answer. What a connection asks that has begun to close counts for nobody.
    pub(super) fn note_asked(&mut self, id: ConnId) {
        if self.table.get(id).is_some_and(|connection| connection.open().is_some()) {
            let askers = self.askers(id.index);
            self.gate.paces.awaited.begin(id, askers);
        }
    }

    /// Notes that it was answered. The connection may be gone by now, and its index in other hands.
    pub(super) fn note_answered(&mut self, id: ConnId) {
        self.gate.paces.awaited.end(id);
    }

    /// A command of this connection that was held is taken up again, or that is over.
    pub(super) fn accept_again(&mut self, id: Option<ConnId>) {
        self.gate.paces.awaited.accepted = id;
    }

    fn askers(&self, index: u32) -> Askers {
        let limits = &self.settings.limits;
        let (user, tenant) = (limits.user.outstanding > 0, limits.asks_of_tenants());
        let person = (user || tenant).then(|| self.gate.people.get(index)).flatten();
        let seed = &self.identity.seed;
        let of_tenant = person.filter(|_| tenant).and_then(|person| person.tenant(seed));
        [
            person.filter(|_| user).map(|person| person.user(seed)),
            of_tenant.filter(|party| limits.of(*party).outstanding > 0),
        ]
    }

    /// Tells homes what has changed.
    pub(super) fn post_awaited(&mut self) {
        let (settings, from) = (std::rc::Rc::clone(&self.settings), self.identity.id);
        let shards = u32::from(self.identity.shards);
        let grain = |party| settings.limits.of(party).outstanding / GRAINS / shards;
        while let Some((party, count)) = self.gate.paces.awaited.sums.poll_told(grain) {
            if shards == 1 {
                continue;
            }
            let (home, awaits) = (self.home_of(party), Awaits { party, from, count });
            if home == from {
                self.handle_awaits(&awaits);
            } else {
                self.outbox.push(home, Mail::Awaits(Box::new(awaits)));
            }
        }
    }

    /// As the party's home: so much of it awaits answers in that shard.
    pub(super) fn handle_awaits(&mut self, told: &Awaits) {
        let Awaits { party, from, count } = *told;
        for (shard, count) in self.gate.paces.awaited.sums.note(party, from, count) {
            let word = Awaits { party, from: self.identity.id, count };
            if shard == self.identity.id {
                self.handle_awaited(&word);
            } else {
                self.outbox.push(shard, Mail::Awaited(Box::new(word)));
            }
        }
    }

    /// Asserts what holds of what is held, and of what awaits its answer, which all of that does.
    pub(super) fn check_awaited(&self) {
        let is_open = |conn: ConnId| {
            let connection = self.table.peek(conn.index);
            let connection = connection.filter(|c| c.generation() == conn.generation);
            connection.is_some_and(|connection| connection.open().is_some())
        };
        let consults = &self.gate.people.consults;
        consults.check(is_open);
        let held = |conn| consults.count(conn);
        self.gate.paces.awaited.check(is_open, (held, consults.len()));
    }

    /// What awaits answers elsewhere, as the party's home says.
    pub(super) fn handle_awaited(&mut self, word: &Awaits) {
        self.gate.paces.awaited.sums.hear(word.party, word.count);
    }
}
