//! Event streams: what a WebSocket in the same rooms gets, in another form.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::rig::{Heard, Rig, publish, settings};
use crate::base::id::ConnId;
use crate::base::time::Tick;
use crate::contract::Event;
use crate::shard::Mail;

/// What one who reads a stream hears: the ids and texts of its events, and how many comments.
#[derive(Debug, Default)]
struct Listened {
    events: Vec<(Option<String>, Value)>,
    comments: usize,
    retry: Option<u64>,
}

impl Listened {
    fn texts(&self) -> Vec<&Value> {
        self.events.iter().map(|(_, text)| text).collect()
    }
}

fn listen(rig: &mut Rig, conn: ConnId) -> Listened {
    let stream = String::from_utf8(rig.bytes(conn)).expect("text");
    let mut listened = Listened::default();
    for block in stream.split("\n\n").filter(|block| !block.is_empty()) {
        let (mut id, mut data) = (None, Vec::new());
        for line in block.split('\n') {
            match line.split_once(": ").expect("a field") {
                ("id", value) => id = Some(value.to_owned()),
                ("data", value) => data.push(value),
                ("", "ping") => listened.comments += 1,
                ("retry", value) => listened.retry = Some(value.parse().expect("milliseconds")),
                other => panic!("no such field: {other:?}"),
            }
        }
        if !data.is_empty() {
            let text = serde_json::from_str(&data.join("\n")).expect("JSON");
            listened.events.push((id, text));
        }
    }
    listened
}

fn ask(rig: &mut Rig, request: &str) -> (ConnId, String) {
    let conn = rig.accept().expect("let in");
    rig.receive(conn, request.as_bytes());
    rig.settle();
    (conn, rig.response(conn))
}

/// One who listens to these rooms; has read the head, the greeting and the replies.
fn listener(rig: &mut Rig, rooms: &str) -> ConnId {
    let (conn, head) = ask(rig, &format!("GET /sse?{rooms} HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let listened = listen(rig, conn);
    assert_eq!(listened.texts()[0]["type"], "throng:connected", "it comes first");
    assert!(listened.texts()[1..].iter().all(|text| text["ok"] == true), "{listened:?}");
    assert_eq!(listened.events.len(), 1 + rooms.split('&').count());
    conn
}

#[test]
fn a_stream_has_the_headers_that_proxies_and_browsers_need_and_says_first_who_it_is() {
    let mut rig = Rig::alone();
    let request = "GET /sse?room=a%20room&room=b HTTP/1.1\r\nHost: a\r\nOrigin: https://a\r\n\r\n";
    let (conn, head) = ask(&mut rig, request);
    for line in [
        "Content-Type: text/event-stream",
        "Cache-Control: no-cache",
        "Connection: keep-alive",
        "X-Accel-Buffering: no",
        "Access-Control-Allow-Origin: https://a",
        "Access-Control-Allow-Credentials: true",
        "Vary: Origin",
    ] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line}: {head}");
    }
    let listened = listen(&mut rig, conn);
    let texts = listened.texts();
    let timeouts = settings().timeouts.heartbeat;
    let heartbeat = json!({
        "intervalMs": timeouts.interval.as_millis(), "timeoutMs": timeouts.timeout.as_millis(),
    });
    let connected = texts[0];
    assert_eq!(connected["type"], "throng:connected");
    assert_eq!(connected["protocol"], "sse");
    assert_eq!(connected["clientId"], rig.address(conn).to_string());
    assert_eq!((&connected["userId"], &connected["sessionEpoch"]), (&Value::Null, &json!("5")));
    assert_eq!(connected["heartbeat"], heartbeat);
    let spread = u64::try_from(settings().capacity.reconnect_spread.as_millis()).expect("short");
    let retry = listened.retry.expect("when to come back");
    assert!((spread.min(1000)..=spread).contains(&retry), "{retry} of {spread}");
    assert_eq!((&texts[1]["room"], &texts[1]["members"]), (&"a room".into(), &1.into()));
    assert_eq!(texts[2]["room"], "b");
    let counters = rig.shard.counters();
    assert_eq!((counters.stream_connections, counters.memberships), (1, 2));
}

