//! Floor 5: the process.
//!
//! Configuration becomes each module's own options here, workers are started and ended here, and the
//! loop where core and rim meet is here.

mod board;
mod cells;
mod census;
pub mod config;
pub mod console;
mod counting;
mod crossing;
mod desk;
pub mod doctor;
mod emitting;
pub mod explain;
mod farewells;
mod front;
mod inquiries;
mod keeper;
mod keys;
mod launch;
mod link;
mod looking;
mod metrics;
mod noticing;
mod opened;
mod polling;
mod prover;
mod publishing;
mod registry;
pub mod remote;
mod replies;
mod revoking;
mod running;
mod schemas;
mod service;
mod settings;
mod sharing;
mod tenants;
mod tls;
mod turns;
mod ways;
mod work;
mod worker;

pub use board::Board;
pub use launch::launch;
pub use running::{LaunchError, Node};
pub use settings::settings;
pub use turns::TurnTimes;

/// Reads the files that the configuration names, without using them.
///
/// # Errors
/// The first that will not do.
pub fn check(config: &config::Config) -> Result<(), LaunchError> {
    keys::check_keys(config)?;
    schemas::compile(config)?;
    tls::check(config)
}
