//! `[bridge]`: the other nodes, by Redis.

use std::time::Duration;

use super::group::{group, of};
use super::kind::{Flag, Kind, Pattern, Value, millis, whole};
use super::kind_text::{Hidden, Text, list_of, text};
use crate::base::glob::Glob;
use crate::base::secret::Secret;

group! {
    /// `[bridge]`: where Redis is, and who we are to it.
    pub struct Redis in "bridge" {
        /// Where Redis is: `redis://HOST:PORT`, `rediss://HOST:PORT` for TLS, or `redis+unix:///PATH`.
        "url" Restart url: String = String::new(), text(2048).or_empty("none: without sentinels either the node works alone");
        /// Whether that is a node of a Redis Cluster.
        "cluster" Restart cluster: bool = false, Flag;
        /// More nodes of the cluster to begin with, as URLs, for the case that the first is away. All others are
        /// learnt from whoever answers.
        "seeds" Restart seeds: Vec<String> = Vec::new(), list_of(16, text(2048));
        /// The ACL user to log in as.
        "user" Restart user: String = String::new(), text(256).or_empty("Redis's default user");
        /// The user's password.
        "password" Restart password: Secret = Secret::default(), Hidden;
        /// A file that holds the password instead; white space around it is left out.
        "password_file" Restart password_file: String = String::new(), Text::path();
        /// Certificates, in PEM, of authorities to believe about Redis instead of those that the system trusts.
        "ca_file" Restart ca_file: String = String::new(), Text::path();
        /// Certificates, in PEM, that the node shows to Redis: its own, and what stands between that and an authority.
        "cert_file" Restart cert_file: String = String::new(), Text::path();
        /// The key, in PEM, of the first of those.
        "key_file" Restart key_file: String = String::new(), Text::path();
    }
}

group! {
    /// `[bridge]`: whom to ask where Redis is.
    pub struct Sentinels in "bridge" {
        /// The sentinels to ask for Redis, in place of `bridge.url`, as URLs: `redis://HOST:PORT` each, or `rediss://HOST:PORT` each for
        /// TLS with them and with Redis.
        "sentinels" Restart urls: Vec<String> = Vec::new(), list_of(16, text(2048));
        /// The sentinels' name for the primary.
        "sentinel_master" Restart primary: String = String::new(), text(256).or_empty("none");
        /// The ACL user to log in as with the sentinels.
        "sentinel_user" Restart user: String = String::new(), text(256).or_empty("their default user");
        /// The password for the sentinels.
        "sentinel_password" Restart password: Secret = Secret::default(), Hidden;
        /// A file that holds that password instead; white space around it is left out.
        "sentinel_password_file" Restart password_file: String = String::new(), Text::path();
    }
}

group! {
    /// `[bridge]`: how nodes work together.
    pub struct Bridge in "bridge" {
        /// The names of channels begin with it. Nodes with the same one work together.
        "prefix" Restart prefix: String = "throng".to_owned(), text(64);
        /// The node's name among the others, in envelopes and logs.
        "node" Restart node: String = String::new(), text(64).or_empty("a random one");
        /// How long a connection to Redis may take.
        "connect_timeout_ms" Restart connect_timeout: Duration = Duration::from_secs(2),
            millis(10, 60_000);
        /// How long Redis may take to answer, and a canary to come back, before the link counts as lost.
        "command_timeout_ms" Restart command_timeout: Duration = Duration::from_secs(2),
            millis(10, 60_000);
        /// Publications that may wait for Redis; more are dropped and counted.
        "queue_messages" Restart queue_messages: u32 = 65_536, whole(1, 16_777_216);
        /// Bytes of those.
        "queue_bytes" Restart queue_bytes: u32 = 67_108_864, whole(1024, 1 << 31);
        /// Publications of other nodes that may wait for this one's shards; more are dropped, counted, and
        /// told to the members as a gap.
        "incoming_messages" Restart incoming: u32 = 65_536, whole(1, 16_777_216);
        /// How often a message to ourselves proves that the link and its subscriptions work.
        "canary_interval_ms" Restart canary: Duration = Duration::from_secs(5), millis(10, 600_000);
        /// How long the subscription to a room outlives the room's last member here.
        "linger_ms" Restart linger: Duration = Duration::from_secs(5), millis(0, 600_000);
        /// Rooms whose history all nodes share, by patterns in which * stands for any characters. Redis numbers what
        /// is published in them, so a cursor means the same on every node.
        "shared_rooms" Restart shared: Vec<Glob> = Vec::new(), list_of(64, Pattern);
        /// Have a publication with an `id` that any node has taken taken by no other within `namespace.idempotency_window_ms`.
        /// It costs a round trip to Redis for each, for which what is published in its room behind it waits too.
        "shared_ids" Restart ids: bool = false, Flag;
        /// Know who is online on the other nodes, and tell them who is here.
        "presence" Restart presence: bool = true, Flag;
        /// How long a node that has fallen silent counts as there, with its users.
        "lease_ms" Restart lease: Duration = Duration::from_secs(15), millis(300, 600_000);
        /// How long other nodes may take to say who is in a room; then those that have not are named.
        "survey_timeout_ms" Restart survey_timeout: Duration = Duration::from_millis(500), millis(10, 60_000);
        /// Users of other nodes that are known at most, once for each node that has them; more are counted, and
        /// their node is named as missing.
        "users_max" Restart users: u32 = 4_194_304, whole(1, 268_435_456);
        /// Hear what programs emit by `@socket.io/redis-emitter` under this key, which is "socket.io" unless they
        /// give another.
        "emitter" Restart emitter: String = String::new(), text(64).or_empty("none");
        /// Messages of clients, about, that stay in the stream for back ends that `namespace.deliver` names.
        "stream_max" Restart stream: u32 = 1_000_000, whole(100, 1 << 30);
        /// A secret of at least 32 bytes that all nodes have: a one-time ticket made on one is good on each, once. Without
        /// one it is good on the node that made it.
        "ticket_secret" Restart ticket_secret: Secret = Secret::default(), Hidden;
        /// A file that holds that secret instead; white space around it is left out.
        "ticket_secret_file" Restart ticket_secret_file: String = String::new(), Text::path();
        /// Whether `/readyz` says that the node is ready while the link to Redis is down.
        "ready_without" Live ready_without: bool = false, Flag;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Origin;

    #[test]
    fn what_belongs_together_is_given_together() {
        for (set, key, text) in [
            ("bridge.cert_file=a.pem", "bridge.key_file", "both or neither"),
            ("bridge.ticket_secret=of all nodes", "bridge.url", "where Redis is"),
            ("namespace=[{pattern=\"a\", deliver=\"stream\"}]", "bridge.url", "give its URL"),
            (
                "bridge.sentinels=[\"redis://a:1\"]",
                "bridge.sentinel_master",
                "name for the primary",
            ),
        ] {
            let origin = Origin { file: None, sets: vec![set.to_owned()] };
            let error = origin.load().expect_err("one without the other").to_string();
            assert!(error.contains(key) && error.contains(text), "{error}");
        }
    }
}
