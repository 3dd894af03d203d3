//! What is too large, too slow or too much, and the end.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::office::{Office, PATIENCE, SECRET, answer, bearer, exchange};
use crate::admin::Limits;
use crate::sys::listener::{ListenOptions, listen};

const BRIEF: Duration = Duration::from_millis(200);

fn brief() -> Office {
    Office::with(Limits { request_timeout: BRIEF, body_bytes: 64, ..Limits::default() })
}

/// Reads until the other end closes.
fn rest(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_body_over_the_limit_is_refused_however_it_comes() {
    let office = brief();
    let large = format!(r#"{{"user":"{}"}}"#, "u".repeat(64));
    let answer = office.post("/v1/tickets", SECRET, &large).error();
    assert_eq!(answer, (413, "too_large".to_owned(), None));
    let chunked = format!(
        "POST /v1/tickets HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n{}\r\n{:x}\r\n{large}\r\n0\r\n\r\n",
        bearer(SECRET),
        large.len()
    );
    assert_eq!(exchange(office.address(), &chunked).status, 413);
    // Without a key nobody's body is read at all.
    assert_eq!(office.post("/v1/tickets", "", &large).status, 401);
}

#[test]
fn a_head_over_the_limit_is_refused() {
    let office = brief();
    let request = |lines: &str| {
        let head = format!("GET /healthz HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        exchange(office.address(), &head).status
    };
    assert_eq!(request(""), 200);
    assert_eq!(request(&"A: b\r\n".repeat(100)), 431);
    assert_eq!(request(&format!("A: {}\r\n", "b".repeat(40_000))), 431);
    assert_eq!(request("no colon\r\n"), 400);
}

#[test]
fn whoever_is_slow_loses_the_connection_and_nobody_else_does() {
    let office = brief();
    let address = office.address();
    let begin = |text: &str| {
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.write_all(text.as_bytes()).expect("a write");
        stream
    };
    let head = format!(
        "POST /v1/tickets HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n{}\r\n",
        bearer(SECRET)
    );
    let mut silent = begin("");
    let mut half_head = begin("GET /healthz HTTP/1.1\r\nHost:");
    let mut half_body = begin(&format!("{head}{{\"us"));
    assert_eq!(office.get("/healthz", "").status, 200);
    assert_eq!(answer(&mut half_body).error(), (408, "request_timeout".to_owned(), None));
    assert!(rest(&mut half_head).lines().next().is_none_or(|line| line.contains("408")));
    assert_eq!(rest(&mut silent), "");
}

#[test]
fn connections_over_the_limit_wait_until_one_ends() {
    let office = Office::with(Limits { connections: 2, ..Limits::default() });
    let address = office.address();
    let mut held: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut stream = TcpStream::connect(address).expect("a connection");
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").expect("a write");
            assert_eq!(answer(&mut stream).status, 200);
            stream
        })
        .collect();
    let mut third = TcpStream::connect(address).expect("the kernel takes it");
    third.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").expect("a write");
    third.set_read_timeout(Some(BRIEF)).expect("a time-out");
    assert!(third.read(&mut [0; 1]).is_err(), "it was served beyond the limit");
    held.clear();
    third.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    assert_eq!(answer(&mut third).status, 200);
}

#[test]
fn at_the_end_a_request_under_way_is_answered_and_the_port_is_free() {
    let office = Office::with(Limits { shard_timeout: PATIENCE, ..Limits::default() });
    let address = office.address();
    office.desk.takes.store(false, Ordering::Relaxed);
    let Office { admin, desk, revoked, .. } = office;
    std::thread::scope(|scope| {
        let body = r#"{"user":"u"}"#;
        let request = format!(
            "POST /v1/revocations HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n{}\r\n{body}",
            body.len(),
            bearer(SECRET)
        );
        let asks = scope.spawn(move || exchange(address, &request).status);
        assert!(revoked.recv_timeout(PATIENCE).is_ok());
        let ends = scope.spawn(move || drop(admin));
        // The listener goes first.
        while TcpStream::connect(address).is_ok() {}
        desk.takes.store(true, Ordering::Relaxed);
        assert_eq!(asks.join().expect("an answer"), 200);
        ends.join().expect("an end");
    });
    let options = ListenOptions { reuse_port: false, ..ListenOptions::default() };
    listen(address, &options).expect("the port is free");
}

#[test]
fn an_end_does_not_wait_for_whoever_never_ends() {
    let office = Office::with(Limits { request_timeout: PATIENCE, ..Limits::default() });
    let mut silent = TcpStream::connect(office.address()).expect("a connection");
    silent.write_all(b"GET /he").expect("a write");
    drop(office);
    assert_eq!(rest(&mut silent), "");
}
