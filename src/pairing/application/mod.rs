//! Logins of applications that run the vendor's OAuth flow with the gateway. The rule: the person logs in at
//! the platform under the gateway's own redirect URI, and what comes of it stays here; the application gets a
//! code, and for it an id of its login, which opens nothing at the platform (threats, row 33).

mod authorize;
mod code_challenge;
mod exchange;
mod login;
mod pair;
mod redirect;

pub use authorize::Authorization;
pub use exchange::{CodeExchange, CodeExchangeError};
pub use login::{ApplicationLogin, LoginId, OfferedAccount, PairedApplication, is_login_token};
pub(super) use pair::PairingLocks;
pub(super) use redirect::ApplicationRequest;

use crate::config::CallerConfig;
use crate::model::account::RealmName;
use crate::model::redirect_uri::RedirectUri;

/// An application that may log people in at the gateway.
#[derive(Debug, Clone)]
pub struct ApplicationClient {
    /// The caller's name.
    caller: String,
    client_id: String,
    redirect_uris: Vec<RedirectUri>,
    realm: RealmName,
}

impl ApplicationClient {
    /// Those of a configuration: callers whose `facade` lists redirect URIs.
    pub fn all(callers: &[CallerConfig]) -> Vec<Self> {
        let client = |caller: &CallerConfig| {
            let facade = caller.facade.as_ref().filter(|facade| !facade.redirect_uris.is_empty())?;
            Some(Self {
                caller: caller.name.clone(),
                client_id: facade.client_id.clone(),
                redirect_uris: facade.redirect_uris.clone(),
                realm: facade.realm.clone()?,
            })
        };
        callers.iter().filter_map(client).collect()
    }
}
