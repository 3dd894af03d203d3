//! What the authentication promises, by theme.

mod grants;
mod keys;
mod malformed;
mod origins;
mod revocations;
mod sources;
mod tickets;
mod tokens;
mod vectors;
