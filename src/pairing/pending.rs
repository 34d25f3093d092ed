//! What waits in the store between two steps of a login: start links, states, choices. Each is used once; a
//! used one leaves a mark until its time is over, so that "already used" can be distinguished from "unknown".

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::application::ApplicationRequest;
use super::code::{Code, CodeHash};
use crate::clock::{Clock, Timestamp};
use crate::model::account::{AccountId, AccountName, RealmName};
use crate::platform::RelatedAccount;
use crate::store::{PendingKind, PendingLogin, Store, StoreError};

/// What a login is for.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct PairingRequest {
    pub realm: RealmName,
    pub name: Option<AccountName>,
    pub account_id: Option<AccountId>,
    pub callback_url: Option<String>,
    /// The application that began it at the gateway's authorize endpoint; the login is then its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<ApplicationRequest>,
}

impl PairingRequest {
    /// For whatever account an application's login chooses.
    pub fn by_application(realm: &RealmName, callback_url: Option<&str>) -> Self {
        Self {
            realm: realm.clone(),
            name: None,
            account_id: None,
            callback_url: callback_url.map(str::to_owned),
            application: None,
        }
    }
}

/// Who may go on with a login.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct SessionBinding {
    pub by: BoundBy,
    pub hash: CodeHash,
}

/// How the one who began a login is recognised.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum BoundBy {
    Cookie,
    /// The id that the operator's command holds, who pastes the redirected URL.
    Operator,
}

/// A start link that was handed out.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct PendingStart {
    #[serde(rename = "order")]
    pub request: PairingRequest,
}

/// An OAuth `state` under way.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct PendingState {
    #[serde(rename = "order")]
    pub request: PairingRequest,
    #[serde(rename = "bound")]
    pub binding: SessionBinding,
    /// The start link's code, for "try again"; an operator who pastes
    /// has none. Sealed by the store like the rest.
    pub start: Option<Code>,
}

/// Logged in, the account is yet to be chosen. Holds the login's access
/// token; its refresh token is forgotten already.
#[derive(Serialize, Deserialize)]
pub(super) struct PendingChoice {
    pub login: PendingState,
    pub access: String,
    pub domain: String,
    pub path: String,
    pub accounts: Vec<RelatedAccount>,
}

/// What the store can keep under a code.
pub(super) trait PendingPayload: Serialize + DeserializeOwned {
    const KIND: PendingKind;
}

impl PendingPayload for PendingStart {
    const KIND: PendingKind = PendingKind::Start;
}

impl PendingPayload for PendingState {
    const KIND: PendingKind = PendingKind::State;
}

impl PendingPayload for PendingChoice {
    const KIND: PendingKind = PendingKind::Choice;
}

/// The response to a look-up.
pub(super) enum CodeStatus<T> {
    Live {
        what: T,
        expires_at: Timestamp,
    },
    Used {
        by: Option<AccountName>,
    },
    /// Never handed out, or its time is over.
    Unknown,
}

/// A pending login as the store keeps it: live, or the mark that a used one leaves.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredLogin<T> {
    Live(Timestamped<T>),
    Used { by: Option<AccountName> },
}

/// With the moment at which it was made, so that an end which a wrong clock put too far away is noticed.
#[derive(Serialize, Deserialize)]
struct Timestamped<T> {
    /// In milliseconds, as the store keeps the end. Absent where an older gateway wrote it.
    #[serde(default)]
    made_at: Option<u64>,
    #[serde(flatten)]
    what: T,
}

/// Its clock and ours may be that far apart, where another gateway made it.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(2);

/// Pending logins, by code.
pub(super) struct PendingLogins {
    clock: Clock,
    store: Arc<dyn Store>,
}

impl PendingLogins {
    pub fn new(clock: Clock, store: Arc<dyn Store>) -> Self {
        Self { clock, store }
    }

    /// Keeps something under a fresh code and returns the code and its end.
    pub async fn put<T: PendingPayload>(
        &self,
        what: T,
        valid_for: Duration,
    ) -> Result<(Code, Timestamp), StoreError> {
        let (code, expires_at) = (Code::fresh(), self.clock.now() + valid_for);
        self.put_under(code.hash(), what, expires_at).await?;
        Ok((code, expires_at))
    }

    /// Keeps something under the hash of a secret that nobody has used yet.
    pub async fn put_under<T: PendingPayload>(
        &self,
        hash: CodeHash,
        what: T,
        expires_at: Timestamp,
    ) -> Result<(), StoreError> {
        let timestamped = Timestamped { made_at: Some(self.clock.now().as_millis()), what };
        self.write(hash, StoredLogin::Live(timestamped), expires_at).await
    }

