//! Real proxies between client and node, with the files of docs/deploy/.
//!
//! The files are used as they are but for ports. What is looked at is what proxies break: the upgrade, large
//! messages, the codes of close frames, the client's address.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;
use throng::node::Node;

use crate::admin::{ask, with_admin};
use crate::metrics::{ROOT, is_installed};
use crate::polling::Polling;
use crate::stream::Listener;
use crate::support::{Client, exchange, free_port, node, wait_for, wait_until};

/// A proxy, ended with the test.
struct Proxy {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Both take it for an order to end at once, their workers with them.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

fn shipped(file: &str, node: &Node) -> String {
    let text = fs::read_to_string(Path::new(ROOT).join("docs/deploy").join(file)).unwrap();
    text.replace("127.0.0.1:8080", &node.address().to_string())
}

fn start(mut command: Command, address: SocketAddr, folder: tempfile::TempDir) -> Proxy {
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let proxy = Proxy { child, address, _folder: folder };
    wait_until("the proxy listens", || TcpStream::connect(address).is_ok());
    proxy
}

/// nginx with the shipped file, and this idle limit in the place of its own.
fn nginx(node: &Node, idle: &str) -> Proxy {
    nginx_without(node, idle, "")
}

/// The same without the lines that begin so, if that is anything.
fn nginx_without(node: &Node, idle: &str, without: &str) -> Proxy {
    let (folder, address) = (tempfile::tempdir().unwrap(), free_address());
    let site = shipped("nginx.conf", node).replace("listen 80;", &format!("listen {address};"));
    assert!(site.contains("proxy_read_timeout 75s;"));
    let site = site.replace("proxy_read_timeout 75s;", &format!("proxy_read_timeout {idle};"));
    let is_left = |line: &&str| without.is_empty() || !line.trim_start().starts_with(without);
    let site: Vec<&str> = site.lines().filter(is_left).collect();
    fs::write(folder.path().join("site.conf"), site.join("\n")).unwrap();
    // The rest of what Debian's own file has around it, with nothing outside of the folder.
    let main = "daemon off; worker_processes 1; pid nginx.pid; error_log error.log;\n\
        events { worker_connections 256; }\n\
        http { access_log off; client_body_temp_path body; proxy_temp_path proxy;\n\
        fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
        include site.conf; }\n";
    fs::write(folder.path().join("nginx.conf"), main).unwrap();
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-p").arg(folder.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
    start(command, address, folder)
}

fn haproxy(node: &Node) -> Proxy {
    let (folder, address) = (tempfile::tempdir().unwrap(), free_address());
    let text = shipped("haproxy.cfg", node).replace("bind *:80", &format!("bind {address}"));
    let text = text.replace("maxconn 200000", "maxconn 200");
    let file = folder.path().join("haproxy.cfg");
    fs::write(&file, text).unwrap();
    let mut command = Command::new("/usr/sbin/haproxy");
    command.arg("-db").arg("-f").arg(file);
    start(command, address, folder)
}

