//! A process for tests to watch: it does nothing, and ends when its input does.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};

/// A process that lives as long as this value.
pub(super) struct StandIn(Child);

impl StandIn {
    /// Starts one and waits until it runs its own program, not ours.
    pub(super) fn start() -> Self {
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("cat");
        child.stdin.as_mut().expect("its input").write_all(b"x").expect("written");
        child.stdout.as_mut().expect("its output").read_exact(&mut [0]).expect("an echo");
        Self(child)
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// True when it ended by itself, not by a signal.
    pub(super) fn end(mut self) -> bool {
        drop(self.0.stdin.take());
        self.0.wait().expect("ended").success()
    }
}
