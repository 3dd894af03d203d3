//! What the style says and a program can check, checked.
//!
//! The limits stand here as constants: who may import whom, how long a file may be, where `unsafe`
//! may live, what every file and every dependency must explain. Each rule is a function from a source
//! to its breaches, so that [`every_rule_finds_its_breach`] can show it failing; each theme is one test
//! over the whole tree. A message names the file, the line and the rule. To change a limit, change the
//! constant in the same commit and say why.

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/floors.rs"]
mod floors;
#[path = "tidy/source.rs"]
mod source;

use source::{Source, is_word, tree};

const FILE_LINES: usize = 600;
const MAP_LINES: usize = 150;
const STRUCT_FIELDS: usize = 12;
/// Generated from one list, so that its length costs no reader anything.
const LONG_STRUCTS: &[&str] = &["Counters"];
/// The folders and files that may hold `unsafe`, each file saying why in its first attribute. The test
/// that counts allocations is an allocator, and Rust has no safe one. The generator shares no code with the
/// engine, and so has two system calls of its own.
const UNSAFE_HOMES: &[&str] =
    &["src/sys/", "src/driver/uring/", "tests/alloc.rs", "loadtest/src/sys.rs"];
const UNSAFE_REASON: &str = "#![expect(unsafe_code";
/// What no file leaves for later. Written in parts so that this file does not breach its own rule.
const LEFT_FOR_LATER: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
/// Code that stands for code still to be written, tests that do not run, waits that prove nothing,
/// and queues without a bound. Literals are blanked before the search, so this list is no breach.
const BANNED: &[(&str, &str)] = &[
    ("todo!", "no code is left to be written"),
    ("unimplemented!", "no code is left to be written"),
    ("#[ignore", "every test runs"),
    ("thread::sleep", "nothing waits by sleeping"),
    ("time::sleep(", "nothing waits by sleeping"),
    ("unbounded(", "every queue has a bound"),
    ("unbounded_channel", "every queue has a bound"),
    ("std::sync::mpsc", "every queue has a bound"),
];

type Rule = fn(&Source) -> Vec<String>;

fn assert_none(breaches: &[String]) {
    assert!(breaches.is_empty(), "{} breaches:\n{}", breaches.len(), breaches.join("\n"));
}

fn over_rust(rule: impl Fn(&Source) -> Vec<String>) {
    assert_none(&tree().iter().filter(|s| s.is_rust()).flat_map(rule).collect::<Vec<_>>());
}

#[test]
fn a_module_imports_only_from_lower_floors() {
    over_rust(floors::breaches);
}

#[test]
fn no_file_outgrows_its_limit() {
    over_rust(long_files);
}

#[test]
fn no_struct_has_too_many_fields() {
    over_rust(wide_structs);
}

#[test]
fn unsafe_lives_only_where_it_is_expected() {
    over_rust(unsafe_code);
}

#[test]
fn every_file_begins_with_what_it_is_for() {
    over_rust(missing_essay);
}

#[test]
fn nothing_banned_is_used_and_nothing_is_left_for_later() {
    over_rust(banned_words);
}

#[test]
fn every_dependency_says_why_it_is_there() {
    assert_none(&tree().iter().flat_map(documents::unexplained_dependencies).collect::<Vec<_>>());
}

#[test]
fn no_text_names_a_path_of_one_machine() {
    assert_none(&tree().iter().flat_map(documents::machine_paths).collect::<Vec<_>>());
}

#[test]
fn every_capability_names_tests_that_exist() {
    let tree = tree();
    let table =
        tree.iter().find(|s| s.path == "docs/capabilities.md").expect("docs/capabilities.md");
    assert_none(&documents::missing_proofs(table, &tree));
}

#[test]
fn every_promise_of_security_names_tests_that_exist() {
    let tree = tree();
    for path in ["docs/security.md", "SECURITY.md"] {
        let document = tree.iter().find(|s| s.path == path).expect(path);
        assert_none(&documents::missing_promises(document, &tree));
    }
}

