//! The node as a service: what its manager is told of it, if it has one.
//!
//! Ready when it accepts, stopping when it drains, and in between alive, several times in the interval
//! that the manager names (`WATCHDOG_USEC`). Alive means that every shard has taken a turn since it was
//! last asked to: a node with one shard that stands still is one that should be started anew. The question
//! is mail that wakes a sleeping shard, some twice in the interval and never more than it takes.

use std::env;
use std::ffi::OsString;
use std::time::Duration;

use crate::base::time::Time;
use crate::sys::clock::Clock;
use crate::sys::notify::Notifier;

/// What the manager is told by.
#[derive(Debug)]
pub(super) struct Service {
    notifier: Notifier,
    clock: Clock,
    watchdog: Option<Watchdog>,
}

/// How often to say that the node lives, and what is known of that.
#[derive(Debug)]
struct Watchdog {
    /// How often the shards are asked: a third of what the manager allows.
    interval: Duration,
    asked: Time,
    /// Turns of each shard when they were asked; empty before the first time.
    turns: Vec<u64>,
}

impl Watchdog {
    fn new(allowed: Duration) -> Self {
        Self { interval: allowed / 3, asked: Time::ZERO, turns: Vec::new() }
    }

    /// True when all shards have turned since they were asked; false as well while none was.
    fn have_turned(&self, turns: &[u64]) -> bool {
        self.turns.len() == turns.len()
            && self.turns.iter().zip(turns).all(|(before, now)| before != now)
    }

    /// What is to be done now: say that the node lives, ask the shards.
    fn look(&mut self, now: Time, turns: Vec<u64>) -> (bool, bool) {
        if now.since(self.asked) < self.interval && !self.turns.is_empty() {
            return (false, false);
        }
        let lives = self.have_turned(&turns);
        let asks = lives || self.turns.is_empty();
        if asks {
            self.turns = turns;
            self.asked = now;
        }
        (lives, asks)
    }
}

impl Service {
    /// What the environment says of a manager; `None` where there is none.
    pub(super) fn open() -> Option<Self> {
        let notifier = match Notifier::open(&env::var_os("NOTIFY_SOCKET")?) {
            Ok(notifier) => notifier,
            Err(error) => {
                tracing::warn!("NOTIFY_SOCKET: {error}; nobody is told that the node is ready");
                return None;
            }
        };
        let watchdog = allowed(env::var_os("WATCHDOG_USEC"), env::var_os("WATCHDOG_PID"));
        Some(Self { notifier, clock: Clock::start(), watchdog: watchdog.map(Watchdog::new) })
    }

    /// The node accepts.
    pub(super) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// The graceful end has begun.
    pub(super) fn stopping(&self, status: &str) {
        self.tell(&format!("STOPPING=1\nSTATUS={status}"));
    }

    /// To be called now and then with the turns of each shard so far. True when the shards are to be woken so
    /// that they turn.
    pub(super) fn look(&mut self, turns: impl FnOnce() -> Vec<u64>) -> bool {
        let now = self.clock.now();
        let Some(watchdog) = &mut self.watchdog else { return false };
        let (lives, asks) = watchdog.look(now, turns());
        if lives {
            self.tell("WATCHDOG=1");
        }
        asks
    }

    fn tell(&self, message: &str) {
        if let Err(error) = self.notifier.tell(message) {
            tracing::debug!("the service manager was not told: {error}");
        }
    }
}

/// How long the manager waits for a sign of life; `None` when it does not, or not for this process.
fn allowed(micros: Option<OsString>, process: Option<OsString>) -> Option<Duration> {
    let number = |text: OsString| text.to_str()?.parse::<u64>().ok();
    let is_other = process.and_then(number).is_some_and(|id| id != u64::from(std::process::id()));
    let micros = micros.and_then(number).filter(|micros| *micros > 0 && !is_other)?;
    Some(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_node_lives_while_every_shard_turns() {
        let mut watchdog = Watchdog::new(SECOND * 3);
        let at = |seconds: u32| Time::ZERO.plus(SECOND * 100 + SECOND * seconds);
        assert_eq!(watchdog.look(at(0), vec![5, 7]), (false, true), "first they are asked");
        assert_eq!(watchdog.look(at(0), vec![6, 8]), (false, false), "not so soon");
        assert_eq!(watchdog.look(at(1), vec![6, 8]), (true, true));
        for wait in 2..9 {
            let stuck = watchdog.look(at(wait), vec![7, 8]);
            assert_eq!(stuck, (false, false), "one stands still, and that is not said to be life");
        }
        assert_eq!(watchdog.look(at(9), vec![7, 9]), (true, true), "it turns again");
    }

    #[test]
    fn the_interval_is_the_managers_and_for_this_process_only() {
        let own = std::process::id().to_string();
        let text = |text: &str| Some(OsString::from(text));
        assert_eq!(allowed(None, None), None);
        assert_eq!(allowed(text("0"), None), None);
        assert_eq!(allowed(text("many"), None), None);
        assert_eq!(allowed(text("2000000"), None), Some(SECOND * 2));
        assert_eq!(allowed(text("2000000"), text(&own)), Some(SECOND * 2));
        assert_eq!(allowed(text("2000000"), text("1")), None);
    }
}
