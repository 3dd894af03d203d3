//! What carriers keep, and the bytes on both sides of them.

use super::*;
use crate::base::id::{NodeTag, ShardId};
use crate::wire::websocket;
use proptest::prelude::*;

fn address(index: u32) -> ConnAddress {
    let conn = ConnId { index, generation: 7 };
    ConnAddress { node: NodeTag::NONE, shard: ShardId(1), conn }
}

fn batch(text: &str) -> SendBatch {
    let mut batch = SendBatch::new();
    batch.push(crate::base::shared::Shared::kept(websocket::text(text.as_bytes())));
    batch
}

#[test]
fn an_id_is_an_address_and_a_secret_and_neither_lets_in_alone() {
    let mut carriers = Carriers::new(&Seed::new(1), 5);
    carriers.begin(address(3), address(9), None);
    let session = carriers.session(address(3)).expect("a session");
    let (own, secret) = Carriers::parse(&session).expect("an id");
    assert_eq!(own, address(3));
    assert!(carriers.knows(own.conn, secret));
    assert!(!carriers.knows(own.conn, secret ^ 1) && !carriers.knows(address(4).conn, secret));
    for wrong in ["", "1-3-7", "1-3-7_", "1-3-7_12", &session[1..], &session[..session.len() - 1]] {
        let known =
            Carriers::parse(wrong).is_some_and(|(own, secret)| carriers.knows(own.conn, secret));
        assert!(!known || wrong.is_empty(), "{wrong}");
    }
    let other = Carriers::new(&Seed::new(1), 6);
    let sign = |carriers: &Carriers| hmac::sign(&carriers.key, b"x").as_ref().to_vec();
    assert_ne!(sign(&other), sign(&carriers));
}

#[test]
fn a_write_waits_for_a_request_and_a_request_for_a_write() {
    let mut carriers = Carriers::new(&Seed::new(1), 5);
    let conn = address(3).conn;
    carriers.begin(address(3), address(9), Some("https://a"));
    assert!(carriers.step(conn).is_none());
    assert!(carriers.take(Op::Send { conn, batch: batch("4x") }).is_ok());
    assert_eq!(carriers.pop(), Some(conn));
    let Some(Step::Say { to, origin, batch: first }) = carriers.step(conn) else {
        panic!("silent")
    };
    assert_eq!((to, origin.as_deref()), (address(9), Some("https://a")));
    assert_eq!(said(&written(&first)), Said::Packets { body: b"4x".to_vec(), is_last: false });
    assert!(carriers.take(Op::Send { conn, batch: batch("4y") }).is_ok());
    assert!(carriers.step(conn).is_none(), "nobody asks");
    assert_eq!(carriers.fetch(conn, address(10)), None);
    assert!(matches!(carriers.step(conn), Some(Step::Say { to, .. }) if to == address(10)));
    assert_eq!(carriers.fetch(conn, address(11)), None);
    assert_eq!(carriers.fetch(conn, address(12)), Some(address(11)));
    assert!(!carriers.hurry(conn, address(11)) && carriers.hurry(conn, address(12)));
}

#[test]
fn what_is_brought_waits_while_the_connection_is_not_read_from() {
    let mut carriers = Carriers::new(&Seed::new(1), 5);
    let conn = address(3).conn;
    carriers.begin(address(3), address(9), None);
    assert!(carriers.take(Op::PauseReads { conn }).is_ok());
    assert!(carriers.bring(conn, address(8), b"4a".to_vec()));
    assert!(!carriers.bring(conn, address(7), b"4b".to_vec()), "one at a time");
    assert!(carriers.step(conn).is_none());
    assert_eq!(carriers.bytes(), 2);
    assert!(carriers.take(Op::ResumeReads { conn }).is_ok());
    assert!(matches!(carriers.step(conn), Some(Step::Hear { body, .. }) if body == b"4a"));
    assert!(carriers.take(Op::Close { conn, abort: false }).is_ok());
    assert!(matches!(carriers.step(conn), Some(Step::Gone { to, .. }) if to == Some(address(9))));
    assert_eq!((carriers.len(), carriers.bytes()), (0, 0));
    assert!(carriers.take(Op::Look { conn }).is_err(), "it has a socket, or none at all");
}

#[test]
fn the_last_words_are_said_before_the_end_unless_it_is_a_reset() {
    for abort in [false, true] {
        let mut carriers = Carriers::new(&Seed::new(1), 5);
        let conn = address(3).conn;
        carriers.begin(address(3), address(9), None);
        let _ = carriers.hurry(conn, address(9));
        assert!(carriers.take(Op::Send { conn, batch: batch("4x") }).is_ok());
        assert!(carriers.take(Op::ShutdownWrite { conn }).is_ok());
        assert!(carriers.take(Op::Close { conn, abort }).is_ok());
        if abort {
            assert!(matches!(carriers.step(conn), Some(Step::Gone { to: None, .. })));
            continue;
        }
        assert!(carriers.step(conn).is_none());
        carriers.fetch(conn, address(8));
        assert!(matches!(carriers.step(conn), Some(Step::Say { .. })));
        assert!(matches!(carriers.step(conn), Some(Step::Gone { .. })));
    }
}

