//! The source as text: files, production code, and which file names which.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// One file of production code, or of tests.
pub struct SourceFile {
    /// Below the project's folder: `src/config/mod.rs`.
    pub path: String,
    pub text: String,
}

impl SourceFile {
    /// The room that a file of `src` stands in: `config`.
    pub fn room(&self) -> Option<String> {
        let below = self.path.strip_prefix("src/")?;
        let first = below.split('/').next()?;
        let name = first.strip_suffix(".rs").unwrap_or(first);
        (!matches!(name, "lib" | "main")).then(|| name.to_owned())
    }

    /// Whether the file holds nothing but what tests need.
    pub fn is_for_tests(&self) -> bool {
        let names = ["tests", "stories", "doubles"];
        let stem = self.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
        self.path.split('/').any(|part| names.contains(&part.trim_end_matches(".rs")))
            || ["testing", "contract"].contains(&stem)
            || stem.ends_with("_test")
            || stem.ends_with("_tests")
    }

    /// Without comments and without the tests at the foot. Lines keep their numbers.
    pub fn production_code(&self) -> String {
        let end = self.text.find("#[cfg(test)]\nmod ").unwrap_or(self.text.len());
        let uncommented =
            self.text[..end].lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line });
        uncommented.collect::<Vec<_>>().join("\n")
    }
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// All Rust files below a folder of the project.
pub fn files(folder: &str) -> Vec<SourceFile> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("readable folder") {
            let path = entry.expect("readable entry").path();
            if path.is_dir() {
                // A package below may have been built in its own folder.
                folders.extend(Some(path).filter(|path| !path.ends_with("target")));
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let below = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
                found.push(SourceFile {
                    path: below,
                    text: fs::read_to_string(&path).expect("readable source"),
                });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "the scan found nothing in {folder}");
    found
}

pub fn sources() -> Vec<SourceFile> {
    let found = files("src");
    assert!(found.len() > 100, "the scan found {} files only", found.len());
    found
}

/// One path that a file names, as its words below `crate::`.
pub struct Import {
    pub room: String,
    pub file: String,
    pub line: usize,
    pub path: Vec<String>,
}

/// Every path below `crate::` outside of tests and comments.
pub fn imports() -> Vec<Import> {
    let mut found = Vec::new();
    for file in sources() {
        let Some(room) = file.room() else { continue };
        let code = file.production_code();
        for (at, _) in code.match_indices("crate::") {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            for path in paths(&code[at + "crate::".len()..]) {
                found.push(Import { room: room.clone(), file: file.path.clone(), line, path });
            }
        }
    }
    assert!(found.len() > 100, "the scan found {} imports only: it no longer reads the source", found.len());
    found
}

/// `a::b::C` and `{a::b, c}` as the paths that they name.
pub fn paths(text: &str) -> Vec<Vec<String>> {
    if let Some(group) = text.strip_prefix('{') {
        return parts_of(group).into_iter().flat_map(paths).collect();
    }
    let first: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    match text[first.len()..].strip_prefix("::") {
        Some(below) => {
            let joined = |mut path: Vec<String>| {
                path.insert(0, first.clone());
                path
            };
            paths(below).into_iter().map(joined).collect()
        }
        None => vec![vec![first]],
    }
}

/// What stands between commas up to the brace that closes the group.
fn parts_of(group: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

/// Which file of production code names which other, both as module paths: `config::reader`. A module and its
/// own children are left out: a parent that declares a child is no knot.
pub fn file_edges() -> (BTreeMap<String, String>, BTreeMap<String, BTreeSet<String>>) {
    let files: Vec<SourceFile> =
        sources().into_iter().filter(|file| file.room().is_some() && !file.is_for_tests()).collect();
    let modules: BTreeMap<String, String> =
        files.iter().map(|file| (module_path(&file.path), file.path.clone())).collect();
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in &files {
        let here = module_path(&file.path);
        for target in named(&file.production_code(), &here, &modules) {
            let is_family =
                target.starts_with(&format!("{here}::")) || here.starts_with(&format!("{target}::"));
            if target != here && !is_family {
                edges.entry(here.clone()).or_default().insert(target);
            }
        }
    }
    (modules, edges)
}

fn module_path(path: &str) -> String {
    let below = path.trim_start_matches("src/").trim_end_matches(".rs");
    below.trim_end_matches("/mod").replace('/', "::")
}

/// The modules that a file names, whether by `use` or in the middle of its code.
fn named(code: &str, here: &str, modules: &BTreeMap<String, String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            for path in paths(&code[at..]) {
                found.extend(resolve(&path, here, modules));
            }
        }
    }
    found
}

fn resolve(path: &[String], here: &str, modules: &BTreeMap<String, String>) -> Option<String> {
    let mut base: Vec<&str> = here.split("::").collect();
    let mut words = path.iter().map(String::as_str).peekable();
    if words.next_if_eq(&"crate").is_some() {
        base.clear();
    } else {
        words.next_if_eq(&"self");
        while words.next_if_eq(&"super").is_some() {
            base.pop();
        }
    }
    base.extend(words);
    while !base.is_empty() {
        let module = base.join("::");
        if modules.contains_key(&module) {
            return Some(module);
        }
        base.pop();
    }
    None
}
