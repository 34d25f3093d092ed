//! Start links, and the step from a link to the login page. The rule: looking at a link uses nothing up (mail
//! scanners and previews look), only the button does; the state it makes is single use and bound to the
//! browser that pressed.

use std::time::Duration;

use url::Url;

use super::code::{Code, Cookie};
use super::naming;
use super::outcome::LoginError;
use super::pending::{BoundBy, CodeStatus, PairingRequest, PendingStart, PendingState, SessionBinding};
use super::{LOGIN_VALID, LONGEST_LINK_VALID, Pairing, PairingRealm};
use crate::clock::Timestamp;
use crate::model::account::{AccountId, AccountName, RealmName};
use crate::store::StoreError;

/// What an operator asks for.
#[derive(Debug, Clone)]
pub struct StartRequest {
    pub realm: RealmName,
    /// Absent: the account's present name, or one made from what the platform calls it.
    pub name: Option<AccountName>,
    /// Absent: the name's present account in the realm, or whatever the login offers.
    pub account_id: Option<AccountId>,
    /// Where Align sends scan notifications of this account.
    pub callback_url: Option<String>,
    pub valid_for: Duration,
}

/// A link to hand out. Whoever holds it can connect an account, so it is shown to the operator alone.
#[derive(Clone, serde::Serialize)]
pub struct StartLink {
    pub url: String,
    pub expires_at: Timestamp,
    pub warnings: Vec<String>,
}

/// The same for a gateway that the browser cannot reach: the redirected
/// URL is pasted to `finish_pasted` with this id.
#[derive(Clone, serde::Serialize)]
pub struct PastedStart {
    pub id: Code,
    pub authorize_url: String,
    /// How the URL to paste begins.
    pub redirect_uri: String,
    pub expires_at: Timestamp,
    pub warnings: Vec<String>,
}

/// What the start page shows.
#[derive(Debug, Clone)]
pub struct StartOffer {
    pub code: Code,
    pub name: Option<AccountName>,
    pub realm: RealmName,
    pub expires_at: Timestamp,
    /// The realm is a sandbox, whose login page may stand at an http address.
    pub insecure: bool,
}

/// The browser's next step.
pub struct Begin {
    pub authorize_url: Url,
    pub cookie: Cookie,
}

