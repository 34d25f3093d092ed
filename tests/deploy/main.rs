//! What stands in `deploy/` is what the real programs take: service manager, package manager, balancers, clusters.

#![cfg(unix)]

mod container;
mod front;
mod package;
mod process;
mod systemd;
mod tools;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

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

#[test]
fn the_packaged_configuration_is_valid_and_writes_where_the_unit_lets_it() {
    let text = deployed("config.toml");
    for key in ["token = {", "audit =", "url = \"sqlite", "key = {"] {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        assert!(line.contains("/var/lib/genapi-gateway/"), "{line}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    std::fs::write(&file, text.replace("/var/lib/genapi-gateway", &folder.path().display().to_string()))
        .unwrap();
    let check = |credentials: &Path| {
        Command::new(PROGRAM)
            .arg("-c")
            .arg(&file)
            .arg("check")
            .env("CREDENTIALS_DIRECTORY", credentials)
            .output()
            .unwrap()
    };
    // As the unit hands it over.
    let credentials = tempfile::tempdir().unwrap();
    write_secret(&credentials.path().join("client.secret"), "s3cret\n");
    let checked = check(credentials.path());
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    assert_eq!(String::from_utf8_lossy(&checked.stderr), "");
    // What the unit puts in its place where there is none.
    write_secret(&credentials.path().join("client.secret"), "\n");
    let checked = check(credentials.path());
    assert_eq!(checked.status.code(), Some(78));
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(said.contains("client.secret is empty"), "{said}");
}
