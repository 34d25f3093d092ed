//! The gateway's authorize endpoint: reads what an application asks for and sends the browser on to the
//! platform's login page. The rule: a browser is sent back only to an address that the operator has listed
//! for this very client; whoever asks for another one sees a page instead (RFC 6749, 4.1.2.1).

use std::borrow::Cow;

use super::super::code::{Code, Cookie};
use super::super::outcome::LoginError;
use super::super::pending::{BoundBy, PairingRequest, PendingState, SessionBinding};
use super::super::start::Begin;
use super::super::{LOGIN_VALID, Pairing};
use super::code_challenge::CodeChallenge;
use super::{ApplicationClient, ApplicationRequest};

/// Where the browser goes.
pub enum Authorization {
    /// To the platform's login page.
    LogIn(Begin),
    /// Back to the application, with an error.
    Refused(String),
    /// Nowhere: nobody knows where to.
    Failed(LoginError),
}

/// A query longer than this is none that an application would send.
const LONGEST_QUERY: usize = 8 * 1024;

/// The parameters that are read. Others are ignored (RFC 6749, 3.1): `loginPage` and `scope` are the realm's.
#[derive(Default)]
struct AuthorizeQuery<'a> {
    client_id: Option<Cow<'a, str>>,
    redirect_uri: Option<Cow<'a, str>>,
    response_type: Option<Cow<'a, str>>,
    state: Option<Cow<'a, str>>,
    nonce: Option<Cow<'a, str>>,
    code_challenge: Option<Cow<'a, str>>,
    code_challenge_method: Option<Cow<'a, str>>,
}

impl<'a> AuthorizeQuery<'a> {
    fn read(query: &'a str) -> Result<Self, LoginError> {
        if query.len() > LONGEST_QUERY {
            return Err(LoginError::BadAuthorize("it is too long"));
        }
        let mut read = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let field = match &*name {
                "client_id" => &mut read.client_id,
                "redirect_uri" => &mut read.redirect_uri,
                "response_type" => &mut read.response_type,
                "state" => &mut read.state,
                "nonce" => &mut read.nonce,
                "code_challenge" => &mut read.code_challenge,
                "code_challenge_method" => &mut read.code_challenge_method,
                _ => continue,
            };
            // RFC 6749, 3.1: one without a value counts as left out; `state` comes back as it was sent.
            if value.is_empty() && name != "state" {
                continue;
            }
            if field.replace(value).is_some() {
                return Err(LoginError::BadAuthorize("a parameter stands in it twice"));
            }
        }
        Ok(read)
    }
}

impl Pairing {
    /// Where the authorize endpoint of a client stands for browsers: at the redirect URI's origin, since the
    /// cookie that binds the login has to come back there. `None` for a client that nobody has configured.
    pub fn authorize_endpoint(&self, client_id: &str) -> Option<String> {
        let settings = self.settings.load();
        let client = settings.applications.iter().find(|client| client.client_id == client_id)?;
        let realm = settings.realms.get(&client.realm)?;
        Some(format!("{}{}", realm.origin(), super::super::AUTHORIZE_PATH))
    }

    /// Whether a request is one of an application that may log people in. Nothing is kept yet.
    pub fn check_authorize(&self, query: &str) -> Result<(), LoginError> {
        self.application_request(&AuthorizeQuery::read(query)?).map(drop)
    }

    /// Whether an application may still be sent back to where its login began.
    pub(in crate::pairing) fn is_listed(&self, request: &ApplicationRequest) -> bool {
        let settings = self.settings.load();
        let listed = |client: &ApplicationClient| {
            client.caller == request.caller
                && client.redirect_uris.iter().any(|uri| uri.matches(&request.redirect_uri))
        };
        settings.applications.iter().any(listed)
    }

    /// Begins the login of an application (Authentication and Pairing V2, 4.1.1).
    pub async fn authorize(&self, query: &str) -> Authorization {
        let query = match AuthorizeQuery::read(query) {
            Ok(query) => query,
            Err(error) => return Authorization::Failed(error),
        };
        let (client, mut request) = match self.application_request(&query) {
            Ok(found) => found,
            Err(error) => return Authorization::Failed(error),
        };
        // The vendor's own sample has it always; nothing else could be meant where it is missing.
        if query.response_type.as_ref().is_some_and(|wanted| wanted != "code") {
            let description = "only response_type=code is answered";
            return Authorization::Refused(request.with_error("unsupported_response_type", description));
        }
        let challenge = query.code_challenge.as_deref();
        let challenge =
            challenge.map(|text| CodeChallenge::parse(text, query.code_challenge_method.as_deref()));
        match challenge.transpose() {
            Ok(challenge) => request.challenge = challenge,
            Err(why) => return Authorization::Refused(request.with_error("invalid_request", why)),
        }
        match self.begin_for(&client, request.clone()).await {
            Ok(begin) => Authorization::LogIn(begin),
            Err(error) => Authorization::Refused(request.with_login_error(&error)),
        }
    }

    /// Whose browser it is and where it goes in the end.
    fn application_request(
        &self,
        query: &AuthorizeQuery<'_>,
    ) -> Result<(ApplicationClient, ApplicationRequest), LoginError> {
        let settings = self.settings.load();
        let client_id = query.client_id.as_deref().unwrap_or_default();
        let client = settings.applications.iter().find(|client| client.client_id == client_id);
        let client = client.ok_or(LoginError::UnknownClient)?.clone();
        let redirect_uri = match (&query.redirect_uri, client.redirect_uris.as_slice()) {
            (Some(sent), listed) if listed.iter().any(|uri| uri.matches(sent)) => sent.to_string(),
            (None, [only]) => only.as_str().to_owned(),
            _ => return Err(LoginError::RedirectUriNotListed),
        };
        let request = ApplicationRequest {
            caller: client.caller.clone(),
            redirect_uri,
            sent_redirect_uri: query.redirect_uri.is_some(),
            state: query.state.as_ref().map(|state| state.to_string()),
            challenge: None,
            nonce: query.nonce.as_ref().map(|nonce| nonce.to_string()),
        };
        Ok((client, request))
    }

    async fn begin_for(
        &self,
        client: &ApplicationClient,
        application: ApplicationRequest,
    ) -> Result<Begin, LoginError> {
        let name = client.realm.clone();
        let realm = self.realm(&name).ok_or_else(|| LoginError::RealmGone { realm: name.clone() })?;
        let secret = Code::fresh();
        let request = PairingRequest {
            realm: name,
            name: None,
            account_id: None,
            callback_url: None,
            application: Some(application),
        };
        let binding = SessionBinding { by: BoundBy::Cookie, hash: secret.hash() };
        let state = PendingState { request, binding, start: None };
        let (state, _) = self.pending.put(state, LOGIN_VALID).await.map_err(|p| LoginError::of_store(&p))?;
        let cookie = Cookie::binding(state.hash(), &secret, realm.secure(), LOGIN_VALID);
        Ok(Begin { authorize_url: realm.calls.authorize_url(state.expose()), cookie })
    }
}
