//! Followers against a modelled Redis that loses, repeats and reorders messages, trims, and loses its data.
//!
//! Whatever happens, what a node delivers is what the stream held, each number once and in order, but where it
//! was told to begin anew; it is told so only when what it misses is no longer there; and in the end it has all.

use proptest::prelude::*;

use super::follow::{Follower, Heard, Read};
use crate::base::cursor::{Cursor, Stale};

/// One room in Redis.
#[derive(Debug)]
struct Stream {
    epoch: u64,
    newest: u64,
    /// The oldest that is kept; one more than the newest where nothing is.
    oldest: u64,
}

impl Stream {
    fn newest(&self) -> Cursor {
        Cursor { epoch: self.epoch, offset: self.newest }
    }

    /// What the script that reads answers, at most three at a time.
    fn read(&mut self, after: Option<Cursor>) -> (Cursor, Vec<u64>) {
        let after = after.filter(|after| after.epoch == self.epoch);
        if after.is_some_and(|after| after.offset > self.newest) {
            *self = Self { epoch: self.epoch + 1, newest: 0, oldest: 1 };
            return (self.newest(), Vec::new());
        }
        let first = after.map_or(u64::MAX, |after| self.oldest.max(after.offset + 1));
        (self.newest(), (first..=self.newest).take(3).collect())
    }
}

/// A node that follows the room.
#[derive(Debug, Default)]
struct Node {
    follower: Follower,
    /// Messages on their way here.
    coming: Vec<Cursor>,
    /// What Redis has answered and has not arrived.
    answer: Option<(Cursor, Vec<u64>)>,
    wants: bool,
    /// Where the members are, by what they were told.
    shown: Option<Cursor>,
    delivered: u64,
}

impl Node {
    fn hear(&mut self, cursor: Cursor) {
        match self.follower.heard(cursor) {
            Heard::Next => self.deliver(cursor),
            Heard::Known => {
                let known = self.shown.map(|shown| (shown.epoch, shown.offset >= cursor.offset));
                assert_eq!(known, Some((cursor.epoch, true)), "what was not had is dropped");
            }
            Heard::Beyond => self.wants = true,
        }
    }

    fn deliver(&mut self, cursor: Cursor) {
        let next = self.shown.map(|shown| Cursor { offset: shown.offset + 1, ..shown });
        assert_eq!(next, Some(cursor), "members see each number once and in order");
        self.follower.took(cursor);
        (self.shown, self.delivered) = (Some(cursor), self.delivered + 1);
    }

    fn begin_read(&mut self, stream: &mut Stream) {
        if self.answer.is_none() && std::mem::take(&mut self.wants) {
            let after = self.follower.begin_read();
            self.answer = Some(stream.read(after));
        }
    }

