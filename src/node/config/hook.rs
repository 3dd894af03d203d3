//! `[auth_webhook]`: the application's back end that is asked who may come in and who may use a room.
//!
//! What cannot be asked in time is decided by `fail`, and the default decides against the client: a back end
//! that is down must not open doors. How many questions there may be at a time is bounded twice, where
//! they wait and where they are under way, so that a dead back end costs its time-out and nothing else.

use std::time::Duration;

use super::auth::FetchUrl;
use super::group::{group, of};
use super::kind::{Flag, Kind, Value, Word, millis, one_of, whole};
use super::kind_text::{Hidden, Text};
use crate::base::secret::Secret;

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

const DAY_MS: u64 = 86_400_000;

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
