//! Revocations over nodes: what this node takes back is told to the others, and what they have taken back holds here.
//!
//! What crosses is a text of few fields, which is also what is kept in Redis. It says when the revocation ends, so
//! whoever reads it later knows whether it still matters.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::auth::Revocation;
use crate::bridge::{Ban, Refused};
use crate::node::keeper::{kept_revocation, revocation};
use crate::node::link::Link;
use crate::shard::Mail;
use crate::store::Revoked;

const VERSION: u32 = 1;

/// A revocation as it crosses.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Note {
    v: u32,
    /// The room of the user, or the token's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<Box<str>>,
    #[serde(default)]
    issued: u64,
    until: u64,
}

/// What other nodes are told of a revocation.
pub(super) fn ban(taken: &Revocation) -> Ban {
    let Revoked { is_token, name, issued, until } = kept_revocation(taken);
    let (user, token) = if is_token { (None, Some(name)) } else { (Some(name), None) };
    let note = Note { v: VERSION, user, token, issued, until };
    Ban { text: serde_json::to_string(&note).unwrap_or_default(), until }
}

/// What a node has told.
fn read(text: &str) -> Result<Revocation, String> {
    let note: Note = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if note.v != VERSION {
        return Err(format!("expected version {VERSION}"));
    }
    let (is_token, name) = match (note.user, note.token) {
        (Some(user), None) => (false, user),
        (None, Some(token)) => (true, token),
        _ => return Err("expected either a user or a token".to_owned()),
    };
    let Note { issued, until, .. } = note;
    Ok(revocation(Revoked { is_token, name, issued, until }))
}

impl Link {
    /// Takes in a revocation of another node, or one of our own that comes back; until when it holds.
    pub(super) fn take_ban(&mut self, text: &str) -> Result<u64, Refused> {
        if self.is_full() {
            return Err(Refused::Full);
        }
        let taken = Arc::new(read(text).map_err(Refused::Malformed)?);
        for waiting in &mut self.waiting.lines {
            waiting.push_back(Mail::Revoke(Arc::clone(&taken)));
        }
        Ok(taken.until())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_arrives_as_it_was_told_and_nothing_else_is_one() {
        let (issued, until) = (7, 9);
        for tenant in [None, Some("acme")] {
            let tenant = tenant.map(Box::from);
            let taken = Revocation::User { tenant, user: "a\"da".into(), issued, until };
            assert_eq!(read(&ban(&taken).text), Ok(taken));
        }
        let taken = Revocation::Token { id: "j".into(), until };
        assert_eq!((ban(&taken).until, read(&ban(&taken).text)), (until, Ok(taken)));
        for wrong in [
            "",
            "{}",
            r#"{"v":2,"token":"j","until":9}"#,
            r#"{"v":1,"token":"j","user":"a","until":9}"#,
            r#"{"v":1,"until":9}"#,
            r#"{"v":1,"token":"j"}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
