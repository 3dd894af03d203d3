//! Rooms and connections as a back end sees them, and connections it sends away, over real sockets.

use std::io::Read as _;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::admin::{ask, with_admin};
use crate::auth::{enter, guarded};
use crate::support::{Client, node, on_both_drivers, wait_for};

fn get(admin: SocketAddr, path: &str) -> (u16, Value) {
    let (status, body) = ask(admin, &format!("GET {path}"), "");
    (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{path}: {status} {body}")))
}

fn disconnect(admin: SocketAddr, order: &Value) -> (u16, Value) {
    let (status, body) = ask(admin, "POST /v1/disconnect", &order.to_string());
    (status, serde_json::from_str(&body).expect("JSON"))
}

fn user(name: &str, tenant: Option<&str>) -> Value {
    let mut claims = json!({"sub": name, "rooms": {"*": ["join"]}});
    if let Some(tenant) = tenant {
        claims["tenant"] = tenant.into();
    }
    claims
}

on_both_drivers! {
    fn rooms_are_listed_in_pages_and_by_size_over_all_shards(driver) {
        let sets = with_admin(r#""inspect""#);
        let node = node(driver, &[&sets[0], &sets[1]]);
        let admin = node.admin_address().expect("an admin listener");
        assert_eq!(get(admin, "/v1/rooms"), (200, json!({"rooms": []})));
        // Both shards have members of the larger rooms.
        let mut clients: Vec<Client> = ["0", "1", "0", "1"]
            .map(|shard| Client::connect_to_shard(node.address(), shard)).into_iter().collect();
        for (at, client) in clients.iter_mut().enumerate() {
            for room in &["a/1", "a/2", "a/3", "b"][at..] {
                client.join(room);
            }
        }
        let rooms = json!([{"room": "a/1", "members": 1}, {"room": "a/2", "members": 2},
            {"room": "a/3", "members": 3}, {"room": "b", "members": 4}]);
        assert_eq!(get(admin, "/v1/rooms").1["rooms"], rooms);
        let page = get(admin, "/v1/rooms?prefix=a/&limit=2").1;
        assert_eq!(page, json!({"rooms": [rooms[0], rooms[1]], "next": "a/2"}));
        let page = get(admin, "/v1/rooms?prefix=a/&limit=2&afterRoom=a/2").1;
        assert_eq!(page, json!({"rooms": [rooms[2]]}));
        let (_, largest) = get(admin, "/v1/rooms?order=members&limit=2");
        let names: Vec<&str> =
            largest["rooms"].as_array().unwrap().iter().map(|r| r["room"].as_str().unwrap()).collect();
        assert_eq!((names, &largest["exact"]), (vec!["b", "a/3"], &json!(true)));
        let (status, room) = get(admin, "/v1/rooms/a%2F3");
        assert_eq!((status, &room["room"], &room["members"]), (200, &json!("a/3"), &json!(3)));
        assert_eq!((&room["offset"], room["epoch"].is_string()), (&json!(0), true), "{room}");
        let nobody = json!({"room": "nobody's", "members": 0});
        assert_eq!(get(admin, "/v1/rooms/nobody's"), (200, nobody));
    }

    fn connections_of_a_user_and_of_a_room_are_told_with_how_they_are(driver) {
        let sets = with_admin(r#""inspect""#);
        let node = guarded(driver, &[&sets[0], &sets[1]]);
        let admin = node.admin_address().expect("an admin listener");
        let mut ada: Vec<Client> =
            (0..5).map(|_| enter(node.address(), &user("ada", None))).collect();
        let mut eve = enter(node.address(), &user("eve", None));
        ada[0].join("lobby");
        eve.join("lobby");
        let (_, all) = get(admin, "/v1/connections?user=ada");
        assert_eq!((&all["total"], all["connections"].as_array().map(Vec::len)), (&json!(5), Some(5)));
        let mut seen = Vec::new();
        let mut path = "/v1/connections?user=ada&limit=2".to_owned();
        for _ in 0..3 {
            let (_, page) = get(admin, &path);
            let ids = page["connections"].as_array().unwrap().iter();
            seen.extend(ids.map(|one| one["clientId"].as_str().unwrap().to_owned()));
            path = format!("/v1/connections?user=ada&limit=2&after={}", page["next"].as_str().unwrap_or(""));
        }
        let mut expected: Vec<String> = ada.iter().map(|client| client.id.clone()).collect();
        expected.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, expected, "three pages have each once");
        let (_, room) = get(admin, "/v1/connections?room=lobby");
        assert_eq!(room["total"], 2);
        let (status, one) = get(admin, &format!("/v1/connections/{}", eve.id));
        assert_eq!((status, &one["user"], &one["transport"]), (200, &json!("eve"), &json!("websocket")));
        assert_eq!((&one["roomNames"], &one["tls"]), (&json!(["lobby"]), &json!(false)));
        assert_eq!(one["rooms"], 2, "the lobby and that of her own: {one}");
        let id = eve.id.clone();
        drop(eve);
        wait_for(&node, "she is gone", |counters| counters.open_connections == 5);
        assert_eq!(get(admin, &format!("/v1/connections/{id}")).0, 404);
        let elsewhere = get(admin, "/v1/connections/1f-0-0-0");
        assert_eq!((elsewhere.0, &elsewhere.1["error"]["code"]), (404, &json!("not_found")));
    }

    /// Row A3: whoever may ask everything is told of connections, and never what they showed to come in.
    fn nothing_that_is_told_of_a_connection_holds_its_token_or_the_target_it_stood_in(driver) {
        let scopes = r#""inspect", "revoke", "publish", "notify", "tickets""#;
        let sets = with_admin(scopes);
        let sources = r#"auth.sources=["query", "ticket", "header"]"#;
        let history = "namespace=[{pattern=\"*\", history_count=8}]";
        let node = guarded(driver, &[&sets[0], &sets[1], sources, history, "admin.metrics_open=true"]);
        let admin = node.admin_address().expect("an admin listener");
        let shown = crate::auth::token(&crate::targets::user("ada"));
        let ticket = node.mint_ticket(&crate::targets::user("ada").to_string(), 60).expect("a ticket");
        let mut clients = [
            Client::connect_with(node.address(), &format!("/ws?token={shown}"), &[]),
            Client::connect_with(node.address(), &format!("/ws?ticket={ticket}"), &[]),
        ];
        clients.iter_mut().for_each(|client| _ = client.join("lobby"));
        let id = clients[0].id.clone();
        let said = clients[0].ask_among(json!({"type": "t", "room": "lobby", "id": "m-1", "payload": 1}));
        assert_eq!(said["ok"], json!(true), "{said}");
        let mut told = 0;
        for path in [
            "/v1/counters".to_owned(),
            "/metrics".to_owned(),
            "/v1/rooms".to_owned(),
            "/v1/rooms/lobby".to_owned(),
            "/v1/connections?user=ada".to_owned(),
            format!("/v1/connections/{id}"),
            "/v1/presence/users?user=ada".to_owned(),
            "/v1/presence/rooms/lobby".to_owned(),
            "/v1/laggards".to_owned(),
            "/v1/explain?user=ada&room=lobby&offset=1".to_owned(),
            "/v1/inbox?user=ada".to_owned(),
        ] {
            let (status, answer) = ask(admin, &format!("GET {path}"), "");
            assert_eq!(status, 200, "{path}: {answer}");
            told += usize::from(answer.contains(&id));
            let parts = shown.split('.').chain(ticket.split('.'));
            for part in parts.chain(["token=", "ticket=", "/ws?"]) {
                assert!(!answer.contains(part), "{path} tells {part}: {answer}");
            }
        }
        assert!(told >= 2, "the connection is told of");
    }

    fn who_is_sent_away_goes_on_all_shards_with_the_code_and_the_reason(driver) {
        let sets = with_admin(r#""revoke", "inspect""#);
        let node = guarded(driver, &[&sets[0], &sets[1]]);
        let admin = node.admin_address().expect("an admin listener");
        let many = |name: &str| -> Vec<Client> {
            (0..8).map(|_| enter(node.address(), &user(name, None))).collect()
        };
        let (ada, mut bob, mut eve) = (many("ada"), many("bob"), many("eve"));
        let order = json!({"user": "ada", "code": 4100, "reason": "the account moved"});
        assert_eq!(disconnect(admin, &order), (200, json!({"disconnected": 8})));
        for client in ada {
            assert_eq!(client.close_code(), 4100);
        }
        let last = bob.pop().unwrap();
        let order = json!({"connection": last.id});
        assert_eq!(disconnect(admin, &order), (200, json!({"disconnected": 1})));
        assert_eq!(last.close_code(), 1008);
        bob.iter_mut().chain(&mut eve[..4]).for_each(|client| _ = client.join("stage"));
        assert_eq!(disconnect(admin, &json!({"room": "stage"})), (200, json!({"disconnected": 11})));
        for client in bob.into_iter().chain(eve.drain(..4)) {
            assert_eq!(client.close_code(), 1008);
        }
        eve.iter_mut().for_each(Client::expect_silence);
        assert_eq!(disconnect(admin, &json!({"room": "stage"})), (200, json!({"disconnected": 0})));
        wait_for(&node, "they are counted", |counters| counters.dismissed_total == 20);
        // Nothing is remembered: whoever has a token may come back.
        enter(node.address(), &user("ada", None)).expect_silence();
    }

    fn a_key_of_one_tenant_sees_and_reaches_nothing_of_others(driver) {
        let secret = "a secret of sixteen bytes or more";
        let keys = format!(
            r#"key=[{{name="acme", secret="{secret}", scopes=["inspect","revoke"], tenant="acme"}}]"#
        );
        let node = guarded(driver, &["admin.listen=127.0.0.1:0", &keys]);
        let admin = node.admin_address().expect("an admin listener");
        let mut ours = enter(node.address(), &user("ada", Some("acme")));
        let mut theirs = enter(node.address(), &user("ada", Some("other")));
        let mut nobodys = enter(node.address(), &user("ada", None));
        for client in [&mut ours, &mut theirs, &mut nobodys] {
            client.join("lobby");
        }
        let rooms = json!([{"room": "lobby", "members": 1}]);
        assert_eq!(get(admin, "/v1/rooms"), (200, json!({"rooms": rooms})));
        assert_eq!(get(admin, "/v1/rooms?order=members").1["rooms"][0]["members"], 1);
        assert_eq!(get(admin, "/v1/rooms/lobby").1["members"], 1);
        for path in ["/v1/rooms", "/v1/rooms/lobby", "/v1/connections/0-0-0"] {
            assert_eq!(get(admin, &format!("{path}?tenant=other")).0, 403, "{path}");
        }
        let (_, seen) = get(admin, "/v1/connections?user=ada");
        assert_eq!((&seen["total"], &seen["connections"][0]["clientId"]), (&json!(1), &json!(ours.id)));
        assert_eq!(get(admin, &format!("/v1/connections/{}", theirs.id)).0, 404);
        let order = json!({"connection": theirs.id});
        assert_eq!(disconnect(admin, &order), (200, json!({"disconnected": 0})));
        assert_eq!(disconnect(admin, &json!({"room": "lobby"})), (200, json!({"disconnected": 1})));
        assert_eq!(ours.close_code(), 1008);
        theirs.expect_silence();
        nobodys.expect_silence();
    }

    /// It goes on until it is interrupted, and each screen stands over the one before.
    fn the_live_view_of_the_command_line_shows_screen_after_screen_until_a_signal(driver) {
        const OVER: &str = "\x1b[H\x1b[J";
        let sets = with_admin(r#""inspect""#);
        let node = node(driver, &[&sets[0], &sets[1]]);
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        std::fs::write(&key, "a secret of sixteen bytes or more\n").unwrap();
        let mut clients = vec![Client::connect(node.address())];
        clients[0].join("a");
        let url = format!("http://{}", node.admin_address().expect("an admin listener"));
        let mut program = Command::new(env!("CARGO_BIN_EXE_throng"));
        program.args(["top", "--interval", "1", "--url", &url, "--key-file"]).arg(&key);
        let mut child = program.stdout(Stdio::piped()).spawn().unwrap();
        let mut out = child.stdout.take().expect("a pipe");
        let (mut shown, mut chunk) = (String::new(), [0; 4096]);
        for members in ["1", "2"] {
            let row = [members, "a"];
            let is_row = |line: &str| line.split_whitespace().eq(row);
            // The last screen may be half written; the one before it is whole.
            let whole = |shown: &str| shown.rsplit(OVER).nth(1).is_some_and(|s| s.lines().any(is_row));
            while !whole(&shown) {
                let read = out.read(&mut chunk).unwrap();
                assert!(read > 0, "it ended after {shown:?}");
                shown.push_str(str::from_utf8(&chunk[..read]).expect("ASCII"));
            }
            let mut next = Client::connect(node.address());
            next.join("a");
            clients.push(next);
        }
        assert!(shown.starts_with(OVER) && shown.matches(OVER).count() > 2, "{shown:?}");
        assert_eq!(child.try_wait().unwrap(), None, "it goes on");
        let number = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &number]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().signal(), Some(2));
    }

    fn the_command_line_lists_rooms_and_shows_a_screen_of_a_running_node(driver) {
        let sets = with_admin(r#""inspect""#);
        let node = node(driver, &[&sets[0], &sets[1]]);
        let url = format!("http://{}", node.admin_address().expect("an admin listener"));
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        std::fs::write(&key, "a secret of sixteen bytes or more\n").unwrap();
        let run = |command: &str, arguments: &[&str]| {
            let mut program = Command::new(env!("CARGO_BIN_EXE_throng"));
            program.args([command, "--url", &url, "--key-file", key.to_str().unwrap()]);
            let output = program.args(arguments).output().unwrap();
            let text = |bytes| String::from_utf8(bytes).unwrap();
            (output.status.code(), text(output.stdout), text(output.stderr))
        };
        let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(node.address())).collect();
        for (at, client) in clients.iter_mut().enumerate() {
            for room in &["a", "b", "c"][at..] {
                client.join(room);
            }
        }
        let table = |lines: &str| (Some(0), format!("   members  room\n{lines}"), String::new());
        let pages = "         1  a\n         2  b\nthere are more behind b\n";
        assert_eq!(run("rooms", &["--limit", "2"]), table(pages));
        assert_eq!(run("rooms", &["--after", "b"]), table("         3  c\n"));
        assert_eq!(run("rooms", &["--largest", "--limit", "1"]), table("         3  c\n"));
        assert_eq!(run("rooms", &["--prefix", "x"]), table(""));
        let (code, screen, error) = run("top", &["--once", "--interval", "1"]);
        assert_eq!((code, error.as_str()), (Some(0), ""));
        let lines: Vec<Vec<&str>> =
            screen.lines().map(|line| line.split_whitespace().collect()).collect();
        for line in [&["connections", "3"][..], &["memberships", "6"], &["3", "c"], &["accepted", "0.0"]] {
            assert!(lines.iter().any(|found| found == line), "{line:?} in\n{screen}");
        }
        std::fs::write(&key, "another secret of enough bytes").unwrap();
        for command in ["rooms", "top"] {
            let (code, out, error) = run(command, &[]);
            assert_eq!((code, out.as_str()), (Some(1), ""));
            assert!(error.contains("401 unauthorized"), "{error}");
        }
    }
}
