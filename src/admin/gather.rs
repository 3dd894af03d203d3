//! Questions to all shards, and the wait for their answers: one place for all kinds of them.
//!
//! A question is answered when every shard has answered, or, when the time is over, by those that have; the answer
//! names the others. However the waiting ends, also by a client that goes away, the question is not kept.

use std::sync::Arc;

use tokio::time::{MissedTickBehavior, interval, timeout};

use super::desk::Desk;
use super::refusal::Refusal;
use super::routes::{Api, LOOK};

/// An answer that consists of the shards' parts.
pub(super) trait Gathered: Sized {
    /// The whole, once there is; then it is forgotten.
    fn whole(desk: &dyn Desk, number: u64) -> Option<Self>;

    /// What there is; then it is forgotten.
    fn part(desk: &dyn Desk, number: u64) -> Self;

    /// Shards that have not answered.
    fn missing(&self) -> &[u16];
}

/// A question that somebody waits for.
struct Awaited<T: Gathered> {
    desk: Arc<dyn Desk>,
    number: u64,
    forget: fn(&dyn Desk, u64) -> T,
}

impl<T: Gathered> Drop for Awaited<T> {
    fn drop(&mut self) {
        let _ = (self.forget)(&*self.desk, self.number);
    }
}

impl Api {
    /// Waits for the answers to a question as long as an answer may take.
    pub(super) async fn gather<T: Gathered>(&self, number: u64) -> Result<T, Refusal> {
        let awaited = Awaited { desk: Arc::clone(&self.desk), number, forget: T::part };
        let all = async {
            let mut looks = interval(LOOK);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                looks.tick().await;
                if let Some(seen) = T::whole(&*self.desk, number) {
                    return seen;
                }
            }
        };
        let seen = timeout(self.limits().shard_timeout, all).await;
        let seen = seen.unwrap_or_else(|_| T::part(&*self.desk, number));
        drop(awaited);
        if seen.missing().len() == self.desk.shards() {
            return Err(Refusal::overloaded("no shard has answered in time"));
        }
        Ok(seen)
    }
}
