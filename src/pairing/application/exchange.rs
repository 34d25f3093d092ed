//! From the code that an application's browser brought to its login. The rule: a code works once, within five
//! minutes, for the client that it was made for; whoever fails one of these checks does not spend it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::Pairing;
use super::super::code::Code;
use super::super::connect::Login;
use super::super::outcome::LoginError;
use super::super::pending::{CodeStatus, PendingPayload};
use super::ApplicationRequest;
use super::login::{ApplicationLogin, PendingApplicationLogin};
use crate::clock::Timestamp;
use crate::store::{PendingKind, StoreError};

/// "A few minutes" (Authentication and Pairing V2, 4.1.2).
const CODE_VALID: Duration = Duration::from_secs(5 * 60);

/// A login that waits for its application to fetch it.
#[derive(Serialize, Deserialize)]
pub(in crate::pairing) struct PendingApplicationCode {
    request: ApplicationRequest,
    login: PendingApplicationLogin,
    /// When the login's token ends, in milliseconds.
    ends_at: u64,
}

impl PendingPayload for PendingApplicationCode {
    const KIND: PendingKind = PendingKind::ApplicationCode;
}

/// What an application sends to get its tokens (Authentication and Pairing V2, 4.1.2), its credentials aside.
#[derive(Clone, Copy)]
pub struct CodeExchange<'a> {
    /// The caller, as its credentials have shown.
    pub caller: &'a str,
    pub code: &'a str,
    pub redirect_uri: Option<&'a str>,
    pub code_verifier: Option<&'a str>,
}

/// Why a code brings no login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodeExchangeError {
    #[error("the code is unknown, was used already, or its five minutes are over")]
    UnknownCode,
    #[error("redirect_uri is not the one that the login began with")]
    OtherRedirectUri,
    #[error("code_verifier does not fit the code_challenge that the login began with")]
    WrongVerifier,
    #[error("store_unavailable: nothing was changed; try again")]
    StoreUnavailable,
}

impl Pairing {
    /// Keeps a login for the application and returns where the browser goes with its code.
    pub(in crate::pairing) async fn hand_over(
        &self,
        request: ApplicationRequest,
        login: Login,
        ends_at: Timestamp,
    ) -> Result<String, LoginError> {
        let held = PendingApplicationCode {
            login: PendingApplicationLogin::of(&request.caller, &login),
            request: request.clone(),
            ends_at: ends_at.as_millis(),
        };
        let put = self.pending.put(held, CODE_VALID).await;
        let (code, _) = put.map_err(|problem| LoginError::of_store(&problem))?;
        Ok(request.with_code(&code))
    }

    /// The login behind a code.
    pub async fn exchange_code(
        &self,
        exchange: CodeExchange<'_>,
    ) -> Result<ApplicationLogin, CodeExchangeError> {
        let code = Code::parse(exchange.code).ok_or(CodeExchangeError::UnknownCode)?;
        let held: PendingApplicationCode = live(self.pending.peek(&code).await)?;
        check(&held, &exchange)?;
        // Kept before the code is spent, so that a store that fails between costs nobody the login.
        let kept = self.keep_login(held.login, Timestamp::from_millis(held.ends_at)).await;
        let login = kept.map_err(|problem| store_unavailable(&problem))?;
        match live::<PendingApplicationCode>(self.pending.take(&code).await) {
            Ok(_) => Ok(ApplicationLogin { nonce: held.request.nonce, ..login }),
            Err(error) => {
                // Another one was first.
                let _unused = self.end_login(login.id, exchange.caller).await;
                Err(error)
            }
        }
    }
}

/// The client has shown who it is; this is whether the code was made for it, and for the one that began.
fn check(held: &PendingApplicationCode, exchange: &CodeExchange<'_>) -> Result<(), CodeExchangeError> {
    let PendingApplicationCode { request, .. } = held;
    if request.caller != exchange.caller {
        return Err(CodeExchangeError::UnknownCode);
    }
    let same_uri = match exchange.redirect_uri {
        Some(sent) => sent == request.redirect_uri,
        None => !request.sent_redirect_uri,
    };
    if !same_uri {
        return Err(CodeExchangeError::OtherRedirectUri);
    }
    // A verifier without a challenge is none of this login's (RFC 9700, 4.8.2).
    let is_met = match (&request.challenge, exchange.code_verifier) {
        (Some(challenge), Some(verifier)) => challenge.is_met_by(verifier),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    if is_met { Ok(()) } else { Err(CodeExchangeError::WrongVerifier) }
}

fn live<T>(held: Result<CodeStatus<T>, StoreError>) -> Result<T, CodeExchangeError> {
    match held {
        Ok(CodeStatus::Live { what, .. }) => Ok(what),
        Ok(CodeStatus::Used { .. } | CodeStatus::Unknown) => Err(CodeExchangeError::UnknownCode),
        Err(problem) => Err(store_unavailable(&problem)),
    }
}

fn store_unavailable(problem: &StoreError) -> CodeExchangeError {
    tracing::error!(%problem, "an application's login cannot go on: the store failed");
    CodeExchangeError::StoreUnavailable
}
