//! Compressed messages as a shard reads and writes them: rows B6 and A14.

use serde_json::{Value, json};

use crate::base::glob::Glob;
use crate::base::id::ConnId;
use crate::flow::budget::Rate;
use crate::shard::settings::{Compression, Settings};
use crate::shard::tests::rig::{Rig, frame, head_with, publish, settings};
use crate::wire::websocket::{Deflator, Inflator, payload};

pub(super) const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";

pub(super) fn compressing() -> Settings {
    let mut settings = settings();
    settings.routes.deflate = true;
    let (min_bytes, max_bytes, inline_bytes) = (100, 3000, 3000);
    settings.capacity.compression =
        Some(Compression { level: 6, min_bytes, max_bytes, inline_bytes, ratio: 8 });
    settings
}

fn rig() -> Rig {
    Rig::new(0, 1, compressing())
}

/// A client at `path` with these lines in its request, and what it was answered.
pub(super) fn open(rig: &mut Rig, path: &str, lines: &str) -> (ConnId, String) {
    let conn = rig.accept().expect("let in");
    rig.receive(conn, &head_with(path, lines));
    rig.settle();
    let response = rig.response(conn);
    (conn, response)
}

/// A greeted client in the room.
pub(super) fn member(rig: &mut Rig, lines: &str) -> ConnId {
    let (conn, _) = open(rig, "/ws", lines);
    rig.say(conn, r#"{"type":"throng:join","room":"r"}"#);
    rig.settle();
    rig.bytes(conn);
    conn
}

/// The texts that reached a client, and whether each came compressed.
pub(super) fn texts(rig: &mut Rig, conn: ConnId) -> Vec<(bool, Value)> {
    let bytes = rig.bytes(conn);
    let (mut rest, mut texts) = (&bytes[..], Vec::new());
    let mut inflator = Inflator::default();
    while !rest.is_empty() {
        let length = match rest[1] {
            126 => 4 + usize::from(u16::from_be_bytes([rest[2], rest[3]])),
            length => 2 + usize::from(length),
        };
        let (whole, after) = rest.split_at(length);
        rest = after;
        let is_small = match whole[0] {
            0x81 => false,
            0xc1 => true,
            other => panic!("a frame that begins with {other:#x}"),
        };
        let text = if is_small {
            inflator.inflate(payload(whole), 1 << 20).expect("deflate")
        } else {
            payload(whole)
        };
        texts.push((is_small, serde_json::from_slice(text).expect("JSON")));
    }
    texts
}

/// The message as the payload of a compressed frame.
fn squeezed(message: &[u8]) -> Vec<u8> {
    Deflator::new(6).deflate(message).expect("it shrinks").to_vec()
}

fn closed_with(rig: &mut Rig, conn: ConnId) -> Option<u16> {
    rig.settle();
    let bytes = rig.bytes(conn);
    let at = bytes.iter().rposition(|byte| *byte == 0x88)?;
    Some(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]))
}

const LONG: &str = r#""aaaaaaaaaabbbbbbbbbbaaaaaaaaaabbbbbbbbbbaaaaaaaaaabbbbbbbbbbaaaaaaaaaabbbbbbbbbbaaaaaaaaaabbbbbbbbbb""#;

#[test]
fn it_is_agreed_on_where_it_is_on_and_offered_and_nowhere_else() {
    let mut rig = rig();
    let said = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    for path in ["/ws", "/echo", "/socket.io/?EIO=4&transport=websocket"] {
        let (conn, response) = open(&mut rig, path, OFFER);
        assert!(response.contains(said), "{path}: {response}");
        let (_, plain) = open(&mut rig, path, "");
        assert!(!plain.contains("Extensions"), "{path}: {plain}");
        rig.receive(conn, &frame(0x88, &[]));
        rig.settle();
    }
    assert_eq!(rig.shard.counters().deflate_connections, 0);
    let mut rig = Rig::alone();
    let (conn, response) = open(&mut rig, "/ws", OFFER);
    assert!(!response.contains("Extensions"), "{response}");
    rig.bytes(conn);
    rig.receive(conn, &frame(0xc1, &squeezed(publish(&["r"], LONG).as_bytes())));
    assert_eq!(closed_with(&mut rig, conn), Some(1002));
}

