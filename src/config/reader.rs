//! Walks the parsed file and remembers every fault with its place, so that one run names them all. A key that
//! nobody asked for is unknown; asking is therefore the only list of keys there is.
//!
//! Not serde: its first error ends the reading, and a semantic fault no longer knows its line.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, KeyLocations, line_and_column};
use super::nearest::nearest;
use super::renamed::old_name;

/// Looks up an environment variable.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// One reading of one file.
pub(super) struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
    /// Where relative paths start.
    pub folder: PathBuf,
    pub env: Env<'a>,
    problems: RefCell<Vec<Diagnostic>>,
    warnings: RefCell<Vec<Diagnostic>>,
    asked: RefCell<BTreeSet<String>>,
    /// Where each key that is there stands.
    found: RefCell<BTreeMap<String, usize>>,
}

/// What a reading found beside the values.
pub(super) struct ReadReport {
    pub problems: Vec<Diagnostic>,
    pub warnings: Vec<Diagnostic>,
    /// The paths of all keys that were asked for. A test holds the example to them.
    #[cfg_attr(not(test), allow(dead_code, reason = "asking is the only list of keys there is"))]
    pub asked: BTreeSet<String>,
    pub places: KeyLocations,
}

/// A fault has been reported to the [`Reader`], so there is no value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reported;

/// Where something stands, and what it is called.
#[derive(Debug, Clone)]
pub(super) struct Location {
    pub key: String,
    offset: usize,
}

/// A table of the file; an absent one answers every question with "not there".
pub(super) struct Section<'a> {
    pub reader: &'a Reader<'a>,
    pub location: Location,
    table: Option<&'a DeTable<'a>>,
    asked: RefCell<Vec<&'static str>>,
}

/// A value of the file.
#[derive(Clone)]
pub(super) struct TomlValue<'a> {
    pub reader: &'a Reader<'a>,
    pub location: Location,
    pub(super) node: &'a Spanned<DeValue<'a>>,
}

impl<'a> Reader<'a> {
    pub fn new(file: &'a Path, text: &'a str, folder: PathBuf, env: Env<'a>) -> Self {
        Self {
            file,
            text,
            folder,
            env,
            problems: RefCell::default(),
            warnings: RefCell::default(),
            asked: RefCell::default(),
            found: RefCell::default(),
        }
    }

    pub fn root(&'a self, table: &'a DeTable<'a>) -> Section<'a> {
        let location = Location { key: String::new(), offset: 0 };
        Section { reader: self, location, table: Some(table), asked: RefCell::default() }
    }

    pub fn problem(&self, location: &Location, what: impl Into<String>, fix: impl Into<String>) {
        self.problems.borrow_mut().push(self.at(location, what.into(), fix.into()));
    }

    pub fn warning(&self, location: &Location, what: impl Into<String>, fix: impl Into<String>) {
        self.warnings.borrow_mut().push(self.at(location, what.into(), fix.into()));
    }

    /// A fault of another file that a key names; its line counts from 1, or is 0 for the file as a whole.
    pub fn problem_in(&self, file: &Path, line: usize, key: &str, what: &str, fix: &str) {
        let column = line.min(1);
        let (what, fix) = (what.to_owned(), fix.to_owned());
        let problem = Diagnostic { file: file.to_owned(), line, column, key: key.to_owned(), what, fix };
        self.problems.borrow_mut().push(problem);
    }

    pub fn syntax(&self, span: Option<Range<usize>>, message: &str) {
        let offset = span.map_or(0, |span| span.start);
        let location = Location { key: key_near(self.text, offset), offset };
        self.problem(&location, message, "write it as TOML: key = \"text\", key = 12, key = [\"a\", \"b\"]");
    }

    pub fn finish(self) -> ReadReport {
        let found = self.found.into_inner();
        let places = found.into_iter().map(|(key, offset)| (key, line_and_column(self.text, offset)));
        ReadReport {
            problems: self.problems.into_inner(),
            warnings: self.warnings.into_inner(),
            asked: self.asked.into_inner(),
            places: KeyLocations::new(self.file, places.collect()),
        }
    }

    fn at(&self, location: &Location, what: String, fix: String) -> Diagnostic {
        let (line, column) = line_and_column(self.text, location.offset);
        Diagnostic { file: self.file.to_owned(), line, column, key: location.key.clone(), what, fix }
    }
}

impl Location {
    fn below(&self, key: &str, offset: usize) -> Location {
        let key = if self.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.key) };
        Location { key, offset }
    }
}

impl<'a> Section<'a> {
    pub fn present(&self) -> bool {
        self.table.is_some()
    }

