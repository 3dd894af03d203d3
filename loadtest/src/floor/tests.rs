//! The floor over real sockets: client and server take turns on one thread, so nothing depends on time.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use rustix::event::Timespec;
use tungstenite::handshake::HandshakeError;
use tungstenite::{Error, Message, WebSocket, client};

use super::*;

const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// A server and its clients, who are only ever waited for by letting the server take turns.
struct Rig {
    server: Server,
    address: SocketAddr,
}

impl Rig {
    fn new() -> Self {
        let server = Server::bind("127.0.0.1:0".parse().expect("an address")).expect("a server");
        let address = server.address().expect("its address");
        Self { server, address }
    }

    fn turn(&mut self) {
        self.server.turn(Some(&AT_ONCE)).expect("a turn");
    }

    fn dial(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("a connection");
        stream.set_nonblocking(true).expect("non-blocking");
        stream.set_nodelay(true).expect("no delay");
        stream
    }

    fn join(&mut self, path: &str) -> WebSocket<TcpStream> {
        let url = format!("ws://{}{path}", self.address);
        let mut attempt = client(url, self.dial());
        loop {
            match attempt {
                Ok((socket, _)) => return socket,
                Err(HandshakeError::Interrupted(half)) => {
                    self.turn();
                    attempt = half.handshake();
                }
                Err(HandshakeError::Failure(error)) => panic!("{path}: {error}"),
            }
        }
    }