    /// `space`: how many the node takes before it has no more space.
    fn end_read(&mut self, stream: &Stream, mut space: usize) {
        let Some((newest, offsets)) = self.answer.take() else { return };
        let before = self.follower.at();
        match self.follower.read(newest, &offsets) {
            Read::Begin(at) => self.shown = Some(at),
            Read::From(from) => {
                for offset in &offsets[from..] {
                    let cursor = Cursor { epoch: newest.epoch, offset: *offset };
                    if space == 0 || self.follower.heard(cursor) != Heard::Next {
                        break;
                    }
                    space -= 1;
                    self.deliver(cursor);
                }
            }
            Read::Reset(at, why) => {
                let before = before.expect("it had a place");
                let is_lost = stream.epoch != before.epoch || stream.oldest > before.offset + 1;
                assert!(is_lost, "{before:?} could have gone on in {stream:?}");
                assert_eq!(why == Stale::Epoch, at.epoch != before.epoch);
                self.shown = Some(at);
            }
        }
        self.wants |= self.follower.wants_more(newest);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Publish,
    /// A message reaches a node, not always the oldest; perhaps it is left there to come again.
    Arrive(usize, usize, bool),
    Lose(usize, usize),
    BeginRead(usize),
    EndRead(usize, usize),
    /// The node's connection ends and begins anew: what was on its way is lost.
    Reconnect(usize),
    Trim,
    /// Redis begins without its data, or without the latest of it.
    Forget,
    FallBack(u64),
}

fn step(harm: bool) -> impl Strategy<Value = Step> {
    let node = || 0..2_usize;
    let calm = prop_oneof![
        6 => Just(Step::Publish),
        6 => (node(), 0..4_usize, any::<bool>()).prop_map(|(n, at, twice)| Step::Arrive(n, at, twice)),
        2 => (node(), 0..4_usize).prop_map(|(n, at)| Step::Lose(n, at)),
        3 => node().prop_map(Step::BeginRead),
        3 => (node(), 0..5_usize).prop_map(|(n, space)| Step::EndRead(n, space)),
        1 => node().prop_map(Step::Reconnect),
    ];
    let harms = prop_oneof![
        2 => Just(Step::Trim),
        1 => Just(Step::Forget),
        1 => (1..4_u64).prop_map(Step::FallBack),
    ];
    if harm { prop_oneof![12 => calm, 1 => harms].boxed() } else { calm.boxed() }
}

fn run(steps: &[Step]) -> (Stream, [Node; 2]) {
    let mut stream = Stream { epoch: 1, newest: 0, oldest: 1 };
    let mut nodes: [Node; 2] = Default::default();
    for node in &mut nodes {
        node.wants = true;
        node.begin_read(&mut stream);
        node.end_read(&stream, 0);
    }
    for step in steps {
        match *step {
            Step::Publish => {
                stream.newest += 1;
                nodes.iter_mut().for_each(|node| node.coming.push(stream.newest()));
            }
            Step::Arrive(node, at, stays) if at < nodes[node].coming.len() => {
                let cursor = nodes[node].coming[at];
                if !stays {
                    nodes[node].coming.remove(at);
                }
                nodes[node].hear(cursor);
            }
            Step::Lose(node, at) if at < nodes[node].coming.len() => {
                nodes[node].coming.remove(at);
                // Its connection has ended; it will be made anew.
                nodes[node].wants = true;
            }
            Step::Arrive(..) | Step::Lose(..) => {}
            Step::BeginRead(node) => nodes[node].begin_read(&mut stream),
            Step::EndRead(node, space) => nodes[node].end_read(&stream, space),
            Step::Reconnect(node) => {
                let node = &mut nodes[node];
                (node.coming, node.answer, node.wants) = (Vec::new(), None, true);
            }
            Step::Trim => stream.oldest = (stream.oldest + 2).min(stream.newest + 1),
            Step::Forget => stream = Stream { epoch: stream.epoch + 10, newest: 0, oldest: 1 },
            Step::FallBack(by) => {
                // As long as somebody who has seen more is there to say so, numbers are not given twice.
                let seen = nodes.iter().filter_map(|node| node.follower.at());
                let seen = seen.filter(|at| at.epoch == stream.epoch).map(|at| at.offset).max();
                let newest = stream.newest.saturating_sub(by);
                if seen.is_some_and(|seen| seen > newest) {
                    stream = Stream { epoch: stream.epoch + 1, newest: 0, oldest: 1 };
                }
            }
        }
    }
    for node in &mut nodes {
        (node.coming, node.answer, node.wants) = (Vec::new(), None, true);
        for _ in 0..stream.newest + 8 {
            node.begin_read(&mut stream);
            node.end_read(&stream, usize::MAX);
        }
        assert!(!node.wants, "it comes to rest: {node:?}");
    }
    (stream, nodes)
}

proptest! {
    #[test]
    fn a_room_equals_a_list_whatever_is_lost_repeated_or_reordered(
        steps in prop::collection::vec(step(false), 0..200),
    ) {
        let (stream, nodes) = run(&steps);
        for node in nodes {
            prop_assert_eq!(node.shown, Some(stream.newest()));
            prop_assert_eq!(node.delivered, stream.newest, "each of them once");
        }
    }

    #[test]
    fn members_begin_anew_only_when_what_they_miss_is_gone_and_end_up_with_the_newest(
        steps in prop::collection::vec(step(true), 0..200),
    ) {
        let (stream, nodes) = run(&steps);
        for node in nodes {
            prop_assert_eq!(node.shown, Some(stream.newest()));
        }
    }
}
