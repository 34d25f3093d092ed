//! What the tests of this module share: a small configuration, and accounts on a real registry whose platform
//! follows a script. Not part of the program.

use std::sync::Arc;
use std::time::Duration;

use crate::access::doubles::{ScriptedPlatform, Workbench};
use crate::access::registry::AccountRegistry;
use crate::config::{self, AccountPattern, Config};
use crate::model::endpoint::Group;
use crate::model::route::{HostPolicy, Route};

/// The configuration of all tests with short times.
pub fn config() -> Config {
    let mut config = Config::for_tests();
    config.gateway.replay_limit = 64 * 1024;
    config.gateway.body_idle_timeout = Duration::from_secs(30);
    config.upstream.response_timeout = Duration::from_secs(30);
    config.upstream.idle_timeout = Duration::from_secs(30);
    config.upstream.max_idle_per_host = 8;
    config
}

/// Everything but pair, unpair, revoke; every account.
pub fn caller(name: &str) -> CallerBuilder {
    CallerBuilder(config::CallerConfig {
        limit: None,
        origins: vec![],
        name: name.into(),
        reach: config::Reach::Group(None),
        accounts: vec![AccountPattern::Name("*".into())],
        key: None,
        networks: vec![],
        certificate: None,
        facade: None,
        allow: Group::ALL.into_iter().filter(|group| group.allowed_by_default()).collect(),
        url: None,
    })
}

#[derive(Clone)]
pub struct CallerBuilder(config::CallerConfig);

impl CallerBuilder {
    pub fn key(mut self, digest: [u8; 32]) -> Self {
        self.0.key = Some(digest);
        self
    }

    pub fn certificate(mut self, fingerprint: [u8; 32]) -> Self {
        self.0.certificate = Some(fingerprint);
        self
    }

    pub fn network(mut self, net: &str) -> Self {
        self.0.networks.push(net.parse().unwrap());
        self
    }

    pub fn group(mut self, group: &str) -> Self {
        self.0.reach = config::Reach::Group(Some(group.parse().unwrap()));
        self
    }

    /// Names, patterns, ids and `realm:id`, as the file has them.
    pub fn accounts(mut self, patterns: &[&str]) -> Self {
        self.0.accounts = patterns.iter().map(|text| pattern(text)).collect();
        self
    }

    pub fn origin(mut self, origin: &str) -> Self {
        self.0.origins.push(origin.parse().unwrap());
        self
    }

    pub fn build(self) -> config::CallerConfig {
        self.0
    }
}

fn pattern(text: &str) -> AccountPattern {
    let (realm, rest) = match text.split_once(':') {
        Some((realm, rest)) => (Some(realm.parse().unwrap()), rest),
        None => (None, text),
    };
    match rest.parse() {
        Ok(id) => AccountPattern::Id { realm, id },
        Err(_) => AccountPattern::Name(rest.into()),
    }
}

/// A route of the tests: on loopback, over http.
pub fn route(domain: &str, path: &str) -> Route {
    Route::parse(domain, path, &loopback()).unwrap()
}

fn loopback() -> HostPolicy {
    HostPolicy { allowed: vec!["127.0.0.1".parse().unwrap()], allow_insecure: true }
}

/// No account yet; their calls may go to loopback. Needs a runtime, where the renewals run.
pub async fn workbench() -> Workbench {
    let bench = Workbench::new(ScriptedPlatform::new(true), &[]).await;
    bench.allow_hosts(loopback());
    bench
}

/// A registry with these accounts: name, realm, id.
pub fn registry(accounts: &[(&str, &str, u64)]) -> Arc<AccountRegistry> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let bench = workbench().await;
        for (name, realm, id) in accounts {
            bench.pair(name, realm, *id, None).await;
        }
        bench.registry
    })
}
