//! Who asks for a token: a configured client by its credentials, or a caller by what else it is known by.

use std::sync::Arc;

use crate::gateway::GatewayShared;
use crate::gateway::inbound::caller::{self, AuthenticatedCaller, PeerInfo};
use crate::http1::Headers;

use super::credentials::BasicCredentials;
use super::error::{FacadeError, OAuthRequestError};
use super::form::TokenForm;

/// A configured client's credentials count first, in the form or in `Authorization: Basic`; else the caller
/// is known as for any other call.
pub fn authenticate(
    shared: &Arc<GatewayShared>,
    headers: &Headers,
    form: &TokenForm,
    peer: &PeerInfo,
) -> Result<AuthenticatedCaller, FacadeError> {
    if let Some(client) = authenticate_client(shared, headers, form)? {
        return Ok(client);
    }
    let (settings, now) = (shared.settings.load(), shared.clock.now());
    caller::identify(&settings, &shared.tokens, headers, peer, now).map_err(FacadeError::Gateway)
}

/// The client whose credentials are sent; `None` where they are nobody's here. Both ways at once are one too
/// many (RFC 6749, 2.3) unless they say the same.
pub fn authenticate_client(
    shared: &Arc<GatewayShared>,
    headers: &Headers,
    form: &TokenForm,
) -> Result<Option<AuthenticatedCaller>, FacadeError> {
    let settings = shared.settings.load();
    // A Basic password may be a caller's key as well: that is the gateway's own way, and no client
    // credential.
    let is_key = |basic: &BasicCredentials| settings.caller_by_key(&basic.secrets[1]).is_some();
    let mut basics = BasicCredentials::of(headers);
    basics.retain(|basic| !is_key(basic));
    basics.dedup();
    let in_form = settings.caller_by_client_id(&form.client_id);
    let of_basic = |basic: &BasicCredentials| {
        basic.client_ids.iter().find_map(|id| settings.caller_by_client_id(id)).cloned()
    };
    let in_basic = basics.iter().find_map(of_basic);
    if (in_form.is_some() || in_basic.is_some()) && !basics.iter().all(|basic| same_client(basic, form)) {
        return Err(OAuthRequestError::InvalidRequest(CREDENTIALS_DIFFER).into());
    }
    let Some(rules) = in_basic.as_ref().or(in_form) else { return Ok(None) };
    let secrets = basics.iter().flat_map(|basic| &basic.secrets).chain(&form.client_secret);
    // All are compared, so that the time tells nothing of which was right.
    let right = secrets.fold(false, |right, secret| rules.facade_secret_is(secret) | right);
    if !right {
        return Err(OAuthRequestError::InvalidClient.into());
    }
    caller::accept(rules.clone(), headers).map(Some).map_err(FacadeError::Gateway)
}

const CREDENTIALS_DIFFER: &str =
    "client credentials are sent twice and differ: send them as Authorization Basic or in the form, not both";

/// Whether the form says nothing else about the client than the header does.
fn same_client(basic: &BasicCredentials, form: &TokenForm) -> bool {
    let same_id = form.client_id.is_empty() || basic.client_ids.contains(&form.client_id);
    same_id && form.client_secret.is_none_or(|secret| basic.secrets.contains(&secret))
}
