//! The log as programs read it: who has gone and why, in JSON, and never a token.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};

use serde_json::{Value, json};

use crate::admin::{SECRET as KEY, ask};
use crate::auth::{SECRET, knock, status, token};
use crate::backend::{Backend, SHARED, ok};
use crate::bridge::cluster::Redis;
use crate::front::{read_head, serving};
use crate::process::Program;
use crate::stream::Listener;
use crate::support::{Client, exchange, on_both_drivers, wait_until};
use crate::tls::client::Files;

/// The lines of a log; each is one object.
fn lines(log: &str) -> Vec<Value> {
    log.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
        .collect()
}

fn start(closings: &str) -> Program {
    let secret = format!("auth.secret={SECRET:?}");
    let closings = format!("log.closings={closings}");
    let sets = [
        "log.format=json",
        &closings,
        "auth.mode=token",
        &secret,
        "auth.require_expiry=false",
        "limits.max_message_bytes=1024",
    ];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    Program::start(&sets)
}

#[test]
fn the_end_of_a_connection_is_one_json_line_with_user_reason_and_bytes_and_no_token() {
    let program = start("all");
    let claims = json!({"sub": "ada", "tenant": "acme", "rooms": ["*"]});
    let text = token(&claims);
    let bearer = format!("Bearer {text}");
    let enter = || Client::connect_with(program.address, "/ws", &[("authorization", &bearer)]);
    let mut good = enter();
    let id = good.id.clone();
    good.expect_silence();
    drop(good);
    let mut large = enter();
    large.send(&json!({"type": "x", "room": "r", "payload": "x".repeat(2000)}));
    assert_eq!(large.close_code(), 1009);
    program.signal("-TERM");
    let (_, log) = program.end();
    let lines = lines(&log);
    let of = |reason: &str| {
        let found = lines.iter().find(|line| line["reason"] == reason);
        found.unwrap_or_else(|| panic!("no {reason} in {log}"))
    };
    let gone = of("vanished");
    assert_eq!(
        (&gone["conn"], &gone["user"], &gone["tenant"]),
        (&json!(id), &json!("ada"), &json!("acme"))
    );
    assert!(gone["received_bytes"].as_u64() > Some(100) && gone["sent_bytes"].as_u64() > Some(100));
    assert!(gone.get("code").is_none() && gone["seconds"].is_f64(), "{gone}");
    let refused = of("violation");
    assert_eq!((&refused["code"], &refused["user"]), (&json!(1009), &json!("ada")));
    assert!(refused["text"].as_str().is_some_and(|text| !text.is_empty()), "{refused}");
    for part in text.split('.').chain([SECRET]) {
        assert!(!log.contains(part), "{part} is in the log:\n{log}");
    }
}

#[test]
fn goodbyes_are_left_out_where_faults_are_asked_for_and_everything_by_default() {
    for (closings, told) in [("faults", 1), ("off", 0)] {
        let program = start(closings);
        let bearer = format!("Bearer {}", token(&json!({"sub": "ada"})));
        let enter = || Client::connect_with(program.address, "/ws", &[("authorization", &bearer)]);
        drop(enter());
        let mut large = enter();
        large.send(&json!({"type": "x", "room": "r", "payload": "x".repeat(2000)}));
        assert_eq!(large.close_code(), 1009);
        program.signal("-TERM");
        let (_, log) = program.end();
        let lines = lines(&log);
        let reasons: Vec<&Value> = lines.iter().filter_map(|line| line.get("reason")).collect();
        assert_eq!(reasons, vec![&json!("violation"); told], "{log}");
    }
}

/// A key of the admin listener that is for one tenant.
const TENANT_KEY: &str = "a secret of one tenant's back end";

/// A request with text frames and a close frame behind it, and all that is answered.
fn talk(address: SocketAddr, head: &str, texts: &[&str]) -> String {
    let mut bytes = format!("{head}\r\n\r\n").into_bytes();
    for text in texts {
        // A mask of zeros leaves the payload as it is.
        let length = u16::try_from(text.len()).unwrap();
        match u8::try_from(length) {
            Ok(short) if short < 126 => bytes.extend([0x81, 0x80 | short]),
            _ => {
                bytes.extend([0x81, 0xfe]);
                bytes.extend(length.to_be_bytes());
            }
        }
        bytes.extend([0; 4]);
        bytes.extend(text.as_bytes());
    }
    bytes.extend([0x88, 0x80, 0, 0, 0, 0]);
    exchange(address, &bytes)
}

