//! The admin listener of a whole node.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::{Value, json};
use throng::auth::TokenError;
use throng::node::Node;

use crate::auth::{b64, enter, guarded, knock, status, token, token_under};
use crate::process::Program;
use crate::support::{Client, PATIENCE, exchange, node, on_both_drivers, wait_for, wait_until};

pub(crate) const SECRET: &str = "a secret of sixteen bytes or more";

/// Sends a request and returns the status and the body of the answer.
pub(crate) fn ask(address: SocketAddr, request: &str, body: &str) -> (u16, String) {
    let answer = ask_whole(address, request, body);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    (head.split(' ').nth(1).unwrap_or("0").parse().unwrap(), body.to_owned())
}

/// The same, with all that is answered; nothing when nobody does.
pub(crate) fn ask_whole(address: SocketAddr, request: &str, body: &str) -> String {
    let mut answer = String::new();
    let Ok(mut stream) = TcpStream::connect(address) else { return answer };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\
         Authorization: Bearer {SECRET}\r\n\r\n"
    );
    // Whoever was asked may be killed between the two.
    if stream.write_all(format!("{head}{body}").as_bytes()).is_ok() {
        let _ = stream.read_to_string(&mut answer);
    }
    answer
}

/// Serves answers over HTTP, each a status and a document: to the n-th request the n-th, and the last to all after it.
struct Provider {
    address: SocketAddr,
}

impl Provider {
    fn open(answers: Vec<(&'static str, String)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serve = move || {
            for (at, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]);
                let (status, body) = &answers[at.min(answers.len() - 1)];
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n"
                );
                let _ = stream.write_all(format!("{head}\r\n{body}").as_bytes());
            }
        };
        // It ends with the process: nobody waits for it.
        std::thread::Builder::new().spawn(serve).unwrap();
        Self { address }
    }

    fn url(&self) -> String {
        format!("http://{}/jwks.json", self.address)
    }
}

/// The secret of a key of that name.
fn key_secret(name: &str) -> String {
    format!("{name} is a secret of 32 bytes or more")
}

/// A document of keys of those names.
fn key_set(names: &[&str]) -> String {
    let keys = names
        .iter()
        .map(|name| json!({"kty": "oct", "alg": "HS256", "kid": name, "k": b64(key_secret(name))}));
    json!({"keys": keys.collect::<Vec<_>>()}).to_string()
}

