//! Tests of the session, a file per theme.

mod commands;
mod document;
mod encoding;
mod errors;
mod inbox;
mod properties;
