//! PROXY headers: any bytes in any pieces.
//!
//! The first byte chooses a begin that is in order, so that deep rules are reached at once. A part of the
//! input must ask for more or give the verdict of the whole, a header keeps to its bound, and what a line
//! of text names is what its words say when they are read one by one.

#![no_main]

use std::net::{IpAddr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use throng::wire::proxy::{MOST_BYTES, Preface, parse};

const BEGINS: [&[u8]; 6] = [
    b"",
    b"PROXY ",
    b"PROXY TCP4 192.0.2.1 ",
    b"PROXY TCP6 2001:db8::1 ",
    b"\r\n\r\n\0\r\nQUIT\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0",
];

fuzz_target!(|data: &[u8]| {
    let [begin, rest @ ..] = data else { return };
    let bytes = [BEGINS[usize::from(*begin) % BEGINS.len()], rest].concat();
    let whole = parse(&bytes);
    for end in 0..bytes.len().min(300) {
        let part = parse(&bytes[..end]);
        assert!(part == Ok(Preface::More) || part == whole, "{end}: {part:?}, not {whole:?}");
    }
    match whole {
        Ok(Preface::Present { length, source }) => {
            assert!(length <= bytes.len() && length <= MOST_BYTES);
            if bytes.starts_with(b"PROXY ") {
                assert_eq!(source, twin(&bytes[..length]));
            }
        }
        Ok(Preface::More) => assert!(bytes.len() < MOST_BYTES, "more is asked for than may come"),
        Ok(Preface::Absent) => {
            assert!(!bytes.starts_with(b"PROXY ") && !bytes.starts_with(BEGINS[4]));
        }
        Err(_) => {}
    }
});

/// The client of a line that was taken.
fn twin(line: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(line).expect("text");
    let words: Vec<&str> = text.trim_end_matches("\r\n").split(' ').collect();
    if words[1] == "UNKNOWN" {
        return None;
    }
    let ip: IpAddr = words[2].parse().expect("an address");
    assert_eq!(words.len(), 6);
    assert_eq!(ip.is_ipv4(), words[1] == "TCP4");
    Some(SocketAddr::new(ip, words[4].parse().expect("a port")))
}
