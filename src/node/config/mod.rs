//! Configuration: one TOML file, overridden by `--set`, made into typed values.
//!
//! Every key is defined once, as a row of a table in [`values`]: its name with the unit in it, type,
//! default, meaning, what it accepts, and whether a running node can take a new value. The structs, the
//! checks, `throng print-config` and the test that holds `docs/configuration.md` against the code are all
//! made from those rows. In TOML a unit stands in the key (`ping_interval_ms`); in code there are
//! durations, addresses and enums.
//!
//! Wrong input is answered once and in full: every problem of the file and of the command line, each with
//! its line, key, value, what was expected and the nearest thing that exists. Nothing is guessed and
//! nothing is ignored.
//!
//! This module knows no other module's options: launch converts its values. It reads one file when asked
//! to and nothing else of the world: no environment, no default places.
//!
//! | file | subject |
//! |---|---|
//! | [`values`] | the table of keys and the structs it makes |
//! | [`admin`], [`auth`] | the rows of `[admin]` and `[[key]]`, and of `[auth]` |
//! | [`limits`] | the rows about how often and how many |
//! | `namespace` | the rows of `[[namespace]]` |
//! | [`presence`] | the rows of `[presence]` |
//! | [`bridge`] | the rows of `[bridge]` |
//! | [`compression`] | the rows of `[compression]` |
//! | [`explain`] | the rows of `[explain]` |
//! | [`proxy`] | the rows of `[[proxy]]` |
//! | [`publish`] | the rows of `[publish]` |
//! | [`rate`] | the rows of `[[rate]]` |
//! | [`schema`] | the rows of `[[schema]]` |
//! | `group` | what a row is made of: the macro and the trait behind the table |
//! | `list` | sections that are lists |
//! | `kind`, `kind_text` | what a value may be: whole numbers, times, words, addresses, paths; text, secrets, lists |
//! | [`store`] | the rows of `[store]` |
//! | [`tenant`] | the rows of `[[tenant]]` |
//! | `tls` | the rows of `[tls]` and `[[certificate]]` |
//! | `words` | the words that keys take |
//! | `source` | TOML and `--set` to assignments with their places |
//! | `load` | assignments to values, suggestions |
//! | `relation` | what two keys must be to each other; warnings |
//! | `problem` | how a problem is told |
//! | `print` | `print-config` |
//! | `reload` | what a running node can take over |

pub mod admin;
pub mod auth;
pub mod bridge;
pub mod compression;
pub mod explain;
mod group;
pub mod hook;
mod kind;
mod kind_text;
pub mod limits;
mod list;
mod load;
mod namespace;
pub mod presence;
mod print;
mod problem;
pub mod proxy;
pub mod publish;
pub mod rate;
mod relation;
mod reload;
pub mod schema;
mod source;
pub mod store;
pub mod tenant;
mod tls;
pub mod values;
mod words;

#[cfg(test)]
mod secret_tests;
#[cfg(test)]
mod tests;

pub use group::{Key, Reload};
pub use load::Origin;
pub use problem::{ConfigError, Problem};
pub use values::{Config, keys};
