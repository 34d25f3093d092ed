//! The documents say what the program does: every code, metric, event and key stands in them, and every
//! command in them can be typed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};
use genapi_gateway::admin;
use genapi_gateway::cli::Arguments;
use genapi_gateway::config::Config;
use genapi_gateway::gateway::refusal::CATALOGUE;
use genapi_gateway::journal::JournalEvent;
use genapi_gateway::journal::catalogue::AuditAct;
use genapi_gateway::telemetry::catalogue::CATALOGUE as METRICS;
use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The pages for operators, one after the other.
fn operations() -> String {
    ["signals", "refusals", "store", "operations"].map(|page| read(format!("docs/{page}.md"))).join("\n")
}

/// All files below a folder with this ending, relative to the project.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// What a reader is meant to read: each document with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let top = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"].map(PathBuf::from);
    top.into_iter().chain(files("docs", ".md")).map(|path| (path.clone(), read(path))).collect()
}

/// The first string of lower-case words joined by `_` in a text.
fn first_word(text: &str) -> Option<String> {
    let is_word = |text: &str| {
        text.len() > 2 && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    text.split('"').skip(1).step_by(2).find(|text| is_word(text)).map(str::to_owned)
}

#[test]
fn every_refusal_stands_in_the_table_with_its_status() {
    let codes: BTreeMap<&str, u16> = CATALOGUE.iter().map(|info| (info.code, info.status.as_u16())).collect();
    let table = operations();
    for (code, status) in &codes {
        assert!(table.contains(&format!("| {status} | `{code}` |")), "{status} {code} is not in the table");
    }
    let section = table.split("## Refusals").nth(1).unwrap().split("`POST /oauth2/token`").next().unwrap();
    for row in section.lines().filter(|line| line.starts_with("| ") && line.contains('`')) {
        let code = row.split('`').nth(1).unwrap();
        assert!(codes.contains_key(code), "{code} does not exist");
    }
}

#[test]
fn every_metric_and_its_words_stand_in_the_table() {
    let table = operations();
    for family in METRICS {
        let name = family.exposed_name();
        let row = table.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("{name} is not in the table"));
        let labels: Vec<&str> = family.labels.iter().map(|label| label.name).collect();
        assert_eq!(row.split('|').nth(2).unwrap().trim(), labels.join(", "), "{name}");
        // The methods and classes of HTTP need no word.
        for label in family.labels.iter().filter(|label| !["method", "class"].contains(&label.name)) {
            for value in label.values {
                assert!(row.contains(&format!("`{value}`")), "{value} of {name} is not explained");
            }
        }
    }
}

fn admin_api() -> Value {
    serde_json::from_str(&read("docs/admin-api.json")).unwrap()
}

#[test]
fn every_call_of_the_admin_listener_is_described_and_every_described_one_exists() {
    let listed = admin::routes();
    let routed: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(routed.len(), listed.len(), "a call stands there twice");
    let description = admin_api();
    assert_eq!(description["openapi"], "3.1.0");
    let mut described = BTreeSet::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        described.extend(methods.as_object().unwrap().keys().map(|method| format!("{method} {path}")));
    }
    assert_eq!(described, routed);
}

#[test]
fn every_error_code_of_the_admin_api_is_described_and_every_described_one_is_used() {
    let mut used = BTreeSet::new();
    for path in files("src/admin", ".rs") {
        let source = read(&path);
        for marker in ["ApiError::new(", "Self::new("] {
            used.extend(source.split(marker).skip(1).filter_map(|rest| first_word(rest.split(';').next()?)));
        }
    }
    let description = admin_api();
    let words = description["components"]["schemas"]["Problem"]["properties"]["code"]["enum"].clone();
    let described: BTreeSet<String> = serde_json::from_value(words).unwrap();
    assert_eq!(described, used);
    let page = operations();
    let table = page.split("## Admin API").nth(1).unwrap().split("\n## ").next().unwrap();
    for code in used {
        assert!(table.contains(&format!("| `{code}` |")), "{code} is not in the table");
    }
}

#[test]
fn every_reference_and_parameter_of_the_description_holds() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let description = admin_api();
    let mut found = BTreeSet::new();
    references(&description, &mut found);
    for target in &found {
        let there = description.pointer(target.trim_start_matches('#'));
        assert!(there.is_some(), "{target} leads nowhere");
    }
    for kind in ["schemas", "responses"] {
        for name in description["components"][kind].as_object().unwrap().keys() {
            assert!(found.contains(&format!("#/components/{kind}/{name}")), "{name} is not used");
        }
    }
    let mut ids = BTreeSet::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for operation in methods.as_object().unwrap().values() {
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{path}");
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let in_path: Vec<_> = parameters.iter().filter(|parameter| parameter["in"] == "path").collect();
            assert_eq!(in_path.len(), path.matches('{').count(), "{path}");
        }
    }
}

