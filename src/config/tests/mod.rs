//! Whole files, valid ones here, faulty ones in `faults`, the shipped one in `example`.

mod example;
mod faults;
mod groups;

use std::time::Duration;

use tempfile::TempDir;

use super::diagnostic::Diagnostic;
use super::*;

pub(super) const MINIMAL: &str = r#"
[realms.global]
oauth_base = "https://prod-identity.iterocloud.com"
base_url = "https://prod-iteroapi.iterocloud.com"
login_page = "https://login.align.test/start?x=1"
redirect_uri = "https://gateway.clinic.test/oauth2/callback"
client_id = "id"
client_secret = { env = "ITERO_CLIENT_SECRET" }
allowed_hosts = ["*.iterocloud.com"]

[[callers]]
name = "lab-sync"
accounts = ["smile-*"]
key_sha256 = "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1fff"
"#;

/// Stands in for the client secret and must never be seen.
const CANARY: &str = "canary-4711";

/// A folder with everything that configurations here point to.
pub(super) struct ConfigFolder(TempDir);

impl ConfigFolder {
    pub(in super::super) fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        folder.write("cert.pem", &made.cert.pem());
        folder.write("ca.pem", &made.cert.pem());
        folder.write("key.pem", &made.signing_key.serialize_pem());
        folder.write("procedures.csv", "procedure,map_id\nCrown,FR\n");
        folder.write("not.pem", "hello");
        folder.write("empty.secret", "\n");
        folder.write("good.secret", &format!("{CANARY}\r\n"));
        folder.write("loose.secret", CANARY);
        folder.open("loose.secret");
        folder.write("loose.pem", &made.signing_key.serialize_pem());
        folder.open("loose.pem");
        folder
    }

    fn write(&self, name: &str, text: &str) {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(self.0.path().join(name)).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn open(&self, name: &str) {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(self.0.path().join(name), mode).unwrap();
    }

    pub(in super::super) fn load(&self, text: &str) -> Result<LoadedConfig, ConfigError> {
        self.write("config.toml", text);
        load(&self.0.path().join("config.toml"), &env)
    }

    pub(in super::super) fn problems(&self, text: &str) -> Vec<Diagnostic> {
        self.load(text).unwrap_err().iter().cloned().collect()
    }
}

fn env(name: &str) -> Option<String> {
    (name == "ITERO_CLIENT_SECRET").then(|| CANARY.to_owned())
}

/// `MINIMAL` with lines replaced, each by its key, or with text added at the end.
fn changed(edits: &[(&str, &str)]) -> String {
    edits.iter().fold(MINIMAL.to_owned(), |text, (key, line)| {
        let lines = text.lines().map(|old| if old.starts_with(&format!("{key} =")) { *line } else { old });
        let replaced = lines.collect::<Vec<_>>().join("\n");
        assert_ne!(replaced, text.trim_end(), "{key} is not in the minimal file");
        replaced
    })
}

fn with_realm(lines: &str) -> String {
    MINIMAL.replace("\n[[callers]]", &format!("{lines}\n\n[[callers]]"))
}

pub(super) fn with_caller(lines: &str) -> String {
    format!("{MINIMAL}{lines}\n")
}

fn second_caller(lines: &str) -> String {
    with_caller(&format!("\n[[callers]]\n{lines}"))
}

fn second_realm(lines: &str) -> String {
    let first = MINIMAL.split("[[callers]]").next().unwrap();
    format!("{MINIMAL}\n{}\n{lines}\n", first.replace("realms.global", "realms.china").trim())
}

#[test]
fn a_minimal_file_has_all_defaults() {
    let loaded = ConfigFolder::new().load(MINIMAL).unwrap();
    assert_eq!(loaded.warnings, vec![]);
    let config = loaded.config;
    assert_eq!(config.gateway.listen, vec!["127.0.0.1:8080".parse().unwrap()]);
    assert_eq!(config.gateway.url.as_str(), "http://127.0.0.1:8080/");
    assert_eq!(config.admin.listen, vec!["127.0.0.1:8081".parse().unwrap()]);
    assert_eq!(config.renewal.idle_renewal, Duration::from_secs(7 * 24 * 3600));
    let realm = &config.realms["global"];
    assert_eq!(realm.client_secret.expose(), CANARY);
    assert_eq!(realm.kind, RealmKind::New);
    assert_eq!(realm.discovery.version, "2");
    let caller = &config.callers[0];
    assert_eq!(caller.key.unwrap()[31], 0xff);
    assert_eq!(caller.allow.len(), 8);
    assert!(config.public.is_none());
}

