//! The threads that do the work: each a runtime, a descriptor table and a share of the clients.
//!
//! [`shared`] is what all threads see, plain atomics and what never changes. A [`crew`] is one thread's state.
//! Its tasks are [`member`]s (one a client, reading), [`publish`]ers and the drivers of a scenario
//! ([`drive`]), all of them on one thread, so that none needs a lock. [`stats`] holds what they count.

mod crew;
mod drive;
mod harvest;
mod member;
mod publish;
mod session;
mod shared;
mod stats;
mod timer;

pub(crate) use crew::{Job, Thread};
pub(crate) use harvest::Harvest;
pub(crate) use shared::{Gauge, Order, Shared, nanos};
pub(crate) use stats::SecondReport;
