//! driver (in the making).

pub mod sim;