#[test]
fn a_sandbox_may_be_plain_near_and_fast() {
    let text = r#"
[gateway]
listen = ["127.0.0.1:0"]
[admin]
listen = ["127.0.0.1:0"]
[public]
listen = ["127.0.0.1:0"]
url = "http://localhost:9"
[realms.new]
oauth_base = "http://127.0.0.1:4000/"
base_url = "http://127.0.0.1:4001/base/"
login_page = "http://127.0.0.1:4000/login"
redirect_uri = "http://127.0.0.1:8081/oauth2/callback"
client_id = "id"
client_secret = { file = "good.secret" }
allowed_hosts = ["127.0.0.1", "*.sandbox.test"]
resolve = { "eu.sandbox.test" = "127.0.0.1" }
route = { domain = "http://127.0.0.1:4001", path = "/v2" }
allow_insecure = true
[[callers]]
name = "demo"
accounts = ["*", "12", "new:13", "smile"]
networks = ["127.0.0.0/8", "::1"]
[retry]
initial_backoff = "10ms"
pairing_backoff = "10ms"
[renewal]
min_gap = "0s"
idle_renewal = "1s"
"#;
    let config = ConfigFolder::new().load(text).unwrap().config;
    let realm = &config.realms["new"];
    assert_eq!(realm.client_secret.expose(), CANARY);
    assert_eq!(realm.oauth_base.as_str(), "http://127.0.0.1:4000/");
    assert_eq!(realm.base_url.as_str(), "http://127.0.0.1:4001/base");
    assert_eq!(config.gateway.url.port(), Some(0));
    let id = crate::model::account::AccountId::new;
    let accounts = [
        AccountPattern::Name("*".to_owned()),
        AccountPattern::Id { realm: None, id: id(12) },
        AccountPattern::Id { realm: Some("new".parse().unwrap()), id: id(13) },
        AccountPattern::Name("smile".to_owned()),
    ];
    assert_eq!(config.callers[0].accounts, accounts);
}

#[test]
fn a_file_that_is_missing_beside_the_configuration_is_taken_from_the_credentials() {
    let (folder, credentials) = (ConfigFolder::new(), ConfigFolder::new());
    credentials.write("handed.secret", "handed over");
    credentials.write("admin.token", "t");
    let text = changed(&[("client_secret", "client_secret = { file = \"handed.secret\" }")]);
    folder.write("config.toml", &text);
    let location = credentials.0.path().to_str().unwrap().to_owned();
    let env = |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| location.clone());
    let config = load(&folder.0.path().join("config.toml"), &env).unwrap().config;
    assert_eq!(config.realms["global"].client_secret.expose(), "handed over");
    assert_eq!(config.admin.token, SecretSource::File(credentials.0.path().join("admin.token")));
    assert_eq!(config.store.key, SecretSource::File(folder.0.path().join("gateway.key")));
}

#[test]
fn a_secret_is_the_line_that_was_meant_whatever_an_editor_left_around_it() {
    let folder = ConfigFolder::new();
    for text in ["\u{feff}s3 cret\r\n", "s3 cret  \n\n", "\ts3 cret"] {
        folder.write("edited.secret", text);
        let text = changed(&[("client_secret", "client_secret = { file = \"edited.secret\" }")]);
        let config = folder.load(&text).unwrap().config;
        assert_eq!(config.realms["global"].client_secret.expose(), "s3 cret");
    }
}

#[test]
fn a_configuration_that_notepad_saved_is_read_and_one_in_utf_16_is_named() {
    let folder = ConfigFolder::new();
    let file = folder.0.path().join("config.toml");
    std::fs::write(&file, format!("\u{feff}{}", MINIMAL.replace('\n', "\r\n"))).unwrap();
    assert_eq!(load(&file, &env).unwrap().warnings, vec![]);
    let wide: Vec<u8> = MINIMAL.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (content, what) in [(wide, "UTF-16"), (b"a = \"\0\"".to_vec(), "NUL byte")] {
        std::fs::write(&file, content).unwrap();
        let problems = load(&file, &env).unwrap_err().to_string();
        assert!(problems.contains(what) && problems.contains("config.toml: "), "{problems}");
    }
    let problems = load(folder.0.path(), &env).unwrap_err().to_string();
    assert!(problems.contains("is a folder"), "{problems}");
}

