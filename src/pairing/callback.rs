//! The browser comes back. The rule: nothing goes to the platform before the redirect
//! was read strictly, its state was found, and the browser (or the pasting operator)
//! proved to be the one that began (threats, row 9).

use std::borrow::Cow;
use std::sync::Arc;

use url::Url;

use super::code::{Code, CodeHash, Cookie, bound_secrets};
use super::connect::Login;
use super::outcome::{Choice, LoginError, LoginOutcome, LoginStep, ReturnAddress};
use super::pending::{BoundBy, CodeStatus, PendingChoice, PendingState, SessionBinding};
use super::retry::RetryPolicy;
use super::{LOGIN_VALID, Pairing, PairingRealm};
use crate::clock::Timestamp;
use crate::model::account::AccountId;
use crate::model::token::{AccessToken, AuthorizationCode};
use crate::platform::RelatedAccount;
use crate::store::StoreError;

/// What shows that it is the one who began the login.
#[derive(Clone, Copy)]
pub enum LoginProof<'a> {
    /// The request's `Cookie` header, empty where it has none.
    Browser { cookies: &'a str },
    /// The id of a pasted login.
    Operator { id: &'a str },
}

/// An outcome and the cookies to set beside it.
pub struct CallbackResult {
    pub outcome: LoginOutcome,
    pub cookies: Vec<Cookie>,
}

/// The redirect's own parameters.
enum Redirect {
    Code { state: Code, code: AuthorizationCode },
    Error { state: Code, error: String },
}

impl Pairing {
    /// Takes a redirect's query. Runs to its end even when the browser
    /// disconnects meanwhile: a code works only once.
    pub async fn callback(self: &Arc<Self>, query: &str, proof: LoginProof<'_>) -> CallbackResult {
        let redirect = match read_redirect(query) {
            Ok(redirect) => redirect,
            Err(error) => return CallbackResult::failed(error, None),
        };
        let state_code = match &redirect {
            Redirect::Code { state, .. } | Redirect::Error { state, .. } => state.clone(),
        };
        let (state, realm, secret) = match self.claim_login(&state_code, proof).await {
            Ok(admitted) => admitted,
            Err(error) => return CallbackResult::failed(error, None),
        };
        if state.request.application.as_ref().is_some_and(|application| !self.is_listed(application)) {
            return CallbackResult::failed(LoginError::RedirectUriNotListed, None);
        }
        let spent = Cookie::forgotten(state_code.hash(), realm.secure());
        let by_browser = state.binding.by == BoundBy::Cookie;
        let start = state.start.clone();
        let application = state.request.application.clone();
        let mut response = match redirect {
            Redirect::Error { error, .. } => CallbackResult::failed(login_refused(error), state.start),
            Redirect::Code { code, .. } => {
                self.detach(move |pairing| pairing.finish(state, realm, secret, code)).await
            }
        };
        self.failures.record(start.as_ref(), &response.outcome);
        if let (Some(application), LoginOutcome::Failed { error, .. }) = (&application, &response.outcome) {
            let location = ReturnAddress::new(application.with_login_error(error));
            response.outcome = LoginOutcome::ReturnToApplication { location };
        }
        if by_browser {
            response.cookies.push(spent);
        }
        response
    }

    /// The other way in: the redirected URL as an operator copied it from the browser's address line.
    pub async fn finish_pasted(self: &Arc<Self>, id: &str, pasted: &str) -> CallbackResult {
        let pasted = pasted.trim().trim_matches(['"', '\'', '<', '>']);
        let Ok(url) = Url::parse(pasted) else {
            return CallbackResult::failed(LoginError::BadCallback("it is not a complete URL"), None);
        };
        let ours = |realm: &PairingRealm| {
            let redirect = &realm.redirect_uri;
            redirect.origin() == url.origin() && redirect.path() == url.path()
        };
        if !self.settings.load().realms.values().any(ours) {
            let fault = "it does not begin with a realm's redirect_uri";
            return CallbackResult::failed(LoginError::BadCallback(fault), None);
        }
        self.callback(url.query().unwrap_or_default(), LoginProof::Operator { id }).await
    }

    /// The account that was chosen on the choosing page, or by the pasting operator.
    pub async fn choose(
        self: &Arc<Self>,
        choice: &str,
        proof: LoginProof<'_>,
        account: &str,
    ) -> CallbackResult {
        let Some(code) = Code::parse(choice) else {
            return CallbackResult::failed(LoginError::LoginExpired, None);
        };
        let (waiting, realm) = match self.claim_choice(&code, proof).await {
            Ok(admitted) => admitted,
            Err(error) => return CallbackResult::failed(error, None),
        };
        let spent = Cookie::forgotten(code.hash(), realm.secure());
        let by_browser = waiting.login.binding.by == BoundBy::Cookie;
        let PendingChoice { login: PendingState { request, start, .. }, access, domain, path, accounts } =
            waiting;
        let chosen = accounts.into_iter().find(|offered| offered.id.to_string() == account);
        let link = start.clone();
        let mut response = match chosen {
            None => CallbackResult::failed(LoginError::BadChoice, start),
            Some(chosen) => match realm.route(&domain, &path) {
                None => CallbackResult::failed(
                    LoginError::RouteRefused { detail: format!("{domain}{path}") },
                    start,
                ),
                Some(route) => {
                    let access = AccessToken::new(access);
                    let login = Login { request, start, realm, access, route };
                    self.detach(move |pairing| async move {
                        CallbackResult::of(pairing.connect(login, chosen).await)
                    })
                    .await
                }
            },
        };
        self.failures.record(link.as_ref(), &response.outcome);
        if by_browser {
            response.cookies.push(spent);
        }
        response
    }

    /// Finds the state, checks who comes, and only then uses the state up: a stranger cannot burn it.
    async fn claim_login(
        &self,
        code: &Code,
        proof: LoginProof<'_>,
    ) -> Result<(PendingState, PairingRealm, Code), LoginError> {
        let peeked = require_live(self.pending.peek::<PendingState>(code).await)?;
        let name = peeked.request.realm.clone();
        let realm = self.realm(&name).ok_or(LoginError::RealmGone { realm: name })?;
        let secret = check_binding(&peeked.binding, proof, code.hash(), realm.secure())?;
        let state = require_live(self.pending.take::<PendingState>(code).await)?;
        Ok((state, realm, secret))
    }

    async fn claim_choice(
        &self,
        code: &Code,
        proof: LoginProof<'_>,
    ) -> Result<(PendingChoice, PairingRealm), LoginError> {
        let peeked = require_live(self.pending.peek::<PendingChoice>(code).await)?;
        let name = peeked.login.request.realm.clone();
        let realm = self.realm(&name).ok_or(LoginError::RealmGone { realm: name })?;
        check_binding(&peeked.login.binding, proof, code.hash(), realm.secure())?;
        let waiting = require_live(self.pending.take::<PendingChoice>(code).await)?;
        Ok((waiting, realm))
    }

    /// From the code to a paired account, to the choosing page, or back to an application.
    async fn finish(
        self: Arc<Self>,
        state: PendingState,
        realm: PairingRealm,
        secret: Code,
        code: AuthorizationCode,
    ) -> CallbackResult {
        let start = state.start.clone();
        let finished = async {
            let (login, ends_at) = self.log_in(&state, &realm, code).await?;
            if let Some(application) = state.request.application.clone() {
                let location = ReturnAddress::new(self.hand_over(application, login, ends_at).await?);
                return Ok(CallbackResult::of(LoginOutcome::ReturnToApplication { location }));
            }
            match self.offered(&login).await? {
                OfferedAccounts::One(account) => Ok(CallbackResult::of(self.connect(login, account).await)),
                OfferedAccounts::Several(accounts) => self.offer(state, login, accounts, secret).await,
            }
        };
        finished.await.unwrap_or_else(|error| CallbackResult::failed(error, start))
    }

    /// Code exchange and first discovery (gen-api, sections 2 and 3). The login's refresh token is forgotten
    /// here. Returned with it is when its access token ends.
    async fn log_in(
        &self,
        state: &PendingState,
        realm: &PairingRealm,
        code: AuthorizationCode,
    ) -> Result<(Login, Timestamp), LoginError> {
        let (policy, calls) = (RetryPolicy::of_login(&self.clock, &self.retry()), &realm.calls);
        let exchanged = policy.retry(|| calls.exchange_code(&code)).await;
        let tokens = exchanged
            .or_refreshed(&policy, &**calls, |tokens| tokens)
            .await
            .or_login_error(LoginStep::Exchange)?;
        if let Some(odd) = tokens.oddity_line() {
            tracing::info!(realm = %state.request.realm, odd, "a login's token answer was odd");
        }
        let ends_at = self.clock.now() + tokens.expires_in;
        let access = tokens.access;
        let route =
            policy.retry(|| calls.discover_first(&access)).await.or_login_error(LoginStep::Discovery)?;
        let login = Login {
            request: state.request.clone(),
            start: state.start.clone(),
            realm: realm.clone(),
            access,
            route,
        };
        Ok((login, ends_at))
    }

    /// Related accounts (gen-api, section 4).
    async fn offered(&self, login: &Login) -> Result<OfferedAccounts, LoginError> {
        let policy = RetryPolicy::of_login(&self.clock, &self.retry());
        let calls = &login.realm.calls;
        let accounts = policy.retry(|| calls.related_accounts(&login.route, &login.access)).await;
        offered_accounts(accounts.or_login_error(LoginStep::Accounts)?, login.request.account_id)
    }

    /// Keeps the login until the person has chosen.
    async fn offer(
        &self,
        state: PendingState,
        login: Login,
        accounts: Vec<RelatedAccount>,
        secret: Code,
    ) -> Result<CallbackResult, LoginError> {
        let by_browser = state.binding.by == BoundBy::Cookie;
        let realm = state.request.realm.clone();
        let waiting = PendingChoice {
            login: state,
            access: login.access.expose().to_owned(),
            domain: login.route.domain(),
            path: login.route.path().to_owned(),
            accounts: accounts.clone(),
        };
        let put = self.pending.put(waiting, LOGIN_VALID).await;
        let (code, expires_at) = put.map_err(|problem| LoginError::of_store(&problem))?;
        let cookie = Cookie::binding(code.hash(), &secret, login.realm.secure(), LOGIN_VALID);
        Ok(CallbackResult {
            outcome: LoginOutcome::Choose(Choice { code, realm, accounts, expires_at }),
            cookies: if by_browser { vec![cookie] } else { Vec::new() },
        })
    }

    /// Runs a step in a task of its own, so that a browser that disconnects cannot cut it off between the
    /// platform and the store.
    async fn detach<F>(self: &Arc<Self>, step: impl FnOnce(Arc<Self>) -> F) -> CallbackResult
    where
        F: Future<Output = CallbackResult> + Send + 'static,
    {
        match tokio::spawn(step(self.clone())).await {
            Ok(response) => response,
            Err(problem) => {
                tracing::error!(panicked = problem.is_panic(), "a login ended in a fault of the gateway");
                CallbackResult::failed(LoginError::Broken, None)
            }
        }
    }
}

impl CallbackResult {
    fn of(outcome: LoginOutcome) -> Self {
        Self { outcome, cookies: Vec::new() }
    }

    pub(super) fn failed(error: LoginError, start: Option<Code>) -> Self {
        match error {
            // Anybody can send these, as often as they like.
            LoginError::Expired | LoginError::LoginExpired | LoginError::BadCallback(_) => {
                tracing::debug!(stop = error.code(), "no login")
            }
            _ => tracing::info!(stop = error.code(), "a login stopped"),
        }
        let again = start.filter(|_| error.may_start_again());
        Self { outcome: LoginOutcome::Failed { error, again }, cookies: Vec::new() }
    }
}

/// The accounts that a login may pair.
enum OfferedAccounts {
    One(RelatedAccount),
    Several(Vec<RelatedAccount>),
}

fn offered_accounts(
    accounts: Vec<RelatedAccount>,
    wanted: Option<AccountId>,
) -> Result<OfferedAccounts, LoginError> {
    let listed = accounts.len();
    if listed == 0 {
        return Err(LoginError::NoAccounts);
    }
    if let Some(wanted) = wanted {
        let found = accounts.into_iter().find(|account| account.id == wanted);
        return found.map(OfferedAccounts::One).ok_or(LoginError::AccountNotListed { wanted, listed });
    }
    match <[RelatedAccount; 1]>::try_from(accounts) {
        Ok([only]) => Ok(OfferedAccounts::One(only)),
        Err(several) => Ok(OfferedAccounts::Several(several)),
    }
}

fn require_live<T>(held: Result<CodeStatus<T>, StoreError>) -> Result<T, LoginError> {
    match held {
        Ok(CodeStatus::Live { what, .. }) => Ok(what),
        Ok(CodeStatus::Used { by }) => Err(LoginError::AlreadyUsed { by }),
        Ok(CodeStatus::Unknown) => Err(LoginError::LoginExpired),
        Err(problem) => Err(LoginError::of_store(&problem)),
    }
}

/// Returns the secret that proves it; a cookie never stands for a pasted login, nor the reverse.
fn check_binding(
    binding: &SessionBinding,
    proof: LoginProof<'_>,
    login: CodeHash,
    secure: bool,
) -> Result<Code, LoginError> {
    let secret = match (binding.by, proof) {
        (BoundBy::Cookie, LoginProof::Browser { cookies }) => {
            bound_secrets(cookies, login, secure).find(|secret| binding.hash.is_of(secret))
        }
        (BoundBy::Operator, LoginProof::Operator { id }) => {
            Code::parse(id).filter(|id| binding.hash.is_of(id))
        }
        (BoundBy::Cookie, LoginProof::Operator { .. }) | (BoundBy::Operator, LoginProof::Browser { .. }) => {
            None
        }
    };
    secret.ok_or(LoginError::WrongBrowser)
}

fn login_refused(error: String) -> LoginError {
    match error.as_str() {
        // RFC 6749, 4.1.2.1: the person or the server denied the request.
        "access_denied" => LoginError::Cancelled,
        _ => LoginError::LoginRefused { error },
    }
}

/// Far beyond what a redirect needs; codes are short.
const LONGEST_QUERY: usize = 8 * 1024;
const LONGEST_CODE: usize = 4 * 1024;
/// RFC 6749's words are shorter; the set keeps them harmless wherever they are shown.
const LONGEST_ERROR: usize = 64;

fn read_redirect(query: &str) -> Result<Redirect, LoginError> {
    if query.len() > LONGEST_QUERY {
        return Err(LoginError::BadCallback("it is too long"));
    }
    let [mut state, mut code, mut error] = [None, None, None];
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let slot: &mut Option<Cow<'_, str>> = match &*name {
            "state" => &mut state,
            "code" => &mut code,
            "error" => &mut error,
            _ => continue,
        };
        if slot.replace(value).is_some() {
            return Err(LoginError::BadCallback("a parameter stands in it twice"));
        }
    }
    let state = state.ok_or(LoginError::BadCallback("it has no state"))?;
    let state = Code::parse(&state).ok_or(LoginError::LoginExpired)?;
    match (code, error) {
        (Some(_), Some(_)) => Err(LoginError::BadCallback("it holds a code and an error")),
        (None, None) => Err(LoginError::BadCallback("it holds neither a code nor an error")),
        (Some(code), None) => Ok(Redirect::Code { state, code: read_code(&code)? }),
        (None, Some(error)) => Ok(Redirect::Error { state, error: read_error(&error) }),
    }
}

