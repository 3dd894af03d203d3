//! From the first byte to an answer: what a request head gets.
//!
//! The same head gets the same answer however it was cut. What arrived of an incomplete one is kept
//! with the mark of how far it was read, so a head that drips in costs no more than one that came whole.
//! This file knows the paths; what a valid upgrade is, `wire::http` knows.

use std::sync::Arc;

use crate::session::Protocol;
use crate::wire::http::{self, Head, HeadLimits, Refusal, Scan};

/// Which path is what.
#[derive(Clone, Debug)]
pub struct Routes {
    /// Where sessions begin.
    pub sessions: String,
    /// Where messages bounce, for conformance tests; `None`: nowhere.
    pub echo: Option<String>,
    /// The page served at `/`, as a whole response; `None`: nothing is.
    pub page: Option<Arc<[u8]>>,
}

/// A head of which a part has arrived.
#[derive(Debug, Default)]
pub struct HalfHead {
    bytes: Vec<u8>,
    scan: Scan,
}

/// What a request head gets.
#[derive(Debug)]
pub enum Answer {
    /// More bytes are needed; this is to be kept until they come.
    More(Box<HalfHead>),
    /// The upgrade: this protocol, this response, and how many of the latest bytes were the head's.
    Upgrade {
        /// What the two ends speak from now on.
        protocol: Protocol,
        /// The 101 response.
        response: Vec<u8>,
        /// What follows in the latest bytes is the protocol's.
        used: usize,
    },
    /// A page.
    Page(Arc<[u8]>),
    /// A refusal, as a whole response.
    Refuse(Vec<u8>),
}

/// Answers a head of which `half` came before and `bytes` now. With `full` (no room for another
/// connection) a valid upgrade gets 503.
#[must_use]
pub fn answer(
    half: Option<Box<HalfHead>>,
    bytes: &[u8],
    limits: &HeadLimits,
    routes: &Routes,
    full: bool,
) -> Answer {
    let mut half = half;
    let before = half.as_ref().map_or(0, |half| half.bytes.len());
    let mut fresh = Scan::default();
    let (scan, head) = match half.as_deref_mut() {
        Some(HalfHead { bytes: kept, scan }) => {
            // One byte past the limit is enough to know that the head is too long.
            let space = (limits.head_bytes + 1).saturating_sub(kept.len());
            kept.extend_from_slice(&bytes[..bytes.len().min(space)]);
            (scan, kept.as_slice())
        }
        None => (&mut fresh, bytes),
    };
    match read(scan, head, limits, routes, full) {
        Ok(Some(Read::Upgrade { protocol, response, length })) => {
            Answer::Upgrade { protocol, response, used: length.saturating_sub(before) }
        }
        Ok(Some(Read::Page(page))) => Answer::Page(page),
        Ok(None) => Answer::More(
            half.unwrap_or_else(|| Box::new(HalfHead { bytes: bytes.to_vec(), scan: fresh })),
        ),
        Err(refusal) => Answer::Refuse(refusal.response()),
    }
}

enum Read {
    Upgrade { protocol: Protocol, response: Vec<u8>, length: usize },
    Page(Arc<[u8]>),
}

fn read(
    scan: &mut Scan,
    bytes: &[u8],
    limits: &HeadLimits,
    routes: &Routes,
    full: bool,
) -> Result<Option<Read>, Refusal> {
    let Some(parsed) = http::parse_more(scan, bytes, limits)? else { return Ok(None) };
    let path = parsed.head.path();
    let echo = routes.echo.as_deref() == Some(path);
    if !echo && path != routes.sessions {
        return page(&parsed.head, routes).map(Some);
    }
    let upgrade = http::upgrade(&parsed.head)?;
    let (protocol, named) = if echo {
        (Protocol::Echo, None)
    } else {
        let agreement = Protocol::from_subprotocol(&upgrade.protocols).ok_or_else(|| {
            Refusal::bad_request("none of the offered subprotocols is known; throng.v1.json is")
        })?;
        (agreement.protocol, agreement.echo)
    };
    // Last, so that nobody is told to come back later with what will be refused then too.
    if full {
        return Err(Refusal::unavailable(None));
    }
    let response = http::switching(&upgrade, named);
    Ok(Some(Read::Upgrade { protocol, response, length: parsed.length }))
}

fn page(head: &Head<'_>, routes: &Routes) -> Result<Read, Refusal> {
    let asks_upgrade = head.values("upgrade").next().is_some();
    let Some(page) = routes.page.as_ref().filter(|_| head.path() == "/" && !asks_upgrade) else {
        return Err(Refusal::not_found());
    };
    if head.method() != "GET" {
        return Err(Refusal::method_not_allowed("GET"));
    }
    head.refuse_body()?;
    Ok(Read::Page(Arc::clone(page)))
}
