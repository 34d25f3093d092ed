//! What the request path needs of the configuration, compiled for look-up. A reload replaces all of it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use crate::config;
use crate::model::account::{AccountId, AccountName, RealmName};
use crate::model::endpoint::Group;
use crate::model::origin::Origin;
use crate::model::route::{HostPattern, HostPolicy};

use super::inbound::limits::CallLimiter;

/// A snapshot of the configuration as the request path sees it.
pub struct GatewaySettings {
    pub callers: Vec<Arc<CallerRules>>,
    /// Whether any of them speaks the vendor's OAuth with the gateway.
    pub has_facades: bool,
    by_key: HashMap<[u8; 32], Arc<CallerRules>>,
    by_certificate: HashMap<[u8; 32], Arc<CallerRules>>,
    /// Longest prefix first.
    networks: Vec<(IpNet, Arc<CallerRules>)>,
    trusted: Vec<IpNet>,
    /// A handful: walking them is cheaper than hashing them.
    realms: Vec<(RealmName, Arc<RealmPolicy>)>,
    pub v1: config::V1Config,
    pub retry: config::RetryConfig,
    pub replay_limit: usize,
    pub body_idle: Duration,
    pub response_timeout: Duration,
    pub idle_timeout: Duration,
    pub pool: usize,
    pub account_limit: Option<config::RateLimit>,
}

/// One `[[callers]]` entry.
#[derive(Debug)]
pub struct CallerRules {
    pub name: String,
    pub accounts: Vec<config::AccountPattern>,
    /// The realms of its group, where realms are in groups at all; `None` where no wall stands.
    realms: Option<Box<[RealmName]>>,
    pub allow: Vec<Group>,
    /// How this caller reaches us.
    pub url: BaseUrl,
    pub limiter: Option<Arc<CallLimiter>>,
    facade: Option<config::FacadeConfig>,
    origins: Vec<Origin>,
}

/// One `[realms.NAME]` as far as calls are concerned.
#[derive(Debug)]
pub struct RealmPolicy {
    pub hosts: HostPolicy,
    pub link_hosts: Vec<HostPattern>,
    pub discovery: config::Discovery,
}

/// The address under which callers know the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    /// `http://127.0.0.1:8080`
    pub origin: String,
    /// Empty, or begins with `/` and does not end with one.
    pub path: String,
}

impl BaseUrl {
    pub fn new(url: &Url) -> Self {
        Self { origin: url.origin().ascii_serialization(), path: url.path().trim_end_matches('/').to_owned() }
    }
}

impl GatewaySettings {
    pub fn compile(config: &config::Config) -> Self {
        let callers: Vec<_> =
            config.callers.iter().map(|caller| Arc::new(caller_rules(config, caller))).collect();
        let pairs = || config.callers.iter().zip(&callers);
        let mut networks: Vec<_> = pairs()
            .flat_map(|(caller, rules)| caller.networks.iter().map(move |net| (*net, rules.clone())))
            .collect();
        networks.sort_by_key(|(net, _)| std::cmp::Reverse(net.prefix_len()));
        Self {
            has_facades: callers.iter().any(|caller| caller.has_facade()),
            by_key: pairs().filter_map(|(caller, rules)| Some((caller.key?, rules.clone()))).collect(),
            by_certificate: pairs()
                .filter_map(|(caller, rules)| Some((caller.certificate?, rules.clone())))
                .collect(),
            networks,
            trusted: config.gateway.trusted_proxies.clone(),
            realms: config
                .realms
                .iter()
                .map(|(name, realm)| (name.clone(), Arc::new(realm_policy(realm))))
                .collect(),
            v1: config.v1.clone(),
            retry: config.retry.clone(),
            replay_limit: config.gateway.replay_limit,
            body_idle: config.gateway.body_idle_timeout,
            response_timeout: config.upstream.response_timeout,
            idle_timeout: config.upstream.idle_timeout,
            pool: config.upstream.max_idle_per_host,
            account_limit: config.gateway.account_limit,
            callers,
        }
    }

    /// A look-up by digest: the key itself is never compared, so its time of look-up tells nothing about it.
    pub fn caller_by_key(&self, digest: &[u8; 32]) -> Option<&Arc<CallerRules>> {
        self.by_key.get(digest)
    }

    pub fn caller_by_certificate(&self, fingerprint: &[u8; 32]) -> Option<&Arc<CallerRules>> {
        self.by_certificate.get(fingerprint)
    }

    pub fn caller_by_network(&self, addr: IpAddr) -> Option<&Arc<CallerRules>> {
        self.networks.iter().find(|(net, _)| net.contains(&addr)).map(|(_, rules)| rules)
    }

    pub fn caller_by_name(&self, name: &str) -> Option<&Arc<CallerRules>> {
        self.callers.iter().find(|rules| rules.name == name)
    }

    /// The caller that uses these OAuth credentials at the facade.
    pub fn caller_by_client_id(&self, client_id: &str) -> Option<&Arc<CallerRules>> {
        let is_it = |rules: &&Arc<CallerRules>| {
            rules.facade.as_ref().is_some_and(|facade| facade.client_id == client_id)
        };
        self.callers.iter().find(is_it)
    }

    pub fn is_trusted_proxy(&self, addr: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(&addr))
    }

    pub fn realm(&self, name: &RealmName) -> Option<&Arc<RealmPolicy>> {
        self.realms.iter().find(|(known, _)| known == name).map(|(_, rules)| rules)
    }
}

impl CallerRules {
    /// Whether accounts of a realm are of the caller's group.
    pub fn reaches(&self, realm: &RealmName) -> bool {
        self.realms.as_ref().is_none_or(|realms| realms.contains(realm))
    }

