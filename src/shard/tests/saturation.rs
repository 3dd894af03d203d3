//! One publisher, one room, and a core that is too slow for one frame a send.
//!
//! Time is counted, not measured: a send costs 10 us and each frame in it 0.3, for 300 members, which are
//! the proportions of a real core with a thousand. At one frame a send such a core sustains 323 publications
//! a second. The publisher keeps to its plan whatever happens (an open loop), and a latency is counted from
//! the planned moment to the end of the member's write.

use std::time::Duration;

use crate::base::id::ConnId;
use crate::base::time::Time;
use crate::contract::{Event, Op};
use crate::flow::outbound::OutboundLimits;
use crate::shard::tests::rig::{Rig, publish, settings};

const MEMBERS: u16 = 300;
const SEND: Duration = Duration::from_micros(10);
const FRAME: Duration = Duration::from_nanos(300);

/// What one publication costs at one frame a send.
fn alone() -> Duration {
    (SEND + FRAME) * u32::from(MEMBERS)
}

struct Core {
    rig: Rig,
    publisher: ConnId,
    /// Frames that each connection was sent since the start, by index.
    heard: Vec<u32>,
    start: Time,
    /// Between two publications.
    pace: Duration,
    latencies: Vec<Duration>,
    /// The longest time spent in one turn.
    longest: Duration,
}

impl Core {
    fn new(window: Duration, pace: Duration) -> Self {
        let mut settings = settings();
        settings.capacity.flush_window = window;
        settings.queue = OutboundLimits::default();
        let mut rig = Rig::new(0, 1, settings);
        let publisher = rig.open();
        for _ in 0..MEMBERS {
            rig.member("r");
        }
        let start = rig.now;
        let heard = vec![0; usize::from(MEMBERS) + 1];
        let (latencies, longest) = (Vec::new(), Duration::ZERO);
        Self { rig, publisher, heard, start, pace, latencies, longest }
    }

    /// Publishes so many and returns when all have arrived.
    fn run(&mut self, publications: u32) {
        let text = publish(&["r"], "7");
        let mut made = 0;
        while self.latencies.len() < publications as usize * usize::from(MEMBERS) {
            // What has come since the last turn is one read. Without it, and without work, the core sleeps.
            let due = |made: u32| self.start.plus(self.pace * made);
            let sleeps = self.rig.shard.poll_timeout(self.rig.now) != Some(Duration::ZERO);
            if sleeps && made < publications && due(made) > self.rig.now {
                self.rig.now = due(made);
            }
            let mut bytes = Vec::new();
            let busy = !sleeps && made < publications && due(made) <= self.rig.now;
            while made < publications && due(made) <= self.rig.now {
                bytes.extend(crate::shard::tests::rig::frame(0x81, text.as_bytes()));
                made += 1;
            }
            if !bytes.is_empty() {
                let received = Event::Received { conn: self.publisher, bytes: &mut bytes };
                self.rig.shard.handle_event(received, self.rig.now);
            }
            self.turn(busy);
        }
        self.latencies.sort_unstable();
    }

    fn turn(&mut self, busy: bool) {
        let begun = self.rig.now;
        let shard = &mut self.rig.shard;
        shard.begin_writes(busy, begun);
        while let Some(op) = shard.poll_op() {
            let Op::Send { conn, mut batch } = op else { panic!("{op:?}") };
            let frames = u32::try_from(batch.frames()).expect("few");
            self.rig.now = self.rig.now.plus(SEND + FRAME * frames);
            let heard = &mut self.heard[conn.key()];
            for number in *heard..*heard + frames {
                let planned = self.start.plus(self.pace * number);
                self.latencies.push(self.rig.now.since(planned));
            }
            *heard += frames;
            let bytes = batch.left();
            batch.clear();
            shard.handle_event(Event::Sent { conn, batch, bytes }, self.rig.now);
        }
        self.longest = self.longest.max(self.rig.now.since(begun));
    }

    fn percentile(&self, percent: usize) -> Duration {
        self.latencies[self.latencies.len() * percent / 100]
    }
}

#[test]
fn five_times_the_rate_of_one_frame_a_send_is_sustained_within_5_ms() {
    for window in [Duration::ZERO, Duration::from_micros(500), Duration::from_millis(1)] {
        let mut core = Core::new(window, alone() / 5);
        core.run(3000);
        let p99 = core.percentile(99);
        assert!(p99 <= Duration::from_millis(5), "{window:?}: {p99:?}");
        let counters = core.rig.shard.counters();
        let frames = counters.sent_frames_total / counters.writes_total;
        assert!(frames >= 4, "{window:?}: {frames} frames a write");
        assert!(core.longest <= Duration::from_millis(2), "{window:?}: {:?}", core.longest);
        core.rig.shard.check();
    }
}

#[test]
fn a_core_with_time_to_spare_delays_nothing() {
    for window in [Duration::ZERO, Duration::from_millis(1)] {
        let mut core = Core::new(window, alone() * 2);
        let before = core.rig.shard.counters();
        core.run(500);
        assert_eq!(core.percentile(0), SEND + FRAME, "the first member is written to at once");
        assert_eq!(core.latencies.last(), Some(&alone()), "and the last after all the others");
        let counters = core.rig.shard.counters();
        assert_eq!(counters.flush_waits_total, 0);
        let writes = counters.writes_total - before.writes_total;
        assert_eq!(writes, 500 * u64::from(MEMBERS), "one frame a send");
    }
}
