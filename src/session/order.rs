//! What a back end asks to publish: one publication or a batch, each as a client would write it.
//!
//! A back end's publication has the fields of a client's, read by the same rules and bounds, but no `ref`,
//! as its answer comes with the response; and two of its own: `tenant`, whose names the others are, and
//! `count`, to be told how many connections it reached, on this node or on all. A batch is an array; it is understood as a
//! whole or not at all.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::command::{CommandLimits, Publish, RESERVED, kind_of, open, publish};
use super::envelope::{Field, bad, shown, text};
use super::error::{Code, CommandError};
use super::targets::MAX_USER_BYTES;

const FIELDS: &[Field] = &[
    Field::Type,
    Field::Room,
    Field::Rooms,
    Field::Payload,
    Field::Id,
    Field::Key,
    Field::Except,
    Field::TtlMs,
    Field::Users,
    Field::Connections,
    Field::Everyone,
    Field::Tenant,
    Field::Count,
    Field::Persist,
];

/// A back end's publication.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    /// What is published.
    pub publish: Publish<'a>,
    /// Whose rooms and users it names; `None` for those of nobody in particular.
    pub tenant: Option<Cow<'a, str>>,
    /// Whether the answer is to say how many connections it reached.
    pub count: Count,
}

/// Whose connections are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Count {
    /// Nobody's.
    #[default]
    No,
    /// Those of the node that is asked.
    Node,
    /// Those of all nodes.
    Nodes,
}

/// The orders of one request.
#[derive(Clone, Debug)]
pub struct Orders<'a> {
    /// One at least.
    pub list: Vec<Order<'a>>,
    /// True when they came as a batch, to be answered by a list.
    pub batch: bool,
}

/// Why a request is not understood, and the place in the batch, if it is one.
#[derive(Clone, Debug)]
pub struct OrderError {
    /// What is wrong.
    pub error: CommandError,
    /// The place in the batch, from 0.
    pub at: Option<usize>,
}

/// Reads a request: an object, or an array of at most `most` of them.
///
/// # Errors
/// Whatever is wrong with it first.
pub fn parse_orders<'a>(
    body: &'a str,
    limits: &CommandLimits,
    most: usize,
) -> Result<Orders<'a>, OrderError> {
    if !body.trim_start().starts_with('[') {
        let order = parse_order(body, limits);
        let alone = |order| Orders { list: vec![order], batch: false };
        return order.map(alone).map_err(|error| OrderError { error, at: None });
    }
    let whole = |code, message: String| {
        let error = CommandError::new(code, message, None);
        OrderError { error, at: None }
    };
    let list: Vec<&'a RawValue> = serde_json::from_str(body)
        .map_err(|error| whole(Code::BadJson, format!("the body is not JSON: {error}")))?;
    if list.is_empty() || list.len() > most {
        let count = list.len();
        let message = format!("the batch is of {count} publications; expected 1 to {most}");
        return Err(whole(Code::BadField, message));
    }
    let mut orders = Vec::with_capacity(list.len());
    for (at, item) in list.into_iter().enumerate() {
        let order = parse_order(item.get(), limits);
        orders.push(order.map_err(|error| OrderError { error, at: Some(at) })?);
    }
    Ok(Orders { list: orders, batch: true })
}

/// Reads one publication.
///
/// # Errors
/// Whatever is wrong with it first.
pub fn parse_order<'a>(text: &'a str, limits: &CommandLimits) -> Result<Order<'a>, CommandError> {
    let (envelope, _) = open(text, limits, limits.max_keys)?;
    let (raw, kind) = kind_of(&envelope, limits)?;
    if kind.starts_with(RESERVED) {
        let expected = format!("a type that does not begin with `{RESERVED}`");
        return Err(bad(Field::Type, raw.get(), &expected));
    }
    envelope.only(&kind, FIELDS)?;
    Ok(Order {
        publish: publish(&envelope, raw, limits)?,
        tenant: envelope.get(Field::Tenant).map(tenant).transpose()?,
        count: count(envelope.get(Field::Count))?,
    })
}

fn count(value: Option<&RawValue>) -> Result<Count, CommandError> {
    match value.map(RawValue::get) {
        None | Some("false") => Ok(Count::No),
        Some("true") => Ok(Count::Node),
        Some("\"nodes\"") => Ok(Count::Nodes),
        Some(other) => Err(bad(Field::Count, other, "true, false or \"nodes\"")),
    }
}

fn tenant(value: &RawValue) -> Result<Cow<'_, str>, CommandError> {
    let name = text(Field::Tenant, value)?;
    if name.is_empty() || name.len() > MAX_USER_BYTES || name.contains(char::is_control) {
        let expected = format!("a name of 1 to {MAX_USER_BYTES} bytes without control characters");
        return Err(bad(Field::Tenant, &format!("{:?}", shown(&name)), &expected));
    }
    Ok(name)
}
