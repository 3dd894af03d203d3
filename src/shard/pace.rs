//! Who may go on, and who has to wait.
//!
//! A message is weighed after it was read and before it is obeyed: against the rates of its connection
//! and of all who share limits with it: its address, its user, its tenant. All are asked before any is
//! charged, so a message that is refused costs nothing. What happens to one that comes too soon is the
//! operator's choice for each of them: it is answered with an error, or its connection is closed, or it
//! is obeyed on credit and nothing more is read until the debt is earned back. On credit nothing is
//! lost, and over time the rate is kept as strictly; what one read brought may go over it. Where it
//! comes too soon for several, the worst of what they say is done.
//!
//! The rates of a party hold for all shards together; `shares` says how without asking anyone first. A
//! connection of somebody whose token names lower rates has those instead of everybody's. A namespace may
//! have a rate at which one connection publishes in its rooms, and messages of some types may have one.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use smallvec::SmallVec;

use crate::base::id::ConnId;
use crate::base::map::Seed;
use crate::base::party::Party;
use crate::base::time::Time;
use crate::connection::{Disconnect, Pause};
use crate::flow::accounts::Accounts;
use crate::flow::budget::Budget;
use crate::flow::line::Line;
use crate::flow::meter::{Meters, Rates};
use crate::flow::shares::Shares;
use crate::session::{Command, CommandError, Incoming};
use crate::shard::awaited::Awaited;
use crate::shard::ledger::Figure;
use crate::shard::people::People;
use crate::shard::settings::{COSTS, Cost, Limits, OverRate, PARTY_COSTS, toll};
use crate::shard::state::{Shard, enlist};

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// It is obeyed.
    Go,
    /// It is dropped; the same may come again after this time.
    Late(Duration),
    /// Its connection is closing.
    Over,
}

/// The budgets of those who are active in this shard.
#[derive(Debug)]
pub(super) struct Paces {
    connections: Meters<u32, COSTS>,
    /// As this shard sees them.
    pub(super) parties: Shares<Party, PARTY_COSTS>,
    /// As they are, of those whose home this shard is.
    pub(super) accounts: Accounts<Party, PARTY_COSTS>,
    /// Publications of a connection, by the place of the rooms' namespace, and its messages, by the place of
    /// their type behind those.
    spaces: Meters<(u32, u16), 1>,
    /// Handshakes of all together.
    pub(super) door: Budget,
    /// Those who are asked to come back.
    pub(super) line: Line,
    /// When to look again at connections that are not read from; one entry each at most, and of those
    /// that have closed meanwhile one until then.
    delayed: BinaryHeap<Reverse<(Time, ConnId)>>,
    /// What awaits its answer.
    pub(super) awaited: Awaited,
}

/// The longest that a delayed connection is not looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Delayed connections looked at in one turn.
const RESUMES_PER_TURN: usize = 256;

/// Meters looked at in one turn, of each kind.
const SWEEP: usize = 16;

impl Paces {
    pub(super) fn new(seed: &Seed) -> Self {
        Self {
            connections: Meters::new(seed),
            parties: Shares::new(seed),
            accounts: Accounts::new(seed),
            spaces: Meters::new(seed),
            door: Budget::default(),
            line: Line::default(),
            delayed: BinaryHeap::new(),
            awaited: Awaited::new(seed),
        }
    }

    /// When a delayed connection may be read from again.
    pub(super) fn due(&self) -> Option<Time> {
        self.delayed.peek().map(|Reverse((at, _))| *at)
    }

    /// Forgets a connection that has gone, and what it has spent in so many namespaces.
    pub(super) fn forget(&mut self, index: u32, namespaces: usize) {
        self.connections.forget(index);
        for place in (0..namespaces).map_while(|place| u16::try_from(place).ok()) {
            self.spaces.forget((index, place));
        }
        self.awaited.forget(index);
    }

    /// Connections and parties with a budget that is not full.
    pub(super) fn active(&self) -> usize {
        self.connections.len() + self.parties.len() + self.spaces.len()
    }

    pub(super) fn check(&self) {
        self.connections.check();
        self.parties.check();
        self.spaces.check();
        self.accounts.check();
    }
}

/// Those besides the connection itself for whom a message counts: its address, its user, its tenant, each
/// only where something of theirs has a rate.
type Sharers = [Option<Party>; 3];

/// Publications by the place of the rooms' namespace, where that has a rate, the message itself by the place of its
/// type, where that has one, and joins by the place of the rooms' namespace again, behind those.
type Spaces = SmallVec<[(u16, u32); 2]>;

