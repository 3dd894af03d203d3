//! Clients of Socket.IO: what a WebSocket of the JSON protocol says and hears, in packets.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::guard::{ada, answer, bearer, enter, guarded, join, knock, token};
use super::rig::{Heard, Rig, frame, publish, settings};
use super::tickets::ticket;
use crate::auth::{Revocation, Source};
use crate::base::id::ConnId;
use crate::shard::Mail;
use crate::wire::engineio;

pub(super) const TARGET: &str = "/socket.io/?EIO=4&transport=websocket";

/// The texts among what a client hears, and the code of the close frame behind them.
fn told(frames: Vec<Heard>) -> (Vec<String>, Option<u16>) {
    let (mut texts, mut code) = (Vec::new(), None);
    for frame in frames {
        match frame {
            // A ping of Engine.IO is a number as JSON has them.
            Heard::Text(Value::Number(number)) => texts.push(number.to_string()),
            Heard::Text(Value::String(text)) => texts.push(text),
            Heard::Close(own) => code = Some(own),
            other => panic!("{other:?}"),
        }
    }
    (texts, code)
}

pub(super) fn hear(rig: &mut Rig, conn: ConnId) -> (Vec<String>, Option<u16>) {
    let frames = rig.heard(conn);
    told(frames)
}

/// The JSON behind what a packet begins with.
pub(super) fn json_behind(packet: &str, begins: &str) -> Value {
    let json = packet.strip_prefix(begins).unwrap_or_else(|| panic!("{packet}: not {begins}"));
    serde_json::from_str(json).expect("JSON")
}

/// A client that has read the first packet and said nothing yet.
pub(super) fn opened(rig: &mut Rig, target: &str, headers: &str) -> (ConnId, Value) {
    let conn = knock(rig, target, headers);
    let (head, frames) = answer(rig, conn);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let (texts, code) = told(frames);
    let [opening] = &texts[..] else { panic!("{texts:?}") };
    assert_eq!(code, None);
    (conn, json_behind(opening, "0"))
}

pub(super) fn say(rig: &mut Rig, conn: ConnId, packet: &str) -> Vec<String> {
    rig.receive(conn, &frame(0x81, packet.as_bytes()));
    rig.settle();
    hear(rig, conn).0
}

/// A client that is in.
fn entered(rig: &mut Rig) -> ConnId {
    let (conn, _) = opened(rig, TARGET, "");
    let heard = say(rig, conn, "40");
    assert_eq!(heard.len(), 2, "{heard:?}");
    conn
}

