//! One-time tickets: read back, not forged, not outlived.

use super::vectors::b64;
use crate::auth::{Right, Ticket, TicketKey, TokenError, mint, mint_shared};

const CLAIMS: &str = r#"{"sub":"ada","tenant":"t","rooms":["a"],"meta":{"x":1},"exp":5000}"#;
const TICKET: Ticket = Ticket { id: 0x0123_4567_89ab_cdef_0011_2233_4455_6677, expires: 1060 };

fn key() -> TicketKey {
    TicketKey::new(&[7; 32])
}

#[test]
fn a_ticket_reads_back_as_it_was_minted_until_it_ends() {
    let text = mint(&key(), CLAIMS, TICKET).expect("minted");
    let read = key().read(&text, 1059).expect("alive");
    assert_eq!(read.ticket, TICKET);
    assert_eq!((&*read.identity.user, read.identity.tenant.as_deref()), ("ada", Some("t")));
    assert_eq!(read.identity.expires, Some(5000), "the connection may outlive the ticket");
    assert!(read.identity.grants.allows("a", Right::Join));
    assert_eq!(key().read(&text, 1060).err(), Some(TokenError::Expired));
    assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "{text}");
}

#[test]
fn nodes_of_one_name_with_one_secret_read_each_others_tickets_and_no_others() {
    let with =
        |own: u8, name: &str, secret: &[u8]| TicketKey::new(&[own; 32]).shared_with(name, secret);
    let (one, other) = (with(1, "n", b"secret"), with(2, "n", b"secret"));
    let text = mint_shared(&one, CLAIMS, TICKET).expect("minted");
    for key in [&one, &other] {
        let read = key.read(&text, 1059).expect("alive");
        assert_eq!((read.ticket, read.shared), (TICKET, true));
    }
    let own = mint(&one, CLAIMS, TICKET).expect("minted");
    assert!(!one.read(&own, 1059).expect("alive").shared);
    assert_eq!(other.read(&own, 1059).err(), Some(TokenError::Ticket));
    for stranger in [with(1, "m", b"secret"), with(1, "n", b"secres"), TicketKey::new(&[1; 32])] {
        assert_eq!(stranger.read(&text, 1059).err(), Some(TokenError::Ticket));
    }
    assert!(!TicketKey::new(&[1; 32]).is_shared() && one.is_shared());
}

#[test]
fn no_ticket_is_taken_that_was_not_minted_here() {
    let text = mint(&key(), CLAIMS, TICKET).expect("minted");
    let other = TicketKey::new(&[8; 32]);
    assert_eq!(other.read(&text, 1000).err(), Some(TokenError::Ticket));
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1;
        let changed = String::from_utf8(bytes).expect("ASCII");
        assert_eq!(key().read(&changed, 1000).err(), Some(TokenError::Ticket), "byte {at}");
        assert_eq!(key().read(&text[..at], 1000).err(), Some(TokenError::Ticket), "cut at {at}");
    }
    let empty = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &[7; 32]);
    for body in [&b""[..], b"\x01", &[1; 24], b"\x02aaaaaaaaaaaaaaaaaaaaaaaa{}"] {
        let tag = aws_lc_rs::hmac::sign(&empty, body);
        let text = format!("{}.{}", b64(body), b64(tag));
        assert_eq!(key().read(&text, 0).err(), Some(TokenError::Ticket));
    }
    for text in ["", ".", "a.b", "a.b.c", "\u{e9}.a", &"a".repeat(6144)] {
        assert_eq!(key().read(text, 1000).err(), Some(TokenError::Ticket), "{text}");
    }
    assert_eq!(key().read(&"a".repeat(6145), 1000).err(), Some(TokenError::TooLong));
}

#[test]
fn claims_that_cannot_be_are_refused_when_minting() {
    for claims in ["", "{}", "[]", r#"{"sub":7}"#, r#"{"sub":"a","rooms":7}"#] {
        assert!(mint(&key(), claims, TICKET).is_err(), "{claims}");
    }
    let long = format!(r#"{{"sub":"a","meta":"{}"}}"#, "x".repeat(4096));
    assert_eq!(mint(&key(), &long, TICKET).err(), Some(TokenError::TooLong));
}
