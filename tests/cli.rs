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
fn a_warning_is_told_and_is_no_failure() {
    let output = throng(&["check-config", "--set", "heartbeat.ping_interval_ms=60000"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.starts_with("warning: heartbeat.ping_interval_ms = 60000: "), "{text}");
}
