//! Which web pages may connect.
//!
//! A browser lets any page open a WebSocket to anywhere and sends the cookies along, so whoever lets
//! people in by cookie must look at where the page came from (the header `Origin`, RFC 6454). Programs
//! send no such header and cannot be stopped by it; a token protects from them, this does not.

use std::fmt;

use regex::Regex;

/// Web pages that are welcome.
#[derive(Clone, Debug)]
pub enum OriginRule {
    /// Every origin, `null` included.
    Any,
    /// The one that the request itself was sent to.
    Same,
    /// One origin, in the form browsers send it; `null` for pages without one.
    Exact(String),
    /// Every name below a domain, at its scheme's own port: `*.example.com`, `https://*.example.com`.
    Below {
        /// The scheme; `None` for http and https.
        scheme: Option<String>,
        /// The domain with a dot in front.
        suffix: String,
    },
    /// Whatever the expression matches as a whole.
    Matching(Regex),
}

/// Why an origin rule cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRule(String);

impl fmt::Display for BadRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadRule {}

/// Why an origin is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginError {
    /// There is none where one is needed.
    Missing,
    /// It is not among those allowed.
    Foreign,
}

impl OriginError {
    /// What the client is told.
    #[must_use]
    pub fn public(self) -> &'static str {
        match self {
            Self::Missing => "the header Origin is missing",
            Self::Foreign => "pages of this origin may not connect",
        }
    }
}

/// What stands in front of a rule that is a regular expression.
const REGEX: &str = "regex:";
/// The most memory that one expression may take once it is compiled.
const REGEX_BYTES: usize = 256 * 1024;

impl OriginRule {
    /// Reads a rule as the configuration has it: `*`, `self`, `null`, `https://app.example.com`,
    /// `*.example.com`, `https://*.example.com` or `regex:` with an expression for the whole origin.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, BadRule> {
        if let Some(pattern) = text.strip_prefix(REGEX) {
            let build = |text: &str| regex::RegexBuilder::new(text).size_limit(REGEX_BYTES).build();
            // `a)|(?:b` is no expression, and would take the anchors apart: only what is whole by itself stays within
            // the group.
            let built = build(pattern).and_then(|_| build(&format!("^(?:{pattern})$")));
            return built.map(Self::Matching).map_err(|error| {
                let why = error.to_string();
                let last = why.lines().last().unwrap_or_default().trim();
                BadRule(format!("the expression cannot be read: {last}"))
            });
        }
        match text {
            "*" => return Ok(Self::Any),
            "self" => return Ok(Self::Same),
            "null" => return Ok(Self::Exact(text.to_owned())),
            _ => {}
        }
        let expected = || {
            BadRule(
                "expected an origin, as \"https://app.example.com\", \"*.example.com\", \"self\" or \
                 \"regex:https://[a-z]+\\.example\\.com\""
                    .to_owned(),
            )
        };
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, text),
        };
        if let Some(domain) = rest.strip_prefix("*.") {
            let is_name = is_host(domain) && !domain.contains(':');
            let suffix = format!(".{}", domain.to_ascii_lowercase());
            return if is_name { Ok(Self::Below { scheme, suffix }) } else { Err(expected()) };
        }
        let origin = Origin::parse(text).filter(|origin| is_host(origin.host));
        origin.map(|_| Self::Exact(text.to_ascii_lowercase())).ok_or_else(expected)
    }

    fn allows(&self, text: &str, host: Option<&str>) -> bool {
        match self {
            Self::Any => true,
            Self::Same => {
                Origin::parse(text).zip(host).is_some_and(|(origin, host)| origin.is_at(host))
            }
            Self::Exact(exact) => {
                exact == text
                    || Origin::parse(text)
                        .zip(Origin::parse(exact))
                        .is_some_and(|(origin, exact)| origin.is_same(&exact))
            }
            Self::Below { scheme, suffix } => Origin::parse(text).is_some_and(|origin| {
                let name = origin.host.to_ascii_lowercase();
                let is_below = name.len() > suffix.len() && name.ends_with(suffix.as_str());
                let is_known = scheme.as_deref().map_or_else(
                    || origin.default_port().is_some(),
                    |scheme| origin.scheme.eq_ignore_ascii_case(scheme),
                );
                is_below && is_known && origin.port() == origin.default_port()
            }),
            Self::Matching(regex) => regex.is_match(text),
        }
    }
}

/// The rules of a place that clients connect to.
#[derive(Clone, Debug, Default)]
pub struct OriginRules {
    /// Any of these is welcome. Empty: every page is, unless a cookie or a certificate can let it in; then the
    /// same origin.
    pub allowed: Vec<OriginRule>,
    /// A request without the header is refused, however its token came.
    pub required: bool,
    /// True when something can let somebody in that a browser shows for every page: a cookie, a certificate.
    pub cookies: bool,
}

impl OriginRules {
    /// Judges a request with this Origin and Host. `by_cookie`: its token came as a cookie, which a browser
    /// sends whether the page knows it or not.
    ///
    /// # Errors
    /// Why it may not connect.
    pub fn check(
        &self,
        origin: Option<&str>,
        host: Option<&str>,
        by_cookie: bool,
    ) -> Result<(), OriginError> {
        let Some(origin) = origin else {
            let needed = self.required || by_cookie;
            return if needed { Err(OriginError::Missing) } else { Ok(()) };
        };
        let is_welcome = if self.allowed.is_empty() {
            !self.cookies || OriginRule::Same.allows(origin, host)
        } else {
            self.allowed.iter().any(|rule| rule.allows(origin, host))
        };
        if is_welcome { Ok(()) } else { Err(OriginError::Foreign) }
    }
}

/// An origin in its parts.
struct Origin<'a> {
    scheme: &'a str,
    host: &'a str,
    /// As written; `None` when it is the scheme's own.
    port: Option<&'a str>,
}

impl<'a> Origin<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (host, port) = split_port(rest);
        let is_whole = !host.is_empty() && !rest.contains(['/', '?', '#', '@', ' ']);
        (is_whole && !scheme.is_empty()).then_some(Self { scheme, host, port })
    }

    fn default_port(&self) -> Option<&'static str> {
        match self.scheme {
            s if s.eq_ignore_ascii_case("http") => Some("80"),
            s if s.eq_ignore_ascii_case("https") => Some("443"),
            _ => None,
        }
    }

    fn port(&self) -> Option<&str> {
        self.port.or_else(|| self.default_port())
    }

    fn is_same(&self, other: &Origin<'_>) -> bool {
        self.scheme.eq_ignore_ascii_case(other.scheme)
            && self.host.eq_ignore_ascii_case(other.host)
            && self.port() == other.port()
    }

    /// True when a request with this Host went to the origin. TLS may end before us, so the scheme that the
    /// request came by says nothing; that of the origin decides what a Host without a port means.
    fn is_at(&self, host: &str) -> bool {
        let (name, port) = split_port(host);
        let port = port.filter(|port| !port.is_empty()).or_else(|| self.default_port());
        name.eq_ignore_ascii_case(self.host) && port.is_some() && port == self.port()
    }
}

/// A host and the port behind it; an IPv6 address stands in brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    let end = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[end..].rfind(':') {
        Some(at) => (&authority[..end + at], Some(&authority[end + at + 1..])),
        None => (authority, None),
    }
}

fn is_host(host: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
    !host.is_empty() && host.chars().all(plain)
}
