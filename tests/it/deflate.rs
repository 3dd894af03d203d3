//! permessage-deflate over real sockets: rows B6 and A14. The codec of this client is the library's own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use serde_json::{Value, json};

use crate::admin::{ask, with_admin};
use crate::hostile::masked;
use crate::support::{Client, PATIENCE, node, on_both_drivers, wait_for};

const ON: &str = "compression.enabled=true";

/// A client that compresses everything.
struct Squeezer {
    stream: TcpStream,
    response: String,
}

impl Squeezer {
    fn connect(address: SocketAddr, offer: &str) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Extensions: {offer}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = Vec::new();
        while !response.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            response.push(byte[0]);
        }
        let response = String::from_utf8(response).unwrap();
        let mut client = Self { stream, response };
        assert_eq!(client.next().1["type"], "throng:connected");
        client
    }

    /// Sends a message compressed.
    fn say(&mut self, message: &str) {
        self.send(0xc1, &squeezed(message.as_bytes()));
    }

    fn send(&mut self, first: u8, payload: &[u8]) {
        self.stream.write_all(&masked(first, payload)).unwrap();
    }

    /// The first byte of the next frame, and its payload.
    fn frame(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).unwrap();
        let mut length = usize::from(head[1]);
        if length == 126 {
            let mut long = [0; 2];
            self.stream.read_exact(&mut long).unwrap();
            length = usize::from(u16::from_be_bytes(long));
        }
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).unwrap();
        (head[0], payload)
    }

    /// Whether the next message came compressed, and what it says.
    fn next(&mut self) -> (bool, Value) {
        let (first, mut payload) = self.frame();
        let is_small = first & 0x40 != 0;
        assert_eq!(first & !0x40, 0x81, "a text");
        if is_small {
            payload.extend([0, 0, 0xff, 0xff]);
            let mut text = Vec::with_capacity(1 << 20);
            let mut library = Decompress::new(false);
            library.decompress_vec(&payload, &mut text, FlushDecompress::Sync).unwrap();
            payload = text;
        }
        (is_small, serde_json::from_slice(&payload).unwrap())
    }

    /// The code of the close frame that is next.
    fn closed(&mut self) -> u16 {
        let (first, payload) = self.frame();
        assert_eq!(first, 0x88, "{payload:?}");
        u16::from_be_bytes([payload[0], payload[1]])
    }
}

fn squeezed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 1024);
    let mut library = Compress::new(Compression::best(), false);
    library.compress_vec(message, &mut out, FlushCompress::Sync).unwrap();
    out.truncate(out.len() - 4);
    out
}

