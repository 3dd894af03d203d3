//! Presence where it meets the link: what is asked, heard and handed to the node.
//!
//! Handing on goes in slices and only while the node has space; what waits meanwhile stays here, each user
//! once. What is counted and who is missing is written down when something has changed.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::{Absent, Answer, Ask, Clerk, Counts, Name, Presence, Terms};
use crate::base::map::Seed;
use crate::base::time::Time;
use crate::bridge::options::Options;
use crate::bridge::server::hub_prefix;
use crate::bridge::side::{Side, Word};
use crate::bridge::survey::There;
use crate::bridge::tally::{Tally, set};

/// Users handed to the node at once, and in one turn.
const SLICE: usize = 256;
const SLICES: usize = 16;

/// Presence where it meets the link.
#[derive(Debug)]
pub(in crate::bridge) struct Post {
    presence: Presence,
    pub(in crate::bridge) clerk: Arc<Clerk>,
    absent: Arc<Absent>,
    /// As written down last.
    counts: Counts,
    missing: Option<Vec<Name>>,
}

impl Post {
    /// As the options have it; `None` where nothing is to be known. `unix_ms` is the time of [`Time::ZERO`].
    pub(in crate::bridge) fn new(
        options: &Options,
        absent: &Arc<Absent>,
        unix_ms: u64,
        seed: &Seed,
    ) -> Option<Self> {
        let lease = options.presence.lease?;
        let node = Name::from(&*options.node);
        let terms = Terms {
            tag: options.tag,
            lease,
            life: options.epoch,
            unix_ms,
            most_users: options.presence.most_users,
        };
        let prefix = Arc::from(&*options.prefix);
        let keys = if options.cluster {
            Arc::from(hub_prefix(&options.prefix))
        } else {
            Arc::clone(&prefix)
        };
        let clerk = Clerk { prefix, keys, tag: options.tag, node, lease };
        Some(Self {
            presence: Presence::new(&terms, seed),
            clerk: Arc::new(clerk),
            absent: Arc::clone(absent),
            counts: Counts::default(),
            missing: Some(Vec::new()),
        })
    }

    /// Takes a word that is for it; gives back any other.
    pub(in crate::bridge) fn take(&mut self, word: Word) -> Option<Word> {
        let Word::Here(changes) = word else { return Some(word) };
        changes.into_iter().for_each(|change| self.presence.note(change));
        None
    }

    pub(in crate::bridge) fn link_up(&mut self, now: Time) {
        self.presence.link_up(now);
    }

    pub(in crate::bridge) fn link_down(&mut self, tally: &Tally) {
        self.presence.link_down();
        self.write_down(tally);
    }

    pub(in crate::bridge) fn missed(&mut self) {
        self.presence.missed();
    }

    pub(in crate::bridge) fn next(&mut self, now: Time) -> Option<Ask> {
        self.presence.next(now)
    }

    pub(in crate::bridge) fn due(&self) -> Option<Time> {
        self.presence.due()
    }

    pub(in crate::bridge) fn answer(&mut self, answer: Answer, now: Time, tally: &Tally) {
        self.presence.answer(answer, now);
        self.write_down(tally);
    }

    /// The other nodes, as far as they are known to be there.
    pub(in crate::bridge) fn there(&self) -> There {
        self.presence.there()
    }

    /// Takes in what was told on the channel.
    ///
    /// # Errors
    /// When it is not what nodes tell there.
    pub(in crate::bridge) fn hear(
        &mut self,
        payload: &[u8],
        now: Time,
        tally: &Tally,
    ) -> Result<(), String> {
        let text = str::from_utf8(payload).map_err(|error| error.to_string())?;
        self.presence.hear(text, now)?;
        self.write_down(tally);
        Ok(())
    }

    /// Hands on what there is space for; true when nothing waits any more.
    pub(in crate::bridge) fn hand_on<S: Side>(
        &mut self,
        side: &mut S,
        now: Time,
        tally: &Tally,
    ) -> bool {
        let had_news = self.presence.has_news();
        for _ in 0..SLICES {
            if !self.presence.has_news() || !side.has_space() {
                break;
            }
            side.afar(self.presence.poll(SLICE, now));
        }
        if had_news {
            self.write_down(tally);
        }
        !self.presence.has_news()
    }

    /// What tells the others that the node ends, if they know that it is there.
    pub(in crate::bridge) fn farewell(&mut self) -> Option<super::Batch> {
        self.presence.farewell()
    }

    fn write_down(&mut self, tally: &Tally) {
        let counts = self.presence.counts();
        if counts != self.counts {
            self.counts = counts;
            let rows: [(&AtomicU64, usize); 6] = [
                (&tally.users_here, counts.users_here),
                (&tally.users_elsewhere, counts.users_elsewhere),
                (&tally.nodes, counts.nodes),
                (&tally.reads, counts.reads),
                (&tally.leases_lost, counts.leases_lost),
                (&tally.users_refused, counts.refused),
            ];
            rows.into_iter().for_each(|(cell, value)| set(cell, value));
        }
        let missing = self.presence.absent();
        if missing != self.missing {
            self.missing.clone_from(&missing);
            self.absent.write(missing);
        }
    }
}
