//! Which channels to be subscribed to.
//!
//! A room that somebody joins and leaves every second would make two commands of each; so a subscription
//! outlives its last member by a while. What Redis has been told and what it should know are kept apart:
//! after a new connection it knows nothing, and everything is told again.

use std::collections::VecDeque;
use std::time::Duration;

use super::side::Channel;
use crate::base::map::{Map, Seed};
use crate::base::time::Time;

/// Where a channel stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    /// Since when nobody needs it; `None`: it is needed.
    unneeded: Option<Time>,
    /// True once Redis was told of it over the present connection.
    told: bool,
}

/// The channels that matter or did a moment ago.
#[derive(Debug)]
pub(super) struct Interest {
    channels: Map<Channel, Standing>,
    /// To be subscribed to; some may no longer be needed, or be told already.
    fresh: VecDeque<Channel>,
    /// Not needed any more, in the order in which that began; some are needed again.
    leaving: VecDeque<(Time, Channel)>,
    linger: Duration,
}

impl Interest {
    pub(super) fn new(seed: &Seed, linger: Duration) -> Self {
        Self { channels: seed.map(), fresh: VecDeque::new(), leaving: VecDeque::new(), linger }
    }

    /// Notes whether a channel matters.
    pub(super) fn note(&mut self, channel: Channel, wanted: bool, now: Time) {
        match self.channels.get_mut(&channel) {
            Some(standing) if wanted => standing.unneeded = None,
            Some(standing) => {
                standing.unneeded = Some(now);
                self.leaving.push_back((now, channel));
            }
            None if wanted => {
                self.channels.insert(channel.clone(), Standing { unneeded: None, told: false });
                self.fresh.push_back(channel);
            }
            None => {}
        }
    }

    /// The next channels to subscribe to, at most `most`. They count as told.
    pub(super) fn joins(&mut self, most: usize) -> Vec<Channel> {
        let mut joins = Vec::new();
        while joins.len() < most
            && let Some(channel) = self.fresh.pop_front()
        {
            if let Some(standing) = self.channels.get_mut(&channel).filter(|s| !s.told) {
                standing.told = true;
                joins.push(channel);
            }
        }
        joins
    }

    /// The next channels to leave, at most `most`, of which Redis was told.
    pub(super) fn leaves(&mut self, most: usize, now: Time) -> Vec<Channel> {
        let mut leaves = Vec::new();
        while leaves.len() < most
            && let Some((since, _)) = self.leaving.front()
            && now.since(*since) >= self.linger
            && let Some((since, channel)) = self.leaving.pop_front()
        {
            // Who was needed again meanwhile has another time, or none.
            if self.channels.get(&channel).is_some_and(|s| s.unneeded == Some(since))
                && let Some(standing) = self.channels.remove(&channel)
                && standing.told
            {
                leaves.push(channel);
            }
        }
        if self.channels.capacity() > 1024 && self.channels.len() < self.channels.capacity() / 8 {
            self.channels.shrink_to(self.channels.len() * 2);
        }
        leaves
    }

    /// Redis knows nothing any more.
    pub(super) fn forget_told(&mut self) {
        self.fresh.clear();
        for (channel, standing) in &mut self.channels {
            standing.told = false;
            self.fresh.push_back(channel.clone());
        }
    }

    /// The channels that matter or did a moment ago.
    pub(super) fn channels(&self) -> impl Iterator<Item = &Channel> {
        self.channels.keys()
    }

    /// How many those are.
    pub(super) fn len(&self) -> usize {
        self.channels.len()
    }

    /// When [`Interest::leaves`] has something, if nothing happens until then.
    pub(super) fn due(&self) -> Option<Time> {
        self.leaving.front().map(|(since, _)| since.plus(self.linger))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const LINGER: Duration = Duration::from_secs(5);

    fn at(seconds: u64) -> Time {
        Time::ZERO.plus(Duration::from_secs(seconds))
    }

    fn interest() -> Interest {
        Interest::new(&Seed::new(1), LINGER)
    }

    #[test]
    fn who_comes_back_soon_costs_no_command() {
        let mut interest = interest();
        interest.note("a".into(), true, at(0));
        assert_eq!(interest.joins(9), [Channel::from("a")]);
        interest.note("a".into(), false, at(1));
        interest.note("a".into(), true, at(2));
        assert!(interest.joins(9).is_empty() && interest.leaves(9, at(100)).is_empty());
        interest.note("a".into(), false, at(200));
        assert!(interest.leaves(9, at(204)).is_empty());
        assert_eq!(interest.leaves(9, at(205)), [Channel::from("a")]);
        assert_eq!(interest.len(), 0);
    }

    #[test]
    fn over_a_new_connection_everything_is_told_again() {
        let mut interest = interest();
        for name in ["a", "b", "c"] {
            interest.note(name.into(), true, at(0));
        }
        assert_eq!(interest.joins(2).len(), 2);
        interest.forget_told();
        let again: BTreeSet<Channel> = interest.joins(9).into_iter().collect();
        assert_eq!(again.len(), 3);
        assert!(interest.joins(9).is_empty());
    }

    proptest! {
        /// Subscriptions by the commands made equal those that were needed within the last while.
        #[test]
        fn subscriptions_follow_the_need(
            steps in prop::collection::vec((0..4_u8, any::<bool>(), 0..4_u64, 0..12_u8), 0..200),
        ) {
            let (mut interest, mut now) = (interest(), 0);
            let (mut subscribed, mut needed) = (BTreeSet::new(), BTreeSet::new());
            for (name, wanted, wait, dice) in steps {
                now += wait;
                let channel: Channel = name.to_string().into();
                if wanted != needed.contains(&channel) {
                    interest.note(channel.clone(), wanted, at(now));
                    if wanted { needed.insert(channel) } else { needed.remove(&channel) };
                }
                if dice == 0 {
                    subscribed.clear();
                    interest.forget_told();
                }
                for joined in interest.joins(usize::from(dice)) {
                    prop_assert!(subscribed.insert(joined), "subscribed to twice");
                }
                for left in interest.leaves(usize::from(dice), at(now)) {
                    prop_assert!(subscribed.remove(&left), "left without being there");
                    prop_assert!(!needed.contains(&left));
                }
            }
            now += 100;
            subscribed.extend(interest.joins(99));
            for left in interest.leaves(99, at(now)) {
                subscribed.remove(&left);
            }
            prop_assert_eq!(&subscribed, &needed);
            prop_assert_eq!(interest.len(), needed.len());
        }
    }
}
