//! Who comes to the door of a running node: what programs and pages hear that are turned away, and whose address counts.
//!
//! The shard's own tests decide each rule by a clock of their own. Here it is two shards and the kernel, so a rate is
//! judged by who is refused while another is served, and an address by what the node itself says of it.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};
use tungstenite::Message;

use crate::auth::{knock, status};
use crate::support::{Client, exchange, node, on_both_drivers, wait_for, wait_until};
use crate::tls::proxied::binary;

const GOOD: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// What a page's browser sends and a program does not.
const PAGE: [(&str, &str); 1] = [("origin", "http://localhost")];

/// A header of version 2 for a connection of the proxy's own, with these addresses in it.
fn local(family: u8, addresses: &[u8]) -> Vec<u8> {
    preface(0x20, family, addresses)
}

/// A header of version 2, whatever it says.
fn preface(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &length, addresses].concat()
}

/// True for an answer that asks a program to come back, and says when.
fn is_asked_back(answer: &str) -> bool {
    if status(answer) != "503" {
        return false;
    }
    let lines = answer.to_lowercase();
    let after = lines.lines().find_map(|line| line.strip_prefix("retry-after: "));
    let seconds: u32 = after.and_then(|after| after.trim().parse().ok()).expect("a delay");
    assert!(seconds > 0, "{answer}");
    true
}

/// The words of the close frame that a page hears instead of a greeting, if it does.
fn told(address: SocketAddr) -> Option<String> {
    let mut page = Client::connect_unheard(address, &PAGE);
    match page.next_message() {
        Message::Close(Some(frame)) => {
            assert_eq!(u16::from(frame.code), 1013, "{frame:?}");
            Some(frame.reason.to_string())
        }
        Message::Text(_) => None,
        other => panic!("instead of a greeting: {other:?}"),
    }
}

/// Comes again and again until it is told to come back, and says in which words.
fn told_at_last(address: SocketAddr, what: &str) -> String {
    let mut words = None;
    wait_until(what, || {
        words = told(address);
        words.is_some()
    });
    words.unwrap_or_default()
}

/// True for these words and a delay that a script can read.
fn is_told(words: &str, what: &str) -> bool {
    let rest = words.strip_prefix(what).and_then(|rest| rest.strip_prefix(": come back in "));
    let seconds = rest.and_then(|rest| rest.strip_suffix(" s"));
    seconds.and_then(|seconds| seconds.parse().ok()).is_some_and(|seconds: u32| seconds > 0)
}

/// The address by which the node knows a client.
fn known_as(client: &mut Client) -> Value {
    client.join("room");
    let reply = client.ask(json!({"type": "throng:whois", "room": "room"}));
    client.ask(json!({"type": "throng:leave", "room": "room"}));
    assert_eq!(reply["members"], 1, "{reply}");
    reply["connections"][0]["address"].clone()
}

/// A client behind these bytes.
fn behind(address: SocketAddr, bytes: &[u8]) -> Client {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(bytes).unwrap();
    Client::over(stream, address)
}

