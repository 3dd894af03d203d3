//! Each dialect's messages, and that scanning and parsing agree.

use proptest::prelude::*;

use super::*;

fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).expect("text")
}

fn publication<'a>(room: &'a str, offset: Option<u64>, payload: &'a str) -> Push<'a> {
    Push::Publication {
        room: Cow::Borrowed(room.as_bytes()),
        offset,
        payload: Cow::Borrowed(payload.as_bytes()),
    }
}

#[test]
fn commands_are_as_the_protocol_has_them() {
    let join = text(|out| assert!(Dialect::Throng.join("a\"b", 3, out)));
    assert_eq!(join, r#"{"type":"throng:join","room":"a\"b","ref":3}"#);
    let rejoin = text(|out| assert!(Dialect::Throng.rejoin("r", 3, ("ff", 7), out)));
    assert_eq!(
        rejoin,
        r#"{"type":"throng:join","room":"r","since":{"epoch":"ff","offset":7},"ref":3}"#
    );
    let publish = text(|out| Dialect::Throng.publish("r", b"abc", out));
    assert_eq!(publish, r#"{"type":"load","room":"r","payload":"abc"}"#);
    let ping = text(|out| assert!(Dialect::Throng.ping(4, out)));
    assert_eq!(ping, r#"{"type":"throng:ping","ref":4}"#);
    let join = text(|out| assert!(Dialect::SocketIo.join("r", 0, out)));
    assert_eq!(join, r#"42["join","r"]"#);
    let publish = text(|out| Dialect::SocketIo.publish("r", b"abc", out));
    assert_eq!(publish, r#"42["publish","r","abc"]"#);
    assert_eq!(text(|out| Dialect::SocketIo.echo(b"abc", out)), r#"42["echo","abc"]"#);
    assert_eq!(text(|out| Dialect::Plain.publish("r", b"abc", out)), "abc");
    assert_eq!(Dialect::Plain.path("/x", Role::Member("r")), "/room/r");
    assert_eq!(Dialect::Plain.path("/x", Role::Publisher("r")), "/publish/r");
    assert_eq!(Dialect::Throng.path("/x", Role::Echo), "/x");
}

#[test]
fn pushes_of_the_engine_are_understood() {
    let cases = [
        (r#"{"type":"throng:connected","clientId":"1-2a-7","userId":null}"#, Push::Connected),
        (
            r#"{"type":"throng:reply","ref":1,"ok":true,"room":"lobby","members":3,"offset":17,"epoch":"ff","recovered":true}"#,
            Push::Reply {
                reference: 1,
                ok: true,
                offset: Some(17),
                epoch: Some("ff".to_owned()),
                recovered: Some(true),
            },
        ),
        (
            r#"{"type":"load","room":"lobby","offset":18,"payload":"hello","from":"1-2a-7"}"#,
            publication("lobby", Some(18), "hello"),
        ),
        (
            r#"{"type":"load","room":"lobby","offset":0,"payload":"hello"}"#,
            publication("lobby", Some(0), "hello"),
        ),
        (
            r#"{"type":"load","room":"a\"b","offset":18,"payload":"x"}"#,
            publication("a\"b", Some(18), "x"),
        ),
        (r#"{"type":"throng:pong","ref":4,"time":1750000000000}"#, Push::Pong { reference: 4 }),
        (
            r#"{"type":"throng:gap","room":"ticker","lost":12}"#,
            Push::Gap { room: Cow::Borrowed(b"ticker"), lost: 12 },
        ),
        (
            r#"{"type":"throng:error","code":"overloaded","message":"m"}"#,
            Push::Error("overloaded".into()),
        ),
        (
            r#"{"type":"throng:resync","room":"r","reason":"too_old","epoch":"ff","offset":9}"#,
            Push::Error("begin anew: too_old".into()),
        ),
        (r#"{"type":"throng:reload","reconnectDelayMs":2500,"reason":"r"}"#, Push::Reload),
        (r#"{"type":"chat","room":"lobby","offset":18,"payload":{}}"#, Push::Ignored),
    ];
    for (text, push) in cases {
        assert_eq!(Dialect::Throng.parse(text.as_bytes(), false), Ok(push), "{text}");
    }
    for text in ["", "{", "[]", "{\"a\":1}", r#"{"type":"throng:reply","ok":true}"#] {
        assert!(Dialect::Throng.parse(text.as_bytes(), false).is_err(), "{text}");
    }
}

#[test]
fn packets_of_socket_io_are_understood() {
    let cases = [
        (r#"0{"sid":"x","upgrades":[]}"#, Push::Opened),
        (r#"40{"sid":"y"}"#, Push::Connected),
        ("2", Push::HeartbeatPing),
        (
            r#"42["joined","r"]"#,
            Push::Reply { reference: 0, ok: true, offset: None, epoch: None, recovered: None },
        ),
        (r#"42["m","r","abc"]"#, publication("r", None, "abc")),
        (r#"42["m", "r","a\u0062c"]"#, publication("r", None, "abc")),
        (r#"42["echo","abc"]"#, Push::Echo { payload: Cow::Borrowed(b"abc") }),
        (r#"42["other",1]"#, Push::Ignored),
        ("6", Push::Ignored),
    ];
    for (text, push) in cases {
        assert_eq!(Dialect::SocketIo.parse(text.as_bytes(), false), Ok(push), "{text}");
    }
    assert!(Dialect::SocketIo.parse(b"42[", false).is_err());
}

#[test]
fn a_dialect_is_read_by_its_name_or_refused() {
    for dialect in [Dialect::Throng, Dialect::Plain, Dialect::SocketIo] {
        assert_eq!(dialect.to_string().parse(), Ok(dialect));
    }
    assert!("mqtt".parse::<Dialect>().expect_err("none").contains("expected throng"));
}

#[test]
fn what_streams_say_about_themselves_is_understood() {
    let parse = |text: &'static str| Dialect::Throng.parse(text.as_bytes(), false);
    let listening = Push::Listening {
        offset: Some(17),
        epoch: Some("5bd1e995".to_owned()),
        recovered: Some(true),
    };
    let reply = r#"{"type":"throng:reply","ref":"join","ok":true,"room":"r","epoch":"5bd1e995","offset":17,"recovered":true}"#;
    assert_eq!(parse(reply), Ok(listening));
    let close = r#"{"type":"throng:close","code":1012,"reason":"the node restarts, reconnect"}"#;
    assert_eq!(parse(close), Ok(Push::Closing(1012)));
}

proptest! {
    #[test]
    fn the_order_of_fields_changes_nothing(
        room in "[ -~]{1,20}", offset in 0..1u64 << 53, payload in "[ -~]{0,40}", order in 0..24usize,
    ) {
        let mut fields = vec![
            ("type", serde_json::json!("load")),
            ("room", serde_json::json!(room)),
            ("offset", serde_json::json!(offset)),
            ("payload", serde_json::json!(payload)),
        ];
        let mut shuffled = Vec::new();
        let mut order = order;
        while !fields.is_empty() {
            let at = order % fields.len();
            order /= fields.len();
            shuffled.push(fields.remove(at));
        }
        let fields: Vec<String> =
            shuffled.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        let text = format!("{{{}}}", fields.join(","));
        let push = Dialect::Throng.parse(text.as_bytes(), false);
        prop_assert_eq!(push, Ok(publication(&room, Some(offset), &payload)));
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(
        head in prop::sample::select(vec!["", "{\"type\":\"load\",\"room\":\"", "42[\"m\",\"", "40"]),
        tail: Vec<u8>,
    ) {
        let bytes = [head.as_bytes(), &tail].concat();
        for dialect in [Dialect::Throng, Dialect::Plain, Dialect::SocketIo] {
            // Whatever it says, it says it without a panic.
            let _ = dialect.parse(&bytes, false);
        }
    }
}
