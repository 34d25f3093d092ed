//! Refresh tokens of the platform's that an application brings, exchanged for the gateway's own (`adopt`).
//!
//! The rule: one that was never imported counts only for the single account, named by its id, that its caller
//! may use and that nobody has connected yet: nothing else tells whose it is.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::access::application_grants;
use crate::access::registry::AccountLookup;
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

    /// The account of a refresh token that nobody has imported, brought by a client that has shown its
    /// credentials. An account that is connected keeps its own grant, dead or not: whose token this is,
    /// nobody can tell, and others may use the account.
    pub(super) async fn first_seen(
        &self,
        caller: &CallerRules,
        token: &RefreshToken,
    ) -> Result<AccountName, FacadeError> {
        let unknown = || FacadeError::from(OAuthRequestError::UnknownToken);
        let is_foreign = !application_grants::is_ours(token) && !token.expose().trim().is_empty();
        if !caller.adopts_tokens() || !is_foreign {
            return Err(unknown());
        }
        let (realm, id) = self.only_missing_account(caller).ok_or_else(unknown)?;
        if !self.adoption_pace.may_ask(&caller.name, self.shared.clock.now()) {
            return Err(OAuthRequestError::AskedTooSoon.into());
        }
        let (pairing, token) = (self.pairing.clone(), token.clone());
        let taken = async move { pairing.import_first_seen(realm, id, token).await };
        self.on_control(taken).await?.ok_or_else(unknown)
    }

    /// The account that the caller's `accounts` names alone, by its id, where it is not connected here.
    fn only_missing_account(&self, caller: &CallerRules) -> Option<(RealmName, AccountId)> {
        let AccountPattern::Id { realm, id } = caller.single_account()? else { return None };
        let realm = realm.clone().or_else(|| caller.login_realm().cloned())?;
        match self.registry.by_id(Some(&realm), *id) {
            AccountLookup::Nobody => Some((realm, *id)),
            AccountLookup::One(_) | AccountLookup::Ambiguous(_) => None,
        }
    }
}
