//! Limits over real sockets: rates, connections of an address, handshakes, and who a client is.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::json;
use throng::node::config::Config;

use crate::support::{Client, PATIENCE, exchange, node, on_both_drivers, wait_for, wait_until};

const GOOD: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// The request with more header lines.
fn request(lines: &str) -> String {
    format!("{}{lines}\r\n", GOOD.strip_suffix("\r\n").unwrap())
}

/// Sends bytes and keeps the connection if it gets as far as the greeting.
fn visit(address: SocketAddr, bytes: &[u8]) -> Option<TcpStream> {
    let (stream, heard) = visit_until(address, bytes, "throng:connected");
    heard.contains("throng:connected").then_some(stream)
}

/// Sends bytes and reads until it is greeted, told these words, or refused.
fn visit_until(address: SocketAddr, bytes: &[u8], words: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(bytes);
    let mut heard = String::new();
    let mut buffer = [0; 1024];
    while !heard.contains("throng:connected") && !heard.contains(words) {
        match stream.read(&mut buffer) {
            Ok(length) if length > 0 => heard += &String::from_utf8_lossy(&buffer[..length]),
            // Closed or reset: refused.
            _ => break,
        }
    }
    (stream, heard)
}

/// True when nothing but the end comes on a connection that was let in. Who was told of it together with the
/// greeting hears nothing more, and a reset once the server has waited long enough for an answer.
fn is_gone(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut buffer = [0; 64];
    let read = stream.read(&mut buffer);
    stream.set_nonblocking(false).unwrap();
    // What a client hears that is one too many: a close frame with 1013.
    match read {
        Ok(length) => length == 0 || buffer[0] == 0x88,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

on_both_drivers! {
    fn the_default_refuses_more_than_a_hundred_a_second(driver) {
        let default = Config::default().limits.rates.messages;
        assert_eq!(default, 100);
        let node = node(driver, &["limits.messages_per_second=100"]);
        let mut client = Client::connect(node.address());
        for number in 0..1000 {
            client.send(&json!({"type": "throng:ping", "ref": number}));
        }
        let (mut pongs, mut errors) = (0, 0);
        for number in 0..1000 {
            let answer = client.next();
            assert_eq!(answer["ref"], json!(number), "{answer}");
            if answer["type"] == "throng:pong" {
                pongs += 1;
            } else {
                assert_eq!(answer["code"], "rate_limited", "{answer}");
                assert!(answer["retryAfterMs"].as_u64().unwrap() <= 10, "{answer}");
                errors += 1;
            }
        }
        assert!(pongs >= 200 && errors > 0, "{pongs} and {errors}");
        assert_eq!(node.counters().rate_limited_total, errors);
    }

    fn where_it_is_delayed_nothing_is_lost(driver) {
        let node = node(driver, &[
            "limits.messages_per_second=1000", "limits.burst_ms=100", "limits.over_rate=delay",
        ]);
        let mut client = Client::connect(node.address());
        for number in 0..2000 {
            client.send(&json!({"type": "throng:ping", "ref": number}));
        }
        for number in 0..2000 {
            assert_eq!(client.next()["ref"], json!(number));
        }
        assert!(node.counters().rate_delays_total > 0);
    }

    fn a_hasty_client_is_closed_where_that_is_the_rule(driver) {
        let node = node(driver, &["limits.messages_per_second=1", "limits.over_rate=close"]);
        let mut client = Client::connect(node.address());
        for _ in 0..20 {
            client.send(&json!({"type": "throng:ping"}));
        }
        assert_eq!(client.close_code(), 1008);
        wait_for(&node, "it is counted", |c| c.rate_closed_total == 1 && c.open_connections == 0);
    }

    fn one_address_has_its_number_of_connections_over_all_shards(driver) {
        let node = node(driver, &["limits_address.max_connections=5"]);
        let mut clients: Vec<TcpStream> =
            (0..10).filter_map(|_| visit(node.address(), GOOD.as_bytes())).collect();
        wait_for(&node, "five stay", |c| c.open_connections == 5 && c.parties_refused_total == 5);
        wait_until("the others hear of it", || {
            clients.retain_mut(|client| !is_gone(client));
            clients.len() == 5
        });
        clients.pop();
        wait_for(&node, "one leaves", |c| c.open_connections == 4 && c.connections == 4);
        wait_until("one more may come", || {
            visit(node.address(), GOOD.as_bytes()).is_some_and(|mut next| !is_gone(&mut next))
        });
    }

    fn the_address_of_a_proxied_client_counts(driver) {
        let header = node(driver, &[
            "server.trusted_proxies=[\"127.0.0.0/8\"]", "limits_address.max_connections=1",
        ]);
        let named = |who: &str| request(&format!("X-Forwarded-For: 6.6.6.6, {who}\r\n")).into_bytes();
        judge(&header, &named);
        let preface = node(driver, &[
            "server.trusted_proxies=[\"127.0.0.0/8\"]", "server.proxy_protocol=required",
            "limits_address.max_connections=1",
        ]);
        let named = |who: &str| format!("PROXY TCP4 {who} 127.0.0.1 1 80\r\n{GOOD}").into_bytes();
        judge(&preface, &named);
        assert_eq!(exchange(preface.address(), GOOD.as_bytes()), "", "closed unseen");
        wait_for(&preface, "it is counted", |c| c.unannounced_total == 1);
    }

    fn handshakes_under_way_are_bounded_over_all_shards_together(driver) {
        // Each of the four has its part, rounded up.
        for (most, in_all) in [(8, 8), (6, 8)] {
            let limit = format!("limits.max_handshakes={most}");
            let node = node(driver, &["server.shards=4", &limit]);
            let mut all: Vec<TcpStream> =
                (0..120).map(|_| TcpStream::connect(node.address()).unwrap()).collect();
            wait_for(&node, "all are at their handshake", |c| c.connections == 120);
            let (mut served, mut refused) = (0, 0);
            for stream in &mut all {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.write_all(GOOD.as_bytes()).unwrap();
                let mut buffer = [0; 1024];
                let length = stream.read(&mut buffer).unwrap();
                let head = String::from_utf8_lossy(&buffer[..length]).to_lowercase();
                served += u64::from(head.starts_with("http/1.1 101 "));
                let is_refused = head.starts_with("http/1.1 503 ") && head.contains("\r\nretry-after: ");
                refused += u64::from(is_refused);
            }
            assert_eq!((served, refused), (in_all, 120 - in_all), "{limit}");
            wait_for(&node, &limit, |c| {
                (c.handshakes_total, c.handshakes_deferred_total) == (served, refused)
            });
            drop(all);
            wait_for(&node, "all have gone", |c| c.connections == 0);
            Client::connect(node.address());
        }
    }

    fn handshakes_over_the_rate_hear_when_to_come_back(driver) {
        let node = node(driver, &["limits.handshakes_per_second=2"]);
        let answers: Vec<String> = (0..8)
            .filter_map(|_| {
                let mut stream = TcpStream::connect(node.address()).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.write_all(GOOD.as_bytes()).unwrap();
                let mut answer = [0; 256];
                let length = stream.read(&mut answer).ok()?;
                Some(String::from_utf8_lossy(&answer[..length]).into_owned())
            })
            .collect();
        let refused: Vec<&String> =
            answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 503 ")).collect();
        assert!(!refused.is_empty(), "{answers:?}");
        assert!(refused.iter().all(|answer| answer.contains("\r\nRetry-After: ")), "{refused:?}");
        let browser = request("Origin: http://localhost\r\n");
        // However long this was kept waiting, who is let in uses up what may be.
        wait_until("a browser is told in words", || {
            let words = "busy: come back in ";
            let (_, answer) = visit_until(node.address(), browser.as_bytes(), words);
            answer.starts_with("HTTP/1.1 101 ") && answer.contains(words)
        });
    }
}

/// One connection of each address, whichever way the address is told.
fn judge(node: &throng::node::Node, named: &dyn Fn(&str) -> Vec<u8>) {
    let address = node.address();
    let first = visit(address, &named("192.0.2.1")).expect("let in");
    // Of two who come to two shards at the same moment the one that its home hears of first may stay.
    wait_for(node, "the home knows of the first", |c| c.counted_parties == 1);
    if let Some(mut second) = visit(address, &named("192.0.2.1")) {
        wait_until("the second must go", || is_gone(&mut second));
    }
    let mut other = visit(address, &named("192.0.2.2")).expect("another address");
    drop(first);
    wait_for(node, "the first is gone", |c| c.connections == 1);
    let mut again = None;
    wait_until("its address may come again", || {
        again = visit(address, &named("192.0.2.1"));
        again.as_mut().is_some_and(|again| !is_gone(again))
    });
    assert!(!is_gone(&mut other));
}
