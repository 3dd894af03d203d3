//! What can be wrong inside TLS: records under the right keys that no honest client would send.
//!
//! A client makes its handshake and then hands out its keys; from there on the records are ours. Answers
//! are sealed too, so what is judged is the end of the stream, and whether the node counted a fault.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::aead;
use rustls::ConnectionTrafficSecrets;
use rustls::pki_types::ServerName;
use socket2::SockRef;

use super::arena::Arena;
use super::peer::GOOD;
use crate::authority::Spoken;
use crate::support::{PATIENCE, on_both_drivers};

const CIPHERS: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

/// A socket behind its handshake, and the keys under which we send.
struct Sealed {
    socket: TcpStream,
    version: Spoken,
    keys: ConnectionTrafficSecrets,
    number: u64,
}

impl Sealed {
    fn new(arena: &Arena, version: Spoken) -> Self {
        let (address, files) = arena.secure();
        let mut config = files.authority.client(version, None);
        config.enable_secret_extraction = true;
        let name = ServerName::try_from("example.org").unwrap();
        let mut tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        while tls.is_handshaking() || tls.wants_write() {
            tls.complete_io(&mut socket).unwrap();
        }
        let (number, keys) = tls.dangerous_extract_secrets().unwrap().tx;
        Self { socket, version, keys, number }
    }

    /// The next record, of that kind. In TLS 1.3 the kind is inside, and zeros may follow it.
    fn record(&mut self, kind: u8, text: &[u8]) -> Vec<u8> {
        let record = match self.version {
            Spoken::Tls12 => self.seal(&[kind, 3, 3], text.to_vec()),
            Spoken::Tls13 => self.seal(&[DATA, 3, 3], [text, &[kind]].concat()),
        };
        self.number += 1;
        record
    }

    /// Seals under the present number (RFC 5288, section 3; RFC 8446, section 5.2).
    fn seal(&self, head: &[u8; 3], mut text: Vec<u8>) -> Vec<u8> {
        let (algorithm, key, iv) = match &self.keys {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&aead::AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&aead::AES_256_GCM, key, iv),
            _ => panic!("a cipher that is not preferred was agreed on"),
        };
        let key = aead::LessSafeKey::new(aead::UnboundKey::new(algorithm, key.as_ref()).unwrap());
        let number = self.number.to_be_bytes();
        let length = |bytes: usize| u16::try_from(bytes).unwrap().to_be_bytes();
        let mut nonce: [u8; 12] = iv.as_ref().try_into().unwrap();
        let (extra, explicit) = match self.version {
            Spoken::Tls12 => {
                nonce[4..].copy_from_slice(&number);
                ([&number[..], head, &length(text.len())].concat(), &number[..])
            }
            Spoken::Tls13 => {
                nonce[4..].iter_mut().zip(number).for_each(|(byte, own)| *byte ^= own);
                ([&head[..], &length(text.len() + 16)].concat(), &[][..])
            }
        };
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(nonce, aead::Aad::from(extra), &mut text).unwrap();
        [&head[..], &length(explicit.len() + text.len()), explicit, &text].concat()
    }

    fn send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    /// Waits for the end of the stream.
    fn end(&mut self, name: &str) {
        let mut rest = Vec::new();
        if let Err(error) = self.socket.read_to_end(&mut rest) {
            let kind = error.kind();
            assert!(kind != std::io::ErrorKind::WouldBlock, "{name}: no end within {PATIENCE:?}");
        }
    }
}

/// What is sent behind a handshake; true when it breaks TLS, false when it only leads nowhere.
type Deed = (&'static str, fn(&mut Sealed) -> bool);

/// A handshake message of that kind.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind], &length[1..], body].concat()
}

/// The hello of somebody who would like to begin anew.
fn hello() -> Vec<u8> {
    let rest = [&[3, 3][..], &[7; 32], &[0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2c, 1, 0]].concat();
    message(1, &rest)
}

