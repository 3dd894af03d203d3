//! Heads in any pieces, and a table of what is refused with which words.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const LIMITS: HeadLimits = HeadLimits { head_bytes: 16 << 10, headers: 64, target_bytes: 8 << 10 };

const HANDSHAKE: &str = "GET /ws?token=a|b HTTP/1.1\r\n\
    Host: example.com:8080\r\n\
    Upgrade: websocket\r\n\
    Connection: keep-alive, Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Origin: http://example.com\r\n\
    \r\n";

/// The handshake with one text replaced by another.
fn with(old: &str, new: &str) -> String {
    assert!(HANDSHAKE.contains(old), "{old}");
    HANDSHAKE.replacen(old, new, 1)
}

/// The handshake with one more header.
fn and(header: &str) -> String {
    with("\r\n\r\n", &format!("\r\n{header}\r\n\r\n"))
}

/// The refusal of a request by the parser or, if that takes it, as a handshake.
fn refusal(request: &[u8]) -> Option<Refusal> {
    match parse(request, &LIMITS) {
        Err(refusal) => Some(refusal),
        Ok(None) => None,
        Ok(Some(parsed)) => upgrade(&parsed.head).err(),
    }
}

fn assert_refused(request: impl AsRef<[u8]>, status: u16, words: &str) {
    let request = request.as_ref();
    let shown = String::from_utf8_lossy(request);
    let found = refusal(request).unwrap_or_else(|| panic!("not refused: {shown}"));
    assert_eq!(found.status, status, "{}: {shown}", found.message);
    assert!(found.message.contains(words), "{}: {shown}", found.message);
}

#[test]
fn a_handshake_is_read_and_answered_as_the_rfc_shows() {
    let request = format!("{HANDSHAKE}frames");
    let Parsed { head, length } = parse(request.as_bytes(), &LIMITS).expect("fine").expect("whole");
    assert_eq!(&request[length..], "frames");
    assert_eq!((head.method(), head.target()), ("GET", "/ws?token=a|b"));
    assert_eq!((head.path(), head.query()), ("/ws", Some("token=a|b")));
    assert_eq!((head.version(), head.body()), (Version::Http11, Body::None));
    assert_eq!(head.headers().count(), 6);
    let upgrade = upgrade(&head).expect("a handshake");
    assert_eq!(&upgrade.accept, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(upgrade.origin, Some("http://example.com"));
    let answer = String::from_utf8(switching(&upgrade, None, None)).expect("text");
    let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    assert_eq!(answer, expected);
}

#[test]
fn protocols_and_extensions_come_from_all_their_lines() {
    let request = and("Sec-WebSocket-Protocol: b, a\r\nSec-Websocket-Protocol: c\r\n\
        Sec-WebSocket-Extensions: x; y=1\r\nsec-websocket-extensions: z");
    let parsed = parse(request.as_bytes(), &LIMITS).expect("fine").expect("whole");
    let upgrade = upgrade(&parsed.head).expect("a handshake");
    assert_eq!(upgrade.protocols.as_slice(), ["b", "a", "c"]);
    assert_eq!(upgrade.extensions.as_slice(), ["x; y=1", "z"]);
    let answer = String::from_utf8(switching(&upgrade, Some("a"), None)).expect("text");
    assert!(answer.ends_with("=\r\nSec-WebSocket-Protocol: a\r\n\r\n"), "{answer}");
}

#[test]
#[should_panic(expected = "a protocol that was not offered")]
fn switching_to_a_protocol_that_was_not_offered_is_our_fault() {
    let parsed = parse(HANDSHAKE.as_bytes(), &LIMITS).expect("fine").expect("whole");
    let upgrade = upgrade(&parsed.head).expect("a handshake");
    let _ = switching(&upgrade, Some("soap"), None);
}

#[test]
fn unusual_but_valid_handshakes_are_accepted() {
    for request in [
        with("Upgrade: websocket", "uPGRADE:WebSocket"),
        with("Upgrade: websocket", "Upgrade: h2c, websocket, x/1"),
        with("keep-alive, Upgrade", " ,\tUPGRADE\t,, close "),
        with("Connection: keep-alive, Upgrade", "Connection: close\r\nConnection: upgrade"),
        with("/ws?token=a|b", "http://example.com/ws"),
        with("example.com:8080", "[::1]:8080"),
        with("Origin: http://example.com\r\n", ""),
        with("http://example.com", "null"),
        and("Content-Length: 0"),
        and("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"),
        and("X-Name: caf\u{e9}\t\"quoted\""),
        and("X-Empty:"),
    ] {
        assert_eq!(refusal(request.as_bytes()), None, "{request}");
        assert!(matches!(parse(request.as_bytes(), &LIMITS), Ok(Some(_))), "{request}");
    }
}

#[test]
fn other_protocols_are_recognised_by_their_first_bytes() {
    assert_refused(b"\x16", 400, "TLS hello");
    assert_refused(b"\x16\x03\x01\x02\x00\x01", 400, "TLS hello");
    assert_refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "HTTP/2");
    assert_refused(b"PRI ", 400, "HTTP/2");
    assert_refused(b"\0", 400, "does not begin with a method");
    assert_refused(b"\x80\x2e\x01", 400, "does not begin with a method");
    assert_refused(b"\r\nGET / HTTP/1.1\r\n", 400, "does not begin with a method");
    assert_refused(" GET / HTTP/1.1\r\n", 400, "does not begin with a method");
    assert_refused("x".repeat(25), 400, "known method");
}

