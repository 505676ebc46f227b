use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::Strings;

/// Gives each distinct string a small number; the empty string is 0.
///
/// The numbers depend on the order of arrival and mean nothing outside: whoever sorts or writes uses the strings.
#[derive(Debug)]
pub struct Interner {
    strings: Strings,
    known: HashTable<u32>,
    // Seeded at random: strangers choose the strings.
    hasher: DefaultHashBuilder,
    bytes: usize,
}

impl Default for Interner {
    fn default() -> Self {
        let mut interner = Self {
            strings: Strings::default(),
            known: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            bytes: 0,
        };
        interner.strings.push("");
        interner
    }
}

impl Interner {
    /// The number of `text`, new or known.
    pub fn intern(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let hash = self.hasher.hash_one(text);
        if let Some(index) = self.known.find(hash, |index| self.strings.get(*index) == text) {
            return *index;
        }
        let index = self.strings.push(text);
        self.bytes += text.len();
        let (strings, hasher) = (&self.strings, &self.hasher);
        self.known.insert_unique(hash, index, |index| hasher.hash_one(strings.get(*index)));
        index
    }

    pub fn get(&self, index: u32) -> &str {
        self.strings.get(index)
    }

    /// How many strings there are; the empty one is always there.
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.strings.len()
    }

    /// Bytes of the strings themselves.
    pub fn text_bytes(&self) -> usize {
        self.bytes
    }

    pub fn into_strings(self) -> Strings {
        self.strings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_have_one_number_and_the_empty_one_is_0() {
        let mut interner = Interner::default();
        let numbers = ["", "a", "b", "a", ""].map(|text| interner.intern(text));
        assert_eq!(numbers, [0, 1, 2, 1, 0]);
        assert_eq!((interner.get(2), interner.len(), interner.text_bytes()), ("b", 3, 2));
    }
}
