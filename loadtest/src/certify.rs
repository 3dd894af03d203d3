//! What to think of a run: its faults and its doubts.
//!
//! A fault is of the server: something was lost, repeated, out of order, corrupt, refused or ended, or the
//! numbers do not add up, or a figure is beyond the budget that the scenario sets, and the run failed. A doubt is of the measurement: the generator was short of
//! processor time or the machine was not its own, so that the figures say more of these than of the server,
//! and nobody may quote them; the counts stand all the same. Each sentence names the figure and its limit.

use crate::compare::{Better, figures};
use crate::outcome::{GeneratorUse, Messages, Outcome, Sessions, Totals, Verdict};
use crate::spec::Budget;

/// A generator this busy sends late and reads late, and its latencies are its own.
const BUSIEST: f64 = 0.85;
/// Messages planned for a moment and sent this much after it. The latency counts from the plan, so lateness
/// is in the figures and not hidden; but beyond the 5 ms that the goals ask of a p99, the figure would be
/// made by the generator more than by the server. No share of the interval between messages: at 100,000 a
/// second that is 10 us, less than any timer wakes up by, and harmless.
const LATEST_P99_US: f64 = 5_000.0;
/// Share of a core that other programs may use.
const MOST_FOREIGN: f64 = 0.02;
/// Share of a core that the hypervisor may take.
const MOST_STOLEN: f64 = 0.02;

/// Fills the verdict of a run that is otherwise complete. What is in it already is replaced.
pub(crate) fn judge(outcome: &mut Outcome, budget: &Budget) {
    let mut faults = Vec::new();
    message_faults(&outcome.totals.messages, &mut faults);
    session_faults(&outcome.totals.sessions, &mut faults);
    other_faults(&outcome.totals, &mut faults);
    budget_faults(outcome, budget, &mut faults);
    let doubts = doubts(&outcome.generator, outcome.about.open_loop);
    outcome.verdict =
        Verdict { passed: faults.is_empty(), faults, void: !doubts.is_empty(), doubts };
}

fn message_faults(messages: &Messages, faults: &mut Vec<String>) {
    let expected = messages.expected;
    for (count, what) in [
        (messages.lost, "were lost"),
        (messages.duplicates, "came twice"),
        (messages.reordered, "came out of order"),
        (messages.corrupt, "had a wrong checksum"),
    ] {
        if count > 0 {
            faults.push(format!("{count} of {expected} expected deliveries {what}"));
        }
    }
    if messages.offset_breaks > 0 {
        let breaks = messages.offset_breaks;
        faults.push(format!("{breaks} offsets of rooms were skipped or repeated"));
    }
    let Messages { received, dropped_by_policy, lost, .. } = *messages;
    let accounted = received.saturating_add(dropped_by_policy).saturating_add(lost);
    if expected != accounted {
        faults.push(format!(
            "the numbers do not add up: {expected} expected, {received} received + \
             {dropped_by_policy} dropped by policy + {lost} lost = {accounted}"
        ));
    }
    if expected == 0 {
        faults.push("nothing was checked: no delivery was expected".to_owned());
    }
}

fn session_faults(sessions: &Sessions, faults: &mut Vec<String>) {
    let opened = sessions.opened;
    if sessions.refused > 0 {
        faults.push(format!("{} sessions were refused, {opened} opened", sessions.refused));
    }
    if sessions.ended_by_server > 0 {
        let codes = sessions.close_codes.iter().map(|(code, count)| format!("{code} x {count}"));
        let codes: Vec<String> = codes.collect();
        let codes = if codes.is_empty() { "none".to_owned() } else { codes.join(", ") };
        let ended = sessions.ended_by_server;
        faults.push(format!(
            "the server ended {ended} of {opened} sessions; close codes received: {codes}"
        ));
    }
}

fn other_faults(totals: &Totals, faults: &mut Vec<String>) {
    faults.extend(totals.failures.iter().map(|(what, count)| format!("{what} ({count} times)")));
}

