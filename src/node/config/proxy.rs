//! `[[proxy]]`: requests on the public listeners that a server of the operator's answers.

use std::time::Duration;

use super::auth::FetchUrl;
use super::group::{group, of};
use super::kind::{Kind, Value, millis, whole};
use super::kind_text::text;
use super::list::{About, Row};

const MOST_BYTES: u64 = 1 << 40;

group! {
    /// One `[[proxy]]`: paths whose requests go to another server.
    pub struct Proxy in "proxy" {
        /// How the paths begin, with a slash at both ends; must be given.
        "path" Restart path: String = String::new(), text(256).or_empty("not given");
        /// The server, without a path: a request keeps its own. Must be given.
        "to" Restart to: String = String::new(), FetchUrl;
        /// How long the head of an answer may take, from the last of the request that came; beyond it 504.
        "timeout_ms" Restart timeout: Duration = Duration::from_secs(5), millis(10, 3_600_000);
        /// How long nothing may pass in either direction, upgraded connections included; beyond it the end.
        "idle_timeout_ms" Restart idle: Duration = Duration::from_secs(60), millis(10, 86_400_000);
        /// Bytes of a request's body, which are passed on as they come; beyond it 413.
        "max_body_bytes" Restart body_bytes: u64 = 1_048_576, whole(0, MOST_BYTES);
        /// Bytes of an answer's body; beyond it 502 where its length is told, else it is cut.
        "max_answer_bytes" Restart answer_bytes: u64 = 0, whole(1, MOST_BYTES).or_zero("no limit");
        /// Connections at one time, upgraded ones included; beyond it 503.
        "max_connections" Restart connections: u32 = 1024, whole(1, 1_000_000);
        /// Those of one address among them; beyond it 503.
        "max_per_address" Restart per_address: u32 = 0, whole(1, 1_000_000).or_zero("as many as there are");
    }
}

impl Row for Proxy {
    const ABOUT: About = About {
        name: "proxy",
        about: &[
            "Paths on the public listeners whose requests another server answers, upgrades included (restart).",
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
