//! Clients of Socket.IO that poll, over real sockets and several shards: rows T9, T11, A10 and A14.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::auth::{guarded, status, token};
use crate::support::{Client, exchange, node, on_both_drivers, wait_for};

const PATH: &str = "server.socketio_path=/socket.io/";
const TARGET: &str = "/socket.io/?EIO=4&transport=polling";

/// A client that polls: each request comes over a connection of its own, and so to any of the shards.
pub(crate) struct Polling {
    address: SocketAddr,
    opening: Value,
    session: String,
    headers: &'static str,
}

/// What a request is answered with.
fn request(address: SocketAddr, method: &str, query: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    let head = format!(
        "{method} {TARGET}{query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    exchange(address, &[head.as_bytes(), body.as_bytes()].concat())
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").expect("a head").1
}

impl Polling {
    fn begin(address: SocketAddr, headers: &'static str) -> Self {
        let answer = request(address, "GET", "", headers, "");
        assert_eq!(status(&answer), "200", "{answer}");
        let opening = body(&answer).split('\u{1e}').next().expect("a packet");
        let opening: Value = serde_json::from_str(&opening[1..]).expect("JSON");
        let session = opening["sid"].as_str().expect("an id").to_owned();
        Self { address, opening, session, headers }
    }

    /// One that has connected to the namespace and was greeted.
    pub(crate) fn connect(address: SocketAddr, shown: &str) -> Self {
        // A proxy on the way would keep the connection, whose end is how an answer's is known here.
        let client = Self::begin(address, "Connection: close\r\n");
        client.bring(&format!("40{shown}"));
        let heard = client.fetch();
        assert!(heard[0].starts_with("40{") && heard[1].contains("throng:connected"), "{heard:?}");
        client
    }

    /// What the first packet has said.
    pub(crate) fn opening(&self) -> &Value {
        &self.opening
    }

    pub(crate) fn session(&self) -> &str {
        &self.session
    }

    pub(crate) fn ask(&self, method: &str, body: &str) -> String {
        let query = format!("&sid={}", self.session);
        request(self.address, method, &query, self.headers, body)
    }

    pub(crate) fn bring(&self, packets: &str) {
        let answer = self.ask("POST", packets);
        assert_eq!((status(&answer), body(&answer)), ("200", "ok"), "{answer}");
    }

    /// What one request is answered with.
    pub(crate) fn packets(&self) -> Vec<String> {
        let answer = self.ask("GET", "");
        assert_eq!(status(&answer), "200", "{answer}");
        body(&answer).split('\u{1e}').map(str::to_owned).collect()
    }

    /// The next packets that are no pings.
    pub(crate) fn fetch(&self) -> Vec<String> {
        loop {
            let (pings, heard): (Vec<_>, Vec<_>) =
                self.packets().into_iter().partition(|packet| packet == "2" || packet == "6");
            if pings.iter().any(|packet| packet == "2") {
                self.bring("3");
            }
            if !heard.is_empty() {
                return heard;
            }
        }
    }
}

on_both_drivers! {
    fn ten_thousand_messages_come_and_go_by_polling_in_order_and_none_is_lost(driver) {
        let sets = ["server.shards=4", "limits.messages_per_second=0"];
        let node = node(driver, &[PATH, sets[0], sets[1]]);
        let client = Polling::connect(node.address(), "");
        client.bring(r#"420["throng:join",{"room":"lobby"}]"#);
        assert!(client.fetch()[0].starts_with("430[{"));
        let mut member = Client::connect(node.address());
        member.join("lobby");
        let mut next: u64 = 0;
        for round in 0..100 {
            let events: Vec<String> = (round * 100..(round + 1) * 100)
                .map(|number| format!(r#"42["line",{number},{{"room":"lobby"}}]"#))
                .collect();
            client.bring(&events.join("\u{1e}"));
            while next < (round + 1) * 100 {
                for packet in client.fetch() {
                    let begins = format!(r#"42["line",{next},{{"#);
                    assert!(packet.starts_with(&begins), "{packet}: not {begins}");
                    assert_eq!(member.next()["payload"], next, "what it brought reached others too");
                    next += 1;
                }
            }
        }
        assert_eq!(node.counters().polling_connections, 1);
        client.bring("1");
        assert_eq!(client.fetch(), ["1"]);
        wait_for(&node, "the session has ended", |counters| counters.polling_connections == 0);
        assert_eq!(status(&client.ask("GET", "")), "400");
    }

    fn who_polls_is_judged_at_the_door_and_pages_of_other_origins_are_not(driver) {
        let sets = [r#"auth.allowed_origins=["https://good.example"]"#, r#"auth.sources=["header","payload"]"#];
        let node = guarded(driver, &[PATH, "server.shards=4", sets[0], sets[1]]);
        let claims = json!({"sub": "ada", "rooms": ["*"]});
        let foreign = request(node.address(), "GET", "", "Origin: https://bad.example\r\n", "");
        assert_eq!(status(&foreign), "403", "{foreign}");
        assert!(!foreign.contains("Access-Control-Allow-Origin"), "{foreign}");
        let asked = "Origin: https://bad.example\r\nAccess-Control-Request-Method: POST\r\n";
        assert_eq!(status(&request(node.address(), "OPTIONS", "", asked, "")), "403");
        let asked = "Origin: https://good.example\r\nAccess-Control-Request-Method: POST\r\n";
        let before = request(node.address(), "OPTIONS", "", asked, "");
        assert!(before.contains("Access-Control-Allow-Origin: https://good.example\r\n"), "{before}");
        assert!(before.contains("Access-Control-Allow-Credentials: true\r\n"), "{before}");
        let client = Polling::begin(node.address(), "Origin: https://good.example\r\n");
        client.bring(&format!("40{}", json!({"token": token(&claims)})));
        let answer = client.ask("GET", "");
        assert!(answer.contains("Access-Control-Allow-Origin: https://good.example\r\n"), "{answer}");
        assert!(!answer.contains('*') && answer.contains(r#""userId":"ada""#), "{answer}");
        // A connect without a token is refused in the library's own words.
        let stranger = Polling::begin(node.address(), "Origin: https://good.example\r\n");
        stranger.bring("40");
        assert!(stranger.fetch()[0].starts_with("44{"));
    }

    fn pages_of_other_origins_reach_no_session_that_has_begun(driver) {
        let origins = r#"auth.allowed_origins=["https://good.example", "https://other.example"]"#;
        let node = node(driver, &[PATH, "server.shards=4", origins]);
        let client = Polling::begin(node.address(), "Origin: https://good.example\r\n");
        let query = format!("&sid={}", client.session);
        let pages = ["https://bad.example", "https://other.example", "null", "https://good.example.bad.example"];
        for page in pages {
            for (method, body) in [("POST", "40"), ("GET", ""), ("POST", "1")] {
                let headers = format!("Origin: {page}\r\n");
                let answer = request(node.address(), method, &query, &headers, body);
                assert_eq!(status(&answer), "403", "{method} {page}: {answer}");
                assert!(!answer.contains("Access-Control"), "{answer}");
            }
        }
        wait_for(&node, "each is counted", |counters| counters.origin_refused_total == 12);
        assert_eq!(node.counters().polling_connections, 1);
        // The session has heard none of it: it is there, and has yet to connect.
        client.bring("40");
        let heard = client.fetch();
        assert!(heard[0].starts_with("40{") && heard[1].contains("throng:connected"), "{heard:?}");
        client.bring(r#"420["throng:ping",{}]"#);
        let answer = client.ask("GET", "");
        assert!(answer.contains("Access-Control-Allow-Origin: https://good.example\r\n"), "{answer}");
        assert!(body(&answer).contains("throng:pong"), "{answer}");
        // A program names no page, and goes on with what it has begun.
        let program = Polling::connect(node.address(), "");
        program.bring(r#"420["throng:ping",{}]"#);
        assert!(program.fetch()[0].contains("throng:pong"));
    }

    fn a_body_above_the_limit_is_413_before_it_is_sent_and_polling_can_be_turned_off(driver) {
        let node = node(driver, &[PATH, "limits.max_message_bytes=2048"]);
        let client = Polling::connect(node.address(), "");
        let query = format!("&sid={}", client.session);
        let head = format!("POST {TARGET}{query} HTTP/1.1\r\nHost: a\r\nContent-Length: 2049\r\n\r\n");
        let answer = exchange(node.address(), head.as_bytes());
        assert_eq!(status(&answer), "413", "{answer}");
        let node = crate::support::node(driver, &[PATH, "server.socketio_polling=false"]);
        let answer = request(node.address(), "GET", "", "", "");
        assert_eq!((status(&answer), body(&answer).trim()),
            ("400", r#"{"code":0,"message":"Transport unknown"}"#));
    }
}
