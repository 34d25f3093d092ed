//! Refresh tokens of the platform's that an application brings, exchanged for the gateway's own (`adopt`).
//! The rule: one that was never imported counts only for the single account that its caller may use, since
//! nothing else tells whose it is; and the platform is asked about it only where the account has no grant
//! that works.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::access::application_grants;
use crate::access::registry::{Account, AccountLookup, Availability};
use crate::clock::Timestamp;
use crate::config::AccountPattern;
use crate::gateway::settings::CallerRules;
use crate::model::account::{AccountId, AccountName, RealmName};
use crate::model::token::RefreshToken;

use super::OAuthFacade;
use super::error::{FacadeError, OAuthRequestError};

/// Between two tokens of one caller's that the platform is asked about: whoever tries tokens must not load it
/// (gen-api, section 2).
const PAUSE: Duration = Duration::from_secs(30);

/// When the platform was last asked about a caller's unknown token.
#[derive(Default)]
pub struct AdoptionPace(Mutex<Vec<(String, Timestamp)>>);

impl AdoptionPace {
    fn may_ask(&self, caller: &str, now: Timestamp) -> bool {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|(_, at)| now < *at + PAUSE);
        let may_ask = asked.iter().all(|(known, _)| known != caller);
        if may_ask {
            asked.push((caller.to_owned(), now));
        }
        may_ask
    }
}

/// The account that a caller's `accounts` names alone.
enum OnlyAccount {
    /// It is connected, and its own grant is what counts.
    Connected(AccountName),
    /// A token is wanted for it.
    Missing(RealmName, AccountId),
}

impl OAuthFacade {
    /// The gateway's own refresh token for an application that brings the platform's. Where the store does
    /// not take it the application keeps what it has, and is asked again with its next refresh.
    pub(super) async fn adopt(&self, caller: &CallerRules, account: &AccountName) -> Option<RefreshToken> {
        if !caller.adopts_tokens() {
            return None;
        }
        let issued = self.issuer.issue(&caller.name, account, None).await;
        let warn = |problem: &_| {
            tracing::warn!(caller = %caller.name, %account, %problem, "a refresh token is not exchanged yet");
        };
        issued.inspect_err(warn).ok()
    }

    /// The account of a refresh token that nobody has imported.
    pub(super) async fn first_seen(
        &self,
        caller: &CallerRules,
        token: &RefreshToken,
    ) -> Result<AccountName, FacadeError> {
        let is_foreign = !application_grants::is_ours(token) && !token.expose().is_empty();
        let only = if caller.adopts_tokens() && is_foreign { self.only_account(caller) } else { None };
        match only {
            None => Err(OAuthRequestError::UnknownToken.into()),
            Some(OnlyAccount::Connected(name)) => Ok(name),
            Some(OnlyAccount::Missing(realm, id)) => {
                if !self.adoption_pace.may_ask(&caller.name, self.shared.clock.now()) {
                    return Err(OAuthRequestError::AskedTooSoon.into());
                }
                let (pairing, token) = (self.pairing.clone(), token.clone());
                let taken = async move { pairing.import_first_seen(realm, id, token).await };
                let name = self.on_control(taken).await?;
                name.ok_or_else(|| OAuthRequestError::UnknownToken.into())
            }
        }
    }

    fn only_account(&self, caller: &CallerRules) -> Option<OnlyAccount> {
        match caller.single_account()? {
            AccountPattern::Name(name) => {
                let account = self.registry.by_name(name)?;
                Some(self.present(&account))
            }
            AccountPattern::Id { realm, id } => match self.registry.by_id(realm.as_ref(), *id) {
                AccountLookup::One(account) => Some(self.present(&account)),
                AccountLookup::Nobody => {
                    let realm = realm.clone().or_else(|| caller.login_realm().cloned())?;
                    Some(OnlyAccount::Missing(realm, *id))
                }
                AccountLookup::Ambiguous(_) => None,
            },
        }
    }

    fn present(&self, account: &Account) -> OnlyAccount {
        match account.availability(self.shared.clock.now()) {
            Availability::NeedsLogin { .. } => {
                let (realm, id) = account.identity();
                OnlyAccount::Missing(realm, id)
            }
            Availability::Ready(_)
            | Availability::Refused { .. }
            | Availability::Renewable { .. }
            | Availability::Paused => OnlyAccount::Connected(account.name.clone()),
        }
    }
}
