//! MessagePack as JSON, for what programs of Node.js write.
//!
//! One value becomes the text that `JSON.stringify` would have made of what was packed: a date its ISO form, what is
//! undefined or no finite number `null`. What JSON has no words for, bytes and foreign extensions, is a fault. Any
//! bytes give a text or a fault; the text is bounded, and so is how deep it nests. An array that claims more elements
//! than there are bytes ends before anything is made of it.

use std::fmt::{self, Write as _};

/// Why the bytes are no such value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They end in the middle of it.
    Short,
    /// Something stands behind it.
    Rest,
    /// It nests deeper than it may.
    Deep,
    /// Its text is longer than it may be.
    Long,
    /// A text is not UTF-8.
    Utf8,
    /// A key that is no text.
    Key,
    /// Bytes, which JSON has no words for.
    Binary,
    /// An extension, or a byte that means nothing.
    Unknown,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "it ends in the middle of a value",
            Self::Rest => "something stands behind the value",
            Self::Deep => "it nests too deep",
            Self::Long => "it is too long",
            Self::Utf8 => "a text is not UTF-8",
            Self::Key => "the key of a map is no text",
            Self::Binary => "binary parts are not carried",
            Self::Unknown => "an extension that is not known",
        })
    }
}

impl std::error::Error for Fault {}

/// What a text may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Levels of arrays and maps.
    pub depth: usize,
    /// Bytes, about.
    pub bytes: usize,
}

/// The JSON text of a value.
///
/// # Errors
/// When the bytes are none, or one that JSON cannot say.
pub fn to_json(bytes: &[u8], bounds: Bounds) -> Result<String, Fault> {
    let mut reader = Reader { rest: bytes, out: String::new(), most: bounds.bytes };
    reader.value(bounds.depth)?;
    if reader.rest.is_empty() { Ok(reader.out) } else { Err(Fault::Rest) }
}

struct Reader<'a> {
    rest: &'a [u8],
    out: String,
    most: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Fault::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    /// An unsigned number of so many bytes, the highest first.
    fn number(&mut self, bytes: usize) -> Result<u64, Fault> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn length(&mut self, bytes: usize) -> Result<usize, Fault> {
        usize::try_from(self.number(bytes)?).map_err(|_| Fault::Short)
    }

    fn value(&mut self, depth: usize) -> Result<(), Fault> {
        if self.out.len() > self.most {
            return Err(Fault::Long);
        }
        let first = self.number(1)?;
        let low = usize::try_from(first).unwrap_or_default();
        match first {
            0x00..=0x7f => self.plain(first),
            0x80..=0x8f => self.map(low & 0x0f, depth)?,
            0x90..=0x9f => self.array(low & 0x0f, depth)?,
            0xa0..=0xbf => self.text(low & 0x1f)?,
            0xc0 => self.plain("null"),
            0xc2 => self.plain("false"),
            0xc3 => self.plain("true"),
            0xc4..=0xc6 => return Err(Fault::Binary),
            0xc7..=0xc9 => {
                let length = self.length(1 << (first - 0xc7))?;
                self.extension(length)?;
            }
            0xca => {
                let bits = u32::try_from(self.number(4)?).unwrap_or_default();
                self.float(f64::from(f32::from_bits(bits)));
            }
            0xcb => {
                let bits = self.number(8)?;
                self.float(f64::from_bits(bits));
            }
            0xcc..=0xcf => {
                let number = self.number(1 << (first - 0xcc))?;
                self.plain(number);
            }
            0xd0..=0xd3 => {
                let bytes = 1 << (first - 0xd0);
                let number = self.number(bytes)?;
                self.plain(signed(number, bytes));
            }
            0xd4..=0xd8 => self.extension(1 << (first - 0xd4))?,
            0xd9..=0xdb => {
                let length = self.length(1 << (first - 0xd9))?;
                self.text(length)?;
            }
            0xdc..=0xdd => {
                let length = self.length(2 << (first - 0xdc))?;
                self.array(length, depth)?;
            }
            0xde..=0xdf => {
                let length = self.length(2 << (first - 0xde))?;
                self.map(length, depth)?;
            }
            0xe0..=0xff => self.plain(signed(first, 1)),
            _ => return Err(Fault::Unknown),
        }
        Ok(())
    }

    fn plain(&mut self, what: impl fmt::Display) {
        // A String takes everything.
        let _ = write!(self.out, "{what}");
    }

    fn float(&mut self, number: f64) {
        // Infinities, and what is no number, are null.
        let text = serde_json::to_string(&number);
        self.out.push_str(text.as_deref().unwrap_or("null"));
    }

    fn text(&mut self, length: usize) -> Result<(), Fault> {
        let text = str::from_utf8(self.take(length)?).map_err(|_| Fault::Utf8)?;
        let quoted = serde_json::to_string(text).map_err(|_| Fault::Utf8)?;
        self.out.push_str(&quoted);
        Ok(())
    }

    fn array(&mut self, length: usize, depth: usize) -> Result<(), Fault> {
        let depth = depth.checked_sub(1).ok_or(Fault::Deep)?;
        if length > self.rest.len() {
            return Err(Fault::Short);
        }
        self.out.push('[');
        for at in 0..length {
            if at > 0 {
                self.out.push(',');
            }
            self.value(depth)?;
        }
        self.out.push(']');
        Ok(())
    }

    fn map(&mut self, length: usize, depth: usize) -> Result<(), Fault> {
        let depth = depth.checked_sub(1).ok_or(Fault::Deep)?;
        if length > self.rest.len() / 2 {
            return Err(Fault::Short);
        }
        self.out.push('{');
        for at in 0..length {
            if at > 0 {
                self.out.push(',');
            }
            if !matches!(self.rest.first(), Some(0xa0..=0xbf | 0xd9..=0xdb)) {
                return Err(if self.rest.is_empty() { Fault::Short } else { Fault::Key });
            }
            self.value(depth)?;
            self.out.push(':');
            self.value(depth)?;
        }
        self.out.push('}');
        Ok(())
    }

    fn extension(&mut self, length: usize) -> Result<(), Fault> {
        let kind = self.number(1)?;
        let data = self.take(length)?;
        let part = |part: &[u8]| part.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        let (seconds, nanos) = match (kind, data) {
            // How some say that something is undefined.
            (0, [0]) => {
                self.plain("null");
                return Ok(());
            }
            (0xff, [_, _, _, _]) => (signed(part(data), 8), 0),
            (0xff, data) if data.len() == 8 => {
                let whole = part(data);
                (signed(whole & 0x3_ffff_ffff, 8), whole >> 34)
            }
            (0xff, data) if data.len() == 12 => (signed(part(&data[4..]), 8), part(&data[..4])),
            _ => return Err(Fault::Unknown),
        };
        let text = iso(seconds, nanos).ok_or(Fault::Unknown)?;
        self.plain(text);
        Ok(())
    }
}

