//! Rooms read by plain HTTP.

use std::time::Duration;

use serde_json::{Value, json};

use crate::auth::{Access, Source, Ticket, Who, mint};
use crate::base::id::ConnId;
use crate::shard::Settings;
use crate::shard::tests::consult::consult;
use crate::shard::tests::guard::{enter, guarded, tickets, token};
use crate::shard::tests::history::remembering;
use crate::shard::tests::rig::{Rig, Seen, publish, room_of};
use crate::shard::tests::rooms::exchange;

fn request(query: &str, headers: &str) -> String {
    format!("GET /history?{query} HTTP/1.1\r\nHost: a\r\n{headers}\r\n")
}

/// The status and the document of a response, with its head.
fn answered(rig: &mut Rig, conn: ConnId) -> (u16, Value, String) {
    let head = rig.response(conn);
    let body = rig.bytes(conn);
    let length = head.split_once("Content-Length: ").and_then(|(_, rest)| rest.split_once('\r'));
    assert_eq!(length.and_then(|(length, _)| length.parse().ok()), Some(body.len()), "{head}");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    (status.expect("a status"), body, head)
}

/// Asks and is answered at once.
fn read(rig: &mut Rig, query: &str, headers: &str) -> (u16, Value, String) {
    let conn = rig.accept().expect("let in");
    rig.receive(conn, request(query, headers).as_bytes());
    rig.settle();
    let answer = answered(rig, conn);
    assert!(rig.table_is_closing(conn), "nothing follows an answer");
    answer
}

fn offsets(page: &Value) -> Vec<u64> {
    let messages = page["messages"].as_array().expect("messages").iter();
    messages.map(|message| message["offset"].as_u64().expect("an offset")).collect()
}

/// A room with so many publications, and its epoch.
fn room_with(rig: &mut Rig, count: u64) -> String {
    let author = rig.member("room-1");
    for number in 1..=count {
        rig.say(author, &publish(&["room-1"], &number.to_string()));
    }
    rig.settle();
    let (_, page, _) = read(rig, "room=room-1", "");
    page["epoch"].as_str().expect("an epoch").to_owned()
}

#[test]
fn a_page_is_what_a_member_would_get_and_goes_back_and_forth() {
    let mut rig = Rig::new(0, 1, remembering(10));
    let epoch = room_with(&mut rig, 15);
    let (status, page, head) = read(&mut rig, "room=room-1&limit=3", "Origin: https://a\r\n");
    assert_eq!((status, offsets(&page), &page["more"]), (200, vec![13, 14, 15], &json!(true)));
    assert_eq!((&page["offset"], page.get("recovered")), (&json!(15), None));
    for line in ["Content-Type: application/json", "Access-Control-Allow-Origin: https://a"] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line}: {head}");
    }
    let (_, page, _) = read(&mut rig, "room=room-1&limit=3&before=8", "");
    assert_eq!((offsets(&page), &page["more"]), (vec![6, 7], &json!(false)));
    // On from there, by the two parts of an event's id or by all three.
    for since in [format!("{epoch}.11"), format!("{epoch}.11.room-1")] {
        let (_, page, _) = read(&mut rig, &format!("room=room-1&limit=2&since={since}"), "");
        assert_eq!((offsets(&page), &page["recovered"]), (vec![12, 13], &json!(true)));
        assert_eq!((&page["more"], &page["epoch"]), (&json!(true), &json!(epoch)));
    }
    let (_, page, _) = read(&mut rig, &format!("room=room-1&since={epoch}.15"), "");
    assert_eq!((offsets(&page), &page["recovered"]), (vec![], &json!(true)));
    // Too old, or of another life of the room: the newest.
    for since in [format!("{epoch}.2"), "1.2".to_owned()] {
        let (_, page, _) = read(&mut rig, &format!("room=room-1&limit=2&since={since}"), "");
        assert_eq!((offsets(&page), &page["recovered"]), (vec![14, 15], &json!(false)), "{since}");
    }
    let counters = rig.shard.counters();
    assert_eq!((counters.memberships, counters.history_pages_total), (1, 8));
}

#[test]
fn a_room_without_history_has_nothing_to_read_and_a_wrong_question_is_answered() {
    let mut rig = Rig::new(0, 1, remembering(10));
    rig.member("other");
    let (status, page, _) = read(&mut rig, "room=other", "");
    assert_eq!((status, &page["messages"]), (200, &json!([])));
    for (query, word) in [
        ("room=room-1&limit=0", "limit"),
        ("room=room-1&limit=x", "limit"),
        ("room=room-1&before=-1", "before"),
        ("room=room-1&since=x", "since"),
        ("room=room-1&since=5.1&before=3", "before"),
    ] {
        let (status, error, _) = read(&mut rig, query, "");
        assert_eq!((status, &error["code"]), (400, &json!("bad_field")), "{query}: {error}");
        assert!(error["message"].as_str().is_some_and(|text| text.contains(word)), "{error}");
    }
    for query in ["", "room=a&room=b"] {
        assert_eq!(read(&mut rig, query, "").0, 400, "{query}");
    }
    let conn = rig.accept().expect("let in");
    rig.receive(conn, b"POST /history?room=a HTTP/1.1\r\nHost: a\r\n\r\n");
    rig.settle();
    assert!(rig.response(conn).starts_with("HTTP/1.1 405 "));
}

fn of_users() -> Settings {
    let keep = |access: &mut Access| access.verifier.rules.metadata_bytes = 16;
    let mut settings = guarded(&[Source::Header], keep);
    settings.rooms.namespaces = remembering(10).rooms.namespaces;
    settings
}

