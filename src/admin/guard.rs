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
    /// Millionths of a request.
    left: u64,
    at: Time,
}

const REQUEST: u64 = 1_000_000;

impl Guard {
    pub(super) fn new(options: Options, now: Time) -> Self {
        let full = u64::from(options.limits.requests_per_second) * REQUEST;
        let allowances = vec![Allowance { left: full, at: now }; options.keys.len()];
        Self { options, allowances }
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
        let rate = u64::from(self.options.limits.requests_per_second);
        let allowance = &mut self.allowances[at];
        let passed = now.since(allowance.at);
        allowance.left = (rate * REQUEST).min(allowance.left.saturating_add(gained(rate, passed)));
        allowance.at = now;
        if let Some(left) = allowance.left.checked_sub(REQUEST) {
            allowance.left = left;
            return Ok(());
        }
        let message = format!("this key may make {rate} requests a second");
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
