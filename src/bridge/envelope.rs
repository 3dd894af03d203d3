//! What is published around a node's publication.
//!
//! An envelope says which life of which node it comes from and has a number there, so that its own node knows
//! it as its own and others take it once. The order inside is not looked into. What another program publishes
//! has no envelope: it is an order itself, and has no `v`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The version of envelopes; one with another is malformed.
pub(super) const VERSION: u32 = 1;

/// An envelope as it is written.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Envelope<'a> {
    /// The version.
    pub(super) v: u32,
    /// The node.
    #[serde(borrow)]
    pub(super) node: Cow<'a, str>,
    /// Its life.
    pub(super) epoch: u64,
    /// The number of the envelope in that life.
    pub(super) seq: u64,
    /// The publishing connection.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<Cow<'a, str>>,
    /// What is published; nothing in a canary, and where `lost` says what could not be.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) order: Option<&'a RawValue>,
    /// True: something that should have come by this channel was dropped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) lost: bool,
    /// Set: the node of that tag will ask, by that number, how many connections this has reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<(u32, u64)>,
}

/// What came by a channel.
#[derive(Debug)]
pub(super) enum Letter<'a> {
    /// Of another node.
    Far(Envelope<'a>),
    /// Of another program.
    Foreign(&'a str),
}

/// Who writes envelopes here.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    node: String,
    epoch: u64,
    /// What all envelopes of this life begin with.
    head: Vec<u8>,
    next: u64,
}

impl Writer {
    pub(super) fn new(node: &str, epoch: u64) -> Self {
        let mut writer = Self { node: node.to_owned(), epoch, head: Vec::new(), next: 0 };
        let whole = writer.write(None, None, false);
        // All up to the number; the number itself and what follows differ.
        let at = whole.windows(6).position(|window| window == b"\"seq\":").unwrap_or(0);
        writer.head = whole[..at].to_vec();
        writer
    }

    /// The next envelope. `order` is JSON.
    pub(super) fn write(
        &mut self,
        from: Option<&str>,
        order: Option<&RawValue>,
        lost: bool,
    ) -> Vec<u8> {
        self.write_counted(from, order, lost, None)
    }

    /// The next envelope, of which somebody will ask how many connections it has reached.
    pub(super) fn write_counted(
        &mut self,
        from: Option<&str>,
        order: Option<&RawValue>,
        lost: bool,
        count: Option<(u32, u64)>,
    ) -> Vec<u8> {
        let envelope = Envelope {
            v: VERSION,
            node: Cow::Borrowed(&self.node),
            epoch: self.epoch,
            seq: self.next,
            from: from.map(Cow::Borrowed),
            order,
            lost,
            count,
        };
        self.next += 1;
        serde_json::to_vec(&envelope).unwrap_or_default()
    }

    /// True for what this life of this node has written. Told without reading the whole.
    pub(super) fn wrote(&self, payload: &[u8]) -> bool {
        payload.starts_with(&self.head)
    }
}

/// Reads what came by a channel.
///
/// # Errors
/// When it is neither an envelope of this version nor without one.
pub(super) fn read(text: &str) -> Result<Letter<'_>, String> {
    #[derive(Deserialize)]
    struct Peek<'a> {
        #[serde(borrow, default)]
        v: Option<&'a RawValue>,
    }
    let peek: Peek<'_> =
        serde_json::from_str(text).map_err(|error| format!("no JSON object: {error}"))?;
    if peek.v.is_none() {
        return Ok(Letter::Foreign(text));
    }
    let envelope: Envelope<'_> =
        serde_json::from_str(text).map_err(|error| format!("no envelope: {error}"))?;
    if envelope.v != VERSION {
        return Err(format!("an envelope of version {}; expected {VERSION}", envelope.v));
    }
    Ok(Letter::Far(envelope))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn an_envelope_reads_back_as_written_with_its_order_untouched() {
        let mut writer = Writer::new("a \"b\"", 1 << 60);
        let order = raw(r#"{"type": "x", "payload" : [1.50]}"#);
        let bytes = writer.write(Some("1-2-3-4"), Some(order), false);
        let text = str::from_utf8(&bytes).expect("UTF-8");
        let Letter::Far(envelope) = read(text).expect("an envelope") else { panic!("{text}") };
        assert_eq!((&*envelope.node, envelope.epoch, envelope.seq), ("a \"b\"", 1 << 60, 1));
        assert_eq!(envelope.from.as_deref(), Some("1-2-3-4"));
        assert_eq!(envelope.order.map(RawValue::get), Some(order.get()));
        let bytes = writer.write(None, None, true);
        let Ok(Letter::Far(envelope)) = read(str::from_utf8(&bytes).expect("UTF-8")) else {
            panic!("no envelope")
        };
        assert!(envelope.lost && envelope.order.is_none() && envelope.seq == 2);
    }

    #[test]
    fn a_node_knows_its_own_envelopes_and_those_of_no_other_life_or_node() {
        let mut writer = Writer::new("a", 7);
        let own = writer.write(None, Some(raw("{}")), false);
        assert!(writer.wrote(&own));
        for (node, epoch) in [("a", 70), ("a", 8), ("ab", 7), ("b", 7)] {
            let other = Writer::new(node, epoch).write(None, Some(raw("{}")), false);
            assert!(!writer.wrote(&other), "{node} {epoch}");
        }
    }

    #[test]
    fn what_has_no_version_is_foreign_and_what_is_no_envelope_is_refused() {
        assert!(matches!(read(r#"{"type":"chat"}"#), Ok(Letter::Foreign(_))));
        for text in [
            "",
            "hello",
            "[1]",
            "{",
            r#"{"v":1}"#,
            r#"{"v":2,"node":"a","epoch":1,"seq":1}"#,
            r#"{"v":1,"node":"a","epoch":1,"seq":1,"more":1}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in ".*") {
            let _ = read(&text);
        }
    }
}
