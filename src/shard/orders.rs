//! What back ends publish, and what they are told of it.
//!
//! An order comes by mail from the node, split by homes like a client's command. The home numbers it and says
//! so; where a back end wants to know how many it reached, every shard that hands it out says how many it
//! was. What is said goes to the node in a line of its own and not with the mail between shards: nobody waits
//! for the node to read it, and a shard whose line is full goes on. The node bounds what is under way, and
//! so the line; a number that does not fit is lost, counted, and the back end is told that its sum is not
//! whole.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::base::counters::Counters;
use crate::base::cursor::Cursor;
use crate::base::time::Time;
use crate::hub::{Durable, Group, Publication, Slip, Target};
use crate::shard::joint::Told;
use crate::shard::mail::Whole;
use crate::shard::shelf::{Then, Work};
use crate::shard::state::Shard;

/// The part of an order whose home the receiver is.
#[derive(Debug)]
pub struct Submission {
    /// The number of the order.
    pub order: u64,
    /// Its publications.
    pub items: Vec<SubmissionItem>,
}

/// One publication of an order.
#[derive(Debug)]
pub struct SubmissionItem {
    /// Which of the order's publications it is.
    pub index: u32,
    /// To the targets whose home the receiver is.
    pub drafts: SmallVec<[Publication; 1]>,
    /// Set when other homes have targets of it too.
    pub group: Option<Group>,
    /// How long it is worth delivering.
    pub ttl: Option<Duration>,
    /// The whole of it, where the home is to tell the bridge in its turn that it has its part.
    pub across: Option<Arc<Whole>>,
}

/// The number that a publication was given in a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// Which of the order's publications it is.
    pub item: u32,
    /// The room, by its name within the node.
    pub room: Arc<str>,
    /// Epoch and offset.
    pub position: (u64, u64),
}

/// What a shard tells of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// As a home: this many of its publications are numbered and on their way.
    Taken {
        /// The order.
        order: u64,
        /// How many.
        items: u32,
        /// Their numbers, where they are in rooms.
        numbers: Vec<Numbered>,
        /// Those that had been taken before, under the same `id`, and are not taken again.
        repeats: Vec<u32>,
        /// Copies sent to shards that will tell whom they reach.
        copies: u32,
        /// Publications that are numbered elsewhere, each of which is told of by itself.
        kept: u32,
    },
    /// What became of one that is numbered elsewhere.
    Kept {
        /// The order.
        order: u64,
        /// Which of its publications it is.
        item: u32,
        /// What.
        told: Told,
    },
    /// As a home: one of its publications was to be stored and is not, as far as is known.
    Refused {
        /// The order.
        order: u64,
        /// Which of its publications it is.
        item: u32,
        /// Why, for programs.
        code: &'static str,
        /// Why, for people.
        message: &'static str,
    },
    /// As a shard with receivers: one copy has reached this many.
    Reached {
        /// Of which publication.
        slip: Slip,
        /// Connections.
        connections: u64,
    },
    /// From the bridge: how many connections of other nodes one publication has reached.
    Afar {
        /// Of which publication.
        slip: Slip,
        /// Connections.
        connections: u64,
        /// The nodes that have not told. `None`: all have. Empty: nobody knows which there are.
        missing: Option<Vec<Arc<str>>>,
    },
}

impl Report {
    /// True for what the bridge is to know, for another node, and not the desk.
    #[must_use]
    pub fn is_afar(&self) -> bool {
        let (Self::Taken { order, .. }
        | Self::Kept { order, .. }
        | Self::Refused { order, .. }
        | Self::Reached { slip: Slip { order, .. }, .. }
        | Self::Afar { slip: Slip { order, .. }, .. }) = self;
        *order >= Slip::AFAR
    }
}

/// Reports kept while the node does not read them.
const MOST: usize = 65_536;

/// What waits to be told.
#[derive(Debug, Default)]
pub(super) struct Reports(VecDeque<Report>);

impl Reports {
    /// What a home has taken is always told: the node sends no more than it awaits.
    pub(super) fn push(&mut self, report: Report, counters: &mut Counters) {
        if self.0.len() >= MOST && matches!(report, Report::Reached { .. }) {
            counters.reports_dropped_total += 1;
        } else {
            self.0.push_back(report);
        }
    }
}

