//! Who does not get in leaves nothing behind, and the next is served.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use throng::node::Node;

use crate::authority::{Authority, Spoken};
use crate::support::{PATIENCE, on_both_drivers, wait_for};
use crate::tls::client::{Files, Secure, SecureClient, stream};

/// Whether a client with this configuration gets in.
fn gets_in(secure: &Secure, config: rustls::ClientConfig, name: &str) -> bool {
    SecureClient::over(stream(secure.address(), &Arc::new(config), name), "/ws").is_some()
}

fn raw(secure: &Secure) -> TcpStream {
    let socket = TcpStream::connect(secure.address()).expect("a connection");
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

on_both_drivers! {
    fn a_client_that_does_not_believe_us_is_counted_and_gone(driver) {
        let secure = Secure::start(driver, &[]);
        let authority = &secure.files.authority;
        assert!(!gets_in(&secure, authority.client(Spoken::Tls13, None), "other.example"));
        assert!(!gets_in(&secure, Authority::new().client(Spoken::Tls12, None), "example.org"));
        wait_for(&secure.node, "both are gone", |c| c.connections == 0);
        assert_eq!(secure.node.counters().handshakes_total, 0);
        secure.echo(Spoken::Tls13).bounce(10);
    }

    fn certificates_of_clients_are_demanded_where_required(driver) {
        let secure = Secure::start(driver, &["tls.client_auth=required"]);
        let authority = &secure.files.authority;
        let alice = authority.issue("alice", &["alice"]);
        let mallory = Authority::new().issue("mallory", &["mallory"]);
        for version in Spoken::BOTH {
            assert!(gets_in(&secure, authority.client(version, Some(&alice)), "example.org"));
            assert!(!gets_in(&secure, authority.client(version, Some(&mallory)), "example.org"));
            assert!(!gets_in(&secure, authority.client(version, None), "example.org"));
        }
        wait_for(&secure.node, "all are gone", |c| c.connections == 0);
        let counters = secure.node.counters();
        assert_eq!((counters.handshakes_total, counters.tls_failed_total), (2, 4));
    }

    fn versions_and_protocols_that_are_not_spoken_are_refused(driver) {
        let secure = Secure::start(driver, &[r#"tls.min_version="1.3""#]);
        let client = |version, protocols: &[&[u8]]| {
            let mut config = secure.files.authority.client(version, None);
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            gets_in(&secure, config, "example.org")
        };
        assert!(!client(Spoken::Tls12, &[]));
        assert!(!client(Spoken::Tls13, &[b"h2"]));
        assert!(!client(Spoken::Tls13, &[b"\0\xff"]));
        assert!(client(Spoken::Tls13, &[b"h2", b"http/1.1"]));
        wait_for(&secure.node, "all are gone", |c| c.connections == 0);
        assert_eq!(secure.node.counters().tls_failed_total, 3);
    }

    fn garbage_gets_an_alert_and_an_end(driver) {
        let secure = Secure::start(driver, &[]);
        let long = [22, 3, 1, 0xff, 0xff];
        let version = [22, 9, 9, 0, 5, 1, 2, 3, 4, 5];
        let data_first = [23, 3, 3, 0, 3, 1, 2, 3];
        let cases: [&[u8]; 5] =
            [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", &long, &version, &data_first, &[0; 300]];
        for case in cases {
            let mut socket = raw(&secure);
            socket.write_all(case).unwrap();
            let mut answer = Vec::new();
            let _ = socket.read_to_end(&mut answer);
            assert_eq!(answer.first(), Some(&21), "an alert for {case:?}: {answer:?}");
        }
        wait_for(&secure.node, "all are gone", |c| c.connections == 0);
        assert_eq!(secure.node.counters().tls_failed_total, 5);
        secure.echo(Spoken::Tls12).bounce(10);
    }

    fn half_handshakes_end_in_time_and_silent_sockets_too(driver) {
        let secure = Secure::start(driver, &["limits.handshake_timeout_ms=300"]);
        let mut half: Vec<TcpStream> = (0..20).map(|_| raw(&secure)).collect();
        for (socket, length) in half.iter_mut().zip(0..) {
            socket.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc][..length % 10]).unwrap();
        }
        for socket in &mut half {
            let mut answer = Vec::new();
            let _ = socket.read_to_end(&mut answer);
            assert_eq!(answer, b"", "nothing plain is said");
        }
        drop(half);
        wait_for(&secure.node, "all are gone", |c| c.connections == 0);
        assert_eq!(secure.node.counters().handshakes_refused_total, 20);
        assert_eq!(secure.node.counters().tls_connections, 0);
        secure.echo(Spoken::Tls13).bounce(10);
    }

    fn a_stream_that_is_cut_off_is_a_peer_that_vanished(driver) {
        let secure = Secure::start(driver, &[]);
        let mut client = secure.connect(Spoken::Tls13);
        client.join("r");
        client.socket().shutdown(Shutdown::Write).unwrap();
        wait_for(&secure.node, "it is gone", |c| c.connections == 0);
        let counters = secure.node.counters();
        assert_eq!((counters.lost_total, counters.tls_failed_total), (1, 0));
        assert_eq!(counters.memberships, 0);
    }

    fn bytes_that_were_changed_on_the_way_end_the_connection(driver) {
        let secure = Secure::start(driver, &[]);
        let client = secure.connect(Spoken::Tls13);
        let mut socket = client.socket();
        socket.write_all(&[23, 3, 3, 0, 20]).unwrap();
        socket.write_all(&[7; 20]).unwrap();
        wait_for(&secure.node, "it is counted", |c| c.tls_failed_total == 1);
        drop(client);
        wait_for(&secure.node, "it is gone", |c| c.connections == 0);
        secure.echo(Spoken::Tls13).bounce(10);
    }
}

#[test]
fn a_node_does_not_start_with_certificates_that_do_not_do_and_says_which() {
    let files = Files::new();
    let other = files.authority.issue("other", &["other.example"]);
    let start = |more: &[&str]| {
        let own = ["server.listen=127.0.0.1:0", "tls.listen=127.0.0.1:0", "server.pin=false"];
        let more = more.iter().map(|set| (*set).to_owned());
        let sets = own.iter().map(|set| (*set).to_owned()).chain(files.sets()).chain(more);
        let origin = throng::node::config::Origin { file: None, sets: sets.collect() };
        Node::start(&origin.load().expect("valid")).map(drop)
    };
    assert!(start(&[]).is_ok());
    let refused = |more: &[&str]| start(more).expect_err("refused").to_string();
    let chain = files.path("chain.pem");
    let absent = refused(&[r#"certificate=[{chain="/nowhere.pem", key="/nowhere.key"}]"#]);
    assert!(absent.contains(r#"certificate.chain = "/nowhere.pem": cannot be read"#), "{absent}");
    files.write("other.key", &other.key_pem);
    let key = files.path("other.key");
    let mixed = refused(&[&format!("certificate=[{{chain={chain:?}, key={key:?}}}]")]);
    assert!(mixed.contains(&chain) && mixed.contains(&key), "{mixed}");
    files.write("other.key", "no key");
    let none = refused(&[&format!("certificate=[{{chain={chain:?}, key={key:?}}}]")]);
    assert!(none.contains("expected a private key in PEM"), "{none}");
    let clients = refused(&["tls.client_auth=optional", &format!("tls.client_ca={key}")]);
    assert!(
        clients.contains("tls.client_ca = ") && clients.contains("expected certificates"),
        "{clients}"
    );
}
