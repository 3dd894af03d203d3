//! What the application's back end is asked, and how its answer is read.
//!
//! A question is a JSON object that names who asks for what; an answer says yes, or no with a code and a
//! text. Both are values: who posts them, and how long that takes, is not known here. The same question
//! has the same key, and an answer is remembered under it for a moment (`rulings`). What tells two
//! connections of one user apart is no part of the key, except for clients who are nobody in particular.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::grants::Right;
use super::veto::Veto;
use crate::base::id::ConnAddress;

/// What the back end is asked about, and what holds for its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consult {
    /// Whether it is asked who may come in.
    pub connect: bool,
    /// A question that nobody answers counts as allowed.
    pub lenient: bool,
    /// Questions that may wait to leave a shard.
    pub most_waiting: usize,
    /// How long a yes is remembered.
    pub allowed_for: Duration,
    /// How long a no is remembered.
    pub refused_for: Duration,
    /// Answers that a shard remembers.
    pub remembered: usize,
}

/// Who asks to come in, or to use a room.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The user; `None` for nobody in particular.
    pub user: Option<&'a str>,
    /// The user's tenant.
    pub tenant: Option<&'a str>,
    /// The connection.
    pub client: ConnAddress,
    /// Where it comes from, as far as that is known.
    pub address: Option<&'a str>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Wish<'a> {
    /// To come in.
    Connect {
        /// The page that the request came from.
        origin: Option<&'a str>,
        /// The path of the request.
        path: &'a str,
        /// What the token says of the connection.
        metadata: Option<&'a RawValue>,
    },
    /// To use a right in the room that clients of the tenant call so.
    Room {
        /// The room.
        room: &'a str,
        /// The right.
        right: Right,
    },
}

/// A question as it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    question: &'static str,
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    client_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<&'a RawValue>,
}

/// The document that asks.
#[must_use]
pub fn question(asker: &Asker<'_>, wish: &Wish<'_>) -> Vec<u8> {
    let mut written = Written {
        question: "connect",
        user_id: asker.user,
        tenant: asker.tenant,
        client_id: asker.client.to_string(),
        address: asker.address,
        room: None,
        origin: None,
        path: None,
        meta: None,
    };
    match *wish {
        Wish::Connect { origin, path, metadata } => {
            (written.origin, written.path, written.meta) = (origin, Some(path), metadata);
        }
        Wish::Room { room, right } => {
            (written.question, written.room) = (right.name(), Some(room));
        }
    }
    // Text, and JSON that was read as such: neither can fail to be written.
    serde_json::to_vec(&written).unwrap_or_default()
}

/// The name of a question: two with the same name have the same answer. What joins the parts is a control
/// character, which no name, address or origin may hold; metadata, which may, stands last.
#[must_use]
pub fn key(asker: &Asker<'_>, wish: &Wish<'_>) -> Box<str> {
    let (tenant, user) = (asker.tenant.unwrap_or(""), asker.user.unwrap_or(""));
    let address = asker.address.unwrap_or("");
    match *wish {
        Wish::Connect { origin, path, metadata } => {
            let (origin, meta) = (origin.unwrap_or(""), metadata.map_or("", RawValue::get));
            format!("connect\u{1f}{tenant}\u{1f}{user}\u{1f}{address}\u{1f}{origin}\u{1f}{path}\u{1f}{meta}")
        }
        Wish::Room { room, right } => {
            let right = right.name();
            match asker.user {
                Some(user) => format!("{right}\u{1f}{tenant}\u{1f}{user}\u{1f}{room}"),
                None => format!("{right}\u{1f}{room}\u{1f}\u{1f}{}", asker.client),
            }
        }
    }
    .into()
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// Yes.
    Allow,
    /// No, and why.
    Refuse(Veto),
    /// Nobody answered, or not in time, or not so that it can be read.
    Undecided,
}

/// An answer as it is written. Fields that are not known here are for later versions.
#[derive(Deserialize)]
struct Answer {
    allow: bool,
    #[serde(default)]
    code: Option<u16>,
    #[serde(default)]
    message: Option<String>,
}

