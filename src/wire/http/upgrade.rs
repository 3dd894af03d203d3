//! The WebSocket handshake, the server's reading of it (RFC 6455, section 4.2.1).
//!
//! Every header the handshake has is held to its grammar, also those nothing is decided by, because a
//! client that cannot write them is not one to keep. What is missing is told apart from what is wrong:
//! 426 with the header's name for what a proxy may have swallowed, 400 for what nobody should have
//! sent. Which protocol is spoken, and whether an origin is welcome, is decided above.

use std::net::IpAddr;

use smallvec::SmallVec;
use tungstenite::handshake::derive_accept_key;

use super::grammar;
use super::head::{Head, Version};
use super::refusal::Refusal;

/// A handshake that broke no rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade<'a> {
    /// The value of Sec-WebSocket-Accept.
    pub accept: [u8; 28],
    /// The subprotocols offered, the client's favourite first; at most 32, no two alike.
    pub protocols: SmallVec<[&'a str; 4]>,
    /// The lines of Sec-WebSocket-Extensions, as written; each is in order by its grammar.
    pub extensions: SmallVec<[&'a str; 1]>,
    /// The value of Origin, as written; visible ASCII.
    pub origin: Option<&'a str>,
}

impl Upgrade<'_> {
    /// What stands for a request that asks for none.
    #[must_use]
    pub fn none() -> Self {
        let (protocols, extensions) = (SmallVec::new(), SmallVec::new());
        Self { accept: [0; 28], protocols, extensions, origin: None }
    }
}

/// Reads a request as a WebSocket handshake.
///
/// # Errors
/// 405 unless the method is GET; 426 naming the header when one is missing, or when the version is not
/// 13; 413 when there is a body; 400 for whatever else is wrong.
pub fn upgrade<'a>(head: &Head<'a>) -> Result<Upgrade<'a>, Refusal> {
    if head.method() != "GET" {
        return Err(Refusal::method_not_allowed("GET"));
    }
    check_upgrade(head)?;
    check_connection(head)?;
    let key = key(head)?;
    check_version(head)?;
    if head.version() == Version::Http10 {
        return Err(Refusal::bad_request(
            "a WebSocket needs HTTP/1.1, not HTTP/1.0 (nginx: proxy_http_version 1.1)",
        ));
    }
    head.refuse_body()?;
    let mut accept = [0; 28];
    accept.copy_from_slice(derive_accept_key(key).as_bytes());
    Ok(Upgrade {
        accept,
        protocols: protocols(head)?,
        extensions: extensions(head)?,
        origin: origin(head)?,
    })
}

/// Reads a request for an event stream, which asks for less than a handshake: it stands for one that offers
/// nothing, and there is nothing to accept.
///
/// # Errors
/// 405 unless the method is GET or OPTIONS; 413 when there is a body; 400 for whatever else is wrong.
pub fn stream<'a>(head: &Head<'a>) -> Result<Upgrade<'a>, Refusal> {
    if !["GET", "OPTIONS"].contains(&head.method()) {
        return Err(Refusal::method_not_allowed("GET, OPTIONS"));
    }
    head.refuse_body()?;
    let (protocols, extensions) = (SmallVec::new(), SmallVec::new());
    Ok(Upgrade { accept: [0; 28], protocols, extensions, origin: origin(head)? })
}

fn check_upgrade(head: &Head<'_>) -> Result<(), Refusal> {
    let mut is_there = false;
    for value in head.values("Upgrade") {
        for protocol in grammar::elements(ascii("Upgrade", value)?) {
            if !grammar::is_protocol(protocol) {
                return Err(malformed("Upgrade"));
            }
            is_there |= protocol.eq_ignore_ascii_case("websocket");
        }
    }
    if is_there {
        return Ok(());
    }
    Err(Refusal::upgrade_required(
        "the header Upgrade: websocket is missing \
         (nginx: proxy_set_header Upgrade $http_upgrade)",
    ))
}

fn check_connection(head: &Head<'_>) -> Result<(), Refusal> {
    let mut is_there = false;
    for value in head.values("Connection") {
        for option in grammar::elements(ascii("Connection", value)?) {
            if !grammar::is_token(option.as_bytes()) {
                return Err(malformed("Connection"));
            }
            is_there |= option.eq_ignore_ascii_case("upgrade");
        }
    }
    if is_there {
        return Ok(());
    }
    Err(Refusal::upgrade_required(
        "the header Connection: Upgrade is missing \
         (nginx: proxy_set_header Connection \"upgrade\")",
    ))
}

