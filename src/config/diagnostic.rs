//! What is wrong with a configuration, said like a compiler says it: file, line, key, fault, and what to type
//! instead. A value is quoted only where it cannot be a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// One fault (or, among the warnings, one doubt) and its cure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub file: PathBuf,
    /// From 1; 0 where the fault is the file itself.
    pub line: usize,
    /// From 1, in characters; 0 where the fault is the file itself.
    pub column: usize,
    /// `realms.global.oauth_base`, `callers[1].networks[0]`; empty where the fault is the file itself.
    pub key: String,
    pub what: String,
    pub fix: String,
}

/// Everything that keeps a configuration from being used, in the order of the file. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(Vec<Diagnostic>);

impl Diagnostic {
    /// A fault of the file as a whole.
    pub fn of_file(file: &Path, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            column: 0,
            key: String::new(),
            what: what.into(),
            fix: fix.into(),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}. Fix: {}.", self.what, self.fix)
    }
}

/// Where each key of a file stands, so that a later check reports with the same file, line and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyLocations {
    file: PathBuf,
    /// Line and column.
    keys: BTreeMap<String, (usize, usize)>,
}

impl KeyLocations {
    pub(super) fn new(file: &Path, keys: BTreeMap<String, (usize, usize)>) -> Self {
        Self { file: file.to_owned(), keys }
    }

    /// A fault of `key`, at its place or, where the key is a default, at that of the table around it.
    pub fn problem(&self, key: &str, what: impl Into<String>, fix: impl Into<String>) -> Diagnostic {
        let mut around = key;
        let (line, column) = loop {
            match (self.keys.get(around), around.rsplit_once('.')) {
                (Some(location), _) => break *location,
                (None, Some((table, _))) => around = table,
                (None, None) => break (0, 0),
            }
        };
        let (file, key) = (self.file.clone(), key.to_owned());
        Diagnostic { file, line, column, key, what: what.into(), fix: fix.into() }
    }
}

impl ConfigError {
    /// Sorts them as they stand in the file; `None` where there are none.
    pub fn gather(mut found: Vec<Diagnostic>) -> Option<Self> {
        found.sort_by_key(|problem| (problem.line, problem.column));
        (!found.is_empty()).then_some(Self(found))
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }
}

impl From<Diagnostic> for ConfigError {
    fn from(problem: Diagnostic) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            let line_break = if at == 0 { "" } else { "\n" };
            write!(f, "{line_break}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Line and column, both from 1, of a byte of `text`.
pub(super) fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_like_a_compilers() {
        let problem = Diagnostic {
            file: "config.toml".into(),
            line: 12,
            column: 9,
            key: "realms.global.oauth_base".into(),
            what: "is not https".into(),
            fix: "write https://…".into(),
        };
        assert_eq!(
            problem.to_string(),
            "config.toml:12:9: realms.global.oauth_base: is not https. Fix: write https://…."
        );
        assert_eq!(
            Diagnostic::of_file(Path::new("c.toml"), "cannot be read", "make it").to_string(),
            "c.toml: cannot be read. Fix: make it."
        );
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(line_and_column("a\näb = 1", 0), (1, 1));
        assert_eq!(line_and_column("a\näb = 1", 4), (2, 2));
        assert_eq!(line_and_column("a", 99), (1, 2));
    }
}
