//! What nodes tell each other about their users on the channel: one JSON object.
//!
//! Names stand in three lists, by how the users stand, so that a thousand of them cost little more than their
//! letters. A note without changes says which number is the last, so that one whose last note was lost finds
//! that out.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Batch, Change, Mark, Name, Pose};

/// The version of notes; one with another is malformed.
const VERSION: u32 = 1;
/// Bytes of a name.
const NAME_BYTES: usize = 1024;

/// A note as it is written.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    v: u32,
    tag: u32,
    #[serde(borrow)]
    node: Cow<'a, str>,
    life: u64,
    seq: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<Mark>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    active: Vec<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    idle: Vec<Cow<'a, str>>,
    /// With the time in milliseconds since 1970, and whether no other node was thought to have the user.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    gone: Vec<(Cow<'a, str>, u64, bool)>,
}

/// A note that was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) tag: u32,
    pub(super) node: Name,
    pub(super) batch: Batch,
}

impl Note {
    /// Reads what came by the channel.
    ///
    /// # Errors
    /// When it is no note of this version.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let written: Written<'_> =
            serde_json::from_str(text).map_err(|error| format!("no note: {error}"))?;
        if written.v != VERSION {
            return Err(format!("a note of version {}; expected {VERSION}", written.v));
        }
        let mut changes = Vec::new();
        let mut add = |user: &str, pose, at, last| {
            let is_name = !user.is_empty() && user.len() <= NAME_BYTES;
            changes.push(Change { user: Name::from(user), pose, at, last });
            if is_name { Ok(()) } else { Err(format!("a name of {} bytes", user.len())) }
        };
        for (users, pose) in [(&written.active, Pose::Active), (&written.idle, Pose::Idle)] {
            users.iter().try_for_each(|user| add(user, pose, 0, false))?;
        }
        written.gone.iter().try_for_each(|(user, at, last)| add(user, Pose::Gone, *at, *last))?;
        let batch = Batch { life: written.life, seq: written.seq, mark: written.mark, changes };
        Ok(Self { tag: written.tag, node: Name::from(&*written.node), batch })
    }
}

/// A batch as it is told.
pub(super) fn write(tag: u32, node: &str, batch: &Batch) -> Vec<u8> {
    let of = |pose| {
        let changes = batch.changes.iter().filter(move |change| change.pose == pose);
        changes.map(|change| (Cow::Borrowed(&*change.user), change.at, change.last))
    };
    let written = Written {
        v: VERSION,
        tag,
        node: Cow::Borrowed(node),
        life: batch.life,
        seq: batch.seq,
        mark: batch.mark,
        active: of(Pose::Active).map(|(user, ..)| user).collect(),
        idle: of(Pose::Idle).map(|(user, ..)| user).collect(),
        gone: of(Pose::Gone).collect(),
    };
    serde_json::to_vec(&written).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn change(user: &str, pose: Pose, at: u64, last: bool) -> Change {
        Change { user: Name::from(user), pose, at, last }
    }

    #[test]
    fn a_note_reads_back_as_it_was_written() {
        let changes = vec![
            change("\u{1e}ada \"x\"", Pose::Active, 0, false),
            change("t\u{1f}\u{1e}bob", Pose::Idle, 0, false),
            change("\u{1e}eve", Pose::Gone, 1 << 41, true),
        ];
        let batch = Batch { life: 1 << 60, seq: 9, mark: Some(Mark::Whole), changes };
        let bytes = write(7, "a \"b\"", &batch);
        let note = Note::read(str::from_utf8(&bytes).expect("UTF-8")).expect("a note");
        assert_eq!(note, Note { tag: 7, node: "a \"b\"".into(), batch });
    }

    #[test]
    fn what_is_no_note_is_refused() {
        let long =
            format!(r#"{{"v":1,"tag":1,"node":"a","life":1,"seq":1,"active":["{:>1025}"]}}"#, 1);
        for text in [
            "",
            "[]",
            "{}",
            r#"{"v":2,"tag":1,"node":"a","life":1,"seq":1}"#,
            r#"{"v":1,"tag":1,"node":"a","life":1,"seq":1,"mark":"end"}"#,
            r#"{"v":1,"tag":1,"node":"a","life":1,"seq":1,"more":1}"#,
            r#"{"v":1,"tag":1,"node":"a","life":1,"seq":1,"idle":[""]}"#,
            &long,
        ] {
            assert!(Note::read(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in ".*") {
            let _ = Note::read(&text);
        }
    }
}
