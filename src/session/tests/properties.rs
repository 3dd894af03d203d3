//! Properties over arbitrary messages, against serde_json's own tree as the naive twin.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::encode::Push;
use super::super::object::string;
use super::super::scan::{Excess, scan};
use super::super::*;

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        r#"[\\":{}\[\],]{0,6}"#.prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec((any::<String>(), inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// A JSON value as text, compact or laid out with spaces and line ends.
fn any_json_text() -> impl Strategy<Value = String> {
    (any_json(), any::<bool>())
        .prop_map(|(value, pretty)| if pretty { format!("{value:#}") } else { value.to_string() })
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(pairs) => 1 + pairs.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn keys(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(keys).sum(),
        Value::Object(pairs) => pairs.len() + pairs.values().map(keys).sum::<usize>(),
        _ => 0,
    }
}

/// A string as JSON with every character escaped.
fn escaped(text: &str) -> String {
    let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    format!("\"{units}\"")
}

fn unlimited() -> CommandLimits {
    CommandLimits { max_depth: usize::MAX, max_keys: usize::MAX, ..CommandLimits::default() }
}

proptest! {
    #[test]
    fn the_scan_counts_what_a_tree_counts(value in any_json(), pretty: bool) {
        let text = if pretty { format!("{value:#}") } else { value.to_string() };
        let (depth, keys) = (depth(&value), keys(&value));
        prop_assert_eq!(scan(&text, depth, keys), Ok(keys));
        if depth > 0 {
            prop_assert_eq!(scan(&text, depth - 1, keys), Err(Excess::Depth));
        }
        if keys > 0 {
            prop_assert_eq!(scan(&text, depth, keys - 1), Err(Excess::Keys));
        }
    }

    #[test]
    fn a_payload_travels_untouched(payload in any_json_text(), room in "[a-z\u{e9}\"\\\\ ]{1,9}") {
        let text = format!(r#"{{"payload":{payload},"room":{},"type":"x"}}"#, json!(room));
        let request = parse(&text, &unlimited()).expect("a publication");
        let Command::Publish(publish) = request.command else { panic!("{text}") };
        prop_assert_eq!(publish.payload.map(serde_json::value::RawValue::get), Some(&*payload));
        let mut out = Vec::new();
        let push = Push {
            kind: publish.kind,
            whom: encode::Whom::Room(&publish.targets.rooms[0]),
            offset: 1,
            payload: publish.payload,
            id: None,
            from: None,
        };
        encode::publication(&mut out, &push);
        let expected =
            format!(r#"{{"type":"x","room":{},"offset":1,"payload":{payload}}}"#, json!(room));
        prop_assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
    }

    #[test]
    fn a_name_is_the_same_however_it_is_escaped(room in "[^\\p{Cc}]{1,20}") {
        prop_assume!(room.len() <= 128 && !room.starts_with("throng:"));
        for written in [json!(room).to_string(), escaped(&room)] {
            let text = format!(r#"{{"type":"throng:join","room":{written}}}"#);
            let request = parse(&text, &CommandLimits::default()).expect("a join");
            let Command::Join { room: read, .. } = request.command else { panic!("{text}") };
            prop_assert_eq!(&*read, &*room);
        }
    }

    #[test]
    fn a_written_string_reads_back(text: String) {
        let mut out = Vec::new();
        string(&mut out, &text);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).expect("a string"), text);
    }

    #[test]
    fn any_text_is_read_or_refused_without_a_panic(text: String) {
        let _ = parse(&text, &CommandLimits::default());
    }

    #[test]
    fn any_object_is_read_or_refused_and_the_answer_is_json(
        fields in vec(
            (
                prop_oneof![
                    Just("type"), Just("room"), Just("rooms"), Just("payload"), Just("id"),
                    Just("ref"), Just("key"), Just("except"), Just("status"), Just("romo"),
                ],
                prop_oneof![
                    any_json_text(),
                    Just("\"lobby\"".to_owned()),
                    Just("[\"a\",\"b\"]".to_owned()),
                    Just("\"throng:join\"".to_owned()),
                    Just("\"throng:status\"".to_owned()),
                    Just("\"idle\"".to_owned()),
                    Just("[\"0-0-0\"]".to_owned()),
                    Just("7".to_owned()),
                ],
            ),
            0..6,
        ),
        cut in any::<prop::sample::Index>(),
        whole: bool,
    ) {
        let pairs: Vec<String> =
            fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        let mut text = format!("{{{}}}", pairs.join(","));
        if !whole {
            text.truncate(text.floor_char_boundary(cut.index(text.len())));
        }
        let Err(error) = parse(&text, &CommandLimits::default()) else { return Ok(()) };
        let mut out = Vec::new();
        encode::error(&mut out, &error);
        let answer: Value = serde_json::from_slice(&out).expect("an error is JSON");
        prop_assert_eq!(&answer["code"], error.code.as_str());
        prop_assert!(error.message.len() < 400, "{}", error);
    }
}
