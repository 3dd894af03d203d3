//! sys (in the making).
