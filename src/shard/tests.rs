//! The shard by itself: events, time and mail by hand, and every operation recorded.
//!
//! No socket, no thread, no clock. The invariants of the whole shard are asserted after every step, so
//! a test says only what its own theme promises.

mod across;
mod bundle;
mod consult;
mod consult_door;
mod door;
mod edges;
mod ends;
mod everyone;
mod farewells;
mod grants;
mod guard;
mod history;
mod hoards;
mod inbox;
mod inspect;
mod joint;
mod kinds;
mod ledger;
mod login;
mod mail;
mod measures;
mod memory;
mod outcomes;
mod over_http;
mod pace;
mod parties;
mod passages;
mod petitions;
mod presence;
mod presence_returns;
mod presence_twin;
mod proofs;
mod quota;
mod reading;
mod relief;
mod resume;
mod rig;
mod rooms;
mod saturation;
mod schema;
mod secure;
mod shares;
mod shelf;
mod shelf_twin;
mod stream;
mod survey;
mod targets;
mod tenants;
mod tickets;
mod tidings;
mod tidings_users;
mod tokens;
mod turns;
