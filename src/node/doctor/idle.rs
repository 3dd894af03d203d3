//! For how long a connection may be silent on its way through proxies.
//!
//! A WebSocket is opened at a URL and nothing is said on it but the answers to pings, so an engine behind it
//! has no cause to give the connection up: whoever ends it is in between. The longest silence that the
//! connection has survived, and the one that ended it, are what the interval of heartbeats must be held
//! against. With heartbeats as usual it tells whether they suffice; with very long ones, where the limit is.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use tungstenite::client::IntoClientRequest as _;
use tungstenite::http::HeaderValue;
use tungstenite::{Message, WebSocket};

use crate::base::time::Time;
use crate::sys::clock::Clock;

/// `ws://HOST[:PORT]/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: String,
}

impl Url {
    /// Reads one.
    ///
    /// # Errors
    /// A text that is none, and what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected =
            || format!("{text:?}: expected ws://HOST[:PORT]/PATH; TLS is not spoken here");
        let rest = text.strip_prefix("ws://").ok_or_else(expected)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| expected())?)
            }
            _ => (authority, 80),
        };
        let is_plain = |c: char| c.is_ascii_graphic();
        if host.is_empty() || !host.chars().all(is_plain) || !path.chars().all(is_plain) {
            return Err(expected());
        }
        Ok(Self { host: host.to_owned(), port, path: format!("/{path}") })
    }

    /// Where that is.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        let address = (self.host.trim_matches(['[', ']']), self.port).to_socket_addrs()?.next();
        let nowhere = || io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        address.ok_or_else(nowhere)
    }
}

/// What came of the silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The longest time without a byte that the connection survived.
    pub survived: Duration,
    /// The time without a byte after which it was ended; `None` when nobody ended it.
    pub ended: Option<Duration>,
}

impl Silence {
    /// True when heartbeats of that interval keep such a connection alive with a margin of a third.
    #[must_use]
    pub fn suits(&self, interval: Duration) -> bool {
        self.ended.is_none_or(|ended| interval * 3 / 2 <= ended)
    }
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let survived = self.survived.as_secs_f64();
        match self.ended {
            Some(ended) => write!(
                f,
                "it was ended after {:.1} s without a byte; it had survived {survived:.1} s",
                ended.as_secs_f64()
            ),
            None => write!(f, "nobody ended it; it survived {survived:.1} s without a byte"),
        }
    }
}

/// Opens a WebSocket and says nothing on it for at most `patience`.
///
/// # Errors
/// When there is no WebSocket at the URL.
pub fn watch_idle(url: &Url, patience: Duration) -> io::Result<Silence> {
    let mut socket = open(url)?;
    let clock = Clock::start();
    let mut silence = Silence { survived: Duration::ZERO, ended: None };
    let mut last = clock.now();
    loop {
        let left = patience.saturating_sub(clock.now().since(Time::ZERO));
        if left.is_zero() {
            silence.survived = silence.survived.max(clock.now().since(last));
            return Ok(silence);
        }
        socket.get_ref().set_read_timeout(Some(left))?;
        // Pings are answered on the way.
        let read = socket.read();
        let quiet = clock.now().since(last);
        match read {
            // The engine's own goodbye is no proxy's doing.
            Ok(Message::Close(_)) => return Ok(silence),
            Ok(_) => {
                silence.survived = silence.survived.max(quiet);
                last = clock.now();
            }
            Err(tungstenite::Error::Io(error)) if is_wait(error.kind()) => {}
            Err(_) => {
                silence.ended = Some(quiet);
                return Ok(silence);
            }
        }
    }
}

fn is_wait(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn open(url: &Url) -> io::Result<WebSocket<TcpStream>> {
    let Url { host, port, path } = url;
    let stream = TcpStream::connect_timeout(&url.address()?, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    let mut request =
        format!("ws://{host}:{port}{path}").into_client_request().map_err(io::Error::other)?;
    let protocol = HeaderValue::from_static("throng.v1.json");
    request.headers_mut().insert("sec-websocket-protocol", protocol);
    let (socket, _) = tungstenite::client(request, stream)
        .map_err(|error| io::Error::other(format!("there is no WebSocket: {error}")))?;
    Ok(socket)
}

/// How long a connection and its upgrade may take.
pub(super) const ANSWER: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use tungstenite::handshake::server::{Request, Response};

    #[test]
    fn a_url_is_read_or_refused_with_what_was_expected() {
        let url = |host: &str, port, path: &str| Url {
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        };
        assert_eq!(Url::parse("ws://a.example/ws"), Ok(url("a.example", 80, "/ws")));
        assert_eq!(Url::parse("ws://127.0.0.1:8080"), Ok(url("127.0.0.1", 8080, "/")));
        assert_eq!(Url::parse("ws://[::1]:81/a/b"), Ok(url("[::1]", 81, "/a/b")));
        assert_eq!(Url::parse("ws://[::1]/a"), Ok(url("[::1]", 80, "/a")));
        for wrong in
            ["http://a/", "wss://a/", "ws:///a", "ws://a:port/", "ws://a b/", "ws://a/\r\n"]
        {
            let error = Url::parse(wrong).expect_err(wrong);
            assert!(error.contains("expected ws://HOST"), "{error}");
        }
    }

    #[expect(clippy::result_large_err, reason = "the signature is the library's")]
    /// A server that upgrades, says one thing, and ends the connection after it is told to.
    fn silence_before(goodbye: &'static [u8], patience: Duration, ends: bool) -> Silence {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let (done, wait) = crossbeam_channel::bounded::<()>(1);
        let serve = move || {
            let (stream, _) = listener.accept().expect("a client");
            let pick = |_: &Request, mut response: Response| {
                let protocol = HeaderValue::from_static("throng.v1.json");
                response.headers_mut().insert("sec-websocket-protocol", protocol);
                Ok(response)
            };
            let mut socket = tungstenite::accept_hdr(stream, pick).expect("an upgrade");
            let _ = socket.get_mut().write_all(goodbye);
            let lasts = if ends { Duration::from_millis(50) } else { Duration::from_secs(60) };
            let _ = wait.recv_timeout(lasts);
        };
        let server = std::thread::Builder::new().spawn(serve).expect("a thread");
        let url = Url::parse(&format!("ws://127.0.0.1:{port}/ws")).expect("a URL");
        let silence = watch_idle(&url, patience).expect("a WebSocket");
        drop(done);
        server.join().expect("it ends");
        silence
    }

    #[test]
    fn who_ends_a_silent_connection_is_noticed_and_a_goodbye_is_none() {
        let patience = Duration::from_secs(20);
        let cut = silence_before(b"\x89\x00", patience, true);
        let ended = cut.ended.expect("an end");
        assert!(!cut.suits(ended) && cut.suits(ended / 2), "{cut}");
        let left = silence_before(b"\x88\x02\x03\xf4", patience, true);
        assert_eq!(left.ended, None, "the engine said goodbye");
        let kept = silence_before(b"", Duration::from_millis(30), false);
        assert!(kept.ended.is_none() && kept.survived >= Duration::from_millis(20), "{kept}");
        assert!(kept.suits(Duration::from_secs(3600)));
    }

    #[test]
    fn what_is_no_websocket_is_an_error_that_says_what_there_is() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let serve = move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n");
        };
        let server = std::thread::Builder::new().spawn(serve).expect("a thread");
        let url = Url::parse(&format!("ws://127.0.0.1:{port}/")).expect("a URL");
        let error = watch_idle(&url, Duration::from_secs(20)).expect_err("no WebSocket");
        assert!(error.to_string().contains("404 Not Found"), "{error}");
        server.join().expect("it ends");
    }
}
