//! One ring: pushing requests, entering the kernel, reaping answers.
//!
//! The ring belongs to the thread that made it (`SINGLE_ISSUER`), which alone runs the kernel's
//! completion work, at the moment it enters to wait (`DEFER_TASKRUN`): completions never interrupt a
//! turn. The completion queue is eight times the submission queue; should it overflow all the same,
//! the kernel keeps the rest and the next entry fetches it (`NODROP`).
//!
//! Requests that were pushed and not answered for good are counted, so that the driver's end can wait
//! for all of them. A multishot request is answered for good by the first answer that promises no
//! more.

#![expect(unsafe_code, reason = "the ring's queue takes raw requests")]

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::token::{Kind, Token};

/// An answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) token: Token,
    /// What the call would have returned: not negative, or a negated error number.
    pub(super) result: i32,
    flags: u32,
}

impl Answer {
    /// True when the request stays armed and will be answered again.
    pub(super) fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The provided buffer that holds the data.
    pub(super) fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }

    /// The result as a count or an error.
    pub(super) fn outcome(&self) -> io::Result<usize> {
        let refused = || io::Error::from_raw_os_error(self.result.wrapping_neg());
        usize::try_from(self.result).map_err(|_| refused())
    }
}

/// A ring and what has not gone down to the kernel yet.
pub(super) struct Ring {
    ring: IoUring,
    /// Requests for which the submission queue had no room even after entering: the kernel refuses
    /// more until answers are reaped. At most a few per connection.
    backlog: VecDeque<squeue::Entry>,
    /// Answers that were reaped while waiting for a particular one.
    stash: VecDeque<Answer>,
    unanswered: usize,
}

/// Requests and answers for which memory is kept when a crowd has gone.
const BACKLOG_AT_REST: usize = 64;

impl Ring {
    /// Makes a ring for the calling thread.
    ///
    /// # Errors
    /// ENOSYS, EPERM, EINVAL from kernels that lack or forbid what is needed; ENOMEM, EMFILE.
    pub(super) fn new(entries: u32) -> io::Result<Self> {
        let build = |indexed: bool| {
            let mut builder = IoUring::builder();
            builder
                .setup_single_issuer()
                .setup_defer_taskrun()
                .setup_taskrun_flag()
                .setup_submit_all()
                .setup_clamp()
                .setup_cqsize(entries.saturating_mul(8));
            if !indexed {
                builder.setup_no_sqarray();
            }
            builder.build(entries)
        };
        // NO_SQARRAY saves an indirection and is known from Linux 6.6 on.
        let ring = build(false).or_else(|error| match error.raw_os_error() {
            Some(libc::EINVAL) => build(true),
            _ => Err(error),
        })?;
        if !ring.params().is_feature_nodrop() || !ring.params().is_feature_ext_arg() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(Self { ring, backlog: VecDeque::new(), stash: VecDeque::new(), unanswered: 0 })
    }

    /// The ring itself, for registrations.
    pub(super) fn raw(&self) -> &IoUring {
        &self.ring
    }

    /// Queues a request; the kernel sees it at the next entry.
    ///
    /// # Safety
    /// The descriptor and all memory that `request` names must stay valid until the request is
    /// answered for good.
    pub(super) unsafe fn push(&mut self, token: Token, request: squeue::Entry) {
        let request = request.user_data(token.to_bits());
        self.unanswered += 1;
        if !self.backlog.is_empty() || !self.try_push(&request) {
            self.backlog.push_back(request);
        }
    }

    fn try_push(&mut self, request: &squeue::Entry) -> bool {
        if self.ring.submission().is_full() {
            // Whatever is wrong with entering will show again in `enter`, which reports it.
            let _ = self.ring.submit();
        }
        // SAFETY: `push`'s caller upholds that what the request names stays valid; the request is
        // copied into the queue.
        unsafe { self.ring.submission().push(request).is_ok() }
    }

    /// Gives back what a burst has left behind.
    pub(super) fn trim(&mut self) {
        self.backlog.shrink_to(BACKLOG_AT_REST);
        self.stash.shrink_to(BACKLOG_AT_REST);
    }

    fn push_backlog(&mut self) {
        while let Some(request) = self.backlog.front().cloned() {
            if !self.try_push(&request) {
                break;
            }
            self.backlog.pop_front();
        }
    }

