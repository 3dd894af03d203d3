//! Mail between shards: bounded inboxes on crossbeam-channel, and the wakers that go with them.
//!
//! [`mesh`] makes one [`Port`] per shard. A port is an inbox that only its owner empties and a way to
//! post to every other inbox. Nothing here blocks: a full inbox gives the mail back, and its sender
//! parks it and is told when there is space again. What the mail says is a type parameter; the mesh
//! names no connection and no room.
//!
//! An inbox has two lanes. Handling a [`Lane::Request`] may produce deliveries for other shards;
//! handling a [`Lane::Delivery`] produces no mail at all. A shard with parked deliveries stops taking
//! requests, but takes deliveries always. So every delivery lane is emptied whatever the others do,
//! parked deliveries therefore leave, requests are therefore taken again, and there is no cycle in
//! which shards wait for each other, even when each lane holds a single piece of mail. The mesh offers
//! the lanes; keeping this rule is the shard's part.
//!
//! | file | subject |
//! |---|---|
//! | `port` | inboxes, posting, taking, and the senders that wait for space |
//! | `waker` | waking a sleeping owner through an eventfd, and not waking one that is awake |

mod port;
mod waker;

#[cfg(test)]
mod tests;

pub use port::{Lane, Port, mesh};
