//! The log lines of connections that have gone.
//!
//! One line each, with fields of fixed names: a program that reads the log in JSON finds them at the top of
//! the object. Written by the main thread, which may wait for a slow log; the shards do not.

use crate::shard::Farewell;

/// Writes one.
pub(super) fn log(farewell: &Farewell) {
    let (tenant, user) = match &farewell.who {
        Some((tenant, user)) => (tenant.as_deref(), Some(&**user)),
        None => (None, None),
    };
    let frame = farewell.why.close_frame();
    let code = frame.as_ref().map(|(code, _)| u16::from(*code));
    let text = frame.as_ref().map(|(_, text)| &**text);
    tracing::info!(
        conn = %farewell.conn,
        user,
        tenant,
        reason = farewell.why.label(),
        code,
        text,
        received_bytes = farewell.received,
        sent_bytes = farewell.sent,
        seconds = farewell.life.as_secs_f64(),
        "a connection ends"
    );
}
