//! Floor 5: the process. Configuration comes in here as text and leaves as values; launch turns values
//! into workers. The only module that sees both the core and the rim.

pub mod config;
pub mod launch;

pub use launch::launch;
