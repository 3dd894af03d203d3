//! Scenario files: what is read, what is refused, and in which words.

use super::*;

const KINDS: [Kind; 8] = [
    Kind::Idle,
    Kind::Echo,
    Kind::Fanout,
    Kind::Rooms,
    Kind::Churn,
    Kind::Storm,
    Kind::Slow,
    Kind::Mixed,
];

#[test]
fn every_scenario_is_valid_and_reads_back_as_itself() {
    for kind in KINDS {
        let spec = Spec::new(kind);
        assert_eq!(spec.check(), Ok(()), "{kind:?}");
        assert_eq!(Spec::from_toml(&spec.to_toml()), Ok(spec), "{kind:?}");
    }
}

#[test]
fn a_file_overrides_the_defaults_of_the_scenario_it_names() {
    let text = "scenario = \"rooms\"\n[crowd]\nclients = 7\n[load]\nrate = 5\nsize = 128\n";
    let spec = Spec::from_toml(text).expect("a scenario");
    assert_eq!((spec.crowd.clients, spec.rooms.count), (7, 50));
    assert_eq!((spec.load.rate, spec.load.size.to_string().as_str()), (5.0, "128"));
}

#[test]
fn what_is_wrong_is_named() {
    let cases = [
        ("", "scenario"),
        ("scenario = \"party\"", "party"),
        ("scenario = \"idle\"\n[crowd]\nclinets = 3", "did you mean crowd.clients?"),
        ("scenario = \"idle\"\n[crowd]\nclients = \"many\"", "many"),
        ("scenario = \"idle\"\n[crowds]\nclients = 3", "did you mean crowd?"),
        ("scenario = \"idle\"\n[load]\nsize = \"big\"", "expected bytes"),
    ];
    for (text, word) in cases {
        let error = Spec::from_toml(text).expect_err(text);
        assert!(error.contains(word), "{text}: {error}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_by_its_key() {
    let refused = |change: fn(&mut Spec), key: &str| {
        let mut spec = Spec::new(Kind::Fanout);
        change(&mut spec);
        let error = spec.check().expect_err(key);
        assert!(error.contains(key) && error.contains("expected"), "{error}");
    };
    refused(|spec| spec.crowd.clients = 0, "crowd.clients");
    refused(|spec| spec.trouble.drop = 1.5, "trouble.drop");
    refused(|spec| spec.load.rate = -1.0, "load.rate");
    refused(|spec| spec.load.rate = 0.0, "load.rate");
    refused(|spec| (spec.load.messages, spec.load.duration_s) = (0, 0.0), "load.messages");
    refused(|spec| spec.rooms.count = 1000, "rooms.count");
    refused(|spec| spec.load.rate = f64::NAN, "load.rate");
    refused(|spec| spec.crowd.streams = 2.0, "crowd.streams");
    refused(|spec| (spec.scenario, spec.crowd.streams) = (Kind::Idle, 0.5), "crowd.streams");
    let mute = |spec: &mut Spec| {
        (spec.scenario, spec.crowd.streams) = (Kind::Slow, 1.0);
        spec.trouble.slow_kind = SlowKind::Mute;
    };
    refused(mute, "trouble.slow_kind");
    let elsewhere = |spec: &mut Spec| {
        (spec.crowd.streams, spec.crowd.stream_path) = (1.0, "sse".to_owned());
    };
    refused(elsewhere, "crowd.stream_path");
    let boundless =
        |spec: &mut Spec| spec.budget.extend([("delivery_p99_us".to_owned(), f64::NAN)]);
    refused(boundless, "budget.delivery_p99_us");
}

#[test]
fn a_budget_has_any_figure_and_numbers_only() {
    let file = "scenario = \"fanout\"\n[budget]\ndelivery_p99_us = 5000\nreceived_per_s = 1.5";
    let spec = Spec::from_toml(file).expect("a scenario");
    assert_eq!(spec.budget.len(), 2);
    assert_eq!(spec.budget["delivery_p99_us"], 5000.0);
    let again = spec.with("budget.delivery_p99_us=7").expect("a limit");
    assert_eq!(again.budget["delivery_p99_us"], 7.0);
    assert_eq!(Spec::from_toml(&again.to_toml()).as_ref(), Ok(&again));
    let error = spec.with("budget.x=much").expect_err("no number");
    assert!(error.contains("budget.x") && error.contains("expected a number"), "{error}");
}

#[test]
fn an_echo_without_an_end_is_refused() {
    let mut spec = Spec::new(Kind::Echo);
    (spec.load.messages, spec.load.duration_s) = (0, 0.0);
    assert!(spec.check().expect_err("no end").contains("load.duration_s"));
}

#[test]
fn every_key_has_its_row_in_the_documentation_and_no_row_is_of_another() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/load.md");
    let document = std::fs::read_to_string(path).expect("docs/load.md");
    let cell = |line: &str| line.strip_prefix("| `")?.split_once('`').map(|it| it.0.to_owned());
    let mut rows: Vec<String> =
        document.lines().filter_map(cell).filter(|name| name.contains('.')).collect();
    let table = toml::Table::try_from(Spec::new(Kind::Fanout)).expect("a table");
    let mut keys: Vec<String> = Vec::new();
    for (section, value) in &table {
        let names = value.as_table().into_iter().flat_map(toml::Table::keys);
        keys.extend(names.map(|name| format!("{section}.{name}")));
    }
    rows.sort_unstable();
    keys.sort_unstable();
    assert_eq!(rows, keys);
}
