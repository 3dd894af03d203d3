//! Too much waits for one tenant: its own readers pay for it, and nobody else's.

use serde_json::{Value, json};

use crate::auth::{Source, room};
use crate::base::glob::Glob;
use crate::base::id::ConnId;
use crate::base::shared::Overflow;
use crate::flow::outbound::OutboundLimits;
use crate::shard::tests::guard::{enter, guarded, join};
use crate::shard::tests::rig::{Heard, Rig, Seen, publish};
use crate::shard::{Figure, Mail, NamespaceRules, Settings, Tenants};

const KIB: u64 = 1024;

/// Tenants may have so much waiting for them; one of them, "big", any amount. Queues hold 64 KiB.
fn limited(bytes: u64) -> Settings {
    let mut settings = guarded(&[Source::Header], |_| {});
    settings.queue = OutboundLimits {
        high_water: 65_536,
        low_water: 16_384,
        max_bytes: 1 << 20,
        ..OutboundLimits::default()
    };
    settings.capacity.tenants = 4;
    settings.limits.tenant.memory = bytes;
    settings.limits.tenants =
        Tenants::new(vec![("big".to_owned(), crate::shard::PartyLimits::default())]);
    settings
}

fn member(rig: &mut Rig, tenant: &str, room: &str) -> ConnId {
    let claims = json!({"sub": room, "tenant": tenant, "exp": 5000, "rooms": ["*"]});
    let conn = enter(rig, &claims);
    rig.say(conn, &join(room));
    rig.settle();
    rig.heard(conn);
    conn
}

fn kilobyte(room: &str) -> String {
    publish(&[room], &format!("{:?}", "x".repeat(1000)))
}

/// What the ledger says that a tenant holds.
fn told(rig: &mut Rig, tenant: &str) -> Option<u64> {
    let mut held = None;
    let place = |name: &str| ["acme", "other", "big"].iter().position(|known| *known == name);
    let place = |name: &str| place(name).and_then(|at| u16::try_from(at).ok());
    let own = place(tenant);
    rig.shard.measures().ledger().take(place, |place, figures| {
        if place == own {
            held = Some(figures[Figure::QueuedMemory as usize]);
        }
    });
    held
}

