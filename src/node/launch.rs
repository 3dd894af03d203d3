//! `throng run`: start the node, say so, obey signals, end in order.
//!
//! SIGTERM and SIGINT begin the graceful end, a second one ends at once; SIGHUP reads the configuration
//! again; SIGUSR1 logs the counters. A service manager is told when the node accepts, that it lives, and when
//! it drains.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use tracing_subscriber::EnvFilter;

use crate::base::counters::Counters;
use crate::node::config::values::{LogFormat, LogLevel};
use crate::node::config::{Config, Origin};
use crate::node::running::{LaunchError, Node};
use crate::node::service::Service;

/// How often signals and failed workers are looked for, and during a drain its end.
const LOOK: Duration = Duration::from_millis(100);
const LOOK_DRAINING: Duration = Duration::from_millis(10);

/// Runs the node until it is asked to stop. `origin` is read again on SIGHUP.
///
/// # Errors
/// When the world refuses what the configuration asks for, or a worker fails.
pub fn launch(config: &Config, origin: &Origin) -> Result<(), LaunchError> {
    let set_level = start_log(config);
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])
        .map_err(|error| LaunchError::new("signal handlers", error))?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let node = Node::start(config)?;
    tracing::info!("{}", config.inside.store.about(&config.inside.shared_store));
    announce(&node, config);
    let mut service = Service::open();
    if let Some(service) = &service {
        service.ready(&format!("serving on {} shards", node.shards()));
    }
    let mut config = config.clone();
    let mut looks = 0_u64;
    loop {
        if let Some(error) = node.failed(LOOK) {
            return Err(error);
        }
        tend(&node, &mut service);
        looks += 1;
        if is_time_to_watch(&config, looks)
            && let Err(error) = node.watch(&config)
        {
            tracing::error!("the certificates were not taken over: {error}");
        }
        for signal in signals.pending() {
            match signal {
                SIGHUP => {
                    reload(&node, &mut config, origin);
                    set_level(config.log.level);
                }
                SIGUSR1 => log_counters(&node, &config),
                _ => return drain(node, &config, &mut signals, service),
            }
        }
    }
}

/// True at the looks at which the times of the certificates' files are looked at too.
fn is_time_to_watch(config: &Config, looks: u64) -> bool {
    let interval = config.transport.tls.watch_interval;
    let every = interval.as_nanos().div_ceil(LOOK.as_nanos());
    every > 0 && u128::from(looks).is_multiple_of(every)
}

/// What is done at every look, while the node serves and while it drains.
fn tend(node: &Node, service: &mut Option<Service>) {
    node.log_farewells();
    if service.as_mut().is_some_and(|service| service.look(|| node.turns())) {
        node.wake();
    }
}

fn drain(
    node: Node,
    config: &Config,
    signals: &mut Signals,
    mut service: Option<Service>,
) -> Result<(), LaunchError> {
    let window = config.server.drain_timeout;
    let open = node.counters().open_connections;
    tracing::info!(open, ?window, "draining: accepting has stopped; a second signal ends at once");
    if let Some(service) = &service {
        service.stopping(&format!("draining {open} connections"));
    }
    node.drain(window);
    loop {
        if let Some(error) = node.failed(LOOK_DRAINING) {
            return Err(error);
        }
        tend(&node, &mut service);
        if node.is_drained() {
            node.log_farewells();
            tracing::info!("drained");
            return node.stop();
        }
        if signals.pending().any(|signal| signal == SIGTERM || signal == SIGINT) {
            tracing::warn!(left = node.counters().connections, "ended by a second signal");
            return node.stop();
        }
    }
}

fn reload(node: &Node, config: &mut Config, origin: &Origin) {
    match origin.load() {
        Ok(new) => {
            let (next, ignored) = config.reload(&new);
            if let Err(error) = node.reload(&next) {
                return tracing::error!("the configuration was not taken over: {error}");
            }
            for key in ignored {
                tracing::warn!("{key} cannot change in a running node; restart it");
            }
            *config = next;
            tracing::info!("the configuration was read again");
        }
        Err(error) => tracing::error!("the configuration was not taken over: {error}"),
    }
}

fn log_counters(node: &Node, config: &Config) {
    let values = node.counters().values();
    let pairs = Counters::NAMES.iter().zip(values).filter(|(_, value)| *value > 0);
    let store = node.store_counters().into_iter().filter(|(_, value)| *value > 0);
    let mut line: Vec<String> = pairs.map(|(name, value)| format!("{name}={value}")).collect();
    let bridge = node.bridge_counters().into_iter().filter(|(_, value)| *value > 0);
    line.extend(bridge.map(|(name, value)| format!("{name}={value}")));
    let front = node.front_counters().into_iter().filter(|(_, value)| *value > 0);
    line.extend(front.map(|(name, value)| format!("{name}={value}")));
    line.extend(store.map(|(name, value)| format!("{name}={value}")));
    if config.debug.turn_clock {
        line.push(node.take_turns().to_string());
    }
    tracing::info!("counters: {}", line.join(" "));
}

/// Starts the log; what it returns changes the level later.
fn start_log(config: &Config) -> Box<dyn Fn(LogLevel)> {
    let filter = |level: LogLevel| EnvFilter::try_new(level.as_str()).unwrap_or_default();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(config.log.level))
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    // A second start in one process keeps the first one's log.
    match config.log.format {
        LogFormat::Text => {
            let builder = builder.with_target(false).with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = builder.try_init();
            Box::new(move |level| _ = handle.reload(filter(level)))
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = builder.try_init();
            Box::new(move |level| _ = handle.reload(filter(level)))
        }
    }
}

/// Says on standard output where the node is to be found; scripts read these lines.
fn announce(node: &Node, config: &Config) {
    let (_, why) = node.driver();
    let path = &config.server.path;
    let plain = node.plain_address().map(|address| format!("ws://{address}{path}"));
    let tls = node.tls_address().map(|address| format!("wss://{address}{path}"));
    let urls: Vec<String> = plain.into_iter().chain(tls).collect();
    let mut text = format!(
        "throng {} serves {} on {} shards, {} connections at most\ndriver {why}\n",
        env!("CARGO_PKG_VERSION"),
        urls.join(" and "),
        node.shards(),
        node.max_connections(),
    );
    if let Some(address) = node.admin_address() {
        text.push_str(&format!("admin on http://{address}\n"));
    }
    if config.demo.enabled {
        let scheme = if node.plain_address().is_some() { "http" } else { "https" };
        let address = node.address();
        text.push_str(&format!("open {scheme}://{address}/ in two browser windows\n"));
    }
    // Nobody may be reading; the node serves all the same.
    let _ = io::stdout().write_all(text.as_bytes());
}
