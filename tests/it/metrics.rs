//! What the admin listener says of the whole node, and what Prometheus and its tools make of it.
//!
//! The tools are Debian's. Where they are not installed their tests are left out, and say so where it is
//! seen; what must hold without them is tested beside the code by a parser of our own.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use throng::node::Node;

use crate::admin::{SECRET, ask, with_admin};
use crate::auth::{SECRET as SIGNING, enter, guarded, knock, status, token};
use crate::backend::{Backend, response};
use crate::bridge::cluster::{Redis, linked};
use crate::events::hook;
use crate::support::{Client, PATIENCE, free_port, node, on_both_drivers, wait_for, wait_until};

pub(crate) const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// True when the program is there; otherwise says that the test is left out. The harness would keep what a
/// test prints by a macro to itself.
pub(crate) fn is_installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        let _ = writeln!(std::io::stderr(), "LEFT OUT: {program} is not installed");
    }
    found
}

/// Tests look as often as they can.
const PATIENT: &str = "admin.requests_per_second=1000000";

fn scrape(node: &Node) -> String {
    let (status, text) = ask(node.admin_address().expect("an admin listener"), "GET /metrics", "");
    assert_eq!(status, 200, "{text}");
    text
}

/// The sum over all series of a family with these words in their line.
fn figure(text: &str, family: &str, words: &[&str]) -> f64 {
    let samples = text.lines().filter(|line| {
        let rest = line.strip_prefix(family).unwrap_or("#");
        rest.starts_with(['{', ' ']) && words.iter().all(|word| rest.contains(word))
    });
    samples.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

fn is(value: f64, expected: u32) -> bool {
    (value - f64::from(expected)).abs() < 0.5
}

/// Eight members hear of twenty publications, and one connection ends. What goes wrong is [`Troubled`]'s.
fn load(node: &Node) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(node.address())).collect();
    for client in &mut clients {
        client.join("lobby");
    }
    let publisher = &mut clients[0];
    for number in 0..20 {
        publisher.send(&json!({"type": "x", "room": "lobby", "payload": number}));
    }
    drop(Client::connect(node.address()));
    clients
}

