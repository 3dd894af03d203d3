//! `[auth]`: who may connect, and how a client says who it is.
//!
//! The rows stand apart from the other sections because they are many; the words they take stand here
//! too. Keys and secrets come from the configuration itself or from files; the files are read when the
//! node starts and on SIGHUP, not here.

use std::time::Duration;

use super::group::{group, of};
use super::hook::AuthWebhook;
use super::kind::{Flag, Kind, Value, Word, millis, one_of, whole};
use super::kind_text::{Hidden, list_of, text};
use super::presence::Presence;
use crate::auth::{Algorithm, OriginRule, Source, Who};
use crate::base::secret::Secret;

/// `[auth]`, by what it is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Auth {
    /// Who comes in and from where.
    pub door: Door,
    /// What tokens are checked with.
    pub keys: Keys,
    /// Which tokens are checked beside the shards.
    pub checks: Checks,
    /// Where keys are fetched.
    pub jwks: JwksSource,
    /// What a token must say, and under which names.
    pub tokens: Tokens,
    /// `[presence]`: who is there, and what is kept of them.
    pub presence: Presence,
    /// `[auth_webhook]`.
    pub webhook: AuthWebhook,
}

impl Auth {
    /// True when a key is named, or a place to fetch some.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.keys.is_some() || !self.jwks.url.is_empty()
    }
}

/// Whether a client has to say who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// It need not, and the engine listens on loopback only.
    Local,
    /// It need not, wherever it comes from.
    Open,
    /// It must.
    Token,
}

impl Word for AuthMode {
    const ALL: &'static [(Self, &'static str)] =
        &[(Self::Local, "local"), (Self::Open, "open"), (Self::Token, "token")];
}

impl Word for Source {
    const ALL: &'static [(Self, &'static str)] = Source::ALL;
}

impl Word for Algorithm {
    const ALL: &'static [(Self, &'static str)] =
        &[(Self::Hs256, "HS256"), (Self::Hs384, "HS384"), (Self::Hs512, "HS512")];
}

impl Word for Option<Who> {
    const ALL: &'static [(Self, &'static str)] = &[
        (None, "auto"),
        (Some(Who::Anyone), "anyone"),
        (Some(Who::Authenticated), "authenticated"),
        (Some(Who::Granted), "granted"),
        (Some(Who::Webhook), "webhook"),
        (Some(Who::Nobody), "nobody"),
    ];
}

/// A rule for origins.
pub(super) struct OriginText;

impl Kind for OriginText {
    type Value = String;

    fn read(&self, value: &Value) -> Option<String> {
        let Value::Text(text) = value else { return None };
        (text.len() <= 1024 && OriginRule::parse(text).is_ok()).then(|| text.clone())
    }

    fn write(&self, value: &String) -> Value {
        Value::Text(value.clone())
    }

    fn expectation(&self) -> String {
        "an origin, as \"https://app.example.com\", \"*.example.com\", \"self\", \"null\", \"*\" or \
         \"regex:\" with a whole expression for the whole origin"
            .to_owned()
    }
}

impl Keys {
    /// True when a key is named.
    #[must_use]
    pub fn is_some(&self) -> bool {
        !(self.secret.is_empty()
            && self.secret_file.is_empty()
            && self.public_key_files.is_empty()
            && self.jwks_file.is_empty())
    }
}

const DAY_MS: u64 = 86_400_000;

group! {
    /// The part of `[auth]` that says who comes in and from where.
    pub struct Door in "auth" {
        /// Who may connect: "token" whoever shows a valid token, "open" anyone who can reach the engine, "local"
        /// anyone on this machine, and then the engine listens on loopback only.
        "mode" Restart mode: AuthMode = AuthMode::Local, one_of();
        /// Where a token may stand, in this order: the first place that holds one decides. With "message" a
        /// client may come in and say who it is in its first message, with "payload" one of Socket.IO when it
        /// connects; with "certificate" the one that it has shown by TLS does: the subject is the user.
        "sources" Live sources: Vec<Source> = vec![Source::Header, Source::Subprotocol],
            list_of(8, one_of());
        /// The cookie that holds a token, where "cookie" is a source.
        "cookie" Live cookie: String = "throng_token".to_owned(), text(128);
        /// Patterns of the rooms that those may join, publish to and look at who are known by a certificate.
        "certificate_rooms" Live certificate_rooms: Vec<String> = Vec::new(), list_of(64, text(256));
        /// The web pages that may connect. When empty any may, unless "cookie" or "certificate" is a source; then
        /// those of the same origin.
        "allowed_origins" Live allowed_origins: Vec<String> = Vec::new(), list_of(64, OriginText);
        /// Refuse requests without the header Origin, which programs do not send.
        "require_origin" Live require_origin: bool = false, Flag;
        /// Answer a browser's wrong token by an upgrade and close 1008 with the reason, which scripts can read,
        /// instead of 401.
        "browser_errors" Live browser_errors: bool = false, Flag;
        /// From the handshake to the first message, where that is to say who the client is; beyond it close
        /// 1008.
        "deadline_ms" Live deadline: Duration = Duration::from_secs(10), millis(100, DAY_MS);
        /// How long before the end of its token a client is asked for a fresh one.
        "reauth_before_ms" Live reauth_before: Duration = Duration::from_secs(60),
            millis(1000, DAY_MS).or_zero("never");
        /// Revocations remembered at a time, per shard.
        "max_revocations" Restart max_revocations: u32 = 100_000, whole(16, 10_000_000);
    }
}

