//! TLS through the whole shard: what is said arrives, what is sealed is counted as it was queued, and
//! handshakes wait for their turn.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use crate::auth::{
    Access, Claimed, Denied, Grants, Mode, OriginRules, Right, Source, SourceRules, TokenError,
};
use crate::base::fate::Fate;
use crate::base::id::ConnId;
use crate::connection::Routes;
use crate::contract::{Event, ListenerId};
use crate::shard::tests::outcomes::fate;
use crate::shard::tests::rig::{HEAD, Heard, Rig, Seen, frame, frames, publish, settings};
use crate::shard::{Mail, Settings};
use crate::wire::http::{HeadLimits, parse, upgrade};
use crate::wire::tls::tests::authority::{Authority, Spoken};
use crate::wire::tls::tests::{Client, any_config, asking_config};
use crate::wire::tls::{Peer, SecureListener, ServerConfig};

const SECURE: ListenerId = ListenerId(1);

/// A node's only shard with a listener for TLS, and whoever vouches for it.
struct World {
    rig: Rig,
    authority: Authority,
}

/// A client of it.
struct Friend {
    conn: ConnId,
    client: Client,
}

/// These settings with that listener.
fn opened(settings: Settings, secure: SecureListener) -> Settings {
    let routes = Routes { tls: Some(secure), ..settings.routes };
    Settings { routes, ..settings }
}

/// A listener with that many steps of handshakes in a turn, and with more time for them than they need.
fn listener(config: Arc<ServerConfig>, steps_per_turn: u32) -> SecureListener {
    let time_per_turn = Duration::from_secs(1);
    SecureListener { listener: SECURE, config, steps_per_turn, time_per_turn }
}

fn with(steps_per_turn: u32, settings: Settings) -> World {
    let authority = Authority::new();
    let secure = listener(any_config(&authority), steps_per_turn);
    let rig = Rig::new(0, 1, opened(settings, secure));
    World { rig, authority }
}

fn world() -> World {
    with(4, settings())
}

impl World {
    fn connect(&mut self, version: Spoken) -> Friend {
        let conn = self.rig.accept_on(SECURE).expect("let in");
        let config = Arc::new(self.authority.client(version, None));
        Friend { conn, client: Client::of(&config, "example.org") }
    }

    /// To and fro until nobody has anything to say.
    fn settle(&mut self, friend: &mut Friend) {
        loop {
            let up = friend.client.output();
            if !up.is_empty() {
                self.rig.receive(friend.conn, &up);
            }
            self.rig.settle();
            let down = self.rig.bytes(friend.conn);
            friend.client.input(&down).expect("the client understands");
            if up.is_empty() && down.is_empty() {
                return;
            }
        }
    }

    /// A client with a certificate of that name, who has said so much.
    fn certified(&mut self, name: &str, version: Spoken, says: &[u8]) -> Friend {
        let issued = self.authority.issue(name, &[name]);
        let conn = self.rig.accept_on(SECURE).expect("let in");
        let config = Arc::new(self.authority.client(version, Some(&issued)));
        let mut friend = Friend { conn, client: Client::of(&config, "example.org") };
        friend.client.say(says);
        self.settle(&mut friend);
        friend
    }

    /// A client past the upgrade, its greeting heard.
    fn open(&mut self, version: Spoken) -> Friend {
        let mut friend = self.connect(version);
        friend.client.say(HEAD);
        self.settle(&mut friend);
        let heard = friend.client.heard();
        let end = heard.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
        assert!(heard.starts_with(b"HTTP/1.1 101 "));
        let greeting = frames(&heard[end..]);
        assert!(
            matches!(&greeting[..], [Heard::Text(hello)] if hello["type"] == "throng:connected")
        );
        friend
    }

    fn say(&mut self, friend: &mut Friend, text: &str) {
        friend.client.say(&frame(0x81, text.as_bytes()));
        self.settle(friend);
    }