/// Each another time, and none at once or after minutes.
#[test]
fn streams_that_break_are_told_to_come_back_one_after_another() {
    for (spread, range) in [(500, 500..=500), (4000, 1000..=4000), (600_000, 1000..=30_000)] {
        let mut settings = settings();
        settings.capacity.reconnect_spread = Duration::from_millis(spread);
        let mut rig = Rig::new(0, 1, settings);
        let delays: BTreeSet<u64> = (0..12)
            .map(|_| {
                let (conn, _) = ask(&mut rig, "GET /sse?room=r HTTP/1.1\r\nHost: a\r\n\r\n");
                listen(&mut rig, conn).retry.expect("when to come back")
            })
            .collect();
        assert!(delays.iter().all(|delay| range.contains(delay)), "{delays:?} of {spread}");
        assert_eq!(delays.len() > 6, spread > 1000, "{delays:?}");
    }
}

#[test]
fn a_payload_in_lines_is_the_same_text_by_a_stream_and_by_a_websocket() {
    let mut rig = Rig::alone();
    let (stream, socket) = (listener(&mut rig, "room=r"), rig.member("r"));
    let (payload, lines) =
        ("{\r\n \"a\": \"x\\r\\n\",\r \"b\": 1\n}", "{\n \"a\": \"x\\r\\n\",\n \"b\": 1\n}");
    rig.heard(socket);
    rig.say(socket, &publish(&["r"], payload));
    rig.settle();
    let frame = rig.bytes(socket);
    let by_socket = str::from_utf8(&frame[2..]).expect("a short text frame");
    let by_stream = String::from_utf8(rig.bytes(stream)).expect("text");
    let (_, data) = by_stream.trim_end().split_once('\n').expect("an id, then data");
    let data: Vec<&str> =
        data.split('\n').map(|line| line.strip_prefix("data: ").expect("data")).collect();
    assert_eq!(data.join("\n"), by_socket);
    assert!(by_socket.contains(&format!("\"payload\":{lines}")), "{by_socket:?}");
}

