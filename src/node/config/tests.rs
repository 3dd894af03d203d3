//! What operators get: full answers to wrong input, files that read back, and a table without gaps.

use std::time::Duration;

use proptest::prelude::*;

use super::values::{DriverChoice, LISTS, Namespace, SECTIONS};
use super::{Config, Origin, Reload, keys};
use crate::base::shared::Overflow;

pub(super) fn parse(text: &str, sets: &[&str]) -> Result<Config, String> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    Config::parse("throng.toml", text, &sets).map_err(|error| error.to_string())
}

/// Values of which at least one suits each key and differs from its default.
const CANDIDATES: &[&str] = &[
    "true",
    "false",
    "1",
    "17",
    "32",
    "512",
    "2048",
    "8192",
    "100000",
    "600000",
    "2000000",
    "\"uring\"",
    "\"close\"",
    "\"recv\"",
    "\"json\"",
    "\"debug\"",
    "\"conflate\"",
    "\"/other\"",
    "\"[::1]:9000\"",
    "\"open\"",
    "\"HS384\"",
    "[\"cookie\"]",
    "[\"self\"]",
    "\"1.3\"",
    "\"required\"",
    "[\"inspect\"]",
    "\"allow\"",
    "\"http://127.0.0.1/keys\"",
    "\"optional\"",
    "\"forwarded\"",
    "\"delay\"",
    "[\"10.0.0.0/8\", \"::1/128\"]",
    "\"oldest\"",
    "\"faults\"",
];

#[test]
fn the_printed_defaults_read_back_as_the_defaults() {
    let defaults = Config::default();
    assert_eq!(parse(&defaults.to_toml(), &[]), Ok(defaults.clone()));
    assert_eq!(parse("", &[]), Ok(defaults));
}

#[test]
fn every_key_can_be_set_printed_and_read_back() {
    // What some keys need beside them.
    let beside = [
        r#"certificate=[{chain="c.pem", key="k.pem"}]"#,
        "tls.client_ca=ca.pem",
        "auth_webhook.url=http://[::1]/",
        "auth_webhook.secret_file=k",
        "bridge.url=redis://a:1",
        "bridge.node=a",
        "bridge.cert_file=c.pem",
        "bridge.key_file=k.pem",
        "bridge.sentinel_master=a",
    ];
    let before = parse("", &beside).expect("valid");
    let keys = keys();
    let single = keys.iter().filter(|key| SECTIONS.iter().any(|(name, _)| *name == key.section));
    for key in single.filter(|key| !key.secret) {
        let suits = |value: &&str| {
            let set = format!("{}={value}", key.path());
            let sets = [&beside[..], &[&set]].concat();
            let config = parse("", &sets).ok().filter(|config| *config != before);
            config.is_some_and(|config| {
                let file = format!("[{}]\n{} = {value}\n", key.section, key.name);
                let own = format!("{}=", key.path());
                let sets = Vec::from_iter(beside.iter().copied().filter(|s| !s.starts_with(&own)));
                assert_eq!(parse(&file, &sets), Ok(config.clone()), "{file}");
                assert_eq!(parse(&config.to_toml(), &[]), Ok(config), "{file}");
                true
            })
        };
        assert!(CANDIDATES.iter().any(suits), "{} takes no candidate", key.path());
    }
}

