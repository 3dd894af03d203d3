//! What `throng.v1.json` says, in the words of Socket.IO.
//!
//! An event of a client is the message of the same type: `emit(type, payload, options)` is a publication
//! whose fields are the payload and the options, `emit("throng:join", fields)` is the command. An event that
//! waits for an acknowledgement carries its number as `ref`, and the reply with that `ref` is the
//! acknowledgement. So a client of Socket.IO says nothing that another client could not say, and what
//! becomes of it is decided where it always is. Nothing of a payload is parsed: texts are put together from
//! parts as they were written.
//!
//! The other way, a publication is an event of its type with two arguments: the payload, and what is known of
//! it. Whatever else the server says is an event of its type with one.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::encode::{Push, Whom, meant};
use super::error::{Code, CommandError};
use super::object::{Object, verbatim};
use crate::wire::engineio;
use crate::wire::socketio::{self, Fault, Kind, Packet, RESERVED, ROOT};

/// Under which name a publication goes out whose type clients keep for themselves.
pub const RENAMED: &str = "throng:publication";

/// The parts of an event: its name, its payload and its options.
const PARTS: usize = 3;

/// The message of the JSON protocol that an event means.
///
/// # Errors
/// When it means none; the error names the acknowledgement, so that its answer finds who waits for it.
pub fn command(event: &Packet<'_>) -> Result<String, CommandError> {
    let number = event.ack.and_then(|ack| RawValue::from_string(ack.to_string()).ok());
    let error = |code, message: &str| CommandError::new(code, message, number.as_deref());
    if event.kind.is_binary() {
        let message = "binary parts are not carried; send text, numbers, lists and objects";
        return Err(error(Code::BinaryUnsupported, message));
    }
    let parts = socketio::parts(event.data, PARTS).map_err(|fault| match fault {
        Fault::TooMany => {
            let message = "an event has a name, a payload and an object of options, and no more";
            error(Code::BadField, message)
        }
        fault => error(Code::BadJson, fault.as_str()),
    })?;
    let Some(name) = parts.first().map(|name| name.get()).filter(|name| name.starts_with('"'))
    else {
        return Err(error(Code::BadField, "the name of an event is a string"));
    };
    let (payload, fields) = match (name.starts_with("\"throng:"), &parts[1..]) {
        (true, []) => (None, None),
        (true, [fields]) => (None, Some(*fields)),
        (true, _) => {
            let message = "an event of the engine's has an object with its fields, and no more";
            return Err(error(Code::BadField, message));
        }
        (false, rest) => (rest.first().copied(), rest.get(1).copied()),
    };
    let fields = fields.filter(|fields| fields.get() != "null").map(|fields| {
        let inner = fields.get().strip_prefix('{').and_then(|inner| inner.strip_suffix('}'));
        inner.map(|inner| inner.trim_ascii()).ok_or_else(|| {
            error(Code::BadField, "options are an object, as in { room: \"lobby\" }")
        })
    });
    let fields = fields.transpose()?.filter(|inner| !inner.is_empty());
    let mut text = format!("{{\"type\":{name}");
    for (key, value) in [("payload", payload.map(RawValue::get)), ("ref", number_of(&number))] {
        if let Some(value) = value {
            text.push_str(&format!(",\"{key}\":{value}"));
        }
    }
    if let Some(fields) = fields {
        text.push(',');
        text.push_str(fields);
    }
    text.push('}');
    Ok(text)
}

fn number_of(number: &Option<Box<RawValue>>) -> Option<&str> {
    number.as_ref().map(|number| number.get())
}

/// What a client shows of itself when it connects.
#[derive(Debug, Default, Deserialize)]
struct Shown<'a> {
    #[serde(borrow)]
    token: Option<&'a RawValue>,
}

/// What a client that was here before shows when it connects: who it was, and the place that it heard last.
#[derive(Debug, Default, Deserialize)]
pub struct Before<'a> {
    /// What it was given with its first connect.
    #[serde(borrow, default)]
    pub pid: Option<Cow<'a, str>>,
    /// The string at the end of the last event that had one.
    #[serde(borrow, default)]
    pub offset: Option<Cow<'a, str>>,
}

/// What it shows of that; nothing where it is written in another way.
#[must_use]
pub fn before(shown: &str) -> Before<'_> {
    serde_json::from_str(shown).unwrap_or_default()
}