on_both_drivers! {
    fn a_room_of_clients_that_compress_and_clients_that_do_not_hears_the_same(driver) {
        let node = node(driver, &[ON, "compression.min_bytes=600"]);
        let mut plain = Client::connect(node.address());
        plain.join("r");
        let offers = ["permessage-deflate", "permessage-deflate; client_max_window_bits"];
        let mut small: Vec<_> =
            (0..8).map(|at| Squeezer::connect(node.address(), offers[at % 2])).collect();
        for client in &mut small {
            assert!(client.response.contains("server_no_context_takeover"), "{}", client.response);
            client.say(r#"{"type":"throng:join","room":"r","ref":1}"#);
            assert_eq!(client.next().1["ref"], 1);
        }
        wait_for(&node, "all have agreed", |c| c.deflate_connections == 8);
        let payload = json!((0..200).collect::<Vec<_>>());
        plain.send(&json!({"type": "x", "room": "r", "payload": payload}));
        assert_eq!(plain.next()["payload"], payload);
        small[0].say(&json!({"type": "x", "room": "r", "payload": 7}).to_string());
        assert_eq!(plain.next()["payload"], 7);
        for client in &mut small {
            let (is_small, push) = client.next();
            assert!(is_small);
            assert_eq!(push["payload"], payload);
            let (is_small, push) = client.next();
            assert!(!is_small, "a short one goes plain");
            assert_eq!(push["payload"], 7);
        }
        wait_for(&node, "it was compressed once for both shards", |c| c.deflated_messages_total == 1);
        drop(small);
        wait_for(&node, "all are gone", |c| c.deflate_connections == 0);
        node.stop().unwrap();
    }

    fn a_long_payload_is_compressed_beside_the_shards_and_everybody_hears_it_in_its_place(driver) {
        let admin = with_admin(r#""publish""#);
        let node = node(driver, &[ON, &admin[0], &admin[1], "compression.inline_bytes=1000"]);
        let desk = node.admin_address().expect("an admin listener");
        let mut author = Client::connect(node.address());
        author.join("r");
        let mut small: Vec<_> =
            (0..4).map(|_| Squeezer::connect(node.address(), "permessage-deflate")).collect();
        for client in &mut small {
            client.say(r#"{"type":"throng:join","room":"r","ref":1}"#);
            assert_eq!(client.next().1["ref"], 1);
        }
        wait_for(&node, "all have agreed", |c| c.deflate_connections == 4);
        let long = |n: u32| json!({"n": n, "list": (0..6000).collect::<Vec<_>>()});
        for n in 0..3 {
            author.send(&json!({"type": "x", "room": "r", "payload": long(2 * n)}));
            author.send(&json!({"type": "x", "room": "r", "payload": {"n": 2 * n + 1}}));
        }
        for n in 0..6 {
            assert_eq!(author.next()["payload"]["n"], n, "nothing passes what was said before it");
        }
        let body = json!({"type": "x", "room": "r", "payload": long(6)}).to_string();
        assert_eq!(ask(desk, "POST /v1/publish", &body).0, 200);
        for client in &mut small {
            for n in 0..7 {
                let (is_small, push) = client.next();
                assert_eq!((is_small, &push["payload"]["n"]), (n % 2 == 0, &json!(n)));
                if is_small {
                    assert_eq!(push["payload"], long(n));
                }
            }
        }
        assert_eq!(author.next()["payload"], long(6));
        // Back ends' payloads are compressed before a shard has them.
        let counters = node.counters();
        assert_eq!((counters.deflated_beside_total, counters.deflated_messages_total), (3, 4));
        node.stop().unwrap();
    }

    fn a_bomb_ends_its_connection_alone(driver) {
        let node = node(driver, &[ON, "limits.max_message_bytes=65536"]);
        let mut other = Client::connect(node.address());
        other.join("r");
        for (payload, code) in [
            (squeezed(&vec![b' '; 32 << 20]), 1009),
            (squeezed(&vec![b' '; 65_537]), 1009),
            (b"\xff\xff\xff\xff".to_vec(), 1007),
            (squeezed(&[0xff; 99]), 1007),
        ] {
            let mut client = Squeezer::connect(node.address(), "permessage-deflate");
            client.send(0xc1, &payload);
            assert_eq!(client.closed(), code, "{} bytes", payload.len());
        }
        other.send(&json!({"type": "x", "room": "r", "payload": 1}));
        assert_eq!(other.next()["payload"], 1);
        assert_eq!(node.counters().violations_total, 4);
        node.stop().unwrap();
    }

    fn without_an_offer_or_with_it_turned_off_nothing_is_compressed(driver) {
        let off = node(driver, &[]);
        let client = Squeezer::connect(off.address(), "permessage-deflate");
        assert!(!client.response.contains("Extensions"), "{}", client.response);
        let on = node(driver, &[ON]);
        for offer in ["x-other", "permessage-deflate; unknown", "permessage-deflate; server_max_window_bits=7"] {
            let mut client = Squeezer::connect(on.address(), offer);
            assert!(!client.response.contains("Extensions"), "{}", client.response);
            client.send(0xc1, &squeezed(b"{}"));
            assert_eq!(client.closed(), 1002);
        }
        on.stop().unwrap();
        off.stop().unwrap();
    }
}
