//! The catalogue of metrics: each family of `/metrics` is a row with its name, kind, labels and help. Names
//! and labels are a contract that `docs/operations.md` explains; no label holds an account, a caller or a
//! path.

/// What a family is for OpenMetrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

/// A row of the catalogue.
#[derive(Debug)]
pub struct MetricFamily {
    /// Without prefix and suffix.
    pub name: &'static str,
    pub kind: MetricKind,
    pub labels: &'static [Label],
    pub help: &'static str,
}

/// A label and the values that it may have; none are listed where they are names of the configuration,
/// endpoints or refusal codes.
#[derive(Debug)]
pub struct Label {
    pub name: &'static str,
    pub values: &'static [&'static str],
}

impl MetricFamily {
    /// The name of its series on the page, without the prefix. Those of a histogram add `_bucket`, `_sum` and
    /// `_count`.
    pub fn exposed_name(&self) -> String {
        match self.kind {
            MetricKind::Counter => format!("{}_total", self.name),
            MetricKind::Info => format!("{}_info", self.name),
            MetricKind::Gauge | MetricKind::Histogram => self.name.to_owned(),
        }
    }

    /// Whether its label of this name may have this value.
    pub fn allows(&self, label: &str, value: &str) -> bool {
        let label = self.labels.iter().find(|known| known.name == label);
        label.is_some_and(|label| label.values.is_empty() || label.values.contains(&value))
    }
}

macro_rules! catalogue {
    ($($id:ident: $kind:ident $name:literal { $($label:ident $(: $values:expr)?),* } $help:literal;)*) => {
        $(pub const $id: MetricFamily = MetricFamily {
            name: $name,
            kind: MetricKind::$kind,
            labels: &[$(Label { name: stringify!($label), values: catalogue!(@values $($values)?) }),*],
            help: $help,
        };)*

        /// Every family that `/metrics` may show.
        pub const CATALOGUE: &[&MetricFamily] = &[$(&$id),*];
    };
    (@values) => { &[] };
    (@values $values:expr) => { &$values };
}

/// How a call ended; see [`StatusClass`](super::calls::StatusClass).
const CLASSES: [&str; 5] = ["2xx", "3xx", "4xx", "5xx", "none"];
/// Method labels; a caller may invent others.
pub const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "other"];
/// Content encodings that may come with a response that we cannot read, and the other reasons why; the rest
/// is `other`.
pub const ENCODINGS: [&str; 7] = ["br", "deflate", "zstd", "compress", "charset", "part", "other"];
/// What can be wrong with a whole realm.
pub const REALM_TROUBLES: [&str; 3] = ["credentials", "unavailable", OLD_UNAVAILABLE];
/// What `unavailable` was called before, kept for alarms that ask for it.
pub const OLD_UNAVAILABLE: &str = "out_of_order";

catalogue! {
    BUILD: Info "build" { version } "What is running";
    REQUESTS: Counter "requests" { endpoint, method: METHODS, class: CLASSES } "Calls of callers that are over";
    REQUEST_SECONDS: Histogram "request_seconds" { realm, endpoint, class: CLASSES }
        "From a call's first byte to the last of its answer, as the caller sees it";
    PLATFORM_SECONDS: Histogram "platform_seconds" { realm, endpoint, class: CLASSES }
        "One send to the platform, from its first byte to the last of its answer";
    REFUSALS: Counter "refusals" { code } "Answers that the gateway made up itself, by code";
    RETRIES: Counter "retries" { reason: ["platform_trouble"] } "Repeated sends to the platform, by reason";
    RENEWALS: Counter "renewals" {
        realm, outcome: ["refreshed", "refresh_failed", "refused", "discovered", "discovery_failed"]
    } "Renewals of accounts, by outcome";
    ACCOUNTS: Gauge "accounts" { realm, state: ["ready", "paused", "needs_login"] } "Accounts by state";
    EARLIEST_EXPIRY: Gauge "earliest_token_expiry_timestamp_seconds" { realm }
        "When the first access token of the realm ends, in seconds since 1970; 0 without any";
    REALM_TROUBLE: Gauge "realm_trouble" { realm, kind: REALM_TROUBLES }
        "Whether a realm as a whole is in trouble (1) or not (0), by kind";
    LINKS_REWRITTEN: Counter "links_rewritten" {} "Links turned into gateway links";
    LINKS_PASSED: Counter "links_passed" {} "Links to the platform that passed in a form that is not changed";
    LINK_BODIES_PASSED: Counter "link_bodies_passed" { encoding: ENCODINGS }
        "Answers with links that passed untouched, since their encoding is unknown to us";
    BUILT_DOWNLOADS: Counter "built_downloads" { served: ["link", "path"] }
        "Downloads whose address the application built by itself, by what they were served through";
    ODD_DISCOVERY_NAMES: Counter "odd_discovery_names" {}
        "Discovery calls of callers that spell the API's name as the vendor's table does (thirdparty)";
    STORE_COMMIT_FAILURES: Counter "store_commit_failures" {}
        "Commits of new tokens that failed; they are tried until they succeed";
    STORE_WRITE_SECONDS: Gauge "store_write_seconds" {}
        "How long the last write took with which the store is tried every few seconds";
    STORE_TROUBLE: Gauge "store_trouble" {
        kind: ["down", "slow", "read_only", "too_many_connections", "disk_full", "other"]
    } "Whether the store is in trouble (1) or not (0), by kind";
    ACCOUNTS_UNSAVED: Gauge "accounts_unsaved" {}
        "Accounts whose newest tokens are in memory only; a crash now would cost their logins";
    TIME_CORRECTIONS: Counter "time_corrections" { what: ["stored_moment", "time_of_day"] }
        "Times that were wrong: stored moments that lay in the future, and the time of day being set";
    ACCESS_LOG_LINES_LOST: Counter "access_log_lines_lost" {}
        "Access log lines dropped because nobody took off those before them";
    LOG_LINES_LOST: Counter "log_lines_lost" {} "Other log lines dropped because nobody took off those before them";
    LOG_WAITING_SECONDS: Gauge "log_waiting_seconds" {}
        "How long the log lines that are being written have waited for whoever reads them";
    JOURNAL_ENTRIES_LOST: Counter "journal_entries_lost" {}
        "Journal entries dropped because the queue was full or the store failed";
    CONNECTIONS: Gauge "connections" { state: ["open"] } "Callers' connections right now";
    CONNECTION_EVENTS: Counter "connection_events" { event: [
        "accepted", "connection_limit", "evicted", "accept_error", "tls_failure", "proxy_header_failure",
        "handshake_timeout", "head_timeout", "keep_alive_timeout", "body_timeout", "write_timeout",
        "refused_request", "client_disconnect", "aborted_response", "panic",
        // The old names of three of them, which count the same until 1.0.
        "refused_full", "hang_up", "aborted_answer"
    ] } "What happened to callers' connections";
}