/// A node that has fetched the first keys of that provider, and nothing else to check tokens with.
fn fetching(driver: &str, provider: &Provider) -> Node {
    let url = format!("auth.jwks_url={}", provider.url());
    let sets = with_admin(r#""inspect""#);
    let own = ["auth.mode=token", "auth.require_expiry=false", "auth.jwks_cool_down_ms=100"];
    // A test that waits asks often.
    let often = "admin.requests_per_second=1000000";
    let node = node(driver, &[&own[..], &[&url, &sets[0], &sets[1], often]].concat());
    let admin = node.admin_address().expect("an admin listener");
    wait_until("the keys are there", || ask(admin, "GET /readyz", "").0 == 200);
    node
}

/// How an upgrade is answered whose token has that header and is signed with the key of that name.
fn code_of(node: &Node, header: &Value, signer: &str) -> String {
    let token = token_under(&header.to_string(), &key_secret(signer), &json!({"sub": "ada"}));
    let bearer = format!("Bearer {token}");
    status(&knock(node.address(), "/ws", &[("Authorization", &bearer)])).to_owned()
}

fn counter(admin: SocketAddr, name: &str) -> u64 {
    let (_, counters) = ask(admin, "GET /v1/counters", "");
    let counters: Value = serde_json::from_str(&counters).unwrap();
    counters[name].as_u64().unwrap()
}

pub(crate) fn with_admin(scopes: &str) -> [String; 2] {
    let key = format!(r#"key=[{{name="test", secret="{SECRET}", scopes=[{scopes}]}}]"#);
    ["admin.listen=127.0.0.1:0".to_owned(), key]
}

/// Neither listener serves what is the other's, and neither takes the other's credentials.
fn apart(node: &Node, claims: &Value) {
    let (users, admins) = (node.address(), node.admin_address().expect("an admin listener"));
    assert_ne!(users.ip(), admins.ip());
    assert!(TcpStream::connect((users.ip(), admins.port())).is_err(), "only there");
    let bearer = format!("Bearer {}", token(claims));
    let key = format!("Bearer {SECRET}");
    for path in ["/v1/counters", "/v1/publish", "/metrics", "/readyz", "/admin"] {
        assert_eq!(ask(users, &format!("GET {path}"), "").0, 404, "{path}");
    }
    assert_eq!(ask(admins, "GET /v1/counters", "").0, 200);
    for credential in [&bearer, &key] {
        let answer = knock(admins, "/ws", &[("Authorization", credential)]);
        assert_eq!(status(&answer), "404", "{answer}");
    }
    assert_eq!(status(&knock(users, "/ws", &[("Authorization", &key)])), "401");
    assert_eq!(status(&knock(users, "/ws", &[("Authorization", &bearer)])), "101");
    let request = format!(
        "GET /v1/counters HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: {bearer}\r\n\r\n"
    );
    assert_eq!(status(&exchange(admins, request.as_bytes())), "401", "a user's token is no key");
}

on_both_drivers! {
    fn a_node_tells_whether_it_is_ready_and_what_it_counts(driver) {
        let sets = with_admin(r#""inspect""#);
        let node = node(driver, &[&sets[0], &sets[1]]);
        let address = node.admin_address().expect("an admin listener");
        assert_eq!(ask(address, "GET /healthz", ""), (200, "ok\n".to_owned()));
        let ready = "{\"ready\":true,\"reasons\":[]}\n".to_owned();
        assert_eq!(ask(address, "GET /readyz", ""), (200, ready));
        let mut client = Client::connect(node.address());
        wait_for(&node, "the client is counted", |counters| counters.open_connections == 1);
        let (status, counters) = ask(address, "GET /v1/counters", "");
        let counters: Value = serde_json::from_str(&counters).unwrap();
        assert_eq!((status, &counters["open_connections"]), (200, &1.into()));
        node.drain(PATIENCE);
        let (status, body) = ask(address, "GET /readyz", "");
        assert!(status == 503 && body.contains("\"draining\""), "{status} {body}");
        assert_eq!(client.next()["type"], "throng:reload");
        drop(client);
        wait_until("the node is drained", || node.is_drained());
        assert_eq!(ask(address, "GET /healthz", "").0, 200, "it answers to the end");
        node.stop().unwrap();
        assert!(TcpStream::connect(address).is_err(), "the listener is gone with the node");
    }

    fn a_node_that_is_full_is_not_ready_until_somebody_goes(driver) {
        let sets = ["admin.listen=127.0.0.1:0", "server.shards=1", "server.max_connections=2"];
        let node = node(driver, &sets);
        let address = node.admin_address().expect("an admin listener");
        let _one = Client::connect(node.address());
        let two = Client::connect(node.address());
        let asked = || ask(address, "GET /readyz", "");
        wait_until("it is full", || asked().0 == 503);
        let (_, body) = asked();
        assert!(body.contains("as many connections as it takes"), "{body}");
        drop(two);
        wait_until("there is space", || asked().0 == 200);
    }

    fn a_ticket_of_the_admin_listener_lets_in_once_and_into_its_rooms(driver) {
        let sets = with_admin(r#""tickets""#);
        let node = guarded(driver, &[&sets[0], &sets[1], "auth.sources=[\"ticket\"]"]);
        let admin = node.admin_address().expect("an admin listener");
        let body = r#"{"user":"ada","tenant":"acme","rooms":{"lobby":["join"]}}"#;
        let (code, answer) = ask(admin, "POST /v1/tickets", body);
        assert_eq!(code, 201, "{answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let target = format!("/ws?ticket={}", answer["ticket"].as_str().unwrap());
        let mut client = Client::connect_with(node.address(), &target, &[]);
        client.join("lobby");
        let elsewhere = client.ask(json!({"type": "throng:join", "room": "elsewhere"}));
        assert_eq!(elsewhere["code"], "forbidden");
        let publish = client.ask(json!({"type": "x", "room": "lobby"}));
        assert_eq!(publish["code"], "forbidden", "it may join and not publish");
        assert_eq!(status(&knock(node.address(), &target, &[])), "401", "once");
        for (body, field) in [
            (r#"{"user":"ada","rooms":7}"#, "rooms"),
            (r#"{"user":"ada","rooms":{"lobby":["enter"]}}"#, "rooms"),
        ] {
            let (code, answer) = ask(admin, "POST /v1/tickets", body);
            assert!(code == 400 && answer.contains(&format!("\"field\":{field:?}")), "{answer}");
        }
    }

    fn a_revocation_of_the_admin_listener_reaches_every_shard_before_it_is_answered(driver) {
        let sets = with_admin(r#""revoke", "tickets", "inspect""#);
        let node = guarded(driver, &[&sets[0], &sets[1]]);
        let admin = node.admin_address().expect("an admin listener");
        let of = |user: &str, id: u32| json!({"sub": user, "iat": 1000, "jti": format!("j{id}")});
        let ada: Vec<Client> = (0..8).map(|id| enter(node.address(), &of("ada", id))).collect();
        let bob = enter(node.address(), &of("bob", 70));
        let mut eve = enter(node.address(), &of("eve", 80));
        let all = (200, "{\"shards\":2}\n".to_owned());
        assert_eq!(ask(admin, "POST /v1/revocations", r#"{"user":"ada"}"#), all);
        // Whoever is told that it is done can rely on it: at every door, at once.
        for id in 90..98 {
            let bearer = format!("Bearer {}", token(&of("ada", id)));
            assert_eq!(status(&knock(node.address(), "/ws", &[("Authorization", &bearer)])), "401");
        }
        assert_eq!(ask(admin, "POST /v1/revocations", r#"{"tokenId":"j70"}"#), all);
        for client in ada.into_iter().chain([bob]) {
            assert_eq!(client.close_code(), 1008);
        }
        eve.expect_silence();
        let other = r#"{"user":"eve","tenant":"acme"}"#;
        assert_eq!(ask(admin, "POST /v1/revocations", other), all);
        eve.expect_silence();
        let (code, answer) = ask(admin, "POST /v1/tickets", r#"{"user":"ada"}"#);
        assert!(code == 501 && answer.contains("auth.sources"), "{answer}");
    }

    fn a_revocation_closes_every_connection_of_its_user_on_each_of_four_shards_and_no_other(driver) {
        let sets = with_admin(r#""revoke", "inspect""#);
        let node = guarded(driver, &["server.shards=4", &sets[0], &sets[1]]);
        let admin = node.admin_address().expect("an admin listener");
        let of = |user: &str| json!({"sub": user, "iat": 1000, "rooms": ["*"]});
        // By shard, so that each has some of both.
        let gather = |user: &str| {
            let mut clients: Vec<Client> = Vec::new();
            let count = |clients: &[Client], shard: usize| {
                clients.iter().filter(|client| client.shard() == shard.to_string()).count()
            };
            wait_until(&format!("three of {user} on each shard"), || {
                clients.push(enter(node.address(), &of(user)));
                (0..4).all(|shard| count(&clients, shard) >= 3)
            });
            clients
        };
        let (ada, mut eve) = (gather("ada"), gather("eve"));
        let all = (200, "{\"shards\":4}\n".to_owned());
        assert_eq!(ask(admin, "POST /v1/revocations", r#"{"user":"ada"}"#), all);
        let (closed, left) = (ada.len() as u64, eve.len() as u64);
        for client in ada {
            assert_eq!(client.end(), (1008, TokenError::Revoked.public().to_owned()));
        }
        wait_for(&node, "all of them and no other", |c| {
            (c.revoked_total, c.open_connections) == (closed, left)
        });
        eve.iter_mut().for_each(Client::expect_silence);
        assert_eq!(node.counters().revoked_total, closed);
    }

    fn keys_by_url_open_the_door_and_new_ones_are_fetched_when_tokens_name_them(driver) {
        let answers = [
            ("200 OK", key_set(&["one"])),
            ("200 OK", key_set(&["two"])),
            ("200 OK", "{}".to_owned()),
            ("500 Internal Server Error", key_set(&["three"])),
        ];
        let provider = Provider::open(answers.to_vec());
        let node = fetching(driver, &provider);
        let admin = node.admin_address().expect("an admin listener");
        let code = |name: &str| code_of(&node, &json!({"alg": "HS256", "kid": name}), name);
        wait_until("the first key opens", || code("one") == "101");
        assert_eq!(code("three"), "401");
        wait_until("the key that was asked for opens", || code("two") == "101");
        wait_until("the old key is gone", || code("one") == "401");
        // From now on the provider says nothing of use, as often as it is asked: the keys fetched last stay good.
        wait_until("both kinds of nothing were fetched", || {
            assert_eq!(code("three"), "401", "nobody's key");
            counter(admin, "jwks_failed_total") >= 2
        });
        for _ in 0..8 {
            assert_eq!(code("two"), "101");
        }
        assert_eq!(counter(admin, "jwks_fetched_total"), 2);
        assert_eq!(ask(admin, "GET /readyz", "").0, 200);
    }

    /// RFC 7515, sections 4.1.2 to 4.1.6: a header may bring a key, or say where one is.
    fn no_token_says_where_its_own_key_is(driver) {
        let provider = Provider::open(vec![("200 OK", key_set(&["one"]))]);
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        elsewhere.set_nonblocking(true).unwrap();
        let url = format!("http://{}/jwks.json", elsewhere.local_addr().unwrap());
        let node = fetching(driver, &provider);
        let admin = node.admin_address().expect("an admin listener");
        let known = json!({"alg": "HS256", "kid": "one"});
        wait_until("the key opens", || code_of(&node, &known, "one") == "101");
        let keys: Value = serde_json::from_str(&key_set(&["mallory"])).unwrap();
        let members = [("jku", json!(url)), ("x5u", json!(url)), ("jwk", keys["keys"][0].clone()), ("x5c", json!(["AAAA"]))];
        for (member, value) in members {
            for kid in ["one", "mallory"] {
                let mut header = json!({"alg": "HS256", "kid": kid});
                header[member] = value.clone();
                assert_eq!(code_of(&node, &header, "mallory"), "401", "{header}");
                // A token of ours may carry it; nobody looks.
                let expected = if kid == "one" { "101" } else { "401" };
                assert_eq!(code_of(&node, &header, "one"), expected, "{header}");
            }
        }
        // An unknown name is a reason to ask, and the one who is asked is the one of the configuration.
        wait_until("it was asked again", || {
            let unknown = json!({"alg": "HS256", "kid": "mallory", "jku": url});
            assert_eq!(code_of(&node, &unknown, "mallory"), "401");
            counter(admin, "jwks_fetched_total") >= 3
        });
        let came = elsewhere.accept().map(|(_, peer)| peer).map_err(|error| error.kind());
        assert_eq!(came, Err(std::io::ErrorKind::WouldBlock), "somebody asked where the token said");
    }

    fn the_examples_of_the_document_are_answered_as_it_says(driver) {
        let sets = with_admin(r#""tickets", "revoke", "inspect", "notify", "publish""#);
        let node = guarded(driver, &[&sets[0], &sets[1], "auth.sources=[\"ticket\"]"]);
        let admin = node.admin_address().expect("an admin listener");
        let document = include_str!("../../docs/admin.md").replace("\\\n", " ");
        let examples = document.lines().filter_map(|line| line.trim().strip_prefix("curl "));
        let mut asked = 0;
        for example in examples {
            let (_, path) = example.split_once("http://127.0.0.1:8081").expect(example);
            let body = example.split_once("-d '").and_then(|(_, rest)| rest.split_once('\''));
            let body = body.map_or("", |(body, _)| body);
            let method = if body.is_empty() { "GET" } else { "POST" };
            let (code, answer) = ask(admin, &format!("{method} {}", path.trim().trim_end_matches('"')), body);
            let makes = path.contains("tickets") || path.contains("notify");
            let expected = if makes { 201 } else { 200 };
            assert_eq!(code, expected, "{example}: {answer}");
            asked += 1;
        }
        assert_eq!(asked, 22);
    }

    fn a_key_has_a_rate_of_its_own_and_what_it_costs_is_counted_for_it(driver) {
        let keys = format!(
            r#"key=[{{name="test", secret="{SECRET}", scopes=["inspect"], requests_per_second=1, burst=3}}]"#
        );
        let metrics = "admin.metrics_open=true";
        let node = node(driver, &["admin.listen=127.0.0.1:0", &keys, metrics]);
        let admin = node.admin_address().expect("an admin listener");
        // A slow machine gives tokens back meanwhile, so how many are admitted is not asked here.
        let mut answers = (0..1000).map(|_| ask(admin, "GET /v1/counters", ""));
        let (admitted, refused): (Vec<_>, Vec<_>) =
            answers.by_ref().take(4).partition(|(status, _)| *status == 200);
        assert!(admitted.len() >= 3, "a burst is admitted: {refused:?}");
        let refused = refused.into_iter().next().or_else(|| answers.find(|(status, _)| *status != 200));
        let (status, why) = refused.expect("a limit");
        assert_eq!(status, 429);
        assert!(why.contains("this key may make 1 requests a second"), "{why}");
        let (_, metrics) = ask(admin, "GET /metrics", "");
        let sample = "throng_admin_rate_limited_total{key=\"test\"} ";
        let (_, count) = metrics.split_once(sample).expect("a sample");
        assert!(count.lines().next().expect("a figure").parse::<u64>().expect("a number") > 0);
    }

    /// Row A17: who may do what, from which pages, and how much of it differ by namespace, and what administers the
    /// node is served at an address of its own.
    fn the_traffic_of_admins_is_apart_in_rights_pages_limits_and_address(driver) {
        let key = format!(r#"key=[{{name="test", secret="{SECRET}", scopes=["inspect", "publish"]}}]"#);
        let namespaces = r#"namespace=[
            {pattern="admin:*", join="granted", publish="granted", origins=["https://admin.example"],
             max_payload_bytes=64, publishes_per_second=1, joins_per_second=1},
            {pattern="shop:*", join="anyone", publish="authenticated", origins=["https://*.shop.example"],
             max_payload_bytes=4096}]"#;
        // Another address of the machine, not just another port.
        let node = guarded(driver, &["admin.listen=127.0.0.2:0", &key, namespaces, "limits.burst_ms=3000"]);
        let staff = json!({"sub": "ada", "rooms": ["admin:*"]});
        let from = |page: &str, claims: &Value| {
            let bearer = format!("Bearer {}", token(claims));
            let headers = [("authorization", bearer.as_str()), ("origin", page)];
            Client::connect_with(node.address(), "/ws", &headers)
        };
        let mut admin = from("https://admin.example", &staff);
        let mut shop = from("https://www.shop.example", &staff);
        let mut guest = from("https://www.shop.example", &json!({"sub": "bob"}));
        let join = |client: &mut Client, room: &str| {
            client.ask_among(json!({"type": "throng:join", "room": room}))["code"].clone()
        };
        let (yes, no) = (json!(null), json!("forbidden"));
        // The page decides, whatever the token grants, and the token decides, whatever the page is.
        for (client, at_admin, at_shop) in
            [(&mut admin, &yes, &no), (&mut shop, &no, &yes), (&mut guest, &no, &yes)]
        {
            assert_eq!((&join(client, "admin:x"), &join(client, "shop:x")), (at_admin, at_shop));
        }
        let mut stranger = from("https://admin.example", &json!({"sub": "bob", "rooms": ["shop:*"]}));
        assert_eq!(join(&mut stranger, "admin:x"), no);
        let publish = |client: &mut Client, room: &str, bytes: usize| {
            let payload = "x".repeat(bytes);
            client.ask_among(json!({"type": "t", "room": room, "payload": payload}))["code"].clone()
        };
        assert_eq!(publish(&mut stranger, "admin:x", 1), no);
        assert_eq!(publish(&mut guest, "admin:x", 1), no);
        // The same payload and the same pace are too much here and in order there.
        assert_eq!(publish(&mut admin, "admin:x", 100), json!("too_large"));
        assert_eq!(publish(&mut shop, "shop:x", 100), yes);
        let paces = |client: &mut Client, room: &str| -> Vec<Value> {
            (0..20).map(|_| publish(client, room, 1)).collect()
        };
        assert!(paces(&mut admin, "admin:x").contains(&json!("rate_limited")));
        assert!(paces(&mut shop, "shop:x").iter().all(Value::is_null));
        let joins = |client: &mut Client, name: &str| -> Vec<Value> {
            (0..20).map(|number| join(client, &format!("{name}:{number}"))).collect()
        };
        assert!(joins(&mut admin, "admin").contains(&json!("rate_limited")));
        let mut other = from("https://www.shop.example", &staff);
        assert!(joins(&mut other, "shop").iter().all(Value::is_null));
        apart(&node, &staff);
    }

    fn a_node_has_no_admin_listener_unless_it_is_told_to(driver) {
        assert_eq!(node(driver, &[]).admin_address(), None);
    }
}

#[test]
fn the_program_says_where_its_admin_listener_is_and_takes_new_keys_on_sighup() {
    let folder = tempfile::tempdir().unwrap();
    let (file, key) = (folder.path().join("throng.toml"), folder.path().join("key"));
    std::fs::write(&key, "the first secret there is\n").unwrap();
    let path = key.to_str().unwrap();
    let text = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[[key]]\nname = \"k\"\nsecret_file = {path:?}\nscopes = [\"inspect\"]\n"
    );
    std::fs::write(&file, text).unwrap();
    let program = Program::start(&["--config", file.to_str().unwrap()]);
    let (_, rest) = program.said.split_once("admin on http://").expect("the address");
    let address: SocketAddr = rest.lines().next().unwrap().parse().unwrap();
    assert_eq!(ask(address, "GET /v1/counters", "").0, 401);
    // A file that is gone changes nothing, a new secret is taken.
    std::fs::remove_file(&key).unwrap();
    program.signal("-HUP");
    assert_eq!(ask(address, "GET /healthz", "").0, 200);
    std::fs::write(&key, format!("  {SECRET}\n")).unwrap();
    program.signal("-HUP");
    wait_until("the new secret opens", || ask(address, "GET /v1/counters", "").0 == 200);
    program.signal("-TERM");
    let (status, log) = program.end();
    assert_eq!(status.code(), Some(0));
    assert!(!log.contains(SECRET) && !log.contains("the first secret"), "{log}");
}

#[test]
fn a_secret_that_cannot_be_read_keeps_the_node_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("short");
    std::fs::write(&path, "short").unwrap();
    for (path, why) in
        [(path.to_str().unwrap(), "expected 16 to 1024 bytes"), ("/nowhere", "No such file")]
    {
        let key = format!("key=[{{name=\"k\", secret_file={path:?}, scopes=[]}}]");
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_throng"));
        command.args([
            "run",
            "--set",
            "server.listen=127.0.0.1:0",
            "--set",
            "admin.listen=127.0.0.1:0",
        ]);
        let output = command.args(["--set", &key]).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(error.contains("key.secret_file = ") && error.contains(why), "{error}");
    }
}
