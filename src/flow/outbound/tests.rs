//! The queue against a naive twin, and its rules one by one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;

use super::policy::MAX_PASSED;
use super::queue::MAX_PONGS;
use super::*;
use crate::base::map::Seed;
use crate::base::shared::{Mark, Overflow, Shared};
use crate::base::time::Tick;
use crate::contract::SendBatch;

/// Rooms 0 to 4; whatever is pushed to the last number is a reply.
const POLICIES: [Overflow; 5] = [
    Overflow::DropNew,
    Overflow::DropOldest,
    Overflow::Conflate,
    Overflow::Disconnect,
    Overflow::DropOldest,
];

fn item(room: usize, key: u64, fill: u8, size: usize) -> Shared {
    let bytes = vec![fill; size];
    match POLICIES.get(room) {
        Some(&overflow) => {
            Shared::marked(bytes, Mark { room: Arc::from(format!("r{room}")), overflow, key })
        }
        None => Shared::kept(bytes),
    }
}

/// Several publications of a room in one item.
fn bundle(room: usize, fill: u8, size: usize, frames: u32) -> Shared {
    let mark = Mark { room: Arc::from(format!("r{room}")), overflow: POLICIES[room], key: 0 };
    Shared::bundle(vec![fill; size], frames, mark)
}

fn reply(size: usize) -> Shared {
    item(POLICIES.len(), 0, 0, size)
}

fn small_limits() -> OutboundLimits {
    OutboundLimits {
        high_water: 1000,
        low_water: 300,
        max_bytes: 3000,
        max_messages: 12,
        gap_rooms: 2,
        ..OutboundLimits::default()
    }
}

fn long_limits() -> OutboundLimits {
    OutboundLimits { high_water: 500, low_water: 100, max_messages: 300, ..small_limits() }
}

#[derive(Clone, Debug)]
struct TwinItem {
    bytes: Vec<u8>,
    room: usize,
    key: u64,
    since: Tick,
    frames: usize,
}

fn twin_item(fill: u8, since: Tick, room: usize, key: u64, size: usize) -> TwinItem {
    TwinItem { bytes: vec![fill; size], room, key, since, frames: 1 }
}

/// The same rules, written for reading: everything is searched, nothing is kept twice.
#[derive(Debug, Default)]
struct Twin {
    controls: Vec<(Control, TwinItem)>,
    data: VecDeque<TwinItem>,
    flight: Option<(usize, Tick)>,
    gaps: BTreeMap<String, u64>,
    congested: bool,
    reported: bool,
    closing: bool,
    /// True while the close frame is the last item of `data`.
    close_queued: bool,
}

impl Twin {
    fn bytes(&self) -> usize {
        let controls: usize = self.controls.iter().map(|(_, item)| item.bytes.len()).sum();
        let data: usize = self.data.iter().map(|item| item.bytes.len()).sum();
        controls + data + self.flight.map_or(0, |(bytes, _)| bytes)
    }

    fn len(&self) -> usize {
        self.controls.len() + self.messages()
    }

    fn messages(&self) -> usize {
        self.data.iter().map(|item| item.frames).sum()
    }

    fn over(&self, limits: &OutboundLimits) -> bool {
        self.bytes() > limits.high_water as usize || self.messages() >= limits.max_messages as usize
    }

    fn full(&self, limits: &OutboundLimits) -> bool {
        self.bytes() > limits.max_bytes as usize || self.messages() >= limits.max_replies() as usize
    }

    fn settle(&mut self, limits: &OutboundLimits) {
        if self.over(limits) {
            self.congested = true;
        } else if self.bytes() <= limits.low_water as usize
            && self.messages() <= limits.max_messages as usize / 4
        {
            self.congested = false;
        }
    }

    fn lose(&mut self, room: usize, frames: usize, limits: &OutboundLimits) {
        let name = format!("r{room}");
        let named = self.gaps.keys().filter(|name| !name.is_empty()).count();
        let known = self.gaps.contains_key(&name) || named < limits.gap_rooms as usize;
        *self.gaps.entry(if known { name } else { String::new() }).or_default() += frames as u64;
    }

    fn push(&mut self, item: TwinItem, limits: &OutboundLimits) -> Pushed {
        if self.closing {
            return Pushed::Closing;
        }
        let pushed = self.push_by_policy(item, limits);
        self.settle(limits);
        pushed
    }

