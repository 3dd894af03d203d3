//! Source addresses: one, or a range in its last number.

use std::net::{IpAddr, Ipv4Addr};

/// The addresses of `127.0.0.1` or `127.0.0.1-4`.
///
/// # Errors
/// When the text is neither.
pub(crate) fn parse(text: &str) -> Result<Vec<IpAddr>, String> {
    let wrong = || format!("src {text}: expected an IPv4 address, as 127.0.0.1 or 127.0.0.1-4");
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (first, Some(last)),
        None => (text, None),
    };
    let first: Ipv4Addr = first.parse().map_err(|_| wrong())?;
    let [a, b, c, low] = first.octets();
    let high: u8 = last.map_or(Ok(low), str::parse).map_err(|_| wrong())?;
    if high < low {
        return Err(wrong());
    }
    Ok((low..=high).map(|d| Ipv4Addr::new(a, b, c, d).into()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_ranges_are_read_or_refused() {
        let read = |text| parse(text).map(|found| found.len());
        assert_eq!(read("127.0.0.1"), Ok(1));
        assert_eq!(read("127.0.0.1-4"), Ok(4));
        assert_eq!(parse("10.0.0.7-7").expect("one").first(), Some(&[10, 0, 0, 7].into()));
        for text in ["", "x", "127.0.0.1-", "127.0.0.9-4", "127.0.0.1-256", "::1"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
