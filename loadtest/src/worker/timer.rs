//! Waiting for a moment to the microsecond.
//!
//! The runtime's own timers count milliseconds, and a schedule of ten thousand messages a second has ten in
//! each. A timerfd read through the ring ends when the kernel's high resolution timer fires.

use std::fs::File;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::clock;

/// A timer of one task.
pub(super) struct Timer {
    file: tokio_uring::fs::File,
    setter: File,
    buffer: Vec<u8>,
}

impl Timer {
    /// A timer that nothing waits for yet.
    pub(super) fn new() -> Result<Self, String> {
        let wrong = |error: std::io::Error| format!("timerfd: {error}");
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)
            .map_err(|error| wrong(error.into()))?;
        let setter = File::from(fd);
        let file = tokio_uring::fs::File::from_std(setter.try_clone().map_err(wrong)?);
        Ok(Self { file, setter, buffer: vec![0; 8] })
    }

    /// Waits until the monotonic clock shows `at` nanoseconds. Returns at once when it does already.
    pub(super) async fn until(&mut self, at: u64) -> Result<(), String> {
        if at <= clock::now_ns() {
            return Ok(());
        }
        let moment = Timespec {
            tv_sec: i64::try_from(at / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(at % 1_000_000_000).unwrap_or(0),
        };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Itimerspec { it_interval: never, it_value: moment };
        timerfd_settime(&self.setter, TimerfdTimerFlags::ABSTIME, &value)
            .map_err(|error| format!("timerfd_settime: {error}"))?;
        let (result, buffer) = self.file.read_at(std::mem::take(&mut self.buffer), 0).await;
        self.buffer = buffer;
        result.map(|_| ()).map_err(|error| format!("timerfd: {error}"))
    }
}
