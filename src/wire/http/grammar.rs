//! The ABNF of header values: RFC 9110 (tokens, lists, Host), RFC 6455 section 9.1 (extensions).
//!
//! One table says for each byte where it may stand; the rest are small recognisers over whole values.
//! They answer yes or no and keep nothing, so what a header means is decided elsewhere. Lists may hold
//! empty elements, which RFC 9110 section 5.6.1 asks recipients to pass over.

use std::net::Ipv6Addr;

/// Bytes of a token (RFC 9110, section 5.6.2).
pub(super) const TOKEN: u8 = 1;

/// Bytes of a request target: visible ASCII except `"`, `#`, `<` and `>`. RFC 3986 allows fewer, but
/// browsers send the others unescaped (WHATWG URL, query state).
pub(super) const TARGET: u8 = 2;

/// Bytes of a header value (RFC 9110, section 5.5), white space and obs-text included.
pub(super) const VALUE: u8 = 4;

/// Bytes of a registered name without percent-encoding (RFC 3986, section 3.2.2).
const NAME: u8 = 8;

/// True when `byte` belongs to one of `classes`.
pub(super) fn is(byte: u8, classes: u8) -> bool {
    CLASSES[usize::from(byte)] & classes != 0
}

/// True for `1*tchar`.
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is(*byte, TOKEN))
}

/// The elements of a comma-separated list, without the white space around them and without empty ones.
/// Not for lists whose elements may hold quoted commas.
pub(super) fn elements(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(|element| element.trim_matches(SPACE)).filter(|e| !e.is_empty())
}

/// True for a protocol of the Upgrade header: `token ["/" token]` (RFC 9110, section 7.8).
pub(super) fn is_protocol(text: &str) -> bool {
    let (name, version) = text.split_once('/').map_or((text, None), |(n, v)| (n, Some(v)));
    is_token(name.as_bytes()) && version.is_none_or(|version| is_token(version.as_bytes()))
}

/// True for `uri-host [ ":" port ]` with a host that is not empty (RFC 9110, sections 4.2.1 and 7.2).
pub(super) fn is_host(value: &[u8]) -> bool {
    let Ok(value) = std::str::from_utf8(value) else { return false };
    if let Some(literal) = value.strip_prefix('[') {
        let Some((address, rest)) = literal.split_once(']') else { return false };
        let is_port = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
        return is_port && (address.parse::<Ipv6Addr>().is_ok() || is_future_address(address));
    }
    let (name, port) = value.split_once(':').unwrap_or((value, ""));
    is_port(port) && !name.is_empty() && is_registered_name(name.as_bytes())
}

/// True for the value of Sec-WebSocket-Key: base64 of exactly 16 bytes, in the one form an encoder gives
/// (RFC 4648, section 3.5: no stray bits under the padding).
pub(super) fn is_key(value: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    match value {
        [digits @ .., last, b'=', b'='] if digits.len() == 21 => {
            digits.iter().all(is_digit) && matches!(last, b'A' | b'Q' | b'g' | b'w')
        }
        _ => false,
    }
}

/// The value of Sec-WebSocket-Version: 0 to 255 without leading zeros.
pub(super) fn version(value: &[u8]) -> Option<u8> {
    let is_plain = is_number(value) && (value.len() == 1 || !value.starts_with(b"0"));
    std::str::from_utf8(value).ok()?.parse().ok().filter(|_| is_plain)
}

/// True for `1*DIGIT`.
pub(super) fn is_number(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(u8::is_ascii_digit)
}

/// True for a list of at least one extension (RFC 6455, section 9.1): each a token with parameters
/// `; token [ = value ]`, the value a token, quoted or not.
pub(super) fn is_extension_list(value: &str) -> bool {
    let mut rest = value.as_bytes();
    let mut count = 0;
    loop {
        rest = skip_space(rest);
        match rest.first() {
            None => return count > 0,
            Some(b',') => rest = &rest[1..],
            Some(_) => {
                let Some(after) = skip_extension(rest) else { return false };
                count += 1;
                rest = skip_space(after);
                if !matches!(rest.first(), None | Some(b',')) {
                    return false;
                }
            }
        }
    }
}

fn skip_extension(text: &[u8]) -> Option<&[u8]> {
    let mut rest = skip_token(text)?;
    while let [b';', after @ ..] = skip_space(rest) {
        rest = skip_token(skip_space(after))?;
        if let [b'=', after @ ..] = skip_space(rest) {
            rest = match skip_space(after) {
                [b'"', quoted @ ..] => skip_quoted_token(quoted)?,
                plain => skip_token(plain)?,
            };
        }
    }
    Some(rest)
}

/// Skips a token up to its closing quote; it must be a token once its escapes are undone.
fn skip_quoted_token(text: &[u8]) -> Option<&[u8]> {
    let (mut rest, mut length) = (text, 0);
    loop {
        rest = match rest {
            [b'"', after @ ..] => return (length > 0).then_some(after),
            [b'\\', byte, after @ ..] | [byte, after @ ..] if is(*byte, TOKEN) => after,
            _ => return None,
        };
        length += 1;
    }
}