impl Ruling {
    /// Reads an answer.
    ///
    /// # Errors
    /// What is wrong with it; nothing of it is repeated.
    pub fn read(document: &[u8]) -> Result<Self, &'static str> {
        let answer: Answer = serde_json::from_slice(document)
            .map_err(|_| "expected an answer as {\"allow\":true} or {\"allow\":false}")?;
        if answer.allow {
            return Ok(Self::Allow);
        }
        let veto = Veto::new(answer.code, answer.message.as_deref());
        veto.map(Self::Refuse).ok_or("expected the code 401 or 403")
    }

    /// What holds when both are said of one wish: a no is a no, and what is undecided is not a yes.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Refuse(veto), _) | (_, Self::Refuse(veto)) => Self::Refuse(veto),
            (Self::Undecided, _) | (_, Self::Undecided) => Self::Undecided,
            (Self::Allow, Self::Allow) => Self::Allow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{ConnId, ShardId};

    const fn client(index: u32) -> ConnAddress {
        ConnAddress::alone(ShardId(1), ConnId { index, generation: 7 })
    }

    fn ada(index: u32) -> Asker<'static> {
        let address = Some("192.0.2.1");
        Asker { user: Some("ada"), tenant: Some("acme"), client: client(index), address }
    }

    fn nobody(index: u32) -> Asker<'static> {
        Asker { user: None, tenant: None, client: client(index), address: None }
    }

    #[test]
    fn a_question_names_who_asks_for_what_and_nothing_that_is_not_known() {
        let text = |asker: &Asker<'_>, wish: &Wish<'_>| {
            String::from_utf8(question(asker, wish)).expect("text")
        };
        let meta: &RawValue = serde_json::from_str(r#"{"plan":  1.0}"#).expect("JSON");
        let come = Wish::Connect { origin: Some("https://a"), path: "/ws", metadata: Some(meta) };
        assert_eq!(
            text(&ada(2), &come),
            r#"{"question":"connect","userId":"ada","tenant":"acme","clientId":"1-2-7","address":"192.0.2.1","origin":"https://a","path":"/ws","meta":{"plan":  1.0}}"#
        );
        let join = Wish::Room { room: "a \"b\"", right: Right::Join };
        assert_eq!(
            text(&nobody(2), &join),
            r#"{"question":"join","userId":null,"clientId":"1-2-7","room":"a \"b\""}"#
        );
    }

    #[test]
    fn a_key_is_one_of_a_user_and_a_wish_and_of_a_connection_where_there_is_no_user() {
        let wishes = [
            Wish::Room { room: "a", right: Right::Join },
            Wish::Room { room: "a", right: Right::Publish },
            Wish::Room { room: "b", right: Right::Join },
            Wish::Connect { origin: None, path: "/a", metadata: None },
            Wish::Connect { origin: Some("a"), path: "/a", metadata: None },
        ];
        let askers = [
            ada(1),
            Asker { user: Some("bob"), ..ada(1) },
            Asker { tenant: None, ..ada(1) },
            Asker { tenant: Some("a"), user: Some("cmeada"), ..ada(1) },
            nobody(1),
        ];
        let keys: Vec<Box<str>> =
            askers.iter().flat_map(|asker| wishes.iter().map(|wish| key(asker, wish))).collect();
        for (at, one) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(one), "{one:?} twice");
        }
        for wish in &wishes {
            assert_eq!(key(&ada(1), wish), key(&ada(2), wish), "one user");
        }
        assert_ne!(key(&nobody(1), &wishes[0]), key(&nobody(2), &wishes[0]));
        assert_eq!(key(&nobody(1), &wishes[3]), key(&nobody(2), &wishes[3]), "one address");
    }

    /// What stands in the document, block by block, under this label.
    fn blocks(label: &str) -> Vec<&'static str> {
        let document = include_str!("../../docs/webhooks.md");
        let fence = format!("```json {label}\n");
        let blocks = document.split(fence.as_str()).skip(1);
        blocks.filter_map(|rest| rest.split("\n```").next()).collect()
    }

    #[test]
    fn the_examples_of_the_document_are_what_is_asked_and_what_is_understood() {
        let client = ConnAddress::alone(ShardId(0), ConnId { index: 0x11, generation: 3 });
        let known = Asker { client, ..ada(0) };
        let meta: &RawValue = serde_json::from_str(r#"{"plan":"pro"}"#).expect("JSON");
        let origin = Some("https://app.example.com");
        let come = Wish::Connect { origin, path: "/ws", metadata: Some(meta) };
        let join = Wish::Room { room: "team:7", right: Right::Join };
        let stranger = Asker { user: None, tenant: None, ..known };
        let asked = [question(&known, &come), question(&stranger, &join)];
        let asked = asked.map(|document| String::from_utf8(document).expect("text"));
        assert_eq!(blocks("question"), asked);
        let [yes, no] = blocks("answer")[..] else { panic!("two answers") };
        assert_eq!(Ruling::read(yes.as_bytes()), Ok(Ruling::Allow));
        let veto = Veto { status: 403, words: "your account is suspended".into() };
        assert_eq!(Ruling::read(no.as_bytes()), Ok(Ruling::Refuse(veto)));
    }

    #[test]
    fn an_answer_is_read_strictly_where_it_decides() {
        assert_eq!(Ruling::read(br#"{"allow":true,"later":1}"#), Ok(Ruling::Allow));
        let veto = |status, words: &str| Ruling::Refuse(Veto { status, words: words.into() });
        let no = br#"{"allow":false,"code":401,"message":"suspended"}"#;
        assert_eq!(Ruling::read(no), Ok(veto(401, "suspended")));
        let bare = Ruling::read(br#"{"allow":false}"#);
        assert!(matches!(bare, Ok(Ruling::Refuse(Veto { status: 403, .. }))), "{bare:?}");
        for wrong in [
            &b""[..],
            b"true",
            b"{}",
            br#"{"allow":"true"}"#,
            br#"{"allow":1}"#,
            br#"{"allow":true,"allow":false}"#,
            br#"{"allow":false,"code":500}"#,
            br#"{"allow":false,"code":"401"}"#,
            br#"{"allow":true} {"allow":true}"#,
        ] {
            assert!(Ruling::read(wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }

    #[test]
    fn a_no_outweighs_and_what_is_undecided_is_no_yes() {
        let no = Ruling::Refuse(Veto { status: 403, words: "no".into() });
        let yes = Ruling::Allow;
        assert_eq!(yes.clone().and(yes.clone()), yes);
        assert_eq!(yes.clone().and(Ruling::Undecided), Ruling::Undecided);
        assert_eq!(Ruling::Undecided.and(no.clone()), no);
        assert_eq!(no.clone().and(yes), no);
    }
}
