//! `ca`: made once and private, given out without its key.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::processes::{CommandOutput, run, write};

fn ca<'a>(folder: &'a Path, words: impl IntoIterator<Item = &'a str>) -> CommandOutput {
    run(["ca"].into_iter().chain(words).chain(["--dir", folder.to_str().unwrap()]))
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_ca_is_made_once_with_its_key_for_its_owner_alone() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("ca");
    let made = ca(&folder, ["init", "--host", "Old-Name.clinic.test"]);
    assert_eq!(made.code, 0, "{}", made.all());
    for told in ["identity-cus.aligntech.com", "old-name.clinic.test", "SHA-256", "ca export", "resolve"] {
        assert!(made.out.contains(told), "{told}: {}", made.out);
    }
    assert_eq!((mode(&folder), mode(&folder.join("ca.key"))), (0o700, 0o600));
    let key = std::fs::read(folder.join("ca.key")).unwrap();

    let again = ca(&folder, ["init"]);
    assert_eq!(again.code, 1, "{}", again.all());
    assert!(again.err.contains("holds a CA already") && again.err.contains("Fix: "), "{}", again.err);
    assert_eq!(std::fs::read(folder.join("ca.key")).unwrap(), key);

    let shown = ca(&folder, ["show", "-o", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(shown["hosts"].as_array().unwrap().len(), 4);
    assert_eq!(shown["key"], folder.join("ca.key").to_str().unwrap());
    assert_eq!(shown["fingerprint_sha256"].as_str().unwrap().len(), 95);
}

#[test]
fn a_name_that_would_open_more_than_a_host_is_refused_and_nothing_is_made() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("ca");
    for name in ["*.aligntech.com", "com", "127.0.0.1", "api-proxy.aligntech.com:443"] {
        let refused = ca(&folder, ["init", "--host", name]);
        assert_eq!(refused.code, 1, "{name}: {}", refused.all());
        assert!(refused.err.contains(name) && refused.err.contains("Fix: "), "{}", refused.err);
    }
    assert!(!folder.exists());
}

#[test]
fn no_form_that_is_exported_holds_the_key() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("ca");
    ca(&folder, ["init"]);
    let pem = std::fs::read_to_string(folder.join("ca.key")).unwrap();
    let key = rcgen::KeyPair::from_pem(&pem).unwrap();
    let der = key.serialize_der();
    assert_eq!(der[34..36], [4, 32], "the secret is an octet string of 32 bytes (RFC 5915, 3)");
    let secret = &der[36..68];
    for format in ["pem", "der", "p12", "jks"] {
        let out = parent.path().join(format);
        let told = ca(&folder, ["export", "--format", format, "--out", out.to_str().unwrap()]);
        assert_eq!(told.code, 0, "{}", told.all());
        let holds_password = told.out.contains("changeit");
        assert_eq!(holds_password, matches!(format, "p12" | "jks"), "{}", told.out);
        let file = std::fs::read(&out).unwrap();
        assert!(file.len() > 500 && !file.windows(32).any(|part| part == secret), "{format}");
        assert!(!String::from_utf8_lossy(&file).contains("PRIVATE KEY"), "{format}");
    }
    let printed = ca(&folder, ["export", "--format", "pem"]);
    assert_eq!(printed.out, std::fs::read_to_string(parent.path().join("pem")).unwrap());
}

#[test]
fn without_a_folder_the_configurations_is_meant() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("config.toml");
    write(&file, "[gateway]\ntls = { listen = [\"127.0.0.1:0\"], ca = \"elsewhere\" }\n");
    let file = file.to_str().unwrap();
    let made = run(["-c", file, "ca", "init"]);
    assert_eq!(made.code, 0, "{}", made.all());
    assert!(parent.path().join("ca/ca.key").exists(), "beside the configuration");
    let missing = run(["-c", file, "ca", "show"]);
    assert_eq!(missing.code, 1);
    assert!(missing.err.contains("elsewhere/ca.pem does not exist"), "{}", missing.err);
    std::fs::rename(parent.path().join("ca"), parent.path().join("elsewhere")).unwrap();
    assert_eq!(run(["-c", file, "ca", "show"]).code, 0);
}

#[test]
fn a_leaf_for_a_proxy_in_front_is_for_hosts_of_the_ca_alone_and_private() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("ca");
    let made = ca(&folder, ["init", "--rsa"]);
    assert_eq!(made.code, 0, "{}", made.all());
    let out = parent.path().join("front.pem");
    let to = ["--out", out.to_str().unwrap()];
    let refused = ca(&folder, ["leaf", "--host", "prod-identity.iterocloud.com"].into_iter().chain(to));
    assert_eq!(refused.code, 1, "{}", refused.all());
    assert!(
        refused.err.contains("is no host of this CA") && refused.err.contains("Fix: "),
        "{}",
        refused.err
    );
    assert!(!out.exists());

    let told = ca(&folder, ["leaf", "--rsa", "--host", "API-proxy.aligntech.com"].into_iter().chain(to));
    assert_eq!(told.code, 0, "{}", told.all());
    assert!(told.out.contains("for          api-proxy.aligntech.com\nends         "), "{}", told.out);
    assert_eq!(mode(&out), 0o600);
    let again = ca(&folder, ["leaf"].into_iter().chain(to));
    assert_eq!(again.code, 0, "{}", again.all());
    assert!(
        again.out.contains("identity-cus.aligntech.com, api-proxy.aligntech.com, gateway-cus"),
        "{}",
        again.out
    );
    let key = folder.join("ca.key");
    let refused = ca(&folder, ["leaf", "--out", key.to_str().unwrap()]);
    assert_eq!(refused.code, 1, "{}", refused.all());
    assert_eq!(ca(&folder, ["leaf"].into_iter().chain(to)).code, 0, "the CA's key is still there");
}
