//! The generator at a door that asks for TLS and tokens, on both drivers: it comes in with the right authority and the
//! right secret, and says in words what is wrong with others.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rcgen::KeyUsagePurpose;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::Value;

use crate::engine::Engine;

const SECRET: &str = "a secret of no less than 32 bytes";
/// Clients and publishers that say something.
const CLIENTS: &str = "--clients 20 --messages 50 --duration 0 --window 8";

fn file(name: &str, text: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).expect("a file");
    path.to_str().expect("a path in UTF-8").to_owned()
}

/// Somebody who vouches for servers.
fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, "an authority");
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("a certificate")
}

/// An engine on that driver that asks for tokens and speaks TLS too, and a file with the authority behind it.
fn guarded(driver: &str) -> (Engine, String) {
    let authority = authority();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    let key = KeyPair::generate().expect("a key");
    let chain = params.signed_by(&key, &authority).expect("a certificate");
    let chain = file(&format!("secure-{driver}-chain.pem"), &chain.pem());
    let key = file(&format!("secure-{driver}-key.pem"), &key.serialize_pem());
    let sets = [
        format!("server.driver={driver}"),
        "tls.listen=127.0.0.1:0".to_owned(),
        format!("certificate=[{{chain={chain:?}, key={key:?}}}]"),
        "auth.mode=token".to_owned(),
        format!("auth.secret={SECRET}"),
    ];
    let engine = Engine::start(&sets.each_ref().map(String::as_str));
    (engine, file(&format!("secure-{driver}-ca.pem"), &authority.pem()))
}

/// How a run ended, what it said on both streams, and its messages as they were counted.
fn run(url: &str, name: &str, flags: &[&str]) -> (Option<i32>, String, Value) {
    let json = file(name, "null");
    let output = Command::new(env!("CARGO_BIN_EXE_throng-load"))
        .args(["fanout", "--quiet", "--patience-ms", "5000", "--url", url, "--json", &json])
        .args(CLIENTS.split_whitespace())
        .args(flags)
        .output()
        .expect("the generator starts");
    let said = [output.stdout, output.stderr].concat();
    let mut outcome: Value =
        serde_json::from_slice(&fs::read(&json).expect("an outcome")).expect("JSON");
    let messages = outcome["totals"]["messages"].take();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned(), messages)
}

fn holds(driver: &str) {
    let (engine, ca) = guarded(driver);
    let plain = format!("ws://{}/ws", engine.address);
    let secure = format!("wss://{}/ws", engine.secure.expect("TLS is on"));
    let json = format!("secure-{driver}.json");
    let run = |url: &str, flags: &[&str]| run(url, &json, flags);
    let token = ["--token-secret", SECRET];
    let (code, said, messages) = run(&plain, &token);
    if code == Some(2) && said.contains("io_uring is not available") {
        return;
    }
    // Each of the clients has heard each message.
    let check = |(code, said, messages): (Option<i32>, String, Value)| {
        let [expected, received, lost] =
            ["expected", "received", "lost"].map(|it| messages[it].as_u64().expect("a count"));
        assert_eq!((code, received, lost), (Some(0), expected, 0), "{said}");
        assert!(received >= 20 * 50, "{said}");
    };
    check((code, said, messages));
    check(run(&secure, &[&token[..], &["--ca", &ca]].concat()));
    // An authority that did not sign, one that is in no file, and nobody at all.
    let other = file(&format!("secure-{driver}-other.pem"), &authority().pem());
    let (code, said, _) = run(&secure, &[&token[..], &["--ca", &other]].concat());
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("UnknownIssuer") || said.contains("BadSignature"), "{said}");
    for (flags, words) in [(&["--ca", "/nowhere.pem"][..], "/nowhere.pem: "), (&[], "--ca FILE")] {
        let (code, said, _) = run(&secure, &[&token[..], flags].concat());
        assert_eq!((code, said.contains(words)), (Some(2), true), "{said}");
    }
    // And an engine that does not believe the clients.
    for flags in [&[][..], &["--token-secret", "another secret of more than 32 bytes"]] {
        let (code, said, _) = run(&secure, &[&["--ca", &ca], flags].concat());
        assert_ne!(code, Some(0), "{said}");
        assert!(said.contains("21 x the upgrade was refused: 401"), "each is told: {said}");
    }
}

#[test]
fn the_right_authority_and_secret_open_the_door_and_others_are_told_on_epoll() {
    holds("epoll");
}

#[test]
fn the_right_authority_and_secret_open_the_door_and_others_are_told_on_io_uring() {
    holds("uring");
}