    fn member(&mut self, version: Spoken) -> Friend {
        let mut friend = self.open(version);
        self.say(&mut friend, r#"{"type":"throng:join","room":"r"}"#);
        friend
    }

    fn heard(&mut self, friend: &mut Friend) -> Vec<Heard> {
        self.settle(friend);
        frames(&friend.client.heard())
    }
}

#[test]
fn plain_and_secure_members_of_a_room_hear_each_other() {
    let mut world = world();
    let plain = world.rig.member("r");
    let mut friends = Spoken::BOTH.map(|version| world.member(version));
    world.rig.say(plain, &publish(&["r"], "1"));
    world.say(&mut friends[0], &publish(&["r"], "2"));
    world.rig.settle();
    assert_eq!(world.rig.published(plain), [json!(1), json!(2)]);
    for friend in &mut friends {
        let heard = world.heard(friend);
        assert_eq!(heard.len(), 2, "{heard:?}");
    }
    let counters = world.rig.shard.counters();
    assert_eq!((counters.tls_connections, counters.tls_handshakes_total), (2, 2));
    assert_eq!(counters.queued_bytes, 0);
}

#[test]
fn what_was_sealed_is_remembered_as_written_once_the_kernel_has_taken_it() {
    let mut world = world();
    let friend = world.member(Spoken::Tls13);
    let author = world.rig.open();
    world.rig.stalled.insert(friend.conn);
    (1..=2).for_each(|number| {
        world.rig.say(author, &publish(&["r"], &number.to_string()));
        world.rig.turn();
    });
    let fates = |rig: &mut Rig| [1, 2].map(|offset| fate(rig, offset, friend.conn));
    assert_eq!(fates(&mut world.rig), [Some(Fate::Writing), Some(Fate::Queued)]);
    world.rig.stalled.clear();
    world.rig.settle();
    assert_eq!(fates(&mut world.rig), [Some(Fate::Written); 2]);
}

#[test]
fn a_silent_socket_has_no_layer_and_a_closed_one_has_none_any_more() {
    let mut world = world();
    let silent = world.connect(Spoken::Tls13);
    assert_eq!(world.rig.shard.counters().tls_connections, 0);
    let friend = world.open(Spoken::Tls13);
    assert_eq!(world.rig.shard.counters().tls_connections, 1);
    for conn in [silent.conn, friend.conn] {
        world.rig.event(Event::Lost { conn, error: std::io::ErrorKind::ConnectionReset.into() });
    }
    world.rig.settle();
    let counters = world.rig.shard.counters();
    assert_eq!((counters.tls_connections, counters.connections), (0, 0));
}

#[test]
fn handshakes_above_a_turns_share_wait_while_others_are_served() {
    let mut world = with(2, settings());
    let plain = world.rig.open();
    let mut friends: Vec<_> = (0..9).map(|_| world.connect(Spoken::Tls13)).collect();
    world.rig.turn();
    let hellos: Vec<Vec<u8>> = friends.iter_mut().map(|friend| friend.client.output()).collect();
    for (friend, hello) in friends.iter().zip(&hellos) {
        // In two pieces: the second joins the first where it waits.
        world.rig.receive(friend.conn, &hello[..100]);
        world.rig.receive(friend.conn, &hello[100..]);
    }
    let mut answered = Vec::new();
    for number in 0..6 {
        world.rig.say(plain, r#"{"type":"throng:ping"}"#);
        world.rig.turn();
        assert_eq!(world.rig.heard(plain).len(), 1, "turn {number}");
        for friend in &mut friends {
            let down = world.rig.bytes(friend.conn);
            friend.client.input(&down).expect("a flight");
        }
        answered.push(friends.iter().filter(|friend| !friend.client.is_handshaking()).count());
        let waits = answered[number] < 9;
        let timeout = world.rig.shard.poll_timeout(world.rig.now);
        assert!(!waits || timeout == Some(Duration::ZERO), "nobody may sleep: {timeout:?}");
    }
    assert_eq!(answered, [4, 6, 8, 9, 9, 9], "two in the turn they came, then two a turn");
    assert_eq!(world.rig.shard.counters().tls_waits_total, 7);
    assert_eq!(world.rig.shard.counters().paused_connections, 0);
}

#[test]
fn handshakes_beyond_a_turns_time_wait_however_many_steps_it_may_take() {
    const STEP: Duration = Duration::from_micros(400);
    let mut world = world();
    let mut secure = listener(any_config(&world.authority), 100);
    secure.time_per_turn = Duration::from_millis(1);
    world.rig.take(Mail::Settings(Arc::new(opened(settings(), secure))));
    let mut friends: Vec<_> = (0..9).map(|_| world.connect(Spoken::Tls13)).collect();
    world.rig.turn();
    let rig = &mut world.rig;
    let mut direct = 0;
    for friend in &mut friends {
        rig.receive(friend.conn, &friend.client.output());
        if rig.shard.wants_time() {
            // Whoever turns the shard reads the clock when a step was made.
            direct += 1;
            rig.later(STEP);
        }
    }
    assert_eq!((direct, rig.shard.counters().tls_waits_total), (3, 6));
    let mut steps = Vec::new();
    for _ in 0..4 {
        let mut now = rig.now;
        rig.shard.handle_timeout(now);
        let mut made = 0;
        rig.shard.shake_hands(now, &mut || {
            made += 1;
            now = now.plus(STEP);
            now
        });
        rig.now = now;
        rig.shard.check();
        steps.push(made);
    }
    assert_eq!(steps, [3, 3, 0, 0], "the step that goes beyond a turn's time is its last");
    rig.settle();
    for friend in &mut friends {
        let down = rig.bytes(friend.conn);
        friend.client.input(&down).expect("a flight");
        assert!(!friend.client.is_handshaking());
    }
}

#[test]
fn garbage_is_answered_with_an_alert_and_counted() {
    let mut world = world();
    let conn = world.rig.accept_on(SECURE).expect("let in");
    world.rig.receive(conn, b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n");
    world.rig.turn();
    assert_eq!(world.rig.bytes(conn)[0], 21, "an alert");
    world.rig.settle();
    assert!(world.rig.shard.counters().tls_failed_total == 1);
    world.rig.event(Event::ReceivedEnd { conn });
    world.rig.settle();
    assert_eq!(world.rig.shard.counters().connections, 0);
}

#[test]
fn a_broken_record_ends_an_open_connection_also_with_much_to_say() {
    let mut world = world();
    let friend = world.member(Spoken::Tls13);
    world.rig.stalled.insert(friend.conn);
    let publisher = world.rig.open();
    for _ in 0..5 {
        world.rig.say(publisher, &publish(&["r"], "1"));
        world.rig.turn();
    }
    world.rig.receive(
        friend.conn,
        &[23, 3, 3, 0, 17, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17],
    );
    world.rig.stalled.clear();
    world.rig.settle();
    world.rig.event(Event::ReceivedEnd { conn: friend.conn });
    world.rig.settle();
    let counters = world.rig.shard.counters();
    assert_eq!((counters.tls_failed_total, counters.connections), (1, 1));
    assert_eq!((counters.memberships, counters.queued_bytes), (0, 0));
}

#[test]
fn an_end_without_a_close_frame_is_a_vanished_peer_with_and_without_close_notify() {
    for says in [true, false] {
        let mut world = world();
        let mut friend = world.member(Spoken::Tls13);
        if says {
            friend.client.finish();
            world.settle(&mut friend);
            assert!(friend.client.saw_end(), "close_notify is answered");
        } else {
            world.rig.event(Event::ReceivedEnd { conn: friend.conn });
            world.rig.settle();
        }
        let counters = world.rig.shard.counters();
        assert_eq!((counters.lost_total, counters.connections), (1, 0), "{says}");
        assert_eq!(counters.tls_failed_total, 0);
    }
}

#[test]
fn the_close_frame_comes_before_close_notify_and_the_fin() {
    let mut world = world();
    let mut friend = world.open(Spoken::Tls12);
    friend.client.say(&frame(0x88, &1000_u16.to_be_bytes()));
    let up = friend.client.output();
    world.rig.receive(friend.conn, &up);
    let mut order = Vec::new();
    while {
        world.rig.turn();
        !world.rig.ops.is_empty()
    } {
        order.extend(world.rig.ops.clone());
    }
    let down = world.rig.bytes(friend.conn);
    friend.client.input(&down).expect("understood");
    assert_eq!(frames(&friend.client.heard()), [Heard::Close(1000)]);
    assert!(friend.client.saw_end());
    assert_eq!(order.last(), Some(&Seen::Shutdown(friend.conn)), "{order:?}");
}

#[test]
fn a_drain_tells_secure_clients_too() {
    let mut world = world();
    let mut friend = world.open(Spoken::Tls13);
    let shaking = world.connect(Spoken::Tls13);
    world.rig.receive(shaking.conn, &[22, 3, 1]);
    world.rig.take(Mail::Drain(Duration::ZERO));
    let heard = world.heard(&mut friend);
    let told = matches!(&heard[..], [Heard::Text(reload), Heard::Close(1012)] if reload["type"] == "throng:reload");
    assert!(told, "{heard:?}");
    for _ in 0..10 {
        world.rig.later(Duration::from_millis(100));
        world.rig.settle();
    }
    assert_eq!(world.rig.shard.counters().connections, 0);
}

#[test]
fn half_a_handshake_is_ended_by_the_handshake_timeout_without_a_plain_word() {
    let mut world = world();
    let mut friend = world.connect(Spoken::Tls13);
    let hello = friend.client.output();
    world.rig.receive(friend.conn, &hello[..hello.len() / 2]);
    world.rig.settle();
    world.rig.later(Duration::from_secs(11));
    world.rig.settle();
    assert_eq!(world.rig.bytes(friend.conn), b"");
    world.rig.later(Duration::from_secs(6));
    world.rig.settle();
    let counters = world.rig.shard.counters();
    assert_eq!((counters.connections, counters.handshakes_refused_total), (0, 1));
}

#[test]
fn a_refusal_goes_through_the_layer_when_there_is_one() {
    let mut world = world();
    let mut friend = world.connect(Spoken::Tls13);
    friend.client.say(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n");
    world.settle(&mut friend);
    assert!(friend.client.heard().starts_with(b"HTTP/1.1 404 "));
    assert!(friend.client.saw_end());
    let mut late = world.connect(Spoken::Tls13);
    world.settle(&mut late);
    world.rig.later(Duration::from_secs(11));
    world.settle(&mut late);
    assert!(late.client.heard().starts_with(b"HTTP/1.1 408 "));
}

#[test]
fn who_showed_a_certificate_can_be_told_by_it() {
    let mut world = world();
    let config = asking_config(&world.authority);
    let secure = listener(config, 4);
    world.rig.take(Mail::Settings(Arc::new(opened(settings(), secure))));
    let nobody = world.open(Spoken::Tls13);
    let friend = world.certified("alice", Spoken::Tls13, b"");
    let plain = world.rig.open();
    let shard = &world.rig.shard;
    let peer = shard.peer(friend.conn).expect("a certificate");
    assert!(peer.subject.contains("CN=alice"), "{}", peer.subject);
    assert!(peer.ends > 1_700_000_000, "seconds since 1970: {}", peer.ends);
    assert_eq!(shard.peer(nobody.conn), None);
    assert_eq!(shard.peer(plain), None);
    assert_eq!(shard.peer(ConnId { generation: 99, ..friend.conn }), None);
}

/// Whoever shows a certificate is its user, and nobody else comes in.
fn by_certificate() -> Arc<Access> {
    Arc::new(Access {
        mode: Mode::Token,
        sources: SourceRules { order: vec![Source::Certificate], ..SourceRules::default() },
        origins: OriginRules { cookies: true, ..OriginRules::default() },
        certified: Grants::of_patterns(&["ours:*".to_owned()]),
        ..Access::default()
    })
}

#[test]
fn a_certificate_says_nothing_about_who_polls() {
    let mut world = world();
    let config = asking_config(&world.authority);
    let mut settings = opened(settings(), listener(config, 4));
    settings.routes.polling = Some(4096);
    settings.access = by_certificate();
    world.rig.take(Mail::Settings(Arc::new(settings)));
    let target = "/socket.io/?EIO=4&transport";
    let poll = format!("GET {target}=polling HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut polling = world.certified("alice", Spoken::Tls13, poll.as_bytes());
    let heard = String::from_utf8(polling.client.heard()).expect("text");
    assert!(heard.contains("44{") && heard.contains("unauthorized"), "{heard}");
    assert_eq!(world.rig.shard.counters().logins_total, 0);
    // The same certificate is good for a connection that stays.
    let head = String::from_utf8(HEAD.to_vec()).expect("text");
    let (_, lines) = head.split_once("\r\n").expect("a line");
    let upgrade = format!("GET {target}=websocket HTTP/1.1\r\n{lines}");
    let mut socket = world.certified("alice", Spoken::Tls13, upgrade.as_bytes());
    assert!(socket.client.heard().starts_with(b"HTTP/1.1 101 "));
    socket.client.say(&frame(0x81, b"40"));
    world.settle(&mut socket);
    assert_eq!(world.rig.shard.counters().logins_total, 1);
}

#[test]
fn a_certificate_says_who_the_client_is_where_it_is_a_source() {
    let mut world = world();
    let config = asking_config(&world.authority);
    let secure = listener(config, 4);
    let mut settings = opened(settings(), secure);
    settings.access = by_certificate();
    world.rig.take(Mail::Settings(Arc::new(settings)));
    for version in Spoken::BOTH {
        let mut alice = world.certified("alice", version, HEAD);
        assert!(alice.client.heard().starts_with(b"HTTP/1.1 101 "));
        let person = world.rig.shard.gate.people.get(alice.conn.index).expect("a user");
        assert!(person.names().1.contains("CN=alice") && person.names().0.is_none());
        let may = |room| person.grants.allows(room, Right::Join);
        assert!(may("ours:1") && !may("theirs"));
        // Nobody's, and one that would make two users of one connection's page.
        let mut nobody = world.connect(version);
        nobody.client.say(HEAD);
        world.settle(&mut nobody);
        assert!(nobody.client.heard().starts_with(b"HTTP/1.1 401 "));
        let foreign = [&HEAD[..HEAD.len() - 2], b"Origin: https://evil.example\r\n\r\n"].concat();
        let mut lured = world.certified("alice", version, &foreign);
        assert!(
            lured.client.heard().starts_with(b"HTTP/1.1 403 "),
            "a browser shows it to any page"
        );
    }
}

#[test]
fn a_certificate_without_a_name_and_one_that_has_ended_let_nobody_in() {
    let access = Access {
        mode: Mode::Token,
        sources: SourceRules { order: vec![Source::Certificate], ..SourceRules::default() },
        ..Access::default()
    };
    let limits = HeadLimits::default();
    let parsed = parse(HEAD, &limits).expect("in order").expect("whole");
    let upgrade = upgrade(&parsed.head).expect("an upgrade");
    let admit = |subject: &str, now| {
        let peer = Peer { subject: subject.to_owned(), ends: 1000 };
        access.admit(&parsed.head, &upgrade, Some(&peer), Source::Message, now).map(|_| ())
    };
    assert_eq!(admit("CN=alice", 999), Ok(()));
    assert_eq!(admit("CN=alice", 1030), Err(Denied::Token(TokenError::Expired)));
    let unnamed = Err(Denied::Token(TokenError::Claim(Claimed::User)));
    assert_eq!(admit("", 999), unnamed);
    assert_eq!(admit(&"x".repeat(200), 999), unnamed);
}

#[test]
fn a_new_configuration_holds_for_those_who_come_after() {
    let mut world = world();
    let mut old = world.open(Spoken::Tls13);
    let authority = Authority::new();
    let secure = listener(any_config(&authority), 4);
    world.rig.take(Mail::Settings(Arc::new(opened(settings(), secure))));
    let before = std::mem::replace(&mut world.authority, authority);
    world.open(Spoken::Tls13);
    world.say(&mut old, r#"{"type":"throng:ping"}"#);
    assert_eq!(frames(&old.client.heard()).len(), 1);
    world.authority = before;
    let mut stranger = world.connect(Spoken::Tls13);
    let hello = stranger.client.output();
    world.rig.receive(stranger.conn, &hello);
    world.rig.settle();
    let flight = world.rig.bytes(stranger.conn);
    assert!(stranger.client.input(&flight).is_err(), "the old authority vouches for it no more");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn an_echo_comes_back_whole_in_any_pieces_and_whatever_is_stalled(
        lengths in prop::collection::vec(0..60_000_usize, 1..6),
        pieces in prop::collection::vec(prop_oneof![1..40_usize, 500..5000_usize, 16_000..70_000_usize], 1..9),
        stalls in prop::collection::vec(any::<bool>(), 1..9),
        newest: bool,
    ) {
        let mut world = world();
        let mut friend = world.connect(if newest { Spoken::Tls13 } else { Spoken::Tls12 });
        let head = String::from_utf8_lossy(HEAD).replacen("/ws", "/echo", 1);
        friend.client.say(head.as_bytes());
        world.settle(&mut friend);
        friend.client.heard();
        let mut expected = 0;
        for length in lengths {
            let payload = vec![7; length];
            let whole = frame(0x02, &payload[..length / 2]);
            friend.client.say(&[whole, frame(0x80, &payload[length / 2..])].concat());
            expected += length + match length { 0..=125 => 2, _ => 4 };
        }
        let up = friend.client.output();
        let (mut rest, mut step, mut heard) = (up.as_slice(), 0, 0);
        while !rest.is_empty() {
            let count = pieces[step % pieces.len()].min(rest.len());
            world.rig.receive(friend.conn, &rest[..count]);
            rest = &rest[count..];
            if stalls[step % stalls.len()] {
                world.rig.stalled.insert(friend.conn);
            } else {
                world.rig.stalled.clear();
            }
            if step % 7 == 0 {
                world.rig.turn();
            }
            step += 1;
        }
        world.rig.stalled.clear();
        world.settle(&mut friend);
        heard += friend.client.heard().len();
        prop_assert_eq!(heard, expected);
        prop_assert_eq!(world.rig.shard.counters().queued_bytes, 0);
    }
}
