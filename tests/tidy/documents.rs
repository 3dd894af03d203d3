//! Rules about what is not code: manifests, tables and the words of any text.
//!
//! A table that names a test is believed only if the test exists; a dependency is admitted only with
//! its reason beside it; and no text gives away where it was written.

use throng::node::config::{Key, Reload};

use crate::source::{Source, is_word, root};

/// Roots of paths that exist on one machine only, written so that this file does not hold them.
const MACHINE_ROOTS: &[&str] =
    &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/Us", "ers/")];

/// Dependencies of a manifest without a comment on the line above. One that extends the name of the
/// dependency above it (`tracing`, `tracing-subscriber`) shares its comment.
pub(crate) fn unexplained_dependencies(source: &Source) -> Vec<String> {
    if !source.path.ends_with("Cargo.toml") {
        return Vec::new();
    }
    let (mut breaches, mut inside, mut above) = (Vec::new(), false, "");
    let mut explained: Option<&str> = None;
    for (number, line) in source.text.lines().enumerate() {
        let name = line.chars().take_while(|c| is_word(*c) || *c == '-').count();
        let dependency = if line.starts_with('[') {
            let header = line.trim_matches(['[', ']']);
            inside = header.ends_with("dependencies");
            header.split_once("dependencies.").map(|(_, name)| name)
        } else {
            (inside && name > 0 && line.contains('=')).then(|| &line[..name])
        };
        if let Some(name) = dependency {
            let extends = explained.is_some_and(|before| name.starts_with(&format!("{before}-")));
            if above.starts_with('#') {
                explained = Some(name);
            } else if !extends {
                let number = number + 1;
                breaches.push(format!("{}:{number}: {name}: say why it is there", source.path));
            }
        }
        above = line;
    }
    breaches
}

/// Lines that name an absolute path of some machine.
pub(crate) fn machine_paths(source: &Source) -> Vec<String> {
    let mut breaches = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        for root in MACHINE_ROOTS {
            let absolute = |at: usize| !line[..at].ends_with(|c| is_word(c) || "./}".contains(c));
            if line.match_indices(root).any(|(at, _)| absolute(at)) {
                let number = number + 1;
                breaches.push(format!("{}:{number}: {root} is a path of one machine", source.path));
            }
        }
    }
    breaches
}

/// Rows of the capability tables that are malformed or whose last cell names, in backticks, a test or
/// a file that does not exist.
pub(crate) fn missing_proofs(table: &Source, tree: &[Source]) -> Vec<String> {
    let (mut breaches, mut columns) = (Vec::new(), 0);
    for (number, line) in table.text.lines().enumerate() {
        let place = format!("{}:{}", table.path, number + 1);
        if !line.starts_with('|') {
            columns = 0;
            continue;
        }
        let cells = cells(line);
        let last = cells.last().cloned().unwrap_or_default();
        if columns == 0 {
            columns = cells.len();
            if last != "Proved by" {
                breaches.push(format!("{place}: the last column is `Proved by`"));
            }
        } else if cells.len() != columns {
            breaches.push(format!("{place}: {} cells instead of {columns}", cells.len()));
        } else {
            let names = last.split('`').skip(1).step_by(2);
            let missing = names.filter(|name| !is_proof(name, tree));
            breaches.extend(missing.map(|name| format!("{place}: there is no test {name}")));
        }
    }
    breaches
}

/// Promises of a document of security that no test holds: names of tests and files that do not exist, and rows of
/// tables and paragraphs that begin with what they promise, in bold, that name none. A threat is no promise, and
/// neither is what stands under a heading that says so.
pub(crate) fn missing_promises(document: &Source, tree: &[Source]) -> Vec<String> {
    let (mut breaches, mut heading, mut number) = (Vec::new(), "", 1);
    for block in document.text.split("\n\n") {
        let place = format!("{}:{number}", document.path);
        number += block.lines().count() + 1;
        let block = block.trim();
        heading = if block.starts_with('#') { block } else { heading };
        let names: Vec<&str> = block.split('`').skip(1).step_by(2).filter(|n| is_name(n)).collect();
        let missing = names.iter().filter(|name| !is_proof(name, tree));
        breaches.extend(missing.map(|name| format!("{place}: there is no test {name}")));
        let promises = block.starts_with("**") && !block.starts_with("**Threat.");
        if promises && names.is_empty() && !heading.contains("not promised") {
            let begin: String = block.chars().take(40).collect();
            breaches.push(format!("{place}: which test holds {begin:?}?"));
        }
        let mut is_held = false;
        for row in block.lines().filter(|line| line.starts_with('|')) {
            let cells = cells(row);
            let last = cells.last().cloned().unwrap_or_default();
            match last.as_str() {
                "held by" | "proved by" => is_held = true,
                _ if !is_held || last.starts_with("--") => {}
                _ if last.split('`').skip(1).step_by(2).any(is_name) => {}
                _ => breaches.push(format!("{place}: which test holds {:?}?", cells[0])),
            }
        }
    }
    breaches
}

