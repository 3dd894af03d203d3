//! The `throng` program: arguments, configuration, launch.
//!
//! The only place that knows exit codes: 0 when all went well, 2 when the command line or the
//! configuration is wrong, 1 for everything else. Whatever is wrong is printed to standard error once,
//! where it was found.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use throng::node::config::{Config, Origin};
use throng::node::{check, launch};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A self-hosted real-time connection engine: live connections, rooms and fan-out on one Linux host.
#[derive(Debug, Parser)]
#[command(name = "throng", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT; a second signal ends at once. SIGHUP reads the configuration again.
    Run(Input),
    /// Check the configuration and say everything that is wrong with it.
    CheckConfig(Input),
    /// Print the configuration, complete and with comments, as a file that can be used as it is.
    PrintConfig(Input),
}

#[derive(Args, Debug)]
struct Input {
    /// The configuration file; without it every key has its default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override one key of the file, as `--set server.shards=2`. May be given many times; the last wins.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => execute(cli.command),
        // Help and version come as errors too, which know where they are to be printed.
        Err(error) => match (error.print(), error.use_stderr()) {
            (Err(_), _) => ExitCode::FAILURE,
            (Ok(()), true) => ExitCode::from(2),
            (Ok(()), false) => ExitCode::SUCCESS,
        },
    }
}

fn execute(command: Command) -> ExitCode {
    let (Command::Run(input) | Command::CheckConfig(input) | Command::PrintConfig(input)) =
        &command;
    let origin = Origin { file: input.config.clone(), sets: input.set.clone() };
    let config = match origin.load() {
        Ok(config) => config,
        Err(error) => {
            complain("configuration", &error);
            return ExitCode::from(2);
        }
    };
    match command {
        Command::Run(_) => match launch(&config, &origin) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain("throng", &error);
                ExitCode::FAILURE
            }
        },
        Command::CheckConfig(_) => match check(&config) {
            Ok(()) => print(&report(&config)),
            Err(error) => {
                complain("configuration", &error);
                ExitCode::from(2)
            }
        },
        Command::PrintConfig(_) => print(&config.to_toml()),
    }
}

fn report(config: &Config) -> String {
    let warnings = config.warnings();
    let lines = warnings.iter().map(|warning| format!("warning: {warning}\n"));
    lines.chain(["the configuration is valid\n".to_owned()]).collect()
}

/// Prints to standard output. A reader that went away (`throng print-config | head`) is no failure.
fn print(text: &str) -> ExitCode {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain("standard output", &error);
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Prints what is wrong to standard error, each line under `what`. If even that fails, the exit code
/// remains.
fn complain(what: &str, error: &dyn Display) {
    for line in error.to_string().lines() {
        let _ = writeln!(io::stderr(), "{what}: {line}");
    }
}
