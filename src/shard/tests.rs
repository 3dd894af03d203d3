//! Unit tests of the shard.
