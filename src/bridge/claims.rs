//! What may be done once over all nodes: the use of a ticket.
//!
//! Who is the first to write its name into Redis has it; the name goes when the ticket has ended. So the promise holds
//! as long as Redis keeps what it was told. One that has come back empty is found by its era, a random number that
//! the first node which comes to it writes there: it is part of what is made, and what is of another era may have been
//! used, and is refused. Without a link nobody can tell whether something was used elsewhere, and that is the answer.
//!
//! What waits is bounded by the handshakes that wait for it, and beyond a number nobody can tell either.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::{Cmd, Value, cmd};

use super::line::{Line, Pending};
use super::options::Options;
use super::server::hub_prefix;
use crate::base::id::ConnAddress;
use crate::base::time::Time;

/// What may wait for Redis.
const MOST: usize = 65_536;
/// Claims in one piece of work.
const BATCH: usize = 256;
/// How soon Redis is asked for its era again when it did not tell.
const AGAIN: Duration = Duration::from_secs(1);

/// Since when Redis remembers, as a number, for everybody to read.
#[derive(Debug, Default)]
pub struct Era(AtomicU32);

impl Era {
    /// The number; `None` without a link.
    #[must_use]
    pub fn read(&self) -> Option<u32> {
        Some(self.0.load(Ordering::Relaxed)).filter(|era| *era != 0)
    }

    fn write(&self, era: Option<u32>) {
        self.0.store(era.unwrap_or(0), Ordering::Relaxed);
    }
}

/// Something that may be used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its number.
    pub id: u128,
    /// The era in which it was made.
    pub era: u32,
    /// Until when it may be used.
    pub until: u64,
    /// Who wants to.
    pub by: ConnAddress,
}

/// What came of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// Nobody had it before.
    First,
    /// Somebody had, or it has ended.
    Taken,
    /// Redis cannot be asked.
    Unknown,
}

/// A piece of work.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// Which era is it?
    Era,
    Claim(Vec<Claim>),
}

/// What is claimed.
#[derive(Debug)]
pub(super) struct Claims {
    waiting: VecDeque<Claim>,
    done: Vec<(ConnAddress, Claimed)>,
    /// What is of another one may have been used and forgotten.
    era: Arc<Era>,
    /// Whether anything is ever claimed; if not, Redis is not asked either.
    is_used: bool,
    /// When that was asked for last.
    asked: Option<Time>,
    /// It was not told, and that was logged.
    is_refused: bool,
    /// What names begin with.
    prefix: String,
}

impl Claims {
    pub(super) fn new(options: &Options, era: &Arc<Era>) -> Self {
        let prefix =
            if options.cluster { hub_prefix(&options.prefix) } else { options.prefix.clone() };
        let era = Arc::clone(era);
        Self {
            waiting: VecDeque::new(),
            done: Vec::new(),
            era,
            is_used: options.extras.tickets,
            asked: None,
            is_refused: false,
            prefix,
        }
    }

    /// To be claimed.
    pub(super) fn push(&mut self, claim: Claim, is_up: bool) {
        if is_up && self.waiting.len() < MOST {
            self.waiting.push_back(claim);
        } else {
            self.done.push((claim.by, Claimed::Unknown));
        }
    }

    /// The link is gone, and with it the answer to what was under way.
    pub(super) fn link_down(&mut self, errand: Option<Errand>) {
        self.era.write(None);
        self.asked = None;
        if let Some(Errand::Claim(batch)) = errand {
            self.give_up(batch);
        }
        self.give_up_waiting();
    }

    fn give_up(&mut self, claims: impl IntoIterator<Item = Claim>) {
        self.done.extend(claims.into_iter().map(|claim| (claim.by, Claimed::Unknown)));
    }

    fn give_up_waiting(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        self.give_up(waiting);
    }

    /// What is known since this was last asked.
    pub(super) fn take_done(&mut self) -> Vec<(ConnAddress, Claimed)> {
        std::mem::take(&mut self.done)
    }

    /// The next work, if there is any. `unix_ms`: milliseconds since 1970.
    pub(super) fn next(
        &mut self,
        line: &Line,
        now: Time,
        unix_ms: u64,
    ) -> Option<(Pending, Errand)> {
        let (commands, errand) = self.work(now, unix_ms)?;
        Some((line.ask_hub(commands), errand))
    }

    fn work(&mut self, now: Time, unix_ms: u64) -> Option<(Vec<Cmd>, Errand)> {
        let Some(era) = self.era.read() else {
            let is_early = self.asked.is_some_and(|asked| now.since(asked) < AGAIN);
            if is_early || !self.is_used {
                self.give_up_waiting();
                return None;
            }
            self.asked = Some(now);
            let key = format!("{}:tickets", self.prefix);
            let begin = cmd("SET").arg(&key).arg(fastrand::u32(1..)).arg("NX").to_owned();
            return Some((vec![begin, cmd("GET").arg(&key).to_owned()], Errand::Era));
        };
        let (mut commands, mut batch) = (Vec::new(), Vec::new());
        while commands.len() < BATCH
            && let Some(claim) = self.waiting.pop_front()
        {
            let left = claim.until.saturating_mul(1000).saturating_sub(unix_ms);
            if left == 0 || claim.era != era {
                self.done.push((claim.by, Claimed::Taken));
                continue;
            }
            let mut command = cmd("SET");
            command.arg(format!("{}:ticket:{:032x}", self.prefix, claim.id));
            command.arg(1).arg("NX").arg("PX").arg(left);
            commands.push(command);
            batch.push(claim);
        }
        (!batch.is_empty()).then_some((commands, Errand::Claim(batch)))
    }