on_both_drivers! {
    fn an_address_that_comes_too_often_is_asked_back_and_another_is_served(driver) {
        let sets = ["limits_address.handshakes_per_second=1", "limits_address.burst_ms=3000"];
        let node = node(driver, &sets);
        let hasty = || is_asked_back(&knock(node.address(), "/ws", &[]));
        for _ in 0..2 {
            wait_until("it comes too often", hasty);
            let mut other = Client::connect_from(node.address(), [127, 0, 0, 2]);
            other.expect_silence();
        }
        wait_until("it may come again", || status(&knock(node.address(), "/ws", &[])) == "101");
        wait_for(&node, "for how often, not for how many", |c| {
            c.refused_503_total >= 2
                && c.refused_503_total == c.handshakes_deferred_total
                && c.parties_refused_total == 0
        });
    }

    fn a_page_over_a_limit_is_let_in_and_closed_with_1013_and_words_its_script_can_read(driver) {
        for limit in [
            "limits.handshakes_per_second=1",
            "limits_address.handshakes_per_second=1",
        ] {
            let node = node(driver, &[limit]);
            let words = told_at_last(node.address(), limit);
            assert!(is_told(&words, "busy"), "{limit}: {words}");
            // A program that comes as often hears it by a status.
            wait_until(limit, || is_asked_back(&knock(node.address(), "/ws", &[])));
            assert!(node.counters().refused_later_total > 0, "{limit}");
        }
        let node = node(driver, &["limits.max_handshakes=1"]);
        // Who says nothing takes a place: here all of them, in both shards.
        let silent: Vec<TcpStream> =
            (0..40).map(|_| TcpStream::connect(node.address()).unwrap()).collect();
        wait_for(&node, "all are at their handshake", |c| c.connections == 40);
        let words = told_at_last(node.address(), "places for handshakes");
        assert!(is_told(&words, "busy"), "{words}");
        drop(silent);
    }

    fn a_page_of_an_address_with_too_many_connections_is_closed_with_1013(driver) {
        let node = node(driver, &["limits_address.max_connections=1", "server.shards=1"]);
        let mut first = Client::connect(node.address());
        let words = told(node.address()).expect("words and no greeting");
        assert!(is_told(&words, "too many connections"), "{words}");
        assert!(is_asked_back(&knock(node.address(), "/ws", &[])), "a program");
        first.expect_silence();
        Client::connect_from(node.address(), [127, 0, 0, 2]).expect_silence();
    }

    fn where_pages_are_not_told_they_get_503_like_programs(driver) {
        let node = node(driver, &["limits.handshakes_per_second=1", "limits.browser_errors=false"]);
        wait_until("it comes too often", || is_asked_back(&knock(node.address(), "/ws", &PAGE)));
        assert_eq!(node.counters().refused_later_total, 0);
    }

    fn a_binary_proxy_header_names_the_client_and_one_of_the_proxys_own_does_not(driver) {
        let node = node(driver, &[
            "server.trusted_proxies=[\"127.0.0.0/8\"]", "server.proxy_protocol=required",
            "server.forwarded_header=none", "presence.metadata=true",
        ]);
        let six = [0x20, 1, 0xd, 0xb8, 0, 7, 0, 8, 0, 0, 0, 0, 0, 0, 0, 9];
        let six = [&six[..], &[0; 16], &[0x9c, 0x40, 0, 80]].concat();
        let named = [192, 0, 2, 7, 127, 0, 0, 1, 0x9c, 0x40, 0, 80];
        for (header, who) in [
            (binary([192, 0, 2, 1]), "192.0.2.1"),
            (preface(0x21, 0x21, &six), "2001:db8:7:8::/64"),
            // What stands behind the addresses is passed over.
            (preface(0x21, 0x11, &[&named[..], &[4, 0, 1, 0]].concat()), "192.0.2.7"),
            (local(0, &[]), "127.0.0.1"),
            // The addresses of such a header mean nothing.
            (local(0x11, &named), "127.0.0.1"),
            (preface(0x21, 0, &[]), "127.0.0.1"),
            (b"PROXY TCP4 192.0.2.3 127.0.0.1 40000 80\r\n".to_vec(), "192.0.2.3"),
            (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        ] {
            let mut client = behind(node.address(), &header);
            assert_eq!(known_as(&mut client), who);
        }
        assert_eq!(node.counters().unannounced_total, 0);
    }

    fn a_binary_proxy_header_counts_the_client_and_not_the_proxy(driver) {
        let node = node(driver, &[
            "server.trusted_proxies=[\"127.0.0.0/8\"]", "server.proxy_protocol=optional",
            "server.forwarded_header=none", "limits_address.max_connections=1", "server.shards=1",
        ]);
        let address = node.address();
        let own = [local(0, &[]), Vec::new()];
        for (one, same) in [(binary([192, 0, 2, 1]), binary([192, 0, 2, 1])), own.into()] {
            let mut client = behind(address, &one);
            let again = exchange(address, &[&same[..], GOOD.as_bytes()].concat());
            assert!(is_asked_back(&again), "{again}");
            let mut other = behind(address, &binary([192, 0, 2, 2]));
            other.expect_silence();
            client.expect_silence();
            drop((client, other));
            wait_for(&node, "both have gone", |c| c.connections == 0 && c.counted_parties == 0);
        }
    }

    fn a_binary_proxy_header_that_is_none_is_closed_unseen_and_leaves_nothing(driver) {
        let node = node(driver, &[
            "server.trusted_proxies=[\"127.0.0.0/8\"]", "server.proxy_protocol=required",
        ]);
        let wrong = [
            ("another version", preface(0x11, 0x11, &[0; 12])),
            ("another command", preface(0x22, 0x11, &[0; 12])),
            ("datagrams", preface(0x21, 0x12, &[0; 12])),
            ("a family there is not", preface(0x21, 0x41, &[0; 12])),
            ("an end within the addresses", preface(0x21, 0x11, &[0; 11])),
            ("an address of IPv6 that is one of IPv4", preface(0x21, 0x21, &[0; 12])),
            ("more than a header may be", preface(0x21, 0x11, &[0; 4096])),
            ("a signature that is none", b"\r\n\r\n\0\r\nQUIT\r\x21\x11\0\x0c".to_vec()),
        ];
        let count = wrong.len() as u64;
        for (name, header) in wrong {
            let answer = exchange(node.address(), &[&header[..], GOOD.as_bytes()].concat());
            assert_eq!(answer, "", "{name}");
        }
        wait_for(&node, "all are counted", |c| c.unannounced_total == count && c.connections == 0);
        assert_eq!(node.counters().handshakes_total, 0);
        // One that comes a byte at a time is as good as any.
        let mut stream = TcpStream::connect(node.address()).unwrap();
        stream.set_nodelay(true).unwrap();
        binary([192, 0, 2, 1]).iter().for_each(|byte| stream.write_all(&[*byte]).unwrap());
        Client::over(stream, node.address()).expect_silence();
    }

    fn what_a_client_writes_about_its_address_counts_only_from_a_trusted_proxy(driver) {
        for (name, header, value) in [
            ("x-forwarded-for", "x-forwarded-for", "192.0.2.1"),
            ("x-real-ip", "x-real-ip", "192.0.2.1"),
            ("forwarded", "forwarded", "for=192.0.2.1"),
        ] {
            for (trusted, who) in [
                ("[]", "127.0.0.1"),
                ("[\"10.0.0.0/8\", \"192.0.2.0/24\"]", "127.0.0.1"),
                ("[\"127.0.0.0/8\"]", "192.0.2.1"),
            ] {
                let trusted = format!("server.trusted_proxies={trusted}");
                let named = format!("server.forwarded_header={name}");
                let sets = [
                    trusted.as_str(), &named, "presence.metadata=true", "server.shards=1",
                    "limits_address.max_connections=1",
                ];
                let node = node(driver, &sets);
                let mut client = Client::connect_with(node.address(), "/ws", &[(header, value)]);
                assert_eq!(known_as(&mut client), who, "{name}, {trusted}");
                let next = value.replace("192.0.2.1", "192.0.2.2");
                let answer = knock(node.address(), "/ws", &[(header, &next)]);
                // Another name is another client only where it is believed.
                let is_believed = who != "127.0.0.1";
                assert_eq!(is_asked_back(&answer), !is_believed, "{name}, {trusted}: {answer}");
                client.expect_silence();
            }
        }
    }
}
