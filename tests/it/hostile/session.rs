//! Messages in order as frames, and wrong as messages.

use super::arena::{Arena, Case};
use super::peer::{End, masked, text};
use crate::support::on_both_drivers;

fn case<'a>(name: &'a str, message: &str, code: &'static str) -> Case<'a> {
    (name, text(message), End::Error(code))
}

/// What is not JSON, or no object.
fn not_json() -> Vec<Case<'static>> {
    let texts = [
        "",
        " ",
        "{",
        "}",
        "{}{}",
        "{\"type\"}",
        "{\"type\":}",
        "{\"type\":\"x\",}",
        "{type:\"x\"}",
        "{'type':'x'}",
        "{\"type\":\"x\" \"room\":\"r\"}",
        "{\"type\":\"x\",,\"room\":\"r\"}",
        "{\"type\":tru}",
        "{\"type\":NaN}",
        "{\"type\":01}",
        "{\"type\":+1}",
        "{\"type\":1.}",
        "{\"type\":\"\\x\"}",
        "{\"type\":\"\\u12\"}",
        "{\"type\":\"a\nb\"}",
        "{\"type\":\"\0\"}",
        "\u{feff}{\"type\":\"x\"}",
        "{\"type\":\"x\"}\0",
        "// no\n{}",
        "{\"type\":\"x",
        "{\"type\":\"x\",\"room\":\"r\",\"payload\":[1,2}",
        "{\"type\":\"x\",\"room\":\"r\",\"payload\":{\"a\":1]}",
    ];
    let mut cases: Vec<Case<'_>> =
        texts.map(|text| case("a text that is not JSON", text, "bad_json")).to_vec();
    let values = ["[]", "null", "1", "-0", "true", "\"throng:ping\"", "[{\"type\":\"x\"}]"];
    cases.extend(values.map(|text| case("a value that is no object", text, "not_an_object")));
    cases
}

/// Objects that nest too deep or have too many keys.
fn too_much() -> Vec<Case<'static>> {
    let nest = |open: &str, middle: &str, close: &str, times: usize| {
        let payload = format!("{}{middle}{}", open.repeat(times), close.repeat(times));
        format!("{{\"type\":\"x\",\"room\":\"r\",\"payload\":{payload}}}")
    };
    let keys: Vec<String> = (0..300).map(|n| format!("\"k{n}\":{n}")).collect();
    let keys = format!("{{\"type\":\"x\",\"room\":\"r\",\"payload\":{{{}}}}}", keys.join(","));
    let rooms: Vec<String> = (0..17).map(|n| format!("\"r{n}\"")).collect();
    let rooms = format!("{{\"type\":\"x\",\"rooms\":[{}]}}", rooms.join(","));
    let except = vec!["\"0-0-0\""; 65].join(",");
    vec![
        case("thirty thousand arrays", &nest("[", "", "]", 30_000), "too_deep"),
        case("thirty thousand arrays left open", &nest("[", "", "", 30_000), "too_deep"),
        case("ten thousand objects", &nest("{\"a\":", "1", "}", 10_000), "too_deep"),
        case("one level too many", &nest("[", "", "]", 32), "too_deep"),
        case("three hundred keys", &keys, "too_many_keys"),
        case("seventeen rooms", &rooms, "too_many_rooms"),
        case(
            "too many exceptions",
            &format!("{{\"type\":\"x\",\"room\":\"r\",\"except\":[{except}]}}"),
            "bad_field",
        ),
        case(
            "a type of a kilobyte",
            &format!("{{\"type\":\"{}\",\"room\":\"r\"}}", "x".repeat(1024)),
            "bad_field",
        ),
        case(
            "a room of a kilobyte",
            &format!("{{\"type\":\"throng:join\",\"room\":\"{}\"}}", "x".repeat(1024)),
            "bad_field",
        ),
        case(
            "a ref of a kilobyte",
            &format!("{{\"type\":\"throng:ping\",\"ref\":\"{}\"}}", "x".repeat(1024)),
            "bad_field",
        ),
        case(
            "a key of a kilobyte",
            &format!("{{\"type\":\"x\",\"room\":\"r\",\"key\":\"{}\"}}", "x".repeat(1024)),
            "bad_field",
        ),
        case(
            "an id of a kilobyte",
            &format!("{{\"type\":\"x\",\"room\":\"r\",\"id\":\"{}\"}}", "x".repeat(1024)),
            "bad_field",
        ),
        ("the deepest there may be", text(&nest("[", "", "]", 31)), End::Lives),
        ("numbers beyond all floats", text(&nest("[", "1e999999,-1e-999999", "]", 1)), End::Lives),
    ]
}