/// Everything that a proxy might break.
fn serves(node: &Node, address: SocketAddr) {
    let mut listener = Listener::settled(address, "/sse?room=r");
    let mut author = Client::connect(address);
    for number in 0..3 {
        author.send(&json!({"type": "x", "room": "r", "payload": number}));
        // Each arrives before the next is sent, so nothing waits for a buffer to be full.
        assert_eq!(listener.next().1["payload"], number);
    }
    let page =
        exchange(address, b"GET /history?room=r HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    drop((listener, author));
    wait_for(node, "both are gone", |counters| counters.open_connections == 0);
    let mut one = Client::connect_from(address, [127, 0, 0, 5]);
    let mut two = Client::connect_from(address, [127, 0, 0, 6]);
    one.join("r");
    two.join("r");
    for size in [1, 1000, 50_000] {
        let payload = "x".repeat(size);
        let except = one.id.clone();
        let publish = json!({"type": "x", "room": "r", "payload": payload, "except": [except]});
        one.ask(publish);
        let heard = two.next();
        assert_eq!(heard["payload"].as_str().map(str::len), Some(size));
    }
    wait_for(node, "each is known by its own address", |counters| counters.parties == 2);
    one.send(&json!({"type": "x", "room": "r", "payload": "x".repeat(100_000)}));
    assert_eq!(one.close_code(), 1009);
    node.drain(std::time::Duration::from_secs(2));
    assert_eq!(two.next()["type"], "throng:reload");
    assert_eq!(two.close_code(), 1012);
}

/// What has other paths than a session: clients of Socket.IO of both kinds, and back ends.
fn serves_everything_else(address: SocketAddr) {
    let mut client = Client::connect(address);
    client.join("r");
    let publish = |n: u32| json!({"type": "x", "room": "r", "payload": n}).to_string();
    assert_eq!(ask(address, "POST /v1/publish", &publish(1)).0, 200);
    assert_eq!(client.next()["payload"], 1);
    let polling = Polling::connect(address, "");
    polling.bring(r#"42["x",2,{"room":"r"}]"#);
    assert_eq!(client.next()["payload"], 2);
    let (mut socket, response) =
        tungstenite::connect(format!("ws://{address}/socket.io/?EIO=4&transport=websocket"))
            .unwrap();
    assert_eq!(response.status(), 101);
    let opening = socket.read().unwrap().into_text().unwrap();
    assert!(opening.starts_with("0{"), "{opening}");
}

#[test]
fn websockets_pass_nginx_with_the_shipped_file() {
    if !is_installed("/usr/sbin/nginx") {
        return;
    }
    let node = node("auto", &["server.shards=1", "server.trusted_proxies=[\"127.0.0.1\"]"]);
    let proxy = nginx(&node, "75s");
    serves(&node, proxy.address);
}

#[test]
fn every_path_passes_nginx_with_the_shipped_file() {
    if !is_installed("/usr/sbin/nginx") {
        return;
    }
    let admin = with_admin(r#""publish""#);
    let sets = ["server.socketio_path=/socket.io/", "admin.public=true", &admin[0], &admin[1]];
    let node = node("auto", &sets);
    let proxy = nginx(&node, "75s");
    serves_everything_else(proxy.address);
}

#[test]
fn websockets_pass_haproxy_with_the_shipped_file() {
    if !is_installed("/usr/sbin/haproxy") {
        return;
    }
    let sets = [
        "server.shards=1",
        "server.trusted_proxies=[\"127.0.0.1\"]",
        "server.proxy_protocol=\"required\"",
        "server.forwarded_header=\"none\"",
    ];
    let node = node("auto", &sets);
    let proxy = haproxy(&node);
    serves(&node, proxy.address);
}

#[test]
fn the_doctor_finds_the_idle_limit_of_a_proxy() {
    if !is_installed("/usr/sbin/nginx") {
        return;
    }
    let node =
        node("auto", &["heartbeat.ping_interval_ms=60000", "heartbeat.ping_timeout_ms=60000"]);
    let proxy = nginx(&node, "1s");
    let url = format!("ws://{}/ws", proxy.address);
    let run = |interval: &str| {
        let set = format!("heartbeat.ping_interval_ms={interval}");
        Command::new(env!("CARGO_BIN_EXE_throng"))
            .args(["doctor", "--through", &url, "--patience", "20", "--set", &set])
            .output()
            .unwrap()
    };
    let long = run("25000");
    let text = String::from_utf8_lossy(&long.stdout);
    assert_eq!(long.status.code(), Some(1), "{text}");
    assert!(text.contains("it was ended after") && text.contains("is too long for that"), "{text}");
    let short = run("500");
    let text = String::from_utf8_lossy(&short.stdout);
    assert_eq!(short.status.code(), Some(0), "{text}");
    assert!(text.contains("of 0.5 s suits"), "{text}");
}

#[test]
fn the_doctor_names_the_header_that_a_proxy_keeps_for_itself() {
    if !is_installed("/usr/sbin/nginx") {
        return;
    }
    let node = node("auto", &["server.shards=1"]);
    let run = |address: SocketAddr| {
        let url = format!("ws://{address}/ws");
        let mut command = Command::new(env!("CARGO_BIN_EXE_throng"));
        let output = command.args(["doctor", "--proxy", &url]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = run(nginx(&node, "75s").address);
    assert!(
        code == Some(0) && text.starts_with("ok       the upgrade through the proxy"),
        "{text}"
    );
    for (line, missing) in [
        ("proxy_set_header Upgrade", "the header Upgrade: websocket is missing"),
        ("proxy_set_header Connection", "the header Connection: Upgrade is missing"),
        ("proxy_http_version", "HTTP/1.1"),
    ] {
        let (code, text) = run(nginx_without(&node, "75s", line).address);
        assert_eq!(code, Some(1), "{line}: {text}");
        assert!(text.starts_with("BAD ") && text.contains(missing), "{line}: {text}");
        assert!(text.contains(&format!("nginx:   {line}")), "the line that mends it: {text}");
    }
    drop(node);
}
