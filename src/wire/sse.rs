//! The lines of an event stream (HTML Living Standard, section 9.2, "Server-sent events").
//!
//! An event is a few lines and an empty one. A line ends with CR, LF or both, so data that holds line
//! breaks goes out as several `data:` lines, which the reader joins with LF: what arrives is what was
//! sent, but that every break has become LF. The texts that come here hold no CR (`session::object`), so of
//! them nothing is changed; one that did could still not end an event. U+2028 is no break here. Whoever reads an event without a name hears
//! of it as `message`.

/// A line that readers pass over: it keeps proxies from taking the stream for dead, and fires no event.
pub const COMMENT: &[u8] = b": ping\n\n";

/// An event. `id` and `name` are one line each; an empty `id` would take back the reader's last one.
///
/// # Panics
/// When `id` or `name` would end its line, or `id` holds NUL, which makes readers ignore it.
#[must_use]
pub fn event(name: Option<&str>, id: Option<&str>, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 32);
    for (field, value) in [("event: ", name), ("id: ", id)] {
        if let Some(value) = value {
            assert!(!value.contains(['\r', '\n', '\0']), "{field}is one line");
            out.extend_from_slice(field.as_bytes());
            out.extend_from_slice(value.as_bytes());
            out.push(b'\n');
        }
    }
    for line in lines(data) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
    out
}

/// The first event of a stream, which tells as well how long to wait before coming back should the stream break, in
/// milliseconds.
#[must_use]
pub fn opening(delay_ms: u64, data: &[u8]) -> Vec<u8> {
    let mut out = format!("retry: {delay_ms}\n").into_bytes();
    out.extend(event(None, None, data));
    out
}

/// Tells the reader how long to wait before it comes back when the stream has ended, in milliseconds.
#[must_use]
pub fn retry(delay_ms: u64) -> Vec<u8> {
    format!("retry: {delay_ms}\n\n").into_bytes()
}

/// Splits at CR, LF and CR LF; there is always one line.
fn lines(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(data);
    std::iter::from_fn(move || {
        let bytes = rest?;
        let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
            rest = None;
            return Some(bytes);
        };
        let (line, behind) = bytes.split_at(end);
        rest = Some(behind.strip_prefix(b"\r\n").unwrap_or(&behind[1..]));
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a reader makes of a stream, by the standard's own steps: name, data and id of each event.
    fn read(stream: &str) -> Vec<(String, String, String)> {
        let (mut events, mut name, mut data, mut id) =
            (Vec::new(), String::new(), None, String::new());
        let unified = stream.replace("\r\n", "\n").replace('\r', "\n");
        for line in unified.split('\n') {
            if line.is_empty() {
                if let Some(mut data) = data.take().map(|data: String| data) {
                    data.pop();
                    let name = if name.is_empty() { "message".to_owned() } else { name.clone() };
                    events.push((name, data, id.clone()));
                }
                name.clear();
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut name),
                "data" => {
                    let data = data.get_or_insert_with(String::new);
                    data.push_str(value);
                    data.push('\n');
                }
                "id" if !value.contains('\0') => value.clone_into(&mut id),
                _ => {}
            }
        }
        events
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn an_event_is_its_lines_and_an_empty_one() {
        assert_eq!(text(event(None, None, b"x")), "data: x\n\n");
        let full = text(event(Some("chat"), Some("1:2"), b"a\nb"));
        assert_eq!(full, "event: chat\nid: 1:2\ndata: a\ndata: b\n\n");
        assert_eq!(text(event(None, None, b"")), "data: \n\n");
        assert_eq!(text(retry(1500)), "retry: 1500\n\n");
        assert_eq!(text(opening(1500, b"a\nb")), "retry: 1500\ndata: a\ndata: b\n\n");
    }

    #[test]
    fn a_comment_fires_no_event() {
        let stream = [COMMENT, &event(None, None, b"x"), COMMENT, &retry(5)].concat();
        assert_eq!(read(&text(stream)).len(), 1);
    }

    #[test]
    #[should_panic(expected = "is one line")]
    fn an_id_cannot_smuggle_in_another_line() {
        let _ = event(None, Some("1\ndata: forged"), b"x");
    }

    proptest! {
        #[test]
        fn whatever_is_sent_arrives_with_its_breaks_as_line_feeds(
            sent in prop::collection::vec(("[a-z ]{0,6}", "[a-z: \u{2028}\u{85}\r\n]{0,24}"), 1..5),
        ) {
            let stream: Vec<u8> = sent
                .iter()
                .flat_map(|(id, data)| event(None, Some(&format!("i{id}")), data.as_bytes()))
                .collect();
            let read = read(&text(stream));
            prop_assert_eq!(read.len(), sent.len());
            for ((id, data), (name, got, last)) in sent.iter().zip(read) {
                prop_assert_eq!(name, "message");
                prop_assert_eq!(last, format!("i{id}"));
                prop_assert_eq!(got, data.replace("\r\n", "\n").replace('\r', "\n"));
            }
        }
    }
}
