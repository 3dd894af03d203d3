//! Clients of Socket.IO over real sockets, against what the protocol's description says they see: rows T8, T10,
//! T16, A2, A5, L2 and R15. The library itself is tried in `tests/socketio`.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::{Message, WebSocket};

use crate::admin::{ask, with_admin};
use crate::auth::{enter, guarded, knock, status, token};
use crate::backend::{Backend, Posted, SHARED, ok};
use crate::support::{Client, PATIENCE, node, on_both_drivers, wait_for, wait_until};

const PATH: &str = "server.socketio_path=/socket.io/";
const TARGET: &str = "/socket.io/?EIO=4&transport=websocket";

/// A client of Socket.IO that answers pings.
pub(crate) struct Packets {
    socket: WebSocket<TcpStream>,
    opening: Value,
    next_ack: u64,
    /// What came before something that was waited for.
    kept: VecDeque<String>,
}

impl Packets {
    /// One that has read the first packet.
    fn open(address: SocketAddr, headers: &[(&'static str, &str)]) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut request = format!("ws://{address}{TARGET}").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (socket, _) = tungstenite::client(request, stream).expect("an upgrade");
        let (opening, kept) = (Value::Null, VecDeque::new());
        let mut client = Self { socket, opening, next_ack: 0, kept };
        client.opening = behind(&client.next(), "0");
        client
    }

    /// One that has connected and was greeted: itself, and the greeting.
    fn connect(address: SocketAddr, shown: Option<&Value>) -> (Self, Value) {
        let mut client = Self::open(address, &[]);
        client.say(&format!("40{}", shown.map(Value::to_string).unwrap_or_default()));
        assert!(behind(&client.next(), "40")["sid"].is_string());
        let greeting = behind(&client.next(), "42");
        assert_eq!(greeting[0], "throng:connected");
        (client, greeting[1].clone())
    }

    fn say(&mut self, packet: &str) {
        self.socket.send(Message::text(packet)).expect("a write");
    }

    fn emit(&mut self, event: &Value) {
        self.say(&format!("42{event}"));
    }

    /// Sends an event that waits for its acknowledgement; what comes before that is kept.
    fn ask(&mut self, event: &Value) -> Value {
        self.next_ack += 1;
        self.say(&format!("42{}{event}", self.next_ack));
        let begins = format!("43{}", self.next_ack);
        let mut before = VecDeque::new();
        loop {
            let packet = self.next();
            if packet.starts_with(&begins) {
                self.kept = before;
                return behind(&packet, &begins)[0].clone();
            }
            before.push_back(packet);
        }
    }

    /// The next packet that is no ping.
    fn next(&mut self) -> String {
        self.try_next().expect("a packet and not the end")
    }

    /// The same; the code of the close frame at the end.
    fn try_next(&mut self) -> Result<String, u16> {
        if let Some(kept) = self.kept.pop_front() {
            return Ok(kept);
        }
        loop {
            match self.socket.read().expect("a message") {
                Message::Text(text) if text.as_str() == "2" => self.say("3"),
                Message::Text(text) => return Ok(text.to_string()),
                Message::Close(frame) => return Err(frame.map_or(1005, |frame| frame.code.into())),
                other => panic!("{other:?}"),
            }
        }
    }

    fn event(&mut self) -> Value {
        behind(&self.next(), "42")
    }

    fn join(&mut self, room: &str) {
        let reply = self.ask(&json!(["throng:join", {"room": room}]));
        assert_eq!(reply["ok"], true, "{reply}");
    }
}

fn behind(packet: &str, begins: &str) -> Value {
    let json = packet.strip_prefix(begins).unwrap_or_else(|| panic!("{packet}: not {begins}"));
    serde_json::from_str(json).expect("JSON")
}

on_both_drivers! {
    /// Clients of both kinds on both shards, and what each publishes.
    fn clients_of_socket_io_and_of_the_json_protocol_share_rooms(driver) {
        let node = node(driver, &[PATH]);
        let address = node.address();
        let mut packets: Vec<Packets> = (0..6).map(|_| Packets::connect(address, None).0).collect();
        packets.iter_mut().for_each(|client| client.join("lobby"));
        let mut sockets: Vec<Client> = (0..6).map(|_| Client::connect(address)).collect();
        for socket in &mut sockets {
            socket.join("lobby");
        }
        for number in 0..100 {
            if number % 2 == 0 {
                sockets[0].send(&json!({"type": "x", "room": "lobby", "payload": {"n": number}}));
            } else {
                let reply = packets[0].ask(&json!(["x", {"n": number}, {"room": "lobby"}]));
                assert_eq!(reply["ok"], true);
            }
            for client in &mut packets {
                let event = client.event();
                assert_eq!((&event[0], &event[1]["n"]), (&json!("x"), &json!(number)));
                assert_eq!(event[2]["offset"], json!(number + 1));
            }
            for socket in &mut sockets {
                let push = socket.next();
                assert_eq!((&push["payload"]["n"], &push["offset"]), (&json!(number), &json!(number + 1)));
            }
        }
        wait_for(&node, "all are counted", |c| c.packet_connections == 6 && c.open_connections == 12);
        drop(packets);
        wait_for(&node, "none is left", |c| c.packet_connections == 0 && c.open_connections == 6);
    }

    fn what_was_missed_comes_in_packets_to_who_comes_back_with_a_cursor(driver) {
        let node = node(driver, &[PATH, "namespace=[{pattern=\"*\", history_count=100}]"]);
        // A room that nobody is in and that has no history yet would begin anew.
        let (mut keeper, _) = Packets::connect(node.address(), None);
        keeper.join("log");
        let (mut first, _) = Packets::connect(node.address(), None);
        let joined = first.ask(&json!(["throng:join", {"room": "log"}]));
        drop(first);
        let mut author = Client::connect(node.address());
        for number in 0..20 {
            author.ask(json!({"type": "line", "room": "log", "payload": number, "id": number}));
        }
        let (mut again, _) = Packets::connect(node.address(), None);
        let since = json!({"epoch": joined["epoch"], "offset": joined["offset"]});
        let reply = again.ask(&json!(["throng:join", {"room": "log", "since": since}]));
        assert_eq!(reply["recovered"], true, "{reply}");
        for number in 0..20 {
            let event = again.event();
            assert_eq!((&event[1], &event[2]["offset"]), (&json!(number), &json!(number + 1)));
        }
    }

    /// Whichever shard it comes back to: the library's own words for it, and no cursor of the application's.
    fn a_lost_client_is_recovered_with_all_it_missed_or_is_told_that_it_is_a_new_one(driver) {
        let sets = ["server.socketio_recovery_ms=60000",
            "namespace=[{pattern=\"log*\", history_count=100}]"];
        let node = node(driver, &[PATH, "server.shards=4", sets[0], sets[1]]);
        let (mut author, _) = Packets::connect(node.address(), None);
        let (mut keeper, _) = Packets::connect(node.address(), None);
        ["log-a", "log-b", "talk"].iter().for_each(|room| keeper.join(room));
        let mut shown = json!({});
        let (mut client, mut sent) = (None::<Packets>, 0);
        for round in 0..12 {
            let mut back = Packets::open(node.address(), &[]);
            back.say(&format!("40{shown}"));
            let entered = behind(&back.next(), "40");
            assert_eq!(round > 0, entered["pid"] == shown["pid"], "{round}: {entered}");
            shown["pid"] = entered["pid"].clone();
            assert_eq!(back.event()[0], "throng:connected");
            if round == 0 {
                ["log-a", "log-b", "talk"].iter().for_each(|room| back.join(room));
            }
            let mut heard: Vec<u64> = Vec::new();
            while (heard.len() as u64) < if round == 0 { 0 } else { 20 } {
                let event = back.event();
                heard.extend(event[1].as_u64());
                shown["offset"] = event[3].clone();
            }
            heard.sort_unstable();
            assert_eq!(heard, (sent - heard.len() as u64..sent).collect::<Vec<_>>(), "{round}");
            client = Some(back);
            for number in sent..sent + 20 {
                let room = if number % 3 == 0 { "log-a" } else { "log-b" };
                if number == sent + 10 {
                    // What is on its way now may reach it or not; nobody reads it.
                    client = None;
                }
                assert_eq!(author.ask(&json!(["line", number, {"room": room}]))["ok"], true);
            }
            sent += 20;
        }
        drop(client);
        wait_for(&node, "it is lost", |c| c.open_connections == 2 && c.lost_clients == 1);
        // Of this room nothing is kept.
        assert_eq!(author.ask(&json!(["line", 0, {"room": "talk"}]))["ok"], true);
        let mut back = Packets::open(node.address(), &[]);
        back.say(&format!("40{shown}"));
        assert_ne!(behind(&back.next(), "40")["pid"], shown["pid"]);
        assert_eq!(back.event()[0], "throng:connected");
        wait_for(&node, "all are counted", |c| {
            c.recalled_total == 11 && c.unrecalled_total == 1 && c.lost_clients == 0
        });
    }

    fn other_versions_and_transports_are_refused_and_counted(driver) {
        let sets = with_admin(r#""inspect""#);
        let closed = node(driver, &[]);
        assert_eq!(status(&knock(closed.address(), TARGET, &[])), "404", "it is off by default");
        let node = node(driver, &[PATH, &sets[0], &sets[1]]);
        for (query, body) in [
            ("EIO=3&transport=websocket", r#"{"code":5,"message":"Unsupported protocol version"}"#),
            ("EIO=4&transport=carrier", r#"{"code":0,"message":"Transport unknown"}"#),
        ] {
            let answer = knock(node.address(), &format!("/socket.io/?{query}"), &[]);
            assert_eq!(status(&answer), "400", "{answer}");
            assert!(answer.trim_end().ends_with(body), "{answer}");
        }
        let admin = node.admin_address().expect("an admin listener");
        wait_until("both are counted by reason", || {
            let (_, text) = ask(admin, "GET /metrics", "");
            text.contains("throng_socketio_refused_total{reason=\"eio_version\"} 1\n")
                && text.contains("throng_socketio_refused_total{reason=\"transport\"} 1\n")
        });
        let (mut client, _) = Packets::connect(node.address(), None);
        client.join("lobby");
        let (_, seen) = ask(admin, "GET /v1/connections?room=lobby", "");
        assert!(seen.contains("\"transport\":\"socketio\""), "{seen}");
    }

    fn the_first_packet_has_the_times_of_the_configuration_and_they_are_kept(driver) {
        let times = ["heartbeat.ping_interval_ms=1000", "heartbeat.ping_timeout_ms=1000"];
        let node = node(driver, &[PATH, times[0], times[1], "limits.max_message_bytes=2048"]);
        let mut talker = Packets::open(node.address(), &[]);
        for (field, value) in [("pingInterval", 1000), ("pingTimeout", 1000), ("maxPayload", 2048)] {
            assert_eq!(talker.opening[field], value, "{}", talker.opening);
        }
        assert_eq!(talker.opening["upgrades"], json!([]));
        talker.say("40");
        // The first one answers pings while it reads, the second one never.
        let (mut mute, _) = Packets::connect(node.address(), None);
        while node.counters().heartbeat_lost_total == 0 {
            talker.emit(&json!(["throng:ping"]));
            while !talker.next().contains("throng:pong") {}
        }
        assert_eq!(node.counters().open_connections, 1, "who answers stays");
        assert!(node.counters().pings_total >= 2);
        let end = std::iter::from_fn(|| mute.socket.read().ok()).last();
        assert!(!matches!(end, Some(Message::Close(_))), "nobody is there to read one: {end:?}");
    }

    fn a_message_over_the_limit_is_closed_with_1009(driver) {
        let node = node(driver, &[PATH, "limits.max_message_bytes=2048"]);
        let (mut client, _) = Packets::connect(node.address(), None);
        client.emit(&json!(["x", "a".repeat(3000), {"room": "r"}]));
        let mut last = client.try_next();
        while let Ok(packet) = &last {
            assert!(packet.starts_with("42[\"throng:close\"") || packet == "41", "{packet}");
            last = client.try_next();
        }
        assert_eq!(last, Err(1009));
    }

    fn a_token_may_stand_in_the_payload_of_the_connect_and_a_bad_one_is_told_there(driver) {
        let node = guarded(driver, &[PATH, r#"auth.sources=["header", "payload"]"#]);
        let good = token(&json!({"sub": "ada", "rooms": ["lobby"]}));
        let (mut client, greeting) = Packets::connect(node.address(), Some(&json!({"token": good})));
        assert_eq!(greeting["userId"], "ada");
        client.join("lobby");
        let late = token(&json!({"sub": "ada", "exp": 1000}));
        for (headers, shown) in [
            (None, Some(json!({ "token": late }))),
            (None, Some(json!({"token": "x"}))),
            (None, None),
            (Some(format!("Bearer {late}")), None),
        ] {
            let headers: Vec<_> = headers.iter().map(|value| ("authorization", &value[..])).collect();
            let mut client = Packets::open(node.address(), &headers);
            if headers.is_empty() {
                client.say(&format!("40{}", shown.map(|shown| shown.to_string()).unwrap_or_default()));
            }
            let refusal = behind(&client.next(), "44");
            assert!(refusal["message"].as_str().is_some_and(|words| !words.is_empty()), "{refusal}");
            assert_eq!(refusal["data"]["code"], "unauthorized");
            assert_eq!(client.try_next(), Err(1008));
        }
        wait_for(&node, "one is here", |c| c.open_connections == 1 && c.authenticated_connections == 1);
        // The same place is none for the JSON protocol, whose clients have a first message.
        assert_eq!(status(&knock(node.address(), "/ws", &[])), "401");
        let mut socket = enter(node.address(), &json!({"sub": "bob", "rooms": ["lobby"]}));
        socket.join("lobby");
        client.emit(&json!(["hello", 1, {"room": "lobby"}]));
        assert_eq!(socket.next()["type"], "hello");
    }

    fn the_back_end_refuses_with_its_words_whichever_way_a_token_came(driver) {
        let doorkeeper = |posted: &Posted| {
            let is_bad = posted.body["userId"].as_str().is_none_or(|user| user.starts_with('b'));
            let no = r#"{"allow":false,"code":401,"message":"your account is suspended"}"#;
            ok(if is_bad { no } else { r#"{"allow":true}"# })
        };
        let back = Backend::open(doorkeeper);
        let url = format!("auth_webhook.url={}", back.url());
        let secret = format!("auth_webhook.secret={SHARED}");
        let sources = r#"auth.sources=["header", "payload"]"#;
        let node = guarded(driver, &[PATH, sources, &url, &secret, "auth_webhook.connect=true"]);
        let bearer = |user: &str| format!("Bearer {}", token(&json!({ "sub": user })));
        let mut refused = Packets::open(node.address(), &[("authorization", &bearer("bob"))]);
        assert_eq!(behind(&refused.next(), "44")["message"], "your account is suspended");
        assert_eq!(refused.try_next(), Err(1008));
        let mut refused = Packets::open(node.address(), &[]);
        refused.say(&format!("40{}", json!({"token": token(&json!({"sub": "bob"}))})));
        assert_eq!(behind(&refused.next(), "44")["message"], "your account is suspended");
        let mut client = Packets::open(node.address(), &[("authorization", &bearer("ada"))]);
        client.say("40");
        assert!(behind(&client.next(), "40")["sid"].is_string());
        assert_eq!(client.event()[1]["userId"], "ada");
        let shown = json!({"token": token(&json!({"sub": "ann"}))});
        assert_eq!(Packets::connect(node.address(), Some(&shown)).1["userId"], "ann");
    }
}