    /// What came of the work.
    pub(super) fn finish(&mut self, errand: Errand, answers: Vec<Value>) {
        let batch = match errand {
            Errand::Era => {
                let told = answers.into_iter().nth(1).unwrap_or_default();
                self.era.write(redis::from_redis_value(told).ok());
                let is_refused = self.era.read().is_none();
                let was_refused = std::mem::replace(&mut self.is_refused, is_refused);
                if is_refused && !was_refused {
                    tracing::warn!("Redis does not say since when it remembers used tickets");
                }
                return;
            }
            Errand::Claim(batch) => batch,
        };
        let answers = answers.into_iter().chain(std::iter::repeat(Value::Nil));
        for (claim, answer) in batch.into_iter().zip(answers) {
            let claimed = match answer {
                Value::Okay => Claimed::First,
                Value::Nil => Claimed::Taken,
                other => {
                    tracing::warn!("Redis refuses a ticket: {other:?}");
                    Claimed::Unknown
                }
            };
            self.done.push((claim.by, claimed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{ConnId, ShardId};

    fn claim(id: u128, era: u32, until: u64) -> Claim {
        let conn = ConnId { index: u32::try_from(id).unwrap(), generation: 0 };
        Claim { id, era, until, by: ConnAddress::alone(ShardId(0), conn) }
    }

    const NOW: Time = Time::ZERO;

    fn claims(some: &[Claim]) -> Claims {
        let mut claims = Claims {
            waiting: VecDeque::new(),
            done: Vec::new(),
            era: Arc::default(),
            is_used: true,
            asked: None,
            is_refused: false,
            prefix: "t".to_owned(),
        };
        some.iter().for_each(|claim| claims.push(*claim, true));
        claims
    }

    fn told(claims: &mut Claims) -> Vec<Claimed> {
        claims.take_done().into_iter().map(|(_, claimed)| claimed).collect()
    }

    #[test]
    fn the_first_to_be_written_down_has_it_and_what_redis_may_have_forgotten_nobody() {
        let mut claims =
            claims(&[claim(1, 10, 60), claim(2, 10, 60), claim(3, 9, 60), claim(4, 10, 20)]);
        let (commands, errand) = claims.work(NOW, 20_000).unwrap();
        assert_eq!((commands.len(), &errand), (2, &Errand::Era));
        claims.finish(errand, vec![Value::Nil, Value::BulkString(b"10".to_vec())]);
        let (commands, errand) = claims.work(NOW, 20_000).unwrap();
        let packed: Vec<String> = commands
            .iter()
            .map(|command| String::from_utf8(command.get_packed_command()).unwrap())
            .collect();
        assert!(packed.iter().all(|text| text.contains("NX") && text.contains("40000")));
        assert!(packed[0].contains("t:ticket:00000000000000000000000000000001"), "{packed:?}");
        assert_eq!(told(&mut claims), [Claimed::Taken; 2], "of another era, and ended");
        claims.finish(errand, vec![Value::Okay, Value::Nil]);
        assert_eq!(told(&mut claims), [Claimed::First, Claimed::Taken]);
        assert!(claims.work(NOW, 20_000).is_none());
    }

    #[test]
    fn without_a_link_nobody_can_tell() {
        let mut claims = claims(&[claim(1, 10, 60), claim(2, 10, 60)]);
        claims.era.write(Some(10));
        let errand = claims.work(NOW, 0).map(|(_, errand)| errand);
        claims.push(claim(3, 10, 60), true);
        claims.link_down(errand);
        claims.push(claim(4, 10, 60), false);
        assert_eq!(told(&mut claims), [Claimed::Unknown; 4]);
        claims.push(claim(5, 10, 60), true);
        let (_, errand) = claims.work(NOW, 0).unwrap();
        assert_eq!(errand, Errand::Era, "asked anew with every link");
        claims.finish(errand, vec![Value::Nil, Value::Nil]);
        assert!(claims.work(NOW, 0).is_none(), "not at once again");
        assert_eq!(told(&mut claims), [Claimed::Unknown]);
        assert!(claims.work(NOW.plus(AGAIN), 0).is_some());
    }

    #[test]
    fn where_nothing_is_ever_claimed_redis_is_not_asked() {
        let mut claims = claims(&[claim(1, 10, 60)]);
        claims.is_used = false;
        assert!(claims.work(NOW, 0).is_none());
        assert_eq!(told(&mut claims), [Claimed::Unknown]);
    }
}
