//! Assignments to values.
//!
//! The file comes first, then every `--set` in order, each overriding what was before. A problem does not
//! stop the reading: the rest is still checked, and relations between keys are judged on the keys that
//! are right.

use std::fs;
use std::path::PathBuf;

use super::group::{Group, Key};
use super::problem::{ConfigError, Place, Problem};
use super::relation;
use super::source::{self, Assignment, Assignments, NAMESPACE};
use super::values::{Config, Namespace, SECTIONS, keys};

/// Where a configuration comes from, so that it can be read again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The file; `None` for the defaults.
    pub file: Option<PathBuf>,
    /// The `section.key=value` pairs of the command line, in order.
    pub sets: Vec<String>,
}

impl Origin {
    /// Reads the configuration.
    ///
    /// # Errors
    /// Every problem of the file and of the command line.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let Some(path) = &self.file else { return Config::parse("", "", &self.sets) };
        let name = path.display().to_string();
        match fs::read_to_string(path) {
            Ok(text) => Config::parse(&name, &text, &self.sets),
            Err(error) => {
                let text = format!("cannot be read: {error}");
                Err(ConfigError::new(vec![Problem { place: Place::File(name), text }]))
            }
        }
    }
}

impl Config {
    /// Makes a configuration of a file's text, by whose `name` problems are told, and of `--set` pairs.
    ///
    /// # Errors
    /// Every problem of the text and of the pairs.
    pub fn parse(name: &str, text: &str, sets: &[String]) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let mut sources = vec![source::file(name, text, &mut problems)];
        sources
            .extend(sets.iter().enumerate().map(|(at, text)| source::set(at, text, &mut problems)));
        let mut loader = Loader {
            known: keys(),
            config: Self::default(),
            taken: Vec::new(),
            refused: Vec::new(),
            problems,
        };
        for source in sources {
            loader.take(source);
        }
        loader.finish()
    }
}

struct Loader {
    known: Vec<Key>,
    config: Config,
    /// What was given to which key and where, in order.
    taken: Vec<(String, Place)>,
    /// Keys whose value was refused; no relation is judged on them.
    refused: Vec<String>,
    problems: Vec<Problem>,
}

impl Loader {
    fn take(&mut self, source: Assignments) {
        for given in source.keys {
            let set = self
                .config
                .groups_mut()
                .into_iter()
                .filter(|group| group.section() == given.section)
                .find_map(|group| group.set(&given.key, &given.value));
            self.note(&given, set);
        }
        if let Some(list) = source.namespaces {
            self.config.namespaces =
                list.iter().map(|(place, keys)| self.namespace(place, keys)).collect();
        }
    }

    fn namespace(&mut self, place: &Place, keys: &[Assignment]) -> Namespace {
        let mut namespace = Namespace::default();
        for given in keys {
            let set = namespace.set(&given.key, &given.value);
            self.note(given, set);
        }
        if !keys.iter().any(|given| given.key == "pattern") {
            let text = "[[namespace]]: expected a pattern, as pattern = \"ticker:*\"".to_owned();
            self.problems.push(Problem { place: place.clone(), text });
        }
        namespace
    }

    /// Notes what became of an assignment: taken, refused, or not known at all.
    fn note(&mut self, given: &Assignment, set: Option<bool>) {
        match set {
            Some(true) => self.taken.push((given.path(), given.place.clone())),
            Some(false) => {
                self.refused.push(given.path());
                self.problems.push(given.problem(&self.refusal(given)));
            }
            None if self.is_known_section(given) => {}
            None => self.problems.push(given.problem(&self.unknown(given))),
        }
    }

    fn is_known_section(&self, given: &Assignment) -> bool {
        given.key.is_empty() && SECTIONS.iter().any(|(section, _)| *section == given.section)
    }

    fn refusal(&self, given: &Assignment) -> String {
        let Some(key) = self.known.iter().find(|key| key.path() == given.path()) else {
            return String::new();
        };
        let near = nearest(given.written.trim_matches('"'), &key.words);
        let near = near.map_or(String::new(), |word| format!("; did you mean \"{word}\"?"));
        format!("expected {} (default {}){near}", key.expectation, key.default)
    }

    fn unknown(&self, given: &Assignment) -> String {
        let mut sections: Vec<&str> = SECTIONS.iter().map(|(section, _)| *section).collect();
        sections.push(NAMESPACE);
        let section = given.section.as_str();
        if given.key.is_empty() || !given.section.is_empty() && !sections.contains(&section) {
            let near = self
                .nearest_key(given)
                .or_else(|| nearest(section, &sections).map(|section| format!("[{section}]")));
            let near = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
            return format!("there is no section [{section}]{near}");
        }
        if let Some(near) = self.nearest_key(given) {
            return format!("there is no such key; did you mean {near}?");
        }
        let of_section = self.known.iter().filter(|key| key.section == section);
        let names: Vec<&str> = of_section.map(|key| key.name).collect();
        if names.is_empty() {
            return format!("there is no such key; the sections are {}", sections.join(", "));
        }
        format!("there is no such key; [{section}] has {}", names.join(", "))
    }

    /// The key most like the one given; a key of the same section wins over one of another.
    fn nearest_key(&self, given: &Assignment) -> Option<String> {
        if given.key.is_empty() {
            return None;
        }
        let distance = |key: &Key| strsim::damerau_levenshtein(&given.key, key.name);
        let far = given.key.chars().count().div_ceil(3);
        self.known
            .iter()
            .filter(|key| distance(key) <= far)
            .min_by_key(|key| 2 * distance(key) + usize::from(key.section != given.section))
            .map(Key::path)
    }

    fn finish(mut self) -> Result<Config, ConfigError> {
        let broken = relation::broken(&self.config, &self.refused);
        self.problems.extend(broken.into_iter().map(|(keys, text)| {
            let given = self.taken.iter().rev().find(|(path, _)| keys.contains(&path.as_str()));
            let place =
                given.map_or(Place::File("defaults".to_owned()), |(_, place)| place.clone());
            Problem { place, text }
        }));
        if self.problems.is_empty() {
            Ok(self.config)
        } else {
            Err(ConfigError::new(self.problems))
        }
    }
}

/// The word most like `given`, if one is near enough to have been meant.
fn nearest<'a>(given: &str, words: &[&'a str]) -> Option<&'a str> {
    let far = given.chars().count().div_ceil(3);
    let distance = |word: &&str| strsim::damerau_levenshtein(given, word);
    words.iter().copied().filter(|word| distance(word) <= far).min_by_key(distance)
}
