//! session (in the making).
