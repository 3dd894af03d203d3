//! TLS before it is TLS: records, hellos and half handshakes that lie, and plain words at the wrong port.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use socket2::SockRef;

use super::arena::{Arena, CHEAP, CROWD};
use super::peer::{GOOD, text};
use crate::authority::Spoken;
use crate::support::{PATIENCE, on_both_drivers};

/// What comes of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// One fatal alert in the clear, then the end.
    Alert,
    /// The end, and not a byte before it.
    Silence,
    /// A server's hello, and then at once a sealed alert: keys were agreed on, and nothing else.
    Late,
    /// A server's hello and more: the peer has broken no rule yet. Then the end, in time.
    Hello,
}

type Case = (&'static str, Vec<u8>, Answer);

const HANDSHAKE: u8 = 22;

fn record(kind: u8, version: [u8; 2], body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap();
    [&[kind], &version[..], &length.to_be_bytes(), body].concat()
}

/// A list in front of which stands its length, in two bytes.
fn listed(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes(), bytes].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &listed(body)].concat()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind], &length[1..], body].concat()
}

/// What a hello says.
struct Hello {
    version: [u8; 2],
    suites: Vec<u8>,
    compressions: Vec<u8>,
    extensions: Vec<u8>,
}

impl Hello {
    /// One in order: TLS 1.3, with a key to begin with.
    fn new() -> Self {
        let share = [&[0, 29][..], &listed(&[9; 32])].concat();
        let extensions = [
            extension(43, &[2, 3, 4]),
            extension(10, &listed(&[0, 29])),
            extension(13, &listed(&[4, 3, 8, 4])),
            extension(51, &listed(&share)),
        ];
        Self {
            version: [3, 3],
            suites: vec![0x13, 1, 0x13, 2, 0x13, 3],
            compressions: vec![0],
            extensions: extensions.concat(),
        }
    }

    fn with(mut self, kind: u16, body: &[u8]) -> Self {
        self.extensions.extend(extension(kind, body));
        self
    }

    fn message(&self) -> Vec<u8> {
        let compressions = u8::try_from(self.compressions.len()).unwrap();
        let body = [
            &self.version[..],
            &[7; 32],
            &[0],
            &listed(&self.suites),
            &[compressions],
            &self.compressions,
            &listed(&self.extensions),
        ];
        message(1, &body.concat())
    }

    /// As a client sends it: in one record, which says that it is of TLS 1.0, as all do.
    fn bytes(&self) -> Vec<u8> {
        record(HANDSHAKE, [3, 1], &self.message())
    }
}

/// What is no TLS, or none that is spoken.
fn strangers() -> Vec<Case> {
    let ssl2 = [&[0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10][..], &[7; 37]].concat();
    let old = |version: [u8; 2]| Hello { version, extensions: Vec::new(), ..Hello::new() }.bytes();
    let ssl3 = Hello { version: [3, 0], extensions: Vec::new(), ..Hello::new() };
    vec![
        ("a plain request at the secure port", GOOD.as_bytes().to_vec(), Answer::Alert),
        ("a plain frame at the secure port", text("{}"), Answer::Alert),
        ("an HTTP/2 preface at the secure port", b"PRI * HTTP/2.0\r\n\r\n".to_vec(), Answer::Alert),
        ("a PROXY line at the secure port", b"PROXY UNKNOWN\r\n".to_vec(), Answer::Alert),
        ("an SSH banner at the secure port", b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(), Answer::Alert),
        ("a hello of SSL 2", ssl2, Answer::Alert),
        ("a hello of SSL 3", record(HANDSHAKE, [3, 0], &ssl3.message()), Answer::Alert),
        ("a hello of TLS 1.0", old([3, 1]), Answer::Alert),
        ("a hello of TLS 1.1", old([3, 2]), Answer::Alert),
        ("a hello of a version to come", old([4, 4]), Answer::Alert),
        ("zeros", vec![0; 4096], Answer::Alert),
        ("ones", vec![0xff; 4096], Answer::Alert),
    ]
}

