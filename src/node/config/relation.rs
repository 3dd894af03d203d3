//! What two keys must be to each other, and what is allowed but unwise.
//!
//! A relation that does not hold is an error, because the node could not keep its promises. A warning is
//! for what works here and fails in the field.

use std::time::Duration;

use super::admin::{LONGEST_SECRET, SHORTEST_SECRET};
use super::auth::AuthMode;
use super::hook::Webhook;
use super::limits::ProxyProtocol;
use super::print;
use super::rate;
use super::values::{ClientAuth, Config};
use crate::auth::{Deliver, Source, Who};
use crate::base::tidings::TidingKind;

struct Relation {
    keys: &'static [&'static str],
    holds: fn(&Config) -> bool,
    rule: &'static str,
}

const RELATIONS: &[Relation] = &[
    Relation {
        keys: &["compression.min_bytes", "compression.max_bytes"],
        holds: |c| c.transport.compression.min_bytes <= c.transport.compression.max_bytes,
        rule: "a frame cannot be long enough and short enough at once",
    },
    Relation {
        keys: &["bridge.url", "bridge.presence"],
        holds: |c| {
            let asks = |hook: &Webhook| hook.events.contains(&TidingKind::Undelivered);
            let own = &c.inside.bridge;
            !c.inside.is_linked() || own.presence || !c.lists.webhooks.iter().any(asks)
        },
        rule: "a [[webhook]] has \"undelivered\" among its events, and without presence a node of several does \
               not know of users' connections to the others: write bridge.presence = true",
    },
    Relation {
        keys: &["store.redis", "bridge.url", "store.path"],
        holds: |c| {
            let linked = c.inside.is_linked() && c.inside.store.path.is_empty();
            !c.inside.shared_store.redis || linked
        },
        rule: "the store is in the Redis by which nodes work together, and not in a file as well: give its URL or its \
               sentinels",
    },
    Relation {
        keys: &["store.redis", "bridge.node"],
        holds: |c| !c.inside.shared_store.redis || !c.inside.bridge.node.is_empty(),
        rule: "who is connected is kept by node, and a node that starts anew finds that by its name: give one",
    },
    Relation {
        keys: &["queue.max_age_ms"],
        holds: |c| {
            let longest = c.lists.namespaces.iter().map(|namespace| namespace.write_delay).max();
            longest.is_none_or(|longest| longest * 2 <= c.queue.max_age)
        },
        rule: "a write that is made to wait must not look like a reader that is slow: at least twice every \
               namespace.write_delay_ms",
    },
    Relation {
        keys: &["limits.messages_per_second"],
        holds: |c| c.lists.rates.len() <= rate::MOST,
        rule: "there may be 32 entries of [[rate]], as every connection has a budget for each that it has \
               used: give those that have a rate in common one pattern",
    },
    Relation {
        keys: &["bridge.cluster", "bridge.url"],
        holds: |c| !c.inside.redis.cluster || !c.inside.redis.url.is_empty(),
        rule: "a cluster is entered by one of its nodes: give its URL",
    },
    Relation {
        keys: &["bridge.sentinels", "bridge.sentinel_master"],
        holds: |c| {
            let sentinels = &c.inside.sentinels;
            sentinels.urls.is_empty() || !sentinels.primary.is_empty()
        },
        rule: "sentinels may watch over several: give their name for the primary",
    },
    Relation {
        keys: &["bridge.cert_file", "bridge.key_file"],
        holds: |c| c.inside.redis.cert_file.is_empty() == c.inside.redis.key_file.is_empty(),
        rule: "a certificate is shown with its key: give both or neither",
    },
    Relation {
        keys: &["bridge.shared_rooms", "bridge.url"],
        holds: |c| c.inside.bridge.shared.is_empty() || c.inside.is_linked(),
        rule: "histories are shared by way of a Redis: give its URL",
    },
    Relation {
        keys: &["bridge.shared_ids", "bridge.url"],
        holds: |c| !c.inside.bridge.ids || c.inside.is_linked(),
        rule: "which ids any node has taken is known by way of a Redis: give its URL",
    },
    Relation {
        keys: &["bridge.ticket_secret", "bridge.ticket_secret_file", "bridge.url"],
        holds: |c| {
            let own = &c.inside.bridge;
            let given = (!own.ticket_secret.is_empty(), !own.ticket_secret_file.is_empty());
            given == (false, false) || given != (true, true) && c.inside.is_linked()
        },
        rule: "that a ticket is used once is seen to by a Redis: give one of the two, and where Redis is",
    },
    Relation {
        keys: &["bridge.url"],
        holds: |c| {
            let mut namespaces = c.lists.namespaces.iter();
            c.inside.is_linked() || !namespaces.any(|one| one.deliver == Deliver::Stream)
        },
        rule: "a [[namespace]] has deliver = \"stream\", and the stream is in a Redis: give its URL",
    },
    Relation {
        keys: &["server.listen", "tls.listen", "auth.mode"],
        holds: |c| {
            let listens = [c.server.listen, c.transport.tls.listen];
            let is_local = listens.into_iter().flatten().all(|address| address.ip().is_loopback());
            c.auth.door.mode != AuthMode::Local || is_local
        },
        rule: "whoever is not on this machine must say who it is: write auth.mode = \"token\" and a key; \
               or write auth.mode = \"open\" to let in anyone who can connect",
    },
    Relation {
        keys: &["auth.mode", "auth.secret", "auth.secret_file", "auth.jwks_file", "auth.jwks_url"],
        holds: |c| {
            // Who is known by a certificate needs no key of ours.
            let by_key = c.auth.door.sources.iter().any(|source| *source != Source::Certificate);
            c.auth.door.mode != AuthMode::Token || !by_key || c.auth.has_keys()
        },
        rule: "tokens are checked with a key: give auth.secret, auth.secret_file, \
               auth.public_key_files or auth.jwks_file",
    },
    Relation {
        keys: &["admin.public"],
        holds: |c| {
            let paths = [Some(&c.server.path), c.server.stream_path.as_ref()];
            let own = |path: &str| paths.into_iter().flatten().any(|own| own.starts_with(path));
            let api = c.lists.proxies.iter().any(|proxy| proxy.path == "/v1/");
            !(c.admin.public && (api || own("/v1/")))
        },
        rule: "what begins with /v1/ is the API's then: give server.path, server.stream_path and the \
               paths of [[proxy]] other beginnings",
    },
    Relation {
        keys: &["auth.mode", "auth.sources"],
        holds: |c| c.auth.door.mode != AuthMode::Token || !c.auth.door.sources.is_empty(),
        rule: "a token must be able to stand somewhere",
    },
    Relation {
        keys: &["auth.sources", "tls.client_auth"],
        holds: |c| {
            let asked = c.transport.tls.client_auth != ClientAuth::Off;
            asked || !c.auth.door.sources.contains(&Source::Certificate)
        },
        rule: "who is to be known by a certificate must be asked for one: give tls.client_auth",
    },
    Relation {
        keys: &["auth_webhook.url", "auth_webhook.secret", "auth_webhook.secret_file"],
        holds: |c| {
            let hook = &c.auth.webhook;
            hook.url.is_empty() || hook.secret.is_empty() != hook.secret_file.is_empty()
        },
        rule: "what is asked is signed: give either auth_webhook.secret or auth_webhook.secret_file",
    },
    Relation {
        keys: &["auth_webhook.secret"],
        holds: |c| {
            let secret = &c.auth.webhook.secret;
            secret.is_empty() || (SHORTEST_SECRET..=LONGEST_SECRET).contains(&secret.expose().len())
        },
        rule: "a secret that could be guessed, or that is too long: expected 16 to 1024 bytes",
    },
    Relation {
        keys: &["auth_webhook.url", "auth_webhook.connect"],
        holds: |c| !c.auth.webhook.connect || !c.auth.webhook.url.is_empty(),
        rule: "somebody must be there to be asked: give a URL",
    },
    Relation {
        keys: &["auth_webhook.url"],
        holds: |c| {
            let asks = |who| who == Some(Who::Webhook);
            let namespaces = &c.lists.namespaces;
            !c.auth.webhook.url.is_empty()
                || !namespaces.iter().any(|one| asks(one.join) || asks(one.publish))
        },
        rule: "a [[namespace]] says \"webhook\", so somebody must be there to be asked: give a URL",
    },
    Relation {
        keys: &["server.listen", "tls.listen"],
        holds: |c| c.server.listen.is_some() || c.transport.tls.listen.is_some(),
        rule: "a node must listen somewhere",
    },
    Relation {
        keys: &["server.listen", "tls.listen"],
        holds: |c| {
            let same = c.server.listen == c.transport.tls.listen;
            !same || c.server.listen.is_none_or(|address| address.port() == 0)
        },
        rule: "the plain listener and that of TLS cannot share an address",
    },
    Relation {
        keys: &["tls.listen"],
        holds: |c| c.transport.tls.listen.is_none() || !c.lists.certificates.is_empty(),
        rule: "TLS needs a [[certificate]] with a chain and a key",
    },
    Relation {
        keys: &["tls.client_auth", "tls.client_ca"],
        holds: |c| {
            let tls = &c.transport.tls;
            tls.client_auth == ClientAuth::Off || !tls.client_ca.is_empty()
        },
        rule: "certificates of clients need authorities in tls.client_ca",
    },
    Relation {
        keys: &["limits_tenant.max_connections"],
        holds: |c| {
            let own = c.lists.tenants.iter().any(|tenant| tenant.connections > 0);
            !own || c.limits.tenant.connections > 0
        },
        rule: "a [[tenant]] has a max_connections of its own, and connections are counted only where everybody's \
               are limited: give a number, however large",
    },
    Relation {
        keys: &["limits_tenant.max_rooms"],
        holds: |c| {
            let own = c.lists.tenants.iter().any(|tenant| tenant.rooms > 0);
            !own || c.limits.tenant.rooms > 0
        },
        rule: "a [[tenant]] has a max_rooms of its own, and rooms are counted only where everybody's are limited: \
               give a number, however large",
    },
    Relation {
        keys: &["queue.low_water_bytes", "queue.high_water_bytes"],
        holds: |c| c.queue.low_water < c.queue.high_water,
        rule: "the low water mark must be below the high water mark",
    },
    Relation {
        keys: &["queue.high_water_bytes", "queue.max_bytes"],
        holds: |c| c.queue.high_water <= c.queue.max_bytes,
        rule: "the high water mark must not be above the maximum",
    },
    Relation {
        keys: &["limits.max_message_bytes", "queue.max_bytes"],
        holds: |c| c.limits.message.max_bytes <= c.queue.max_bytes,
        rule: "a queue must be able to hold the largest message",
    },
    Relation {
        keys: &["limits.max_target_bytes", "limits.max_head_bytes"],
        holds: |c| c.limits.head.max_target_bytes < c.limits.head.max_bytes,
        rule: "a request head must be able to hold the longest target",
    },
    Relation {
        keys: &["server.trusted_proxies", "server.proxy_protocol"],
        holds: |c| {
            let proxies = &c.limits.proxies;
            proxies.protocol != ProxyProtocol::Required || !proxies.trusted.is_empty()
        },
        rule: "the PROXY protocol is taken from trusted proxies only, so nobody would be served; name them",
    },
    Relation {
        keys: &["server.path", "debug.echo_path"],
        holds: |c| c.debug.echo_path.as_ref() != Some(&c.server.path),
        rule: "two endpoints cannot share a path",
    },
    Relation {
        keys: &["server.stream_path", "server.path"],
        holds: |c| c.server.stream_path.as_ref() != Some(&c.server.path),
        rule: "two endpoints cannot share a path",
    },
    Relation {
        keys: &["server.stream_path", "debug.echo_path"],
        holds: |c| c.server.stream_path.is_none() || c.server.stream_path != c.debug.echo_path,
        rule: "two endpoints cannot share a path",
    },
    Relation {
        keys: &["server.stream_path", "demo.enabled"],
        holds: |c| !(c.demo.enabled && is_page(c.server.stream_path.as_deref())),
        rule: "the demonstration page is served at / and /throng.js; move the path or turn the page off",
    },
    Relation {
        keys: &["server.socketio_path", "server.path"],
        holds: |c| c.server.socketio_path.as_ref() != Some(&c.server.path),
        rule: "two endpoints cannot share a path",
    },
    Relation {
        keys: &["server.socketio_path", "server.stream_path"],
        holds: |c| {
            c.server.socketio_path.is_none() || c.server.socketio_path != c.server.stream_path
        },
        rule: "two endpoints cannot share a path",
    },
    Relation {
        keys: &["server.socketio_path", "server.history_path"],
        holds: |c| {
            c.server.socketio_path.is_none() || c.server.socketio_path != c.server.history_path
        },
        rule: "two endpoints cannot share a path",
    },
    Relation {
        keys: &["server.socketio_path", "debug.echo_path"],
        holds: |c| c.server.socketio_path.is_none() || c.server.socketio_path != c.debug.echo_path,
        rule: "two endpoints cannot share a path",
    },
    Relation {
        keys: &["server.socketio_path", "demo.enabled"],
        holds: |c| !(c.demo.enabled && is_page(c.server.socketio_path.as_deref())),
        rule: "the demonstration page is served at / and /throng.js; move the path or turn the page off",
    },
    Relation {
        keys: &["auth.sources", "server.socketio_path"],
        holds: |c| {
            let by_payload = c.auth.door.sources.contains(&Source::Payload);
            !by_payload || c.server.socketio_path.is_some()
        },
        rule: "\"payload\" is what a client of Socket.IO shows; say at which path those come",
    },
    Relation {
        keys: &["server.history_path", "server.path"],
        holds: |c| c.server.history_path.as_ref() != Some(&c.server.path),
        rule: "two endpoints cannot share a path",
    },
    Relation {
        keys: &["server.history_path", "server.stream_path"],
        holds: |c| c.server.history_path.is_none() || c.server.history_path != c.server.stream_path,
        rule: "two endpoints cannot share a path",
    },
    Relation {
        keys: &["server.history_path", "debug.echo_path"],
        holds: |c| c.server.history_path.is_none() || c.server.history_path != c.debug.echo_path,
        rule: "two endpoints cannot share a path",
    },
    Relation {
        keys: &["server.history_path", "demo.enabled"],
        holds: |c| !(c.demo.enabled && is_page(c.server.history_path.as_deref())),
        rule: "the demonstration page is served at / and /throng.js; move the path or turn the page off",
    },
    Relation {
        keys: &["server.path", "demo.enabled"],
        holds: |c| !(c.demo.enabled && is_page(Some(&c.server.path))),
        rule: "the demonstration page is served at / and /throng.js; move the path or turn the page off",
    },
    Relation {
        keys: &["debug.echo_path", "demo.enabled"],
        holds: |c| !(c.demo.enabled && is_page(c.debug.echo_path.as_deref())),
        rule: "the demonstration page is served at / and /throng.js; move the path or turn the page off",
    },
];

