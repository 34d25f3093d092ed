//! Issues and revokes application grants. The rule: a grant is on the disk before its refresh token is sent,
//! and an application that asks again gets the same one (Authentication and Pairing V2, 4.3.1).

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::Mutex;

use crate::journal::{Journal, JournalEvent};
use crate::model::account::AccountName;
use crate::model::token::RefreshToken;
use crate::store::{ApplicationGrant, Store, StoreError};

use super::application_grants::{ApplicationGrants, fresh_token};

/// Writes application grants; cheap to clone.
#[derive(Clone)]
pub struct ApplicationGrantIssuer {
    store: Arc<dyn Store>,
    grants: Arc<ApplicationGrants>,
    journal: Journal,
    /// The store's calls run here, so that a caller that disconnects stops none.
    runtime: Handle,
    /// Held from reading the store until memory agrees with it: what was read before a revocation must not be
    /// added after it.
    sync_lock: Arc<Mutex<()>>,
}

impl ApplicationGrantIssuer {
    pub fn new(
        store: Arc<dyn Store>,
        grants: Arc<ApplicationGrants>,
        journal: Journal,
        runtime: Handle,
    ) -> Self {
        Self { store, grants, journal, runtime, sync_lock: Arc::default() }
    }

    /// The refresh token of the caller's grant for the account, which is made where there is none. A callback
    /// URL is kept beside it, the latest that was named.
    pub async fn issue(
        &self,
        caller: &str,
        account: &AccountName,
        callback_url: Option<&str>,
    ) -> Result<RefreshToken, StoreError> {
        let (issuer, offered) = (self.clone(), offer(caller, account, callback_url));
        self.detach(async move {
            let mut standing = issuer.store.put_application_grant(&offered).await?;
            if offered.callback_url.is_some() && standing.callback_url != offered.callback_url {
                let ApplicationGrant { caller, account, callback_url, .. } = &offered;
                issuer.store.set_callback_url(caller, account, callback_url.as_deref()).await?;
                standing.callback_url = callback_url.clone();
            }
            issuer.grants.learn(standing.clone());
            if standing.refresh == offered.refresh {
                let detail = format!("{} holds a grant of the gateway's own now", offered.caller);
                issuer.journal.record(&offered.account, JournalEvent::ApplicationConnected, detail);
            }
            Ok(standing.refresh)
        })
        .await
    }

    /// Ends the caller's grant for the account, with every access token that came of it. Says whether there
    /// was one. The account's own grant at the platform stays, and so do other callers'.
    pub async fn revoke(&self, caller: &str, account: &AccountName) -> Result<bool, StoreError> {
        let issuer = self.clone();
        let (caller, account) = (caller.to_owned(), account.clone());
        self.detach(async move {
            let was_there = issuer.store.remove_application_grant(&caller, &account).await?;
            issuer.grants.remove(&caller, &account);
            if was_there {
                let detail = format!("{caller} has revoked its grant; the account stays paired");
                issuer.journal.record(&account, JournalEvent::ApplicationDetached, detail);
            }
            Ok(was_there)
        })
        .await
    }

    /// Reads grants that other gateways on the store have issued, before the store's changes bring them. A
    /// failure only delays.
    pub async fn load_missing(&self) {
        if self.store.cluster().is_none() {
            return;
        }
        let issuer = self.clone();
        let read = self.detach(async move {
            let held = issuer.store.application_grants(None).await?;
            issuer.grants.extend(held);
            Ok(())
        });
        if let Err(problem) = read.await {
            tracing::warn!(%problem, "the grants of applications cannot be read yet");
        }
    }

    /// Reads what the store now holds for an account that another gateway has changed.
    pub async fn reload_account(&self, account: &AccountName) {
        let (issuer, name) = (self.clone(), account.clone());
        let read = self.detach(async move {
            let held = issuer.store.application_grants(Some(&name)).await?;
            issuer.grants.replace_of(&name, held);
            Ok(())
        });
        if let Err(problem) = read.await {
            tracing::warn!(%account, %problem, "the grants of applications for it cannot be read yet");
        }
    }

    async fn detach<T: Send + 'static>(
        &self,
        step: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let sync_lock = self.sync_lock.clone();
        let done = self.runtime.spawn(async move {
            let _sync_lock = sync_lock.lock().await;
            step.await
        });
        let done = done.await;
        done.unwrap_or_else(|problem| Err(StoreError::Unavailable(problem.to_string().into())))
    }
}

fn offer(caller: &str, account: &AccountName, callback_url: Option<&str>) -> ApplicationGrant {
    ApplicationGrant {
        caller: caller.to_owned(),
        account: account.clone(),
        refresh: fresh_token(),
        callback_url: callback_url.map(str::to_owned),
    }
}
