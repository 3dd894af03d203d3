//! The PROXY protocol, versions 1 and 2: what a proxy says of the client before the client speaks.
//!
//! After HAProxy's `proxy-protocol.txt` of 2020. One header at most stands before the first byte of the
//! client; version 1 is a line of text, version 2 binary. Both name the client's address and port, or
//! say that the connection is the proxy's own. Extensions (TLVs) are bounded and passed over. Whether
//! the sender may be believed is decided above; a header from anybody else must not even be looked for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What stands at the begin of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preface {
    /// What is there may become a header; more must come.
    More,
    /// No header: what is there is the client's own.
    Absent,
    /// A header.
    Present {
        /// Its bytes; what follows is the client's own.
        length: usize,
        /// The client; `None` when the header says that it is unknown or the proxy itself.
        source: Option<SocketAddr>,
    },
}

/// Why a header cannot be believed; the connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// Bytes of a header at most: version 1 ends within 107, and version 2 leaves so much for extensions.
pub const MOST_BYTES: usize = 2048;

/// Looks for a header at the begin of what a connection has sent so far.
///
/// # Errors
/// When it begins as a header and is none; as soon as the bytes allow the verdict.
pub fn parse(bytes: &[u8]) -> Result<Preface, Malformed> {
    if begins_alike(bytes, SIGNATURE) {
        return if bytes.len() < FIXED { Ok(Preface::More) } else { binary(bytes) };
    }
    if begins_alike(bytes, WORD) { line(bytes) } else { Ok(Preface::Absent) }
}

/// True when one of the two begins with the other.
fn begins_alike(bytes: &[u8], with: &[u8]) -> bool {
    bytes.iter().zip(with).all(|(a, b)| a == b)
}

fn binary(bytes: &[u8]) -> Result<Preface, Malformed> {
    let (version, command) = (bytes[12] >> 4, bytes[12] & 0xf);
    if version != 2 {
        return Err(Malformed("the version is not 2"));
    }
    if command > 1 {
        return Err(Malformed("the command is neither LOCAL nor PROXY"));
    }
    let addresses = match bytes[13] {
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        _ => return Err(Malformed("the address is neither of a stream nor unspecified")),
    };
    let said = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if said < addresses {
        return Err(Malformed("the header ends within its addresses"));
    }
    let length = FIXED + said;
    if length > MOST_BYTES {
        return Err(Malformed("the header is too long"));
    }
    let Some(body) = bytes.get(FIXED..length) else { return Ok(Preface::More) };
    let source = if command == 1 { source(bytes[13], body) } else { None };
    Ok(Preface::Present { length, source })
}

/// The client's address; `body` holds the addresses of that family whole.
fn source(family: u8, body: &[u8]) -> Option<SocketAddr> {
    let (address, port) = match family {
        0x11 => {
            let octets: [u8; 4] = body[..4].try_into().ok()?;
            (IpAddr::V4(Ipv4Addr::from(octets)), [body[8], body[9]])
        }
        0x21 => {
            let octets: [u8; 16] = body[..16].try_into().ok()?;
            (IpAddr::V6(Ipv6Addr::from(octets)), [body[32], body[33]])
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, u16::from_be_bytes(port)))
}

fn line(bytes: &[u8]) -> Result<Preface, Malformed> {
    let within = &bytes[..bytes.len().min(LINE_BYTES)];
    let end = within.windows(2).position(|pair| pair == b"\r\n");
    // The last byte may be the first half of the end.
    let text = &within[..end.unwrap_or(within.len().saturating_sub(1))];
    if !text.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(Malformed("the line holds what is not text"));
    }
    let Some(end) = end else {
        let endless = bytes.len() >= LINE_BYTES;
        return if endless { Err(Malformed("the line does not end")) } else { Ok(Preface::More) };
    };
    let text = std::str::from_utf8(&text[WORD.len()..]).unwrap_or_default();
    Ok(Preface::Present { length: end + 2, source: written(text)? })
}

/// The client of `TCP4 from to port port`, of `TCP6 ...` or of `UNKNOWN ...`.
fn written(text: &str) -> Result<Option<SocketAddr>, Malformed> {
    let mut words = text.split(' ');
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(None);
    }
    let odd = Malformed("the line names no addresses");
    let mut word = || words.next().ok_or(odd);
    let (from, to, port, other) = (word()?, word()?, word()?, word()?);
    if words.next().is_some() {
        return Err(odd);
    }
    let address = match family {
        "TCP4" => v4,
        "TCP6" => v6,
        _ => return Err(Malformed("the family is neither TCP4, TCP6 nor UNKNOWN")),
    };
    let from = address(from).ok_or(odd)?;
    address(to).ok_or(odd)?;
    let port = number(port).ok_or(odd)?;
    number(other).ok_or(odd)?;
    Ok(Some(SocketAddr::new(from, port)))
}

