//! What is done as memory runs short, as one story: each step begins when the one before it was not enough.

use std::time::Duration;

use serde_json::Value;

use crate::base::glob::Glob;
use crate::base::id::ConnId;
use crate::base::shared::Overflow;
use crate::flow::outbound::OutboundLimits;
use crate::shard::tests::rig::{Heard, Rig, Seen, publish, settings};
use crate::shard::{NamespaceRules, RoomMemory, Settings};

const KIB: u64 = 1024;

/// A budget of a mebibyte, queues that may hold 64 KiB each, and rooms `keyed:*` in which newer replaces older.
fn budget() -> Settings {
    let mut settings = settings();
    settings.capacity.memory = 1024 * KIB;
    settings.queue = OutboundLimits {
        high_water: 65_536,
        low_water: 16_384,
        max_bytes: 1 << 20,
        ..OutboundLimits::default()
    };
    settings.rooms.namespaces = vec![NamespaceRules {
        pattern: Glob::new("keyed:*"),
        overflow: Overflow::Conflate,
        join: None,
        publish: None,
        origins: None,
        memory: RoomMemory::default(),
        queued: 0,
        write_delay: Duration::ZERO,
        payload: 0,
    }];
    settings
}

fn filler(bytes: usize) -> String {
    format!("{:?}", "x".repeat(bytes))
}

fn keyed(key: u64, number: u64) -> String {
    let payload = format!("[{key},{number},{}]", filler(1000));
    format!(r#"{{"type":"t","room":"keyed:a","key":"k{key}","payload":{payload}}}"#)
}

/// What begins as memory runs short, in the order in which it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Publishers are not read from.
    Pause,
    /// Publications replace older ones of their key in queues that were not full enough for that before.
    Conflate,
    /// The same, where the policy is to drop.
    Drop,
    /// The laggard with most to read is closed.
    Shed,
    /// Newcomers are refused.
    Refuse,
}

/// A shard whose neighbours fill up, and those who connect to it.
struct Story {
    rig: Rig,
    reader: ConnId,
    /// The keyed, the one that drops, and others with more and more to read.
    laggards: Vec<ConnId>,
    steps: Vec<(u64, Step)>,
    closed: Vec<ConnId>,
}

/// The laggards besides the keyed one, and how many kilobytes wait for each.
const WAITING: [usize; 4] = [10, 20, 30, 25];

impl Story {
    fn begin() -> Self {
        let mut rig = Rig::new(0, 1, budget());
        let reader = rig.member("good");
        let mut laggards = vec![rig.member("keyed:a")];
        laggards.extend((0..WAITING.len()).map(|at| rig.member(&format!("r{at}"))));
        rig.stalled.extend(&laggards);
        let author = rig.open();
        for key in 0..9 {
            rig.say(author, &keyed(key, 0));
        }
        for (at, count) in WAITING.into_iter().enumerate() {
            for _ in 0..count {
                rig.say(author, &publish(&[&format!("r{at}")], &filler(1000)));
            }
        }
        rig.settle();
        Self { rig, reader, laggards, steps: Vec::new(), closed: Vec::new() }
    }

    /// So many hundredths of the budget are held in the node.
    fn hold(&mut self, percent: u64) {
        let own = self.rig.shard.counters().charged_bytes;
        let whole = (1024 * KIB / 100) * percent + KIB;
        self.rig.shard.note_others(whole.saturating_sub(own));
        self.rig.turn();
    }

    fn note(&mut self, percent: u64, step: Step, happened: bool) {
        if happened && !self.steps.iter().any(|(_, known)| *known == step) {
            self.steps.push((percent, step));
        }
    }

    /// Publishes to everybody, lets somebody in, and sees what is different.
    fn round(&mut self, percent: u64) {
        self.hold(percent);
        let before = self.rig.shard.counters();
        let newcomer = self.rig.accept();
        let refused = newcomer.is_none();
        if !refused {
            let author = newcomer.expect("let in");
            self.rig.receive(author, crate::shard::tests::rig::HEAD);
            self.rig.settle();
            self.rig.say(author, &keyed(0, percent));
            self.rig.turn();
            let paused = self.rig.ops.contains(&Seen::Pause(author));
            self.note(percent, Step::Pause, paused);
            self.rig.say(author, &publish(&["r0"], &filler(1000)));
            self.rig.say(author, &publish(&["good"], "1"));
            self.rig.settle();
            assert_eq!(self.rig.published(self.reader).len(), 1, "{percent}");
        }
        let after = self.rig.shard.counters();
        self.note(percent, Step::Conflate, after.conflated_total > before.conflated_total);
        self.note(percent, Step::Drop, after.dropped_oldest_total > before.dropped_oldest_total);
        self.note(percent, Step::Shed, after.memory_shed_total > 0);
        self.note(percent, Step::Refuse, refused);
        for (at, laggard) in self.laggards.iter().enumerate() {
            let is_gone = self.rig.table_is_closing(*laggard);
            if is_gone && !self.closed.contains(laggard) {
                self.closed.push(*laggard);
                assert!(percent >= 85, "{at} at {percent}");
            }
        }
    }
}

#[test]
fn as_memory_runs_short_publishers_wait_then_queues_conflate_and_drop_then_the_largest_goes_then_nobody_comes_in()
 {
    let mut story = Story::begin();
    for percent in 40..100 {
        story.round(percent);
    }
    let expected = [
        (50, Step::Pause),
        (70, Step::Conflate),
        (70, Step::Drop),
        (85, Step::Shed),
        (95, Step::Refuse),
    ];
    assert_eq!(story.steps, expected);
    // The keyed one had room for all that came until there was pressure.
    let most_first = [0, 3, 4].map(|at| story.laggards[at]);
    assert_eq!(story.closed[..3], most_first, "who has most to read goes first");
}

#[test]
fn a_room_that_conflates_does_so_under_pressure_and_loses_nothing_of_another_key_before_somebody_is_closed()
 {
    let mut story = Story::begin();
    for percent in 40..85 {
        story.round(percent);
        assert_eq!(story.rig.shard.counters().memory_shed_total, 0, "{percent}");
    }
    let keyed = story.laggards[0];
    story.hold(10);
    story.rig.stalled.clear();
    story.rig.settle();
    let mut newest: [Option<u64>; 9] = [None; 9];
    let mut of_first = Vec::new();
    for heard in story.rig.heard(keyed) {
        let Heard::Text(text) = heard else { continue };
        assert_ne!(text["type"], "throng:gap", "nothing of another key was lost: {text}");
        let part = |at: usize| text["payload"].get(at).and_then(Value::as_u64);
        let (Some(key), Some(number)) = (part(0), part(1)) else { continue };
        newest[usize::try_from(key).expect("small")] = Some(number);
        if key == 0 {
            of_first.push(number);
        }
    }
    assert_eq!(newest[0], Some(84), "the newest of its key");
    assert!(newest[1..].iter().all(|number| *number == Some(0)), "{newest:?}");
    // All until there was pressure, and of those since then the last alone.
    let calm: Vec<u64> = std::iter::once(0).chain(40..70).collect();
    assert!(of_first.len() < calm.len() + 3, "{of_first:?}");
    assert!(story.rig.shard.counters().conflated_total >= 14, "{of_first:?}");
}
