//! Request heads that lie, never end, or mean two things.

use super::arena::{Arena, CROWD, Case};
use super::peer::{End, GOOD, Peer, masked, text};
use crate::support::on_both_drivers;

/// What is no request head at all, or one with a byte out of place.
fn unreadable() -> Vec<Case<'static>> {
    let line = |old: &str, new: &str| GOOD.replacen(old, new, 1).into_bytes();
    let raw = |bytes: &[u8]| bytes.to_vec();
    vec![
        ("empty lines", raw(&b"\r\n".repeat(1000)), End::Status(400)),
        ("NUL bytes", raw(&[0; 1000]), End::Status(400)),
        ("bytes above ASCII", raw(&[0xff; 1000]), End::Status(400)),
        ("a TLS hello", raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), End::Status(400)),
        ("an SSH banner", raw(b"SSH-2.0-OpenSSH_9.6\r\n"), End::Status(400)),
        ("an HTTP/2 preface", raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), End::Status(400)),
        ("a Redis command", raw(b"*1\r\n$4\r\nPING\r\n"), End::Status(400)),
        (
            "a PROXY line nobody asked for",
            raw(b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n"),
            End::Status(400),
        ),
        ("a WebSocket frame before the handshake", text("{}"), End::Status(400)),
        ("no version", raw(b"GET /ws\r\n\r\n"), End::Status(400)),
        ("an old version", line("HTTP/1.1", "HTTP/0.9"), End::Status(400)),
        ("a version to come", line("HTTP/1.1", "HTTP/1.2"), End::Status(400)),
        ("two spaces before the target", line("GET /ws", "GET  /ws"), End::Status(400)),
        ("lines that end in LF alone", GOOD.replace("\r\n", "\n").into_bytes(), End::Status(400)),
        ("lines that end in CR alone", GOOD.replace("\r\n", "\r").into_bytes(), End::Status(400)),
        ("a CR in a value", line("Host: a", "Host: a\rb"), End::Status(400)),
        ("a NUL in the target", line("/ws", "/ws\0"), End::Status(400)),
        ("a NUL in a value", line("Host: a", "X: \0\r\nHost: a"), End::Status(400)),
        ("a DEL in a value", line("Host: a", "X: \x7f\r\nHost: a"), End::Status(400)),
        ("a name above ASCII", line("Host: a", "Höst: a"), End::Status(400)),
        ("a folded line", line("Host: a", "Host: a\r\n b"), End::Status(400)),
        ("a space before a colon", line("Host:", "Host :"), End::Status(400)),
        ("a header without a colon", line("Host: a", "Host: a\r\nnothing"), End::Status(400)),
        ("a header without a name", line("Host: a", "Host: a\r\n: b"), End::Status(400)),
    ]
}

/// Heads longer than anyone needs.
fn oversized() -> Vec<Case<'static>> {
    let mega = "a".repeat(1 << 20);
    let head = |middle: &str| format!("GET /ws HTTP/1.1\r\nHost: a\r\n{middle}\r\n").into_bytes();
    vec![
        ("a method of a megabyte", mega.clone().into_bytes(), End::Status(400)),
        (
            "a target of a megabyte",
            format!("GET /{mega} HTTP/1.1\r\n").into_bytes(),
            End::Status(414),
        ),
        (
            "a query of a megabyte",
            format!("GET /ws?{mega} HTTP/1.1\r\n").into_bytes(),
            End::Status(414),
        ),
        ("a name of a megabyte", head(&format!("{mega}: b\r\n")), End::Status(431)),
        ("a value of a megabyte", head(&format!("A: {mega}\r\n")), End::Status(431)),
        ("a value of spaces", head(&format!("A: {}\r\n", " ".repeat(1 << 20))), End::Status(431)),
        ("a hundred thousand headers", head(&"A: b\r\n".repeat(100_000)), End::Status(431)),
        ("a hundred thousand empty headers", head(&"A:\r\n".repeat(100_000)), End::Status(431)),
        ("a cookie of a megabyte", head(&format!("Cookie: {mega}\r\n")), End::Status(431)),
    ]
}

