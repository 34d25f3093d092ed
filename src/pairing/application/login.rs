//! An application's login after the exchange: it may list the accounts of the person who logged in, and pair
//! them. The rule: its access token at the platform stays here, sealed, and ends when the platform's ends.

use std::fmt;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::super::code::{CodeHash, sha256};
use super::super::connect::Login;
use super::super::naming;
use super::super::outcome::{LoginError, LoginStep};
use super::super::pending::{CodeStatus, PendingPayload};
use super::super::retry::RetryPolicy;
use super::super::{Pairing, PairingRealm};
use crate::clock::Timestamp;
use crate::model::account::{AccountName, RealmName};
use crate::model::route::Route;
use crate::model::token::{AccessToken, RefreshToken};
use crate::platform::RelatedAccount;
use crate::store::{PendingKind, StoreError};

/// Tells a login's refresh token from an application grant's.
const PREFIX: &str = "gwl_";
/// 216 bits; with the prefix the 40 characters that the vendor documents (Authentication and Pairing V2,
/// 4.1.2).
const RANDOM_BYTES: usize = 27;

/// Names a login without giving it away: the SHA-256 of its refresh token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LoginId([u8; 32]);

/// An application's login as the application knows it.
pub struct ApplicationLogin {
    pub id: LoginId,
    pub refresh: RefreshToken,
    /// When the platform's token behind it ends, and the login with it.
    pub ends_at: Timestamp,
    /// What the `id_token` has to repeat; known at the exchange alone.
    pub nonce: Option<String>,
}

/// An account that a login may pair.
#[derive(Debug, Clone)]
pub struct OfferedAccount {
    pub account: RelatedAccount,
    /// Its name here, where it is connected.
    pub known_as: Option<AccountName>,
    pub realm: RealmName,
}

/// An account that an application has paired or joined.
#[derive(Debug, Clone)]
pub struct PairedApplication {
    pub name: AccountName,
    /// The platform's own (Authentication and Pairing V2, 4.3.1), none where the account was connected
    /// already.
    pub warnings: Vec<String>,
}

/// What is kept of a login between its calls.
#[derive(Serialize, Deserialize)]
pub(in crate::pairing) struct PendingApplicationLogin {
    caller: String,
    realm: RealmName,
    access: String,
    domain: String,
    path: String,
}

/// A login that counts, ready for calls.
pub(super) struct LiveLogin {
    pub realm_name: RealmName,
    pub realm: PairingRealm,
    pub access: AccessToken,
    pub route: Route,
}

impl LoginId {
    pub fn of(token: &RefreshToken) -> Self {
        Self(sha256(token.expose().as_bytes()))
    }

    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    fn hash(self) -> CodeHash {
        CodeHash::from_bytes(self.0)
    }
}

impl fmt::Debug for LoginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoginId(…)")
    }
}

/// Whether a refresh token has the form of a login's.
pub fn is_login_token(token: &RefreshToken) -> bool {
    token.expose().starts_with(PREFIX)
}

fn fresh_token() -> RefreshToken {
    let mut bytes = [0; RANDOM_BYTES];
    rand::fill(&mut bytes).expect("aws-lc ends the process rather than run without randomness");
    RefreshToken::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

impl PendingPayload for PendingApplicationLogin {
    const KIND: PendingKind = PendingKind::ApplicationLogin;
}

impl PendingApplicationLogin {
    pub fn of(caller: &str, login: &Login) -> Self {
        Self {
            caller: caller.to_owned(),
            realm: login.request.realm.clone(),
            access: login.access.expose().to_owned(),
            domain: login.route.domain(),
            path: login.route.path().to_owned(),
        }
    }
}

impl Pairing {
    pub(super) async fn keep_login(
        &self,
        login: PendingApplicationLogin,
        ends_at: Timestamp,
    ) -> Result<ApplicationLogin, StoreError> {
        let refresh = fresh_token();
        let id = LoginId::of(&refresh);
        self.pending.put_under(id.hash(), login, ends_at).await?;
        Ok(ApplicationLogin { id, refresh, ends_at, nonce: None })
    }

    /// When a login ends. `LoginExpired` for one that is unknown, over, or another caller's.
    pub async fn login_end(&self, id: LoginId, caller: &str) -> Result<Timestamp, LoginError> {
        self.held_login(id, caller).await.map(|(_, ends_at)| ends_at)
    }

    /// The application has no more use for its login; the platform's token behind it is forgotten. Says
    /// whether there was one.
    pub async fn end_login(&self, id: LoginId, caller: &str) -> Result<bool, LoginError> {
        match self.held_login(id, caller).await {
            Ok(_) => {}
            Err(LoginError::LoginExpired) => return Ok(false),
            Err(error) => return Err(error),
        }
        let taken = self.pending.take_by::<PendingApplicationLogin>(id.hash(), None).await;
        taken.map_err(|problem| LoginError::of_store(&problem))?;
        Ok(true)
    }

    /// Where the calls of the person who logged in go.
    pub async fn login_route(&self, id: LoginId, caller: &str) -> Result<(RealmName, Route), LoginError> {
        let login = self.live_login(id, caller).await?;
        Ok((login.realm_name, login.route))
    }

    /// The accounts that the login may pair, as the platform lists them now.
    pub async fn offered_accounts(
        &self,
        id: LoginId,
        caller: &str,
    ) -> Result<Vec<OfferedAccount>, LoginError> {
        let login = self.live_login(id, caller).await?;
        let policy = RetryPolicy::of_login(&self.clock, &self.retry());
        let listed = policy.retry(|| login.realm.calls.related_accounts(&login.route, &login.access)).await;
        let listed = listed.or_login_error(LoginStep::Accounts)?;
        let records = self.records().await.map_err(|problem| LoginError::of_store(&problem))?;
        let offered = listed.into_iter().map(|account| {
            let record = naming::holder(&records, &login.realm_name, account.id);
            let known_as = record.map(|record| record.name.clone());
            OfferedAccount { account, known_as, realm: login.realm_name.clone() }
        });
        Ok(offered.collect())
    }

    pub(super) async fn live_login(&self, id: LoginId, caller: &str) -> Result<LiveLogin, LoginError> {
        let (held, _) = self.held_login(id, caller).await?;
        let realm = self.realm(&held.realm);
        let realm = realm.ok_or_else(|| LoginError::RealmGone { realm: held.realm.clone() })?;
        let refused = || LoginError::RouteRefused { detail: format!("{}{}", held.domain, held.path) };
        let route = realm.route(&held.domain, &held.path).ok_or_else(refused)?;
        Ok(LiveLogin { realm_name: held.realm, realm, access: AccessToken::new(held.access), route })
    }

    async fn held_login(
        &self,
        id: LoginId,
        caller: &str,
    ) -> Result<(PendingApplicationLogin, Timestamp), LoginError> {
        match self.pending.peek_by::<PendingApplicationLogin>(id.hash()).await {
            Ok(CodeStatus::Live { what, expires_at }) if what.caller == caller => Ok((what, expires_at)),
            Ok(_) => Err(LoginError::LoginExpired),
            Err(problem) => Err(LoginError::of_store(&problem)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logins_refresh_token_fits_into_forty_characters() {
        let token = fresh_token();
        assert_eq!(token.expose().len(), 40);
        assert!(is_login_token(&token));
    }
}
