//! What of a head concerns two neighbours only, and who the client is.
//!
//! What holds for one connection (RFC 9110, section 7.6.1) is taken out in both directions, and the server is told
//! who the client is as the engine has found it, whatever the client says of itself.

use hyper::Uri;
use hyper::header::{
    CONNECTION, EXPECT, HeaderMap, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

const KEPT_BETWEEN: [&str; 3] = ["keep-alive", "proxy-connection", "proxy-authenticate"];

/// Takes out what holds for one connection only; what it was to be upgraded to, if it was.
pub(crate) fn part(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let upgrade = headers.remove(UPGRADE).filter(|_| named.contains(&UPGRADE));
    let usual = [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, EXPECT];
    for name in named.iter().chain(&usual).chain(&KEPT_BETWEEN.map(HeaderName::from_static)) {
        headers.remove(name);
    }
    upgrade
}

/// Asks for an upgrade, or agrees to it.
pub(super) fn switch(headers: &mut HeaderMap, to: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, to);
}

/// Says who the client is, in place of what it says of itself.
pub(super) fn introduce(headers: &mut HeaderMap, client: Option<&str>, is_secure: bool) {
    for name in ["forwarded", "x-real-ip", "x-forwarded-host", "x-forwarded-port"] {
        headers.remove(name);
    }
    headers.remove("x-forwarded-for");
    let client = client.and_then(|client| client.split('/').next());
    if let Some(client) = client.and_then(|client| HeaderValue::from_str(client).ok()) {
        headers.insert("x-forwarded-for", client);
    }
    let scheme = if is_secure { "https" } else { "http" };
    headers.insert("x-forwarded-proto", HeaderValue::from_static(scheme));
}

/// Where a request goes: to that server, by the target that it has.
pub(super) fn readdress(target: &Uri, server: &str) -> Option<Uri> {
    let mut parts = server.parse::<Uri>().ok()?.into_parts();
    parts.path_and_query = Some(target.path_and_query()?.clone());
    Uri::from_parts(parts).ok()
}
