//! Sessions of Socket.IO that begin by long polling and go on by WebSocket, over real sockets and several shards: row T9.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::{Message, WebSocket};

use crate::auth::{knock, status};
use crate::authority::Spoken;
use crate::polling::Polling;
use crate::support::{Client, PATIENCE, node, on_both_drivers, wait_for};
use crate::tls::client::{Secure, stream};

const PATH: &str = "server.socketio_path=/socket.io/";

fn target(session: &str) -> String {
    format!("/socket.io/?EIO=4&transport=websocket&sid={session}")
}

/// A WebSocket that names the session, which has said nothing yet.
fn tried<S: Read + Write>(stream: S, session: &str) -> WebSocket<S> {
    let request = format!("ws://localhost{}", target(session)).into_client_request().unwrap();
    tungstenite::client(request, stream).expect("an upgrade").0
}

fn plain(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// The next packet that is no ping.
fn next<S: Read + Write>(socket: &mut WebSocket<S>) -> String {
    loop {
        match socket.read().expect("a message") {
            Message::Text(text) if text.as_str() == "2" => {
                socket.send(Message::text("3")).expect("a write");
            }
            Message::Text(text) => return text.to_string(),
            other => panic!("{other:?}"),
        }
    }
}

/// Somebody who publishes lines with numbers.
struct Author {
    client: Client,
    last: u64,
}

impl Author {
    fn new(address: SocketAddr) -> Self {
        Self { client: Client::connect(address), last: 0 }
    }

    fn publish(&mut self, lines: u64) {
        for _ in 0..lines {
            self.last += 1;
            let pad = "x".repeat(200);
            self.client.ask(json!({"type": "line", "room": "lobby", "payload": [self.last, pad]}));
        }
    }
}

/// The number in a packet of that type.
fn number(packet: &str, kind: &str) -> Option<u64> {
    let event = packet.strip_prefix("42")?;
    let event: Value = serde_json::from_str(event).expect("JSON");
    (event[0] == kind).then(|| event[1][0].as_u64().expect("a number"))
}

/// A member that polls goes on by this WebSocket while so many lines are published at each step. All of them reach it, and all it
/// says reaches the room, once and in order.
fn goes_on<S: Read + Write>(
    author: &mut Author,
    client: &Polling,
    mut socket: WebSocket<S>,
    lines: u64,
) -> WebSocket<S> {
    let first = author.last + 1;
    author.publish(lines);
    let mut heard = client.fetch();
    heard.extend(std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.packets());
        socket.send(Message::text("2probe")).expect("a write");
        assert_eq!(next(&mut socket), "3probe");
        waiting.join().expect("the request is answered")
    }));
    author.publish(lines);
    client.bring(r#"42["own",[1],{"room":"lobby"}]"#);
    author.publish(lines);
    socket.send(Message::text("5")).expect("a write");
    socket.send(Message::text(r#"42["own",[2],{"room":"lobby"}]"#)).expect("a write");
    author.publish(lines);
    let of = |heard: &[String], kind: &str| -> Vec<u64> {
        heard.iter().filter_map(|packet| number(packet, kind)).collect()
    };
    while of(&heard, "line").last() != Some(&author.last) || of(&heard, "own").len() < 2 {
        heard.push(next(&mut socket));
    }
    let lines: Vec<u64> = (first..=author.last).collect();
    assert!(of(&heard, "line") == lines, "{:?}", of(&heard, "line"));
    assert_eq!(of(&heard, "own"), [1, 2]);
    socket
}

/// A member that polls.
fn member(address: SocketAddr) -> Polling {
    let client = Polling::connect(address, "");
    assert_eq!(client.opening()["upgrades"], json!(["websocket"]));
    client.bring(r#"420["throng:join",{"room":"lobby"}]"#);
    assert!(client.fetch()[0].starts_with("430[{"));
    client
}

on_both_drivers! {
    fn sessions_go_on_by_websocket_from_any_shard_and_nothing_is_lost_or_comes_twice(driver) {
        let node = node(driver, &[PATH, "server.shards=4"]);
        let mut author = Author::new(node.address());
        let mut sockets = Vec::new();
        for round in 0..24 {
            let client = member(node.address());
            let socket = tried(plain(node.address()), client.session());
            // Now and then more waits than one write takes.
            let lines = if round % 8 == 0 { 120 } else { 5 };
            sockets.push(goes_on(&mut author, &client, socket, lines));
            // Requests are over, and so is another change.
            assert_eq!(status(&client.ask("GET", "")), "400");
            let answer = knock(node.address(), &target(client.session()), &[]);
            assert!(answer.contains(r#"{"code":1,"message":"Session ID unknown"}"#), "{answer}");
            if round % 8 == 7 {
                sockets.clear();
            }
        }
        let counters = node.counters();
        assert_eq!((counters.socketio_upgrades_total, counters.socketio_upgrades_failed_total), (24, 0));
        assert!(counters.transfers_total > 0, "some came to another shard: {counters:?}");
        assert_eq!(counters.transfers_lost_total, 0);
        wait_for(&node, "the sockets were the sessions'", |c| {
            c.packet_connections == 0 && c.polling_connections == 0 && c.open_connections == 1
        });
    }

    fn by_tls_a_session_goes_on_with_the_keys_of_the_websocket(driver) {
        let secure = Secure::start(driver, &[PATH, "limits.messages_per_second=0", "server.shards=4"]);
        let mut author = Author::new(secure.node.address());
        for version in Spoken::BOTH {
            let config = secure.client(version);
            for round in 0..6 {
                let client = member(secure.node.address());
                let secured = stream(secure.address(), &config, "example.org");
                let socket = tried(secured, client.session());
                let mut socket = goes_on(&mut author, &client, socket, if round == 0 { 120 } else { 5 });
                socket.close(None).expect("a close frame");
                while socket.read().is_ok() {}
            }
        }
        let counters = secure.node.counters();
        assert_eq!((counters.socketio_upgrades_total, counters.socketio_upgrades_failed_total), (12, 0));
        wait_for(&secure.node, "no layer is left", |counters| counters.tls_connections == 0);
    }

    fn a_websocket_that_comes_to_nothing_leaves_the_session_polling_and_others_are_refused(driver) {
        let sets = [r#"auth.allowed_origins=["https://good.example"]"#, "limits.handshake_timeout_ms=1000"];
        let node = node(driver, &[PATH, "server.shards=4", sets[0], sets[1]]);
        let mut author = Author::new(node.address());
        let client = member(node.address());
        for round in 0..6 {
            let mut socket = tried(plain(node.address()), client.session());
            let answer = knock(node.address(), &target(client.session()), &[]);
            assert!(answer.contains(r#"{"code":3,"message":"Bad request"}"#), "one at a time: {answer}");
            let bad = [("Origin", "https://bad.example")];
            assert_eq!(status(&knock(node.address(), &target(client.session()), &bad)), "403");
            if round % 2 == 0 {
                socket.send(Message::text("2probe")).expect("a write");
                assert_eq!(next(&mut socket), "3probe");
            }
            match round % 3 {
                0 => drop(socket),
                1 => {
                    socket.send(Message::text("42[\"line\",0,{\"room\":\"lobby\"}]")).expect("a write");
                    assert!(socket.read().is_err(), "it is no session");
                }
                _ => assert!(socket.read().is_err(), "its time is over"),
            }
            wait_for(&node, "it is gone", |c| c.socketio_upgrades_failed_total == round + 1);
            author.publish(1);
            assert_eq!(client.fetch().iter().filter_map(|line| number(line, "line")).collect::<Vec<_>>(),
                [author.last]);
        }
        let socket = tried(plain(node.address()), client.session());
        goes_on(&mut author, &client, socket, 5);
        assert_eq!(node.counters().socketio_upgrades_total, 1);
    }
}
