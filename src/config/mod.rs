//! `config.toml` as plain typed values, checked once at load. Imports no feature; features import it.

mod callers;
pub mod csv;
pub mod defaults;
mod diagnostic;
mod for_tests;
mod groups;
mod listeners;
mod load;
mod nearest;
mod pem;
mod placeholders;
mod reader;
mod realms;
mod reload;
mod renamed;
mod scalars;
pub mod secret;
pub mod text_file;
mod tuning;
mod units;
mod v1;
mod values;

#[cfg(all(test, unix))]
mod tests;

pub use callers::{CALLER_NAME_RULE, is_caller_name};
pub use diagnostic::{ConfigError, Diagnostic, KeyLocations};
pub use load::{LoadedConfig, load, load_admin, load_ca_folder, load_store};
pub use reader::Env;
pub use tuning::{bad_directive, proxy_credentials_problem};
pub use units::{parse_duration, parse_size, show_duration, show_size};
pub use v1::{Procedures, V1Config};

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use crate::model::account::{RealmGroup, RealmName};
use crate::model::endpoint::Group;
use crate::model::origin::Origin;
use crate::model::redirect_uri::RedirectUri;
use crate::model::route::{HostPattern, HostPolicy};
use crate::model::token::ClientSecret;

/// The whole configuration, valid as a whole: `check` and `serve` both go through the one loader.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that was read; relative paths start at its folder.
    pub file: PathBuf,
    pub gateway: GatewayConfig,
    pub admin: AdminConfig,
    pub public: Option<PublicConfig>,
    pub store: StoreConfig,
    pub realms: BTreeMap<RealmName, RealmConfig>,
    pub callers: Vec<CallerConfig>,
    pub v1: V1Config,
    pub upstream: UpstreamConfig,
    pub retry: RetryConfig,
    pub renewal: RenewalConfig,
    pub log: LogConfig,
}

/// The process environment, for `load` and `secret`.
pub fn process_env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Config {
    /// The changed keys that a reload cannot take over.
    pub fn diff_needing_restart(old: &Config, new: &Config) -> Vec<&'static str> {
        reload::needing_restart(old, new)
    }

    /// Every key that a reload cannot take over. A test holds the documents to it.
    pub fn keys_needing_restart() -> Vec<&'static str> {
        let config = Config::for_tests();
        reload::compared(&config, &config).into_iter().map(|(key, _)| key).collect()
    }
}

/// `[gateway]`: the data listeners.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    pub listen: Vec<SocketAddr>,
    /// How callers reach us: in rewritten links and discovery responses. No trailing slash in its path.
    pub url: Url,
    pub trusted_proxies: Vec<IpNet>,
    pub tls: Option<GatewayTls>,
    pub forward_proxy: Option<ForwardProxyConfig>,
    /// Worker threads; 0 in the file means one per core.
    pub workers: usize,
    pub max_connections: usize,
    /// Largest request head in bytes.
    pub max_head: usize,
    pub max_headers: usize,
    /// Largest body in bytes that is kept so that a call can be repeated.
    pub replay_limit: usize,
    pub head_timeout: Duration,
    pub body_idle_timeout: Duration,
    pub keep_alive_timeout: Duration,
    pub drain_timeout: Duration,
    /// For each account, over all its callers; `None` is no limit.
    pub account_limit: Option<RateLimit>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayTls {
    pub listen: Vec<SocketAddr>,
    pub identity: ListenerIdentity,
    pub client_ca: Option<PathBuf>,
}

/// What callers are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerIdentity {
    Certificate(CertificateFiles),
    /// The folder of a private CA, whose leaves the gateway makes itself.
    Ca(PathBuf),
}

/// Listeners for programs that can be given a proxy and no other address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardProxyConfig {
    pub listen: Vec<SocketAddr>,
    /// The folder of the private CA, which also says for which hosts this is a proxy.
    pub ca: PathBuf,
}

