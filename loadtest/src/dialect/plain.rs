//! No protocol: the path is the command, the message is the payload.

use std::borrow::Cow;

use super::{Push, Role};

/// The path of a role.
pub(super) fn path(role: Role<'_>) -> String {
    match role {
        Role::Member(room) => format!("/room/{room}"),
        Role::Publisher(room) => format!("/publish/{room}"),
        Role::Echo | Role::Idle => "/echo".to_owned(),
    }
}

/// A delivery, or an echo for whoever is there for echoes.
pub(super) fn parse(text: &[u8], echo: bool) -> Push<'_> {
    let payload = Cow::Borrowed(text);
    if echo {
        Push::Echo { payload }
    } else {
        Push::Publication { room: Cow::Borrowed(b""), offset: None, payload }
    }
}
