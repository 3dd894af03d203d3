//! `throng explain`: what became of a publication for somebody, asked of a running node and told in lines.
//!
//! The node's answer is in words already; here it gets the times between, which are easier to read than moments.
//! What came from clients may hold anything but what would move a terminal's cursor.

use std::fmt::Write as _;

use form_urlencoded::Serializer;
use serde::Deserialize;

use crate::node::console::{read, shown};
use crate::node::remote::Remote;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct ExplainQuery<'a> {
    /// The room.
    pub room: &'a str,
    /// The publication's number in it.
    pub offset: u64,
    /// The user.
    pub user: Option<&'a str>,
    /// One connection instead.
    pub connection: Option<&'a str>,
    /// Whose room and user.
    pub tenant: Option<&'a str>,
}

#[derive(Debug, Deserialize)]
struct Explanation {
    outcome: String,
    text: String,
    #[serde(rename = "publishedAt")]
    published: Option<u64>,
    connections: Vec<Connection>,
    #[serde(default, rename = "missingShards")]
    missing: Vec<u16>,
}

#[derive(Debug, Deserialize)]
struct Connection {
    #[serde(rename = "clientId")]
    id: String,
    #[serde(rename = "connectedAt")]
    begun: u64,
    #[serde(rename = "endedAt")]
    ended: Option<u64>,
    at: Option<u64>,
    text: String,
}

/// Asks a node, and tells what it says.
///
/// # Errors
/// Why there is no answer.
pub fn explain(remote: &Remote<'_>, query: &ExplainQuery<'_>) -> Result<String, String> {
    Ok(lines(&read(&remote.get(&query.path())?)?))
}

impl ExplainQuery<'_> {
    fn path(&self) -> String {
        let mut query = Serializer::new(String::new());
        query.append_pair("room", self.room);
        query.append_pair("offset", &self.offset.to_string());
        let texts = [("user", self.user), ("connection", self.connection), ("tenant", self.tenant)];
        for (name, value) in texts {
            query.extend_pairs(value.map(|value| (name, value)));
        }
        format!("/v1/explain?{}", query.finish())
    }
}

fn lines(told: &Explanation) -> String {
    let mut text = format!("{}: {}\n", shown(&told.outcome), shown(&told.text));
    for one in &told.connections {
        let _ = write!(text, "{}  ", shown(&one.id));
        if let Some(published) = told.published {
            let _ = write!(text, "connected {}, ", against(one.begun, published));
            if let Some(ended) = one.ended {
                let _ = write!(text, "ended {}, ", against(ended, published));
            }
            if let Some(at) = one.at {
                let _ = write!(text, "{}, ", against(at, published));
            }
        }
        let _ = writeln!(text, "{}", shown(&one.text));
    }
    if !told.missing.is_empty() {
        let _ = writeln!(text, "shards that have not answered: {:?}", told.missing);
    }
    text
}

/// A moment as it stands to the publication.
fn against(at: u64, published: u64) -> String {
    if at < published {
        format!("{:.3} s before", seconds(published - at))
    } else {
        format!("{:.3} s after", seconds(at - published))
    }
}

fn seconds(millis: u64) -> f64 {
    std::time::Duration::from_millis(millis).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_encoded_and_its_answer_told_in_times_between() {
        let query = ExplainQuery {
            room: "a b",
            offset: 7,
            user: Some("x&y"),
            connection: None,
            tenant: None,
        };
        assert_eq!(query.path(), "/v1/explain?room=a+b&offset=7&user=x%26y");
        let answer = r#"{"room":"a","offset":7,"outcome":"written","text":"yes","publishedAt":5000,"connections":[
            {"clientId":"0-1-2","connectedAt":3500,"endedAt":9000,"outcome":"written","at":5012,"text":"gone\u001b"},
            {"clientId":"1-1-2","connectedAt":3500,"text":"nothing"}],"missingShards":[1]}"#;
        let told = lines(&read(answer).expect("an answer"));
        assert_eq!(
            told,
            "written: yes\n\
             0-1-2  connected 1.500 s before, ended 4.000 s after, 0.012 s after, gone?\n\
             1-1-2  connected 1.500 s before, nothing\n\
             shards that have not answered: [1]\n"
        );
    }
}