#[test]
fn a_request_line_that_breaks_its_grammar_is_refused() {
    assert_refused("GET /\r\n", 400, "no HTTP version");
    assert_refused("GET  / HTTP/1.1\r\n", 400, "the request target");
    assert_refused("GET / HTTP/1.1 \r\n", 400, "neither HTTP/1.1 nor HTTP/1.0");
    assert_refused("GET / HTTP/2", 400, "neither HTTP/1.1 nor HTTP/1.0");
    assert_refused("GET / HTTP/1.2", 400, "neither HTTP/1.1 nor HTTP/1.0");
    assert_refused("GET / http/1.1\r\n", 400, "neither HTTP/1.1 nor HTTP/1.0");
    assert_refused("GET / HTTP/1.1\n", 400, "line feed without a carriage return");
    assert_refused("GET / HTTP/1.1\rH", 400, "without a line feed");
    assert_refused("GET /\0 HTTP/1.1", 400, "NUL");
    assert_refused("GET /\u{e9} HTTP/1.1", 400, "the request target");
    assert_refused("GET /a#b HTTP/1.1", 400, "the request target");
    assert_refused("G\0T", 400, "NUL");
    assert_refused(with("/ws?token=a|b", "ws"), 400, "neither a path nor a URL");
    assert_refused(with("/ws?token=a|b", "*"), 400, "neither a path nor a URL");
    assert_refused(with("/ws?token=a|b", "ftp://example.com/"), 400, "neither a path nor a URL");
    assert_refused(with("/ws?token=a|b", "http://u@example.com/"), 400, "neither a path nor a URL");
    assert_refused(with("GET /ws?token=a|b", "CONNECT a:1"), 405, "GET");
    assert_refused(format!("GET /{}", "a".repeat(8192)), 414, "8192");
}

