//! Tenants with limits of their own, and such that are changed while the node runs.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::auth::Source;
use crate::base::id::ConnId;
use crate::flow::budget::Rate;
use crate::shard::tests::guard::{bearer, enter, guarded, join, knock};
use crate::shard::tests::rig::{Heard, Rig, frame};
use crate::shard::tests::rooms::exchange;
use crate::shard::{Mail, PartyLimits, Settings, Tenants};

fn limits(connections: u32, rooms: u32, burst: u32) -> PartyLimits {
    let rate = Some(Rate { per_second: 1, burst });
    let rates = [rate, None, None, None];
    PartyLimits { connections, rooms, rates, ..PartyLimits::default() }
}

/// Where a tenant has three connections, two rooms and four messages at once, but those named have others.
fn limited(own: &[(&str, PartyLimits)]) -> Settings {
    let mut settings = guarded(&[Source::Header], |_| {});
    settings.limits.tenant = limits(3, 2, 4);
    let named = own.iter().map(|(name, limits)| ((*name).to_owned(), *limits)).collect();
    settings.limits.tenants = Tenants::new(named);
    settings
}

fn claims(tenant: &str) -> Value {
    json!({"sub": "ada", "tenant": tenant, "exp": 5000, "rooms": ["*"]})
}

/// How many of so many pings are answered.
fn pongs(rig: &mut Rig, conn: ConnId, pings: usize) -> usize {
    rig.heard(conn);
    (0..pings).for_each(|_| rig.say(conn, r#"{"type":"throng:ping","ref":1}"#));
    rig.settle();
    rig.told(conn, "throng:pong").len()
}

/// How many of so many newcomers stay; all leave again.
fn stay(rigs: &mut [Rig; 2], tenant: &str, newcomers: usize) -> usize {
    let line: Vec<(usize, ConnId)> = (0..newcomers)
        .map(|number| {
            let at = number % 2;
            let conn = knock(&mut rigs[at], "/ws", &bearer(&claims(tenant)));
            exchange(rigs);
            rigs[at].response(conn);
            (at, conn)
        })
        .collect();
    let mut stay = 0;
    for (at, conn) in line {
        let is_closed = rigs[at].heard(conn).contains(&Heard::Close(1013));
        stay += usize::from(!is_closed);
        if !is_closed {
            rigs[at].receive(conn, &frame(0x88, &1000_u16.to_be_bytes()));
        }
    }
    exchange(rigs);
    stay
}

/// How many of so many rooms a client is let into; it leaves again.
fn rooms(rigs: &mut [Rig; 2], tenant: &str, most: usize) -> usize {
    let conn = enter(&mut rigs[0], &claims(tenant));
    exchange(rigs);
    let mut joined = 0;
    for number in 0..most {
        // No faster than its rate.
        rigs.iter_mut().for_each(|rig| rig.later(std::time::Duration::from_secs(2)));
        rigs[0].say(conn, &join(&format!("r{number}")));
        exchange(rigs);
        let replies = rigs[0].told(conn, "throng:reply");
        joined += usize::from(replies.iter().any(|reply| reply["ok"] == json!(true)));
    }
    rigs[0].receive(conn, &frame(0x88, &1000_u16.to_be_bytes()));
    exchange(rigs);
    joined
}

#[test]
fn a_tenant_may_have_limits_of_its_own_and_others_have_everybodys() {
    let own = [("acme", limits(5, 4, 9)), ("mini", limits(1, 1, 1))];
    let mut rigs = [0, 1].map(|id| Rig::new(id, 2, limited(&own)));
    for (tenant, most) in [("acme", 5), ("mini", 1), ("else", 3)] {
        assert_eq!(stay(&mut rigs, tenant, 8), most, "connections of {tenant}");
    }
    for (tenant, most) in [("acme", 4), ("mini", 1), ("else", 2)] {
        assert_eq!(rooms(&mut rigs, tenant, 6), most, "rooms of {tenant}");
    }
    for (tenant, most) in [("acme", 9), ("mini", 1), ("else", 4)] {
        rigs.iter_mut().for_each(|rig| rig.later(std::time::Duration::from_secs(60)));
        let conn = enter(&mut rigs[0], &claims(tenant));
        exchange(&mut rigs);
        assert_eq!(pongs(&mut rigs[0], conn, 12), most, "messages of {tenant}");
    }
}

#[test]
fn where_only_some_tenants_have_rates_the_others_have_none() {
    let mut settings = limited(&[("mini", limits(0, 0, 1))]);
    settings.limits.tenant = PartyLimits::default();
    let mut rig = Rig::new(0, 1, settings);
    let [mini, other] = ["mini", "else"].map(|tenant| enter(&mut rig, &claims(tenant)));
    assert_eq!((pongs(&mut rig, mini, 9), pongs(&mut rig, other, 9)), (1, 9));
    assert_eq!(rig.shard.counters().paced, 1);
}

#[test]
fn a_tenants_own_limits_change_while_its_clients_are_connected() {
    let mut rigs = [0, 1].map(|id| Rig::new(id, 2, limited(&[])));
    let conn = enter(&mut rigs[0], &claims("acme"));
    exchange(&mut rigs);
    assert_eq!(pongs(&mut rigs[0], conn, 12), 4);
    let new = limited(&[("acme", limits(5, 4, 100))]);
    for rig in &mut rigs {
        rig.take(Mail::Settings(Arc::new(new.clone())));
    }
    assert_eq!(pongs(&mut rigs[0], conn, 200), 96, "what was spent stays spent");
    assert_eq!(stay(&mut rigs, "acme", 8), 4, "and one is there already");
    for rig in &mut rigs {
        rig.take(Mail::Settings(Arc::new(limited(&[]))));
    }
    assert_eq!(stay(&mut rigs, "acme", 8), 2);
}
