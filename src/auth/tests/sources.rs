//! Every source against every place a token may stand in, and what is printed of a target.

use crate::auth::{Found, Source, SourceError, SourceRules};
use crate::wire::http::{HeadLimits, parse};

/// One token in each place.
const ALL: &str = "GET /ws?a=1&token=in-query&ticket=in-ticket HTTP/1.1\r\nHost: a\r\n\
    Authorization: Bearer in-header\r\nCookie: x=1; throng_token=in-cookie; y=2\r\n\r\n";
const OFFERED: [&str; 2] = ["throng.v1.json", "throng.token.in-subprotocol"];

fn find(request: &str, order: &[Source], offered: &[&str]) -> Result<Option<Source>, Source> {
    let limits = HeadLimits::default();
    let parsed = parse(request.as_bytes(), &limits).expect("in order").expect("whole");
    let rules = SourceRules { order: order.to_vec(), cookie: "throng_token".to_owned() };
    match rules.find(&parsed.head, offered, Some("in-certificate")) {
        Ok(Some(Found { source, text })) => {
            assert!(text.starts_with("in-"), "{text}");
            Ok(Some(source))
        }
        Ok(None) => Ok(None),
        Err(SourceError(source)) => Err(source),
    }
}

fn request(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n{headers}\r\n")
}

#[test]
fn a_token_is_found_only_where_it_is_looked_for_and_in_the_listed_order() {
    let tokens =
        [Source::Header, Source::Cookie, Source::Subprotocol, Source::Query, Source::Ticket];
    let places = tokens.into_iter().chain([Source::Certificate]).collect::<Vec<_>>();
    assert_eq!(find(ALL, &[], &OFFERED), Ok(None));
    assert_eq!(find(ALL, &[Source::Message], &OFFERED), Ok(None));
    for &first in &places {
        assert_eq!(find(ALL, &[first], &OFFERED), Ok(Some(first)));
        for &second in &places {
            assert_eq!(find(ALL, &[first, second], &OFFERED), Ok(Some(first)));
            assert_eq!(find(ALL, &[Source::Message, second, first], &OFFERED), Ok(Some(second)));
        }
    }
    let bare = request("/ws", "");
    for place in tokens {
        assert_eq!(find(&bare, &[place], &["throng.v1.json"]), Ok(None), "{place:?}");
    }
}

#[test]
fn two_tokens_in_one_place_refuse_the_request() {
    let twice = [
        (
            Source::Header,
            request("/", "Authorization: Bearer in-a\r\nAuthorization: Bearer in-a\r\n"),
        ),
        (Source::Cookie, request("/", "Cookie: throng_token=in-a; throng_token=in-b\r\n")),
        (
            Source::Cookie,
            request("/", "Cookie: throng_token=in-a\r\nCookie: throng_token=in-b\r\n"),
        ),
        (Source::Query, request("/?token=in-a&token=in-a", "")),
        (Source::Ticket, request("/?ticket=in-a&b&ticket=", "")),
    ];
    for (source, request) in &twice {
        assert_eq!(find(request, &[*source], &[]), Err(*source), "{request}");
        // A place that is not listed is nobody's business.
        assert_eq!(find(request, &[Source::Subprotocol], &[]), Ok(None));
    }
    let offered = ["throng.token.in-a", "throng.token.in-b"];
    assert_eq!(find(ALL, &[Source::Subprotocol], &offered), Err(Source::Subprotocol));
}

