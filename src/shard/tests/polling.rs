//! Clients of Socket.IO that poll: a session without a socket, and requests that come and go.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::guard::{ada, bearer, guarded, token};
use super::rig::{Rig, frame, publish, settings};
use super::rooms::exchange;
use crate::auth::{Access, OriginRule, OriginRules, Source};
use crate::base::id::{ConnId, ShardId};
use crate::contract::Event;
use crate::shard::{Mail, Settings};

const TARGET: &str = "/socket.io/?EIO=4&transport=polling";

pub(super) fn polled(mut settings: Settings) -> Settings {
    settings.routes.polling = Some(4096);
    settings
}

pub(super) fn alone() -> Rig {
    Rig::new(0, 1, polled(settings()))
}

/// A request that has been sent and may not be answered yet.
pub(super) fn ask(rig: &mut Rig, method: &str, query: &str, headers: &str, body: &str) -> ConnId {
    let conn = rig.accept().expect("let in");
    let length =
        if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let request =
        format!("{method} {TARGET}{query} HTTP/1.1\r\nHost: a\r\n{length}{headers}\r\n{body}");
    rig.receive(conn, request.as_bytes());
    rig.settle();
    conn
}

/// Status, head and body of what a request was answered with, if it was.
pub(super) fn answered(rig: &mut Rig, conn: ConnId) -> Option<(u16, String, String)> {
    if rig.unheard(conn).is_empty() {
        return None;
    }
    let head = rig.response(conn);
    let body = String::from_utf8(rig.bytes(conn)).expect("text");
    let length = format!("Content-Length: {}\r\n", body.len());
    assert!(head.contains(&length) && head.contains("Connection: close\r\n"), "{head}{body}");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Some((status, head, body))
}

pub(super) fn answer(rig: &mut Rig, conn: ConnId) -> (u16, String) {
    let (status, _, body) = answered(rig, conn).expect("an answer");
    (status, body)
}

/// The id in the first packet of a body, and what stands behind that packet.
fn session(body: &str) -> (String, Value) {
    let opening = body.split('\u{1e}').next().expect("a packet");
    let opening: Value =
        serde_json::from_str(opening.strip_prefix('0').expect("an opening")).expect("JSON");
    (opening["sid"].as_str().expect("an id").to_owned(), opening)
}

/// A session that has begun.
pub(super) fn begun(rig: &mut Rig, headers: &str) -> String {
    let conn = ask(rig, "GET", "", headers, "");
    let (status, body) = answer(rig, conn);
    assert_eq!(status, 200, "{body}");
    session(&body).0
}

pub(super) fn fetch(rig: &mut Rig, session: &str) -> ConnId {
    ask(rig, "GET", &format!("&sid={session}"), "", "")
}

/// The packets that the session says at once.
pub(super) fn fetched(rig: &mut Rig, session: &str) -> Vec<String> {
    let conn = fetch(rig, session);
    let (status, body) = answer(rig, conn);
    assert_eq!(status, 200, "{body}");
    body.split('\u{1e}').map(str::to_owned).collect()
}

pub(super) fn bring(rig: &mut Rig, session: &str, body: &str) {
    let conn = ask(rig, "POST", &format!("&sid={session}"), "", body);
    assert_eq!(answer(rig, conn), (200, "ok".to_owned()));
}

/// A session that has connected to the namespace and has read its greeting.
pub(super) fn entered(rig: &mut Rig) -> String {
    let session = begun(rig, "");
    bring(rig, &session, "40");
    let heard = fetched(rig, &session);
    assert!(
        heard[0].starts_with("40{") && heard[1].starts_with("42[\"throng:connected\""),
        "{heard:?}"
    );
    session
}