#[test]
fn header_lines_that_break_their_grammar_are_refused() {
    assert_refused(and("X : 1"), 400, "before a header's colon");
    assert_refused(and("X\r\nY: 1"), 400, "a header name");
    assert_refused(and(": 1"), 400, "a header name");
    assert_refused(and("X(: 1"), 400, "a header name");
    assert_refused(and("X: 1\r\n folded"), 400, "folded");
    assert_refused(and("X: 1\r\n\tfolded"), 400, "folded");
    assert_refused("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, "folded");
    assert_refused(and("X: 1\nY: 2"), 400, "line feed without a carriage return");
    assert_refused(and("X: 1\rY: 2"), 400, "without a line feed");
    assert_refused(and("X: a\0b"), 400, "NUL");
    assert_refused(and("X\0: a"), 400, "NUL");
    assert_refused(and("X: a\x7fb"), 400, "a header value");
    assert_refused(with("\r\n\r\n", "\r\n\rX"), 400, "without a line feed");
}

#[test]
fn a_host_stands_exactly_once_and_is_valid() {
    assert_refused(with("Host: example.com:8080\r\n", ""), 400, "Host is missing");
    assert_refused(and("Host: example.com:8080"), 400, "Host stands more than once");
    for host in ["", "a b", "user@a", "a/b", "a:http", "[::1"] {
        assert_refused(with("example.com:8080", host), 400, "not a valid host");
    }
    let old = b"GET / HTTP/1.0\r\n\r\n";
    assert!(matches!(parse(old, &LIMITS), Ok(Some(_))));
}

#[test]
fn what_frames_a_body_ambiguously_is_refused() {
    assert_refused(and("Content-Length: 5\r\nContent-Length: 5"), 400, "more than once");
    assert_refused(and("Content-Length: 5, 5"), 400, "not a number");
    assert_refused(and("Content-Length: +5"), 400, "not a number");
    assert_refused(and("Content-Length:"), 400, "not a number");
    assert_refused(and("Content-Length: 99999999999999999999"), 413, "too large");
    assert_refused(and("Content-Length: 0\r\nTransfer-Encoding: chunked"), 400, "in one request");
    assert_refused(and("Transfer-Encoding: gzip, chunked"), 400, "chunked");
    assert_refused(
        and("Transfer-Encoding: chunked\r\nTransfer-Encoding: x"),
        400,
        "more than once",
    );
    let old = with("HTTP/1.1", "HTTP/1.0").replace("Origin", "Transfer-Encoding");
    assert_refused(old, 400, "does not exist in HTTP/1.0");
    assert_refused(and("Content-Length: 5"), 413, "no body");
    assert_refused(and("Transfer-Encoding: Chunked"), 413, "no body");
}

#[test]
fn a_handshake_header_that_is_missing_is_named_with_426() {
    assert_refused(with("Upgrade: websocket\r\n", ""), 426, "Upgrade");
    assert_refused(with("Upgrade: websocket\r\n", "Upgrade: h2c\r\n"), 426, "Upgrade");
    assert_refused(with("keep-alive, Upgrade", "keep-alive"), 426, "Connection");
    assert_refused(with("Connection: keep-alive, Upgrade\r\n", ""), 426, "Connection");
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    assert_refused(with(key, ""), 426, "Sec-WebSocket-Key");
    assert_refused(with("Sec-WebSocket-Version: 13\r\n", ""), 426, "Sec-WebSocket-Version");
    assert_refused(with("Version: 13", "Version: 8"), 426, "must be 13");
    let proxied = b"GET /ws HTTP/1.0\r\nHost: backend\r\nConnection: close\r\n\r\n";
    assert_refused(proxied, 426, "Upgrade");
}

#[test]
fn a_handshake_header_that_is_malformed_is_refused_with_400() {
    assert_refused(with("Upgrade: websocket", "Upgrade: websocket/"), 400, "Upgrade is malformed");
    assert_refused(with("keep-alive", "keep alive"), 400, "Connection is malformed");
    assert_refused(with("jZQ==", "jZQ="), 400, "16 bytes");
    assert_refused(and("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400, "more than once");
    assert_refused(with("Version: 13", "Version: 013"), 400, "Version is malformed");
    assert_refused(and("Sec-WebSocket-Version: 13"), 400, "more than once");
    for protocol in ["", ",", "a b", "a, a", "a/b", "\u{e9}"] {
        let request = and(&format!("Sec-WebSocket-Protocol: {protocol}"));
        assert_refused(request, 400, "Protocol is malformed");
    }
    let twins = and("Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: a");
    assert_refused(twins, 400, "Protocol is malformed");
    let many: Vec<String> = (0..33).map(|at| at.to_string()).collect();
    let many = and(&format!("Sec-WebSocket-Protocol: {}", many.join(",")));
    assert_refused(many, 400, "too many protocols");
    assert_refused(and("Sec-WebSocket-Extensions: a;;b"), 400, "Extensions is malformed");
    assert_refused(and("Origin: http://other.example"), 400, "more than once");
    assert_refused(with("http://example.com", ""), 400, "Origin is malformed");
    assert_refused(with("http://example.com", "\u{e9}"), 400, "Origin is malformed");
    assert_refused(with("HTTP/1.1", "HTTP/1.0"), 400, "HTTP/1.1");
    assert_refused(with("GET", "POST"), 405, "GET");
}

#[test]
fn a_head_may_fill_its_limits_and_not_exceed_them() {
    let most = format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "X: 1\r\n".repeat(63));
    assert!(matches!(parse(format!("{most}\r\n").as_bytes(), &LIMITS), Ok(Some(_))));
    assert_refused(format!("{most}X"), 431, "more than 64 headers");
    let begin = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
    let longest = "y".repeat(LIMITS.head_bytes - begin.len() - 4);
    let longest = format!("{begin}{longest}\r\n\r\n");
    assert_eq!(longest.len(), LIMITS.head_bytes);
    assert!(matches!(parse(longest.as_bytes(), &LIMITS), Ok(Some(_))));
    assert_refused(longest.replacen("X: ", "X: z", 1), 431, "longer than 16384 bytes");
    let target = format!("/{}", "a".repeat(LIMITS.target_bytes - 1));
    let longest = with("/ws?token=a|b", &target);
    assert!(matches!(parse(longest.as_bytes(), &LIMITS), Ok(Some(_))));
    assert_refused(with("/ws?token=a|b", &format!("{target}a")), 414, "8192");
    let short = HeadLimits { head_bytes: 8, ..LIMITS };
    let refused = parse(b"GET /wslong", &short).map(|p| p.is_some()).map_err(|r| r.status);
    assert_eq!(refused, Err(414));
}

#[test]
fn a_refusal_is_a_complete_response_that_closes() {
    let all = [
        Refusal::not_found(),
        Refusal::method_not_allowed("GET, HEAD"),
        Refusal::timeout(),
        Refusal::unavailable(Some(Duration::from_millis(1500))),
        Refusal::unavailable(None),
        Refusal::upgrade_required("why"),
        Refusal::bad_request("why"),
        Refusal::too_large("why"),
        Refusal::target_too_long(9),
        Refusal::head_too_large("why"),
    ];
    for refusal in &all {
        let response = String::from_utf8(refusal.response()).expect("text");
        let (head, body) = response.split_once("\r\n\r\n").expect("an empty line");
        assert!(head.starts_with(&format!("HTTP/1.1 {} ", refusal.status)), "{head}");
        assert!(!head.contains("Refused"), "{head}");
        assert!(head.contains("\r\nConnection: close"), "{head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
        assert_eq!(body, format!("{}\n", refusal.message));
        assert_eq!(body.lines().count(), 1);
    }
    let text = |at: usize| String::from_utf8(all[at].response()).expect("text");
    assert!(text(1).contains("\r\nAllow: GET, HEAD\r\n"));
    assert!(text(3).contains("\r\nRetry-After: 2\r\n"));
    assert!(!text(4).contains("Retry-After"));
    assert!(text(5).contains("\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n"));
    assert!(text(5).contains("\r\nSec-WebSocket-Version: 13\r\n"));
}

#[test]
fn a_page_is_a_complete_response_that_may_open_a_websocket_to_its_origin() {
    let response = String::from_utf8(page("text/html; charset=utf-8", b"<p>")).expect("text");
    let (head, body) = response.split_once("\r\n\r\n").expect("an empty line");
    assert_eq!(body, "<p>");
    for line in ["HTTP/1.1 200 OK", "Connection: close", "Content-Length: 3"] {
        assert!(head.lines().any(|found| found == line), "{line}");
    }
    assert!(head.contains("connect-src 'self'") && head.contains("nosniff"));
}

/// Requests that are handshakes, or nearly.
fn nearly_a_handshake() -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<prop::sample::Index>(), 0usize..3, piece());
    prop::collection::vec(edit, 0..4).prop_map(|edits| {
        let mut request = HANDSHAKE.as_bytes().to_vec();
        for (at, removed, piece) in edits {
            let at = at.index(request.len());
            let end = (at + removed).min(request.len());
            request.splice(at..end, piece);
        }
        request
    })
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..3),
        prop::sample::select(vec![
            b"\r\n".to_vec(),
            b"\n".to_vec(),
            b"\r\n ".to_vec(),
            b":".to_vec(),
            b",".to_vec(),
            b"\0".to_vec(),
            b"\r\nContent-Length: 1".to_vec(),
            b"\r\nSec-WebSocket-Version:".to_vec(),
            b"\r\nSec-WebSocket-Protocol: a;".to_vec(),
            b"\r\nSec-WebSocket-Extensions: a;b=\"".to_vec(),
            b"\r\nX: y".to_vec(),
        ]),
    ]
}

