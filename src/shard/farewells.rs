//! Who has gone and why, for the log, where the operator asked for it.
//!
//! The shard says it, the rim writes it: a log that is slow must not be a shard that is slow. So what is said
//! waits in a short queue, and what finds no space is counted and forgotten. Bytes of a connection are
//! counted beside its record, in a table that exists only while they are asked for. No token ever comes
//! here: a person is known by tenant and user.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::id::{ConnAddress, ConnId};
use crate::base::spare::{Release, cut};
use crate::connection::Disconnect;
use crate::shard::state::Shard;

/// Which ends are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// None.
    #[default]
    Nothing,
    /// Those with a fault in them: not those where a client or the node said goodbye in order.
    Faults,
    /// All.
    Everything,
}

/// One connection that has gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Farewell {
    /// Which.
    pub conn: ConnAddress,
    /// Why.
    pub why: Disconnect,
    /// Whose it was: the tenant, if there are tenants, and the user.
    pub who: Option<(Option<Box<str>>, Box<str>)>,
    /// Bytes received from it since they are counted.
    pub received: u64,
    /// Bytes of it that the kernel took since they are counted.
    pub sent: u64,
    /// How long ago its socket was accepted.
    pub life: Duration,
}

/// What waits to be told, and what is counted for it.
#[derive(Debug, Default)]
pub(super) struct Farewells {
    waiting: VecDeque<Farewell>,
    /// Received and sent, by index; empty while nothing is to be told.
    bytes: Vec<[u64; 2]>,
}

/// Farewells that may wait: more than a turn closes in slices.
const MOST: usize = 512;

impl Farewells {
    /// Counts bytes of the connection at that index: `way` is 0 for received, 1 for sent.
    pub(super) fn count(&mut self, index: u32, way: usize, bytes: usize) {
        let at = index as usize;
        if at >= self.bytes.len() {
            self.bytes.resize(at + 1, [0; 2]);
        }
        self.bytes[at][way] += bytes as u64;
    }

    /// Forgets the connection at that index.
    pub(super) fn leave(&mut self, index: u32) {
        if let Some(bytes) = self.bytes.get_mut(index as usize) {
            *bytes = [0; 2];
        }
    }

    /// Nothing is to be told from now on.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// Gives back the places from `from` on; none of them is taken.
    pub(super) fn trim(&mut self, from: u32, to: &mut impl Release) {
        cut(&mut self.bytes, from as usize, to);
    }
}

/// True where a client or the node said goodbye in order.
fn is_orderly(why: Disconnect) -> bool {
    matches!(
        why,
        Disconnect::ClosedByClient
            | Disconnect::Vanished
            | Disconnect::Reload
            | Disconnect::Answered
            | Disconnect::Idle
            | Disconnect::Dismissed(_)
            | Disconnect::TryLater { .. }
    )
}

impl Shard {
    /// True while bytes of connections are to be counted.
    pub(super) fn counts_bytes(&self) -> bool {
        self.settings.capacity.told != Told::Nothing
    }

    /// Notes that the end of a connection has begun. To be called while it is known who it is.
    pub(super) fn say_farewell(&mut self, id: ConnId, why: Disconnect, life: Duration) {
        let is_told = match self.settings.capacity.told {
            Told::Nothing => false,
            Told::Faults => !is_orderly(why),
            Told::Everything => true,
        };
        if !is_told {
            return;
        }
        let conn = self.address(id);
        let farewells = &mut self.measures.farewells;
        if farewells.waiting.len() >= MOST {
            self.counters.farewells_lost_total += 1;
            return;
        }
        let [received, sent] = farewells.bytes.get(id.index as usize).copied().unwrap_or_default();
        let person = self.gate.people.get(id.index).map(|person| person.names());
        let who = person.map(|(tenant, user)| (tenant.map(Box::from), Box::from(user)));
        farewells.waiting.push_back(Farewell { conn, why, who, received, sent, life });
    }

    /// Offers what is to be told to `tell`, which says whether it had space for it.
    pub fn poll_farewells(&mut self, mut tell: impl FnMut(Farewell) -> bool) {
        while let Some(farewell) = self.measures.farewells.waiting.pop_front() {
            if !tell(farewell) {
                self.counters.farewells_lost_total += 1;
            }
        }
    }
}
