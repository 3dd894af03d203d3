//! `[admin]` and `[[key]]`: the HTTP listener for back ends and operators, and who may use it.

use std::net::SocketAddr;
use std::time::Duration;

use super::group::{group, of};
use super::kind::{Flag, Kind, OptionalAddress, Value, millis, one_of, whole};
use super::kind_text::{Hidden, Text, list_of, text};
use super::list::{About, Row};
use super::words::KeyScope;
use crate::base::secret::Secret;

const DAY_MS: u64 = 86_400_000;
/// Bytes below which a secret could be guessed.
pub const SHORTEST_SECRET: usize = 16;
/// Bytes above which it does not fit into a header.
pub const LONGEST_SECRET: usize = 1024;

group! {
    /// `[admin]`.
    pub struct AdminListener in "admin" {
        /// Where to listen for requests of back ends and operators; they come unencrypted.
        "listen" Restart listen: Option<SocketAddr> = None, OptionalAddress;
        /// How long a request's head may take to arrive, and its body.
        "request_timeout_ms" Live request_timeout: Duration = Duration::from_secs(5), millis(100, DAY_MS);
        /// Bytes of a request's body; beyond it 413.
        "max_body_bytes" Live max_body_bytes: u32 = 65_536, whole(256, 16_777_216);
        /// Connections at once; further ones wait in the kernel.
        "max_connections" Restart max_connections: u16 = 64, whole(1, 4096);
        /// Serve /metrics to whoever reaches this listener, without a key.
        "metrics_open" Live metrics_open: bool = false, Flag;
        /// Tenants that /metrics tells apart, those of [[tenant]] first and then in the order in which they come;
        /// the others are one. Each is ten time series.
        "metrics_tenants" Restart metrics_tenants: u16 = 32, whole(1, 1000).or_zero("no tenants in /metrics");
        /// Requests a second of each key without a rate of its own; beyond it 429. As many may come at once
        /// after a pause.
        "requests_per_second" Live requests_per_second: u32 = 100, whole(1, 1_000_000);
        /// How long an answer waits for all shards to have taken what was asked; beyond it 503.
        "shard_timeout_ms" Live shard_timeout: Duration = Duration::from_secs(1), millis(1, 60_000);
        /// Serve what begins with /v1/ on the public listeners too, behind the same keys.
        "public" Restart public: bool = false, Flag;
        /// Whether /readyz says that the node is ready while the store fails, for want of space or of a disk.
        "ready_without_store" Live ready_without_store: bool = false, Flag;
    }
}

group! {
    /// One `[[key]]`: who may use the admin listener, and for what.
    pub struct Key in "key" {
        /// How logs call the owner of the key; must be given.
        "name" Live name: String = String::new(), text(64).or_empty("not given");
        /// What a request presents, as Authorization: Bearer SECRET. At least 16 bytes.
        "secret" Live secret: Secret = Secret::default(), Hidden;
        /// A file that holds the secret instead; white space around it is left out.
        "secret_file" Live secret_file: String = String::new(), Text::path();
        /// What the key opens: making tickets, revoking tokens and users and closing connections, reading
        /// counters and who is there, notifying users, publishing.
        "scopes" Live scopes: Vec<KeyScope> = Vec::new(), list_of(5, one_of());
        /// The only tenant that the key is for.
        "tenant" Live tenant: String = String::new(), text(256).or_empty("all tenants");
        /// Requests a second of this key; beyond it 429.
        "requests_per_second" Live requests_per_second: u32 = 0,
            whole(1, 1_000_000).or_zero("as admin.requests_per_second");
        /// Requests of this key that may come at once after a pause.
        "burst" Live burst: u32 = 0, whole(1, 1_000_000).or_zero("those of one second");
    }
}

/// What is wrong with a secret that is to stand here or in a file, and in one of them only.
pub(super) fn one_secret(secret: &Secret, file: &str) -> Option<String> {
    if secret.is_empty() == file.is_empty() {
        return Some("expected either a secret or a secret_file".to_owned());
    }
    let bytes = secret.expose().len();
    let fits = secret.is_empty() || (SHORTEST_SECRET..=LONGEST_SECRET).contains(&bytes);
    (!fits).then(|| format!("secret: expected {SHORTEST_SECRET} to {LONGEST_SECRET} bytes"))
}

impl Row for Key {
    const ABOUT: About = About {
        name: "key",
        about: &["Keys of the admin listener (live). What each opens is in its scopes."],
        example: &[
            "name = \"back end\"",
            "secret_file = \"/etc/throng/backend.key\"",
            "scopes = [\"tickets\", \"revoke\"]",
        ],
        required: &["name", "scopes"],
        unique: Some("name"),
    };

    fn broken(&self) -> Option<String> {
        one_secret(&self.secret, &self.secret_file)
    }
}
