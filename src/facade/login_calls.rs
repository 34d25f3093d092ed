//! The API calls of an application's login: discovery, the list of accounts, pairing. The rule: an account is
//! paired or joined only where the platform lists it for the person who has logged in, and the operator lets
//! this caller have it.

use bytes::Bytes;
use http::{Method, Response, StatusCode};

use crate::gateway::LocalResponse;
use crate::gateway::inbound::permission::check_allowed;
use crate::gateway::inbound::target::{self, ParsedTarget};
use crate::gateway::refusal::Refusal;
use crate::gateway::response::discovery;
use crate::gateway::settings::{CallerRules, GatewaySettings};
use crate::http1::RequestHead;
use crate::model::account::{AccountName, RealmName};
use crate::model::endpoint::{Endpoint, EndpointId};
use crate::model::route::Route;
use crate::model::token::RefreshToken;
use crate::pairing::{LoginError, LoginId, OfferedAccount, PairedApplication};

use super::OAuthFacade;
use super::error::FacadeError;
use super::pair_request::PairRequest;
use super::vendor_response::{failure, login_failure, related_accounts};

impl OAuthFacade {
    /// Serves a call that carries a login's token.
    pub(super) async fn serve_login_call(
        &self,
        rules: &CallerRules,
        login: LoginId,
        head: &RequestHead,
        body: &[u8],
    ) -> Result<LocalResponse, Refusal> {
        let settings = self.shared.settings.load();
        let target = target::parse(&head.method, &head.uri, &rules.url.path)?;
        let route = match self.login_route(login, rules).await? {
            Ok(route) => route,
            Err(error) => return Ok(local(login_failure(&error), target.endpoint)),
        };
        let endpoint = endpoint_below(&target, &head.method, &route.1);
        match (endpoint.id, &head.method) {
            (EndpointId::Discovery, &Method::GET | &Method::HEAD) => {
                check_allowed(rules, endpoint)?;
                Ok(local(discovery_response(&settings, rules, &route, head), endpoint))
            }
            (EndpointId::RelatedAccounts, &Method::GET | &Method::HEAD) => {
                check_allowed(rules, endpoint)?;
                Ok(local(self.list(login, rules).await?, endpoint))
            }
            (EndpointId::PairAccount, &Method::PUT | &Method::POST) => {
                let (response, account) = self.pair(login, rules, body).await?;
                let account = account.and_then(|name| self.registry.by_name(name.as_str()));
                Ok(LocalResponse { account, ..local(response, endpoint) })
            }
            // Authentication and Pairing V2, 4.3.2.
            (EndpointId::UnpairAccount, _) => {
                Ok(local(failure(StatusCode::UNAUTHORIZED, WRONG_TOKEN), endpoint))
            }
            _ => Err(Refusal::AccountNotChosen(Vec::new())),
        }
    }

    async fn login_route(
        &self,
        login: LoginId,
        rules: &CallerRules,
    ) -> Result<Result<(RealmName, Route), LoginError>, Refusal> {
        let (pairing, name) = (self.pairing.clone(), rules.name.clone());
        let found = self.read_on_control(async move { pairing.login_route(login, &name).await }).await?;
        // A reload may have put the caller into another group since the login.
        Ok(found.and_then(
            |route| if rules.reaches(&route.0) { Ok(route) } else { Err(LoginError::LoginExpired) },
        ))
    }

    async fn list(&self, login: LoginId, rules: &CallerRules) -> Result<Response<Bytes>, Refusal> {
        Ok(match self.permitted_accounts(login, rules).await? {
            Ok(offered) => related_accounts(&offered),
            Err(error) => login_failure(&error),
        })
    }

    /// The platform lists what is enabled for the integration; the operator decides for this caller.
    async fn permitted_accounts(
        &self,
        login: LoginId,
        rules: &CallerRules,
    ) -> Result<Result<Vec<OfferedAccount>, LoginError>, Refusal> {
        let (pairing, name) = (self.pairing.clone(), rules.name.clone());
        let offered = async move { pairing.offered_accounts(login, &name).await };
        let offered = self.read_on_control(offered).await?;
        let may_use = |offered: &OfferedAccount| match &offered.known_as {
            Some(name) => rules.may_use(name, || (offered.realm.clone(), offered.account.id)),
            None => rules.may_connect(&offered.realm, offered.account.id),
        };
        Ok(offered.map(|mut offered| {
            offered.retain(may_use);
            offered
        }))
    }

