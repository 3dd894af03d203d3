//! Schemas of payloads: what does not fit is answered with its place, and nothing else happens.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::base::glob::Glob;
use crate::session::schema::{Schema, Schemas};
use crate::shard::tests::rig::{Rig, publish, settings};
use crate::shard::{Mail, Settings};

fn wanting(rooms: &str, schema: &Value) -> Settings {
    let mut settings = settings();
    let schema =
        Schema::new(Glob::new(rooms), Glob::new("*"), 1000, &schema.to_string()).expect("a schema");
    settings.rooms.schemas = Arc::new(Schemas::new(vec![schema]));
    settings
}

#[test]
fn a_payload_that_does_not_fit_is_answered_with_its_place_and_nobody_hears_of_it() {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
    let mut rig = Rig::new(0, 1, wanting("shop:*", &schema));
    let (author, member) = (rig.open(), rig.member("shop:1"));
    rig.heard(author);
    let text = r#"{"type":"order","room":"shop:1","payload":{"n":"one"},"ref":7}"#;
    rig.say(author, text);
    rig.settle();
    let errors = rig.told(author, "throng:error");
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0]["code"], "invalid_payload");
    assert_eq!((&errors[0]["path"], &errors[0]["ref"]), (&json!("/n"), &json!(7)));
    assert!(rig.published(member).is_empty());
    for fine in [r#"{"n":1}"#, "{}"] {
        rig.say(author, &publish(&["shop:1"], fine));
    }
    rig.say(author, &publish(&["elsewhere"], "[1]"));
    rig.settle();
    assert_eq!(rig.published(member).len(), 2);
    assert!(rig.told(author, "throng:error").is_empty(), "the session lives");
    let counters = rig.shard.counters();
    assert_eq!((counters.payloads_checked_total, counters.payloads_refused_total), (2, 1));
    assert_eq!(counters.open_connections, 2);
}

#[test]
fn a_running_shard_takes_other_schemas_over() {
    let mut rig = Rig::new(0, 1, wanting("*", &json!({"type": "string"})));
    let (author, member) = (rig.open(), rig.member("r"));
    rig.say(author, &publish(&["r"], "1"));
    rig.settle();
    assert_eq!((rig.published(member).len(), rig.told(author, "throng:error").len()), (0, 1));
    rig.take(Mail::Settings(Arc::new(wanting("*", &json!({"type": "number"})))));
    rig.say(author, &publish(&["r"], "1"));
    rig.say(author, &publish(&["r"], "\"x\""));
    rig.settle();
    assert_eq!((rig.published(member).len(), rig.told(author, "throng:error").len()), (1, 1));
    rig.take(Mail::Settings(Arc::new(settings())));
    rig.say(author, &publish(&["r"], "\"x\""));
    rig.settle();
    assert_eq!(rig.published(member).len(), 1);
}

#[test]
fn who_may_not_publish_there_is_told_so_and_nothing_of_the_schema() {
    let mut settings = wanting("*", &json!(false));
    settings.rooms.publish = crate::auth::Who::Nobody;
    let mut rig = Rig::new(0, 1, settings);
    let author = rig.open();
    rig.heard(author);
    rig.say(author, &publish(&["r"], "1"));
    rig.settle();
    assert_eq!(rig.told(author, "throng:error")[0]["code"], "forbidden");
    assert_eq!(rig.shard.counters().payloads_refused_total, 0);
}
