//! What the server, this program and the machine used, by `/proc`.
//!
//! A [`Sampler`] takes [`Snapshot`]s, cheap ones each second and full ones at the borders of the phases; all
//! figures are differences of two of them, reckoned by pure functions. What the kernel does not show to this
//! user (slabs, mostly, which are the administrator's) is absent from the figures rather than zero.
//!
//! Nothing here knows of clients or scenarios: the caller says how many connections and messages there were.

pub(crate) mod cores;
mod counters;
mod environment;
mod figures;
pub(crate) mod proc;
mod sampler;
#[cfg(test)]
mod stand_in;

pub(crate) use environment::environment;
pub(crate) use figures::{Counts, Marks, each, generator_use, usage};
pub(crate) use sampler::{Sampler, Snapshot};