    async fn pair(
        &self,
        login: LoginId,
        rules: &CallerRules,
        body: &[u8],
    ) -> Result<(Response<Bytes>, Option<AccountName>), Refusal> {
        let request = match PairRequest::read(body) {
            Ok(request) => request,
            Err(why) => return Ok((failure(StatusCode::BAD_REQUEST, why), None)),
        };
        let offered = match self.permitted_accounts(login, rules).await? {
            Ok(offered) => offered,
            Err(error) => return Ok((login_failure(&error), None)),
        };
        let Some(chosen) = offered.into_iter().find(|offered| offered.account.id == request.account) else {
            return Ok((failure(StatusCode::BAD_REQUEST, WRONG_ACCOUNT), None));
        };
        let identity = (chosen.realm.clone(), chosen.account.id);
        let (pairing, name) = (self.pairing.clone(), rules.name.clone());
        let callback_url = request.callback_url.clone();
        // In a task of its own: an application that disconnects loses no tokens.
        let paired = self.on_control(async move {
            pairing.pair_for_application(login, &name, chosen, callback_url.as_deref()).await
        });
        let paired = match paired.await? {
            Ok(paired) => paired,
            Err(error) => return Ok((login_failure(&error), None)),
        };
        // Somebody else may have named it meanwhile.
        if !rules.may_use(&paired.name, || identity.clone()) {
            return Ok((failure(StatusCode::BAD_REQUEST, WRONG_ACCOUNT), None));
        }
        Ok((self.connected(rules, &request, &paired).await?, Some(paired.name)))
    }

    /// The application's own tokens for the account (Authentication and Pairing V2, 4.3.1: the same refresh
    /// token again).
    async fn connected(
        &self,
        rules: &CallerRules,
        request: &PairRequest,
        paired: &PairedApplication,
    ) -> Result<Response<Bytes>, Refusal> {
        let issued = self.issuer.issue(&rules.name, &paired.name, request.callback_url.as_deref()).await;
        let granted: RefreshToken = match issued {
            Ok(granted) => granted,
            Err(problem) => {
                tracing::warn!(caller = %rules.name, account = %paired.name, %problem, "no grant is issued yet");
                return Ok(login_failure(&LoginError::StoreDown));
            }
        };
        match self.tokens_of(rules, &paired.name, Some(&granted), granted.clone()) {
            Ok(tokens) => {
                let warnings: Vec<&str> =
                    paired.warnings.iter().map(String::as_str).chain(request.doubt).collect();
                Ok(tokens.pair_response(request.account, &warnings))
            }
            Err(FacadeError::Gateway(refusal)) => Err(refusal),
            Err(FacadeError::Vendor(_)) => Ok(login_failure(&LoginError::Broken)),
        }
    }
}

fn local(response: Response<Bytes>, endpoint: &'static Endpoint) -> LocalResponse {
    LocalResponse { response, caller: None, endpoint, account: None }
}

const WRONG_TOKEN: &str = "this token is a login's: unpair-account wants the token of a pairing";
const WRONG_ACCOUNT: &str = "AccountId is none of the accounts that related-accounts lists for this login";

/// An application that follows discovery sends the route's own Path.
fn endpoint_below(target: &ParsedTarget<'_>, method: &Method, route: &Route) -> &'static Endpoint {
    target::strip_route_path(method, target.rest, route.path(), target.endpoint).1
}

fn discovery_response(
    settings: &GatewaySettings,
    rules: &CallerRules,
    (realm, route): &(RealmName, Route),
    head: &RequestHead,
) -> Response<Bytes> {
    let Some(realm) = settings.realm(realm) else {
        return login_failure(&LoginError::RealmGone { realm: realm.clone() });
    };
    let parsed = discovery::parse_query(&realm.discovery, head.uri.query());
    let head_only = head.method == Method::HEAD;
    discovery::response(&realm.discovery, parsed, &rules.url, None, route, |body| body, head_only)
}
