//! The load generator (in the making).
fn main() {}
