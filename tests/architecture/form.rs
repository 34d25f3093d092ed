//! How the code is written, as far as a test can tell: width, length, names, log lines.

use std::collections::BTreeMap;

use crate::source::{self, SourceFile};

/// Comments are for reading.
const COLUMNS: usize = 110;
/// A function that does not fit on a page does two things.
const LINES: usize = 60;
/// Of type names, those that several types have.
const MOST_HOMONYMS: f64 = 0.05;

fn everything() -> Vec<SourceFile> {
    ["src", "tests", "benches", "tools", "fuzz"].into_iter().flat_map(source::files).collect()
}

fn refuse(found: &[String]) {
    assert!(found.is_empty(), "{}\n{} in all", found.join("\n"), found.len());
}

#[test]
fn no_comment_is_wider_than_a_page() {
    let mut wide = Vec::new();
    for file in everything() {
        for (at, line) in file.text.lines().enumerate() {
            if line.trim_start().starts_with("//") && line.chars().count() > COLUMNS {
                wide.push(format!("{}:{}: {} columns", file.path, at + 1, line.chars().count()));
            }
        }
    }
    refuse(&wide);
}

#[test]
fn no_match_stands_for_an_if() {
    let mut found = Vec::new();
    for file in everything() {
        let lines: Vec<&str> =
            file.text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for pair in lines.windows(2) {
            let arm = pair[1].trim_start();
            let is_match = pair[0].contains("match ") && pair[0].ends_with('{');
            if is_match && (arm.starts_with("true =>") || arm.starts_with("false =>")) {
                found.push(format!("{}: {}", file.path, pair[0].trim()));
            }
        }
    }
    refuse(&found);
}

#[test]
fn no_function_is_longer_than_a_page() {
    let mut long = Vec::new();
    for file in source::sources().into_iter().filter(|file| !file.is_for_tests()) {
        let code = file.production_code();
        let lines: Vec<&str> = code.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let Some(name) = function_name(line) else { continue };
            let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
            let rest = &lines[at..];
            // A declaration without a body ends with its semicolon.
            let declared = rest.iter().position(|line| line.ends_with(';') || line.ends_with('{'));
            if declared.is_none_or(|at| rest[at].ends_with(';')) {
                continue;
            }
            let length = rest.iter().position(|line| **line == end).map_or(0, |end| end + 1);
            if length > LINES {
                long.push(format!("{}:{}: {name} has {length} lines", file.path, at + 1));
            }
        }
    }
    refuse(&long);
}

fn function_name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let before = ["pub", "pub(crate)", "pub(super)", "async", "const", "unsafe", "default"];
    let word = words.find(|word| !before.contains(word))?;
    (word == "fn").then(|| words.next()?.split(['(', '<']).next()).flatten()
}

#[test]
fn what_is_an_error_is_called_one() {
    let mut wrong = Vec::new();
    let mut known = 0;
    for file in source::sources() {
        let code = file.production_code();
        let lines: Vec<&str> = code.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let implemented = line.strip_prefix("impl ").and_then(|rest| {
                let (what, whom) = rest.split_once(" for ")?;
                matches!(what, "std::error::Error" | "error::Error" | "Error").then_some(whom)
            });
            let derived = (line.starts_with("#[derive(") && line.contains("Error"))
                .then(|| lines[at..].iter().find_map(|line| type_name(line)))
                .flatten();
            let Some(name) = implemented.or(derived) else { continue };
            let name = name.split([' ', '<', '{']).next().unwrap_or_default();
            known += 1;
            if !name.ends_with("Error") {
                wrong.push(format!("{}:{}: {name}", file.path, at + 1));
            }
        }
    }
    assert!(known > 20, "the scan found {known} errors only");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The name of a type that a line declares.
fn type_name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let word = words.find(|word| !word.starts_with("pub"))?;
    let declares = ["struct", "enum", "trait", "type", "union"].contains(&word);
    let name = declares.then(|| words.next()).flatten()?.split(['<', '(', ';', '{', ':', '=']).next()?;
    name.starts_with(|letter: char| letter.is_ascii_uppercase()).then_some(name)
}

#[test]
fn one_name_means_one_thing() {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in source::sources() {
        let is_associated = |line: &str| line.starts_with("    ") && line.trim_start().starts_with("type ");
        for line in file.text.lines().filter(|line| !is_associated(line)) {
            if let Some(name) = type_name(line) {
                names.entry(name.to_owned()).or_default().push(file.path.clone());
            }
        }
    }
    let all: usize = names.values().map(Vec::len).sum();
    let shared: BTreeMap<_, _> = names.iter().filter(|(_, files)| files.len() > 1).collect();
    let ambiguous: usize = shared.values().map(|files| files.len()).sum();
    assert!(all > 500, "the scan found {all} types only");
    assert!(ambiguous as f64 / (all as f64) < MOST_HOMONYMS, "{ambiguous} of {all} types: {shared:#?}");
}

/// What stands between the parentheses of every logging macro.
fn logged(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for macro_ in ["tracing::error!(", "tracing::warn!(", "tracing::info!(", "tracing::debug!("] {
        for rest in text.split(macro_).skip(1) {
            let mut depth = 1;
            let end = rest.find(|c| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                depth == 0
            });
            found.push(rest[..end.unwrap_or(rest.len())].to_owned());
        }
    }
    found
}

#[test]
fn logs_hold_numbers_as_numbers_and_nothing_as_rust_prints_it_for_programmers() {
    let mut wrong = Vec::new();
    let mut lines = 0;
    for file in source::sources() {
        for said in logged(&file.production_code()) {
            lines += 1;
            // `?x` and `x = ?y` print `Some(…)`; 128 bits and displayed ids become strings.
            let fields: Vec<&str> = said.split('"').step_by(2).collect();
            let debug = fields.iter().any(|field| field.split([',', '=']).any(|f| f.trim().starts_with('?')));
            let wide = ["as_millis()", "as_micros()"]
                .iter()
                .any(|call| said.split(call).skip(1).any(|rest| !rest.trim_start().starts_with("as u64")));
            let id = said.contains("account_id = %");
            if debug || wide || id {
                wrong.push(format!("{}: {said}", file.path));
            }
        }
    }
    assert!(lines > 60, "{lines}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
