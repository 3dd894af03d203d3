//! driver (in the making).
