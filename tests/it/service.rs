//! The node under a service manager, and the files of docs/deploy/.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use crate::metrics::{ROOT, is_installed};
use crate::process::Program;
use crate::support::PATIENCE;

fn heard(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 1024];
    let length = socket.recv(&mut bytes).expect("a message in time");
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

#[test]
fn a_service_manager_hears_that_the_node_is_ready_lives_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "600000")];
    let program = Program::start_with(&environment, &[]);
    assert_eq!(heard(&manager), "READY=1\nSTATUS=serving on 2 shards");
    // Nobody is connected, so the shards sleep: each sign of life is a turn that was asked for.
    for _ in 0..3 {
        assert_eq!(heard(&manager), "WATCHDOG=1");
    }
    program.signal("-TERM");
    let last = std::iter::repeat_with(|| heard(&manager)).find(|text| text != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1\nSTATUS=draining 0 connections"));
    assert_eq!(program.exit_code(), Some(0));
}

#[test]
fn the_unit_file_is_one_that_systemd_accepts_and_does_not_call_exposed() {
    if !is_installed("systemd-analyze") {
        return;
    }
    let text = fs::read_to_string(Path::new(ROOT).join("docs/deploy/throng.service")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("throng.service");
    // The program is installed nowhere here; the one that was just built stands for it.
    fs::write(&unit, text.replace("/usr/local/bin/throng", env!("CARGO_BIN_EXE_throng"))).unwrap();
    let analyze = |arguments: &[&str]| {
        let output = Command::new("systemd-analyze").args(arguments).arg(&unit).output().unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said.into_owned())
    };
    let (accepted, said) = analyze(&["verify", "--recursive-errors=no"]);
    assert!(accepted && said.trim().is_empty(), "{said}");
    let (safe, said) = analyze(&["security", "--offline=true", "--threshold=25", "--no-pager"]);
    assert!(safe, "its exposure is above 2.5 of 10:\n{said}");
}

#[test]
fn the_image_is_built_with_the_compiler_and_the_arguments_that_this_version_takes() {
    let read = |file: &str| fs::read_to_string(Path::new(ROOT).join(file)).unwrap();
    let (image, manifest) = (read("docs/deploy/Dockerfile"), read("Cargo.toml"));
    let (_, version) = manifest.split_once("rust-version = \"").unwrap();
    let version = version.split('"').next().unwrap();
    assert!(image.contains(&format!("FROM rust:{version}-bookworm AS build")), "{version}");
    let (_, command) = image.split_once("\nCMD ").expect("a command");
    let arguments: Vec<String> = serde_json::from_str(command.trim()).unwrap();
    assert_eq!(arguments[0], "run");
    let mut check = Command::new(env!("CARGO_BIN_EXE_throng"));
    let output = check.arg("check-config").args(&arguments[1..]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_kernel_settings_are_those_that_the_doctor_looks_at() {
    let text = fs::read_to_string(Path::new(ROOT).join("docs/deploy/90-throng.conf")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let settings: Vec<(&str, &str)> =
        lines.map(|line| line.split_once(" = ").expect(line)).collect();
    let value = |name: &str| {
        let found = settings.iter().find(|(own, _)| own.trim_start_matches('-') == name);
        found.and_then(|(_, value)| value.split(' ').next_back()?.parse::<u64>().ok())
    };
    // What a million connections on one shard need, as the doctor reckons.
    let least = [
        ("fs.nr_open", 1_062_756),
        ("fs.file-max", 1_065_536),
        ("net.core.somaxconn", 4096),
        ("net.ipv4.tcp_max_syn_backlog", 4096),
        ("net.ipv4.tcp_mem", 349_718),
        ("net.ipv4.ip_local_port_range", 65_535),
        ("net.netfilter.nf_conntrack_max", 1_266_384),
    ];
    assert_eq!(settings.len(), least.len(), "{settings:?}");
    for (name, least) in least {
        assert!(value(name) >= Some(least), "{name} is {:?}", value(name));
    }
}