#[test]
fn every_event_of_the_journal_and_every_act_of_the_audit_log_is_explained_and_no_other() {
    let quoted =
        |text: &str| -> BTreeSet<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let page = operations();
    let (journal, logs) = page.split("## Journal").nth(1).unwrap().split_once("## Logs").unwrap();
    let rows = journal.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let explained: BTreeSet<String> = rows.flat_map(|(events, _)| quoted(events)).collect();
    let events: BTreeSet<String> = JournalEvent::ALL.iter().map(|event| event.word().to_owned()).collect();
    assert_eq!(explained, events);
    let listed = quoted(logs.split("\nActs: ").nth(1).unwrap().split(". ").next().unwrap());
    let acts: BTreeSet<String> = AuditAct::ALL.iter().map(|act| act.word().to_owned()).collect();
    assert_eq!(listed, acts);
}

#[test]
fn every_key_of_the_example_stands_in_the_table_of_its_section() {
    let page = operations();
    let table = page.split("## Configuration keys").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut section = String::new();
    let mut keys = 0;
    for line in read("config.toml.example").lines() {
        let line = line.trim_start_matches("# ");
        if line.starts_with('[') {
            section = line.replace("realms.global", "realms.NAME");
        } else if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| {
            !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        }) {
            let row = table.lines().find(|row| row.starts_with(&format!("| `{section}` |")));
            let row = row.unwrap_or_else(|| panic!("{section} has no row"));
            assert!(row.contains(&format!("`{key}`")), "{section} {key} is not in the table");
            keys += 1;
        }
    }
    assert!(keys > 50, "{keys}");
}

#[test]
fn keys_that_need_a_restart_are_listed() {
    let listed = operations();
    let signals = listed.split("## Health").next().unwrap();
    let keys = Config::keys_needing_restart();
    assert!(keys.len() > 15, "{keys:?}");
    for key in keys {
        assert!(signals.contains(&format!("`{key}`")), "{key} is not listed");
    }
}

/// What stands between backticks, and the lines of `sh` blocks, with continued lines joined.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, part) in text.split("```").enumerate() {
        match at % 2 {
            1 => {
                let part = part.replace("\\\n", " ");
                found.extend(
                    part.lines().skip(1).map(|line| line.split(" #").next().unwrap().trim().to_owned()),
                );
            }
            _ => found.extend(part.split('`').skip(1).step_by(2).map(|code| code.replace('\n', " "))),
        }
    }
    found
}

/// As a shell would, as far as documents need it: blanks part words, save between quotes.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut quote) = (vec![String::new()], None);
    for c in line.chars() {
        match (c, quote) {
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (c, None) if c.is_whitespace() => words.push(String::new()),
            (c, _) => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// What `docker exec`, `docker compose exec` and `kubectl exec` are to run, where that is the gateway.
fn in_a_container(line: &str) -> Option<String> {
    let is_engine = ["docker ", "kubectl "].iter().any(|engine| line.starts_with(engine));
    let (_, target) = line.split_once(" exec ").filter(|_| is_engine)?;
    let (_, command) = target.split_once(' ')?;
    let command = command.strip_prefix("-- ").unwrap_or(command);
    command.starts_with("genapi-gateway ").then(|| command.to_owned())
}

#[test]
fn every_command_in_the_documents_can_be_typed() {
    let mut typed = 0;
    let mut documents = documents();
    for other in ["config.toml.example", "deploy/genapi-gateway.service"] {
        let text = read(other)
            .lines()
            .filter_map(|line| line.split_once("genapi-gateway "))
            .map(|(_, rest)| {
                format!(
                    "`genapi-gateway {}`",
                    rest.split("  ").next().unwrap().split(['`', '"']).next().unwrap()
                )
            })
            .collect();
        documents.push((other.into(), text));
    }
    let app = Arguments::command();
    let accounts = app.find_subcommand("accounts").unwrap();
    for (path, text) in documents {
        for line in commands(&text) {
            let as_whom = [
                "sudo -u genapi-gateway ",
                "sudo env CREDENTIALS_DIRECTORY=/etc/genapi-gateway/credentials ",
                "sudo ",
            ];
            let line =
                as_whom.iter().find_map(|prefix| line.strip_prefix(prefix)).unwrap_or(&line).to_owned();
            let line = line.split(" | ").next().unwrap().split(" > ").next().unwrap();
            let line = match line.strip_prefix("cargo run --release --locked -- ") {
                Some(rest) => format!("genapi-gateway {rest}"),
                None => line.to_owned(),
            };
            if line.contains('…') {
                continue;
            }
            let line = in_a_container(&line).unwrap_or(line);
            if line.starts_with("genapi-gateway ") {
                let parsed = Arguments::try_parse_from(words(&line));
                assert!(parsed.is_ok(), "{}: {line}: {}", path.display(), parsed.unwrap_err());
                typed += 1;
            // A key of a configuration begins alike.
            } else if let Some(rest) = line.strip_prefix("accounts ").filter(|rest| !rest.starts_with('=')) {
                let name = rest.split_whitespace().next().unwrap_or_default();
                assert!(accounts.find_subcommand(name).is_some(), "{}: {line}", path.display());
                typed += 1;
            }
        }
    }
    assert!(typed > 30, "{typed}");
}

/// The headings of a page, as links name them.
fn headings(page: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(page).unwrap();
    let is_kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let slug =
        |line: &str| line.to_lowercase().chars().filter(is_kept).collect::<String>().trim().replace(' ', "-");
    text.lines().filter(|line| line.starts_with('#')).map(slug).collect()
}

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    let mut links = 0;
    for (path, text) in documents() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let found = root().join(&path).parent().unwrap().join(file);
            let found = if file.is_empty() { root().join(&path) } else { found };
            assert!(found.exists(), "{}: {target} does not exist", path.display());
            if !heading.is_empty() {
                assert!(
                    headings(&found).contains(heading),
                    "{}: {target} leads to no heading",
                    path.display()
                );
            }
            links += 1;
        }
    }
    assert!(links > 10, "{links}");
}