/// A budget is kept or broken whatever the doubts: a run that may not be quoted has not shown that it is kept.
fn budget_faults(outcome: &Outcome, budget: &Budget, faults: &mut Vec<String>) {
    if budget.is_empty() {
        return;
    }
    let figures = figures(outcome);
    for (name, limit) in budget {
        let Some(figure) = figures.iter().find(|figure| figure.name == *name) else {
            let known: Vec<&str> = figures.iter().map(|figure| figure.name.as_str()).collect();
            faults.push(format!("no budget for {name}: the run has {}", known.join(", ")));
            continue;
        };
        let (value, write) = (figure.value, figure.write);
        let (is_broken, than) = match figure.better {
            Better::Lower => (value > *limit, "more than"),
            Better::Higher => (value < *limit, "less than"),
        };
        if is_broken {
            let (value, limit) = (write(value), write(*limit));
            faults.push(format!("over budget: {name} is {value}, {than} {limit}"));
        }
    }
}

fn doubts(generator: &GeneratorUse, open_loop: bool) -> Vec<String> {
    let mut doubts = Vec::new();
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    if open_loop && generator.core_busy > BUSIEST {
        doubts.push(format!(
            "the generator's cores were {} busy, more than {}: give it more of them, or less to do",
            percent(generator.core_busy),
            percent(BUSIEST)
        ));
    }
    if let Some(late) = generator.late_p99_us
        && late > LATEST_P99_US
    {
        doubts.push(format!(
            "1 % of the messages left more than {late:.0} us behind plan, the limit is {LATEST_P99_US:.0}"
        ));
    }
    for (share, limit, who) in [
        (generator.foreign, MOST_FOREIGN, "other programs used"),
        (generator.stolen, MOST_STOLEN, "the hypervisor took"),
    ] {
        if share > limit {
            let (share, limit) = (percent(share), percent(limit));
            doubts.push(format!("{who} {share} of a core, more than {limit}"));
        }
    }
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Outcome {
        let mut outcome = Outcome::default();
        outcome.about.open_loop = true;
        outcome.totals.sessions.opened = 10;
        outcome.totals.messages = Messages {
            sent: 10,
            expected: 100,
            received: 98,
            dropped_by_policy: 2,
            ..outcome.totals.messages
        };
        outcome.generator = GeneratorUse {
            core_busy: 0.85,
            late_p99_us: Some(5_000.0),
            foreign: 0.02,
            stolen: 0.02,
            ..GeneratorUse::default()
        };
        outcome
    }

    fn verdict(change: impl FnOnce(&mut Outcome)) -> Verdict {
        let mut outcome = good();
        change(&mut outcome);
        judge(&mut outcome, &Budget::new());
        outcome.verdict
    }

    #[track_caller]
    fn fault(change: impl FnOnce(&mut Outcome), expected: &str) {
        let verdict = verdict(change);
        assert_eq!(verdict.faults, [expected]);
        assert!(!verdict.passed && !verdict.void);
    }

    #[track_caller]
    fn doubt(change: impl FnOnce(&mut Outcome), parts: [&str; 2]) {
        let verdict = verdict(change);
        assert!(verdict.passed && verdict.void);
        assert_eq!(verdict.doubts.len(), 1, "{:?}", verdict.doubts);
        for part in parts {
            assert!(verdict.doubts[0].contains(part), "{part:?} is not in {:?}", verdict.doubts);
        }
    }

    #[test]
    fn a_run_at_its_limits_is_believed_and_an_older_verdict_forgotten() {
        let expected = Verdict { passed: true, ..Verdict::default() };
        assert_eq!(verdict(|run| run.verdict.faults = vec!["old".to_owned()]), expected);
    }

    #[test]
    fn each_kind_of_wrong_delivery_is_a_fault() {
        let lost = |run: &mut Outcome| {
            run.totals.messages.received = 97;
            run.totals.messages.lost = 1;
        };
        fault(lost, "1 of 100 expected deliveries were lost");
        fault(|r| r.totals.messages.duplicates = 2, "2 of 100 expected deliveries came twice");
        fault(
            |r| r.totals.messages.reordered = 3,
            "3 of 100 expected deliveries came out of order",
        );
        fault(
            |r| r.totals.messages.corrupt = 4,
            "4 of 100 expected deliveries had a wrong checksum",
        );
        fault(
            |r| r.totals.messages.offset_breaks = 5,
            "5 offsets of rooms were skipped or repeated",
        );
    }

    #[test]
    fn numbers_that_do_not_add_up_are_a_fault_even_when_nothing_is_called_lost() {
        let text = "the numbers do not add up: 100 expected, 97 received + 2 dropped by policy + 0 lost = 99";
        fault(|run| run.totals.messages.received = 97, text);
    }

    #[test]
    fn a_run_that_checked_nothing_has_not_passed() {
        let none = |run: &mut Outcome| run.totals.messages = Messages::default();
        fault(none, "nothing was checked: no delivery was expected");
    }

    #[test]
    fn sessions_that_were_refused_or_ended_are_faults() {
        fault(|run| run.totals.sessions.refused = 1, "1 sessions were refused, 10 opened");
        let ended = |run: &mut Outcome| {
            run.totals.sessions.ended_by_server = 2;
            run.totals.sessions.close_codes.insert("1011".to_owned(), 2);
        };
        let text = "the server ended 2 of 10 sessions; close codes received: 1011 x 2";
        fault(ended, text);
        let planned = |run: &mut Outcome| run.totals.sessions.ended_by_plan = 7;
        assert!(verdict(planned).passed);
    }

    #[test]
    fn every_failure_is_a_fault_in_its_own_words() {
        let failed = |run: &mut Outcome| {
            run.totals.failures.insert("no greeting".to_owned(), 3);
        };
        fault(failed, "no greeting (3 times)");
    }

    #[test]
    fn a_figure_beyond_its_budget_is_a_fault_and_one_at_its_limit_is_none() {
        let judged = |limits: &[(&str, f64)]| {
            let mut outcome = good();
            outcome.latencies = vec![crate::outcome::Latency {
                name: "delivery".to_owned(),
                count: 9,
                p99_us: 5_000.0,
                ..crate::outcome::Latency::default()
            }];
            outcome.generator.bytes_per_client = Some(1_500.0);
            let budget = limits.iter().map(|(name, limit)| ((*name).to_owned(), *limit)).collect();
            judge(&mut outcome, &budget);
            outcome.verdict
        };
        assert!(judged(&[("delivery_p99_us", 5_000.0)]).passed);
        let broken =
            judged(&[("delivery_p99_us", 4_999.0), ("generator_bytes_per_client", 1_499.0)]);
        assert!(!broken.passed && broken.faults.len() == 2, "{broken:?}");
        assert!(broken.faults[0].starts_with("over budget: delivery_p99_us is "), "{broken:?}");
        let unknown = judged(&[("cpu_us_per_message", 1.0)]);
        assert!(!unknown.passed, "{unknown:?}");
        assert!(unknown.faults[0].contains("no budget for cpu_us_per_message"), "{unknown:?}");
        assert!(unknown.faults[0].contains("delivery_p99_us"), "{unknown:?}");
    }

    #[test]
    fn a_busy_generator_voids_an_open_loop_only() {
        doubt(|run| run.generator.core_busy = 0.9, ["90.0 %", "85.0 %"]);
        let closed = |run: &mut Outcome| {
            run.generator.core_busy = 1.0;
            run.about.open_loop = false;
        };
        assert!(!verdict(closed).void);
    }

    #[test]
    fn lateness_foreign_load_and_stolen_time_void_a_run() {
        doubt(|run| run.generator.late_p99_us = Some(5_001.0), ["5001 us", "5000"]);
        doubt(|run| run.generator.foreign = 0.034, ["other programs used 3.4 %", "2.0 %"]);
        doubt(|run| run.generator.stolen = 0.5, ["hypervisor took 50.0 %", "2.0 %"]);
        assert!(!verdict(|run| run.generator.late_p99_us = None).void);
    }
}
