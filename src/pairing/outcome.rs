//! How a login can end, as values, and what each end says to the person in front of it. No word here comes
//! from a request.

use std::fmt;

use super::code::Code;
use crate::clock::Timestamp;
use crate::model::account::{AccountId, AccountName, RealmName};
use crate::platform::{Blame, PlatformError, PlatformErrorKind, RelatedAccount};
use crate::store::StoreError;

/// Where a step of a login has led.
#[derive(Debug, Clone)]
pub enum LoginOutcome {
    Connected(Connected),
    /// It was an application's login: the browser goes back to it, with a code or an error.
    ReturnToApplication {
        location: ReturnAddress,
    },
    /// Several accounts: the person has to say which.
    Choose(Choice),
    Failed {
        error: LoginError,
        /// The start link's code, where starting again may help.
        again: Option<Code>,
    },
}

/// Where a browser goes back to, with the application's code in it.
#[derive(Clone)]
pub struct ReturnAddress(String);

impl ReturnAddress {
    pub(super) fn new(location: String) -> Self {
        Self(location)
    }

    /// For the `Location` header alone.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ReturnAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReturnAddress(…)")
    }
}

/// An account that is paired now.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Connected {
    pub name: AccountName,
    pub realm: RealmName,
    pub account_id: AccountId,
    /// As the platform shows it: for the page, never for logs.
    pub shown: String,
    /// The account was known before.
    pub renewed: bool,
    /// An operator holds it: it is not served until `resume`.
    pub paused: bool,
    /// The account exists to be tested with.
    pub test: bool,
    /// False while the store does not take the tokens; the gateway keeps trying.
    pub saved: bool,
    /// The platform's own (chart numbers) and ours.
    pub warnings: Vec<String>,
    /// The platform's alone.
    #[serde(skip)]
    pub platform_warnings: Vec<String>,
}

/// Serialised for the operator who pastes: the code is what `choose` wants back.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Choice {
    pub code: Code,
    pub realm: RealmName,
    pub accounts: Vec<RelatedAccount>,
    pub expires_at: Timestamp,
}

/// Why a login goes no further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginError {
    /// The person pressed "cancel" at the platform.
    Cancelled,
    /// A start link that is unknown, or whose time is over: these two cannot be distinguished.
    Expired,
    /// The same of a login under way: its link may well be good still.
    LoginExpired,
    AlreadyUsed {
        by: Option<AccountName>,
    },
    WrongBrowser,
    /// The redirect is not one that the platform would send.
    BadCallback(&'static str),
    /// The chosen account is none of those offered.
    BadChoice,
    /// What came to the authorize endpoint is none that an application would send.
    BadAuthorize(&'static str),
    /// Of an application that nobody has configured.
    UnknownClient,
    /// The application asks for the browser to be sent where its operator has not listed.
    RedirectUriNotListed,
    /// An error redirect other than a cancelled login; RFC 6749's `error` word.
    LoginRefused {
        error: String,
    },
    /// The code or the login's bearer was not taken.
    LoginNotAccepted,
    /// The code was probably spent by a try whose response was lost.
    LoginLost,
    CredentialsRefused,
    /// Discovery returned nothing.
    NotEnabled,
    Forbidden {
        call: &'static str,
    },
    NoAccounts,
    AccountNotListed {
        wanted: AccountId,
        listed: usize,
    },
    PairedElsewhere,
    WrongAccountId,
    /// The name stands for another account of the realm.
    NameTaken {
        name: AccountName,
        realm: RealmName,
        id: AccountId,
    },
    /// The account has another name here.
    KnownAs {
        realm: RealmName,
        id: AccountId,
        name: AccountName,
    },
    RealmGone {
        realm: RealmName,
    },
    RouteRefused {
        detail: String,
    },
    /// Timeouts and 5xx, after all retries.
    PlatformDown {
        detail: String,
    },
    PlatformMisbehaved {
        detail: String,
    },
    StoreDown,
    /// The account is paired, and the store does not take its tokens yet: the gateway holds them and goes on
    /// trying.
    PairedNotSaved,
    /// A fault of ours; the log has it.
    Broken,
}

/// What a page or a command prints.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct UserMessage {
    pub title: &'static str,
    pub what: String,
    pub todo: String,
}

/// Which call a trouble came from, where the same status means different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoginStep {
    Exchange,
    Discovery,
    Accounts,
    Pair,
}