#[test]
fn a_publication_is_compressed_once_for_all_who_agreed_and_plain_for_the_others() {
    let mut rig = rig();
    let small: Vec<_> = (0..5).map(|_| member(&mut rig, OFFER)).collect();
    let plain = member(&mut rig, "");
    let narrow = member(
        &mut rig,
        "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=8\r\n",
    );
    let before = rig.shard.counters();
    assert_eq!(before.deflate_connections, 6);
    rig.say(plain, &publish(&["r"], LONG));
    rig.say(plain, &publish(&["r"], "1"));
    let longer = format!("\"{}\"", "xyz".repeat(100));
    rig.say(plain, &publish(&["r"], &longer));
    rig.settle();
    let long: Value = serde_json::from_str(LONG).expect("JSON");
    let expected = [long, json!(1), serde_json::from_str(&longer).expect("JSON")];
    let mut check = |conn, how: [bool; 3]| {
        let heard = texts(&mut rig, conn);
        let payloads = heard.iter().map(|(_, push)| push["payload"].clone());
        assert_eq!(payloads.collect::<Vec<_>>(), expected);
        assert_eq!(heard.iter().map(|(small, _)| *small).collect::<Vec<_>>(), how);
    };
    for conn in small {
        check(conn, [true, false, true]);
    }
    check(plain, [false; 3]);
    // What is longer than its window goes plain.
    check(narrow, [true, false, false]);
    let after = rig.shard.counters();
    assert_eq!(after.deflated_messages_total - before.deflated_messages_total, 2);
    assert!(after.deflated_after_bytes_total < after.deflated_before_bytes_total);
}

#[test]
fn replies_are_compressed_where_it_helps_and_what_is_long_goes_plain() {
    let mut rig = rig();
    let (conn, _) = open(&mut rig, "/echo", OFFER);
    for (text, is_small) in [
        ("[1,2,3]".to_owned(), false),
        (format!("[{}1]", "1234,".repeat(100)), true),
        (format!("[{}1]", "1234,".repeat(1000)), false),
    ] {
        rig.say(conn, &text);
        rig.settle();
        let expected = (is_small, serde_json::from_str(&text).expect("JSON"));
        assert_eq!(texts(&mut rig, conn), [expected]);
    }
}

#[test]
fn a_compressed_message_is_obeyed_however_it_is_cut() {
    let mut rig = rig();
    let (conn, other) = (member(&mut rig, OFFER), member(&mut rig, ""));
    let text = publish(&["r"], LONG);
    let small = squeezed(text.as_bytes());
    let whole = frame(0xc1, &small);
    let (head, tail) = small.split_at(small.len() / 2);
    let halves = [frame(0x41, head), frame(0x89, b"x"), frame(0x80, tail)].concat();
    for bytes in [whole, halves] {
        for at in 1..bytes.len() {
            rig.receive(conn, &bytes[..at]);
            rig.receive(conn, &bytes[at..]);
            rig.settle();
            assert_eq!(texts(&mut rig, other).len(), 1, "cut at {at}");
            rig.bytes(conn);
        }
    }
    let counters = rig.shard.counters();
    assert!(counters.inflated_before_bytes_total < counters.inflated_after_bytes_total);
    assert_eq!(
        counters.inflated_after_bytes_total,
        counters.inflated_messages_total * text.len() as u64
    );
}

#[test]
fn a_bomb_bad_data_and_bad_text_end_their_connection_alone() {
    let mut rig = rig();
    let other = member(&mut rig, OFFER);
    let bomb = squeezed(&vec![b' '; 2 << 20]);
    assert!(bomb.len() < 4096, "as compressed bytes it is within the limit");
    for (first, payload, code) in [
        (0xc1, &bomb[..], 1009),
        (0xc2, &bomb[..], 1009),
        (0xc1, &b"\xff\xff\xff"[..], 1007),
        (0xc1, &squeezed(&[0xff; 200])[..], 1007),
        (0xc9, &[][..], 1002),
        (0xc0, &[][..], 1002),
        (0xe1, &[][..], 1002),
    ] {
        let (conn, _) = open(&mut rig, "/ws", OFFER);
        rig.bytes(conn);
        rig.receive(conn, &frame(first, payload));
        // What comes behind it is not read.
        rig.receive(conn, &frame(0xc1, &squeezed(publish(&["r"], LONG).as_bytes())));
        assert_eq!(closed_with(&mut rig, conn), Some(code), "{first:#x} {}", payload.len());
        assert_eq!(rig.shard.counters().deliveries_total, 0);
    }
    rig.say(other, &publish(&["r"], LONG));
    rig.settle();
    assert_eq!(texts(&mut rig, other).len(), 1);
}

