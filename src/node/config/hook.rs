//! `[auth_webhook]`: the application's back end that is asked who may come in and who may use a room; and
//! `[[webhook]]`: back ends that are told what happens.
//!
//! What cannot be asked in time is decided by `fail`, and the default decides against the client: a back end
//! that is down must not open doors. How many questions there may be at a time is bounded twice, where
//! they wait and where they are under way, so that a dead back end costs its time-out and nothing else.

use std::time::Duration;

use super::admin::one_secret;
use super::auth::FetchUrl;
use super::group::{group, of};
use super::kind::{Flag, Kind, Pattern, Value, Word, millis, one_of, whole};
use super::kind_text::{Hidden, Text, list_of, text};
use super::list::{About, Row};
use crate::admin::Reach;
use crate::auth::Deliver;
use crate::base::glob::Glob;
use crate::base::secret::Secret;
use crate::base::tidings::TidingKind;

/// What a question counts as that nobody answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// A no, for the time being.
    Refuse,
    /// A yes.
    Allow,
}

impl Word for OnFailure {
    const ALL: &'static [(Self, &'static str)] =
        &[(Self::Refuse, "refuse"), (Self::Allow, "allow")];
}

impl Word for TidingKind {
    const ALL: &'static [(Self, &'static str)] = TidingKind::ALL;
}

impl Word for Reach {
    const ALL: &'static [(Self, &'static str)] =
        &[(Self::Users, "users"), (Self::Connections, "connections"), (Self::Everyone, "everyone")];
}

impl Word for Deliver {
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::Members, "members"),
        (Self::Webhook, "webhook"),
        (Self::Both, "both"),
        (Self::Stream, "stream"),
    ];
}

const DAY_MS: u64 = 86_400_000;
const GIB: u64 = 1 << 30;

group! {
    /// `[auth_webhook]`.
    pub struct AuthWebhook in "auth_webhook" {
        /// Where questions are posted: who may come in, and who may use a room whose namespace says "webhook".
        "url" Restart url: String = String::new(), FetchUrl;
        /// What questions are signed with, so that the back end knows who asks. At least 16 bytes.
        "secret" Live secret: Secret = Secret::default(), Hidden;
        /// A file that holds the secret instead; white space around it is left out.
        "secret_file" Live secret_file: String = String::new(), Text::path();
        /// Ask before a client comes in, once its token, if any, was found good.
        "connect" Live connect: bool = false, Flag;
        /// What a question counts as that is not answered: "refuse" asks the client to come back, "allow" lets
        /// it do what it wants.
        "fail" Live fail: OnFailure = OnFailure::Refuse, one_of();
        /// How long an answer may take, waiting for a place included.
        "timeout_ms" Live timeout: Duration = Duration::from_secs(2), millis(10, 60_000);
        /// Questions under way at a time.
        "max_concurrent" Live concurrent: u16 = 16, whole(1, 1024);
        /// Questions that wait for a place; beyond it they count as not answered.
        "max_waiting" Live waiting: u32 = 1024, whole(1, 1_048_576);
        /// How long a yes is remembered.
        "allow_cache_ms" Live allowed_for: Duration = Duration::from_secs(10),
            millis(1, DAY_MS).or_zero("not at all");
        /// How long a no is remembered.
        "refuse_cache_ms" Live refused_for: Duration = Duration::from_secs(1),
            millis(1, DAY_MS).or_zero("not at all");
        /// Answers that each shard remembers; each takes some 150 bytes.
        "cache_entries" Live remembered: u32 = 10_000, whole(2, 10_000_000).or_zero("none");
    }
}

group! {
    /// One `[[webhook]]`: a back end that is told what happens.
    pub struct Webhook in "webhook" {
        /// How logs call it; must be given.
        "name" Restart name: String = String::new(), text(64).or_empty("not given");
        /// Where events are posted; must be given.
        "url" Restart url: String = String::new(), FetchUrl;
        /// What requests are signed with, so that the back end knows who tells it. At least 16 bytes.
        "secret" Restart secret: Secret = Secret::default(), Hidden;
        /// A file that holds the secret instead; white space around it is left out.
        "secret_file" Restart secret_file: String = String::new(), Text::path();
        /// What it wants to hear of. A message is what a client publishes in a namespace that says so by
        /// "deliver"; undelivered is what is published to a user without a connection.
        "events" Restart events: Vec<TidingKind> = Vec::new(), list_of(8, one_of());
        /// Events of one request at most.
        "max_batch" Restart batch: u16 = 100, whole(1, 10_000);
        /// How long an event may wait for others to go with.
        "linger_ms" Restart linger: Duration = Duration::from_millis(50), millis(0, 60_000);
        /// How long an answer may take.
        "timeout_ms" Restart timeout: Duration = Duration::from_secs(5), millis(10, 60_000);
        /// How often a request is tried, with growing rests of half a second to half a minute, before its
        /// events are given up.
        "max_attempts" Restart attempts: u16 = 10, whole(1, 1000);
        /// Bytes of events that may wait; beyond it further ones are dropped and counted.
        "max_waiting_bytes" Restart waiting: u32 = 16_777_216, whole(65_536, GIB);
        /// In which rooms its answers may publish; with none here and in "may_reach" they are not read.
        "may_publish" Restart may_publish: Vec<Glob> = Vec::new(), list_of(64, Pattern);
        /// To whom else its answers may publish.
        "may_reach" Restart may_reach: Vec<Reach> = Vec::new(), list_of(3, one_of());
    }
}

impl Row for Webhook {
    const ABOUT: About = About {
        name: "webhook",
        about: &[
            "Back ends that are told what happens, in batches, signed, and again if need be (restart).",
        ],
        example: &[
            "name = \"audit\"",
            "url = \"https://app.example.com/throng/events\"",
            "secret_file = \"/etc/throng/webhook.key\"",
            "events = [\"connected\", \"disconnected\"]",
        ],
        required: &["name", "url", "events"],
        unique: Some("name"),
    };

    fn broken(&self) -> Option<String> {
        one_secret(&self.secret, &self.secret_file)
    }
}
