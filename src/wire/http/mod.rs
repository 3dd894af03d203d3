//! http (in the making).
