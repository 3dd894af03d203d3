//! Where in a request a token may stand.
//!
//! A place is looked at only when it is listed, in the listed order, and the first that holds something
//! decides: a wrong token there is not made good by another one elsewhere. Two tokens in one place refuse
//! the request, because a proxy in front may have looked at the other one. The engine prints no request target
//! anywhere; what hands one on to another server passes it through [`SourceRules::withhold`] first.

use std::borrow::Cow;
use std::ops::Range;

use smallvec::SmallVec;

use crate::wire::http::Head;

/// A place for tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// `Authorization: Bearer`.
    Header,
    /// A cookie.
    Cookie,
    /// An offered subprotocol that begins with [`TOKEN_SUBPROTOCOL`]; what browsers can send.
    Subprotocol,
    /// `?token=`. Targets are written to logs all over the world.
    Query,
    /// The first message.
    Message,
    /// What a client of Socket.IO shows when it connects to a namespace.
    Payload,
    /// A one-time ticket, `?ticket=`.
    Ticket,
    /// No token: the certificate that the client has shown by TLS says who it is.
    Certificate,
}

impl Source {
    /// True when a browser shows what stands there whichever page asks it to.
    #[must_use]
    pub fn is_ambient(self) -> bool {
        matches!(self, Self::Cookie | Self::Certificate)
    }

    /// Every place with its name in the configuration.
    pub const ALL: &'static [(Self, &'static str)] = &[
        (Self::Header, "header"),
        (Self::Cookie, "cookie"),
        (Self::Subprotocol, "subprotocol"),
        (Self::Query, "query"),
        (Self::Message, "message"),
        (Self::Payload, "payload"),
        (Self::Ticket, "ticket"),
        (Self::Certificate, "certificate"),
    ];
}

/// What stands in front of a token that is offered as a subprotocol.
pub const TOKEN_SUBPROTOCOL: &str = "throng.token.";

/// The query parameter of a token.
const TOKEN_PARAMETER: &str = "token";
/// The query parameter of a ticket.
const TICKET_PARAMETER: &str = "ticket";

/// The places to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceRules {
    /// In this order; no other.
    pub order: Vec<Source>,
    /// The cookie's name.
    pub cookie: String,
}

/// A token as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// Where.
    pub source: Source,
    /// The token or the ticket, not checked in any way, or the subject of a certificate.
    pub text: &'a str,
}

/// A place holds several tokens, or one that is no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceError(pub Source);

impl SourceRules {
    /// True when that place is looked at.
    #[must_use]
    pub fn has(&self, source: Source) -> bool {
        self.order.contains(&source)
    }

    /// The token of a request that offers these subprotocols, or the `subject` of a certificate that was shown
    /// before; `None` when no listed place holds one.
    ///
    /// # Errors
    /// When the place that decides holds several or none that can be read.
    pub fn find<'a>(
        &self,
        head: &'a Head<'_>,
        protocols: &'a [&str],
        subject: Option<&'a str>,
    ) -> Result<Option<Found<'a>>, SourceError> {
        for source in &self.order {
            let text = match source {
                Source::Header => bearer(head),
                Source::Cookie => cookie(head, &self.cookie),
                Source::Subprotocol => {
                    single(protocols.iter().filter_map(|p| p.strip_prefix(TOKEN_SUBPROTOCOL)))
                }
                Source::Query => parameter(head, TOKEN_PARAMETER),
                Source::Ticket => parameter(head, TICKET_PARAMETER),
                Source::Message | Source::Payload => Ok(None),
                Source::Certificate => Ok(subject),
            };
            if let Some(text) = text.map_err(|Several| SourceError(*source))? {
                return Ok(Some(Found { source: *source, text }));
            }
        }
        Ok(None)
    }
}

impl SourceRules {
    /// A request as another server may have it: neither its target nor the address of the page that it comes
    /// from (`Referer`) holds a token or a ticket that would open this node's door. Parameters of those names are
    /// not touched where they are not looked at, as they are the other server's own. What has no target is
    /// left as it is, and so is a body.
    pub fn withhold(&self, request: &mut Vec<u8>) {
        let listed = [(Source::Query, TOKEN_PARAMETER), (Source::Ticket, TICKET_PARAMETER)];
        let listed = listed.iter().filter(|(source, _)| self.has(*source));
        let secrets: SmallVec<[&str; 2]> = listed.map(|(_, name)| *name).collect();
        if secrets.is_empty() {
            return;
        }
        // From the last to the first: what is changed moves what lies behind it.
        for place in addresses(request).into_iter().rev() {
            let Ok(address) = std::str::from_utf8(&request[place.clone()]) else { continue };
            if let Cow::Owned(blotted) = blot(address, &secrets) {
                drop(request.splice(place, blotted.into_bytes()));
            }
        }
    }
}

