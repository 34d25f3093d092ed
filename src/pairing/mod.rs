//! Login, discovery, choosing an account, pairing; and what operators do to accounts. Every outcome is a
//! value with words for people.
//!
//! The rules guarded here: a code or state works once, within its time and only for the browser that began
//! (threats, row 9); pair tokens are never lost once the platform has handed them out; login tokens are
//! forgotten, never revoked (gen-api, section 2).

mod account_changes;
mod accounts;
mod application;
mod callback;
mod code;
mod connect;
mod grant_removal;
mod import;
mod import_file;
mod import_plan;
mod messages;
mod migration;
mod moves;
mod naming;
mod outcome;
mod pending;
mod progress;
mod publish;
mod retry;
mod start;
mod versions;
mod walls;

#[cfg(test)]
pub(crate) mod doubles;
#[cfg(test)]
mod stories;

pub use account_changes::{AccountChangeError, AccountRemovalPreview, RenamePreview};
pub use accounts::{ExportedGrant, Invitation, InviteRequest, OperatorError, PauseResult, Selection};
pub use application::{
    ApplicationClient, ApplicationLogin, Authorization, CodeExchange, CodeExchangeError, LoginId,
    OfferedAccount, PairedApplication, is_login_token,
};
pub use callback::{CallbackResult, LoginProof};
pub use code::{Code, Cookie};
pub use grant_removal::{GrantRemoval, GrantRemovalError, GrantRemovalPreview, RemovedGrant};
pub use import::{ImportLine, OPERATOR_PACE};
pub use import_file::{ImportFileError, read_import};
pub use import_plan::{ImportEntry, ImportOptions, ImportPreview, ImportResult, ReplaceHit};
pub use migration::{MigrationLine, MigrationState, NextBy};
pub use moves::{MoveLine, MoveRequest, MoveResult, MovedAccount};
pub use outcome::{Choice, Connected, LoginError, LoginOutcome, UserMessage};
pub use progress::LoginProgress;
pub use start::{Begin, PastedStart, StartLink, StartLinkError, StartOffer, StartRequest};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use url::Url;

use crate::access::control_calls::ControlCalls;
use crate::access::known_tokens::KnownTokens;
use crate::access::registry::AccountRegistry;
use crate::access::renewal::Renewals;
use crate::clock::Clock;
use crate::config::{self, RealmKind};
use crate::journal::Journal;
use crate::model::account::{AccountName, RealmGroup, RealmName};
use crate::model::route::{HostPolicy, Route};
use crate::store::{AccountRecord, Store, StoreError};
use pending::PendingLogins;
use walls::Walls;

/// How long a link of `accounts pair` works: the operator is sitting in front of it.
pub const PAIR_LINK_VALID: Duration = Duration::from_secs(10 * 60);
/// How long a link of `accounts invite` works by default: it is mailed to a clinic.
pub const INVITE_LINK_VALID: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// No link works longer than this.
pub const LONGEST_LINK_VALID: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long a login may be under way, and how long its tokens wait for a choice (threats, row 9).
pub const LOGIN_VALID: Duration = Duration::from_secs(10 * 60);

/// Where applications' browsers begin a login, at the redirect URI's origin.
pub const AUTHORIZE_PATH: &str = "/connect/authorize";

/// What pairing is made of.
pub struct PairingParts {
    pub clock: Clock,
    pub store: Arc<dyn Store>,
    pub realms: BTreeMap<RealmName, PairingRealm>,
    pub applications: Vec<ApplicationClient>,
    pub retry: config::RetryConfig,
    pub registry: Arc<AccountRegistry>,
    pub renewals: Renewals,
    pub journal: Journal,
    pub known_tokens: Arc<KnownTokens>,
}

/// What pairing needs to know of a realm.
#[derive(Clone)]
pub struct PairingRealm {
    pub group: Option<RealmGroup>,
    pub kind: RealmKind,
    pub redirect_uri: Url,
    pub hosts: HostPolicy,
    pub calls: Arc<dyn ControlCalls>,
}

