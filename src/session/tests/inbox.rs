//! How an inbox is asked for and told.

use serde_json::Value;
use serde_json::value::RawValue;

use super::super::*;
use crate::base::inbox::{LAST_ID, Marked, Note, Page, Span};

fn command(text: &str) -> Result<String, (Code, String)> {
    parse(text, &CommandLimits::default())
        .map(|request| format!("{:?}", request.command))
        .map_err(|error| (error.code, error.message))
}

fn span(text: &str) -> Span {
    match parse(text, &CommandLimits::default()).expect(text).command {
        Command::Inbox(span) => span,
        other => panic!("{other:?}"),
    }
}

fn marked(text: &str) -> Marked {
    match parse(text, &CommandLimits::default()).expect(text).command {
        Command::Read(marked) => marked,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_inbox_is_asked_for_whole_or_in_part() {
    let whole = span(r#"{"type":"throng:inbox"}"#);
    assert_eq!((whole.after, whole.until, whole.limit), (0, LAST_ID, 100));
    let part = span(r#"{"type":"throng:inbox","after":7,"until":9007199254740991,"limit":3}"#);
    assert_eq!((part.after, part.until, part.limit), (7, LAST_ID, 3));
}

#[test]
fn what_was_read_is_a_list_or_all() {
    assert_eq!(marked(r#"{"type":"throng:read","ids":[3,1,3]}"#), Marked::Ids(vec![3, 1, 3]));
    assert_eq!(marked(r#"{"type":"throng:read","all":true}"#), Marked::All);
}

#[test]
fn values_that_cannot_be_are_named() {
    for (fields, name) in [
        (r#""type":"throng:inbox","after":-1"#, "after"),
        (r#""type":"throng:inbox","after":"7""#, "after"),
        (r#""type":"throng:inbox","after":1.5"#, "after"),
        (r#""type":"throng:inbox","until":9007199254740992"#, "until"),
        (r#""type":"throng:inbox","limit":101"#, "limit"),
        (r#""type":"throng:read","ids":[]"#, "ids"),
        (r#""type":"throng:read","ids":7"#, "ids"),
        (r#""type":"throng:read","ids":[null]"#, "ids"),
        (r#""type":"throng:read","all":false"#, "all"),
        (r#""type":"throng:read","all":true,"ids":[1]"#, "all"),
    ] {
        let (code, message) = command(&format!("{{{fields}}}")).expect_err(fields);
        assert_eq!(code, Code::BadField, "{fields}");
        assert!(message.starts_with(&format!("`{name}` is ")), "{message}");
    }
    let many = format!(r#"{{"type":"throng:read","ids":[{}]}}"#, "1,".repeat(1000) + "1");
    assert_eq!(command(&many).expect_err("1001").0, Code::BadField);
    let error = command(r#"{"type":"throng:read"}"#).expect_err("nothing");
    assert_eq!(error.0, Code::MissingField);
    let error = command(r#"{"type":"throng:inbox","ids":[1]}"#).expect_err("not of this one");
    assert_eq!(error.0, Code::UnknownField);
}

fn note(id: u64, kind: &str, payload: &str) -> Note {
    Note { id, at: 9, kind: kind.into(), payload: payload.into() }
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn a_page_a_notification_and_a_count_are_written_with_payloads_as_they_came() {
    let notes = vec![note(5, "", "[1.50 ]"), note(6, "\"m\"", "null")];
    let page = Page { notes, newest: 8, unread: 4, more: true };
    let reference = RawValue::from_string("7".to_owned()).expect("JSON");
    assert_eq!(
        written(|out| inbox::page(out, Some(&reference), &page)),
        concat!(
            r#"{"type":"throng:reply","ref":7,"ok":true,"items":[{"id":5,"at":9,"payload":[1.50 ]},"#,
            r#"{"id":6,"at":9,"kind":"m","payload":null}],"newest":8,"unread":4,"more":true}"#,
        )
    );
    let empty = written(|out| inbox::page(out, None, &Page::default()));
    let empty: Value = serde_json::from_str(&empty).expect("JSON");
    assert_eq!(empty["items"], Value::Array(Vec::new()));
    assert_eq!(
        written(|out| inbox::notification(out, &note(5, "\"m\"", "{}"), 3)),
        r#"{"type":"throng:notification","id":5,"at":9,"kind":"m","payload":{},"unread":3}"#
    );
    assert_eq!(written(|out| inbox::unread(out, 2)), r#"{"type":"throng:unread","unread":2}"#);
    assert_eq!(written(|out| assert!(!inbox::read(out, None, 2))), "");
}