/// Where addresses with parameters stand in a request head: its target, and where it says it comes from.
fn addresses(request: &[u8]) -> SmallVec<[Range<usize>; 2]> {
    let mut found = SmallVec::new();
    let mut begin = 0;
    for line in request.split(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\r").unwrap_or(line);
        if begin == 0 {
            let mut words = text.splitn(3, |byte| *byte == b' ');
            if let (Some(method), Some(target)) = (words.next(), words.next()) {
                let from = method.len() + 1;
                found.push(from..from + target.len());
            }
        } else if text.is_empty() {
            break;
        } else if let Some(colon) = text.iter().position(|byte| *byte == b':')
            && text[..colon].eq_ignore_ascii_case(b"referer")
        {
            found.push(begin + colon + 1..begin + text.len());
        }
        begin += line.len() + 1;
    }
    found
}

/// More than one where one is to be.
struct Several;

fn single<'a>(mut found: impl Iterator<Item = &'a str>) -> Result<Option<&'a str>, Several> {
    match (found.next(), found.next()) {
        (first, None) => Ok(first),
        _ => Err(Several),
    }
}

/// RFC 6750, section 2.1. Another scheme is none of our business.
fn bearer<'a>(head: &'a Head<'_>) -> Result<Option<&'a str>, Several> {
    let mut values = head.values("authorization");
    let (Some(value), None) = (values.next(), values.next()) else {
        return if head.values("authorization").next().is_some() { Err(Several) } else { Ok(None) };
    };
    let text = std::str::from_utf8(value).map_err(|_| Several)?;
    let Some((scheme, token)) = text.split_once(' ') else { return Ok(None) };
    Ok(scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' ')))
}

/// RFC 6265, section 4.2.1: pairs behind semicolons, in one header or in several.
fn cookie<'a>(head: &'a Head<'_>, name: &str) -> Result<Option<&'a str>, Several> {
    let mut found = None;
    for value in head.values("cookie") {
        // Other cookies may hold what they like; only a header with ours has to be text.
        let Ok(text) = std::str::from_utf8(value) else {
            let ours = value.windows(name.len()).any(|part| part == name.as_bytes());
            if ours {
                return Err(Several);
            }
            continue;
        };
        for pair in text.split(';') {
            let Some((key, value)) = pair.split_once('=') else { continue };
            if key.trim_matches(' ') != name {
                continue;
            }
            let value = value.trim_matches(' ');
            let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
            // A page of a sibling domain can set a second one; which is ours cannot be told.
            if found.replace(value).is_some_and(|before| before != value) {
                return Err(Several);
            }
        }
    }
    Ok(found)
}

fn parameter<'a>(head: &'a Head<'_>, name: &str) -> Result<Option<&'a str>, Several> {
    let pairs = head.query().unwrap_or_default().split('&');
    single(
        pairs.filter_map(|pair| pair.split_once('=')).filter(|(k, _)| *k == name).map(|(_, v)| v),
    )
}

/// The target with `***` for the values of these parameters.
fn blot<'a>(target: &'a str, secrets: &[&str]) -> Cow<'a, str> {
    let Some((path, query)) = target.split_once('?') else { return Cow::Borrowed(target) };
    let is_secret = |pair: &str| {
        let name = pair.split_once('=').map_or("", |(name, _)| name);
        let name = decoded(name);
        secrets.iter().any(|secret| name.eq_ignore_ascii_case(secret))
    };
    if !query.split('&').any(is_secret) {
        return Cow::Borrowed(target);
    }
    let blotted = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if is_secret(pair) => Cow::Owned(format!("{name}=***")),
        _ => Cow::Borrowed(pair),
    });
    Cow::Owned(format!("{path}?{}", blotted.collect::<Vec<_>>().join("&")))
}

/// A parameter's name without percent-encoding, so that it cannot hide what it is.
fn decoded(name: &str) -> Cow<'_, str> {
    if !name.contains('%') {
        return Cow::Borrowed(name);
    }
    let (bytes, mut at, mut plain) = (name.as_bytes(), 0, Vec::new());
    while let Some(&byte) = bytes.get(at) {
        let code = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        let code = code.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| byte == b'%');
        plain.push(code.unwrap_or(byte));
        at += if code.is_some() { 3 } else { 1 };
    }
    Cow::Owned(String::from_utf8_lossy(&plain).into_owned())
}
