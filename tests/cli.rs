//! The `throng` program as a shell sees it: exit codes, and which stream says what.
//!
//! What the configuration accepts is tested beside its code; here only that it reaches the program.

#![expect(clippy::expect_used, reason = "a program that does not run fails the test")]

use std::fs;
use std::process::{Command, Output};

fn throng(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_throng")).args(arguments).output().expect("the program runs")
}

#[test]
fn a_wrong_configuration_is_told_on_standard_error_with_exit_code_2() {
    for command in ["run", "check-config", "print-config"] {
        let output = throng(&[command, "--set", "server.shrads=2", "--set", "log.level=loud"]);
        assert_eq!(output.status.code(), Some(2), "{command}");
        assert!(output.stdout.is_empty(), "{command}");
        let errors = String::from_utf8(output.stderr).expect("text");
        let lines: Vec<&str> = errors.lines().collect();
        assert_eq!(lines.len(), 2, "{errors}");
        assert!(lines[0].ends_with("did you mean server.shards?"), "{errors}");
    }
}

#[test]
fn a_wrong_command_line_has_exit_code_2_and_help_has_0() {
    for arguments in [&[][..], &["serve"], &["run", "--cofnig", "x"]] {
        assert_eq!(throng(arguments).status.code(), Some(2), "{arguments:?}");
    }
    for arguments in [["--help"], ["--version"], ["help"]] {
        let output = throng(&arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn what_print_config_prints_is_a_file_that_check_config_accepts() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("throng.toml");
    let printed = throng(&["print-config", "--set", "server.shards=3"]).stdout;
    fs::write(&path, &printed).expect("a file");
    let path = path.to_str().expect("a path in UTF-8");
    let checked = throng(&["check-config", "--config", path]);
    assert_eq!(checked.status.code(), Some(0));
    assert_eq!(checked.stdout, b"the configuration is valid\n");
    assert_eq!(throng(&["print-config", "--config", path]).stdout, printed);
}

#[test]
fn no_secret_is_printed_by_print_config_or_in_an_error() {
    let secrets = [
        "auth.secret=hunter2hunter2hunter2hunter2hunter2",
        "bridge.url=redis://svc:hunter2@127.0.0.1:1",
        "bridge.password=hunter2",
        "auth_webhook.url=http://[::1]/",
        "auth_webhook.secret=hunter2hunter2hunter2",
        r#"key=[{name="a", secret="hunter2hunter2hunter2", scopes=[]}]"#,
    ];
    let sets: Vec<&str> = secrets.iter().flat_map(|set| ["--set", set]).collect();
    let output = throng(&[&["print-config"], &sets[..]].concat());
    assert_eq!(output.status.code(), Some(0));
    let printed = String::from_utf8(output.stdout).expect("text");
    assert_eq!(printed.matches("= \"***\"").count(), 4, "{printed}");
    assert!(printed.contains("url = \"redis://***@127.0.0.1:1\""), "{printed}");
    assert!(!printed.contains("hunter2"), "{printed}");
    for wrong in [
        "auth.secert=hunter2",
        "auth.secret=[\"hunter2\"]",
        "auth.jwks_url=https://svc:hunter2@id.example.com/jwks.json",
        "auth_webhook.secret=hunter2",
    ] {
        for command in ["run", "check-config", "print-config"] {
            let output = throng(&[command, "--set", wrong]);
            let error = String::from_utf8(output.stderr).expect("text");
            assert_eq!(output.status.code(), Some(2), "{command} {wrong}: {error}");
            assert!(error.contains("auth") && !error.contains("hunter2"), "{error}");
        }
    }
}

#[test]
fn a_key_that_is_weak_or_private_keeps_the_program_from_starting() {
    let vectors = include_str!("vectors/tokens.json");
    let vectors: serde_json::Value = serde_json::from_str(vectors).expect("the vectors");
    let folder = tempfile::tempdir().expect("a folder");
    let unusable = vectors["unusable"]["pem"].as_object().expect("keys");
    let mut cases = vec![
        ("auth.secret=thirty-one bytes, one too short".to_owned(), "at least 32 bytes"),
        ("auth.jwks_file=/nowhere".to_owned(), "auth.jwks_file"),
    ];
    for (name, pem) in unusable {
        let path = folder.path().join(name);
        fs::write(&path, pem.as_str().expect("text")).expect("a file");
        let expected = if name.contains("private") { "private" } else { "2048" };
        cases.push((format!("auth.public_key_files=[{path:?}]"), expected));
    }
    assert!(cases.len() > 3, "{cases:?}");
    for (set, expected) in cases {
        let own = ["run", "--set", "server.listen=127.0.0.1:0", "--set", "auth.mode=token"];
        let output = throng(&[&own[..], &["--set", &set]].concat());
        let error = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{set}: {error}");
        assert!(output.stdout.is_empty() && error.contains(expected), "{set}: {error}");
    }
}

#[test]
fn a_warning_is_told_and_is_no_failure() {
    let output = throng(&["check-config", "--set", "heartbeat.ping_interval_ms=60000"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.starts_with("warning: heartbeat.ping_interval_ms = 60000: "), "{text}");
}

#[test]
fn the_doctor_says_what_is_wrong_and_how_to_mend_it_and_its_exit_code_says_so_too() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = taken.local_addr().expect("an address");
    let few = ["--set", "server.max_connections=100", "--set", "server.driver=epoll"];
    let run = |listen: &str| throng(&[&["doctor", "--set", listen][..], &few].concat());
    let sick = run(&format!("server.listen={address}"));
    assert_eq!(sick.status.code(), Some(1));
    let text = String::from_utf8(sick.stdout).expect("text");
    let line = text.lines().find(|line| line.contains("server.listen: ")).expect("a finding");
    assert!(line.starts_with("BAD ") && line.contains("in use"), "{line}");
    assert!(text.contains(&format!("ss -ltnp 'sport = :{}'", address.port())), "{text}");
    drop(taken);
    let well = run("server.listen=127.0.0.1:0");
    let text = String::from_utf8(well.stdout).expect("text");
    let bad = text.lines().filter(|line| line.starts_with("BAD ")).count();
    assert_eq!(well.status.code(), Some(i32::from(bad > 0)), "{text}");
    assert!(text.lines().last().is_some_and(|line| line.starts_with("14 checks, ")), "{text}");
}

#[test]
fn the_doctor_estimates_memory_and_descriptors() {
    let output = throng(&["doctor", "--estimate", "1000000", "--set", "server.shards=8"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.starts_with("1000000 idle connections on 8 shards\n"), "{text}");
    assert!(text.contains("LimitNOFILE=133068"), "{text}");
    for wrong in [&["--estimate", "many"][..], &["--through", "http://a/"], &["--patience", "1"]] {
        let output = throng(&[&["doctor"], wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}