/// Records that are none, or that have no place here.
fn records() -> Vec<Case> {
    let hello = Hello::new().message();
    let in_pieces = |size: usize| -> Vec<u8> {
        hello.chunks(size).flat_map(|piece| record(HANDSHAKE, [3, 1], piece)).collect()
    };
    let over = |length: u16| [&[HANDSHAKE, 3, 3][..], &length.to_be_bytes(), &[1; 20_000]].concat();
    let alert = |level: u8, kind: u8| record(21, [3, 3], &[level, kind]);
    let huge = [&[1, 0xff, 0xff, 0xff][..], &[3; 4000]].concat();
    vec![
        ("a hello a byte at a time", in_pieces(1), Answer::Hello),
        ("a hello in records of seven bytes", in_pieces(7), Answer::Hello),
        ("a record over the size", over(18_433), Answer::Alert),
        ("a record of the largest size there is", over(0xffff), Answer::Alert),
        (
            "a hello of sixteen megabytes",
            record(HANDSHAKE, [3, 1], &huge).repeat(40),
            Answer::Alert,
        ),
        (
            "ten thousand empty records",
            record(HANDSHAKE, [3, 1], &[]).repeat(10_000),
            Answer::Alert,
        ),
        (
            "a heartbeat that asks for more than it gives",
            vec![24, 3, 3, 0, 3, 1, 64, 0],
            Answer::Alert,
        ),
        ("a record of an unknown kind", record(99, [3, 3], &[0; 9]), Answer::Alert),
        ("data before the handshake", record(23, [3, 3], &[0; 99]), Answer::Alert),
        ("a change of ciphers first", record(20, [3, 3], &[1]).repeat(1000), Answer::Alert),
        ("an alert in three bytes", record(21, [3, 3], &[2, 40, 0]), Answer::Alert),
        ("an empty alert", record(21, [3, 3], &[]), Answer::Alert),
        ("ten thousand warnings", alert(1, 90).repeat(10_000), Answer::Alert),
        ("an alert of an unknown level", alert(9, 9), Answer::Alert),
        ("a fatal alert first", alert(2, 40), Answer::Silence),
        ("a server's hello", record(HANDSHAKE, [3, 3], &message(2, &[3; 70])), Answer::Alert),
        ("a client's end first", record(HANDSHAKE, [3, 3], &message(20, &[0; 12])), Answer::Alert),
        (
            "a message of an unknown kind",
            record(HANDSHAKE, [3, 3], &message(77, &[0])),
            Answer::Alert,
        ),
        ("two hellos", [Hello::new().bytes(), Hello::new().bytes()].concat(), Answer::Hello),
    ]
}

/// Hellos in order as records, and wrong as hellos.
fn hellos() -> Vec<Case> {
    let names = |list: &[&[u8]]| -> Vec<u8> {
        let one = |name: &&[u8]| [&[u8::try_from(name.len()).unwrap()], *name].concat();
        listed(&list.iter().flat_map(one).collect::<Vec<u8>>())
    };
    let alpn = |list: &[&[u8]]| Hello::new().with(16, &names(list)).bytes();
    let host =
        |name: &[u8]| Hello::new().with(0, &listed(&[&[0], &listed(name)[..]].concat())).bytes();
    let cut = |at: usize| {
        let whole = Hello::new().message();
        record(HANDSHAKE, [3, 1], &message(1, &whole[4..at]))
    };
    let many: Vec<Vec<u8>> = (0..60u8).map(|n| vec![n.max(1); 255]).collect();
    let many: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
    let twice = Hello::new().with(10, &listed(&[0, 29]));
    vec![
        ("no cipher", Hello { suites: Vec::new(), ..Hello::new() }.bytes(), Answer::Alert),
        (
            "only unknown ciphers",
            Hello { suites: vec![0, 1, 0, 2], ..Hello::new() }.bytes(),
            Answer::Alert,
        ),
        ("half a cipher", Hello { suites: vec![0x13], ..Hello::new() }.bytes(), Answer::Alert),
        (
            "no compression",
            Hello { compressions: Vec::new(), ..Hello::new() }.bytes(),
            Answer::Alert,
        ),
        (
            "only real compression",
            Hello { compressions: vec![1], ..Hello::new() }.bytes(),
            Answer::Alert,
        ),
        (
            "a hello without extensions",
            Hello { extensions: Vec::new(), ..Hello::new() }.bytes(),
            Answer::Alert,
        ),
        ("a hello cut in its random", cut(20), Answer::Alert),
        ("a hello cut in its ciphers", cut(43), Answer::Alert),
        ("a hello cut in its extensions", cut(70), Answer::Alert),
        ("an extension twice", twice.bytes(), Answer::Alert),
        ("protocols: only another", alpn(&[b"h2"]), Answer::Late),
        ("protocols: only garbage", alpn(&[b"\0\xff\0"]), Answer::Late),
        ("protocols: an empty list", Hello::new().with(16, &[0, 0]).bytes(), Answer::Alert),
        ("protocols: an empty name", alpn(&[b"", b"http/1.1"]), Answer::Alert),
        (
            "protocols: a length that lies",
            Hello::new().with(16, &[0, 9, 8, b'h']).bytes(),
            Answer::Alert,
        ),
        ("protocols: in capitals", alpn(&[b"HTTP/1.1"]), Answer::Late),
        ("protocols: sixty of the longest", alpn(&many), Answer::Late),
        ("protocols: the same three times", alpn(&[b"http/1.1".as_slice(); 3]), Answer::Hello),
        ("a name that is empty", host(b""), Answer::Alert),
        ("a name with a NUL", host(b"example.org\0.evil"), Answer::Alert),
        ("a name that is an address", host(b"127.0.0.1"), Answer::Hello),
        ("a name of ten thousand letters", host(&[b'a'; 10_000]), Answer::Alert),
        ("a name nobody has", host(b"nobody.example"), Answer::Hello),
    ]
}

fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

/// All that comes until the end of the stream.
fn rest(mut socket: &TcpStream, name: &str) -> Vec<u8> {
    let mut answer = Vec::new();
    if let Err(error) = socket.read_to_end(&mut answer) {
        let kind = error.kind();
        assert!(kind != std::io::ErrorKind::WouldBlock, "{name}: no end within {PATIENCE:?}");
    }
    answer
}

/// True when the server's hello and a change of ciphers are followed by one record that is as long as a
/// sealed alert.
fn is_late(answer: &[u8]) -> bool {
    let hello = 5 + usize::from(u16::from_be_bytes([answer[3], answer[4]]));
    answer.len() == hello + 6 + 24 && answer[hello + 6..].starts_with(&[23, 3, 3, 0, 19])
}

/// Does each of the cases by so many, all at once.
fn crowd(arena: &Arena, count: usize, cases: &[&Case]) {
    let (address, _) = arena.secure();
    let all: Vec<(&Case, TcpStream)> =
        cases.iter().flat_map(|case| (0..count).map(|_| (*case, connect(address)))).collect();
    for ((_, bytes, _), mut socket) in all.iter().map(|(case, socket)| (*case, socket)) {
        // It may have been closed before all is sent, and that is its right.
        let _ = socket.write_all(bytes);
    }
    for ((name, bytes, expected), socket) in &all {
        judge(socket, name, bytes, *expected);
    }
}

/// Asserts what comes of what was sent.
fn judge(socket: &TcpStream, name: &str, bytes: &[u8], expected: Answer) {
    let answer = rest(socket, name);
    let seen = match answer.as_slice() {
        [] => Answer::Silence,
        [21, 3, _, 0, 2, 2, _] => Answer::Alert,
        [HANDSHAKE, ..] if is_late(&answer) => Answer::Late,
        [HANDSHAKE, ..] => Answer::Hello,
        _ => panic!("{name}: {answer:?}"),
    };
    // Who goes on sending when we have closed may be reset, and lose the alert on the way.
    let is_lost = seen == Answer::Silence && expected == Answer::Alert && bytes.len() > 4096;
    assert!(seen == expected || is_lost, "{name}: {seen:?}, {answer:?}");
    assert!(!answer.windows(5).any(|five| five == b"HTTP/"), "{name}: plain words");
}

fn try_all(arena: &Arena, cases: &[Case]) {
    for case in cases {
        crowd(arena, 1, &[case]);
        arena.check(case.0);
    }
    let cheap = cases.iter().filter(|(_, bytes, _)| bytes.len() <= CHEAP);
    // Those who broke no rule are waited for, so they wait together.
    let (patient, hasty): (Vec<&Case>, Vec<&Case>) =
        cheap.partition(|(_, _, expected)| *expected == Answer::Hello);
    let first = cases[0].0;
    arena.repeat(&format!("the table of {first:?}"), || {
        hasty.iter().for_each(|case| crowd(arena, CROWD, &[case]));
        crowd(arena, CROWD, &patient);
    });
}

