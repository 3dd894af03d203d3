//! Plain requests that others answer: gathered, handed on once, answered once, bounded.

use std::sync::Arc;
use std::time::Duration;

use super::rig::{Rig, settings};
use crate::base::id::ConnId;
use crate::base::outside::Petition;
use crate::connection::Front;
use crate::contract::Event;
use crate::shard::{Mail, Settings};

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

fn fronted() -> Settings {
    let mut settings = settings();
    settings.routes.fronts =
        Arc::new([Front { path: "/v1/".to_owned(), body_bytes: 1 << 20, leaves: false }]);
    settings
}

fn post(bytes: usize) -> Vec<u8> {
    let head = format!("POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n");
    [head.into_bytes(), vec![b'x'; bytes]].concat()
}

fn handed_on(rig: &mut Rig) -> Vec<Petition> {
    let mut found = Vec::new();
    rig.shard.poll_petitions(&mut |petition| {
        found.push(petition);
        Ok(())
    });
    found
}

fn knock(rig: &mut Rig, bytes: &[u8]) -> ConnId {
    let conn = rig.accept().expect("let in");
    rig.receive(conn, bytes);
    rig.settle();
    conn
}

fn answer(rig: &mut Rig, number: u64) {
    rig.take(Mail::Answered(Box::new((number, RESPONSE.to_vec()))));
    rig.settle();
}

#[test]
fn a_request_is_handed_on_whole_and_its_answer_is_written_as_it_is_and_ends_it() {
    let mut rig = Rig::new(0, 1, fronted());
    let request = post(10_000);
    let conn = rig.accept().expect("let in");
    for piece in request.chunks(700) {
        assert!(handed_on(&mut rig).is_empty(), "it is not complete");
        rig.receive(conn, piece);
        rig.settle();
    }
    let petitions = handed_on(&mut rig);
    assert_eq!(petitions.len(), 1);
    assert_eq!(petitions[0].bytes, request);
    assert_eq!((rig.shard.counters().petitions, rig.shard.counters().petitions_total), (1, 1));
    // What a client sends behind a request has no meaning.
    rig.receive(conn, b"GET /ws HTTP/1.1\r\n\r\n");
    rig.settle();
    assert_eq!(rig.bytes(conn), b"");
    answer(&mut rig, petitions[0].number);
    assert_eq!(rig.bytes(conn), RESPONSE);
    rig.event(Event::ReceivedEnd { conn });
    rig.settle();
    rig.settle();
    let counters = rig.shard.counters();
    assert_eq!((counters.petitions, counters.connections), (0, 0));
    assert_eq!(rig.shard.gate.people.petitions.bytes(), 0);
    answer(&mut rig, petitions[0].number);
}

#[test]
fn who_has_gone_is_not_answered_and_neither_is_who_took_its_place() {
    let mut rig = Rig::new(0, 1, fronted());
    let first = knock(&mut rig, &post(3));
    let number = handed_on(&mut rig)[0].number;
    rig.event(Event::ReceivedEnd { conn: first });
    rig.settle();
    rig.settle();
    let half = post(3);
    let second = knock(&mut rig, &half[..half.len() - 1]);
    assert_eq!(second.index, first.index, "the place is in other hands");
    answer(&mut rig, number);
    assert_eq!(rig.bytes(second), b"");
    rig.receive(second, b"x");
    rig.settle();
    let petitions = handed_on(&mut rig);
    answer(&mut rig, petitions[0].number);
    assert_eq!(rig.bytes(second), RESPONSE);
}

#[test]
fn a_request_that_nobody_completes_or_answers_ends_with_the_time_for_handshakes() {
    let mut rig = Rig::new(0, 1, fronted());
    let whole = post(5);
    let (asked, dripping) = (knock(&mut rig, &whole), knock(&mut rig, &whole[..whole.len() - 2]));
    handed_on(&mut rig);
    rig.later(Duration::from_secs(11));
    rig.settle();
    for conn in [asked, dripping] {
        assert!(rig.response(conn).starts_with("HTTP/1.1 408 "));
    }
    assert_eq!(rig.shard.counters().petitions, 0);
}

#[test]
fn too_many_or_too_large_together_are_refused_and_places_come_back() {
    let mut rig = Rig::new(0, 1, fronted());
    let few: Vec<ConnId> = (0..16).map(|_| knock(&mut rig, &post(1 << 20)[..100])).collect();
    // The heads count as well, so the last of them had no space.
    assert!(rig.response(few[15]).starts_with("HTTP/1.1 503 "));
    let more: Vec<ConnId> = (0..242).map(|_| knock(&mut rig, &post(1))).collect();
    assert_eq!(rig.shard.counters().petitions, 256);
    assert!(rig.response(more[241]).contains("Retry-After: 1\r\n"));
    assert_eq!(rig.shard.counters().petitions_refused_total, 2);
    let charged = rig.shard.counters().charged_bytes;
    assert!(((15 << 20)..(16 << 20)).contains(&charged), "{charged}");
    rig.event(Event::ReceivedEnd { conn: few[0] });
    rig.settle();
    let next = knock(&mut rig, &post(1));
    let petitions = handed_on(&mut rig);
    assert_eq!(petitions.len(), 242);
    answer(&mut rig, petitions[241].number);
    assert_eq!(rig.bytes(next), RESPONSE);
}

#[test]
fn what_the_desk_has_no_space_for_waits_in_order() {
    let mut rig = Rig::new(0, 1, fronted());
    for _ in 0..3 {
        knock(&mut rig, &post(1));
    }
    let mut taken = Vec::new();
    rig.shard.poll_petitions(&mut |petition| {
        if taken.is_empty() {
            taken.push(petition.number);
            Ok(())
        } else {
            Err(petition)
        }
    });
    taken.extend(handed_on(&mut rig).iter().map(|petition| petition.number));
    assert_eq!(taken, [1, 2, 3]);
}
