//! Questions to all nodes at once, and their answers.
//!
//! A question is published once, on a channel that every node hears; each answers on a channel of the asker's own. Who
//! has to answer is known by the leases, so a question is over when all of those have, or when its time is
//! over: then the others are named, and nobody waits longer than that. Without a link, or without leases to go by, a
//! question is answered at once by what is known, which is nothing.
//!
//! What is asked and answered is a JSON text, whose meaning is the node's. Everything here is decided by values; what waits to
//! be published is bounded, and what a broken link loses is missing and is named.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::options::Options;
use super::outgoing::Sealed;
use super::presence::Name;
use super::side::Channel;
use crate::base::time::Time;

/// The channel of questions, without the prefix. With `:` and a node's tag behind it: that of answers to the node.
pub(super) const CHANNEL: &str = "survey";
/// The version of what is told there; anything with another is malformed.
const VERSION: u32 = 1;
/// Questions of this node that may be under way.
const MOST: usize = 1024;
/// Questions and answers that may wait to be published, and their bytes.
const MOST_WAITING: usize = 1024;
const MOST_BYTES: usize = 16 << 20;

/// What the node asks of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// By which the node knows the answer.
    pub ticket: u64,
    /// The question: JSON.
    pub text: String,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surveyed {
    /// The answers: JSON, one for each node that has answered.
    pub answers: Vec<String>,
    /// The names of those that have not, in order. `None`: all have. Empty: nobody knows who they are.
    pub missing: Option<Vec<Name>>,
}

/// A question of another node, or the answer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poll {
    /// The tag of the node that asks.
    pub to: u32,
    /// Its number there.
    pub number: u64,
    /// What is asked, or answered: JSON.
    pub text: String,
}

/// Which other nodes have to answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct There {
    /// Tags and names.
    pub(super) nodes: Vec<(u32, Name)>,
    /// There may be others, and these may have gone: the link is down or has just come up.
    pub(super) is_blind: bool,
}

/// Who hears of questions and answers.
pub trait Polled {
    /// Another node asks this.
    ///
    /// # Errors
    /// When it is no question that the node understands.
    fn polled(&mut self, poll: Poll) -> Result<(), String>;

    /// What came of a [`Survey`]; told once for each.
    fn surveyed(&mut self, ticket: u64, surveyed: Surveyed);
}

/// What is told on the channels.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Note<'a> {
    v: u32,
    /// Who tells it.
    tag: u32,
    /// The number of the question, which its asker has given it.
    number: u64,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    ask: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    answer: Option<&'a RawValue>,
}

/// A question that is under way.
#[derive(Debug)]
struct Open {
    ticket: u64,
    until: Time,
    /// Who has yet to answer.
    waiting: BTreeMap<u32, Name>,
    answered: BTreeSet<u32>,
    answers: Vec<String>,
}

/// All questions.
#[derive(Debug)]
pub(super) struct Surveys {
    tag: u32,
    patience: Duration,
    /// By number, which is also by age.
    open: BTreeMap<u64, Open>,
    last: u64,
    outgoing: VecDeque<Sealed>,
    bytes: usize,
    /// What is over, for the node.
    done: Vec<(u64, Surveyed)>,
}

