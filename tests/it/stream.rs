//! Event streams over real sockets: what a WebSocket of the same rooms gets, through a stock nginx as well.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use throng::node::Node;
use throng::sys::clock::Clock;
use tungstenite::Message;

use crate::admin::{ask, with_admin};
use crate::auth::{enter, guarded, token};
use crate::metrics::is_installed;
use crate::support::{Client, PATIENCE, node, on_both_drivers, wait_for, wait_until};

/// One who reads an event stream.
pub(crate) struct Listener {
    reader: BufReader<TcpStream>,
    head: Vec<String>,
}

/// An event: its id and its text.
pub(crate) type Event = (Option<String>, Value);

impl Listener {
    pub(crate) fn connect(address: SocketAddr, target: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut listener = Self { reader: BufReader::new(stream), head: Vec::new() };
        loop {
            let line = listener.line().expect("a head");
            if line.is_empty() {
                return listener;
            }
            listener.head.push(line);
        }
    }

    /// One who has read the greeting and the replies.
    pub(crate) fn settled(address: SocketAddr, target: &str) -> Self {
        let mut listener = Self::connect(address, target, "");
        assert_eq!(listener.next().1["type"], "throng:connected");
        for _ in 0..target.matches("room=").count() {
            let reply = listener.next().1;
            assert_eq!(reply["ok"], true, "{reply}");
        }
        listener
    }

