//! The client's half of event streams (HTML Living Standard, section 9.2) over slices: no socket, no engine code.
//!
//! The judge is strict where the engine could be wrong: a field that no event has, an event without data, a
//! line that no server should send or text that is not UTF-8 is an error and ends the run. Comments break the
//! silence and are counted by nobody. The data of an event are handed on as one text, its lines joined by LF,
//! as a page would see them; their ids are for whoever comes back, and only looked at.

use std::fmt::Write as _;

use tungstenite::handshake::client::Response;
use tungstenite::handshake::machine::TryParse as _;

use crate::codec::{CodecError, Item};

/// The longest event taken, in bytes: well above what any scenario sends.
const MAX_EVENT: usize = 64 << 20;

/// Lines to events. Memory is held only while an event is incomplete.
#[derive(Debug, Default)]
pub(crate) struct Events {
    held: Option<Box<Held>>,
}

/// What an incomplete event keeps.
#[derive(Debug, Default)]
struct Held {
    /// The bytes of a line that has not ended.
    rest: Vec<u8>,
    /// The lines of data so far, each with its LF; none before the first.
    data: Option<String>,
}

impl Events {
    /// Takes bytes from the socket and hands on the data of each event that ends in them.
    ///
    /// # Errors
    /// When the server writes what is no event of its own, or `each` fails; the connection cannot go on.
    pub(crate) fn decode(
        &mut self,
        bytes: &[u8],
        each: &mut dyn FnMut(Item<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut held = self.held.take().unwrap_or_default();
        let mut bytes = bytes;
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = bytes.split_at(end);
            bytes = &rest[1..];
            if held.rest.is_empty() {
                self::line(line, &mut held, each)?;
            } else {
                let mut whole = std::mem::take(&mut held.rest);
                whole.extend_from_slice(line);
                self::line(&whole, &mut held, each)?;
            }
        }
        held.rest.extend_from_slice(bytes);
        let length = held.rest.len() + held.data.as_ref().map_or(0, String::len);
        if length > MAX_EVENT {
            return Err(format!("an event of more than {MAX_EVENT} bytes"));
        }
        if length > 0 {
            self.held = Some(held);
        }
        Ok(())
    }

    /// True while an event has not ended.
    pub(crate) fn is_inside(&self) -> bool {
        self.held.is_some()
    }
}

/// Takes one line; the empty one ends an event.
fn line(
    line: &[u8],
    held: &mut Held,
    each: &mut dyn FnMut(Item<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let Ok(line) = std::str::from_utf8(line) else {
        return Err("a line of an event stream that is not UTF-8".to_owned());
    };
    if line.contains('\r') {
        return Err(format!("a CR within a line of an event stream: {}", shown(line)));
    }
    if line.is_empty() {
        let Some(mut data) = held.data.take() else { return Ok(()) };
        data.pop();
        return each(Item::Text(&data));
    }
    let (field, value) = line.split_once(':').unwrap_or((line, ""));
    let value = value.strip_prefix(' ').unwrap_or(value);
    match field {
        "" => {}
        "data" => {
            let data = held.data.get_or_insert_default();
            data.push_str(value);
            data.push('\n');
        }
        "id" if !value.is_empty() && !value.contains('\0') => {}
        "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) && !value.is_empty() => {}
        _ => return Err(format!("no line of an event stream of ours: {}", shown(line))),
    }
    Ok(())
}

fn shown(line: &str) -> String {
    format!("{:?}", line.chars().take(100).collect::<String>())
}

/// The path of a stream of these rooms.
pub(crate) fn path<'a>(base: &str, rooms: impl Iterator<Item = &'a str>) -> String {
    let mut path = base.to_owned();
    let mut between = if base.contains('?') { '&' } else { '?' };
    for room in rooms {
        path.push(between);
        path.push_str("room=");
        for byte in room.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    path.push(char::from(byte));
                }
                // Writing to memory cannot fail.
                _ => drop(write!(path, "%{byte:02X}")),
            }
        }
        between = '&';
    }
    path
}

