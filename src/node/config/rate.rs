//! `[[rate]]`: how often one connection may send messages of some types.

use super::group::{group, of};
use super::kind::{Kind, Value, one_of, whole};
use super::kind_text::Types;
use super::limits::OverRate;
use super::list::{About, Row};
use crate::base::glob::Glob;

/// Entries there may be: each is a budget that a closing connection gives back.
pub(super) const MOST: usize = 32;

group! {
    /// One `[[rate]]`.
    pub struct Rate in "rate" {
        /// The types of messages, as "typing" or "throng:whois"; must be given. The first entry that matches
        /// decides.
        "type" Live types: Glob = Glob::new(""), Types;
        /// Messages per second of one connection; must be given. limits.burst_ms is the length of a burst.
        "per_second" Live per_second: u32 = 0, whole(1, 1_000_000).or_zero("not given");
        /// What happens to a message over the rate; "default" stands for limits.over_rate.
        "over_rate" Live over: Option<OverRate> = None, one_of();
    }
}

impl Row for Rate {
    const ABOUT: About = About {
        name: "rate",
        about: &[
            "How often one connection may send messages of some types, beside all other rates (live).",
        ],
        example: &["type = \"typing\"", "per_second = 2"],
        required: &["type", "per_second"],
        unique: Some("type"),
    };
}
