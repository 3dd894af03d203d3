//! The document that clients are written from says what the code does.
//!
//! Its examples are fenced as `json client` and `json server`. The first are parsed; the second are
//! taken apart and written again by the encoders, and must come out equal.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::super::encode::{Connected, Push, Reply, Restoration, Restored, Whom};
use super::super::presence::{About, Attendant, RoomNews, RoomUsers, State, UserState};
use super::super::*;
use crate::base::cursor::{Cursor, Stale};
use crate::base::inbox::{Note, Page};

const DOCUMENT: &str = include_str!("../../../docs/protocol.md");

/// The fenced blocks with this label.
fn blocks(label: &str) -> Vec<&'static str> {
    let fence = format!("```json {label}\n");
    let found: Vec<&str> = DOCUMENT
        .split(fence.as_str())
        .skip(1)
        .map(|rest| rest.split("\n```").next().expect("the end of a block"))
        .collect();
    assert!(!found.is_empty(), "the document has no {label} examples");
    found
}

fn number(object: &Map<String, Value>, key: &str) -> u64 {
    object[key].as_u64().expect(key)
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> &'a str {
    object[key].as_str().expect(key)
}

fn epoch(object: &Map<String, Value>, key: &str) -> u64 {
    u64::from_str_radix(text(object, key), 16).expect(key)
}

fn raw(object: &Map<String, Value>, key: &str) -> Option<Box<RawValue>> {
    object.get(key).map(|value| RawValue::from_string(value.to_string()).expect("JSON"))
}

fn protocol(name: &str) -> Protocol {
    Protocol::from_subprotocol(&[name]).expect("a known protocol").protocol
}

fn reply_of(object: &Map<String, Value>) -> Reply<'_> {
    if object.contains_key("epoch") && !object.contains_key("room") {
        let position = Cursor { epoch: epoch(object, "epoch"), offset: number(object, "offset") };
        return Reply::Numbered { position, repeated: object.contains_key("duplicate") };
    }
    if object.contains_key("epoch") {
        return Reply::Joined {
            room: text(object, "room"),
            members: number(object, "members"),
            offset: number(object, "offset"),
            epoch: epoch(object, "epoch"),
            recovered: object.get("recovered").and_then(Value::as_bool),
        };
    }
    if object.contains_key("duplicate") {
        return Reply::Repeated;
    }
    if object.contains_key("userId") {
        return Reply::Authenticated {
            user: text(object, "userId"),
            expires: object["expiresAt"].as_u64(),
        };
    }
    if object.contains_key("watching") {
        return Reply::Watching { watching: number(object, "watching") };
    }
    match (object.get("room"), object.get("members"), object.get("status")) {
        (Some(_), Some(_), None) => {
            Reply::Members { room: text(object, "room"), members: number(object, "members") }
        }
        (Some(_), None, None) => Reply::Left { room: text(object, "room") },
        (None, None, Some(status)) if status == "idle" => Reply::Status(Status::Idle),
        (None, None, Some(_)) => Reply::Status(Status::Active),
        _ => Reply::Published,
    }
}

fn state(value: &Value) -> State {
    let states = [State::Online, State::Idle, State::Offline];
    states.into_iter().find(|state| *value == state.as_str()).expect("a state")
}

fn standings<'a>(object: &'a Map<String, Value>, key: &str) -> Vec<UserState<'a>> {
    let list = object.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let standing = |entry: &'a Value| UserState {
        user: entry["user"].as_str().expect("a user"),
        state: state(&entry["state"]),
        last_seen: entry.get("lastSeen").map(|at| at.as_u64().expect("a time")),
    };
    list.iter().map(standing).collect()
}

fn attendant<'a>(entry: &'a Value, meta: Option<&'a RawValue>) -> Attendant<'a> {
    Attendant {
        client: entry["clientId"].as_str().expect("an id").parse().expect("an address"),
        user: entry["user"].as_str(),
        state: state(&entry["state"]),
        about: entry.get("connectedAt").map(|at| About {
            connected: at.as_u64().expect("a time"),
            address: entry["address"].as_str().map(Into::into),
            agent: entry["userAgent"].as_str(),
            meta,
        }),
    }
}

