//! Writing a JSON object field by field, into a buffer that already holds something.
//!
//! The messages of the server are flat, their keys are literals and their payloads are JSON already;
//! a serializer would need a struct for each and would not take less code than this.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::Write;

use serde_json::value::RawValue;

/// An object that is being written. Every method appends one field; [`Object::end`] closes it.
#[must_use = "an object has to be ended"]
pub(super) struct Object<'o> {
    out: &'o mut Vec<u8>,
    /// What goes before the next field.
    before: u8,
}

impl<'o> Object<'o> {
    pub(super) fn begin(out: &'o mut Vec<u8>) -> Self {
        Self { out, before: b'{' }
    }

    /// Begins a message of one of the engine's types.
    pub(super) fn typed(out: &'o mut Vec<u8>, kind: &str) -> Self {
        Self::begin(out).text("type", kind)
    }

    pub(super) fn text(mut self, key: &str, value: &str) -> Self {
        self.key(key);
        string(self.out, value);
        self
    }

    /// A number, a boolean or another value whose display is its JSON.
    pub(super) fn plain(mut self, key: &str, value: impl Display) -> Self {
        self.key(key);
        display(self.out, value);
        self
    }

    /// A text that has nothing in it to escape.
    pub(super) fn quoted(mut self, key: &str, value: impl Display) -> Self {
        self.key(key);
        display(self.out, format_args!("\"{value}\""));
        self
    }

    /// JSON as it was written elsewhere, by [`verbatim`]; no field for `None`.
    pub(super) fn raw(mut self, key: &str, value: Option<&RawValue>) -> Self {
        if let Some(value) = value {
            self.key(key);
            verbatim(self.out, value);
        }
        self
    }

    pub(super) fn object(mut self, key: &str, fill: impl FnOnce(Object<'_>) -> Object<'_>) -> Self {
        self.key(key);
        fill(Object::begin(self.out)).end();
        self
    }

    /// An array of objects.
    pub(super) fn list<T>(
        mut self,
        key: &str,
        items: impl IntoIterator<Item = T>,
        mut fill: impl FnMut(Object<'_>, T) -> Object<'_>,
    ) -> Self {
        self.key(key);
        let mut before = b'[';
        for item in items {
            self.out.push(before);
            before = b',';
            fill(Object::begin(self.out), item).end();
        }
        if before == b'[' {
            self.out.push(b'[');
        }
        self.out.push(b']');
        self
    }

    /// A list whose elements `write` appends.
    pub(super) fn values<T>(
        mut self,
        key: &str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Vec<u8>, T),
    ) -> Self {
        self.key(key);
        self.out.push(b'[');
        for (at, item) in items.into_iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            write(self.out, item);
        }
        self.out.push(b']');
        self
    }

    pub(super) fn end(self) {
        if self.before == b'{' {
            self.out.push(b'{');
        }
        self.out.push(b'}');
    }

    fn key(&mut self, key: &str) {
        self.out.push(self.before);
        self.before = b',';
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }
}

fn display(out: &mut Vec<u8>, value: impl Display) {
    // Writing to a vector cannot fail.
    let _ = write!(out, "{value}");
}

/// Appends JSON as it was written elsewhere, its lines ended by LF.
pub(super) fn verbatim(out: &mut Vec<u8>, value: &RawValue) {
    out.extend_from_slice(in_lines(value.get()).as_bytes());
}

/// JSON with LF where CR LF or a CR alone stood. They can stand between tokens only, for in a string both are escaped; and
/// the lines of an event stream cannot tell them from LF. So all readers get the same bytes, whatever carries them.
#[must_use]
pub fn in_lines(json: &str) -> Cow<'_, str> {
    if !json.as_bytes().contains(&b'\r') {
        return Cow::Borrowed(json);
    }
    Cow::Owned(json.replace("\r\n", "\n").replace('\r', "\n"))
}

/// Appends `text` as a JSON string (RFC 8259, section 7): quotes, backslashes and control characters
/// are escaped, everything else stays as it is.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if !matches!(byte, b'"' | b'\\' | 0..=0x1f) {
            continue;
        }
        out.extend_from_slice(&bytes[from..at]);
        from = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            _ => display(out, format_args!("\\u{byte:04x}")),
        }
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'"');
}
