//! Unit tests of the connection.
