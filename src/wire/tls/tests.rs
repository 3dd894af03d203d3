//! The layer against rustls as a client: any pieces, every version, every way to end.

use std::io::{Read, Write};
use std::sync::Arc;

use aws_lc_rs::aead;
use proptest::prelude::*;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ConnectionTrafficSecrets};

use super::*;
use authority::{Authority, Issued, Spoken};

#[allow(dead_code, reason = "tests over real sockets use more of it")]
#[path = "../../../tests/support/authority.rs"]
pub(crate) mod authority;

/// A client in memory.
pub(crate) struct Client {
    tls: ClientConnection,
    heard: Vec<u8>,
    saw_end: bool,
}

impl Client {
    pub(crate) fn new(config: ClientConfig, name: &'static str) -> Self {
        Self::of(&Arc::new(config), name)
    }

    pub(crate) fn of(config: &Arc<ClientConfig>, name: &'static str) -> Self {
        let name = ServerName::try_from(name).expect("a name");
        let tls = ClientConnection::new(Arc::clone(config), name).expect("a client");
        Self { tls, heard: Vec::new(), saw_end: false }
    }

    /// What it has to send.
    pub(crate) fn output(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).expect("memory");
        }
        bytes
    }

    pub(crate) fn input(&mut self, mut bytes: &[u8]) -> Result<(), rustls::Error> {
        while !bytes.is_empty() {
            self.tls.read_tls(&mut bytes).expect("memory");
            self.tls.process_new_packets()?;
            // The end of the stream and the end of what is there both end this.
            self.saw_end |= self.tls.reader().read_to_end(&mut self.heard).is_ok();
        }
        Ok(())
    }

    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.tls.set_buffer_limit(None);
        self.tls.writer().write_all(bytes).expect("memory");
    }

    pub(crate) fn heard(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.heard)
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    pub(crate) fn finish(&mut self) {
        self.tls.send_close_notify();
    }

    /// True when the server has said close_notify and all before it is read.
    pub(crate) fn saw_end(&self) -> bool {
        self.saw_end
    }
}

fn identity(issued: &Issued) -> Identity {
    Identity { chain: issued.chain.clone(), key: issued.key() }
}

fn options(issued: &[&Issued]) -> Options {
    Options {
        identities: issued.iter().map(|issued| identity(issued)).collect(),
        clients: Clients::Unasked,
        oldest: Version::Tls12,
        tickets: Some(tickets().expect("randomness")),
    }
}

/// A configuration for `example.org`, for tests that are about something else.
pub(crate) fn any_config(authority: &Authority) -> Arc<ServerConfig> {
    let issued = authority.issue("example", &["example.org"]);
    server_config(options(&[&issued])).expect("a configuration")
}

/// The same, and clients are asked for certificates of that authority.
pub(crate) fn asking_config(authority: &Authority) -> Arc<ServerConfig> {
    let issued = authority.issue("example", &["example.org"]);
    let clients = Clients::Asked(vec![authority.certificate()]);
    server_config(Options { clients, ..options(&[&issued]) }).expect("a configuration")
}

/// Both ends and what has been said.
struct Pair {
    layer: Layer,
    client: Client,
    /// What the layer has heard.
    heard: Vec<u8>,
    ended: bool,
    /// Sizes of the pieces in which bytes arrive, in turn.
    pieces: Vec<usize>,
    piece: usize,
}

impl Pair {
    fn new(config: &Arc<ServerConfig>, client: Client) -> Self {
        let layer = Layer::new(Arc::clone(config)).expect("a layer");
        let pieces = vec![usize::MAX];
        Self { layer, client, heard: Vec::new(), ended: false, pieces, piece: 0 }
    }

    fn cut(mut self, pieces: &[usize]) -> Self {
        self.pieces = pieces.to_vec();
        self
    }

    fn next_piece(&mut self, left: usize) -> usize {
        self.piece += 1;
        self.pieces[self.piece % self.pieces.len()].min(left)
    }

    /// The client's bytes to the layer, in pieces.
    fn up(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = self.next_piece(rest.len());
            let mut lent = rest[..count].to_vec();
            self.ended |= self.layer.open(&mut lent, &mut self.heard)?;
            rest = &rest[count..];
        }
        Ok(())
    }

    /// The layer's bytes to the client, in pieces.
    fn down(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = self.next_piece(rest.len());
            self.client.input(&rest[..count]).expect("the client understands");
            rest = &rest[count..];
        }
    }

    /// To and fro until nobody has anything to say.
    fn settle(&mut self) -> Result<(), Fault> {
        loop {
            let (up, down) = (self.client.output(), self.layer.take_output());
            self.layer.sent();
            if up.is_empty() && down.is_empty() {
                return Ok(());
            }
            let result = self.up(&up);
            self.down(&down);
            result?;
        }
    }

    fn tell(&mut self, frames: &[&[u8]]) {
        let bytes = frames.iter().map(|frame| frame.len()).sum();
        let frames = frames.iter().copied();
        let sealed = self.layer.seal(frames, bytes, &mut Vec::new()).expect("sealed");
        assert_eq!(self.layer.sent(), Some(bytes));
        self.down(&sealed);
    }
}

