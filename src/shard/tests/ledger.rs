//! What each tenant has and does, by the tenants whose figures are told apart and by all others.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::auth::Source;
use crate::base::id::ConnId;
use crate::flow::budget::Rate;
use crate::hub::Excess;
use crate::shard::tests::guard::{enter, guarded, join};
use crate::shard::tests::rig::{Rig, frame, publish};
use crate::shard::tests::rooms::exchange;
use crate::shard::{Figure, Figures, PartyLimits, Settings};

/// The rows that were ever taken, by the tenants' names; of those without a place by `-`.
#[derive(Default)]
struct Seen(BTreeMap<String, Figures>);

impl Seen {
    /// Takes what has changed, where the node has places for these tenants.
    fn take(&mut self, rig: &mut Rig, places: &[&str]) {
        let place = |name: &str| (0..).zip(places).find(|(_, own)| **own == name).map(|(at, _)| at);
        rig.shard.measures().ledger().take(place, |place, figures| {
            let name = place.map_or("-", |place| places[usize::from(place)]);
            self.0.insert(name.to_owned(), *figures);
        });
    }

    fn of(&self, tenant: &str, figure: Figure) -> u64 {
        self.0.get(tenant).map_or(0, |figures| figures[figure as usize])
    }
}

fn telling(tenants: usize) -> Settings {
    let mut settings = guarded(&[Source::Header], |_| {});
    settings.capacity.tenants = tenants;
    settings
}

fn claims(tenant: &str) -> Value {
    json!({"sub": "ada", "tenant": tenant, "exp": 5000, "rooms": ["*"]})
}

fn leave(rig: &mut Rig, conn: ConnId) {
    rig.receive(conn, &frame(0x88, &1000_u16.to_be_bytes()));
    rig.settle();
}

#[test]
fn what_a_tenants_clients_send_and_get_counts_for_their_tenant() {
    let mut rig = Rig::new(0, 1, telling(2));
    let [ada, bob, eve] = ["acme", "acme", "other"].map(|tenant| enter(&mut rig, &claims(tenant)));
    let nobody = enter(&mut rig, &json!({"sub": "x", "exp": 5000, "rooms": ["*"]}));
    for conn in [ada, bob, eve, nobody] {
        rig.say(conn, &join("r"));
    }
    let text = publish(&["r"], "12345");
    rig.say(ada, &text);
    rig.say(nobody, &publish(&["r"], "1"));
    rig.say(eve, "{");
    rig.settle();
    let mut seen = Seen::default();
    seen.take(&mut rig, &["acme", "other"]);
    assert_eq!(seen.of("acme", Figure::Connections), 2);
    assert_eq!(seen.of("acme", Figure::Rooms), 1);
    assert_eq!(seen.of("acme", Figure::Messages), 3);
    assert_eq!(seen.of("acme", Figure::Bytes), (2 * join("r").len() + text.len()) as u64);
    assert_eq!(seen.of("acme", Figure::Deliveries), 2, "to both of its clients");
    assert!(seen.of("acme", Figure::DeliveredBytes) > 2 * 5);
    assert_eq!(seen.of("acme", Figure::Refused), 0);
    assert_eq!(seen.of("other", Figure::Messages), 2);
    assert_eq!((seen.of("other", Figure::Refused), seen.of("other", Figure::Deliveries)), (1, 0));
    assert!(!seen.0.contains_key("-"), "who is nobody's counts for no tenant: {:?}", seen.0);
    let bytes = seen.of("acme", Figure::DeliveredBytes);
    let all = rig.shard.counters();
    assert_eq!(all.deliveries_total, 3);
    assert!(all.delivered_bytes_total > bytes && all.delivered_bytes_total < 2 * bytes);
    for conn in [ada, bob] {
        leave(&mut rig, conn);
    }
    seen.take(&mut rig, &["acme", "other"]);
    assert_eq!((seen.of("acme", Figure::Connections), seen.of("acme", Figure::Rooms)), (0, 0));
    assert_eq!((seen.of("other", Figure::Connections), seen.of("other", Figure::Rooms)), (1, 1));
    assert_eq!(seen.of("acme", Figure::Messages), 3, "what was sent stays sent");
}

