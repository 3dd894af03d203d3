//! What the server, this program and the machine used, by `/proc`.

pub(crate) mod cores;