/// Requests that two readers could take differently, or that hide another.
fn smuggled() -> Vec<Case<'static>> {
    let add = |lines: &str| GOOD.replacen("\r\n\r\n", &format!("\r\n{lines}\r\n\r\n"), 1);
    let with = |lines: &str| add(lines).into_bytes();
    let hidden = format!("{}{GOOD}", add(&format!("Content-Length: {}", GOOD.len())));
    vec![
        ("both lengths", with("Content-Length: 5\r\nTransfer-Encoding: chunked"), End::Status(400)),
        ("two lengths", with("Content-Length: 5\r\nContent-Length: 6"), End::Status(400)),
        (
            "two lengths that agree",
            with("Content-Length: 5\r\nContent-Length: 5"),
            End::Status(400),
        ),
        ("a length with a sign", with("Content-Length: +5"), End::Status(400)),
        ("a negative length", with("Content-Length: -1"), End::Status(400)),
        ("a list of lengths", with("Content-Length: 0, 5"), End::Status(400)),
        ("a length in hexadecimal", with("Content-Length: 0x5"), End::Status(400)),
        (
            "a length beyond all numbers",
            with(&format!("Content-Length: {}", "9".repeat(99))),
            End::Status(413),
        ),
        ("an unknown coding", with("Transfer-Encoding: xchunked"), End::Status(400)),
        ("a coding with a tab", with("Transfer-Encoding: \tchunked, identity"), End::Status(400)),
        (
            "two codings",
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
            End::Status(400),
        ),
        (
            "chunks in HTTP/1.0",
            add("Transfer-Encoding: chunked").replace("/1.1", "/1.0").into_bytes(),
            End::Status(400),
        ),
        (
            "chunks",
            [with("Transfer-Encoding: chunked"), b"5\r\nhello\r\n0\r\n\r\n".to_vec()].concat(),
            End::Status(413),
        ),
        ("a request inside a body", hidden.into_bytes(), End::Status(413)),
        (
            "a request behind a request",
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2),
            End::Status(200),
        ),
        ("no host", GOOD.replacen("Host: a\r\n", "", 1).into_bytes(), End::Status(400)),
        ("two hosts", with("Host: b"), End::Status(400)),
        (
            "a host that is a path",
            GOOD.replacen("Host: a", "Host: a/b", 1).into_bytes(),
            End::Status(400),
        ),
        ("a tunnel", b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), End::Status(405)),
        (
            "a target elsewhere",
            GOOD.replacen("/ws", "ftp://a/ws", 1).into_bytes(),
            End::Status(400),
        ),
        (
            "a target with a climb",
            GOOD.replacen("/ws", "/x/../ws", 1).into_bytes(),
            End::Status(404),
        ),
        (
            "a target with an encoded NUL",
            GOOD.replacen("/ws", "/ws%00", 1).into_bytes(),
            End::Status(404),
        ),
        ("a target in capitals", GOOD.replacen("/ws", "/WS", 1).into_bytes(), End::Status(404)),
    ]
}