proptest! {
    #[test]
    fn any_pieces_of_a_head_give_the_verdict_of_the_whole_at_the_earliest_byte(
        request in nearly_a_handshake(),
        cuts in prop::collection::vec(1usize..40, 1..20),
    ) {
        let short = HeadLimits { head_bytes: 220, headers: 6, target_bytes: 14 };
        for limits in [LIMITS, short] {
            let whole = parse(&request, &limits).map(|p| p.map(|p| p.length));
            let verdicts = (0..=request.len()).map(|end| parse(&request[..end], &limits));
            let first = verdicts.map(|v| v.map(|p| p.map(|p| p.length))).find(|v| *v != Ok(None));
            prop_assert_eq!(&first.unwrap_or(Ok(None)), &whole);
            let (mut scan, mut end, mut cuts) = (Scan::default(), 0, cuts.iter().cycle());
            let pieced = loop {
                let verdict = parse_more(&mut scan, &request[..end], &limits);
                if !matches!(verdict, Ok(None)) || end == request.len() {
                    break verdict.map(|p| p.map(|p| p.length));
                }
                end = request.len().min(end + cuts.next().copied().unwrap_or(1));
            };
            prop_assert_eq!(pieced, whole);
        }
    }

    #[test]
    fn what_passes_the_strict_scan_is_never_unreadable_to_httparse(request in nearly_a_handshake()) {
        if let Err(refusal) = parse(&request, &LIMITS) {
            prop_assert_ne!(refusal.message, "the request head cannot be read");
        }
    }

    #[test]
    fn any_bytes_are_judged_without_a_panic_and_without_an_echo(
        request in prop_oneof![prop::collection::vec(any::<u8>(), 0..60), nearly_a_handshake()],
    ) {
        if let Some(refusal) = refusal(&request) {
            let plain = refusal.message.bytes().all(|byte| (b' '..=b'~').contains(&byte));
            prop_assert!(plain && !refusal.response().is_empty());
        }
    }
}
