//! What is no token, in many kinds, and any bytes at all.

use proptest::prelude::*;

use super::vectors::{NOW, SECRET, b64, signed, token, vectors, verifier};
use crate::auth::{Claimed, TokenError, Verifier};

const GOOD: &str = r#"{"sub":"ada","exp":1700003600}"#;

fn verdict(text: &str) -> Option<TokenError> {
    verifier().verify(text, NOW).map(|_| ()).err()
}

#[test]
fn what_has_not_three_parts_of_base64_is_refused_by_its_shape() {
    let good = token(GOOD);
    assert_eq!(verdict(&good), None);
    let (message, tag) = good.rsplit_once('.').expect("parts");
    let (header, claims) = message.split_once('.').expect("parts");
    let shapeless = [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        "a".to_owned(),
        "a.b".to_owned(),
        header.to_owned(),
        message.to_owned(),
        format!(".{claims}.{tag}"),
        format!("{header}..{tag}"),
        format!("{good}.{tag}"),
        format!("{header}.{claims}.{tag}.{tag}.{tag}"),
        format!("{header}==.{claims}.{tag}"),
        format!(" {good}"),
        format!("Bearer {good}"),
        format!("{}+.{claims}.{tag}", &header[1..]),
        format!("\u{e9}{good}"),
    ];
    for text in &shapeless {
        assert_eq!(verdict(text), Some(TokenError::Shape), "{text}");
    }
    let unsigned = [
        format!("{good}="),
        format!("{good} "),
        format!("{good}\n"),
        format!("{message}.{}", &tag[1..]),
        format!("{message}.{tag}{tag}"),
        format!("{message}.{}", "A".repeat(500)),
        format!("{message}.{}", b64([0; 32])),
        format!("{message}.{}/", &tag[1..]),
    ];
    for text in &unsigned {
        assert_eq!(verdict(text), Some(TokenError::Signature), "{text}");
    }
    assert_eq!((shapeless.len(), unsigned.len()), (17, 8));
}

