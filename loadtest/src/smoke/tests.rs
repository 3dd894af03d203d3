//! The smoke run against a room server of tungstenite's making: one that is honest, and ones that are not.
//!
//! The server is a thread that polls all its sockets in turn. What it does with each delivery is a
//! function of the test, so that every fault the run is there to find is shown to be found.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use serde_json::Value;
use tungstenite::{Bytes, Error, Message, WebSocket};

use super::*;

/// What becomes of one delivery.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Delivered,
    Dropped,
    Doubled,
    /// Delivered behind the next one.
    Delayed,
    /// Followed by something else.
    Followed(&'static str),
    /// Answered with the end of the connection.
    HungUp,
}

struct Server {
    sockets: Vec<WebSocket<TcpStream>>,
    delayed: Vec<Option<String>>,
    fate: fn(usize, u64) -> Fate,
    offset: u64,
    pongs: usize,
}

impl Server {
    /// Serves `clients` connections until all are gone; gives the number of pongs received.
    fn start(clients: usize, fate: fn(usize, u64) -> Fate) -> (SocketAddr, JoinHandle<usize>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        #[expect(clippy::disallowed_methods, reason = "the server of a test needs a thread")]
        let thread = thread::spawn(move || {
            let sockets = (0..clients).map(|_| accept(&listener)).collect();
            let delayed = vec![None; clients];
            let mut server = Self { sockets, delayed, fate, offset: 0, pongs: 0 };
            let mut open = vec![true; clients];
            while open.contains(&true) {
                for (who, open) in open.iter_mut().enumerate().filter(|(_, open)| **open) {
                    *open = server.turn(who);
                }
                thread::yield_now();
            }
            server.pongs
        });
        (address, thread)
    }

    /// Reads at most one message of a client. False when the client is gone.
    fn turn(&mut self, who: usize) -> bool {
        match self.sockets[who].read() {
            Ok(Message::Text(text)) => {
                let message: Value = serde_json::from_str(&text).expect("JSON from the client");
                self.command(who, &message);
                true
            }
            Ok(Message::Pong(_)) => {
                self.pongs += 1;
                true
            }
            Ok(_) => true,
            Err(Error::Io(error)) => error.kind() == ErrorKind::WouldBlock,
            Err(_) => false,
        }
    }

    fn command(&mut self, who: usize, message: &Value) {
        if message["type"] == "throng:join" {
            let reply = json!({"type": "throng:reply", "ref": message["ref"], "ok": true});
            return self.send(who, reply.to_string());
        }
        self.offset += 1;
        let mut message = message.clone();
        message["offset"] = self.offset.into();
        for member in 0..self.sockets.len() {
            let seq = message["payload"]["seq"].as_u64().expect("a number");
            self.deliver(member, (self.fate)(member, seq), message.to_string());
        }
    }

    fn deliver(&mut self, member: usize, fate: Fate, text: String) {
        match fate {
            Fate::Dropped => {}
            Fate::Delayed => self.delayed[member] = Some(text),
            Fate::HungUp => {
                let stream = self.sockets[member].get_ref();
                stream.shutdown(std::net::Shutdown::Both).expect("an open socket");
            }
            Fate::Doubled => {
                self.send(member, text.clone());
                self.send(member, text);
            }
            Fate::Followed(other) => {
                self.send(member, text);
                self.send(member, other.to_owned());
            }
            Fate::Delivered => {
                self.send(member, text);
                if let Some(delayed) = self.delayed[member].take() {
                    self.send(member, delayed);
                }
            }
        }
    }

    /// Sends to a client, which may be gone already.
    fn send(&mut self, who: usize, text: String) {
        let _ = self.sockets[who].send(Message::text(text));
    }
}

/// Shakes hands, greets and pings.
fn accept(listener: &TcpListener) -> WebSocket<TcpStream> {
    let (stream, _) = listener.accept().expect("a client");
    let mut socket = tungstenite::accept(stream).expect("a handshake");
    socket.send(Message::text(r#"{"type":"throng:connected","clientId":"0-1-2"}"#)).expect("sent");
    socket.send(Message::Ping(Bytes::from_static(b"beat"))).expect("sent");
    socket.get_ref().set_nonblocking(true).expect("a socket");
    socket
}

fn plan(address: SocketAddr, clients: usize, messages: u64) -> Plan {
    Plan {
        target: Target::parse(&format!("ws://{address}/ws")).expect("a URL"),
        clients,
        messages,
        room: "r".to_owned(),
        sources: vec![Ipv4Addr::LOCALHOST.into(), Ipv4Addr::new(127, 0, 0, 2).into()],
        window: 8,
        patience: Duration::from_secs(20),
    }
}

fn smoke(clients: usize, messages: u64, fate: fn(usize, u64) -> Fate) -> (Report, usize) {
    let (address, server) = Server::start(clients, fate);
    let report = tokio_uring::start(run(plan(address, clients, messages)));
    (report, server.join().expect("the server ends with its clients"))
}

#[test]
fn an_honest_room_passes_with_every_delivery_counted() {
    let (report, pongs) = smoke(20, 100, |_, _| Fate::Delivered);
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.joined, report.published, report.delivered), (20, 100, 2000));
    assert_eq!(pongs, 20, "every ping is answered");
}

