//! The listener over real sockets, with a small desk behind it that does what it is asked, in memory.

mod body;
mod doors;
mod explain;
mod inbox;
mod keys;
mod limits;
mod office;
mod openapi;
mod orders;
mod overview;
mod presence;
mod publish;
mod replies;
mod seeing;