/// The message by which a client that shows a token says who it is; `None` when it shows none.
#[must_use]
pub fn login(shown: &str) -> Option<String> {
    let Shown { token } = serde_json::from_str(shown).ok()?;
    Some(format!("{{\"type\":\"throng:auth\",\"token\":{}}}", token?.get()))
}

/// A message of the server's as a packet.
#[must_use]
pub fn said(text: &str) -> Vec<u8> {
    let mut out = begin();
    let Some((kind, fields)) = text.strip_prefix("{\"type\":\"").and_then(|t| t.split_once('"'))
    else {
        unreachable!("every message of the server's begins with its type: {text}")
    };
    let fields = fields.strip_prefix(',');
    if let Some(ack) = fields.and_then(answered) {
        socketio::head(&mut out, Kind::Ack, ROOT, Some(ack));
        out.push(b'[');
        out.extend_from_slice(text.as_bytes());
    } else {
        socketio::head(&mut out, Kind::Event, ROOT, None);
        out.extend_from_slice(b"[\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\",{");
        out.extend_from_slice(fields.unwrap_or("}").as_bytes());
    }
    out.push(b']');
    out
}

/// The acknowledgement that a message is, by its `ref`, which stands first where there is one. What is no plain
/// number was no acknowledgement's.
fn answered(fields: &str) -> Option<u64> {
    let rest = fields.strip_prefix("\"ref\":")?;
    let end = rest.find([',', '}'])?;
    rest[..end].parse().ok()
}

/// Appends a publication as a packet. A client that may come back remembers the last string at the end of an event:
/// `place`, which says where it has come.
pub fn publication(out: &mut Vec<u8>, push: &Push<'_>, place: Option<&str>) {
    out.extend_from_slice(&begin());
    socketio::head(out, Kind::Event, ROOT, None);
    let is_kept = is_reserved(push.kind);
    out.push(b'[');
    if is_kept {
        out.extend_from_slice(format!("\"{RENAMED}\"").as_bytes());
    } else {
        out.extend_from_slice(push.kind.get().as_bytes());
    }
    out.push(b',');
    match push.payload {
        Some(payload) => verbatim(out, payload),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b',');
    let known = Object::begin(out).raw("type", is_kept.then_some(push.kind));
    let known = meant(known, push.whom);
    let known = match push.whom {
        Whom::Room(_) => known.plain("offset", push.offset),
        Whom::User | Whom::Connection | Whom::Everyone => known,
    };
    let known = known.raw("id", push.id);
    match push.from {
        Some(from) => known.quoted("from", from).end(),
        None => known.end(),
    }
    if let Some(place) = place.and_then(|place| serde_json::to_string(place).ok()) {
        out.push(b',');
        out.extend_from_slice(place.as_bytes());
    }
    out.push(b']');
}

/// True for a type of which clients would not hear. It may be written with escapes.
fn is_reserved(kind: &RawValue) -> bool {
    let kind = kind.get();
    let is = |name: &str| RESERVED.contains(&name);
    if kind.contains('\\') {
        return serde_json::from_str::<String>(kind).is_ok_and(|kind| is(&kind));
    }
    is(kind.trim_matches('"'))
}

/// The packet that answers a connect: the namespace is entered. By `pid` the client comes back, where it may.
#[must_use]
pub fn entered(sid: impl std::fmt::Display, pid: Option<&str>) -> Vec<u8> {
    let mut out = begin();
    socketio::head(&mut out, Kind::Connect, ROOT, None);
    let object = Object::begin(&mut out).quoted("sid", sid);
    match pid {
        Some(pid) => object.quoted("pid", pid).end(),
        None => object.end(),
    }
    out
}

/// The packet that refuses a connect. `code` is for programs, `message` for people; `close` is the code with
/// which the connection is closed then, where it is.
#[must_use]
pub fn refused(namespace: &str, code: &str, message: &str, close: Option<u16>) -> Vec<u8> {
    let mut out = begin();
    socketio::head(&mut out, Kind::ConnectError, namespace, None);
    Object::begin(&mut out)
        .text("message", message)
        .object("data", |data| {
            let data = data.text("code", code);
            match close {
                Some(close) => data.plain("closeCode", close),
                None => data,
            }
        })
        .end();
    out
}

