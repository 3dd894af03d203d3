//! The connections with most to read, looked for when an operator asks.
//!
//! Nothing is kept for this while nobody asks. A survey goes over the table in slices, one a turn, as the search
//! for laggards does when memory is short, so it is no stall; a new question begins it anew. What it finds
//! is of different moments of its walk, which is good enough to look at.

use std::time::Duration;

use smallvec::SmallVec;

use crate::base::id::{ConnAddress, ConnId};
use crate::base::time::Time;
use crate::shard::state::Shard;

/// A connection that has something to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Laggard {
    /// Which.
    pub conn: ConnAddress,
    /// Whose: the tenant, if there are tenants, and the user.
    pub who: Option<(Option<Box<str>>, Box<str>)>,
    /// Bytes that wait for it, in flight included.
    pub waiting: u64,
    /// Rooms it is in.
    pub rooms: usize,
    /// How long ago its socket was accepted.
    pub life: Duration,
}

/// What one shard has found, heaviest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surveyed {
    /// The number of the question.
    pub number: u64,
    /// Ten at most.
    pub laggards: Vec<Laggard>,
}

/// Connections that a survey tells of, in each shard.
const FOUND: usize = 10;

/// Places of the table looked at in one turn.
const SLICE: u32 = 4096;

/// A survey under way.
#[derive(Debug)]
pub(super) struct Survey {
    number: u64,
    /// Where it goes on.
    cursor: u32,
    /// Places looked at in one turn.
    pub(super) slice: u32,
    found: SmallVec<[(usize, ConnId); FOUND]>,
}

impl Shard {
    /// An operator asks who has most to read.
    pub(super) fn handle_survey(&mut self, number: u64) {
        self.measures.survey =
            Some(Survey { number, cursor: 0, slice: SLICE, found: SmallVec::new() });
    }

    /// Looks at the next slice. To be called once a turn; the answer at its end.
    pub fn poll_survey(&mut self, now: Time) -> Option<Surveyed> {
        let mut survey = self.measures.survey.take()?;
        let bound = self.table.touched();
        let end = bound.min(survey.cursor.saturating_add(survey.slice));
        for index in survey.cursor..end {
            let Some(connection) = self.table.peek(index) else { continue };
            let weight = connection.outbound.bytes();
            if weight > 0 {
                let id = ConnId { index, generation: connection.generation() };
                keep(&mut survey.found, (weight, id));
            }
        }
        survey.cursor = end;
        if end < bound {
            self.measures.survey = Some(survey);
            return None;
        }
        survey.found.sort_unstable_by(|a, b| b.cmp(a));
        let found = std::mem::take(&mut survey.found);
        let laggards = found.into_iter().filter_map(|(weight, id)| self.laggard(weight, id, now));
        Some(Surveyed { number: survey.number, laggards: laggards.collect() })
    }

    fn laggard(&mut self, weight: usize, id: ConnId, now: Time) -> Option<Laggard> {
        let conn = self.address(id);
        let connection = self.table.get(id)?;
        let rooms = self.rooms.hub.count_of(&connection.member);
        let person = self.gate.people.get(id.index).map(|person| person.names());
        Some(Laggard {
            conn,
            who: person.map(|(tenant, user)| (tenant.map(Box::from), Box::from(user))),
            waiting: weight as u64,
            rooms,
            life: self.table.age(id, now.tick()),
        })
    }

    /// True while a survey has slices to look at.
    pub(super) fn is_surveying(&self) -> bool {
        self.measures.survey.is_some()
    }
}

/// Keeps one if it is among the heaviest.
fn keep(found: &mut SmallVec<[(usize, ConnId); FOUND]>, new: (usize, ConnId)) {
    if found.len() < FOUND {
        return found.push(new);
    }
    if let Some(lightest) = found.iter_mut().min().filter(|lightest| **lightest < new) {
        *lightest = new;
    }
}
