//! The tree as the tidy tests see it: files with their text, and their code without its prose.
//!
//! Rules about words in code must not be set off by a comment or a string, and rules about files must
//! not be set off by what a build leaves behind. Hence a walk that skips what git ignores, and a
//! lexer of one function that blanks comments and literals and keeps every line where it was. It
//! knows no grammar: what needs more than brackets and words is clippy's work.

#![expect(clippy::expect_used, reason = "a tree that cannot be read fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

/// A text file of the project.
pub(crate) struct Source {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// Of a Rust file the text with comments and literals blanked; empty for others.
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") { code_only(text) } else { String::new() };
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The 1-based line that holds the byte at `offset`.
    pub(crate) fn line(&self, offset: usize) -> usize {
        1 + self.text.as_bytes()[..offset].iter().filter(|b| **b == b'\n').count()
    }

    /// Where `word` stands in the code, not as a part of a longer word.
    pub(crate) fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.code.match_indices(word).map(|(at, _)| at).filter(move |at| {
            let (before, after) =
                (self.code[..*at].chars().last(), self.code[at + word.len()..].chars().next());
            !before.is_some_and(is_word) && !after.is_some_and(is_word)
        })
    }
}

/// True for what an identifier is made of.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The project's root.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file of the project, in the order of their paths.
pub(crate) fn tree() -> Vec<Source> {
    let mut found = Vec::new();
    walk(&root(), &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Names that git ignores or keeps for itself.
const SKIPPED: &[&str] =
    &[".git", "target", "node_modules", "out", "corpus", "artifacts", "coverage"];

fn walk(folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let entry = entry.expect("a readable entry");
        let kind = entry.file_type().expect("a file type");
        if SKIPPED.iter().any(|name| entry.file_name() == **name) || kind.is_symlink() {
            continue;
        }
        let path = entry.path();
        if kind.is_dir() {
            walk(&path, found);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let relative = path.strip_prefix(root()).expect("a path under the root");
            found.push(Source::new(&relative.to_string_lossy(), &text));
        }
    }
}

/// The text with comments, strings and character literals replaced by blanks; lines stay in place.
pub(crate) fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        match prose(bytes, at) {
            Some(length) => {
                let end = (at + length).min(bytes.len());
                for byte in code[at..end].iter_mut().filter(|b| **b != b'\n') {
                    *byte = b' ';
                }
                at = end;
            }
            None => at += 1,
        }
    }
    String::from_utf8(code).expect("blanks replace whole characters")
}

/// The length of the comment or literal that begins at `at`, if one does.
fn prose(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let in_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    match rest[0] {
        b'/' if rest.starts_with(b"//") => {
            Some(rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()))
        }
        b'/' if rest.starts_with(b"/*") => Some(block_comment(rest)),
        b'"' => Some(quoted(rest, b'"')),
        b'r' if !in_word || matches!(bytes[at - 1], b'b' | b'c') => raw_string(rest),
        b'\'' => character(rest),
        _ => None,
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// A raw string from its `r`; `None` for a raw identifier or any other word.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|b| **b == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    let body = 2 + hashes;
    let end = rest[body..].windows(close.len()).position(|w| w == close);
    Some(end.map_or(rest.len(), |end| body + end + close.len()))
}

/// A character literal from its quote; `None` for a lifetime.
fn character(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        return Some(quoted(rest, b'\''));
    }
    let width = match rest.get(1)? {
        0xf0.. => 4,
        0xe0.. => 3,
        0xc0.. => 2,
        _ => 1,
    };
    (rest.get(1 + width) == Some(&b'\'')).then_some(width + 2)
}
