//! The client's codec against tungstenite's own server side and against servers that break the rules.

use std::io::{self, Read, Write};

use tungstenite::protocol::{Role, WebSocket};
use tungstenite::{Bytes, Message};

use super::*;

const PROTOCOL: Option<&str> = Some("throng.v1.json");

/// A stream in memory: what is to be read, and what was written.
#[derive(Default)]
struct Memory {
    input: Cursor<Vec<u8>>,
    output: Vec<u8>,
}

impl Read for Memory {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.input.read(into)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl Write for Memory {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.output.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An item with bytes of its own.
#[derive(Debug, PartialEq, Eq)]
enum Owned {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
}

fn decode(bytes: &[u8], chunk: usize) -> Result<Vec<Owned>, String> {
    let (mut decoder, mut items) = (Decoder::default(), Vec::new());
    for piece in bytes.chunks(chunk) {
        decoder.decode(piece, &mut |item| {
            items.push(match item {
                Item::Text(text) => Owned::Text(text.to_owned()),
                Item::Binary(bytes) => Owned::Binary(bytes.to_vec()),
                Item::Ping(bytes) => Owned::Ping(bytes.to_vec()),
                Item::Pong(bytes) => Owned::Pong(bytes.to_vec()),
                Item::Close(code) => Owned::Close(code),
            });
            Ok(())
        })?;
    }
    assert!(!decoder.is_inside(), "an idle decoder holds memory");
    Ok(items)
}

#[test]
fn what_tungstenite_sends_is_decoded_in_chunks_of_any_size() {
    let mut server = WebSocket::from_raw_socket(Memory::default(), Role::Server, None);
    let long = "x".repeat(70_000);
    for message in [
        Message::text("a"),
        Message::binary(vec![1, 2]),
        Message::Ping(Bytes::from_static(b"p")),
        Message::Pong(Bytes::new()),
        Message::text("y".repeat(126)),
        Message::text(long.clone()),
    ] {
        server.send(message).expect("memory takes everything");
    }
    let expected = [
        Owned::Text("a".into()),
        Owned::Binary(vec![1, 2]),
        Owned::Ping(b"p".to_vec()),
        Owned::Pong(Vec::new()),
        Owned::Text("y".repeat(126)),
        Owned::Text(long),
    ];
    for chunk in [1, 2, 3, 7, 125, 4096, usize::MAX] {
        assert_eq!(
            decode(&server.get_ref().output, chunk).as_deref(),
            Ok(&expected[..]),
            "{chunk}"
        );
    }
}

#[test]
fn tungstenite_reads_what_the_client_encodes() {
    let mut masks = Masks(7);
    for length in [0, 1, 125, 126, 65_535, 65_536] {
        let text = "z".repeat(length);
        let mut input = Vec::new();
        encode(OpCode::Data(Data::Text), text.as_bytes(), masks.next(), &mut input);
        let memory = Memory { input: Cursor::new(input), output: Vec::new() };
        let mut server = WebSocket::from_raw_socket(memory, Role::Server, None);
        assert_eq!(server.read().expect("a message"), Message::text(text));
    }
}

#[test]
fn fragments_are_joined_around_control_frames() {
    let frames = b"\x01\x01a\x89\x01p\x00\x01b\x80\x01c\x88\x02\x03\xe8";
    let expected =
        [Owned::Ping(b"p".to_vec()), Owned::Text("abc".into()), Owned::Close(Some(1000))];
    assert_eq!(decode(frames, 1).as_deref(), Ok(&expected[..]));
}

#[test]
fn a_server_that_breaks_the_protocol_is_caught() {
    let cases: &[(&[u8], &str)] = &[
        (b"\x81\x81\0\0\0\0a", "masked"),
        (b"\xc1\x01a", "reserved bit"),
        (b"\x81\x7e\x00\x01a", "more bytes than it needs"),
        (b"\x81\x7f\x00\x00\x00\x00\x10\x00\x00\x00", "more than"),
        (b"\x09\x00", "control frame"),
        (b"\x89\x7e\x00\x7e", "control frame"),
        (b"\x80\x01a", "continuation of no message"),
        (b"\x01\x01a\x81\x01b", "inside a fragmented one"),
        (b"\x81\x01\xff", "not UTF-8"),
        (b"\x88\x01\x03", "half a code"),
        (b"\x83\x00", "opcode"),
    ];
    for (bytes, expected) in cases {
        let error = decode(bytes, usize::MAX).expect_err("an error");
        assert!(error.to_lowercase().contains(&expected.to_lowercase()), "{error}: {expected}");
    }
}

#[test]
fn only_the_answer_to_the_key_is_accepted() {
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let with_frame = [answer.as_bytes(), b"\x81\x00"].concat();
    assert_eq!(check_response(&with_frame, key, PROTOCOL), Ok(Some(answer.len())));
    assert_eq!(check_response(&answer.as_bytes()[..answer.len() - 1], key, PROTOCOL), Ok(None));
    let cases = [
        (answer.replace("s3pP", "S3pP"), "does not answer the key"),
        (answer.replace("101 Switching Protocols", "404 Not Found"), "refused: 404"),
        (answer.replace("WebSocket\r\nC", "h2c\r\nC"), "without Upgrade"),
        (answer.replace("Upgrade: W", "Sec-WebSocket-Extensions: x\r\nUpgrade: W"), "extension"),
        (answer.replace("Upgrade: W", "Sec-WebSocket-Protocol: x\r\nUpgrade: W"), "subprotocol x"),
    ];
    for (text, expected) in cases {
        let error =
            check_response(text.as_bytes(), key, PROTOCOL).expect_err("an error").to_string();
        assert!(error.contains(expected), "{error}: {expected}");
    }
}
