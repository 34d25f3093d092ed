//! An application pairs an account. The rule: the platform sees one pairing for each account; an account that
//! is connected here already is joined, which is what spares a laboratory the refusal of a second application
//! (Authentication and Pairing V2, 4.3.1: 409).

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use super::super::Pairing;
use super::super::connect::Login;
use super::super::outcome::LoginError;
use super::super::pending::PairingRequest;
use super::login::{LoginId, OfferedAccount, PairedApplication};
use crate::access::account::Availability;
use crate::access::registry::AccountLookup;
use crate::model::account::{AccountId, RealmName};

/// Holds back a second pairing of one account until the first is through, so that it finds it connected.
#[derive(Default)]
pub(in crate::pairing) struct PairingLocks {
    held: std::sync::Mutex<Vec<(AccountKey, Weak<tokio::sync::Mutex<()>>)>>,
}

type AccountKey = (RealmName, AccountId);

impl PairingLocks {
    fn of(&self, key: AccountKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|(_, lock)| lock.strong_count() > 0);
        let known = held.iter().find(|(known, _)| *known == key);
        if let Some(lock) = known.and_then(|(_, lock)| lock.upgrade()) {
            return lock;
        }
        let lock = Arc::default();
        held.push((key, Arc::downgrade(&lock)));
        lock
    }
}

/// Twice the time after which other gateways look what has changed, where nobody tells them.
const PROPAGATION: Duration = Duration::from_secs(1);

impl Pairing {
    /// Pairs an account that [`Pairing::offered_accounts`] has just listed for this login, or joins it. To be
    /// run in a task of its own: what the platform hands out must reach the store.
    pub async fn pair_for_application(
        self: &Arc<Self>,
        id: LoginId,
        caller: &str,
        offered: OfferedAccount,
        callback_url: Option<&str>,
    ) -> Result<PairedApplication, LoginError> {
        let OfferedAccount { account, realm, .. } = offered;
        let lock = self.pairing_locks.of((realm.clone(), account.id));
        let _one_at_a_time = lock.lock().await;
        let joined = self.joined(&realm, account.id);
        // One that somebody has unpaired at the platform looks alive here until its token is refused.
        if let (Some(joined), true) = (&joined, account.paired) {
            return Ok(joined.clone());
        }
        let login = self.live_login(id, caller).await?;
        let request = PairingRequest {
            account_id: Some(account.id),
            ..PairingRequest::by_application(&realm, callback_url)
        };
        let login =
            Login { request, start: None, realm: login.realm, access: login.access, route: login.route };
        let paired = match (self.pair(login, account).await, joined) {
            (Ok(paired), _) => paired,
            (Err(error), Some(joined)) => {
                tracing::info!(account = %joined.name, stop = error.code(), "not paired anew; the account is joined");
                return Ok(joined);
            }
            (Err(error), None) => return Err(error),
        };
        let connected = self.save_with_retries(paired).await;
        if !connected.saved {
            // The tokens are safe in memory and on their way to the store; asked again, the account is
            // joined.
            return Err(LoginError::PairedNotSaved);
        }
        if self.store.cluster().is_some() {
            // The application's next call may arrive at a gateway that has not heard of the account.
            self.clock.sleep(PROPAGATION).await;
        }
        Ok(PairedApplication { name: connected.name, warnings: connected.platform_warnings })
    }

    /// An account whose grant nobody has seen fail needs no pairing. One that an operator has paused stays
    /// paused.
    fn joined(&self, realm: &RealmName, id: AccountId) -> Option<PairedApplication> {
        let AccountLookup::One(account) = self.registry.by_id(Some(realm), id) else { return None };
        if account.identity() != (realm.clone(), id) {
            return None;
        }
        match account.availability(self.clock.now()) {
            Availability::NeedsLogin { .. } => None,
            Availability::Ready(_)
            | Availability::Refused { .. }
            | Availability::Renewable { .. }
            | Availability::Paused => {
                Some(PairedApplication { name: account.name.clone(), warnings: Vec::new() })
            }
        }
    }
}
