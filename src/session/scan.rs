//! Depth and number of keys of a JSON text, in one pass, before anything is parsed.
//!
//! A text of a few kilobytes can nest thousands of arrays or name thousands of keys, and whoever
//! parses it later (a client, a back end, a log) may pay for it with its stack or its memory. So the
//! bounds are checked here, for the whole message, its payload included. The pass needs no JSON
//! grammar: outside strings a bracket opens or closes a level and a colon follows a key. On a text
//! that is not JSON the answer means nothing, and the parser that comes next refuses it.

/// Which bound a text exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    Depth,
    Keys,
}

/// Checks that `text` nests no deeper than `max_depth` (a scalar has depth 0, `{}` has 1) and names no
/// more than `max_keys` keys, those of nested objects included. Gives the number of keys.
pub(super) fn scan(text: &str, max_depth: usize, max_keys: usize) -> Result<usize, Excess> {
    let bytes = text.as_bytes();
    let (mut at, mut depth, mut keys) = (0, 0usize, 0usize);
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => at = end_of_string(bytes, at),
            b'{' | b'[' => {
                depth += 1;
                if depth > max_depth {
                    return Err(Excess::Depth);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b':' => {
                keys += 1;
                if keys > max_keys {
                    return Err(Excess::Keys);
                }
            }
            _ => {}
        }
    }
    Ok(keys)
}

/// The place after the quote that ends the string begun before `at`, or the end of the text.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        at += match byte {
            b'"' => return at + 1,
            b'\\' => 2,
            _ => 1,
        };
    }
    bytes.len()
}
