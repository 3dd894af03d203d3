//! `throng-load`: the load generator of Throng.
//!
//! It shares no code with the engine, so that a fault in the engine's codec cannot hide in the client that
//! checks it, and it drives its clients over io_uring, one task each. Exit codes: 0 when every expectation
//! held, 1 when one did not, 2 when the command line is wrong or the kernel offers no io_uring.

mod client;
mod clock;
mod codec;
mod compare;
mod figures;
#[cfg_attr(not(test), expect(dead_code, reason = "the coordinator that uses it is to come"))]
mod hdr;
#[cfg_attr(not(test), expect(dead_code, reason = "the coordinator that uses it is to come"))]
mod html;
mod human;
mod outcome;
mod report;
mod smoke;
#[cfg_attr(not(test), expect(dead_code, reason = "the coordinator that uses it is to come"))]
mod summary;
#[cfg_attr(not(test), expect(dead_code, reason = "the coordinator that uses it is to come"))]
mod view;

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use client::Target;
use report::Report;
use smoke::Plan;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Puts load on a Throng node and checks what comes back.
#[derive(Debug, Parser)]
#[command(name = "throng-load", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Many clients join a room, one publishes; loss, duplicates and reordering fail the run.
    Smoke(Smoke),
    /// Compares runs with runs; fails when a figure is worse than allowed.
    Compare(compare::Args),
}

#[derive(Args, Debug)]
struct Smoke {
    /// Where to connect.
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:8080/ws")]
    url: String,
    /// Clients, the publisher among them.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// Messages to publish.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    messages: u64,
    /// The room.
    #[arg(long, default_value = "smoke")]
    room: String,
    /// IPv4 address to connect from, or a range of them in the last number, as 127.0.0.1-4. One address
    /// has about 28,000 ports.
    #[arg(long, value_name = "ADDRESS[-K]")]
    src: Option<String>,
    /// How many messages the publisher may be ahead of the slowest client.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..))]
    window: u64,
    /// How long joining, delivering and closing may take each.
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..))]
    timeout_ms: u64,
}

/// Ring sizes: room for the writes of one turn, and for a completion of every client at once.
const SUBMISSIONS: u32 = 1024;
const COMPLETIONS: u32 = 65_536;

fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        // Help and version come as errors too, which know where they are to be printed.
        Err(error) => {
            let printed = error.print();
            let wrong = error.use_stderr() || printed.is_err();
            return if wrong { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    match command {
        Command::Smoke(arguments) => smoke(arguments),
        Command::Compare(arguments) => match arguments.run() {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => unusable(&error),
        },
    }
}

fn smoke(arguments: Smoke) -> ExitCode {
    match plan(arguments).and_then(run) {
        Ok(report) => {
            // The exit code says it too, should nobody be there to read.
            let _ = writeln!(io::stdout(), "{report}");
            if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => unusable(&error),
    }
}

/// Says why nothing could be done.
fn unusable(error: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "throng-load: {error}");
    ExitCode::from(2)
}

fn plan(arguments: Smoke) -> Result<Plan, String> {
    Ok(Plan {
        target: Target::parse(&arguments.url)?,
        clients: usize::try_from(arguments.clients).unwrap_or(usize::MAX),
        messages: arguments.messages,
        room: arguments.room,
        sources: arguments.src.as_deref().map(sources).transpose()?.unwrap_or_default(),
        window: arguments.window,
        patience: Duration::from_millis(arguments.timeout_ms),
    })
}

/// The addresses of `127.0.0.1` or `127.0.0.1-4`.
fn sources(text: &str) -> Result<Vec<IpAddr>, String> {
    let wrong = || format!("--src {text}: expected an IPv4 address, as 127.0.0.1 or 127.0.0.1-4");
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (first, Some(last)),
        None => (text, None),
    };
    let first: Ipv4Addr = first.parse().map_err(|_| wrong())?;
    let [a, b, c, low] = first.octets();
    let high: u8 = last.map_or(Ok(low), str::parse).map_err(|_| wrong())?;
    if high < low {
        return Err(wrong());
    }
    Ok((low..=high).map(|d| Ipv4Addr::new(a, b, c, d).into()).collect())
}

/// Runs the plan in a runtime of its own.
fn run(plan: Plan) -> Result<Report, String> {
    let mut ring = tokio_uring::uring_builder();
    ring.setup_cqsize(COMPLETIONS).setup_clamp();
    // The runtime panics where the kernel refuses a ring; asking first gives a sentence instead.
    ring.build(SUBMISSIONS).map_err(|error| format!("io_uring is not available: {error}"))?;
    let mut builder = tokio_uring::builder();
    builder.entries(SUBMISSIONS).uring_builder(&ring);
    Ok(builder.start(smoke::run(plan)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_ranges_are_read_or_refused() {
        let read = |text| sources(text).map(|found| found.len());
        assert_eq!(read("127.0.0.1"), Ok(1));
        assert_eq!(read("127.0.0.1-4"), Ok(4));
        assert_eq!(sources("10.0.0.7-7").expect("one").first(), Some(&[10, 0, 0, 7].into()));
        for text in ["", "x", "127.0.0.1-", "127.0.0.9-4", "127.0.0.1-256", "::1"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