/// A message that is weighed.
pub(super) struct Load<'a, 'm> {
    pub(super) cost: Cost,
    /// The rooms that it publishes to.
    pub(super) rooms: &'a [Cow<'m, str>],
    /// The rooms that it joins.
    joins: SmallVec<[&'a str; 1]>,
    /// What it asks, where that was understood.
    command: Option<&'a Command<'m>>,
}

impl Shard {
    /// Weighs a message of an open connection and acts on what its limits say.
    pub(super) fn pace(&mut self, id: ConnId, load: &Load<'_, '_>, now: Time) -> Pace {
        let cost = load.cost;
        let (own, sharers) = (self.own_rates(id.index), self.sharers(id.index));
        let spaces = self.spaces(load);
        let (wait, over) = self.wait_for(id.index, (&own, &sharers, &spaces), cost, now);
        if !wait.is_zero() {
            match over {
                OverRate::Error => {
                    self.counters.rate_limited_total += 1;
                    self.want(&sharers, cost, now);
                    return Pace::Late(wait);
                }
                OverRate::Delay => {}
                OverRate::Close => {
                    self.measures.ledger.count(id.index, Figure::OverRate, 1);
                    self.close(id, Disconnect::RateLimited, now);
                    return Pace::Over;
                }
            }
        }
        let (limits, paces) = (&self.settings.limits, &mut self.gate.paces);
        paces.connections.spend(id.index, &own, cost, now);
        for party in sharers.into_iter().flatten() {
            paces.parties.spend(party, &limits.of(party).shared(), toll(cost), now);
        }
        for (place, count) in spaces {
            let rate = self.settings.rooms.rates.get(usize::from(place)).copied().flatten();
            paces.spaces.spend((id.index, place), &[rate], [count], now);
        }
        for party in sharers.into_iter().flatten() {
            self.tell_home(party, now);
        }
        if !wait.is_zero() {
            self.delay(id, wait, now);
        }
        Pace::Go
    }

    /// Notes for those who could not afford a message that they would have liked to.
    fn want(&mut self, sharers: &Sharers, cost: Cost, now: Time) {
        for party in sharers.iter().flatten() {
            let rates = self.settings.limits.of(*party).shared();
            let parties = &mut self.gate.paces.parties;
            if !parties.until(*party, &rates, toll(cost), now).is_zero() {
                parties.want(*party, toll(cost));
                self.tell_home(*party, now);
            }
        }
    }

    /// How many of the rooms are of each namespace with a rate, and the type if it has one.
    fn spaces(&self, load: &Load<'_, '_>) -> Spaces {
        let rules = &self.settings.rooms;
        let mut spaces = Spaces::new();
        if rules.rates.is_empty() {
            return spaces;
        }
        let published = load.rooms.iter().filter_map(|room| rules.namespace_at(room));
        let behind = rules.namespaces.len() + rules.kinds.len();
        let joined = load.joins.iter().filter_map(|room| rules.namespace_at(room));
        for place in published.chain(joined.map(|place| behind + place)) {
            let has_rate = rules.rates.get(place).is_some_and(Option::is_some);
            let Some(place) = u16::try_from(place).ok().filter(|_| has_rate) else { continue };
            match spaces.iter_mut().find(|(known, _)| *known == place) {
                Some((_, count)) => *count += 1,
                None => spaces.push((place, 1)),
            }
        }
        if let Some(command) = load.command.filter(|_| !rules.kinds.is_empty()) {
            let name = command.type_name();
            let at = rules.kinds.iter().position(|kind| kind.types.matches(&name));
            let place = at.and_then(|at| u16::try_from(rules.namespaces.len() + at).ok());
            spaces.extend(place.map(|place| (place, 1)));
        }
        spaces
    }

    /// The rates of one connection: those of all, or lower ones if its token says so.
    fn own_rates(&self, index: u32) -> Rates<COSTS> {
        own_rates(&self.settings.limits, &self.gate.people, index)
    }

    fn sharers(&self, index: u32) -> Sharers {
        let limits = &self.settings.limits;
        let tenant = limits.tenant.is_paced() || limits.tenants.are_paced();
        let user = limits.user.is_paced();
        let person = (user || tenant).then(|| self.gate.people.get(index)).flatten();
        let seed = &self.identity.seed;
        [
            limits.address.is_paced().then(|| self.gate.seats.party(index)).flatten(),
            person.filter(|_| user).map(|person| person.user(seed)),
            person.filter(|_| tenant).and_then(|person| person.tenant(seed)),
        ]
    }

