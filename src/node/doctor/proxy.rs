//! Whether an upgrade passes what stands before the node.
//!
//! A handshake is made at a URL as a browser would make it, and the answer is read as far as it goes. A node says
//! by 426 which header it missed, so where a proxy keeps one for itself, that and the line that mends it are
//! known. Whatever else comes back is judged by its status: who refuses, and what to look at next.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

use super::Verdict;
use super::checks::Finding;
use super::idle::{ANSWER, Url};

/// The longest response that is read.
const MOST: usize = 16 << 10;

/// What is needed of every proxy.
const NEEDED: &str = "101 Switching Protocols";

/// Asks for an upgrade at the URL: the report, and how bad it is.
///
/// # Errors
/// When nobody answers there.
pub fn try_upgrade(url: &Url) -> io::Result<(String, Verdict)> {
    let answer = exchange(url)?;
    let finding = judge(&String::from_utf8_lossy(&answer));
    let verdict = finding.verdict;
    Ok((super::report(&[finding]), verdict))
}

fn exchange(url: &Url) -> io::Result<Vec<u8>> {
    let Url { host, port, path } = url;
    let mut stream = TcpStream::connect_timeout(&url.address()?, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: throng.v1.json\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while !is_whole(&answer) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // What came is worth more than that the rest did not.
            Err(_) if !answer.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    if answer.is_empty() {
        let error = "the connection was closed without an answer";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, error));
    }
    Ok(answer)
}

/// True when nothing more of the answer is of interest.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return answer.len() >= MOST };
    let is_upgraded = status_of(head) == Some(101);
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    is_upgraded || answer.len() >= MOST || length.is_some_and(|length: usize| body.len() >= length)
}

fn status_of(head: &str) -> Option<u16> {
    head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()
}

fn judge(answer: &str) -> Finding {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let line = head.lines().next().unwrap_or_default();
    let said = body.lines().next().unwrap_or_default().trim();
    // A proxy's own page of markup says nothing that its status does not.
    let said = if said.starts_with('<') { "" } else { said };
    let (verdict, fix): (Verdict, &[&str]) = match status_of(head) {
        Some(101) => (Verdict::Good, &[]),
        // A proxy that speaks HTTP/1.0 to the node is told so by 400.
        Some(400) if said.contains("needs HTTP/1.1") => (Verdict::Bad, UPGRADE),
        Some(426) => (Verdict::Bad, UPGRADE),
        Some(401 | 403) => (
            Verdict::Good,
            &[
                "the upgrade passes; this client was refused for who it is, or for where it comes from",
            ],
        ),
        Some(404 | 405) => (Verdict::Bad, &["give the path of server.path, as the node has it"]),
        Some(502..=504) => (
            Verdict::Bad,
            &["the proxy does not reach the node, or the node takes nobody now: look at its log"],
        ),
        _ => (Verdict::Bad, &["whoever answered is no node, or was not sent the whole handshake"]),
    };
    let fix = fix.iter().map(|line| (*line).to_owned()).collect();
    let found = [line, said].into_iter().filter(|text| !text.is_empty());
    let found = found.collect::<Vec<_>>().join(": ");
    Finding {
        verdict,
        what: "the upgrade through the proxy",
        found,
        needed: NEEDED.to_owned(),
        fix,
    }
}

/// How proxies are told to hand an upgrade on.
const UPGRADE: &[&str] = &[
    "nginx:   proxy_http_version 1.1;",
    "nginx:   proxy_set_header Upgrade $http_upgrade;",
    "nginx:   proxy_set_header Connection \"upgrade\";",
    "Apache:  ProxyPass /ws http://NODE/ws upgrade=websocket",
    "HAProxy: nothing, unless a rule deletes one of these headers",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_judged_by_who_gave_it() {
        let judged = |answer: &str| {
            let finding = judge(answer);
            (finding.verdict, finding.found, finding.fix.len())
        };
        let good = judged("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n");
        assert_eq!(good, (Verdict::Good, "HTTP/1.1 101 Switching Protocols".to_owned(), 0));
        let missing =
            "HTTP/1.1 426 Upgrade Required\r\nServer: nginx\r\n\r\nthe header X is missing\n";
        let found = "HTTP/1.1 426 Upgrade Required: the header X is missing".to_owned();
        assert_eq!(judged(missing), (Verdict::Bad, found, UPGRADE.len()));
        let page = "HTTP/1.1 502 Bad Gateway\r\n\r\n<html>\r\n<h1>502</h1>";
        assert_eq!(judged(page), (Verdict::Bad, "HTTP/1.1 502 Bad Gateway".to_owned(), 1));
        assert_eq!(judged("HTTP/1.1 401 Unauthorized\r\n\r\nno token").0, Verdict::Good);
        for strange in ["", "SSH-2.0-OpenSSH_9.9\r\n", "HTTP/1.", "HTTP/1.1 2\u{e4}\u{e4}\r\n\r\n"]
        {
            assert_eq!(judged(strange).0, Verdict::Bad, "{strange:?}");
        }
    }

    #[test]
    fn an_answer_is_read_to_its_end_and_no_further() {
        assert!(!is_whole(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 5\r\n\r\nhell"));
        assert!(is_whole(b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 5\r\n\r\nhello"));
        assert!(is_whole(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"));
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\n\r\nwithout a length"));
        assert!(is_whole(&[b'x'; MOST]));
    }
}
