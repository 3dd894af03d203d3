//! The operator's page. It is the same for everybody and holds no figure: what it shows it fetches with the
//! key that the operator types in, from the endpoints that any program uses.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::response::Response;

use super::routes::Api;

const PAGE: &str = include_str!("page.html");
/// What the page's first element says of the metrics, and what it says where they are for everybody.
const KEYED: &str = "data-metrics=\"keyed\"";
const OPEN: &str = "data-metrics=\"open\"";

pub(super) async fn page(State(api): State<Arc<Api>>) -> Response {
    let text = if api.metrics_open() { PAGE.replacen(KEYED, OPEN, 1) } else { PAGE.to_owned() };
    let mut response = Response::new(Body::from(text));
    let headers: [(HeaderName, &'static str); 5] = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // The policy in the page itself cannot say who may frame it.
        (X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_asks_nobody_but_its_own_listener_and_says_what_it_is_served_with() {
        assert_eq!(PAGE.matches(KEYED).count(), 1);
        let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'";
        assert!(PAGE.contains(policy));
        for outside in ["http://", "https://", "//cdn", "innerHTML", "document.write", "eval("] {
            let found: Vec<&str> = PAGE.lines().filter(|line| line.contains(outside)).collect();
            // A namespace of SVG is a name and no address.
            let names = |line: &&str| !line.contains("http://www.w3.org/2000/svg");
            assert_eq!(found.into_iter().filter(names).count(), 0, "{outside}");
        }
    }
}
