//! Whole nodes over real sockets, with tungstenite as a foreign client.
//!
//! Every test runs on both drivers. A node here is the one that `throng run` starts, in this process,
//! with its own workers and listener on a free port of the loopback interface.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails here has failed")]

mod admin;
mod auth;
#[path = "../support/authority.rs"]
mod authority;
mod backend;
mod backpressure;
mod bridge;
mod churn;
mod deflate;
mod doors;
mod drain;
mod events;
mod explain;
mod front;
mod handshake;
mod history;
mod hoards;
mod hostile;
mod inbox;
mod jwks;
mod limits;
mod liveness;
mod logs;
mod matrix;
mod memory;
mod metrics;
mod netcut;
mod overview;
mod panics;
mod passages;
mod persist;
mod persist_ways;
mod polling;
mod presence;
mod pressure;
mod process;
mod program;
mod proxies;
mod publish;
mod quotas;
mod replies;
mod rooms;
mod schemas;
mod service;
mod shortage;
mod socketio;
mod store;
mod stream;
mod support;
mod targets;
mod tls;
mod upgrades;
mod users;
mod webhook;