/// Whether the demonstration page or its script is served there.
fn is_page(path: Option<&str>) -> bool {
    matches!(path, Some("/" | "/throng.js"))
}

/// The relations that do not hold, each as its keys and a text. Those with a key of `refused` are left
/// out: its value is not what the operator meant.
pub(super) fn broken(
    config: &Config,
    refused: &[String],
) -> Vec<(&'static [&'static str], String)> {
    RELATIONS
        .iter()
        .filter(|relation| !relation.keys.iter().any(|key| refused.iter().any(|r| r == key)))
        .filter(|relation| !(relation.holds)(config))
        .map(|relation| {
            let values: Vec<String> =
                relation.keys.iter().map(|key| format!("{key} = {}", shown(config, key))).collect();
            (relation.keys, format!("{}: {}", values.join(", "), relation.rule))
        })
        .collect()
}

/// The value of a key as TOML.
fn shown(config: &Config, path: &str) -> String {
    let (section, name) = path.split_once('.').unwrap_or_default();
    let groups = config.groups();
    let of_section = groups.iter().filter(|group| group.section() == section);
    let keys = of_section.flat_map(|group| group.keys().into_iter().map(move |key| (group, key)));
    keys.filter(|(_, key)| key.name == name)
        .map(|(group, key)| print::shown(*group, &key))
        .collect()
}