#[test]
fn the_test_command_refuses_what_it_does_not_know_and_names_its_short_form() {
    let typed = |argument: &str| {
        let script = root().join("tests/run.sh");
        std::process::Command::new("sh").arg(script).arg(argument).output().unwrap()
    };
    for wrong in ["--frobnicate", "fast", ""] {
        let said = typed(wrong);
        assert_eq!(said.status.code(), Some(2), "{wrong}");
        assert!(String::from_utf8_lossy(&said.stderr).contains("[--fast]"), "{wrong}");
    }
    let help = typed("--help");
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("installs nothing"));
}

#[test]
fn the_recipes_name_files_and_tests_that_exist() {
    let recipes = read("CONTRIBUTING.md").split("## Recipes").nth(1).unwrap().to_owned();
    let sources: String = files("src", ".rs").iter().chain(&files("tests", ".rs")).map(read).collect();
    let (mut paths, mut tests) = (0, 0);
    for code in recipes.split('`').skip(1).step_by(2) {
        // A path that begins with a slash is one of a URL.
        let is_file = code.contains('/') && !code.starts_with('/');
        if code.starts_with("every_") || code.starts_with("the_") {
            assert!(sources.contains(&format!("fn {code}()")), "{code} is no test");
            tests += 1;
        } else if is_file && !code.contains("NAME") && !code.contains(' ') {
            assert!(root().join(code).exists(), "{code} does not exist");
            paths += 1;
        }
    }
    assert!(paths > 25 && tests >= 4, "{paths} paths, {tests} tests");
}

#[test]
fn the_page_on_architecture_names_files_that_exist() {
    let page = read("docs/architecture.md");
    let codes = page.split('`').skip(1).step_by(2);
    let paths: Vec<&str> =
        codes.filter(|code| code.starts_with("src/") || code.starts_with("tests/")).collect();
    assert!(paths.len() > 15, "{paths:?}");
    for path in paths {
        assert!(root().join(path).exists(), "{path} does not exist");
    }
}

#[test]
fn the_container_is_built_with_the_rust_that_the_package_asks_for() {
    let asked = |manifest: &str| {
        let manifest: toml::Table = read(manifest).parse().unwrap();
        manifest["package"]["rust-version"].as_str().unwrap().to_owned()
    };
    let version = asked("Cargo.toml");
    assert_eq!(asked("tools/load/Cargo.toml"), version);
    let built = read("deploy/Dockerfile");
    assert!(built.contains(&format!("FROM rust:{version}-")), "{built}");
}

#[test]
fn prose_is_no_wider_than_a_page() {
    let mut wide = Vec::new();
    // An entry of the changelog is one line, so that two branches' entries merge.
    for (path, text) in documents().into_iter().filter(|(path, _)| !path.ends_with("CHANGELOG.md")) {
        // A table's row is one line.
        let prose = text.split("```").step_by(2).flat_map(str::lines);
        let prose = prose.filter(|line| !line.starts_with(['|', '<']) && !line.contains("://"));
        for line in prose.filter(|line| line.chars().count() > 110) {
            wide.push(format!("{}: {line}", path.display()));
        }
    }
    assert!(wide.is_empty(), "{}", wide.join("\n"));
}
