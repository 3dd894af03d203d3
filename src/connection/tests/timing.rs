//! Deadlines that are looked up lazily, against a twin that looks at every tick.

use std::time::Duration;

use proptest::prelude::*;

use crate::base::map::Seed;
use crate::base::shared::Shared;
use crate::base::time::Tick;
use crate::connection::{Connection, Disconnect, Due, Pause, Timeouts};
use crate::contract::SendBatch;
use crate::flow::heartbeat::HeartbeatOptions;
use crate::flow::outbound::{OutboundLimits, Store};
use crate::session::Protocol;
use crate::wire::websocket::{DecodeLimits, Input};

const DECODE: DecodeLimits = DecodeLimits { message_bytes: 1024, fragments: 4, deflated: false };
const OPENED: Tick = Tick(1000);

fn ticks(count: u32) -> Duration {
    Tick::LENGTH * count
}

fn timeouts() -> Timeouts {
    Timeouts {
        handshake: ticks(30),
        login: ticks(30),
        message: ticks(40),
        echo_message: ticks(60),
        close: ticks(20),
        idle: Duration::ZERO,
        queue_age: ticks(50),
        recall: Duration::ZERO,
        heartbeat: HeartbeatOptions { interval: ticks(80), timeout: ticks(45) },
    }
}

/// A connection, its queue and its place in the wheel, which is a number here.
struct Rig {
    connection: Connection,
    store: Store,
    timeouts: Timeouts,
    in_flight: usize,
    wakes: Tick,
}

impl Rig {
    fn open(timeouts: Timeouts) -> Self {
        let mut connection = Connection::accepted(1, OPENED);
        connection.handle_upgrade(Protocol::Json, OPENED);
        let wakes = OPENED.plus(timeouts.longest_sleep()).min(OPENED.plus(ticks(60)));
        Self { connection, store: Store::new(&Seed::new(1)), timeouts, in_flight: 0, wakes }
    }

    /// Feeds bytes of a client frame, as a shard does.
    fn receive(&mut self, bytes: &mut [u8], now: Tick) {
        self.connection.handle_life(now);
        let was_mid_message = self.connection.decoder.is_mid_message();
        let mut input = Input::new(bytes);
        while let Ok(Some(_)) = self.connection.decoder.decode(&mut input, &DECODE) {}
        let is_mid_message = self.connection.decoder.is_mid_message();
        if is_mid_message && !was_mid_message {
            self.connection.since = now;
        }
        let open = self.connection.open_mut().expect("open");
        if was_mid_message && !is_mid_message {
            open.active = now;
        }
    }

    /// The first half of a message of two frames.
    fn begin_message(&mut self, now: Tick) {
        self.receive(&mut [0x01, 0x81, 0, 0, 0, 0, b'a'], now);
    }

    fn end_message(&mut self, now: Tick) {
        self.receive(&mut [0x80, 0x81, 0, 0, 0, 0, b'b'], now);
    }

    fn pong(&mut self, now: Tick) {
        self.receive(&mut [0x8a, 0x80, 0, 0, 0, 0], now);
    }

    fn push(&mut self, now: Tick) {
        let item = Shared::kept(b"frame".as_slice());
        let limits = OutboundLimits::default();
        self.connection.outbound.push(&mut self.store, 0, item, now, &limits);
    }

    /// Writes everything queued, or learns that what was in flight is written.
    fn write(&mut self) {
        let (outbound, store) = (&mut self.connection.outbound, &mut self.store);
        if outbound.in_flight() {
            outbound.sent(store, 0, self.in_flight, &OutboundLimits::default());
        } else if !outbound.is_empty() {
            let mut batch = SendBatch::new();
            outbound.take_batch(store, 0, &mut batch, usize::MAX, usize::MAX);
            self.in_flight = batch.left();
        }
    }

    fn due(&mut self, now: Tick) -> Due {
        self.connection.handle_timeout(now, &self.timeouts, &self.store)
    }

    /// Looks if the wheel would: what came of it, and the deadline for the next look.
    fn look(&mut self, now: Tick) -> Option<Due> {
        if now < self.wakes {
            return None;
        }
        let due = self.due(now);
        if let Due::Nothing(next) | Due::Ping(next) = due {
            assert!(next > now, "a look that asks for another at once: {due:?}");
            self.wakes = next;
        }
        Some(due)
    }
}

