//! Commands that await their answers: what counts, for whom, and until when.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::auth::Revocation;
use crate::base::glob::Glob;
use crate::base::id::{ConnId, ShardId};
use crate::contract::Event;
use crate::hub::HistoryLimits;
use crate::session::Code;
use crate::shard::inbox::Errands;
use crate::shard::mail::{Mail, Refusal, Saved};
use crate::shard::tests::consult::asking;
use crate::shard::tests::guard::{enter, join};
use crate::shard::tests::rig::{Heard, Rig, frame};
use crate::shard::tests::rooms::exchange;
use crate::shard::{Limits, NamespaceRules, RoomMemory, Settings, ShelfLimits, Tenants};

const YES: &str = r#"{"allow":true}"#;
const NO: &str = r#"{"allow":false}"#;

/// Rooms that begin with "w" are asked about, and what is published in those that begin with "kept" may be stored.
fn settings(change: impl FnOnce(&mut Limits)) -> Settings {
    let mut settings = asking(|access| {
        let consult = access.consult.as_mut().expect("rules");
        consult.allowed_for = Duration::ZERO;
        consult.refused_for = Duration::ZERO;
        consult.most_waiting = 100;
    });
    let limits = HistoryLimits { count: 9, bytes: 1 << 20, age: Duration::from_secs(60) };
    settings.rooms.namespaces.push(NamespaceRules {
        pattern: Glob::new("kept*"),
        memory: RoomMemory {
            history: Some(limits),
            repeats: Duration::from_secs(10),
            ..RoomMemory::default()
        },
        join: None,
        publish: None,
        ..settings.rooms.namespaces[0].clone()
    });
    settings.capacity.shelf = Some(ShelfLimits { waiting: 100, patience: Duration::from_secs(5) });
    settings.capacity.parked_mail = 1000;
    change(&mut settings.limits);
    settings
}

fn claims(user: &str, tenant: &str) -> Value {
    json!({"sub": user, "tenant": tenant, "exp": 5000, "rooms": ["a*", "kept*"]})
}

fn publish(room: &str) -> String {
    json!({"type": "t", "room": room, "ref": 1}).to_string()
}

fn persist(room: &str) -> String {
    json!({"type": "t", "room": room, "persist": true, "ref": 2}).to_string()
}

const MEMBERS: &str = r#"{"type":"throng:members","room":"a","ref":3}"#;

/// The codes of the errors that have come.
fn codes(rig: &mut Rig, conn: ConnId) -> Vec<Value> {
    rig.told(conn, "throng:error").into_iter().map(|mut error| error["code"].take()).collect()
}

/// The store has kept all that it was asked to keep, or has not.
fn save_all(rig: &mut Rig, keeps: bool) {
    while let Some(errands) = rig.shard.poll_errand() {
        let Errands::Save(save) = errands else { continue };
        let refusal = Refusal { code: Code::Overloaded, message: "broken" };
        let kept = keeps.then_some(()).ok_or(refusal);
        rig.take(Mail::Saved(Box::new(Saved { room: save.room, kept, forgot: None })));
        rig.settle();
    }
}

