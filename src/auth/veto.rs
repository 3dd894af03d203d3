//! A refusal in the application's own words.
//!
//! Whoever signs tokens, or answers the webhook, may say no to somebody who has everything else: an account
//! that is suspended, a bill that is unpaid. It says so with a code and a text that reach the client, so
//! the text is cut to what fits into a close frame, and holds no control characters: it goes into headers of
//! proxies, logs and terminals. In a claim it is one of
//!
//! ```text
//! "deny": true
//! "deny": "the account is suspended"
//! "deny": {"code": 401, "message": "the account is suspended"}
//! ```

use serde::Deserialize;
use serde_json::value::RawValue;

/// The most bytes of the words: what a close frame carries beside its code (RFC 6455, section 5.5).
pub const MAX_VETO_BYTES: usize = 123;

/// What is said where the application says nothing.
const WORDLESS: &str = "the application refuses this";

/// A refusal in the application's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Veto {
    /// The status of an HTTP response that says so: 401 or 403.
    pub status: u16,
    /// One line of 1 to [`MAX_VETO_BYTES`] bytes.
    pub words: Box<str>,
}

/// A veto as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    code: Option<u16>,
    #[serde(default)]
    message: Option<String>,
}

impl Veto {
    /// A veto with this status, 403 if none is given, and these words. `None` for another status than 401
    /// and 403.
    #[must_use]
    pub fn new(status: Option<u16>, words: Option<&str>) -> Option<Self> {
        let status = status.unwrap_or(403);
        matches!(status, 401 | 403).then(|| Self { status, words: one_line(words.unwrap_or("")) })
    }

    /// The veto of a claim; `Ok(None)` where it says that there is none.
    ///
    /// # Errors
    /// When the claim is none of the forms there are.
    pub fn from_claim(claim: &RawValue) -> Result<Option<Self>, NoVeto> {
        let written = match claim.get() {
            "null" | "false" => return Ok(None),
            "true" => return Ok(Self::new(None, None)),
            text if text.starts_with('"') => {
                let message = serde_json::from_str(text).map_err(|_| NoVeto)?;
                Written { code: None, message: Some(message) }
            }
            text if text.starts_with('{') => serde_json::from_str(text).map_err(|_| NoVeto)?,
            _ => return Err(NoVeto),
        };
        Self::new(written.code, written.message.as_deref()).map(Some).ok_or(NoVeto)
    }
}

/// A claim that cannot be read as a veto.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoVeto;

/// The text on one line, cut between two characters.
fn one_line(text: &str) -> Box<str> {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = line.trim();
    let end = (0..=line.len().min(MAX_VETO_BYTES)).rev().find(|at| line.is_char_boundary(*at));
    let line = line[..end.unwrap_or(0)].trim_end();
    if line.is_empty() { WORDLESS.into() } else { line.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(text: &str) -> Result<Option<(u16, String)>, NoVeto> {
        let raw: &RawValue = serde_json::from_str(text).expect("JSON");
        let veto = Veto::from_claim(raw)?;
        Ok(veto.map(|veto| (veto.status, veto.words.into_string())))
    }

    #[test]
    fn a_claim_is_a_veto_in_one_of_three_forms() {
        assert_eq!(claim("null"), Ok(None));
        assert_eq!(claim("false"), Ok(None));
        assert_eq!(claim("true"), Ok(Some((403, WORDLESS.to_owned()))));
        assert_eq!(claim("\"no\\u0021\""), Ok(Some((403, "no!".to_owned()))));
        let whole = r#"{"code": 401, "message": "suspended"}"#;
        assert_eq!(claim(whole), Ok(Some((401, "suspended".to_owned()))));
        assert_eq!(claim("{}"), Ok(Some((403, WORDLESS.to_owned()))));
        for wrong in ["7", "[]", r#"{"code":200}"#, r#"{"code":"401"}"#, r#"{"cod":401}"#] {
            assert_eq!(claim(wrong), Err(NoVeto), "{wrong}");
        }
    }

    #[test]
    fn the_words_are_one_line_that_fits_into_a_close_frame() {
        let words = |text: &str| Veto::new(None, Some(text)).expect("a status").words;
        assert_eq!(&*words(" a\r\nb\u{7f} "), "a  b");
        assert_eq!(&*words("\n"), WORDLESS);
        let long = words(&"ä".repeat(100));
        assert_eq!((long.len(), long.chars().count()), (122, 61), "cut between two characters");
        assert_eq!(words(&"x".repeat(200)).len(), MAX_VETO_BYTES);
    }
}
