//! One hop between shards: the inbox, and the waker where the receiver sleeps.
//!
//! Both ports live on one thread, so this is what the two ends do and not what the cores' caches and the
//! scheduler add; the latter depends on the machine and is measured with the whole engine.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use throng::mesh::{Lane, Port, mesh};

const CAPACITY: usize = 1024;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    hop(&mut criterion);
    criterion.final_summary();
}

/// Two ports: who posts, and who takes.
fn pair() -> (Port<u64>, Port<u64>) {
    let made = mesh(2, CAPACITY).map(<[Port<u64>; 2]>::try_from);
    match made {
        Ok(Ok([from, to])) => (from, to),
        other => panic!("instead of two ports: {other:?}"),
    }
}

fn hop(criterion: &mut Criterion) {
    let (from, to) = pair();
    let mut group = criterion.benchmark_group("hop");
    for pieces in [1, 64] {
        group.throughput(Throughput::Elements(pieces));
        group.bench_function(format!("post and take {pieces}, receiver awake"), |bencher| {
            bencher.iter(|| {
                for piece in 0..pieces {
                    assert_eq!(from.post(to.index(), Lane::Delivery, black_box(piece)), Ok(()));
                }
                while let Some(piece) = to.take(Lane::Delivery) {
                    black_box(piece);
                }
            });
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("post and take 1, receiver asleep", |bencher| {
        bencher.iter(|| {
            assert!(to.before_sleep(&Lane::ALL), "there is no mail");
            assert_eq!(from.post(to.index(), Lane::Delivery, black_box(1)), Ok(()));
            to.awake();
            assert_eq!(to.take(Lane::Delivery), Some(1));
        });
    });
    group.finish();
}
