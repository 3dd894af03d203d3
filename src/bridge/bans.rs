//! What all nodes have to remember of whom not to let in: revocations.
//!
//! One set in Redis, sorted by when each ends, and one channel. A node that takes somebody's tokens back adds it to
//! the set and tells it on the channel; every node that comes to Redis reads what still holds. So each knows what was
//! taken back while it was away, before it was there, and by nodes that are no more. What it knows and does not find
//! there, because Redis has lost it, it tells again; so that this is found under a link that goes on as well, what holds
//! is counted with every canary. The same thing may be heard twice, and is passed on once. What it
//! says is the node's business; here it is a text that ends at some time.
//!
//! What waits for Redis is bounded, and so is what is known. What Redis refuses is tried again a second later, as
//! nothing else would make it known.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value, cmd};

use super::line::{Line, Pending};
use super::options::Options;
use super::server::hub_prefix;
use super::side::{Refused, Side};
use super::tally::{Tally, add, set};
use crate::base::time::Time;

/// The channel and the set, without the prefix.
pub(super) const CHANNEL: &str = "revoked";
/// What may wait to be told, and what is known at most.
const MOST: usize = 65_536;
/// Bytes of a text.
const LONGEST: usize = 4096;
/// Told in one piece of work, and read in one.
const BATCH: usize = 128;
const PAGE: usize = 512;
/// How soon what Redis refused is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Something to be remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// What: JSON, without a line's end.
    pub text: String,
    /// Until when, in seconds since 1970.
    pub until: u64,
}

/// A piece of work.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Task {
    Tell(Vec<Ban>),
    Read,
    Count,
}

/// Of something that is known.
#[derive(Debug)]
struct Known {
    until: u64,
    /// The reading of the set in which it was found there, or the one before which it was told.
    reading: u64,
}

/// What is to be told, and how far the set was read.
#[derive(Debug)]
pub(super) struct Bans {
    waiting: VecDeque<Ban>,
    /// How many were read; `None`: all.
    read: Option<usize>,
    /// The number of this reading, or of the last.
    reading: u64,
    /// What the node was given.
    known: BTreeMap<Box<str>, Known>,
    /// The set is to be counted, for the case that Redis has lost it under a link that goes on.
    counts: bool,
    /// What comes first when there is both: telling, and not reading.
    tells: bool,
    /// Nothing is tried before.
    not_before: Option<Time>,
    /// Redis has refused what was tried last, and that was logged.
    is_refused: bool,
    key: String,
    channel: String,
    tally: Arc<Tally>,
}

impl Bans {
    pub(super) fn new(options: &Options, tally: Arc<Tally>) -> Self {
        let channel = format!("{}:{CHANNEL}", options.prefix);
        let key = if options.cluster {
            format!("{}:{CHANNEL}", hub_prefix(&options.prefix))
        } else {
            channel.clone()
        };
        Self {
            waiting: VecDeque::new(),
            read: None,
            reading: 0,
            known: BTreeMap::new(),
            counts: false,
            tells: false,
            not_before: None,
            is_refused: false,
            key,
            channel,
            tally,
        }
    }

    /// To be told.
    pub(super) fn push(&mut self, ban: Ban) {
        if self.waiting.len() >= MOST {
            add(&self.tally.bans_lost, 1);
            tracing::error!(
                "a revocation is not told to other nodes: {MOST} wait for Redis already"
            );
            return;
        }
        self.waiting.push_back(ban);
        set(&self.tally.bans_waiting, self.waiting.len());
    }

    /// There is a link, and what was told before is to be read.
    pub(super) fn link_up(&mut self) {
        (self.read, self.not_before) = (Some(0), None);
        self.reading += 1;
    }

    /// A canary has come back: what is known is to be in the set still.
    pub(super) fn look(&mut self) {
        self.counts = !self.has_work() && !self.known.is_empty();
    }

    /// When there is something to do that waits for its time.
    pub(super) fn due(&self) -> Option<Time> {
        self.not_before.filter(|_| self.has_work())
    }

    fn has_work(&self) -> bool {
        self.read.is_some() || !self.waiting.is_empty()
    }

    /// The next work, if there is any. `unix`: seconds since 1970.
    pub(super) fn next(
        &mut self,
        line: &Line,
        has_space: bool,
        now: Time,
        unix: u64,
    ) -> Option<(Pending, Task)> {
        if self.not_before.is_some_and(|then| now < then) {
            return None;
        }
        self.not_before = None;
        self.tells = !self.tells;
        let work = if self.tells {
            self.tell(unix).or_else(|| self.read_on(has_space, unix))
        } else {
            self.read_on(has_space, unix).or_else(|| self.tell(unix))
        };
        let (commands, task) = work.or_else(|| self.count(unix))?;
        Some((line.ask_hub(commands), task))
    }

    fn tell(&mut self, unix: u64) -> Option<(Vec<Cmd>, Task)> {
        if self.waiting.is_empty() {
            return None;
        }
        let count = BATCH.min(self.waiting.len());
        let batch: Vec<Ban> = self.waiting.drain(..count).collect();
        let mut commands = Vec::with_capacity(2 * count + 1);
        for ban in &batch {
            let add = cmd("ZADD").arg(&self.key).arg(ban.until).arg(&ban.text).to_owned();
            commands.push(add);
            commands.push(cmd("PUBLISH").arg(&self.channel).arg(&ban.text).to_owned());
        }
        let ended = cmd("ZREMRANGEBYSCORE").arg(&self.key).arg("-inf").arg(unix).to_owned();
        commands.push(ended);
        Some((commands, Task::Tell(batch)))
    }

