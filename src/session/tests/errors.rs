//! Every mistake has a code, and a message that names what is wrong.

use super::super::*;

/// Parses what must be refused with `code` and a message that contains each of `named`.
fn refused(text: &str, code: Code, named: &[&str]) -> CommandError {
    let error = parse(text, &CommandLimits::default()).expect_err(text);
    assert_eq!(error.code, code, "{text}: {error}");
    for part in named {
        assert!(error.message.contains(part), "{text}: {error} does not name {part}");
    }
    error
}

#[test]
fn what_is_not_json_is_refused() {
    for text in ["", "{", "hello", r#"{"type":}"#, r#"{"type":"x"} x"#, "{'type':1}", "\u{0}"] {
        refused(text, Code::BadJson, &["not JSON"]);
    }
    refused(r#"{"type":"throng:ping","ref":01}"#, Code::BadJson, &["line 1 column"]);
}

#[test]
fn what_is_no_object_is_refused() {
    for text in ["[]", "1", "\"x\"", "null", " true "] {
        refused(text, Code::NotAnObject, &[text.trim(), "not an object"]);
    }
}

#[test]
fn a_message_one_level_too_deep_is_refused() {
    let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let text = |levels| format!(r#"{{"type":"x","room":"r","payload":{}}}"#, nested(levels));
    parse(&text(31), &CommandLimits::default()).expect("32 levels in all");
    refused(&text(32), Code::TooDeep, &["32 levels"]);
    refused(&"[".repeat(1 << 20), Code::TooDeep, &["32 levels"]);
}

#[test]
fn a_message_with_one_key_too_many_is_refused() {
    let text = |keys: usize| {
        let pairs: Vec<String> = (0..keys - 3).map(|key| format!(r#""k{key}":":{{[""#)).collect();
        let inner = pairs.join(",");
        format!(r#"{{"type":"x","room":"r","payload":{{{inner}}}}}"#)
    };
    parse(&text(256), &CommandLimits::default()).expect("256 keys in all");
    refused(&text(257), Code::TooManyKeys, &["256 keys"]);
}

#[test]
fn an_unknown_command_is_refused_with_the_nearest_one() {
    refused(r#"{"type":"throng:jion"}"#, Code::UnknownCommand, &["throng:jion", "`throng:join`"]);
    refused(r#"{"type":"throng:"}"#, Code::UnknownCommand, &["join, leave, ping, status, members"]);
    refused(r#"{"type":"throng:connected"}"#, Code::UnknownCommand, &["throng:connected"]);
}

#[test]
fn a_type_that_is_missing_or_no_name_is_refused() {
    refused(r#"{"room":"lobby"}"#, Code::MissingField, &["`type`"]);
    for value in ["1", "null", "\"\"", "[\"chat\"]", &format!("{:?}", "t".repeat(65))] {
        let text = format!(r#"{{"type":{value},"room":"lobby"}}"#);
        refused(&text, Code::BadField, &["`type`", &value[..value.len().min(40)]]);
    }
}

#[test]
fn a_field_that_does_not_belong_is_refused_with_the_nearest_one() {
    let misspelled = r#"{"type":"chat","room":"lobby","excpet":[]}"#;
    refused(misspelled, Code::UnknownField, &["`excpet`", "did you mean `except`?"]);
    let foreign = r#"{"type":"throng:join","room":"lobby","payload":1}"#;
    refused(foreign, Code::UnknownField, &["throng:join", "`payload`", "type, room, since, ref"]);
    let strange = r#"{"type":"throng:ping","verbosity":9}"#;
    refused(strange, Code::UnknownField, &["`verbosity`", "it has type, ref"]);
}

#[test]
fn a_field_that_comes_twice_is_refused() {
    let text = r#"{"type":"chat","room":"a","room":"b","ref":1}"#;
    refused(text, Code::RepeatedField, &["`room`"]);
    refused(r#"{"type":"chat","typ\u0065":"chat"}"#, Code::RepeatedField, &["`type`"]);
}

#[test]
fn a_command_without_its_room_or_status_is_refused() {
    for kind in ["throng:join", "throng:leave", "throng:members"] {
        refused(&format!(r#"{{"type":"{kind}"}}"#), Code::MissingField, &[kind, "`room`"]);
    }
    refused(r#"{"type":"throng:status"}"#, Code::MissingField, &["`status`"]);
}

#[test]
fn a_name_that_no_room_may_have_is_refused() {
    let long = format!("{:?}", "é".repeat(65));
    for value in ["null", "7", r#""""#, r#""a\nb""#, r#""throng:x""#, r#""a\u0085""#, &long] {
        let join = format!(r#"{{"type":"throng:join","room":{value}}}"#);
        refused(&join, Code::BadField, &["`room`"]);
        let publish = format!(r#"{{"type":"chat","rooms":["ok",{value}]}}"#);
        refused(&publish, Code::BadField, &["`rooms`"]);
    }
    refused(r#"{"type":"throng:join","room":"throng:x"}"#, Code::BadField, &["\"throng:x\""]);
}

#[test]
fn a_publication_to_no_room_is_refused() {
    refused(r#"{"type":"chat","payload":1}"#, Code::NoRoom, &["`room`"]);
    refused(r#"{"type":"chat","rooms":[]}"#, Code::NoRoom, &["at least one"]);
}

#[test]
fn a_publication_to_too_many_rooms_or_to_both_kinds_is_refused() {
    let rooms: Vec<String> = (0..17).map(|room| format!("\"{room}\"")).collect();
    let text = format!(r#"{{"type":"chat","rooms":[{}]}}"#, rooms.join(","));
    refused(&text, Code::TooManyRooms, &["17 rooms", "at most 16"]);
    refused(r#"{"type":"chat","room":"a","rooms":["b"]}"#, Code::BadField, &["`rooms`", "[\"b\"]"]);
}

#[test]
fn a_list_that_is_no_list_of_strings_is_refused() {
    for value in ["\"a\"", "[1]", "{}", "null", "[\"a\",null]"] {
        let text = format!(r#"{{"type":"chat","rooms":{value}}}"#);
        refused(&text, Code::BadField, &["`rooms`", value]);
    }
}

#[test]
fn an_exception_that_is_no_connection_is_refused() {
    let text = r#"{"type":"chat","room":"a","except":["0-1-2","bob"]}"#;
    refused(text, Code::BadField, &["`except`", "\"bob\"", "clientId"]);
    let many = vec!["\"0-1-2\""; 65].join(",");
    let text = format!(r#"{{"type":"chat","room":"a","except":[{many}]}}"#);
    refused(&text, Code::BadField, &["`except`", "65", "at most 64"]);
}

#[test]
fn a_token_that_is_neither_string_nor_number_or_too_long_is_refused() {
    let long = format!("{:?}", "x".repeat(63));
    for value in ["null", "true", "{}", "[1]", &long] {
        let text = format!(r#"{{"type":"chat","room":"a","id":{value}}}"#);
        refused(&text, Code::BadField, &["`id`", "at most 64 bytes"]);
        let text = format!(r#"{{"type":"throng:ping","ref":{value}}}"#);
        assert!(refused(&text, Code::BadField, &["`ref`"]).reference.is_none());
    }
}

#[test]
fn a_key_that_is_no_short_string_is_refused() {
    for value in ["1", "\"\"", "null", &format!("{:?}", "k".repeat(65))] {
        let text = format!(r#"{{"type":"chat","room":"a","key":{value}}}"#);
        refused(&text, Code::BadField, &["`key`"]);
    }
}

#[test]
fn a_status_that_does_not_exist_is_refused() {
    let text = r#"{"type":"throng:status","status":"away"}"#;
    refused(text, Code::BadField, &["`status`", "\"away\"", "\"idle\""]);
}

#[test]
fn a_binary_message_is_refused_where_the_protocol_is_text() {
    let error = Session::new(Protocol::Json).handle_binary().expect_err("text only");
    assert_eq!(error.code, Code::BinaryUnsupported);
}

#[test]
fn an_error_names_the_command_it_answers() {
    let text = r#"{"room":7,"type":"throng:join","ref":"j-1"}"#;
    let error = refused(text, Code::BadField, &["`room` is 7"]);
    assert_eq!(error.reference.expect("a ref").get(), "\"j-1\"");
}

#[test]
fn a_long_value_is_shown_in_part() {
    let text = format!(r#"{{"type":"throng:join","room":{{"é":{:?}}}}}"#, "é".repeat(10_000));
    let error = refused(&text, Code::BadField, &["..."]);
    assert!(error.message.len() < 200, "{error}");
}

#[test]
fn codes_differ_from_each_other() {
    for (at, code) in Code::ALL.iter().enumerate() {
        assert!(Code::ALL[..at].iter().all(|other| other.as_str() != code.as_str()), "{code}");
    }
}