#[test]
fn a_reader_needs_the_right_to_history_and_is_nobodys_presence() {
    let mut rig = Rig::new(0, 1, of_users());
    let claims = |user: &str, right: &str| json!({"sub": user, "exp": 5000, "rooms": {"room-1": ["join", "publish", right]}});
    let author = enter(&mut rig, &claims("bob", "presence"));
    rig.say(author, r#"{"type":"throng:join","room":"room-1"}"#);
    rig.settle();
    rig.say(author, r#"{"type":"t","room":"room-1","except":{"users":["eve"]}}"#);
    rig.settle();
    let bearer = |claims: &Value| format!("Authorization: Bearer {}\r\n", token(claims));
    assert_eq!(read(&mut rig, "room=room-1", "").0, 401);
    let (status, error, _) = read(&mut rig, "room=room-1", &bearer(&claims("ada", "presence")));
    assert_eq!((status, &error["code"]), (403, &json!("forbidden")));
    let (status, page, _) = read(&mut rig, "room=room-1", &bearer(&claims("ada", "history")));
    assert_eq!((status, offsets(&page)), (200, vec![1]));
    let (_, page, _) = read(&mut rig, "room=room-1", &bearer(&claims("eve", "history")));
    assert_eq!(offsets(&page), Vec::<u64>::new(), "its author excepted her");
    let counters = rig.shard.counters();
    assert_eq!((counters.users_online, counters.authenticated_connections), (1, 1));
    assert_eq!(counters.open_connections, 1);
}

#[test]
fn a_room_of_another_shard_is_read_and_whoever_gets_no_answer_is_asked_to_come_back() {
    let mut rigs = [0, 1].map(|id| Rig::new(id, 2, remembering(10)));
    let room = room_of(1, 2);
    let author = rigs[1].member(&room);
    rigs[1].say(author, &publish(&[&room], "1"));
    rigs[1].settle();
    let conn = rigs[0].accept().expect("let in");
    rigs[0].receive(conn, request(&format!("room={room}"), "").as_bytes());
    exchange(&mut rigs);
    let (status, page, _) = answered(&mut rigs[0], conn);
    assert_eq!((status, offsets(&page)), (200, vec![1]));
    // The home does not answer.
    let conn = rigs[0].accept().expect("let in");
    rigs[0].receive(conn, request(&format!("room={room}"), "").as_bytes());
    rigs[0].settle();
    assert!(rigs[0].bytes(conn).is_empty());
    rigs[0].later(Duration::from_secs(11));
    rigs[0].settle();
    let (status, error, _) = answered(&mut rigs[0], conn);
    assert_eq!((status, &error["code"]), (503, &json!("overloaded")));
    // Its answer comes after all, to nobody.
    exchange(&mut rigs);
}

#[test]
fn what_follows_a_question_is_not_read_and_a_drain_says_nothing_in_between() {
    let mut rigs = [0, 1].map(|id| Rig::new(id, 2, remembering(10)));
    let room = room_of(1, 2);
    let conn = rigs[0].accept().expect("let in");
    let twice = request(&format!("room={room}"), "").repeat(2);
    rigs[0].receive(conn, twice.as_bytes());
    rigs[0].receive(conn, b"anything");
    rigs[0].take(crate::shard::Mail::Drain(Duration::from_secs(1)));
    rigs[0].settle();
    rigs[0].later(Duration::from_secs(2));
    rigs[0].settle();
    assert_eq!(rigs[0].bytes(conn), b"", "no frame and no event");
    assert!(rigs[0].ops.iter().all(|op| !matches!(op, Seen::Send(..))));
}

#[test]
fn a_back_end_that_is_asked_about_a_room_is_asked_about_its_readers() {
    let mut settings = guarded(&[Source::Header], |access| access.consult = Some(consult()));
    settings.rooms.namespaces = remembering(10).rooms.namespaces;
    settings.rooms.namespaces[0].join = Some(Who::Webhook);
    let mut rig = Rig::new(0, 1, settings);
    let claims = |user: &str| json!({"sub": user, "exp": 5000, "rooms": ["a"]});
    for (user, ruling, status) in
        [("ada", r#"{"allow":true}"#, 200), ("bob", r#"{"allow":false,"message":"no"}"#, 403)]
    {
        let bearer = format!("Authorization: Bearer {}\r\n", token(&claims(user)));
        let conn = rig.accept().expect("let in");
        rig.receive(conn, request("room=room-1", &bearer).as_bytes());
        rig.settle();
        let asked = rig.asked();
        let [(number, question)] = &asked[..] else { panic!("{asked:?}") };
        assert_eq!((&question["userId"], &question["room"]), (&json!(user), &json!("room-1")));
        assert!(rig.bytes(conn).is_empty(), "nobody has decided yet");
        rig.rule(*number, ruling);
        let (answered, _, _) = answered(&mut rig, conn);
        assert_eq!(answered, status, "{user}");
    }
    assert_eq!(rig.shard.counters().held_commands, 0);
}

#[test]
fn a_ticket_is_good_for_one_question() {
    let mut rig = Rig::new(0, 1, guarded(&[Source::Ticket], |_| {}));
    let claims = r#"{"sub":"ada","rooms":["room-1"],"exp":5000}"#;
    let ticket = mint(&tickets(), claims, Ticket { id: 1, expires: 120 }).expect("a ticket");
    let query = format!("room=room-1&ticket={ticket}");
    let (status, page, _) = read(&mut rig, &query, "");
    assert_eq!((status, &page["messages"]), (200, &json!([])));
    assert_eq!(read(&mut rig, &query, "").0, 401, "it is used");
    assert_eq!(rig.shard.counters().users_online, 0);
}