impl Surveys {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            tag: options.tag,
            patience: options.presence.survey_timeout,
            open: BTreeMap::new(),
            last: 0,
            outgoing: VecDeque::new(),
            bytes: 0,
            done: Vec::new(),
        }
    }

    /// The channel on which this node is answered.
    pub(super) fn own_channel(tag: u32) -> Channel {
        Channel::from(format!("{CHANNEL}:{tag:x}"))
    }

    /// Asks. `there` is `None` where nobody knows of other nodes by intent: then there is nobody to ask.
    pub(super) fn ask(&mut self, survey: &Survey, there: Option<There>, now: Time) {
        let Some(there) = there else {
            return self.done.push((survey.ticket, Surveyed::default()));
        };
        let (number, tag) = (self.last + 1, self.tag);
        self.last = number;
        let can_ask = !there.is_blind && self.open.len() < MOST;
        let is_asked = can_ask
            && (there.nodes.is_empty()
                || self.push(&Channel::from(CHANNEL), tag, number, Some(&survey.text), None));
        let waiting: BTreeMap<u32, Name> = there.nodes.into_iter().collect();
        let until = now.plus(self.patience);
        let ticket = survey.ticket;
        let open = Open { ticket, until, waiting, answered: BTreeSet::new(), answers: Vec::new() };
        if !is_asked || open.waiting.is_empty() {
            let surveyed = over(open, !is_asked);
            return self.done.push((ticket, surveyed));
        }
        self.open.insert(number, open);
    }

    /// Opens a question that is to be published behind something else, by whoever publishes that; gives the
    /// number and the question, if anybody is there to be asked. Where other nodes are not known, they are not
    /// known to have heard either.
    pub(super) fn ask_behind(
        &mut self,
        survey: &Survey,
        there: Option<There>,
        now: Time,
    ) -> Option<(u64, Sealed)> {
        let there = there.unwrap_or(There { nodes: Vec::new(), is_blind: true });
        let (number, tag, ticket) = (self.last + 1, self.tag, survey.ticket);
        self.last = number;
        let bytes = note(tag, number, Some(&survey.text), None);
        let bytes = bytes.filter(|_| !there.is_blind && self.open.len() < MOST);
        let waiting: BTreeMap<u32, Name> = there.nodes.into_iter().collect();
        let until = now.plus(self.patience);
        let open = Open { ticket, until, waiting, answered: BTreeSet::new(), answers: Vec::new() };
        let Some(bytes) = bytes.filter(|_| !open.waiting.is_empty()) else {
            let is_blind = there.is_blind || !open.waiting.is_empty();
            self.done.push((ticket, over(open, is_blind)));
            return None;
        };
        self.open.insert(number, open);
        Some((number, Sealed { channels: vec![Channel::from(CHANNEL)], bytes }))
    }

    /// The question of that number has found no space.
    pub(super) fn drop_question(&mut self, number: u64) {
        let open = self.open.remove(&number);
        self.done.extend(open.map(|open| (open.ticket, over(open, true))));
    }

    /// Answers another node.
    pub(super) fn answer(&mut self, poll: &Poll) {
        let (channel, tag) = (Self::own_channel(poll.to), self.tag);
        // Who is not answered names this node as missing.
        let _ = self.push(&channel, tag, poll.number, None, Some(&poll.text));
    }

    fn push(
        &mut self,
        channel: &Channel,
        tag: u32,
        number: u64,
        ask: Option<&str>,
        answer: Option<&str>,
    ) -> bool {
        let Some(bytes) = note(tag, number, ask, answer) else { return false };
        if self.outgoing.len() >= MOST_WAITING || self.bytes + bytes.len() > MOST_BYTES {
            return false;
        }
        self.bytes += bytes.len();
        self.outgoing.push_back(Sealed { channels: vec![Arc::clone(channel)], bytes });
        true
    }

    /// What to publish next, at most so many.
    pub(super) fn take(&mut self, most: usize) -> Vec<Sealed> {
        let count = most.min(self.outgoing.len());
        let batch: Vec<Sealed> = self.outgoing.drain(..count).collect();
        self.bytes -= batch.iter().map(|sealed| sealed.bytes.len()).sum::<usize>();
        batch
    }

    /// Takes in what came by one of the channels; gives back what the node is to answer.
    ///
    /// # Errors
    /// When it is not what nodes tell there.
    pub(super) fn hear(&mut self, payload: &[u8]) -> Result<Option<Poll>, String> {
        let text = str::from_utf8(payload).map_err(|error| error.to_string())?;
        let note: Note<'_> =
            serde_json::from_str(text).map_err(|error| format!("no question: {error}"))?;
        if note.v != VERSION {
            return Err(format!("a question of version {}; expected {VERSION}", note.v));
        }
        let Note { tag, number, .. } = note;
        if tag == self.tag {
            return Ok(None);
        }
        match (note.ask, note.answer) {
            (Some(ask), None) => Ok(Some(Poll { to: tag, number, text: ask.get().to_owned() })),
            (None, Some(answer)) => {
                self.take_answer(number, tag, answer.get());
                Ok(None)
            }
            _ => Err("expected a question or an answer".to_owned()),
        }
    }

    fn take_answer(&mut self, number: u64, tag: u32, text: &str) {
        let Some(open) = self.open.get_mut(&number) else { return };
        // One that is not awaited has come a moment ago, and its part is as good as any.
        if !open.answered.insert(tag) {
            return;
        }
        open.answers.push(text.to_owned());
        open.waiting.remove(&tag);
        if open.waiting.is_empty()
            && let Some(open) = self.open.remove(&number)
        {
            self.done.push((open.ticket, over(open, false)));
        }
    }

    /// Ends what has waited for long enough.
    pub(super) fn expire(&mut self, now: Time) {
        while self.open.first_key_value().is_some_and(|(_, open)| open.until <= now) {
            let first = self.open.pop_first();
            self.done.extend(first.map(|(_, open)| (open.ticket, over(open, false))));
        }
    }

    /// When [`Surveys::expire`] has something to do.
    pub(super) fn due(&self) -> Option<Time> {
        self.open.first_key_value().map(|(_, open)| open.until)
    }

    /// The link is down: nothing that was asked is answered any more, and nothing that waits is worth sending.
    pub(super) fn link_down(&mut self) {
        self.outgoing.clear();
        self.bytes = 0;
        let open = std::mem::take(&mut self.open);
        self.done.extend(open.into_values().map(|open| (open.ticket, over(open, true))));
    }

    /// What is over, by the tickets.
    pub(super) fn take_done(&mut self) -> Vec<(u64, Surveyed)> {
        std::mem::take(&mut self.done)
    }
}

