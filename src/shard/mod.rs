//! shard (in the making).
