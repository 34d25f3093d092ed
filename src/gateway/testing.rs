//! What the tests of this module share: a small configuration and a fake account directory. Not part of the
//! program.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::access::Access;
use crate::access::registry::{Account, AccountLookup, Availability};
use crate::access::renewal::{Cause, RenewError};
use crate::access::route_candidate::RouteTrial;
use crate::clock::Timestamp;
use crate::config::{self, AccountPattern, Config};
use crate::model::account::{AccountId, AccountName, RealmName};
use crate::model::endpoint::Group;
use crate::model::route::{HostPolicy, Route};
use crate::model::token::AccessToken;

use super::inbound::account::Accounts;

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
        accounts: vec![AccountPattern::Name("*".into())],
        key: None,
        networks: vec![],
        certificate: None,
        facade: None,
        allow: Group::ALL.into_iter().filter(|group| group.allowed_by_default()).collect(),
        url: None,
    })
}

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

/// Accounts without a store: renewals follow a script.
pub struct FakeAccounts {
    accounts: Vec<Rc<FakeAccount>>,
    pub script: RefCell<VecDeque<Result<Access, RenewError>>>,
    pub renewals: RefCell<Vec<(u64, Cause)>>,
    pub behind: RefCell<Vec<Cause>>,
    pub forbidden: RefCell<Vec<bool>>,
    pub unreachable: RefCell<Vec<String>>,
    pub trials: RefCell<Vec<(String, Option<String>)>>,
}

pub struct FakeAccount {
    name: AccountName,
    realm: RealmName,
    id: AccountId,
    pub availability: RefCell<Availability>,
    pub touched: Cell<bool>,
}

impl FakeAccounts {
    pub fn with(accounts: &[(&str, &str, u64)]) -> Rc<Self> {
        let accounts = accounts
            .iter()
            .map(|(name, realm, id)| {
                Rc::new(FakeAccount {
                    name: name.parse().unwrap(),
                    realm: realm.parse().unwrap(),
                    id: AccountId::new(*id),
                    availability: RefCell::new(Availability::Renewable { generation: 0 }),
                    touched: Cell::new(false),
                })
            })
            .collect();
        Rc::new(Self {
            accounts,
            script: RefCell::default(),
            renewals: RefCell::default(),
            behind: RefCell::default(),
            forbidden: RefCell::default(),
            unreachable: RefCell::default(),
            trials: RefCell::default(),
        })
    }

    pub fn set(&self, availability: Availability) {
        *self.accounts[0].availability.borrow_mut() = availability;
    }
}

/// A token named after its generation, good at `domain`.
pub fn access(generation: u64, domain: &str, path: &str) -> Access {
    let policy = HostPolicy { allowed: vec!["127.0.0.1".parse().unwrap()], allow_insecure: true };
    let token = AccessToken::new(format!("token-{generation}"));
    Access::endless(token, Route::parse(domain, path, &policy).unwrap(), generation)
}

/// The same with a route on trial; where that is its own, it is not proven.
pub fn on_trial(access: &Access, domain: &str, path: &str) -> Access {
    let policy = HostPolicy { allowed: vec!["127.0.0.1".parse().unwrap()], allow_insecure: true };
    access.with_trial(Route::parse(domain, path, &policy).unwrap())
}

impl Accounts for Rc<FakeAccounts> {
    type Account = Rc<FakeAccount>;

    fn by_name(&self, name: &str) -> Option<Rc<FakeAccount>> {
        self.accounts.iter().find(|account| account.name.as_str() == name).cloned()
    }

    fn by_id(&self, realm: Option<&RealmName>, id: AccountId) -> AccountLookup<Rc<FakeAccount>> {
        let fits = |account: &&Rc<FakeAccount>| {
            account.id == id && realm.is_none_or(|realm| *realm == account.realm)
        };
        let found: Vec<_> = self.accounts.iter().filter(fits).collect();
        match found.as_slice() {
            [] => AccountLookup::Nobody,
            [one] => AccountLookup::One((*one).clone()),
            many => AccountLookup::Ambiguous(many.iter().map(|account| account.realm.clone()).collect()),
        }
    }

    fn all(&self) -> Vec<Rc<FakeAccount>> {
        self.accounts.clone()
    }

    fn name(account: &Rc<FakeAccount>) -> &AccountName {
        &account.name
    }

    fn entry(_account: &Rc<FakeAccount>) -> Option<Arc<Account>> {
        None
    }

    fn identity(account: &Rc<FakeAccount>) -> (RealmName, AccountId) {
        (account.realm.clone(), account.id)
    }

    fn availability(account: &Rc<FakeAccount>, _now: Timestamp) -> Availability {
        account.availability.borrow().clone()
    }

    fn mark_used(account: &Rc<FakeAccount>, _now: Timestamp) {
        account.touched.set(true);
    }

    async fn renew(
        &self,
        _account: &Rc<FakeAccount>,
        seen_generation: u64,
        cause: Cause,
    ) -> Result<Access, RenewError> {
        self.renewals.borrow_mut().push((seen_generation, cause));
        self.script.borrow_mut().pop_front().expect("a test that renews says what comes of it")
    }

    async fn join(&self, _account: &Rc<FakeAccount>) -> Option<Result<Access, RenewError>> {
        self.script.borrow_mut().pop_front()
    }

    fn renew_in_background(&self, _account: &Rc<FakeAccount>, _seen_generation: u64, cause: Cause) {
        self.behind.borrow_mut().push(cause);
    }

    fn report_forbidden(&self, _account: &Rc<FakeAccount>, cured: bool) {
        self.forbidden.borrow_mut().push(cured);
    }

    fn route_unreachable(&self, _account: &Rc<FakeAccount>, route: &Arc<Route>, _why: &str) {
        self.unreachable.borrow_mut().push(route.to_string());
    }

    fn route_tried(&self, _account: &Rc<FakeAccount>, trial: &Arc<RouteTrial>, failure: Option<String>) {
        self.trials.borrow_mut().push((trial.route().to_string(), failure));
    }
}

impl FakeAccounts {
    pub fn name(account: &Rc<FakeAccount>) -> &AccountName {
        &account.name
    }
}
