//! Authentication: what a token adds to a handshake, by algorithm, how much of that is the signature, and
//! what a grant adds to a join.
//!
//! The tokens are those that the tests use, made by another implementation. HS256 is what the budget of a
//! handshake is made for; RS256 and the curves are here to be known. The place of a token in a request is
//! looked up with all sources listed, which is the longest way.

#![expect(clippy::expect_used, reason = "a bench that cannot begin has nothing to measure")]

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use serde_json::Value;
use throng::auth::{
    ClaimNames, Grants, KeySet, OriginRule, OriginRules, Right, Source, SourceRules, Ticket,
    TicketKey, TokenRules, Verifier, mint,
};
use throng::wire::http::{HeadLimits, parse};

/// A moment at which the tokens are valid.
const NOW: u64 = 1_700_000_100;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    tokens(&mut criterion);
    tickets(&mut criterion);
    requests(&mut criterion);
    grants(&mut criterion);
    criterion.final_summary();
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../tests/vectors/tokens.json")).expect("the vectors")
}

fn tokens(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("token");
    group.throughput(Throughput::Elements(1));
    let vectors = vectors();
    for name in ["HS256", "HS384", "HS512", "RS256", "ES256", "EdDSA"] {
        let document = serde_json::json!({ "keys": [vectors[name]["key"]] }).to_string();
        let keys = KeySet::from_jwks(document.as_bytes()).expect("a key");
        let rules = TokenRules {
            audiences: vec!["throng".to_owned()],
            issuers: vec!["https://issuer.example".to_owned()],
            names: ClaimNames { tenant: "tenantId".to_owned(), ..ClaimNames::default() },
            ..TokenRules::default()
        };
        let verifier = Verifier { keys, rules };
        let token = vectors[name]["token"].as_str().expect("a token");
        group.bench_function(name, |bench| {
            bench.iter(|| verifier.verify(black_box(token), NOW).expect("valid"));
        });
        let (message, signature) = token.rsplit_once('.').expect("a signature");
        group.bench_function(format!("{name}/signature"), |bench| {
            let key = &verifier.keys.keys()[0];
            bench.iter(|| key.verifies(black_box(message.as_bytes()), signature));
        });
    }
    group.finish();
}

fn tickets(criterion: &mut Criterion) {
    let key = TicketKey::new(&[7; 32]);
    let claims = r#"{"sub":"ada","tenant":"acme","rooms":["lobby","ticker:*"]}"#;
    let text = mint(&key, claims, Ticket { id: 7, expires: NOW + 60 }).expect("a ticket");
    criterion.bench_function("ticket/read", |bench| {
        bench.iter(|| key.read(black_box(&text), NOW).expect("valid"));
    });
}

fn requests(criterion: &mut Criterion) {
    let vectors = vectors();
    let token = vectors["HS256"]["token"].as_str().expect("a token");
    let request = format!(
        "GET /ws?room=lobby HTTP/1.1\r\nHost: a.example\r\nOrigin: https://app.example\r\n\
         Cookie: a=1; b=2; throng_token={token}\r\n\r\n"
    );
    let limits = HeadLimits::default();
    let parsed = parse(request.as_bytes(), &limits).expect("in order").expect("whole");
    let order =
        vec![Source::Header, Source::Subprotocol, Source::Query, Source::Ticket, Source::Cookie];
    let rules = SourceRules { order, cookie: "throng_token".to_owned() };
    criterion.bench_function("source/cookie_listed_last", |bench| {
        bench.iter(|| rules.find(black_box(&parsed.head), &["throng.v1.json"], None));
    });
    let allowed = ["https://other.example", "*.example.org", "https://app.example"];
    let allowed = allowed.iter().map(|rule| OriginRule::parse(rule).expect("a rule")).collect();
    let origins = OriginRules { allowed, ..OriginRules::default() };
    criterion.bench_function("origin/third_of_three", |bench| {
        bench.iter(|| origins.check(black_box(Some("https://app.example")), None, true));
    });
}

fn grants(criterion: &mut Criterion) {
    let patterns = r#"["lobby","team:7:*","ticker:*","user:ada:*"]"#;
    let grants: Grants = serde_json::from_str(patterns).expect("grants");
    criterion.bench_function("grants/fourth_of_four", |bench| {
        bench.iter(|| grants.allows(black_box("user:ada:inbox"), Right::Join));
    });
}
