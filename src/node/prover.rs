//! The threads that do for shards what takes long: check tokens of dear signatures, compress long payloads.
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
use crate::node::settings;
use crate::shard::{MOST_PACKED_AT_ONCE, Mail, Packer, Packing};

/// When an inbox is tried again that had no space for an answer.
const AGAIN: Duration = Duration::from_millis(1);

/// What a shard hands over.
#[derive(Debug)]
pub(super) enum Work {
    /// A token to be checked.
    Proof(Proof),
    /// A payload to be compressed.
    Packing(Packing),
}

/// The threads.
#[derive(Debug)]
pub(super) struct Provers {
    /// `None` at the end.
    line: Option<Sender<Work>>,
    threads: Vec<JoinHandle<()>>,
}

/// How many the configuration asks for. Where nobody shows a token there is nothing to check; one is there for what
/// is to be compressed.
pub(super) fn threads(config: &Config) -> usize {
    let proving = match config.auth.door.mode {
        AuthMode::Local | AuthMode::Open => 0,
        AuthMode::Token => usize::from(config.auth.checks.threads),
    };
    proving.max(usize::from(config.transport.compression.enabled))
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
        let most = config.auth.checks.waiting as usize + MOST_PACKED_AT_ONCE;
        let (line, work) = bounded(usize::from(shards) * most);
        let rules = settings::compression(config);
        let mut own = Self { line: Some(line), threads: Vec::new() };
        for (number, port) in ports.into_iter().enumerate() {
            let (out, work) = (Out::new(shards, port), work.clone());
            let builder = std::thread::Builder::new().name(format!("prover-{number}"));
            let packer = rules.as_ref().map(Packer::new);
            let thread = builder.spawn(move || toil(out, packer, &work));
            own.threads.push(thread.map_err(|e| LaunchError::new("starting a thread", e))?);
        }
        Ok(Some(own))
    }

    /// Where work is handed in.
    pub(super) fn line(&self) -> Sender<Work> {
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
pub(super) fn hand_over(line: &Sender<Work>, proof: Proof) -> Result<(), Proof> {
    match line.try_send(Work::Proof(proof)) {
        Err(TrySendError::Full(Work::Proof(proof))) => Err(proof),
        // At the end of the node nobody waits for it any more.
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Hands a payload over. Never waits.
///
/// # Errors
/// Gives back what there is no space for.
pub(super) fn hand_over_payload(line: &Sender<Work>, packing: Packing) -> Result<(), Packing> {
    match line.try_send(Work::Packing(packing)) {
        Err(TrySendError::Full(Work::Packing(packing))) => Err(packing),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Does what is handed in until nobody can hand in any more.
fn toil(mut out: Out, mut packer: Option<Packer>, work: &Receiver<Work>) {
    loop {
        let next = if out.is_empty() {
            work.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            work.recv_timeout(AGAIN)
        };
        match next {
            Ok(Work::Proof(proof)) => {
                out.push(usize::from(proof.from.0), Mail::Proven(Box::new(proof.check())));
            }
            Ok(Work::Packing(packing)) => {
                // Shards ask only where the configuration has it on, which changes with a restart alone.
                if let Some(packer) = &mut packer {
                    let done = Box::new(packer.pack(&packing));
                    out.push(usize::from(packing.from.0), Mail::Packed(done));
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        out.offer();
    }
}