/// A PEM chain and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// `[admin]`: operators and scrapers.
#[derive(Debug, Clone)]
pub struct AdminConfig {
    pub listen: Vec<SocketAddr>,
    /// Made at first start where the file is missing, 0600.
    pub token: SecretSource,
    /// How operators' browsers reach us; default `http://` + the first listen address.
    pub url: Option<Url>,
    pub tls: Option<CertificateFiles>,
    /// The append-only log of admin actions.
    pub audit: PathBuf,
}

/// `[public]`: the clinic's browser.
#[derive(Debug, Clone)]
pub struct PublicConfig {
    pub listen: Vec<SocketAddr>,
    pub url: Url,
    pub tls: Option<CertificateFiles>,
}

/// Where a secret that the gateway may make itself is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    File(PathBuf),
    Env(String),
}

#[derive(Debug, Clone)]
pub struct StoreConfig {
    pub url: StoreUrl,
    /// Made together with a new database where the file is missing, 0600; refused when missing beside an old
    /// one.
    pub key: SecretSource,
}

#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    Sqlite(PathBuf),
    Postgres {
        url: String,
        /// Leads around a pooler that hands sessions around, to where notifications can be heard.
        listen_url: Option<String>,
    },
}

/// The address of a database may hold a password: never printed.
impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            StoreUrl::Postgres { .. } => f.write_str("postgres://…"),
        }
    }
}

/// `[realms.NAME]`: one auth base, one API base, one set of client credentials (gen-api, section 1).
#[derive(Debug, Clone)]
pub struct RealmConfig {
    pub name: RealmName,
    /// Whose accounts these are; `None` is the default group.
    pub group: Option<RealmGroup>,
    pub kind: RealmKind,
    pub oauth_base: Url,
    pub base_url: Url,
    pub login_page: Url,
    /// What a login asks for; the documents know `openid` alone.
    pub scope: String,
    /// Further parameters of the authorize address, which no document names.
    pub authorize_parameters: BTreeMap<String, String>,
    pub redirect_uri: Url,
    pub client_id: String,
    pub client_secret: ClientSecret,
    /// Where discovery may send us; also holds `allow_insecure`.
    pub hosts: HostPolicy,
    /// Further hosts whose links become ours and see the bearer.
    pub link_hosts: Vec<HostPattern>,
    pub discovery: Discovery,
    /// Pins the route and skips discovery (the old platform's V1).
    pub route: Option<PinnedRoute>,
    /// PEM file with CAs beside the system's.
    pub ca_file: Option<PathBuf>,
    pub resolve: BTreeMap<String, IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RealmKind {
    New,
    Old,
}

/// The discovery call's address and parameters; all of it configuration, since a V3 is announced (gen-api,
/// section 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    pub path: String,
    pub name: String,
    pub version: String,
}

impl Discovery {
    /// Whether two spellings name one API: the vendor's own documents print `third-party` and `thirdparty`.
    /// Letter case and what separates the words do not count.
    pub fn same_name(one: &str, other: &str) -> bool {
        let letters = |text: &str| -> String {
            text.chars()
                .filter(|c| !matches!(c, '-' | '_' | ' ' | '.'))
                .map(|c| c.to_ascii_lowercase())
                .collect()
        };
        let one = letters(one);
        !one.is_empty() && one == letters(other)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedRoute {
    pub domain: String,
    pub path: String,
}

/// `[[callers]]`: a local program or person using the gateway.
#[derive(Clone)]
pub struct CallerConfig {
    pub name: String,
    pub reach: Reach,
    pub accounts: Vec<AccountPattern>,
    /// SHA-256 of the caller's key.
    pub key: Option<[u8; 32]>,
    pub networks: Vec<IpNet>,
    /// SHA-256 of a client certificate (DER) that stands for this caller.
    pub certificate: Option<[u8; 32]>,
    pub facade: Option<FacadeConfig>,
    pub allow: Vec<Group>,
    /// Instead of `[gateway] url` for this caller.
    pub url: Option<Url>,
    /// Over all its accounts; `None` is no limit.
    pub limit: Option<RateLimit>,
    /// Web pages that may call with this caller's key.
    pub origins: Vec<Origin>,
}

/// Which realms' accounts a caller can reach at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Those of realms of this group; `None` is the default group.
    Group(Option<RealmGroup>),
    /// Those of every realm: the operator's own calls.
    Everything,
}

/// How much may be asked for; what is over it is answered 429.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    pub per_second: Option<u32>,
    /// Calls that may come together before the rate counts.
    pub burst: u32,
    /// Calls under way at the same time.
    pub max_concurrent: Option<u32>,
}