    fn push_by_policy(&mut self, item: TwinItem, limits: &OutboundLimits) -> Pushed {
        let Some(policy) = POLICIES.get(item.room) else {
            if self.full(limits) {
                return Pushed::SlowConsumer;
            }
            self.data.push_back(item);
            return Pushed::Queued;
        };
        if !self.over(limits) {
            self.data.push_back(item);
            return Pushed::Queued;
        }
        self.congested = true;
        if *policy == Overflow::Conflate {
            let before = self.bytes();
            let same = |old: &TwinItem| old.room == item.room && old.key == item.key;
            if let Some(at) = self.data.iter().rposition(same) {
                let grown = before - self.data[at].bytes.len() + item.bytes.len();
                if grown <= before.max(limits.high_water as usize) {
                    self.data[at].bytes = item.bytes;
                    return Pushed::Conflated;
                }
            }
        }
        match policy {
            Overflow::Disconnect => return Pushed::SlowConsumer,
            Overflow::DropNew | Overflow::Pause => {
                self.lose(item.room, item.frames, limits);
                return Pushed::DroppedNew(u32::try_from(item.frames).expect("few"));
            }
            Overflow::DropOldest | Overflow::Conflate => {}
        }
        let mut dropped = 0;
        while self.over(limits) {
            let Some(at) = self.data.iter().take(MAX_PASSED).position(|old| {
                matches!(POLICIES.get(old.room), Some(Overflow::DropOldest | Overflow::Conflate))
            }) else {
                break;
            };
            let old = self.data.remove(at).expect("a position");
            self.lose(old.room, old.frames, limits);
            dropped += u32::try_from(old.frames).expect("few");
        }
        let is_alone = self.data.is_empty() && !self.full(limits);
        if self.over(limits) && !is_alone {
            self.lose(item.room, item.frames, limits);
            return Pushed::DroppedAll(dropped + u32::try_from(item.frames).expect("few"));
        }
        self.data.push_back(item);
        Pushed::DroppedOldest(dropped)
    }

    fn push_control(&mut self, kind: Control, item: TwinItem) -> bool {
        let queued = self.controls.iter().filter(|(other, _)| *other == kind).count();
        let newest = self.controls.iter().rposition(|(other, _)| *other == kind);
        match (kind, newest) {
            _ if self.closing => return false,
            (Control::Ping, Some(_)) => return false,
            (Control::Pong, Some(at)) if queued == usize::from(MAX_PONGS) => {
                self.controls[at].1.bytes = item.bytes;
            }
            (Control::Ping | Control::Pong, _) => self.controls.push((kind, item)),
            (Control::Close, _) => {
                self.data.push_back(item);
                (self.closing, self.close_queued) = (true, true);
            }
        }
        true
    }

    fn take(&mut self, max_bytes: usize, max_parts: usize) -> (usize, Vec<u8>) {
        let (mut taken, mut parts, mut since) = (Vec::new(), 0, Tick(u32::MAX));
        let mut frames = 0;
        while parts < max_parts.max(1) {
            let next = self.controls.first().map(|(_, item)| item).or(self.data.front());
            let Some(next) = next else { break };
            if parts > 0 && taken.len() + next.bytes.len() > max_bytes {
                break;
            }
            taken.extend_from_slice(&next.bytes);
            since = since.min(next.since);
            parts += 1;
            frames += next.frames;
            if self.controls.is_empty() {
                self.data.pop_front();
            } else {
                self.controls.remove(0);
            }
        }
        if parts > 0 {
            self.flight = Some((taken.len(), since));
            self.close_queued &= !self.data.is_empty();
        }
        (frames, taken)
    }

    fn discard(&mut self) {
        self.closing &= !self.close_queued;
        self.close_queued = false;
        self.controls.clear();
        self.data.clear();
        self.gaps.clear();
        self.congested &= self.flight.is_some();
    }

