//! node (in the making).