impl PairingRealm {
    pub fn new(realm: &config::RealmConfig, calls: Arc<dyn ControlCalls>) -> Self {
        Self {
            group: realm.group.clone(),
            kind: realm.kind,
            redirect_uri: realm.redirect_uri.clone(),
            hosts: realm.hosts.clone(),
            calls,
        }
    }

    /// Whether the browser reaches us by https, so that a cookie can be kept to it.
    fn secure(&self) -> bool {
        self.redirect_uri.scheme() == "https"
    }

    /// Where links begin: the redirect URI's origin, since the cookie that binds a login has to come back
    /// there. Never taken from a request (threats, row 5).
    fn origin(&self) -> String {
        self.redirect_uri.origin().ascii_serialization()
    }

    /// Reads back a route that was kept, by the rules of now.
    fn route(&self, domain: &str, path: &str) -> Option<Route> {
        Route::parse(domain, path, &self.hosts).ok()
    }
}

/// Makes grants out of logins.
pub struct Pairing {
    clock: Clock,
    store: Arc<dyn Store>,
    registry: Arc<AccountRegistry>,
    renewals: Renewals,
    journal: Journal,
    known_tokens: Arc<KnownTokens>,
    settings: ArcSwap<PairingSettings>,
    pending: PendingLogins,
    failures: progress::RecentFailures,
    /// Held while a name is decided and its grant written: two logins must not settle on the same free name.
    saving: tokio::sync::Mutex<()>,
    unsaved: AtomicUsize,
    pairing_locks: application::PairingLocks,
}

/// The part of the configuration that a reload replaces.
struct PairingSettings {
    realms: BTreeMap<RealmName, PairingRealm>,
    applications: Vec<ApplicationClient>,
    retry: config::RetryConfig,
}

impl Pairing {
    pub fn new(parts: PairingParts) -> Arc<Self> {
        let PairingParts {
            clock,
            store,
            realms,
            applications,
            retry,
            registry,
            renewals,
            journal,
            known_tokens,
        } = parts;
        Arc::new(Self {
            pending: PendingLogins::new(clock.clone(), store.clone()),
            failures: progress::RecentFailures::default(),
            clock,
            store,
            registry,
            renewals,
            journal,
            known_tokens,
            settings: ArcSwap::from_pointee(PairingSettings { realms, applications, retry }),
            saving: tokio::sync::Mutex::new(()),
            unsaved: AtomicUsize::new(0),
            pairing_locks: application::PairingLocks::default(),
        })
    }

    /// Takes over a reloaded configuration; logins under way go on with it.
    pub fn reload(
        &self,
        realms: BTreeMap<RealmName, PairingRealm>,
        applications: Vec<ApplicationClient>,
        retry: config::RetryConfig,
    ) {
        self.settings.store(Arc::new(PairingSettings { realms, applications, retry }));
    }

    /// The paths at which browsers come back, one per realm or shared.
    pub fn callback_paths(&self) -> BTreeSet<String> {
        self.settings.load().realms.values().map(|realm| realm.redirect_uri.path().to_owned()).collect()
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// How many paired accounts wait for the store to take their tokens: above zero is an alarm.
    pub fn unsaved(&self) -> usize {
        self.unsaved.load(Ordering::Relaxed)
    }

    /// The callers that hold tokens of the gateway's own for an account, by name.
    pub fn applications_of(&self, account: &AccountName) -> Vec<String> {
        self.known_tokens.application_grants.callers_of(account)
    }

    fn realm(&self, name: &RealmName) -> Option<PairingRealm> {
        self.settings.load().realms.get(name).cloned()
    }

    fn walls(&self) -> Walls {
        Walls::of(&self.settings.load().realms)
    }

    fn retry(&self) -> config::RetryConfig {
        self.settings.load().retry.clone()
    }

    /// Accounts whose records are broken are not among them; the store
    /// still refuses what would collide with one.
    async fn records(&self) -> Result<Vec<AccountRecord>, StoreError> {
        self.store.accounts().await.map(|loaded| loaded.accounts)
    }
}