#[test]
fn neighbours_of_a_token_are_not_taken_for_one() {
    let none = [
        (Source::Header, request("/", "Authorization: Basic in-a\r\n")),
        (Source::Header, request("/", "Authorization: Bearerin-a\r\n")),
        (Source::Header, request("/", "X-Authorization: Bearer in-a\r\n")),
        (Source::Cookie, request("/", "Cookie: xthrong_token=in-a; throng_token2=in-b\r\n")),
        (Source::Cookie, request("/", "Cookie: Throng_Token=in-a\r\n")),
        (Source::Query, request("/?xtoken=in-a&tokens=in-b&token", "")),
        (Source::Query, request("/token=in-a", "")),
    ];
    for (source, request) in &none {
        assert_eq!(find(request, &[*source], &[]), Ok(None), "{request}");
    }
    let some = [
        (Source::Header, request("/", "authorization: bearer   in-a\r\n")),
        (Source::Cookie, request("/", "Cookie: a=\"b\";throng_token=\"in-a\"\r\n")),
        (Source::Cookie, request("/", "Cookie: throng_token=in-a; throng_token=in-a\r\n")),
        (Source::Query, request("/?&&token=in-a&", "")),
    ];
    for (source, request) in &some {
        assert_eq!(find(request, &[*source], &[]), Ok(Some(*source)), "{request}");
    }
}

#[test]
fn what_could_be_a_token_is_blotted_out_of_a_target() {
    let order = vec![Source::Query, Source::Ticket];
    let rules = SourceRules { order, ..SourceRules::default() };
    for (target, blotted) in [
        ("/ws", "/ws"),
        ("/ws?a=1&b", "/ws?a=1&b"),
        ("/ws?token=secret", "/ws?token=***"),
        ("/ws?a=1&token=secret&b=2", "/ws?a=1&token=***&b=2"),
        ("/ws?token=s&ticket=t&access_token=u", "/ws?token=***&ticket=***&access_token=u"),
        ("/ws?TOKEN=secret", "/ws?TOKEN=***"),
        ("/ws?%74oken=secret", "/ws?%74oken=***"),
        ("/ws?to%6ben=secret?x=1&y", "/ws?to%6ben=***&y"),
        ("/ws?token=a=b", "/ws?token=***"),
        ("/ws?tokens=1&%zz=2&%7", "/ws?tokens=1&%zz=2&%7"),
        ("http://a/ws?token=secret", "http://a/ws?token=***"),
    ] {
        let request = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut bytes = request(target).into_bytes();
        rules.withhold(&mut bytes);
        assert_eq!(String::from_utf8(bytes).expect("text"), request(blotted));
    }
}

#[test]
fn what_opens_this_door_is_handed_to_no_other_server() {
    let request = "GET /app?a=1&token=one&%74oken=two&ticket=three&access_token=four HTTP/1.1\r\n\
        Host: a\r\n\r\nGET /?token=body";
    let rest = "&access_token=four HTTP/1.1\r\nHost: a\r\n\r\nGET /?token=body";
    let hides = |order: &[Source], request: &str| {
        let rules = SourceRules { order: order.to_vec(), ..SourceRules::default() };
        let mut bytes = request.as_bytes().to_vec();
        rules.withhold(&mut bytes);
        String::from_utf8(bytes).expect("text")
    };
    assert_eq!(hides(&[Source::Header, Source::Cookie], request), request);
    let query = "GET /app?a=1&token=***&%74oken=***&ticket=three";
    assert_eq!(hides(&[Source::Query], request), format!("{query}{rest}"));
    let ticket = "GET /app?a=1&token=one&%74oken=two&ticket=***";
    assert_eq!(hides(&[Source::Ticket], request), format!("{ticket}{rest}"));
    let both = "GET /app?a=1&token=***&%74oken=***&ticket=***";
    assert_eq!(hides(&[Source::Ticket, Source::Query], request), format!("{both}{rest}"));
    let page = "GET /?token=one HTTP/1.1\r\nX: ?token=two\r\nREFERER:https://a/?x=1&token=three\r\nReferer: /?token=\
        four&y\r\nReferer-X: ?token=five\r\n\r\nReferer: /?token=six\r\n";
    let hidden = page.replace("=one", "=***").replace("=three", "=***").replace("=four", "=***");
    assert_eq!(hides(&[Source::Query], page), hidden);
    assert_eq!(hides(&[Source::Ticket, Source::Header], page), page);
    for odd in ["", "GET", "GET ", "GET /\r\nx: ?token=a", "GET /?token=a"] {
        let hidden = hides(&[Source::Query], odd);
        assert_eq!(hidden, odd.replace("GET /?token=a", "GET /?token=***"));
    }
}
