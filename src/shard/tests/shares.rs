//! Rates of parties whose connections are in several shards.

use std::time::Duration;

use serde_json::{Value, json};

use crate::auth::Source;
use crate::base::id::{ConnId, ShardId};
use crate::base::party::Party;
use crate::flow::budget::Rate;
use crate::hub;
use crate::shard::tests::guard::{enter, guarded};
use crate::shard::tests::rig::{Heard, Rig, head_with, seed};
use crate::shard::tests::rooms::exchange;
use crate::shard::{Limits, Mail, Settings};

const MILLI: Duration = Duration::from_millis(1);

fn limited(change: impl Fn(&mut Limits)) -> Settings {
    let mut settings = guarded(&[Source::Header], |_| {});
    change(&mut settings.limits);
    settings
}

/// Two shards of one node, in which a user has a hundred messages a second.
fn pair() -> [Rig; 2] {
    let rate = Some(Rate { per_second: 100, burst: 50 });
    [0, 1].map(|id| Rig::new(id, 2, limited(|limits| limits.user.rates[0] = rate)))
}

fn of(user: &str) -> Value {
    json!({"sub": user, "exp": 5000, "rooms": ["*"]})
}

fn sum(rigs: &[Rig; 2], of: impl Fn(crate::base::counters::Counters) -> u64) -> u64 {
    rigs.iter().map(|rig| of(rig.shard.counters())).sum()
}

/// Pongs of a connection since the last call.
fn pongs(rig: &mut Rig, conn: ConnId) -> usize {
    let is_pong =
        |heard: &Heard| matches!(heard, Heard::Text(text) if text["type"] == "throng:pong");
    rig.heard(conn).iter().filter(|heard| is_pong(heard)).count()
}

/// Each of these connections pings once a millisecond for that long: their pongs.
fn flood(rigs: &mut [Rig; 2], conns: &[(usize, ConnId)], millis: u32) -> Vec<usize> {
    let mut sums = vec![0; conns.len()];
    for _ in 0..millis {
        for (at, conn) in conns {
            rigs[*at].say(*conn, r#"{"type":"throng:ping","ref":1}"#);
        }
        exchange(rigs);
        for ((at, conn), sum) in conns.iter().zip(&mut sums) {
            *sum += pongs(&mut rigs[*at], *conn);
        }
        rigs.iter_mut().for_each(|rig| rig.later(MILLI));
    }
    sums
}

#[test]
fn a_users_connections_in_all_shards_have_one_rate_together() {
    let mut rigs = pair();
    let conns = [0, 1].map(|at| (at, enter(&mut rigs[at], &of("ada"))));
    let alone = [(0, enter(&mut rigs[0], &of("bob")))];
    flood(&mut rigs, &conns, 1500);
    let parts = flood(&mut rigs, &conns, 3000);
    let whole: usize = parts.iter().sum();
    assert!((280..=320).contains(&whole), "{parts:?} of 300 in three seconds");
    assert!(parts.iter().all(|part| *part > 100), "{parts:?}");
    flood(&mut rigs, &alone, 600);
    let parts = flood(&mut rigs, &alone, 2000);
    assert!((195..=205).contains(&parts[0]), "{parts:?} of 200 for who has one shard");
    assert!(sum(&rigs, |c| c.tolls_total) < 60, "{}", sum(&rigs, |c| c.tolls_total));
    assert!(sum(&rigs, |c| c.shared_parties) > 0);
    for _ in 0..400 {
        rigs.iter_mut().for_each(|rig| rig.later(10 * MILLI));
        exchange(&mut rigs);
    }
    assert_eq!(sum(&rigs, |c| c.shared_parties + c.paced), 0, "who is silent costs nothing");
}

#[test]
fn whoever_keeps_far_below_a_rate_or_has_none_causes_no_mail() {
    let mut rigs = pair();
    let conns = [0, 1].map(|at| (at, enter(&mut rigs[at], &of("ada"))));
    exchange(&mut rigs);
    let before = sum(&rigs, |c| c.mail_sent_total);
    for _ in 0..40 {
        assert_eq!(flood(&mut rigs, &conns, 1), [1, 1]);
        rigs.iter_mut().for_each(|rig| rig.later(200 * MILLI));
    }
    assert_eq!(sum(&rigs, |c| c.mail_sent_total) - before, 0);
    // Without limits, however much is sent.
    let mut rigs = [0, 1].map(|id| Rig::new(id, 2, limited(|_| {})));
    let conns = [0, 1].map(|at| (at, enter(&mut rigs[at], &of("ada"))));
    exchange(&mut rigs);
    let before = sum(&rigs, |c| c.mail_sent_total);
    assert_eq!(flood(&mut rigs, &conns, 500), [500, 500]);
    assert_eq!(sum(&rigs, |c| c.mail_sent_total) - before, 0);
}

#[test]
fn what_is_let_through_while_mail_is_backed_up_is_told_afterwards() {
    let mut rigs = pair();
    let name = (0..)
        .map(|number| format!("user-{number}"))
        .find(|name| {
            let own = crate::auth::user_room(None, name);
            hub::home_of(&seed(), Party::user(&seed(), &own), 2) == ShardId(1)
        })
        .expect("a user whose home is the other shard");
    let conn = enter(&mut rigs[0], &of(&name));
    exchange(&mut rigs);
    rigs[0].full.insert(ShardId(1));
    rigs[0].shard.settings = {
        let mut settings = (*rigs[0].shard.settings).clone();
        settings.capacity.parked_mail = 1;
        settings.into()
    };
    for _ in 0..100 {
        (0..2).for_each(|_| rigs[0].say(conn, r#"{"type":"throng:ping"}"#));
        rigs[0].turn();
        rigs[0].later(10 * MILLI);
    }
    assert!(rigs[0].shard.counters().parked_mail <= 2, "{:?}", rigs[0].shard.counters());
    assert_eq!(rigs[1].shard.counters().shared_parties, 0);
    rigs[0].full.clear();
    rigs[0].settle();
    rigs[0].post.clear();
    rigs[0].later(300 * MILLI);
    rigs[0].say(conn, r#"{"type":"throng:ping"}"#);
    rigs[0].settle();
    let tolls = rigs[0].post.iter().filter_map(|(_, mail)| match mail {
        Mail::Toll(toll) => Some(toll.spent.spent[0]),
        _ => None,
    });
    let told: u32 = tolls.sum();
    assert!(told > 50, "{told}: all that came meanwhile");
}

#[test]
fn the_handshakes_of_an_address_are_counted_over_all_shards() {
    let rate = Some(Rate { per_second: 1, burst: 8 });
    let change = |limits: &mut Limits| limits.address.handshakes = rate;
    let mut rigs = [0, 1].map(|id| {
        let mut settings = crate::shard::tests::rig::settings();
        change(&mut settings.limits);
        Rig::new(id, 2, settings)
    });
    let mut in_both = 0;
    for number in 0..40 {
        let rig = &mut rigs[number % 2];
        let conn = rig.accept_from(Some("192.0.2.7")).expect("let in");
        rig.receive(conn, &head_with("/ws", ""));
        rig.settle();
        in_both += usize::from(rig.response(conn).starts_with("HTTP/1.1 101 "));
        exchange(&mut rigs);
        rigs.iter_mut().for_each(|rig| rig.later(10 * MILLI));
    }
    assert!((6..=10).contains(&in_both), "{in_both} of eight");
}
