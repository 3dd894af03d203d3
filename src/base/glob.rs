//! Room name patterns: `*` stands for any characters, also none; everything else for itself.
//!
//! The match is by two positions and one place to go back to, so its cost is at most the product of the
//! two lengths whatever the pattern: patterns come from the operator, room names from strangers. There is
//! no escape, because no room name needs a literal `*` to be told from others.

/// A pattern of room names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Box<str>);

impl Glob {
    /// The pattern as written in the configuration.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self(pattern.into())
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True when the whole of `name` fits the pattern.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        matches(self.0.as_bytes(), name.as_bytes())
    }
}

/// True when the whole of `name` fits a pattern that is kept elsewhere. Compares bytes, which is right for
/// UTF-8 because `*` may stand for any of them.
#[must_use]
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut in_name) = (0, 0);
    // Where to go on when a try fails: behind the last `*`, which then takes one byte more.
    let mut retry: Option<(usize, usize)> = None;
    while in_name < name.len() {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            retry = Some((at, in_name));
        } else if pattern.get(at) == Some(&name[in_name]) {
            (at, in_name) = (at + 1, in_name + 1);
        } else if let Some((after_star, taken)) = retry {
            (at, in_name) = (after_star, taken + 1);
            retry = Some((after_star, taken + 1));
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, word by word.
    fn naive(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|taken| naive(rest, &name[taken..])),
            Some((byte, rest)) => name.first() == Some(byte) && naive(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_what_its_definition_matches(pattern in "[ab*]{0,7}", name in "[ab]{0,9}") {
            prop_assert_eq!(
                Glob::new(&pattern).matches(&name),
                naive(pattern.as_bytes(), name.as_bytes())
            );
        }
    }

    #[test]
    fn a_pattern_names_the_rooms_it_seems_to() {
        assert!(Glob::new("ticker:*").matches("ticker:EURUSD"));
        assert!(Glob::new("ticker:*").matches("ticker:"));
        assert!(!Glob::new("ticker:*").matches("my-ticker:EURUSD"));
        assert!(Glob::new("*").matches(""));
        assert!(Glob::new("lobby").matches("lobby"));
        assert!(!Glob::new("lobby").matches("lobby2"));
    }
}
