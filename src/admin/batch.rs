//! Events on their way to one back end: gathered, posted in order, and posted again.
//!
//! One request is under way at a time, so a back end hears events in the order they came. A batch that fails
//! is tried again, each time after a longer and partly random rest, until it has had its chances; then it
//! is given up and counted, and the next one is tried. What waits is bounded in bytes, and what finds no
//! space is counted. Nothing here knows a clock or a socket.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::tidings::Tiding;
use crate::base::time::Time;

/// The rest after the first failure, and the longest.
const FIRST_REST: Duration = Duration::from_millis(500);
const LONGEST_REST: Duration = Duration::from_secs(30);
/// Bytes of one request's body, about.
const BODY_BYTES: usize = 1 << 20;

/// How a back end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Events of one request at most.
    pub batch: usize,
    /// How long an event may wait for others.
    pub linger: Duration,
    /// How often a batch is tried.
    pub attempts: u32,
    /// Bytes that may wait.
    pub most_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing is under way.
    Idle,
    /// So many events of the front are.
    Posting(usize),
    /// The front has failed and is tried again.
    Resting(Time),
}

/// The events of one back end.
#[derive(Debug)]
pub(super) struct Batches {
    pace: Pace,
    waiting: VecDeque<(Tiding, Time)>,
    bytes: usize,
    state: State,
    /// How often the front has failed in a row.
    failures: u32,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// So many events were heard.
    Heard(usize),
    /// It is tried again.
    Again,
    /// So many events are given up.
    Dead(usize),
}

impl Batches {
    pub(super) fn new(pace: Pace) -> Self {
        Self { pace, waiting: VecDeque::new(), bytes: 0, state: State::Idle, failures: 0 }
    }

    /// Takes an event in; false when there is no space for it.
    pub(super) fn push(&mut self, event: Tiding, now: Time) -> bool {
        let bytes = self.bytes + event.cost();
        if bytes > self.pace.most_bytes {
            return false;
        }
        self.bytes = bytes;
        self.waiting.push_back((event, now));
        true
    }

    /// Events that wait, those under way included.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// When the next batch is to be posted; `None` while there is nothing to do.
    pub(super) fn due(&self) -> Option<Time> {
        let (_, since) = self.waiting.front()?;
        match self.state {
            State::Posting(_) => None,
            State::Resting(until) => Some(until),
            State::Idle if self.waiting.len() >= self.pace.batch => Some(Time::ZERO),
            State::Idle => Some(since.plus(self.pace.linger)),
        }
    }

    /// The body of the next request, if it is time; with `hurry` nobody waits for company.
    pub(super) fn poll(&mut self, now: Time, hurry: bool) -> Option<Vec<u8>> {
        let due = self.due()?;
        if due > now && !(hurry && self.state == State::Idle) {
            return None;
        }
        let mut body = b"{\"events\":[".to_vec();
        let mut count = 0;
        for (event, _) in self.waiting.iter().take(self.pace.batch) {
            if count > 0 && body.len() + event.document.len() > BODY_BYTES {
                break;
            }
            if count > 0 {
                body.push(b',');
            }
            body.extend_from_slice(&event.document);
            count += 1;
        }
        body.extend_from_slice(b"]}");
        self.state = State::Posting(count);
        Some(body)
    }

    /// The tenants of the events that are under way, each once.
    pub(super) fn tenants(&self) -> Vec<Option<Box<str>>> {
        let State::Posting(count) = self.state else { return Vec::new() };
        let of = |(event, _): &(Tiding, Time)| event.tenant.clone();
        let mut tenants: Vec<_> = self.waiting.iter().take(count).map(of).collect();
        tenants.sort_unstable();
        tenants.dedup();
        tenants
    }

    /// The request has ended; `random` spreads the rests of those who failed together.
    pub(super) fn done(&mut self, heard: bool, now: Time, random: u32) -> Fate {
        let State::Posting(count) = self.state else { return Fate::Again };
        if heard {
            self.failures = 0;
            self.state = State::Idle;
            self.forget(count);
            return Fate::Heard(count);
        }
        self.failures += 1;
        self.state = State::Resting(now.plus(rest(self.failures, random)));
        if self.failures < self.pace.attempts {
            return Fate::Again;
        }
        self.failures = 0;
        self.forget(count);
        Fate::Dead(count)
    }

    fn forget(&mut self, count: usize) {
        for (event, _) in self.waiting.drain(..count) {
            self.bytes -= event.cost();
        }
        if self.waiting.is_empty() && self.waiting.capacity() > 1024 {
            self.waiting = VecDeque::new();
        }
    }
}

