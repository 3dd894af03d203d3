//! Plain requests on the public listeners that others answer: the API behind its keys, and another server. Its streams
//! and sockets are in `passages`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crossbeam_channel::{Receiver, bounded};
use serde_json::json;
use throng::node::Node;

use crate::admin::{ask, with_admin};
use crate::auth::guarded;
use crate::support::{Client, PATIENCE, exchange, node, on_both_drivers, wait_for, wait_until};

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

/// What is counted of requests that other servers answer.
pub(crate) fn of(node: &Node, name: &str) -> u64 {
    let counters = node.front_counters();
    counters.iter().find(|(known, _)| *known == name).expect("a counter").1
}

/// A server that has each connection served by `serve` on a thread of its own.
pub(crate) fn serving(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let accept = move || {
        for stream in listener.incoming() {
            let (stream, serve) = (stream.unwrap(), serve.clone());
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            std::thread::Builder::new().spawn(move || serve(stream)).unwrap();
        }
    };
    // They end with the process: nobody waits for them.
    std::thread::Builder::new().spawn(accept).unwrap();
    address
}

/// A server of WebSockets that says everything again.
pub(crate) fn echoing() -> SocketAddr {
    serving(|stream| {
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        while let Ok(message) = socket.read() {
            if message.is_close() || socket.send(message).is_err() {
                break;
            }
        }
        let _ = socket.flush();
        while socket.read().is_ok() {}
    })
}

/// Reads up to the end of a head.
pub(crate) fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).unwrap() == 0 {
            break;
        }
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

/// Sends a request with a body in chunks.
pub(crate) fn upload(stream: &mut impl Write, path: &str, body: &[u8]) -> std::io::Result<()> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    for piece in body.chunks(30_000) {
        stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
        stream.write_all(piece)?;
        stream.write_all(b"\r\n")?;
    }
    stream.write_all(b"0\r\n\r\n")
}

/// A server that sends back the body of a request, which comes in chunks, without saying how long it is.
pub(crate) fn mirroring() -> SocketAddr {
    serving(|mut stream| {
        let head = read_head(&mut stream);
        assert!(head.to_lowercase().contains("transfer-encoding: chunked"), "{head}");
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").unwrap();
        loop {
            let size = read_line(&mut stream);
            let size = usize::from_str_radix(&size, 16).unwrap();
            let mut piece = vec![0; size + 2];
            stream.read_exact(&mut piece).unwrap();
            if size == 0 {
                return;
            }
            stream.write_all(&piece[..size]).unwrap();
        }
    })
}

fn read_line(stream: &mut impl Read) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        line.extend(byte);
    }
    String::from_utf8(line).unwrap().trim().to_owned()
}

/// Reads an answer in chunks to its end; `None` when it breaks off.
pub(crate) fn unchunked(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            line.extend(byte);
        }
        let size = usize::from_str_radix(std::str::from_utf8(&line).ok()?.trim(), 16).ok()?;
        let mut piece = vec![0; size + 2];
        stream.read_exact(&mut piece).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(&piece[..size]);
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub(crate) fn proxy(path: &str, to: SocketAddr, more: &str) -> String {
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
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
        let asked = told.recv_timeout(PATIENCE).unwrap().to_lowercase();
        assert!(asked.starts_with("get /app/page?a=b http/1.1\r\n"), "{asked}");
        for line in ["host: example.org", "x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http", "cookie: c"] {
            assert!(asked.contains(&format!("\r\n{line}\r\n")), "{line} in {asked}");
        }
        assert!(!asked.contains("x-mine") && !asked.contains("192.0.2.9"), "{asked}");
        wait_for(&node, "all are answered", |c| c.petitions == 0 && c.petitions_total == 1);
        let counters = node.counters();
        assert_eq!((counters.open_connections, counters.handed_over_total), (2, 1));
        wait_until("it has ended", || of(&node, "proxy_connections") == 0);
        assert_eq!(of(&node, "proxy_requests_total"), 1);
    }

    fn a_token_in_a_target_or_a_referer_is_handed_to_no_other_server(driver) {
        let empty = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
        let (address, told) = server(Some(empty));
        let proxy = proxy("/app/", address, "");
        for (sources, target) in [
            (r#"["header"]"#, "/app/?token=of-the-app&ticket=t&x=1"),
            (r#"["header", "query"]"#, "/app/?token=***&ticket=t&x=1"),
            (r#"["query", "ticket"]"#, "/app/?token=***&ticket=***&x=1"),
        ] {
            let sources = format!("auth.sources={sources}");
            let node = guarded(driver, &[&proxy, &sources]);
            let own = "/app/?token=of-the-app&ticket=t&x=1";
            let request = format!("GET {own} HTTP/1.1\r\nHost: a\r\nReferer: http://a{own}\r\n\r\n");
            assert!(exchange(node.address(), request.as_bytes()).starts_with("HTTP/1.1 204 "));
            let asked = told.recv_timeout(PATIENCE).unwrap().to_lowercase();
            assert!(asked.starts_with(&format!("get {target} http/1.1\r\n")), "{asked}");
            assert!(asked.contains(&format!("\nreferer: http://a{target}\r\n")), "{asked}");
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
            ("GET /elsewhere", upgrade, "404"),
            ("GET /elsewhere", "", "404"),
            ("POST /v1/publish", "Content-Length: 2\r\n", "404"),
            ("POST /app/", "Content-Length: 5001\r\n", "413"),
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
