//! What `serve` needs beside its configuration file, looked at before anything is opened, bound or made:
//! certificates and keys, the way to each realm, the store's place and key, the files that are written.
//! `check` and `serve` both come here, so they cannot disagree.
//!
//! Not for a running gateway: SQLite's locks end when anybody in the process closes a handle to its file.

use std::path::{Path, PathBuf};

use crate::clock::{Clock, Timestamp};
use crate::config::{
    self, Config, ConfigError, Diagnostic, Env, KeyLocations, LoadedConfig, SecretSource, StoreUrl,
};
use crate::journal::audit::{AuditError, AuditLog};
use crate::server::{self, BindError, CertificateWarning, TlsError};
use crate::store::{self, StoreError, private_file};
use crate::telemetry::{self, LogError};
use crate::upstream::ConnectError;

use super::listeners::{self, CertificateSource, TlsListener};
use super::realms;

/// Reads the file and looks at everything that it leads to. All faults are found in one run, save that a
/// fault of the file itself hides the rest.
pub fn load(file: &Path, env: Env<'_>, clock: &Clock) -> Result<LoadedConfig, ConfigError> {
    let mut loaded = config::load(file, env)?;
    let mut found =
        PreflightFindings { places: loaded.places.clone(), problems: Vec::new(), warnings: Vec::new() };
    let config = &loaded.config;
    found.check_log(config, env);
    for listener in listeners::tls_listeners(config) {
        found.check_certificate(listener, clock);
    }
    found.check_realms(config, clock.now());
    for (key, error) in store::check(&config.store) {
        found.problem(key, error.what, error.fix);
    }
    found.check_written_files(config);
    if let Some(problems) = ConfigError::gather(found.problems) {
        return Err(problems);
    }
    loaded.warnings.extend(found.warnings);
    Ok(loaded)
}

/// Whether a start failed by what only a change of configuration or files can cure: then trying again is of
/// no use. A port or a database that somebody else has, or that is away, may be free a minute later.
pub fn needs_operator(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        matches!(cause.downcast_ref::<StoreError>(), Some(StoreError::Refused(_)))
            || matches!(cause.downcast_ref::<BindError>(), Some(BindError::NotPermitted { .. }))
            || matches!(cause.downcast_ref::<ConnectError>(), Some(ConnectError::Setup { .. }))
            || matches!(cause.downcast_ref::<LogError>(), Some(LogError::Level(_)))
            || cause.is::<TlsError>()
            || cause.is::<AuditError>()
            || cause.is::<config::secret::SecretError>()
            || cause.is::<crate::platform::PlatformSetupError>()
    })
}

/// What callers will not like about the certificates in use, now or soon.
pub(super) fn certificate_warnings(config: &Config, now: Timestamp) -> Vec<CertificateWarning> {
    let own = listeners::tls_listeners(config);
    let own = own.iter().filter_map(|listener| warnings_of(listener, now).ok());
    let trusted = config.realms.values().filter_map(|realm| realm.ca_file.as_deref());
    let trusted = trusted.filter_map(|file| server::authority_warnings(file, now).ok());
    let mut warnings: Vec<CertificateWarning> = own.chain(trusted).flatten().collect();
    // Two listeners may have one CA.
    warnings.sort_by(|one, other| one.what.cmp(&other.what));
    warnings.dedup();
    warnings
}

fn warnings_of(listener: &TlsListener, now: Timestamp) -> Result<Vec<CertificateWarning>, TlsError> {
    match &listener.source {
        CertificateSource::Files(files) => server::certificate_warnings(files, &listener.names, now),
        CertificateSource::Ca(ca) => server::ca_warnings(ca, &listener.names, now),
    }
}

struct PreflightFindings {
    places: KeyLocations,
    problems: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

impl PreflightFindings {
    fn problem(&mut self, key: &str, what: impl Into<String>, fix: impl Into<String>) {
        self.problems.push(self.places.problem(key, what, fix));
    }