on_both_drivers! {
    fn the_figures_of_a_node_follow_what_happens_to_it(driver) {
        let sets = with_admin(r#""inspect""#);
        let node = node(driver, &[&sets[0], &sets[1], PATIENT]);
        let clients = load(&node);
        wait_for(&node, "all is delivered", |counters| counters.deliveries_total == 160);
        wait_for(&node, "one has gone", |counters| counters.open_connections == 8);
        wait_until("what happened is in the figures", || {
            let text = scrape(&node);
            is(figure(&text, "throng_open_connections", &[]), 8)
                && is(figure(&text, "throng_sessions", &["\"websocket\""]), 8)
                && is(figure(&text, "throng_sessions", &["\"sse\""]), 0)
                && is(figure(&text, "throng_handshakes_total", &[]), 9)
                && is(figure(&text, "throng_disconnects_total", &["\"lost\""]), 1)
                && is(figure(&text, "throng_connection_seconds_count", &[]), 1)
                && is(figure(&text, "throng_deliveries_total", &[]), 160)
                && is(figure(&text, "throng_shard_deliveries_total", &[]), 160)
                && is(figure(&text, "throng_accepting", &[]), 1)
                && figure(&text, "throng_fan_out_seconds_count", &[]) >= 1.0
                && figure(&text, "throng_received_bytes_total", &[]) > 0.0
                && figure(&text, "throng_sent_bytes_total", &[]) > 0.0
                && figure(&text, "throng_memory_anonymous_bytes", &[]) > 0.0
        });
        let text = scrape(&node);
        let writes = figure(&text, "throng_frames_per_write_count", &[]);
        let frames = figure(&text, "throng_frames_per_write_sum", &[]);
        assert!(frames >= writes && writes > 0.0, "{frames} in {writes}");
        for shard in ["shard=\"0\"", "shard=\"1\""] {
            assert!(figure(&text, "throng_loop_lag_seconds_count", &[shard]) > 0.0, "{shard}");
        }
        drop(clients);
        node.drain(PATIENCE);
        wait_until("it says that it drains", || is(figure(&scrape(&node), "throng_accepting", &[]), 0));
    }
}

on_both_drivers! {
    fn whoever_has_most_to_read_is_found_with_its_user(driver) {
        let sets = with_admin(r#""inspect""#);
        let small = ["tcp.send_buffer_bytes=4096", "queue.flush_window_us=0"];
        let node = guarded(driver, &[&sets[0], &sets[1], PATIENT, small[0], small[1]]);
        let admin = node.admin_address().unwrap();
        let bearer = |user: &str| format!("Bearer {}", token(&json!({"sub": user, "rooms": ["*"]})));
        let stranger = bearer("bob");
        let headers = [("authorization", stranger.as_str())];
        let mut publisher = Client::connect_with(node.address(), "/ws", &headers);
        let mut slow = Client::connect_narrow_with(node.address(), &bearer("ada"));
        slow.join("r");
        slow.join("s");
        assert_eq!(laggards(admin), json!([]));
        let payload = "x".repeat(16_384);
        wait_until("something waits for her", || {
            publisher.ask(json!({"type": "x", "room": "r", "payload": payload}));
            let found = laggards(admin);
            let first = &found[0];
            first["user"] == "ada"
                && first["conn"] == json!(slow.id)
                && first["waitingBytes"].as_u64() > Some(10_000)
                // Her own room is one.
                && first["rooms"] == 3
        });
        assert_eq!(laggards(admin).as_array().map(Vec::len), Some(1), "nobody else waits");
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        fs::write(&key, SECRET).unwrap();
        let mut top = Command::new(env!("CARGO_BIN_EXE_throng"));
        top.args(["top", "--once", "--interval", "1", "--url", &format!("http://{admin}"), "--key-file"]);
        let output = top.arg(&key).output().unwrap();
        let screen = String::from_utf8(output.stdout).unwrap();
        let (_, readers) = screen.split_once("slowest readers").expect("a heading");
        let line = readers.lines().find(|line| line.ends_with(&format!("  {} ada", slow.id)));
        let bytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        assert!(bytes > Some(10_000), "{screen}");
    }
}

fn laggards(admin: SocketAddr) -> Value {
    let (status, text) = ask(admin, "GET /v1/laggards", "");
    assert_eq!(status, 200, "{text}");
    serde_json::from_str::<Value>(&text).unwrap()["laggards"].clone()
}

on_both_drivers! {
    fn the_figures_of_a_tenant_stand_in_metrics_and_those_without_a_place_are_one(driver) {
        let sets = with_admin(r#""inspect""#);
        let node = guarded(driver, &[&sets[0], &sets[1], PATIENT, "admin.metrics_tenants=2", "tenant=[{name=\"acme\"}]"]);
        let enter = |tenant: &str, user: String| {
            enter(node.address(), &json!({"sub": user, "tenant": tenant, "rooms": ["*"]}))
        };
        let mut clients: Vec<Client> = (0..6).map(|at| enter("acme", format!("u{at}"))).collect();
        clients.iter_mut().for_each(|client| drop(client.join("lobby")));
        let is_known = |tenant: &str, count| {
            let tenant = format!("tenant=\"{tenant}\"");
            is(figure(&scrape(&node), "throng_tenant_connections", &[&tenant]), count)
        };
        wait_until("acme is known", || is_known("acme", 6));
        let _second = enter("b\"\\", "ada".to_owned());
        wait_until("the second tenant is known", || is_known("b\\\"\\\\", 1));
        let _others: Vec<Client> = (0..3).map(|at| enter(&format!("t{at}"), "ada".to_owned())).collect();
        for number in 0..10 {
            clients[0].send(&json!({"type": "x", "room": "lobby", "payload": number}));
        }
        clients[0].send(&json!({"type": "throng:no such"}));
        wait_until("all is counted", || {
            let text = scrape(&node);
            let of = |family: &str, words: &[&str]| figure(&text, family, words);
            let (acme, other) = (["tenant=\"acme\""], ["tenant=\"(other)\""]);
            is(of("throng_tenant_connections", &acme), 6)
                && is(of("throng_tenant_connections", &other), 3)
                && is(of("throng_tenant_rooms", &acme), 1)
                && is(of("throng_tenant_rooms", &other), 0)
                && is(of("throng_tenant_received_messages_total", &acme), 17)
                && is(of("throng_tenant_deliveries_total", &acme), 60)
                && of("throng_tenant_received_bytes_total", &acme) > 300.0
                && of("throng_tenant_delivered_bytes_total", &acme) > 60.0 * 20.0
                && is(of("throng_tenant_refusals_total", &[acme[0], "\"command\""]), 1)
                && is(of("throng_tenant_refusals_total", &[acme[0], "\"rate\""]), 0)
                && is(of("throng_tenant_connections", &["t1"]), 0)
        });
        drop(clients);
        wait_until("they are gone", || is_known("acme", 0));
    }
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    if !is_installed("promtool") {
        return;
    }
    let sets = with_admin(r#""inspect""#);
    let node = node("auto", &[&sets[0], &sets[1]]);
    let _clients = load(&node);
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(scrape(&node).as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    let rules = Path::new(ROOT).join("docs/grafana/alerts.yml");
    let output = Command::new("promtool").args(["check", "rules"]).arg(rules).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A Prometheus that scrapes a node several times a second and evaluates the shipped alerts as often.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn start(target: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let config = folder.path().join("prometheus.yml");
        let text = format!(
            "global: {{ scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms }}\n\
             rule_files: [\"{ROOT}/docs/grafana/alerts.yml\"]\n\
             scrape_configs:\n- job_name: throng\n  static_configs: [{{ targets: [\"{target}\"] }}]\n"
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, address, _folder: folder }
    }

    /// The data of an answer of its interface; null while there is none.
    fn get(&self, path: &str) -> Value {
        let Ok(mut stream) = TcpStream::connect(self.address) else { return Value::Null };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // By HTTP/1.0, so that the body comes in one piece.
        let request = format!("GET {path} HTTP/1.0\r\nHost: a\r\n\r\n");
        let mut answer = String::new();
        if stream.write_all(request.as_bytes()).is_err()
            || stream.read_to_string(&mut answer).is_err()
        {
            return Value::Null;
        }
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let answer: Value = serde_json::from_str(body).unwrap_or_default();
        assert_ne!(answer["errorType"], "bad_data", "{path}: {answer}");
        answer["data"].clone()
    }

    /// True when a query gives at least one number.
    fn has_data(&self, query: &str) -> bool {
        !self.numbers(query).is_empty()
    }

    /// True when a query gives at least one number above zero.
    fn is_more_than_nothing(&self, query: &str) -> bool {
        self.numbers(query).into_iter().any(|number| number > 0.0)
    }

    /// The finite numbers that a query gives.
    fn numbers(&self, query: &str) -> Vec<f64> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let data = self.get(&format!("/api/v1/query?query={escaped}"));
        let results = data["result"].as_array().cloned().unwrap_or_default();
        let numbers = results.iter().filter_map(|result| result["value"][1].as_str());
        numbers
            .filter_map(|text| text.parse::<f64>().ok())
            .filter(|number| number.is_finite())
            .collect()
    }

    fn fires(&self, alert: &str) -> bool {
        let alerts = self.get("/api/v1/alerts")["alerts"].as_array().cloned().unwrap_or_default();
        alerts
            .iter()
            .any(|found| found["labels"]["alertname"] == alert && found["state"] == "firing")
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The queries of the dashboard, by panel.
fn dashboard() -> Vec<(String, String)> {
    let text = fs::read_to_string(Path::new(ROOT).join("docs/grafana/throng.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        assert_eq!(targets.is_empty(), panel["type"] == "row", "{panel}");
        for target in targets {
            let query = target["expr"].as_str().unwrap();
            let query = query.replace("$instance", ".*").replace("$__rate_interval", "1m");
            assert!(!query.contains('$'), "{query}");
            queries.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    queries
}

/// The expressions of the alerts, each asked whether it holds and not for whom: an alert that nobody has cause
/// for gives no data otherwise.
fn alerts() -> Vec<(String, String)> {
    let text = fs::read_to_string(Path::new(ROOT).join("docs/grafana/alerts.yml")).unwrap();
    let mut alerts = Vec::new();
    for part in text.split("- alert: ").skip(1) {
        let name = part.lines().next().unwrap().to_owned();
        let (_, rest) = part.split_once("expr: ").unwrap();
        let end =
            ["\n        for:", "\n        labels:"].iter().filter_map(|end| rest.find(end)).min();
        let words: Vec<&str> =
            rest[..end.unwrap()].trim_start_matches(">-").split_whitespace().collect();
        let expression = words.join(" ").replace(" > ", " > bool ").replace(" == ", " == bool ");
        alerts.push((name, expression));
    }
    alerts
}

/// What a panel draws of a [`Troubled`] node that is more than nothing, by a word of the panel's query.
const BUSY: [(&str, &str); 18] = [
    ("Connections", "throng_connections"),
    ("Arrivals and ends", "throng_disconnects_total"),
    ("Turned away", "throng_refusals_total"),
    ("Turned away", "throng_auth_refusals_total"),
    ("Turned away", "throng_handshakes_refused_total"),
    ("Messages", "throng_deliveries_total"),
    ("Errors answered", "throng_command_errors_total"),
    ("Queue bytes", "throng_queue_bytes_sum"),
    ("Queues over a size", "le=\"1024\""),
    ("Lost by slow readers", "throng_dropped_total"),
    ("Connections by tenant", "throng_tenant_connections"),
    ("Messages by tenant", "throng_tenant_deliveries_total"),
    ("Refusals by tenant", "throng_tenant_refusals_total"),
    ("Store", "throng_store_kept_total"),
    ("Webhook events", "throng_webhook_events_total"),
    ("Webhook events", "throng_webhook_failures_total"),
    ("Bridge traffic", "throng_bridge_received_total"),
    ("Bridge link", "throng_bridge_up"),
];

/// The same, once its Redis is gone.
const BUSY_WITHOUT_REDIS: [(&str, &str); 2] = [
    ("Store troubles", "throng_store_faults_total"),
    ("Bridge losses", "throng_bridge_failures_total"),
];

/// A node with a tenant, a back end that refuses every event, a store and a link to others in a Redis of its own, and a
/// reader who does not read.
struct Troubled {
    node: Node,
    redis: Redis,
    _refuses: Backend,
    _slow: Client,
    member: Client,
}

impl Troubled {
    fn start() -> Self {
        let redis = Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
        let refuses = Backend::open(|_| Some(response("500 Internal Server Error", "")));
        let hook = hook("refuses", &refuses, r#""joined""#, ", linger_ms=0, max_attempts=1");
        let admin = with_admin(r#""notify""#);
        let sets: &[&str] = &[
            &admin[0],
            &admin[1],
            "admin.metrics_open=true",
            PATIENT,
            "auth.mode=token",
            &format!("auth.secret={SIGNING:?}"),
            "auth.require_expiry=false",
            r#"auth.allowed_origins=["https://app.example"]"#,
            "store.redis=true",
            "bridge.node=a",
            "tcp.send_buffer_bytes=4096",
            "queue.high_water_bytes=16384",
            "queue.low_water_bytes=4096",
            &format!("webhook=[{hook}]"),
        ];
        let node = linked("auto", redis.address(), sets);
        let claims = json!({"sub": "ada", "tenant": "acme", "rooms": ["*"]});
        let mut slow =
            Client::connect_narrow_with(node.address(), &format!("Bearer {}", token(&claims)));
        slow.join("r");
        let mut member = enter(node.address(), &claims);
        member.join("s");
        Self { node, redis, _refuses: refuses, _slow: slow, member }
    }

    fn admin(&self) -> SocketAddr {
        self.node.admin_address().expect("an admin listener")
    }

    /// A little more of everything that can go wrong while Redis is there.
    fn stir(&mut self) {
        let payload = "x".repeat(8192);
        for room in ["r", "r", "r", "s"] {
            let reply =
                self.member.ask_among(json!({"type": "x", "room": room, "payload": payload}));
            assert_eq!(reply["ok"], json!(true), "{reply}");
        }
        let refusal = self.member.ask_among(json!({"type": "throng:no such"}));
        assert_eq!(refusal["code"], "unknown_command", "{refusal}");
        let left = self.member.ask_among(json!({"type": "throng:leave", "room": "s"}));
        assert_eq!(left["ok"], json!(true), "{left}");
        let joined = self.member.ask_among(json!({"type": "throng:join", "room": "s"}));
        assert_eq!(joined["ok"], json!(true), "{joined}");
        let page = ("Origin", "https://other.example");
        assert_eq!(status(&knock(self.node.address(), "/ws", &[page])), "403");
        assert_eq!(status(&knock(self.node.address(), "/ws", &[])), "401");
        drop(enter(self.node.address(), &json!({"sub": "bob"})));
        assert_eq!(self.notify(), 201);
    }

    /// The status that a notification is answered with.
    fn notify(&self) -> u16 {
        let body = json!({"user": "ada", "payload": 1, "type": "mail"}).to_string();
        ask(self.admin(), "POST /v1/notify", &body).0
    }
}

/// The query of a panel that has this word.
fn query_of<'a>(panels: &'a [(String, String)], (title, word): (&str, &str)) -> &'a str {
    let mut found = panels.iter().filter(|(panel, query)| panel == title && query.contains(word));
    &found.next().unwrap_or_else(|| panic!("{title} asks for {word}")).1
}

#[test]
fn every_panel_and_every_alert_has_data_in_a_prometheus_that_scrapes_a_loaded_node() {
    if !is_installed("prometheus") {
        return;
    }
    let mut troubled = Troubled::start();
    let prometheus = Prometheus::start(troubled.admin());
    wait_until("the first scrape", || prometheus.has_data("throng_open_connections"));
    for alert in ["ThrongWebhookLosses", "ThrongStoreBroken", "ThrongBridgeDown"] {
        assert!(!prometheus.fires(alert), "{alert}: nothing has happened yet");
    }
    let (panels, alerts) = (dashboard(), alerts());
    assert!(panels.len() > 60 && alerts.len() == 15, "{} and {}", panels.len(), alerts.len());
    for busy in BUSY {
        let query = query_of(&panels, busy);
        wait_until(&format!("{busy:?} is more than nothing: {query}"), || {
            troubled.stir();
            prometheus.is_more_than_nothing(query)
        });
    }
    wait_until("the alert of lost events", || prometheus.fires("ThrongWebhookLosses"));
    for (name, query) in panels.iter().chain(&alerts) {
        wait_until(&format!("{name} has data: {query}"), || prometheus.has_data(query));
    }
    troubled.redis.stop();
    for busy in BUSY_WITHOUT_REDIS {
        let query = query_of(&panels, busy);
        wait_until(&format!("{busy:?} is more than nothing: {query}"), || {
            assert_eq!(troubled.notify(), 503);
            prometheus.is_more_than_nothing(query)
        });
    }
    wait_until("the alert of the store", || prometheus.fires("ThrongStoreBroken"));
    // It fires half a minute later: that long nobody waits here.
    let (_, down) = alerts.iter().find(|(name, _)| name == "ThrongBridgeDown").unwrap();
    wait_until("the alert of the bridge holds", || prometheus.is_more_than_nothing(down));
}

#[test]
fn the_alert_of_slow_consumers_fires_when_clients_stop_reading() {
    if !is_installed("prometheus") {
        return;
    }
    let sets = [
        "admin.listen=127.0.0.1:0",
        "admin.metrics_open=true",
        "queue.overflow=\"disconnect\"",
        "tcp.send_buffer_bytes=4096",
        "queue.high_water_bytes=16384",
        "queue.low_water_bytes=4096",
    ];
    let node = node("auto", &sets);
    let prometheus = Prometheus::start(node.admin_address().unwrap());
    let quiet = r#"throng_disconnects_total{reason="slow_consumer"} == 0"#;
    wait_until("the first scrape", || prometheus.has_data(quiet));
    assert!(!prometheus.fires("ThrongSlowConsumers"), "nobody is slow yet");
    // The alert is for 0.1 a second over five minutes, and Prometheus has seen none of these yet.
    let mut slow: Vec<Client> = (0..60).map(|_| Client::connect_narrow(node.address())).collect();
    for client in &mut slow {
        client.join("r");
    }
    let mut publisher = Client::connect(node.address());
    let payload = "x".repeat(8192);
    while node.counters().slow_consumers_total < 60 {
        let reply = publisher.ask(json!({"type": "x", "room": "r", "payload": payload}));
        assert_eq!(reply["ok"], json!(true), "{reply}");
    }
    wait_until("the alert", || prometheus.fires("ThrongSlowConsumers"));
    let lost = scrape_open(&node);
    let dropped = figure(&lost, "throng_dropped_total", &["\"disconnect\""]);
    assert!(is(dropped, 60), "{dropped} were closed by their room's policy");
}

fn scrape_open(node: &Node) -> String {
    ask(node.admin_address().unwrap(), "GET /metrics", "").1
}
