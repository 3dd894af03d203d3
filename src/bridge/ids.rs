//! Which publications were taken before, by any node, as far as their `id`s say so.
//!
//! Whoever is the first to write the name of a publication into Redis takes it; the name goes after its window. What
//! waits for the answer stands still at its room's home, so nothing waits here for long: without a link, with too much
//! waiting, or when Redis refuses, the answer is that nobody knows, at once, and what was under way when a link broke is
//! answered so too. Then the node decides by itself, as one that works alone does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value, cmd};

use super::line::{Line, Pending};
use super::options::Options;
use super::server::hub_prefix;
use super::tally::{Tally, add};
use crate::base::id::ShardId;

/// Names that may wait for Redis.
const MOST: usize = 65_536;
/// Names in one piece of work, about.
const BATCH: usize = 512;

/// Publications to one room that are to be taken once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    /// The room's home, which waits.
    pub home: ShardId,
    /// The room, by its name within the node.
    pub room: Arc<str>,
    /// By which each is known to all nodes, in order.
    pub names: Vec<u128>,
    /// How long that is remembered.
    pub window: Duration,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The room's home.
    pub home: ShardId,
    /// The room.
    pub room: Arc<str>,
    /// For each name whether it was the first time; `None`: nobody knows.
    pub first: Vec<Option<bool>>,
}

/// What is asked and known of names.
#[derive(Debug)]
pub(super) struct Ids {
    waiting: VecDeque<Naming>,
    /// Names that those have.
    count: usize,
    done: Vec<Named>,
    is_refused: bool,
    /// What names begin with.
    prefix: String,
    tally: Arc<Tally>,
}

impl Ids {
    pub(super) fn new(options: &Options, tally: Arc<Tally>) -> Self {
        let prefix =
            if options.cluster { hub_prefix(&options.prefix) } else { options.prefix.clone() };
        let (waiting, done) = (VecDeque::new(), Vec::new());
        Self { waiting, count: 0, done, is_refused: false, prefix, tally }
    }

    /// To be asked about.
    pub(super) fn push(&mut self, naming: Naming, is_up: bool) {
        let count = self.count + naming.names.len();
        if !is_up || count > MOST {
            return self.give_up(naming);
        }
        self.count = count;
        self.waiting.push_back(naming);
    }

    fn give_up(&mut self, naming: Naming) {
        let Naming { home, room, names, .. } = naming;
        add(&self.tally.ids_unknown, names.len());
        self.done.push(Named { home, room, first: vec![None; names.len()] });
    }

    /// The link is gone, and with it the answer to what was under way.
    pub(super) fn link_down(&mut self, batch: Vec<Naming>) {
        let waiting = std::mem::take(&mut self.waiting);
        self.count = 0;
        batch.into_iter().chain(waiting).for_each(|naming| self.give_up(naming));
    }

    /// What is known since this was last asked.
    pub(super) fn take_done(&mut self) -> Vec<Named> {
        std::mem::take(&mut self.done)
    }

    /// The next work, if there is any.
    pub(super) fn next(&mut self, line: &Line) -> Option<(Pending, Vec<Naming>)> {
        let (commands, batch) = self.work()?;
        Some((line.ask_hub(commands), batch))
    }

    fn work(&mut self) -> Option<(Vec<Cmd>, Vec<Naming>)> {
        let (mut commands, mut batch) = (Vec::new(), Vec::new());
        while commands.len() < BATCH
            && let Some(naming) = self.waiting.pop_front()
        {
            let window = u64::try_from(naming.window.as_millis()).unwrap_or(u64::MAX).max(1);
            for name in &naming.names {
                let mut command = cmd("SET");
                command.arg(format!("{}:id:{name:032x}", self.prefix));
                command.arg(1).arg("NX").arg("PX").arg(window);
                commands.push(command);
            }
            self.count -= naming.names.len();
            batch.push(naming);
        }
        (!batch.is_empty()).then_some((commands, batch))
    }

    /// What came of the work.
    pub(super) fn finish(&mut self, batch: Vec<Naming>, answers: Vec<Value>) {
        let mut answers = answers.into_iter();
        let mut why = None;
        for Naming { home, room, names, .. } in batch {
            let mut first = Vec::with_capacity(names.len());
            for _ in &names {
                first.push(match answers.next() {
                    Some(Value::Okay) => Some(true),
                    Some(Value::Nil) => Some(false),
                    answer => {
                        why = Some(answer);
                        None
                    }
                });
            }
            let of = |what| first.iter().filter(|known| **known == what).count();
            add(&self.tally.ids_first, of(Some(true)));
            add(&self.tally.ids_repeated, of(Some(false)));
            add(&self.tally.ids_unknown, of(None));
            self.done.push(Named { home, room, first });
        }
        let was_refused = std::mem::replace(&mut self.is_refused, why.is_some());
        if let (Some(why), false) = (why, was_refused) {
            tracing::warn!("Redis does not say which publications were taken before: {why:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> Ids {
        Ids {
            waiting: VecDeque::new(),
            count: 0,
            done: Vec::new(),
            is_refused: false,
            prefix: "t".to_owned(),
            tally: Arc::default(),
        }
    }

    fn naming(names: impl IntoIterator<Item = u128>) -> Naming {
        let window = Duration::from_secs(60);
        let names = names.into_iter().collect();
        Naming { home: ShardId(1), room: Arc::from("r"), names, window }
    }

    fn told(ids: &mut Ids) -> Vec<Vec<Option<bool>>> {
        ids.take_done().into_iter().map(|named| named.first).collect()
    }

    #[test]
    fn the_first_to_write_a_name_down_is_told_so_and_each_is_told_in_its_place() {
        let mut ids = ids();
        ids.push(naming([1, 2]), true);
        ids.push(naming([3, 4]), true);
        let (commands, batch) = ids.work().unwrap();
        let packed = String::from_utf8(commands[0].get_packed_command()).unwrap();
        for word in ["t:id:00000000000000000000000000000001", "NX", "PX", "60000"] {
            assert!(packed.contains(word), "{packed}");
        }
        let answers = [Value::Okay, Value::Nil, Value::Okay, Value::Int(0)];
        ids.finish(batch, answers.into());
        assert_eq!(told(&mut ids), [[Some(true), Some(false)], [Some(true), None]]);
        assert!(ids.work().is_none() && ids.count == 0);
    }

    #[test]
    fn without_an_answer_nobody_knows_and_nobody_waits() {
        let mut ids = ids();
        ids.push(naming([1]), false);
        assert_eq!(told(&mut ids), [[None]], "no link");
        ids.push(naming(0..BATCH as u128), true);
        ids.push(naming([7]), true);
        let (commands, under_way) = ids.work().unwrap();
        assert_eq!((commands.len(), ids.count), (BATCH, 1));
        ids.link_down(under_way);
        assert_eq!(told(&mut ids), [vec![None; BATCH], vec![None]]);
        ids.push(naming(0..MOST as u128), true);
        ids.push(naming([8]), true);
        assert_eq!(told(&mut ids), [[None]], "too many wait");
        assert_eq!(
            ids.tally.ids_unknown.load(std::sync::atomic::Ordering::Relaxed),
            3 + BATCH as u64
        );
    }
}