    fn doubt(&mut self, key: &str, doubts: Vec<CertificateWarning>) {
        let told = doubts.into_iter().map(|doubt| self.places.problem(key, doubt.what, doubt.fix));
        self.warnings.extend(told);
    }

    fn check_log(&mut self, config: &Config, env: Env<'_>) {
        if let Err(error) = telemetry::check(&config.log, env) {
            let fix = format!("correct or unset {}", telemetry::LEVEL_VARIABLE);
            self.problem("log.level", error.to_string(), fix);
        }
    }

    fn check_certificate(&mut self, listener: TlsListener, clock: &Clock) {
        let doubts = warnings_of(&listener, clock.now());
        let TlsListener { key, source, .. } = listener;
        let (cert, client_ca) = match &source {
            CertificateSource::Files(files) => (Some(files.cert.clone()), files.client_ca.clone()),
            CertificateSource::Ca(ca) => (None, ca.client_ca.clone()),
        };
        let source_key = if cert.is_some() { "cert" } else { "ca" };
        match source.load(clock).and(doubts) {
            Ok(doubts) => self.doubt(&format!("{key}.{source_key}"), doubts),
            Err(error) => {
                let which = match error.file() {
                    Some(file) if Some(file) == client_ca.as_deref() => "client_ca",
                    Some(file) if cert.is_none() || Some(file) == cert.as_deref() => source_key,
                    _ if cert.is_none() => source_key,
                    _ => "key",
                };
                self.problem(&format!("{key}.{which}"), error.what(), error.fix());
            }
        }
    }

    fn check_realms(&mut self, config: &Config, now: Timestamp) {
        for realm in config.realms.values() {
            let key = format!("realms.{}", realm.name);
            if let Err(error) = realms::build(realm, &config.upstream, None) {
                let fix = "correct what is named, then ask `check` again";
                self.problem(&key, error.root_cause().to_string(), fix);
            }
            let doubts = realm.ca_file.as_deref().map(|file| server::authority_warnings(file, now));
            if let Some(Ok(doubts)) = doubts {
                self.doubt(&format!("{key}.ca_file"), doubts);
            }
        }
    }

    /// The admin token and the audit log are made at first start.
    fn check_written_files(&mut self, config: &Config) {
        if let SecretSource::File(path) = &config.admin.token
            && !path.exists()
            && let Err(fault) = private_file::can_be_made(path)
        {
            let fix = "let the gateway's user write to that folder, or make the file yourself";
            self.problem("admin.token", format!("{} cannot be made ({fault})", path.display()), fix);
        }
        if let Err(error) = AuditLog::check(&config.admin.audit) {
            let fix = "name a file in a folder that the gateway's user may write to";
            self.problem("admin.audit", error.to_string(), fix);
        }
        self.refuse_one_file_for_two(config);
    }

    /// One would overwrite the other.
    fn refuse_one_file_for_two(&mut self, config: &Config) {
        let file = |source: &SecretSource| match source {
            SecretSource::File(path) => Some(path.clone()),
            SecretSource::Env(_) => None,
        };
        let database = match &config.store.url {
            StoreUrl::Sqlite(path) => Some(path.clone()),
            StoreUrl::Postgres { .. } => None,
        };
        let written = [
            ("store.url", database),
            ("store.key", file(&config.store.key)),
            ("admin.token", file(&config.admin.token)),
            ("admin.audit", Some(config.admin.audit.clone())),
        ];
        let mut taken: Vec<(&str, PathBuf)> = Vec::new();
        for (key, path) in written {
            let Some(path) = path.map(|path| canonical_path(&path)) else { continue };
            if let Some((other, _)) = taken.iter().find(|(_, held)| *held == path) {
                let what = format!("{} is the file of {other} as well", path.display());
                self.problem(key, what, "give each a file of its own");
            }
            taken.push((key, path));
        }
    }
}

/// Two spellings of one file meet, whether it is there yet or not.
fn canonical_path(path: &Path) -> PathBuf {
    let folder = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    path.canonicalize().ok().or_else(folder).unwrap_or_else(|| path.to_owned())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use rcgen::{CertificateParams, KeyPair};

    /// A sandbox's configuration in a folder of its own.
    struct TestFolder(tempfile::TempDir);

    const REALM: &str = r#"
[realms.new]
oauth_base = "http://127.0.0.1:4000"
base_url = "http://127.0.0.1:4001"
login_page = "http://127.0.0.1:4000/login"
redirect_uri = "http://127.0.0.1:8081/oauth2/callback"
client_id = "id"
client_secret = { env = "SECRET" }
allowed_hosts = ["127.0.0.1"]
allow_insecure = true
[[callers]]
name = "demo"
accounts = ["smile"]
networks = ["127.0.0.0/8"]
"#;

    impl TestFolder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, name: &str, text: &str) {
            use std::os::unix::fs::PermissionsExt;
            let path = self.0.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }

