#![expect(unsafe_code, reason = "a sandbox like a container's is asked of the kernel directly")]
//! What the operator is told where there is no io_uring.
//!
//! The kernel's refusals are real ones: a thread puts itself into a sandbox that answers
//! `io_uring_setup` with an error, as container runtimes do, and probes from there. Such a sandbox holds
//! for that thread only and ends with it.

use std::io;

use super::{Refusal, refusal};
use crate::driver::{Choice, Kind, probe, uring};

#[test]
fn a_refusal_says_what_forbids_it() {
    let text = |code| refusal("io_uring_setup", io::Error::from_raw_os_error(code)).to_string();
    assert!(text(libc::ENOSYS).contains("no io_uring"));
    assert!(text(libc::EPERM).contains("forbidden"));
    assert!(text(libc::EINVAL).contains("6.1"));
    assert!(text(libc::ENOMEM).contains("ulimit -l"));
    assert!(text(libc::EMFILE).starts_with("io_uring_setup: "));
    assert!(Refusal::Forbidden(Some(2)).to_string().contains("io_uring_disabled = 2"));
    assert!(Refusal::Forbidden(Some(1)).to_string().contains("io_uring_group"));
    assert!(Refusal::Forbidden(Some(0)).to_string().contains("sandbox"));
}

/// Makes the kernel answer `io_uring_setup` on this thread with `errno`, for good.
fn forbid(errno: i32) {
    let load = u16::try_from(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS).unwrap();
    let compare = u16::try_from(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K).unwrap();
    let answer = u16::try_from(libc::BPF_RET | libc::BPF_K).unwrap();
    let call = u32::try_from(libc::SYS_io_uring_setup).unwrap();
    let error = libc::SECCOMP_RET_ERRNO | u32::try_from(errno).unwrap();
    let step = |code, skip_unless, k| libc::sock_filter { code, jt: 0, jf: skip_unless, k };
    let mut steps = [
        // The number of the call is the first word of what a filter sees.
        step(load, 0, 0),
        step(compare, 1, call),
        step(answer, 0, error),
        step(answer, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let length = u16::try_from(steps.len()).unwrap();
    let program = libc::sock_fprog { len: length, filter: steps.as_mut_ptr() };
    let none: libc::c_ulong = 0;
    let yes: libc::c_ulong = 1;
    // SAFETY: the first call takes numbers; the second reads the program, which outlives it.
    let results = unsafe {
        let bound = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, yes, none, none, none);
        let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
        (bound, libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program))
    };
    assert_eq!(results, (0, 0), "no sandbox: {}", io::Error::last_os_error());
}

#[test]
fn what_the_kernel_refuses_is_an_error_when_asked_for_and_a_reason_when_not() {
    for (errno, why) in [(libc::EPERM, "forbidden by"), (libc::ENOSYS, "no io_uring")] {
        let inside = move || {
            forbid(errno);
            let options = uring::Options::default();
            let refused = probe(Choice::Uring, &options).unwrap_err().to_string();
            assert!(refused.starts_with("driver = \"uring\" cannot be used here: "), "{refused}");
            assert!(refused.contains(why), "{refused}");
            let (kind, reason) = probe(Choice::Auto, &options).unwrap();
            assert_eq!(kind, Kind::Epoll);
            assert!(reason.contains(why), "{reason}");
        };
        std::thread::scope(|scope| scope.spawn(inside).join().expect("its assertions hold"));
    }
}
