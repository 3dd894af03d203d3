//! How connections end, and what is left of them: nothing.

use std::io::ErrorKind;
use std::sync::Arc;

use throng::base::shared::Shared;
use throng::contract::{Op, SendBatch};

use crate::world::{Seen, World, pattern, read_some};

pub(crate) fn a_reset_is_reported_lost_once_and_the_close_is_answered_once(w: &mut World) {
    let (conn, peer) = w.pair();
    w.linger();
    peer.reset();
    w.until_lost(conn);
    w.linger();
    w.close(conn, true);
    w.linger();
    let closed = w.seen.iter().filter(|seen| matches!(seen, Seen::Closed(_))).count();
    assert_eq!(closed, 1);
}

pub(crate) fn operations_on_a_lost_connection_are_ignored(w: &mut World) {
    let (conn, peer) = w.pair();
    peer.reset();
    w.until_lost(conn);
    w.send(conn, &[b"into the void"]);
    w.submit(Op::ShutdownWrite { conn });
    w.submit(Op::PauseReads { conn });
    w.submit(Op::ResumeReads { conn });
    w.linger();
    w.close(conn, false);
    if !w.rig.forgives() {
        return;
    }
    // Nor does anything happen to a connection that has ended.
    let events = w.seen.len();
    w.send(conn, &[b"into the void"]);
    w.submit(Op::ShutdownWrite { conn });
    w.submit(Op::PauseReads { conn });
    w.submit(Op::ResumeReads { conn });
    w.submit(Op::Close { conn, abort: true });
    w.linger();
    assert_eq!(w.seen.len(), events);
}

pub(crate) fn a_write_to_a_peer_that_reset_ends_in_lost(w: &mut World) {
    let (conn, peer) = w.pair();
    let whole = pattern(4 << 20);
    w.send(conn, &[&whole]);
    w.linger();
    assert_eq!(w.life(conn).sent, 0);
    peer.reset();
    w.until_lost(conn);
    w.linger();
    w.close(conn, true);
}

pub(crate) fn a_reset_behind_the_peers_end_is_found_by_writing(w: &mut World) {
    let (conn, mut peer) = w.pair();
    peer.finish();
    w.until("the end", |w| w.life(conn).ended);
    peer.reset();
    w.until("Lost", |w| {
        if !w.is_sending(conn) {
            w.send(conn, &[b"ping"]);
        }
        w.life(conn).lost
    });
    w.close(conn, false);
}

/// A batch whose memory can be watched from outside.
fn watched(length: usize) -> (Arc<[u8]>, SendBatch) {
    let bytes: Arc<[u8]> = pattern(length).into();
    let mut batch = SendBatch::new();
    batch.push(Shared::common(Arc::clone(&bytes)));
    batch.push(Shared::common(Arc::clone(&bytes)));
    (bytes, batch)
}

pub(crate) fn closing_with_a_write_in_flight_drops_the_batch(w: &mut World) {
    for (index, abort) in [(0, true), (1, false)] {
        let (conn, mut peer) = w.pair_at(index);
        let (bytes, batch) = watched(4 << 20);
        w.submit(Op::Send { conn, batch });
        w.linger();
        assert_eq!(Arc::strong_count(&bytes), 3);
        w.close(conn, abort);
        assert_eq!(Arc::strong_count(&bytes), 1, "nobody holds the bytes after Closed");
        assert_eq!(w.life(conn).sent, 0);
        let end = w.peer_end(&mut *peer);
        assert_eq!(end.is_err(), abort, "an abort resets, a close in order does not: {end:?}");
    }
}

pub(crate) fn closing_an_idle_or_paused_connection_is_answered(w: &mut World) {
    for index in 0..4 {
        let (conn, mut peer) = w.pair_at(index);
        if index % 2 == 1 {
            w.linger();
        }
        if index >= 2 {
            w.submit(Op::PauseReads { conn });
        }
        w.close(conn, false);
        assert_eq!(w.peer_end(&mut *peer).expect("an end in order"), 0);
    }
}

