//! How many connections a publication has reached on all nodes: the node's side, both ways.
//!
//! A back end's publication whose reach on all nodes matters crosses with a mark, and a question follows it on the same
//! way, so whoever has not heard the publication before the question was not meant to have it and answers with
//! none. A node that has it gives it to its shards as an order of its own, with numbers that no desk gives, and
//! answers when all of them have told. What is noted is bounded and ends with time; a node that has
//! more to count than it notes does not answer, and so is named by who asks.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::base::time::Time;
use crate::bridge::{Mark, Poll, Survey, Surveyed};
use crate::hub::{Group, Origin, Publication, Slip};
use crate::mesh::Lane;
use crate::node::link::Link;
use crate::node::polling::Asker;
use crate::node::publishing::desk_port;
use crate::shard::{Mail, Report, Submission, SubmissionItem};

/// Publications of other nodes that may be counted at a time, and for how long one is noted.
const MOST: usize = 4096;
const PATIENCE: Duration = Duration::from_secs(10);
/// Answers for the desk that may wait for it.
const MOST_TOLD: usize = 4096;
/// The question.
const QUESTION: &str = r#"{"reached":true}"#;

/// The question as it is read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(rename = "reached")]
    is_it: bool,
}

/// The answer.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Told {
    connections: u64,
}

/// A publication of another node.
#[derive(Debug)]
struct Open {
    mark: Mark,
    until: Time,
    /// Homes that have yet to take it.
    left: u64,
    /// Copies that shards were sent and tell of, and how many have.
    copies: u64,
    told: u64,
    connections: u64,
    /// The question has come.
    is_asked: bool,
}

impl Open {
    fn is_complete(&self) -> bool {
        self.left == 0 && self.told >= self.copies
    }
}

/// What is being counted.
#[derive(Debug, Default)]
pub(super) struct Counting {
    /// By numbers, which grow with time.
    open: BTreeMap<u64, Open>,
    numbers: BTreeMap<Mark, u64>,
    last: u64,
    /// Until then it may be that something is not noted.
    crowded: Option<Time>,
    answers: VecDeque<Poll>,
    /// For the desk.
    told: VecDeque<Report>,
}

/// True for the question how many a publication has reached.
pub(super) fn is_about_reach(text: &str) -> bool {
    serde_json::from_str::<Asked>(text).is_ok_and(|asked| asked.is_it)
}

/// Whence a publication of another node comes whose reach matters.
pub(super) fn origin(order: u64) -> Origin {
    Origin::BackEnd(Some(Slip { order, item: 0, everywhere: false }))
}

/// What its home gets.
pub(super) fn submission(
    order: u64,
    drafts: SmallVec<[Publication; 1]>,
    group: Option<Group>,
    ttl: Option<Duration>,
) -> Mail {
    let item = SubmissionItem { index: 0, drafts, group, ttl, across: None };
    Mail::Submit(Box::new(Submission { order, items: vec![item] }))
}

impl Counting {
    /// A publication of another node has come; gives the number by which shards tell of it, if it is counted.
    pub(super) fn begin(&mut self, mark: Mark, now: Time) -> Option<u64> {
        while let Some(first) = self.open.first_entry()
            && first.get().until <= now
        {
            self.numbers.remove(&first.remove().mark);
        }
        if self.open.len() >= MOST || self.numbers.contains_key(&mark) {
            self.crowded = Some(now.plus(PATIENCE));
            return None;
        }
        self.last += 1;
        let number = Slip::AFAR + self.last;
        let open = Open {
            mark,
            until: now.plus(PATIENCE),
            left: 0,
            copies: 0,
            told: 0,
            connections: 0,
            is_asked: false,
        };
        self.open.insert(number, open);
        self.numbers.insert(mark, number);
        Some(number)
    }

    /// One more home is to take it.
    pub(super) fn expect(&mut self, number: Option<u64>) {
        if let Some(open) = number.and_then(|number| self.open.get_mut(&number)) {
            open.left += 1;
        }
    }

    /// A shard tells of one.
    pub(super) fn hear(&mut self, report: &Report) {
        let number = match report {
            Report::Taken { order, .. } => *order,
            Report::Reached { slip, .. } => slip.order,
            Report::Kept { .. } | Report::Refused { .. } | Report::Afar { .. } => return,
        };
        let Some(open) = self.open.get_mut(&number) else { return };
        match report {
            Report::Taken { items, copies, .. } => {
                open.left = open.left.saturating_sub(u64::from(*items));
                open.copies += u64::from(*copies);
            }
            Report::Reached { connections, .. } => {
                open.told += 1;
                open.connections += connections;
            }
            Report::Kept { .. } | Report::Refused { .. } | Report::Afar { .. } => {}
        }
        self.answer(number);
    }

    /// Another node asks.
    pub(super) fn ask(&mut self, poll: &Poll, now: Time) {
        let mark = Mark { to: poll.to, number: poll.number };
        if let Some(number) = self.numbers.get(&mark).copied() {
            if let Some(open) = self.open.get_mut(&number) {
                open.is_asked = true;
            }
            return self.answer(number);
        }
        if self.crowded.is_none_or(|until| until <= now) && self.answers.len() < MOST {
            self.answers.push_back(answer(mark, 0));
        }
    }

