//! Request heads and the handshake: any bytes in any pieces.
//!
//! The first three bytes choose the piece size and where the rest of the input goes: instead of a
//! stretch of a handshake that is in order, so that deep rules are reached at once, or all alone. Pieces
//! must give the verdict of the whole, a head keeps to its limits, and a refusal is a whole response of
//! printable words that holds nothing of the request.

#![no_main]

use libfuzzer_sys::fuzz_target;
use throng::wire::http::{
    Deflate,
    HeadLimits, Parsed, Refusal, Scan, parse, parse_more, switching, upgrade,
};

fuzz_target!(|data: &[u8]| {
    let [cut, at, removed, written @ ..] = data else { return };
    let request = match usize::from(*at) {
        0 => written.to_vec(),
        at => edited(at, usize::from(*removed), written),
    };
    let request = request.as_slice();
    let limits = HeadLimits { head_bytes: 2048, headers: 16, target_bytes: 256 };
    let whole = parse(request, &limits);
    assert_eq!(in_pieces(request, usize::from(*cut) + 1, &limits), lengths(&whole));
    match whole {
        Ok(None) => assert!(request.len() < limits.head_bytes, "more is asked for than may come"),
        Ok(Some(parsed)) => judge(&parsed, &limits),
        Err(refusal) => answer(&refusal),
    }
});

/// The handshake with `removed` bytes from its `at`-th on replaced by what the fuzzer wrote.
fn edited(at: usize, removed: usize, written: &[u8]) -> Vec<u8> {
    let mut request = HANDSHAKE.to_vec();
    let at = at.min(request.len());
    request.splice(at..request.len().min(at + removed), written.iter().copied());
    request
}

fn lengths(verdict: &Result<Option<Parsed<'_>>, Refusal>) -> Result<Option<usize>, Refusal> {
    verdict.as_ref().map(|parsed| parsed.as_ref().map(|p| p.length)).map_err(Refusal::clone)
}

fn in_pieces(request: &[u8], cut: usize, limits: &HeadLimits) -> Result<Option<usize>, Refusal> {
    let mut scan = Scan::default();
    let mut end = 0;
    loop {
        let verdict = lengths(&parse_more(&mut scan, &request[..end], limits));
        if verdict != Ok(None) || end == request.len() {
            return verdict;
        }
        end = request.len().min(end + cut);
    }
}

fn judge(parsed: &Parsed<'_>, limits: &HeadLimits) {
    let head = &parsed.head;
    assert!(parsed.length <= limits.head_bytes);
    assert!(head.target().len() <= limits.target_bytes);
    assert!(head.headers().count() <= limits.headers);
    assert!(head.path().starts_with('/') || head.path() == "*");
    assert!(head.values("host").count() <= 1);
    match upgrade(head) {
        Ok(upgrade) => {
            let deflate = Deflate::of(&upgrade);
            let response = switching(&upgrade, upgrade.protocols.first().copied(), deflate);
            assert!(response.ends_with(b"\r\n\r\n"));
            assert_eq!(response.windows(4).filter(|end| end == b"\r\n\r\n").count(), 1);
        }
        Err(refusal) => answer(&refusal),
    }
}

fn answer(refusal: &Refusal) {
    assert_ne!(refusal.message, "the request head cannot be read", "scan and httparse disagree");
    assert!(matches!(refusal.status, 400 | 405 | 413 | 414 | 426 | 431));
    assert!(refusal.message.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    let response = refusal.response();
    let head = response.windows(4).position(|end| end == b"\r\n\r\n").expect("an empty line");
    assert_eq!(response.len() - head - 4, refusal.message.len() + 1);
}

/// In order; the header that comes last stands within reach of an offset of one byte.
const HANDSHAKE: &[u8] = b"GET /ws?a=b HTTP/1.1\r\n\
    Host: a:1\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Origin: http://a\r\n\
    Sec-WebSocket-Protocol: x, y\r\n\
    Sec-WebSocket-Extensions: p;q=\"1\"\r\n\r\n";