fn shaken(config: &Arc<ServerConfig>, client: ClientConfig) -> Pair {
    let mut pair = Pair::new(config, Client::new(client, "example.org"));
    pair.settle().expect("a handshake");
    assert!(!pair.layer.is_handshaking() && !pair.client.is_handshaking());
    pair
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at ^ at >> 8) & 0xff).expect("a byte")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_pieces_in_both_directions_say_the_same(
        pieces in prop::collection::vec(prop_oneof![1..8usize, 1..2000usize, 10_000..70_000usize], 1..12),
        up in prop::collection::vec(prop_oneof![1..200usize, 10_000..70_000usize], 1..6),
        down in prop::collection::vec(prop_oneof![1..200usize, 10_000..70_000usize], 1..6),
        newest: bool,
    ) {
        let authority = Authority::new();
        let version = if newest { Spoken::Tls13 } else { Spoken::Tls12 };
        let client = Client::new(authority.client(version, None), "example.org");
        let mut pair = Pair::new(&any_config(&authority), client).cut(&pieces);
        pair.settle().expect("a handshake");
        prop_assert!(!pair.layer.is_handshaking());
        prop_assert_eq!(pair.layer.is_newest(), newest);
        for length in &up {
            pair.client.say(&bytes(*length));
            pair.settle().expect("bytes");
            prop_assert_eq!(std::mem::take(&mut pair.heard), bytes(*length));
        }
        let frames: Vec<Vec<u8>> = down.iter().map(|length| bytes(*length)).collect();
        let slices: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        pair.tell(&slices);
        prop_assert_eq!(pair.client.heard(), frames.concat());
        prop_assert_eq!(pair.layer.held(), 0, "nothing is kept between records");
    }

    #[test]
    fn garbage_at_any_place_is_a_fault_with_an_alert_and_never_a_panic(
        garbage in prop::collection::vec(any::<u8>(), 1..400),
        at in 0..600usize,
        pieces in prop::collection::vec(1..300usize, 1..8),
    ) {
        let authority = Authority::new();
        let mut client = Client::new(authority.client(Spoken::Tls13, None), "example.org");
        let hello = client.output();
        let mut pair = Pair::new(&any_config(&authority), client).cut(&pieces);
        let mut bytes = hello[..at.min(hello.len())].to_vec();
        bytes.extend(&garbage);
        if pair.up(&bytes).is_err() {
            prop_assert!(!pair.layer.is_ready());
            prop_assert_eq!(pair.layer.open(&mut [1; 9], &mut Vec::new()), Ok(false), "deaf");
            prop_assert!(pair.heard.is_empty());
        }
    }
}

#[test]
fn a_fault_leaves_an_alert_for_the_peer() {
    let authority = Authority::new();
    let mut layer = Layer::new(any_config(&authority)).expect("a layer");
    let fault = layer.open(&mut b"GET / HTTP/1.1\r\n\r\n".to_vec(), &mut Vec::new());
    assert!(fault.is_err());
    let alert = layer.take_output();
    assert_eq!(alert[..1], [21], "an alert: {alert:?}");
    assert!(!layer.has_output() && !layer.is_ready());
}

#[test]
fn a_hello_cut_into_tiny_records_is_understood() {
    let authority = Authority::new();
    for version in Spoken::BOTH {
        let client = Client::new(authority.client(version, None), "example.org");
        let mut pair = Pair::new(&any_config(&authority), client);
        let hello = pair.client.output();
        let payload = &hello[5..];
        for part in payload.chunks(7) {
            let length = u8::try_from(part.len()).expect("short");
            let record = [&hello[..3], &[0, length], part].concat();
            pair.up(&record).expect("a part of a hello");
        }
        pair.settle().expect("a handshake");
        assert!(!pair.client.is_handshaking());
    }
}

#[test]
fn many_frames_leave_in_few_records_and_large_ones_are_cut() {
    let authority = Authority::new();
    for version in Spoken::BOTH {
        let mut pair = shaken(&any_config(&authority), authority.client(version, None));
        let small = [b"a frame".as_slice(); 200];
        let sealed = pair.layer.seal(small.into_iter(), 1400, &mut Vec::new()).expect("sealed");
        assert!(sealed.len() <= 1400 + OVERHEAD_OF_ONE, "{} bytes", sealed.len());
        pair.layer.sent();
        pair.down(&sealed);
        assert_eq!(pair.client.heard(), small.concat());
        let large = bytes(100_000);
        pair.tell(&[b"before", &large, b"behind"]);
        assert_eq!(pair.client.heard(), [b"before", large.as_slice(), b"behind"].concat());
    }
}

