//! The program as a child process: started, signalled, listened to.
//!
//! It is given port 0 and says on standard output where it serves; that line is what is waited for. Its
//! log is read when a test asks for it and not before: it is short, and a pipe holds it meanwhile.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use throng::base::counters::Counters;

use crate::support::wait_until;

/// For the allocator: what it reserves counts as data, so it must not take a GiB for a start.
const SPARING: (&str, &str) = ("MIMALLOC_ARENA_RESERVE", "16MiB");

/// A running program, killed when a test ends before it does.
pub(crate) struct Program {
    child: Child,
    log: BufReader<ChildStderr>,
    pub(crate) address: SocketAddr,
    /// What it said on standard output before it served.
    pub(crate) said: String,
}

impl Program {
    /// Starts `throng run` with two shards on a free port, and returns when it serves.
    pub(crate) fn start(more: &[&str]) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_throng")), more)
    }

    /// The same with these variables of the environment.
    pub(crate) fn start_with(environment: &[(&str, &str)], more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_throng"));
        command.envs(environment.iter().copied());
        Self::start_by(command, more)
    }

    /// The same with so many descriptors, a limit that it cannot lift.
    pub(crate) fn start_within(descriptors: u64, more: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        let script = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_throng")]);
        Self::start_by(shell, more)
    }

    /// The same with an allocator that reserves in small pieces, which it does not do by itself.
    pub(crate) fn start_sparing(more: &[&str]) -> Self {
        Self::start_with(&[SPARING], more)
    }

    /// The same where no file may have more than so many bytes, as if the disk were full.
    pub(crate) fn start_with_files_of(bytes: u64, more: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        // A signal that is ignored stays so, and then the write fails as it does on a full disk.
        let script = format!("trap '' XFSZ && ulimit -f {} && exec \"$0\" \"$@\"", bytes / 512);
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_throng")]);
        Self::start_by(shell, more)
    }

    /// The same inside that control group, which has a limit on memory.
    pub(crate) fn start_grouped(group: &str, more: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        let script = "echo $$ > \"$GROUP\"/cgroup.procs && exec \"$0\" \"$@\"";
        shell.args(["-c", script, env!("CARGO_BIN_EXE_throng")]).env("GROUP", group);
        shell.envs([SPARING]);
        Self::start_by(shell, more)
    }

    /// The same with one more word in its environment.
    pub(crate) fn start_knowing(name: &str, value: &str, more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_throng"));
        command.env(name, value);
        Self::start_by(command, more)
    }

    fn start_by(mut command: Command, more: &[&str]) -> Self {
        let mut child = command
            .args(["run", "--set", "server.listen=127.0.0.1:0", "--set", "server.shards=2"])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        while !said.contains("open http://") {
            assert!(out.read_line(&mut said).unwrap() > 0, "it ended: {said}");
        }
        let (_, rest) = said.split_once("open http://").unwrap();
        let address = rest.split('/').next().unwrap().parse().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log, address, said }
    }

    /// The process number, for system calls that want it.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// From now on the kernel refuses it data, beyond what it has, of more than so many bytes.
    pub(crate) fn confine(&self, more: u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).expect("a size");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        let limit = Some((kib << 10) + more);
        let limits = Rlimit { current: limit, maximum: limit };
        prlimit(Pid::from_raw(self.pid()), Resource::Data, limits).unwrap();
    }

    /// True once it has ended, whichever way.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Stops it, and returns when none of its threads runs any more: the signal alone does not wait for that.
    pub(crate) fn stand_still(&self) {
        self.signal("-STOP");
        let tasks = format!("/proc/{}/task", self.child.id());
        let stands = |task: std::io::Result<std::fs::DirEntry>| {
            let stat =
                std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        };
        wait_until("it stands still", || std::fs::read_dir(&tasks).unwrap().all(stands));
    }

    /// Waits for the end and returns how it came and what the log still said.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        let mut log = String::new();
        self.log.read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap(), log)
    }

    /// The exit code.
    pub(crate) fn exit_code(self) -> Option<i32> {
        self.end().0.code()
    }

    /// Reads its log up to a line with these words.
    pub(crate) fn hear(&mut self, words: &str) {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "it ended without: {words}");
        }
    }

    /// Reads its log until each of these words has stood in a line, in any order; what was read.
    pub(crate) fn hear_each(&mut self, words: &[&str]) -> String {
        let mut heard = String::new();
        while !words.iter().all(|words| heard.contains(words)) {
            let read = self.log.read_line(&mut heard).unwrap();
            assert!(read > 0, "it ended without some of {words:?}:\n{heard}");
        }
        heard
    }

    /// The counters of the moment, which the program logs on SIGUSR1. Those it leaves out are zero.
    pub(crate) fn counters(&mut self) -> Counters {
        let line = self.counters_line();
        let value = |name: &&str| {
            let mut pairs = line.split_whitespace().filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| key == name).map_or(0, |(_, value)| value.parse().unwrap())
        };
        let values: Vec<u64> = Counters::NAMES.iter().map(value).collect();
        Counters::from_values(values.try_into().unwrap())
    }

    /// The line itself, from the first counter on.
    pub(crate) fn counters_line(&mut self) -> String {
        self.signal("-USR1");
        loop {
            let mut line = String::new();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "it ended");
            if let Some((_, pairs)) = line.split_once("counters: ") {
                return pairs.trim_end().to_owned();
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // After an orderly end there is nothing left to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
