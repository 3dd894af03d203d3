//! The choice between the drivers; what they do is proved by `tests/contract`.

use super::*;

#[test]
fn auto_always_finds_a_driver_and_says_in_one_line_which_and_why() {
    let (kind, why) = probe(Choice::Auto, &uring::Options::default()).expect("auto never fails");
    assert!(why.starts_with(&kind.to_string()), "{why}");
    assert!(why.len() > kind.to_string().len() + 2 && !why.contains('\n'), "{why}");
}

#[test]
fn what_is_asked_for_by_name_is_taken_or_refused_never_replaced() {
    let (kind, _) =
        probe(Choice::Epoll, &uring::Options::default()).expect("epoll is always there");
    assert_eq!(kind, Kind::Epoll);
    match probe(Choice::Uring, &uring::Options::default()) {
        Ok((kind, _)) => assert_eq!(kind, Kind::Uring),
        Err(error) => assert!(error.to_string().contains("cannot be used here: "), "{error}"),
    }
}

#[test]
fn a_refusal_names_the_setting_that_forbids_it() {
    let text = ProbeError(uring::Refusal::Forbidden(Some(2))).to_string();
    assert!(text.contains("driver = \"uring\""), "{text}");
    assert!(text.contains("kernel.io_uring_disabled = 2"), "{text}");
}