/// An upgrade without a token, but for what `target` holds.
fn upgrade(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13"
    )
}

/// A plain request that is answered once.
fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close")
}

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
const SOCKET: &str = "/socket.io/?EIO=4&transport=websocket";

/// Shows a token in every place of a handshake.
fn show_at_the_door(address: SocketAddr, token: &str, is_good: bool) {
    let page = ("Origin", "http://localhost");
    let (bearer, cookie) = (format!("Bearer {token}"), format!("throng_token={token}"));
    let offer = format!("throng.v1.json, throng.token.{token}");
    let places = [
        ("/ws".to_owned(), ("Authorization", bearer.as_str())),
        ("/ws".to_owned(), ("Cookie", &cookie)),
        ("/ws".to_owned(), ("Sec-WebSocket-Protocol", &offer)),
        (format!("/ws?token={token}"), ("X-A", "b")),
    ];
    for (target, header) in &places {
        let answer = knock(address, target, &[*header, page]);
        let expected = if is_good { "101" } else { "401" };
        assert_eq!(status(&answer), expected, "{target} {}: {answer}", header.0);
    }
    let answer = knock(address, &format!("/ws?ticket={token}"), &[page]);
    assert_eq!(status(&answer), "401", "a token is no ticket");
    for path in ["/sse?room=r", "/history?room=r", SOCKET, POLLING] {
        let lines = [
            (path.to_owned(), format!("Authorization: {bearer}\r\n")),
            (path.to_owned(), format!("Cookie: {cookie}\r\nOrigin: http://{address}\r\n")),
            (format!("{path}&token={token}"), String::new()),
        ];
        for (target, lines) in lines {
            // Clients of Socket.IO are told once they are in, as they read no status of an upgrade.
            if path == SOCKET || path == POLLING {
                let begin = if path == SOCKET { upgrade(&target) } else { get(&target) };
                let head = begin.replace("localhost", &address.to_string());
                let answer = talk(address, &format!("{head}\r\n{lines}X-A: b"), &[]);
                assert_eq!(answer.contains("unauthorized"), !is_good, "{target} {lines}: {answer}");
                continue;
            }
            let listener = Listener::connect(address, &target, &lines);
            let expected = if is_good { "200" } else { "401" };
            assert_eq!(listener.status(), expected, "{target} {lines}");
        }
    }
}

