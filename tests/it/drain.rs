//! The graceful end: row O7, as far as a node by itself goes.

use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::Message;

use crate::support::{Client, node, on_both_drivers, wait_until};

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

    fn a_drain_ends_in_time_though_a_client_does_not_answer(driver) {
        let node = node(driver, &[]);
        let mute = Client::connect(node.address());
        node.drain(Duration::from_millis(300));
        wait_until("it has drained", || node.is_drained());
        drop(mute);
    }
}
