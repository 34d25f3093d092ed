//! `[store]`, `[upstream]`, `[retry]`, `[renewal]` and `[log]`: where things are kept and how patient we are.
//! The vendor's documented waits are a floor for every realm that is real.

use std::path::Path;
use std::time::Duration;

use tracing_subscriber::filter::LevelFilter;
use url::Url;

use super::listeners::secret_or_default;
use super::reader::{Reported, Section, TomlValue};
use super::units::show_duration;
use super::values::own_url;
use super::{
    LogConfig, LogFormat, ProxyChoice, RenewalConfig, RetryConfig, StoreConfig, StoreUrl, UpstreamConfig,
    defaults,
};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn store(section: Section<'_>) -> Result<StoreConfig, Reported> {
    let beside = || StoreUrl::Sqlite(section.reader.folder.join(defaults::STORE_FILE));
    let url = section.or_default("url", store_url, beside);
    let url = match section.get("listen_url") {
        Some(value) => url.and_then(|url| with_listen_url(url, &value)),
        None => url,
    };
    let key = secret_or_default(&section, "key", defaults::STORE_KEY_FILE);
    section.reject_unknown_keys();
    Ok(StoreConfig { url: url?, key: key? })
}

/// The text is never shown: it may hold a password.
fn store_url(value: &TomlValue<'_>) -> Result<StoreUrl, Reported> {
    match StoreUrl::parse(value.text()?, &value.reader.folder) {
        Ok(url) => {
            warn_of_password(value);
            Ok(url)
        }
        Err((what, fix)) => value.refuse(what, fix),
    }
}

impl StoreUrl {
    /// `sqlite:FILE`, which starts at `folder`, or `postgres://…`. The error is what is wrong and the fix,
    /// without the text, which may hold a password.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, (&'static str, &'static str)> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path.starts_with(':') || path.contains('?') {
                let fix = "write \"sqlite:\" and the path of a file";
                return Err(("is no file: grants have to outlive the process", fix));
            }
            return Ok(Self::Sqlite(folder.join(path)));
        }
        match postgres_url(text) {
            Some(_) => Ok(Self::Postgres { url: text.to_owned(), listen_url: None }),
            None => Err((
                "is neither sqlite: nor postgres://",
                "write \"sqlite:gateway.db\" or \"postgres://user@host/database\"",
            )),
        }
    }
}

fn with_listen_url(url: StoreUrl, value: &TomlValue<'_>) -> Result<StoreUrl, Reported> {
    let text = value.text()?;
    warn_of_password(value);
    match (url, postgres_url(text)) {
        (StoreUrl::Postgres { url, .. }, Some(_)) => {
            Ok(StoreUrl::Postgres { url, listen_url: Some(text.to_owned()) })
        }
        (StoreUrl::Postgres { .. }, None) => value
            .refuse("is not postgres://", "write the address of the same database without a pooler between"),
        (StoreUrl::Sqlite(_), _) => value.refuse(
            "is for PostgreSQL only, and store.url is a SQLite file, which one process has for itself",
            "remove listen_url, or write store.url = \"postgres://user@host/database\"",
        ),
    }
}

fn warn_of_password(value: &TomlValue<'_>) {
    let url = value.text().ok().and_then(postgres_url);
    if url.is_some_and(|url| url.password().is_some()) {
        value.warn(
            "holds a password in clear",
            "let the database trust a client certificate or a password file (PGPASSFILE) instead",
        );
    }
}

fn postgres_url(text: &str) -> Option<Url> {
    Url::parse(text).ok().filter(|url| matches!(url.scheme(), "postgres" | "postgresql"))
}

pub(super) fn upstream(section: Section<'_>) -> Result<UpstreamConfig, Reported> {
    let timeout = |key, default| section.duration(key, default, SECOND..=HOUR);
    let connect_timeout =
        section.duration("connect_timeout", defaults::CONNECT_TIMEOUT, Duration::from_millis(100)..=MINUTE);
    let response_timeout = timeout("response_timeout", defaults::RESPONSE_TIMEOUT);
    let idle_timeout = timeout("idle_timeout", defaults::IDLE_TIMEOUT);
    let max_idle_per_host = section.integer("max_idle_per_host", defaults::MAX_IDLE_PER_HOST, 1..=10_000);
    let proxy = section.or_default("proxy", proxy, || ProxyChoice::Environment);
    section.reject_unknown_keys();
    Ok(UpstreamConfig { connect_timeout, response_timeout, idle_timeout, max_idle_per_host, proxy: proxy? })
}

/// What is wrong with the credentials in a proxy's address, if they were cut where they should not end. A URL
/// takes `\\` for a slash.
pub fn proxy_credentials_problem(text: &str) -> Option<&'static str> {
    let behind_scheme = text.split_once("://").map_or(text, |(_, rest)| rest);
    let credentials = &behind_scheme[..behind_scheme.rfind('@')?];
    if credentials.contains('\\') {
        return Some(
            "a user of a Windows domain is written with %5C in place of the backslash, \
             http://DOMAIN%5Cuser:password@host:port, and the proxy has to take Basic credentials",
        );
    }
    credentials.contains(['/', '?', '#', '@', '[', ']', ' ']).then_some(
        "signs like / ? # @ [ ] and blanks in its user name or password have to be percent-encoded, like %40 for @",
    )
}

