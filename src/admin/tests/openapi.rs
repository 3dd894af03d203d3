//! The document for programs against the endpoints there are.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::office::{Office, SECRET};
use crate::admin::openapi::DOCUMENT;

/// Methods and paths.
type Endpoints = BTreeSet<(String, String)>;

/// What the table of endpoints has.
fn routed() -> Endpoints {
    let table = include_str!("../routes.rs");
    let mut found = Endpoints::new();
    for line in table.split(".route(\"").skip(1) {
        let (path, rest) = line.split_once('"').expect("a path");
        let handlers = rest.split_once("\n").map_or(rest, |(line, _)| line);
        for method in ["get", "post", "put", "patch", "delete"] {
            if handlers.contains(&format!("{method}(")) {
                found.insert((method.to_owned(), path.to_owned()));
            }
        }
    }
    found
}

fn document() -> Value {
    serde_json::from_str(DOCUMENT).expect("JSON")
}

/// Every operation that is described.
fn described(document: &Value) -> BTreeMap<(String, String), Value> {
    let paths = document["paths"].as_object().expect("paths");
    let operations = paths.iter().flat_map(|(path, item)| {
        let item = item.as_object().expect("an item");
        item.iter()
            .map(move |(method, operation)| ((method.clone(), path.clone()), operation.clone()))
    });
    operations.collect()
}

#[test]
fn every_endpoint_is_described_and_nothing_else() {
    let document = document();
    let described: Endpoints = described(&document).into_keys().collect();
    assert!(described.len() > 15, "{described:?}");
    assert_eq!(described, routed());
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let manual = include_str!("../../../docs/admin.md");
    for (method, path) in described {
        let heading = format!("## `{} {path}`", method.to_uppercase());
        assert!(manual.contains(&heading), "docs/admin.md has no {heading}");
    }
}

/// Every reference within the document.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                found.insert(reference.clone());
            }
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere_and_everything_is_referred_to() {
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in &found {
        let pointer = reference.strip_prefix('#').expect("a place in the document");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    for kind in ["schemas", "responses"] {
        for name in document["components"][kind].as_object().expect("components").keys() {
            let reference = format!("#/components/{kind}/{name}");
            assert!(found.contains(&reference), "nothing refers to {reference}");
        }
    }
}

#[test]
fn what_needs_a_key_and_which_scope_is_as_described() {
    let office = Office::open();
    for ((method, path), operation) in described(&document()) {
        let asked = path.replace("{room}", "r").replace("{id}", "0-0-0");
        let ask = |secret: &str| match method.as_str() {
            "get" => office.get(&asked, secret),
            _ => office.post(&asked, secret, "{}"),
        };
        let is_open = operation["security"].as_array().is_some_and(Vec::is_empty);
        let answers = &operation["responses"];
        assert_eq!(ask("").status == 401, !is_open, "{method} {path} without a key");
        assert_eq!(answers.get("401").is_some(), !is_open, "{method} {path}");
        let status = ask(SECRET).status.to_string();
        assert!(answers.get(&status).is_some(), "{method} {path} is answered with {status}");
        let scoped = operation["description"].as_str().unwrap_or_default();
        let is_forbidden = ask("a secret for counting").status == 403;
        let other = !is_open && !scoped.contains("`inspect`");
        assert_eq!(is_forbidden, other, "{method} {path}: {scoped}");
    }
}

#[test]
fn the_document_is_served_as_it_is_to_anybody() {
    let office = Office::open();
    let answer = office.get("/v1/openapi.json", "");
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    assert!(answer.body == DOCUMENT, "the document as it is in the tree");
}
