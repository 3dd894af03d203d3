//! Keys by URL over HTTPS, from a provider that speaks TLS: rows A1 and A3. The program trusts what its
//! system trusts, which here is one authority of the test's own, named in its environment.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::admin::{ask, with_admin};
use crate::auth::{b64, knock, status, token_under};
use crate::authority::{Authority, Issued};
use crate::process::Program;
use crate::support::{on_both_drivers, wait_until};

const KEY: &str = "the provider's key of 32 bytes or more";

/// Serves a set with that key over HTTPS to whoever believes in the certificate.
fn provide(issued: &Issued) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(issued.chain.clone(), issued.key())
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move || {
        for socket in listener.incoming() {
            let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(tls, socket.unwrap());
            // Whoever does not believe us ends it here.
            if !matches!(stream.read(&mut [0; 4096]), Ok(length) if length > 0) {
                continue;
            }
            let key = json!({"kty": "oct", "alg": "HS256", "kid": "one", "k": b64(KEY)});
            let body = json!({ "keys": [key] }).to_string();
            let length = body.len();
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length:";
            let _ = stream.write_all(format!("{head} {length}\r\n\r\n{body}").as_bytes());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    };
    // It ends with the process: nobody waits for it.
    std::thread::Builder::new().spawn(serve).unwrap();
    address
}

/// A program that fetches its keys there and trusts this authority; its admin listener.
fn start(
    driver: &str,
    provider: SocketAddr,
    trusted: &Authority,
) -> (Program, SocketAddr, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authority.pem");
    std::fs::write(&file, trusted.pem()).unwrap();
    let [listen, key] = with_admin(r#""inspect""#);
    let sets = [
        listen,
        key,
        format!("server.driver={driver}"),
        "server.pin=false".to_owned(),
        "auth.mode=token".to_owned(),
        "auth.require_expiry=false".to_owned(),
        format!("auth.jwks_url=https://{provider}/jwks.json"),
        "auth.jwks_cool_down_ms=100".to_owned(),
        // A test that waits asks often.
        "admin.requests_per_second=1000000".to_owned(),
    ];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let program = Program::start_knowing("SSL_CERT_FILE", file.to_str().unwrap(), &sets);
    let (_, rest) = program.said.split_once("admin on http://").unwrap();
    let admin = rest.lines().next().unwrap().parse().unwrap();
    (program, admin, folder)
}

fn enters(program: &Program) -> bool {
    let token = token_under(r#"{"alg":"HS256","kid":"one"}"#, KEY, &json!({"sub": "ada"}));
    let bearer = format!("Bearer {token}");
    status(&knock(program.address, "/ws", &[("Authorization", &bearer)])) == "101"
}

fn counter(admin: SocketAddr, name: &str) -> u64 {
    let counters: Value = serde_json::from_str(&ask(admin, "GET /v1/counters", "").1).unwrap();
    counters[name].as_u64().unwrap()
}

on_both_drivers! {
    fn keys_come_over_https_from_a_provider_that_is_believed(driver) {
        let authority = Authority::new();
        let address = provide(&authority.issue("provider", &["127.0.0.1"]));
        let (program, admin, _folder) = start(driver, address, &authority);
        wait_until("the keys are there", || ask(admin, "GET /readyz", "").0 == 200);
        wait_until("a token of theirs opens", || enters(&program));
        assert!(counter(admin, "jwks_fetched_total") >= 1);
        program.signal("-TERM");
        let (code, log) = program.end();
        assert_eq!(code.code(), Some(0));
        assert!(!log.contains(KEY) && !log.contains(&b64(KEY)), "{log}");
    }

    fn a_provider_that_is_not_believed_gives_no_keys(driver) {
        let authority = Authority::new();
        let elsewhere = Authority::new();
        // Another authority's certificate, and the right one's for another name.
        for issued in [
            elsewhere.issue("provider", &["127.0.0.1"]),
            authority.issue("provider", &["provider.example"]),
        ] {
            let (program, admin, _folder) = start(driver, provide(&issued), &authority);
            wait_until("it was tried twice", || counter(admin, "jwks_failed_total") >= 2);
            assert!(!enters(&program));
            assert_eq!(counter(admin, "jwks_fetched_total"), 0);
            assert_eq!(ask(admin, "GET /readyz", "").0, 503, "not ready without keys");
            program.signal("-TERM");
            let (_, log) = program.end();
            assert!(log.contains("auth.jwks_url: the connection failed"), "{log}");
        }
    }
}
