//! The `throng` program (in the making).
fn main() {}
