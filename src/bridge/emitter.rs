//! The channels of programs that publish as servers of Socket.IO let them: by its emitter for Redis.
//!
//! A server of the library hears everything that is emitted. A node of ours subscribes to what concerns it: the channel
//! for several rooms and for everyone, that of each room with members here, and those of its own connections, as each
//! is a room of its own to the library. What an emitter says is read by the node.

use super::life::ALL;

/// What came by such a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// An event for clients.
    Event,
    /// Something that servers of the library do for each other.
    Request,
}

/// Which channels those are.
#[derive(Debug)]
pub(super) struct Emitter {
    /// What the names of channels begin with.
    key: String,
    /// What the ids of this node's connections begin with.
    own: String,
}

const ROOM: &str = "room:";

impl Emitter {
    pub(super) fn new(key: &str, tag: u32) -> Self {
        Self { key: key.to_owned(), own: format!("{tag:x}-") }
    }

    /// The emitters' channels beside one of ours; names of Redis, without a prefix.
    pub(super) fn beside(&self, channel: &str) -> Vec<String> {
        let key = &self.key;
        if channel == ALL {
            return vec![format!("{key}#/#"), format!("{key}-request#/#")];
        }
        // What begins as a connection's id does is in the pattern.
        let room = channel.strip_prefix(ROOM).filter(|room| !room.starts_with(&self.own));
        room.map(|room| format!("{key}#/#{room}#")).into_iter().collect()
    }

    /// The pattern of the channels of this node's connections.
    pub(super) fn own(&self) -> String {
        let mut pattern = String::new();
        for letter in self.key.chars() {
            if matches!(letter, '*' | '?' | '[' | ']' | '^' | '\\') {
                pattern.push('\\');
            }
            pattern.push(letter);
        }
        format!("{pattern}#/#{}*#", self.own)
    }

    /// What comes by the channel of this name; `None` where it is none of theirs.
    pub(super) fn said(&self, name: &str) -> Option<Said> {
        let rest = name.strip_prefix(&*self.key)?;
        if rest == "-request#/#" {
            return Some(Said::Request);
        }
        rest.starts_with("#/#").then_some(Said::Event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_hears_what_concerns_it_and_each_thing_by_one_channel() {
        let emitter = Emitter::new("socket.io", 0xab);
        assert_eq!(emitter.beside("all"), ["socket.io#/#", "socket.io-request#/#"]);
        assert_eq!(emitter.beside("room:lobby"), ["socket.io#/#lobby#"]);
        assert_eq!(emitter.beside("room:ab-1-2-3"), Vec::<String>::new(), "the pattern has it");
        assert_eq!(emitter.beside("tenant:t:room:lobby"), Vec::<String>::new());
        assert_eq!(emitter.own(), "socket.io#/#ab-*#");
        assert_eq!(Emitter::new("a*[b]", 1).own(), "a\\*\\[b\\]#/#1-*#");
        let said = [
            ("socket.io#/#", Some(Said::Event)),
            ("socket.io#/#lobby#", Some(Said::Event)),
            ("socket.io-request#/#", Some(Said::Request)),
            ("socket.io#/admin#", None),
            ("throng:all", None),
        ];
        for (name, expected) in said {
            assert_eq!(emitter.said(name), expected, "{name}");
        }
    }
}
