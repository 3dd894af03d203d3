//! Who may import whom: the floors of the core, the rim beside it, and the one place where they meet.
//!
//! A reference is any path that begins with `crate::` or `throng::`, or that climbs to the crate's root
//! by `super::`, in an import or inline, in groups or alone. Tests beside the code count as code: a
//! core module that needs a driver to be tested is not a core module.

use crate::source::{Source, is_word};

const CORE: &[&str] = &["base", "contract", "wire", "flow", "session", "hub", "auth", "connection"];
const RIM: &[&str] = &["sys", "driver", "mesh", "bridge", "store", "admin", "front"];

/// What a module may name besides itself; `None` where the module is unknown to the plan.
fn allowed(module: &str) -> Option<Vec<&'static str>> {
    let ground = ["base", "contract"];
    let second = || [&ground[..], &["wire", "flow"]].concat();
    Some(match module {
        "base" => Vec::new(),
        "contract" => vec!["base"],
        "wire" | "flow" => ground.to_vec(),
        "session" | "hub" | "auth" => second(),
        "connection" => [&second()[..], &["session", "hub", "auth"]].concat(),
        "shard" => CORE.to_vec(),
        "sys" | "driver" | "mesh" | "bridge" | "store" | "admin" | "front" => {
            [&ground[..], RIM].concat()
        }
        "node" => [CORE, RIM, &["shard"]].concat(),
        _ => return None,
    })
}

/// The references in a source that the floors forbid.
pub(crate) fn breaches(source: &Source) -> Vec<String> {
    let Some(module) = module_of(&source.path) else { return Vec::new() };
    let Some(allowed) = allowed(&module) else {
        if module == "loadtest" {
            return foreign(source);
        }
        return vec![format!("{}:1: {module} has no floor; tests/tidy/floors.rs", source.path)];
    };
    references(source)
        .into_iter()
        .filter(|(_, name)| *name != module && !allowed.contains(&name.as_str()))
        .map(|(at, name)| {
            let line = source.line(at);
            format!("{}:{line}: {module} may not name {name}: it stands no lower", source.path)
        })
        .collect()
}

/// The module of the library a file belongs to, `loadtest` for the load generator, and `None` for the
/// roots of the crates and for tests and benches, which may name everything.
fn module_of(path: &str) -> Option<String> {
    if path.starts_with("loadtest/") {
        return Some("loadtest".to_owned());
    }
    let inside = path.strip_prefix("src/").filter(|p| !matches!(*p, "lib.rs" | "main.rs"))?;
    Some(inside.split('/').next()?.trim_end_matches(".rs").to_owned())
}

/// The load generator must be able to catch the engine's mistakes, so it shares none of its code.
fn foreign(source: &Source) -> Vec<String> {
    source
        .words("throng")
        .filter(|at| source.code[at + "throng".len()..].starts_with("::"))
        .map(|at| format!("{}:{}: loadtest may not name throng", source.path, source.line(at)))
        .collect()
}

/// The top-level modules that a source names, each with its place.
fn references(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for root in ["crate", "throng"] {
        for at in source.words(root) {
            if let Some(rest) = source.code[at + root.len()..].strip_prefix("::") {
                found.extend(heads(rest).into_iter().map(|name| (at, name)));
            }
        }
    }
    let depth = depth(&source.path);
    for at in source.words("super").filter(|at| !source.code[..*at].ends_with("super::")) {
        let (mut rest, mut climbed) = (&source.code[at..], 0);
        while let Some(further) = rest.strip_prefix("super::") {
            (rest, climbed) = (further, climbed + 1);
        }
        // An inline module of tests stands one deeper, so a climb of exactly `depth` may or may not
        // reach the root; the names of the modules decide.
        if climbed >= depth {
            let known = heads(rest).into_iter().filter(|name| allowed(name).is_some());
            found.extend(known.map(|name| (at, name)));
        }
    }
    found
}

/// How many times `super` leads from a file's own module to the crate's root.
fn depth(path: &str) -> usize {
    let parts = path.matches('/').count();
    if path.ends_with("/mod.rs") { parts - 1 } else { parts }
}

/// The first names of a path or of each path in a group.
fn heads(rest: &str) -> Vec<String> {
    let Some(group) = rest.trim_start().strip_prefix('{') else {
        return vec![rest.chars().take_while(|c| is_word(*c)).collect()];
    };
    let (mut depth, mut heads, mut head) = (0, Vec::new(), String::new());
    let mut open = true;
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads.push(std::mem::take(&mut head));
                open = true;
            }
            c if depth == 0 && open && is_word(c) => head.push(c),
            c if depth == 0 && !c.is_whitespace() => open = false,
            _ => {}
        }
    }
    heads.push(head);
    heads.retain(|head| !head.is_empty());
    heads
}
