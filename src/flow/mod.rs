//! flow (in the making).
