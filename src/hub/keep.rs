//! What goes along with a publication whose number is given elsewhere than at its home.
//!
//! Where nodes share the history of a room, Redis numbers what is published there. Until it has, nobody receives
//! the publication and its author is not answered; so with it go the author's name, by which a repeat is known on
//! any node, and a receipt, by which the author is found again.

use serde_json::value::RawValue;

use crate::base::id::ConnAddress;

/// Asks for a number from elsewhere.
#[derive(Clone, Debug)]
pub struct Keep {
    /// Who publishes, as a text that means the same on every node.
    pub author: Box<str>,
    /// Who is to be told.
    pub receipt: Receipt,
}

/// Who is to be told what became of a publication.
#[derive(Clone, Debug)]
pub enum Receipt {
    /// A client: of a refusal always, of the number where it waits for that.
    Client {
        /// The connection.
        to: ConnAddress,
        /// The command's `ref`.
        reference: Option<Box<RawValue>>,
        /// Whether the answer to the command is the number.
        waits: bool,
    },
    /// A back end.
    Order {
        /// The number of the order.
        order: u64,
        /// Which of its publications it is.
        item: u32,
    },
}

impl Receipt {
    /// True when a client awaits the number as the answer to its command.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        matches!(self, Self::Client { reference: Some(_), waits: true, .. })
    }
}
