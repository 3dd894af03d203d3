//! The server's own counters, asked for by signal and read from its log.
//!
//! A server that logs a line with `counters: a=1 b=2` on SIGUSR1 is asked and its log is watched until the
//! line is there. The signal would end a process that has no handler for it, so such a one is never asked,
//! and the process is held by a descriptor, so that a number given out again reaches nobody else.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::proc;
use crate::clock::now;

/// Where the counters of a server come from.
#[derive(Debug)]
pub(super) struct Counters {
    server: OwnedFd,
    log: File,
    path: PathBuf,
}

/// How long a server may take to write its line.
const PATIENCE: Duration = Duration::from_secs(1);
const MARK: &str = "counters: ";
/// The number of SIGUSR1 on every architecture that has io_uring.
const USR1: u32 = 10;

impl Counters {
    /// Opens the log of a server.
    ///
    /// # Errors
    ///
    /// There is no such process or file, or the process does not handle the signal.
    pub(super) fn open(pid: u32, path: PathBuf) -> Result<Self, String> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let number = number.ok_or_else(|| format!("--pid {pid}: no process has this number"))?;
        let server = pidfd_open(number, PidfdFlags::empty())
            .map_err(|error| format!("--pid {pid}: {error}"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        if !proc::handles(&status, USR1) {
            return Err(format!(
                "process {pid} does not handle SIGUSR1, so it tells no counters: leave --server-log out"
            ));
        }
        let log = File::open(&path).map_err(|e| format!("--server-log {}: {e}", path.display()))?;
        Ok(Self { server, log, path })
    }

    /// Asks for the counters; empty when none came in time.
    pub(super) fn ask(&self) -> BTreeMap<String, f64> {
        self.asked().unwrap_or_default()
    }

    fn asked(&self) -> Option<BTreeMap<String, f64>> {
        let seen = self.log.metadata().ok()?.len();
        // Watched before the signal goes out, so that no line comes unnoticed.
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK);
        let watch = watch.ok()?;
        inotify::add_watch(&watch, &self.path, inotify::WatchFlags::MODIFY).ok()?;
        pidfd_send_signal(&self.server, Signal::USR1).ok()?;
        let deadline = now() + PATIENCE;
        let mut text = Vec::new();
        loop {
            self.read_on(seen, &mut text)?;
            if let Some(found) = parse(&String::from_utf8_lossy(&text)) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(now());
            if left.is_zero() {
                return None;
            }
            let timeout = Timespec::try_from(left).ok()?;
            let _ = poll(&mut [PollFd::new(&watch, PollFlags::IN)], Some(&timeout));
            let mut events = [0_u8; 4096];
            while rustix::io::read(&watch, &mut events).is_ok_and(|got| got > 0) {}
        }
    }

    /// Appends what the log has beyond `seen` and the text read so far.
    fn read_on(&self, seen: u64, text: &mut Vec<u8>) -> Option<()> {
        let mut chunk = [0; 8192];
        loop {
            let at = seen + u64::try_from(text.len()).ok()?;
            match self.log.read_at(&mut chunk, at).ok()? {
                0 => return Some(()),
                got => text.extend_from_slice(&chunk[..got]),
            }
        }
    }
}

/// The counters of the first whole line that has some, with or without colours, as text or as JSON.
fn parse(text: &str) -> Option<BTreeMap<String, f64>> {
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines.filter_map(|line| line.split_once(MARK)).map(|(_, pairs)| pairs_of(pairs)).next()
}

fn pairs_of(text: &str) -> BTreeMap<String, f64> {
    let pairs = text.split_ascii_whitespace().map_while(|pair| {
        let (name, value) = pair.split_once('=')?;
        // What ends the last value is a quotation mark, a bracket or an escape.
        let end = value.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(value.len());
        Some((name.to_owned(), value[..end].parse().ok()?))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::super::stand_in::StandIn;
    use super::*;

    #[test]
    fn counters_are_read_from_plain_coloured_and_json_lines() {
        let expected = BTreeMap::from([("a_total".to_owned(), 1.0), ("b".to_owned(), 2.5)]);
        for line in [
            "2026-01-01 INFO counters: a_total=1 b=2.5\n",
            "\u{1b}[2m2026\u{1b}[0m \u{1b}[32m INFO\u{1b}[0m counters: a_total=1 b=2.5\u{1b}[0m\n",
            "{\"fields\":{\"message\":\"counters: a_total=1 b=2.5\"},\"target\":\"x\"}\n",
            "other\ncounters: a_total=1 b=2.5\ncounters: a_total=9\n",
        ] {
            assert_eq!(parse(line).as_ref(), Some(&expected), "{line:?}");
        }
        assert_eq!(parse("counters: a=1 b=2"), None, "the line is not whole");
        assert_eq!(parse("INFO counters: \n"), Some(BTreeMap::new()), "all are zero");
    }

    #[test]
    fn a_server_that_logs_on_the_signal_is_asked_and_heard() {
        let folder = std::env::temp_dir();
        let path = folder.join(format!("throng-load-counters-{}.log", std::process::id()));
        let log = File::create(&path).expect("a log");
        // The shell says when its handler stands; then it serves until its input ends.
        let script = "trap 'echo \"INFO counters: sent=7\"' USR1; exec 3<&0; \
                      cat <&3 >/dev/null & child=$!; echo ready; \
                      while wait $child; [ $? -gt 128 ]; do :; done";
        let mut server = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::from(log))
            .spawn()
            .expect("a shell");
        while fs::read(&path).expect("the log").is_empty() {
            std::thread::yield_now();
        }
        let counters = Counters::open(server.id(), path.clone()).expect("a server");
        for _ in 0..2 {
            assert_eq!(counters.ask(), BTreeMap::from([("sent".to_owned(), 7.0)]));
        }
        drop(server.stdin.take());
        server.wait().expect("ended");
        assert!(counters.ask().is_empty(), "nobody is there to answer");
        fs::remove_file(&path).expect("removed");
    }

    #[test]
    fn a_process_without_a_handler_is_never_asked() {
        let other = StandIn::start();
        let refused = Counters::open(other.pid(), "/dev/null".into()).map(|_| ());
        assert!(other.end(), "no signal ended it");
        assert!(refused.expect_err("refused").contains("SIGUSR1"));
        assert!(Counters::open(u32::MAX, "/dev/null".into()).is_err());
    }
}