/// Answers everything that the back end is asked, and what that sets free.
fn rule_all(rig: &mut Rig, answer: &str) {
    loop {
        let asked = rig.asked();
        if asked.is_empty() {
            return;
        }
        asked.into_iter().for_each(|(number, _)| rig.rule(number, answer));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Connection,
    User,
    Tenant,
    OneTenant,
}

impl Whose {
    const ALL: [Self; 4] = [Self::Connection, Self::User, Self::Tenant, Self::OneTenant];

    fn limit(self, limits: &mut Limits, most: u16) {
        match self {
            Self::Connection => limits.outstanding = most,
            Self::User => limits.user.outstanding = most.into(),
            Self::Tenant => limits.tenant.outstanding = most.into(),
            Self::OneTenant => {
                let own = crate::shard::PartyLimits {
                    outstanding: most.into(),
                    ..crate::shard::PartyLimits::default()
                };
                limits.tenants = Tenants::new(vec![("x".to_owned(), own)]);
            }
        }
    }

    /// Two connections that have the limit together, the same one where it is each one's own, and one that has not.
    fn enter(self, rig: &mut Rig) -> ([ConnId; 2], ConnId) {
        let one = enter(rig, &claims("ada", "x"));
        let two = match self {
            Self::Connection => one,
            Self::User => enter(rig, &claims("ada", "x")),
            Self::Tenant | Self::OneTenant => enter(rig, &claims("eve", "x")),
        };
        let other = match self {
            Self::Connection => enter(rig, &claims("ada", "x")),
            Self::User => enter(rig, &claims("bob", "x")),
            Self::Tenant | Self::OneTenant => enter(rig, &claims("ada", "y")),
        };
        ([one, two], other)
    }
}

fn limited(whose: Whose, most: u16) -> Settings {
    settings(|limits| whose.limit(limits, most))
}

#[test]
fn whatever_a_command_waits_for_in_this_shard_it_counts_for_connection_user_and_tenant() {
    let two_held = [(0, publish("w1")), (1, publish("w2"))];
    let one_behind_the_other = [(0, publish("w1")), (0, publish("w1"))];
    let two_to_store = [(0, persist("kept")), (1, persist("kept"))];
    let one_of_each = [(0, join("w1")), (1, persist("kept"))];
    for whose in Whose::ALL {
        for waiting in [&two_held, &one_behind_the_other, &two_to_store, &one_of_each] {
            let case = format!("{whose:?} {waiting:?}");
            let mut rig = Rig::new(0, 1, limited(whose, 2));
            let (conns, other) = whose.enter(&mut rig);
            for (at, text) in waiting {
                rig.say(conns[*at], text);
            }
            rig.settle();
            assert_eq!(rig.shard.counters().awaited_commands, 2, "{case}");
            for conn in conns {
                assert_eq!(codes(&mut rig, conn), Vec::<Value>::new(), "{case}");
                for text in [MEMBERS, &publish("w3"), &persist("kept"), &join("a")] {
                    rig.say(conn, text);
                    rig.settle();
                    assert_eq!(codes(&mut rig, conn), ["overloaded"], "{case}: {text}");
                }
            }
            rig.say(other, MEMBERS);
            rig.settle();
            assert_eq!(rig.told(other, "throng:reply").len(), 1, "{case}: who shares nothing");
            rule_all(&mut rig, YES);
            save_all(&mut rig, true);
            assert_eq!(rig.shard.counters().awaited_commands, 0, "{case}");
            for conn in conns {
                rig.heard(conn);
                rig.say(conn, MEMBERS);
                rig.settle();
                assert_eq!(rig.told(conn, "throng:reply").len(), 1, "{case}: answered");
            }
        }
    }
}

/// A way in which a command that waits comes to its end.
type End = (&'static str, fn(&mut Rig, ConnId));

#[test]
fn every_end_of_a_command_ends_its_count() {
    let lost = |rig: &mut Rig, conn| {
        let error = std::io::ErrorKind::ConnectionReset.into();
        rig.event(Event::Lost { conn, error });
    };
    let revoked = |rig: &mut Rig, _| {
        let user = Revocation::User {
            tenant: Some("x".into()),
            user: "ada".into(),
            issued: 100,
            until: 6000,
        };
        rig.take(Mail::Revoke(std::sync::Arc::new(user)));
    };
    let given_back = |rig: &mut Rig, _| {
        while let Some(errands) = rig.shard.poll_errand() {
            rig.shard.handle_given_back(errands, rig.now);
        }
    };
    let ends: [End; 11] = [
        ("yes", |rig, _| rule_all(rig, YES)),
        ("no", |rig, _| rule_all(rig, NO)),
        ("no answer", |rig, _| rule_all(rig, "")),
        ("stored", |rig, _| save_all(rig, true)),
        ("not stored", |rig, _| save_all(rig, false)),
        ("no space", given_back),
        ("patience", |rig, _| rig.later(Duration::from_secs(6))),
        ("close frame", |rig, conn| rig.receive(conn, &frame(0x88, &1000_u16.to_be_bytes()))),
        ("end of stream", |rig, conn| rig.event(Event::ReceivedEnd { conn })),
        ("lost", lost),
        ("revoked", revoked),
    ];
    for (end, act) in ends {
        let mut rig = Rig::new(0, 1, settings(|limits| limits.user.outstanding = 100));
        let conn = enter(&mut rig, &claims("ada", "x"));
        for text in [publish("w1"), join("w1"), persist("kept"), persist("kept1")] {
            rig.say(conn, &text);
        }
        rig.settle();
        assert_eq!(rig.shard.counters().awaited_commands, 4, "{end}");
        act(&mut rig, conn);
        rig.settle();
        let left = rig.shard.counters().awaited_commands;
        let is_gone = ["close frame", "end of stream", "lost", "revoked"].contains(&end);
        assert_eq!(left, if is_gone { 0 } else { 2 }, "{end}");
        // What else waits ends by itself, and the answers of who has gone find nobody.
        let next = enter(&mut rig, &claims("bob", "x"));
        rule_all(&mut rig, YES);
        save_all(&mut rig, true);
        rig.later(Duration::from_secs(6));
        rig.settle();
        assert_eq!(rig.heard(next), [], "{end}");
        assert_eq!(rig.shard.counters().awaited_commands, 0, "{end}");
        assert_eq!(rig.shard.gate.paces.awaited.sums.kept(), 0, "{end}");
    }
}

#[test]
fn over_the_number_a_held_command_too_many_is_closed_with_1008_where_that_is_the_rule() {
    for whose in Whose::ALL {
        let mut settings = limited(whose, 2);
        settings.limits.closes_excess = true;
        let mut rig = Rig::new(0, 1, settings);
        let (conns, other) = whose.enter(&mut rig);
        rig.say(conns[0], &publish("w1"));
        rig.say(conns[1], &publish("w2"));
        rig.say(conns[1], &publish("w3"));
        rig.settle();
        assert_eq!(rig.heard(conns[1]).last(), Some(&Heard::Close(1008)), "{whose:?}");
        let left = if whose == Whose::Connection { 0 } else { 1 };
        assert_eq!(rig.shard.counters().awaited_commands, left, "{whose:?}");
        rig.say(other, MEMBERS);
        rig.settle();
        assert_eq!(rig.told(other, "throng:reply").len(), 1, "{whose:?}");
    }
}

#[test]
fn what_awaits_answers_in_one_shard_counts_in_the_other_until_it_is_answered() {
    for whose in [Whose::User, Whose::Tenant, Whose::OneTenant] {
        let mut rigs = [0, 1].map(|id| Rig::new(id, 2, limited(whose, 4)));
        let conns = [0, 1].map(|at| enter(&mut rigs[at], &claims("ada", "x")));
        exchange(&mut rigs);
        // All of them may be in one shard.
        for room in ["w1", "w2", "w3", "w4"] {
            rigs[0].say(conns[0], &join(room));
        }
        exchange(&mut rigs);
        assert_eq!(codes(&mut rigs[0], conns[0]), Vec::<Value>::new(), "{whose:?}");
        // Who has none yet has not heard of them.
        rigs[1].say(conns[1], &publish("w5"));
        exchange(&mut rigs);
        let sums = |rigs: &[Rig; 2]| {
            let of = |rig: &Rig| {
                (rig.shard.counters().awaited_commands, rig.shard.counters().awaited_elsewhere)
            };
            [of(&rigs[0]), of(&rigs[1])]
        };
        assert_eq!(sums(&rigs), [(4, 1), (1, 4)], "{whose:?}");
        // More is refused, and what was accepted goes on.
        for at in 0..2 {
            rigs[at].say(conns[at], &publish("w6"));
            exchange(&mut rigs);
            assert_eq!(codes(&mut rigs[at], conns[at]), ["overloaded"], "{whose:?}");
        }
        rule_all(&mut rigs[0], YES);
        exchange(&mut rigs);
        assert_eq!(codes(&mut rigs[0], conns[0]), Vec::<Value>::new(), "{whose:?}");
        assert_eq!(sums(&rigs), [(0, 0), (1, 0)], "{whose:?}");
        for room in ["w6", "w7", "w8"] {
            rigs[1].say(conns[1], &publish(room));
        }
        exchange(&mut rigs);
        assert_eq!(codes(&mut rigs[1], conns[1]), Vec::<Value>::new(), "{whose:?}");
        // A connection that ends takes with it what it awaits, for both.
        rigs[1].event(Event::ReceivedEnd { conn: conns[1] });
        exchange(&mut rigs);
        assert_eq!(sums(&rigs), [(0, 0), (0, 0)], "{whose:?}");
        assert!(rigs.iter().all(|rig| rig.shard.gate.paces.awaited.sums.kept() == 0), "{whose:?}");
    }
}

#[test]
fn who_asks_little_is_told_of_to_nobody() {
    for (awaits, most) in [(4, 64), (64, 0)] {
        let mut rigs =
            [0, 1].map(|id| Rig::new(id, 2, settings(|limits| limits.user.outstanding = most)));
        for rig in &mut rigs {
            let conn = enter(rig, &claims("ada", "x"));
            for number in 0..awaits {
                rig.say(conn, &publish(&format!("w{number}")));
            }
            rig.settle();
            let told = rig.post.iter().filter(|(_, mail)| matches!(mail, Mail::Awaits(_)));
            assert_eq!(told.count(), 0, "{awaits} of {most}");
            assert_eq!(rig.shard.counters().awaited_commands, awaits);
        }
    }
}

#[test]
fn what_was_said_before_a_login_counts_for_the_user_who_has_logged_in() {
    use crate::auth::Source;
    use crate::shard::tests::guard::{guarded, knock, login};
    let mut settings = guarded(&[Source::Message], |access| {
        let consult =
            crate::auth::Consult { connect: true, ..crate::shard::tests::consult::consult() };
        access.consult = Some(consult);
    });
    settings.limits.user.outstanding = 2;
    settings.capacity.shelf = self::settings(|_| {}).capacity.shelf;
    settings.rooms.namespaces = self::settings(|_| {}).rooms.namespaces;
    let mut rig = Rig::new(0, 1, settings);
    let conn = knock(&mut rig, "/ws", "");
    rig.say(conn, &login(&claims("ada", "x")));
    // Nobody knows yet whose these are.
    for number in 0..3 {
        rig.say(conn, &persist(&format!("kept{number}")));
    }
    rig.settle();
    assert_eq!(rig.shard.counters().awaited_commands, 4);
    let number = rig.asked()[0].0;
    rig.response(conn);
    rig.rule(number, YES);
    assert_eq!(codes(&mut rig, conn), Vec::<Value>::new(), "they were accepted before");
    assert_eq!(rig.shard.counters().awaited_commands, 3);
    rig.say(conn, &persist("kept"));
    rig.settle();
    assert_eq!(codes(&mut rig, conn), ["overloaded"], "the user has more than its number");
    save_all(&mut rig, true);
    assert_eq!(rig.shard.counters().awaited_commands, 0);
}

/// Something to say, about a room of either shard, to be asked about or stored or neither.
fn anything(rng: &mut fastrand::Rng, reference: u32) -> String {
    let room = format!("{}{}", ["a", "w", "kept"][rng.usize(..3)], rng.u8(..4));
    let restored = [json!({ "room": room }), json!({"room": format!("a{}", rng.u8(..4))})];
    let mut text = match rng.u8(..9) {
        0 => json!({"type": "throng:join", "room": room}),
        1 => json!({"type": "throng:leave", "room": room}),
        2 => json!({"type": "throng:members", "room": room}),
        3 => json!({"type": "throng:history", "room": room}),
        4 => json!({"type": "throng:restore", "rooms": restored}),
        5 => json!({"type": "throng:whois", "users": ["ada", "bob"]}),
        6 => json!({"type": "t", "room": room, "persist": true}),
        7 => json!({"type": "throng:inbox"}),
        _ => json!({"type": "t", "room": room, "id": rng.u8(..9).to_string()}),
    };
    text["ref"] = json!(reference);
    text.to_string()
}

/// Two shards with clients who come, say anything and go, and with mail, a back end and a store that answer late and in
/// any order, or not before their clients have gone.
struct Story {
    rigs: [Rig; 2],
    rng: fastrand::Rng,
    conns: Vec<(usize, ConnId)>,
    /// Questions to the back end, of which shard.
    asked: Vec<(usize, u64)>,
    errands: [Vec<Errands>; 2],
    lanes: BTreeMap<(usize, bool), std::collections::VecDeque<Mail>>,
    said: u32,
}

impl Story {
    fn gather(&mut self) {
        for at in 0..2 {
            self.rigs[at].settle();
            for (to, mail) in std::mem::take(&mut self.rigs[at].post) {
                assert_eq!(to, ShardId(u16::try_from(1 - at).expect("one of two")));
                let lane = (1 - at, mail.is_request());
                self.lanes.entry(lane).or_default().push_back(mail);
            }
            self.asked.extend(self.rigs[at].asked().into_iter().map(|(number, _)| (at, number)));
            while let Some(errands) = self.rigs[at].shard.poll_errand() {
                self.errands[at].push(errands);
            }
        }
    }

    fn deliver(&mut self, to: usize, requests: bool) {
        let lane = self.lanes.entry((to, requests)).or_default();
        if let Some(mail) = lane.pop_front() {
            self.rigs[to].take(mail);
        }
    }

    fn rule(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        let (at, number) = self.asked.swap_remove(self.rng.usize(..self.asked.len()));
        let answer = [YES, YES, NO, ""][self.rng.usize(..4)];
        self.rigs[at].rule(number, answer);
    }

    fn serve(&mut self, at: usize) {
        if self.errands[at].is_empty() {
            return;
        }
        let rig = &mut self.rigs[at];
        match self.errands[at].remove(0) {
            errands if self.rng.u8(..4) == 0 => rig.shard.handle_given_back(errands, rig.now),
            Errands::Save(save) => {
                let refusal = Refusal { code: Code::Overloaded, message: "broken" };
                let kept = (self.rng.u8(..4) > 0).then_some(()).ok_or(refusal);
                rig.take(Mail::Saved(Box::new(Saved { room: save.room, kept, forgot: None })));
            }
            errands @ Errands::Ask(_) => rig.shard.handle_given_back(errands, rig.now),
            Errands::Reached { .. } | Errands::Forget(..) => {}
        }
    }

    fn step(&mut self) {
        let at = self.rng.usize(..2);
        match self.rng.u8(..20) {
            0 if self.conns.len() < 8 => {
                let user = ["ada", "bob"][self.rng.usize(..2)];
                let conn = enter(&mut self.rigs[at], &claims(user, "x"));
                self.conns.push((at, conn));
            }
            1 if !self.conns.is_empty() && self.rng.bool() => {
                let (at, conn) = self.conns.swap_remove(self.rng.usize(..self.conns.len()));
                match self.rng.bool() {
                    true => self.rigs[at].event(Event::ReceivedEnd { conn }),
                    false => self.rigs[at].receive(conn, &frame(0x88, &1000_u16.to_be_bytes())),
                }
            }
            2 => self.rigs[at].later(Duration::from_millis(self.rng.u64(..1500))),
            3 => {
                // The other's inbox is full for a while.
                let other = ShardId(u16::try_from(1 - at).expect("one of two"));
                if !self.rigs[at].full.remove(&other) {
                    self.rigs[at].full.insert(other);
                }
            }
            4..=10 if !self.conns.is_empty() => {
                let (at, conn) = self.conns[self.rng.usize(..self.conns.len())];
                self.said += 1;
                let text = anything(&mut self.rng, self.said);
                self.rigs[at].say(conn, &text);
            }
            11..=15 => self.deliver(at, self.said.is_multiple_of(2)),
            16 | 17 => self.rule(),
            _ => self.serve(at),
        }
        self.gather();
    }

    fn is_over(&self) -> bool {
        self.asked.is_empty()
            && self.lanes.values().all(std::collections::VecDeque::is_empty)
            && self.errands.iter().all(Vec::is_empty)
    }
}

#[test]
fn whatever_is_said_nothing_is_counted_when_all_is_answered() {
    let mut seen = (0, 0);
    for seed in 0..40 {
        let limits = |limits: &mut Limits| {
            limits.outstanding = 6;
            limits.user.outstanding = 8;
            limits.tenant.outstanding = 20;
            limits.tenant.rooms = 6;
        };
        let mut story = Story {
            rigs: [0, 1].map(|id| Rig::new(id, 2, settings(limits))),
            rng: fastrand::Rng::with_seed(seed),
            conns: Vec::new(),
            asked: Vec::new(),
            errands: [Vec::new(), Vec::new()],
            lanes: BTreeMap::new(),
            said: 0,
        };
        for _ in 0..600 {
            story.step();
            let counters = story.rigs.each_ref().map(|rig| rig.shard.counters());
            let most = |of: fn(&crate::base::counters::Counters) -> u64| {
                counters.iter().map(of).max().unwrap_or(0)
            };
            seen.0 = seen.0.max(most(|counters| counters.awaited_commands));
            seen.1 = seen.1.max(most(|counters| counters.awaited_elsewhere));
        }
        story.rigs.iter_mut().for_each(|rig| rig.full.clear());
        for round in 0.. {
            assert!(round < 2000, "seed {seed}: it has no end");
            story.gather();
            if story.is_over() {
                break;
            }
            for at in 0..2 {
                story.deliver(at, true);
                story.deliver(at, false);
                story.serve(at);
            }
            story.rule();
        }
        for rig in &story.rigs {
            let counters = rig.shard.counters();
            let left = (counters.awaited_commands, counters.awaited_elsewhere, counters.restores);
            assert_eq!(left, (0, 0, 0), "seed {seed}");
            assert_eq!(rig.shard.gate.paces.awaited.sums.kept(), 0, "seed {seed}");
        }
    }
    assert!(seen.0 > 6 && seen.1 > 0, "nothing happened: {seen:?}");
}