fn read_code(code: &str) -> Result<AuthorizationCode, LoginError> {
    let fits = !code.is_empty() && code.len() <= LONGEST_CODE && code.bytes().all(|b| b.is_ascii_graphic());
    if fits {
        Ok(AuthorizationCode::new(code))
    } else {
        Err(LoginError::BadCallback("its code is malformed"))
    }
}

fn read_error(error: &str) -> String {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if !error.is_empty() && error.len() <= LONGEST_ERROR && error.bytes().all(fits) {
        error.to_owned()
    } else {
        "unreadable".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(query: &str) -> LoginError {
        match read_redirect(query) {
            Err(error) => error,
            Ok(_) => panic!("{query} was taken"),
        }
    }

    #[test]
    fn a_redirect_with_a_parameter_twice_or_missing_or_malformed_is_refused() {
        let state = Code::fresh();
        let state = state.expose();
        for query in [
            String::new(),
            "code=a".into(),
            format!("state={state}"),
            format!("state={state}&code=a&code=a"),
            format!("state={state}&state={state}&code=a"),
            format!("state={state}&st%61te=x&code=a"),
            format!("state={state}&code=a&error=access_denied"),
            format!("state={state}&code="),
            format!("state={state}&code=a%0d%0ab"),
            format!("state={state}&code=a+b"),
            format!("state={state}&code={}", "a".repeat(5000)),
            format!("state={state}&code=a&x={}", "a".repeat(9000)),
        ] {
            assert!(matches!(fault(&query), LoginError::BadCallback(_)), "{query}");
        }
        assert_eq!(fault("state=forged&code=a"), LoginError::LoginExpired);
        assert!(read_redirect(&format!("state={state}&code=a%2Fb%3D&session_state=x")).is_ok());
    }

    #[test]
    fn an_error_word_is_carried_only_where_it_is_harmless() {
        assert_eq!(read_error("access_denied"), "access_denied");
        for bad in ["", "<script>", "a b", &"a".repeat(65)] {
            assert_eq!(read_error(bad), "unreadable");
        }
    }
}
