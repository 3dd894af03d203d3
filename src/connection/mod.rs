//! connection (in the making).
