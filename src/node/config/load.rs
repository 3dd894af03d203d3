//! Assignments to values.
//!
//! The file comes first, then every `--set` in order, each overriding what was before. A problem does not
//! stop the reading: the rest is still checked, and relations between keys are judged on the keys that
//! are right.

use std::fs;
use std::path::PathBuf;

use super::group::Key;
use super::kind::Value;
use super::list::{self, About};
use super::problem::{ConfigError, Place, Problem};
use super::relation;
use super::source::{self, Assignment, Assignments, Entry};
use super::values::{Config, LISTS, SECTIONS, keys};

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
        for (section, entries) in source.lists {
            let lists = self.config.lists();
            let Some(at) = lists.iter().position(|list| list.about().name == section) else {
                continue;
            };
            self.config.lists_mut()[at].clear();
            let places: Vec<Place> = entries.iter().map(|(place, _)| place.clone()).collect();
            for entry in &entries {
                self.entry(at, entry, &places);
            }
        }
    }

    /// Adds an entry to the list `at` its place among the lists.
    fn entry(&mut self, at: usize, (place, keys): &Entry, places: &[Place]) {
        let refused = self.refused.len();
        self.config.lists_mut()[at].add();
        for given in keys {
            let set = self.config.lists_mut()[at].last().set(&given.key, &given.value);
            self.note(given, set);
        }
        let list = self.config.lists()[at];
        let mut told = |text| self.problems.push(Problem { place: place.clone(), text });
        let about = list.about();
        for key in about.required {
            if !keys.iter().any(|given| given.key == *key) {
                told(about.missing(key));
            }
        }
        if self.refused.len() > refused {
            return;
        }
        if let Some(text) = list.broken() {
            told(format!("[[{}]]: {text}", about.name));
        }
        if let Some((key, value, first)) = list::twin(list, places) {
            let path = format!("{}.{key}", about.name);
            told(format!("{path} = {value}: expected another than that of {first}"));
        }
    }

    /// Notes what became of an assignment: taken, refused, or not known at all.
    fn note(&mut self, given: &Assignment, set: Option<bool>) {
        match set {
            Some(true) => self.taken.push((given.path(), given.place.clone())),
            Some(false) => {
                self.refused.push(given.path());
                let secret = self.known_key(given).is_some_and(|key| key.secret);
                self.problems.push(given.problem(secret, &self.refusal(given)));
            }
            None if self.is_known_section(given) => {}
            None => {
                let secret = self.is_meant_secret(given);
                self.problems.push(given.problem(secret, &self.unknown(given)));
            }
        }
    }

    fn is_known_section(&self, given: &Assignment) -> bool {
        given.key.is_empty() && SECTIONS.iter().any(|(section, _)| *section == given.section)
    }

    fn known_key(&self, given: &Assignment) -> Option<&Key> {
        self.known.iter().find(|key| key.path() == given.path())
    }

    /// True when the unknown key may have been meant for a secret one: it is like one, or in a section that
    /// has one.
    fn is_meant_secret(&self, given: &Assignment) -> bool {
        let near = self.nearest_key(given).unwrap_or_default();
        self.known
            .iter()
            .any(|key| key.secret && (key.section == given.section || key.path() == near))
    }

    fn refusal(&self, given: &Assignment) -> String {
        let Some(key) = self.known_key(given) else { return String::new() };
        let near = misspelled(&given.value, &key.words);
        let near = near.map_or(String::new(), |word| format!("; did you mean \"{word}\"?"));
        format!("expected {} (default {}){near}", key.expectation, key.default)
    }

    fn unknown(&self, given: &Assignment) -> String {
        let single = SECTIONS.iter().map(|(section, _)| *section);
        let sections: Vec<&str> = single.chain(LISTS.iter().map(|list| list.name)).collect();
        let section = given.section.as_str();
        if let (Some(list), Place::Set(_)) = (find_list(section), &given.place)
            && self.known_key(given).is_some()
        {
            return format!("[[{section}]] is a list; give it whole, as {}", list.set());
        }
        if given.key.is_empty() || !given.section.is_empty() && !sections.contains(&section) {
            let near = self.nearest_key(given).or_else(|| nearest(section, &sections).map(header));
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
        // Between two keys alike the section decides, which may be misspelled as well.
        let section = |key: &Key| match given.section.as_str() {
            "" => 0,
            section => strsim::damerau_levenshtein(section, key.section),
        };
        let far = given.key.chars().count().div_ceil(3);
        self.known
            .iter()
            .filter(|key| distance(key) <= far)
            .min_by_key(|key| {
                let elsewhere = usize::from(key.section != given.section);
                (2 * distance(key) + elsewhere, section(key))
            })
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

/// The header of a section as it stands in a file.
fn header(section: &str) -> String {
    if find_list(section).is_some() { format!("[[{section}]]") } else { format!("[{section}]") }
}

fn find_list(section: &str) -> Option<&'static About> {
    LISTS.iter().find(|list| list.name == section)
}

/// The word that was meant by a text, or by the first of a list that is none of them.
fn misspelled<'a>(value: &Value, words: &[&'a str]) -> Option<&'a str> {
    match value {
        Value::Text(text) if words.contains(&text.as_str()) => None,
        Value::Text(text) => nearest(text, words),
        Value::List(values) => values.iter().find_map(|value| misspelled(value, words)),
        _ => None,
    }
}

/// The word most like `given`, if one is near enough to have been meant.
fn nearest<'a>(given: &str, words: &[&'a str]) -> Option<&'a str> {
    let far = given.chars().count().div_ceil(3);
    let distance = |word: &&str| strsim::damerau_levenshtein(given, word);
    words.iter().copied().filter(|word| distance(word) <= far).min_by_key(distance)
}
