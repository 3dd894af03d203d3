//! `[[schema]]`: what payloads of some types of publications must look like.

use super::group::{group, of};
use super::kind::{Kind, Pattern, Value, whole};
use super::kind_text::{Text, Types, text};
use super::list::{About, Row};
use crate::base::glob::Glob;

group! {
    /// One `[[schema]]`.
    pub struct Schema in "schema" {
        /// The rooms, as in [[namespace]]. With "*" publications to users, connections and everyone are meant
        /// too. Must be given.
        "rooms" Live rooms: Glob = Glob::new(""), Pattern;
        /// The types of publications, as "order" or "order.*"; must be given.
        "type" Live types: Glob = Glob::new(""), Types;
        /// The JSON schema.
        "schema" Live schema: String = String::new(), text(16_384).or_empty("in schema_file");
        /// A file that holds the JSON schema instead.
        "schema_file" Live schema_file: String = String::new(), Text::path();
        /// Bytes of a payload; a longer one is refused unread.
        "max_payload_bytes" Live payload_bytes: u32 = 16_384, whole(2, 16_777_216);
    }
}

impl Row for Schema {
    const ABOUT: About = About {
        name: "schema",
        about: &[
            "What payloads must look like (live). Every schema that speaks of a publication must hold.",
        ],
        example: &[
            "rooms = \"shop:*\"",
            "type = \"order\"",
            "schema_file = \"/etc/throng/order.json\"",
        ],
        required: &["rooms", "type"],
        unique: None,
    };

    fn broken(&self) -> Option<String> {
        let is_one = self.schema.is_empty() != self.schema_file.is_empty();
        (!is_one).then(|| "expected either a schema or a schema_file".to_owned())
    }
}
