//! The `throng` program: arguments, configuration, launch.
//!
//! The only place that knows exit codes: 0 when all went well, 2 when the command line or the
//! configuration is wrong, 1 for everything else. Whatever is wrong is printed to standard error once,
//! where it was found.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use throng::node::config::{Config, Origin};
use throng::node::console::{self, RoomQuery, Top};
use throng::node::doctor::{self, Url, Verdict};
use throng::node::explain::{self, ExplainQuery};
use throng::node::remote::{Publication, Remote};
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
    /// Say what this machine would do to the node: limits, ports, memory, and the line that mends each fault.
    Doctor(Doctor),
    /// Publish by the admin listener of a running node, and print the answer.
    Publish(Box<Publish>),
    /// List the rooms of a running node, by its admin listener.
    Rooms(Rooms),
    /// Say what became of a publication for a user or a connection, by the admin listener of a running node.
    Explain(ExplainArgs),
    /// Watch a running node: connections, rates, the largest rooms and the slowest readers.
    Top(TopArgs),
    /// Print the configuration, complete and with comments, as a file that can be used as it is.
    PrintConfig(Input),
}

#[derive(Args, Clone, Debug)]
struct Input {
    /// The configuration file; without it every key has its default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override one key of the file, as `--set server.shards=2`. May be given many times; the last wins.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Args, Debug)]
struct Doctor {
    #[command(flatten)]
    input: Input,
    /// Tell instead what so many connections cost in memory and descriptors.
    #[arg(long, value_name = "CONNECTIONS", conflicts_with = "through")]
    estimate: Option<u64>,
    /// Find out instead for how long a connection to this WebSocket may be silent on its way through proxies.
    #[arg(long, value_name = "URL", value_parser = Url::parse)]
    through: Option<Url>,
    /// Find out instead whether an upgrade to a WebSocket at this URL passes the proxies before it.
    #[arg(long, value_name = "URL", value_parser = Url::parse, conflicts_with_all = ["estimate", "through"])]
    proxy: Option<Url>,
    /// For how many seconds to stay silent.
    #[arg(long, value_name = "SECONDS", default_value_t = 130, requires = "through")]
    patience: u64,
}

#[derive(Args, Debug)]
struct RemoteArgs {
    /// The admin listener.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8081")]
    url: String,
    /// A file that holds the secret of a key with the scope "inspect".
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// Whose rooms; those of clients without a tenant when left out.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
}

#[derive(Args, Debug)]
struct Rooms {
    #[command(flatten)]
    remote: RemoteArgs,
    /// Only rooms whose names begin so.
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// Those with most members first.
    #[arg(long, conflicts_with = "after")]
    largest: bool,
    /// Only rooms behind this one.
    #[arg(long, value_name = "ROOM")]
    after: Option<String>,
    /// The most rooms.
    #[arg(long, value_name = "ROOMS", default_value_t = 20)]
    limit: u16,
}

#[derive(Args, Debug)]
struct ExplainArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// The user.
    #[arg(long, value_name = "USER", required_unless_present = "connection")]
    user: Option<String>,
    /// One connection instead of a user.
    #[arg(long, value_name = "CLIENT_ID", conflicts_with = "user")]
    connection: Option<String>,
    /// The room that it was published to.
    #[arg(long, value_name = "ROOM")]
    room: String,
    /// Its number in the room.
    #[arg(long, value_name = "OFFSET")]
    offset: u64,
}

#[derive(Args, Debug)]
struct TopArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// Seconds between two looks, over which rates are taken.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// Print one screen and end.
    #[arg(long)]
    once: bool,
}

impl RemoteArgs {
    fn remote(&self) -> Remote<'_> {
        Remote { url: &self.url, key_file: &self.key_file }
    }
}

impl Rooms {
    fn execute(self) -> ExitCode {
        let query = RoomQuery {
            tenant: self.remote.tenant.as_deref(),
            prefix: self.prefix.as_deref(),
            after: self.after.as_deref(),
            largest: self.largest,
            limit: self.limit,
        };
        match console::rooms(&self.remote.remote(), &query) {
            Ok(table) => print(&table),
            Err(error) => {
                complain("rooms", &error);
                ExitCode::FAILURE
            }
        }
    }
}

impl ExplainArgs {
    fn execute(self) -> ExitCode {
        let query = ExplainQuery {
            room: &self.room,
            offset: self.offset,
            user: self.user.as_deref(),
            connection: self.connection.as_deref(),
            tenant: self.remote.tenant.as_deref(),
        };
        match explain::explain(&self.remote.remote(), &query) {
            Ok(told) => print(&told),
            Err(error) => {
                complain("explain", &error);
                ExitCode::FAILURE
            }
        }
    }
}

impl TopArgs {
    fn execute(self) -> ExitCode {
        let interval = Duration::from_secs(self.interval);
        let (remote, tenant) = (self.remote.remote(), self.remote.tenant.as_deref());
        let mut top = Top::new(remote, tenant, interval);
        loop {
            let screen = match top.look_again() {
                Ok(screen) => screen,
                Err(error) => {
                    complain("top", &error);
                    return ExitCode::FAILURE;
                }
            };
            if self.once {
                return print(&screen);
            }
            // Home, and clear from there: the screen before is written over.
            let mut out = io::stdout();
            let text = format!("\x1b[H\x1b[J{screen}");
            if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
                return ExitCode::SUCCESS;
            }
        }
    }
}

