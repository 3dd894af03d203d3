//! The program itself: what it prints, how it obeys signals, how it ends.

use std::net::SocketAddr;

use serde_json::json;

use crate::process::Program;
use crate::stream::Listener;
use crate::support::{Client, exchange, wait_until};

#[test]
fn it_says_where_it_serves_with_which_driver_and_on_how_many_shards() {
    let program = Program::start(&[]);
    assert!(program.said.contains("on 2 shards"), "{}", program.said);
    assert!(program.said.contains("driver "), "{}", program.said);
    program.signal("-TERM");
    assert_eq!(program.exit_code(), Some(0));
}

/// What the README tells a newcomer to type, as far as it is not curl's.
#[test]
fn what_the_readme_says_leads_to_a_published_message() {
    let readme = include_str!("../../README.md");
    let within = |text: &'static str, before: &str, after: &str| {
        let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{before} is in {text}"));
        rest.split_once(after).unwrap_or_else(|| panic!("{after} is in {rest}")).0
    };
    let section = within(readme, "## Publish from a back end", "\n## ");
    let config = within(section, "<<'END'\n", "    END").replace("127.0.0.1:8081", "127.0.0.1:0");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("throng.toml");
    std::fs::write(&file, config).unwrap();
    let program = Program::start(&["--config", file.to_str().unwrap()]);
    let (_, admin) = program.said.split_once("admin on http://").expect("the address");
    let admin: SocketAddr = admin.lines().next().unwrap().parse().unwrap();
    let target = within(section, "curl -N 'http://127.0.0.1:8080", "'");
    let mut listener = Listener::settled(program.address, target);
    let mut client = Client::connect(program.address);
    client.join("lobby");
    let header = within(section, "-H '", "'");
    let body = within(section, "-d '", "'");
    let path = within(section, "http://127.0.0.1:8081", "\n");
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{header}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let answer = exchange(admin, request.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // As the README shows it, but for the name of this life of the room.
    let shown = within(section, "It answers `", "...");
    assert!(answer.contains(shown) && answer.contains(r#"","offset":1}}}"#), "{answer}");
    let sent: serde_json::Value = serde_json::from_str(body).unwrap();
    for heard in [listener.next().1, client.next()] {
        assert_eq!((&heard["offset"], &heard["payload"]), (&json!(1), &sent["payload"]));
    }
    drop((listener, client));
    program.signal("-TERM");
    assert_eq!(program.exit_code(), Some(0));
}

#[test]
fn sigterm_closes_clients_with_1012_and_exits_with_0() {
    let program = Program::start(&["--set", "server.drain_timeout_ms=1000"]);
    let mut client = Client::connect(program.address);
    program.signal("-TERM");
    assert_eq!(client.next()["type"], "throng:reload");
    assert_eq!(client.close_code(), 1012);
    assert_eq!(program.exit_code(), Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let program = Program::start(&["--set", "server.drain_timeout_ms=3600000"]);
    let mut client = Client::connect(program.address);
    program.signal("-TERM");
    assert_eq!(client.next()["type"], "throng:reload");
    program.signal("-TERM");
    assert_eq!(program.exit_code(), Some(0));
}

#[test]
fn sighup_reads_limits_again_and_wrong_files_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("throng.toml");
    std::fs::write(&file, "[limits]\nmax_rooms = 1\n").unwrap();
    let program = Program::start(&["--config", file.to_str().unwrap()]);
    let mut client = Client::connect(program.address);
    client.join("one");
    let refused = json!({"type": "throng:join", "room": "two"});
    assert_eq!(client.ask(refused.clone())["code"], "room_limit");
    std::fs::write(&file, "[limits]\nmax_rooms = \"many\"\n").unwrap();
    program.signal("-HUP");
    client.expect_silence();
    std::fs::write(&file, "[limits]\nmax_rooms = 2\n").unwrap();
    program.signal("-HUP");
    wait_until("the new limit holds", || client.ask(refused.clone())["ok"] == json!(true));
    program.signal("-TERM");
    drop(client);
    assert_eq!(program.exit_code(), Some(0));
}

#[test]
fn a_heartbeat_as_long_as_the_patience_of_proxies_is_warned_of_at_start() {
    for (interval, warned) in [("59999", false), ("60000", true)] {
        let set = format!("heartbeat.ping_interval_ms={interval}");
        let program = Program::start(&["--set", &set]);
        program.signal("-TERM");
        let (status, log) = program.end();
        assert_eq!(status.code(), Some(0));
        let warning = log.lines().find(|line| line.contains("WARN"));
        let said = warning.is_some_and(|line| line.contains("heartbeat.ping_interval_ms = 60000"));
        assert_eq!((warning.is_some(), said), (warned, warned), "{log}");
    }
}

#[test]
fn who_serves_everybody_is_told_at_start_what_that_means() {
    for (mode, warned) in [("local", false), ("open", true)] {
        let program = Program::start(&["--set", &format!("auth.mode={mode}")]);
        program.signal("-TERM");
        let (_, log) = program.end();
        let warning = log.lines().find(|line| line.contains("WARN"));
        let said = warning.is_some_and(|line| {
            line.contains("auth.mode = \"open\": anyone who can connect may join and publish")
        });
        assert_eq!((warning.is_some(), said), (warned, warned), "{log}");
    }
}

#[test]
fn turns_are_timed_only_where_that_was_asked_for() {
    for asked in [false, true] {
        let mut program = Program::start(&["--set", &format!("debug.turn_clock={asked}")]);
        let _client = Client::connect(program.address);
        let line = program.counters_line();
        let figure = |name| line.split_whitespace().find_map(|pair| pair.strip_prefix(name));
        let longest = figure("longest_turn_us=").map(|micros| micros.parse::<u64>().unwrap());
        assert_eq!(longest.is_some_and(|micros| micros > 0), asked, "{line}");
        assert_eq!(figure("turns_over_2ms=").is_some(), asked, "{line}");
    }
}
