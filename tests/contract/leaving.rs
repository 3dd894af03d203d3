//! Sockets that leave the driver open, for somebody else to go on with.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use throng::contract::Op;

use crate::world::{Peer, World, pattern, read_some};

/// The socket as its new owner uses it; where a driver has none its peer has been reset.
fn taken(w: &mut World, conn: throng::base::id::ConnId, peer: &mut dyn Peer) -> Option<TcpStream> {
    let Some(socket) = w.hand_over(conn) else {
        assert_eq!(w.peer_end(peer).expect_err("a reset").kind(), ErrorKind::ConnectionReset);
        return None;
    };
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(true).expect("a socket");
    Some(stream)
}

/// Reads what the new owner finds until `done`, moving the driver on meanwhile.
fn rest(w: &mut World, stream: &mut TcpStream, so_far: &mut Vec<u8>, goal: usize) -> bool {
    let mut ended = false;
    w.until("the new owner's bytes", |_| {
        let mut piece = [0; 64 * 1024];
        match stream.read(&mut piece) {
            Ok(0) => ended = true,
            Ok(read) => so_far.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("the new owner cannot read: {error}"),
        }
        ended || so_far.len() >= goal
    });
    ended
}

pub(crate) fn a_socket_is_handed_over_open_with_nothing_lost(w: &mut World) {
    for index in 0..20 {
        let (conn, mut peer) = w.pair_at(index);
        let whole = pattern(60_000);
        // Written at once and read as far as a turn or two get, so that some of it is the driver's and some not.
        let mut written = 0;
        for piece in whole.chunks(1000 + 700 * index as usize) {
            written += peer.write(piece).unwrap_or(0);
            if index % 3 == 0 {
                w.turn(Some(std::time::Duration::ZERO));
            }
            if index % 4 == 1 && written > 20_000 {
                break;
            }
        }
        if index % 5 == 2 {
            w.submit(Op::PauseReads { conn });
            w.linger();
        }
        let Some(mut stream) = taken(w, conn, &mut *peer) else { continue };
        let mut got = w.life(conn).received.clone();
        let before = got.len();
        rest(w, &mut stream, &mut got, written);
        assert!(got.len() == written && got[..] == whole[..written], "{index}: the bytes differ");
        stream.write_all(b"hello from elsewhere").expect("written");
        let mut heard = Vec::new();
        w.until("an answer", |_| {
            read_some(&mut *peer, &mut heard);
            heard.len() >= 20
        });
        assert_eq!(heard, b"hello from elsewhere");
        w.linger();
        assert_eq!(w.life(conn).received.len(), before, "the driver reads nothing more of it");
        drop(stream);
        assert_eq!(w.peer_end(&mut *peer).expect("an end in order"), 0);
    }
}

pub(crate) fn what_ends_before_or_while_it_is_handed_over_shows_to_the_new_owner(w: &mut World) {
    for index in 0..4 {
        let (conn, mut peer) = w.pair_at(index);
        w.peer_writes(&mut *peer, b"the last words");
        peer.finish();
        if index % 2 == 0 {
            w.until("the end", |w| w.life(conn).ended);
        }
        let Some(mut stream) = taken(w, conn, &mut *peer) else { continue };
        let mut got = w.life(conn).received.clone();
        assert!(rest(w, &mut stream, &mut got, usize::MAX), "the end is still there to be found");
        assert_eq!(got, b"the last words");
        stream.write_all(b"bye").expect("written");
        drop(stream);
        assert_eq!(w.peer_reads(&mut *peer, 3), b"bye");
    }
}

pub(crate) fn an_index_is_free_once_its_socket_is_handed_over(w: &mut World) {
    let mut kept = Vec::new();
    for round in 0..50_u8 {
        let (conn, mut peer) = w.pair_at(0);
        w.peer_writes(&mut *peer, &[round; 3000]);
        if round % 2 == 0 {
            w.until_received(conn, 1);
        }
        kept.extend(taken(w, conn, &mut *peer).map(|stream| (stream, peer)));
        assert!(w.life(conn).received.iter().all(|byte| *byte == round), "bytes of another");
    }
    // Those that have left go on talking, and the driver hears nothing of it.
    let before = w.seen.len();
    for (_, peer) in &mut kept {
        assert_eq!(peer.write(b"still here").expect("written"), 10);
    }
    w.linger();
    assert_eq!(w.seen.len(), before, "{:?}", &w.seen[before..]);
}

pub(crate) fn a_socket_that_comes_back_goes_on_as_another_connection(w: &mut World) {
    for round in 0..20_u32 {
        let (mut conn, mut peer) = w.pair_at(0);
        let (whole, mut got) = (pattern(50_000), Vec::new());
        for (part, piece) in (0..).zip(whole.chunks(10_000)) {
            w.peer_writes(&mut *peer, &piece[..5000]);
            if round % 2 == 0 {
                w.until_received(conn, 1);
            }
            let Some(socket) = w.hand_over(conn) else { return };
            got.extend_from_slice(&w.life(conn).received);
            // Some of it arrives while the socket is nobody's.
            w.peer_writes(&mut *peer, &piece[5000..]);
            conn = w.adopt_at(1 + part % 3, socket);
            let text = format!("still here, {part}");
            w.send_all(conn, text.as_bytes());
            assert_eq!(w.peer_reads(&mut *peer, text.len()), text.as_bytes());
        }
        w.until_received(conn, whole.len() - got.len());
        got.extend_from_slice(&w.life(conn).received);
        assert!(got == whole, "{round}: the bytes differ");
        peer.finish();
        w.until("the end", |w| w.life(conn).ended);
        w.close(conn, false);
    }
}

pub(crate) fn what_has_ended_before_it_is_adopted_is_told(w: &mut World) {
    for round in 0..6 {
        let (conn, mut peer) = w.pair_at(0);
        if round % 3 == 0 {
            peer.finish();
            w.until("the end", |w| w.life(conn).ended);
        }
        let Some(socket) = w.hand_over(conn) else { return };
        match round % 3 {
            0 => {}
            1 => {
                assert_eq!(peer.write(b"the last words").expect("written"), 14);
                peer.finish();
            }
            _ => peer.reset(),
        }
        let conn = w.adopt_at(1, socket);
        if round % 3 == 2 {
            w.until_lost(conn);
        } else {
            w.until("the end", |w| w.life(conn).ended);
            let words: &[u8] = if round % 3 == 1 { b"the last words" } else { b"" };
            assert_eq!(w.life(conn).received, words);
        }
        w.close(conn, true);
    }
}