/// The request that opens a stream. `last`: the id of the event after which it is to go on.
pub(crate) fn request(
    authority: &str,
    path: &str,
    token: Option<&str>,
    last: Option<&str>,
) -> Vec<u8> {
    let mut head = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nAccept: text/event-stream\r\nCache-Control: no-store\r\n"
    );
    for (name, value) in [("Authorization: Bearer ", token), ("Last-Event-ID: ", last)] {
        if let Some(value) = value {
            head.push_str(name);
            head.push_str(value);
            head.push_str("\r\n");
        }
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// Judges the answer to [`request`]: `None` while it is incomplete, else the length of its head.
///
/// # Errors
/// When the server refuses, or its answer is no event stream whose body lasts until the connection ends.
pub(crate) fn check_response(bytes: &[u8]) -> Result<Option<usize>, CodecError> {
    let parsed = Response::try_parse(bytes).map_err(|error| CodecError::new(error.to_string()))?;
    let Some((length, response)) = parsed else { return Ok(None) };
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    if response.status() != 200 {
        let body = String::from_utf8_lossy(&bytes[length..]);
        let status = response.status();
        return Err(CodecError::new(format!("the stream was refused: {status} {}", body.trim())));
    }
    let kind = header("content-type").unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("text/event-stream") {
        return Err(CodecError::new(format!("an answer of the type {kind:?}, which is no stream")));
    }
    if header("content-length").is_some() || header("transfer-encoding").is_some() {
        return Err(CodecError::new("a stream with a length or an encoding".to_owned()));
    }
    Ok(Some(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(pieces: &[&[u8]]) -> Result<Vec<String>, String> {
        let (mut events, mut found) = (Events::default(), Vec::new());
        for piece in pieces {
            events.decode(piece, &mut |item| {
                let Item::Text(text) = item else { return Err(format!("{item:?}")) };
                found.push(text.to_owned());
                Ok(())
            })?;
        }
        assert!(!events.is_inside(), "{events:?}");
        Ok(found)
    }

    #[test]
    fn events_are_their_data() {
        let stream = b"retry: 2000\n\n: ping\n\ndata: a\n\nid: 1.2.r\ndata: {\ndata:  \"x\"\ndata: }\n\ndata: b\n\n";
        assert_eq!(decoded(&[stream]).expect("a stream"), ["a", "{\n \"x\"\n}", "b"]);
    }

    proptest! {
        #[test]
        fn any_cutting_of_a_stream_gives_the_same_events(
            data in prop::collection::vec("[^\r\u{0}]{0,40}", 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut stream = String::new();
            for (number, data) in data.iter().enumerate() {
                if number % 2 == 0 {
                    stream.push_str(&format!(": c\n\nid: 7.{number}.x\n"));
                }
                for line in data.split('\n') {
                    stream.push_str(&format!("data: {line}\n"));
                }
                stream.push('\n');
            }
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            at.extend([0, stream.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> =
                at.windows(2).map(|pair| &stream.as_bytes()[pair[0]..pair[1]]).collect();
            prop_assert_eq!(decoded(&pieces).expect("a stream"), data);
        }
    }

    #[test]
    fn what_no_server_of_ours_writes_is_refused() {
        for wrong in [
            b"event: x\ndata: y\n\n".as_slice(),
            b"data: a\r\n\r\n",
            b"id: \ndata: a\n\n",
            b"retry: soon\n\n",
            b"HTTP/1.1 200 OK\n",
            b"data: \xff\n\n",
        ] {
            assert!(decoded(&[wrong]).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }

    #[test]
    fn rooms_stand_in_the_path_whatever_they_are_called() {
        assert_eq!(path("/sse", ["a b", "ü&c"].into_iter()), "/sse?room=a%20b&room=%C3%BC%26c");
        assert_eq!(path("/sse?x=1", std::iter::once("r:1")), "/sse?x=1&room=r%3A1");
    }

    #[test]
    fn an_answer_is_a_stream_or_refused_in_its_words() {
        let head =
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: keep-alive\r\n\r\n";
        let judged = |text: &str| check_response(text.as_bytes());
        assert_eq!(judged(head), Ok(Some(head.len())));
        assert_eq!(judged(&head[..40]), Ok(None));
        for (answer, words) in [
            ("HTTP/1.1 401 Unauthorized\r\n\r\nno token", "401 Unauthorized no token"),
            ("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n", "text/html"),
            (
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 4\r\n\r\n",
                "a length",
            ),
        ] {
            let error = judged(answer).expect_err("no stream").to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_request_carries_what_the_client_comes_back_with() {
        let plain = String::from_utf8(request("h:1", "/sse", None, None)).expect("text");
        assert!(
            plain.starts_with("GET /sse HTTP/1.1\r\nHost: h:1\r\n") && plain.ends_with("\r\n\r\n")
        );
        assert!(!plain.contains("Last-Event-ID") && !plain.contains("Authorization"));
        let whole = String::from_utf8(request("h:1", "/", Some("t"), Some("1.2.r"))).expect("text");
        assert!(whole.contains("\r\nAuthorization: Bearer t\r\n"));
        assert!(whole.contains("\r\nLast-Event-ID: 1.2.r\r\n"));
    }
}
