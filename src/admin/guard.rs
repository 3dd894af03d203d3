//! Who may ask: keys, scopes, tenants, rates.
//!
//! A secret is hashed and its hash compared with that of every key, always with all of them and each in
//! constant time. What comes without a valid key costs one hash and learns nothing but that.

use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;

use super::options::{ApiKey, Options, Scope, hash};
use super::refusal::Refusal;
use crate::base::time::Time;

/// The keys, and how much each may still ask for.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) options: Options,
    allowances: Vec<Allowance>,
}

/// Requests a key may still make: a bucket that fills with time.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    rate: u64,
    /// Requests that a full bucket holds.
    burst: u64,
    /// Millionths of a request.
    left: u64,
    at: Time,
    /// Requests refused because there were too many.
    refused: u64,
}

const REQUEST: u64 = 1_000_000;

impl Guard {
    pub(super) fn new(options: Options, now: Time) -> Self {
        let usual = options.limits.requests_per_second;
        let allowance = |key: &ApiKey| {
            let rate = key.rate.per_second.unwrap_or(usual);
            let burst = u64::from(key.rate.burst.unwrap_or(rate));
            Allowance { rate: rate.into(), burst, left: burst * REQUEST, at: now, refused: 0 }
        };
        let allowances = options.keys.iter().map(allowance).collect();
        Self { options, allowances }
    }

    /// Takes other keys and limits. Every allowance is full again, and the counts of keys that keep their
    /// names go on.
    pub(super) fn renew(&mut self, options: Options, now: Time) {
        let mut next = Self::new(options, now);
        for (key, allowance) in next.options.keys.iter().zip(&mut next.allowances) {
            let counted = self.refused().find(|(name, _)| *name == key.name);
            allowance.refused = counted.map_or(0, |(_, count)| count);
        }
        *self = next;
    }

    /// How many requests of each key came too often.
    pub(super) fn refused(&self) -> impl Iterator<Item = (&str, u64)> {
        let names = self.options.keys.iter().map(|key| key.name.as_str());
        names.zip(self.allowances.iter().map(|allowance| allowance.refused))
    }

    /// The key that a request comes with, if it opens what the request asks for.
    pub(super) fn admit(
        &mut self,
        headers: &HeaderMap,
        scope: Scope,
        now: Time,
    ) -> Result<ApiKey, Refusal> {
        let given = hash(bearer(headers).ok_or_else(Refusal::unauthorized)?);
        let mut found = None;
        for (at, key) in self.options.keys.iter().enumerate() {
            if verify_slices_are_equal(&key.hash, &given).is_ok() {
                found = Some(at);
            }
        }
        let at = found.ok_or_else(Refusal::unauthorized)?;
        self.spend(at, now)?;
        let key = &self.options.keys[at];
        if key.scopes.contains(&scope) {
            return Ok(key.clone());
        }
        let message = format!("this key does not have the scope \"{}\"", scope.as_str());
        Err(Refusal::forbidden(message))
    }

    fn spend(&mut self, at: usize, now: Time) -> Result<(), Refusal> {
        let allowance = &mut self.allowances[at];
        let gain = gained(allowance.rate, now.since(allowance.at));
        allowance.left = (allowance.burst * REQUEST).min(allowance.left.saturating_add(gain));
        allowance.at = now;
        if let Some(left) = allowance.left.checked_sub(REQUEST) {
            allowance.left = left;
            return Ok(());
        }
        allowance.refused += 1;
        let message = format!("this key may make {} requests a second", allowance.rate);
        // A rate is a request a second at least, so that after one second there is one to spend.
        Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message).retry_after(1))
    }
}

/// What a bucket gains in some time, in millionths of a request.
fn gained(rate: u64, passed: Duration) -> u64 {
    u64::try_from(passed.as_micros()).unwrap_or(u64::MAX).saturating_mul(rate)
}

/// The secret of `Authorization: Bearer SECRET`; none when there are several such headers.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    if values.next().is_some() {
        return None;
    }
    let (scheme, secret) = value.split_at_checked(7)?;
    (scheme.eq_ignore_ascii_case(b"bearer ") && !secret.is_empty()).then_some(secret)
}

/// The tenant that a request is about: that of the key, if it has one, which no request can leave.
pub(super) fn tenant(key: &ApiKey, asked: Option<String>) -> Result<Option<String>, Refusal> {
    match (&key.tenant, asked) {
        (Some(own), Some(asked)) if *own != asked => {
            Err(Refusal::forbidden("this key is for another tenant").about("tenant"))
        }
        (Some(own), _) => Ok(Some(own.clone())),
        (None, asked) => Ok(asked),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::HeaderValue;

    use super::super::options::{Limits, Rate};
    use super::*;

    const SECRETS: [&str; 3] = ["the first secret", "the second secret", "the third secret"];

    fn options(rates: [Rate; 3]) -> Options {
        let key = |(secret, rate): (&str, Rate)| {
            ApiKey::new(secret, secret, &[Scope::Inspect], None).with_rate(rate)
        };
        let limits = Limits { requests_per_second: 7, ..Limits::default() };
        Options {
            keys: SECRETS.into_iter().zip(rates).map(key).collect(),
            limits,
            ..Options::default()
        }
    }

    /// How many requests of each key are admitted at that time, before the first that is not.
    fn admitted(guard: &mut Guard, now: Time) -> [usize; 3] {
        SECRETS.map(|secret| {
            let mut headers = HeaderMap::new();
            let value = format!("Bearer {secret}");
            headers.insert(AUTHORIZATION, HeaderValue::from_str(&value).expect("a header"));
            let asks = std::iter::repeat_with(|| guard.admit(&headers, Scope::Inspect, now));
            asks.take_while(Result::is_ok).count()
        })
    }

    #[test]
    fn each_key_has_its_own_rate_and_burst_and_the_usual_ones_without_them() {
        let own = Rate { per_second: Some(2), burst: Some(5) };
        let patient = Rate { per_second: None, burst: Some(20) };
        let start = Time::ZERO;
        let mut guard = Guard::new(options([Rate::default(), own, patient]), start);
        assert_eq!(admitted(&mut guard, start), [7, 5, 20], "after a pause a burst");
        let later = start.plus(Duration::from_secs(1));
        assert_eq!(admitted(&mut guard, later), [7, 2, 7], "then the rate");
        let half = later.plus(Duration::from_millis(500));
        assert_eq!(admitted(&mut guard, half), [3, 1, 3]);
        let much_later = half.plus(Duration::from_secs(3600));
        assert_eq!(admitted(&mut guard, much_later), [7, 5, 20], "and never more than a burst");
    }

    #[test]
    fn requests_that_come_too_often_are_counted_for_their_key_and_new_keys_keep_the_counts() {
        let mut guard = Guard::new(options([Rate::default(); 3]), Time::ZERO);
        admitted(&mut guard, Time::ZERO);
        admitted(&mut guard, Time::ZERO);
        let counts = |guard: &Guard| guard.refused().map(|(_, count)| count).collect::<Vec<_>>();
        assert_eq!(counts(&guard), [2, 2, 2]);
        let mut other = options([Rate { per_second: Some(1), burst: None }; 3]);
        other.keys.remove(0);
        guard.renew(other, Time::ZERO);
        assert_eq!(admitted(&mut guard, Time::ZERO), [0, 1, 1], "the first is not known any more");
        assert_eq!(counts(&guard), [3, 3]);
    }
}
