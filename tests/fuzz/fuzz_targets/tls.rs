//! TLS records in any pieces, true ones and others, in both versions.
//!
//! The input is a program: each of its steps feeds the layer a stretch of what a real client has to say, or
//! bytes that nobody said, or lets either end speak or finish. Whatever comes, the layer does not panic, keeps
//! no more than it may, and says after a fault nothing but its alert. As long as every byte was the client's
//! own, both ends hear exactly what the other said.

#![no_main]

use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use throng::wire::tls::{
    Clients, Identity, Layer, Options, ServerConfig, Version, server_config, tickets,
};

struct World {
    server: Arc<ServerConfig>,
    clients: [Arc<ClientConfig>; 2],
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(vec!["example.org".to_owned()]).unwrap();
    let chain: Vec<CertificateDer<'static>> = vec![made.cert.der().clone()];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let mut roots = RootCertStore::empty();
    roots.add(chain[0].clone()).unwrap();
    let clients = [&TLS12, &TLS13].map(|version| {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[version]).unwrap();
        Arc::new(builder.with_root_certificates(roots.clone()).with_no_client_auth())
    });
    let server = server_config(Options {
        identities: vec![Identity { chain, key }],
        clients: Clients::Unasked,
        oldest: Version::Tls12,
        tickets: Some(tickets().unwrap()),
    });
    World { server: server.unwrap(), clients }
});

struct Pair {
    layer: Layer,
    client: ClientConnection,
    /// What the client has to say and has not been fed.
    up: Vec<u8>,
    /// Plain bytes that each has said and heard.
    said: [Vec<u8>; 2],
    heard: [Vec<u8>; 2],
    /// True while nothing but the client's own bytes was fed.
    honest: bool,
    /// The layer has said that it is done.
    finished: bool,
}

impl Pair {
    fn feed(&mut self, mut bytes: Vec<u8>) {
        let fault = self.layer.open(&mut bytes, &mut self.heard[0]).is_err();
        assert!(!fault || !self.honest, "a fault of a client that made none");
        assert!(self.layer.held() <= 256 * 1024, "{} bytes are held", self.layer.held());
        assert!(!fault || !self.layer.is_ready(), "sealing goes on after a fault");
        self.flush();
    }

    /// What the layer itself has to say, to the client.
    fn flush(&mut self) {
        if self.layer.has_output() {
            let output = self.layer.take_output();
            assert_eq!(self.layer.sent(), None);
            self.down(&output);
        }
    }

    fn down(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.client.read_tls(&mut bytes).is_ok() {
            if self.client.process_new_packets().is_err() {
                assert!(!self.honest, "the client does not understand");
                return;
            }
            let _ = self.client.reader().read_to_end(&mut self.heard[1]);
        }
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        while self.client.wants_write() {
            self.client.write_tls(&mut self.up).unwrap();
        }
        let count = count.min(self.up.len());
        self.up.drain(..count).collect()
    }

    fn seal(&mut self, frames: &[u8], copies: usize) {
        if !self.layer.is_ready() || frames.is_empty() {
            return;
        }
        let parts = std::iter::repeat_n(frames, copies);
        let bytes = frames.len() * copies;
        if let Ok(sealed) = self.layer.seal(parts, bytes, &mut Vec::new()) {
            assert_eq!(self.layer.sent(), Some(bytes));
            self.said[1].extend(frames.repeat(copies));
            self.down(&sealed);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let [first, steps @ ..] = data else { return };
    let world = &*WORLD;
    let config = Arc::clone(&world.clients[usize::from(first & 1)]);
    let name = ServerName::try_from("example.org").unwrap();
    let mut pair = Pair {
        layer: Layer::new(Arc::clone(&world.server)).unwrap(),
        client: ClientConnection::new(config, name).unwrap(),
        up: Vec::new(),
        said: Default::default(),
        heard: Default::default(),
        honest: true,
        finished: false,
    };
    let mut rest = steps;
    while let [op, argument, more @ ..] = rest {
        let count = usize::from(*argument);
        rest = more;
        match op % 8 {
            0 | 1 => {
                let bytes = pair.take(count * if op & 8 == 0 { 1 } else { 64 });
                pair.feed(bytes);
            }
            2 => {
                let (foreign, behind) = rest.split_at(count.min(rest.len()));
                rest = behind;
                if pair.finished && !foreign.is_empty() {
                    // A fault after the layer's close_notify makes an alert behind it, which rustls takes
                    // for a mistake of ours where its debug assertions are on, as they are here.
                    return;
                }
                pair.honest &= foreign.is_empty();
                pair.feed(foreign.to_vec());
            }
            3 => {
                let plain = vec![*op; count * 70];
                // The client takes no more than its buffer holds.
                let taken = pair.client.writer().write(&plain).unwrap_or(0);
                pair.said[0].extend(&plain[..taken]);
            }
            4 => pair.seal(&vec![*op; count], 1 + usize::from(op >> 3)),
            // The engine keeps for later only what comes while a handshake waits for its turn.
            5 if pair.layer.is_handshaking() => {
                let bytes = pair.take(count);
                if pair.layer.keep(&bytes).is_err() {
                    return;
                }
            }
            6 if *argument == 0 => {
                // What was made wrong before may be found out as late as that.
                if !pair.honest {
                    return;
                }
                pair.layer.finish();
                pair.finished = true;
            }
            _ => {
                let bytes = pair.take(usize::MAX);
                pair.feed(bytes);
            }
        }
        pair.flush();
    }
    if pair.honest {
        for (said, heard) in pair.said.iter().zip(&pair.heard) {
            assert!(said.starts_with(heard), "something else was heard");
        }
    }
});