/// The packet that sends away one who is not to come back by itself.
#[must_use]
pub fn sent_away() -> Vec<u8> {
    let mut out = begin();
    socketio::head(&mut out, Kind::Disconnect, ROOT, None);
    out
}

/// A message of the transport's that is empty yet.
fn begin() -> Vec<u8> {
    engineio::MESSAGE.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::encode::{self, Reply};
    use crate::session::{CommandLimits, parse};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn meant_by(event: &str) -> Result<Value, (Code, Option<String>)> {
        let packet = Packet::read(event).expect("a packet");
        let text = command(&packet);
        let text = text.map_err(|e| (e.code, e.reference.map(|ack| ack.get().to_owned())))?;
        Ok(serde_json::from_str(&text).expect("JSON"))
    }

    fn heard(packet: &[u8]) -> (Kind, Option<u64>, Value) {
        let text = str::from_utf8(packet).expect("text");
        let Ok(engineio::Packet::Message(text)) = engineio::Packet::read(text) else {
            panic!("no message: {text}")
        };
        let packet = Packet::read(text).expect("a packet");
        let data = if packet.data.is_empty() { "null" } else { packet.data };
        (packet.kind, packet.ack, serde_json::from_str(data).expect("JSON"))
    }

    #[test]
    fn an_event_is_the_message_of_the_same_type() {
        for (event, means) in [
            (r#"2["chat"]"#, json!({"type": "chat"})),
            (r#"2["chat",{"a":1}]"#, json!({"type": "chat", "payload": {"a": 1}})),
            (
                r#"27["chat","hi", { "room":"r" } ]"#,
                json!({"type": "chat", "payload": "hi", "ref": 7, "room": "r"}),
            ),
            (r#"2["chat",null,{}]"#, json!({"type": "chat", "payload": null})),
            (
                r#"20["throng:join",{"room":"r"}]"#,
                json!({"type": "throng:join", "ref": 0, "room": "r"}),
            ),
            (r#"2["throng:ping"]"#, json!({"type": "throng:ping"})),
            (r#"2["throng:ping",null]"#, json!({"type": "throng:ping"})),
        ] {
            assert_eq!(meant_by(event), Ok(means), "{event}");
        }
    }

    #[test]
    fn an_event_that_means_nothing_is_refused_to_whoever_waits_for_it() {
        for (event, code) in [
            (r#"23["a","b",{},4]"#, Code::BadField),
            (r#"23["a","b","c"]"#, Code::BadField),
            (r#"23["throng:join","lobby"]"#, Code::BadField),
            (r#"23["throng:join",{},{}]"#, Code::BadField),
            ("23[]", Code::BadField),
            ("23[7]", Code::BadField),
            (r#"23{"a":1}"#, Code::BadJson),
            ("23", Code::BadJson),
            (r#"51-3["a",{"_placeholder":true,"num":0}]"#, Code::BinaryUnsupported),
        ] {
            assert_eq!(meant_by(event), Err((code, Some("3".to_owned()))), "{event}");
        }
    }

    #[test]
    fn options_cannot_take_the_place_of_type_or_payload() {
        for event in [
            r#"2["a",1,{"payload":2,"room":"r"}]"#,
            r#"2["a",1,{"type":"throng:panic","room":"r"}]"#,
            r#"21["a",1,{"ref":2,"room":"r"}]"#,
        ] {
            let text = command(&Packet::read(event).expect("a packet")).expect("a text");
            let error = parse(&text, &CommandLimits::default()).expect_err("refused");
            assert_eq!(error.code, Code::RepeatedField, "{event}");
        }
    }

    #[test]
    fn a_token_is_found_in_what_a_client_shows() {
        let login = |shown| login(shown).map(|text| serde_json::from_str::<Value>(&text).unwrap());
        let means = json!({"type": "throng:auth", "token": "a.b.c"});
        assert_eq!(login(r#"{"token":"a.b.c","device":{"os":"x"}}"#), Some(means));
        for shown in ["", "{}", "7", "[]", "{\"token\"", r#"{"token":"a","token":"b"}"#] {
            assert_eq!(login(shown), None, "{shown}");
        }
    }

    #[test]
    fn an_answer_is_an_acknowledgement_and_the_rest_are_events() {
        let number = RawValue::from_string("12".to_owned()).unwrap();
        let text = RawValue::from_string("\"12\"".to_owned()).unwrap();
        let mut reply = Vec::new();
        assert!(encode::reply(&mut reply, Some(&number), &Reply::Left { room: "r" }));
        let packet = said(str::from_utf8(&reply).unwrap());
        let answer = json!([{"type": "throng:reply", "ref": 12, "ok": true, "room": "r"}]);
        assert_eq!(heard(&packet), (Kind::Ack, Some(12), answer));

        let mut error = Vec::new();
        encode::error(&mut error, &CommandError::new(Code::NoRoom, "none", Some(&number)));
        assert_eq!(heard(&said(str::from_utf8(&error).unwrap())).1, Some(12));

        let mut reply = Vec::new();
        assert!(encode::reply(&mut reply, Some(&text), &Reply::Published));
        let event = json!(["throng:reply", {"ref": "12", "ok": true}]);
        assert_eq!(heard(&said(str::from_utf8(&reply).unwrap())), (Kind::Event, None, event));

        let mut gap = Vec::new();
        encode::gap(&mut gap, Whom::Room("a,b"), 3);
        let event = json!(["throng:gap", {"room": "a,b", "lost": 3}]);
        assert_eq!(heard(&said(str::from_utf8(&gap).unwrap())), (Kind::Event, None, event));
        assert_eq!(heard(&said("{\"type\":\"throng:x\"}")).2, json!(["throng:x", {}]));
    }

    fn push<'a>(kind: &'a RawValue, payload: Option<&'a RawValue>) -> Push<'a> {
        Push { kind, whom: Whom::Room("r"), offset: 4, payload, id: None, from: None }
    }

    #[test]
    fn types_that_clients_keep_for_themselves_go_out_under_another_name() {
        for (kind, name) in [
            ("\"chat\"", "chat"),
            ("\"connect_error\"", RENAMED),
            ("\"disc\\u006fnnect\"", RENAMED),
            ("\"disconnected\"", "disconnected"),
        ] {
            let raw = RawValue::from_string(kind.to_owned()).unwrap();
            let mut out = Vec::new();
            publication(&mut out, &push(&raw, None), None);
            let (_, _, list) = heard(&out);
            assert_eq!((&list[0], &list[1]), (&json!(name), &Value::Null));
            let own: Value = serde_json::from_str(kind).unwrap();
            let told = if name == RENAMED { own } else { Value::Null };
            assert_eq!(list[2].get("type").cloned().unwrap_or_default(), told);
            assert_eq!(list[2]["offset"], 4);
        }
    }

    #[test]
    fn a_refusal_has_a_message_and_a_code() {
        let packet = refused("/", "unauthorized", "the token \"x\" has expired", Some(1008));
        let data = json!({"code": "unauthorized", "closeCode": 1008});
        let told = json!({"message": "the token \"x\" has expired", "data": data});
        assert_eq!(heard(&packet), (Kind::ConnectError, None, told));
        assert_eq!(
            heard(&entered("1-2a-7", None)),
            (Kind::Connect, None, json!({"sid": "1-2a-7"}))
        );
        assert_eq!(heard(&sent_away()).0, Kind::Disconnect);
    }

    proptest! {
        #[test]
        fn what_a_publication_says_passes_through_as_it_was(
            kind in "[a-z]{1,8}", payload in ".{0,24}", room in "[a-z0-9 \u{e9}\u{4e2d}]{1,8}",
        ) {
            let kind = serde_json::to_string(&kind).unwrap();
            let payload = serde_json::to_string(&json!([payload, 1.50])).unwrap();
            let options = json!({"room": room}).to_string();
            let text = command(&Packet::read(&format!("2[{kind},{payload},{options}]")).unwrap());
            let text = text.expect("a text");
            let request = parse(&text, &CommandLimits::default()).expect("a command");
            let crate::session::Command::Publish(publish) = request.command else { panic!("{text}") };
            prop_assert_eq!(publish.payload.map(RawValue::get), Some(&*payload));
            let mut out = Vec::new();
            let raw = RawValue::from_string(kind.clone()).unwrap();
            let payload = RawValue::from_string(payload).unwrap();
            publication(&mut out, &push(&raw, Some(&payload)), None);
            let out = String::from_utf8(out).unwrap();
            let begins = format!("42[{kind},{payload},");
            prop_assert!(out.starts_with(&begins));
        }
    }
}
