//! `throng print-config`: a configuration as a file that explains itself.
//!
//! What is printed reads back as the same configuration; a test holds it to that.

use std::fmt::Write as _;

use super::group::{Group, Key, Reload};
use super::values::{Config, Namespace, SECTIONS};

const HEAD: &str = "\
# Throng's configuration. Every key may be left out; its default is then taken.
# Units are in the names of the keys. Keys marked (live) are taken over on SIGHUP, all others on restart.
# On the command line: --set section.key=value.
";

const NAMESPACES: &str = "
# Rooms by name: the first namespace whose pattern matches decides (live). In a pattern * stands for any
# characters. For example:
#
# [[namespace]]
# pattern = \"ticker:*\"
# overflow = \"conflate\"
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
        out.push_str(NAMESPACES);
        for namespace in &self.namespaces {
            out.push_str("\n[[namespace]]\n");
            for key in namespace.keys() {
                assignment(&mut out, namespace as &Namespace, &key);
            }
        }
        out
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
    let value = group.get(key.name).map_or(String::new(), |value| value.to_string());
    let _ = writeln!(out, "{} = {value}", key.name);
}