#[test]
fn a_header_that_is_not_one_is_refused() {
    let cases = [
        ("", TokenError::Shape),
        ("null", TokenError::Header),
        ("[]", TokenError::Header),
        (r#"["HS256"]"#, TokenError::Header),
        (r#"["HS256",null,null]"#, TokenError::Header),
        ("{}", TokenError::Header),
        ("{", TokenError::Header),
        (r#"{"alg":7}"#, TokenError::Header),
        (r#"{"alg":null}"#, TokenError::Header),
        (r#"{"alg":"HS256","alg":"HS256"}"#, TokenError::Header),
        (r#"{"alg":"HS256","kid":7}"#, TokenError::Header),
        (r#"{"alg":"HS256"} x"#, TokenError::Header),
        ("{\"alg\":\"HS256\u{ff}\"}", TokenError::UnknownAlgorithm),
        (r#"{"alg":""}"#, TokenError::UnknownAlgorithm),
        (r#"{"alg":"hs256"}"#, TokenError::UnknownAlgorithm),
        (r#"{"alg":"HS256 "}"#, TokenError::UnknownAlgorithm),
        (r#"{"alg":"PS256"}"#, TokenError::UnknownAlgorithm),
        (r#"{"alg":"RS1"}"#, TokenError::UnknownAlgorithm),
        (r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, TokenError::Critical),
        (r#"{"alg":"HS256","crit":[]}"#, TokenError::Critical),
        (r#"{"alg":"HS256","crit":null}"#, TokenError::Critical),
        (r#"{"crit":null,"alg":"HS256"}"#, TokenError::Critical),
        (r#"{"alg":"HS256","crit":false}"#, TokenError::Critical),
        (r#"{"alg":"HS256","\u0063rit":null}"#, TokenError::Critical),
        (r#"{"alg":"HS256","crit":null,"crit":null}"#, TokenError::Header),
        (r#"{"alg":"RS256"}"#, TokenError::UnknownKey),
        (r#"{"alg":"ES256"}"#, TokenError::UnknownKey),
        (r#"{"alg":"EdDSA"}"#, TokenError::UnknownKey),
        (r#"{"alg":"HS384"}"#, TokenError::UnknownKey),
        (r#"{"alg":"HS512"}"#, TokenError::UnknownKey),
    ];
    assert_eq!(cases.len(), 30);
    for (header, error) in cases {
        assert_eq!(verdict(&signed(header, GOOD, SECRET)), Some(error), "{header}");
    }
    let deep = format!(r#"{{"alg":"HS256","x":{}1{}}}"#, "[".repeat(1000), "]".repeat(1000));
    assert_eq!(verdict(&signed(&deep, GOOD, SECRET)), None, "what means nothing is passed over");
    assert_eq!(verdict(&signed(r#"{"\u0061lg":"HS256"}"#, GOOD, SECRET)), None);
}

#[test]
fn keys_that_a_token_brings_or_points_to_are_never_used() {
    let own = b"a secret that the token itself says";
    let members = [
        r#""jku":"https://a""#.to_owned(),
        r#""x5u":"https://a""#.to_owned(),
        r#""x5c":["MIIB"]"#.to_owned(),
        r#""x5t":"AA","x5t#S256":"AA""#.to_owned(),
        format!(r#""jwk":{{"kty":"oct","alg":"HS256","k":"{}"}}"#, b64(own)),
        format!(r#""kid":"own","jwk":{{"kty":"oct","kid":"own","k":"{}"}}"#, b64(own)),
        r#""jwk":null,"x5c":7"#.to_owned(),
    ];
    for member in &members {
        let header = format!(r#"{{"alg":"HS256",{member}}}"#);
        assert_eq!(verdict(&signed(&header, GOOD, SECRET)), None, "{member}");
        assert_eq!(verdict(&signed(&header, GOOD, own)), Some(TokenError::Signature), "{member}");
    }
}

/// Each is wrong in all that the ones behind it are wrong in, too.
#[test]
fn of_several_faults_the_one_that_is_cheapest_to_see_is_told() {
    let expired = r#"{"sub":"ada","exp":1,"aud":"elsewhere"}"#;
    let of = |header: &str, claims: &str, secret: &[u8]| signed(header, claims, secret);
    let (hs, mallory) = (r#"{"alg":"HS256"}"#, &[7_u8; 32]);
    let long = format!("{}.x.y", "a".repeat(8192));
    let cases = [
        (long, TokenError::TooLong),
        (format!("{}.x", of("{", "{", mallory)), TokenError::Shape),
        (of("{", "{", mallory), TokenError::Header),
        (of(r#"{"alg":"none","crit":[]}"#, "{", mallory), TokenError::Unsigned),
        (of(r#"{"alg":"HS1","crit":[]}"#, "{", mallory), TokenError::Critical),
        (of(r#"{"alg":"HS1"}"#, "{", mallory), TokenError::UnknownAlgorithm),
        (of(r#"{"alg":"HS512"}"#, "{", mallory), TokenError::UnknownKey),
        (of(hs, "{", mallory), TokenError::Signature),
        (of(hs, "{", SECRET), TokenError::Claims),
        (of(hs, expired, SECRET), TokenError::Audience),
        (of(hs, &expired.replace("aud", "odd"), SECRET), TokenError::Expired),
    ];
    for (text, error) in cases {
        assert_eq!(verdict(&text), Some(error), "{text}");
    }
}

#[test]
fn claims_that_cannot_be_are_refused_by_their_name() {
    let claim = |which| TokenError::Claim(which);
    let long = format!(r#"{{"sub":"{}","exp":1700003600}}"#, "a".repeat(129));
    let many = format!(r#"{{"sub":"a","exp":1700003600,"rooms":[{}"z"]}}"#, r#""a","#.repeat(256));
    let cases = [
        ("null", TokenError::Claims),
        ("[]", TokenError::Claims),
        ("\"sub\"", TokenError::Claims),
        ("{", TokenError::Claims),
        ("{} {}", TokenError::Claims),
        (r#"{"sub":"a","sub":"a","exp":1700003600}"#, TokenError::Claims),
        (r#"{"sub":"a","exp":1700003600,"\u0065xp":1}"#, TokenError::Claims),
        (r#"{"exp":1700003600}"#, claim(Claimed::User)),
        (r#"{"sub":null,"exp":1700003600}"#, claim(Claimed::User)),
        (r#"{"sub":"","exp":1700003600}"#, claim(Claimed::User)),
        (r#"{"sub":7,"exp":1700003600}"#, claim(Claimed::User)),
        (r#"{"sub":["a"],"exp":1700003600}"#, claim(Claimed::User)),
        (r#"{"sub":"a\u001fb","exp":1700003600}"#, claim(Claimed::User)),
        (r#"{"sub":"a\nb","exp":1700003600}"#, claim(Claimed::User)),
        (&long, claim(Claimed::User)),
        (r#"{"sub":"a","exp":1700003600,"tenant":{}}"#, claim(Claimed::Tenant)),
        (r#"{"sub":"a","exp":1700003600,"tenant":"a\u001e"}"#, claim(Claimed::Tenant)),
        (r#"{"sub":"a","exp":1700003600,"jti":1}"#, claim(Claimed::Token)),
        (r#"{"sub":"a","exp":"1700003600"}"#, claim(Claimed::Time)),
        (r#"{"sub":"a","exp":-1}"#, claim(Claimed::Time)),
        (r#"{"sub":"a","exp":1e30}"#, claim(Claimed::Time)),
        (r#"{"sub":"a","exp":null}"#, claim(Claimed::Time)),
        (r#"{"sub":"a","exp":99999999999999999999}"#, claim(Claimed::Time)),
        (r#"{"sub":"a","exp":1700003600,"nbf":"x"}"#, claim(Claimed::Time)),
        (r#"{"sub":"a","exp":1700003600,"iat":[]}"#, claim(Claimed::Time)),
        (r#"{"sub":"a","exp":1700003600,"rooms":"a"}"#, claim(Claimed::Rooms)),
        (r#"{"sub":"a","exp":1700003600,"rooms":[1]}"#, claim(Claimed::Rooms)),
        (r#"{"sub":"a","exp":1700003600,"rooms":[""]}"#, claim(Claimed::Rooms)),
        (r#"{"sub":"a","exp":1700003600,"rooms":{"a":"join"}}"#, claim(Claimed::Rooms)),
        (r#"{"sub":"a","exp":1700003600,"rooms":{"a":["fly"]}}"#, claim(Claimed::Rooms)),
        (&many, claim(Claimed::Rooms)),
        (r#"{"sub":"a","exp":1700003600,"limits":7}"#, claim(Claimed::Limits)),
        (r#"{"sub":"a","exp":1700003600,"limits":[1]}"#, claim(Claimed::Limits)),
        (r#"{"sub":"a","exp":1700003600,"limits":{"rooms":-1}}"#, claim(Claimed::Limits)),
        (r#"{"sub":"a","exp":1700003600,"limits":{"connections":0}}"#, claim(Claimed::Limits)),
        (r#"{"sub":"a","exp":1700003600,"limits":{"message_bytes":1.5}}"#, claim(Claimed::Limits)),
    ];
    assert!(cases.len() >= 30, "{} cases", cases.len());
    for (claims, error) in cases {
        assert_eq!(verdict(&token(claims)), Some(error), "{claims}");
    }
    let invalid = [br#"{"sub":"a"#.as_slice(), b"\xff\xfe", br#"","exp":1700003600}"#].concat();
    let message = format!("{}.{}", b64(r#"{"alg":"HS256"}"#), b64(invalid));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET);
    let tag = aws_lc_rs::hmac::sign(&key, message.as_bytes());
    assert_eq!(verdict(&format!("{message}.{}", b64(tag))), Some(TokenError::Claims));
}

#[test]
fn a_token_that_is_too_long_is_refused_before_it_is_looked_at() {
    assert_eq!(verdict(&"a".repeat(8193)), Some(TokenError::TooLong));
    assert_eq!(verdict(&"a".repeat(8192)), Some(TokenError::Shape));
    let padding = "x".repeat(7000);
    let long = token(&format!(r#"{{"sub":"ada","exp":1700003600,"x":"{padding}"}}"#));
    assert_eq!(verdict(&long), Some(TokenError::TooLong));
}

proptest! {
    #[test]
    fn any_text_is_refused_without_a_panic(text in ".{0,300}") {
        prop_assert!(verifier().verify(&text, NOW).is_err());
    }

    #[test]
    fn any_signed_header_and_claims_are_judged_without_a_panic(
        header in prop::collection::vec(any::<u8>(), 0..60),
        claims in r#"[{}\[\]",:a-z0-9\\]{0,80}"#,
    ) {
        let header = String::from_utf8_lossy(&header).into_owned();
        let _ = verifier().verify(&signed(&header, &claims, SECRET), NOW);
        let _ = verifier().verify(&token(&claims), NOW);
    }

    #[test]
    fn a_token_cut_anywhere_or_joined_with_another_is_refused(at in 0usize..400, which in 0usize..6) {
        let vectors = vectors();
        let text = &vectors.algorithms.values().nth(which).expect("six").token;
        let keys = super::vectors::jwks(
            &vectors.algorithms.values().map(|vector| &vector.key).collect::<Vec<_>>(),
        );
        let verifier = Verifier { keys, rules: super::vectors::rules() };
        let at = at.min(text.len() - 1);
        prop_assert!(verifier.verify(&text[..at], NOW).is_err());
        let other = &vectors.algorithms.values().nth((which + 1) % 6).expect("six").token;
        let mixed = format!("{}{}", &text[..at], &other[at.min(other.len() - 1)..]);
        prop_assert!(mixed == *other || mixed == *text || verifier.verify(&mixed, NOW).is_err());
    }
}