    /// Looks without using it up.
    pub async fn peek<T: PendingPayload>(&self, code: &Code) -> Result<CodeStatus<T>, StoreError> {
        self.peek_by(code.hash()).await
    }

    pub async fn peek_by<T: PendingPayload>(&self, hash: CodeHash) -> Result<CodeStatus<T>, StoreError> {
        let stored = self.store.peek_login(hash.as_bytes(), T::KIND, self.clock.now()).await?;
        let Some(mut stored) = stored else { return Ok(CodeStatus::Unknown) };
        if let Some(made_at) = made_in_the_future::<T>(&stored, self.clock.now()) {
            // A clock was wrong when it was made. From now on it is good for as long as it was meant to be.
            let now = self.clock.now();
            stored.expires_at = now + stored.expires_at.since(made_at);
            if let Ok(StoredLogin::Live(timestamped)) =
                serde_json::from_str::<StoredLogin<T>>(&stored.payload)
            {
                tracing::warn!(
                    "a pending login was made in the future, by a wrong clock; it counts as made now"
                );
                // Taken out first: one that is used at this moment must not come back.
                if self.store.take_login(hash.as_bytes(), T::KIND, now).await?.is_none() {
                    return Ok(CodeStatus::Used { by: None });
                }
                let timestamped = Timestamped { made_at: Some(now.as_millis()), what: timestamped.what };
                self.write(hash, StoredLogin::Live(timestamped), stored.expires_at).await?;
            }
        }
        Ok(read(stored))
    }

    /// Uses up what a look has found, and leaves the mark. Of two that come at once the store lets one
    /// through; the other finds it used.
    pub async fn take<T: PendingPayload>(&self, code: &Code) -> Result<CodeStatus<T>, StoreError> {
        self.take_by(code.hash(), None).await
    }

    /// Closes a start link whose account is connected.
    pub async fn close_start(&self, code: &Code, by: &AccountName) -> Result<(), StoreError> {
        self.take_by::<PendingStart>(code.hash(), Some(by.clone())).await.map(drop)
    }

    /// How many logins under way are for the account of this name.
    pub async fn count_of(&self, name: &AccountName) -> Result<usize, StoreError> {
        self.of_account(name).await.map(|logins| logins.len())
    }

    /// Ends all logins under way for the account of this name; says how many.
    pub async fn cancel(&self, name: &AccountName) -> Result<usize, StoreError> {
        let logins = self.of_account(name).await?;
        for (login, _) in &logins {
            self.store.take_login(login.id, login.kind, self.clock.now()).await?;
        }
        Ok(logins.len())
    }

    /// Ends those logins under way for the account that are to pair it in this realm; says how many.
    pub async fn cancel_in(&self, name: &AccountName, realm: &RealmName) -> Result<usize, StoreError> {
        let is_of = |(login, payload): &(PendingLogin, serde_json::Value)| {
            let order = name_pointer(login.kind).trim_end_matches("/name");
            payload.pointer(order).and_then(|order| order.get("realm")?.as_str()) == Some(realm.as_str())
        };
        let logins: Vec<_> = self.of_account(name).await?.into_iter().filter(is_of).collect();
        for (login, _) in &logins {
            self.store.take_login(login.id, login.kind, self.clock.now()).await?;
        }
        Ok(logins.len())
    }

    /// Has the logins under way for an account go on for its new name; says how many.
    pub async fn rename(&self, from: &AccountName, to: &AccountName) -> Result<usize, StoreError> {
        let logins = self.of_account(from).await?;
        let mut renamed = 0;
        for (login, mut payload) in logins {
            // Taken out first: one that is used at this moment must not come back.
            let Some(taken) = self.store.take_login(login.id, login.kind, self.clock.now()).await? else {
                continue;
            };
            if let Some(name) = payload.pointer_mut(name_pointer(login.kind)) {
                *name = to.as_str().into();
            }
            self.store.put_login(PendingLogin { payload: payload.to_string(), ..taken }).await?;
            renamed += 1;
        }
        Ok(renamed)
    }

    /// Those that are not used up, each with its payload as JSON.
    async fn of_account(
        &self,
        name: &AccountName,
    ) -> Result<Vec<(PendingLogin, serde_json::Value)>, StoreError> {
        let now = self.clock.now();
        let logins = self.store.pending_logins().await?.into_iter().filter(|login| login.expires_at > now);
        let read = logins.filter_map(|login| {
            let payload: serde_json::Value = serde_json::from_str(&login.payload).ok()?;
            let is_its = payload.pointer(name_pointer(login.kind))?.as_str()? == name.as_str();
            is_its.then_some((login, payload))
        });
        Ok(read.collect())
    }

