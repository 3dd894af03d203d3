//! The program itself: what it prints, how it obeys signals, how it ends.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::support::{Client, wait_until};

struct Program {
    child: Child,
    address: SocketAddr,
    said: String,
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
}

fn start(more: &[&str]) -> Program {
    let mut child = Command::new(env!("CARGO_BIN_EXE_throng"))
        .args(["run", "--set", "server.listen=127.0.0.1:0", "--set", "server.shards=2"])
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    while !said.contains("open http://") {
        assert!(out.read_line(&mut said).unwrap() > 0, "it ended: {said}");
    }
    let (_, rest) = said.split_once("open http://").unwrap();
    let address = rest.split('/').next().unwrap().parse().unwrap();
    Program { child, address, said }
}

#[test]
fn it_says_where_it_serves_with_which_driver_and_on_how_many_shards() {
    let mut program = start(&[]);
    assert!(program.said.contains("on 2 shards"), "{}", program.said);
    assert!(program.said.contains("driver "), "{}", program.said);
    signal(&program.child, "-TERM");
    assert_eq!(program.child.wait().unwrap().code(), Some(0));
}

#[test]
fn sigterm_closes_clients_with_1012_and_exits_with_0() {
    let mut program = start(&["--set", "server.drain_timeout_ms=1000"]);
    let mut client = Client::connect(program.address);
    signal(&program.child, "-TERM");
    assert_eq!(client.next()["type"], "throng:reload");
    assert_eq!(client.close_code(), 1012);
    assert_eq!(program.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut program = start(&["--set", "server.drain_timeout_ms=3600000"]);
    let mut client = Client::connect(program.address);
    signal(&program.child, "-TERM");
    assert_eq!(client.next()["type"], "throng:reload");
    signal(&program.child, "-TERM");
    assert_eq!(program.child.wait().unwrap().code(), Some(0));
}

#[test]
fn sighup_reads_limits_again_and_wrong_files_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("throng.toml");
    std::fs::write(&file, "[limits]\nmax_rooms = 1\n").unwrap();
    let mut program = start(&["--config", file.to_str().unwrap()]);
    let mut client = Client::connect(program.address);
    client.join("one");
    let refused = json!({"type": "throng:join", "room": "two"});
    assert_eq!(client.ask(refused.clone())["code"], "room_limit");
    std::fs::write(&file, "[limits]\nmax_rooms = \"many\"\n").unwrap();
    signal(&program.child, "-HUP");
    client.expect_silence();
    std::fs::write(&file, "[limits]\nmax_rooms = 2\n").unwrap();
    signal(&program.child, "-HUP");
    wait_until("the new limit holds", || client.ask(refused.clone())["ok"] == json!(true));
    signal(&program.child, "-TERM");
    drop(client);
    assert_eq!(program.child.wait().unwrap().code(), Some(0));
}
