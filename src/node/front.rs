//! What the configuration says of servers behind the public listeners, as the front's thread takes it.

use crate::front::{Options, Place};
use crate::node::config::Config;

/// What the thread is told; `None` where no request is passed on.
pub(super) fn options(config: &Config) -> Option<Options> {
    let places: Vec<Place> = config
        .lists
        .proxies
        .iter()
        .map(|proxy| Place {
            path: proxy.path.clone(),
            url: proxy.to.clone(),
            timeout: proxy.timeout,
            idle: proxy.idle,
            body_bytes: proxy.body_bytes,
            answer_bytes: proxy.answer_bytes,
            connections: proxy.connections as usize,
            per_address: proxy.per_address as usize,
        })
        .collect();
    let head = &config.limits.head;
    (!places.is_empty()).then(|| Options {
        places,
        head_bytes: head.max_bytes as usize,
        headers: head.max_headers.into(),
    })
}
