//! Who a connection is, inside its shard and inside the node.
//!
//! A shard keeps its connections in a slab; an index is reused after a connection has ended, so a
//! [`ConnId`] carries a generation beside it and every late event for the previous owner of the index
//! is recognised. A [`ConnAddress`] adds the shard and is what clients see and name in `except`. It is
//! an address, not a secret: nothing may be granted to whoever can name one.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

/// A shard's number, counted from 0 within the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ShardId(pub u16);

/// A connection within its shard: slab index and the generation that tells its users apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// Place in the shard's slab.
    pub index: u32,
    /// Counts the connections of the shard; unique per index until it wraps after 2^32 connections.
    pub generation: u32,
}

/// Tells apart the nodes that work as one. A node chooses another at every start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeTag(pub u32);

impl NodeTag {
    /// Of a node that works alone.
    pub const NONE: Self = Self(0);

    /// True for one of several nodes.
    #[must_use]
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }
}

/// A connection. Written `shard-index-generation` in lower-case hexadecimal; where nodes work together the
/// node's tag and another `-` stand in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnAddress {
    /// The node; all connections of a node that works alone have [`NodeTag::NONE`].
    pub node: NodeTag,
    /// The shard that owns the connection.
    pub shard: ShardId,
    /// The connection within that shard.
    pub conn: ConnId,
}

impl ConnAddress {
    /// An address in a node that works alone.
    #[must_use]
    pub const fn alone(shard: ShardId, conn: ConnId) -> Self {
        Self { node: NodeTag::NONE, shard, conn }
    }
}

impl ConnId {
    /// The index as a slab key.
    #[must_use]
    pub fn key(self) -> usize {
        self.index as usize
    }
}

impl fmt::Display for ConnAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.node.is_some() {
            write!(f, "{:x}-", self.node.0)?;
        }
        write!(f, "{:x}-{:x}-{:x}", self.shard.0, self.conn.index, self.conn.generation)
    }
}

/// Why a text is not a connection address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError;

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a connection id has the form [node-]shard-index-generation in hexadecimal")
    }
}

impl std::error::Error for AddressError {}

impl From<ParseIntError> for AddressError {
    fn from(_: ParseIntError) -> Self {
        Self
    }
}

impl FromStr for ConnAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (node, rest) = match text.split_once('-') {
            Some((node, rest)) if rest.matches('-').count() == 2 => {
                let node = Some(node).filter(|p| !p.starts_with('+')).ok_or(AddressError)?;
                (NodeTag(u32::from_str_radix(node, 16)?), rest)
            }
            _ => (NodeTag::NONE, text),
        };
        let mut parts = rest.split('-');
        let mut part = || parts.next().filter(|p| !p.starts_with('+')).ok_or(AddressError);
        let (shard, index, generation) = (part()?, part()?, part()?);
        if parts.next().is_some() {
            return Err(AddressError);
        }
        let conn = ConnId {
            index: u32::from_str_radix(index, 16)?,
            generation: u32::from_str_radix(generation, 16)?,
        };
        Ok(Self { node, shard: ShardId(u16::from_str_radix(shard, 16)?), conn })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_address_reads_back_as_written(node: u32, shard: u16, index: u32, generation: u32) {
            let node = NodeTag(node);
            let address = ConnAddress { node, shard: ShardId(shard), conn: ConnId { index, generation } };
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }

        #[test]
        fn any_text_is_parsed_or_refused_without_a_panic(text in ".*") {
            let _ = text.parse::<ConnAddress>();
        }
    }

    #[test]
    fn what_is_not_an_address_is_refused() {
        for text in [
            "",
            "1",
            "1-2",
            "1-2-3-4-5",
            "x-1-2-3",
            "+1-1-2-3",
            "x-1-1",
            "10000-0-0",
            "+1-2-3",
            "1--3",
        ] {
            assert_eq!(text.parse::<ConnAddress>(), Err(AddressError), "{text}");
        }
    }
}
