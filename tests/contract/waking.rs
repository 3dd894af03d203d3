//! What ends a wait besides events.

use std::time::Duration;

use crate::world::World;

pub(crate) fn a_wake_up_from_another_thread_ends_an_endless_wait(w: &mut World) {
    let Some(waker) = w.rig.waker() else { return };
    for _ in 0..10 {
        std::thread::scope(|scope| {
            scope.spawn(|| waker.wake());
            w.turn(None);
        });
    }
}

pub(crate) fn a_wake_up_is_not_lost_when_it_comes_before_the_wait(w: &mut World) {
    let Some(waker) = w.rig.waker() else { return };
    for _ in 0..10 {
        waker.wake();
        w.turn(None);
    }
    assert!(w.seen.is_empty(), "a wake-up is no event: {:?}", w.seen);
}

pub(crate) fn a_wait_ends_when_its_time_is_up(w: &mut World) {
    let real = w.rig.waker().is_some();
    w.turn(Some(Duration::ZERO));
    for wait in [Duration::ZERO, Duration::from_micros(300), Duration::from_millis(5)] {
        let before = w.now();
        w.turn(Some(wait));
        assert!(!real || w.now().since(before) >= wait, "the wait of {wait:?} ended early");
    }
}