        /// A certificate for `gateway.test`, good in 2026 and 2027, and its key.
        fn certificate(&self, cert: &str, key: &str) {
            let made = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["gateway.test".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(2026, 1, 1);
            params.not_after = rcgen::date_time_ymd(2028, 1, 1);
            self.write(cert, &params.self_signed(&made).unwrap().pem());
            self.write(key, &made.serialize_pem());
        }

        fn load(&self, sections: &str) -> Result<LoadedConfig, ConfigError> {
            self.load_at(sections, "2026-06-01T00:00:00Z", &|_| None)
        }

        fn load_at(&self, sections: &str, now: &str, env: Env<'_>) -> Result<LoadedConfig, ConfigError> {
            self.write("config.toml", &format!("{sections}\n{REALM}"));
            let since = humantime::parse_rfc3339(now).unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
            let clock = Clock::manual(Timestamp::from_millis(since.as_millis() as u64));
            let env = |name: &str| env(name).or_else(|| (name == "SECRET").then(|| "s3cret".to_owned()));
            load(&self.0.path().join("config.toml"), &env, &clock)
        }

        fn names(&self) -> Vec<String> {
            let entries = std::fs::read_dir(self.0.path()).unwrap();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    const TLS: &str = "[gateway]\nlisten = []\nurl = \"https://gateway.test\"\ntls = { listen = [\"127.0.0.1:0\"], cert = \"c.pem\", key = \"k.pem\" }";

    #[test]
    fn a_look_at_a_new_place_finds_nothing_and_makes_nothing() {
        let folder = TestFolder::new();
        let loaded = folder.load("").unwrap();
        assert_eq!(loaded.warnings, vec![]);
        assert_eq!(folder.names(), ["config.toml"]);
    }

    #[test]
    fn what_would_stop_a_start_is_told_with_its_key() {
        let folder = TestFolder::new();
        folder.certificate("c.pem", "k.pem");
        folder.certificate("other.pem", "other.key");
        folder.write("folder-of.db", &"no database ".repeat(20));
        let of = |text: &str, name: &str| text.replace("k.pem", name);
        let chain = format!(
            "{}{}",
            std::fs::read_to_string(folder.0.path().join("other.pem")).unwrap(),
            std::fs::read_to_string(folder.0.path().join("c.pem")).unwrap()
        );
        folder.write("swapped.pem", &chain);
        std::fs::create_dir(folder.0.path().join("a-folder")).unwrap();
        #[rustfmt::skip]
        let table = [
            (of(TLS, "other.key"), "gateway.tls.key", "not the key of the first certificate", "made for that certificate"),
            (TLS.replace("c.pem", "swapped.pem"), "gateway.tls.key", "swapped.pem is in the wrong order", "put certificate 2 first"),
            ("[admin]\ntls = { cert = \"c.pem\", key = \"other.key\" }".to_owned(), "admin.tls.key", "not the key", ""),
            ("[store]\nurl = \"sqlite:none/gateway.db\"".to_owned(), "store.url", "none of the store cannot be used", "make it"),
            ("[store]\nurl = \"sqlite:config.toml/gateway.db\"".to_owned(), "store.url", "cannot be", ""),
            ("[store]\nurl = \"sqlite:a-folder\"".to_owned(), "store.url", "a-folder cannot be used", ""),
            ("[store]\nurl = \"sqlite:folder-of.db\"".to_owned(), "store.url", "no SQLite database", ""),
            ("[store]\nkey = { file = \"none/gateway.key\" }".to_owned(), "store.key", "cannot be made", "write to that folder"),
            ("[store]\nkey = { file = \"a-folder\" }".to_owned(), "store.key", "is a folder", ""),
            ("[store]\nkey = { env = \"NONE\" }".to_owned(), "store.key", "is not set", "urandom"),
            ("[store]\nkey = { file = \"c.pem\" }".to_owned(), "store.key", "no key on line 1", "base64"),
            ("[store]\nurl = \"postgres://h/d?sslmode=nonsense\"".to_owned(), "store.url", "no address of a database", "postgres://"),
            ("[store]\nurl = \"postgres://h/d?sslrootcert=/none.pem\"".to_owned(), "store.url", "/none.pem cannot be read", ""),
            ("[store]\nurl = \"postgres://h/d\"\nlisten_url = \"postgres://h/d?sslrootcert=/none.pem\"".to_owned(), "store.listen_url", "/none.pem", ""),
            ("[admin]\ntoken = { file = \"none/admin.token\" }".to_owned(), "admin.token", "cannot be made", "write to that folder"),
            ("[admin]\naudit = \"none/audit.log\"".to_owned(), "admin.audit", "cannot be written", "folder"),
            ("[admin]\naudit = \"a-folder\"".to_owned(), "admin.audit", "cannot be written", ""),
            ("[admin]\naudit = \"./gateway.db\"".to_owned(), "admin.audit", "the file of store.url as well", "of its own"),
        ];
        for (text, key, what, fix) in table {
            let problems = folder.load(&text).err().unwrap_or_else(|| panic!("{text} is valid"));
            let found: Vec<_> = problems.iter().collect();
            assert_eq!(found.len(), 1, "{text}\n{problems}");
            assert_eq!(found[0].key, key, "{problems}");
            assert!(found[0].what.contains(what) && found[0].fix.contains(fix), "{problems}");
            assert!(found[0].line > 0, "{problems}");
        }
        assert!(!folder.names().iter().any(|name| name.starts_with("gateway.") || name.starts_with("admin")));
    }

    const CA: &str = "[gateway]\ntls = { listen = [\"127.0.0.1:0\"], ca = \"ca\" }";

    fn moment(text: &str) -> Timestamp {
        let since = humantime::parse_rfc3339(text).unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
        Timestamp::from_millis(since.as_millis() as u64)
    }

    #[test]
    fn a_ca_that_is_missing_or_open_to_others_is_told_with_its_key() {
        use std::os::unix::fs::PermissionsExt;
        let folder = TestFolder::new();
        let told = |text: &str| folder.load(text).unwrap_err().to_string();
        assert!(
            told(CA).contains("gateway.tls.ca: ") && told(CA).contains("genapi-gateway ca init"),
            "{}",
            told(CA)
        );
        let proxy = "[gateway]\nforward_proxy = { listen = [\"127.0.0.1:0\"], ca = \"ca\" }";
        assert!(told(proxy).contains("gateway.forward_proxy.ca: "), "{}", told(proxy));
        let hosts = crate::ca::HostNames::new(["api.old.test"]).unwrap();
        let ca = folder.0.path().join("ca");
        let ecdsa = crate::ca::KeyAlgorithm::Ecdsa;
        crate::ca::init(&ca, &hosts, ecdsa, moment("2026-01-01T00:00:00Z")).unwrap();
        folder.load(CA).unwrap();
        folder.load(proxy).unwrap();
        let loose = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(ca.join(crate::ca::CA_KEY), loose).unwrap();
        assert!(told(CA).contains("gateway.tls.ca: ") && told(CA).contains("chmod 600"), "{}", told(CA));
    }

    #[test]
    fn a_ca_that_ends_or_is_not_for_the_url_is_a_warning() {
        let folder = TestFolder::new();
        let hosts = crate::ca::HostNames::new(["api.old.test"]).unwrap();
        let ecdsa = crate::ca::KeyAlgorithm::Ecdsa;
        crate::ca::init(&folder.0.path().join("ca"), &hosts, ecdsa, moment("2026-01-01T00:00:00Z")).unwrap();
        let told = |text: &str, now: &str| {
            let loaded = folder.load_at(text, now, &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
            loaded.warnings.iter().map(|warning| warning.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(told(CA, "2027-06-01T00:00:00Z"), Vec::<String>::new());
        let warnings = told(CA, "2035-12-25T00:00:00Z");
        assert!(warnings.len() == 1 && warnings[0].contains("in 5 days"), "{warnings:?}");
        assert!(warnings[0].contains("gateway.tls.ca: "), "{warnings:?}");
        let by_url = |url: &str| told(&format!("{CA}\nurl = \"{url}\""), "2027-06-01T00:00:00Z");
        assert_eq!(by_url("https://api.old.test"), Vec::<String>::new());
        assert!(by_url("https://other.test")[0].contains("is not for other.test"));
    }

    #[test]
    fn a_log_level_of_the_environment_that_is_none_is_found() {
        let env = |name: &str| (name == telemetry::LEVEL_VARIABLE).then(|| "inf".to_owned());
        let problems = TestFolder::new().load_at("", "2026-06-01T00:00:00Z", &env).unwrap_err();
        assert!(problems.to_string().contains("GENAPI_GATEWAY_LOG"), "{problems}");
    }

    #[test]
    fn a_missing_key_beside_a_database_is_found() {
        let folder = TestFolder::new();
        let mut head = b"SQLite format 3\0".to_vec();
        head.resize(4096, 0);
        std::fs::write(folder.0.path().join("gateway.db"), head).unwrap();
        let problems = folder.load("").unwrap_err();
        assert!(problems.to_string().contains("gateway.key is missing"), "{problems}");
    }

    #[test]
    fn a_certificate_that_callers_will_refuse_is_a_warning() {
        let folder = TestFolder::new();
        folder.certificate("c.pem", "k.pem");
        let told = |text: &str, now: &str| {
            let loaded = folder.load_at(text, now, &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
            loaded.warnings.iter().map(|warning| warning.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(told(TLS, "2027-06-01T00:00:00Z"), Vec::<String>::new());
        for (now, what) in [
            ("2025-12-31T00:00:00Z", "good only from 2026-01-01"),
            ("2027-12-12T00:00:00Z", "ends on 2028-01-01, in 20 days"),
            ("2028-01-02T00:00:00Z", "ended on 2028-01-01"),
        ] {
            let warnings = told(TLS, now);
            assert!(warnings.len() == 1 && warnings[0].contains(what), "{warnings:?}");
            assert!(warnings[0].contains("gateway.tls.cert"), "{warnings:?}");
        }
        let renamed = TLS.replace("https://gateway.test", "https://other.test");
        let warnings = told(&renamed, "2027-06-01T00:00:00Z");
        assert!(
            warnings.len() == 1 && warnings[0].contains("is for gateway.test and not for other.test"),
            "{warnings:?}"
        );
        let authorities = TLS.replace(" }", ", client_ca = \"c.pem\" }");
        assert_eq!(told(&authorities, "2028-01-02T00:00:00Z").len(), 2);
    }

    #[test]
    fn what_a_change_must_cure_is_told_from_what_may_pass() {
        let refused =
            anyhow::Error::from(StoreError::Refused("x".to_owned())).context("the store cannot be opened");
        assert!(needs_operator(&refused));
        let addr = "127.0.0.1:80".parse().unwrap();
        assert!(needs_operator(&BindError::NotPermitted { addr }.into()));
        for passes in [
            anyhow::Error::from(StoreError::InUse("x".to_owned())),
            StoreError::Unavailable("x".to_owned().into()).into(),
            BindError::InUse { addr }.into(),
            BindError::NotOurs { addr }.into(),
        ] {
            assert!(!needs_operator(&passes.context("at start")));
        }
    }
}
