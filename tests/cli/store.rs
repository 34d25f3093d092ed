//! The whole store: backed up and put back, sealed under another key, moved to a database. With a gateway
//! that runs, and without one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use crate::postgres;
use crate::processes::{CommandOutput, GatewayAndSandbox, write};

const CLINIC: &str = "acct-10001";
const NEW_KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n";

fn done(said: &CommandOutput) {
    assert_eq!(said.code, 0, "{}", said.all());
}

fn refused(said: &CommandOutput, why: &str) {
    assert_eq!(said.code, 1, "{}", said.all());
    assert!(said.err.contains(why), "{}", said.all());
}

fn json(said: &CommandOutput) -> Value {
    serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{}", said.all()))
}

/// All four accounts are there, and a call goes through with what the store holds.
fn serves(pair: &GatewayAndSandbox) {
    assert_eq!(json(&pair.types("accounts list -o json")).as_array().unwrap().len(), 4);
    done(&pair.types(&format!("accounts call {CLINIC} GET /orders/practice")));
}

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o777
}

/// (who, action, outcome) of every line about a whole store.
fn audited(pair: &GatewayAndSandbox) -> Vec<(String, String, String)> {
    let acts = ["backup", "restore", "rotate_key", "migrate"];
    let log = pair.written("admin-audit.log");
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let word = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    lines
        .filter(|line| acts.contains(&line["action"].as_str().unwrap()))
        .map(|line| (word(&line, "who"), word(&line, "action"), word(&line, "outcome")))
        .collect()
}

fn lines(expected: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    expected.iter().map(|(who, act, end)| ((*who).into(), (*act).into(), (*end).into())).collect()
}

/// As `mv gateway.db* away/`.
fn move_database_away(pair: &GatewayAndSandbox) {
    for ending in ["", "-wal", "-shm"] {
        let file = pair.folder.path().join(format!("gateway.db{ending}"));
        if file.exists() {
            fs::rename(&file, file.with_file_name(format!("moved-away{ending}"))).unwrap();
        }
    }
}

fn put_key_first(pair: &GatewayAndSandbox) {
    write(&pair.folder.path().join("gateway.key"), &format!("{NEW_KEY}{}", pair.written("gateway.key")));
}

#[test]
fn a_running_gateway_hands_out_a_backup_and_it_takes_the_place_of_a_lost_database() {
    let mut pair = GatewayAndSandbox::start(&[]);
    pair.import();
    let file = pair.folder.path().join("backup");
    let (backup, restore) =
        (format!("store backup {}", file.display()), format!("store restore {}", file.display()));
    let said = pair.types(&backup);
    done(&said);
    assert!(said.out.contains("4 accounts") && said.out.contains("key only"), "{}", said.out);
    assert_eq!(mode(&file), 0o600);
    let raw = fs::read(&file).unwrap();
    for token in serde_json::from_str::<Value>(&pair.written("accounts.json")).unwrap().as_array().unwrap() {
        let token = token["refresh_token"].as_str().unwrap().as_bytes();
        assert!(!raw.windows(token.len()).any(|part| part == token), "it is sealed");
    }
    refused(&pair.types(&backup), "exists already");
    refused(&pair.types(&restore), "is running: stop it first");
    let nowhere = pair.types("store backup /nonexistent/backup");
    refused(&nowhere, "/nonexistent/backup cannot be written: the folder /nonexistent does not exist");
    assert!(!nowhere.err.contains("is unavailable"), "{}", nowhere.err);
    serves(&pair);
    let by_token = [("admin token", "backup", "asked"), ("admin token", "backup", "done")];
    assert_eq!(audited(&pair), lines(&by_token), "what is refused here never reached the gateway");

    pair.stop();
    refused(&pair.types(&restore), "holds a database already");
    move_database_away(&pair);
    let key = pair.folder.path().join("gateway.key");
    fs::rename(&key, key.with_extension("kept")).unwrap();
    refused(&pair.types(&restore), "gateway.key is missing");
    fs::rename(key.with_extension("kept"), &key).unwrap();
    refused(&pair.types("store restore /nonexistent/backup"), "/nonexistent/backup cannot be read");
    let cut = pair.folder.path().join("cut");
    fs::write(&cut, &raw[..raw.len() / 2]).unwrap();
    let said = pair.types(&format!("store restore {}", cut.display()));
    refused(&said, &format!("{} ", cut.display()));
    assert!(!said.err.contains("restored"), "the file that was given is named: {}", said.err);
    let said = pair.types(&restore);
    done(&said);
    assert!(said.out.contains("4 accounts put back"), "{}", said.out);
    assert_eq!(mode(&pair.folder.path().join("gateway.db")), 0o600);
    assert_eq!(audited(&pair)[2..].last(), lines(&[("command line", "restore", "done")]).last());
    pair.start_again();
    serves(&pair);
}

#[test]
fn a_running_gateway_changes_its_key_and_says_when_the_old_one_can_go() {
    let mut pair = GatewayAndSandbox::start(&[]);
    pair.import();
    let said = json(&pair.types("store rotate-key -o json"));
    assert_eq!((&said["resealed"], &said["complete"]), (&0.into(), &true.into()), "there is one key only");
    let old = pair.written("gateway.key");
    put_key_first(&pair);
    refused(&pair.types("store rotate-key"), "restart the gateway");
    pair.stop();
    pair.start_again();
    let said = pair.types("store rotate-key");
    done(&said);
    assert!(said.out.contains("the lines behind the first can be removed"), "{}", said.out);
    serves(&pair);
    pair.stop();
    write(&pair.folder.path().join("gateway.key"), &old);
    done(&pair.types_in(pair.folder.path(), "store backup early"));
    assert_eq!(mode(&pair.folder.path().join("early")), 0o600);
    refused(&pair.types("store rotate-key"), "the key does not belong to");
    write(&pair.folder.path().join("gateway.key"), NEW_KEY);
    pair.start_again();
    serves(&pair);
    let outcomes: Vec<_> = audited(&pair).into_iter().map(|(_, act, end)| format!("{act} {end}")).collect();
    let refused = ["rotate_key asked", "rotate_key failed"];
    let done = ["rotate_key asked", "rotate_key done"];
    let backup = ["backup asked", "backup done"];
    assert_eq!(outcomes, [done, refused, done, backup, refused].concat());
}