    /// The next line without its end; `None` at the end of the stream.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.reader.read_line(&mut line).expect("a line");
        (read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// The next event; comments and the lines of a proxy's chunks are passed over.
    pub(crate) fn next(&mut self) -> Event {
        self.try_next().expect("an event and not the end")
    }

    fn try_next(&mut self) -> Option<Event> {
        let (id, text) = self.try_text()?;
        Some((id, serde_json::from_str(&text).expect("JSON")))
    }

    /// The next event's text as a page has it: lines of data are joined by LF.
    fn try_text(&mut self) -> Option<(Option<String>, String)> {
        let (mut id, mut data) = (None, Vec::new());
        loop {
            let line = self.line()?;
            match line.split_once(": ") {
                Some(("id", value)) => id = Some(value.to_owned()),
                Some(("data", value)) => data.push(value.to_owned()),
                _ if line.is_empty() && !data.is_empty() => return Some((id, data.join("\n"))),
                _ => {}
            }
        }
    }

    pub(crate) fn status(&self) -> &str {
        &self.head[0][9..12]
    }
}

on_both_drivers! {
    fn a_stream_that_a_back_end_sends_away_is_told_the_code_and_its_words(driver) {
        let sets = with_admin(r#""inspect", "revoke""#);
        let node = node(driver, &[&sets[0], &sets[1]]);
        let admin = node.admin_address().expect("an admin listener");
        let mut listener = Listener::settled(node.address(), "/sse?room=lobby");
        let (_, seen) = ask(admin, "GET /v1/connections?room=lobby", "");
        assert!(seen.contains("\"transport\":\"sse\""), "{seen}");
        wait_until("the figures tell streams apart", || {
            let (_, text) = ask(admin, "GET /metrics", "");
            text.contains("throng_sessions{transport=\"sse\"} 1\n")
                && text.contains("throng_sessions{transport=\"websocket\"} 0\n")
        });
        let order = r#"{"room":"lobby","code":4100,"reason":"the game is over"}"#;
        let answer = (200, "{\"disconnected\":1}\n".to_owned());
        assert_eq!(ask(admin, "POST /v1/disconnect", order), answer);
        let close = json!({"type": "throng:close", "code": 4100, "reason": "the game is over"});
        assert_eq!(listener.next().1, close);
        assert_eq!(listener.try_next(), None, "the end of the stream");
    }

    /// Listeners and sockets on both shards, a publisher on one of them.
    fn a_stream_and_a_websocket_get_the_same(driver) {
        let node = node(driver, &[]);
        let address = node.address();
        let mut listeners: Vec<Listener> =
            (0..8).map(|_| Listener::settled(address, "/sse?room=lobby&room=news%20of%20the%20day")).collect();
        let mut sockets: Vec<Client> = (0..4).map(|_| Client::connect(address)).collect();
        for socket in &mut sockets {
            socket.join("lobby");
            socket.join("news of the day");
        }
        let mut author = Client::connect(address);
        for number in 0..200 {
            let room = if number % 5 == 0 { "news of the day" } else { "lobby" };
            author.send(&json!({"type": "x", "room": room, "payload": format!("a\r\nb\u{2028}{number}")}));
        }
        author.send(&json!({"type": "x", "rooms": ["lobby", "news of the day"], "payload": "both"}));
        let of_room = |texts: &[Value], room: &str| -> Vec<Value> {
            texts.iter().filter(|text| text["room"] == room).cloned().collect()
        };
        let heard: Vec<Vec<Value>> =
            sockets.iter_mut().map(|socket| (0..201).map(|_| socket.next()).collect()).collect();
        for listener in &mut listeners {
            let events: Vec<Event> = (0..201).map(|_| listener.next()).collect();
            let texts: Vec<Value> = events.iter().map(|(_, text)| text.clone()).collect();
            for (id, text) in &events {
                let id = id.as_deref().expect("an id");
                assert!(id.ends_with(&format!(".{}.{}", text["offset"], text["room"].as_str().unwrap())));
            }
            // Which room the last one comes from is the shards' affair; the order within a room is not.
            for room in ["lobby", "news of the day"] {
                let mine = of_room(&texts, room);
                let theirs = of_room(&heard[0], room);
                let least = mine.len().min(theirs.len());
                assert_eq!(mine[..least], theirs[..least]);
                assert!(mine.len().abs_diff(theirs.len()) <= 1);
            }
        }
    }

    /// By a client and by a back end: what is between the tokens and what the strings say.
    fn a_payload_in_lines_is_byte_for_byte_the_same_by_a_stream_and_by_a_websocket(driver) {
        let sets = with_admin(r#""publish""#);
        let node = node(driver, &[&sets[0], &sets[1]]);
        let mut listener = Listener::settled(node.address(), "/sse?room=lobby");
        let mut socket = Client::connect(node.address());
        socket.join("lobby");
        let payload = "{\r\n  \"a\": \"one\\r\\ntwo\\nthree\u{2028}\",\r\n\r\t\"b\": [1,\n2]\r\n}";
        let order = format!(r#"{{"type":"x","room":"lobby","payload":{payload}}}"#);
        socket.send_text(&order);
        let admin = node.admin_address().expect("an admin listener");
        let mut texts = Vec::new();
        for by_back_end in [false, true] {
            if by_back_end {
                assert_eq!(ask(admin, "POST /v1/publish", &order).0, 200);
            }
            let Message::Text(text) = socket.next_message() else { panic!("no text") };
            let (_, event) = listener.try_text().expect("an event");
            assert_eq!(event, text.as_str());
            texts.push(event);
        }
        let lines = payload.replace("\r\n", "\n").replace('\r', "\n");
        for text in texts {
            assert!(text.contains(&format!(r#""payload":{lines}"#)), "{text:?}");
        }
    }

    /// One by one and in batches; a publication's number is its place in the room for everybody.
    fn what_is_published_over_http_reaches_sockets_and_streams_in_one_order_with_the_same_ids(driver) {
        let sets = with_admin(r#""publish""#);
        let node = node(driver, &[&sets[0], &sets[1]]);
        let admin = node.admin_address().expect("an admin listener");
        let mut sockets: Vec<Client> = (0..3).map(|_| Client::connect(node.address())).collect();
        for socket in &mut sockets {
            socket.join("lobby");
        }
        let mut listeners: Vec<Listener> =
            (0..3).map(|_| Listener::settled(node.address(), "/sse?room=lobby")).collect();
        let publication = |number: u64| {
            json!({"type": "x", "room": "lobby", "id": format!("p{number}"), "payload": number})
        };
        for ten in 0..6 {
            let numbers = ten * 10..(ten + 1) * 10;
            if ten % 2 == 0 {
                for number in numbers {
                    let body = publication(number).to_string();
                    assert_eq!(ask(admin, "POST /v1/publish", &body).0, 200);
                }
            } else {
                let batch: Vec<Value> = numbers.map(publication).collect();
                let body = Value::from(batch).to_string();
                let (status, answer) = ask(admin, "POST /v1/publish", &body);
                assert_eq!(status, 200, "{answer}");
            }
        }
        let expected: Vec<Value> =
            (0..60).map(|number| json!([number + 1, format!("p{number}"), number])).collect();
        let seen = |text: &Value| json!([text["offset"], text["id"], text["payload"]]);
        for socket in &mut sockets {
            let heard: Vec<Value> = (0..60).map(|_| seen(&socket.next())).collect();
            assert_eq!(heard, expected);
        }
        for listener in &mut listeners {
            let heard: Vec<Event> = (0..60).map(|_| listener.next()).collect();
            let texts: Vec<Value> = heard.iter().map(|(_, text)| seen(text)).collect();
            assert_eq!(texts, expected);
            for (id, text) in &heard {
                let id = id.as_deref().expect("an id");
                assert!(id.ends_with(&format!(".{}.lobby", text["offset"])), "{id} of {text}");
            }
        }
    }

    fn the_same_room_is_read_by_websocket_by_stream_and_by_plain_http(driver) {
        let node = node(driver, &[r#"namespace=[{pattern="*", history_count=50}]"#]);
        let address = node.address();
        let mut listener = Listener::settled(address, "/sse?room=lobby");
        let mut socket = Client::connect(address);
        socket.join("lobby");
        let mut author = Client::connect(address);
        for number in 0..20 {
            author.send(&json!({"type": "x", "room": "lobby", "payload": number}));
        }
        let heard: Vec<Value> = (0..20).map(|_| socket.next()).collect();
        let events: Vec<Event> = (0..20).map(|_| listener.next()).collect();
        let read = |query: &str| -> Value {
            let request = format!("GET /history?{query} HTTP/1.1\r\nHost: a\r\n\r\n");
            let response = crate::support::exchange(address, request.as_bytes());
            let (head, body) = response.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with("HTTP/1.1 200 "), "{response}");
            serde_json::from_str(body).expect("JSON")
        };
        // Every shard answers, the home and the other one.
        for _ in 0..8 {
            assert_eq!(read("room=lobby")["messages"], json!(heard));
            // On from an event by its id, and again from what came of that.
            let seen = events[14].0.as_deref().expect("an id");
            let page = read(&format!("room=lobby&limit=2&since={seen}"));
            assert_eq!((&page["messages"], &page["more"]), (&json!(heard[15..17]), &json!(true)));
            let since = format!("{}.{}", page["epoch"].as_str().unwrap(), page["messages"][1]["offset"]);
            let page = read(&format!("room=lobby&since={since}"));
            assert_eq!((&page["messages"], &page["more"]), (&json!(heard[17..]), &json!(false)));
        }
        wait_for(&node, "readers leave nothing", |c| c.connections == 3 && c.memberships == 2);
    }

    fn a_listener_whose_token_is_missing_or_wrong_is_refused_like_anybody(driver) {
        let node = node(driver, &["auth.mode=token", "auth.secret=0123456789abcdef0123456789abcdef",
            "auth.sources=[\"header\", \"query\"]"]);
        for (target, headers) in [("/sse?room=a", ""), ("/sse?room=a&token=x.y.z", ""),
            ("/sse?room=a", "Authorization: Bearer x.y.z\r\n")] {
            assert_eq!(Listener::connect(node.address(), target, headers).status(), "401");
        }
        let counters = node.counters();
        assert_eq!((counters.stream_connections, counters.memberships), (0, 0));
    }

    fn pages_of_other_origins_are_refused_before_and_with_the_request(driver) {
        let node = node(driver, &["auth.allowed_origins=[\"https://app.example\"]"]);
        let (address, good, bad) = (node.address(), "Origin: https://app.example\r\n", "Origin: https://evil.example\r\n");
        let good = Listener::connect(address, "/sse?room=a", good);
        assert_eq!(good.status(), "200");
        assert!(good.head.iter().any(|line| line == "Access-Control-Allow-Origin: https://app.example"));
        assert!(!good.head.iter().any(|line| line.ends_with('*')));
        assert_eq!(Listener::connect(address, "/sse?room=a", bad).status(), "403");
        for (origin, status) in [("https://app.example", "200"), ("https://evil.example", "403")] {
            let request = format!("GET /history?room=a HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\n\r\n");
            let response = crate::support::exchange(address, request.as_bytes());
            assert_eq!(&response[9..12], status, "{response}");
            assert_eq!(response.contains("Access-Control-Allow-Origin"), status == "200");
        }
        for (origin, status) in [("https://app.example", "204"), ("https://evil.example", "403")] {
            let request = format!("OPTIONS /sse?room=a HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\n\r\n");
            let response = crate::support::exchange(address, request.as_bytes());
            assert_eq!(&response[9..12], status, "{response}");
            assert_eq!(response.contains("Access-Control-Allow-Origin"), status == "204");
        }
    }

    /// Row A10: `*` may not stand beside credentials, so a page is named or nobody is.
    fn an_answer_to_a_page_names_that_page_with_credentials_and_never_everybody(driver) {
        for (origins, welcome) in [
            (r#"["https://app.example"]"#, false),
            (r#"["*"]"#, true),
            (r#"["*.example"]"#, true),
            ("[]", true),
        ] {
            let rule = format!("auth.allowed_origins={origins}");
            let node = node(driver, &[&rule, "server.socketio_path=/socket.io/"]);
            for (origin, is_welcome) in [("https://app.example", true), ("https://other.example", welcome)] {
                for (line, body) in [
                    ("GET /sse?room=a HTTP/1.0", "200"),
                    ("OPTIONS /sse?room=a HTTP/1.1", "204"),
                    ("GET /history?room=a HTTP/1.1", "200"),
                    ("GET /socket.io/?EIO=4&transport=polling HTTP/1.1", "200"),
                ] {
                    let asked = "Access-Control-Request-Method: GET\r\nConnection: close";
                    let request = format!("{line}\r\nHost: a\r\nOrigin: {origin}\r\n{asked}\r\n\r\n");
                    let mut socket = TcpStream::connect(node.address()).unwrap();
                    socket.write_all(request.as_bytes()).unwrap();
                    let head = crate::front::read_head(&mut socket);
                    let expected = if is_welcome { body } else { "403" };
                    assert_eq!(&head[9..12], expected, "{origins} {line} {origin}: {head}");
                    let named = format!("Access-Control-Allow-Origin: {origin}\r\n");
                    let credentials = head.contains("Access-Control-Allow-Credentials: true\r\n");
                    assert_eq!((head.contains(&named), credentials), (is_welcome, is_welcome), "{head}");
                    assert!(!head.contains("Allow-Origin: *"), "{head}");
                }
            }
        }
    }

    /// Row A16: a name is another room for each tenant, whichever way one comes in.
    fn listeners_and_readers_of_one_tenant_get_nothing_of_anothers_room(driver) {
        let rule = r#"namespace=[{pattern="*", history_count=8}]"#;
        let node = guarded(driver, &[rule, r#"auth.sources=["header"]"#]);
        let of = |tenant: &str| json!({"sub": "ada", "tenant": tenant, "rooms": ["*"]});
        let headers = |tenant: &str| format!("Authorization: Bearer {}\r\n", token(&of(tenant)));
        let mut listeners = ["x", "y"].map(|tenant| {
            let mut listener = Listener::connect(node.address(), "/sse?room=lobby", &headers(tenant));
            assert_eq!(listener.next().1["type"], "throng:connected");
            assert_eq!(listener.next().1["ok"], json!(true));
            listener
        });
        let mut authors = ["x", "y"].map(|tenant| enter(node.address(), &of(tenant)));
        for (author, payload) in authors.iter_mut().zip(["of x", "of y"]) {
            let said = json!({"type": "t", "room": "lobby", "payload": payload});
            assert_eq!(author.ask(said)["ok"], json!(true));
        }
        for (listener, (tenant, payload)) in listeners.iter_mut().zip([("x", "of x"), ("y", "of y")]) {
            assert_eq!(listener.next().1["payload"], payload, "and nothing before it");
            let lines = format!("Host: a\r\nConnection: close\r\n{}", headers(tenant));
            let request = format!("GET /history?room=lobby HTTP/1.1\r\n{lines}\r\n");
            let answer = crate::support::exchange(node.address(), request.as_bytes());
            let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
            let page: Value = serde_json::from_str(body).unwrap();
            let payloads: Vec<&Value> =
                page["messages"].as_array().expect("a list").iter().map(|it| &it["payload"]).collect();
            assert_eq!(payloads, [payload]);
        }
    }

    fn streams_that_come_and_go_leave_nothing(driver) {
        let node = node(driver, &[]);
        for _ in 0..40 {
            let all: Vec<Listener> =
                (0..50).map(|_| Listener::settled(node.address(), "/sse?room=a&room=b")).collect();
            drop(all);
        }
        wait_for(&node, "everybody has gone", |c| c.connections == 0 && c.home_rooms == 0);
        let counters = node.counters();
        assert_eq!((counters.stream_connections, counters.memberships), (0, 0));
        assert_eq!(counters.queued_bytes, 0);
        assert_eq!(counters.handshakes_total, 2000);
    }

    /// As a browser does whose connection broke: it comes back with the id of the last event it saw.
    fn a_listener_that_comes_back_gets_what_it_has_missed_and_nothing_twice(driver) {
        let rule = "namespace=[{pattern = \"log:*\", history_count = 100, history_age_ms = 60000}]";
        let node = node(driver, &[rule]);
        let address = node.address();
        let mut author = Client::connect(address);
        let mut say = |number: u64| {
            let ok = author.ask(json!({"type": "x", "room": "log:a", "payload": number}));
            assert_eq!(ok["ok"], true);
        };
        let (mut last, mut seen) = (None, Vec::new());
        for round in 0..5u64 {
            let target = "/sse?room=log:a";
            let headers = last.as_ref().map_or(String::new(), |last| format!("Last-Event-ID: {last}\r\n"));
            let mut listener = Listener::connect(address, target, &headers);
            assert_eq!(listener.next().1["type"], "throng:connected");
            let reply = listener.next().1;
            assert_eq!(reply["recovered"].as_bool(), last.as_ref().map(|_| true), "{reply}");
            (0..4).for_each(|number| say(round * 10 + number));
            // What was said while nobody listened comes first.
            let missed = if round == 0 { 0 } else { 3 };
            for _ in 0..missed + 4 {
                let (id, event) = listener.next();
                seen.push(event["payload"].as_u64().expect("a number"));
                last = id;
            }
            drop(listener);
            wait_for(&node, "the listener has gone", |c| c.stream_connections == 0);
            (4..7).for_each(|number| say(round * 10 + number));
        }
        seen.extend([44, 45, 46]);
        let all: Vec<u64> = (0..5).flat_map(|round| (0..7).map(move |n| round * 10 + n)).collect();
        assert_eq!(seen, all);
        let gone = Listener::connect(address, "/sse?room=log:a", "Last-Event-ID: 1.99.log:a\r\n");
        let mut gone = gone;
        let types: Vec<Value> = (0..3).map(|_| gone.next().1["type"].clone()).collect();
        assert!(types.contains(&json!("throng:resync")), "{types:?}");
    }

    /// The rooms have their homes on both shards, and some have told nothing before the stream breaks.
    fn a_listener_of_several_rooms_comes_back_to_all_of_them(driver) {
        const ROOMS: [&str; 6] = ["log:a", "log:b", "log:c", "log:d", "log:e", "log:f"];
        let rule = "namespace=[{pattern = \"log:*\", history_count = 100, history_age_ms = 60000}]";
        let node = node(driver, &[rule]);
        let address = node.address();
        let mut author = Client::connect(address);
        let mut say = |room: &str, number: usize| {
            let ok = author.ask(json!({"type": "x", "room": room, "payload": number}));
            assert_eq!(ok["ok"], true);
        };
        // A room of which nothing is kept ends with its last member, and begins anew.
        ROOMS.iter().for_each(|room| say(room, 99));
        let target = ROOMS.map(|room| format!("room={room}")).join("&");
        let (mut last, mut heard) = (String::new(), vec![Vec::new(); ROOMS.len()]);
        for round in 0..4 {
            let headers = if round == 0 { String::new() } else { format!("Last-Event-ID: {last}\r\n") };
            let mut listener = Listener::connect(address, &format!("/sse?{target}"), &headers);
            let mut replies = 0;
            let mut expected = if round == 0 { 0 } else { ROOMS.len() - 1 };
            while replies < ROOMS.len() || expected > 0 {
                let (id, event) = listener.next();
                last = id.unwrap_or(last);
                if event["payload"].is_u64() {
                    expected -= 1;
                    let room = ROOMS.iter().position(|room| event["room"] == *room).unwrap();
                    heard[room].push(event["payload"].as_u64().unwrap());
                }
                if event["ok"] == true {
                    replies += 1;
                    assert_eq!(event["recovered"].as_bool(), (round > 0).then_some(true), "{event}");
                }
            }
            say(ROOMS[round], 100 + round);
            let (id, event) = listener.next();
            assert_eq!(event["payload"], 100 + round);
            heard[round].push(100 + round as u64);
            last = id.unwrap();
            drop(listener);
            wait_for(&node, "the listener has gone", |c| c.stream_connections == 0);
            ROOMS[1..].iter().for_each(|room| say(room, round));
        }
        for (room, heard) in heard.iter().enumerate() {
            let own = |round: usize| (round == room).then_some(100 + round as u64);
            let missed = |round: usize| (room > 0 && round < 3).then_some(round as u64);
            let all: Vec<u64> = (0..4).flat_map(|round| [own(round), missed(round)]).flatten().collect();
            assert_eq!(*heard, all, "{}", ROOMS[room]);
        }
    }

    fn a_drain_ends_streams_with_a_reason_and_says_when_to_come_back(driver) {
        let node = node(driver, &["server.drain_timeout_ms=2000"]);
        let mut listener = Listener::settled(node.address(), "/sse?room=a");
        node.drain(std::time::Duration::from_secs(2));
        let mut types = Vec::new();
        while let Some((_, text)) = listener.try_next() {
            types.push(text["type"].as_str().unwrap().to_owned());
        }
        assert_eq!(types, ["throng:reload", "throng:close"]);
    }
}

/// An nginx with its own configuration but for what must be said: where to listen and whom to ask.
struct Nginx {
    child: Child,
    address: SocketAddr,
}

impl Nginx {
    fn before(node: &Node) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let place = std::env::temp_dir().join(format!("throng-nginx-{}", address.port()));
        fs::create_dir_all(&place).unwrap();
        let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {}/{kind};", place.display()));
        let text = format!(
            "daemon off; master_process off; pid {0}/pid; error_log {0}/error.log; events {{}} \
             http {{ access_log off; {1} server {{ listen {address}; \
             location / {{ proxy_pass http://{2}; }} }} }}",
            place.display(),
            paths.join(" "),
            node.address(),
        );
        let file = place.join("nginx.conf");
        fs::write(&file, text).unwrap();
        let child = Command::new("nginx")
            .arg("-p")
            .arg(&place)
            .arg("-c")
            .arg(&file)
            .stderr(Stdio::null())
            .spawn();
        let nginx = Self { child: child.expect("nginx"), address };
        wait_until("nginx listens", || TcpStream::connect(address).is_ok());
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(
            std::env::temp_dir().join(format!("throng-nginx-{}", self.address.port())),
        );
    }
}

/// Such an nginx asks in HTTP/1.0 and buffers what it is not told to pass on at once.
#[test]
fn a_stream_comes_through_an_nginx_that_was_told_nothing_about_it() {
    if !is_installed("nginx") {
        return;
    }
    let node = node("epoll", &[]);
    let nginx = Nginx::before(&node);
    // What buffers keeps everything, always; a machine that is busy is not so every time.
    let clock = Clock::start();
    let first_bytes = (0..5).map(|_| {
        let asked = clock.now();
        let mut listener = Listener::connect(nginx.address, "/sse?room=lobby", "");
        assert_eq!(listener.next().1["type"], "throng:connected");
        clock.now().since(asked)
    });
    let quickest = first_bytes.min().unwrap_or_default();
    assert!(quickest < Duration::from_secs(1), "the first event came after {quickest:?}");
    let mut listener = Listener::settled(nginx.address, "/sse?room=lobby");
    assert!(
        listener
            .head
            .iter()
            .any(|line| line.eq_ignore_ascii_case("content-type: text/event-stream"))
    );
    let mut author = Client::connect(node.address());
    for number in 0..3 {
        author.send(&json!({"type": "x", "room": "lobby", "payload": number}));
        // Each arrives before the next is sent, so nothing waits for a buffer to be full.
        assert_eq!(listener.next().1["payload"], number);
    }
    drop(listener);
    wait_for(&node, "nginx has hung up", |c| c.stream_connections == 0);
}
