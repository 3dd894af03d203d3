//! What is read from messages that are in order, and what a session keeps.

use std::borrow::Cow;

use super::super::protocol::JSON_V1;
use super::super::*;

fn request(text: &str) -> Request<'_> {
    parse(text, &CommandLimits::default()).expect(text)
}

fn publish(text: &str) -> Publish<'_> {
    match request(text).command {
        Command::Publish(publish) => publish,
        other => panic!("{text} was read as {other:?}"),
    }
}

#[test]
fn commands_name_their_room() {
    let read = |kind: &str| {
        let text = format!(r#"{{"type":"throng:{kind}","room":"lobby","ref":1}}"#);
        match request(&text).command {
            Command::Join { room } => ("join", room.into_owned()),
            Command::Leave { room } => ("leave", room.into_owned()),
            Command::Members { room } => ("members", room.into_owned()),
            other => panic!("{text} was read as {other:?}"),
        }
    };
    for kind in ["join", "leave", "members"] {
        assert_eq!(read(kind), (kind, "lobby".to_owned()));
    }
}

#[test]
fn a_ping_needs_no_room_and_a_status_says_which() {
    assert!(matches!(request(r#"{"type":"throng:ping"}"#).command, Command::Ping));
    for status in [Status::Active, Status::Idle] {
        let text = format!(r#"{{"status":"{}","type":"throng:status"}}"#, status.as_str());
        assert!(matches!(request(&text).command, Command::Status(read) if read == status));
    }
}

#[test]
fn a_reference_is_kept_as_it_was_written() {
    for written in [r#""a\u0062""#, "7", "-1.50e+3", "9007199254740993", r#""""#] {
        let text = format!(r#"{{"type":"throng:ping","ref": {written} }}"#);
        assert_eq!(request(&text).reference.expect("a ref").get(), written);
    }
    assert!(request(r#"{"type":"throng:ping"}"#).reference.is_none());
}

#[test]
fn a_publication_keeps_type_payload_and_id_as_they_were_written() {
    let text = r#" { "type" : "ch\u0061t","room":"lobby", "id": 1.0,"key":"k",
        "payload": {"a" : [1, 2.50, "\ud800"],"a":null} , "except":["0-1-2"] } "#;
    let read = publish(text);
    assert_eq!(read.kind.get(), r#""ch\u0061t""#);
    assert_eq!(read.payload.expect("given").get(), r#"{"a" : [1, 2.50, "\ud800"],"a":null}"#);
    assert_eq!(read.id.expect("given").get(), "1.0");
    assert_eq!(read.key.as_deref(), Some("k"));
    assert_eq!(read.except.as_slice(), ["0-1-2".parse().expect("an address")]);
}

#[test]
fn a_publication_needs_nothing_but_a_room() {
    let read = publish(r#"{"type":"typing","room":"lobby"}"#);
    assert!(read.payload.is_none() && read.id.is_none() && read.key.is_none());
    assert!(read.except.is_empty());
}

#[test]
fn several_rooms_are_named_once_each() {
    let read = publish(r#"{"type":"chat","rooms":["a","b","a","\u0062","c"]}"#);
    assert_eq!(read.rooms.as_slice(), ["a", "b", "c"]);
}

#[test]
fn names_borrow_from_the_message_unless_they_have_escapes() {
    let plain = publish(r#"{"type":"chat","rooms":["a","b"],"key":"k"}"#);
    assert!(plain.rooms.iter().all(|room| matches!(room, Cow::Borrowed(_))));
    assert!(!plain.rooms.spilled() && matches!(plain.key, Some(Cow::Borrowed(_))));
    let escaped = publish(r#"{"type":"chat","\u0072oom":"caf\u00e9 \"5\""}"#);
    assert_eq!(escaped.rooms.as_slice(), ["café \"5\""]);
}

#[test]
fn limits_are_met_exactly() {
    let limits = CommandLimits {
        max_depth: 2,
        max_keys: 7,
        max_room_bytes: 4,
        max_rooms: 2,
        max_except: 1,
        max_type_bytes: 3,
        max_id_bytes: 5,
        max_page: 7,
        allow_panic: false,
    };
    let text = r#"{"type":"abc","rooms":["caf","abcd"],"id":"123","ref":12345,
        "key":"12345","except":["0-0-0"],"payload":[]}"#;
    parse(text, &limits).expect("every limit is met and none exceeded");
}

#[test]
fn a_panic_is_obeyed_only_where_it_is_allowed() {
    let text = r#"{"type":"throng:panic"}"#;
    let allowed = CommandLimits { allow_panic: true, ..CommandLimits::default() };
    assert!(matches!(parse(text, &allowed).expect("allowed").command, Command::Panic));
    let refused = parse(text, &CommandLimits::default()).expect_err("not allowed");
    assert_eq!(refused.code, Code::UnknownCommand);
    assert!(!refused.message.contains("did you mean `throng:panic`"), "{refused}");
}

#[test]
fn a_client_that_offers_nothing_speaks_json_unnamed() {
    let agreed = Protocol::from_subprotocol(&[]).expect("the default");
    assert_eq!(agreed, Agreement { protocol: Protocol::Json, echo: None });
}

#[test]
fn a_client_is_answered_with_the_protocol_it_offered_or_with_none() {
    let agreed = Protocol::from_subprotocol(&["soap", JSON_V1]).expect("known");
    assert_eq!(agreed, Agreement { protocol: Protocol::Json, echo: Some(JSON_V1) });
    for unknown in ["soap", "throng.v2.json", "THRONG.V1.JSON", "echo", ""] {
        assert_eq!(Protocol::from_subprotocol(&[unknown]), None, "{unknown}");
    }
}

#[test]
fn a_session_is_one_byte_and_keeps_the_status() {
    assert_eq!(size_of::<Session>(), 1);
    let mut session = Session::new(Protocol::Json);
    assert_eq!((session.protocol(), session.status()), (Protocol::Json, Status::Active));
    session.set_status(Status::Idle);
    assert_eq!(session.status(), Status::Idle);
    let mut echo = Session::new(Protocol::Echo);
    echo.set_status(Status::Idle);
    assert_eq!((echo.protocol(), echo.status()), (Protocol::Echo, Status::Active));
}

#[test]
fn an_echo_bounces_whatever_comes() {
    let limits = CommandLimits::default();
    let echo = Session::new(Protocol::Echo);
    assert!(matches!(echo.handle_text("not json", &limits), Ok(Incoming::Bounce)));
    assert!(matches!(echo.handle_binary(), Ok(Incoming::Bounce)));
}

#[test]
fn a_json_session_reads_requests() {
    let session = Session::new(Protocol::Json);
    let read = session.handle_text(r#"{"type":"throng:ping"}"#, &CommandLimits::default());
    assert!(matches!(read, Ok(Incoming::Request(Request { command: Command::Ping, .. }))));
}