fn v4(text: &str) -> Option<IpAddr> {
    text.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

fn v6(text: &str) -> Option<IpAddr> {
    text.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

/// A port in digits, without a zero in front.
fn number(text: &str) -> Option<u16> {
    let plain =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// The begin of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The bytes of version 2 before the addresses.
const FIXED: usize = 16;

/// The begin of version 1.
const WORD: &[u8] = b"PROXY ";

/// The longest line of version 1, its end included.
const LINE_BYTES: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn present(text: &str) -> Preface {
        let source = Some(text.parse().expect("an address"));
        Preface::Present { length: 0, source }
    }

    /// The verdict without the length, which is checked apart.
    fn verdict(bytes: &[u8]) -> Result<Preface, Malformed> {
        parse(bytes).map(|preface| match preface {
            Preface::Present { source, .. } => Preface::Present { length: 0, source },
            other => other,
        })
    }

    fn header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).expect("a short body").to_be_bytes();
        [SIGNATURE, &[0x20 | command, family], &length, body].concat()
    }

    #[test]
    fn lines_of_version_1_name_the_client() {
        let unknown = Ok(Preface::Present { length: 0, source: None });
        let cases: [(&[u8], _); 12] = [
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nGET", Ok(present("192.0.2.1:56324"))),
            (b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n", Ok(present("[2001:db8::1]:1"))),
            (b"PROXY UNKNOWN\r\n", unknown),
            (b"PROXY UNKNOWN ffff:f...f:ffff 65535 65535\r\n", unknown),
            (b"GET / HTTP/1.1\r\n", Ok(Preface::Absent)),
            (b"PROXX", Ok(Preface::Absent)),
            (b"", Ok(Preface::More)),
            (b"PROXY TCP4 192.0.2.1 198", Ok(Preface::More)),
            (b"PROXY TCP4 192.0.2.1\r\n", Err(Malformed("the line names no addresses"))),
            (
                b"PROXY TCP4 192.0.2.1 1.1.1.1 070 1\r\n",
                Err(Malformed("the line names no addresses")),
            ),
            (
                b"PROXY TCP4  192.0.2.1 1.1.1.1 7 1\r\n",
                Err(Malformed("the line names no addresses")),
            ),
            (
                b"PROXY UDP4 192.0.2.1 1.1.1.1 7 1\r\n",
                Err(Malformed("the family is neither TCP4, TCP6 nor UNKNOWN")),
            ),
        ];
        for (bytes, expected) in cases {
            assert_eq!(verdict(bytes), expected, "{}", String::from_utf8_lossy(bytes));
        }
        let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'a'; 200]].concat();
        assert_eq!(parse(&endless), Err(Malformed("the line does not end")));
        assert_eq!(parse(b"PROXY \x01\x02\x03"), Err(Malformed("the line holds what is not text")));
    }

    #[test]
    fn headers_of_version_2_name_the_client() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 4, 1, 187];
        let bytes = [header(1, 0x11, &v4).as_slice(), b"GET"].concat();
        let source = Some("192.0.2.1:56324".parse().expect("an address"));
        assert_eq!(parse(&bytes), Ok(Preface::Present { length: 28, source }));
        let mut v6 = [0; 40];
        (v6[15], v6[33]) = (1, 80);
        assert_eq!(verdict(&header(1, 0x21, &v6)), Ok(present("[::1]:80")));
        let nobody = Ok(Preface::Present { length: 0, source: None });
        assert_eq!(verdict(&header(0, 0x11, &v4)), nobody, "LOCAL");
        assert_eq!(verdict(&header(1, 0, b"")), nobody, "unspecified");
        assert_eq!(verdict(&header(1, 0x31, &[0; 216])), nobody, "a path");
    }

    #[test]
    fn what_version_2_does_not_allow_is_refused_at_its_fixed_part() {
        let mut version = header(1, 0x11, &[0; 12]);
        version[12] = 0x11;
        let cases = [
            (version, "the version is not 2"),
            (header(2, 0x11, &[0; 12]), "the command is neither LOCAL nor PROXY"),
            (header(1, 0x12, &[0; 12]), "the address is neither of a stream nor unspecified"),
            (header(1, 0x41, &[0; 12]), "the address is neither of a stream nor unspecified"),
            (header(1, 0x21, &[0; 12]), "the header ends within its addresses"),
            (header(1, 0x11, &[0; 4000]), "the header is too long"),
        ];
        for (bytes, why) in cases {
            assert_eq!(parse(&bytes[..FIXED]), Err(Malformed(why)));
        }
    }

    proptest! {
        #[test]
        fn any_prefix_asks_for_more_or_gives_the_verdict_of_the_whole(
            head in prop::sample::select(vec![&b""[..], WORD, b"PROXY TCP4 1.2.3.4 ", SIGNATURE,
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"]),
            rest in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let bytes = [head, rest.as_slice(), b"\r\n"].concat();
            let whole = parse(&bytes);
            for end in 0..bytes.len() {
                let part = parse(&bytes[..end]);
                prop_assert!(part == Ok(Preface::More) || part == whole, "{end}: {part:?} {whole:?}");
            }
            if let Ok(Preface::Present { length, .. }) = whole {
                prop_assert!(length <= bytes.len().min(MOST_BYTES));
            }
        }

        #[test]
        fn a_written_line_reads_back(a: u32, b: u32, port: u16, other: u16) {
            let (from, to) = (Ipv4Addr::from_bits(a), Ipv4Addr::from_bits(b));
            let line = format!("PROXY TCP4 {from} {to} {port} {other}\r\n");
            let source = Some(SocketAddr::new(from.into(), port));
            prop_assert_eq!(parse(line.as_bytes()), Ok(Preface::Present { length: line.len(), source }));
        }
    }
}