/// The number that these low bytes are in two's complement.
fn signed(number: u64, bytes: usize) -> i64 {
    let unused = 64 - 8 * bytes;
    (number << unused).cast_signed() >> unused
}

/// A moment as JSON has it; `None` for one that a date of JavaScript cannot be.
fn iso(seconds: i64, nanos: u64) -> Option<String> {
    const DAY: i64 = 86_400;
    if seconds.unsigned_abs() > 8_640_000_000_000 || nanos > 999_999_999 {
        return None;
    }
    let (days, rest) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    // Years that begin in March, in spans of 400, so that the odd day is the last.
    let days = days + 719_468;
    let (span, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + span * 400 + i64::from(month <= 2);
    let year = match year {
        0..=9999 => format!("{year:04}"),
        _ => format!("{}{:06}", if year < 0 { '-' } else { '+' }, year.abs()),
    };
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let milli = nanos / 1_000_000;
    Some(format!("\"{year}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z\""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const BOUNDS: Bounds = Bounds { depth: 8, bytes: 4096 };

    fn read(bytes: &[u8]) -> Result<String, Fault> {
        to_json(bytes, BOUNDS)
    }

    /// Packs as plainly as can be: the longest form of everything.
    fn pack(value: &Value, out: &mut Vec<u8>) {
        let length = |first: u8, length: usize, out: &mut Vec<u8>| {
            out.push(first);
            out.extend(u32::try_from(length).unwrap().to_be_bytes());
        };
        match value {
            Value::Null => out.push(0xc0),
            Value::Bool(is) => out.push(0xc2 + u8::from(*is)),
            Value::Number(number) if number.is_i64() => {
                out.push(0xd3);
                out.extend(number.as_i64().unwrap().to_be_bytes());
            }
            Value::Number(number) => {
                out.push(0xcb);
                out.extend(number.as_f64().unwrap().to_be_bytes());
            }
            Value::String(text) => {
                length(0xdb, text.len(), out);
                out.extend(text.as_bytes());
            }
            Value::Array(list) => {
                length(0xdd, list.len(), out);
                list.iter().for_each(|value| pack(value, out));
            }
            Value::Object(map) => {
                length(0xdf, map.len(), out);
                for (key, value) in map {
                    pack(&json!(key), out);
                    pack(value, out);
                }
            }
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_filter("JSON has them", |n| n.is_finite()).prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((".{0,4}", inner), 0..4)
                    .prop_map(|pairs| pairs.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_was_packed_is_what_json_says(value in any_value(), cut in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            pack(&value, &mut bytes);
            let text = read(&bytes).expect("a value");
            prop_assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), value);
            prop_assert_eq!(read(&bytes[..cut.index(bytes.len())]), Err(Fault::Short));
        }

        #[test]
        fn any_bytes_give_a_text_of_json_or_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(text) = read(&bytes) {
                prop_assert!(serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
            }
        }
    }

    #[test]
    fn every_form_of_a_number_and_a_text_is_read() {
        for (bytes, text) in [
            (&[0x7f][..], "127"),
            (&[0xe0], "-32"),
            (&[0xff], "-1"),
            (&[0xcc, 200], "200"),
            (&[0xcd, 1, 0], "256"),
            (&[0xce, 0, 1, 0, 0], "65536"),
            (&[0xcf, 255, 255, 255, 255, 255, 255, 255, 255], "18446744073709551615"),
            (&[0xd0, 0x80], "-128"),
            (&[0xd1, 0xff, 0x7f], "-129"),
            (&[0xd2, 0x80, 0, 0, 0], "-2147483648"),
            (&[0xca, 0x3f, 0xc0, 0, 0], "1.5"),
            (&[0xcb, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0], "null"),
            (&[0xa2, b'"', b'\n'], r#""\"\n""#),
            (&[0xd9, 1, b'a'], r#""a""#),
            (&[0xda, 0, 1, b'a'], r#""a""#),
            (&[0xd4, 0, 0], "null"),
            (&[0x92, 1, 0x81, 0xa1, b'k', 0xc0], r#"[1,{"k":null}]"#),
            (&[0xdc, 0, 1, 0xc3], "[true]"),
            (&[0xde, 0, 0], "{}"),
        ] {
            assert_eq!(read(bytes).as_deref(), Ok(text), "{bytes:x?}");
        }
    }

    #[test]
    fn a_moment_is_told_as_a_page_would_tell_it() {
        let four = |seconds: u32| [&[0xd6, 0xff][..], &seconds.to_be_bytes()].concat();
        assert_eq!(read(&four(0)).as_deref(), Ok(r#""1970-01-01T00:00:00.000Z""#));
        assert_eq!(read(&four(951_827_696)).as_deref(), Ok(r#""2000-02-29T12:34:56.000Z""#));
        let eight = [&[0xd7, 0xff][..], &((7_000_000_u64 << 34 | 1_795_711_583).to_be_bytes())];
        assert_eq!(read(&eight.concat()).as_deref(), Ok(r#""2026-11-26T16:46:23.007Z""#));
        let twelve = |seconds: i64| {
            let nanos = 5_000_000_u32.to_be_bytes();
            [&[0xc7, 12, 0xff][..], &nanos, &seconds.to_be_bytes()].concat()
        };
        assert_eq!(read(&twelve(-1)).as_deref(), Ok(r#""1969-12-31T23:59:59.005Z""#));
        assert_eq!(
            read(&twelve(-62_198_755_200)).as_deref(),
            Ok(r#""-000001-01-01T00:00:00.005Z""#)
        );
        assert_eq!(read(&twelve(i64::MIN)), Err(Fault::Unknown));
    }

    #[test]
    fn what_json_cannot_say_or_nobody_may_is_a_fault() {
        for (bytes, fault) in [
            (&[][..], Fault::Short),
            (&[0xc0, 0xc0], Fault::Rest),
            (&[0xc1], Fault::Unknown),
            (&[0xc4, 0], Fault::Binary),
            (&[0xd4, 5, 0], Fault::Unknown),
            (&[0xa1, 0xff], Fault::Utf8),
            (&[0x81, 1, 1], Fault::Key),
            (&[0xdd, 255, 255, 255, 255], Fault::Short),
            (&[0xdf, 255, 255, 255, 255], Fault::Short),
            (&[0x91; 9], Fault::Deep),
        ] {
            assert_eq!(read(bytes), Err(fault), "{bytes:x?}");
        }
        let long = [&[0xdc, 0x10, 0][..], &[0xc0; 4096]].concat();
        assert_eq!(read(&long), Err(Fault::Long));
    }
}