    pub fn get(&self, key: &'static str) -> Option<TomlValue<'a>> {
        let is_first = !self.asked.borrow().contains(&key);
        if is_first {
            self.asked.borrow_mut().push(key);
        }
        self.reader.asked.borrow_mut().insert(self.location.below(key, 0).key);
        let node = self.table?.get(key);
        let old = old_name(key).and_then(|old| Some((old, self.table?.get(old)?)));
        let Some((old, old_node)) = old else { return node.map(|node| self.value(key, node)) };
        let under_old_name = self.value(old, old_node);
        if is_first && node.is_some() {
            let what = format!("is the old name of {key}, which stands there too");
            self.reader.problem(&under_old_name.location, what, format!("remove {old}"));
        } else if is_first {
            under_old_name.warn(format!("is now called {key}"), format!("write {key} instead of {old}"));
        }
        Some(node.map_or(under_old_name, |node| self.value(key, node)))
    }

    fn value(&self, key: &str, node: &'a Spanned<DeValue<'a>>) -> TomlValue<'a> {
        let location = self.location.below(key, node.span().start);
        self.reader.found.borrow_mut().insert(location.key.clone(), location.offset);
        TomlValue { reader: self.reader, location, node }
    }

    /// Where a key stands, or would stand.
    pub fn location_of(&self, key: &'static str) -> Location {
        self.get(key).map_or_else(|| self.location.below(key, self.location.offset), |value| value.location)
    }

    pub fn required(&self, key: &'static str, fix: &str) -> Result<TomlValue<'a>, Reported> {
        self.get(key).ok_or_else(|| {
            self.reader.problem(&self.location_of(key), "is missing", fix);
            Reported
        })
    }

    /// What `read` makes of the key; `None` where it is absent.
    pub fn optional<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&TomlValue<'a>) -> Result<T, Reported>,
    ) -> Result<Option<T>, Reported> {
        self.get(key).map(|value| read(&value)).transpose()
    }

    /// What `read` makes of the key, or the default where it is absent.
    pub fn or_default<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&TomlValue<'a>) -> Result<T, Reported>,
        default: impl FnOnce() -> T,
    ) -> Result<T, Reported> {
        self.optional(key, read).map(|read| read.unwrap_or_else(default))
    }

    /// A table below this one; absent is as good as empty.
    pub fn section(&self, key: &'static str) -> Section<'a> {
        let absent = || Section {
            reader: self.reader,
            location: self.location.below(key, self.location.offset),
            table: None,
            asked: RefCell::default(),
        };
        self.get(key).and_then(|value| value.table().ok()).unwrap_or_else(absent)
    }

    /// This table's own name, parsed with `FromStr`.
    pub fn named<T: std::str::FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<T, Reported> {
        name.parse().map_err(|error: T::Err| {
            self.reader.problem(&self.location, error.to_string(), "give it a plain name");
            Reported
        })
    }

    /// Tables under names that the file chooses: `[realms.NAME]`.
    pub fn named_sections(&self, key: &'static str) -> Vec<(String, Section<'a>)> {
        let Some(parent) = self.get(key).and_then(|value| value.table().ok()) else { return Vec::new() };
        let Some(table) = parent.table else { return Vec::new() };
        let children = table.iter().filter_map(|(name, node)| {
            let location = parent.location.below(name.get_ref(), node.span().start);
            self.reader.found.borrow_mut().insert(location.key.clone(), location.offset);
            let section = TomlValue { reader: self.reader, location, node }.table().ok()?;
            Some((name.get_ref().to_string(), section))
        });
        let mut children: Vec<_> = children.collect();
        children.sort_by_key(|(_, section)| section.location.offset);
        children
    }

    /// Values under names that the file chooses: `resolve = { "host" = "address" }`.
    pub fn named_values(&self, key: &'static str) -> Vec<(String, TomlValue<'a>)> {
        let Some(parent) = self.get(key).and_then(|value| value.table().ok()) else { return Vec::new() };
        let Some(table) = parent.table else { return Vec::new() };
        let children = table.iter().map(|(name, node)| {
            let location = parent.location.below(name.get_ref(), node.span().start);
            (name.get_ref().to_string(), TomlValue { reader: self.reader, location, node })
        });
        children.collect()
    }

    /// `[[key]]` as often as it stands there.
    pub fn repeated_sections(&self, key: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let items = value.items("a table for each, headed [[callers]]");
        items.iter().flatten().filter_map(|item| item.table().ok()).collect()
    }

    /// Names every key that nobody asked for. To be called last.
    pub fn reject_unknown_keys(self) {
        let Some(table) = self.table else { return };
        let known = self.asked.borrow();
        let is_known = |name: &str| known.iter().any(|key| *key == name || old_name(key) == Some(name));
        for name in table.keys().filter(|name| !is_known(name.get_ref())) {
            let location = self.location.below(name.get_ref(), name.span().start);
            let fix = match nearest(name.get_ref(), &known) {
                Some(near) => format!("write {near}"),
                None => format!("remove it; known here: {}", known.join(", ")),
            };
            self.reader.problem(&location, "is not a known key", fix);
        }
    }
}