#[test]
fn a_lost_delivery_fails_the_run() {
    let (report, _) =
        smoke(3, 50, |who, seq| if (who, seq) == (2, 7) { Fate::Dropped } else { Fate::Delivered });
    assert_eq!((report.lost(), report.is_clean()), (1, false), "{report}");
    assert_eq!(report.failures, Vec::<String>::new(), "the count alone tells it");
}

#[test]
fn the_last_delivery_lost_is_found_without_waiting() {
    let (report, _) =
        smoke(2, 5, |who, seq| if (who, seq) == (0, 5) { Fate::Dropped } else { Fate::Delivered });
    assert_eq!(report.lost(), 1, "{report}");
    assert!(report.delivering < Duration::from_secs(20), "{report}");
}

#[test]
fn a_doubled_delivery_fails_the_run() {
    let (report, _) =
        smoke(
            3,
            50,
            |who, seq| {
                if who == 1 && seq % 10 == 0 { Fate::Doubled } else { Fate::Delivered }
            },
        );
    assert_eq!((report.duplicates, report.lost(), report.is_clean()), (5, 0, false), "{report}");
}

#[test]
fn a_delivery_out_of_order_fails_the_run() {
    let (report, _) =
        smoke(
            3,
            50,
            |who, seq| {
                if (who, seq) == (1, 20) { Fate::Delayed } else { Fate::Delivered }
            },
        );
    assert_eq!((report.reordered, report.lost(), report.is_clean()), (1, 0, false), "{report}");
}

#[test]
fn what_the_server_says_against_itself_fails_the_run() {
    let (report, _) = smoke(2, 5, |who, seq| {
        let gap = Fate::Followed(r#"{"type":"throng:gap","room":"r","lost":3}"#);
        if (who, seq) == (1, 2) { gap } else { Fate::Delivered }
    });
    assert_eq!((report.gaps, report.is_clean()), (3, false), "{report}");
    let (report, _) = smoke(2, 5, |who, seq| {
        let error = Fate::Followed(r#"{"type":"throng:error","code":"overloaded"}"#);
        if (who, seq) == (1, 2) { error } else { Fate::Delivered }
    });
    assert!(report.failures[0].contains("the server said"), "{report}");
}

#[test]
fn a_server_that_hangs_up_fails_the_run_with_its_client_named() {
    let (report, _) =
        smoke(3, 50, |who, seq| if (who, seq) == (1, 9) { Fate::HungUp } else { Fate::Delivered });
    assert!(!report.is_clean(), "{report}");
    assert!(report.failures.iter().any(|f| f.starts_with("client ")), "{report}");
}

#[test]
fn a_server_that_is_not_there_fails_every_client() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let report = tokio_uring::start(run(plan(address, 2, 1)));
    assert_eq!((report.joined, report.is_clean()), (0, false), "{report}");
    assert!(report.failures[0].contains("refused"), "{report}");
}

#[test]
fn a_server_that_says_nothing_is_given_up_with_what_was_missing() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    let plan = Plan { patience: Duration::from_millis(50), ..plan(address, 300, 1) };
    let report = tokio_uring::start(run(plan));
    assert_eq!(report.failures[0], "joining: 0 of 300 clients within 50 ms", "{report}");
    assert!(!report.is_clean());
}

#[test]
fn the_pace_is_that_of_the_slowest_and_skips_what_was_lost() {
    let mut pace = Pace { reached: vec![0; 12], slowest: 0 };
    assert!(!pace.advance(0, 3, 2));
    assert!(pace.advance(0, 1, 2));
    assert_eq!(pace.slowest, 1);
    assert!(pace.advance(1, 10, 2));
    assert_eq!(pace.slowest, 3, "the other is at 3");
    assert!(pace.advance(3, 10, 2));
    assert_eq!(pace.slowest, 10);
}