fn member(rig: &mut Rig, room: &str) -> ConnId {
    let conn = entered(rig);
    let heard = say(rig, conn, &format!(r#"420["throng:join",{{"room":"{room}"}}]"#));
    assert_eq!(json_behind(&heard[0], "430")[0]["ok"], true);
    conn
}

#[test]
fn the_first_packet_says_what_holds_and_nothing_is_said_before_the_client_connects() {
    let mut rig = Rig::alone();
    let author = rig.member("r");
    let (conn, opening) = opened(&mut rig, TARGET, "");
    let id = rig.address(conn).to_string();
    let expected = json!({"sid": id, "upgrades": [], "pingInterval": 25_000, "pingTimeout": 20_000,
        "maxPayload": 4096});
    assert_eq!(opening, expected);
    rig.say(author, r#"{"type":"x","everyone":true,"payload":1}"#);
    rig.settle();
    assert_eq!(hear(&mut rig, conn).0, Vec::<String>::new());
    let heard = say(&mut rig, conn, "40");
    assert_eq!(json_behind(&heard[0], "40"), json!({"sid": id}));
    let greeting = json_behind(&heard[1], "42");
    assert_eq!((&greeting[0], &greeting[1]["clientId"]), (&json!("throng:connected"), &json!(id)));
    assert_eq!((&greeting[1]["protocol"], heard.len()), (&json!("socket.io"), 2));
    assert_eq!(
        say(&mut rig, conn, "40"),
        Vec::<String>::new(),
        "connecting twice is connecting once"
    );
    let counters = rig.shard.counters();
    assert_eq!((counters.packet_connections, counters.handshakes_total), (1, 2));
}

#[test]
fn other_versions_and_transports_are_refused_in_the_words_of_the_transport() {
    let mut rig = Rig::alone();
    for (query, code, message) in [
        ("EIO=3&transport=websocket", 5, "Unsupported protocol version"),
        ("transport=websocket", 5, "Unsupported protocol version"),
        ("EIO=4&transport=polling", 0, "Transport unknown"),
        ("EIO=4", 0, "Transport unknown"),
        ("EIO=4&transport=websocket&sid=1-2-3", 1, "Session ID unknown"),
    ] {
        let conn = knock(&mut rig, &format!("/socket.io/?{query}"), "");
        let (head, body) = {
            let text = String::from_utf8(rig.bytes(conn)).expect("text");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            (head.to_owned(), body.to_owned())
        };
        assert!(head.starts_with("HTTP/1.1 400 "), "{query}: {head}");
        assert!(head.contains("Content-Type: application/json"), "{head}");
        let told: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(told, json!({"code": code, "message": message}), "{query}");
    }
    let counters = rig.shard.counters();
    let by_reason = [
        counters.socketio_version_refused_total,
        counters.socketio_transport_refused_total,
        counters.socketio_request_refused_total,
    ];
    assert_eq!((by_reason, counters.refused_400_total), ([2, 2, 1], 5));
    // Without the slash at the end it is the same path, and no other is.
    opened(&mut rig, "/socket.io?EIO=4&transport=websocket", "");
    let conn = knock(&mut rig, "/socket.io/admin?EIO=4&transport=websocket", "");
    assert!(rig.bytes(conn).starts_with(b"HTTP/1.1 404 "));
}

#[test]
fn packets_get_what_a_websocket_gets_in_the_same_order_and_with_the_same_numbers() {
    let mut rig = Rig::alone();
    let packets = member(&mut rig, "r");
    let socket = rig.member("r");
    hear(&mut rig, packets);
    let author = rig.open();
    for number in 0..30 {
        rig.say(author, &publish(&["r"], &format!("{{\"n\":{number}.50}}")));
        if number % 4 == 0 {
            rig.settle();
        }
    }
    rig.settle();
    let by_socket = rig.heard(socket);
    let (by_packets, _) = hear(&mut rig, packets);
    assert_eq!((by_socket.len(), by_packets.len()), (30, 30));
    for (text, packet) in by_socket.into_iter().zip(by_packets) {
        let Heard::Text(text) = text else { panic!("{text:?}") };
        let event = json_behind(&packet, "42");
        assert_eq!((&event[0], &event[1]), (&text["type"], &text["payload"]));
        for known in ["room", "offset", "from"] {
            assert_eq!(event[2][known], text[known], "{known}");
        }
    }
    assert!(rig.shard.counters().deliveries_total >= 60);
}

#[test]
fn an_event_with_a_room_is_a_publication_and_its_acknowledgement_is_the_reply() {
    let mut rig = Rig::alone();
    let socket = rig.member("r");
    let conn = member(&mut rig, "r");
    rig.heard(socket);
    let heard = say(&mut rig, conn, r#"427["chat",{"text":"hi"},{"room":"r"}]"#);
    let replies: Vec<&String> = heard.iter().filter(|packet| packet.starts_with("43")).collect();
    assert_eq!(
        json_behind(replies[0], "437"),
        json!([{"type": "throng:reply", "ref": 7, "ok": true}])
    );
    assert_eq!(heard.len(), 2, "its own publication and the reply: {heard:?}");
    let published = rig.heard(socket);
    let [Heard::Text(push)] = &published[..] else { panic!("{published:?}") };
    assert_eq!((&push["type"], &push["payload"]), (&json!("chat"), &json!({"text": "hi"})));
    assert_eq!(push["from"], rig.address(conn).to_string());
    assert_eq!(say(&mut rig, conn, r#"42["throng:leave",{"room":"r"}]"#), Vec::<String>::new());
}

#[test]
fn mistakes_are_acknowledged_or_told_and_the_session_lives() {
    let mut rig = Rig::alone();
    let conn = member(&mut rig, "r");
    for (packet, code) in [
        (r#"423["chat",1]"#, "no_room"),
        (r#"423["throng:jion",{"room":"r"}]"#, "unknown_command"),
        (r#"423["chat",1,{"room":"r","excpet":[]}]"#, "unknown_field"),
        (r#"4513-3["chat",{"_placeholder":true,"num":0}]"#, "binary_unsupported"),
        (r#"4513-3["chat",{"_placeholder":true,"num":0},{"room":"r"}]"#, "binary_unsupported"),
    ] {
        let heard = say(&mut rig, conn, packet);
        let error = json_behind(&heard[0], "433");
        assert_eq!((&error[0]["code"], heard.len()), (&json!(code), 1), "{packet}");
    }
    for packet in ["9", "4", "49", "42{", "0", "5", r#"44{"message":"x"}"#, "42[", ""] {
        let heard = say(&mut rig, conn, packet);
        let error = json_behind(&heard[0], "42");
        assert_eq!(
            (&error[0], &error[1]["code"]),
            (&json!("throng:error"), &json!("bad_json")),
            "{packet}"
        );
    }
    // The parts behind a binary packet, which was answered, are passed over.
    rig.receive(conn, &frame(0x82, b"\x01\x02"));
    rig.settle();
    assert_eq!(hear(&mut rig, conn).0, Vec::<String>::new());
    // Acknowledgements of nothing are counted.
    assert_eq!(say(&mut rig, conn, r#"4399["late"]"#), Vec::<String>::new());
    assert_eq!(say(&mut rig, conn, "461-99[]"), Vec::<String>::new());
    assert_eq!(rig.shard.counters().unknown_acks_total, 2);
    let heard = say(&mut rig, conn, r#"424["throng:ping"]"#);
    assert_eq!(json_behind(&heard[0], "434")[0]["type"], "throng:pong");
}

#[test]
fn another_namespace_is_refused_and_the_one_there_is_goes_on() {
    let mut rig = Rig::alone();
    let (conn, _) = opened(&mut rig, TARGET, "");
    let heard = say(&mut rig, conn, "40/admin,{\"token\":\"x\"}");
    let refusal = json_behind(&heard[0], "44/admin,");
    assert_eq!(refusal["message"], "Invalid namespace");
    assert_eq!(say(&mut rig, conn, r#"42/admin,1["x"]"#), Vec::<String>::new());
    assert_eq!(say(&mut rig, conn, "40").len(), 2);
}

#[test]
fn pings_go_to_who_is_silent_and_to_who_is_not_and_silence_ends_a_connection() {
    let mut rig = Rig::alone();
    let (silent, busy) = (entered(&mut rig), entered(&mut rig));
    let mut pings = [0, 0];
    for second in 0..120 {
        rig.later(Duration::from_secs(1));
        rig.receive(busy, &frame(0x81, b"42[\"throng:status\",{\"status\":\"active\"}]"));
        rig.settle();
        for (at, conn) in [silent, busy].into_iter().enumerate() {
            if rig.table_is_closing(conn) {
                continue;
            }
            for packet in hear(&mut rig, conn).0 {
                assert_eq!(packet, "2");
                pings[at] += 1;
                if conn == busy || second < 60 {
                    rig.receive(conn, &frame(0x81, b"3"));
                }
            }
        }
    }
    assert!((4..=6).contains(&pings[1]), "one in each interval: {pings:?}");
    assert!(rig.table_is_closing(silent), "who answers no ping is taken for dead");
    assert!(!rig.table_is_closing(busy));
    assert_eq!(rig.shard.counters().heartbeat_lost_total, 1);
    assert_eq!(say(&mut rig, busy, "2probe"), ["3probe"]);
}

#[test]
fn who_does_not_connect_in_time_or_speaks_before_it_is_sent_away() {
    let mut rig = Rig::alone();
    let (conn, _) = opened(&mut rig, TARGET, "");
    rig.later(Duration::from_secs(11));
    rig.settle();
    // No refusal: the library would take it for the last word, and not come back.
    assert_eq!(hear(&mut rig, conn), (Vec::new(), Some(1001)));
    for packet in [r#"42["x",1,{"room":"r"}]"#, "49", "x"] {
        let (conn, _) = opened(&mut rig, TARGET, "");
        rig.receive(conn, &frame(0x81, packet.as_bytes()));
        rig.settle();
        assert_eq!(hear(&mut rig, conn).1, Some(1001), "{packet}");
    }
    assert_eq!(rig.shard.counters().packet_connections, 0);
}

#[test]
fn a_client_that_disconnects_leaves_nothing() {
    for packet in ["41", "1"] {
        let mut rig = Rig::alone();
        let conn = member(&mut rig, "r");
        rig.receive(conn, &frame(0x81, packet.as_bytes()));
        rig.settle();
        assert_eq!(hear(&mut rig, conn), (Vec::new(), Some(1000)));
        let counters = rig.shard.counters();
        assert_eq!((counters.packet_connections, counters.memberships), (0, 0));
    }
}

#[test]
fn a_token_is_taken_from_the_payload_of_the_connect_where_that_is_listed() {
    let mut rig = Rig::new(0, 1, guarded(&[Source::Header, Source::Payload], |_| {}));
    let (conn, _) = opened(&mut rig, TARGET, "");
    let heard = say(&mut rig, conn, &format!("40{}", json!({"token": token(&ada())})));
    assert_eq!(json_behind(&heard[1], "42")[1]["userId"], "ada");
    let heard = say(&mut rig, conn, r#"421["throng:join",{"room":"a"}]"#);
    assert_eq!(json_behind(&heard[0], "431")[0]["ok"], true);
    let heard = say(&mut rig, conn, r#"422["throng:join",{"room":"c"}]"#);
    assert_eq!(json_behind(&heard[0], "432")[0]["code"], "forbidden");
    // A fresh one on the way.
    let fresh = json!(["throng:auth", {"token": token(&ada())}]);
    let heard = say(&mut rig, conn, &format!("423{fresh}"));
    assert_eq!(json_behind(&heard[0], "433")[0]["userId"], "ada");
    // Who speaks the JSON protocol may not come in without one for that.
    let conn = knock(&mut rig, "/ws", "");
    assert!(rig.bytes(conn).starts_with(b"HTTP/1.1 401 "));
}

#[test]
fn a_refused_token_is_told_as_a_connect_error_wherever_it_stood() {
    let mut rig = Rig::new(0, 1, guarded(&[Source::Header, Source::Payload], |_| {}));
    let expired = json!({"sub": "ada", "exp": 59});
    let vetoed = json!({"sub": "ada", "exp": 5000, "deny": {"code": 403, "message": "pay first"}});
    for (headers, connect, words) in [
        (bearer(&expired), None, "the token has expired"),
        (String::new(), Some(json!({"token": token(&expired)})), "the token has expired"),
        (String::new(), Some(json!({})), ""),
        (bearer(&vetoed), None, "pay first"),
        (String::new(), Some(json!({"token": token(&vetoed)})), "pay first"),
    ] {
        let conn = knock(&mut rig, TARGET, &headers);
        if let Some(connect) = &connect {
            rig.receive(conn, &frame(0x81, format!("40{connect}").as_bytes()));
            rig.settle();
        }
        let (texts, code) = told(answer(&mut rig, conn).1);
        let refusal = json_behind(&texts[1], "44");
        let message = refusal["message"].as_str().expect("a message");
        assert!(message.contains(words) && !message.is_empty(), "{message}: {words}");
        assert_eq!(refusal["data"], json!({"code": "unauthorized", "closeCode": 1008}));
        assert_eq!((texts.len(), code), (2, Some(1008)));
    }
    let counters = rig.shard.counters();
    assert_eq!((counters.logins_total, counters.memberships, counters.handshakes_total), (0, 0, 0));
}

#[test]
fn who_is_known_by_the_request_becomes_somebody_when_it_connects_unless_revoked_meanwhile() {
    let mut rig = Rig::new(0, 1, guarded(&[Source::Header], |_| {}));
    let (conn, _) = opened(&mut rig, TARGET, &bearer(&ada()));
    assert_eq!(rig.shard.counters().authenticated_connections, 0);
    let heard = say(&mut rig, conn, "40");
    assert_eq!(json_behind(&heard[1], "42")[1]["userId"], "ada");
    assert_eq!(rig.shard.counters().authenticated_connections, 1);

    let (late, _) = opened(&mut rig, TARGET, &bearer(&ada()));
    let revocation = Revocation::User { tenant: None, user: "ada".into(), issued: 60, until: 6000 };
    rig.take(Mail::Revoke(std::sync::Arc::new(revocation)));
    rig.settle();
    let (heard, code) = hear(&mut rig, conn);
    assert_eq!(json_behind(&heard[0], "42")[0], "throng:close");
    assert_eq!((&heard[1][..], code), ("41", Some(1008)), "it is not to come back by itself");
    rig.receive(late, &frame(0x81, b"40"));
    rig.settle();
    assert_eq!(json_behind(&hear(&mut rig, late).0[0], "44")["data"]["code"], "unauthorized");
    assert_eq!(rig.shard.counters().authenticated_connections, 0);
}

#[test]
fn a_drain_says_when_to_come_back_and_does_not_send_away() {
    let mut rig = Rig::alone();
    let conn = entered(&mut rig);
    rig.take(Mail::Drain(Duration::from_secs(5)));
    rig.settle();
    let (mut heard, mut code) = hear(&mut rig, conn);
    while code.is_none() {
        rig.later(Duration::from_secs(1));
        rig.settle();
        let more = hear(&mut rig, conn);
        heard.extend(more.0);
        code = more.1;
    }
    assert_eq!(json_behind(&heard[0], "42")[0], "throng:reload");
    let last = json_behind(heard.last().expect("a last word"), "42");
    assert_eq!((&last[0], &last[1]["code"]), (&json!("throng:close"), &json!(1012)));
    assert_eq!(code, Some(1012));
}

#[test]
fn a_drain_before_the_connect_lets_the_library_come_back() {
    let mut rig = Rig::alone();
    let (conn, _) = opened(&mut rig, TARGET, "");
    rig.take(Mail::Drain(Duration::from_secs(1)));
    let mut heard = Vec::new();
    for _ in 0..8 {
        rig.later(Duration::from_secs(1));
        rig.settle();
        let (texts, code) = hear(&mut rig, conn);
        heard.extend(texts);
        if code.is_some() {
            assert_eq!(code, Some(1012));
            assert!(heard.iter().all(|packet| packet.starts_with("42")), "{heard:?}");
            return;
        }
    }
    panic!("no end");
}

#[test]
fn a_ticket_that_was_used_is_told_as_a_connect_error() {
    let mut rig = Rig::new(0, 1, guarded(&[Source::Ticket], |_| {}));
    let ticket = ticket(1);
    let target = format!("{TARGET}&ticket={ticket}");
    let (first, _) = opened(&mut rig, &target, "");
    assert_eq!(json_behind(&say(&mut rig, first, "40")[1], "42")[1]["userId"], "ada");
    let conn = knock(&mut rig, &target, "");
    let (texts, code) = told(answer(&mut rig, conn).1);
    assert_eq!(json_behind(&texts[1], "44")["data"]["code"], "unauthorized");
    assert_eq!((texts.len(), code), (2, Some(1008)));
    assert_eq!(rig.shard.counters().auth_ticket_total, 1);
}

/// What a client may send in whatever state: packets of every kind, whole and broken.
fn packet() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just("x".to_owned()),
        Just("throng:join".to_owned()),
        Just("throng:leave".to_owned()),
        Just("throng:auth".to_owned()),
        Just("connect".to_owned()),
        "[a-z\"\\\\:]{0,6}",
    ];
    let room = prop_oneof![Just("r".to_owned()), ".{0,3}"];
    let event = (prop::option::of(0_u64..4), name, room, any::<bool>()).prop_map(
        |(ack, name, room, is_command)| {
            let ack = ack.map(|ack| ack.to_string()).unwrap_or_default();
            let list = if is_command {
                json!([name, { "room": room }])
            } else {
                json!([name, 1, { "room": room }])
            };
            format!("42{ack}{list}")
        },
    );
    prop_oneof![
        5 => event,
        2 => Just("40".to_owned()),
        1 => Just("3".to_owned()),
        1 => Just("2probe".to_owned()),
        1 => "4[0-9][0-9]{0,3}(/[a-z]{0,2},)?[\\[\\]{}\"a-z0-9,:]{0,8}",
        1 => "[0-9a-z]{0,4}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The rig asserts the shard's invariants after each event; whoever else is there is served all the while.
    #[test]
    fn no_packets_harm_the_shard_or_those_who_are_in_it(
        packets in prop::collection::vec(packet(), 1..24), seconds in 0_u64..2,
    ) {
        let mut rig = Rig::alone();
        let socket = rig.open();
        let (conn, _) = opened(&mut rig, TARGET, "");
        for packet in &packets {
            rig.receive(conn, &frame(0x81, packet.as_bytes()));
            rig.later(Duration::from_secs(seconds));
            rig.settle();
            // Whatever is said to it is a packet.
            for text in hear(&mut rig, conn).0 {
                prop_assert!(engineio::Packet::read(&text).is_ok(), "{}", text);
            }
            if rig.table_is_closing(conn) {
                break;
            }
        }
        rig.heard(socket);
        rig.say(socket, r#"{"type":"throng:ping","ref":1}"#);
        rig.settle();
        let heard = rig.heard(socket);
        prop_assert!(matches!(&heard[..], [Heard::Text(pong)] if pong["type"] == "throng:pong"));
    }
}

#[test]
fn news_of_a_room_that_is_watched_come_in_the_form_of_each_watcher() {
    let mut settings = settings();
    settings.rooms.presence.interval = Duration::from_millis(500);
    let mut rig = Rig::new(0, 1, settings);
    let conn = member(&mut rig, "r");
    let socket = rig.member("r");
    say(&mut rig, conn, r#"42["throng:watch",{"room":"r"}]"#);
    rig.say(socket, r#"{"type":"throng:watch","room":"r"}"#);
    rig.settle();
    rig.heard(socket);
    hear(&mut rig, conn);
    rig.member("r");
    rig.later(Duration::from_secs(2));
    rig.settle();
    rig.settle();
    let heard = rig.heard(socket);
    let by_socket: Vec<&Value> = heard
        .iter()
        .filter_map(|heard| match heard {
            Heard::Text(text) => Some(text),
            _ => None,
        })
        .collect();
    let packets = hear(&mut rig, conn).0;
    let by_packets = json_behind(&packets[0], "42");
    assert_eq!(by_packets[0], by_socket[0]["type"]);
    assert_eq!(by_packets[1]["members"], by_socket[0]["members"]);
    assert_eq!(by_packets[1]["members"], 3);
}

/// Users reach each other whatever they speak.
#[test]
fn a_users_connections_of_both_kinds_get_what_is_for_the_user() {
    let mut rig = Rig::new(0, 1, guarded(&[Source::Header], |_| {}));
    let socket = enter(&mut rig, &ada());
    let (packets, _) = opened(&mut rig, TARGET, &bearer(&ada()));
    say(&mut rig, packets, "40");
    let all = json!({"sub": "bob", "exp": 5000, "rooms": ["*"]});
    let author = enter(&mut rig, &all);
    rig.say(author, &join("a"));
    rig.say(author, r#"{"type":"connect_error","users":["ada"],"payload":{"n":1}}"#);
    rig.settle();
    let heard = rig.heard(socket);
    let [Heard::Text(push)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((&push["user"], &push["payload"]), (&json!(true), &json!({"n": 1})));
    let heard = hear(&mut rig, packets).0;
    let event = json_behind(&heard[0], "42");
    assert_eq!(event[0], "throng:publication", "its own name clients would not hear");
    assert_eq!((&event[1], &event[2]["type"]), (&json!({"n": 1}), &json!("connect_error")));
    assert_eq!(event[2]["user"], true);
}