#[test]
fn a_stream_gets_what_a_websocket_gets_in_the_same_order_and_with_the_same_numbers() {
    let mut rig = Rig::alone();
    let stream = listener(&mut rig, "room=r&room=s");
    let socket = rig.member("r");
    rig.say(socket, r#"{"type":"throng:join","room":"s"}"#);
    rig.settle();
    rig.heard(socket);
    let author = rig.open();
    for number in 0..40 {
        let room = if number % 3 == 0 { "s" } else { "r" };
        rig.say(author, &publish(&[room], &format!("\"line\\r\\n{number}\\u2028\"")));
        if number % 4 == 0 {
            rig.settle();
        }
    }
    rig.say(author, &publish(&["r", "s"], "\"to both\""));
    rig.settle();
    let by_socket: Vec<Value> = rig
        .heard(socket)
        .into_iter()
        .map(|heard| match heard {
            Heard::Text(text) => text,
            other => panic!("{other:?}"),
        })
        .collect();
    let by_stream = listen(&mut rig, stream);
    assert_eq!(by_socket.len(), 41);
    assert_eq!(by_stream.texts(), by_socket.iter().collect::<Vec<_>>());
    for (id, text) in &by_stream.events {
        let id = id.as_deref().expect("an id");
        let end = format!(".{}.{}", text["offset"], text["room"].as_str().expect("a room"));
        assert!(id.ends_with(&end), "{id}: {text}");
    }
}

#[test]
fn who_begins_to_listen_between_two_publications_of_one_turn_gets_the_second() {
    let mut rig = Rig::alone();
    let author = rig.member("r");
    rig.say(author, &publish(&["r"], "1"));
    let (stream, _) = {
        let conn = rig.accept().expect("let in");
        rig.receive(conn, b"GET /sse?room=r HTTP/1.1\r\nHost: a\r\n\r\n");
        rig.say(author, &publish(&["r"], "2"));
        rig.settle();
        (conn, rig.response(conn))
    };
    let listened = listen(&mut rig, stream);
    let payloads: Vec<&Value> = listened.texts().iter().map(|text| &text["payload"]).collect();
    assert_eq!(payloads[2..], [&Value::from(2)], "{listened:?}");
    assert_eq!(rig.published(author), [1, 2]);
}

#[test]
fn a_silent_stream_gets_comments_and_is_never_given_up_for_its_silence() {
    let mut rig = Rig::alone();
    let stream = listener(&mut rig, "room=r");
    for _ in 0..300 {
        rig.later(Duration::from_secs(1));
        rig.settle();
    }
    let listened = listen(&mut rig, stream);
    // 300 seconds at an interval of 25, the first one early.
    assert!((11..=13).contains(&listened.comments), "{listened:?}");
    assert!(listened.events.is_empty());
    assert_eq!(rig.shard.counters().stream_connections, 1);
}

#[test]
fn what_a_listener_says_is_passed_over_and_its_end_leaves_nothing() {
    let mut rig = Rig::alone();
    let stream = listener(&mut rig, "room=r&room=s");
    rig.receive(stream, b"GET /sse?room=t HTTP/1.1\r\nHost: a\r\n\r\n");
    rig.receive(stream, &[0x81, 0x80, 0, 0, 0, 0]);
    rig.settle();
    assert!(listen(&mut rig, stream).events.is_empty());
    rig.event(Event::ReceivedEnd { conn: stream });
    rig.settle();
    let counters = rig.shard.counters();
    assert_eq!((counters.connections, counters.stream_connections), (0, 0));
    assert_eq!((counters.memberships, counters.rooms), (0, 0));
}

#[test]
fn a_room_that_cannot_be_is_told_as_an_event_and_the_others_are_joined() {
    let mut rig = Rig::alone();
    let request = "GET /sse?room=throng%3Ax&room=r&room= HTTP/1.1\r\nHost: a\r\n\r\n";
    let (conn, _) = ask(&mut rig, request);
    let listened = listen(&mut rig, conn);
    let types: Vec<&Value> = listened.texts().iter().map(|text| &text["type"]).collect();
    assert_eq!(types, ["throng:connected", "throng:error", "throng:reply", "throng:error"]);
    assert_eq!(rig.shard.counters().memberships, 1);
}

#[test]
fn a_drain_tells_when_to_come_back_and_ends_the_stream_with_its_reason() {
    let mut rig = Rig::alone();
    let stream = listener(&mut rig, "room=r");
    listen(&mut rig, stream);
    rig.take(Mail::Drain(Duration::from_secs(10)));
    let (mut texts, mut retry) = (Vec::new(), None);
    for _ in 0..12 {
        rig.later(Duration::from_secs(1));
        rig.settle();
        let listened = listen(&mut rig, stream);
        retry = retry.or(listened.retry);
        texts.extend(listened.events.into_iter().map(|(_, text)| text));
    }
    assert_eq!(texts[0]["type"], "throng:reload");
    assert_eq!(texts[0]["reconnectDelayMs"].as_u64(), retry);
    assert_eq!((&texts[1]["type"], &texts[1]["code"]), (&"throng:close".into(), &1012.into()));
    assert_eq!(texts.len(), 2);
    rig.event(Event::ReceivedEnd { conn: stream });
    rig.settle();
    assert_eq!(rig.shard.counters().connections, 0);
}

#[test]
fn a_listener_too_slow_for_its_room_is_treated_by_the_rooms_policy_like_any_other() {
    let mut rig = Rig::alone();
    let stream = listener(&mut rig, "room=r");
    let author = rig.member("r");
    rig.stalled.insert(stream);
    for number in 0..60 {
        rig.say(author, &publish(&["r"], &format!("\"{number:0>100}\"")));
        rig.turn();
    }
    assert!(rig.shard.counters().dropped_oldest_total > 0);
    rig.stalled.clear();
    rig.settle();
    let listened = listen(&mut rig, stream);
    let lost: u64 = listened.texts().iter().filter_map(|text| text["lost"].as_u64()).sum();
    let got = listened.texts().iter().filter(|text| text.get("payload").is_some()).count();
    assert_eq!(got as u64 + lost, 60, "{listened:?}");
    assert_eq!(rig.published(author).len(), 60);
}

#[test]
fn a_preflight_is_answered_for_pages_that_may_connect_and_opens_nothing() {
    let mut rig = Rig::new(0, 1, settings());
    let request = "OPTIONS /sse?room=r HTTP/1.1\r\nHost: a\r\nOrigin: https://a\r\n\
        Access-Control-Request-Method: GET\r\n\r\n";
    let (conn, head) = ask(&mut rig, request);
    assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
    assert!(head.contains("\r\nAccess-Control-Allow-Origin: https://a\r\n"), "{head}");
    assert!(head.contains("\r\nAccess-Control-Allow-Headers: Authorization, "), "{head}");
    rig.event(Event::ReceivedEnd { conn });
    rig.later(Tick::LENGTH);
    rig.settle();
    let counters = rig.shard.counters();
    assert_eq!((counters.connections, counters.handshakes_total), (0, 0));
}