#[test]
fn a_handshake_stands_for_the_request_that_begins_a_session() {
    let request = "GET /socket.io/?EIO=4&transport=polling&t=x HTTP/1.1\r\nHost: a:1\r\nConnection: close\r\n\
        Cookie: t=1\r\nSec-WebSocket-Protocol: x\r\nSec-Fetch-Site: same-origin\r\n\r\n";
    let made =
        String::from_utf8(handshake(request.as_bytes()).expect("a handshake")).expect("text");
    assert!(
        made.starts_with("GET /socket.io/?EIO=4&transport=websocket&t=x HTTP/1.1\r\nHost: a:1\r\n")
    );
    assert!(made.contains("\r\nCookie: t=1\r\n") && made.contains("\r\nOrigin: https://a:1\r\n"));
    assert!(!made.contains("close") && !made.contains("Protocol"));
    assert!(made.ends_with("\r\n\r\n"));
    let foreign = request.replace("Sec-Fetch-Site: same-origin", "Origin: https://b");
    let made =
        String::from_utf8(handshake(foreign.as_bytes()).expect("a handshake")).expect("text");
    assert_eq!(made.matches("Origin: ").count(), 1);
    // Browsers say whose page it is to https, and to the machine they run on.
    for (host, origin) in [
        ("localhost:3000", "http://localhost:3000"),
        ("App.LocalHost", "http://App.LocalHost"),
        ("127.0.0.9", "http://127.0.0.9"),
        ("[::1]:80", "http://[::1]:80"),
        ("[2001:db8::1]:80", "https://[2001:db8::1]:80"),
        ("localhost.example", "https://localhost.example"),
        ("128.0.0.1:8443", "https://128.0.0.1:8443"),
    ] {
        let own = request.replace("Host: a:1", &format!("Host: {host}"));
        let made =
            String::from_utf8(handshake(own.as_bytes()).expect("a handshake")).expect("text");
        assert!(made.contains(&format!("\r\nOrigin: {origin}\r\n")), "{made}");
    }
    for wrong in ["transport=%70olling", "transport=polling&transport=polling"] {
        assert_eq!(handshake(request.replace("transport=polling", wrong).as_bytes()), None);
    }
}

#[test]
fn a_refusal_is_the_whole_answer_and_a_close_frame_the_last_packet() {
    let refusal = b"HTTP/1.1 401 Unauthorized\r\n\r\nno";
    assert_eq!(said(refusal), Said::Refused(refusal.to_vec()));
    let mut bytes = b"HTTP/1.1 101 Switching Protocols\r\nX: y\r\n\r\n".to_vec();
    bytes.extend_from_slice(&websocket::text(b"0{}"));
    bytes.extend_from_slice(&websocket::close(crate::wire::websocket::CloseCode::NORMAL, "bye"));
    assert_eq!(said(&bytes), Said::Packets { body: b"0{}\x1e1".to_vec(), is_last: true });
    assert_eq!(said(b""), Said::Packets { body: b"6".to_vec(), is_last: false });
}

proptest! {
    /// What is written in frames of any size comes out as the same texts.
    #[test]
    fn packets_of_any_length_survive_both_ways(
        texts in prop::collection::vec((0..3usize, "[0-6][a-z]{0,8}"), 1..5),
    ) {
        let long = |(size, text): &(usize, String)| text.repeat([1, 40, 14_000][*size]);
        let texts: Vec<String> = texts.iter().map(long).collect();
        let written: Vec<u8> =
            texts.iter().flat_map(|text| websocket::text(text.as_bytes())).collect();
        let expected = texts.join("\u{1e}").into_bytes();
        prop_assert_eq!(said(&written), Said::Packets { body: expected.clone(), is_last: false });
        let mut brought = frames(&expected);
        for text in &texts {
            let length = brought[1] & 0x7f;
            let head = match length { 126 => 4, 127 => 10, _ => 2 };
            prop_assert_eq!(brought[0], 0x81);
            let end = head + 4 + text.len();
            prop_assert_eq!(&brought[head + 4..end], text.as_bytes());
            brought.drain(..end);
        }
        prop_assert!(brought.is_empty());
    }
}

#[test]
fn a_binary_message_is_base64_and_what_is_not_is_a_text() {
    assert_eq!(frames(b"bAQID"), [0x82, 0x83, 0, 0, 0, 0, 1, 2, 3]);
    assert_eq!(frames(b"b!"), [0x81, 0x82, 0, 0, 0, 0, b'b', b'!']);
}
