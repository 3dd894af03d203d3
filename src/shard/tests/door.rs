//! Newcomers: who they are, how many of them, and when the others are asked back.

use std::time::Duration;

use crate::base::id::{ConnAddress, ConnId, ShardId};
use crate::base::map::Seed;
use crate::base::party::Party;
use crate::flow::budget::Rate;
use crate::hub::{self, Excess};
use crate::shard::tests::rig::{HEAD, Heard, Rig, Seen, head_with, settings};
use crate::shard::{Mail, Preface, Settings};
use crate::wire::http::Via;

const BROWSER: &str = "Origin: http://a\r\n";

/// Three connections of an address; 10.0.0.0/8 is trusted.
fn capped(preface: Preface, via: Via) -> Settings {
    let mut settings = settings();
    settings.limits.address.connections = 3;
    settings.limits.clients.trusted = vec!["10.0.0.0/8".parse().expect("a network")];
    settings.limits.clients.preface = preface;
    settings.limits.clients.via = via;
    settings.limits.door.browser_errors = true;
    settings
}

fn party(address: &str) -> Party {
    Party::of(address.parse().expect("an address"))
}

/// The address that counts for the connection.
fn seated(rig: &Rig, conn: ConnId) -> Option<Party> {
    rig.shard.gate.seats.party(conn.index)
}

#[test]
fn an_address_has_so_many_connections_and_no_more_until_one_has_gone() {
    let mut rig = Rig::new(0, 1, capped(Preface::Off, Via::Nothing));
    let inside: Vec<ConnId> = (0..3)
        .map(|_| {
            let (conn, response) = rig.knock("192.0.2.1", "");
            assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
            conn
        })
        .collect();
    let (_, response) = rig.knock("::ffff:192.0.2.1", "");
    assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
    assert!(response.contains("\r\nRetry-After: 2\r\n"), "{response}");
    let (browser, response) = rig.knock("192.0.2.1", BROWSER);
    assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
    assert_eq!(rig.heard(browser), [Heard::Close(1013)], "no greeting, and the reason");
    let (_, response) = rig.knock("192.0.2.2", "");
    assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
    assert_eq!(rig.shard.counters().parties_refused_total, 2);
    rig.receive(browser, &crate::shard::tests::rig::frame(0x88, &1013_u16.to_be_bytes()));
    rig.event(crate::contract::Event::ReceivedEnd { conn: inside[1] });
    rig.settle();
    let (_, response) = rig.knock("192.0.2.1", "");
    assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
}

#[test]
fn sockets_that_never_speak_count_and_a_flood_of_them_is_closed_unseen() {
    let mut rig = Rig::new(0, 1, capped(Preface::Off, Via::Nothing));
    for _ in 0..3 {
        rig.accept_from(Some("192.0.2.1")).expect("let in");
    }
    let (_, response) = rig.knock("192.0.2.1", "");
    assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
    let heard = (0..40).filter(|_| rig.accept_from(Some("192.0.2.1")).is_some()).count();
    assert!(heard < 25, "{heard}");
    assert!(rig.accept_from(Some("192.0.2.9")).is_some());
}

#[test]
fn addresses_are_counted_at_their_home_over_all_shards() {
    let home = hub::home_of(&Seed::new(11), party("192.0.2.1"), 2);
    let mut far = Rig::new(1 - home.0, 2, capped(Preface::Off, Via::Nothing));
    let mut near = Rig::new(home.0, 2, capped(Preface::Off, Via::Nothing));
    near.knock("192.0.2.1", "");
    let (first, _) = far.knock("192.0.2.1", "");
    let (second, _) = far.knock("192.0.2.1", "");
    let (third, _) = far.knock("192.0.2.1", "");
    let fourth = far.accept_from(Some("192.0.2.1")).expect("let in");
    far.settle();
    deliver(&mut far, &mut near);
    near.settle();
    deliver(&mut near, &mut far);
    far.settle();
    assert_eq!(far.heard(third).last(), Some(&Heard::Close(1013)), "open already");
    far.receive(fourth, HEAD);
    far.settle();
    assert!(far.response(fourth).starts_with("HTTP/1.1 503 "), "not yet open");
    assert!(!far.heard(first).contains(&Heard::Close(1013)));
    assert!(!far.heard(second).contains(&Heard::Close(1013)));
    // All of them go, and the home knows of nobody but its own.
    for conn in [first, second, third] {
        far.event(crate::contract::Event::ReceivedEnd { conn });
    }
    far.settle();
    deliver(&mut far, &mut near);
    assert_eq!(near.shard.gate.tally.count(party("192.0.2.1")), 1);
}

/// Moves the mail that one rig has sent to the other.
fn deliver(from: &mut Rig, to: &mut Rig) {
    for (_, mail) in std::mem::take(&mut from.post) {
        to.take(mail);
    }
}

