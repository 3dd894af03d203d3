//! Whether a silent peer is left alone, asked, or given up.
//!
//! Receiving does not touch the wheel: it writes the tick into the connection's record, and when the
//! deadline fires [`decide`] looks at what has happened since. The record keeps two ticks, when the
//! peer was last heard and when it was last asked; a ping is outstanding exactly while the second is
//! later than the first.
//!
//! Three promises, each rounded so that ticks cannot break it. A peer is given up only after
//! `interval + timeout` of silence. A ping gets its whole `timeout` for an answer, however late it
//! went out. If deadlines fire in time, a silent peer is given up within a second of those two.
//! A deadline that fires more than half a second late means that this shard was stalled, so the
//! answer may still lie unread in the kernel: the peer is asked once more instead of being given up.
//! A shard that keeps its turns short under more input than it can read is not late, so whoever acts
//! on [`Beat::Dead`] first looks whether something of the peer lies unread.
//!
//! The first ping comes early by a random part of half the interval, and since every later one
//! follows its answer, connections that arrived together stay apart. Nothing here knows what a ping
//! looks like.

use std::time::Duration;

use crate::base::time::Tick;

/// When to ask and how long to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatOptions {
    /// Silence after which the peer is asked. At least one tick is used.
    pub interval: Duration,
    /// How long the peer has to answer. At least one tick is used.
    pub timeout: Duration,
}

impl Default for HeartbeatOptions {
    fn default() -> Self {
        Self { interval: Duration::from_secs(25), timeout: Duration::from_secs(20) }
    }
}

impl HeartbeatOptions {
    fn interval(&self) -> u32 {
        Tick::count(self.interval).max(1)
    }

    fn timeout(&self) -> u32 {
        Tick::count(self.timeout).max(1)
    }

    /// The first tick at which a peer last heard in `last_seen` has been silent for interval and
    /// timeout, one tick added for each of the two roundings.
    fn given_up(&self, last_seen: Tick) -> Tick {
        ahead(ahead(last_seen, self.interval() + 1), self.timeout() + 1)
    }
}

/// What to do about a connection whose heartbeat deadline has fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// Nothing; look again at this tick.
    Wait(Tick),
    /// Ping, record the current tick as `pinged`, and look again at this tick.
    Ping(Tick),
    /// The peer is dead: reap it without a close handshake.
    Dead,
}

/// The first deadline of a connection opened at `now`: in the second half of the interval, placed by
/// `jitter`, any random number.
#[must_use]
pub fn first(now: Tick, options: &HeartbeatOptions, jitter: u32) -> Tick {
    let interval = options.interval();
    ahead(now, (interval - jitter % (interval / 2 + 1)).max(1))
}

/// What to do at `now`. `last_seen` is the tick of the last inbound byte (at first: of opening);
/// `pinged` that of the last ping, `Tick(0)` before the first. Inbound bytes that arrived in time are
/// to be recorded before this is asked, so handle events before deadlines.
#[must_use]
pub fn decide(last_seen: Tick, pinged: Tick, now: Tick, options: &HeartbeatOptions) -> Beat {
    let given_up = options.given_up(last_seen);
    let answer_by = ahead(now, options.timeout() + 1);
    // If the answer comes at once, this is when silence has to be looked for again.
    let next_due = ahead(now, options.interval() + 1);
    if pinged <= last_seen {
        let due = ahead(last_seen, options.interval() + 1);
        // The first ping is not a reaction to silence; it sets the connection's phase.
        let asks = now >= due || (pinged == Tick(0) && now > last_seen);
        return if asks {
            Beat::Ping(answer_by.max(given_up).min(next_due))
        } else {
            Beat::Wait(due)
        };
    }
    let deadline = given_up.max(ahead(pinged, options.timeout() + 1));
    let late = Tick::count(LATE);
    if now < deadline {
        Beat::Wait(deadline.min(next_due))
    } else if now <= ahead(deadline, late) || pinged > ahead(given_up, late) {
        // Either in time, or this is the answer to the second asking.
        Beat::Dead
    } else {
        Beat::Ping(answer_by.min(next_due))
    }
}

fn ahead(tick: Tick, ticks: u32) -> Tick {
    Tick(tick.0.saturating_add(ticks))
}

