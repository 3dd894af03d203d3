//! New certificates under live connections.

use serde_json::json;

use crate::authority::{Authority, Spoken};
use crate::process::Program;
use crate::support::{on_both_drivers, wait_until};
use crate::tls::client::{Files, Secure, SecureClient, stream};
use std::net::SocketAddr;
use std::sync::Arc;

/// Whether a client that believes only this authority gets in, whatever it speaks.
fn believes(authority: &Authority, address: SocketAddr) -> bool {
    let gets_in = Spoken::BOTH.map(|version| {
        let config = Arc::new(authority.client(version, None));
        SecureClient::over(stream(address, &config, "example.org"), "/ws").is_some()
    });
    gets_in == [true; 2]
}

/// Whether no client gets in that believes only this authority, whichever shard has it.
fn disbelieves(authority: &Authority, address: SocketAddr) -> bool {
    [Spoken::BOTH; 4].iter().flatten().all(|version| {
        let config = Arc::new(authority.client(*version, None));
        SecureClient::over(stream(address, &config, "example.org"), "/ws").is_none()
    })
}

/// A client of each version, each in the room.
fn connect(address: SocketAddr, authority: &Authority) -> [SecureClient; 2] {
    Spoken::BOTH.map(|version| {
        let config = Arc::new(authority.client(version, None));
        let mut client = SecureClient::connect(address, &config);
        client.join("r");
        client
    })
}

/// Each of them says something, and all of them hear it.
fn talk(live: &mut [SecureClient]) {
    for speaker in 0..live.len() {
        live[speaker].send(&json!({"type": "t", "room": "r", "payload": speaker}));
        live.iter_mut().for_each(|listener| assert_eq!(listener.next()["payload"], json!(speaker)));
    }
}

fn replace_authority(files: &mut Files) -> Authority {
    let old = std::mem::replace(&mut files.authority, Authority::new());
    files.issue();
    old
}

on_both_drivers! {
    fn a_session_survives_a_change_of_certificates_and_new_ones_get_the_new(driver) {
        let mut secure = Secure::start(driver, &[]);
        let address = secure.address();
        let mut live = connect(address, &secure.files.authority);
        talk(&mut live);
        let old = replace_authority(&mut secure.files);
        secure.node.reload(&secure.config).unwrap();
        wait_until("the new one is shown", || believes(&secure.files.authority, address));
        wait_until("the old one is not", || disbelieves(&old, address));
        talk(&mut live);
        talk(&mut connect(address, &secure.files.authority));
    }

    fn a_certificate_that_does_not_do_leaves_the_old_one_in_use(driver) {
        let secure = Secure::start(driver, &[]);
        secure.files.write("key.pem", "no key");
        secure.node.reload(&secure.config).unwrap();
        secure.files.write("chain.pem", "no certificate");
        secure.node.reload(&secure.config).unwrap();
        for _ in 0..10 {
            assert!(believes(&secure.files.authority, secure.address()));
        }
    }

    fn the_program_takes_new_certificates_when_the_files_change_and_nobody_says_so(driver) {
        let mut files = Files::new();
        let (program, address) = start(driver, &files, "tls.watch_interval_ms=100");
        let mut live = connect(address, &files.authority);
        let old = replace_authority(&mut files);
        wait_until("the files were noticed", || believes(&files.authority, address));
        wait_until("the old one is not shown", || disbelieves(&old, address));
        talk(&mut live);
        // What is no certificate is not taken, and what replaces it is.
        files.write("chain.pem", "half a file");
        replace_authority(&mut files);
        wait_until("the next were noticed", || believes(&files.authority, address));
        talk(&mut live);
        drop(live);
        let [taken, read] = end(program);
        assert!(taken >= 2, "{taken}");
        assert_eq!(read, 0, "no signal was sent");
    }

    fn the_program_takes_new_certificates_on_sighup_though_it_watches_no_file(driver) {
        let mut files = Files::new();
        let (program, address) = start(driver, &files, "tls.watch_interval_ms=0");
        let mut live = connect(address, &files.authority);
        for _ in 0..2 {
            let old = replace_authority(&mut files);
            assert!(believes(&old, address) && disbelieves(&files.authority, address));
            program.signal("-HUP");
            wait_until("the signal was heard", || believes(&files.authority, address));
            wait_until("the old one is not shown", || disbelieves(&old, address));
            talk(&mut live);
        }
        drop(live);
        assert_eq!(end(program), [2, 2], "once for each signal");
    }
}

/// A program with certificates, and where it speaks TLS.
fn start(driver: &str, files: &Files, watch: &str) -> (Program, SocketAddr) {
    let [certificate, clients] = files.sets();
    let driver = format!("server.driver={driver}");
    let sets = ["tls.listen=127.0.0.1:0", watch, &driver, &certificate, &clients];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let program = Program::start(&sets);
    let (_, rest) = program.said.split_once("wss://").expect("it says where");
    let address = rest.split('/').next().unwrap().parse().unwrap();
    (program, address)
}

/// How often the certificates were taken over, and how often the configuration was read, by the log of its end.
fn end(program: Program) -> [usize; 2] {
    program.signal("-TERM");
    let (status, log) = program.end();
    assert_eq!(status.code(), Some(0));
    ["the certificates were read", "the configuration was read again"]
        .map(|words| log.lines().filter(|line| line.contains(words)).count())
}