/// Heads in order that ask for a WebSocket in a wrong way.
fn bad_upgrades() -> Vec<Case<'static>> {
    let line = |old: &str, new: &str| GOOD.replacen(old, new, 1).into_bytes();
    let many: Vec<String> = (0..33).map(|n| format!("p{n}")).collect();
    let offer = |protocols: &str| {
        line("Host: a", &format!("Host: a\r\nSec-WebSocket-Protocol: {protocols}"))
    };
    let extend =
        |value: &str| line("Host: a", &format!("Host: a\r\nSec-WebSocket-Extensions: {value}"));
    vec![
        ("another protocol", line("Upgrade: websocket", "Upgrade: h2c"), End::Status(426)),
        ("no wish to upgrade", line("Connection: Upgrade", "Connection: close"), End::Status(426)),
        (
            "an unreadable upgrade",
            line("Upgrade: websocket", "Upgrade: web socket"),
            End::Status(400),
        ),
        ("no key", line("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), End::Status(426)),
        ("a short key", line("dGhlIHNhbXBsZSBub25jZQ==", "dGhl"), End::Status(400)),
        ("a key with stray bits", line("ZQ==", "ZR=="), End::Status(400)),
        (
            "two keys",
            line("Host: a", "Host: a\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
            End::Status(400),
        ),
        ("an old draft", line("Version: 13", "Version: 8"), End::Status(426)),
        ("a version that is no number", line("Version: 13", "Version: thirteen"), End::Status(400)),
        ("a version with a zero before", line("Version: 13", "Version: 013"), End::Status(400)),
        ("HTTP/1.0", line("HTTP/1.1", "HTTP/1.0"), End::Status(400)),
        ("another method", line("GET", "POST"), End::Status(405)),
        ("only unknown protocols", offer("graphql-ws, mqtt"), End::Status(400)),
        ("a protocol twice", offer("throng.v1.json, throng.v1.json"), End::Status(400)),
        ("too many protocols", offer(&many.join(",")), End::Status(400)),
        ("an empty list of protocols", offer(" , ,"), End::Status(400)),
        ("an extension without a name", extend("; a=b"), End::Status(400)),
        ("an extension with an open quote", extend("a; b=\"c"), End::Status(400)),
    ]
}

fn behind_the_head() -> Vec<Case<'static>> {
    let then = |more: Vec<u8>| [GOOD.as_bytes().to_vec(), more].concat();
    vec![
        ("garbage behind the head", then(vec![0xff; 100]), End::Close(1002)),
        ("a second handshake behind the head", then(GOOD.as_bytes().to_vec()), End::Close(1002)),
        ("a close frame behind the head", then(masked(0x88, &[3, 232])), End::Close(1000)),
    ]
}

/// Where heads stop that never end, in bytes; one more never stops.
const UNENDING: [usize; 4] = [0, 1, 10, GOOD.len() - 1];

/// How many cases there are here.
pub(super) fn count() -> usize {
    let tables = [unreadable(), oversized(), smuggled(), bad_upgrades(), behind_the_head()];
    tables.iter().map(Vec::len).sum::<usize>() + UNENDING.len() + 1
}

on_both_drivers! {
    fn hostile_heads_are_refused_and_nobody_else_notices(driver) {
        let arena = Arena::open(driver);
        arena.run_raw(unreadable());
        arena.run_raw(oversized());
        arena.run_raw(smuggled());
        arena.run_raw(bad_upgrades());
        arena.close();
    }

    fn what_is_behind_a_head_is_read_as_frames(driver) {
        let arena = Arena::open(driver);
        let visit = |(name, bytes, end): &Case| {
            let mut peer = Peer::connect(arena.address());
            peer.send(bytes);
            peer.expect_upgraded(name, end);
        };
        for case in &behind_the_head() {
            visit(case);
            arena.check(case.0);
        }
        arena.repeat("what is behind a head", || {
            (0..CROWD).for_each(|_| behind_the_head().iter().for_each(visit));
        });
        arena.close();
    }

    fn heads_that_never_end_are_given_up(driver) {
        let arena = Arena::open(driver);
        let begin = |sent: usize| {
            let mut peer = Peer::connect(arena.address());
            peer.send(&GOOD.as_bytes()[..sent]);
            (sent, peer)
        };
        let given_up = |(sent, mut peer): (usize, Peer)| {
            peer.expect(&format!("{sent} bytes of a head"), &End::Status(408));
        };
        let slow: Vec<(usize, Peer)> = UNENDING.into_iter().map(begin).collect();
        let mut trickle = Peer::connect(arena.address());
        trickle.send(b"GET /ws HTTP/1.1\r\nHost: a\r\nX: ");
        // One byte at a time, for ever: whatever comes, the deadline stands.
        while trickle.trickle(b'a') {}
        slow.into_iter().for_each(given_up);
        drop(trickle);
        arena.check("slow heads");
        arena.repeat("slow heads", || {
            let slow: Vec<_> = [UNENDING; CROWD].into_iter().flatten().map(begin).collect();
            slow.into_iter().for_each(given_up);
        });
        arena.close();
    }
}
