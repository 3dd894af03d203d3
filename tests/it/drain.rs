//! The graceful end: row O7, as far as a node by itself goes.

use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::Message;

use crate::support::{Client, node, on_both_drivers, wait_for, wait_until};

on_both_drivers! {
    fn a_drain_tells_everybody_flushes_and_closes_with_1012(driver) {
        let node = node(driver, &["server.reconnect_spread_ms=4000"]);
        let mut clients: Vec<Client> = (0..40).map(|_| Client::connect(node.address())).collect();
        for client in &mut clients {
            client.join("r");
        }
        let publisher = clients[0].id.clone();
        clients[0].ask(json!({"type": "x", "room": "r", "except": [publisher]}));
        let address = node.address();
        node.drain(Duration::from_secs(2));
        let mut delays = Vec::new();
        for (at, mut client) in clients.into_iter().enumerate() {
            let mut published = 0;
            let frame = loop {
                match client.next_message() {
                    Message::Close(Some(frame)) => break frame,
                    Message::Text(text) => {
                        let push: Value = serde_json::from_str(&text).unwrap();
                        let delay = push["reconnectDelayMs"].as_u64();
                        delays.extend(delay);
                        published += usize::from(push["type"] == "x");
                        assert!(push["type"] == "x" || delay.is_some(), "{push}");
                    }
                    other => panic!("instead of a push: {other:?}"),
                }
            };
            assert_eq!(u16::from(frame.code), 1012);
            assert_eq!(published, usize::from(at > 0), "what was published before is not lost");
        }
        assert_eq!(delays.len(), 40, "everybody is told once");
        delays.sort_unstable();
        delays.dedup();
        assert!(delays.len() > 20 && delays.iter().all(|delay| *delay <= 4000), "{delays:?}");
        wait_until("it has drained", || node.is_drained());
        assert!(TcpStream::connect(address).is_err(), "somebody still listens");
        node.stop().unwrap();
    }

    /// It reads nothing before it is told that the node goes: by then most of it waits in the node and not in the kernel.
    fn what_was_queued_for_a_slow_reader_before_a_drain_arrives_in_order_before_the_close(driver) {
        let node = node(driver, &[
            "tcp.send_buffer_bytes=8192",
            "tcp.notsent_lowat_bytes=4096",
        ]);
        let mut slow = Client::connect_narrow(node.address());
        slow.join("r");
        // The first that came is the first to be closed, long before the window is over.
        let others: Vec<Client> = (0..16).map(|_| Client::connect(node.address())).collect();
        let mut author = Client::connect(node.address());
        let filler = "x".repeat(1000);
        for number in 0..150 {
            let payload = json!({"n": number, "x": filler});
            author.ask(json!({"type": "n", "room": "r", "payload": payload}));
        }
        assert!(node.counters().queued_bytes > 50_000, "{:?}", node.counters());
        node.drain(Duration::from_secs(10));
        wait_for(&node, "closes have begun on both shards", |counters| counters.closed_total > 2);
        let mut numbers = Vec::new();
        let (mut reloads, mut code) = (0, None);
        while code.is_none() {
            match slow.next_message() {
                Message::Text(text) => {
                    let push: Value = serde_json::from_str(&text).unwrap();
                    assert!(push["type"] == "n" || numbers.len() == 150, "{push}");
                    reloads += usize::from(push["type"] == "throng:reload");
                    numbers.extend(push["payload"]["n"].as_u64());
                }
                Message::Close(frame) => code = frame.map(|frame| u16::from(frame.code)),
                other => panic!("instead of a push: {other:?}"),
            }
        }
        assert!(numbers.iter().copied().eq(0..150), "{numbers:?}");
        assert_eq!((reloads, code), (1, Some(1012)));
        drop(others);
    }

    fn a_drain_ends_in_time_though_a_client_does_not_answer(driver) {
        let node = node(driver, &[]);
        let mute = Client::connect(node.address());
        node.drain(Duration::from_millis(300));
        wait_until("it has drained", || node.is_drained());
        drop(mute);
    }
}