fn proxy(value: &TomlValue<'_>) -> Result<ProxyChoice, Reported> {
    match value.text()? {
        "environment" => Ok(ProxyChoice::Environment),
        "none" => Ok(ProxyChoice::None),
        text => {
            if let Some(problem) = proxy_credentials_problem(text) {
                let fix = "write the address with its credentials into HTTPS_PROXY, and \"environment\" here";
                return value
                    .refuse(format!("holds credentials in a spelling that cannot be read: {problem}"), fix);
            }
            let url = own_url(value)?;
            if url.scheme() != "http" || url.path() != "/" {
                let fix = "write \"http://proxy.example.com:3128\", \"none\" or \"environment\"";
                return value.refuse("is no HTTP proxy", fix);
            }
            Ok(ProxyChoice::Url(url))
        }
    }
}

pub(super) fn retry(section: Section<'_>, sandbox: bool) -> RetryConfig {
    let attempts = section.integer("attempts", defaults::ATTEMPTS as usize, 1..=10);
    let initial_backoff = documented_wait(&section, "initial_backoff", defaults::INITIAL_BACKOFF, sandbox);
    let pairing_backoff = documented_wait(&section, "pairing_backoff", defaults::PAIRING_BACKOFF, sandbox);
    let deadline = section.duration("deadline", defaults::RETRY_DEADLINE, SECOND..=HOUR);
    let budget = section.fraction("budget", defaults::RETRY_BUDGET);
    let scan_request = section.boolean("scan_request", defaults::RETRY_SCAN_REQUEST);
    if scan_request {
        section.reader.warning(
            &section.location_of("scan_request"),
            "repeats calls that may have created an RX already",
            "set it to false unless duplicates are removed elsewhere",
        );
    }
    section.reject_unknown_keys();
    RetryConfig {
        attempts: attempts as u32,
        initial_backoff,
        pairing_backoff,
        deadline,
        budget,
        scan_request,
    }
}

/// The vendor's waits are a minimum (Authentication and Pairing V2, 4.1.2 and 4.3.1); only a sandbox may be
/// asked sooner.
fn documented_wait(
    section: &Section<'_>,
    key: &'static str,
    documented: Duration,
    sandbox: bool,
) -> Duration {
    let wait = section.duration(key, documented, MILLISECOND..=MINUTE);
    if wait < documented && !sandbox {
        let what =
            format!("is shorter than the {} ms that the vendor's documents ask for", documented.as_millis());
        let fix = format!("write {:?} or more, or remove it", show_duration(documented));
        section.reader.problem(&section.location_of(key), what, fix);
    }
    wait
}

pub(super) fn renewal(section: Section<'_>, sandbox: bool) -> RenewalConfig {
    let min_gap = section.duration("min_gap", defaults::MIN_GAP, Duration::ZERO..=30 * MINUTE);
    if min_gap < defaults::MIN_GAP && !sandbox {
        section.reader.warning(
            &section.location_of("min_gap"),
            "is below 60s, and refresh calls must not come in quick succession (gen-api, section 2)",
            "remove it, or keep it for a sandbox",
        );
    }
    // A token lives an hour: renewing half an hour ahead is twice the traffic, more is a loop.
    let renew_before_expiry =
        section.duration("renew_before_expiry", defaults::RENEW_BEFORE_EXPIRY, Duration::ZERO..=30 * MINUTE);
    // Below three months, after which an unused grant is dead (gen-api, section 2), with ten days to spare.
    let shortest = if sandbox { SECOND } else { HOUR };
    let idle_renewal = section.duration("idle_renewal", defaults::IDLE_RENEWAL, shortest..=80 * DAY);
    section.reject_unknown_keys();
    RenewalConfig { min_gap, renew_before_expiry, idle_renewal }
}

pub(super) fn log(section: Section<'_>) -> Result<LogConfig, Reported> {
    let level = section.or_default("level", level, || defaults::LOG_LEVEL.to_owned());
    let format = section.or_default("format", format, || defaults::LOG_FORMAT);
    let access = section.boolean("access", defaults::LOG_ACCESS);
    section.reject_unknown_keys();
    Ok(LogConfig { level: level?, format: format?, access })
}

fn format(value: &TomlValue<'_>) -> Result<LogFormat, Reported> {
    match value.text()? {
        "json" => Ok(LogFormat::Json),
        "text" => Ok(LogFormat::Text),
        _ => value.refuse("is no log format", "write \"json\" or \"text\""),
    }
}

fn level(value: &TomlValue<'_>) -> Result<String, Reported> {
    let text = value.text()?;
    match bad_directive(text) {
        None => Ok(text.to_owned()),
        Some(bad) => {
            let fix =
                "write error, warn, info, debug or trace, or like \"info,genapi_gateway::access=debug\"";
            value.refuse(format!("{bad:?} is no log level"), fix)
        }
    }
}

/// The first directive that does not say what it seems to. A bare misspelt level would otherwise be taken for
/// the name of a target, and silence everything else.
pub fn bad_directive(directives: &str) -> Option<&str> {
    let good = |directive: &str| match directive.split_once('=') {
        Some((target, level)) => !target.is_empty() && level.parse::<LevelFilter>().is_ok(),
        None => directive.parse::<LevelFilter>().is_ok() && !directive.is_empty(),
    };
    directives.split(',').map(str::trim).find(|directive| !good(directive))
}
