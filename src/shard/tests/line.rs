//! Whoever is asked to come back has a place of its own in the line, whatever the reason.

use std::time::Duration;

use serde_json::json;

use crate::auth::Source;
use crate::base::id::ConnId;
use crate::flow::budget::Rate;
use crate::shard::Settings;
use crate::shard::tests::consult::consult;
use crate::shard::tests::guard::{ada, bearer, guarded, knock, login};
use crate::shard::tests::rig::{Rig, head_with, settings};

const PAGE: &str = "Origin: http://a\r\n";

/// Lets in whoever comes, and moves its line by one place a second.
fn slow(mut settings: Settings) -> Settings {
    settings.limits.door.handshakes = Some(Rate { per_second: 1, burst: 1000 });
    settings.limits.door.browser_errors = true;
    settings
}

/// When the client is to come back: by its 503, or by the reason of its close frame.
fn asked_back(rig: &mut Rig, conn: ConnId) -> u32 {
    let text = String::from_utf8_lossy(&rig.bytes(conn)).into_owned();
    let words =
        if text.starts_with("HTTP/1.1 503 ") { "\r\nRetry-After: " } else { "come back in " };
    let (_, after) = text.split_once(words).unwrap_or_else(|| panic!("no delay in {text:?}"));
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("seconds")
}

/// The places one after the other: those of programs and those of pages are of one line, and rounded alike.
fn stand_in_line(delays: &[u32]) {
    let places: Vec<u32> = (2..).take(delays.len()).collect();
    assert_eq!(delays, places);
}

/// Programs and pages in turn.
fn lines(at: u32) -> &'static str {
    if at.is_multiple_of(2) { "" } else { PAGE }
}

#[test]
fn those_of_a_full_address_come_back_one_after_another() {
    let mut settings = slow(settings());
    settings.limits.address.connections = 1;
    let mut rig = Rig::new(0, 1, settings);
    assert!(rig.knock("192.0.2.1", "").1.starts_with("HTTP/1.1 101 "));
    let mut delays = Vec::new();
    for at in 0..8 {
        let conn = rig.accept_from(Some("192.0.2.1")).expect("heard");
        rig.receive(conn, &head_with("/ws", lines(at)));
        rig.settle();
        delays.push(asked_back(&mut rig, conn));
    }
    stand_in_line(&delays);
    assert_eq!(rig.shard.counters().parties_refused_total, 8);
    // Neither is a browser that reads by plain HTTP sent back with all others.
    let conn = rig.accept_from(Some("192.0.2.1")).expect("heard");
    let request = format!("GET /history?room=a HTTP/1.1\r\nHost: a\r\n{PAGE}\r\n");
    rig.receive(conn, request.as_bytes());
    rig.settle();
    assert_eq!(asked_back(&mut rig, conn), 10);
    rig.later(Duration::from_secs(120));
    let conn = rig.accept_from(Some("192.0.2.1")).expect("heard");
    rig.receive(conn, &head_with("/ws", ""));
    rig.settle();
    assert_eq!(asked_back(&mut rig, conn), 2, "the line has moved on");
}

#[test]
fn those_who_come_while_memory_is_short_come_back_one_after_another() {
    let mut settings = slow(settings());
    settings.capacity.memory = 1 << 20;
    let mut rig = Rig::new(0, 1, settings);
    let conns: Vec<ConnId> = (0..6).map(|_| rig.accept().expect("let in")).collect();
    rig.shard.note_others(1000 << 10);
    rig.turn();
    let mut delays = Vec::new();
    for (at, conn) in (0..).zip(conns) {
        rig.receive(conn, &head_with("/ws", lines(at)));
        rig.settle();
        delays.push(asked_back(&mut rig, conn));
    }
    stand_in_line(&delays);
    assert_eq!(rig.shard.counters().memory_refused_total, 6);
}

#[test]
fn those_about_whom_a_back_end_says_nothing_come_back_one_after_another() {
    let asked = |source| {
        slow(guarded(&[source], |access| {
            access.consult = Some(crate::auth::Consult { connect: true, ..consult() });
            access.browser_errors = true;
        }))
    };
    let mut rig = Rig::new(0, 1, asked(Source::Header));
    let mut delays = Vec::new();
    for at in 0..6 {
        let who = bearer(&json!({"sub": at.to_string(), "exp": 5000}));
        let conn = knock(&mut rig, "/ws", &format!("{who}{}", lines(at)));
        let number = rig.asked()[0].0;
        rig.rule(number, "");
        delays.push(asked_back(&mut rig, conn));
    }
    stand_in_line(&delays);
    // The same for those who say who they are in their first message.
    let mut rig = Rig::new(0, 1, asked(Source::Message));
    let mut delays = Vec::new();
    for at in 0..4 {
        let conn = knock(&mut rig, "/ws", lines(at));
        rig.say(conn, &login(&ada()));
        rig.settle();
        let number = rig.asked()[0].0;
        rig.rule(number, "");
        delays.push(asked_back(&mut rig, conn));
    }
    stand_in_line(&delays);
    assert_eq!(rig.shard.counters().refused_later_total, 4);
}
