//! UTF-8, checked as it arrives.
//!
//! RFC 6455 section 8.1 lets a server fail a text message at its end or at its first bad byte; this one
//! takes the first, however the message is cut, so a peer cannot make us hold 16 MiB of rubbish. A
//! piece may end inside a code point: those bytes, three at most, wait in a tail until the rest comes,
//! and are refused at once when no rest could complete them. The bulk goes through simdutf8 exactly
//! once; what has passed is a `String`, so handing it out needs no second look.

use super::partial::grown;
use super::violation::Violation;

/// The text of a message that is still arriving.
#[derive(Debug, Default)]
pub(super) struct Text {
    whole: String,
    /// The beginning of a code point; what lies behind `tail_length` means nothing.
    tail: [u8; 4],
    /// Less than 4 between calls.
    tail_length: usize,
}

impl Text {
    /// Takes the next bytes, wherever they were cut. `ceiling` bounds the memory reserved for the text.
    pub(super) fn push(&mut self, bytes: &[u8], ceiling: usize) -> Result<(), Violation> {
        let bytes = self.complete(bytes, ceiling)?;
        let (whole, tail) = bytes.split_at(bytes.len() - unfinished(bytes));
        let text = simdutf8::basic::from_utf8(whole).map_err(|_| Violation::TextNotUtf8)?;
        self.append(text, ceiling);
        if !tail.is_empty() {
            check_beginning(tail)?;
            self.tail[..tail.len()].copy_from_slice(tail);
            self.tail_length = tail.len();
        }
        Ok(())
    }

    /// Bytes taken so far.
    pub(super) fn len(&self) -> usize {
        self.whole.len() + self.tail_length
    }

    /// Bytes of memory reserved.
    pub(super) fn capacity(&self) -> usize {
        self.whole.capacity()
    }

    /// Checks that the text does not end inside a code point.
    pub(super) fn finish(&self) -> Result<(), Violation> {
        if self.tail_length > 0 { Err(Violation::TextNotUtf8) } else { Ok(()) }
    }

    /// The text without an unfinished code point at its end.
    pub(super) fn as_str(&self) -> &str {
        &self.whole
    }

    /// Ends the code point that waits in the tail, byte by byte, and gives back what follows it.
    fn complete<'a>(&mut self, bytes: &'a [u8], ceiling: usize) -> Result<&'a [u8], Violation> {
        let mut rest = bytes;
        while self.tail_length > 0 {
            let Some((&next, after)) = rest.split_first() else { return Ok(rest) };
            rest = after;
            self.tail[self.tail_length] = next;
            self.tail_length += 1;
            let tail = self.tail;
            match std::str::from_utf8(&tail[..self.tail_length]) {
                Ok(text) => {
                    self.append(text, ceiling);
                    self.tail_length = 0;
                }
                Err(_) => check_beginning(&tail[..self.tail_length])?,
            }
        }
        Ok(rest)
    }

    fn append(&mut self, text: &str, ceiling: usize) {
        let length = self.whole.len();
        let wanted = grown(self.whole.capacity(), length + text.len(), ceiling);
        self.whole.reserve_exact(wanted - length);
        self.whole.push_str(text);
    }
}

/// How many bytes at the end of `bytes` begin a code point that is longer than what is there: 0 to 3.
/// Bytes that begin none are not counted; checking the rest finds them out.
fn unfinished(bytes: &[u8]) -> usize {
    for (at, byte) in bytes.iter().rev().take(3).enumerate() {
        let have = at + 1;
        let width = match byte {
            0x80..=0xbf => continue,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 0,
        };
        return if width > have { have } else { 0 };
    }
    0
}

/// Checks that some continuation makes a code point of `tail`, which is none yet.
fn check_beginning(tail: &[u8]) -> Result<(), Violation> {
    match std::str::from_utf8(tail) {
        Err(error) if error.valid_up_to() == 0 && error.error_len().is_none() => Ok(()),
        _ => Err(Violation::TextNotUtf8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes that are often nearly UTF-8.
    fn nearly_text() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            "\\PC{0,6}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 1..3),
            prop::sample::select(vec![
                b"\xed\xa0\x80".to_vec(),
                b"\xf4\x90\x80\x80".to_vec(),
                b"\xe0\x80\xaf".to_vec(),
                b"\xf0\x90\x80".to_vec(),
                b"\xc0\xaf".to_vec(),
            ]),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    /// The number of bytes after which `std` knows that the text cannot become UTF-8.
    fn first_bad_prefix(bytes: &[u8]) -> Option<usize> {
        (1..=bytes.len()).find(|&count| {
            std::str::from_utf8(&bytes[..count]).is_err_and(|error| error.error_len().is_some())
        })
    }

    proptest! {
        #[test]
        fn byte_by_byte_it_fails_exactly_where_std_does(bytes in nearly_text()) {
            let mut text = Text::default();
            let failed = bytes.iter().position(|byte| text.push(&[*byte], usize::MAX).is_err());
            prop_assert_eq!(failed.map(|at| at + 1), first_bad_prefix(&bytes));
        }

        #[test]
        fn any_cut_fails_in_the_piece_of_the_first_bad_byte_or_gives_the_text(
            bytes in nearly_text(),
            cuts in prop::collection::vec(1usize..9, 1..9),
        ) {
            let first_bad = first_bad_prefix(&bytes);
            let mut text = Text::default();
            let mut fed = 0;
            for cut in cuts.iter().cycle() {
                let end = bytes.len().min(fed + cut);
                let verdict = text.push(&bytes[fed..end], usize::MAX);
                fed = end;
                prop_assert_eq!(verdict.is_err(), first_bad.is_some_and(|bad| bad <= fed));
                if verdict.is_err() || fed == bytes.len() {
                    break;
                }
            }
            if first_bad.is_none() {
                let whole = text.finish().ok().map(|()| text.as_str());
                prop_assert_eq!(whole, std::str::from_utf8(&bytes).ok());
            }
        }
    }

    #[test]
    fn a_surrogate_is_refused_at_its_second_byte() {
        let mut text = Text::default();
        assert_eq!(text.push(b"ok\xed", 64), Ok(()));
        assert_eq!(text.push(b"\xa0", 64), Err(Violation::TextNotUtf8));
    }

    #[test]
    fn a_text_that_ends_inside_a_code_point_is_refused_at_its_end() {
        let mut text = Text::default();
        assert_eq!(text.push(b"\xf0\x9f\x98", 64), Ok(()));
        assert_eq!(text.finish(), Err(Violation::TextNotUtf8));
        assert_eq!(text.push(b"\x80", 64), Ok(()));
        assert_eq!((text.finish(), text.as_str()), (Ok(()), "\u{1f600}"));
    }
}
