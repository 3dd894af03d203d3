//! Requests that leave with their sockets: whole, once, in order, bounded, and nothing of them stays.

use std::sync::Arc;
use std::time::Duration;

use super::rig::{Rig, Seen, settings};
use crate::base::id::ConnId;
use crate::base::outside::Passage;
use crate::connection::Front;
use crate::contract::Event;
use crate::shard::Settings;

const HEAD: &str = "POST /app/x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";

fn fronted() -> Settings {
    let mut settings = settings();
    let front = |path: &str, leaves| Front { path: path.to_owned(), body_bytes: 1 << 20, leaves };
    settings.routes.fronts =
        Arc::new([front("/v1/", false), front("/app/", true), front("/app/more/", true)]);
    settings
}

fn gone(rig: &mut Rig) -> Vec<Passage> {
    let mut found = Vec::new();
    rig.shard.poll_passages(&mut |passage, _| found.push(passage));
    found
}

fn asks(rig: &mut Rig, peer: &str, bytes: &[u8]) -> ConnId {
    let conn = rig.accept_from(Some(peer)).expect("let in");
    rig.receive(conn, bytes);
    conn
}

#[test]
fn a_connection_leaves_with_all_that_was_read_of_it_and_nothing_of_it_stays() {
    let mut rig = Rig::new(0, 1, fronted());
    let conn = asks(&mut rig, "192.0.2.7", HEAD.as_bytes());
    rig.receive(conn, b"first,");
    rig.turn();
    assert!(rig.ops.contains(&Seen::HandOver(conn)), "{:?}", rig.ops);
    // What the driver had read by then comes still.
    rig.receive(conn, b"second");
    assert!(gone(&mut rig).is_empty(), "the driver has it yet");
    rig.settle();
    let passages = gone(&mut rig);
    let [passage] = &passages[..] else { panic!("{passages:?}") };
    assert_eq!(passage.said, [HEAD.as_bytes(), b"first,second"].concat());
    assert_eq!((passage.place, passage.client.as_deref()), (0, Some("192.0.2.7")));
    assert!(passage.seal.is_none() && passage.unread.is_empty());
    let counters = rig.shard.counters();
    assert_eq!((counters.connections, counters.handed_over_total), (0, 1));
    assert_eq!((counters.petitions, counters.open_connections), (0, 0));
    assert_eq!(rig.bytes(conn), b"");
    // The longest beginning that fits decides, and the index is free for the next.
    let next = asks(&mut rig, "192.0.2.7", b"GET /app/more/ HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(next.index, conn.index);
    rig.settle();
    assert_eq!(gone(&mut rig)[0].place, 1);
}

#[test]
fn a_client_that_is_gone_or_has_said_all_before_it_leaves_is_seen_to() {
    let mut rig = Rig::new(0, 1, fronted());
    let lost = asks(&mut rig, "192.0.2.7", HEAD.as_bytes());
    let error = std::io::ErrorKind::ConnectionReset.into();
    rig.event(Event::Lost { conn: lost, error });
    let done = asks(&mut rig, "192.0.2.8", HEAD.as_bytes());
    rig.event(Event::ReceivedEnd { conn: done });
    rig.settle();
    let passages = gone(&mut rig);
    assert_eq!(passages.len(), 1, "the lost one is closed: {passages:?}");
    assert_eq!(passages[0].client.as_deref(), Some("192.0.2.8"), "a half-closed one goes on");
    assert_eq!(rig.shard.counters().connections, 0);
}

#[test]
fn who_is_one_too_many_does_not_leave() {
    let mut settings = fronted();
    settings.limits.address.connections = 1;
    let mut rig = Rig::new(0, 1, settings);
    let here = rig.accept_from(Some("192.0.2.7")).expect("let in");
    let more = asks(&mut rig, "192.0.2.7", HEAD.as_bytes());
    rig.settle();
    assert!(rig.response(more).starts_with("HTTP/1.1 503 "));
    assert!(gone(&mut rig).is_empty());
    rig.receive(here, HEAD.as_bytes());
    rig.settle();
    assert_eq!(gone(&mut rig).len(), 1);
    // One that has left is none of its address's connections here.
    let again = asks(&mut rig, "192.0.2.7", HEAD.as_bytes());
    rig.settle();
    assert_eq!((gone(&mut rig).len(), rig.bytes(again).len()), (1, 0));
}

#[test]
fn no_more_than_a_few_are_on_their_way_out_at_one_time() {
    let mut rig = Rig::new(0, 1, fronted());
    rig.confirms = false;
    let last = (0..257).map(|_| asks(&mut rig, "192.0.2.7", HEAD.as_bytes())).last();
    rig.settle();
    let last = last.expect("many");
    assert!(rig.response(last).starts_with("HTTP/1.1 503 "));
    assert!(rig.shard.counters().charged_bytes >= 256 * HEAD.len() as u64);
    rig.confirms = true;
    rig.settle();
    assert_eq!(gone(&mut rig).len(), 256);
    rig.later(Duration::from_secs(60));
    rig.settle();
    assert_eq!(rig.shard.counters().connections, 0);
}