/// Why no start link is made.
#[derive(Debug, thiserror::Error)]
pub enum StartLinkError {
    #[error("realm {0} is not configured")]
    UnknownRealm(RealmName),
    #[error("{name} stands for account {held} in realm {realm}, not for {wanted}")]
    OtherAccount { name: AccountName, realm: RealmName, held: AccountId, wanted: AccountId },
    #[error("account {id} of realm {realm} is already known as {name}")]
    KnownAs { realm: RealmName, id: AccountId, name: AccountName },
    #[error("{name} stands for account {held} of realm {held_in}, and realm {realm} is of another group")]
    OtherGroup { name: AccountName, realm: RealmName, held_in: RealmName, held: AccountId },
    #[error("the callback URL {0}")]
    CallbackUrl(&'static str),
    #[error("a link works for at least a minute and at most 30 days")]
    ValidFor,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Pairing {
    /// Makes a start link.
    pub async fn start(&self, start_request: StartRequest) -> Result<StartLink, StartLinkError> {
        if start_request.valid_for < Duration::from_secs(60) || start_request.valid_for > LONGEST_LINK_VALID {
            return Err(StartLinkError::ValidFor);
        }
        let (realm, request, warnings) = self.request(&start_request).await?;
        let (code, expires_at) = self.pending.put(PendingStart { request }, start_request.valid_for).await?;
        let url = format!("{}/connect/{}", realm.origin(), code.expose());
        Ok(StartLink { url, expires_at, warnings })
    }

    /// Begins a login whose end will be pasted; its state is bound to the returned id instead of a cookie.
    pub async fn start_pasted(&self, start_request: StartRequest) -> Result<PastedStart, StartLinkError> {
        let (realm, request, warnings) = self.request(&start_request).await?;
        let id = Code::fresh();
        let binding = SessionBinding { by: BoundBy::Operator, hash: id.hash() };
        let (state, expires_at) =
            self.pending.put(PendingState { request, binding, start: None }, LOGIN_VALID).await?;
        Ok(PastedStart {
            id,
            authorize_url: realm.calls.authorize_url(state.expose()).into(),
            redirect_uri: realm.redirect_uri.to_string(),
            expires_at,
            warnings,
        })
    }

    /// What a start link is for. Changes nothing.
    pub async fn look(&self, code: &str) -> Result<StartOffer, LoginError> {
        let code = Code::parse(code).ok_or(LoginError::Expired)?;
        let (start, expires_at) = self.live_start(&code).await?;
        let PairingRequest { realm, name, .. } = start.request;
        let settings = self.realm(&realm).ok_or_else(|| LoginError::RealmGone { realm: realm.clone() })?;
        Ok(StartOffer { code, name, realm, expires_at, insecure: settings.hosts.allow_insecure })
    }

    /// The button on the start page: a fresh state, bound to this browser. The link stays good until its
    /// account is connected, since people cancel and come back.
    pub async fn begin(&self, code: &str) -> Result<Begin, LoginError> {
        let code = Code::parse(code).ok_or(LoginError::Expired)?;
        let (start, _) = self.live_start(&code).await?;
        let name = start.request.realm.clone();
        let realm = self.realm(&name).ok_or(LoginError::RealmGone { realm: name })?;
        let secret = Code::fresh();
        let binding = SessionBinding { by: BoundBy::Cookie, hash: secret.hash() };
        let state = PendingState { request: start.request, binding, start: Some(code) };
        let (state, _) = self.pending.put(state, LOGIN_VALID).await.map_err(|p| LoginError::of_store(&p))?;
        let cookie = Cookie::binding(state.hash(), &secret, realm.secure(), LOGIN_VALID);
        Ok(Begin { authorize_url: realm.calls.authorize_url(state.expose()), cookie })
    }

    async fn live_start(&self, code: &Code) -> Result<(PendingStart, Timestamp), LoginError> {
        match self.pending.peek::<PendingStart>(code).await {
            Ok(CodeStatus::Live { what, expires_at }) => Ok((what, expires_at)),
            Ok(CodeStatus::Used { by }) => Err(LoginError::AlreadyUsed { by }),
            Ok(CodeStatus::Unknown) => Err(LoginError::Expired),
            Err(problem) => Err(LoginError::of_store(&problem)),
        }
    }

    /// Checks a request against what is known, so that a contradiction shows before anybody logs in.
    async fn request(
        &self,
        start_request: &StartRequest,
    ) -> Result<(PairingRealm, PairingRequest, Vec<String>), StartLinkError> {
        let StartRequest { realm: realm_name, name, account_id, callback_url, .. } = start_request;
        let realm = self.realm(realm_name).ok_or_else(|| StartLinkError::UnknownRealm(realm_name.clone()))?;
        let callback_url = callback_url
            .as_deref()
            .map(|text| check_callback_url(text, realm.hosts.allow_insecure))
            .transpose()?;
        let records = self.records().await?;
        let named = name.as_ref().and_then(|name| naming::id_of(&records, name, realm_name));
        if let (Some(name), Some(held), Some(wanted)) = (name, named, *account_id)
            && held != wanted
        {
            let (name, realm) = (name.clone(), realm_name.clone());
            return Err(StartLinkError::OtherAccount { name, realm, held, wanted });
        }
        if let Some(name) = name
            && named.is_none()
            && let Some((held_in, held)) = naming::in_the_way(&records, &self.walls(), name, realm_name)
        {
            let (name, realm) = (name.clone(), realm_name.clone());
            return Err(StartLinkError::OtherGroup { name, realm, held_in, held });
        }
        if let (Some(name), Some(id)) = (name, *account_id)
            && let Some(holder) = naming::holder(&records, realm_name, id)
            && holder.name != *name
        {
            let realm = realm_name.clone();
            return Err(StartLinkError::KnownAs { realm, id, name: holder.name.clone() });
        }
        let mut warnings = Vec::new();
        if callback_url.is_none() {
            warnings.push(NO_CALLBACK_URL.to_owned());
        }
        let request = PairingRequest {
            realm: realm_name.clone(),
            name: name.clone(),
            account_id: account_id.or(named),
            callback_url,
            application: None,
        };
        Ok((realm, request, warnings))
    }
}

/// Authentication and Pairing V2, 4.4: the pairing's URL changes only with a new pairing.
const NO_CALLBACK_URL: &str = "No callback URL is given: unless Align has registered one for the whole integration, no scan \
     notifications will be sent for this account. A callback URL can only be set or changed by unpairing the account and pairing \
     it again.";

const LONGEST_CALLBACK_URL: usize = 1024;

fn check_callback_url(text: &str, allow_insecure: bool) -> Result<String, StartLinkError> {
    let text = text.trim();
    let url = Url::parse(text).map_err(|_| StartLinkError::CallbackUrl("is not a URL"))?;
    let fault = if text.len() > LONGEST_CALLBACK_URL {
        "is too long"
    } else if !(url.scheme() == "https" || (allow_insecure && url.scheme() == "http")) {
        "must begin with https://"
    } else if !url.username().is_empty() || url.password().is_some() {
        "must not hold a user name or password"
    } else if url.fragment().is_some() {
        "must not hold a '#'"
    } else {
        return Ok(url.into());
    };
    Err(StartLinkError::CallbackUrl(fault))
}
