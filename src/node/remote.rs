//! What the command line asks of a running node, by its admin listener.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::admin::Call;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which node, and by which key.
#[derive(Clone, Copy, Debug)]
pub struct Remote<'a> {
    /// Its admin listener, as `http://127.0.0.1:8081`.
    pub url: &'a str,
    /// The file that holds the key's secret.
    pub key_file: &'a Path,
}

/// A publication, as the command line gives it.
#[derive(Clone, Debug, Default)]
pub struct Publication {
    /// The type.
    pub kind: String,
    /// The payload, which must be JSON.
    pub payload: Option<String>,
    /// Fields with a text, by name, where it is given.
    pub texts: Vec<(&'static str, Option<String>)>,
    /// Fields with a list of texts, by name; empty ones are left out.
    pub lists: Vec<(&'static str, Vec<String>)>,
    /// What is excepted, by kind.
    pub except: Vec<(&'static str, Vec<String>)>,
    /// Fields that are true or left out, by name.
    pub flags: Vec<(&'static str, bool)>,
}

impl Remote<'_> {
    /// Publishes; the answer, as it came.
    ///
    /// # Errors
    /// What is wrong: the file, the payload, the connection, or what the node says.
    pub fn publish(&self, publication: &Publication) -> Result<String, String> {
        self.ask("/v1/publish", Some(publication.message()?))
    }

    /// Asks for what is at a path, its query included; the answer, as it came.
    ///
    /// # Errors
    /// What is wrong: the file, the connection, or what the node says.
    pub fn get(&self, path: &str) -> Result<String, String> {
        self.ask(path, None)
    }

    fn ask(&self, path: &str, body: Option<String>) -> Result<String, String> {
        let secret = fs::read_to_string(self.key_file)
            .map_err(|error| format!("the key file {}: {error}", self.key_file.display()))?;
        let secret = secret.trim();
        let call = Call { url: self.url, path, secret, body, patience: PATIENCE };
        let (status, answer) = call.make()?;
        if status == 200 {
            return Ok(answer);
        }
        let told: Value = serde_json::from_str(&answer).unwrap_or_default();
        let error = &told["error"];
        let field = error["field"].as_str().map_or(String::new(), |field| format!(" `{field}`"));
        match (error["code"].as_str(), error["message"].as_str()) {
            (Some(code), Some(message)) => Err(format!("{status} {code}{field}: {message}")),
            _ => Err(format!("{}: status {status}: {}", self.url, answer.trim())),
        }
    }
}

impl Publication {
    /// The message. The payload stands in it as it was written.
    fn message(&self) -> Result<String, String> {
        let mut fields = Map::new();
        let mut add = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        add("type", Value::from(self.kind.as_str()));
        for (name, text) in &self.texts {
            if let Some(text) = text {
                add(name, Value::from(text.as_str()));
            }
        }
        for (name, list) in self.lists.iter().filter(|(_, list)| !list.is_empty()) {
            add(name, json!(list));
        }
        for (name, _) in self.flags.iter().filter(|(_, is_set)| *is_set) {
            add(name, Value::from(true));
        }
        let except = self.except.iter().filter(|(_, list)| !list.is_empty());
        let except: Map<String, Value> =
            except.map(|(kind, list)| ((*kind).to_owned(), json!(list))).collect();
        if !except.is_empty() {
            add("except", Value::Object(except));
        }
        let mut text = Value::Object(fields).to_string();
        if let Some(payload) = &self.payload {
            let raw: &RawValue = serde_json::from_str(payload).map_err(|error| {
                format!("the payload is not JSON: {error}; a text needs its quotes: '\"hi\"'")
            })?;
            text.pop();
            text.push_str(&format!(",\"payload\":{}}}", raw.get()));
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_stands_in_the_message_as_it_was_written() {
        let publication = Publication {
            kind: "chat".to_owned(),
            payload: Some(" {\"a\": 1.0} ".to_owned()),
            texts: vec![("id", None), ("key", Some("k".to_owned()))],
            lists: vec![("rooms", vec!["a".to_owned()]), ("users", Vec::new())],
            except: vec![("users", vec!["u".to_owned()]), ("rooms", Vec::new())],
            flags: vec![("everyone", false), ("count", true)],
        };
        let text = publication.message().expect("a message");
        assert!(text.ends_with(r#","payload":{"a": 1.0}}"#), "{text}");
        let read: Value = serde_json::from_str(&text).expect("JSON");
        let expected = json!({"type": "chat", "key": "k", "rooms": ["a"], "count": true,
            "except": {"users": ["u"]}, "payload": {"a": 1.0}});
        assert_eq!(read, expected);
        let wrong = Publication { payload: Some("hi".to_owned()), ..publication };
        assert!(wrong.message().expect_err("not JSON").contains("quotes"));
    }
}
