//! `[[proxy]]`: plain requests on the public listeners that a server of the operator's answers.

use std::time::Duration;

use super::auth::FetchUrl;
use super::group::{group, of};
use super::kind::{Kind, Value, millis, whole};
use super::kind_text::text;
use super::list::{About, Row};

const MOST_BYTES: u64 = 16_777_216;

group! {
    /// One `[[proxy]]`: paths whose requests go to another server.
    pub struct Proxy in "proxy" {
        /// How the paths begin, with a slash at both ends; must be given.
        "path" Restart path: String = String::new(), text(256).or_empty("not given");
        /// The server, without a path: a request keeps its own. Must be given.
        "to" Restart to: String = String::new(), FetchUrl;
        /// How long an answer may take; beyond it 504.
        "timeout_ms" Restart timeout: Duration = Duration::from_secs(5), millis(10, 60_000);
        /// Bytes of a request's body; beyond it 413.
        "max_body_bytes" Restart body_bytes: u32 = 65_536, whole(0, MOST_BYTES);
        /// Bytes of an answer's body; beyond it 502.
        "max_answer_bytes" Restart answer_bytes: u32 = 1_048_576, whole(0, MOST_BYTES);
    }
}

impl Row for Proxy {
    const ABOUT: About = About {
        name: "proxy",
        about: &[
            "Paths on the public listeners whose plain requests another server answers (restart).",
        ],
        example: &["path = \"/app/\"", "to = \"http://127.0.0.1:3000\""],
        required: &["path", "to"],
        unique: Some("path"),
    };

    fn broken(&self) -> Option<String> {
        if !self.path.starts_with('/') || !self.path.ends_with('/') {
            return Some(format!(
                "path = {:?}: expected a path with a slash at both ends, as \"/app/\"",
                self.path
            ));
        }
        let to: Option<hyper::Uri> = self.to.parse().ok();
        let path = to.and_then(|to| to.path_and_query().map(|path| path.as_str().to_owned()));
        path.is_some_and(|path| path != "/").then(|| {
            format!(
                "to = {:?}: expected a server without a path, as \"http://127.0.0.1:3000\"",
                self.to
            )
        })
    }
}
