//! The connection by itself: its size, its end, its beginning and its deadlines.
//!
//! No shard and no driver takes part. Each file holds one theme and drives a [`Connection`] by its
//! public functions only; what a shard makes of the answers is tested there.
//!
//! [`Connection`]: super::Connection

mod closing;
mod opening;
mod timing;
