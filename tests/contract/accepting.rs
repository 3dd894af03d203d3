//! Sockets that arrive, and the end of arrivals.

use throng::contract::{ListenerId, Op};

use crate::world::{Seen, World};

pub(crate) fn a_socket_is_accepted_with_its_address_and_heard_once_opened(w: &mut World) {
    let mut peer = w.rig.connect();
    let written = peer.write(b"before the opening").expect("room");
    w.until("a socket", |w| w.accepted() == 1);
    let Some(Seen::Accepted(_, address)) = w.seen.first() else { panic!("{:?}", w.seen) };
    assert_eq!(*address, peer.address());
    w.linger();
    assert_eq!(w.seen.len(), 1, "nothing is read before Open: {:?}", w.seen);
    let conn = w.open_at(0);
    w.until_received(conn, written);
    assert_eq!(w.life(conn).received, b"before the opening");
}

pub(crate) fn every_socket_tells_which_listener_it_came_from(w: &mut World) {
    let order = [1, 0, 1, 1, 0].map(ListenerId);
    for (number, listener) in order.into_iter().enumerate() {
        let mut peer = w.rig.connect_to(listener);
        let index = u32::try_from(number).expect("few");
        let conn = w.open_at(index);
        let told = w.seen.iter().rev().find_map(|seen| match seen {
            Seen::Accepted(listener, address) => Some((*listener, *address)),
            _ => None,
        });
        assert_eq!(told, Some((listener, peer.address())));
        w.peer_writes(&mut *peer, b"me");
        w.until_received(conn, 2);
    }
}

pub(crate) fn a_refused_socket_is_closed_unseen(w: &mut World) {
    let mut peer = w.rig.connect();
    let socket = w.ticket();
    w.submit(Op::Refuse { socket });
    assert!(matches!(w.peer_end(&mut *peer), Ok(0) | Err(_)));
    // Its place is free for the next.
    let (conn, mut next) = w.pair();
    w.peer_writes(&mut *next, b"next");
    w.until_received(conn, 4);
}

pub(crate) fn a_thousand_connections_are_served_at_once(w: &mut World) {
    let mut peers: Vec<_> = (0..1000).map(|_| w.rig.connect()).collect();
    let conns: Vec<_> = (0..1000).map(|index| w.open_at(index)).collect();
    // Which socket belongs to which peer is the kernel's affair; what a peer says comes back to it.
    for (number, peer) in peers.iter_mut().enumerate() {
        w.peer_writes(&mut **peer, &u32::try_from(number).expect("small").to_be_bytes());
    }
    for conn in &conns {
        w.until_received(*conn, 4);
        let said = w.life(*conn).received.clone();
        w.send(*conn, &[&said]);
    }
    for (number, peer) in peers.iter_mut().enumerate() {
        let echo = w.peer_reads(&mut **peer, 4);
        assert_eq!(echo, u32::try_from(number).expect("small").to_be_bytes());
    }
    for conn in conns {
        w.submit(Op::Close { conn, abort: conn.index % 2 == 0 });
    }
    w.until("all closed", |w| {
        w.seen.iter().filter(|seen| matches!(seen, Seen::Closed(_))).count() == 1000
    });
}

pub(crate) fn stopping_frees_the_port_at_once_and_keeps_connections(w: &mut World) {
    let (conn, mut peer) = w.pair();
    w.linger();
    w.submit(Op::StopAccepting);
    w.rig.listen_again().expect("the port is free");
    let _stranger = w.rig.connect();
    w.linger();
    assert_eq!(w.accepted(), 1, "the new listener's sockets are not ours");
    w.peer_writes(&mut *peer, b"still here");
    w.until_received(conn, 10);
    w.send_all(conn, b"so are we");
    assert_eq!(w.peer_reads(&mut *peer, 9), b"so are we");
    w.submit(Op::StopAccepting);
}

pub(crate) fn what_arrives_while_accepting_stops_is_closed_and_not_leaked(w: &mut World) {
    let mut peers: Vec<_> = (0..40).map(|at| w.rig.connect_to(ListenerId(at % 2))).collect();
    // One wait reports some of them; others the kernel may have handed over already.
    w.until("some sockets", |w| w.accepted() > 0);
    w.submit(Op::StopAccepting);
    let accepted = w.accepted();
    w.linger();
    assert_eq!(w.accepted(), accepted, "no socket is accepted after StopAccepting");
    for _ in 0..accepted {
        let socket = w.ticket();
        w.submit(Op::Refuse { socket });
    }
    for peer in &mut peers {
        assert!(matches!(w.peer_end(&mut **peer), Ok(0) | Err(_)));
    }
}
