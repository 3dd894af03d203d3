//! Request heads: whole and in any pieces, what follows them, and no room left.

use std::sync::Arc;

use proptest::prelude::*;

use crate::connection::{Answer, Front, HalfHead, Knock, Page, Routes, Verdict, answer};
use crate::session::Protocol;
use crate::wire::http::{Head, HeadLimits, Refusal, Upgrade};

const LIMITS: HeadLimits = HeadLimits { head_bytes: 512, headers: 16, target_bytes: 128 };
const FIELDS: &str = "Host: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn routes() -> Routes {
    Routes {
        sessions: "/ws".to_owned(),
        packets: Some("/socket.io/".to_owned()),
        polling: None,
        streams: Some("/sse".to_owned()),
        history: Some("/history".to_owned()),
        echo: Some("/echo".to_owned()),
        deflate: false,
        pages: [("/", "page"), ("/script", "code")]
            .map(|(path, body)| (path, format!("HTTP/1.1 200 OK\r\n\r\n{body}")))
            .map(|(path, whole)| Page { path, response: Arc::from(whole.into_bytes()) })
            .into(),
        fronts: [("/api/", 8, false), ("/api/large/", 600, false), ("/app/", 1 << 40, true)]
            .map(|(path, body_bytes, leaves)| Front { path: path.to_owned(), body_bytes, leaves })
            .into(),
        tls: None,
    }
}

fn upgrade(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\n{FIELDS}{more}\r\n")
}

/// What a head got, with the number of bytes of the whole stream that it took.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    More,
    Upgrade(Protocol, Vec<u8>, usize),
    Page(Vec<u8>),
    /// Whole, or what has come of it so far with the length of all.
    Petition(Vec<u8>, usize),
    /// All that there is, also what comes later.
    Passage(Vec<u8>, String),
    Refuse(Vec<u8>),
}

impl Got {
    fn status(&self) -> &str {
        match self {
            Self::More => "more",
            Self::Petition(..) => "others",
            Self::Passage(..) => "leaves",
            Self::Upgrade(_, response, _) | Self::Page(response) | Self::Refuse(response) => {
                std::str::from_utf8(&response[9..12]).expect("a status")
            }
        }
    }
}

/// A door that is shut when the house is full.
fn door(full: bool) -> impl FnMut(Knock, &Head<'_>, &Upgrade<'_>) -> Verdict {
    move |_, _, _| {
        if full { Verdict::Refuse(Refusal::unavailable(None)) } else { Verdict::Welcome }
    }
}

/// Feeds `stream` cut at `cuts`, stopping at the first answer.
fn feed(stream: &[u8], cuts: &[usize], full: bool) -> Got {
    let mut half: Option<Box<HalfHead>> = None;
    let (mut begin, routes) = (0, routes());
    for end in cuts.iter().copied().chain([stream.len()]) {
        if end <= begin {
            continue;
        }
        match answer(half.take(), &stream[begin..end], &LIMITS, &routes, &mut door(full)) {
            Answer::More(kept) => half = Some(kept),
            Answer::Upgrade { protocol, response, used, dismissed, window: _, wish: _ } => {
                assert_eq!(dismissed, None);
                return Got::Upgrade(protocol, response, begin + used);
            }
            Answer::Page(page) => return Got::Page(page.to_vec()),
            Answer::Petition { mut bytes, length } => {
                // What comes later is gathered by the shard.
                bytes.extend_from_slice(&stream[end..]);
                return Got::Petition(bytes, length);
            }
            Answer::Probe(probe) => return Got::Page(probe.response),
            Answer::Poll(poll) => {
                return Got::Petition([&poll.bytes, &stream[end..]].concat(), poll.length);
            }
            Answer::Passage { mut bytes, front } => {
                bytes.extend_from_slice(&stream[end..]);
                return Got::Passage(bytes, front);
            }
            Answer::Preflight(response) => return Got::Page(response),
            Answer::Refuse(refusal) => return Got::Refuse(refusal.response()),
        }
        begin = end;
    }
    Got::More
}

/// A request with a body.
fn post(path: &str, bytes: usize) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n");
    [head.into_bytes(), vec![b'x'; bytes]].concat()
}