fn news(out: &mut Vec<u8>, object: &Map<String, Value>) {
    presence::room_news(out, &presence_of(object));
}

fn whois(out: &mut Vec<u8>, object: &Map<String, Value>) {
    let reference = raw(object, "ref");
    presence::whois_users(out, reference.as_deref(), &standings(object, "users"));
}

fn attendants(out: &mut Vec<u8>, object: &Map<String, Value>) {
    let reference = raw(object, "ref");
    let next = object.get("next").map(|_| text(object, "next").parse().expect("next"));
    let room = (text(object, "room"), number(object, "members"));
    let list = object["connections"].as_array().expect("a list");
    let meta = |entry: &Value| raw(entry.as_object().expect("an object"), "meta");
    let metas: Vec<Option<Box<RawValue>>> = list.iter().map(meta).collect();
    let page = list.iter().zip(&metas).map(|(entry, meta)| attendant(entry, meta.as_deref()));
    let nodes = object.get("missingNodes").map(|nodes| nodes.as_array().expect("a list"));
    let names: Option<Vec<Arc<str>>> = nodes
        .map(|nodes| nodes.iter().map(|node| Arc::from(node.as_str().expect("a name"))).collect());
    let rest = (next, names.as_deref());
    presence::whois_room(out, reference.as_deref(), room, &page.collect::<Vec<_>>(), rest);
}

fn presence_of(object: &Map<String, Value>) -> RoomNews<'_> {
    let users = if object.contains_key("listed") {
        RoomUsers::Unlisted
    } else if object.contains_key("users") {
        RoomUsers::All(standings(object, "users"))
    } else {
        let left = object.get("left").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let left = left.iter().map(|user| user.as_str().expect("a user")).collect();
        RoomUsers::Changes(standings(object, "joined"), left, standings(object, "states"))
    };
    RoomNews { room: text(object, "room"), members: number(object, "members"), users }
}

fn gap_of(out: &mut Vec<u8>, object: &Map<String, Value>) {
    if object["lost"].is_null() {
        return encode::astray(out, text(object, "room"));
    }
    encode::gap(out, whom_of(object), number(object, "lost"));
}

fn whom_of(object: &Map<String, Value>) -> Whom<'_> {
    let is = |key: &str| object.get(key) == Some(&Value::Bool(true));
    match (is("user"), is("connection"), is("everyone")) {
        (true, _, _) => Whom::User,
        (_, true, _) => Whom::Connection,
        (_, _, true) => Whom::Everyone,
        _ => Whom::Room(text(object, "room")),
    }
}

fn connected_of(object: &Map<String, Value>) -> Connected<'_> {
    let (heartbeat, limits) = (&object["heartbeat"], &object["limits"]);
    let number = |value: &Value| value.as_u64().expect("a number");
    Connected {
        client: text(object, "clientId").parse().expect("an address"),
        user: object["userId"].as_str(),
        session_epoch: epoch(object, "sessionEpoch"),
        ping_interval_ms: number(&heartbeat["intervalMs"]),
        ping_timeout_ms: number(&heartbeat["timeoutMs"]),
        max_message_bytes: number(&limits["maxMessageBytes"]),
        max_rooms: number(&limits["maxRooms"]),
        max_rooms_per_publish: number(&limits["maxRoomsPerPublish"]),
        protocol: protocol(text(object, "protocol")),
    }
}

fn note_of(object: &Map<String, Value>) -> Note {
    let text = |key| object.get(key).map(Value::to_string).unwrap_or_default().into();
    let (id, at) = (number(object, "id"), number(object, "at"));
    Note { id, at, kind: text("kind"), payload: text("payload") }
}

fn page_of(object: &Map<String, Value>) -> Page {
    let items = object["items"].as_array().expect("items").iter();
    Page {
        notes: items.map(|item| note_of(item.as_object().expect("an item"))).collect(),
        newest: number(object, "newest"),
        unread: number(object, "unread"),
        more: object["more"].as_bool().expect("more"),
    }
}

