//! The import rule as data, checked against the source both ways. Imports run one way; a new room needs a row
//! here and the same row in `docs/architecture.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::source::{self, SourceFile};

/// Each room with what it may import. `app`, `cli` and `demo` compose; everything else stays in its room.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("model", &["clock"]),
    ("config", &["model"]),
    ("telemetry", &["config"]),
    ("http1", &[]),
    ("upstream", &["config", "model"]),
    ("platform", &["upstream", "config", "model"]),
    ("store", &["config", "model", "clock"]),
    ("ca", &["store", "clock"]),
    ("journal", &["store", "model", "clock"]),
    ("access", &["journal", "store", "platform", "config", "model", "clock"]),
    ("pairing", &["access", "journal", "store", "platform", "config", "model", "clock"]),
    ("gateway", &["access", "http1", "telemetry", "config", "model", "clock"]),
    ("facade", &["gateway", "pairing", "access", "http1", "config", "model", "clock"]),
    ("server", &["http1", "ca", "clock"]),
    ("public", &["pairing", "model", "clock"]),
    ("health", &["pairing", "access", "journal", "store", "telemetry", "config", "clock"]),
    ("admin", &["health", "pairing", "access", "journal", "store", "config", "model", "clock"]),
    ("sandbox", &["clock"]),
    ("app", ALL),
    ("cli", ALL),
    ("demo", ALL),
];

const ALL: &[&str] = &["*"];

/// Rooms that may be entered by one door only.
const ONLY_THROUGH: &[(&str, &str, &[&str])] = &[
    // facade may use how a caller is known, how a refusal and a discovery look, and what all workers share,
    // nothing else of the hot path.
    ("facade", "gateway", &["inbound", "refusal", "response", "settings", "GatewayShared", "LocalResponse"]),
];

fn allowed() -> BTreeMap<&'static str, &'static [&'static str]> {
    MAY_IMPORT.iter().copied().collect()
}

#[test]
fn imports_run_one_way() {
    let allowed = allowed();
    let mut wrong = Vec::new();
    for import in source::imports() {
        let Some(row) = allowed.get(import.room.as_str()) else {
            wrong.push(format!("{}: room {} has no row in the table", import.file, import.room));
            continue;
        };
        let target = import.path[0].as_str();
        let is_room = allowed.contains_key(target) && target != import.room;
        if is_room && !row.contains(&"*") && !row.contains(&target) {
            wrong.push(format!("{}:{}: {} may not import {target}", import.file, import.line, import.room));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_permitted_is_used() {
    let used: BTreeSet<(String, String)> =
        source::imports().into_iter().map(|import| (import.room, import.path[0].clone())).collect();
    let mut unused = Vec::new();
    for (room, row) in MAY_IMPORT {
        for target in row.iter().filter(|target| **target != "*") {
            if !used.contains(&((*room).to_owned(), (*target).to_owned())) {
                unused.push(format!("{room} may import {target} and does not"));
            }
        }
    }
    assert!(unused.is_empty(), "{}", unused.join("\n"));
}

#[test]
fn some_rooms_have_one_door() {
    let mut wrong = Vec::new();
    for import in source::imports() {
        for (from, to, doors) in ONLY_THROUGH {
            let enters = import.room == *from && import.path[0] == *to;
            if enters && !import.path.get(1).is_some_and(|word| doors.contains(&word.as_str())) {
                let door = import.path.get(1);
                wrong.push(format!("{}:{}: {from} enters {to} through {door:?}", import.file, import.line));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_room_has_a_row_and_every_row_a_room() {
    let rows: BTreeSet<String> = MAY_IMPORT.iter().map(|(room, _)| (*room).to_owned()).collect();
    let rooms: BTreeSet<String> = source::sources().iter().filter_map(SourceFile::room).collect();
    assert_eq!(rooms, rows);
}

#[test]
fn the_page_on_architecture_has_the_same_table() {
    let page = fs::read_to_string(source::root().join("docs/architecture.md")).expect("the page");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|line| {
        let cells: Vec<&str> = line.trim_end_matches(" |").split(" | ").collect();
        let [room, _, imports] = cells[..] else { return None };
        let row: BTreeSet<String> = match imports {
            "all" => BTreeSet::from(["*".to_owned()]),
            "–" => BTreeSet::new(),
            some => some.split(", ").map(str::to_owned).collect(),
        };
        Some((room.trim_end_matches('`').to_owned(), row))
    });
    let shown: BTreeMap<String, BTreeSet<String>> = rows.collect();
    let words = |row: &[&str]| row.iter().map(|word| (*word).to_owned()).collect();
    let table: BTreeMap<String, BTreeSet<String>> =
        MAY_IMPORT.iter().map(|(room, row)| ((*room).to_owned(), words(row))).collect();
    assert_eq!(shown, table);
}

#[test]
fn reqwest_is_spoken_by_the_control_client_and_by_command_line_tools_alone() {
    // platform: iTero's control calls; cli: the admin API; demo: it plays callers; sandbox: plays a browser.
    let rooms = ["platform", "cli", "demo", "sandbox"];
    let speaks = |file: &&SourceFile| {
        let room = file.room().unwrap_or_default();
        file.production_code().contains("reqwest::") && !rooms.contains(&room.as_str())
    };
    let sources = source::sources();
    let wrong: Vec<&str> = sources.iter().filter(speaks).map(|file| file.path.as_str()).collect();
    assert!(wrong.is_empty(), "reqwest in {wrong:?}");
}

#[test]
fn the_load_generator_is_known_to_the_command_line_alone() {
    let users = source::sources().into_iter().filter(|file| file.production_code().contains("genapi_load"));
    let users: BTreeSet<String> = users.filter_map(|file| file.room()).collect();
    assert_eq!(users, BTreeSet::from(["cli".to_owned()]));
}

#[test]
fn only_the_clock_asks_for_the_time_of_day() {
    let asks = |file: &&SourceFile| {
        file.room().as_deref() != Some("clock") && file.production_code().contains("SystemTime::now")
    };
    let sources = source::sources();
    let wrong: Vec<&str> = sources.iter().filter(asks).map(|file| file.path.as_str()).collect();
    assert!(wrong.is_empty(), "SystemTime::now in {wrong:?}");
}
