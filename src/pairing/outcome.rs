//! How a login can end, as values, and what each end says to the person in front of it. No word here comes
//! from a request.

use super::code::Code;
use crate::clock::Timestamp;
use crate::model::account::{AccountId, AccountName, RealmName};
use crate::platform::{Blame, PlatformError, PlatformErrorKind, RelatedAccount};
use crate::store::StoreError;

/// Where a step of a login has led.
#[derive(Debug, Clone)]
pub enum LoginOutcome {
    Connected(Connected),
    /// Several accounts: the person has to say which.
    Choose(Choice),
    Failed {
        error: LoginError,
        /// The start link's code, where starting again may help.
        again: Option<Code>,
    },
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
    /// False while the store does not take the tokens; the gateway keeps trying.
    pub saved: bool,
    /// The platform's own (chart numbers) and ours.
    pub warnings: Vec<String>,
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
    /// A start link that is unknown, or whose time is over: these two cannot be told apart.
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
    /// An error redirect other than a cancelled login; RFC 6749's `error` word.
    LoginRefused {
        error: String,
    },
    /// The code or the login's bearer was not taken.
    LoginNotAccepted,
    /// The code was probably spent by a try whose answer was lost.
    LoginLost,
    CredentialsRefused,
    /// Discovery answered with nothing.
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
    /// Time-outs and 5xx, after all repeats.
    PlatformDown {
        detail: String,
    },
    PlatformMisbehaved {
        detail: String,
    },
    StoreDown,
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
            LoginError::Broken => "broken",
        }
    }

    pub fn message(&self) -> UserMessage {
        let (title, what, todo) = match self {
            LoginError::Cancelled => (
                "Login cancelled",
                "The login at iTero was cancelled, and nothing was changed.".into(),
                "Try again whenever you like.".into(),
            ),
            LoginError::Expired => (
                "This link is not valid",
                "The link is unknown, or its time is over.".into(),
                "Ask whoever sent it for a new one. Check also that the address was copied completely.".into(),
            ),
            LoginError::LoginExpired => (
                "This login has run out",
                "The login took longer than ten minutes, or did not begin at this gateway.".into(),
                "Log in again with the link that you were given, if its time is not over, without a long pause. Otherwise ask whoever sent it for a new one.".into(),
            ),
            LoginError::AlreadyUsed { by: Some(name) } => (
                "This link was already used",
                format!("The account {name} was connected with it."),
                "There is nothing left to do. Ask for a new link if another account is to be connected.".into(),
            ),
            LoginError::AlreadyUsed { by: None } => (
                "This login was already used",
                "Each login counts once. This happens when a page is reloaded or a button is pressed twice.".into(),
                "If an earlier page said that the account is connected, all is well. Otherwise start again with the link that you were given.".into(),
            ),
            LoginError::WrongBrowser => (
                "This login began in another browser",
                "The login can only be finished in the browser in which it was started, with cookies allowed.".into(),
                "Open the link that you were given in this browser, exactly as it is, and log in again.".into(),
            ),
            LoginError::BadCallback(fault) => (
                "That is not an answer of the login page",
                format!("The address is not one that iTero sends a browser to: {fault}."),
                "Start again with the link that you were given.".into(),
            ),
            LoginError::BadChoice => (
                "No such account",
                "The account that was chosen is none of those offered.".into(),
                "Start again and choose one of the accounts on the page.".into(),
            ),
            LoginError::LoginRefused { error } => (
                "iTero refused the login",
                format!("iTero ended the login with the error \"{error}\"."),
                "Try again. If it happens again, give the error to Align's support (iTeroAPISupport@aligntech.com).".into(),
            ),
            LoginError::LoginNotAccepted => (
                "The login was not accepted",
                "iTero did not accept the login any more. Logins are good for a few minutes only.".into(),
                "Log in again, without a pause.".into(),
            ),
            LoginError::LoginLost => (
                "The login was lost on the way",
                "iTero did not answer in time, and the login cannot be used a second time.".into(),
                "Log in again. Nothing else is lost.".into(),
            ),
            LoginError::CredentialsRefused => (
                "iTero does not accept this gateway",
                "The client_id or client_secret of this gateway was refused. Your login is not at fault.".into(),
                "Tell the operator of this gateway to check the realm's credentials (genapi-gateway check --connect).".into(),
            ),
            LoginError::NotEnabled => (
                "iTero's services are not enabled for this integration",
                "The login worked, but iTero's service discovery found nothing for this integration.".into(),
                "The operator of this gateway has to ask Align's support (iTeroAPISupport@aligntech.com) to enable discovery for the integration, and to check the realm's discovery name and version.".into(),
            ),
            LoginError::Forbidden { call } => (
                "iTero does not allow this",
                format!("The login worked, but iTero forbade the step \"{call}\" (status 403)."),
                "Log in as a user who may manage the account's integrations, or ask Align's support (iTeroAPISupport@aligntech.com) whether the integration is enabled for it.".into(),
            ),
            LoginError::NoAccounts => (
                "No account to connect",
                "The login worked, but iTero lists no account for this user. It lists only accounts that the user belongs to and that Align has enabled for this integration.".into(),
                "Check that you logged in as the right user. If so, ask Align's support (iTeroAPISupport@aligntech.com) to enable the account for this integration.".into(),
            ),
            LoginError::AccountNotListed { wanted, listed } => (
                "A different account was expected",
                match listed {
                    1 => format!("This login is for the iTero account {wanted}, and this user can connect another one only."),
                    several => format!("This login is for the iTero account {wanted}, which is none of the {several} accounts that this user can connect."),
                },
                "Log in as a user of that account, or ask for a link for the account that you use.".into(),
            ),
            LoginError::PairedElsewhere => (
                "The account is connected to another application",
                "iTero answered that this account is paired with another application (status 409). A lab can be paired with one at a time.".into(),
                "Somebody at the lab has to disconnect (unpair) it in the other application first. Then open this link again.".into(),
            ),
            LoginError::WrongAccountId => (
                "iTero does not know this account",
                "iTero refused the account's number (status 400).".into(),
                "Start again and choose the account from the list. If it happens again, ask Align's support (iTeroAPISupport@aligntech.com).".into(),
            ),
            LoginError::NameTaken { name, realm, id } => (
                "The name is taken",
                format!("The name {name} already stands for the iTero account {id} of realm {realm}. Nothing was changed."),
                "Ask the operator for a link with another name, or log in as a user of that account.".into(),
            ),
            LoginError::KnownAs { realm, id, name } => (
                "The account has another name already",
                format!("The iTero account {id} of realm {realm} is known here as {name}. Nothing was changed."),
                format!("Ask the operator for a link for {name}."),
            ),
            LoginError::RealmGone { realm } => (
                "The realm is no longer configured",
                format!("The realm {realm}, for which this link was made, is not in the gateway's configuration."),
                "Ask whoever sent it for a new one.".into(),
            ),
            LoginError::RouteRefused { detail } => (
                "iTero named an address that is not allowed",
                format!("Discovery led to an address that this gateway does not trust ({detail})."),
                "The operator of this gateway has to check the realm's allowed_hosts against what Align says.".into(),
            ),
            LoginError::PlatformDown { detail } => (
                "iTero does not answer",
                format!("iTero could not be reached, or had a fault, and trying again did not help ({detail})."),
                "Wait some minutes, then start again with the same link.".into(),
            ),
            LoginError::PlatformMisbehaved { detail } => (
                "iTero gave an answer that makes no sense",
                format!("The answer is not what iTero's documents describe ({detail})."),
                "Try again later. If it stays, the operator of this gateway should show this text to Align's support (iTeroAPISupport@aligntech.com).".into(),
            ),
            LoginError::StoreDown => (
                "The gateway cannot write at the moment",
                "The gateway's own store is out of order, so the login was not carried on. Nothing was changed at iTero.".into(),
                "Try again in some minutes, and tell the operator of this gateway.".into(),
            ),
            LoginError::Broken => (
                "Something went wrong in the gateway",
                "A fault of the gateway itself; its log has the details.".into(),
                "Start again, and tell the operator of this gateway.".into(),
            ),
        };
        UserMessage { title, what, todo }
    }

    /// The same for the operator who pastes: there is a command instead of a link.
    pub fn pasted_message(&self) -> UserMessage {
        let message = self.message();
        let todo = match self {
            LoginError::BadCallback(_) => "Copy the whole address from the browser's address line, and paste it again.".into(),
            LoginError::WrongBrowser => {
                return UserMessage {
                    title: "This address belongs to another login",
                    what: "The address that was pasted is the end of another login than the one that this command began.".into(),
                    todo: "Log in at the address that the command printed, and paste the one on which the browser ends.".into(),
                };
            }
            LoginError::Expired | LoginError::LoginExpired => "Run the command again, and log in within ten minutes.".into(),
            LoginError::AlreadyUsed { by: Some(_) } => "There is nothing left to do.".into(),
            LoginError::AlreadyUsed { by: None } => "If `accounts list` does not show the account, run the command again.".into(),
            LoginError::BadChoice => "Run the command again and choose one of the accounts.".into(),
            LoginError::AccountNotListed { .. } => "Log in as a user of that account, or run the command for the account that you use.".into(),
            LoginError::PairedElsewhere => "Somebody at the lab has to disconnect (unpair) it in the other application first. Then run the command again.".into(),
            LoginError::NameTaken { .. } => "Run the command with another name, or log in as a user of that account.".into(),
            LoginError::KnownAs { name, .. } => format!("Run the command with the name {name}."),
            LoginError::RealmGone { realm } => {
                return UserMessage {
                    what: format!("The realm {realm} is not in the gateway's configuration any more."),
                    todo: "Run the command again with a realm that is configured.".into(),
                    ..message
                };
            }
            LoginError::PlatformDown { .. } => "Wait some minutes, then run the command again.".into(),
            _ => return message,
        };
        let what = message.what.replace("This link", "This login").replace("The link", "The login");
        let title =
            if matches!(self, LoginError::Expired) { "This login is not valid" } else { message.title };
        let title = if matches!(self, LoginError::AlreadyUsed { .. }) {
            "This login was already used"
        } else {
            title
        };
        UserMessage { title, what, todo }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_that_was_late_is_not_sent_back_to_a_link_that_is_over_too() {
        let todo = LoginError::LoginExpired.message().todo;
        assert!(!todo.contains("once more"), "{todo}");
        assert!(todo.contains("if its time is not over") && todo.contains("a new one"), "{todo}");
    }

    #[test]
    fn who_sees_another_account_than_the_wanted_one_is_told_so_in_a_sentence() {
        let what = |listed| LoginError::AccountNotListed { wanted: AccountId::new(7), listed }.message().what;
        assert!(what(1).ends_with("account 7, and this user can connect another one only."), "{}", what(1));
        assert!(
            what(3).ends_with("which is none of the 3 accounts that this user can connect."),
            "{}",
            what(3)
        );
    }

    #[test]
    fn an_operator_who_pastes_is_told_of_no_link() {
        let (name, realm): (AccountName, RealmName) = ("smile".parse().unwrap(), "global".parse().unwrap());
        let id = AccountId::new(7);
        for error in [
            LoginError::Expired,
            LoginError::LoginExpired,
            LoginError::AlreadyUsed { by: None },
            LoginError::AlreadyUsed { by: Some(name.clone()) },
            LoginError::WrongBrowser,
            LoginError::BadCallback("it has no state"),
            LoginError::BadChoice,
            LoginError::AccountNotListed { wanted: id, listed: 1 },
            LoginError::PairedElsewhere,
            LoginError::WrongAccountId,
            LoginError::NameTaken { name: name.clone(), realm: realm.clone(), id },
            LoginError::KnownAs { realm: realm.clone(), id, name },
            LoginError::RealmGone { realm },
            LoginError::PlatformDown { detail: "504".into() },
            LoginError::LoginLost,
            LoginError::Cancelled,
        ] {
            let UserMessage { title, what, todo } = error.pasted_message();
            assert!(![title, &what, &todo].iter().any(|text| text.contains("link")), "{title} {what} {todo}");
        }
    }
}