const IN_BOTH: [Deed; 15] = [
    ("one renegotiation after another", |peer| {
        for _ in 0..20 {
            let record = peer.record(HANDSHAKE, &hello());
            peer.send(&record);
        }
        true
    }),
    ("a renegotiation in front of a request", |peer| {
        // In TLS 1.2 it is declined and the request answered; in TLS 1.3 there is no such thing.
        let record =
            [peer.record(HANDSHAKE, &hello()), peer.record(DATA, GOOD.as_bytes())].concat();
        peer.send(&record);
        peer.socket.shutdown(Shutdown::Write).unwrap();
        peer.version == Spoken::Tls13
    }),
    ("a server's wish to begin anew", |peer| {
        let record: Vec<u8> =
            (0..20).flat_map(|_| peer.record(HANDSHAKE, &message(0, &[]))).collect();
        peer.send(&record);
        true
    }),
    ("a thousand sealed warnings", |peer| {
        let record: Vec<u8> = (0..1000).flat_map(|_| peer.record(ALERT, &[1, 90])).collect();
        peer.send(&record);
        true
    }),
    ("a sealed fatal alert", |peer| {
        let record = peer.record(ALERT, &[2, 80]);
        peer.send(&record);
        true
    }),
    ("a record twice", |peer| {
        let record = peer.record(DATA, b"GET /ws HTTP/1.1\r\n");
        peer.send(&record.repeat(2));
        true
    }),
    ("a record left out", |peer| {
        peer.number += 1;
        let record = peer.record(DATA, b"GET /ws HTTP/1.1\r\n");
        peer.send(&record);
        true
    }),
    ("a record with a bit changed", |peer| {
        let mut record = peer.record(DATA, GOOD.as_bytes());
        record[40] ^= 1;
        peer.send(&record);
        true
    }),
    ("a record with its tag cut off", |peer| {
        let mut record = peer.record(DATA, &[]);
        record.truncate(5 + 4);
        record[3..5].copy_from_slice(&[0, 4]);
        peer.send(&record);
        true
    }),
    ("plain words behind the handshake", |peer| {
        peer.send(GOOD.as_bytes());
        true
    }),
    ("a change of ciphers behind the handshake", |peer| {
        peer.send(&[CIPHERS, 3, 3, 0, 1, 1]);
        true
    }),
    ("half a record and the end", |peer| {
        let record = peer.record(DATA, GOOD.as_bytes());
        peer.send(&record[..record.len() / 2]);
        peer.socket.shutdown(Shutdown::Write).unwrap();
        false
    }),
    ("half a record and nothing more", |peer| {
        let record = peer.record(DATA, GOOD.as_bytes());
        peer.send(&record[..record.len() - 1]);
        false
    }),
    ("a farewell and then more", |peer| {
        let record = [peer.record(ALERT, &[1, 0]), peer.record(DATA, GOOD.as_bytes())].concat();
        peer.send(&record);
        false
    }),
    ("a request a byte a record, cut short", |peer| {
        let head = &GOOD.as_bytes()[..60];
        let records: Vec<u8> =
            head.iter().flat_map(|byte| peer.record(DATA, std::slice::from_ref(byte))).collect();
        peer.send(&records);
        peer.socket.shutdown(Shutdown::Write).unwrap();
        false
    }),
];

const IN_13: [Deed; 8] = [
    ("a record without a kind", |peer| {
        let record = peer.seal(&[DATA, 3, 3], vec![0; 100]);
        peer.send(&record);
        true
    }),
    ("a record of an unknown kind inside", |peer| {
        let record = peer.record(99, b"?");
        peer.send(&record);
        true
    }),
    ("a record whose inside is over the size", |peer| {
        let record = peer.record(DATA, &[b'a'; 16_385]);
        peer.send(&record);
        true
    }),
    ("two changes of keys in one record", |peer| {
        let record = peer.record(HANDSHAKE, &message(24, &[1]).repeat(2));
        peer.send(&record);
        true
    }),
    ("a change of keys that asks for what there is not", |peer| {
        let record = peer.record(HANDSHAKE, &message(24, &[7]));
        peer.send(&record);
        true
    }),
    ("a certificate that nobody asked for", |peer| {
        let record = peer.record(HANDSHAKE, &message(11, &[0, 0, 0, 0]));
        peer.send(&record);
        true
    }),
    ("an end of what was early", |peer| {
        let record = peer.record(HANDSHAKE, &message(5, &[]));
        peer.send(&record);
        true
    }),
    ("a ticket from the client", |peer| {
        let record = peer.record(HANDSHAKE, &message(4, &[0; 20]));
        peer.send(&record);
        true
    }),
];

fn try_all(arena: &Arena, version: Spoken, deeds: &[Deed]) {
    for (name, deed) in deeds {
        let faults = |arena: &Arena| arena.counters()["tls_failed_total"].as_u64().unwrap();
        let before = faults(arena);
        let mut peer = Sealed::new(arena, version);
        let is_fault = deed(&mut peer);
        peer.end(name);
        drop(peer);
        arena.check(name);
        assert_eq!(faults(arena) - before, u64::from(is_fault), "{name} in {version:?}");
    }
    arena.repeat(&format!("what is sealed in {version:?}"), || {
        for (name, deed) in deeds {
            let mut peers: Vec<Sealed> = (0..AGAIN).map(|_| Sealed::new(arena, version)).collect();
            peers.iter_mut().for_each(|peer| _ = deed(peer));
            peers.iter_mut().for_each(|peer| peer.end(name));
        }
    });
}

/// By how many at once each of them is done over and over: a whole handshake goes before each.
const AGAIN: usize = 10;

/// How many cases there are here.
pub(super) fn count() -> usize {
    Spoken::BOTH.len() * (IN_BOTH.len() + 1) + IN_13.len()
}

on_both_drivers! {
    fn records_that_no_honest_client_would_seal_end_their_connection_alone(driver) {
        let arena = Arena::open_secure(driver);
        for version in Spoken::BOTH {
            try_all(&arena, version, &IN_BOTH);
        }
        try_all(&arena, Spoken::Tls13, &IN_13);
        for version in Spoken::BOTH {
            for cut in [1, 5, 6, 100] {
                let mut peer = Sealed::new(&arena, version);
                let record = peer.record(DATA, GOOD.as_bytes());
                peer.send(&record[..cut]);
                SockRef::from(&peer.socket).set_linger(Some(Duration::ZERO)).unwrap();
            }
            arena.check("resets in a sealed record");
        }
        arena.close();
    }
}