#[derive(Args, Debug)]
struct Publish {
    /// The admin listener.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8081")]
    url: String,
    /// A file that holds the secret of a key with the scope "publish".
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// The type of the message.
    #[arg(long = "type", value_name = "TYPE")]
    kind: String,
    #[command(flatten)]
    targets: TargetArgs,
    #[command(flatten)]
    except: ExceptArgs,
    /// The message's own id, passed on.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// What it replaces in rooms that conflate.
    #[arg(long, value_name = "KEY")]
    conflate: Option<String>,
    /// Whose rooms and users these are.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Wait for the number of connections reached.
    #[arg(long)]
    count: bool,
    /// Store it before anybody has it; to one room.
    #[arg(long)]
    persist: bool,
    /// JSON; left out, the message has none.
    payload: Option<String>,
}

#[derive(Args, Debug)]
struct TargetArgs {
    /// To the members of this room. May be given many times, as the other targets.
    #[arg(long, value_name = "ROOM")]
    room: Vec<String>,
    /// To all connections of this user.
    #[arg(long, value_name = "USER")]
    user: Vec<String>,
    /// To this connection.
    #[arg(long, value_name = "CLIENT_ID")]
    connection: Vec<String>,
    /// To everyone of the tenant.
    #[arg(long)]
    everyone: bool,
}

#[derive(Args, Debug)]
struct ExceptArgs {
    /// Not to this connection.
    #[arg(long, value_name = "CLIENT_ID")]
    except_connection: Vec<String>,
    /// Not to this user.
    #[arg(long, value_name = "USER")]
    except_user: Vec<String>,
    /// Not to the members of this room.
    #[arg(long, value_name = "ROOM")]
    except_room: Vec<String>,
}

impl Publish {
    fn execute(self: Box<Self>) -> ExitCode {
        let remote = Remote { url: &self.url, key_file: &self.key_file };
        let publication = Publication {
            kind: self.kind,
            payload: self.payload,
            texts: vec![("id", self.id), ("key", self.conflate), ("tenant", self.tenant)],
            lists: vec![
                ("rooms", self.targets.room),
                ("users", self.targets.user),
                ("connections", self.targets.connection),
            ],
            except: vec![
                ("connections", self.except.except_connection),
                ("users", self.except.except_user),
                ("rooms", self.except.except_room),
            ],
            flags: vec![
                ("everyone", self.targets.everyone),
                ("count", self.count),
                ("persist", self.persist),
            ],
        };
        match remote.publish(&publication) {
            Ok(answer) => print(&answer),
            Err(error) => {
                complain("publish", &error);
                ExitCode::FAILURE
            }
        }
    }
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
    match command {
        Command::Run(input) => input.with(|config, origin| match launch(config, origin) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain("throng", &error);
                ExitCode::FAILURE
            }
        }),
        Command::CheckConfig(input) => input.with(|config, _| match check(config) {
            Ok(()) => print(&report(config)),
            Err(error) => {
                complain("configuration", &error);
                ExitCode::from(2)
            }
        }),
        Command::PrintConfig(input) => input.with(|config, _| print(&config.to_toml())),
        Command::Doctor(doctor) => doctor.input.clone().with(|config, _| diagnose(config, &doctor)),
        Command::Publish(publish) => publish.execute(),
        Command::Rooms(rooms) => rooms.execute(),
        Command::Explain(explain) => explain.execute(),
        Command::Top(top) => top.execute(),
    }
}

impl Input {
    /// Does something with the configuration, if there is nothing wrong with it.
    fn with(self, work: impl FnOnce(&Config, &Origin) -> ExitCode) -> ExitCode {
        let origin = Origin { file: self.config, sets: self.set };
        match origin.load() {
            Ok(config) => work(&config, &origin),
            Err(error) => {
                complain("configuration", &error);
                ExitCode::from(2)
            }
        }
    }
}

fn diagnose(config: &Config, ask: &Doctor) -> ExitCode {
    let done = |text: &str, is_good: bool| match print(text) {
        ExitCode::SUCCESS if !is_good => ExitCode::FAILURE,
        code => code,
    };
    if let Some(connections) = ask.estimate {
        return done(&doctor::estimate(config, connections), true);
    }
    if let Some(url) = &ask.proxy {
        return match doctor::try_upgrade(url) {
            Ok((text, worst)) => done(&text, worst < Verdict::Bad),
            Err(error) => {
                complain("throng", &error);
                ExitCode::FAILURE
            }
        };
    }
    let Some(url) = &ask.through else {
        let (text, worst) = doctor::examine(config);
        return done(&text, worst < Verdict::Bad);
    };
    match doctor::watch_idle(url, Duration::from_secs(ask.patience)) {
        Ok(silence) => {
            let interval = config.heartbeat.interval;
            let is_good = silence.suits(interval);
            let word = if is_good { "suits" } else { "is too long for that" };
            let seconds = interval.as_secs_f64();
            done(&format!("{silence}\nheartbeat.ping_interval of {seconds:.1} s {word}\n"), is_good)
        }
        Err(error) => {
            complain("throng", &error);
            ExitCode::FAILURE
        }
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
