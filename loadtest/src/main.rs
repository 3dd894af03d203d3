//! `throng-load`: the load generator of Throng.
//!
//! It shares no code with the engine, so that a fault in the engine's codec cannot hide in the client that
//! checks it, and it drives its clients over io_uring, one task each. A scenario ([`spec`]) is worked out for
//! each client, run by threads ([`worker`]) under a [`coordinator`], and yields one [`outcome`], which everything
//! that judges or shows a run reads. Exit codes: 0 when every expectation held, 1 when one did not, 2 when the
//! command line is wrong or the machine lacks what the run needs.

mod assemble;
mod calibrate;
mod certify;
mod cli;
mod clock;
mod codec;
mod compare;
mod coordinator;
mod dialect;
mod events;
mod figures;
mod findcap;
mod floor;
mod hdr;
mod html;
mod human;
mod ledger;
mod limits;
mod outcome;
mod payload;
mod sample;
mod seal;
mod socket;
mod sources;
mod spec;
mod summary;
mod sys;
mod token;
mod view;
mod worker;

use std::fs;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command, Flags};
use outcome::Outcome;
use spec::{Kind, Spec};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    match obey(command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("throng-load: {error}"));
            ExitCode::from(2)
        }
    }
}

fn obey(command: Command) -> Result<bool, String> {
    match command {
        Command::Idle(flags) => play(&flags, flags.spec(Kind::Idle)?),
        Command::Echo(flags) => play(&flags, flags.spec(Kind::Echo)?),
        Command::Fanout(flags) => play(&flags, flags.spec(Kind::Fanout)?),
        Command::Rooms(flags) => play(&flags, flags.spec(Kind::Rooms)?),
        Command::Churn(flags) => play(&flags, flags.spec(Kind::Churn)?),
        Command::Storm(flags) => play(&flags, flags.spec(Kind::Storm)?),
        Command::Slow(flags) => play(&flags, flags.spec(Kind::Slow)?),
        Command::Mixed(flags) => play(&flags, flags.spec(Kind::Mixed)?),
        Command::Run { file, flags } => play(&flags, flags.spec_of(&file)?),
        Command::Floor(arguments) => arguments.run().map(|()| true),
        Command::Calibrate(arguments) => arguments.run().map(|()| true),
        Command::Compare(arguments) => arguments.run(),
    }
}

/// Runs a scenario and hands its outcome to whoever is to have it.
fn play(flags: &Flags, spec: Spec) -> Result<bool, String> {
    if !spec.crowd.cores.is_empty() {
        sample::cores::pin(&spec.crowd.cores)?;
    }
    let options = flags.options();
    let outcome = match flags.cap() {
        None => coordinator::run(&spec, &options)?,
        Some(cap) => {
            let (rate, outcome) = findcap::find(&spec, &options, cap)?;
            print(&format!("highest rate kept: {rate:.0} messages a second\n"));
            outcome
        }
    };
    print(&summary::render(&outcome));
    write(&flags.output, &outcome)?;
    Ok(outcome.verdict.passed)
}

fn write(output: &cli::OutputFlags, outcome: &Outcome) -> Result<(), String> {
    if let Some(path) = &output.json {
        let json = serde_json::to_vec_pretty(outcome).map_err(|error| error.to_string())?;
        fs::write(path, json).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if let Some(path) = &output.report {
        fs::write(path, html::page(outcome)).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    if let Some(path) = &output.hdr {
        hdr::write_log(path, outcome)?;
    }
    Ok(())
}

/// Writes to standard output. The exit code says it too, should nobody be there to read.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// Writes a line to standard error.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