/// Says a token in a message, in each of the ways there are.
fn say_it(address: SocketAddr, token: &str, is_good: bool) {
    let login = json!({"type": "throng:auth", "token": token}).to_string();
    let answer = talk(address, &upgrade("/ws"), &[&login]);
    assert_eq!(answer.contains("throng:connected"), is_good, "{answer}");
    let packet = format!("40{}", json!({ "token": token }));
    let answer = talk(address, &upgrade(SOCKET), &[&packet]);
    assert!(answer.contains(if is_good { "40{\"sid\"" } else { "44{" }), "{answer}");
    // The same by polling: a session begins, the packet is brought, and what it comes to is fetched.
    let request = |method: &str, query: &str, body: &str| {
        let length = body.len();
        let head = format!(
            "{method} {POLLING}{query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}"
        );
        exchange(address, format!("{head}\r\nConnection: close\r\n\r\n{body}").as_bytes())
    };
    let opening = request("GET", "", "");
    let (_, rest) = opening.split_once(r#""sid":""#).expect("a session");
    let session = format!("&sid={}", rest.split('"').next().unwrap());
    let brought = request("POST", &session, &packet);
    assert_eq!(status(&brought), "200", "{brought}");
    let fetched = request("GET", &session, "");
    assert!(fetched.contains(if is_good { "40{\"sid\"" } else { "44{" }), "{fetched}");
}

/// Tokens where nobody looks for them: in requests that are refused for another reason, and in what pages send.
fn leave_it_about(address: SocketAddr, token: &str) {
    let get = |target: &str, lines: &str| {
        let head = format!("{}\r\n{lines}\r\n", get(target));
        status(&exchange(address, head.as_bytes())).to_owned()
    };
    let query = format!("token={token}&ticket={token}&access_token={token}");
    assert_eq!(get(&format!("/nowhere?{query}"), ""), "404");
    assert_eq!(get(&format!("/{token}"), ""), "404");
    assert_eq!(get(&format!("/?{query}"), ""), "200");
    assert_eq!(get("/", &format!("Referer: http://localhost/app?{query}\r\n")), "200");
    assert_eq!(get("/", &format!("X-Token: {token}\r\n")), "200");
    assert_eq!(get("/", &format!("Cookie: other={token}\r\n")), "200");
    assert_eq!(get("/", &format!("no header {token}\r\n")), "400");
    assert_eq!(get(&format!("/ws?token={token}&token={token}"), ""), "426");
    let twice = knock(address, &format!("/ws?token={token}&token={token}"), &[]);
    assert_eq!(status(&twice), "401", "{twice}");
    let foreign =
        [("Origin", "https://evil.example"), ("Cookie", &*format!("throng_token={token}"))];
    let answer = knock(address, "/ws", &foreign);
    assert_eq!(status(&answer), "403", "{answer}");
    // What is handed on to another server, and has to be told of because that one does not answer.
    let referer = format!("Referer: http://localhost/app/?{query}\r\nX-Token: {token}\r\n");
    assert_eq!(get(&format!("/app/?{query}"), &referer), "502");
    assert_eq!(get(&format!("/app/{token}"), &format!("Authorization: Bearer {token}\r\n")), "502");
}

/// A socket that is bound and refuses who comes: nobody else can listen there meanwhile.
fn closed() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// What the back end of one tenant asks for, also what it may not have; a ticket that it was given.
fn ask_as_tenant(admin: SocketAddr) -> String {
    let ask = |key: &str, request: &str, body: &str| {
        let length = body.len();
        let head = format!(
            "{request} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\
             Authorization: Bearer {key}\r\n\r\n{body}"
        );
        exchange(admin, head.as_bytes())
    };
    let given = ask(TENANT_KEY, "POST /v1/tickets", r#"{"user":"ada","rooms":["*"]}"#);
    assert_eq!(status(&given), "201", "{given}");
    let elsewhere = ask(TENANT_KEY, "POST /v1/tickets", r#"{"user":"ada","tenant":"other"}"#);
    assert_eq!(status(&elsewhere), "403", "{elsewhere}");
    let published =
        ask(TENANT_KEY, "POST /v1/publish", r#"{"rooms":["r"],"type":"x","payload":1}"#);
    assert_eq!(status(&published), "200", "{published}");
    let unasked = ask(TENANT_KEY, "GET /v1/counters", "");
    assert_eq!(status(&unasked), "403", "{unasked}");
    let near = &TENANT_KEY[..TENANT_KEY.len() - 1];
    assert_eq!(status(&ask(near, "POST /v1/publish", "{}")), "401");
    let target = format!("GET /v1/counters?key={}&token={0}", near.replace(' ', "+"));
    assert_eq!(status(&ask("none at all, but long", &target, "")), "401");
    let (_, rest) = given.split_once(r#""ticket":""#).expect("a ticket");
    rest.split('"').next().unwrap().to_owned()
}

on_both_drivers! {
    fn no_token_and_no_secret_is_in_the_fullest_log(driver) {
        let (_closed, nobody) = closed();
        let sets = [
            "log.level=trace",
            "log.closings=all",
            "server.drain_timeout_ms=100",
            &format!("server.driver={driver}"),
            "server.pin=false",
            "server.socketio_path=/socket.io/",
            "auth.mode=token",
            &format!("auth.secret={SECRET:?}"),
            r#"auth.sources=["query","ticket","header","cookie","subprotocol","message","payload"]"#,
            "auth.require_expiry=false",
            r#"namespace=[{pattern="*", history_count=8}]"#,
            "admin.listen=127.0.0.1:0",
            &format!(r#"proxy=[{{path="/app/", to="http://{nobody}"}}]"#),
            &format!(r#"key=[{{name="t", secret={TENANT_KEY:?}, tenant="acme", scopes=["tickets", "publish"]}}]"#),
        ];
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
        let program = Program::start(&sets);
        let address = program.address;
        let (_, rest) = program.said.split_once("admin on http://").expect("the address");
        let admin: SocketAddr = rest.lines().next().unwrap().parse().unwrap();
        let good = token(&json!({"sub": "ada", "tenant": "acme", "rooms": ["*"]}));
        let forged = format!("{}AAAA", &good[..good.len() - 4]);
        let expired = token(&json!({"sub": "bob", "exp": 1000}));
        let near = &TENANT_KEY[..TENANT_KEY.len() - 1];
        let mut marks = vec![SECRET.to_owned(), near.to_owned(), near.replace(' ', "+")];
        let bearer = format!("Bearer {good}");
        let mut client = Client::connect_with(address, "/ws", &[("authorization", &bearer)]);
        for (token, is_good) in [(&good, true), (&forged, false), (&expired, false)] {
            show_at_the_door(address, token, is_good);
            say_it(address, token, is_good);
            leave_it_about(address, token);
            let reply = client.ask(json!({"type": "throng:auth", "token": token}));
            let expected = if is_good { json!(null) } else { json!("unauthorized") };
            assert_eq!(reply["code"], expected, "{reply}");
            // Any part of a token would be too much.
            marks.extend(token.split('.').map(str::to_owned));
        }
        let ticket = ask_as_tenant(admin);
        for expected in ["101", "401"] {
            assert_eq!(status(&knock(address, &format!("/ws?ticket={ticket}"), &[])), expected);
        }
        marks.push(ticket);
        program.signal("-HUP");
        program.signal("-USR1");
        program.signal("-TERM");
        drop(client);
        let (_, log) = program.end();
        assert!(log.contains("auth_untrusted_total=") && log.contains("auth_expired_total="), "{log}");
        assert!(log.contains("read again") && log.contains("a connection ends"), "{log}");
        assert!(log.contains("a server that answers for [[proxy]] does not"), "{log}");
        for mark in marks {
            assert!(!log.contains(&mark), "{mark} is in the log:\n{log}");
        }
    }
}

const PASSWORD: &str = "open-sesame-of-redis";

/// What the node itself keeps secret, given to it: the key of its admin listener, what it signs with, the password of
/// Redis, and the key of its certificate.
fn with_secrets(
    driver: &str,
    redis: &Redis,
    files: &Files,
    [asked, told]: [String; 2],
) -> Vec<String> {
    let [certificate, _] = files.sets();
    vec![
        "log.level=trace".to_owned(),
        format!("server.driver={driver}"),
        "server.pin=false".to_owned(),
        "tls.listen=127.0.0.1:0".to_owned(),
        "auth.mode=token".to_owned(),
        format!("auth.secret={SECRET:?}"),
        "auth.sources=[\"ticket\", \"header\"]".to_owned(),
        "auth.require_expiry=false".to_owned(),
        "admin.listen=127.0.0.1:0".to_owned(),
        format!("key=[{{name=\"k\", secret={KEY:?}, scopes=[\"tickets\", \"publish\"]}}]"),
        format!("auth_webhook.url={asked:?}"),
        format!("auth_webhook.secret={SHARED:?}"),
        "auth_webhook.connect=true".to_owned(),
        format!(
            "webhook=[{{name=\"w\", url={told:?}, secret={SHARED:?}, events=[\"connected\"]}}]"
        ),
        format!("bridge.url=redis://{}", redis.address()),
        "bridge.user=throng".to_owned(),
        format!("bridge.password={PASSWORD:?}"),
        certificate,
    ]
}

fn run(sets: &[String]) -> Program {
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    Program::start(&sets)
}

fn assert_none_of<'a>(log: &str, marks: impl IntoIterator<Item = &'a str>) {
    for mark in marks {
        assert!(!log.contains(mark), "{mark} is in the log:\n{log}");
    }
}

/// The lines of a key in PEM that are secret.
fn within(pem: &str) -> impl Iterator<Item = &str> {
    pem.lines().filter(|line| !line.starts_with("-----"))
}

on_both_drivers! {
    fn no_secret_of_the_node_is_in_the_fullest_log(driver) {
        let redis = Redis::start();
        let password = format!(">{PASSWORD}");
        redis.ask(&["ACL", "SETUSER", "throng", "on", &password, "~*", "&*", "+@all"]);
        let backend = Backend::open(|_| ok(r#"{"allow":true}"#));
        let files = Files::new();
        let program = super::run(&with_secrets(driver, &redis, &files, [backend.url(), backend.url()]));
        let (_, rest) = program.said.split_once("admin on http://").expect("the address");
        let admin: SocketAddr = rest.lines().next().unwrap().parse().unwrap();
        wait_until("the link is up", || ask(admin, "GET /readyz", "").0 == 200);
        let (code, answer) = ask(admin, "POST /v1/tickets", r#"{"user":"ada","rooms":["*"]}"#);
        assert_eq!(code, 201, "{answer}");
        let ticket: Value = serde_json::from_str(&answer).unwrap();
        let ticket = ticket["ticket"].as_str().expect("a ticket").to_owned();
        let mut client = Client::connect_with(program.address, &format!("/ws?ticket={ticket}"), &[]);
        // It lets in once, and is refused, and told of, the second time.
        let again = knock(program.address, &format!("/ws?ticket={ticket}"), &[]);
        assert!(again.starts_with("HTTP/1.1 401"), "{again}");
        client.join("r");
        let body = r#"{"rooms":["r"],"type":"x","payload":1}"#;
        assert_eq!(ask(admin, "POST /v1/publish", body).0, 200);
        assert_eq!(client.next()["payload"], 1);
        assert!(backend.next().body.is_object() && backend.next().body.is_object(), "asked and told");
        program.signal("-HUP");
        program.signal("-USR1");
        program.signal("-TERM");
        drop(client);
        let (_, log) = program.end();
        assert!(log.contains("read again") && log.contains("TRACE"), "{log}");
        let key = std::fs::read_to_string(files.path("key.pem")).unwrap();
        let marks = [SECRET, KEY, SHARED, PASSWORD, ticket.as_str()];
        assert_none_of(&log, marks.into_iter().chain(within(&key)));
    }

    /// The same where all that it needs its secrets for goes wrong.
    fn no_secret_of_the_node_is_in_the_log_of_what_goes_wrong(driver) {
        const LOGIN: &str = "a-login-at-the-provider";
        const BROKEN: &str = "bm90IGEga2V5IGF0IGFsbA";
        let redis = Redis::start();
        redis.ask(&["ACL", "SETUSER", "throng", "on", ">another password", "~*", "&*", "+@all"]);
        // A back end that does not know our secret, and servers that are not there.
        let stranger = serving(|mut stream| {
            read_head(&mut stream);
            let no = b"HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
            let _ = stream.write_all(no);
        });
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let files = Files::new();
        let key = std::fs::read_to_string(files.path("key.pem")).unwrap();
        let urls = [format!("http://{nobody}/ask"), format!("http://{stranger}/tell")];
        let mut sets = with_secrets(driver, &redis, &files, urls);
        sets.extend(["auth_webhook.fail=allow".to_owned(), "tls.watch_interval_ms=100".to_owned()]);
        let config = files.path("throng.toml");
        let fetches = |url: &str| files.write("throng.toml", &format!("[auth]\njwks_url = {url:?}\n"));
        fetches(&format!("http://{nobody}/jwks.json"));
        let mut flags: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        flags.extend(["--config", &config]);
        let mut program = Program::start(&flags);
        let bearer = format!("Bearer {}", token(&json!({"sub": "ada", "rooms": ["*"]})));
        let client = Client::connect_with(program.address, "/ws", &[("authorization", &bearer)]);
        let mut log = program.hear_each(&[
            "auth.jwks_url: ",
            "auth_webhook.url: ",
            "the webhook \"w\": ",
            "the bridge has no link to Redis yet: ",
        ]);
        files.write("key.pem", &format!("-----BEGIN PRIVATE KEY-----\n{BROKEN}\n-----END PRIVATE KEY-----\n"));
        fetches(&format!("https://svc:{LOGIN}@{nobody}/jwks.json"));
        program.signal("-HUP");
        log += &program.hear_each(&["the new ones do not do", "the configuration was not taken over"]);
        program.signal("-TERM");
        drop(client);
        log += &program.end().1;
        assert!(log.contains("WRONGPASS") || log.contains("uthentication"), "{log}");
        assert!(log.contains("https://***@") && log.contains("TRACE"), "{log}");
        let token = bearer.split(['.', ' ']).skip(1);
        let marks = [SECRET, KEY, SHARED, PASSWORD, LOGIN, BROKEN].into_iter().chain(token);
        assert_none_of(&log, marks.chain(within(&key)));
    }
}
