//! Batches, whole and in parts, and the FIN that follows them.

use throng::contract::Op;

use crate::world::{World, pattern, read_some};

pub(crate) fn a_batch_comes_back_empty_and_counted(w: &mut World) {
    let (conn, mut peer) = w.pair();
    w.send(conn, &[b"one", b"two", b"three"]);
    w.until("the write", |w| w.life(conn).sent == 11);
    assert_eq!(w.peer_reads(&mut *peer, 11), b"onetwothree");
    w.send(conn, &[b"single"]);
    w.until("the write", |w| w.life(conn).sent == 17);
    assert_eq!(w.peer_reads(&mut *peer, 6), b"single");
}

pub(crate) fn small_parts_beyond_every_limit_are_written_in_order(w: &mut World) {
    let (conn, mut peer) = w.pair();
    // 9 and 100 parts are copied together, 2,000 of 40 bytes are more than one call takes slices.
    for (count, length) in [(9, 10), (100, 160), (2000, 40), (1024, 1), (1025, 17)] {
        let whole = pattern(count * length);
        let parts: Vec<&[u8]> = whole.chunks(length).collect();
        assert_eq!(parts.len(), count);
        w.send(conn, &parts);
        let got = w.peer_reads(&mut *peer, whole.len());
        assert!(got == whole, "the bytes of {count} parts differ");
        w.linger();
    }
}

pub(crate) fn a_large_batch_reaches_a_slow_reader_entirely(w: &mut World) {
    let (conn, mut peer) = w.pair();
    let whole = pattern(8 << 20);
    let parts: Vec<&[u8]> = whole.chunks(100_000).collect();
    w.send(conn, &parts);
    w.linger();
    assert_eq!(w.life(conn).sent, 0, "no socket buffers that much");
    let got = w.peer_reads(&mut *peer, whole.len());
    w.until("the write", |w| w.life(conn).sent == whole.len());
    assert!(got == whole, "the bytes differ");
}

pub(crate) fn both_directions_at_once_do_not_block_each_other(w: &mut World) {
    let (conn, mut peer) = w.pair();
    let whole = pattern(4 << 20);
    w.send(conn, &[&whole]);
    let (mut written, mut got) = (0, Vec::new());
    w.until("both directions", |w| {
        if let Ok(more) = peer.write(&whole[written..]) {
            written += more;
        }
        read_some(&mut *peer, &mut got);
        let life = w.life(conn);
        got.len() == whole.len() && life.received.len() == whole.len() && life.sent > 0
    });
    assert!(got == whole && w.life(conn).received == whole, "the bytes differ");
}

pub(crate) fn one_write_follows_another(w: &mut World) {
    let (conn, mut peer) = w.pair();
    let whole = pattern(100_000);
    let mut got = Vec::new();
    for piece in whole.chunks(100) {
        w.send_all(conn, piece);
        read_some(&mut *peer, &mut got);
    }
    w.until("the peer's bytes", |_| {
        read_some(&mut *peer, &mut got);
        got.len() == whole.len()
    });
    assert!(got == whole, "the bytes differ");
}

pub(crate) fn a_fin_follows_what_is_in_flight_and_reading_goes_on(w: &mut World) {
    for (index, length) in [(0, 10), (1, 3 << 20)] {
        let (conn, mut peer) = w.pair_at(index);
        let whole = pattern(length);
        w.send(conn, &[&whole]);
        w.submit(Op::ShutdownWrite { conn });
        let got = w.peer_reads(&mut *peer, whole.len());
        assert!(got == whole, "the bytes differ");
        assert_eq!(w.peer_end(&mut *peer).expect("an end in order"), 0);
        w.until("the write", |w| w.life(conn).sent == whole.len());
        w.peer_writes(&mut *peer, b"answer");
        w.until_received(conn, 6);
    }
}