/// True for what can only be a test or a file of tests, and no key, counter or field.
fn is_name(name: &str) -> bool {
    if name.contains('/') {
        return ["src/", "tests/", "clients/", "loadtest/"].iter().any(|r| name.starts_with(r));
    }
    let is_path = name.chars().all(|c| is_word(c) || c == ':');
    is_path && (name.contains("::") || name.matches('_').count() >= 3)
}

/// Keys of the configuration whose row in the documentation is missing or tells another default, another
/// range or another answer to SIGHUP than the code, and rows of keys that do not exist.
pub(crate) fn undocumented_keys(document: &Source, keys: &[Key]) -> Vec<String> {
    let rows: Vec<(usize, Vec<String>)> = document
        .text
        .lines()
        .enumerate()
        .filter(|(_, line)| line.starts_with("| `"))
        .map(|(number, line)| (number + 1, cells(line)))
        .filter(|(_, cells)| cells.len() == 7)
        .collect();
    let mut breaches = Vec::new();
    for key in keys {
        let path = format!("`{}`", key.path());
        let Some((number, row)) = rows.iter().find(|(_, row)| row[0] == path) else {
            breaches.push(format!("{}:1: there is no row for {path}", document.path));
            continue;
        };
        let reload = if key.reload == Reload::Live { "live" } else { "restart" };
        let told = [row[1].as_str(), &row[3].replace('\\', ""), &row[6]];
        let meant = [&format!("`{}`", key.default), key.expectation.as_str(), reload];
        if told != meant {
            breaches.push(format!("{}:{number}: {told:?} should be {meant:?}", document.path));
        }
    }
    let known = |row: &str| keys.iter().any(|key| format!("`{}`", key.path()) == row);
    let unknown = rows.iter().filter(|(_, row)| !known(&row[0]));
    breaches.extend(
        unknown.map(|(number, row)| format!("{}:{number}: no key {}", document.path, row[0])),
    );
    breaches
}

/// The cells of a table's row, trimmed. A `|` in backticks or behind a backslash does not end a cell.
pub(crate) fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut cell, mut quoted, mut before) = (Vec::new(), String::new(), false, ' ');
    for c in line.trim().trim_start_matches('|').chars() {
        quoted ^= c == '`';
        if c == '|' && !quoted && before != '\\' {
            cells.push(std::mem::take(&mut cell).trim().to_owned());
        } else {
            cell.push(c);
        }
        before = c;
    }
    cells
}

/// True when `name` is a test function (`path::` before it is allowed) or a file of the project.
fn is_proof(name: &str, tree: &[Source]) -> bool {
    if name.contains('/') {
        return root().join(name).exists();
    }
    let function = format!("fn {}", name.rsplit("::").next().unwrap_or(name));
    tree.iter().filter(|s| s.is_rust()).any(|source| source.words(&function).next().is_some())
}

#[test]
fn a_capability_without_its_test_is_found() {
    let tree = [Source::new("tests/a.rs", "fn it_holds() {}")];
    let text = "| # | What | Proved by |\n|---|---|---|\n| A | a `|` | `it_holds` |\n\
                | B | b | `it_fails`, `tests/it_holds` |\n| C | c |\n\n| # | What |\n";
    let found = missing_proofs(&Source::new("docs/t.md", text), &tree);
    let expected = [
        "docs/t.md:4: there is no test it_fails",
        "docs/t.md:4: there is no test tests/it_holds",
        "docs/t.md:5: 2 cells instead of 3",
        "docs/t.md:7: the last column is `Proved by`",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_promise_without_its_test_is_found() {
    let tree = [Source::new("tests/a.rs", "fn it_holds_and_is_held() {}")];
    let text = "# A\n\n**This.** So it is (`it_holds_and_is_held`, `a.key`, `a_counter_total`).\n\n\
                **That.** See `a.key`.\n\n**Threat.** Rain.\n\n| promise | held by |\n|---|---|\n\
                | One | `a::it_holds_and_is_held` |\n| Two | care |\n| Three | `it_has_never_been_held` |\n\n\
                | what | cases |\n|---|---|\n| Four | 4 |\n\n## What is not promised\n\n**Else.** Nothing.\n";
    let found = missing_promises(&Source::new("s.md", text), &tree);
    let expected = [
        "s.md:5: which test holds \"**That.** See `a.key`.\"?",
        "s.md:9: there is no test it_has_never_been_held",
        "s.md:9: which test holds \"Two\"?",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_key_whose_row_is_missing_or_wrong_is_found() {
    let key = |name, reload| Key {
        section: "a",
        name,
        default: "1".to_owned(),
        doc: &[],
        expectation: "a *".to_owned(),
        words: Vec::new(),
        reload,
        secret: false,
    };
    let text = "| `a.b` | `1` | | a \\* | c | | live |\n| `a.c` | `2` | | a \\* | c | | live |\n\
                | `a.d` | `1` | | a \\* | c | | live |\n";
    let keys = [key("b", Reload::Live), key("c", Reload::Live), key("e", Reload::Restart)];
    let found = undocumented_keys(&Source::new("c.md", text), &keys);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].starts_with("c.md:2: "), "{found:?}");
    assert_eq!(found[1..], ["c.md:1: there is no row for `a.e`", "c.md:3: no key `a.d`"]);
}
