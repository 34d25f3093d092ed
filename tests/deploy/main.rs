//! What stands in `deploy/` is what the real programs take: service
//! manager, package manager, balancers, clusters.

#![cfg(unix)]

mod compose;
mod container;
mod front;
mod kubernetes;
mod package;
mod process;
#[path = "../common/ready.rs"]
mod ready;
mod systemd;
mod tools;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use process::PROGRAM;

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn deployed(name: &str) -> String {
    let path = project().join("deploy").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn write_secret(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// The secrets that a configuration names without a path.
fn secrets_of(config: &str) -> BTreeSet<String> {
    let named = config
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once("{ file = \""));
    let files = named.map(|(_, rest)| rest.split('"').next().unwrap());
    files.filter(|file| !file.contains('/')).map(str::to_owned).collect()
}

/// A folder as service managers and container engines hand it over.
struct Credentials(tempfile::TempDir);

impl Credentials {
    /// With something in it for each secret of a configuration.
    fn of(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in secrets_of(config) {
            // 32 bytes in base64: a seal key is looked at more closely than the rest.
            write_secret(&folder.path().join(name), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n");
        }
        Self(folder)
    }
}

/// What `check` remarks about a valid configuration.
fn check(config: &str, credentials: &Credentials) -> String {
    let checked = checked(config, credentials);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success(), "{said}");
    said
}

/// What is doubtful beside the values that everybody has to fill in.
fn remarks(said: &str) -> Vec<&str> {
    said.lines().filter(|line| !line.contains("is a placeholder")).collect()
}

fn checked(config: &str, Credentials(credentials): &Credentials) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    std::fs::write(&file, config.replace("/var/lib/genapi-gateway", &folder.path().display().to_string()))
        .unwrap();
    let mut check = Command::new(PROGRAM);
    check.arg("-c").arg(&file).arg("check").env("CREDENTIALS_DIRECTORY", credentials.path()).output().unwrap()
}

#[test]
fn the_packaged_configuration_is_valid_and_writes_where_the_unit_lets_it() {
    let text = deployed("config.toml");
    for key in ["token = {", "audit =", "url = \"sqlite", "key = {"] {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        assert!(line.contains("/var/lib/genapi-gateway/"), "{line}");
    }
    // As the unit hands it over.
    let credentials = Credentials::of(&text);
    assert_eq!(remarks(&check(&text, &credentials)), Vec::<&str>::new());
    // What the unit puts in its place where there is none.
    write_secret(&credentials.0.path().join("client.secret"), "\n");
    let checked = checked(&text, &credentials);
    assert_eq!(checked.status.code(), Some(78));
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(said.contains("client.secret is empty"), "{said}");
}
