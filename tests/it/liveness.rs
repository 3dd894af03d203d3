//! Heartbeats and ends: rows L1, L3 and the close handshake.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;
use tungstenite::Message;

use crate::support::{Client, exchange, node, on_both_drivers, wait_for};

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A peer that completes the handshake and then says nothing more, not even a pong.
fn mute(address: std::net::SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(HANDSHAKE.as_bytes()).unwrap();
    stream
}

on_both_drivers! {
    fn thousands_of_dead_peers_are_reaped_and_a_living_one_stays(driver) {
        let node = node(driver, &["heartbeat.ping_interval_ms=300", "heartbeat.ping_timeout_ms=300"]);
        let mut living = Client::connect(node.address());
        living.join("r");
        let dead: Vec<TcpStream> = (0..2000).map(|_| mute(node.address())).collect();
        wait_for(&node, "all are open", |c| c.handshakes_total >= 2001);
        // The living one has to read to answer pings.
        while node.counters().heartbeat_lost_total < 2000 {
            living.expect_silence();
        }
        assert_eq!(node.counters().heartbeat_lost_total, 2000);
        living.expect_silence();
        drop(dead);
        wait_for(&node, "one is left", |c| c.connections == 1);
        assert!(node.counters().pings_total >= 2000);
    }

    fn the_application_ping_is_answered_with_the_time(driver) {
        let node = node(driver, &[]);
        let mut client = Client::connect(node.address());
        let pong = client.ask(json!({"type": "throng:ping"}));
        assert_eq!(pong["type"], "throng:pong");
        assert!(pong["time"].as_u64().expect("milliseconds") > 1_600_000_000_000);
    }

    fn a_close_frame_is_answered_with_its_code(driver) {
        let node = node(driver, &[]);
        let mut stream = mute(node.address());
        wait_for(&node, "it is open", |c| c.open_connections == 1);
        // A masked close frame with 4321 under a mask of zeros.
        stream.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x10, 0xe1]).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert_eq!(all[all.len() - 4..], [0x88, 2, 0x10, 0xe1]);
        drop(stream);
        wait_for(&node, "nothing is left", |c| c.connections == 0 && c.closed_total == 1);
    }

    fn a_head_that_does_not_end_is_refused_in_time(driver) {
        let node = node(driver, &["limits.handshake_timeout_ms=200"]);
        let answer = exchange(node.address(), b"GET /ws HTTP/1.1\r\nHost: x\r\n");
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        wait_for(&node, "nothing is left", |c| c.connections == 0 && c.refused_408_total == 1);
    }

    fn a_message_that_does_not_end_is_closed_with_1008(driver) {
        let node = node(driver, &["limits.message_timeout_ms=200"]);
        let client = Client::connect(node.address());
        let mut stream = client.stream();
        stream.write_all(&[0x01, 0x81, 0, 0, 0, 0, b'x']).unwrap();
        assert_eq!(client.close_code(), 1008);
    }

    fn an_idle_client_is_closed_with_1001_when_so_configured(driver) {
        let node = node(driver, &["limits.idle_timeout_ms=1000"]);
        let client = Client::connect(node.address());
        assert_eq!(client.close_code(), 1001);
    }

    fn violations_are_closed_with_their_codes(driver) {
        let node = node(driver, &["limits.max_message_bytes=1000"]);
        for (bytes, code) in [
            (&[0x81, 0x01, b'x'][..], 1002),
            (&[0x83, 0x80, 0, 0, 0, 0], 1002),
            (&[0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28], 1007),
            (&[0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0], 1009),
        ] {
            let client = Client::connect(node.address());
            client.stream().write_all(bytes).unwrap();
            assert_eq!(client.close_code(), code, "{bytes:?}");
        }
    }

    fn echo_is_there_only_when_asked_for(driver) {
        let off = node(driver, &[]);
        let request = HANDSHAKE.replace("/ws", "/echo");
        assert!(exchange(off.address(), request.as_bytes()).starts_with("HTTP/1.1 404 "));
        let on = node(driver, &["debug.echo_path=/echo"]);
        let stream = TcpStream::connect(on.address()).unwrap();
        let (mut socket, _) =
            tungstenite::client(format!("ws://{}/echo", on.address()), stream).unwrap();
        for message in [Message::text("häh"), Message::binary(vec![7; 300_000]), Message::text("")] {
            socket.send(message.clone()).unwrap();
            assert_eq!(socket.read().unwrap(), message);
        }
    }
}