fn restored(out: &mut Vec<u8>, reference: Option<&RawValue>, object: &Map<String, Value>) {
    let result = |room: &Value| {
        let object = room.as_object().expect("an object");
        let code = object.get("code").map(|code| {
            let known = Code::ALL.iter().find(|known| *code == known.as_str());
            (*known.expect("a code that exists"), text(object, "message").to_owned())
        });
        let result = code.map_or_else(
            || {
                Ok(Restoration {
                    members: number(object, "members"),
                    position: Cursor {
                        epoch: epoch(object, "epoch"),
                        offset: number(object, "offset"),
                    },
                    recovered: object.get("recovered").and_then(Value::as_bool),
                })
            },
            Err,
        );
        Restored { room: text(object, "room").into(), result }
    };
    let rooms = object["rooms"].as_array().expect("a list");
    let results: Vec<Restored> = rooms.iter().map(result).collect();
    assert!(encode::reply(out, reference, &Reply::Restored(&results)));
}

fn page(out: &mut Vec<u8>, reference: Option<&RawValue>, object: &Map<String, Value>) {
    let messages = object["messages"].as_array().expect("a list");
    let owned: Vec<[Option<Box<RawValue>>; 3]> = messages
        .iter()
        .map(|message| {
            let message = message.as_object().expect("an object");
            ["type", "payload", "id"].map(|key| raw(message, key))
        })
        .collect();
    let messages: Vec<Push<'_>> = messages.iter().zip(&owned).map(push_of).collect();
    let reply = Reply::History {
        room: text(object, "room"),
        offset: number(object, "offset"),
        epoch: epoch(object, "epoch"),
        messages: &messages,
        more: object["more"].as_bool().expect("more"),
        recovered: object.get("recovered").and_then(Value::as_bool),
    };
    assert!(encode::reply(out, reference, &reply));
}

fn push_of<'a>(
    (message, [kind, payload, id]): (&'a Value, &'a [Option<Box<RawValue>>; 3]),
) -> Push<'a> {
    Push {
        kind: kind.as_deref().expect("a type"),
        whom: Whom::Room(message["room"].as_str().expect("a room")),
        offset: message["offset"].as_u64().expect("an offset"),
        payload: payload.as_deref(),
        id: id.as_deref(),
        from: message.get("from").map(|from| from.as_str().expect("from").parse().expect("from")),
    }
}

fn items(out: &mut Vec<u8>, reference: Option<&RawValue>, object: &Map<String, Value>) {
    inbox::page(out, reference, &page_of(object));
}

fn is_stored(object: &Map<String, Value>) -> bool {
    ["room", "offset"].iter().all(|key| object.contains_key(*key))
        && !object.contains_key("members")
}

fn stored(out: &mut Vec<u8>, reference: Option<&RawValue>, object: &Map<String, Value>) {
    let (id, epoch) = (raw(object, "id"), epoch(object, "epoch"));
    let position = Cursor { epoch, offset: number(object, "offset") };
    let reply = Reply::Stored { room: text(object, "room"), position, id: id.as_deref() };
    assert!(encode::reply(out, reference, &reply));
}