#[test]
fn tenants_without_a_place_are_counted_together_and_nothing_is_kept_of_each() {
    let mut rig = Rig::new(0, 1, telling(1));
    let mut seen = Seen::default();
    let first = enter(&mut rig, &claims("acme"));
    seen.take(&mut rig, &["acme"]);
    for round in 0..50 {
        let conns: Vec<ConnId> =
            (0..3).map(|at| enter(&mut rig, &claims(&format!("t{round}-{at}")))).collect();
        for conn in &conns {
            rig.say(*conn, &join("r"));
        }
        rig.say(conns[0], &publish(&["r"], "1"));
        rig.settle();
        seen.take(&mut rig, &["acme"]);
        assert_eq!((seen.of("-", Figure::Connections), seen.of("-", Figure::Rooms)), (3, 3));
        for conn in conns {
            leave(&mut rig, conn);
        }
        seen.take(&mut rig, &["acme"]);
        assert_eq!((seen.of("-", Figure::Connections), seen.of("-", Figure::Rooms)), (0, 0));
    }
    assert_eq!((seen.of("-", Figure::Messages), seen.of("-", Figure::Deliveries)), (200, 50));
    assert!(rig.shard.measures().ledger().kept() < 12, "rows are used again");
    rig.say(first, &join("r"));
    rig.settle();
    seen.take(&mut rig, &["acme"]);
    assert_eq!((seen.of("acme", Figure::Connections), seen.of("acme", Figure::Messages)), (1, 1));
}

#[test]
fn rooms_of_a_tenant_are_counted_once_over_all_shards() {
    let mut rigs = [0, 1].map(|id| Rig::new(id, 2, telling(4)));
    let conns = [0, 1].map(|at| {
        let conn = enter(&mut rigs[at], &claims("acme"));
        exchange(&mut rigs);
        conn
    });
    for (at, conn) in conns.into_iter().enumerate() {
        for room in 0..5 {
            rigs[at].say(conn, &join(&format!("r{room}")));
            exchange(&mut rigs);
        }
        let replies = rigs[at].told(conn, "throng:reply");
        assert!(
            replies.len() == 5 && replies.iter().all(|reply| reply["ok"] == json!(true)),
            "{replies:?}"
        );
    }
    let mut seen = [Seen::default(), Seen::default()];
    let sum =
        |seen: &[Seen; 2], figure| -> u64 { seen.iter().map(|one| one.of("acme", figure)).sum() };
    seen.iter_mut().zip(&mut rigs).for_each(|(seen, rig)| seen.take(rig, &["acme"]));
    assert_eq!((sum(&seen, Figure::Rooms), sum(&seen, Figure::Connections)), (5, 2));
    leave(&mut rigs[0], conns[0]);
    exchange(&mut rigs);
    seen.iter_mut().zip(&mut rigs).for_each(|(seen, rig)| seen.take(rig, &["acme"]));
    assert_eq!((sum(&seen, Figure::Rooms), sum(&seen, Figure::Connections)), (5, 1));
    leave(&mut rigs[1], conns[1]);
    exchange(&mut rigs);
    seen.iter_mut().zip(&mut rigs).for_each(|(seen, rig)| seen.take(rig, &["acme"]));
    assert_eq!((sum(&seen, Figure::Rooms), sum(&seen, Figure::Connections)), (0, 0));
}

#[test]
fn refusals_are_told_apart_by_their_reason() {
    let mut settings = telling(4);
    let rate = Some(Rate { per_second: 1, burst: 4 });
    settings.limits.tenant = PartyLimits {
        connections: 1,
        rates: [rate, None, None, None],
        excess: Excess::Oldest,
        ..PartyLimits::default()
    };
    let mut rig = Rig::new(0, 1, settings);
    let conn = enter(&mut rig, &claims("acme"));
    (0..7).for_each(|_| rig.say(conn, r#"{"type":"throng:ping","ref":1}"#));
    enter(&mut rig, &claims("acme"));
    rig.settle();
    let mut seen = Seen::default();
    seen.take(&mut rig, &["acme"]);
    let figures = [Figure::OverRate, Figure::Refused, Figure::Evicted, Figure::Connections];
    assert_eq!(figures.map(|figure| seen.of("acme", figure)), [3, 0, 1, 1]);
}

#[test]
fn where_tenants_are_not_told_apart_nothing_is_kept() {
    let mut rig = Rig::new(0, 1, telling(0));
    let conn = enter(&mut rig, &claims("acme"));
    rig.say(conn, &join("r"));
    rig.say(conn, &publish(&["r"], "1"));
    rig.settle();
    let mut seen = Seen::default();
    seen.take(&mut rig, &["acme"]);
    assert!(seen.0.is_empty() && rig.shard.measures().ledger().kept() == 0);
    assert_eq!(rig.shard.counters().deliveries_total, 1);
}
