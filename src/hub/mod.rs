//! hub (in the making).
