//! Plain requests on the public listeners that others answer: the API behind its keys, and another server.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};

use crossbeam_channel::{Receiver, bounded};
use serde_json::json;

use crate::admin::{ask, with_admin};
use crate::auth::guarded;
use crate::support::{Client, PATIENCE, exchange, node, on_both_drivers, wait_for};

/// A server that answers each request by `answer` and tells what it was sent; without an answer it keeps
/// the connection open for as long as the other side does.
fn server(answer: Option<&'static str>) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = bounded(100);
    let serve = move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut piece = [0; 4096];
            while !request.ends_with(b"the end") && !request.ends_with(b"\r\n\r\n") {
                match stream.read(&mut piece) {
                    Ok(0) | Err(_) => break,
                    Ok(read) => request.extend_from_slice(&piece[..read]),
                }
            }
            tell.send(String::from_utf8(request).unwrap()).unwrap();
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).unwrap(),
                None => _ = stream.read(&mut piece),
            }
        }
    };
    // It ends with the process: nobody waits for it.
    std::thread::Builder::new().spawn(serve).unwrap();
    (address, told)
}

fn proxy(path: &str, to: SocketAddr, more: &str) -> String {
    format!("proxy=[{{path = \"{path}\", to = \"http://{to}\"{more}}}]")
}

on_both_drivers! {
    fn one_listener_serves_sockets_streams_the_api_and_another_server(driver) {
        let page = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\
            Connection: close\r\n\r\nhello";
        let (address, told) = server(Some(page));
        let [_, key] = with_admin(r#""publish""#);
        let node = node(driver, &["admin.public=true", &key, &proxy("/app/", address, "")]);
        assert_eq!(node.admin_address(), None, "there is no other listener");
        let mut member = Client::connect(node.address());
        member.join("lobby");
        let stream = "GET /sse?room=lobby HTTP/1.0\r\n\r\n";
        let mut listener = std::net::TcpStream::connect(node.address()).unwrap();
        listener.set_read_timeout(Some(PATIENCE)).unwrap();
        listener.write_all(stream.as_bytes()).unwrap();
        wait_for(&node, "both are members", |counters| counters.memberships == 2);
        let body = json!({"type": "chat", "room": "lobby", "payload": 7, "count": true}).to_string();
        let (status, answer) = ask(node.address(), "POST /v1/publish", &body);
        assert_eq!(status, 200, "{answer}");
        assert!(answer.contains("\"deliveredConnections\":2"), "{answer}");
        assert_eq!(member.next()["payload"], 7);
        let mut heard = String::new();
        while !heard.contains("\"payload\":7") {
            let mut piece = [0; 1024];
            let read = listener.read(&mut piece).unwrap();
            assert_ne!(read, 0, "{heard}");
            heard.push_str(std::str::from_utf8(&piece[..read]).unwrap());
        }
        let request = b"GET /app/page?a=b HTTP/1.1\r\nHost: example.org\r\nConnection: x-mine\r\nX-Mine: 1\r\n\
            X-Forwarded-For: 192.0.2.9\r\nCookie: c\r\n\r\n";
        let answer = exchange(node.address(), request);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("connection: close\r\n\r\nhello"), "{answer}");
        let asked = told.recv_timeout(PATIENCE).unwrap().to_lowercase();
        assert!(asked.starts_with("get /app/page?a=b http/1.1\r\n"), "{asked}");
        for line in ["host: example.org", "x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http", "cookie: c"] {
            assert!(asked.contains(&format!("\r\n{line}\r\n")), "{line} in {asked}");
        }
        assert!(!asked.contains("x-mine") && !asked.contains("192.0.2.9"), "{asked}");
        wait_for(&node, "all are answered", |c| c.petitions == 0 && c.petitions_total == 2);
        assert_eq!(node.counters().open_connections, 2);
    }

    fn a_token_in_a_target_is_handed_to_no_other_server_and_stands_in_no_log(driver) {
        let empty = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
        let (address, told) = server(Some(empty));
        let proxy = proxy("/app/", address, "");
        for (sources, target) in [
            (r#"["header"]"#, "get /app/?token=of-the-app&ticket=t&x=1"),
            (r#"["header", "query"]"#, "get /app/?token=***&ticket=t&x=1"),
            (r#"["query", "ticket"]"#, "get /app/?token=***&ticket=***&x=1"),
        ] {
            let sources = format!("auth.sources={sources}");
            let node = guarded(driver, &[&proxy, &sources]);
            let request = b"GET /app/?token=of-the-app&ticket=t&x=1 HTTP/1.1\r\nHost: a\r\n\r\n";
            assert!(exchange(node.address(), request).starts_with("HTTP/1.1 204 "));
            let asked = told.recv_timeout(PATIENCE).unwrap().to_lowercase();
            assert!(asked.starts_with(&format!("{target} http/1.1\r\n")), "{asked}");
        }
    }

    fn a_body_is_handed_on_and_what_is_not_served_is_refused(driver) {
        let empty = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
        let (address, told) = server(Some(empty));
        let node = node(driver, &[&proxy("/app/", address, ", max_body_bytes = 5000")]);
        let body = format!("{}the end", "x".repeat(4000));
        let (status, answer) = ask(node.address(), "PUT /app/thing", &body);
        assert_eq!((status, answer.as_str()), (204, ""));
        assert!(told.recv_timeout(PATIENCE).unwrap().ends_with(&format!("\r\n\r\n{body}")));
        let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        for (line, more, status) in [
            ("GET /app/socket", upgrade, "404"),
            ("GET /elsewhere", upgrade, "404"),
            ("GET /elsewhere", "", "404"),
            ("POST /v1/publish", "Content-Length: 2\r\n", "404"),
            ("POST /app/", "Content-Length: 5001\r\n", "413"),
            ("POST /app/", "Transfer-Encoding: chunked\r\n", "411"),
        ] {
            let request = format!("{line} HTTP/1.1\r\nHost: a\r\n{more}\r\n");
            let answer = exchange(node.address(), request.as_bytes());
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line} {more}: {answer}");
        }
        assert!(told.is_empty(), "nothing of it went on");
    }

    fn a_server_that_is_gone_slow_or_too_talkative_is_the_servers_fault(driver) {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (slow, _slow) = server(None);
        let long = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\nConnection: close\r\n\r\nhello hello";
        let (talkative, _talkative) = server(Some(long));
        for (address, more, status) in [
            (gone, "", 502),
            (slow, ", timeout_ms = 50", 504),
            (talkative, ", max_answer_bytes = 10", 502),
        ] {
            let node = node(driver, &[&proxy("/app/", address, more)]);
            let mut client = Client::connect(node.address());
            let (found, answer) = ask(node.address(), "GET /app/", "");
            assert_eq!(found, status, "{answer}");
            assert!(answer.contains("\"error\""), "{answer}");
            client.join("lobby");
        }
    }
}