#[test]
fn tls_is_refused_without_what_it_needs() {
    let certificate = r#"certificate=[{chain="c.pem", key="k.pem"}]"#;
    let cases: [(&[&str], &str); 6] = [
        (&["tls.listen=[::1]:1"], "tls.listen = \"[::1]:1\": TLS needs a [[certificate]]"),
        (&["tls.listen=[::]:1", certificate], "whoever is not on this machine must say who it is"),
        (&["server.listen="], "must listen somewhere"),
        (&["tls.listen=127.0.0.1:8080", certificate], "cannot share an address"),
        (&["tls.client_auth=required"], "tls.client_ca = \"\": certificates of clients need"),
        (&[r#"certificate=[{chain="c.pem"}]"#], "[[certificate]]: expected a key, as key = "),
    ];
    for (sets, text) in cases {
        let error = parse("", sets).expect_err(text);
        assert!(error.contains(text), "{error}");
    }
    assert!(parse("", &["server.listen=", "tls.listen=[::1]:1", certificate]).is_ok());
    assert!(parse("", &["server.listen=[::1]:0", "tls.listen=[::1]:0", certificate]).is_ok());
}

#[test]
fn namespaces_are_printed_and_read_back_in_order() {
    let set =
        r#"namespace=[{pattern="a:*", overflow="conflate"}, {pattern="*", overflow="drop_new"}]"#;
    let config = parse("", &[set]).expect("two namespaces");
    assert_eq!(config.lists.namespaces.len(), 2);
    assert_eq!(parse(&config.to_toml(), &[]), Ok(config));
}

#[test]
fn the_first_namespace_that_matches_decides() {
    let file = "[queue]\noverflow = \"drop_new\"\n\
                [[namespace]]\npattern = \"ticker:slow:*\"\noverflow = \"disconnect\"\n\
                [[namespace]]\npattern = \"ticker:*\"\noverflow = \"conflate\"\n";
    let config = parse(file, &[]).expect("a valid file");
    assert_eq!(config.overflow("ticker:slow:1"), Overflow::Disconnect);
    assert_eq!(config.overflow("ticker:1"), Overflow::Conflate);
    assert_eq!(config.overflow("lobby"), Overflow::DropNew);
}

#[test]
fn every_problem_is_told_at_once_with_its_line_value_expectation_and_nearest_match() {
    let file = r#"listen = "1.2.3.4:5"
[server]
shards = 5000
drivr = "uring"
driver = 7
max_headers = 3
zzzzzzzz = 1
[limit]
max_headers = -3
[queue]
low_water_bytes = 300000
overflow = "conflat"
flush_window_us = "soon"
max_age_ms = 1e3
[[namespace]]
overflow = "conflate"
[[namespace]]
pattern = "a*"
overflw = "conflate"
[mash]
[uring]
buffers = 1000
[server.path]
deep = 1
[[namespace]]
"#;
    let sets = [
        "queue.max_age=3",
        "nonsense",
        "=5",
        "log.level=degub",
        "namespace=3",
        "namespace=[1]",
        "namespace.pattern=a",
        "server.listen=localhost:80",
        "debug.echo_path=echo",
    ];
    let expected = r#"
throng.toml:1: listen = "1.2.3.4:5": there is no such key; did you mean server.listen?
throng.toml:3: server.shards = 5000: expected a whole number from 1 to 1024, or 0 (one per core) (default 0)
throng.toml:4: server.drivr = "uring": there is no such key; did you mean server.driver?
throng.toml:5: server.driver = 7: expected "auto", "epoll" or "uring" (default "auto")
throng.toml:6: server.max_headers = 3: there is no such key; did you mean limits.max_headers?
throng.toml:7: server.zzzzzzzz = 1: there is no such key; [server] has listen, shards, driver, path, stream_path, socketio_path, history_path, pin, max_connections, backlog, drain_timeout_ms, reconnect_spread_ms, trusted_proxies, proxy_protocol, forwarded_header, socketio_recovery_ms, socketio_polling
throng.toml:9: limit.max_headers = -3: there is no section [limit]; did you mean limits.max_headers?
throng.toml:11: queue.low_water_bytes = 300000, queue.high_water_bytes = 262144: the low water mark must be below the high water mark
throng.toml:12: queue.overflow = "conflat": expected "drop_new", "drop_oldest", "conflate", "pause" or "disconnect" (default "drop_oldest"); did you mean "conflate"?
throng.toml:13: queue.flush_window_us = "soon": expected a whole number from 1 to 100000, or 0 (never wait) (default 500)
throng.toml:14: queue.max_age_ms = 1e3: expected a whole number from 100 to 86400000 (default 30000)
throng.toml:15: [[namespace]]: expected a pattern, as pattern = "ticker:*"
throng.toml:19: namespace.overflw = "conflate": there is no such key; did you mean namespace.overflow?
throng.toml:20: [mash]: there is no section [mash]; did you mean [mesh]?
throng.toml:22: uring.buffers = 1000: expected a power of two from 16 to 32768 (default 1024)
throng.toml:23: server.path = [server.path]: expected a path of at most 256 characters that begins with / and has no query, as "/ws" (default "/ws")
throng.toml:25: [[namespace]]: expected a pattern, as pattern = "ticker:*"
--set: queue.max_age = 3: there is no such key; did you mean queue.max_age_ms?
--set: "nonsense": expected section.key=value, as server.shards=2
--set: "=5": expected section.key=value, as server.shards=2
--set: log.level = "degub": expected "error", "warn", "info", "debug" or "trace" (default "info"); did you mean "debug"?
--set: namespace = 3: expected a list of tables, as [[namespace]]
--set: namespace = an array of other things: expected a list of tables, as [[namespace]]
--set: namespace.pattern = "a": [[namespace]] is a list; give it whole, as --set 'namespace=[{pattern = "ticker:*", overflow = "conflate"}]'
--set: server.listen = "localhost:80": expected an IP address and a port, as "0.0.0.0:8080" or "[::1]:8080", or "" (off) (default "127.0.0.1:8080")
--set: debug.echo_path = "echo": expected a path of at most 256 characters that begins with / and has no query, as "/ws", or "" (off) (default "")"#;
    assert_eq!(parse(file, &sets).expect_err("a bad file"), expected.trim_start());
}

#[test]
fn a_text_that_is_not_toml_is_told_by_its_lines() {
    let error = parse("a = \n[server]\nshards = 1\nshards = 2\n", &[]).expect_err("bad TOML");
    let lines: Vec<&str> = error.lines().collect();
    assert!(lines[0].starts_with("throng.toml:1: "), "{error}");
    assert_eq!(lines[1], "throng.toml:4: duplicate key");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("absent.toml");
    let origin = Origin { file: Some(path.clone()), sets: Vec::new() };
    let error = origin.load().expect_err("no file").to_string();
    assert_eq!(
        error,
        format!("{}: cannot be read: No such file or directory (os error 2)", path.display())
    );
}

#[test]
fn the_command_line_overrides_the_file_and_its_last_word_wins() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("throng.toml");
    std::fs::write(&path, "[server]\nshards = 2\ndriver = \"epoll\"\n").expect("a file");
    let sets =
        ["server.shards=3", " server.shards = 4 ", "server.listen=0.0.0.0:0", "auth.mode=open"];
    let sets = sets.iter().map(|set| (*set).to_owned()).collect();
    let config = Origin { file: Some(path), sets }.load().expect("a configuration");
    assert_eq!((config.server.shards, config.server.driver), (4, DriverChoice::Epoll));
    assert_eq!(config.server.listen, "0.0.0.0:0".parse().ok());
}

#[test]
fn values_that_contradict_each_other_are_refused_where_the_last_was_given() {
    let cases = [
        (
            "queue.low_water_bytes=262144",
            "queue.low_water_bytes = 262144, queue.high_water_bytes = 262144: the low water mark must be below the high water mark",
        ),
        (
            "queue.high_water_bytes=1048577",
            "queue.high_water_bytes = 1048577, queue.max_bytes = 1048576: the high water mark must not be above the maximum",
        ),
        (
            "limits.max_message_bytes=1048577",
            "limits.max_message_bytes = 1048577, queue.max_bytes = 1048576: a queue must be able to hold the largest message",
        ),
        (
            "limits.max_head_bytes=8192",
            "limits.max_target_bytes = 8192, limits.max_head_bytes = 8192: a request head must be able to hold the longest target",
        ),
        (
            "debug.echo_path=/ws",
            "server.path = \"/ws\", debug.echo_path = \"/ws\": two endpoints cannot share a path",
        ),
        (
            "server.path=/",
            "server.path = \"/\", demo.enabled = true: the demonstration page is served at / and /throng.js; move the path or turn the page off",
        ),
        (
            "server.path=/throng.js",
            "server.path = \"/throng.js\", demo.enabled = true: the demonstration page is served at / and /throng.js; move the path or turn the page off",
        ),
        (
            "debug.echo_path=/",
            "debug.echo_path = \"/\", demo.enabled = true: the demonstration page is served at / and /throng.js; move the path or turn the page off",
        ),
    ];
    for (set, expected) in cases {
        assert_eq!(parse("", &[set]), Err(format!("--set: {expected}")), "{set}");
    }
    let file =
        "[queue]\nmax_bytes = 2048\nhigh_water_bytes = \"?\"\n[limits]\nmax_message_bytes = 1024\n";
    let error = parse(file, &[]).expect_err("a bad file");
    assert_eq!(error.lines().count(), 1, "no relation is judged on a refused value: {error}");
}

#[test]
fn what_is_unwise_is_warned_of() {
    let warnings = |sets: &[&str]| parse("", sets).expect("valid").warnings();
    assert_eq!(warnings(&[]), Vec::<String>::new());
    assert_eq!(warnings(&["heartbeat.ping_interval_ms=59999"]), Vec::<String>::new());
    let slow = warnings(&["heartbeat.ping_interval_ms=60000"]);
    assert_eq!(
        slow,
        [
            "heartbeat.ping_interval_ms = 60000: most proxies close a connection that is silent for 60 s; 25000 is safe"
        ]
    );
    assert_eq!(warnings(&["tcp.user_timeout_ms=45001"]).len(), 1);
    assert_eq!(warnings(&["debug.echo_path=/echo", "debug.panic_command=true"]).len(), 2);
}

#[test]
fn what_is_left_at_zero_follows_from_other_keys() {
    let config = parse("", &["heartbeat.ping_timeout_ms=5000"]).expect("valid");
    assert_eq!(config.user_timeout(), Duration::from_secs(30));
    assert_eq!(config.reconnect_spread(), Duration::from_secs(10));
    let sets = ["tcp.user_timeout_ms=7000", "server.reconnect_spread_ms=3000"];
    let config = parse("", &sets).expect("valid");
    assert_eq!(config.user_timeout(), Duration::from_secs(7));
    assert_eq!(config.reconnect_spread(), Duration::from_secs(3));
}

#[test]
fn who_may_connect_must_be_said_before_others_than_this_machine_can() {
    let told = |sets: &[&str]| parse("", sets).err().unwrap_or_default();
    assert_eq!(told(&["server.listen=[::1]:1"]), "");
    assert!(Config::default().server.listen.is_some_and(|at| at.ip().is_loopback()));
    let error = told(&["server.listen=0.0.0.0:8080"]);
    for part in ["server.listen = \"0.0.0.0:8080\"", "auth.mode = \"open\"", "\"token\""] {
        assert!(error.contains(part), "{error}");
    }
    let open = parse("", &["server.listen=0.0.0.0:8080", "auth.mode=open"]).expect("said so");
    assert!(open.warnings().iter().any(|warning| warning.contains("anyone who can connect")));
    let keyless = told(&["server.listen=0.0.0.0:8080", "auth.mode=token"]);
    assert!(keyless.contains("auth.secret_file"), "{keyless}");
    let nowhere = told(&["auth.mode=token", "auth.secret=x", "auth.sources=[]"]);
    assert!(nowhere.contains("auth.sources = []"), "{nowhere}");
    let with_key = ["server.listen=0.0.0.0:8080", "auth.mode=token", "auth.secret_file=/run/k"];
    assert!(parse("", &with_key).expect("a key").warnings().is_empty());
    let query = parse("", &["auth.mode=token", "auth.secret=x", "auth.sources=[\"query\"]"]);
    assert!(query.expect("valid").warnings()[0].contains("ticket"));
}

#[test]
fn keys_of_the_admin_listener_are_checked_and_their_secrets_are_never_printed() {
    let key =
        |more: &str| parse(&format!("[[key]]\nname = \"a\"\nscopes = [\"tickets\"]\n{more}"), &[]);
    let secret = "secret = \"hunter2hunter2hunter2\"";
    let config = key(secret).expect("a key");
    assert_eq!(config.lists.keys[0].secret.expose(), "hunter2hunter2hunter2");
    let shown = format!("{}{config:?}", config.to_toml());
    assert!(!shown.contains("hunter2") && shown.contains("secret = \"***\""), "{shown}");
    assert!(key("secret_file = \"/run/key\"").is_ok());
    let wrong = [
        ("", "[[key]]: expected either a secret or a secret_file"),
        (
            "secret_file = \"/run/key\"\nsecret = \"hunter2hunter2hunter2\"",
            "[[key]]: expected either",
        ),
        ("secret = \"hunter2\"", "[[key]]: secret: expected 16 to 1024 bytes"),
        ("secret = [\"hunter2hunter2hunter2\"]", "key.secret = \"***\": expected text of at most"),
        (
            "secert = \"hunter2hunter2hunter2\"",
            "key.secert = \"***\": there is no such key; did you mean key.secret?",
        ),
        (
            "colour = \"hunter2hunter2hunter2\"",
            "key.colour = \"***\": there is no such key; [key] has name",
        ),
    ];
    for (more, expected) in wrong {
        let error = key(more).expect_err(more);
        assert!(error.contains(expected) && !error.contains("hunter2"), "{more}: {error}");
    }
    for (misplaced, meant) in
        [("secret = \"hunter2\"", "auth.secret"), ("[kye]\nsecrt = \"hunter2\"", "key.secret")]
    {
        let error = parse(misplaced, &[]).expect_err(misplaced);
        let meant = format!("did you mean {meant}?");
        assert!(error.contains(&meant) && !error.contains("hunter2"), "{error}");
    }
    let twice = format!("[[key]]\nname = \"a\"\nscopes = []\n{secret}\n").repeat(2);
    let error = parse(&twice, &[]).expect_err("two of one name");
    assert_eq!(
        error,
        "throng.toml:5: key.name = \"a\": expected another than that of throng.toml:1"
    );
    let error = parse("[[key]]\nsecret_file = \"/k\"\n", &[]).expect_err("too little");
    assert!(error.contains("expected a name, as name = \"back end\""), "{error}");
    let error = key("scopes = [\"tickts\"]").expect_err("two of one key");
    assert!(error.contains("duplicate key"), "{error}");
    let set = "key=[{name=\"a\", scopes=[\"revok\"], secret_file=\"/k\"}]";
    let error = parse("", &[set]).expect_err("a misspelled scope");
    assert!(error.ends_with("did you mean \"revoke\"?"), "{error}");
}

#[test]
fn a_webhook_needs_a_secret_and_whoever_is_to_be_asked_a_url() {
    let (url, file) = ("auth_webhook.url=http://[::1]/", "auth_webhook.secret_file=k");
    let (secret, namespace) = (
        "auth_webhook.secret=hunter2hunter2hunter2",
        "namespace=[{pattern=\"*\", join=\"webhook\"}]",
    );
    let cases: [(&[&str], &str); 6] = [
        (&[url], "auth_webhook.secret_file = \"\": what is asked is signed"),
        (&[url, file, secret], "what is asked is signed: give either"),
        (&[url, "auth_webhook.secret=hunter2"], "expected 16 to 1024 bytes"),
        (&["auth_webhook.connect=true"], "auth_webhook.connect = true: somebody must be there"),
        (&[namespace], "auth_webhook.url = \"\": a [[namespace]] says \"webhook\""),
        (&["auth_webhook.url=ftp://a/", file], "expected an http or https URL"),
    ];
    for (sets, text) in cases {
        let error = parse("", sets).expect_err(text);
        assert!(error.contains(text) && !error.contains("hunter2"), "{error}");
    }
    let config = parse("", &[url, secret, namespace, "auth_webhook.connect=true"]).expect("valid");
    let printed = format!("{}{config:?}", config.to_toml());
    assert!(
        printed.contains("url = \"http://[::1]/\"") && !printed.contains("hunter2"),
        "{printed}"
    );
}

#[test]
fn back_ends_that_are_told_need_a_name_a_url_a_secret_and_something_to_hear() {
    let hook = |more: &str| {
        let text = "[[webhook]]\nname = \"a\"\nurl = \"http://[::1]/\"\nevents = [\"message\"]\n";
        parse(&format!("{text}{more}"), &[])
    };
    let config = hook("secret_file = \"k\"").expect("valid");
    assert_eq!(parse(&config.to_toml(), &[]), Ok(config));
    let cases = [
        ("", "expected either a secret or a secret_file"),
        ("secret = \"hunter2\"", "expected 16 to 1024 bytes"),
        ("secret_file = \"k\"\nsecret = \"hunter2hunter2hunter2\"", "expected either"),
        ("secret_file = \"k\"\nmax_batch = 0", "expected a whole number from 1 to 10000"),
    ];
    for (more, text) in cases {
        let error = hook(more).expect_err(text);
        assert!(error.contains(text) && !error.contains("hunter2"), "{error}");
    }
    let error =
        parse("[[webhook]]\nname = \"a\"\nevents = [\"conected\"]\n", &[]).expect_err("two");
    assert!(
        error.contains("did you mean \"connected\"?") && error.contains("expected an url"),
        "{error}"
    );
    let deliver = "[[namespace]]\npattern = \"a\"\ndeliver = \"webhook\"\n";
    let warnings = parse(deliver, &[]).expect("valid").warnings();
    assert!(warnings[0].contains("reaches no back end"), "{warnings:?}");
    let hooks = r#"webhook=[{name="a", url="http://a/", secret_file="k", events=["undelivered"]}]"#;
    assert!(parse("", &[hooks]).is_ok());
    let several = "bridge.url=redis://a:1";
    assert!(parse("", &[hooks, several]).is_ok(), "they know of each other's users");
    let error = parse("", &[hooks, several, "bridge.presence=false"]).expect_err("they do not");
    assert!(error.contains("bridge.presence") && error.contains("\"undelivered\""), "{error}");
    let delay = r#"namespace=[{pattern="a", write_delay_ms=60}]"#;
    assert!(parse("", &[delay, "queue.max_age_ms=120"]).is_ok());
    let error = parse("", &[delay, "queue.max_age_ms=119"]).expect_err("it would look slow");
    assert!(error.contains("queue.max_age_ms") && error.contains("made to wait"), "{error}");
    let error = parse("", &["bridge.shared_rooms=[\"a\"]"]).expect_err("nobody to share with");
    assert!(error.contains("bridge.shared_rooms") && error.contains("give its URL"), "{error}");
    let heard = hook(&format!("secret_file = \"k\"\n{deliver}")).expect("valid").warnings();
    assert_eq!(heard, Vec::<String>::new());
}

#[test]
fn a_reload_takes_what_can_change_and_names_what_cannot() {
    let old = Config::default();
    let new = "[server]\nshards = 3\ndrain_timeout_ms = 5\n[log]\nlevel = \"debug\"\nformat = \"json\"\n\
               [[namespace]]\npattern = \"a\"\n";
    let new = parse(new, &[]).expect("valid");
    let (next, ignored) = old.reload(&new);
    assert_eq!(ignored, ["server.shards", "log.format"]);
    assert_eq!(next.server.drain_timeout, Duration::from_millis(5));
    assert_eq!(next.log.level, new.log.level);
    assert_eq!(next.lists.namespaces, new.lists.namespaces);
    assert_eq!((next.server.shards, next.log.format), (old.server.shards, old.log.format));
    assert_eq!(next.reload(&next), (next.clone(), Vec::new()));
}

#[test]
fn every_key_stands_once_in_a_known_section_and_is_explained() {
    let keys = keys();
    for (at, key) in keys.iter().enumerate() {
        assert!(keys[..at].iter().all(|other| other.path() != key.path()), "{} twice", key.path());
        let single = SECTIONS.iter().map(|(section, _)| *section);
        let known = single.chain(LISTS.iter().map(|list| list.name)).any(|s| s == key.section);
        assert!(known, "{} is in no printed section", key.path());
        assert!(key.doc.concat().trim().ends_with('.'), "{} is not explained", key.path());
    }
    let restart = keys.iter().filter(|key| key.reload == Reload::Restart).count();
    assert!(restart > 0 && restart < keys.len());
    assert_eq!(Namespace::default().overflow, Config::default().queue.overflow);
}

#[test]
fn every_list_is_described_and_is_taken_over_by_a_running_node_as_a_whole_or_not_at_all() {
    let config = Config::default();
    let lists = config.lists();
    assert_eq!(lists.len(), LISTS.len());
    for (list, about) in lists.iter().zip(LISTS) {
        assert_eq!(list.about().name, about.name);
        let keys = list.keys();
        assert!(keys.iter().all(|key| key.section == about.name), "{}", about.name);
        assert!(keys.iter().all(|key| key.reload == keys[0].reload), "{}", about.name);
        let named = about.required.iter().copied().chain(about.unique);
        named.for_each(|name| assert!(keys.iter().any(|key| key.name == name), "{name}"));
        let entry = format!("[[{}]]\n{}\n", about.name, about.example.join("\n"));
        let config = parse(&entry, &[]).expect(about.name);
        assert_ne!(config, Config::default(), "{entry}");
        assert_eq!(Config::default().reload(&config).1.is_empty(), keys[0].reload == Reload::Live);
        for key in about.required {
            assert!(
                about.example.iter().any(|line| line.starts_with(&format!("{key} = "))),
                "{key}"
            );
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_a_panic(text in ".{0,60}", set in ".{0,30}") {
        let _ = parse(&text, &[&set]);
        let _ = parse(&format!("[server]\n{text}\n[[namespace]]\n{set}"), &[]);
    }

    #[test]
    fn a_whole_number_is_taken_exactly_inside_its_range(shards: i64) {
        let taken = parse("", &[&format!("server.shards={shards}")]);
        prop_assert_eq!(taken.is_ok(), (0..=1024).contains(&shards));
    }

    #[test]
    fn reloading_twice_changes_nothing_more(interval in 100u64..100_000, shards in 0u16..1024) {
        let sets = [format!("heartbeat.ping_interval_ms={interval}"), format!("server.shards={shards}")];
        let new = parse("", &[&sets[0], &sets[1]]).expect("valid");
        let (next, _) = Config::default().reload(&new);
        prop_assert_eq!(next.reload(&new).0, next.clone());
        prop_assert_eq!(next.heartbeat.interval, Duration::from_millis(interval));
        prop_assert_eq!(next.server.shards, 0);
    }
}

mod kinds {
    use super::super::kind::{Kind, Value, one_of};
    use super::super::kind_text::{Hidden, list_of, text};
    use super::super::values::LogFormat;

    fn word(word: &str) -> Value {
        Value::Text(word.to_owned())
    }

    #[test]
    fn a_list_takes_values_of_its_kind_each_once_and_not_too_many() {
        let kind = list_of(2, one_of::<LogFormat>());
        let read = |values: &[&str]| {
            kind.read(&Value::List(values.iter().map(|value| word(value)).collect()))
        };
        assert_eq!(read(&[]), Some(vec![]));
        assert_eq!(read(&["json", "text"]), Some(vec![LogFormat::Json, LogFormat::Text]));
        assert_eq!(read(&["json", "json"]), None);
        assert_eq!(read(&["json", "jsno"]), None);
        assert_eq!(list_of(1, text(9)).read(&Value::List(vec![word("a"), word("b")])), None);
        assert_eq!(kind.read(&word("json")), None);
        assert_eq!(kind.write(&vec![LogFormat::Json]).to_string(), "[\"json\"]");
        assert!(
            kind.expectation().ends_with("each \"text\" or \"json\""),
            "{}",
            kind.expectation()
        );
    }

    #[test]
    fn a_text_is_one_line_of_limited_length_and_empty_only_where_that_has_a_meaning() {
        for (given, taken) in [("a", true), ("abc", true), ("abcd", false), ("a\nb", false)] {
            assert_eq!(text(3).read(&word(given)).is_some(), taken, "{given:?}");
        }
        assert_eq!(text(3).read(&word("")), None);
        assert_eq!(text(3).or_empty("none").read(&word("")), Some(String::new()));
    }

    #[test]
    fn a_secret_is_read_and_kept() {
        let secret = Hidden.read(&word("hunter2")).expect("a secret");
        assert_eq!((secret.expose(), Hidden.is_secret()), ("hunter2", true));
        assert_eq!(Hidden.read(&word(&"x".repeat(16_385))), None);
        assert_eq!(Hidden.read(&word("***")), None, "what print-config prints");
    }
}