impl LoginError {
    /// Reads the platform's trouble. `may_have_acted`: an earlier try may have been carried out.
    pub(super) fn of_platform_error(stage: LoginStep, trouble: &PlatformError, may_have_acted: bool) -> Self {
        let detail = || trouble.to_string();
        match trouble.kind {
            PlatformErrorKind::PairedElsewhere => LoginError::PairedElsewhere,
            PlatformErrorKind::NothingDiscovered => LoginError::NotEnabled,
            PlatformErrorKind::RouteRefused => LoginError::RouteRefused { detail: detail() },
            PlatformErrorKind::Forbidden => LoginError::Forbidden { call: trouble.call },
            PlatformErrorKind::Refused => match (trouble.blame, stage) {
                (Blame::Credentials, _) => LoginError::CredentialsRefused,
                // A code is spent by its first use, so a repeat after 504 may get 400 (gen-api, section 2).
                (Blame::Grant, LoginStep::Exchange) if may_have_acted => LoginError::LoginLost,
                (Blame::Grant, _) => LoginError::LoginNotAccepted,
                (Blame::Account | Blame::Realm, _) => LoginError::PlatformMisbehaved { detail: detail() },
            },
            PlatformErrorKind::Failed
            | PlatformErrorKind::TimedOut
            | PlatformErrorKind::Unreachable
            | PlatformErrorKind::Lost => LoginError::PlatformDown { detail: detail() },
            PlatformErrorKind::Unexpected => match (trouble.blame, stage, trouble.status) {
                // Authentication and Pairing V2, 4.3.1: wrong company id; 4.2.2: wrong discovery parameters.
                (Blame::Account, LoginStep::Pair, Some(400)) => LoginError::WrongAccountId,
                (Blame::Account, LoginStep::Discovery, Some(400)) => LoginError::NotEnabled,
                _ => LoginError::PlatformMisbehaved { detail: detail() },
            },
            PlatformErrorKind::Malformed => LoginError::PlatformMisbehaved { detail: detail() },
        }
    }

    pub(super) fn of_store(problem: &StoreError) -> Self {
        tracing::error!(%problem, "a login cannot go on: the store failed");
        LoginError::StoreDown
    }

    /// A stable word for the JSON API and the log.
    pub fn code(&self) -> &'static str {
        match self {
            LoginError::Cancelled => "cancelled",
            LoginError::Expired => "expired",
            LoginError::LoginExpired => "login_expired",
            LoginError::AlreadyUsed { .. } => "already_used",
            LoginError::WrongBrowser => "wrong_browser",
            LoginError::BadCallback(_) => "bad_callback",
            LoginError::BadChoice => "bad_choice",
            LoginError::BadAuthorize(_) => "bad_authorize",
            LoginError::UnknownClient => "unknown_client",
            LoginError::RedirectUriNotListed => "redirect_uri_not_listed",
            LoginError::LoginRefused { .. } => "login_refused",
            LoginError::LoginNotAccepted => "login_not_accepted",
            LoginError::LoginLost => "login_lost",
            LoginError::CredentialsRefused => "credentials_refused",
            LoginError::NotEnabled => "not_enabled",
            LoginError::Forbidden { .. } => "forbidden",
            LoginError::NoAccounts => "no_accounts",
            LoginError::AccountNotListed { .. } => "account_not_listed",
            LoginError::PairedElsewhere => "paired_elsewhere",
            LoginError::WrongAccountId => "wrong_account_id",
            LoginError::NameTaken { .. } => "name_taken",
            LoginError::KnownAs { .. } => "known_as",
            LoginError::RealmGone { .. } => "realm_gone",
            LoginError::RouteRefused { .. } => "route_refused",
            LoginError::PlatformDown { .. } => "platform_down",
            LoginError::PlatformMisbehaved { .. } => "platform_misbehaved",
            LoginError::StoreDown => "store_down",
            LoginError::PairedNotSaved => "paired_not_saved",
            LoginError::Broken => "broken",
        }
    }

    /// Whether the same pasted login goes on with another address.
    pub fn may_paste_again(&self) -> bool {
        matches!(
            self,
            LoginError::BadCallback(_)
                | LoginError::WrongBrowser
                | LoginError::LoginExpired
                | LoginError::AlreadyUsed { by: None }
        )
    }

    /// Whether the same start link can lead further.
    pub fn may_start_again(&self) -> bool {
        !matches!(
            self,
            LoginError::Expired
                | LoginError::LoginExpired
                | LoginError::AlreadyUsed { .. }
                | LoginError::NameTaken { .. }
                | LoginError::RealmGone { .. }
        )
    }
}