    /// `identity` is asked for only where the name does not decide.
    pub fn may_use(&self, name: &AccountName, identity: impl Fn() -> (RealmName, AccountId)) -> bool {
        if self.is_walled() && !self.reaches(&identity().0) {
            return false;
        }
        self.accounts.iter().any(|pattern| match pattern {
            config::AccountPattern::Name(glob) => name.matches(glob),
            config::AccountPattern::Id { realm: wanted, id: wanted_id } => {
                let (realm, id) = identity();
                *wanted_id == id && wanted.as_ref().is_none_or(|wanted| *wanted == realm)
            }
        })
    }

    /// Whether there are accounts out of this caller's reach, because of their group.
    pub fn is_walled(&self) -> bool {
        self.realms.is_some()
    }

    /// Whether the rules allow a name, whether or not there is such an account.
    pub fn may_cover_name(&self, name: &AccountName) -> bool {
        self.accounts.iter().any(|pattern| match pattern {
            config::AccountPattern::Name(glob) => name.matches(glob),
            config::AccountPattern::Id { .. } => false,
        })
    }

    /// Whether the rules allow an id, whether or not there is such an account.
    pub fn may_cover_id(&self, realm: Option<&RealmName>, id: AccountId) -> bool {
        if !realm.is_none_or(|realm| self.reaches(realm)) {
            return false;
        }
        self.accounts.iter().any(|pattern| match pattern {
            config::AccountPattern::Name(glob) => glob == "*",
            config::AccountPattern::Id { realm: wanted, id: wanted_id } => {
                *wanted_id == id && (wanted.is_none() || realm.is_none() || wanted.as_ref() == realm)
            }
        })
    }

    /// How long a gateway token of this caller is good.
    pub fn token_life(&self) -> Duration {
        self.facade.as_ref().map_or(config::defaults::FACADE_TOKEN_LIFE, |facade| facade.token_life)
    }

    /// How many bytes a gateway token of this caller has at least.
    pub fn token_size(&self) -> usize {
        self.facade.as_ref().map_or(config::defaults::FACADE_TOKEN_SIZE, |facade| facade.token_size)
    }

    /// Whether an imported refresh token that this caller brings is exchanged for one of the gateway's.
    pub fn adopts_tokens(&self) -> bool {
        self.facade.as_ref().is_some_and(|facade| facade.adopt)
    }

    /// Whether people may log in by this caller's application.
    pub fn has_logins(&self) -> bool {
        self.facade.as_ref().is_some_and(|facade| !facade.redirect_uris.is_empty())
    }

    /// Whether an account that is not connected here may become this caller's: its name is the platform's
    /// text, so it permits nothing.
    pub fn may_connect(&self, realm: &RealmName, id: AccountId) -> bool {
        self.may_cover_id(Some(realm), id)
    }

    /// The realm in which this caller's people log in.
    pub fn login_realm(&self) -> Option<&RealmName> {
        self.facade.as_ref()?.realm.as_ref()
    }

    /// The client id that this caller uses at the facade.
    pub fn client_id(&self) -> Option<&str> {
        self.facade.as_ref().map(|facade| facade.client_id.as_str())
    }

    /// Whether the tokens of a login come with an `id_token`.
    pub fn wants_id_token(&self) -> bool {
        self.facade.as_ref().is_some_and(|facade| facade.id_token)
    }

    /// Whether this caller speaks the vendor's OAuth with the gateway.
    pub fn has_facade(&self) -> bool {
        self.facade.is_some()
    }

    /// Compares digests in constant time.
    pub fn facade_secret_is(&self, sha256: &[u8; 32]) -> bool {
        let same = |facade: &config::FacadeConfig| {
            aws_lc_rs::constant_time::verify_slices_are_equal(&facade.client_secret, sha256).is_ok()
        };
        self.facade.as_ref().is_some_and(same)
    }

    /// Whether a web page of this origin may use this caller's key.
    pub fn allows_origin(&self, origin: &[u8]) -> bool {
        self.origins.iter().any(|known| known.is(origin))
    }

    /// The one account of a caller whose `accounts` is a single literal.
    pub fn single_account(&self) -> Option<&config::AccountPattern> {
        match self.accounts.as_slice() {
            [config::AccountPattern::Name(glob)] if glob.contains('*') => None,
            [only] => Some(only),
            _ => None,
        }
    }
}

fn caller_rules(config: &config::Config, caller: &config::CallerConfig) -> CallerRules {
    CallerRules {
        name: caller.name.clone(),
        accounts: caller.accounts.clone(),
        realms: reached_realms(config, &caller.reach),
        allow: caller.allow.clone(),
        url: BaseUrl::new(caller.url.as_ref().unwrap_or(&config.gateway.url)),
        limiter: caller.limit.map(CallLimiter::new),
        facade: caller.facade.clone(),
        origins: caller.origins.clone(),
    }
}

/// `None` where nothing is in a group but the default one, or nothing is out of reach.
fn reached_realms(config: &config::Config, reach: &config::Reach) -> Option<Box<[RealmName]>> {
    let config::Reach::Group(group) = reach else { return None };
    let has_walls = group.is_some() || config.realms.values().any(|realm| realm.group.is_some());
    let own = config.realms.values().filter(|realm| realm.group == *group);
    has_walls.then(|| own.map(|realm| realm.name.clone()).collect())
}

fn realm_policy(realm: &config::RealmConfig) -> RealmPolicy {
    RealmPolicy {
        hosts: realm.hosts.clone(),
        link_hosts: realm.link_hosts.clone(),
        discovery: realm.discovery.clone(),
    }
}
