//! Which account a mistyped name may have meant.

use strsim::damerau_levenshtein;

use crate::model::account::AccountName;

/// The name with the fewest mistakes so far.
pub struct Nearest {
    wanted: String,
    found: Option<(usize, AccountName)>,
}

/// No name is longer, so nothing longer is worth comparing.
const LONGEST: usize = 64;

impl Nearest {
    pub fn to(text: &str) -> Self {
        let wanted = if text.chars().count() > LONGEST { String::new() } else { text.to_lowercase() };
        Self { wanted, found: None }
    }

    pub fn look_at(&mut self, name: &AccountName) {
        let mistakes = damerau_levenshtein(&self.wanted, name.as_str());
        let nearer = match &self.found {
            // Of two that are equally near the first by name, so that the result does not change.
            Some((fewest, held)) => mistakes < *fewest || (mistakes == *fewest && name < held),
            None => true,
        };
        if nearer && mistakes <= self.tolerated() {
            self.found = Some((mistakes, name.clone()));
        }
    }

    /// A third of the letters: more, and anything resembles anything. Patterns are no mistyped names.
    fn tolerated(&self) -> usize {
        let letters = self.wanted.chars().count();
        if self.wanted.contains('*') || letters == 0 { 0 } else { (letters / 3).max(1) }
    }

    pub fn found(&self) -> Option<&AccountName> {
        self.found.as_ref().map(|(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nearest(text: &str) -> Option<String> {
        let mut nearest = Nearest::to(text);
        for name in ["smile-berlin", "smile-bremen", "lab-one", "acct-10001", "acct-10002"] {
            nearest.look_at(&name.parse().unwrap());
        }
        nearest.found().map(ToString::to_string)
    }

    #[test]
    fn a_mistyped_name_finds_the_nearest_and_nonsense_finds_none() {
        assert_eq!(nearest("smile-berln").as_deref(), Some("smile-berlin"));
        assert_eq!(nearest("Smiel-Bremen").as_deref(), Some("smile-bremen"));
        assert_eq!(nearest("acct-1000").as_deref(), Some("acct-10001"));
        assert_eq!(nearest("nobody"), None);
        assert_eq!(nearest(""), None);
        assert_eq!(nearest("smile-*"), None);
        assert_eq!(nearest(&"smile-berlin".repeat(1000)), None);
    }
}