    fn oldest(&self) -> Option<Tick> {
        let controls = self.controls.iter().map(|(_, item)| item.since);
        let data = self.data.iter().map(|item| item.since);
        controls.chain(data).chain(self.flight.map(|(_, since)| since)).min()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push { room: usize, key: u64, size: usize },
    Bundle { room: usize, size: usize, frames: u32 },
    Control { kind: u8, size: usize, times: u8 },
    Take { max_bytes: usize, max_parts: usize },
    Sent,
    Gaps,
    Pressure,
    Discard,
    Clear,
}

fn steps() -> impl Strategy<Value = Vec<(u32, Step)>> {
    let step = prop_oneof![
        12 => (0..6usize, 0..3u64, 1..300usize)
            .prop_map(|(room, key, size)| Step::Push { room, key, size }),
        12 => (0..6usize, 0..3u64, 1..6usize)
            .prop_map(|(room, key, size)| Step::Push { room, key, size }),
        4 => (prop_oneof![Just(0), Just(1), Just(3)], 1..300usize, 2..7u32)
            .prop_map(|(room, size, frames)| Step::Bundle { room, size, frames }),
        2 => (0..20u8, 1..20usize, prop_oneof![Just(1), 1..20u8])
            .prop_map(|(kind, size, times)| Step::Control { kind, size, times }),
        3 => (0..900usize, 0..9usize)
            .prop_map(|(max_bytes, max_parts)| Step::Take { max_bytes, max_parts }),
        3 => Just(Step::Sent),
        1 => Just(Step::Gaps),
        1 => Just(Step::Pressure),
        1 => prop_oneof![9 => Just(Step::Gaps), 1 => Just(Step::Discard), 1 => Just(Step::Clear)],
    ];
    prop::collection::vec((0..3u32, step), 1..400)
}

/// One connection with its twin and the batch the kernel has.
#[derive(Default)]
struct Pair {
    queue: Outbound,
    twin: Twin,
    batch: SendBatch,
}

impl Pair {
    fn step(
        &mut self,
        store: &mut Store,
        key: u32,
        step: &Step,
        fill: u8,
        now: Tick,
        limits: &OutboundLimits,
    ) {
        let Self { queue, twin, batch } = self;
        let twin_item = |room, key, size| twin_item(fill, now, room, key, size);
        match *step {
            Step::Push { room, key: k, size } => {
                let pushed = queue.push(store, key, item(room, k, fill, size), now, limits);
                assert_eq!(pushed, twin.push(twin_item(room, k, size), limits));
            }
            Step::Bundle { room, size, frames } => {
                let item = bundle(room, fill, size, frames);
                let twin_item = TwinItem { frames: frames as usize, ..twin_item(room, 0, size) };
                let pushed = twin.push(twin_item, limits);
                assert_eq!(queue.push(store, key, item, now, limits), pushed);
            }
            Step::Control { kind, size, times } => {
                let kind = match kind {
                    0 => Control::Close,
                    1..=9 => Control::Ping,
                    _ => Control::Pong,
                };
                for more in 0..usize::from(times) {
                    let frame = Shared::kept(vec![fill; size + more]);
                    let queued = queue.push_control(store, frame, kind, now);
                    assert_eq!(queued, twin.push_control(kind, twin_item(9, 0, size + more)));
                }
            }
            Step::Take { max_bytes, max_parts } if !queue.in_flight() => {
                let frames = queue.take_batch(store, key, batch, max_bytes, max_parts);
                assert_eq!(frames as u64, batch.frames());
                let bytes: Vec<u8> = batch.slices().flatten().copied().collect();
                assert_eq!((frames, bytes), twin.take(max_bytes, max_parts));
            }
            Step::Sent if queue.in_flight() => {
                queue.sent(store, key, batch.left(), limits);
                batch.clear();
                twin.flight = None;
                twin.settle(limits);
            }
            Step::Take { .. } | Step::Sent => {}
            Step::Gaps => {
                let told = queue.take_gaps(store, key);
                let told: BTreeMap<_, _> = told.iter().map(|(r, n)| (r.to_string(), *n)).collect();
                let expected = if twin.congested { BTreeMap::new() } else { twin.gaps.clone() };
                assert_eq!(told, expected);
                if !twin.congested {
                    twin.gaps.clear();
                }
            }
            Step::Pressure => {
                let expected = match (twin.congested, twin.reported) {
                    (true, false) => Some(Pressure::Congested),
                    (false, true) => Some(Pressure::Relieved),
                    _ => None,
                };
                assert_eq!(queue.poll_pressure(), expected);
                twin.reported = twin.congested;
            }
            Step::Discard => {
                queue.discard(store, key);
                twin.discard();
            }
            Step::Clear => {
                queue.clear(store, key);
                batch.clear();
                *twin = Twin::default();
            }
        }
    }