#[test]
fn a_head_that_is_not_complete_in_time_ends_the_connection_however_it_drips() {
    let mut connection = Connection::accepted(1, OPENED);
    let store = Store::new(&Seed::new(1));
    for tick in OPENED.0..OPENED.0 + 30 {
        connection.handle_life(Tick(tick));
        let due = connection.handle_timeout(Tick(tick), &timeouts(), &store);
        assert_eq!(due, Due::Nothing(Tick(OPENED.0 + 30)));
    }
    let due = connection.handle_timeout(Tick(OPENED.0 + 30), &timeouts(), &store);
    assert_eq!(due, Due::End(Disconnect::HandshakeTimeout));
}

#[test]
fn a_closing_connection_is_due_at_its_deadline_and_not_before() {
    let mut rig = Rig::open(timeouts());
    rig.connection.begin_close(Disconnect::Idle, Tick(1100), &mut rig.store, 0);
    assert_eq!(rig.due(Tick(1099)), Due::Nothing(Tick(1100)));
    assert_eq!(rig.due(Tick(1100)), Due::Release);
}

#[test]
fn a_pong_in_time_keeps_the_connection_and_silence_ends_it() {
    let mut rig = Rig::open(timeouts());
    let (mut pings, mut answer) = (0, None);
    for tick in OPENED.0..OPENED.0 + 1000 {
        if answer == Some(tick) {
            rig.pong(Tick(tick));
        }
        match rig.look(Tick(tick)) {
            Some(Due::Ping(_)) => (pings, answer) = (pings + 1, Some(tick + 40)),
            Some(Due::End(why)) => panic!("{why:?} after {pings} pings, each answered"),
            _ => {}
        }
    }
    assert!(pings >= 7, "{pings} pings in a thousand ticks");
    let silent = rig.connection.last_seen;
    let ended = (OPENED.0 + 1000..).find_map(|tick| match rig.look(Tick(tick)) {
        Some(Due::End(why)) => Some((Tick(tick).since(silent), why)),
        _ => None,
    });
    let (silence, why) = ended.expect("an end");
    assert_eq!(why, Disconnect::HeartbeatLost);
    assert!(silence >= ticks(125) && silence <= ticks(125) + Duration::from_secs(1));
}

/// The answer may lie in the kernel, behind data that we did not want to read.
#[test]
fn a_peer_that_we_did_not_read_from_is_not_declared_dead_when_we_read_again() {
    let mut rig = Rig::open(timeouts());
    for tick in OPENED.0..OPENED.0 + 130 {
        // Paused between two looks of the wheel, so that neither of them sees it.
        let paused = tick > rig.wakes.0 - 20 && tick < rig.wakes.0 - 1;
        rig.connection.set_pause(Pause::Congested, paused);
        let due = rig.look(Tick(tick));
        assert!(!matches!(due, Some(Due::End(_))), "{due:?} at {}", tick - OPENED.0);
    }
}

#[test]
fn a_message_gets_its_whole_time_again_after_we_stopped_reading_in_its_middle() {
    let mut rig = Rig::open(timeouts());
    rig.begin_message(OPENED);
    rig.connection.set_pause(Pause::Congested, true);
    for tick in OPENED.0..OPENED.0 + 100 {
        assert!(!matches!(rig.look(Tick(tick)), Some(Due::End(_))));
    }
    rig.connection.set_pause(Pause::Congested, false);
    let ended = (OPENED.0 + 100..).find(|tick| {
        let due = rig.look(Tick(*tick));
        assert!(!matches!(due, Some(Due::End(why)) if why != Disconnect::MessageTimeout));
        matches!(due, Some(Due::End(_)))
    });
    let waited = ended.expect("an end") - (OPENED.0 + 100);
    assert!((40..=80).contains(&waited), "{waited} ticks after reading again");
}

/// What a twin does at a tick before the deadlines are looked at.
#[derive(Clone, Copy, Debug)]
enum Step {
    Begin,
    End,
    Pong,
    Push,
    Write,
    Pause(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Begin),
        Just(Step::End),
        Just(Step::Pong),
        Just(Step::Push),
        Just(Step::Write),
        any::<bool>().prop_map(Step::Pause),
    ]
}

/// Everything that bears on a deadline, in full: no laziness and no ticks saved.
#[derive(Default)]
struct Twin {
    message: Option<u32>,
    /// The ticks of queued frames, and of those in flight.
    queued: Vec<u32>,
    in_flight: Vec<u32>,
    active: u32,
    seen: u32,
    paused: bool,
    /// The last tick at which reading was paused.
    pause: u32,
}