#[test]
fn one_read_becomes_no_more_than_its_length_is_worth() {
    let mut rig = rig();
    // Each is within the limit of 4096, and together they are 40 times what came.
    let one = frame(0xc1, &squeezed(&[b' '; 4000]));
    let many = one.repeat(20);
    assert!(many.len() * 8 < 8000);
    let (conn, _) = open(&mut rig, "/ws", OFFER);
    rig.bytes(conn);
    rig.receive(conn, &many);
    assert_eq!(closed_with(&mut rig, conn), Some(1009));
    assert_eq!(rig.shard.counters().inflated_messages_total, 1);
    // One by one they are answered.
    let (conn, _) = open(&mut rig, "/ws", OFFER);
    for _ in 0..20 {
        rig.receive(conn, &one);
    }
    assert_eq!(rig.shard.counters().inflated_messages_total, 21);
}

#[test]
fn rates_weigh_what_a_message_becomes() {
    let mut settings = compressing();
    settings.limits.connection[1] = Some(Rate { per_second: 1000, burst: 1000 });
    let mut rig = Rig::new(0, 1, settings);
    let text = publish(&["r"], &format!("{:?}", "x".repeat(900)));
    let small = squeezed(text.as_bytes());
    assert!(text.len() < 1000 && 2 * text.len() > 1000 && small.len() * 5 < 1000);
    let conn = member(&mut rig, OFFER);
    for _ in 0..2 {
        rig.receive(conn, &frame(0xc1, &small));
        rig.settle();
    }
    let codes: Vec<_> =
        texts(&mut rig, conn).into_iter().map(|(_, it)| it["code"].clone()).collect();
    assert_eq!(codes, [json!(null), json!("rate_limited")]);
}

#[test]
fn clients_of_socketio_share_compressed_packets() {
    let mut rig = rig();
    let target = "/socket.io/?EIO=4&transport=websocket";
    let (conn, _) = open(&mut rig, target, OFFER);
    rig.say(conn, "40");
    rig.settle();
    rig.say(conn, r#"421["throng:join",{"room":"r"}]"#);
    rig.settle();
    rig.bytes(conn);
    let other = member(&mut rig, "");
    rig.say(other, &publish(&["r"], LONG));
    rig.settle();
    let bytes = rig.bytes(conn);
    assert_eq!(bytes[0], 0xc1);
    let mut inflator = Inflator::default();
    let packet = inflator.inflate(payload(&bytes), 4096).expect("deflate");
    assert!(packet.starts_with(b"42["), "{}", String::from_utf8_lossy(packet));
}

#[test]
fn what_was_missed_comes_compressed_and_the_same_for_all_who_come_back() {
    let mut settings = crate::shard::tests::history::remembering(8);
    settings.rooms.namespaces[0].pattern = Glob::new("r*");
    let own = compressing();
    settings.routes = own.routes;
    settings.capacity.compression = own.capacity.compression;
    let mut rig = Rig::new(0, 1, settings);
    let plain = member(&mut rig, "");
    rig.say(plain, r#"{"type":"throng:join","room":"r","ref":2}"#);
    rig.settle();
    let cursor = texts(&mut rig, plain).remove(0).1;
    for _ in 0..3 {
        rig.say(plain, &publish(&["r"], LONG));
    }
    rig.settle();
    let since = json!({"epoch": cursor["epoch"], "offset": 0});
    let join = json!({"type": "throng:join", "room": "r", "ref": 1, "since": since}).to_string();
    let mut made = Vec::new();
    for (lines, is_small) in [(OFFER, true), (OFFER, true), ("", false)] {
        let before = rig.shard.counters().deflated_messages_total;
        let (conn, _) = open(&mut rig, "/ws", lines);
        rig.say(conn, &join);
        rig.settle();
        let missed = texts(&mut rig, conn).into_iter().filter(|(_, text)| text["type"] == "t");
        assert_eq!(missed.map(|(small, _)| small).collect::<Vec<_>>(), [is_small; 3]);
        made.push(rig.shard.counters().deflated_messages_total - before);
    }
    // What the first was told apart from them, the second was told as well.
    assert_eq!((made[0] - made[1], made[2]), (3, 0));
}