impl Config {
    /// What is allowed but unwise, one sentence each, to be logged at start.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let beat = &self.heartbeat;
        if beat.interval >= Duration::from_secs(60) {
            warnings.push(format!(
                "heartbeat.ping_interval_ms = {}: most proxies close a connection that is silent for \
                 60 s; 25000 is safe",
                beat.interval.as_millis()
            ));
        }
        if self.transport.tcp.user_timeout > beat.interval + beat.timeout {
            warnings.push(format!(
                "tcp.user_timeout_ms = {}: longer than ping_interval_ms + ping_timeout_ms = {}, so the \
                 heartbeat gives a peer up first",
                self.transport.tcp.user_timeout.as_millis(),
                (beat.interval + beat.timeout).as_millis()
            ));
        }
        if let Some(path) = &self.debug.echo_path {
            warnings.push(format!(
                "debug.echo_path = {path:?}: anyone who can connect can have messages of {} bytes held \
                 and sent back",
                self.debug.echo_max_message_bytes
            ));
        }
        if self.auth.door.mode == AuthMode::Open {
            warnings.push(
                "auth.mode = \"open\": anyone who can connect may join and publish in every room that no \
                 namespace closes, and nobody is known by a name"
                    .into(),
            );
        }
        if self.auth.door.mode == AuthMode::Token && self.auth.door.sources.contains(&Source::Query)
        {
            warnings.push(
                "auth.sources has \"query\": URLs are written to the logs of proxies and browsers, and tokens \
                 with them; a one-time ticket is worth nothing there"
                    .into(),
            );
        }
        if self.transport.tls.listen.is_none() && !self.lists.certificates.is_empty() {
            warnings.push("[[certificate]]: without effect, as tls.listen is off".to_owned());
        }
        let by_hook = |deliver| matches!(deliver, Deliver::Webhook | Deliver::Both);
        let told = self.lists.namespaces.iter().any(|one| by_hook(one.deliver));
        let is_heard = |hook: &Webhook| hook.events.contains(&TidingKind::Message);
        if told && !self.lists.webhooks.iter().any(is_heard) {
            warnings.push(
                "namespace.deliver: no [[webhook]] has \"message\" among its events, so what is published there \
                 reaches no back end"
                    .to_owned(),
            );
        }
        if self.debug.panic_command {
            warnings.push(
                "debug.panic_command = true: anyone can end their connection by a panic".into(),
            );
        }
        warnings
    }
}
