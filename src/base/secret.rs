//! Text that must not be printed: keys, passwords, tokens.
//!
//! The type keeps secrets out of logs by accident, not out of memory: whoever formats a structure that
//! holds one sees `***`. Whoever needs the text says so by calling [`Secret::expose`]. An empty secret is
//! none.

use std::fmt;

/// A text that is shown as `***`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Keeps a text secret.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "none" } else { "***" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_only_to_whoever_asks() {
        assert_eq!(format!("{:?}", Some(Secret::new("hunter2"))), "Some(***)");
        assert_eq!(format!("{:?}", Secret::default()), "none");
        assert_eq!(Secret::new("hunter2").expose(), "hunter2");
    }
}