impl Twin {
    /// The earliest and latest tick at which each end may come. A pause that the wheel did not see
    /// counts until its next look, so only the latest moves by the longest sleep.
    fn ends(&self, timeouts: &Timeouts) -> Vec<(Disconnect, u32, u32)> {
        let count = Tick::count;
        let sleep = count(timeouts.longest_sleep());
        let mut ends = Vec::new();
        let mut from = |why, since: u32, limit: u32, slack: u32| {
            if self.paused {
                return;
            }
            let earliest = since.max(self.pause) + limit;
            let late = if self.pause > 0 { since.max(self.pause + sleep) } else { since };
            ends.push((why, earliest, late + limit + slack));
        };
        if let Some(since) = self.message {
            from(Disconnect::MessageTimeout, since, count(timeouts.message), 0);
        }
        if !timeouts.idle.is_zero() {
            from(Disconnect::Idle, self.active, count(timeouts.idle), 0);
        }
        let heartbeat = &timeouts.heartbeat;
        let silence = count(heartbeat.interval + heartbeat.timeout);
        from(Disconnect::HeartbeatLost, self.seen, silence, count(Duration::from_secs(1)));
        if let Some(since) = self.queued.iter().chain(&self.in_flight).min() {
            let deadline = since + count(timeouts.queue_age);
            ends.push((Disconnect::SlowConsumer, deadline, deadline));
        }
        ends
    }
}

/// Does the step to both.
fn apply(rig: &mut Rig, twin: &mut Twin, step: Step, now: u32) {
    let tick = Tick(now);
    match step {
        Step::Begin | Step::End | Step::Pong if twin.paused => {}
        Step::Begin if twin.message.is_none() => {
            rig.begin_message(tick);
            (twin.message, twin.seen) = (Some(now), now);
        }
        Step::End if twin.message.is_some() => {
            rig.end_message(tick);
            (twin.message, twin.seen, twin.active) = (None, now, now);
        }
        Step::Begin | Step::End => {}
        Step::Pong => {
            rig.pong(tick);
            twin.seen = now;
        }
        Step::Push => {
            rig.push(tick);
            twin.queued.push(now);
        }
        Step::Write => {
            rig.write();
            if twin.in_flight.is_empty() {
                twin.in_flight = std::mem::take(&mut twin.queued);
            } else {
                twin.in_flight.clear();
            }
        }
        Step::Pause(paused) => {
            rig.connection.set_pause(Pause::Mail, paused);
            if twin.paused || paused {
                twin.pause = now;
            }
            twin.paused = paused;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_deadline_is_found_in_time_though_the_wheel_sleeps(
        limits in (5..60u32, 5..60u32, prop::option::of(5..90u32), 5..60u32, 5..40u32),
        script in prop::collection::vec((0..30u32, step()), 0..60),
    ) {
        let (message, age, idle, interval, timeout) = limits;
        let timeouts = Timeouts {
            message: ticks(message),
            queue_age: ticks(age),
            idle: idle.map_or(Duration::ZERO, ticks),
            heartbeat: HeartbeatOptions { interval: ticks(interval), timeout: ticks(timeout) },
            ..timeouts()
        };
        let mut rig = Rig::open(timeouts.clone());
        rig.wakes = rig.wakes.min(OPENED.plus(ticks(interval)));
        let mut twin = Twin { active: OPENED.0, seen: OPENED.0, ..Twin::default() };
        let mut script = script.into_iter().peekable();
        let mut wait = script.peek().map_or(0, |(wait, _)| *wait);
        let mut ended = None;
        for now in OPENED.0 + 1..OPENED.0 + 2500 {
            while wait == 0 && let Some((_, step)) = script.next() {
                apply(&mut rig, &mut twin, step, now);
                wait = script.peek().map_or(0, |(wait, _)| *wait);
            }
            wait = wait.saturating_sub(1);
            if twin.paused {
                twin.pause = now;
            }
            let ends = twin.ends(&timeouts);
            if let Some(Due::End(why)) = rig.look(Tick(now)) {
                let end = ends.iter().find(|end| end.0 == why);
                let in_time = end.is_some_and(|(_, earliest, _)| *earliest <= now);
                prop_assert!(in_time, "{:?} at {}: {:?}", why, now, ends);
                ended = Some(why);
                break;
            }
            let late = ends.iter().find(|(_, _, latest)| *latest <= now);
            prop_assert!(late.is_none(), "{:?} was missed at {}", late, now);
        }
        prop_assert!(ended.is_some() || twin.paused, "silence ends every connection that is read");
    }
}