    /// How long until the connection, and all who share limits with it, can afford so much; and what
    /// becomes of it until then, which is the worst that one of the limits says.
    fn wait_for(
        &self,
        index: u32,
        (own, sharers, spaces): (&Rates<COSTS>, &Sharers, &Spaces),
        cost: Cost,
        now: Time,
    ) -> (Duration, OverRate) {
        let (limits, paces) = (&self.settings.limits, &self.gate.paces);
        let wait = paces.connections.until(index, own, cost, now);
        let mut verdict = (wait, if wait.is_zero() { OverRate::Delay } else { limits.over });
        for party in sharers.iter().flatten() {
            let limits = limits.of(*party);
            let wait = paces.parties.until(*party, &limits.shared(), toll(cost), now);
            if !wait.is_zero() {
                verdict = (verdict.0.max(wait), verdict.1.max(limits.over));
            }
        }
        for (place, count) in spaces {
            let rate = self.settings.rooms.rates.get(usize::from(*place)).copied().flatten();
            let wait = paces.spaces.until((index, *place), &[rate], [*count], now);
            if !wait.is_zero() {
                let rules = &self.settings.rooms;
                let kind = usize::from(*place).checked_sub(rules.namespaces.len());
                let kind = kind.and_then(|at| rules.kinds.get(at));
                let over = kind.map_or(limits.over, |kind| kind.over);
                verdict = (verdict.0.max(wait), verdict.1.max(over));
            }
        }
        verdict
    }

    /// Stops reading until the debt is earned back.
    fn delay(&mut self, id: ConnId, wait: Duration, now: Time) {
        let Some(connection) = self.table.get(id) else { return };
        if connection.set_pause(Pause::Rate, true) {
            self.counters.rate_delays_total += 1;
            self.gate.paces.delayed.push(Reverse((now.plus(wait.min(LOOK)), id)));
        }
        enlist(connection, id.index, &mut self.writes);
    }

    /// Reads again from those who have waited long enough, and forgets who has been silent.
    pub(super) fn resume_delayed(&mut self, now: Time) {
        for _ in 0..RESUMES_PER_TURN {
            if self.gate.paces.due().is_none_or(|at| at > now) {
                break;
            }
            let Some(Reverse((_, id))) = self.gate.paces.delayed.pop() else { break };
            let (own, sharers) = (self.own_rates(id.index), self.sharers(id.index));
            // It may publish anywhere next.
            let rates = (0..).zip(&self.settings.rooms.rates);
            let spaces = rates.filter(|(_, rate)| rate.is_some()).map(|(at, _)| (at, 1)).collect();
            let (wait, _) = self.wait_for(id.index, (&own, &sharers, &spaces), [1, 1, 0, 0], now);
            let Some(connection) = self.table.get(id).filter(|c| c.is_living()) else { continue };
            if wait.is_zero() {
                connection.set_pause(Pause::Rate, false);
                enlist(connection, id.index, &mut self.writes);
            } else {
                self.gate.paces.delayed.push(Reverse((now.plus(wait.min(LOOK)), id)));
            }
        }
        let (limits, people) = (&self.settings.limits, &self.gate.people);
        let paces = &mut self.gate.paces;
        paces.connections.sweep(|index| own_rates(limits, people, index), now, SWEEP);
        let rates = &self.settings.rooms.rates;
        let rate = |place: u16| rates.get(usize::from(place)).copied().flatten();
        paces.spaces.sweep(|(_, place)| [rate(place)], now, SWEEP);
        self.sweep_parties(SWEEP, now);
    }
}

impl<'a, 'm> Load<'a, 'm> {
    /// What a message of so many bytes costs.
    pub(super) fn of(message: &'a Result<Incoming<'m>, CommandError>, bytes: usize) -> Self {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let mut joined = SmallVec::new();
        let (joins, publications, rooms) = match message {
            Ok(Incoming::Request(request)) => match &request.command {
                Command::Join { room, .. } => {
                    joined.push(&**room);
                    (1, 0, &[][..])
                }
                Command::Restore { rooms } => {
                    joined.extend(rooms.iter().map(|back| &*back.room));
                    (count(rooms.len()), 0, &[][..])
                }
                Command::Publish(publish) => {
                    (0, count(publish.targets.len()), &publish.targets.rooms[..])
                }
                _ => (0, 0, &[][..]),
            },
            Ok(Incoming::Bounce) | Err(_) => (0, 0, &[][..]),
        };
        let command = match message {
            Ok(Incoming::Request(request)) => Some(&request.command),
            Ok(Incoming::Bounce) | Err(_) => None,
        };
        let cost = [1, count(bytes), joins, publications];
        Self { cost, rooms, joins: joined, command }
    }
}

/// The rates of the connection at that index.
fn own_rates(limits: &Limits, people: &People, index: u32) -> Rates<COSTS> {
    people.rates(index, limits.connection, limits.burst)
}
