//! How large messages are: one size, or several with weights.
//!
//! Written `64`, or `32:60,256:30,4096:9,32768:1`: bytes, a colon, how often among all.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Payload sizes in bytes with their weights. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Sizes {
    choices: Vec<(u32, u32)>,
    total: u32,
}

/// The largest payload that a scenario may ask for, in bytes.
const LARGEST: u32 = 16 << 20;

impl Sizes {
    /// Mostly short messages, some of a page, few large ones.
    pub(crate) fn mixed() -> Self {
        Self { choices: vec![(80, 60), (256, 30), (4096, 9), (32_768, 1)], total: 100 }
    }

    /// A size, drawn by weight.
    pub(crate) fn pick(&self, random: &mut fastrand::Rng) -> usize {
        let mut at = if self.choices.len() == 1 { 0 } else { random.u32(0..self.total) };
        for (size, weight) in &self.choices {
            if at < *weight {
                return usize::try_from(*size).unwrap_or(usize::MAX);
            }
            at -= weight;
        }
        0
    }
}

impl Default for Sizes {
    /// A short chat message.
    fn default() -> Self {
        Self { choices: vec![(128, 1)], total: 1 }
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "size {text:?}: expected bytes up to {LARGEST}, as 64, or sizes with weights, as 64:9,4096:1"
            )
        };
        let mut choices = Vec::new();
        for part in text.split(',') {
            let (size, weight) = part.split_once(':').unwrap_or((part, "1"));
            let size: u32 = size.trim().parse().map_err(|_| wrong())?;
            let weight: u32 = weight.trim().parse().map_err(|_| wrong())?;
            if size > LARGEST || weight == 0 || weight > 1_000_000 {
                return Err(wrong());
            }
            choices.push((size, weight));
        }
        let total = choices.iter().map(|(_, weight)| weight).sum();
        Ok(Self { choices, total })
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(size, 1)] = self.choices.as_slice() {
            return write!(f, "{size}");
        }
        for (at, (size, weight)) in self.choices.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{size}:{weight}")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Sizes {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Sizes> for String {
    fn from(sizes: Sizes) -> Self {
        sizes.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written_alike() {
        for text in ["64", "32:60,256:30,4096:9"] {
            assert_eq!(text.parse::<Sizes>().expect("sizes").to_string(), text);
        }
        for text in ["", "x", "64:", "64:0", "99999999999", "64,,3"] {
            let error = text.parse::<Sizes>().expect_err(text);
            assert!(error.contains("expected bytes"), "{error}");
        }
    }

    #[test]
    fn sizes_are_drawn_by_weight() {
        let sizes: Sizes = "10:9,20:1".parse().expect("sizes");
        let mut random = fastrand::Rng::with_seed(3);
        let large = (0..10_000).filter(|_| sizes.pick(&mut random) == 20).count();
        assert!((800..1200).contains(&large), "{large}");
    }
}