#[test]
fn every_configuration_key_is_documented_as_it_is() {
    let tree = tree();
    let document =
        tree.iter().find(|s| s.path == "docs/configuration.md").expect("docs/configuration.md");
    assert_none(&documents::undocumented_keys(document, &throng::node::config::keys()));
}

fn long_files(source: &Source) -> Vec<String> {
    let limit = if source.path.ends_with("/mod.rs") { MAP_LINES } else { FILE_LINES };
    let lines = source.text.lines().count();
    if lines <= limit {
        return Vec::new();
    }
    vec![format!("{}:{lines}: at most {limit} lines; one file, one subject", source.path)]
}

fn wide_structs(source: &Source) -> Vec<String> {
    let mut breaches = Vec::new();
    for at in source.words("struct") {
        let rest = &source.code[at + "struct".len()..];
        let name: String = rest.trim_start().chars().take_while(|c| is_word(*c)).collect();
        let fields = match rest.find(['{', ';', '(']) {
            Some(open) if rest.as_bytes()[open] == b'{' => named_fields(&rest[open + 1..]),
            _ => 0,
        };
        if fields > STRUCT_FIELDS && !LONG_STRUCTS.contains(&name.as_str()) {
            breaches.push(format!(
                "{}:{}: struct {name} has {fields} fields, at most {STRUCT_FIELDS}; name its parts",
                source.path,
                source.line(at)
            ));
        }
    }
    breaches
}

/// The number of named fields in a struct's body: the single colons outside of any bracket.
fn named_fields(body: &str) -> usize {
    let bytes = body.as_bytes();
    let (mut depth, mut fields) = (0_i32, 0);
    for (at, byte) in bytes.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| bytes[before]);
        match byte {
            b'}' if depth == 0 => break,
            b'{' | b'(' | b'[' | b'<' => depth += 1,
            b'>' if matches!(before, Some(b'-' | b'=')) => {}
            b'}' | b')' | b']' | b'>' => depth -= 1,
            b':' if depth == 0 && before != Some(b':') && bytes.get(at + 1) != Some(&b':') => {
                fields += 1;
            }
            _ => {}
        }
    }
    fields
}

fn unsafe_code(source: &Source) -> Vec<String> {
    let at_home = UNSAFE_HOMES.iter().any(|home| source.path.starts_with(home));
    let rule = match (at_home, source.code.contains(UNSAFE_REASON)) {
        (true, true) => return Vec::new(),
        (true, false) => "a file with unsafe code expects the lint and says why",
        (false, _) => {
            "unsafe code lives in src/sys/, src/driver/uring/, loadtest/src/sys.rs and tests/alloc.rs only"
        }
    };
    source
        .words("unsafe")
        .map(|at| format!("{}:{}: {rule}", source.path, source.line(at)))
        .collect()
}

/// An essay comes first, or right after the attributes that lift lints for the whole file.
fn missing_essay(source: &Source) -> Vec<String> {
    let before = source.text.find("//! ").map(|essay| source.code[..essay].trim());
    if before.is_some_and(|b| b.is_empty() || b.starts_with("#![") && b.ends_with(']')) {
        return Vec::new();
    }
    vec![format!(
        "{}:1: a file begins with a //! essay: what, why so, what it refuses",
        source.path
    )]
}

fn banned_words(source: &Source) -> Vec<String> {
    let mut breaches = Vec::new();
    for (word, rule) in BANNED {
        for (at, _) in source.code.match_indices(word) {
            if !source.code[..at].ends_with(is_word) {
                breaches.push(format!("{}:{}: {word}: {rule}", source.path, source.line(at)));
            }
        }
    }
    for (number, line) in source.text.lines().enumerate() {
        if let Some(word) = LEFT_FOR_LATER.iter().find(|word| line.contains(**word)) {
            let number = number + 1;
            breaches.push(format!("{}:{number}: {word}: nothing is left for later", source.path));
        }
    }
    breaches
}

