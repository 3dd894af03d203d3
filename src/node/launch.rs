//! Turns a configuration into running workers (in the making).

use std::fmt;

use super::config::{Config, Origin};

/// Why the node could not start or go on.
#[derive(Debug)]
pub struct LaunchError(String);

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LaunchError {}

/// Runs the node until it is asked to stop. `origin` is read again on SIGHUP.
///
/// # Errors
/// When the world refuses what the configuration asks for.
pub fn launch(config: &Config, origin: &Origin) -> Result<(), LaunchError> {
    Err(LaunchError(format!("cannot serve {} from {origin:?} yet", config.server.listen)))
}
