//! The import rule as data, checked against the source. Imports run one way; a new module needs a row here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each module with what it may import. `app`, `cli` and the binary
/// compose; everything else stays in its room.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("model", &["clock"]),
    ("config", &["model"]),
    ("telemetry", &["config", "model", "clock"]),
    ("http1", &[]),
    ("upstream", &["config", "model", "clock"]),
    ("platform", &["upstream", "config", "model", "clock"]),
    ("store", &["config", "model", "clock"]),
    ("journal", &["store", "config", "model", "clock"]),
    ("access", &["platform", "store", "journal", "config", "model", "clock"]),
    ("pairing", &["access", "platform", "store", "journal", "config", "model", "clock"]),
    ("gateway", &["access", "http1", "upstream", "telemetry", "config", "model", "clock"]),
    ("facade", &["gateway", "access", "http1", "store", "config", "model", "clock"]),
    ("server", &["http1", "clock"]),
    ("public", &["pairing", "config", "model", "clock"]),
    ("health", &["pairing", "access", "journal", "store", "telemetry", "config", "model", "clock"]),
    ("admin", &["health", "pairing", "access", "journal", "store", "telemetry", "config", "model", "clock"]),
    ("sandbox", &["clock"]),
    ("app", ALL),
    ("cli", ALL),
    ("demo", ALL),
];

const ALL: &[&str] = &["*"];

/// Rooms that may be entered by one door only.
const ONLY_THROUGH: &[(&str, &str, &[&str])] = &[
    // facade may use how a caller is known, how a refusal looks (in OAuth's shape too) and what all workers
    // share, nothing else of the hot path.
    ("facade", "gateway", &["inbound", "refusal", "settings", "GatewayShared"]),
];

#[test]
fn imports_run_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    let mut wrong = Vec::new();
    for (module, file, line, import) in imports() {
        let Some(row) = allowed.get(module.as_str()) else {
            wrong.push(format!("{}: module {module} has no row in the table", file.display()));
            continue;
        };
        let target = import[0].as_str();
        let known = allowed.contains_key(target);
        if known && target != module && !row.contains(&"*") && !row.contains(&target) {
            wrong.push(format!("{}:{line}: {module} may not import {target}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn some_rooms_have_one_door() {
    let mut wrong = Vec::new();
    for (module, file, line, import) in imports() {
        for (from, to, doors) in ONLY_THROUGH {
            if module == *from
                && import[0] == *to
                && !import.get(1).is_some_and(|m| doors.contains(&m.as_str()))
            {
                wrong.push(format!(
                    "{}:{line}: {from} enters {to} through {:?}",
                    file.display(),
                    import.get(1)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_of_the_crate_has_a_row_and_every_row_a_module() {
    let rows: BTreeSet<&str> = MAY_IMPORT.iter().map(|(module, _)| *module).collect();
    let modules: BTreeSet<String> = sources().iter().filter_map(|file| module_of(file)).collect();
    let modules: BTreeSet<&str> = modules.iter().map(String::as_str).collect();
    assert_eq!(modules, rows);
}

#[test]
fn reqwest_is_spoken_by_the_control_client_and_by_command_line_tools_alone() {
    // platform: iTero's control calls; cli: the admin API; demo: it plays callers; sandbox: plays a browser.
    let rooms = ["platform", "cli", "demo", "sandbox"];
    let mut wrong = Vec::new();
    for file in sources() {
        let module = module_of(&file).unwrap_or_default();
        let text = production_code(&file);
        if text.contains("reqwest::") && !rooms.contains(&module.as_str()) {
            wrong.push(file.display().to_string());
        }
    }
    assert!(wrong.is_empty(), "reqwest in {wrong:?}");
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
    for file in sources() {
        for said in logged(&production_code(&file)) {
            lines += 1;
            // `?x` and `x = ?y` print `Some(…)`; 128 bits and displayed ids become strings.
            let fields: Vec<&str> = said.split('"').step_by(2).collect();
            let debug = fields.iter().any(|field| field.split([',', '=']).any(|f| f.trim().starts_with('?')));
            let wide = ["as_millis()", "as_micros()"]
                .iter()
                .any(|call| said.split(call).skip(1).any(|rest| !rest.trim_start().starts_with("as u64")));
            let id = said.contains("account_id = %");
            if debug || wide || id {
                wrong.push(format!("{}: {said}", file.display()));
            }
        }
    }
    assert!(lines > 60, "{lines}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_load_generator_is_known_to_the_command_line_alone() {
    let users: BTreeSet<String> = sources()
        .iter()
        .filter(|file| production_code(file).contains("genapi_load"))
        .filter_map(|file| module_of(file))
        .collect();
    assert_eq!(users, BTreeSet::from(["cli".to_owned()]));
}

#[test]
fn only_the_clock_asks_for_the_time_of_day() {
    let mut wrong = Vec::new();
    for file in sources() {
        if module_of(&file).as_deref() != Some("clock") && production_code(&file).contains("SystemTime::now")
        {
            wrong.push(file.display().to_string());
        }
    }
    assert!(wrong.is_empty(), "SystemTime::now in {wrong:?}");
}

/// (module, file, line, path below `crate::`) of every import outside tests and comments.
fn imports() -> Vec<(String, PathBuf, usize, Vec<String>)> {
    let mut found = Vec::new();
    for file in sources() {
        let Some(module) = module_of(&file) else { continue };
        let code = production_code(&file);
        for (at, _) in code.match_indices("crate::") {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            for path in paths(&code[at + "crate::".len()..]) {
                found.push((module.clone(), file.clone(), line, path));
            }
        }
    }
    assert!(found.len() > 100, "the scan found {} imports only: it no longer reads the source", found.len());
    found
}

/// `a::b::C` and `{a::b, c}` as the paths that they name.
fn paths(text: &str) -> Vec<Vec<String>> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    if let Some(group) = text.strip_prefix('{') {
        let mut depth = 1;
        let end = group
            .find(|c| {
                depth += match c {
                    '{' => 1,
                    '}' => -1,
                    _ => 0,
                };
                depth == 0
            })
            .unwrap_or(group.len());
        let mut parts = Vec::new();
        let (mut depth, mut start) = (0, 0);
        for (at, c) in group[..end].char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    parts.push(&group[start..at]);
                    start = at + 1;
                }
                _ => {}
            }
        }
        parts.push(&group[start..end]);
        return parts.into_iter().map(str::trim).filter(|p| !p.is_empty()).flat_map(paths).collect();
    }
    let first = word(text);
    let rest = &text[first.len()..];
    match rest.strip_prefix("::") {
        Some(below) => paths(below)
            .into_iter()
            .map(|mut path| {
                path.insert(0, first.clone());
                path
            })
            .collect(),
        None => vec![vec![first]],
    }
}

fn module_of(file: &Path) -> Option<String> {
    let below = file.strip_prefix(source_root()).ok()?;
    let first = below.components().next()?.as_os_str().to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(name, "lib" | "main")).then(|| name.to_owned())
}

/// The file without comments and without what stands behind its
/// first `#[cfg(test)]`; tests stand at the foot.
fn production_code(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("readable source");
    let end = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
    let uncommented =
        text[..end].lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line });
    uncommented.collect::<Vec<_>>().join("\n")
}

fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![source_root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("readable folder") {
            let path = entry.expect("readable entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    assert!(files.len() > 20, "the scan found {} files only", files.len());
    files
}

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