    /// The same by hash; the mark names the account that came of it.
    pub async fn take_by<T: PendingPayload>(
        &self,
        hash: CodeHash,
        by: Option<AccountName>,
    ) -> Result<CodeStatus<T>, StoreError> {
        let Some(stored) = self.store.take_login(hash.as_bytes(), T::KIND, self.clock.now()).await? else {
            return Ok(CodeStatus::Used { by: None });
        };
        let made_at = made_in_the_future::<T>(&stored, self.clock.now());
        let expires_at =
            made_at.map_or(stored.expires_at, |made_at| stored.expires_at - made_at.since(self.clock.now()));
        let held = read::<T>(stored);
        let mark = match &held {
            CodeStatus::Used { by } => by.clone(),
            CodeStatus::Live { .. } | CodeStatus::Unknown => by,
        };
        // Without its mark the code reads as unknown instead of used: worse words, no second use.
        if let Err(problem) = self.write::<T>(hash, StoredLogin::Used { by: mark }, expires_at).await {
            tracing::debug!(%problem, "a used login left no mark");
        }
        Ok(held)
    }

    async fn write<T: PendingPayload>(
        &self,
        hash: CodeHash,
        stored: StoredLogin<T>,
        expires_at: Timestamp,
    ) -> Result<(), StoreError> {
        let payload = serde_json::to_string(&stored)
            .map_err(|problem| StoreError::Unavailable(problem.to_string().into()))?;
        let login = PendingLogin { id: hash.as_bytes(), kind: T::KIND, expires_at, payload };
        self.store.put_login(login).await
    }
}

/// When it was made, where that lies in the future.
fn made_in_the_future<T: PendingPayload>(stored: &PendingLogin, now: Timestamp) -> Option<Timestamp> {
    let Ok(StoredLogin::Live(timestamped)) = serde_json::from_str::<StoredLogin<T>>(&stored.payload) else {
        return None;
    };
    let made_at = timestamped.made_at.map(Timestamp::from_millis)?;
    (made_at > now + MAX_CLOCK_SKEW).then_some(made_at)
}

/// Where the order's account name stands in a payload.
fn name_pointer(kind: PendingKind) -> &'static str {
    match kind {
        PendingKind::Start | PendingKind::State => "/live/order/name",
        // They are for no account yet.
        PendingKind::ApplicationCode | PendingKind::ApplicationLogin => "/live/none",
        PendingKind::Choice => "/live/login/order/name",
    }
}

fn read<T: PendingPayload>(stored: PendingLogin) -> CodeStatus<T> {
    let expires_at = stored.expires_at;
    match serde_json::from_str(&stored.payload) {
        Ok(StoredLogin::Live(timestamped)) => CodeStatus::Live { what: timestamped.what, expires_at },
        Ok(StoredLogin::Used { by }) => CodeStatus::Used { by },
        Err(_) => {
            // serde_json's text could quote the payload, which holds tokens.
            tracing::warn!("a pending login of another version cannot be read; it counts as unknown");
            CodeStatus::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    const TEN_MINUTES: Duration = Duration::from_secs(600);

    fn start() -> PendingStart {
        let realm: RealmName = "global".parse().unwrap();
        PendingStart { request: PairingRequest::by_application(&realm, None) }
    }

    #[tokio::test]
    async fn a_link_that_a_clock_two_days_ahead_made_ends_when_it_was_meant_to() {
        let right = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
        let ahead = Clock::manual(right.now() + Duration::from_secs(2 * 86_400));
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(right.clone()));
        let (code, _) = PendingLogins::new(ahead, store.clone()).put(start(), TEN_MINUTES).await.unwrap();
        let pending = PendingLogins::new(right.clone(), store);
        let end = right.now() + TEN_MINUTES;
        for _ in 0..2 {
            let held = pending.peek::<PendingStart>(&code).await.unwrap();
            assert!(
                matches!(held, CodeStatus::Live { expires_at, .. } if expires_at == end),
                "it does not move along"
            );
            right.advance(Duration::from_secs(60));
        }
        right.advance(TEN_MINUTES);
        assert!(matches!(pending.peek::<PendingStart>(&code).await.unwrap(), CodeStatus::Unknown));
    }
}