pub(crate) fn closing_in_order_delivers_everything_and_then_fin(w: &mut World) {
    let (conn, mut peer) = w.pair();
    let whole = pattern(60_000);
    let mut got = Vec::new();
    w.send(conn, &[&whole]);
    w.until("the write", |w| {
        // Reads little, so that much is left in the kernel at the close.
        if w.life(conn).sent == 0 {
            read_some(&mut *peer, &mut got);
        }
        w.life(conn).sent == whole.len()
    });
    w.close(conn, false);
    let rest = whole.len() - got.len();
    got.extend(w.peer_reads(&mut *peer, rest));
    assert!(got == whole, "the bytes differ");
    assert_eq!(w.peer_end(&mut *peer).expect("an end in order"), 0);
}

pub(crate) fn an_abort_resets_the_peer(w: &mut World) {
    let (conn, mut peer) = w.pair();
    w.linger();
    w.close(conn, true);
    let error = w.peer_end(&mut *peer).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

pub(crate) fn both_ends_may_finish_in_turn(w: &mut World) {
    let (conn, mut peer) = w.pair();
    peer.finish();
    w.until("the end", |w| w.life(conn).ended);
    w.send_all(conn, b"bye");
    w.submit(Op::ShutdownWrite { conn });
    assert_eq!(w.peer_reads(&mut *peer, 3), b"bye");
    assert_eq!(w.peer_end(&mut *peer).expect("an end in order"), 0);
    w.linger();
    assert!(!w.life(conn).lost, "an end on both sides is no loss");
    w.close(conn, false);
}

pub(crate) fn an_index_used_again_never_hears_its_former_owner(w: &mut World) {
    let mut random = fastrand::Rng::with_seed(23);
    for round in 0..300_u32 {
        let mark = u8::try_from(round % 251).expect("a byte");
        let (conn, mut peer) = w.pair_at(0);
        w.peer_writes(&mut *peer, &vec![mark; random.usize(1..30_000)]);
        match random.u8(..4) {
            0 => peer.finish(),
            1 => w.send(conn, &[&[mark; 50_000]]),
            2 => w.submit(Op::PauseReads { conn }),
            _ => {}
        }
        for _ in 0..random.u8(..3) {
            w.turn(Some(std::time::Duration::ZERO));
        }
        if random.bool() {
            peer.reset();
        }
        w.close(conn, random.bool());
        let foreign = w.life(conn).received.iter().any(|byte| *byte != mark);
        assert!(!foreign, "round {round}: bytes of another connection");
    }
}

pub(crate) fn trimming_leaves_connections_alone_and_indexes_usable(w: &mut World) {
    let mut pairs: Vec<_> = (0..40).map(|index| w.pair_at(index)).collect();
    for (conn, peer) in pairs.drain(3..) {
        w.close(conn, false);
        drop(peer);
    }
    for from in [20, 3, 3, 1000] {
        w.rig.driver().trim(from);
        w.linger();
    }
    pairs.push(w.pair_at(39));
    for (conn, peer) in &mut pairs {
        w.peer_writes(&mut **peer, b"still here");
        w.until_received(*conn, 10);
    }
}

pub(crate) fn a_driver_dropped_in_full_flight_frees_what_it_was_lent(w: &mut World) {
    let mut peers: Vec<_> = (0..20).map(|index| w.pair_at(index)).collect();
    let (bytes, _) = watched(1 << 20);
    for (conn, peer) in &mut peers {
        let mut batch = SendBatch::new();
        batch.push(Shared::common(Arc::clone(&bytes)));
        batch.push(Shared::common(Arc::clone(&bytes)));
        w.submit(Op::Send { conn: *conn, batch });
        w.peer_writes(&mut **peer, &pattern(10_000));
    }
    let mut waiting = w.rig.connect();
    w.ticket();
    let mut unheard = w.rig.connect();
    assert!(Arc::strong_count(&bytes) > 1, "writes are in flight");
    w.rig.drop_driver();
    assert_eq!(Arc::strong_count(&bytes), 1, "the batches are freed");
    w.rig.listen_again().expect("the port is free");
    for peer in peers.iter_mut().map(|(_, peer)| peer).chain([&mut waiting, &mut unheard]) {
        // Peers are told at once: nothing holds their sockets any more.
        let end = loop {
            match peer.read(&mut [0; 65536]) {
                Ok(1..) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                end => break end,
            }
        };
        assert!(matches!(end, Ok(0) | Err(_)));
    }
}