    fn answer(&mut self, number: u64) {
        let is_due = |open: &Open| open.is_asked && open.is_complete();
        if !self.open.get(&number).is_some_and(is_due) {
            return;
        }
        if let Some(open) = self.open.remove(&number) {
            self.numbers.remove(&open.mark);
            self.answers.push_back(answer(open.mark, open.connections));
        }
    }

    pub(super) fn next_answer(&mut self) -> Option<Poll> {
        self.answers.pop_front()
    }

    pub(super) fn has_answer(&self) -> bool {
        !self.answers.is_empty()
    }

    /// What the others have told of a publication of this node.
    pub(super) fn tell(&mut self, slip: Slip, surveyed: Surveyed) {
        let Surveyed { answers, mut missing } = surveyed;
        let mut connections = 0_u64;
        for text in answers {
            match serde_json::from_str::<Told>(&text) {
                Ok(told) => connections = connections.saturating_add(told.connections),
                // Who answers what nobody understands has told nothing.
                Err(_) => drop(missing.get_or_insert_default()),
            }
        }
        if self.told.len() < MOST_TOLD {
            self.told.push_back(Report::Afar { slip, connections, missing });
        }
    }
}

fn answer(mark: Mark, connections: u64) -> Poll {
    let text = serde_json::to_string(&Told { connections }).unwrap_or_default();
    Poll { to: mark.to, number: mark.number, text }
}

impl Link {
    /// The question that follows a publication of this node.
    pub(super) fn ask_for_reach(&mut self, slip: Slip) -> Survey {
        let ticket = self.polling.number();
        self.polling.asked.insert(ticket, (Asker::Count(slip), 0));
        Survey { ticket, text: QUESTION.to_owned() }
    }

    /// Hands on to the desk what was told. It reads when somebody waits, so nobody waits for it to read.
    pub(super) fn tell_desk(&mut self) {
        let desk = desk_port(usize::from(self.shards()));
        while let Some(report) = self.polling.counting.told.pop_front() {
            if let Err(mail) = self.port.post(desk, Lane::Delivery, Mail::Report(Box::new(report)))
            {
                if let Mail::Report(report) = mail {
                    self.polling.counting.told.push_front(*report);
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::ZERO.plus(Duration::from_millis(millis))
    }

    fn poll(number: u64) -> Poll {
        Poll { to: 7, number, text: QUESTION.to_owned() }
    }

    fn taken(order: u64, copies: u32) -> Report {
        let (numbers, repeats) = (Vec::new(), Vec::new());
        Report::Taken { order, items: 1, numbers, repeats, copies, kept: 0 }
    }

    fn reached(order: u64, connections: u64) -> Report {
        Report::Reached { slip: Slip { order, item: 0, everywhere: false }, connections }
    }

    fn told(counting: &mut Counting) -> Vec<(u64, String)> {
        let answers = std::iter::from_fn(|| counting.next_answer());
        answers.map(|poll| (poll.number, poll.text)).collect()
    }

    #[test]
    fn a_publication_is_told_of_when_all_shards_have_and_the_question_is_there() {
        assert!(is_about_reach(QUESTION) && !is_about_reach(r#"{"room":"a","limit":1}"#));
        for is_early in [true, false] {
            let mut counting = Counting::default();
            let number = counting.begin(Mark { to: 7, number: 3 }, at(0)).expect("a number");
            assert!(number >= Slip::AFAR && taken(number, 1).is_afar());
            (0..2).for_each(|_| counting.expect(Some(number)));
            if is_early {
                counting.ask(&poll(3), at(0));
            }
            // A copy may be told of before its home has said that it sent it.
            for report in [reached(number, 4), taken(number, 1), taken(number, 1)] {
                counting.hear(&report);
                assert!(!counting.has_answer());
            }
            counting.hear(&reached(number, 5));
            if !is_early {
                counting.ask(&poll(3), at(0));
            }
            assert_eq!(told(&mut counting), [(3, r#"{"connections":9}"#.to_owned())]);
            assert!(counting.open.is_empty() && counting.numbers.is_empty());
        }
    }

    #[test]
    fn what_was_not_heard_has_reached_nobody_and_what_finds_no_place_is_not_told_of() {
        let mut counting = Counting::default();
        counting.ask(&poll(1), at(0));
        assert_eq!(told(&mut counting), [(1, r#"{"connections":0}"#.to_owned())]);
        for number in 0..2 * MOST as u64 {
            counting.begin(Mark { to: 7, number }, at(0));
        }
        assert_eq!((counting.open.len(), counting.numbers.len()), (MOST, MOST));
        counting.ask(&poll(2 * MOST as u64 - 1), at(1));
        assert!(!counting.has_answer());
        counting.begin(Mark { to: 8, number: 0 }, at(10_000)).expect("a place");
        assert_eq!((counting.open.len(), counting.numbers.len()), (1, 1));
        for number in 0..2 * MOST as u64 {
            counting.ask(&poll(number), at(10_000));
        }
        assert_eq!(counting.answers.len(), MOST, "answers are bounded too");
    }

    #[test]
    fn an_answer_that_nobody_understands_is_no_number() {
        let mut counting = Counting::default();
        let slip = Slip { order: 1, item: 2, everywhere: true };
        let answers = vec![r#"{"connections":2}"#.to_owned(), "7".to_owned()];
        counting.tell(slip, Surveyed { answers, missing: None });
        let expected = Report::Afar { slip, connections: 2, missing: Some(Vec::new()) };
        assert_eq!(counting.told.pop_front(), Some(expected));
    }
}