/// How long to rest after so many failures in a row: half of it always, the other half by chance.
fn rest(failures: u32, random: u32) -> Duration {
    let whole = LONGEST_REST.min(FIRST_REST * 2_u32.pow(failures.saturating_sub(1).min(16)));
    let half = whole / 2;
    half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::tidings::TidingKind;
    use proptest::prelude::*;

    const PACE: Pace =
        Pace { batch: 3, linger: Duration::from_millis(100), attempts: 2, most_bytes: 10_000 };

    fn at(millis: u64) -> Time {
        Time::ZERO.plus(Duration::from_millis(millis))
    }

    fn event(text: &str) -> Tiding {
        Tiding { kind: TidingKind::Joined, tenant: None, document: text.as_bytes().into() }
    }

    fn body(batches: &mut Batches, millis: u64) -> Option<String> {
        let body = batches.poll(at(millis), false)?;
        Some(String::from_utf8(body).expect("text"))
    }

    #[test]
    fn events_wait_for_company_and_no_longer_than_they_may() {
        let mut batches = Batches::new(PACE);
        assert_eq!(batches.due(), None);
        assert!(batches.push(event("1"), at(10)));
        assert_eq!((batches.due(), body(&mut batches, 109)), (Some(at(110)), None));
        assert_eq!(body(&mut batches, 110).as_deref(), Some("{\"events\":[1]}"));
        for text in ["2", "3", "4", "5"] {
            assert!(batches.push(event(text), at(120)));
        }
        assert_eq!((batches.due(), body(&mut batches, 900)), (None, None), "one at a time");
        assert_eq!(batches.done(true, at(901), 0), Fate::Heard(1));
        assert_eq!(
            body(&mut batches, 901).as_deref(),
            Some("{\"events\":[2,3,4]}"),
            "full at once"
        );
        assert_eq!(batches.done(true, at(902), 0), Fate::Heard(3));
        assert_eq!(batches.len(), 1);
        let rest = batches.poll(at(0), true).expect("nobody waits in a hurry");
        assert_eq!(rest, b"{\"events\":[5]}");
    }

    #[test]
    fn a_batch_that_fails_is_tried_again_later_and_given_up_in_the_end() {
        let mut batches = Batches::new(PACE);
        batches.push(event("1"), at(0));
        let first = body(&mut batches, 100);
        batches.push(event("2"), at(100));
        assert_eq!(batches.done(false, at(1000), 0), Fate::Again);
        assert_eq!(batches.due(), Some(at(1250)), "half of the rest at least");
        assert_eq!(batches.poll(at(1100), true), None, "no hurry cuts a rest short");
        let again = body(&mut batches, 1250);
        assert_eq!(again.as_deref(), Some("{\"events\":[1,2]}"), "and what came meanwhile");
        assert_ne!(first, again);
        assert_eq!(batches.done(false, at(2000), u32::MAX), Fate::Dead(2));
        assert_eq!((batches.len(), batches.bytes), (0, 0));
        batches.push(event("3"), at(2001));
        assert_eq!(batches.due(), Some(at(3000)), "twice as long, by the second failure");
    }

    #[test]
    fn a_batch_knows_whose_events_it_holds_and_no_others() {
        let mut batches = Batches::new(PACE);
        for tenant in [Some("b"), None, Some("b"), Some("c")] {
            let tiding = Tiding { tenant: tenant.map(Box::from), ..event("1") };
            assert!(batches.push(tiding, at(0)));
        }
        assert_eq!(batches.tenants(), []);
        assert!(body(&mut batches, 0).is_some());
        assert_eq!(batches.tenants(), [None, Some("b".into())], "three of four are under way");
    }

    #[test]
    fn what_waits_is_bounded_and_so_is_a_body() {
        let mut batches = Batches::new(Pace { most_bytes: 250, ..PACE });
        let taken = (0..10).filter(|_| batches.push(event("0123456789"), at(0))).count();
        assert_eq!(taken, 250 / event("0123456789").cost());
        let large = format!("\"{}\"", "x".repeat(600_000));
        let mut batches = Batches::new(Pace { most_bytes: usize::MAX, ..PACE });
        for _ in 0..2 {
            assert!(batches.push(event(&large), at(0)));
        }
        assert!(body(&mut batches, 100).expect("one of them").len() < 1_000_000);
    }

    proptest! {
        /// Whatever fails, each event is heard or given up once, in order, and the sum of all is kept.
        #[test]
        fn every_event_is_heard_in_order_or_given_up(
            steps in prop::collection::vec((0..4u8, any::<bool>()), 1..200),
        ) {
            let mut batches = Batches::new(PACE);
            let (mut now, mut pushed, mut settled) = (0, 0_u32, 0_u32);
            let mut under_way: Option<String> = None;
            for (step, heard) in steps {
                now += 40_000;
                match (step, under_way.take()) {
                    (0 | 1, one) => {
                        under_way = one;
                        pushed += u32::from(batches.push(event(&pushed.to_string()), at(now)));
                    }
                    (_, None) => under_way = body(&mut batches, now),
                    (_, Some(text)) => {
                        let first = format!("{{\"events\":[{settled}");
                        prop_assert!(text.starts_with(&first), "{text} instead of {first}");
                        match batches.done(heard, at(now), 0) {
                            Fate::Heard(count) | Fate::Dead(count) => {
                                settled += u32::try_from(count).expect("few");
                            }
                            Fate::Again => prop_assert!(!heard),
                        }
                    }
                }
                prop_assert_eq!(batches.len(), (pushed - settled) as usize);
                let bytes: usize = batches.waiting.iter().map(|(event, _)| event.cost()).sum();
                prop_assert_eq!(bytes, batches.bytes);
            }
        }
    }
}
