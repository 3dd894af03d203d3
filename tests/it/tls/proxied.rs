//! The PROXY protocol ahead of TLS: rows T15 and G15. A proxy that passes TLS through can say who the
//! client is only in front of the first record.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::authority::Spoken;
use crate::support::{PATIENCE, on_both_drivers, wait_for, wait_until};
use crate::tls::client::{Secure, SecureClient};

/// A header of version 1 for a client at that address.
fn line(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 127.0.0.1 40000 443\r\n").into_bytes()
}

/// One of version 2.
pub(crate) fn binary(client: [u8; 4]) -> Vec<u8> {
    let head = [13, 10, 13, 10, 0, 13, 10, 0x51, 0x55, 0x49, 0x54, 10, 0x21, 0x11, 0, 12];
    [&head[..], &client, &[127, 0, 0, 1, 0x9c, 0x40, 1, 0xbb]].concat()
}

fn raw(secure: &Secure) -> TcpStream {
    let socket = TcpStream::connect(secure.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

/// A client behind that header, if it gets as far as the upgrade.
fn visit(secure: &Secure, header: &[u8], version: Spoken) -> Option<SecureClient> {
    let mut socket = raw(secure);
    socket.write_all(header).unwrap();
    let name = ServerName::try_from("example.org").unwrap();
    let tls = ClientConnection::new(secure.client(version), name).unwrap();
    SecureClient::over(StreamOwned::new(tls, socket), "/ws")
}

/// What the server says to these bytes until it ends the connection.
fn answer(secure: &Secure, bytes: &[u8]) -> Vec<u8> {
    let mut socket = raw(secure);
    let _ = socket.write_all(bytes);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    answer
}

const TRUSTED: &str = r#"server.trusted_proxies=["127.0.0.0/8"]"#;

on_both_drivers! {
    fn a_proxy_header_ahead_of_tls_names_the_client(driver) {
        let secure = Secure::start(driver, &[
            TRUSTED, "server.proxy_protocol=required", "limits_address.max_connections=1",
        ]);
        for version in Spoken::BOTH {
            let one = visit(&secure, &line("192.0.2.1"), version).expect("let in");
            let other = visit(&secure, &binary([192, 0, 2, 2]), version).expect("another address");
            wait_for(&secure.node, "both are counted", |c| c.counted_parties == 2);
            // The same address by the other version of the header: 503, or 101 and the end.
            let refused = secure.node.counters().parties_refused_total;
            let again = visit(&secure, &binary([192, 0, 2, 1]), version);
            wait_for(&secure.node, "it is one too many", |c| c.parties_refused_total > refused);
            drop((one, other, again));
            wait_for(&secure.node, "all are gone", |c| c.connections == 0 && c.counted_parties == 0);
        }
    }

    fn a_proxy_header_in_pieces_and_with_the_hello_behind_it_is_read(driver) {
        let secure = Secure::start(driver, &[TRUSTED, "server.proxy_protocol=optional"]);
        for header in [line("192.0.2.1"), binary([192, 0, 2, 1])] {
            for cut in [1, 6, header.len() - 1] {
                let mut socket = raw(&secure);
                socket.write_all(&header[..cut]).unwrap();
                let name = ServerName::try_from("example.org").unwrap();
                let mut tls = ClientConnection::new(secure.client(Spoken::Tls13), name).unwrap();
                let mut rest = header[cut..].to_vec();
                while tls.wants_write() {
                    tls.write_tls(&mut rest).unwrap();
                }
                socket.write_all(&rest).unwrap();
                let client = SecureClient::over(StreamOwned::new(tls, socket), "/ws");
                assert!(client.is_some(), "cut at {cut}");
            }
        }
        // Without a header the proxy speaks for itself.
        let mut own = SecureClient::connect(secure.address(), &secure.client(Spoken::Tls12));
        own.join("r");
    }

    fn without_a_header_that_can_be_believed_nothing_is_said_ahead_of_tls(driver) {
        let secure = Secure::start(driver, &[TRUSTED, "server.proxy_protocol=required"]);
        let mut hello = Vec::new();
        let name = ServerName::try_from("example.org").unwrap();
        let config = Arc::clone(&secure.client(Spoken::Tls13));
        ClientConnection::new(config, name).unwrap().write_tls(&mut hello).unwrap();
        for bytes in [hello.clone(), b"PROXY TCP4 nonsense\r\n".to_vec(), binary([1; 4])[..12].repeat(9)] {
            assert_eq!(answer(&secure, &bytes), b"", "neither an alert nor a word");
        }
        wait_for(&secure.node, "they are counted", |c| c.unannounced_total == 3);
        // A second header is no TLS, and TLS it must be by then.
        let alert = answer(&secure, &[line("192.0.2.1"), line("192.0.2.2")].concat());
        assert_eq!(alert.first(), Some(&21), "{alert:?}");
        // A plain request behind a header is none either.
        let plain = [&line("192.0.2.1")[..], b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        assert_eq!(answer(&secure, &plain).first(), Some(&21));
        wait_until("nothing is left", || secure.node.counters().connections == 0);
        // Where the peer is not trusted, its header is what it is: no TLS.
        let strict = Secure::start(driver, &["server.proxy_protocol=optional"]);
        assert_eq!(answer(&strict, &line("192.0.2.1")).first(), Some(&21));
    }
}