group! {
    /// The part of `[auth]` that says what tokens are checked with.
    pub struct Keys in "auth" {
        /// A secret shared with the issuer of tokens. A file keeps it out of the configuration.
        "secret" Live secret: Secret = Secret::default(), Hidden;
        /// A file that holds the secret; a line end behind it does not count.
        "secret_file" Live secret_file: String = String::new(), text(4096).or_empty("none");
        /// The algorithm that the secret is for.
        "secret_algorithm" Live secret_algorithm: Algorithm = Algorithm::Hs256, one_of();
        /// Files with a public key each, in PEM: RSA (RS256), P-256 (ES256) or Ed25519 (EdDSA).
        "public_key_files" Live public_key_files: Vec<String> = Vec::new(), list_of(16, text(4096));
        /// A file with a JWK set.
        "jwks_file" Live jwks_file: String = String::new(), text(4096).or_empty("none");
    }
}

/// A URL to fetch from or to post to, or an empty string for none.
pub(super) struct FetchUrl;

impl Kind for FetchUrl {
    type Value = String;

    fn read(&self, value: &Value) -> Option<String> {
        let Value::Text(text) = value else { return None };
        let parsed: Option<hyper::Uri> = text.parse().ok();
        let fits = parsed.is_some_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.authority().is_some_and(|authority| {
                    let (whole, host) = (authority.as_str(), authority.host());
                    !whole.contains('@') && (whole == host || authority.port_u16().is_some())
                })
        });
        (text.is_empty() || fits && text.len() <= 2048).then(|| text.clone())
    }

    fn write(&self, value: &String) -> Value {
        Value::Text(value.clone())
    }

    fn expectation(&self) -> String {
        "an http or https URL without a user, as \"https://id.example.com/jwks.json\", or \"\" (none)"
            .to_owned()
    }
}

group! {
    /// The part of `[auth]` that says where keys are fetched.
    pub struct JwksSource in "auth" {
        /// A URL with a JWK set, fetched at start and again and again. When that fails, what was fetched last
        /// stays good.
        "jwks_url" Live url: String = String::new(), FetchUrl;
        /// How often it is fetched.
        "jwks_interval_ms" Live interval: Duration = Duration::from_secs(300), millis(1000, DAY_MS);
        /// How long a fetch may take.
        "jwks_timeout_ms" Live timeout: Duration = Duration::from_secs(5), millis(10, 60_000);
        /// The least time between two fetches, after a failure or when tokens name keys nobody knows.
        "jwks_cool_down_ms" Live cool_down: Duration = Duration::from_secs(10), millis(100, DAY_MS);
    }
}

group! {
    /// The part of `[auth]` that says which tokens are checked beside the shards.
    pub struct Checks in "auth" {
        /// Threads that check tokens whose signature takes long; 0 checks all of them in the shards.
        "check_threads" Restart threads: u16 = 1, whole(0, 64);
        /// What the check of a signature may cost for it to be done in the shard. A shared secret counts as 0, RSA
        /// of 2048 bits as 20 and four times that for twice the bits, P-256 and Ed25519 as 60.
        "check_inline_us" Live inline_us: u32 = 10, whole(0, 100_000);
        /// Tokens of a shard that wait for those threads at one time; beyond it a handshake gets 503.
        "check_waiting" Restart waiting: u32 = 1024, whole(1, 4096);
    }
}

group! {
    /// The part of `[auth]` that says what a token must say, and under which names.
    pub struct Tokens in "auth" {
        /// The audiences of which a token must name one. When empty a token must name none.
        "audiences" Live audiences: Vec<String> = Vec::new(), list_of(16, text(256));
        /// The issuers that are trusted. When empty any is that has the key.
        "issuers" Live issuers: Vec<String> = Vec::new(), list_of(16, text(256));
        /// How far the issuer's clock may be off.
        "leeway_ms" Live leeway: Duration = Duration::from_secs(30), millis(0, 600_000);
        /// Refuse tokens without an end.
        "require_expiry" Live require_expiry: bool = true, Flag;
        /// Bytes of a token.
        "max_token_bytes" Live max_bytes: u32 = 8192, whole(256, 65_536);
        /// The claim that names the user.
        "user_claim" Live user_claim: String = "sub".to_owned(), text(64);
        /// The claim that names the tenant.
        "tenant_claim" Live tenant_claim: String = "tenant".to_owned(), text(64);
        /// The claim that grants rooms.
        "rooms_claim" Live rooms_claim: String = "rooms".to_owned(), text(64);
        /// The claim with limits of the user's own.
        "limits_claim" Live limits_claim: String = "limits".to_owned(), text(64);
        /// The claim with whatever else is to be known about a connection.
        "metadata_claim" Live metadata_claim: String = "meta".to_owned(), text(64);
        /// The claim by which the issuer refuses the user: true, a text, or an object with code (401 or 403)
        /// and message.
        "deny_claim" Live deny_claim: String = "deny".to_owned(), text(64);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;

    /// What ends the group in which it stands would match the beginning of an origin only.
    #[test]
    fn an_expression_for_origins_that_is_none_by_itself_is_refused_by_key_and_value() {
        let open = r#"["self", "regex:https://a)|(?:https://b"]"#;
        for (text, key) in [
            ("[auth]\nallowed_origins = ", "throng.toml:2: auth.allowed_origins"),
            ("[[namespace]]\npattern = \"a\"\norigins = ", "throng.toml:3: namespace.origins"),
        ] {
            let error = parse(&format!("{text}{open}\n"), &[]).expect_err("no expression");
            for part in [
                format!("{key} = {open}: expected a list"),
                "\"regex:\" with a whole expression for the whole origin".to_owned(),
            ] {
                assert!(error.contains(&part), "{part} is not in {error}");
            }
            let closed = r#"["self", "regex:(?:https://a)|(?:https://b)"]"#;
            assert!(parse(&format!("{text}{closed}\n"), &[]).is_ok(), "{key}");
        }
    }
}