fn key<'a>(head: &Head<'a>) -> Result<&'a [u8], Refusal> {
    match head.only("Sec-WebSocket-Key")? {
        Some(key) if grammar::is_key(key) => Ok(key),
        Some(_) => Err(Refusal::bad_request("Sec-WebSocket-Key is not 16 bytes in base64")),
        None => Err(Refusal::upgrade_required("the header Sec-WebSocket-Key is missing")),
    }
}

fn check_version(head: &Head<'_>) -> Result<(), Refusal> {
    match head.only("Sec-WebSocket-Version")?.map(grammar::version) {
        Some(Some(13)) => Ok(()),
        Some(Some(_)) => Err(Refusal::upgrade_required("the Sec-WebSocket-Version must be 13")),
        Some(None) => Err(malformed("Sec-WebSocket-Version")),
        None => Err(Refusal::upgrade_required("the header Sec-WebSocket-Version is missing")),
    }
}

fn protocols<'a>(head: &Head<'a>) -> Result<SmallVec<[&'a str; 4]>, Refusal> {
    let mut offered: SmallVec<[&str; 4]> = SmallVec::new();
    for value in head.values("Sec-WebSocket-Protocol") {
        let before = offered.len();
        for protocol in grammar::elements(ascii("Sec-WebSocket-Protocol", value)?) {
            // The bound keeps the search for twins short; nobody speaks so many protocols.
            if offered.len() == PROTOCOLS {
                return Err(Refusal::bad_request("too many protocols are offered"));
            }
            if !grammar::is_token(protocol.as_bytes()) || offered.contains(&protocol) {
                return Err(malformed("Sec-WebSocket-Protocol"));
            }
            offered.push(protocol);
        }
        if offered.len() == before {
            return Err(malformed("Sec-WebSocket-Protocol"));
        }
    }
    Ok(offered)
}

fn extensions<'a>(head: &Head<'a>) -> Result<SmallVec<[&'a str; 1]>, Refusal> {
    head.values("Sec-WebSocket-Extensions")
        .map(|value| {
            let value = ascii("Sec-WebSocket-Extensions", value)?;
            let is_list = grammar::is_extension_list(value);
            is_list.then_some(value).ok_or_else(|| malformed("Sec-WebSocket-Extensions"))
        })
        .collect()
}

/// The page that asks, as it says; `None` for programs.
///
/// # Errors
/// 400 when it is none, or there are several.
pub fn origin<'a>(head: &Head<'a>) -> Result<Option<&'a str>, Refusal> {
    let Some(value) = head.only("Origin")? else { return Ok(None) };
    let value = ascii("Origin", value)?;
    let is_visible = !value.is_empty() && value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    is_visible.then_some(Some(value)).ok_or_else(|| malformed("Origin"))
}

/// The header by which a browser says whose page asks, where it names none: in a GET of the page's own origin (Fetch
/// Metadata, section 2.3). No script can set it.
pub const FETCH_SITE: &str = "sec-fetch-site";

/// What it says of a page that asks where it came from itself.
pub const SAME_ORIGIN: &str = "same-origin";

/// The origin of a page that asks its own host by [`FETCH_SITE`]. Browsers say so by https, and otherwise to names of the
/// machine that they run on only.
#[must_use]
pub fn own_origin(host: &str) -> String {
    let end = host.rfind(']').map_or(0, |at| at + 1);
    let name = host[end..].rfind(':').map_or(host, |at| &host[..end + at]);
    let name = name.trim_matches(['[', ']']).to_ascii_lowercase();
    let is_this_machine = name == "localhost"
        || name.ends_with(".localhost")
        || name.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    format!("{}://{host}", if is_this_machine { "http" } else { "https" })
}

fn ascii<'a>(name: &'static str, value: &'a [u8]) -> Result<&'a str, Refusal> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.is_ascii());
    text.ok_or_else(|| malformed(name))
}

fn malformed(name: &'static str) -> Refusal {
    Refusal::bad_request(format!("the header {name} is malformed"))
}

/// The most subprotocols a client may offer.
const PROTOCOLS: usize = 32;