fn skip_token(text: &[u8]) -> Option<&[u8]> {
    let length = text.iter().position(|byte| !is(*byte, TOKEN)).unwrap_or(text.len());
    (length > 0).then(|| &text[length..])
}

fn skip_space(text: &[u8]) -> &[u8] {
    let length = text.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(text.len());
    &text[length..]
}

fn is_port(port: &str) -> bool {
    port.is_empty() || (is_number(port.as_bytes()) && port.parse::<u16>().is_ok())
}

fn is_registered_name(name: &[u8]) -> bool {
    let mut rest = name;
    loop {
        rest = match rest {
            [] => return true,
            [b'%', a, b, after @ ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => after,
            [byte, after @ ..] if is(*byte, NAME) => after,
            _ => return false,
        };
    }
}

/// True for `"v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" )` (RFC 3986, section 3.2.2).
fn is_future_address(address: &str) -> bool {
    let Some((version, rest)) = address.strip_prefix(['v', 'V']).and_then(|a| a.split_once('.'))
    else {
        return false;
    };
    let is_version = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_version && !rest.is_empty() && rest.bytes().all(|byte| byte == b':' || is(byte, NAME))
}

/// White space inside a header value (RFC 9110, section 5.6.3).
const SPACE: [char; 2] = [' ', '\t'];

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0u8;
    loop {
        table[byte as usize] = class(byte);
        if byte == u8::MAX {
            return table;
        }
        byte += 1;
    }
}

const fn class(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' => {
            TOKEN | TARGET | VALUE | NAME
        }
        b'!' | b'$' | b'&' | b'\'' | b'*' | b'+' => TOKEN | TARGET | VALUE | NAME,
        b'%' | b'^' | b'`' | b'|' => TOKEN | TARGET | VALUE,
        b'(' | b')' | b',' | b';' | b'=' => TARGET | VALUE | NAME,
        b'#' => TOKEN | VALUE,
        b'/' | b':' | b'?' | b'@' | b'[' | b'\\' | b']' | b'{' | b'}' => TARGET | VALUE,
        b'\t' | b' ' | b'"' | b'<' | b'>' | 0x80..=0xff => VALUE,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_in_the_classes_its_rfc_names() {
        for byte in 0..=u8::MAX {
            let visible = (0x21..=0x7e).contains(&byte);
            let delimiter = b"\"(),/:;<=>?@[\\]{}".contains(&byte);
            assert_eq!(is(byte, TOKEN), visible && !delimiter, "token {byte:#x}");
            assert_eq!(is(byte, TARGET), visible && !b"\"#<>".contains(&byte), "target {byte:#x}");
            assert_eq!(is(byte, VALUE), visible || b"\t ".contains(&byte) || byte >= 0x80);
            let name = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte);
            assert_eq!(is(byte, NAME), name, "name {byte:#x}");
        }
    }

    #[test]
    fn hosts_are_names_or_addresses_with_or_without_a_port() {
        for host in ["a", "a.b:80", "127.0.0.1:8080", "[::1]", "[::1]:9", "a%2eb", "a:", "[v1.x]"] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "", ":80", "a b", "a/b", "a@b", "[::1", "[::1]x", "[1]", "a:b", "a:65536", "a:+1",
            "a%2", "::1", "\u{e9}", "[v.x]", "[vg.x]", "[v1.]", "[]", "a:1:2", "http://a",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn a_key_is_sixteen_bytes_in_base64() {
        assert!(is_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        for key in [
            "",
            "==",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZR==",
            "dGhlIHNhbXBsZSBub25jZQ== ",
            "dGhlIHNhbXBsZSBub25j-Q==",
            "AAdGhlIHNhbXBsZSBub25jZQ==",
            "dGhlIHNhbXBsZSBub25jZQA=",
        ] {
            assert!(!is_key(key.as_bytes()), "{key}");
        }
    }

    #[test]
    fn a_version_is_a_byte_without_leading_zeros() {
        assert_eq!(
            ["0", "8", "13", "255"].map(|v| version(v.as_bytes())),
            [0, 8, 13, 255].map(Some)
        );
        for wrong in ["", "013", "00", "256", "+13", "13 ", "1.3", "13, 8", "x"] {
            assert_eq!(version(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn extensions_follow_their_grammar() {
        for list in [
            "permessage-deflate",
            "a;b",
            "a; b=1",
            "a ; b = \"x\"",
            "a;b=\"\\x\" , c",
            ",a,,b,",
            "permessage-deflate; client_max_window_bits; server_max_window_bits=10",
        ] {
            assert!(is_extension_list(list), "{list}");
        }
        for list in [
            "",
            ",",
            "a b",
            "a;",
            "a;=1",
            "a;b=",
            "a;b=\"",
            "a;b=\"\"",
            "a;b=\"x y\"",
            "a;b=\"x\"y",
            "a;b=\"\\\"",
            "(a)",
            "a;b=\"x,y\"",
        ] {
            assert!(!is_extension_list(list), "{list}");
        }
    }
}
