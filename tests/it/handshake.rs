//! Request heads over real sockets: rows T13, T14 and the refusals.

use crate::support::{Client, exchange, node, on_both_drivers, wait_for};

const GOOD: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

on_both_drivers! {
    fn every_refusal_has_its_status_and_leaves_nothing(driver) {
        let node = node(driver, &[]);
        let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(9000));
        let big = format!("GET /ws HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(20_000));
        let many = format!("GET /ws HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(70));
        let cases = [
            (GOOD.replace("/ws", "/nowhere"), 404),
            (GOOD.replace("GET", "POST"), 405),
            (GOOD.replace("\r\n\r\n", "\r\nContent-Length: 6\r\n\r\nquokka"), 413),
            (long, 414),
            (GOOD.replace("Upgrade: websocket\r\n", ""), 426),
            (GOOD.replace("Connection: Upgrade\r\n", ""), 426),
            (GOOD.replace("Version: 13", "Version: 8"), 426),
            (GOOD.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhl"), 400),
            (GOOD.replace("Host: localhost\r\n", ""), 400),
            (GOOD.replace("Host:", "Host: a\r\nHost:"), 400),
            (GOOD.replace("HTTP/1.1", "HTTP/1.0"), 400),
            (big, 431),
            (many, 431),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400),
            ("\u{16}\u{3}\u{1}\0\u{5}quokka".to_owned(), 400),
        ];
        for (request, status) in &cases {
            let answer = exchange(node.address(), request.as_bytes());
            let expected = format!("HTTP/1.1 {status} ");
            assert!(answer.starts_with(&expected), "{request:?} -> {answer:?}, not {status}");
            assert!(!answer.contains("quokka"), "an echo: {answer}");
        }
        wait_for(&node, "nothing is left", |c| c.connections == 0);
        let counters = node.counters();
        assert_eq!(counters.handshakes_refused_total, cases.len() as u64);
        assert_eq!(counters.handshakes_total, 0);
        let of = |wanted: u16| cases.iter().filter(|(_, status)| *status == wanted).count() as u64;
        let told = [counters.refused_400_total, counters.refused_404_total, counters.refused_426_total];
        assert_eq!(told, [400, 404, 426].map(of), "each is told apart");
        let told = [counters.refused_405_total, counters.refused_413_total, counters.refused_414_total];
        assert_eq!(told, [405, 413, 414].map(of));
        assert_eq!((counters.refused_431_total, counters.refused_otherwise_total), (of(431), 0));
    }

    fn an_upgrade_without_its_headers_is_told_which_is_missing(driver) {
        let node = node(driver, &[]);
        for header in ["Upgrade", "Connection"] {
            let line = GOOD.lines().find(|line| line.starts_with(&format!("{header}:"))).unwrap();
            let answer = exchange(node.address(), GOOD.replace(&format!("{line}\r\n"), "").as_bytes());
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(answer.starts_with("HTTP/1.1 426 ") && body.contains(header), "{answer}");
        }
        let answer = exchange(node.address(), GOOD.replace("Version: 13", "Version: 12").as_bytes());
        assert!(answer.to_ascii_lowercase().contains("sec-websocket-version: 13"), "{answer}");
    }

    fn the_demo_page_is_served_and_can_be_switched_off(driver) {
        let node_with = node(driver, &[]);
        let page = exchange(node_with.address(), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("\"./throng.js\""));
        assert!(page.trim_end().ends_with("</html>"), "cut short: {} bytes", page.len());
        let client = exchange(node_with.address(), b"GET /throng.js HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(client.contains("\r\nContent-Type: text/javascript; charset=utf-8\r\n"), "{client}");
        assert!(client.ends_with(include_str!("../../clients/js/throng.js")), "not as it is written");
        let node_without = node(driver, &["demo.enabled=false"]);
        for path in ["/", "/throng.js"] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
            let none = exchange(node_without.address(), request.as_bytes());
            assert!(none.starts_with("HTTP/1.1 404 "), "{none}");
        }
    }

    fn a_full_node_says_503_and_takes_clients_again_later(driver) {
        let node = node(driver, &["server.max_connections=1", "server.shards=1"]);
        let first = Client::connect(node.address());
        assert!(exchange(node.address(), GOOD.as_bytes()).starts_with("HTTP/1.1 503 "));
        drop(first);
        wait_for(&node, "there is room again", |c| c.open_connections == 0);
        Client::connect(node.address()).expect_silence();
    }
}
