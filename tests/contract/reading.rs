//! Bytes that arrive, pauses, and the peer's end.

use throng::contract::Op;

use crate::world::{Seen, World, pattern};

pub(crate) fn bytes_arrive_in_order_in_whatever_pieces_they_were_sent(w: &mut World) {
    let (conn, mut peer) = w.pair();
    let whole = pattern(200_000);
    let mut random = fastrand::Rng::with_seed(7);
    let mut rest = &whole[..];
    while !rest.is_empty() {
        let most = [1, 20, 4096, 30_000][random.usize(..4)];
        let (piece, left) = rest.split_at(random.usize(1..=most).min(rest.len()));
        w.peer_writes(&mut *peer, piece);
        if random.bool() {
            w.turn(Some(std::time::Duration::ZERO));
        }
        rest = left;
    }
    w.until_received(conn, whole.len());
    assert!(w.life(conn).received == whole, "the bytes differ");
}

pub(crate) fn a_large_transfer_arrives_entirely(w: &mut World) {
    let (conn, mut peer) = w.pair();
    let whole = pattern(8 << 20);
    w.peer_writes(&mut *peer, &whole);
    w.until_received(conn, whole.len());
    assert!(w.life(conn).received == whole, "the bytes differ");
}

pub(crate) fn a_paused_connection_hears_nothing_new_until_resumed(w: &mut World) {
    let (paused, mut quiet) = w.pair_at(0);
    let (witness, mut loud) = w.pair_at(1);
    for round in 0..3 {
        w.peer_writes(&mut *quiet, b"a");
        w.until_received(paused, 4 * round + 1);
        w.submit(Op::PauseReads { conn: paused });
        w.linger();
        w.peer_writes(&mut *quiet, b"bcd");
        for heard in 1..=5 {
            w.peer_writes(&mut *loud, b"!");
            w.until_received(witness, 5 * round + heard);
        }
        assert_eq!(w.life(paused).received.len(), 4 * round + 1);
        w.submit(Op::ResumeReads { conn: paused });
        w.until_received(paused, 4 * round + 4);
    }
    assert_eq!(w.life(paused).received, b"abcdabcdabcd");
}

pub(crate) fn a_look_tells_whether_something_lies_unread(w: &mut World) {
    let (conn, mut peer) = w.pair();
    let look = |w: &mut World| {
        w.submit(Op::Look { conn });
        match w.seen.last() {
            Some(Seen::Looked(of, unread)) if *of == conn => *unread,
            other => panic!("{other:?} is no answer"),
        }
    };
    for round in 1..=3 {
        w.linger();
        assert!(!look(w), "all is read");
        w.submit(Op::PauseReads { conn });
        w.linger();
        w.peer_writes(&mut *peer, b"ab");
        w.until("it has arrived", |w| look(w) || w.life(conn).received.len() == 2 * round);
        w.submit(Op::ResumeReads { conn });
        w.until_received(conn, 2 * round);
    }
    w.submit(Op::PauseReads { conn });
    w.linger();
    peer.finish();
    w.until("its end has arrived", |w| look(w) || w.life(conn).ended);
}

pub(crate) fn pausing_and_resuming_at_random_loses_nothing(w: &mut World) {
    let (conn, mut peer) = w.pair();
    let whole = pattern(2 << 20);
    let mut random = fastrand::Rng::with_seed(11);
    let mut written = 0;
    w.until("everything", |w| {
        for _ in 0..random.usize(0..4) {
            let pause = random.bool();
            w.submit(if pause { Op::PauseReads { conn } } else { Op::ResumeReads { conn } });
        }
        let end = whole.len().min(written + random.usize(1..40_000));
        if let Ok(more) = peer.write(&whole[written..end]) {
            written += more;
        }
        if written == whole.len() {
            w.submit(Op::ResumeReads { conn });
        }
        w.life(conn).received.len() == whole.len()
    });
    assert!(w.life(conn).received == whole, "the bytes differ");
}

pub(crate) fn the_peers_end_comes_once_after_its_last_bytes(w: &mut World) {
    for (index, length) in [(0, 0), (1, 5), (2, 500_000)] {
        let (conn, mut peer) = w.pair_at(index);
        let whole = pattern(length);
        w.peer_writes(&mut *peer, &whole);
        peer.finish();
        w.until("the end", |w| w.life(conn).ended);
        assert!(w.life(conn).received == whole, "the bytes differ");
        w.linger();
        w.send_all(conn, b"writing is still possible");
        assert_eq!(w.peer_reads(&mut *peer, 25), b"writing is still possible");
    }
}

pub(crate) fn an_end_during_a_pause_is_told_on_resuming(w: &mut World) {
    let (conn, mut peer) = w.pair();
    w.submit(Op::PauseReads { conn });
    w.linger();
    w.peer_writes(&mut *peer, b"last words");
    peer.finish();
    w.linger();
    assert!(!w.life(conn).ended);
    w.submit(Op::ResumeReads { conn });
    w.until("the end", |w| w.life(conn).ended);
    assert_eq!(w.life(conn).received, b"last words");
}

pub(crate) fn many_talkers_outnumber_the_buffers_and_lose_nothing(w: &mut World) {
    let mut pairs: Vec<_> = (0..100).map(|index| w.pair_at(index)).collect();
    let whole = pattern(20_000);
    for _ in 0..3 {
        for (_, peer) in &mut pairs {
            w.peer_writes(&mut **peer, &whole);
        }
    }
    for (conn, _) in &pairs {
        w.until_received(*conn, 3 * whole.len());
        assert!(w.life(*conn).received == whole.repeat(3), "the bytes differ");
    }
}
