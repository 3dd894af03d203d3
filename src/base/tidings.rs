//! What happens in the node and may be told to back ends.
//!
//! An event is its kind, by which it is known who wants to hear of it, and a JSON object that says the rest.
//! Who makes one knows nothing of who hears it, and who passes it on does not read it.

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TidingKind {
    /// A client has come in.
    Connected = 1,
    /// It has gone.
    Disconnected = 2,
    /// A connection has become a member of a room.
    Joined = 4,
    /// It is one no more.
    Left = 8,
    /// A client has published where that goes to back ends.
    Message = 16,
    /// A user has come who had no connection.
    Online = 32,
    /// A user has no connection any more, and the grace is over.
    Offline = 64,
    /// Something was published to a user who has no connection.
    Undelivered = 128,
}

impl TidingKind {
    /// Every kind, with its name.
    pub const ALL: &'static [(Self, &'static str)] = &[
        (Self::Connected, "connected"),
        (Self::Disconnected, "disconnected"),
        (Self::Joined, "joined"),
        (Self::Left, "left"),
        (Self::Message, "message"),
        (Self::Online, "online"),
        (Self::Offline, "offline"),
        (Self::Undelivered, "undelivered"),
    ];

    /// The name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

/// Some kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TidingKinds(u8);

impl TidingKinds {
    /// These kinds.
    #[must_use]
    pub fn of(kinds: &[TidingKind]) -> Self {
        Self(kinds.iter().fold(0, |all, kind| all | *kind as u8))
    }

    /// These kinds and those.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// True when the kind is among them.
    #[must_use]
    pub fn has(self, kind: TidingKind) -> bool {
        self.0 & kind as u8 != 0
    }
}

/// Something that has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiding {
    /// What.
    pub kind: TidingKind,
    /// Of whose client, where tenants are told apart.
    pub tenant: Option<Box<str>>,
    /// The rest: a JSON object.
    pub document: Box<[u8]>,
}

impl Tiding {
    /// What it costs while it waits, about, in bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        let tenant = self.tenant.as_ref().map_or(0, |tenant| tenant.len() + 16);
        size_of::<Self>() + tenant + self.document.len() + 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_into_it_and_every_kind_has_a_bit_and_a_name_of_its_own() {
        for (at, (kind, name)) in TidingKind::ALL.iter().enumerate() {
            let set = TidingKinds::of(&[*kind]);
            for (other, (another, _)) in TidingKind::ALL.iter().enumerate() {
                assert_eq!(set.has(*another), at == other);
            }
            assert_eq!(kind.name(), *name);
        }
        let both =
            TidingKinds::of(&[TidingKind::Left]).and(TidingKinds::of(&[TidingKind::Message]));
        assert_eq!(both, TidingKinds::of(&[TidingKind::Message, TidingKind::Left]));
        assert!(!TidingKinds::default().has(TidingKind::Connected));
    }
}