#[test]
fn a_tenant_beyond_its_share_loses_its_own_heaviest_readers_and_others_nothing() {
    let mut rig = Rig::new(0, 1, limited(200 * KIB));
    let acme = member(&mut rig, "acme", "own");
    let (other, reader) = (member(&mut rig, "other", "own"), member(&mut rig, "other", "good"));
    let idle = member(&mut rig, "other", "slow");
    let lagging: Vec<ConnId> =
        (0..8).map(|at| member(&mut rig, "acme", &format!("r{at}"))).collect();
    rig.stalled.extend(&lagging);
    rig.stalled.insert(idle);
    let mut heard = 0;
    for round in 0..64 {
        // The further down the list, the less is sent.
        for at in 0..lagging.len() - round / 8 {
            rig.say(acme, &kilobyte(&format!("r{at}")));
        }
        rig.say(other, &kilobyte("good"));
        rig.say(other, &kilobyte("slow"));
        rig.settle();
        heard += rig.published(reader).len();
        let held = rig.shard.queues.payers.bytes_of("acme");
        assert!(held < 210 * KIB, "{round}: {held}");
    }
    assert_eq!(heard, 64, "another tenant is served as before");
    let counters = rig.shard.counters();
    assert_eq!(counters.hoarders_closed_total, 0, "early losses were enough: {counters:?}");
    assert!(counters.dropped_oldest_total > 0, "they met their policies early");
    assert!(rig.shard.queues.payers.bytes_of("other") > 60 * KIB, "whose reader keeps what it may");
    // Replies cannot be dropped: somebody has to go.
    for conn in &lagging {
        for _ in 0..200 {
            rig.say(*conn, r#"{"type":"throng:join","room":"own","ref":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}"#);
        }
        rig.turn();
    }
    rig.settle();
    let counters = rig.shard.counters();
    assert!(counters.hoarders_closed_total > 0, "{}", rig.shard.queues.payers.bytes_of("acme"));
    assert_eq!(counters.memory_shed_total, counters.hoarders_closed_total);
    assert!(rig.shard.queues.payers.bytes_of("acme") <= 200 * KIB);
    let stays = rig.shard.table.get(idle).is_some_and(|connection| connection.is_living());
    assert!(stays, "the other tenant's laggard");
    rig.stalled.clear();
    rig.settle();
    assert_eq!(told(&mut rig, "acme"), Some(0));
    assert_eq!(told(&mut rig, "acme"), None, "nothing has changed since");
}

#[test]
fn who_is_closed_reads_why_and_a_tenant_with_a_number_of_its_own_is_left_alone() {
    let mut rig = Rig::new(0, 1, limited(100 * KIB));
    let author = member(&mut rig, "acme", "own");
    let big = member(&mut rig, "big", "own");
    let crowd: Vec<ConnId> = (0..8).map(|at| member(&mut rig, "acme", &format!("r{at}"))).collect();
    let laggard = member(&mut rig, "big", "slow");
    // Their writes do not end, so each has one in flight and the rest behind it; the last has little.
    rig.stalled.extend(&crowd);
    rig.stalled.insert(laggard);
    for _ in 0..60 {
        rig.say(big, &kilobyte("slow"));
    }
    rig.settle();
    for at in 0..crowd.len() {
        for _ in 0..if at == 7 { 2 } else { 16 } {
            rig.say(author, &kilobyte(&format!("r{at}")));
        }
    }
    rig.turn();
    rig.settle();
    let counters = rig.shard.counters();
    assert!((1..6).contains(&counters.hoarders_closed_total), "{counters:?}");
    let held = rig.shard.queues.payers.bytes_of("acme");
    assert!(held <= 100 * KIB, "{held}");
    let lives = |rig: &mut Rig, conn| rig.shard.table.get(conn).is_some_and(|one| one.is_living());
    assert!(lives(&mut rig, laggard), "another tenant's");
    assert!(lives(&mut rig, crowd[7]), "it has little to read");
    assert!(lives(&mut rig, author), "it has nothing to read");
}

#[test]
fn a_closed_hoarder_that_can_still_be_told_is_told_1013_and_the_reason() {
    let mut rig = Rig::new(0, 1, limited(100 * KIB));
    let author = member(&mut rig, "acme", "own");
    let crowd: Vec<ConnId> = (0..4).map(|at| member(&mut rig, "acme", &format!("r{at}"))).collect();
    for at in 0..crowd.len() {
        for _ in 0..60 {
            rig.say(author, &kilobyte(&format!("r{at}")));
        }
    }
    rig.turn();
    rig.settle();
    let gone: Vec<ConnId> = crowd
        .into_iter()
        .filter(|conn| {
            rig.unheard(*conn)
                .ends_with("too much waits for your tenant: reads too slowly, come back later")
        })
        .collect();
    assert_eq!(gone.len() as u64, rig.shard.counters().hoarders_closed_total);
    let last = rig.heard(gone[0]).pop();
    assert_eq!(last, Some(Heard::Close(1013)));
}

/// Rooms under `hot:` may have 40 KiB waiting.
fn settings() -> Settings {
    let mut settings = limited(0);
    settings.rooms.namespaces = vec![NamespaceRules {
        pattern: Glob::new("hot:*"),
        overflow: Overflow::DropOldest,
        join: None,
        publish: None,
        origins: None,
        memory: crate::shard::RoomMemory::default(),
        queued: 40 * KIB,
        write_delay: std::time::Duration::ZERO,
        payload: 0,
    }];
    settings
}

#[test]
fn a_namespace_beyond_its_share_drops_early_and_other_rooms_do_not() {
    let mut rig = Rig::new(0, 1, settings());
    let author = member(&mut rig, "acme", "own");
    let hot: Vec<ConnId> =
        (0..8).map(|at| member(&mut rig, "acme", &format!("hot:{at}"))).collect();
    let cold = member(&mut rig, "acme", "cold");
    rig.stalled.extend(&hot);
    rig.stalled.insert(cold);
    for _ in 0..40 {
        for at in 0..hot.len() {
            rig.say(author, &kilobyte(&format!("hot:{at}")));
            rig.settle();
        }
        rig.say(author, &kilobyte("cold"));
        rig.settle();
    }
    let space = rig.shard.queues.payers.space(0).expect("a limit").bytes();
    assert!((20 * KIB..44 * KIB).contains(&space), "{space}");
    let counters = rig.shard.counters();
    assert!(counters.dropped_oldest_total > 200, "{counters:?}");
    assert_eq!(counters.hoarders_closed_total, 0, "nobody is closed for a namespace");
    let waits = rig.shard.table.get(cold).map(|connection| connection.outbound.bytes());
    assert!(waits > Some(40_000), "the other room has lost nothing: {waits:?}");
    // Another number holds at once, and others than before begin with nothing.
    let mut calm = settings();
    calm.rooms.namespaces[0].queued = 1 << 30;
    rig.take(Mail::Settings(std::sync::Arc::new(calm)));
    assert!(!rig.shard.queues.payers.is_uneasy());
    assert_eq!(rig.shard.queues.payers.space(0).expect("a limit").bytes(), space);
    rig.take(Mail::Settings(std::sync::Arc::new(limited(0))));
    assert!(rig.shard.queues.payers.space(0).is_none());
    rig.stalled.clear();
    rig.settle();
}

#[test]
fn a_room_beyond_its_share_drops_early_and_its_neighbours_do_not() {
    let mut settings = settings();
    settings.rooms.namespaces[0].queued = 0;
    settings.rooms.namespaces[0].memory.waiting = 40 * KIB;
    let mut rig = Rig::new(0, 1, settings.clone());
    let author = member(&mut rig, "acme", "own");
    let hot: Vec<ConnId> = (0..8).map(|_| member(&mut rig, "acme", "hot:a")).collect();
    let others = [member(&mut rig, "acme", "hot:b"), member(&mut rig, "other", "hot:a")];
    rig.stalled.extend(hot.iter().chain(&others));
    // Each of them is behind by as much in the same room: what all wait for is counted once.
    for _ in 0..60 {
        rig.say(author, &kilobyte("hot:a"));
        rig.settle();
    }
    let bytes = |rig: &Rig, room: &str| rig.shard.queues.payers.bytes_of_room(room);
    let name = |tenant: &str, name: &str| room(Some(tenant), name).into_owned();
    let held = bytes(&rig, &name("acme", "hot:a"));
    assert!((4 * KIB..44 * KIB).contains(&held), "{held}");
    let lost = rig.shard.counters().dropped_oldest_total;
    assert!(lost > 8 * 15, "{lost}");
    for _ in 0..20 {
        rig.say(author, &kilobyte("hot:b"));
        rig.settle();
    }
    assert_eq!(rig.shard.counters().dropped_oldest_total, lost, "the other room has lost nothing");
    assert!(bytes(&rig, &name("acme", "hot:b")) > 18 * KIB);
    assert_eq!(bytes(&rig, &name("other", "hot:a")), 0, "another tenant's is another room");
    assert_eq!(rig.shard.queues.payers.rooms(), 2, "of all that there are");
    rig.stalled.clear();
    rig.settle();
    rig.turn();
    assert_eq!(
        rig.shard.queues.payers.rooms(),
        0,
        "nothing is kept of rooms that nobody waits for"
    );
    assert!(!rig.shard.queues.payers.is_uneasy());
}

#[test]
fn where_the_node_is_short_the_tenant_that_holds_most_waits_and_goes_first() {
    let mut settings = limited(0);
    settings.capacity.memory = 1024 * KIB;
    let mut rig = Rig::new(0, 1, settings);
    let (hog, modest) = (member(&mut rig, "acme", "own"), member(&mut rig, "other", "own"));
    let crowd: Vec<ConnId> = (0..6).map(|at| member(&mut rig, "acme", &format!("r{at}"))).collect();
    let laggard = member(&mut rig, "other", "slow");
    rig.stalled.extend(&crowd);
    rig.stalled.insert(laggard);
    for _ in 0..50 {
        rig.say(modest, &kilobyte("slow"));
    }
    for at in 0..crowd.len() {
        for _ in 0..20 {
            rig.say(hog, &kilobyte(&format!("r{at}")));
        }
    }
    rig.settle();
    let charged = rig.shard.counters().charged_bytes;
    rig.shard.note_others(540 * KIB - charged);
    rig.turn();
    rig.say(modest, &kilobyte("slow"));
    rig.turn();
    assert!(!rig.ops.contains(&Seen::Pause(modest)), "it holds little: {:?}", rig.ops);
    rig.say(hog, &kilobyte("r0"));
    rig.turn();
    assert!(rig.ops.contains(&Seen::Pause(hog)), "{:?}", rig.ops);
    let charged = rig.shard.counters().charged_bytes;
    rig.shard.note_others(880 * KIB - charged);
    rig.settle();
    assert!(rig.shard.counters().memory_shed_total > 0);
    let lives = rig.shard.table.get(laggard).is_some_and(|connection| connection.is_living());
    assert!(lives, "it has most to read, but its tenant has not");
    let last: Vec<Value> = rig.published(modest);
    assert!(last.is_empty());
}