    fn receive(&mut self, socket: &mut WebSocket<TcpStream>) -> Message {
        loop {
            match socket.read() {
                Ok(message) => return message,
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => self.turn(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Reads raw bytes until so many are there.
    fn read(&mut self, stream: &mut TcpStream, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        while bytes.len() < length {
            match stream.read(&mut chunk) {
                Ok(0) => panic!("ended after {} bytes", bytes.len()),
                Ok(got) => bytes.extend_from_slice(&chunk[..got]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.turn(),
                Err(error) => panic!("{error}"),
            }
        }
        bytes
    }
}

fn send(socket: &mut WebSocket<TcpStream>, text: &str) {
    socket.send(Message::text(text)).expect("sent");
}

fn request(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         sec-websocket-KEY:  dGhlIHNhbXBsZSBub25jZQ== \r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// A masked text frame with a mask of zeros, which leaves the payload readable here.
fn frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).expect("short")];
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    frame
}

#[test]
fn every_message_is_echoed_whatever_its_length() {
    let mut rig = Rig::new();
    let mut socket = rig.join("/echo");
    for length in [0, 1, 125, 126, 4096, 65_535, 65_536, 300_000] {
        let text = "x".repeat(length);
        match socket.send(Message::text(text.as_str())) {
            Ok(()) => {}
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
        let echo = loop {
            // What the socket did not take at once leaves with a later flush.
            let flushed = socket.flush();
            assert!(flushed.is_ok() || matches!(flushed, Err(Error::Io(_))));
            match socket.read() {
                Ok(message) => break message,
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => rig.turn(),
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(echo.into_text().expect("text").as_str(), text);
    }
}

#[test]
fn frames_that_come_together_are_echoed_together_and_in_order() {
    let mut rig = Rig::new();
    let mut stream = rig.dial();
    let mut bytes = request("/echo").into_bytes();
    for text in ["one", "two", "three"] {
        bytes.extend(frame(text));
    }
    stream.write_all(&bytes).expect("sent");
    let expected = "\x03one\u{81}\x03two\u{81}\x05three";
    let expected: Vec<u8> = expected.chars().map(|c| u8::try_from(c).expect("a byte")).collect();
    let response = rig.read(&mut stream, 129 + 1 + expected.len());
    let text = String::from_utf8_lossy(&response);
    assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
    // The key and its answer are the example of RFC 6455.
    assert!(text.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{text}");
    assert!(response.ends_with(&expected), "{text}");
}

#[test]
fn a_request_and_frames_that_come_byte_by_byte_are_served_as_whole_ones() {
    let mut rig = Rig::new();
    let mut stream = rig.dial();
    let mut bytes = request("/echo").into_bytes();
    bytes.extend(frame("slowly"));
    bytes.extend(frame("but surely"));
    for byte in bytes {
        stream.write_all(&[byte]).expect("sent");
        rig.turn();
    }
    let response = rig.read(&mut stream, 129 + 8 + 12);
    assert!(response.ends_with(b"\x81\x06slowly\x81\x0abut surely"));
}

#[test]
fn all_members_of_a_room_get_what_members_and_publishers_send_and_nobody_else_does() {
    let mut rig = Rig::new();
    let mut members: Vec<_> = (0..3).map(|_| rig.join("/room/a")).collect();
    let mut other = rig.join("/room/b");
    let mut publisher = rig.join("/publish/a");
    send(&mut publisher, "from a publisher");
    send(&mut members[0], "from a member");
    for member in &mut members {
        let mut got = [rig.receive(member), rig.receive(member)].map(|m| m.to_string());
        got.sort();
        assert_eq!(got, ["from a member", "from a publisher"]);
    }
    send(&mut other, "alone");
    assert_eq!(rig.receive(&mut other).to_string(), "alone");
    // A publisher gets nothing but what it asks for.
    publisher.send(Message::Ping(tungstenite::Bytes::from_static(b"there?"))).expect("sent");
    assert_eq!(rig.receive(&mut publisher), Message::Pong(b"there?".as_slice().into()));
}

#[test]
fn messages_that_come_together_reach_every_member_in_order() {
    let mut rig = Rig::new();
    let mut members: Vec<_> = (0..3).map(|_| rig.join("/room/a")).collect();
    let mut publisher = rig.join("/publish/a");
    // More than the kernel takes in one writev.
    let numbers = 0..2500;
    let bytes: Vec<u8> = numbers.clone().flat_map(|n| frame(&n.to_string())).collect();
    publisher.get_mut().write_all(&bytes).expect("sent");
    for member in &mut members {
        for n in numbers.clone() {
            assert_eq!(rig.receive(member).to_string(), n.to_string());
        }
    }
}

#[test]
fn who_left_a_room_leaves_the_others_in_it() {
    let mut rig = Rig::new();
    let mut members: Vec<_> = (0..4).map(|_| rig.join("/room/a")).collect();
    let mut leaver = members.remove(0);
    leaver.close(None).expect("a close");
    assert!(rig.receive(&mut leaver).is_close());
    // The one that took its place in the list leaves without a word.
    drop(members.pop());
    rig.turn();
    send(&mut members[0], "still here");
    for member in &mut members {
        assert_eq!(rig.receive(member).to_string(), "still here");
    }
}

#[test]
fn a_member_that_stops_reading_misses_nothing_and_holds_nobody_up() {
    let mut rig = Rig::new();
    let mut slow = rig.join("/room/a");
    let mut quick = rig.join("/room/a");
    let mut publisher = rig.join("/publish/a");
    // Far more than the socket buffers of loopback hold.
    let text = "y".repeat(60_000);
    for _ in 0..300 {
        send(&mut publisher, &text);
        assert_eq!(rig.receive(&mut quick).len(), text.len());
    }
    for _ in 0..300 {
        assert_eq!(rig.receive(&mut slow).len(), text.len());
    }
    send(&mut publisher, "short");
    assert_eq!(rig.receive(&mut slow).to_string(), "short");
}

#[test]
fn what_is_not_served_is_refused() {
    let mut rig = Rig::new();
    let mut stream = rig.dial();
    stream.write_all(request("/nowhere").as_bytes()).expect("sent");
    let response = rig.read(&mut stream, 60);
    assert!(response.starts_with(b"HTTP/1.1 404 "));
    rig.turn();
    let rest = io::copy(&mut stream, &mut io::sink()).expect("an end");
    assert_eq!(rest, 0);
}

#[test]
fn what_one_table_is_told_reaches_the_members_of_all() {
    let address = "127.0.0.1:0".parse().expect("an address");
    let listeners = tables::bind(address, 3).expect("three listeners");
    let server = |(listener, end)| Server::over(listener, Some(end)).expect("a server");
    let mut servers: Vec<Server> = listeners.into_iter().map(server).collect();
    let address = servers[0].address().expect("their address");
    let mut turn = || servers.iter_mut().for_each(|one| one.turn(Some(&AT_ONCE)).expect("a turn"));
    let mut dial = |path: &str| {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nonblocking(true).expect("non-blocking");
        let mut attempt = client(format!("ws://{address}{path}"), stream);
        loop {
            match attempt {
                Ok((socket, _)) => return socket,
                Err(HandshakeError::Interrupted(half)) => {
                    turn();
                    attempt = half.handshake();
                }
                Err(HandshakeError::Failure(error)) => panic!("{path}: {error}"),
            }
        }
    };
    // As many as make it sure that no table has all of them.
    let mut members: Vec<_> = (0..64).map(|_| dial("/room/lobby")).collect();
    let mut publisher = dial("/publish/lobby");
    send(&mut publisher, "hello");
    for member in &mut members {
        loop {
            match member.read() {
                Ok(message) => break assert_eq!(message.to_text().expect("a text"), "hello"),
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => turn(),
                Err(error) => panic!("{error}"),
            }
        }
    }
}
