//! What is handed to service managers: the unit is one that systemd takes, and the packaged configuration is valid.

#![cfg(unix)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_genapi-gateway");

fn deployed(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)).unwrap()
}

#[test]
fn systemd_takes_the_unit_without_a_remark() {
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("genapi-gateway.service");
    std::fs::write(&unit, deployed("genapi-gateway.service").replace("/usr/bin/genapi-gateway", PROGRAM))
        .unwrap();
    let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output();
    let verified = verified.expect("systemd-analyze is needed: apt-get install systemd");
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success(), "{said}");
    // This machine's other units are not our business.
    let remarks: Vec<&str> = said.lines().filter(|line| line.contains("genapi-gateway")).collect();
    assert_eq!(remarks, [""; 0]);
}

#[test]
fn the_unit_gives_a_drain_the_time_that_it_may_take() {
    let unit = deployed("genapi-gateway.service");
    let seconds = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
    // The default of gateway.drain_timeout, and what the end waits for refreshes under way.
    assert!(seconds.parse::<u32>().unwrap() >= 30 + 15 + 5);
}

#[test]
fn the_packaged_configuration_is_valid_and_writes_where_the_unit_lets_it() {
    let text = deployed("config.toml");
    for key in ["token = {", "audit =", "url = \"sqlite", "key = {"] {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        assert!(line.contains("/var/lib/genapi-gateway/"), "{line}");
    }
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display().to_string();
    let secret = folder.path().join("client.secret");
    std::fs::write(&secret, "s3cret\n").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o640)).unwrap();
    let text = text
        .replace("/var/lib/genapi-gateway", &at)
        .replace("/etc/genapi-gateway/client", &format!("{at}/client"));
    let file = folder.path().join("config.toml");
    std::fs::write(&file, text).unwrap();
    let checked = Command::new(PROGRAM).arg("-c").arg(&file).arg("check").output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    assert_eq!(String::from_utf8_lossy(&checked.stderr), "");
}
