//! The schemas of the configuration, read from their files and compiled.

use std::fs;
use std::sync::Arc;

use crate::node::config::Config;
use crate::node::running::LaunchError;
use crate::session::schema::{MOST_BYTES, MOST_SCHEMAS, Schema, Schemas};

/// Compiles all schemas.
///
/// # Errors
/// The first that will not do, by its place in the list.
pub(super) fn compile(config: &Config) -> Result<Arc<Schemas>, LaunchError> {
    let given = &config.lists.schemas;
    if given.len() > MOST_SCHEMAS {
        let why = format!("{} schemas; expected at most {MOST_SCHEMAS}", given.len());
        return Err(LaunchError::new("[[schema]]", why));
    }
    let mut schemas = Vec::with_capacity(given.len());
    for (at, own) in given.iter().enumerate() {
        let (rooms, types) = (own.rooms.as_str(), own.types.as_str());
        let mut name = format!("[[schema]] {} (rooms = {rooms:?}, type = {types:?})", at + 1);
        let text = if own.schema_file.is_empty() {
            own.schema.clone()
        } else {
            name = format!("{name}: schema_file = {:?}", own.schema_file);
            read(&own.schema_file).map_err(|why| LaunchError::new(&name, why))?
        };
        let most = own.payload_bytes as usize;
        let schema = Schema::new(own.rooms.clone(), own.types.clone(), most, &text);
        schemas.push(schema.map_err(|why| LaunchError::new(&name, why))?);
    }
    Ok(Arc::new(Schemas::new(schemas)))
}

fn read(file: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    let length = fs::metadata(file).map_err(failed)?.len();
    if length > MOST_BYTES as u64 {
        return Err(format!(
            "expected a file of at most {MOST_BYTES} bytes, this one has {length}"
        ));
    }
    fs::read_to_string(file).map_err(failed)
}
