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
}