/// More than any version adds to a record.
const OVERHEAD_OF_ONE: usize = 40;

#[test]
fn the_name_asked_for_chooses_the_certificate_and_an_unknown_one_gets_the_first() {
    let authority = Authority::new();
    let first = authority.issue("first", &["first.example"]);
    let second = authority.issue("second", &["second.example", "*.wild.example"]);
    let config = server_config(options(&[&first, &second])).expect("a configuration");
    let shown = |name: &'static str| {
        let client = Client::new(authority.client(Spoken::Tls13, None), name);
        let mut pair = Pair::new(&config, client);
        let hello = pair.client.output();
        pair.up(&hello).expect("a hello");
        let flight = pair.layer.take_output();
        // A client that was shown a certificate for another name refuses it.
        let believed = pair.client.input(&flight).is_ok();
        let chain = pair.client.tls.peer_certificates().map(|chain| chain[0].clone());
        (believed, chain)
    };
    assert_eq!(shown("first.example"), (true, Some(first.chain[0].clone())));
    for name in ["second.example", "SECOND.example", "a.wild.example"] {
        assert_eq!(shown(name), (true, Some(second.chain[0].clone())), "{name}");
    }
    for name in ["other.example", "a.b.wild.example", "wild.example"] {
        assert!(!shown(name).0, "{name}");
    }
}

#[test]
fn a_client_shows_who_it_is_where_it_is_asked() {
    let authority = Authority::new();
    let server = authority.issue("example", &["example.org"]);
    let alice = authority.issue("alice", &["alice"]);
    let stranger = Authority::new().issue("mallory", &["mallory"]);
    let with = |clients| {
        server_config(Options { clients, ..options(&[&server]) }).expect("a configuration")
    };
    let authorities = || vec![authority.certificate()];
    let attempt = |config: &Arc<ServerConfig>, version, own| {
        let client = Client::new(authority.client(version, own), "example.org");
        let mut pair = Pair::new(config, client);
        pair.settle().map(|()| pair.layer.peer().map(|peer| peer.subject))
    };
    let alices = |subject: Option<String>| subject.is_some_and(|s| s.contains("CN=alice"));
    for version in Spoken::BOTH {
        let required = with(Clients::Required(authorities()));
        assert!(alices(attempt(&required, version, Some(&alice)).expect("alice")));
        assert!(attempt(&required, version, None).is_err());
        assert!(attempt(&required, version, Some(&stranger)).is_err());
        let asked = with(Clients::Asked(authorities()));
        assert!(alices(attempt(&asked, version, Some(&alice)).expect("alice")));
        assert_eq!(attempt(&asked, version, None), Ok(None));
        assert!(attempt(&asked, version, Some(&stranger)).is_err());
        assert_eq!(attempt(&with(Clients::Unasked), version, Some(&alice)), Ok(None));
    }
}

#[test]
fn a_ticket_resumes_also_after_a_change_of_certificates() {
    let authority = Authority::new();
    let tickets = tickets().expect("randomness");
    let config = |tickets| {
        let issued = authority.issue("example", &["example.org"]);
        server_config(Options { tickets, ..options(&[&issued]) }).expect("a configuration")
    };
    for version in Spoken::BOTH {
        let client = Arc::new(authority.client(version, None));
        let shake = |config| {
            let mut pair = Pair::new(&config, Client::of(&client, "example.org"));
            pair.settle().expect("a handshake");
            pair.layer.is_resumed()
        };
        assert!(!shake(config(Some(tickets.clone()))), "nothing to resume");
        assert!(shake(config(Some(tickets.clone()))), "{version:?}");
        assert!(!shake(config(None)), "no tickets, no resumption");
    }
}

#[test]
fn each_end_says_that_it_is_done_and_what_comes_after_is_ignored() {
    let authority = Authority::new();
    for version in Spoken::BOTH {
        let mut pair = shaken(&any_config(&authority), authority.client(version, None));
        pair.client.say(b"last words");
        pair.client.finish();
        pair.settle().expect("an end");
        assert!(pair.ended);
        assert_eq!(pair.heard, b"last words");
        assert_eq!(pair.layer.open(&mut [23; 64], &mut pair.heard), Ok(false));
        pair.tell(&[b"ours"]);
        pair.layer.finish();
        pair.layer.finish();
        let end = pair.layer.take_output();
        pair.down(&end);
        assert_eq!(pair.client.heard(), b"ours");
        assert!(pair.client.saw_end() && !pair.layer.has_output() && !pair.layer.is_ready());
    }
}

