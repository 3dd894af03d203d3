//! wire (in the making).