pub(super) fn member(rig: &mut Rig, room: &str) -> String {
    let session = entered(rig);
    bring(rig, &session, &format!(r#"420["throng:join",{{"room":"{room}"}}]"#));
    let heard = fetched(rig, &session);
    assert!(heard[0].starts_with("430[{") && heard[0].contains(r#""ok":true"#), "{heard:?}");
    session
}

#[test]
fn a_session_begins_and_says_and_hears_what_a_websocket_does() {
    let mut rig = alone();
    let author = rig.member("r");
    let conn = ask(&mut rig, "GET", "", "", "");
    let (status, head, body) = answered(&mut rig, conn).expect("an answer");
    assert_eq!(status, 200);
    assert!(head.contains("Content-Type: text/plain; charset=UTF-8\r\n"), "{head}");
    let (_, opening) = session(&body);
    assert_eq!((&opening["pingInterval"], &opening["maxPayload"]), (&json!(25_000), &json!(4096)));
    let listener = member(&mut rig, "r");
    rig.say(author, &publish(&["r"], "1"));
    rig.say(author, &publish(&["r"], "2"));
    rig.settle();
    let heard = fetched(&mut rig, &listener);
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(
        heard[0].starts_with("42[\"t\",1,{") && heard[1].starts_with("42[\"t\",2,{"),
        "{heard:?}"
    );
    bring(&mut rig, &listener, "42[\"t\",3,{\"room\":\"r\"}]\u{1e}42[\"t\",4,{\"room\":\"r\"}]");
    assert_eq!(rig.published(author), [1, 2, 3, 4]);
    assert_eq!(rig.shard.counters().polling_connections, 2);
}

#[test]
fn a_request_waits_until_something_is_said() {
    let mut rig = alone();
    let author = rig.member("r");
    let listener = member(&mut rig, "r");
    let conn = fetch(&mut rig, &listener);
    assert_eq!(answered(&mut rig, conn), None);
    rig.say(author, &publish(&["r"], "1"));
    rig.settle();
    let (status, body) = answer(&mut rig, conn);
    assert_eq!(status, 200);
    assert!(body.starts_with("42[\"t\",1,{"), "{body}");
    // Only requests that wait keep a connection of their own.
    assert!(rig.table_is_closing(conn));
}

#[test]
fn a_request_that_can_wait_no_longer_is_answered_with_nothing_and_nothing_is_lost() {
    let mut rig = alone();
    let author = rig.member("r");
    let listener = member(&mut rig, "r");
    let conn = fetch(&mut rig, &listener);
    rig.later(Duration::from_secs(11));
    rig.settle();
    assert_eq!(answer(&mut rig, conn), (200, "6".to_owned()));
    rig.say(author, &publish(&["r"], "1"));
    rig.settle();
    assert!(fetched(&mut rig, &listener)[0].starts_with("42[\"t\",1,{"));
    // Of two that wait, the one that came later is the client's.
    let (first, second) = (fetch(&mut rig, &listener), fetch(&mut rig, &listener));
    assert_eq!(answer(&mut rig, first), (200, "6".to_owned()));
    assert_eq!(answered(&mut rig, second), None);
}

#[test]
fn a_client_that_does_not_answer_pings_is_given_up_and_one_that_does_stays() {
    let mut rig = alone();
    let (here, gone) = (entered(&mut rig), entered(&mut rig));
    for _ in 0..60 {
        rig.later(Duration::from_secs(1));
        rig.settle();
        let heard = fetch(&mut rig, &here);
        if answered(&mut rig, heard).is_some_and(|(_, _, body)| body == "2") {
            bring(&mut rig, &here, "3");
        }
    }
    rig.settle();
    let conn = fetch(&mut rig, &gone);
    let (status, body) = answer(&mut rig, conn);
    assert_eq!((status, body.trim()), (400, r#"{"code":1,"message":"Session ID unknown"}"#));
    assert_eq!(rig.shard.counters().polling_connections, 1);
    bring(&mut rig, &here, "42[\"t\",3,{\"room\":\"r\"}]");
}

#[test]
fn a_session_is_ended_by_either_side_and_leaves_nothing() {
    let mut rig = alone();
    let listener = member(&mut rig, "r");
    let waits = fetch(&mut rig, &listener);
    bring(&mut rig, &listener, "1");
    assert_eq!(answer(&mut rig, waits), (200, "1".to_owned()));
    rig.settle();
    let conn = fetch(&mut rig, &listener);
    assert_eq!(answer(&mut rig, conn).0, 400);
    let counters = rig.shard.counters();
    assert_eq!((counters.memberships, counters.polling_connections), (0, 0));
    // The node ends it: that is said to the request that waits; no other can come.
    let listener = member(&mut rig, "r");
    let waits = fetch(&mut rig, &listener);
    rig.take(Mail::Drain(Duration::from_secs(1)));
    for _ in 0..50 {
        rig.later(Duration::from_millis(200));
        rig.settle();
    }
    let (status, body) = answer(&mut rig, waits);
    assert!(status == 200 && body.contains("throng:reload"), "{body}");
    assert_eq!(rig.shard.counters().polling_connections, 0);
}

#[test]
fn a_client_that_does_not_come_for_it_is_a_slow_consumer() {
    let mut rig = alone();
    let author = rig.member("r");
    let listener = member(&mut rig, "r");
    for number in 0..60 {
        rig.say(author, &publish(&["r"], &format!("\"{number:0100}\"")));
        rig.settle();
    }
    assert!(
        rig.shard.counters().queued_bytes <= 2 * 2000 + 500,
        "{}",
        rig.shard.counters().queued_bytes
    );
    let mut heard = Vec::new();
    while heard.last().is_none_or(|packet: &String| !packet.contains("0059")) {
        heard.extend(fetched(&mut rig, &listener));
    }
    heard.extend(fetched(&mut rig, &listener));
    assert!(heard.iter().any(|packet| packet.starts_with("42[\"throng:gap\"")), "{heard:?}");
}

#[test]
fn the_door_judges_who_begins_and_a_refusal_is_the_answer() {
    let mut rig = Rig::new(
        0,
        1,
        polled(guarded(&[Source::Header, Source::Payload], |access| {
            access.origins = OriginRules {
                allowed: vec![OriginRule::parse("https://good").expect("a rule")],
                ..OriginRules::default()
            };
        })),
    );
    let wrong = ask(&mut rig, "GET", "", "Authorization: Bearer nonsense\r\n", "");
    // As over WebSocket, the library's own event shows the reason.
    let (status, body) = answer(&mut rig, wrong);
    let packets: Vec<&str> = body.split('\u{1e}').collect();
    assert!(status == 200 && packets[1].starts_with("44{") && packets[2] == "1", "{body}");
    rig.settle();
    let foreign =
        ask(&mut rig, "GET", "", &format!("Origin: https://bad\r\n{}", bearer(&ada())), "");
    assert_eq!(answer(&mut rig, foreign).0, 403);
    assert_eq!(rig.shard.counters().polling_connections, 0);
    // A page of an origin that is let in may read, and no other.
    let own = ask(&mut rig, "GET", "", &format!("Origin: https://good\r\n{}", bearer(&ada())), "");
    let (status, head, body) = answered(&mut rig, own).expect("an answer");
    assert_eq!(status, 200);
    assert!(head.contains("Access-Control-Allow-Origin: https://good\r\n"), "{head}");
    assert!(head.contains("Access-Control-Allow-Credentials: true\r\n"), "{head}");
    let (session, _) = session(&body);
    bring(&mut rig, &session, "40");
    assert!(fetched(&mut rig, &session)[1].contains(r#""userId":"ada""#));
    let before = ask(
        &mut rig,
        "OPTIONS",
        &format!("&sid={session}"),
        "Origin: https://good\r\nAccess-Control-Request-Method: POST\r\n",
        "",
    );
    let preflight = rig.response(before);
    assert!(preflight.contains("Allow-Methods: GET, POST\r\n"), "{preflight}");
    // Without a token in the request, the connect may bring it.
    let late = begun(&mut rig, "Origin: https://good\r\n");
    bring(&mut rig, &late, &format!("40{{\"token\":\"{}\"}}", token(&ada())));
    assert!(fetched(&mut rig, &late).iter().any(|packet| packet.contains(r#""userId":"ada""#)));
}

/// Settings where pages of these origins may connect.
fn for_pages_of(origins: &[&str], required: bool) -> Settings {
    let mut settings = polled(settings());
    let allowed = origins.iter().map(|rule| OriginRule::parse(rule).expect("a rule")).collect();
    let origins = OriginRules { allowed, required, cookies: false };
    settings.access = Arc::new(Access { origins, ..(*settings.access).clone() });
    settings
}

#[test]
fn a_request_of_a_session_is_judged_by_its_page_and_one_that_is_refused_changes_nothing() {
    let allowed = ["https://good", "https://other"];
    let mut rigs = [0, 1].map(|id| Rig::new(id, 2, for_pages_of(&allowed, false)));
    let [good, bad, other] = ["good", "bad", "other"].map(|at| format!("Origin: https://{at}\r\n"));
    let session = begun(&mut rigs[0], &good);
    let query = format!("&sid={session}");
    let waits = ask(&mut rigs[0], "GET", &query, &good, "");
    // A page that may not connect, and one that may but has not begun this session; here and at another shard.
    for (page, at) in [(&bad, 0), (&other, 0), (&bad, 1), (&other, 1)] {
        for (method, body) in [("POST", "40"), ("GET", ""), ("POST", "1")] {
            let conn = ask(&mut rigs[at], method, &query, page, body);
            exchange(&mut rigs);
            let (status, head, _) = answered(&mut rigs[at], conn).expect("an answer");
            assert_eq!(status, 403, "{method} {page}");
            assert!(!head.contains("Access-Control"), "{head}");
        }
    }
    assert_eq!(answered(&mut rigs[0], waits), None, "no other request has taken its place");
    let refused = rigs.iter().map(|rig| rig.shard.counters().origin_refused_total);
    assert_eq!(refused.sum::<u64>(), 12);
    let conn = ask(&mut rigs[0], "POST", &query, &good, "40");
    let (status, head, _) = answered(&mut rigs[0], conn).expect("an answer");
    assert!(status == 200 && head.contains("Allow-Origin: https://good\r\n"), "{head}");
    let (status, head, body) = answered(&mut rigs[0], waits).expect("an answer");
    assert!(status == 200 && head.contains("Allow-Origin: https://good\r\n"), "{head}");
    assert!(body.starts_with("40{") && body.contains("throng:connected"), "{body}");
    // A program may go on with it, as it could begin one.
    bring(&mut rigs[0], &session, r#"420["throng:ping",{}]"#);
    assert!(fetched(&mut rigs[0], &session)[0].contains("throng:pong"));
    // What a browser asks beforehand is answered alike.
    for (page, status) in [(&bad, "403"), (&good, "204")] {
        let headers = format!("{page}Access-Control-Request-Method: POST\r\n");
        let conn = ask(&mut rigs[0], "OPTIONS", &query, &headers, "");
        let before = rigs[0].response(conn);
        assert_eq!(&before[9..12], status, "{before}");
    }
}

#[test]
fn where_all_must_name_their_page_a_request_of_a_session_must_too() {
    let mut rig = Rig::new(0, 1, for_pages_of(&["https://a", "https://b"], true));
    let own = "Sec-Fetch-Site: same-origin\r\n";
    // A browser does not name the page in a GET of its own origin, but says that it is one.
    let session = begun(&mut rig, own);
    let query = format!("&sid={session}");
    for (headers, expected) in [
        ("", 403),
        ("Sec-Fetch-Site: cross-site\r\n", 403),
        ("Origin: null\r\nSec-Fetch-Site: same-origin\r\n", 403),
        ("Origin: https://a\r\n", 200),
        (own, 200),
    ] {
        let conn = ask(&mut rig, "POST", &query, headers, "3");
        assert_eq!(answer(&mut rig, conn).0, expected, "{headers}");
    }
    assert_eq!(rig.shard.counters().polling_connections, 1);
}

#[test]
fn what_is_no_request_of_a_session_is_refused_by_its_number() {
    let mut rig = alone();
    let session = begun(&mut rig, "");
    let forged = format!(
        "{}{}",
        &session[..session.len() - 1],
        if session.ends_with('0') { '1' } else { '0' }
    );
    for (method, query, code) in [
        ("GET", format!("&sid={forged}"), 1),
        ("GET", "&sid=".to_owned(), 1),
        ("GET", format!("&sid={}", session.split('_').next().expect("an address")), 1),
        ("POST", "&sid=9-9-9_00000000000000000000000000000000".to_owned(), 1),
        ("POST", String::new(), 2),
        ("DELETE", format!("&sid={session}"), 2),
    ] {
        let conn = ask(&mut rig, method, &query, "", if method == "POST" { "x" } else { "" });
        let (status, body) = answer(&mut rig, conn);
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((status, &body["code"]), (400, &json!(code)), "{method} {query}");
    }
    // Too much for one body, before any of it is here.
    let conn = rig.accept().expect("let in");
    let head =
        format!("POST {TARGET}&sid={session} HTTP/1.1\r\nHost: a\r\nContent-Length: 4097\r\n\r\n");
    rig.receive(conn, head.as_bytes());
    rig.settle();
    assert_eq!(answer(&mut rig, conn).0, 413);
    // Where nobody may poll there is no such transport.
    let mut rig = Rig::alone();
    let conn = ask(&mut rig, "GET", "", "", "");
    let (status, body) = answer(&mut rig, conn);
    assert_eq!((status, body.trim()), (400, r#"{"code":0,"message":"Transport unknown"}"#));
}

#[test]
fn a_body_is_heard_once_all_of_it_is_here_and_a_client_that_leaves_meanwhile_is_forgotten() {
    let mut rig = alone();
    let author = rig.member("r");
    let session = member(&mut rig, "r");
    let body = "42[\"t\",\"half\",{\"room\":\"r\"}]";
    let head = format!(
        "POST {TARGET}&sid={session} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    for ends in [true, false] {
        let conn = rig.accept().expect("let in");
        rig.receive(conn, head.as_bytes());
        rig.receive(conn, &body.as_bytes()[..5]);
        rig.settle();
        assert!(rig.published(author).is_empty());
        if ends {
            rig.event(Event::ReceivedEnd { conn });
            rig.settle();
            continue;
        }
        rig.receive(conn, &body.as_bytes()[5..]);
        rig.settle();
        assert_eq!(answer(&mut rig, conn), (200, "ok".to_owned()));
        assert_eq!(rig.published(author), ["half"]);
    }
    assert_eq!(rig.shard.gate.people.petitions.carriers.bytes(), 0);
}

#[test]
fn a_message_above_the_limit_ends_the_session_and_so_does_nonsense() {
    let mut rig = alone();
    let session = entered(&mut rig);
    // The body is as long as it may be, and no message in it is; only WebSockets' own limit is below.
    let long = format!("42[\"t\",\"{}\",{{\"room\":\"r\"}}]", "x".repeat(4000));
    bring(&mut rig, &session, &long);
    let session = entered(&mut rig);
    let conn = rig.accept().expect("let in");
    let head =
        format!("POST {TARGET}&sid={session} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n");
    rig.receive(conn, &[head.as_bytes(), b"4\xff"].concat());
    rig.settle();
    let heard = fetched(&mut rig, &session);
    assert_eq!(heard.last().map(String::as_str), Some("1"), "{heard:?}");
    rig.settle();
    let conn = fetch(&mut rig, &session);
    assert_eq!(answer(&mut rig, conn).0, 400);
}

#[test]
fn a_request_that_arrives_at_another_shard_is_handed_to_the_one_that_has_the_session() {
    let mut rigs = [0, 1].map(|id| Rig::new(id, 2, polled(settings())));
    let session = entered(&mut rigs[0]);
    let conn = fetch(&mut rigs[1], &session);
    exchange(&mut rigs);
    assert_eq!(answered(&mut rigs[1], conn), None);
    let brings =
        ask(&mut rigs[1], "POST", &format!("&sid={session}"), "", r#"427["throng:ping",{}]"#);
    exchange(&mut rigs);
    assert_eq!(answer(&mut rigs[1], brings), (200, "ok".to_owned()));
    let (status, body) = answer(&mut rigs[1], conn);
    assert!(status == 200 && body.contains("throng:pong"), "{body}");
    // It waits no longer than at home.
    let conn = fetch(&mut rigs[1], &session);
    exchange(&mut rigs);
    rigs[1].later(Duration::from_secs(11));
    rigs[1].settle();
    exchange(&mut rigs);
    assert_eq!(answer(&mut rigs[1], conn), (200, "6".to_owned()));
    let unknown = format!(
        "{}{}",
        &session[..session.len() - 1],
        if session.ends_with('0') { '1' } else { '0' }
    );
    let conn = fetch(&mut rigs[1], &unknown);
    exchange(&mut rigs);
    assert_eq!(answer(&mut rigs[1], conn).0, 400);
    // Where mail waits already, nothing is added to it.
    rigs[1].full.insert(ShardId(0));
    let asked: Vec<ConnId> = (0..20).map(|_| fetch(&mut rigs[1], &session)).collect();
    let refused =
        asked.iter().filter(|conn| answered(&mut rigs[1], **conn).is_some_and(|it| it.0 == 503));
    assert!(refused.count() >= 1);
}

#[test]
fn frames_of_websockets_are_nothing_to_a_request_of_long_polling() {
    let mut rig = alone();
    let listener = member(&mut rig, "r");
    let conn = fetch(&mut rig, &listener);
    rig.receive(conn, &frame(0x81, b"42[\"t\",1,{\"room\":\"r\"}]"));
    rig.settle();
    assert_eq!(answered(&mut rig, conn), None);
    assert_eq!(rig.shard.counters().polls_total, 6);
}