#[test]
fn without_a_gateway_the_command_does_it_itself_and_writes_it_down() {
    let mut pair = GatewayAndSandbox::start(&[]);
    pair.import();
    pair.stop();
    put_key_first(&pair);
    let said = json(&pair.types("store rotate-key -o json"));
    assert_eq!(
        (&said["resealed"], &said["complete"], &said["broken"]),
        (&8.into(), &true.into(), &Value::Array(vec![]))
    );
    let file = pair.folder.path().join("backup");
    let said = json(&pair.types(&format!("store backup {} -o json", file.display())));
    assert_eq!(
        (&said["accounts"], said["bytes"].as_u64()),
        (&4.into(), Some(fs::metadata(&file).unwrap().len()))
    );
    assert_eq!(mode(&file), 0o600);
    let by_hand = [
        ("command line", "rotate_key", "asked"),
        ("command line", "rotate_key", "done"),
        ("command line", "backup", "asked"),
        ("command line", "backup", "done"),
    ];
    assert_eq!(audited(&pair), lines(&by_hand));
    // What cannot be written down is not done.
    fs::remove_file(pair.folder.path().join("admin-audit.log")).unwrap();
    fs::create_dir(pair.folder.path().join("admin-audit.log")).unwrap();
    refused(&pair.types_in(pair.folder.path(), "store backup again"), "admin-audit.log");
    assert!(!pair.folder.path().join("again").exists());
    fs::remove_dir(pair.folder.path().join("admin-audit.log")).unwrap();
    write(&pair.folder.path().join("gateway.key"), NEW_KEY);
    pair.start_again();
    serves(&pair);
}

#[test]
fn everything_moves_to_postgresql_and_the_gateway_goes_on_there() {
    let (server, other) = (postgres::start("-h ''", |_| ()), postgres::start("-h ''", |_| ()));
    let mut pair = GatewayAndSandbox::start(&[]);
    pair.import();
    let database = format!("sqlite:{}", pair.folder.path().join("gateway.db").display());
    let migrate = format!("store migrate --from {database} --to {}", server.url());
    refused(&pair.types(&migrate), "in use by another gateway (process ");
    pair.stop();
    refused(&pair.types(&format!("store migrate --from {database}")), "are the same store");
    refused(
        &pair.types("store migrate --from sqlite:/nonexistent.db --to postgres://h/d"),
        "/nonexistent.db does not exist",
    );
    refused(
        &pair.types(&format!("store migrate --from {database} --to mysql://h/d")),
        "neither sqlite: nor postgres://",
    );
    let wrong = pair.folder.path().join("wrong.key");
    write(&wrong, NEW_KEY);
    fs::set_permissions(&wrong, fs::Permissions::from_mode(0o600)).unwrap();
    refused(
        &pair.types(&format!("{migrate} --from-key {}", wrong.display())),
        "--from: the key does not belong to",
    );

    let moved = json(&pair.types(&format!("{migrate} -o json")));
    assert_eq!(
        (&moved["moved"], &moved["already_there"], &moved["failed"]),
        (&4.into(), &0.into(), &Value::Array(vec![]))
    );
    let again = pair.types(&migrate);
    done(&again);
    assert!(again.out.contains("0 accounts moved and read back, 4 there already"), "{}", again.out);

    let config = pair.written("config.toml").replace("sqlite:gateway.db", &server.url());
    write(&pair.config(), &config);
    pair.start_again();
    serves(&pair);

    backs_up_into_another_database(&mut pair, &config, &server.url(), &other.url());
    moves_back_into_a_file(&mut pair, &config.replace(&server.url(), "URL"), &other.url());
}

/// While the gateway runs; what was written is restored where the store is empty.
fn backs_up_into_another_database(pair: &mut GatewayAndSandbox, config: &str, from: &str, to: &str) {
    let file = pair.folder.path().join("backup");
    done(&pair.types(&format!("store backup {}", file.display())));
    assert_eq!(mode(&file), 0o600);
    let said = json(&pair.types("store rotate-key -o json"));
    assert_eq!(said["complete"], true);
    pair.stop();
    let restore = format!("store restore {}", file.display());
    refused(&pair.types(&restore), "not empty");
    write(&pair.config(), &config.replace(from, to));
    done(&pair.types(&restore));
    pair.start_again();
    serves(pair);
    pair.stop();
}

/// A store that knows other accounts is not mixed by mistake.
fn moves_back_into_a_file(pair: &mut GatewayAndSandbox, config: &str, from: &str) {
    let back = format!("sqlite:{}", pair.folder.path().join("back.db").display());
    done(&pair.types(&format!("store migrate --to {back}")));
    write(&pair.config(), &config.replace("URL", &back));
    pair.start_again();
    done(&pair.types_with(
        "accounts import - --paused",
        r#"[{"name": "mine", "realm": "global", "account_id": 77, "refresh_token": "r"}]"#,
    ));
    pair.stop();
    refused(
        &pair.types(&format!("store migrate --from {from} --to {back}")),
        "--to is not empty: it holds 1 account that --from does not know, mine",
    );
    done(&pair.types(&format!("store migrate --from {from} --to {back} --merge")));
}
