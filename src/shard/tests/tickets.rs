//! One-time tickets: taken once in the node, and asked after while the handshake waits.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::auth::{Revocation, Source, Ticket, mint};
use crate::base::id::ConnId;
use crate::contract::Event;
use crate::shard::Mail;
use crate::shard::tests::guard::{answer, guarded, join, knock, tickets};
use crate::shard::tests::rig::{Heard, Rig, Seen, frame};

pub(super) fn ticket(id: u128) -> String {
    let claims = r#"{"sub":"ada","rooms":["a"],"exp":5000}"#;
    mint(&tickets(), claims, Ticket { id, expires: 120 }).expect("a ticket")
}

/// Two shards, of which the first's handshake waits for the second, the ticket's home.
fn held() -> ([Rig; 2], ConnId) {
    let mut rigs = [0, 1].map(|id| Rig::new(id, 2, guarded(&[Source::Ticket], |_| {})));
    let conn = knock(&mut rigs[0], &format!("/ws?ticket={}", ticket(7)), "");
    assert_eq!(rigs[0].bytes(conn), b"", "nobody is answered before the home is");
    assert_eq!(rigs[0].shard.counters().pending_tickets, 1);
    (rigs, conn)
}

/// Carries all mail and lets both turn, until there is none.
fn exchange(rigs: &mut [Rig; 2]) {
    for _ in 0..8 {
        for at in 0..2 {
            rigs[at].settle();
            for (to, mail) in std::mem::take(&mut rigs[at].post) {
                rigs[usize::from(to.0)].take(mail);
            }
        }
    }
}

#[test]
fn a_ticket_lets_in_once_and_not_after_its_end() {
    let mut rig = Rig::new(0, 1, guarded(&[Source::Ticket], |_| {}));
    let target = format!("/ws?ticket={}", ticket(1));
    let conn = knock(&mut rig, &target, "");
    let (head, frames) = answer(&mut rig, conn);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(matches!(&frames[..], [Heard::Text(hello)] if hello["userId"] == "ada"));
    let conn = knock(&mut rig, &target, "");
    assert!(answer(&mut rig, conn).0.starts_with("HTTP/1.1 401 "), "used");
    rig.later(Duration::from_secs(61));
    let conn = knock(&mut rig, &format!("/ws?ticket={}", ticket(2)), "");
    assert!(answer(&mut rig, conn).0.starts_with("HTTP/1.1 401 "), "ended");
    let counters = rig.shard.counters();
    assert_eq!((counters.auth_ticket_total, counters.auth_expired_total), (1, 1));
}

#[test]
fn a_ticket_whose_home_is_elsewhere_is_asked_after_while_the_handshake_waits() {
    let (mut rigs, conn) = held();
    // What the client says already is heard afterwards, in order.
    rigs[0].receive(conn, &frame(0x81, join("a").as_bytes()));
    exchange(&mut rigs);
    let (head, frames) = answer(&mut rigs[0], conn);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let [Heard::Text(hello), Heard::Text(joined)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((&hello["userId"], &joined["ok"]), (&json!("ada"), &json!(true)));
    for at in 0..2 {
        let conn = knock(&mut rigs[at], &format!("/ws?ticket={}", ticket(7)), "");
        exchange(&mut rigs);
        assert!(answer(&mut rigs[at], conn).0.starts_with("HTTP/1.1 401 "), "shard {at}");
    }
}

#[test]
fn a_client_that_goes_away_while_its_ticket_is_checked_leaves_nothing() {
    let (mut rigs, conn) = held();
    let error = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    rigs[0].event(Event::Lost { conn, error });
    rigs[0].settle();
    rigs[0].settle();
    // Its place is taken by another before the answer comes.
    let other = rigs[0].accept().expect("let in");
    assert_eq!(other.index, conn.index);
    exchange(&mut rigs);
    assert_eq!(rigs[0].bytes(other), b"");
    let counters = rigs[0].shard.counters();
    assert_eq!((counters.pending_tickets, counters.authenticated_connections), (0, 0));
    assert_eq!((counters.handshakes_total, counters.memberships), (0, 0));
    let again = knock(&mut rigs[0], &format!("/ws?ticket={}", ticket(7)), "");
    exchange(&mut rigs);
    assert!(answer(&mut rigs[0], again).0.starts_with("HTTP/1.1 401 "), "the ticket stays used");
}

#[test]
fn a_handshake_that_waits_is_bounded_in_time_and_in_what_it_says() {
    let (mut rigs, conn) = held();
    rigs[0].later(Duration::from_secs(11));
    rigs[0].settle();
    assert!(rigs[0].bytes(conn).starts_with(b"HTTP/1.1 408 "));
    assert_eq!(rigs[0].shard.counters().pending_tickets, 0);
    let (mut rigs, conn) = held();
    rigs[0].receive(conn, &[0; 20_000]);
    rigs[0].settle();
    assert!(rigs[0].ops.is_empty() || rigs[0].ops.contains(&Seen::Close(conn, true)));
    assert_eq!(rigs[0].shard.counters().pending_tickets, 0);
    let (mut rigs, conn) = held();
    let revocation =
        Revocation::User { tenant: None, user: "ada".into(), issued: 100, until: 6000 };
    rigs[0].take(Mail::Revoke(Arc::new(revocation)));
    rigs[0].settle();
    assert!(rigs[0].bytes(conn).starts_with(b"HTTP/1.1 401 "));
}