#[test]
fn a_network_that_is_ipv4_written_as_ipv6_is_ipv4() {
    let networks =
        "networks = [\"::ffff:127.0.0.0/104\", \"::ffff:10.1.2.3\", \"::ffff:0a09:0000/112\", \"fd00::/8\"]";
    let config = ConfigFolder::new().load(&with_caller(networks)).unwrap().config;
    let read: Vec<_> = config.callers[0].networks.iter().map(ToString::to_string).collect();
    assert_eq!(read, ["127.0.0.0/8", "10.1.2.3/32", "10.9.0.0/16", "fd00::/8"]);
}

#[test]
fn what_is_found_later_is_told_at_its_key_or_at_the_table_around_it() {
    let text = format!("{MINIMAL}[admin]\naudit = \"a.log\"\n");
    let places = ConfigFolder::new().load(&text).unwrap().places;
    let at = |key: &str| {
        let problem = places.problem(key, "x", "y");
        (text.lines().nth(problem.line.saturating_sub(1)).unwrap_or_default().to_owned(), problem.key)
    };
    assert_eq!(at("admin.audit"), ("audit = \"a.log\"".to_owned(), "admin.audit".to_owned()));
    assert_eq!(at("admin.token").0, "[admin]");
    assert_eq!(at("realms.global").0, "[realms.global]");
    assert_eq!(places.problem("store.key", "x", "y").line, 0);
}

#[test]
fn no_secret_is_printed() {
    let text = with_caller(&format!(
        "facade = {{ client_id = \"x\", client_secret_sha256 = \"{}\" }}\n[store]\nurl = \"postgres://u:{CANARY}@h/d\"\nlisten_url = \"postgres://u:{CANARY}@h/e\"",
        "ab".repeat(32)
    ));
    let config = ConfigFolder::new().load(&text).unwrap().config;
    let shown = format!("{config:#?}");
    assert!(shown.contains("ClientSecret(11 chars)"), "{shown}");
    for secret in [CANARY, "171,", "255,", "abab"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

#[test]
fn a_reload_names_what_needs_a_restart_and_takes_over_the_rest() {
    let folder = ConfigFolder::new();
    let old = folder.load(MINIMAL).unwrap().config;
    let live = format!(
        "{}\n[gateway]\nurl = \"http://gw\"\nreplay_limit = 0\n[log]\nlevel = \"debug\"\naccess = false\n[retry]\nattempts = 2",
        changed(&[("name", "name = \"other\"")])
    );
    assert_eq!(Config::diff_needing_restart(&old, &folder.load(&live).unwrap().config), Vec::<&str>::new());
    let restart = format!(
        "{MINIMAL}[gateway]\nlisten = [\"127.0.0.1:1\"]\nworkers = 3\n[admin]\ntoken = {{ file = \"other.token\" }}\n[public]\nlisten = [\"127.0.0.1:3\"]\nurl = \"https://x\"\n[store]\nurl = \"sqlite:other.db\""
    );
    let keys = Config::diff_needing_restart(&old, &folder.load(&restart).unwrap().config);
    assert_eq!(keys, ["gateway.listen", "gateway.workers", "admin.token", "public", "store.url"]);
    let database = format!("{MINIMAL}[store]\nurl = \"postgres://h/d\"");
    let around = format!("{database}\nlisten_url = \"postgres://h:1/d\"");
    let (through, around) = (folder.load(&database).unwrap().config, folder.load(&around).unwrap().config);
    assert_eq!(Config::diff_needing_restart(&through, &around), ["store.listen_url"]);
    assert_eq!(Config::diff_needing_restart(&old, &around), ["store.url", "store.listen_url"]);
    let quiet = folder.load(&live).unwrap().config;
    assert_eq!(
        Config::diff_needing_restart(&quiet, &old),
        ["log.access"],
        "its writer starts with the process"
    );
}