    fn count(&mut self, unix: u64) -> Option<(Vec<Cmd>, Task)> {
        if !std::mem::take(&mut self.counts) {
            return None;
        }
        let count = cmd("ZCOUNT").arg(&self.key).arg(format!("({unix}")).arg("+inf").to_owned();
        Some((vec![count], Task::Count))
    }

    fn read_on(&self, has_space: bool, unix: u64) -> Option<(Vec<Cmd>, Task)> {
        let read = self.read.filter(|_| has_space)?;
        // From the end that nobody shortens, so that nothing is passed over.
        let mut command = cmd("ZREVRANGEBYSCORE");
        command.arg(&self.key).arg("+inf").arg(format!("({unix}"));
        command.arg("LIMIT").arg(read).arg(PAGE);
        Some((vec![command], Task::Read))
    }

    /// The link has broken while this was under way.
    pub(super) fn put_back(&mut self, task: Task) {
        if let Task::Tell(batch) = task {
            for ban in batch.into_iter().rev() {
                self.waiting.push_front(ban);
            }
        }
        set(&self.tally.bans_waiting, self.waiting.len());
    }

    /// What came of the work. `unix`: seconds since 1970.
    pub(super) fn finish<S: Side>(
        &mut self,
        task: Task,
        answers: Vec<Value>,
        side: &mut S,
        (now, unix): (Time, u64),
    ) {
        let refused = answers.iter().find_map(|answer| match answer {
            Value::ServerError(error) => Some(format!("{error:?}")),
            _ => None,
        });
        if let Some(why) = refused {
            if !std::mem::replace(&mut self.is_refused, true) {
                tracing::warn!("Redis refuses what is to be known of revocations: {why}");
            }
            self.not_before = Some(now.plus(AGAIN));
            return self.put_back(task);
        }
        self.is_refused = false;
        match task {
            Task::Tell(batch) => add(&self.tally.bans_told, batch.len()),
            Task::Count => {
                let there = answers.into_iter().next().unwrap_or_default();
                let there: usize = redis::from_redis_value(there).unwrap_or_default();
                // Whatever is known was found there, or told there before it was heard.
                if there < self.known.values().filter(|known| known.until > unix).count() {
                    self.link_up();
                }
            }
            Task::Read => {
                let page = answers.into_iter().next().unwrap_or_default();
                let texts: Vec<Vec<u8>> = redis::from_redis_value(page).unwrap_or_default();
                self.take_page(&texts, side, unix);
            }
        }
        set(&self.tally.bans_waiting, self.waiting.len());
    }

    fn take_page<S: Side>(&mut self, texts: &[Vec<u8>], side: &mut S, unix: u64) {
        let read = self.read.unwrap_or_default();
        for (at, text) in texts.iter().enumerate() {
            // The rest of a page that finds no space is read again.
            if matches!(self.hear(text, side, unix), Err(Refused::Full)) {
                self.read = Some(read + at);
                return;
            }
        }
        self.read = (texts.len() == PAGE).then_some(read + PAGE);
        if self.read.is_none() {
            self.restore(unix);
        }
    }

    /// Tells again what Redis has lost.
    fn restore(&mut self, unix: u64) {
        self.known.retain(|_, known| known.until > unix);
        let space = MOST.saturating_sub(self.waiting.len());
        let reading = self.reading;
        let lost = self.known.iter_mut().filter(|(_, known)| known.reading < reading);
        let mut count = 0;
        for (text, known) in lost.take(space) {
            known.reading = reading;
            self.waiting.push_back(Ban { text: text.to_string(), until: known.until });
            count += 1;
        }
        if count > 0 {
            tracing::warn!("Redis has lost {count} revocations, which it is told again");
        }
    }

    /// Takes in what a node has told.
    ///
    /// # Errors
    /// When it is none, or there is no space for it now: then everything is read again.
    pub(super) fn hear<S: Side>(
        &mut self,
        text: &[u8],
        side: &mut S,
        unix: u64,
    ) -> Result<(), Refused> {
        let heard = self.pass_on(text, side, unix);
        match &heard {
            Ok(()) => add(&self.tally.bans_heard, 1),
            Err(Refused::Full) => self.read = Some(0),
            Err(Refused::Malformed(_)) => add(&self.tally.malformed, 1),
        }
        heard
    }

    fn pass_on<S: Side>(&mut self, text: &[u8], side: &mut S, unix: u64) -> Result<(), Refused> {
        if text.len() > LONGEST {
            return Err(Refused::Malformed(format!("expected at most {LONGEST} bytes")));
        }
        let text = str::from_utf8(text).map_err(|error| Refused::Malformed(error.to_string()))?;
        if let Some(known) = self.known.get_mut(text) {
            known.reading = self.reading;
            return Ok(());
        }
        let until = side.banned(text)?;
        if self.known.len() >= MOST {
            self.known.retain(|_, known| known.until > unix);
        }
        if self.known.len() < MOST {
            self.known.insert(Box::from(text), Known { until, reading: self.reading });
        }
        Ok(())
    }
}
