//! What is read from messages that are in order, and what a session keeps.

use std::borrow::Cow;

use super::super::protocol::JSON_V1;
use super::super::*;
use crate::base::cursor::Cursor;

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
            Command::Join { room, since: None } => ("join", room.into_owned()),
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
    assert_eq!(read.except.expect("given").connections, ["0-1-2".parse().expect("an address")]);
}

#[test]
fn a_publication_needs_nothing_but_a_room() {
    let read = publish(r#"{"type":"typing","room":"lobby"}"#);
    assert!(read.payload.is_none() && read.id.is_none() && read.key.is_none());
    assert!(read.except.is_none());
}

#[test]
fn several_rooms_are_named_once_each() {
    let read = publish(r#"{"type":"chat","rooms":["a","b","a","\u0062","c"]}"#);
    assert_eq!(read.targets.rooms.as_slice(), ["a", "b", "c"]);
}

#[test]
fn names_borrow_from_the_message_unless_they_have_escapes() {
    let plain = publish(r#"{"type":"chat","rooms":["a","b"],"key":"k"}"#);
    assert!(plain.targets.rooms.iter().all(|room| matches!(room, Cow::Borrowed(_))));
    assert!(!plain.targets.rooms.spilled() && matches!(plain.key, Some(Cow::Borrowed(_))));
    let escaped = publish(r#"{"type":"chat","\u0072oom":"caf\u00e9 \"5\""}"#);
    assert_eq!(escaped.targets.rooms.as_slice(), ["café \"5\""]);
}

#[test]
fn limits_are_met_exactly() {
    let limits = CommandLimits {
        max_depth: 2,
        max_keys: 7,
        max_room_bytes: 4,
        max_rooms: 2,
        audience: command::AudienceLimits { targets: 1, except: 1 },
        max_users: 1,
        max_type_bytes: 3,
        max_id_bytes: 5,
        max_page: 7,
        max_restore: 1,
        max_history: 1,
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

#[test]
fn a_cursor_is_an_epoch_and_an_offset_and_nothing_else() {
    let since = |text: &str| match parse(
        &format!(r#"{{"type":"throng:join","room":"r","since":{text}}}"#),
        &CommandLimits::default(),
    ) {
        Ok(Request { command: Command::Join { since, .. }, .. }) => Ok(since.expect("given")),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.code),
    };
    let at = |epoch, offset| Ok(Cursor { epoch, offset });
    assert_eq!(since(r#"{"epoch":"ff","offset":7}"#), at(255, 7));
    assert_eq!(since(r#"{"offset":0,"epoch":"ffffffffffffffff"}"#), at(u64::MAX, 0));
    for foreign in ["", "+1", "xyz", "00000000000000001", "0x1"] {
        let text = format!(r#"{{"epoch":"{foreign}","offset":7}}"#);
        assert_eq!(since(&text), at(u64::MAX, 7), "{foreign} is nobody's epoch");
    }
    for wrong in [
        "null",
        "7",
        r#"{"epoch":"1"}"#,
        r#"{"offset":1}"#,
        r#"{"epoch":1,"offset":1}"#,
        r#"{"epoch":"1","offset":-1}"#,
        r#"{"epoch":"1","offset":1.5}"#,
        r#"{"epoch":"1","offset":1,"x":1}"#,
        r#"{"epoch":"1","offset":1,"offset":1}"#,
    ] {
        assert_eq!(since(wrong), Err(Code::BadField), "{wrong}");
    }
}

#[test]
fn a_restore_names_rooms_with_cursors_and_may_have_the_keys_for_all_of_them() {
    let limits = CommandLimits::default();
    let room = |at: usize| format!(r#"{{"room":"r{at}","since":{{"epoch":"a","offset":{at}}}}}"#);
    let restore = |rooms: usize| {
        let rooms: Vec<String> = (0..rooms).map(room).collect();
        format!(r#"{{"type":"throng:restore","rooms":[{}],"ref":1}}"#, rooms.join(","))
    };
    let text = restore(limits.max_restore);
    let Command::Restore { rooms } = parse(&text, &limits).expect("as many as may be").command
    else {
        panic!("{text}")
    };
    assert_eq!(rooms.len(), limits.max_restore);
    assert_eq!(rooms[7].since, Some(Cursor { epoch: 10, offset: 7 }));
    let code = |text: &str| parse(text, &limits).expect_err(text).code;
    assert_eq!(code(&restore(limits.max_restore + 1)), Code::TooManyKeys);
    let plain = r#"{"room":"a"},"#.repeat(limits.max_restore) + r#"{"room":"a"}"#;
    for (rooms, expected) in [
        (plain.as_str(), Code::BadField),
        ("", Code::BadField),
        ("1", Code::BadField),
        (r#"{"room":1}"#, Code::BadField),
        (r#"{"room":"a","since":null}"#, Code::BadField),
        (r#"{"room":"a","sinse":{"epoch":"a","offset":1}}"#, Code::BadField),
        (r#"{"since":{"epoch":"a","offset":1}}"#, Code::BadField),
    ] {
        let text = format!(r#"{{"type":"throng:restore","rooms":[{rooms}]}}"#);
        assert_eq!(code(&text), expected, "{rooms}");
    }
    let keys: Vec<String> = (0..300).map(|at| format!(r#""k{at}":1"#)).collect();
    let other = format!(r#"{{"type":"x","room":"r","payload":{{{}}}}}"#, keys.join(","));
    assert_eq!(code(&other), Code::TooManyKeys, "no other message has more keys than before");
}

#[test]
fn pages_and_lifetimes_are_whole_numbers_within_their_bounds() {
    let code = |text: &str| parse(text, &CommandLimits::default()).expect_err(text).code;
    let page = request(r#"{"type":"throng:history","room":"r","before":9,"limit":5}"#).command;
    assert!(matches!(page, Command::History { before: Some(9), limit: 5, .. }), "{page:?}");
    let page = request(r#"{"type":"throng:history","room":"r"}"#).command;
    assert!(matches!(page, Command::History { before: None, limit: 100, .. }), "{page:?}");
    for field in [r#""limit":0"#, r#""limit":101"#, r#""limit":"5""#, r#""before":-1"#] {
        let text = format!(r#"{{"type":"throng:history","room":"r",{field}}}"#);
        assert_eq!(code(&text), Code::BadField, "{field}");
    }
    let ttl = publish(r#"{"type":"x","room":"r","ttlMs":1500}"#).ttl;
    assert_eq!(ttl, Some(std::time::Duration::from_millis(1500)));
    for field in [r#""ttlMs":0"#, r#""ttlMs":1e99"#, r#""ttlMs":"1""#, r#""ttlMs":31536000001"#] {
        assert_eq!(
            code(&format!(r#"{{"type":"x","room":"r",{field}}}"#)),
            Code::BadField,
            "{field}"
        );
    }
}
