//! The admin listener of a whole node.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::process::Program;
use crate::support::{Client, PATIENCE, node, on_both_drivers, wait_for, wait_until};

const SECRET: &str = "a secret of sixteen bytes or more";

/// Sends a request and returns the status and the body of the answer.
pub(crate) fn ask(address: SocketAddr, request: &str, body: &str) -> (u16, String) {
    let Ok(mut stream) = TcpStream::connect(address) else { return (0, String::new()) };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\
         Authorization: Bearer {SECRET}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    (head.split(' ').nth(1).unwrap_or("0").parse().unwrap(), body.to_owned())
}

pub(crate) fn with_admin(scopes: &str) -> [String; 2] {
    let key = format!(r#"key=[{{name="test", secret="{SECRET}", scopes=[{scopes}]}}]"#);
    ["admin.listen=127.0.0.1:0".to_owned(), key]
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
