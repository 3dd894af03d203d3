//! The threads that check tokens whose signature takes long.
//!
//! A shard hands them values and goes on; each answer goes back to it by mail, over a port of the mesh that every
//! thread has of its own. The line to them has space for all that the shards together may have waiting, so it is
//! never full, and the bound that clients notice is the one in the shard.

use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use crate::auth::Proof;
use crate::mesh::Port;
use crate::node::config::Config;
use crate::node::config::auth::AuthMode;
use crate::node::desk::Out;
use crate::node::running::LaunchError;
use crate::shard::Mail;

/// When an inbox is tried again that had no space for an answer.
const AGAIN: Duration = Duration::from_millis(1);

/// The threads.
#[derive(Debug)]
pub(super) struct Provers {
    /// `None` at the end.
    line: Option<Sender<Proof>>,
    threads: Vec<JoinHandle<()>>,
}

/// How many the configuration asks for. Where nobody shows a token there is nothing to check.
pub(super) fn threads(config: &Config) -> usize {
    match config.auth.door.mode {
        AuthMode::Local | AuthMode::Open => 0,
        AuthMode::Token => usize::from(config.auth.checks.threads),
    }
}

impl Provers {
    /// Starts one for each port.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub(super) fn start(
        config: &Config,
        shards: u16,
        ports: Vec<Port<Mail>>,
    ) -> Result<Option<Self>, LaunchError> {
        if ports.is_empty() {
            return Ok(None);
        }
        let (line, work) = bounded(usize::from(shards) * config.auth.checks.waiting as usize);
        let mut own = Self { line: Some(line), threads: Vec::new() };
        for (number, port) in ports.into_iter().enumerate() {
            let (out, work) = (Out::new(shards, port), work.clone());
            let builder = std::thread::Builder::new().name(format!("prover-{number}"));
            let thread = builder.spawn(move || prove(out, &work));
            own.threads.push(thread.map_err(|e| LaunchError::new("starting a thread", e))?);
        }
        Ok(Some(own))
    }

    /// Where tokens are handed in.
    pub(super) fn line(&self) -> Sender<Proof> {
        self.line.clone().unwrap_or_else(|| unreachable!("it ends with its owner"))
    }

    /// True when one has ended; none does so by itself but by failing.
    pub(super) fn has_failed(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }
}

impl Drop for Provers {
    fn drop(&mut self) {
        self.line = None;
        for thread in self.threads.drain(..) {
            // Its panic has been printed.
            let _ = thread.join();
        }
    }
}

/// Hands a token over. Never waits.
///
/// # Errors
/// Gives back what there is no space for.
pub(super) fn hand_over(line: &Sender<Proof>, proof: Proof) -> Result<(), Proof> {
    match line.try_send(proof) {
        Err(TrySendError::Full(proof)) => Err(proof),
        // At the end of the node nobody waits for it any more.
        Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
    }
}

/// Checks what is handed in until nobody can hand in any more.
fn prove(mut out: Out, work: &Receiver<Proof>) {
    loop {
        let next = if out.is_empty() {
            work.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            work.recv_timeout(AGAIN)
        };
        match next {
            Ok(proof) => {
                out.push(usize::from(proof.from.0), Mail::Proven(Box::new(proof.check())));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        out.offer();
    }
}