/// How late a deadline may fire before the lateness is taken for a stall of our own.
const LATE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Time;
    use crate::flow::wheel::Wheel;
    use proptest::prelude::*;

    fn options() -> impl Strategy<Value = HeartbeatOptions> {
        (100..30_000u64, 100..30_000u64).prop_map(|(interval, timeout)| HeartbeatOptions {
            interval: Duration::from_millis(interval),
            timeout: Duration::from_millis(timeout),
        })
    }

    fn nanos(wait: Duration) -> u64 {
        u64::try_from(wait.as_nanos()).expect("short")
    }

    proptest! {
        /// Time is exact here; the decision sees ticks only. A peer that answers every ping within
        /// its timeout lives through any stalls.
        #[test]
        fn a_peer_that_answers_in_time_lives_whatever_the_stalls(
            options in options(),
            jitter: u32,
            rounds in prop::collection::vec((0..120_000u64, 0.0..0.99f64), 1..60),
        ) {
            let opened = Time::from_nanos(77_000_000_000);
            let (mut seen, mut pinged) = (opened.tick(), Tick(0));
            let mut deadline = first(opened.tick(), &options, jitter);
            let mut answer: Option<Time> = None;
            for (stall, speed) in rounds {
                let stall = if stall < 60_000 { 0 } else { stall };
                let now = deadline.start().plus(Duration::from_millis(stall));
                if let Some(arrived) = answer.take_if(|arrived| *arrived <= now) {
                    seen = arrived.tick();
                }
                match decide(seen, pinged, now.tick(), &options) {
                    Beat::Wait(until) => {
                        prop_assert!(until > now.tick(), "a wait is a wait");
                        deadline = until;
                    }
                    Beat::Ping(until) => {
                        prop_assert!(until > now.tick(), "a wait is a wait");
                        pinged = now.tick();
                        deadline = until;
                        answer = Some(now.plus(options.timeout.mul_f64(speed)));
                    }
                    Beat::Dead => prop_assert!(false, "a healthy peer was given up"),
                }
            }
        }

        #[test]
        fn a_peer_that_falls_silent_is_given_up_within_its_window(
            options in options(),
            jitter: u32,
            start in 1_000_000_000..100_000_000_000u64,
            active in prop::collection::vec(0..20_000_000_000u64, 0..10),
        ) {
            let mut inbound: Vec<Time> = active.iter().map(|at| Time::from_nanos(start + at)).collect();
            inbound.push(Time::from_nanos(start));
            inbound.sort_unstable();
            let opened = inbound[0].tick();
            let (mut pinged, mut deadline) = (Tick(0), first(opened, &options, jitter));
            let ended = loop {
                // The worker wakes at the deadline's tick, or a tick later.
                let now = deadline.start().plus(Tick::LENGTH / 2);
                let seen = inbound.iter().rfind(|at| **at <= now).expect("the opening").tick();
                match decide(seen, pinged, now.tick(), &options) {
                    Beat::Wait(until) => deadline = until,
                    Beat::Ping(until) => (pinged, deadline) = (now.tick(), until),
                    Beat::Dead => break now,
                }
            };
            let last = *inbound.iter().rfind(|at| **at <= ended).expect("the opening");
            let silence = nanos(ended.since(last));
            prop_assert!(silence >= nanos(options.interval + options.timeout));
            prop_assert!(silence <= nanos(options.interval + options.timeout + Duration::from_secs(1)));
        }
    }

    #[test]
    fn thousands_of_dead_peers_are_found_in_slices_and_nobody_else() {
        let options = HeartbeatOptions::default();
        let mut wheel = Wheel::new(0);
        let peers = 6000u32;
        let (mut seen, mut pinged) = (vec![Tick(100); 6000], vec![Tick(0); 6000]);
        let is_dead = |key: u32| !key.is_multiple_of(3);
        for key in 0..peers {
            wheel.set(key, first(Tick(100), &options, key.wrapping_mul(2_654_435_761)));
        }
        let (mut fired, mut dead) = (Vec::new(), Vec::new());
        for tick in 100..1000 {
            // Twenty turns per tick, 256 visits each.
            for _ in 0..20 {
                wheel.expire(Tick(tick), 256, &mut fired);
                for key in fired.drain(..) {
                    let at = key as usize;
                    match decide(seen[at], pinged[at], Tick(tick), &options) {
                        Beat::Wait(until) => wheel.set(key, until),
                        Beat::Ping(until) => {
                            pinged[at] = Tick(tick);
                            wheel.set(key, until);
                            if !is_dead(key) {
                                seen[at] = Tick(tick);
                            }
                        }
                        Beat::Dead => dead.push((key, Tick(tick).since(Tick(100)))),
                    }
                }
            }
        }
        let window = options.interval + options.timeout;
        assert!(dead.iter().all(|(key, _)| is_dead(*key)), "only the dead");
        assert!(dead.iter().all(|(_, after)| *after >= window));
        assert!(dead.iter().all(|(_, after)| *after <= window + Duration::from_secs(1)));
        assert_eq!(dead.len(), (0..peers).filter(|key| is_dead(*key)).count(), "all the dead");
    }

    #[test]
    fn after_a_stall_of_our_own_a_silent_peer_is_asked_once_more_and_then_given_up() {
        let options = HeartbeatOptions::default();
        let stalled = Tick(10_000);
        let Beat::Ping(next) = decide(Tick(100), Tick(500), stalled, &options) else {
            panic!("its answer may lie unread");
        };
        assert_eq!(decide(Tick(100), stalled, next, &options), Beat::Dead);
        let stalled_again = Tick(next.0 + 5000);
        assert_eq!(decide(Tick(100), stalled, stalled_again, &options), Beat::Dead);
    }

    #[test]
    fn idle_connections_that_arrived_together_are_never_asked_together() {
        let options = HeartbeatOptions::default();
        let mut asked = vec![0u32; 2000];
        for peer in 0..1860 {
            let (mut seen, mut pinged) = (Tick(100), Tick(0));
            let mut deadline = first(seen, &options, peer);
            while deadline.0 < 2000 {
                match decide(seen, pinged, deadline, &options) {
                    Beat::Wait(until) => deadline = until,
                    Beat::Ping(until) => {
                        asked[deadline.0 as usize] += 1;
                        // The answer comes within the tick.
                        (seen, pinged, deadline) = (deadline, deadline, until);
                    }
                    Beat::Dead => panic!("it answers"),
                }
            }
        }
        // 1,860 peers over the 187 ticks of half an interval.
        assert!(asked.iter().all(|pings| *pings <= 10), "{asked:?}");
        assert!(asked.iter().sum::<u32>() >= 1860 * 4, "everyone is asked every interval");
    }

    #[test]
    fn first_deadlines_spread_over_half_the_interval() {
        let options = HeartbeatOptions::default();
        let interval = Tick::count(options.interval);
        let ticks: Vec<u32> = (0..10_000).map(|n| first(Tick(0), &options, n).0).collect();
        assert_eq!(ticks.iter().max(), Some(&interval));
        assert_eq!(ticks.iter().min(), Some(&(interval - interval / 2)));
    }
}
