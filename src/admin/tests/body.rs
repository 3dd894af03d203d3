//! What is refused of a request's body, and by which name.

use proptest::prelude::*;

use crate::admin::body::Object;
use crate::admin::refusal::Refusal;

fn read(text: &str) -> Result<(Option<String>, Option<u64>), Refusal> {
    let mut object = Object::parse(text.as_bytes())?;
    let taken = (object.text("user", 8)?, object.whole("ttlMs", 10, 20)?);
    object.finish()?;
    Ok(taken)
}

#[test]
fn a_body_is_taken_whole_or_refused_by_name() {
    assert_eq!(read(r#"{"ttlMs":10,"user":"a"}"#), Ok((Some("a".to_owned()), Some(10))));
    assert_eq!(read("{}"), Ok((None, None)));
    let cases = [
        ("", "bad_json", None),
        ("{", "bad_json", None),
        (r#"{"user":"a"} x"#, "bad_json", None),
        ("\u{feff}{}", "bad_json", None),
        ("[]", "not_an_object", None),
        ("null", "not_an_object", None),
        (r#"{"user":"a","user":"a"}"#, "repeated_field", Some("user")),
        (r#"{"user":null}"#, "bad_field", Some("user")),
        (r#"{"user":""}"#, "bad_field", Some("user")),
        (r#"{"user":"123456789"}"#, "bad_field", Some("user")),
        (r#"{"user":"a\u0000"}"#, "bad_field", Some("user")),
        (r#"{"user":["a"]}"#, "bad_field", Some("user")),
        (r#"{"ttlMs":9}"#, "bad_field", Some("ttlMs")),
        (r#"{"ttlMs":21}"#, "bad_field", Some("ttlMs")),
        (r#"{"ttlMs":-1}"#, "bad_field", Some("ttlMs")),
        (r#"{"ttlMs":10.5}"#, "bad_field", Some("ttlMs")),
        (r#"{"ttlMs":"10"}"#, "bad_field", Some("ttlMs")),
        (r#"{"usr":"a"}"#, "unknown_field", Some("usr")),
        (r#"{"colour":"a"}"#, "unknown_field", Some("colour")),
    ];
    for (text, code, field) in cases {
        let refusal = read(text).expect_err(text);
        assert_eq!((refusal.code, refusal.field.as_deref()), (code, field), "{text}");
    }
    let near = read(r#"{"usr":"a"}"#).expect_err("unknown").message;
    assert!(near.contains("did you mean `user`?"), "{near}");
}

proptest! {
    #[test]
    fn any_body_is_read_or_refused_without_a_panic(bytes: Vec<u8>, text in ".{0,40}") {
        let _ = Object::parse(&bytes);
        let _ = read(&text);
        let _ = read(&format!("{{\"user\":{text}}}"));
    }
}
