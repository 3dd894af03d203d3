//! Pacing: the queue that every delivery passes, and the wheel that every connection is in.
//!
//! The numbers of connections are those of a busy turn: a thousand queues that each get a frame and give
//! it away again, and a shard's hundred thousand deadlines. The last case is the heartbeat's bookkeeping
//! as the loop does it: a tick comes, the deadlines in it fire and are set anew.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput};
use throng::base::map::Seed;
use throng::base::shared::{Mark, Overflow, Shared};
use throng::base::time::Tick;
use throng::contract::SendBatch;
use throng::flow::outbound::{Outbound, OutboundLimits, Pushed, Store};
use throng::flow::wheel::Wheel;

const CONNECTIONS: u32 = 1000;
const DEADLINES: u32 = 100_000;

/// The bounds that a connection gives to a batch.
const BATCH_BYTES: usize = 256 * 1024;
const BATCH_PARTS: usize = 256;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    outbound(&mut criterion);
    wheel(&mut criterion);
    criterion.final_summary();
}

/// A publication of 66 bytes, as 64 bytes of payload make.
fn publication() -> Shared {
    let mark = Mark { room: "lobby".into(), overflow: Overflow::DropOldest, key: 0 };
    Shared::marked([b'x'; 66].as_slice(), mark)
}

fn outbound(criterion: &mut Criterion) {
    let limits = OutboundLimits::default();
    let mut store = Store::new(&Seed::new(1));
    let mut queues: Vec<Outbound> = (0..CONNECTIONS).map(|_| Outbound::default()).collect();
    let mut batch = SendBatch::new();
    let item = publication();
    let mut group = criterion.benchmark_group("outbound of 1000 connections");
    for frames in [1, 16] {
        group.throughput(Throughput::Elements(u64::from(CONNECTIONS) * frames));
        group.bench_function(format!("push, take and sent of {frames}"), |bencher| {
            bencher.iter(|| {
                for _ in 0..frames {
                    for (key, queue) in (0..).zip(&mut queues) {
                        let item = black_box(item.clone());
                        let pushed = queue.push(&mut store, key, item, Tick(1), &limits);
                        assert_eq!(pushed, Pushed::Queued);
                    }
                }
                for (key, queue) in (0..).zip(&mut queues) {
                    queue.take_batch(&mut store, key, &mut batch, BATCH_BYTES, BATCH_PARTS);
                    let bytes = batch.left();
                    batch.clear();
                    queue.sent(&mut store, key, bytes, &limits);
                }
            });
        });
    }
    group.finish();
    assert_eq!(store.queued_bytes(), 0, "every frame was taken");
}

/// All deadlines, spread evenly over `ticks`.
fn full(ticks: u32) -> Wheel {
    let mut wheel = Wheel::new(DEADLINES as usize);
    for key in 0..DEADLINES {
        wheel.set(key, Tick(1 + key % ticks));
    }
    wheel
}

fn wheel(criterion: &mut Criterion) {
    let interval = Tick::count(Duration::from_secs(30));
    let mut group = criterion.benchmark_group("wheel of 100000 deadlines");

    let mut moved = full(interval);
    let mut key = 0;
    group.bench_function("move one", |bencher| {
        bencher.iter(|| {
            // A stride prime to the number of keys visits all of them, and none in order.
            key = (key + 7919) % DEADLINES;
            moved.set(black_box(key), Tick(1 + key % interval));
        });
    });

    group.throughput(Throughput::Elements(u64::from(DEADLINES)));
    group.bench_function("expire all in slices of 256", |bencher| {
        let mut fired = Vec::with_capacity(256);
        bencher.iter_batched_ref(
            || full(interval),
            |wheel| {
                while wheel.expire(Tick(interval), 256, &mut fired) {
                    fired.clear();
                }
                fired.clear();
            },
            BatchSize::LargeInput,
        );
    });

    let mut beating = full(interval);
    let mut now = Tick(0);
    let mut fired = Vec::new();
    group.throughput(Throughput::Elements(u64::from(DEADLINES / interval)));
    group.bench_function("a tick of heartbeats", |bencher| {
        bencher.iter(|| {
            now = Tick(now.0 + 1);
            while beating.expire(now, 256, &mut fired) {}
            for key in fired.drain(..) {
                beating.set(key, Tick(now.0 + interval));
            }
        });
    });
    group.finish();
    assert_eq!(beating.len(), DEADLINES as usize, "every deadline was set anew");
}
