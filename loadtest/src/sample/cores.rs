//! Which cores a thread may run on, and which the kernel's lists name.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores that the calling thread may run on, ascending; empty when the kernel does not say.
pub(crate) fn own() -> Vec<u32> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    let cores = (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core));
    cores.filter_map(|core| u32::try_from(core).ok()).collect()
}

/// Keeps the calling thread, and those it starts from now on, on these cores.
///
/// # Errors
///
/// There is no such core, or this process may not use it.
pub(crate) fn pin(cores: &[usize]) -> Result<(), String> {
    let mut set = CpuSet::new();
    for core in cores.iter().filter(|core| **core < CpuSet::MAX_CPU) {
        set.set(*core);
    }
    sched_setaffinity(None, &set).map_err(|error| format!("cannot run on cores {cores:?}: {error}"))
}

/// The numbers of a list as `0-2,5`; what cannot be read is left out.
pub(super) fn parse_list(text: &str) -> Vec<u32> {
    let ranges = text.trim().split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u32>().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_read() {
        assert_eq!(parse_list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(parse_list("7"), [7]);
        assert!(parse_list("").is_empty());
    }

    #[test]
    fn a_core_that_does_not_exist_is_refused_with_its_number() {
        let error = pin(&[usize::MAX]).expect_err("no such core");
        assert!(error.contains(&usize::MAX.to_string()), "{error}");
        assert!(!own().is_empty());
    }
}