/// Writes the message anew from the values of the example.
fn again(object: &Map<String, Value>) -> Vec<u8> {
    let mut out = Vec::new();
    let reference = raw(object, "ref");
    let reference = reference.as_deref();
    match text(object, "type") {
        "throng:connected" => encode::connected(&mut out, &connected_of(object)),
        "throng:reply" if object.contains_key("items") => items(&mut out, reference, object),
        "throng:reply" if object.contains_key("unread") => {
            assert!(inbox::read(&mut out, reference, number(object, "unread")));
        }
        "throng:notification" => {
            inbox::notification(&mut out, &note_of(object), number(object, "unread"));
        }
        "throng:unread" => inbox::unread(&mut out, number(object, "unread")),
        "throng:reply" if object.contains_key("rooms") => restored(&mut out, reference, object),
        "throng:reply" if object.contains_key("messages") => page(&mut out, reference, object),
        "throng:reply" if is_stored(object) => stored(&mut out, reference, object),
        "throng:presence" if object.contains_key("room") => news(&mut out, object),
        "throng:presence" => presence::users_news(&mut out, &standings(object, "users")),
        "throng:reply" if object.contains_key("users") => whois(&mut out, object),
        "throng:reply" if object.contains_key("connections") => attendants(&mut out, object),
        "throng:reply" => assert!(encode::reply(&mut out, reference, &reply_of(object))),
        "throng:resync" => {
            let reason = [Stale::TooOld, Stale::Epoch, Stale::Ahead, Stale::Lost]
                .into_iter()
                .find(|reason| object["reason"] == reason.as_str())
                .expect("a reason that exists");
            let position =
                Cursor { epoch: epoch(object, "epoch"), offset: number(object, "offset") };
            encode::resync(&mut out, text(object, "room"), reason, position);
        }
        "throng:pong" => encode::pong(&mut out, reference, number(object, "time")),
        "throng:reauth" => encode::reauth(&mut out, number(object, "inMs")),
        "throng:gap" => gap_of(&mut out, object),
        "throng:left" => encode::left(&mut out, text(object, "room"), text(object, "reason")),
        "throng:reload" => {
            encode::reload(&mut out, number(object, "reconnectDelayMs"), text(object, "reason"));
        }
        "throng:close" => {
            let code = u16::try_from(number(object, "code")).expect("a close code");
            encode::close(&mut out, code, text(object, "reason"));
        }
        "throng:error" => {
            let code = *Code::ALL
                .iter()
                .find(|code| object["code"] == code.as_str())
                .expect("a code that exists");
            let mut error = CommandError::new(code, text(object, "message"), reference);
            let wait = object.get("retryAfterMs").and_then(Value::as_u64);
            error.retry_after = wait.map(Duration::from_millis);
            error.path = object.get("path").map(|_| text(object, "path").into());
            encode::error(&mut out, &error);
        }
        kind => {
            assert!(!kind.starts_with(command::RESERVED), "the engine sends no {kind}");
            let (kind, payload, id) =
                (raw(object, "type"), raw(object, "payload"), raw(object, "id"));
            let push = Push {
                kind: kind.as_deref().expect("a type"),
                whom: whom_of(object),
                offset: object
                    .get("offset")
                    .map_or(0, |offset| offset.as_u64().expect("an offset")),
                payload: payload.as_deref(),
                id: id.as_deref(),
                from: object.get("from").map(|_| text(object, "from").parse().expect("from")),
            };
            encode::publication(&mut out, &push);
        }
    }
    out
}

#[test]
fn every_client_example_is_understood() {
    for block in blocks("client") {
        if let Err(error) = parse(block, &CommandLimits::default()) {
            panic!("{block}: {error}");
        }
    }
}

#[test]
fn every_server_example_is_what_the_server_writes() {
    for block in blocks("server") {
        let Ok(Value::Object(example)) = serde_json::from_str(block) else { panic!("{block}") };
        let written: Value = serde_json::from_slice(&again(&example)).expect("JSON");
        assert_eq!(written, Value::Object(example));
    }
}

#[test]
fn the_error_example_says_what_the_parser_says() {
    let (wrong, answer) = (blocks("wrong"), blocks("server"));
    for block in wrong {
        let error = parse(block, &CommandLimits::default()).expect_err(block);
        let mut out = Vec::new();
        encode::error(&mut out, &error);
        let out: Value = serde_json::from_slice(&out).expect("JSON");
        let is_answer = |text: &&str| serde_json::from_str::<Value>(text).expect("JSON") == out;
        assert!(answer.iter().any(is_answer), "{block} is answered with {out}");
    }
}

#[test]
fn the_document_explains_every_code_and_no_other() {
    let (_, rest) = DOCUMENT.split_once("\n## Errors\n").expect("a section on errors");
    let section = rest.split("\n## ").next().expect("its text");
    let rows: Vec<&str> =
        section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(rows, codes);
}

#[test]
fn every_command_and_push_has_an_example() {
    let all = [blocks("client"), blocks("server")].concat().concat();
    let kinds = [
        "join",
        "leave",
        "ping",
        "status",
        "members",
        "watch",
        "unwatch",
        "whois",
        "presence",
        "auth",
        "restore",
        "history",
        "resync",
        "reauth",
        "connected",
        "reply",
        "pong",
        "error",
        "gap",
        "reload",
        "inbox",
        "read",
        "notification",
        "unread",
    ];
    for kind in kinds {
        assert!(all.contains(&format!("\"throng:{kind}\"")), "no example of throng:{kind}");
    }
}