#[test]
fn an_arrival_is_not_added_to_mail_that_is_backed_up() {
    let mut settings = capped(Preface::Off, Via::Nothing);
    settings.capacity.parked_mail = 1;
    let home = hub::home_of(&Seed::new(11), party("192.0.2.1"), 2);
    let mut rig = Rig::new(1 - home.0, 2, settings);
    rig.full = [ShardId(home.0)].into();
    rig.knock("192.0.2.1", "");
    let (_, response) = rig.knock("192.0.2.1", "");
    assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
    assert_eq!(rig.shard.counters().parked_mail, 1);
}

#[test]
fn a_header_names_the_client_only_when_a_trusted_peer_sends_it() {
    let mut rig = Rig::new(0, 1, capped(Preface::Off, Via::XForwardedFor));
    let lines = "X-Forwarded-For: 6.6.6.6, 192.0.2.7\r\n";
    let (through, _) = rig.knock("10.0.0.1", lines);
    assert_eq!(seated(&rig, through), Some(party("192.0.2.7")));
    let (direct, _) = rig.knock("198.51.100.1", lines);
    assert_eq!(seated(&rig, direct), Some(party("198.51.100.1")));
    for _ in 0..2 {
        rig.knock("10.0.0.2", lines);
    }
    let (_, response) = rig.knock("10.0.0.3", lines);
    assert!(response.starts_with("HTTP/1.1 503 "), "three of one client through proxies");
    let (silent, response) = rig.knock("10.0.0.3", "");
    assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
    assert_eq!(seated(&rig, silent), Some(party("10.0.0.3")));
}

const LINE: &[u8] = b"PROXY TCP4 192.0.2.9 198.51.100.1 4000 80\r\n";

#[test]
fn a_proxy_header_in_any_pieces_names_the_client() {
    for cut in 1..LINE.len() + 9 {
        let mut rig = Rig::new(0, 1, capped(Preface::Optional, Via::Nothing));
        let conn = rig.accept_from(Some("10.0.0.1")).expect("let in");
        let bytes = [LINE, HEAD].concat();
        rig.receive(conn, &bytes[..cut]);
        rig.receive(conn, &bytes[cut..]);
        rig.settle();
        assert!(rig.response(conn).starts_with("HTTP/1.1 101 "), "{cut}");
        assert_eq!(seated(&rig, conn), Some(party("192.0.2.9")), "{cut}");
    }
}

#[test]
fn without_a_proxy_header_a_trusted_peer_speaks_for_itself() {
    let mut rig = Rig::new(0, 1, capped(Preface::Optional, Via::Nothing));
    for cut in [1, 3, 50] {
        let conn = rig.accept_from(Some("10.0.0.1")).expect("let in");
        // A request that begins as the line does.
        let bytes = [b"P".as_slice(), &HEAD[1..]].concat();
        rig.receive(conn, &bytes[..cut]);
        rig.receive(conn, &bytes[cut..]);
        rig.settle();
        let response = rig.response(conn);
        assert!(response.starts_with("HTTP/1.1 405 "), "{cut}: {response}");
        assert_eq!(rig.shard.counters().unannounced_total, 0);
    }
    let (own, response) = rig.knock("10.0.0.1", "");
    assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
    assert_eq!(seated(&rig, own), Some(party("10.0.0.1")));
}

#[test]
fn where_the_proxy_header_must_stand_others_are_closed_unseen_and_counted() {
    let mut rig = Rig::new(0, 1, capped(Preface::Required, Via::Nothing));
    assert_eq!(rig.accept_from(Some("192.0.2.1")), None, "not a proxy");
    assert_eq!(rig.accept(), None, "nobody knows who");
    for bytes in [HEAD, b"PROXY TCP4 nonsense\r\n", b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c"] {
        let conn = rig.accept_from(Some("10.0.0.1")).expect("let in");
        rig.receive(conn, bytes);
        rig.turn();
        assert_eq!(rig.ops, [Seen::Close(conn, true)]);
        assert_eq!(rig.bytes(conn), b"", "unseen");
        rig.settle();
    }
    assert_eq!(rig.shard.counters().unannounced_total, 5);
    let conn = rig.accept_from(Some("10.0.0.1")).expect("let in");
    rig.receive(conn, &[LINE, HEAD].concat());
    rig.settle();
    assert!(rig.response(conn).starts_with("HTTP/1.1 101 "));
}

#[test]
fn a_proxy_header_of_a_stranger_is_no_more_than_a_bad_request() {
    let mut rig = Rig::new(0, 1, capped(Preface::Optional, Via::Nothing));
    let conn = rig.accept_from(Some("192.0.2.1")).expect("let in");
    rig.receive(conn, &[LINE, HEAD].concat());
    rig.settle();
    assert!(rig.response(conn).starts_with("HTTP/1.1 400 "));
}

