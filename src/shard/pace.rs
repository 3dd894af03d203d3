//! Who may go on, and who has to wait.
//!
//! A message is weighed after it was read and before it is obeyed: against the rates of its connection
//! and of its connection's address. Both are asked before either is charged, so a message that is
//! refused costs nothing. What happens to one that comes too soon is the operator's choice: it is
//! answered with an error, or its connection is closed, or it is obeyed on credit and nothing more is
//! read until the debt is earned back. On credit nothing is lost, and over time the rate is kept as
//! strictly; what one read brought may go over it.
//!
//! The rates of an address hold per shard: asking another core about every message would cost more than
//! the message. Its connections are counted for the whole node (`hub::tally`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::base::id::ConnId;
use crate::base::map::{Map, Seed};
use crate::base::party::Party;
use crate::base::time::Time;
use crate::connection::{Disconnect, Pause};
use crate::flow::budget::Budget;
use crate::flow::line::Line;
use crate::flow::meter::{Meters, Rates};
use crate::shard::settings::OverRate;
use crate::shard::state::{Shard, enlist};

/// What a message costs: messages, bytes, joins.
pub(super) type Cost = [u32; 3];

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
    connections: Meters<u32, 3>,
    addresses: Meters<Party, 3>,
    /// Handshakes of each address.
    pub(super) handshakes: Meters<Party, 1>,
    /// Handshakes of all together.
    pub(super) door: Budget,
    /// Those who are asked to come back.
    pub(super) line: Line,
    /// When to look again at connections that are not read from; one entry each at most, and of those
    /// that have closed meanwhile one until then.
    delayed: BinaryHeap<Reverse<(Time, ConnId)>>,
    /// Questions of a connection that another shard has yet to answer; never zero.
    asked: Map<u32, u16>,
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
            addresses: Meters::new(seed),
            handshakes: Meters::new(seed),
            door: Budget::default(),
            line: Line::default(),
            delayed: BinaryHeap::new(),
            asked: seed.map(),
        }
    }

    /// When a delayed connection may be read from again.
    pub(super) fn due(&self) -> Option<Time> {
        self.delayed.peek().map(|Reverse((at, _))| *at)
    }

    /// Questions of the connection that await another shard's answer.
    pub(super) fn asked(&self, index: u32) -> u16 {
        self.asked.get(&index).copied().unwrap_or_default()
    }

    /// Notes one more.
    pub(super) fn ask(&mut self, index: u32) {
        let asked = self.asked.entry(index).or_default();
        *asked = asked.saturating_add(1);
    }

    /// Notes that one was answered.
    pub(super) fn answered(&mut self, index: u32) {
        if let Some(asked) = self.asked.get_mut(&index) {
            *asked -= 1;
            if *asked == 0 {
                self.asked.remove(&index);
            }
        }
    }

    /// Forgets a connection that has gone.
    pub(super) fn forget(&mut self, index: u32) {
        self.connections.forget(index);
        self.asked.remove(&index);
    }

    /// Connections and addresses with a budget that is not full.
    pub(super) fn active(&self) -> usize {
        self.connections.len() + self.addresses.len()
    }

    pub(super) fn check(&self) {
        self.connections.check();
        self.addresses.check();
        self.handshakes.check();
        assert!(self.asked.values().all(|asked| *asked > 0), "nobody asks nothing");
    }
}

impl Shard {
    /// Weighs a message of an open connection and acts on what its limits say.
    pub(super) fn pace(&mut self, id: ConnId, cost: Cost, now: Time) -> Pace {
        let limits = &self.settings.limits;
        let (own, shared) = (limits.connection, limits.address.rates);
        let over = limits.over;
        let wait = self.wait_for(id, &own, &shared, cost, now);
        if !wait.is_zero() {
            match over {
                OverRate::Error => {
                    self.counters.rate_limited_total += 1;
                    return Pace::Late(wait);
                }
                OverRate::Delay => {}
                OverRate::Close => {
                    self.close(id, Disconnect::RateLimited, now);
                    return Pace::Over;
                }
            }
        }
        let paces = &mut self.gate.paces;
        paces.connections.spend(id.index, &own, cost, now);
        if let Some(party) = self.gate.seats.party(id.index) {
            paces.addresses.spend(party, &shared, cost, now);
        }
        if !wait.is_zero() {
            self.delay(id, wait, now);
        }
        Pace::Go
    }

    /// How long until the connection, and its address, can afford so much.
    fn wait_for(
        &self,
        id: ConnId,
        own: &Rates<3>,
        shared: &Rates<3>,
        cost: Cost,
        now: Time,
    ) -> Duration {
        let paces = &self.gate.paces;
        let wait = paces.connections.until(id.index, own, cost, now);
        if shared.iter().all(Option::is_none) {
            return wait;
        }
        let party = self.gate.seats.party(id.index);
        party.map_or(wait, |party| wait.max(paces.addresses.until(party, shared, cost, now)))
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
        let (own, shared) = (self.settings.limits.connection, self.settings.limits.address.rates);
        for _ in 0..RESUMES_PER_TURN {
            if self.gate.paces.due().is_none_or(|at| at > now) {
                break;
            }
            let Some(Reverse((_, id))) = self.gate.paces.delayed.pop() else { break };
            let wait = self.wait_for(id, &own, &shared, [1, 1, 0], now);
            let Some(connection) = self.table.get(id).filter(|c| c.is_living()) else { continue };
            if wait.is_zero() {
                connection.set_pause(Pause::Rate, false);
                enlist(connection, id.index, &mut self.writes);
            } else {
                self.gate.paces.delayed.push(Reverse((now.plus(wait.min(LOOK)), id)));
            }
        }
        let limits = &self.settings.limits;
        let paces = &mut self.gate.paces;
        paces.connections.sweep(&own, now, SWEEP);
        paces.addresses.sweep(&shared, now, SWEEP);
        paces.handshakes.sweep(&[limits.address.handshakes], now, SWEEP);
    }
}