/// A handshake with somebody who believes us, as far as a test drives it.
struct Half {
    socket: TcpStream,
    tls: ClientConnection,
}

impl Half {
    fn new(arena: &Arena, version: Spoken) -> Self {
        let (address, files) = arena.secure();
        let config = Arc::new(files.authority.client(version, None));
        let name = ServerName::try_from("example.org").unwrap();
        Self { socket: connect(address), tls: ClientConnection::new(config, name).unwrap() }
    }

    /// What the client has to say by now.
    fn output(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// Sends that.
    fn say(&mut self) {
        let bytes = self.output();
        self.socket.write_all(&bytes).unwrap();
    }

    /// Hears the server until the client has something to say.
    fn hear(&mut self) {
        while !self.tls.wants_write() {
            assert!(self.tls.read_tls(&mut self.socket).unwrap() > 0, "the server has ended it");
            self.tls.process_new_packets().unwrap();
        }
    }

    fn reset(self) {
        SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// Handshakes that are begun and never ended, in every way a socket can.
fn half_handshakes(arena: &Arena) {
    for version in Spoken::BOTH {
        let mut silent = Half::new(arena, version);
        silent.say();
        // What comes is the server's part, and then the end: nobody waits for ever.
        let answer = rest(&silent.socket, "a hello and then nothing");
        assert_eq!(answer.first(), Some(&HANDSHAKE));
        arena.check("a hello and then nothing");

        let mut ended = Half::new(arena, version);
        ended.say();
        ended.hear();
        ended.socket.shutdown(Shutdown::Write).unwrap();
        rest(&ended.socket, "an end in the handshake");
        arena.check("an end in the handshake");

        let mut wrong = Half::new(arena, version);
        wrong.say();
        wrong.hear();
        let mut bytes = wrong.output();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        wrong.socket.write_all(&bytes).unwrap();
        rest(&wrong.socket, "a last message with a bit changed");
        arena.check("a last message with a bit changed");
    }
}

/// Resets in every place of the handshake that a byte can be at.
fn resets(arena: &Arena) {
    for version in Spoken::BOTH {
        let length = Half::new(arena, version).output().len();
        for sent in (0..length).step_by(9) {
            let mut half = Half::new(arena, version);
            let hello = half.output();
            half.socket.write_all(&hello[..sent]).unwrap();
            half.reset();
        }
        arena.check("resets in the hello");
        for _ in 0..20 {
            let mut half = Half::new(arena, version);
            half.say();
            half.reset();
            let mut half = Half::new(arena, version);
            half.say();
            half.hear();
            half.reset();
            let mut half = Half::new(arena, version);
            half.say();
            half.hear();
            let bytes = half.output();
            half.socket.write_all(&bytes[..bytes.len() / 2]).unwrap();
            half.reset();
        }
        arena.check("resets behind the server's hello");
    }
    let (address, _) = arena.secure();
    for sent in 1..6 {
        let mut socket = connect(address);
        socket.write_all(&Hello::new().bytes()[..sent]).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&socket, "an end in a record's head"), b"");
    }
    arena.check("ends in a record's head");
    let crowd: Vec<TcpStream> = (0..200).map(|_| connect(address)).collect();
    for mut socket in &crowd {
        socket.write_all(&Hello::new().bytes()).unwrap();
    }
    arena.serve("two hundred hellos and then nothing");
    drop(crowd);
    arena.check("two hundred hellos and then nothing");
}

/// What handshakes that are not ended are tried with: three deeds in both versions, then resets of two kinds in both
/// versions, ends in a record's head, and a crowd.
const HALVES: usize = 3 * 2 + 2 * 2 + 2;

/// How many cases there are here.
pub(super) fn count() -> usize {
    [strangers(), records(), hellos()].iter().map(Vec::len).sum::<usize>() + HALVES
}

on_both_drivers! {
    fn what_is_no_tls_gets_an_alert_and_nobody_else_notices(driver) {
        let arena = Arena::open_secure(driver);
        try_all(&arena, &strangers());
        try_all(&arena, &records());
        try_all(&arena, &hellos());
        arena.close();
    }

    fn half_handshakes_of_all_kinds_leave_nothing(driver) {
        let arena = Arena::open_secure(driver);
        arena.repeat("half handshakes", || {
            half_handshakes(&arena);
            resets(&arena);
        });
        arena.close();
    }
}