fn streams() -> Vec<(&'static str, Vec<u8>)> {
    let long = format!("X-Long: {}\r\n", "a".repeat(600));
    let mut followed = upgrade("/ws", "").into_bytes();
    followed.extend([0x81, 0x82, 1, 2, 3, 4, 5, 6]);
    vec![
        ("101", upgrade("/ws", "").into_bytes()),
        ("101", upgrade("/ws?token=x", "Sec-WebSocket-Protocol: a, throng.v1.json\r\n").into()),
        ("101", upgrade("/echo", "").into_bytes()),
        ("101", followed),
        ("400", upgrade("/ws", "Sec-WebSocket-Protocol: mqtt\r\n").into_bytes()),
        ("404", upgrade("/elsewhere", "").into_bytes()),
        ("404", upgrade("/", "").into_bytes()),
        ("431", upgrade("/ws", &long).into_bytes()),
        ("200", b"GET /sse?room=a HTTP/1.0\r\n\r\n".to_vec()),
        ("204", b"OPTIONS /sse HTTP/1.1\r\nHost: a\r\nOrigin: https://b\r\n\r\n".to_vec()),
        ("400", b"GET /sse HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("400", b"GET /sse?rooms=a HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("405", b"POST /sse?room=a HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("413", b"GET /sse?room=a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n".to_vec()),
        ("200", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("200", b"GET /script HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("405", b"DELETE / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("426", b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("400", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("others", b"GET /api/a?b HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("others", b"POST /api/ HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n12345678".to_vec()),
        ("others", post("/api/large/x", 600)),
        ("413", post("/api/large/x", 601)),
        ("413", post("/api/larger", 9)),
        ("404", b"GET /api HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("404", upgrade("/api/a", "").into_bytes()),
        (
            "411",
            b"PUT /api/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                .to_vec(),
        ),
        ("leaves", b"GET /app/ HTTP/1.1\r\nHost: a\r\n\r\nGET /ws".to_vec()),
        ("leaves", upgrade("/app/socket", "").into_bytes()),
        ("leaves", post("/app/x", 10_000)),
        (
            "leaves",
            b"PUT /app/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab".to_vec(),
        ),
        ("413", b"PUT /app/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1099511627777\r\n\r\n".to_vec()),
        ("more", b"GET /ws HTTP/1.1\r\nHost: a\r\n".to_vec()),
    ]
}

#[test]
fn every_head_gets_its_answer_whole_and_byte_by_byte() {
    for (status, stream) in streams() {
        let whole = feed(&stream, &[], false);
        assert_eq!(whole.status(), status, "{}", String::from_utf8_lossy(&stream));
        let bytes: Vec<usize> = (1..stream.len()).collect();
        assert_eq!(feed(&stream, &bytes, false), whole, "{}", String::from_utf8_lossy(&stream));
    }
}

#[test]
fn a_request_that_others_answer_is_kept_whole_however_it_is_cut() {
    let stream = post("/api/large/x", 600);
    for cut in 0..stream.len() {
        assert_eq!(feed(&stream, &[cut], false), Got::Petition(stream.clone(), stream.len()));
    }
}

#[test]
fn a_request_that_leaves_takes_along_every_byte_however_it_is_cut() {
    let stream = post("/app/x", 600);
    for cut in 0..stream.len() {
        let all = Got::Passage(stream.clone(), "/app/".to_owned());
        assert_eq!(feed(&stream, &[cut], false), all);
    }
}

#[test]
fn what_follows_the_head_in_the_same_bytes_is_left_to_the_protocol() {
    let head = upgrade("/ws", "").into_bytes();
    let stream = [head.as_slice(), &[0x89, 0x80, 0, 0, 0, 0]].concat();
    for cut in 0..head.len() {
        let got = feed(&stream, &[cut], false);
        assert!(
            matches!(got, Got::Upgrade(Protocol::Json, _, used) if used == head.len()),
            "cut at {cut}: {got:?}"
        );
    }
}

#[test]
fn a_full_shard_answers_503_to_what_it_would_have_let_in_and_to_nothing_else() {
    for (status, stream) in streams() {
        let is_stream = stream.windows(4).any(|path| path == b"/sse") && status.starts_with('2');
        let expected = if status == "101" || is_stream { "503" } else { status };
        assert_eq!(feed(&stream, &[], true).status(), expected);
    }
}

#[test]
fn a_head_that_never_ends_is_refused_before_more_than_the_limit_is_kept() {
    let mut half = None;
    let routes = routes();
    let mut fed = 0;
    let line = b"GET /ws HTTP/1.1\r\nX: ".iter().chain(std::iter::repeat(&b'a'));
    for byte in line.take(4 * LIMITS.head_bytes) {
        fed += 1;
        match answer(half.take(), &[*byte], &LIMITS, &routes, &mut door(false)) {
            Answer::More(kept) => half = Some(kept),
            Answer::Refuse(refusal) => {
                assert_eq!(refusal.status, 431);
                assert!(fed <= LIMITS.head_bytes + 1, "{fed} bytes were taken");
                return;
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("{fed} bytes of a head without an answer");
}

proptest! {
    #[test]
    fn any_cutting_of_a_head_gives_the_answer_of_the_whole(
        which in 0..13usize,
        mut cuts in prop::collection::vec(0..1300usize, 0..9),
        full: bool,
    ) {
        let (_, stream) = &streams()[which];
        cuts.retain(|cut| *cut < stream.len());
        cuts.sort_unstable();
        prop_assert_eq!(feed(stream, &cuts, full), feed(stream, &[], full));
    }
}