/// A question or an answer as it is published; `None` where that is no JSON.
fn note(tag: u32, number: u64, ask: Option<&str>, answer: Option<&str>) -> Option<Vec<u8>> {
    let read = |text: Option<&str>| text.map(serde_json::from_str::<Box<RawValue>>).transpose();
    let (Ok(ask), Ok(answer)) = (read(ask), read(answer)) else { return None };
    let note = Note { v: VERSION, tag, number, ask: ask.as_deref(), answer: answer.as_deref() };
    serde_json::to_vec(&note).ok()
}

fn over(open: Open, is_blind: bool) -> Surveyed {
    let mut missing: Vec<Name> = open.waiting.into_values().collect();
    missing.sort_unstable();
    let missing = (is_blind || !missing.is_empty()).then_some(missing);
    Surveyed { answers: open.answers, missing }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn surveys(tag: u32) -> Surveys {
        Surveys {
            tag,
            patience: Duration::from_secs(1),
            open: BTreeMap::new(),
            last: 0,
            outgoing: VecDeque::new(),
            bytes: 0,
            done: Vec::new(),
        }
    }

    fn at(millis: u64) -> Time {
        Time::ZERO.plus(Duration::from_millis(millis))
    }

    fn there(tags: &[u32], is_blind: bool) -> There {
        let nodes = tags.iter().map(|tag| (*tag, Name::from(format!("n{tag}")))).collect();
        There { nodes, is_blind }
    }

    fn survey(ticket: u64) -> Survey {
        Survey { ticket, text: "{\"room\":\"a\"}".to_owned() }
    }

    /// What the next thing published says to that node.
    fn carry(from: &mut Surveys, to: &mut Surveys) -> Option<Poll> {
        let sealed = from.take(1).pop().expect("something to publish");
        to.hear(&sealed.bytes).expect("a question or an answer")
    }

    #[test]
    fn a_question_is_over_when_all_have_answered_and_each_counts_once() {
        let (mut asker, mut two, mut three) = (surveys(1), surveys(2), surveys(3));
        asker.ask(&survey(9), Some(there(&[2, 3], false)), at(0));
        let sealed = asker.take(9).pop().expect("a question");
        assert_eq!(&*sealed.channels[0], "survey");
        let polls = [&mut two, &mut three]
            .map(|node| node.hear(&sealed.bytes).expect("it").expect("a poll"));
        assert_eq!((polls[0].to, &*polls[0].text), (1, "{\"room\":\"a\"}"));
        for _ in 0..2 {
            two.answer(&Poll { text: "2".to_owned(), ..polls[0].clone() });
            assert_eq!(carry(&mut two, &mut asker), None);
            assert!(asker.take_done().is_empty());
        }
        three.answer(&Poll { text: "3".to_owned(), ..polls[1].clone() });
        carry(&mut three, &mut asker);
        let answers = vec!["2".to_owned(), "3".to_owned()];
        assert_eq!(asker.take_done(), [(9, Surveyed { answers, missing: None })]);
        assert_eq!(asker.due(), None);
    }

    #[test]
    fn who_has_not_answered_in_time_is_named_and_what_it_says_later_is_nothing() {
        let (mut asker, mut two) = (surveys(1), surveys(2));
        asker.ask(&survey(9), Some(there(&[4, 2, 3], false)), at(0));
        let poll = carry(&mut asker, &mut two).expect("a poll");
        two.answer(&Poll { text: "2".to_owned(), ..poll.clone() });
        carry(&mut two, &mut asker);
        asker.expire(at(999));
        assert!(asker.take_done().is_empty() && asker.due() == Some(at(1000)));
        asker.expire(at(1000));
        let missing = Some(vec![Name::from("n3"), Name::from("n4")]);
        assert_eq!(asker.take_done(), [(9, Surveyed { answers: vec!["2".to_owned()], missing })]);
        surveys(3).answer(&poll);
        two.answer(&Poll { text: "2".to_owned(), ..poll });
        carry(&mut two, &mut asker);
        assert!(asker.take_done().is_empty());
    }

    #[test]
    fn nobody_waits_where_nobody_can_be_asked() {
        let mut asker = surveys(1);
        asker.ask(&survey(1), None, at(0));
        asker.ask(&survey(2), Some(there(&[], false)), at(0));
        asker.ask(&survey(3), Some(there(&[], true)), at(0));
        asker.ask(&survey(4), Some(there(&[2], true)), at(0));
        let over = |ticket, missing: Option<Vec<Name>>| {
            (ticket, Surveyed { answers: Vec::new(), missing })
        };
        let two = vec![Name::from("n2")];
        let expected =
            [over(1, None), over(2, None), over(3, Some(Vec::new())), over(4, Some(two.clone()))];
        assert_eq!(asker.take_done(), expected);
        asker.ask(&survey(5), Some(there(&[2], false)), at(0));
        asker.link_down();
        assert_eq!(asker.take_done(), [over(5, Some(two))]);
        assert!(
            asker.take(9).is_empty() && asker.bytes == 0,
            "what was not sent is not sent later"
        );
    }

    #[test]
    fn a_question_behind_a_publication_is_published_by_whoever_publishes_that() {
        let (mut asker, mut two) = (surveys(1), surveys(2));
        let (number, question) =
            asker.ask_behind(&survey(9), Some(there(&[2], false)), at(0)).expect("a question");
        assert!(asker.take(9).is_empty(), "nothing is published by itself");
        let poll = two.hear(&question.bytes).expect("it").expect("a poll");
        assert_eq!((poll.to, poll.number, &*question.channels[0]), (1, number, "survey"));
        two.answer(&Poll { text: "2".to_owned(), ..poll });
        carry(&mut two, &mut asker);
        let told = Surveyed { answers: vec!["2".to_owned()], missing: None };
        assert_eq!(asker.take_done(), [(9, told)]);
        let missing = |ticket, missing: Option<Vec<Name>>| {
            [(ticket, Surveyed { answers: Vec::new(), missing })]
        };
        let (number, _) =
            asker.ask_behind(&survey(3), Some(there(&[2], false)), at(0)).expect("a question");
        asker.drop_question(number);
        assert_eq!(asker.take_done(), missing(3, Some(vec![Name::from("n2")])));
        for (among, expected) in [
            (None, Some(Vec::new())),
            (Some(there(&[], true)), Some(Vec::new())),
            (Some(there(&[2], true)), Some(vec![Name::from("n2")])),
            (Some(there(&[], false)), None),
        ] {
            assert!(asker.ask_behind(&survey(4), among, at(0)).is_none());
            assert_eq!(asker.take_done(), missing(4, expected));
        }
        for ticket in 0..2 * MOST as u64 {
            asker.ask_behind(&survey(ticket), Some(there(&[2], false)), at(0));
        }
        assert_eq!((asker.open.len(), asker.take_done().len()), (MOST, MOST));
    }

    #[test]
    fn what_is_under_way_and_what_waits_is_bounded() {
        let mut asker = surveys(1);
        for ticket in 0..2 * MOST as u64 {
            asker.ask(&survey(ticket), Some(there(&[2], false)), at(0));
        }
        assert_eq!((asker.open.len(), asker.outgoing.len()), (MOST, MOST_WAITING));
        assert_eq!(asker.take_done().len(), MOST, "the others are answered at once");
        let (mut busy, long) = (surveys(2), format!("\"{}\"", "x".repeat(1 << 20)));
        for number in 0..100 {
            busy.answer(&Poll { to: 1, number, text: long.clone() });
        }
        assert!(busy.bytes <= MOST_BYTES && busy.outgoing.len() < 100);
    }

    #[test]
    fn what_is_neither_question_nor_answer_is_refused() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"v":2,"tag":2,"number":1,"ask":1}"#,
            r#"{"v":1,"tag":2,"number":1}"#,
            r#"{"v":1,"tag":2,"number":1,"ask":1,"answer":1}"#,
            r#"{"v":1,"tag":2,"number":1,"ask":1,"more":1}"#,
        ] {
            assert!(surveys(1).hear(text.as_bytes()).is_err(), "{text}");
        }
        let own = br#"{"v":1,"tag":1,"number":1,"ask":1}"#;
        assert_eq!(surveys(1).hear(own), Ok(None), "a node does not ask itself");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in ".*") {
            let _ = surveys(1).hear(text.as_bytes());
        }
    }
}
