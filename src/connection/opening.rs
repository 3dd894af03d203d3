//! From the first byte to an answer: what a request head gets.
//!
//! A pure function of the bytes so far, so that the same head gets the same answer however it was cut.
//! It knows the paths; what a valid upgrade is, `wire::http` knows.

use std::sync::Arc;

use crate::session::Protocol;
use crate::wire::http::{self, Head, HeadLimits, Refusal};

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

/// The limits of a request head.
pub type Limits = HeadLimits;

/// What a request head gets.
#[derive(Debug)]
pub enum Answer {
    /// More bytes are needed.
    More,
    /// The upgrade: this protocol, this response, and the length of the head.
    Upgrade {
        /// What the two ends speak from now on.
        protocol: Protocol,
        /// The 101 response.
        response: Vec<u8>,
        /// Bytes of the head; what follows is the protocol's.
        length: usize,
    },
    /// A page.
    Page(Arc<[u8]>),
    /// A refusal: status, and the whole response.
    Refuse(u16, Vec<u8>),
}

/// Answers the head that `bytes` begins with. With `full` (no room for another connection) a valid
/// upgrade gets 503.
#[must_use]
pub fn answer(bytes: &[u8], limits: &HeadLimits, routes: &Routes, full: bool) -> Answer {
    match try_answer(bytes, limits, routes, full) {
        Ok(answer) => answer,
        Err(refusal) => Answer::Refuse(refusal.status(), refusal.response()),
    }
}

fn try_answer(
    bytes: &[u8],
    limits: &HeadLimits,
    routes: &Routes,
    full: bool,
) -> Result<Answer, Refusal> {
    let Some(parsed) = http::parse(bytes, limits)? else { return Ok(Answer::More) };
    let head = &parsed.head;
    let path = head.path();
    let echo = routes.echo.as_deref() == Some(path);
    if !echo && path != routes.sessions {
        return page(head, routes);
    }
    if head.method() != "GET" {
        return Err(Refusal::method_not_allowed("GET"));
    }
    let upgrade = http::upgrade(head)?;
    if full {
        return Err(Refusal::unavailable(None));
    }
    let (protocol, echoed) = if echo {
        (Protocol::Echo, None)
    } else {
        Protocol::choose(upgrade.protocols())
            .ok_or_else(|| Refusal::bad_request("none of the offered subprotocols is known; throng.v1.json is"))?
    };
    let response = http::switching(&upgrade, echoed);
    Ok(Answer::Upgrade { protocol, response, length: parsed.length })
}

fn page(head: &Head<'_>, routes: &Routes) -> Result<Answer, Refusal> {
    match &routes.page {
        Some(page) if head.path() == "/" && !head.asks_upgrade() => {
            if head.method() == "GET" {
                Ok(Answer::Page(Arc::clone(page)))
            } else {
                Err(Refusal::method_not_allowed("GET"))
            }
        }
        _ => Err(Refusal::not_found()),
    }
}
