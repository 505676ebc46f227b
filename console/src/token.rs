//! Who may do what: bearer tokens, of which only the hash is kept.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What the holder of a token may do; each may what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// See who did what, and what a verb would do.
    Viewer,
    /// Pause, resume and throttle runs.
    Operator,
}

/// A token as the configuration holds it.
///
/// A token is 256 random bits, so that nobody finds it from its hash however quick the hash is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Told with all that is done with it.
    pub name: String,
    pub role: Role,
    /// SHA-256 of the token, in hex.
    pub hash: String,
}

impl Token {
    pub fn new(name: &str, role: Role, secret: &str) -> Token {
        Token { name: name.to_owned(), role, hash: hash_of(secret) }
    }

    /// Whether it is this one; takes the same time wherever the two begin to differ.
    fn is(&self, hash: &str) -> bool {
        let same_length = self.hash.len() == hash.len();
        let differing = self.hash.bytes().zip(hash.bytes()).fold(0, |all, (ours, theirs)| all | (ours ^ theirs));
        same_length && differing == 0
    }
}

/// The token of which `secret` is the word.
pub(crate) fn find<'a>(tokens: &'a [Token], secret: &str) -> Option<&'a Token> {
    let hash = hash_of(secret);
    // All are looked at, whichever it is.
    tokens.iter().fold(None, |found, token| if token.is(&hash) { Some(token) } else { found })
}

fn hash_of(secret: &str) -> String {
    Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_by_its_word_alone() {
        let tokens = [Token::new("a", Role::Viewer, "weir_1"), Token::new("b", Role::Operator, "weir_2")];
        assert_eq!(find(&tokens, "weir_2").map(|token| token.name.as_str()), Some("b"));
        for wrong in ["", "weir_", "weir_3", &tokens[0].hash] {
            assert_eq!(find(&tokens, wrong), None, "{wrong:?}");
        }
        assert_eq!(tokens[0].hash.len(), 64);
        assert!(!Token { hash: String::new(), ..tokens[0].clone() }.is(&tokens[0].hash));
    }

    #[test]
    fn an_operator_may_what_a_viewer_may() {
        assert!(Role::Viewer < Role::Operator);
    }
}