#[test]
fn a_chain_of_proxies_is_followed_through_both_ways_of_telling() {
    let mut rig = Rig::new(0, 1, capped(Preface::Optional, Via::XForwardedFor));
    let conn = rig.accept_from(Some("10.0.0.1")).expect("let in");
    let line = b"PROXY TCP4 10.0.0.2 198.51.100.1 4000 80\r\n";
    let head = head_with("/ws", "X-Forwarded-For: 192.0.2.5\r\n");
    rig.receive(conn, &[line.as_slice(), &head].concat());
    rig.settle();
    assert_eq!(seated(&rig, conn), Some(party("192.0.2.5")));
    let conn = rig.accept_from(Some("10.0.0.1")).expect("let in");
    rig.receive(conn, &[LINE, &head].concat());
    rig.settle();
    assert_eq!(seated(&rig, conn), Some(party("192.0.2.9")), "the client is no proxy of ours");
}

#[test]
fn handshakes_over_the_rate_are_asked_back_one_after_another() {
    let mut settings = settings();
    settings.limits.door.handshakes = Some(Rate { per_second: 2, burst: 2 });
    settings.limits.door.browser_errors = true;
    let mut rig = Rig::new(0, 1, settings);
    let mut delays = Vec::new();
    for at in 0..12 {
        let (_, response) = rig.knock("192.0.2.1", "");
        if at < 2 {
            assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
            continue;
        }
        assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
        let (_, after) = response.split_once("Retry-After: ").expect("a delay");
        let seconds = after.lines().next().expect("a line");
        delays.push(seconds.parse::<u32>().expect("seconds"));
    }
    assert!(delays.is_sorted(), "{delays:?}");
    assert!((6..=7).contains(delays.last().expect("some")), "{delays:?}");
    let (browser, response) = rig.knock("192.0.2.1", BROWSER);
    assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
    let bytes = rig.bytes(browser);
    let reason = String::from_utf8_lossy(&bytes[4..]);
    assert!(reason.starts_with("busy: come back in ") && reason.ends_with(" s"), "{reason}");
    let counters = rig.shard.counters();
    assert_eq!((counters.handshakes_total, counters.handshakes_deferred_total), (2, 11));
    assert_eq!(counters.handshakes_refused_total, 11);
    assert_eq!((counters.refused_503_total, counters.refused_later_total), (10, 1));
    rig.later(Duration::from_secs(1));
    let (_, response) = rig.knock("192.0.2.1", "");
    assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
}

#[test]
fn an_address_that_comes_too_often_waits_and_others_do_not() {
    let mut settings = settings();
    settings.limits.address.handshakes = Some(Rate { per_second: 1, burst: 2 });
    let mut rig = Rig::new(0, 1, settings);
    let status = |rig: &mut Rig, peer| rig.knock(peer, "").1[9..12].to_owned();
    let seen: Vec<String> = (0..4).map(|_| status(&mut rig, "192.0.2.1")).collect();
    assert_eq!(seen, ["101", "101", "503", "503"]);
    assert_eq!(status(&mut rig, "192.0.2.2"), "101");
    rig.later(Duration::from_secs(1));
    assert_eq!(status(&mut rig, "192.0.2.1"), "101");
}

#[test]
fn handshakes_under_way_are_bounded_and_beyond_a_margin_closed_unseen() {
    let mut settings = settings();
    settings.limits.door.most = 4;
    let mut rig = Rig::new(0, 1, settings);
    let slow: Vec<ConnId> = (0..4).map(|_| rig.accept().expect("let in")).collect();
    let crowded = rig.accept().expect("heard");
    rig.receive(crowded, HEAD);
    rig.settle();
    let response = rig.response(crowded);
    assert!(
        response.starts_with("HTTP/1.1 503 ") && response.contains("Retry-After"),
        "{response}"
    );
    rig.receive(slow[0], HEAD);
    rig.settle();
    assert!(rig.response(slow[0]).starts_with("HTTP/1.1 101 "), "who was there first is served");
    let heard = (0..200).filter(|_| rig.accept().is_some()).count();
    assert!(heard <= 65, "{heard} at once");
    assert!(rig.shard.counters().shed_total >= 135);
}

#[test]
fn a_departure_is_told_once_and_only_after_an_arrival() {
    let home = hub::home_of(&Seed::new(11), party("192.0.2.1"), 2);
    let mut rig = Rig::new(1 - home.0, 2, capped(Preface::Off, Via::Nothing));
    let (conn, _) = rig.knock("192.0.2.1", "");
    rig.event(crate::contract::Event::ReceivedEnd { conn });
    rig.event(crate::contract::Event::Lost { conn, error: std::io::ErrorKind::BrokenPipe.into() });
    rig.settle();
    let told: Vec<String> = rig.post.iter().map(|(_, mail)| format!("{mail:?}")).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("Enter") && told[1].starts_with("Leave"), "{told:?}");
    // An order that comes too late reaches nobody.
    rig.take(Mail::Evict { conn, excess: Excess::Newest });
    let stranger = ConnAddress::alone(ShardId(0), conn);
    rig.take(Mail::Leave { party: party("192.0.2.3"), conn: stranger });
}