/// The numbers of a publication in rooms.
fn numbered(item: u32, publications: &[Arc<Publication>]) -> impl Iterator<Item = Numbered> {
    publications.iter().filter(|p| p.to.target == Target::Room).map(move |publication| {
        let Cursor { epoch, offset } = publication.cursor;
        Numbered { item, room: Arc::clone(&publication.room), position: (epoch, offset) }
    })
}

/// How many of these are numbered elsewhere.
pub(super) fn elsewhere(drafts: &[Publication]) -> u32 {
    let elsewhere = drafts.iter().filter(|draft| draft.terms.keep.is_some());
    u32::try_from(elsewhere.count()).unwrap_or(u32::MAX)
}

/// How many of the copies are told of.
fn counted(publications: &[Arc<Publication>], sent: u32) -> u32 {
    let is_counted = publications.first().is_some_and(|p| p.origin.slip().is_some());
    if is_counted { sent } else { 0 }
}

impl Shard {
    /// As the home: numbers what a back end publishes.
    pub(super) fn handle_submission(&mut self, submission: Submission, now: Time) {
        let Submission { order, items } = submission;
        let (mut numbers, mut repeats, mut copies, mut kept, mut count) =
            (Vec::new(), Vec::new(), 0, 0, 0);
        for SubmissionItem { index, mut drafts, group, ttl, across } in items {
            // The node's other threads do not know the shards' time.
            for draft in &mut drafts {
                draft.at = now;
                draft.terms = self.terms_of_order(draft, ttl, now);
            }
            let stores = drafts.iter().any(|draft| draft.terms.durable == Durable::Asked);
            let is_asked = group.is_none() && self.must_ask_nodes(&drafts, now);
            if stores || is_asked || self.must_wait(&drafts) {
                let then = Then::Report { order, item: index };
                let work = Work { drafts, group, across, then };
                if stores {
                    self.store(work, now)
                } else {
                    self.line_up(work, now)
                }
                continue;
            }
            count += 1;
            kept += elsewhere(&drafts);
            let before = self.counters.repeats_total;
            let (publications, sent) = self.number(drafts, group, now);
            repeats.extend((self.counters.repeats_total > before).then_some(index));
            self.send_part(across);
            copies += counted(&publications, sent);
            numbers.extend(numbered(index, &publications));
        }
        if count > 0 {
            self.report_order(Report::Taken {
                order,
                items: count,
                numbers,
                repeats,
                copies,
                kept,
            });
        }
    }

    /// Tells the node that one publication of an order, which had to wait, is on its way.
    pub(super) fn report_taken(
        &mut self,
        (order, item): (u64, u32),
        publications: &[Arc<Publication>],
        (sent, kept): (u32, u32),
    ) {
        let (numbers, copies) =
            (numbered(item, publications).collect(), counted(publications, sent));
        let repeats = Vec::new();
        self.report_order(Report::Taken { order, items: 1, numbers, repeats, copies, kept });
    }

    /// Tells the node that one publication of an order had been taken before.
    pub(super) fn report_repeat(&mut self, (order, item): (u64, u32)) {
        let (numbers, repeats) = (Vec::new(), vec![item]);
        self.report_order(Report::Taken { order, items: 1, numbers, repeats, copies: 0, kept: 0 });
    }

    pub(super) fn report_order(&mut self, report: Report) {
        self.outbox.reports.push(report, &mut self.counters);
    }

    /// Tells whoever wants to know how many a copy has reached.
    pub(super) fn report_reached(&mut self, publication: &Publication, connections: u64) {
        if let Some(slip) = publication.origin.slip() {
            let report = Report::Reached { slip, connections };
            self.outbox.reports.push(report, &mut self.counters);
        }
    }

    /// Offers what the node is to be told to `post`, which gives back what there is no space for.
    pub fn poll_reports(&mut self, post: &mut dyn FnMut(Report) -> Result<(), Report>) {
        let line = &mut self.outbox.reports.0;
        while let Some(report) = line.pop_front() {
            if let Err(report) = post(report) {
                return line.push_front(report);
            }
        }
        if line.capacity() > 4096 {
            *line = VecDeque::new();
        }
    }
}