    /// Hands the requests down and waits for an answer for at most `timeout` (`None`: for ever).
    ///
    /// # Errors
    /// Only what the ring cannot recover from.
    pub(super) fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.push_backlog();
        // Answers at hand must not wait for others, nor requests that had no room.
        let at_once = !self.stash.is_empty() || !self.backlog.is_empty();
        let timeout = if at_once { Some(Duration::ZERO) } else { timeout };
        let entered = match timeout {
            None => self.ring.submit_and_wait(1),
            // A wait for no time is no wait: with a limit the kernel would set a timer and take it back.
            Some(Duration::ZERO) => self.look(),
            Some(limit) => {
                let limit = types::Timespec::from(limit);
                self.ring
                    .submitter()
                    .submit_with_args(1, &types::SubmitArgs::new().timespec(&limit))
            }
        };
        match entered {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Time is up; a signal; the kernel wants answers reaped first; it is short of memory.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN | libc::ENOMEM) => {
                    Ok(())
                }
                _ => Err(error),
            },
        }
    }

    /// Hands the requests down and lets the kernel answer what it can at once; without either there is
    /// no system call.
    fn look(&mut self) -> io::Result<usize> {
        let requests = self.ring.submission();
        let is_idle = requests.is_empty() && !requests.taskrun() && !requests.cq_overflow();
        drop(requests);
        if is_idle { Ok(0) } else { self.ring.submit_and_wait(0) }
    }

    /// True when an answer is there that was not reaped.
    pub(super) fn has_answers(&mut self) -> bool {
        !self.stash.is_empty() || !self.ring.completion().is_empty()
    }

    /// The next answer.
    pub(super) fn reap(&mut self) -> Option<Answer> {
        if let Some(answer) = self.stash.pop_front() {
            return Some(answer);
        }
        let entry = self.ring.completion().next()?;
        let answer = Answer {
            token: Token::from_bits(entry.user_data()),
            result: entry.result(),
            flags: entry.flags(),
        };
        if !answer.more() {
            self.unanswered -= 1;
        }
        Some(answer)
    }

    /// Cancels what `token` names and enters until `wanted` says that it was answered for good, true;
    /// the answers it does not take are kept for [`Ring::reap`]. False when that took too long.
    pub(super) fn cancel_and_reap(
        &mut self,
        token: Token,
        mut wanted: impl FnMut(Answer) -> Option<bool>,
    ) -> bool {
        let mut found = false;
        let mut kept = VecDeque::new();
        self.insist(
            || types::CancelBuilder::user_data(token.to_bits()),
            |answer| {
                match wanted(answer) {
                    Some(last) => found |= last,
                    None => kept.push_back(answer),
                }
                found
            },
        );
        self.stash = kept;
        found
    }

    /// Cancels everything and waits for every answer, giving each to `on_answer`. False when some
    /// request stayed unanswered: then the kernel may still touch memory that it was lent.
    pub(super) fn wind_up(&mut self, mut on_answer: impl FnMut(Answer)) -> bool {
        // What the kernel never saw needs no answer.
        self.unanswered -= self.backlog.drain(..).count();
        self.insist(types::CancelBuilder::any, |answer| {
            on_answer(answer);
            false
        });
        self.unanswered == 0
    }

    /// Cancels again and again until `on_answer` has enough or nothing is left unanswered, for at
    /// most five seconds. Once is not enough: the kernel misses a request that it is just retrying.
    fn insist(
        &mut self,
        whom: impl Fn() -> types::CancelBuilder,
        mut on_answer: impl FnMut(Answer) -> bool,
    ) {
        let mut enough = false;
        let mut quiet = true;
        for round in 1..=500 {
            if quiet {
                let request = opcode::AsyncCancel2::new(whom()).build();
                // SAFETY: cancelling by token, or everything, names no memory and no descriptor.
                unsafe { self.push(Token::own(Kind::Other), request) };
            }
            if self.enter(Some(Duration::from_millis(10))).is_err() {
                return;
            }
            // Others' answers must not keep us from asking again.
            quiet = round % 16 == 0 || self.ring.completion().is_empty();
            while let Some(answer) = self.reap() {
                enough |= on_answer(answer);
            }
            if enough || self.unanswered == 0 {
                return;
            }
        }
    }
}
