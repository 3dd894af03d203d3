//! Every answer that is a no: a status, a code for programs, a sentence for people.
//!
//! The body is `{"error":{"code","message","field"}}`, `field` where one is to blame. Nothing of a request is repeated but
//! the names of fields, shortened: what was sent may be a secret in the wrong place.

use std::fmt;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::desk::Refused;
use crate::store;

/// Why a request is not obeyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) field: Option<String>,
    /// Seconds after which it may be worth another try.
    pub(super) retry_after: Option<u32>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), field: None, retry_after: None }
    }

    /// A request that cannot be read or means nothing.
    pub(super) fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// A field with a value it cannot have.
    pub(super) fn field(name: &str, message: impl Into<String>) -> Self {
        Self::bad("bad_field", message).about(name)
    }

    pub(super) fn unauthorized() -> Self {
        let message = "a key is needed: Authorization: Bearer SECRET";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    pub(super) fn overloaded(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message).retry_after(1)
    }

    pub(super) fn timeout() -> Self {
        let message = "the request did not arrive in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
    }

    pub(super) fn about(mut self, field: &str) -> Self {
        self.field = Some(field.chars().take(64).collect());
        self
    }

    pub(super) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Store(why) => why.into(),
            Refused::Busy => Self::overloaded("mail to the shards is backed up"),
            Refused::NotConfigured(what) => {
                Self::new(StatusCode::NOT_IMPLEMENTED, "not_configured", what)
            }
            Refused::Field { name, why } => Self::field(name, why),
        }
    }
}

impl From<store::Refused> for Refusal {
    fn from(refused: store::Refused) -> Self {
        match refused {
            store::Refused::TooLarge(most) => {
                Self::field("payload", format!("an inbox holds {most} bytes"))
            }
            store::Refused::Broken(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "store_failed",
                "the store cannot be written or read; the log says why",
            )
            .retry_after(5),
            refused => Self::overloaded(&refused.to_string()),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut error = Map::new();
        error.insert("code".to_owned(), Value::from(self.code));
        error.insert("message".to_owned(), Value::from(self.message));
        if let Some(field) = self.field {
            error.insert("field".to_owned(), Value::from(field));
        }
        let mut response = json(self.status, json!({ "error": error }));
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// An answer of JSON.
pub(super) fn json(status: StatusCode, value: impl fmt::Display) -> Response {
    let mut response = Response::new(Body::from(format!("{value}\n")));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
