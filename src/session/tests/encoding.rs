//! What the server says, byte for byte.

use serde_json::value::RawValue;

use super::super::encode::{Connected, Push, Reply};
use super::super::*;
use crate::base::id::{ConnAddress, ConnId, ShardId};

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).expect("JSON")
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = b"before:".to_vec();
    write(&mut out);
    let text = String::from_utf8(out).expect("UTF-8");
    text.strip_prefix("before:").expect("what was there before").to_owned()
}

const CLIENT: ConnAddress = ConnAddress::alone(ShardId(1), ConnId { index: 0x2a, generation: 7 });

#[test]
fn the_first_push_says_who_the_client_is_and_what_holds() {
    let fields = Connected {
        client: CLIENT,
        user: None,
        session_epoch: u64::MAX,
        ping_interval_ms: 25_000,
        ping_timeout_ms: 20_000,
        max_message_bytes: 65_536,
        max_rooms: 100,
        max_rooms_per_publish: 16,
        protocol: Protocol::Json,
    };
    assert_eq!(
        written(|out| encode::connected(out, &fields)),
        concat!(
            r#"{"type":"throng:connected","clientId":"1-2a-7","userId":null,"#,
            r#""sessionEpoch":"ffffffffffffffff","#,
            r#""heartbeat":{"intervalMs":25000,"timeoutMs":20000},"#,
            r#""limits":{"maxMessageBytes":65536,"maxRooms":100,"maxRoomsPerPublish":16},"#,
            r#""protocol":"throng.v1.json"}"#
        )
    );
    let known = Connected { user: Some("a\"b"), ..fields };
    assert!(written(|out| encode::connected(out, &known)).contains(r#""userId":"a\"b","#));
}

#[test]
fn a_reply_carries_the_reference_as_it_was_written() {
    let reference = raw(r#""j\u0031""#);
    let joined =
        Reply::Joined { room: "lobby", members: 3, offset: 17, epoch: 255, recovered: None };
    let expected = [
        (joined, r#","room":"lobby","members":3,"offset":17,"epoch":"ff""#),
        (Reply::Left { room: "a\\b" }, r#","room":"a\\b""#),
        (Reply::Published, ""),
        (Reply::Status(Status::Idle), r#","status":"idle""#),
        (Reply::Members { room: "r", members: 0 }, r#","room":"r","members":0"#),
    ];
    for (reply, fields) in expected {
        let text = written(|out| assert!(encode::reply(out, Some(&reference), &reply)));
        let whole = format!(r#"{{"type":"throng:reply","ref":"j\u0031","ok":true{fields}}}"#);
        assert_eq!(text, whole);
    }
}

#[test]
fn without_a_reference_only_a_question_is_answered() {
    let silent = [Reply::Left { room: "r" }, Reply::Published, Reply::Status(Status::Active)];
    for reply in silent {
        assert_eq!(written(|out| assert!(!encode::reply(out, None, &reply))), "");
    }
    let members = Reply::Members { room: "r", members: 2 };
    assert_eq!(
        written(|out| assert!(encode::reply(out, None, &members))),
        r#"{"type":"throng:reply","ok":true,"room":"r","members":2}"#
    );
}

#[test]
fn pushes_of_the_engine_are_flat_objects() {
    assert_eq!(
        written(|out| encode::pong(out, Some(&raw("9")), 1_700_000_000_123)),
        r#"{"type":"throng:pong","ref":9,"time":1700000000123}"#
    );
    assert_eq!(written(|out| encode::pong(out, None, 0)), r#"{"type":"throng:pong","time":0}"#);
    assert_eq!(
        written(|out| encode::gap(out, encode::Whom::Room("ticker"), 12)),
        r#"{"type":"throng:gap","room":"ticker","lost":12}"#
    );
    assert_eq!(
        written(|out| encode::reload(out, 2_500, "restart")),
        r#"{"type":"throng:reload","reconnectDelayMs":2500,"reason":"restart"}"#
    );
}

#[test]
fn an_error_is_answered_with_code_message_and_reference() {
    let error = CommandError::new(Code::NotMember, "say \"join\"\nfirst", Some(&raw("1e3")));
    assert_eq!(
        written(|out| encode::error(out, &error)),
        r#"{"type":"throng:error","ref":1e3,"code":"not_member","message":"say \"join\"\nfirst"}"#
    );
    let anonymous = CommandError::new(Code::Overloaded, "later", None);
    assert_eq!(
        written(|out| encode::error(out, &anonymous)),
        r#"{"type":"throng:error","code":"overloaded","message":"later"}"#
    );
}

#[test]
fn a_publication_reaches_its_readers_as_its_author_wrote_it() {
    let (kind, payload, id) = (raw(r#""ch\u0061t""#), raw("{ \"a\" :1.0 }"), raw("\"m1\""));
    let push = Push {
        kind: &kind,
        whom: encode::Whom::Room("lobby"),
        offset: 17,
        payload: Some(&payload),
        id: Some(&id),
        from: Some(CLIENT),
    };
    assert_eq!(
        written(|out| encode::publication(out, &push)),
        concat!(
            r#"{"type":"ch\u0061t","room":"lobby","offset":17,"payload":{ "a" :1.0 },"#,
            r#""id":"m1","from":"1-2a-7"}"#
        )
    );
    let bare = Push { payload: None, id: None, from: None, ..push };
    assert_eq!(
        written(|out| encode::publication(out, &bare)),
        r#"{"type":"ch\u0061t","room":"lobby","offset":17}"#
    );
}

/// Between tokens only: what a string says of line breaks is written with escapes.
#[test]
fn a_cr_between_the_tokens_of_a_payload_becomes_a_line_feed_for_every_reader() {
    let kind = raw("\"t\"");
    for (sent, got) in [
        (
            "{\r\n  \"a\": \"x\\r\\ny\",\r\n  \"b\": 1\r\n}",
            "{\n  \"a\": \"x\\r\\ny\",\n  \"b\": 1\n}",
        ),
        ("[1,\r2,\r\r3,\n\r4,\r\n\n5\r]", "[1,\n2,\n\n3,\n\n4,\n\n5\n]"),
        ("[1,\n2]", "[1,\n2]"),
    ] {
        let payload = raw(sent);
        let whom = encode::Whom::Everyone;
        let push =
            Push { kind: &kind, whom, offset: 0, payload: Some(&payload), id: None, from: None };
        let text = written(|out| encode::publication(out, &push));
        assert_eq!(text, format!(r#"{{"type":"t","everyone":true,"payload":{got}}}"#));
        let packet = written(|out| packets::publication(out, &push, None));
        assert_eq!(packet, format!(r#"42["t",{got},{{"everyone":true}}]"#));
    }
}

#[test]
fn an_object_without_fields_is_still_an_object() {
    assert_eq!(written(|out| super::super::object::Object::begin(out).end()), "{}");
}
