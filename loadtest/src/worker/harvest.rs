//! What a thread brings home, and how threads add up.

use std::collections::BTreeMap;

use super::stats::{Hists, LastSeen};
use crate::ledger::Tally;
use crate::outcome::Sessions;

/// The counts of one thread, or of all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Harvest {
    pub(crate) sessions: Sessions,
    pub(crate) tally: Tally,
    /// Words for what went wrong, and how often.
    pub(crate) failures: BTreeMap<String, u64>,
    pub(crate) hists: Hists,
    pub(crate) last: LastSeen,
    /// Of all threads, from their gauges.
    pub(crate) sent: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
}

/// Kinds of failure that are kept apart; the rest is counted under one heading.
const KINDS: usize = 20;

impl Harvest {
    /// Notes a failure.
    pub(crate) fn fail(&mut self, what: &str) {
        self.fail_often(what, 1);
    }

    fn fail_often(&mut self, what: &str, times: u64) {
        let known = self.failures.contains_key(what) || self.failures.len() < KINDS;
        let what = if known { what } else { "other failures" };
        *self.failures.entry(what.to_owned()).or_default() += times;
    }

    /// Adds another thread's.
    pub(crate) fn merge(&mut self, other: &Self) {
        let (mine, theirs) = (&mut self.sessions, &other.sessions);
        mine.opened += theirs.opened;
        mine.refused += theirs.refused;
        mine.retried += theirs.retried;
        mine.ended_by_plan += theirs.ended_by_plan;
        mine.ended_by_server += theirs.ended_by_server;
        for (code, times) in &theirs.close_codes {
            *mine.close_codes.entry(code.clone()).or_default() += times;
        }
        self.tally.add(&other.tally);
        for (what, times) in &other.failures {
            self.fail_often(what, *times);
        }
        self.hists.merge(&other.hists);
        self.last.merge(&other.last);
    }
}