#[test]
fn only_http_1_1_is_agreed_on() {
    let authority = Authority::new();
    let shake = |protocols: &[&[u8]]| {
        let mut client = authority.client(Spoken::Tls13, None);
        client.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let mut pair = Pair::new(&any_config(&authority), Client::new(client, "example.org"));
        pair.settle().map(|()| pair.client.tls.alpn_protocol().map(<[u8]>::to_vec))
    };
    let agreed = Ok(Some(b"http/1.1".to_vec()));
    assert_eq!(shake(&[b"http/1.1"]), agreed);
    assert_eq!(shake(&[b"h2", b"http/1.1"]), agreed);
    assert_eq!(shake(&[]), Ok(None));
    assert!(shake(&[b"h2"]).is_err());
}

/// A client that begins another handshake inside the first is a client from before TLS 1.3, or worse.
#[test]
fn a_renegotiation_is_refused() {
    let authority = Authority::new();
    let mut config = authority.client(Spoken::Tls12, None);
    config.enable_secret_extraction = true;
    let mut pair = Pair::new(&any_config(&authority), Client::new(config, "example.org"));
    let hello = pair.client.output();
    pair.up(&hello).expect("a hello");
    pair.settle().expect("a handshake");
    let Client { tls, .. } = pair.client;
    let (mut number, secrets) = tls.dangerous_extract_secrets().expect("keys").tx;
    let mut again = || {
        number += 1;
        sealed(&secrets, number - 1, &hello[5..])
    };
    let mut heard = Vec::new();
    assert_eq!(pair.layer.open(&mut again(), &mut heard), Ok(false));
    assert!(pair.layer.has_output(), "it is told that there is none");
    assert!(pair.layer.is_ready(), "and may go on");
    assert!((0..4).any(|_| pair.layer.open(&mut again(), &mut heard).is_err()), "but not for ever");
    assert!(heard.is_empty());
}

/// A handshake record of TLS 1.2 under those keys (RFC 5246, section 6.2.3.3; RFC 5288, section 3).
fn sealed(secrets: &ConnectionTrafficSecrets, number: u64, text: &[u8]) -> Vec<u8> {
    let (algorithm, key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&aead::AES_128_GCM, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&aead::AES_256_GCM, key, iv),
        _ => panic!("a cipher that is not preferred was agreed on"),
    };
    let key =
        aead::LessSafeKey::new(aead::UnboundKey::new(algorithm, key.as_ref()).expect("a key"));
    let explicit = number.to_be_bytes();
    let nonce: [u8; 12] = [&iv.as_ref()[..4], &explicit].concat().try_into().expect("12 bytes");
    let length = u16::try_from(text.len()).expect("one record");
    let extra = [&explicit[..], &[22, 3, 3], &length.to_be_bytes()].concat();
    let mut sealed = text.to_vec();
    let nonce = aead::Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(nonce, aead::Aad::from(extra), &mut sealed).expect("sealed");
    let length = u16::try_from(8 + sealed.len()).expect("one record");
    [&[22, 3, 3][..], &length.to_be_bytes(), &explicit, &sealed].concat()
}

#[test]
fn a_handshake_that_sends_without_end_is_cut_off() {
    let authority = Authority::new();
    let mut layer = Layer::new(any_config(&authority)).expect("a layer");
    for _ in 0..4 {
        assert!(layer.keep(&[22; 16 * 1024]).is_ok());
    }
    assert!(layer.keep(&[22; 16 * 1024]).is_err());
}

#[test]
fn what_cannot_be_used_is_refused_with_its_place() {
    let authority = Authority::new();
    let (one, two) = (authority.issue("one", &["one"]), authority.issue("two", &["two"]));
    let mixed = Identity { chain: one.chain.clone(), key: two.key() };
    let mut wrong = options(&[&one]);
    wrong.identities.push(mixed);
    let error = server_config(wrong).expect_err("another's key");
    assert!(matches!(error, ConfigError::Identity(1, _)), "{error}");
    assert!(error.to_string().starts_with("certificate 2: "), "{error}");
    assert!(server_config(options(&[])).is_err());
    let clients = Clients::Required(Vec::new());
    let error = server_config(Options { clients, ..options(&[&one]) }).expect_err("nobody");
    assert!(matches!(error, ConfigError::Authorities(_)), "{error}");
}

#[test]
fn an_idle_connection_costs_little() {
    println!("a layer is {} bytes before what rustls holds behind it", size_of::<Layer>());
    assert!(size_of::<Layer>() <= 2048);
}