    fn compare(&self, store: &Store, key: u32) {
        let Self { queue, twin, .. } = self;
        queue.check(store, key);
        assert_eq!((queue.bytes(), queue.len()), (twin.bytes(), twin.len()));
        assert_eq!(queue.is_congested(), twin.congested);
        assert_eq!(queue.has_gaps(), !twin.gaps.is_empty());
        assert_eq!(queue.is_closing(), twin.closing);
        assert_eq!(queue.in_flight(), twin.flight.is_some());
        assert_eq!(queue.oldest(store), twin.oldest());
    }
}

proptest! {
    #[test]
    fn queues_in_one_store_equal_their_naive_twins(steps in steps(), long: bool) {
        let limits = if long { long_limits() } else { small_limits() };
        let mut store = Store::new(&Seed::new(7));
        let mut pairs: [Pair; 3] = Default::default();
        for (at, (key, step)) in steps.iter().enumerate() {
            let fill = u8::try_from(at % 251).expect("small");
            let now = Tick(u32::try_from(at / 3).expect("small"));
            let pair = &mut pairs[*key as usize];
            pair.step(&mut store, *key, step, fill, now, &limits);
            pair.compare(&store, *key);
            let bytes: usize = pairs.iter().map(|pair| pair.queue.bytes()).sum();
            let frames: usize = pairs.iter().map(|pair| pair.queue.len()).sum();
            let totals = (store.queued_bytes(), store.queued_frames());
            prop_assert_eq!(totals, (bytes as u64, frames as u64));
        }
        store.check();
        for (key, pair) in (0..).zip(&mut pairs) {
            pair.queue.clear(&mut store, key);
            pair.queue.check(&store, key);
        }
        store.check();
        prop_assert_eq!((store.queued_bytes(), store.queued_frames(), store.troubled()), (0, 0, 0));
    }

    #[test]
    fn no_queue_holds_more_than_its_limit_and_one_message(
        pushes in prop::collection::vec((0..6usize, 0..9u64, 1..800usize), 1..300),
    ) {
        let limits = small_limits();
        let mut store = Store::new(&Seed::new(7));
        let mut queue = Outbound::default();
        for (room, key, size) in pushes {
            let before = queue.bytes();
            let pushed = queue.push(&mut store, 0, item(room, key, 1, size), Tick(1), &limits);
            let limit = if room < POLICIES.len() { limits.high_water } else { limits.max_bytes };
            if pushed.is_queued() {
                prop_assert!(queue.bytes() <= (limit as usize + size).max(before));
            }
            prop_assert!(queue.len() <= limits.max_replies() as usize);
        }
        queue.clear(&mut store, 0);
    }
}

#[test]
fn a_message_larger_than_every_limit_passes_an_empty_queue() {
    let (mut store, mut queue) = (Store::new(&Seed::new(1)), Outbound::default());
    let limits = small_limits();
    assert_eq!(queue.push(&mut store, 0, item(3, 0, 1, 99_999), Tick(1), &limits), Pushed::Queued);
    assert_eq!(queue.poll_pressure(), Some(Pressure::Congested));
    assert_eq!(queue.push(&mut store, 0, item(3, 0, 1, 1), Tick(1), &limits), Pushed::SlowConsumer);
    assert_eq!(queue.push(&mut store, 0, reply(1), Tick(1), &limits), Pushed::SlowConsumer);
    let mut batch = SendBatch::new();
    assert_eq!(queue.take_batch(&mut store, 0, &mut batch, 10, 10), 1);
    queue.sent(&mut store, 0, batch.left(), &limits);
    assert_eq!(queue.poll_pressure(), Some(Pressure::Relieved));
    assert_eq!(queue.poll_pressure(), None);
}

#[test]
fn ten_pings_at_once_get_ten_pongs_and_a_flood_of_them_keeps_the_newest() {
    let (mut store, mut queue) = (Store::new(&Seed::new(1)), Outbound::default());
    let pong = |number: u8| Shared::kept(vec![number]);
    for number in 1..=10 {
        assert!(queue.push_control(&mut store, pong(number), Control::Pong, Tick(1)));
    }
    let mut batch = SendBatch::new();
    queue.take_batch(&mut store, 0, &mut batch, usize::MAX, usize::MAX);
    assert_eq!(batch.slices().flatten().copied().collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    for number in 1..=200 {
        queue.push_control(&mut store, pong(number), Control::Pong, Tick(1));
    }
    assert_eq!(queue.len(), usize::from(MAX_PONGS));
    queue.sent(&mut store, 0, batch.left(), &small_limits());
    batch.clear();
    queue.take_batch(&mut store, 0, &mut batch, usize::MAX, usize::MAX);
    assert_eq!(batch.slices().flatten().last(), Some(&200));
    queue.clear(&mut store, 0);
}

#[test]
fn losses_are_told_once_and_only_after_relief() {
    let (mut store, mut queue) = (Store::new(&Seed::new(1)), Outbound::default());
    let limits = small_limits();
    let mut pushed = Vec::new();
    for _ in 0..4 {
        pushed.push(queue.push(&mut store, 5, item(1, 0, 1, 600), Tick(1), &limits));
    }
    let lost_one = Pushed::DroppedOldest(1);
    assert_eq!(pushed, [Pushed::Queued, Pushed::Queued, lost_one, lost_one]);
    assert!(queue.take_gaps(&mut store, 5).is_empty(), "not while congested");
    let mut batch = SendBatch::new();
    queue.take_batch(&mut store, 5, &mut batch, usize::MAX, usize::MAX);
    queue.sent(&mut store, 5, batch.left(), &limits);
    let gaps = queue.take_gaps(&mut store, 5);
    assert_eq!(gaps.as_slice(), [(Arc::from("r1"), 2)]);
    assert!(queue.take_gaps(&mut store, 5).is_empty());
    assert_eq!(store.troubled(), 0);
}

#[test]
fn a_push_gives_up_behind_many_frames_that_must_be_kept() {
    let (mut store, mut queue) = (Store::new(&Seed::new(1)), Outbound::default());
    let limits = long_limits();
    for _ in 0..=MAX_PASSED {
        queue.push(&mut store, 0, reply(1), Tick(1), &limits);
    }
    queue.push(&mut store, 0, item(1, 0, 1, 900), Tick(1), &limits);
    let pushed = queue.push(&mut store, 0, item(1, 0, 2, 1), Tick(1), &limits);
    assert_eq!(pushed, Pushed::DroppedAll(1));
    queue.check(&store, 0);
}

#[test]
fn nothing_follows_a_close_frame_and_a_discard_makes_room_for_one() {
    let (mut store, mut queue) = (Store::new(&Seed::new(1)), Outbound::default());
    let limits = small_limits();
    let frame = |byte: u8| Shared::kept(vec![byte]);
    queue.push(&mut store, 0, reply(3), Tick(1), &limits);
    assert!(queue.push_control(&mut store, frame(8), Control::Close, Tick(1)));
    assert!(!queue.push_control(&mut store, frame(9), Control::Ping, Tick(1)));
    assert_eq!(queue.push(&mut store, 0, reply(3), Tick(1), &limits), Pushed::Closing);
    queue.discard(&mut store, 0);
    assert!(queue.push_control(&mut store, frame(7), Control::Close, Tick(1)));
    let mut batch = SendBatch::new();
    assert_eq!(queue.take_batch(&mut store, 0, &mut batch, 99, 99), 1);
    queue.discard(&mut store, 0);
    assert!(!queue.push_control(&mut store, frame(8), Control::Close, Tick(1)), "it is in flight");
    queue.clear(&mut store, 0);
    store.check();
}

#[test]
fn a_steady_fan_out_keeps_its_memory_and_a_burst_gives_it_back() {
    let mut store = Store::new(&Seed::new(1));
    let mut queues: Vec<Outbound> = (0..5000).map(|_| Outbound::default()).collect();
    let limits = OutboundLimits::default();
    let shared = item(1, 0, 1, 66);
    let mut batch = SendBatch::new();
    let mut fan_out = |store: &mut Store, now: Tick, pushes: usize| {
        for (key, queue) in (0..).zip(&mut queues) {
            for _ in 0..pushes {
                queue.push(store, key, shared.clone(), now, &limits);
            }
        }
        let full = store.capacity();
        for (key, queue) in (0..).zip(&mut queues) {
            queue.take_batch(store, key, &mut batch, usize::MAX, usize::MAX);
            queue.sent(store, key, batch.left(), &limits);
            batch.clear();
        }
        full
    };
    fan_out(&mut store, Tick(0), 10);
    let burst = store.capacity();
    assert!(burst >= 50_000);
    let mut steady = Vec::new();
    for second in 1..20 {
        let now = Tick(second * 15);
        steady.push(fan_out(&mut store, now, 1));
        store.relax(now);
        store.check();
    }
    assert!(steady[10] <= 8 * 1024, "the burst's memory went");
    assert!(steady[10..].iter().all(|capacity| *capacity == steady[10]), "no more, no less");
    for second in 20..24 {
        store.relax(Tick(second * 15));
    }
    assert!(store.capacity() <= 1024);
    store.check();
}