/// Digests stay out: a weak secret can be found from one.
impl fmt::Debug for CallerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("name", &self.name)
            .field("reach", &self.reach)
            .field("accounts", &self.accounts)
            .field("key", &self.key.is_some())
            .field("networks", &self.networks)
            .field("certificate", &self.certificate.is_some())
            .field("facade", &self.facade)
            .field("allow", &self.allow)
            .field("url", &self.url.as_ref().map(Url::as_str))
            .field("origins", &self.origins)
            .finish()
    }
}

/// An entry of a caller's `accounts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountPattern {
    /// A name, perhaps with `*` in it.
    Name(String),
    /// `id` or `realm:id`.
    Id { realm: Option<RealmName>, id: crate::model::account::AccountId },
}

/// A caller that speaks the vendor's OAuth with the gateway: who it is there, and the tokens that it gets.
#[derive(Clone, PartialEq, Eq)]
pub struct FacadeConfig {
    pub client_id: String,
    /// SHA-256 of it.
    pub client_secret: [u8; 32],
    /// Where its logins may end; without any it has none.
    pub redirect_uris: Vec<RedirectUri>,
    /// The realm in which its people log in.
    pub realm: Option<RealmName>,
    /// Whether an imported refresh token that the application brings is exchanged for one of the gateway's.
    pub adopt: bool,
    /// Whether the tokens of a login come with an `id_token` of the gateway's making.
    pub id_token: bool,
    /// How long an access token of the gateway's is good.
    pub token_life: Duration,
    /// The length of an access token in bytes, where it would be shorter; 0 leaves it as it is.
    pub token_size: usize,
}

impl fmt::Debug for FacadeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facade").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// `[upstream]`: the way to the platform.
#[derive(Debug, Clone)]
pub struct UpstreamConfig {
    pub connect_timeout: Duration,
    /// From the last byte of a request to the head of its response.
    pub response_timeout: Duration,
    /// A pause in a response's body, or in our sending of a request's.
    pub idle_timeout: Duration,
    /// Idle connections kept per worker and host.
    pub max_idle_per_host: usize,
    /// Outbound proxy; `None` in the file means HTTPS_PROXY/NO_PROXY.
    pub proxy: ProxyChoice,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyChoice {
    /// HTTPS_PROXY and NO_PROXY decide.
    Environment,
    /// Never, whatever the environment says.
    None,
    Url(Url),
}

#[derive(Debug, Clone)]
pub struct RetryConfig {
    /// Sends in all, the first included (one more after a renewal).
    pub attempts: u32,
    pub initial_backoff: Duration,
    pub pairing_backoff: Duration,
    /// No new send later than this after the start.
    pub deadline: Duration,
    /// Repeats as a share of calls, per realm.
    pub budget: f64,
    pub scan_request: bool,
}

#[derive(Debug, Clone)]
pub struct RenewalConfig {
    pub min_gap: Duration,
    /// How long before expiry the scheduler renews an account in use.
    pub renew_before_expiry: Duration,
    /// How long an account may stay unused before it is refreshed all the same.
    pub idle_renewal: Duration,
}

#[derive(Debug, Clone)]
pub struct LogConfig {
    /// `info`, or directives like `info,genapi_gateway::access=debug`.
    pub level: String,
    pub format: LogFormat,
    /// The access log, one line per call.
    pub access: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Text,
}