impl<'a> TomlValue<'a> {
    /// Reports a fault of this value; for use in tail position.
    pub fn refuse<T>(&self, what: impl Into<String>, fix: impl Into<String>) -> Result<T, Reported> {
        self.reader.problem(&self.location, what, fix);
        Err(Reported)
    }

    pub fn warn(&self, what: impl Into<String>, fix: impl Into<String>) {
        self.reader.warning(&self.location, what, fix);
    }

    /// The value itself is not shown: it may be a secret in the wrong place.
    pub fn wrong_type<T>(&self, expected: &str) -> Result<T, Reported> {
        let found = self.node.get_ref().type_str();
        self.refuse(format!("is of type {found}"), format!("write {expected}"))
    }

    pub fn text(&self) -> Result<&'a str, Reported> {
        match self.node.get_ref() {
            DeValue::String(text) if text.is_empty() => {
                self.refuse("is empty", "fill it in or remove the key")
            }
            DeValue::String(text) => Ok(text.as_ref()),
            _ => self.wrong_type("a text in quotes"),
        }
    }

    /// A text, or a number that stands for one.
    pub fn text_or_number(&self) -> Result<String, Reported> {
        match self.node.get_ref() {
            DeValue::Integer(_) => self.integer().map(|number| number.to_string()),
            _ => self.text().map(str::to_owned),
        }
    }

    pub fn is_text(&self) -> bool {
        self.node.get_ref().is_str()
    }

    /// The elements of a list.
    pub fn items(&self, expected: &str) -> Result<Vec<TomlValue<'a>>, Reported> {
        let Some(items) = self.node.get_ref().as_array() else {
            return self.wrong_type(expected);
        };
        let sited = items.iter().enumerate().map(|(at, node)| {
            let location =
                Location { key: format!("{}[{at}]", self.location.key), offset: node.span().start };
            TomlValue { reader: self.reader, location, node }
        });
        Ok(sited.collect())
    }

    pub fn is_empty_list(&self) -> bool {
        self.node.get_ref().as_array().is_some_and(|items| items.is_empty())
    }

    pub fn table(&self) -> Result<Section<'a>, Reported> {
        let Some(table) = self.node.get_ref().as_table() else {
            return self.wrong_type("a table");
        };
        let location = self.location.clone();
        Ok(Section { reader: self.reader, location, table: Some(table), asked: RefCell::default() })
    }

    /// Parses the string with `FromStr`; the type's own error says what is wrong.
    pub fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(&self, fix: &str) -> Result<T, Reported> {
        self.text()?.parse().or_else(|error: T::Err| self.refuse(error.to_string(), fix))
    }

    pub(super) fn integer(&self) -> Result<i64, Reported> {
        let Some(number) = self.node.get_ref().as_integer() else {
            return self.wrong_type("a whole number");
        };
        let read = i64::from_str_radix(number.as_str(), number.radix());
        read.or_else(|_| self.refuse("is too large", "write a smaller number"))
    }

    pub(super) fn within<T: PartialOrd>(
        &self,
        number: Option<T>,
        range: &RangeInclusive<T>,
        (least, most): (String, String),
    ) -> Result<T, Reported> {
        match number {
            Some(number) if range.contains(&number) => Ok(number),
            _ => self.refuse("is out of range", format!("write something from {least} to {most}")),
        }
    }
}

/// The key that a fault of syntax belongs to, as far as lines tell: the last header above it, and what stands
/// before its line's `=`.
fn key_near(text: &str, offset: usize) -> String {
    let (line, _) = line_and_column(text, offset);
    let until: Vec<&str> = text.lines().take(line).map(str::trim).collect();
    let header = until.iter().rev().find(|line| line.starts_with('['));
    let header =
        header.map_or("", |line| line.split('#').next().unwrap_or(line).trim().trim_matches(['[', ']']));
    let key = until.last().and_then(|line| line.split_once('=')).map_or("", |(key, _)| key.trim());
    [header, key].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".")
}