/// Objects of the wrong shape.
fn wrong_shapes() -> Vec<Case<'static>> {
    let rows = [
        ("{}", "missing_field"),
        ("{\"type\":1,\"room\":\"r\"}", "bad_field"),
        ("{\"type\":null,\"room\":\"r\"}", "bad_field"),
        ("{\"type\":\"\",\"room\":\"r\"}", "bad_field"),
        ("{\"type\":\"x\"}", "no_room"),
        ("{\"type\":\"x\",\"room\":null}", "bad_field"),
        ("{\"type\":\"x\",\"room\":\"\"}", "bad_field"),
        ("{\"type\":\"x\",\"room\":[\"r\"]}", "bad_field"),
        ("{\"type\":\"x\",\"rooms\":[]}", "no_room"),
        ("{\"type\":\"x\",\"rooms\":{}}", "bad_field"),
        ("{\"type\":\"x\",\"rooms\":[1]}", "bad_field"),
        ("{\"type\":\"x\",\"room\":\"r\",\"rooms\":[\"s\"]}", "bad_field"),
        ("{\"type\":\"x\",\"room\":\"r\",\"room\":\"r\"}", "repeated_field"),
        ("{\"type\":\"x\",\"type\":\"y\",\"room\":\"r\"}", "repeated_field"),
        ("{\"type\":\"x\",\"room\":\"r\",\"excpet\":[]}", "unknown_field"),
        ("{\"type\":\"x\",\"room\":\"r\",\"__proto__\":{}}", "unknown_field"),
        ("{\"type\":\"x\",\"room\":\"r\",\"except\":\"0-0-0\"}", "bad_field"),
        ("{\"type\":\"x\",\"room\":\"r\",\"except\":[\"me\"]}", "bad_field"),
        ("{\"type\":\"x\",\"room\":\"r\",\"ref\":{}}", "bad_field"),
        ("{\"type\":\"x\",\"room\":\"r\",\"id\":true}", "bad_field"),
        ("{\"type\":\"throng:join\"}", "missing_field"),
        ("{\"type\":\"throng:join\",\"room\":7}", "bad_field"),
        ("{\"type\":\"throng:join\",\"room\":\"throng:x\"}", "bad_field"),
        ("{\"type\":\"throng:join\",\"room\":\"a\\u0000b\"}", "bad_field"),
        ("{\"type\":\"throng:join\",\"room\":\"\\ud800\"}", "bad_field"),
        ("{\"type\":\"throng:join\",\"room\":\"r\",\"payload\":1}", "unknown_field"),
        ("{\"type\":\"throng:leave\",\"room\":\"never\"}", "not_member"),
        ("{\"type\":\"throng:status\",\"status\":\"asleep\"}", "bad_field"),
        ("{\"type\":\"throng:jion\",\"room\":\"r\"}", "unknown_command"),
        ("{\"type\":\"throng:\"}", "unknown_command"),
        ("{\"type\":\"throng:connected\"}", "unknown_command"),
        ("{\"type\":\"throng:error\"}", "unknown_command"),
    ];
    rows.map(|(message, code)| case(message, message, code)).to_vec()
}

/// Much of what is in order.
fn floods() -> Vec<Case<'static>> {
    let join = text(r#"{"type":"throng:join","room":"r"}"#);
    let leave = text(r#"{"type":"throng:leave","room":"r"}"#);
    let publish = text(r#"{"type":"x","room":"nobody","payload":"xxxxxxxxxxxxxxxx"}"#);
    vec![
        ("ten thousand joins of one room", join.repeat(10_000), End::Lives),
        ("five thousand joins and leaves", [join, leave].concat().repeat(5000), End::Lives),
        ("ten thousand publications to nobody", publish.repeat(10_000), End::Lives),
        ("a binary message", masked(0x82, b"{}"), End::Error("binary_unsupported")),
    ]
}

/// How many cases there are here.
pub(super) fn count() -> usize {
    [not_json(), too_much(), wrong_shapes(), floods()].iter().map(Vec::len).sum()
}

on_both_drivers! {
    fn hostile_messages_are_answered_and_the_session_lives(driver) {
        let arena = Arena::open(driver);
        arena.run_upgraded(not_json());
        arena.run_upgraded(too_much());
        arena.run_upgraded(wrong_shapes());
        arena.run_upgraded(floods());
        arena.close();
    }
}