#[test]
fn every_rule_finds_its_breach() {
    let cases: &[(Rule, &str, &str)] = &[
        (floors::breaches, "src/wire/http.rs", "use crate::flow::wheel;"),
        (floors::breaches, "src/flow/wheel.rs", "fn f() { crate::wire::parse() }"),
        (floors::breaches, "src/session/mod.rs", "use crate::{base::id, hub::Room};"),
        (floors::breaches, "src/hub/room.rs", "use super::super::session;"),
        (floors::breaches, "src/hub/mod.rs", "use super::session;"),
        (floors::breaches, "src/base/id.rs", "use crate::contract::Op;"),
        (floors::breaches, "src/shard/mod.rs", "use crate::sys::clock;"),
        (floors::breaches, "src/driver/epoll.rs", "use crate::hub;"),
        (
            floors::breaches,
            "src/driver/epoll.rs",
            "use crate::{\n    base::{id, map},\n    node,\n};",
        ),
        (floors::breaches, "loadtest/src/main.rs", "use throng::base;"),
        (long_files, "src/a.rs", &"\n".repeat(601)),
        (long_files, "src/a/mod.rs", &"\n".repeat(151)),
        (wide_structs, "src/a.rs", &format!("struct A<T: B> {{ {} }}", "a: B<C, D>,".repeat(13))),
        (unsafe_code, "src/hub/room.rs", "#![expect(unsafe_code)]\nunsafe { f() }"),
        (unsafe_code, "src/sys/clock.rs", "unsafe { f() }"),
        (missing_essay, "src/a.rs", "use b;"),
        (missing_essay, "src/a.rs", "use b;\n//! Late."),
        (banned_words, "tests/a.rs", "fn a() { std::thread::sleep(b) }"),
        (banned_words, "src/a.rs", concat!("// TO", "DO later")),
        (documents::unexplained_dependencies, "Cargo.toml", "[dependencies]\nslab = \"1\"\n"),
        (documents::unexplained_dependencies, "Cargo.toml", "\n[dev-dependencies.slab]\n"),
        (documents::machine_paths, "docs/a.md", concat!("see /ho", "me/me/a")),
    ];
    for (at, (rule, path, text)) in cases.iter().enumerate() {
        let found = rule(&Source::new(path, text));
        assert_eq!(found.len(), 1, "case {at}: {path}: {text}: {found:?}");
        assert!(found[0].starts_with(path), "case {at} names no file: {found:?}");
    }
}

#[test]
fn what_is_allowed_is_no_breach() {
    let cases: &[(Rule, &str, &str)] = &[
        (floors::breaches, "src/session/mod.rs", "use crate::{base::id, wire, flow::{a, b}};"),
        (
            floors::breaches,
            "src/hub/mod.rs",
            "// crate::session\nuse super::room; \"crate::session\"",
        ),
        (floors::breaches, "src/hub/tests.rs", "use super::super::hub::Room; use super::session;"),
        (floors::breaches, "src/node/worker.rs", "use crate::{sys, shard, mesh, driver};"),
        (floors::breaches, "tests/it/main.rs", "use throng::hub;"),
        (wide_structs, "src/a.rs", "struct A { a: fn(x: B) -> C<D::E>, b: [u8; 2] } struct F(u8);"),
        (missing_essay, "src/a.rs", "#![expect(c, reason = \"d\")]\n//! What."),
        (unsafe_code, "src/a.rs", "// unsafe\nconst A: &str = \"unsafe\"; #![x(unsafe_code)]"),
        (banned_words, "src/a.rs", "fn a() { bounded(1); 'x'; \"todo!\"; r#\"a \" unbounded(\"# }"),
        (
            documents::unexplained_dependencies,
            "Cargo.toml",
            "[dependencies]\n# Logs.\ntracing = \"1\"\ntracing-subscriber = \"1\"\n",
        ),
        (documents::machine_paths, "docs/a.md", concat!("src/home/a and https://wo", "rk/")),
    ];
    for (at, (rule, path, text)) in cases.iter().enumerate() {
        assert_eq!(
            rule(&Source::new(path, text)),
            Vec::<String>::new(),
            "case {at}: {path}: {text}"
        );
    }
}
