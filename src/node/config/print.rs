//! `throng print-config`: a configuration as a file that explains itself.
//!
//! What is printed reads back as the same configuration, but for secrets, which are printed as `***`; a
//! test holds it to that.

use std::fmt::Write as _;

use super::group::{Group, Key, Reload};
use super::list::List;
use super::source::{AUTHORITY, HIDDEN, veil};
use super::values::{Config, SECTIONS};

const HEAD: &str = "\
# Throng's configuration. Every key may be left out; its default is then taken.
# Units are in the names of the keys. Keys marked (live) are taken over on SIGHUP, all others on restart.
# On the command line: --set section.key=value.
";

impl Config {
    /// This configuration as TOML with comments, complete, in the order of the documentation.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut out = HEAD.to_owned();
        let groups = self.groups();
        for (section, about) in SECTIONS {
            // Writing to a string cannot fail.
            let _ = write!(out, "\n# {about}\n[{section}]\n");
            for group in groups.iter().filter(|group| group.section() == *section) {
                for key in group.keys() {
                    comment(&mut out, &key);
                    assignment(&mut out, *group, &key);
                }
            }
        }
        for list in self.lists() {
            self::list(&mut out, list);
        }
        out
    }
}

/// A list: what it is for, an example, and its entries.
fn list(out: &mut String, list: &dyn List) {
    let about = list.about();
    let _ =
        writeln!(out, "\n# {}\n# For example:\n#\n# [[{}]]", about.about.join("\n# "), about.name);
    let _ = writeln!(out, "# {}", about.example.join("\n# "));
    for entry in list.entries() {
        let _ = writeln!(out, "\n[[{}]]", about.name);
        for key in entry.keys() {
            assignment(out, entry, &key);
        }
    }
}

fn comment(out: &mut String, key: &Key) {
    out.push('\n');
    for line in key.doc {
        let _ = writeln!(out, "#{line}");
    }
    let live = if key.reload == Reload::Live { " (live)" } else { "" };
    let _ = writeln!(out, "# Expects {}; default {}{live}.", key.expectation, key.default);
}

fn assignment(out: &mut String, group: &dyn Group, key: &Key) {
    let value = shown(group, key);
    let _ = writeln!(out, "{} = {value}", key.name);
}

/// A value as it may be shown: a secret only by whether there is one, and a URL without who logs in there.
pub(super) fn shown(group: &dyn Group, key: &Key) -> String {
    match group.get(key.name) {
        Some(value) if key.secret && value.to_string() != key.default => HIDDEN.to_owned(),
        Some(value) => veil(&value.to_string(), AUTHORITY),
        None => String::new(),
    }
}
