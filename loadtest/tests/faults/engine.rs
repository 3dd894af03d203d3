//! A real engine as a child process.
//!
//! It is another package's program, so Cargo does not name it to this test; it lies where this test's own
//! build put the rest of the workspace, and is built when it does not.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

/// A running engine, killed when it is dropped.
pub(crate) struct Engine {
    child: Child,
    /// Kept open, so that the engine can say more.
    _said: BufReader<ChildStdout>,
    pub(crate) address: SocketAddr,
    /// Where it speaks TLS, if it does.
    pub(crate) secure: Option<SocketAddr>,
}

impl Engine {
    /// Starts an engine of two shards on a free port with its echo endpoint at `/echo`, and returns when it
    /// serves.
    pub(crate) fn start(sets: &[&str]) -> Self {
        let own = [
            "server.listen=127.0.0.1:0",
            "server.shards=2",
            "debug.echo_path=/echo",
            "limits.messages_per_second=0",
        ];
        let sets = own.iter().chain(sets).flat_map(|set| ["--set", set]);
        let mut child = Command::new(program())
            .arg("run")
            .args(sets)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the engine starts");
        let mut said = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        said.read_line(&mut line).expect("a line of the engine");
        let at = |scheme: &str| {
            let (_, rest) = line.split_once(scheme)?;
            rest.split('/').next()?.parse().ok()
        };
        let address = at(" ws://").unwrap_or_else(|| panic!("no address: {line:?}"));
        Self { child, _said: said, address, secure: at(" wss://") }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // One that has ended already is reaped all the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, which is built once where it is missing.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let generator = Path::new(env!("CARGO_BIN_EXE_throng-load"));
        let program = generator.with_file_name("throng");
        if !program.exists() {
            let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
            let folder = generator.parent().expect("a folder of programs");
            let release = folder.ends_with("release").then_some("--release");
            let target = folder.parent().expect("a target folder");
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--package", "throng", "--bin", "throng"]).args(release);
            cargo.arg("--target-dir").arg(target).current_dir(workspace);
            assert!(cargo.status().expect("cargo runs").success(), "the engine does not build");
        }
        program
    })
}
