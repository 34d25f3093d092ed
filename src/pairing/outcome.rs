//! How a login can end, as values, and what each end says to the person in front of it. No word here comes from a request.

use super::code::Code;
use crate::clock::Timestamp;
use crate::model::account::{AccountId, AccountName, RealmName};
use crate::platform::{Blame, PlatformError, PlatformErrorKind, RelatedAccount};
use crate::store::StoreError;

/// Where a step of a login has led.
#[derive(Debug, Clone)]
pub enum Outcome {
    Connected(Connected),
    /// Several accounts: the person has to say which.
    Choose(Choice),
    Stopped {
        stop: Stop,
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
pub enum Stop {
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
pub struct Words {
    pub title: &'static str,
    pub what: String,
    pub todo: String,
}

/// Which call a trouble came from, where the same status means different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Exchange,
    Discovery,
    Accounts,
    Pair,
}

impl Stop {
    /// Reads the platform's trouble. `doubtful`: an earlier try may have been carried out.
    pub(super) fn of_trouble(stage: Stage, trouble: &PlatformError, doubtful: bool) -> Self {
        let detail = || trouble.to_string();
        match trouble.kind {
            PlatformErrorKind::PairedElsewhere => Stop::PairedElsewhere,
            PlatformErrorKind::NothingDiscovered => Stop::NotEnabled,
            PlatformErrorKind::RouteRefused => Stop::RouteRefused { detail: detail() },
            PlatformErrorKind::Forbidden => Stop::Forbidden { call: trouble.call },
            PlatformErrorKind::Refused => match (trouble.blame, stage) {
                (Blame::Credentials, _) => Stop::CredentialsRefused,
                // A code is spent by its first use, so a repeat after 504 may get 400 (gen-api, section 2).
                (Blame::Grant, Stage::Exchange) if doubtful => Stop::LoginLost,
                (Blame::Grant, _) => Stop::LoginNotAccepted,
                (Blame::Account | Blame::Realm, _) => Stop::PlatformMisbehaved { detail: detail() },
            },
            PlatformErrorKind::Failed
            | PlatformErrorKind::TimedOut
            | PlatformErrorKind::Unreachable
            | PlatformErrorKind::Lost => Stop::PlatformDown { detail: detail() },
            PlatformErrorKind::Unexpected => match (trouble.blame, stage, trouble.status) {
                // Authentication and Pairing V2, 4.3.1: wrong company id; 4.2.2: wrong discovery parameters.
                (Blame::Account, Stage::Pair, Some(400)) => Stop::WrongAccountId,
                (Blame::Account, Stage::Discovery, Some(400)) => Stop::NotEnabled,
                _ => Stop::PlatformMisbehaved { detail: detail() },
            },
            PlatformErrorKind::Malformed => Stop::PlatformMisbehaved { detail: detail() },
        }
    }

    pub(super) fn of_store(problem: &StoreError) -> Self {
        tracing::error!(%problem, "a login cannot go on: the store failed");
        Stop::StoreDown
    }

    /// A stable word for the JSON API and the log.
    pub fn code(&self) -> &'static str {
        match self {
            Stop::Cancelled => "cancelled",
            Stop::Expired => "expired",
            Stop::LoginExpired => "login_expired",
            Stop::AlreadyUsed { .. } => "already_used",
            Stop::WrongBrowser => "wrong_browser",
            Stop::BadCallback(_) => "bad_callback",
            Stop::BadChoice => "bad_choice",
            Stop::LoginRefused { .. } => "login_refused",
            Stop::LoginNotAccepted => "login_not_accepted",
            Stop::LoginLost => "login_lost",
            Stop::CredentialsRefused => "credentials_refused",
            Stop::NotEnabled => "not_enabled",
            Stop::Forbidden { .. } => "forbidden",
            Stop::NoAccounts => "no_accounts",
            Stop::AccountNotListed { .. } => "account_not_listed",
            Stop::PairedElsewhere => "paired_elsewhere",
            Stop::WrongAccountId => "wrong_account_id",
            Stop::NameTaken { .. } => "name_taken",
            Stop::KnownAs { .. } => "known_as",
            Stop::RealmGone { .. } => "realm_gone",
            Stop::RouteRefused { .. } => "route_refused",
            Stop::PlatformDown { .. } => "platform_down",
            Stop::PlatformMisbehaved { .. } => "platform_misbehaved",
            Stop::StoreDown => "store_down",
            Stop::Broken => "broken",
        }
    }

    pub fn words(&self) -> Words {
        let (title, what, todo) = match self {
            Stop::Cancelled => (
                "Login cancelled",
                "The login at iTero was cancelled, and nothing was changed.".into(),
                "Try again whenever you like.".into(),
            ),
            Stop::Expired => (
                "This link is not valid",
                "The link is unknown, or its time is over.".into(),
                "Ask whoever sent it for a new one. Check also that the address was copied completely.".into(),
            ),
            Stop::LoginExpired => (
                "This login has run out",
                "The login took longer than ten minutes, or did not begin at this gateway.".into(),
                "Log in again with the link that you were given, if its time is not over, without a long pause. Otherwise ask whoever sent it for a new one.".into(),
            ),
            Stop::AlreadyUsed { by: Some(name) } => (
                "This link was already used",
                format!("The account {name} was connected with it."),
                "There is nothing left to do. Ask for a new link if another account is to be connected.".into(),
            ),
            Stop::AlreadyUsed { by: None } => (
                "This login was already used",
                "Each login counts once. This happens when a page is reloaded or a button is pressed twice.".into(),
                "If an earlier page said that the account is connected, all is well. Otherwise start again with the link that you were given.".into(),
            ),
            Stop::WrongBrowser => (
                "This login began in another browser",
                "The login can only be finished in the browser in which it was started, with cookies allowed.".into(),
                "Open the link that you were given in this browser, exactly as it is, and log in again.".into(),
            ),
            Stop::BadCallback(fault) => (
                "That is not an answer of the login page",
                format!("The address is not one that iTero sends a browser to: {fault}."),
                "Start again with the link that you were given.".into(),
            ),
            Stop::BadChoice => (
                "No such account",
                "The account that was chosen is none of those offered.".into(),
                "Start again and choose one of the accounts on the page.".into(),
            ),
            Stop::LoginRefused { error } => (
                "iTero refused the login",
                format!("iTero ended the login with the error \"{error}\"."),
                "Try again. If it happens again, give the error to Align's support (iTeroAPISupport@aligntech.com).".into(),
            ),
            Stop::LoginNotAccepted => (
                "The login was not accepted",
                "iTero did not accept the login any more. Logins are good for a few minutes only.".into(),
                "Log in again, without a pause.".into(),
            ),
            Stop::LoginLost => (
                "The login was lost on the way",
                "iTero did not answer in time, and the login cannot be used a second time.".into(),
                "Log in again. Nothing else is lost.".into(),
            ),
            Stop::CredentialsRefused => (
                "iTero does not accept this gateway",
                "The client_id or client_secret of this gateway was refused. Your login is not at fault.".into(),
                "Tell the operator of this gateway to check the realm's credentials (genapi-gateway check --connect).".into(),
            ),
            Stop::NotEnabled => (
                "iTero's services are not enabled for this integration",
                "The login worked, but iTero's service discovery found nothing for this integration.".into(),
                "The operator of this gateway has to ask Align's support (iTeroAPISupport@aligntech.com) to enable discovery for the integration, and to check the realm's discovery name and version.".into(),
            ),
            Stop::Forbidden { call } => (
                "iTero does not allow this",
                format!("The login worked, but iTero forbade the step \"{call}\" (status 403)."),
                "Log in as a user who may manage the account's integrations, or ask Align's support (iTeroAPISupport@aligntech.com) whether the integration is enabled for it.".into(),
            ),
            Stop::NoAccounts => (
                "No account to connect",
                "The login worked, but iTero lists no account for this user. It lists only accounts that the user belongs to and that Align has enabled for this integration.".into(),
                "Check that you logged in as the right user. If so, ask Align's support (iTeroAPISupport@aligntech.com) to enable the account for this integration.".into(),
            ),
            Stop::AccountNotListed { wanted, listed } => (
                "A different account was expected",
                match listed {
                    1 => format!("This login is for the iTero account {wanted}, and this user can connect another one only."),
                    several => format!("This login is for the iTero account {wanted}, which is none of the {several} accounts that this user can connect."),
                },
                "Log in as a user of that account, or ask for a link for the account that you use.".into(),
            ),
            Stop::PairedElsewhere => (
                "The account is connected to another application",
                "iTero answered that this account is paired with another application (status 409). A lab can be paired with one at a time.".into(),
                "Somebody at the lab has to disconnect (unpair) it in the other application first. Then open this link again.".into(),
            ),
            Stop::WrongAccountId => (
                "iTero does not know this account",
                "iTero refused the account's number (status 400).".into(),
                "Start again and choose the account from the list. If it happens again, ask Align's support (iTeroAPISupport@aligntech.com).".into(),
            ),
            Stop::NameTaken { name, realm, id } => (
                "The name is taken",
                format!("The name {name} already stands for the iTero account {id} of realm {realm}. Nothing was changed."),
                "Ask the operator for a link with another name, or log in as a user of that account.".into(),
            ),
            Stop::KnownAs { realm, id, name } => (
                "The account has another name already",
                format!("The iTero account {id} of realm {realm} is known here as {name}. Nothing was changed."),
                format!("Ask the operator for a link for {name}."),
            ),
            Stop::RealmGone { realm } => (
                "The realm is no longer configured",
                format!("The realm {realm}, for which this link was made, is not in the gateway's configuration."),
                "Ask whoever sent it for a new one.".into(),
            ),
            Stop::RouteRefused { detail } => (
                "iTero named an address that is not allowed",
                format!("Discovery led to an address that this gateway does not trust ({detail})."),
                "The operator of this gateway has to check the realm's allowed_hosts against what Align says.".into(),
            ),
            Stop::PlatformDown { detail } => (
                "iTero does not answer",
                format!("iTero could not be reached, or had a fault, and trying again did not help ({detail})."),
                "Wait some minutes, then start again with the same link.".into(),
            ),
            Stop::PlatformMisbehaved { detail } => (
                "iTero gave an answer that makes no sense",
                format!("The answer is not what iTero's documents describe ({detail})."),
                "Try again later. If it stays, the operator of this gateway should show this text to Align's support (iTeroAPISupport@aligntech.com).".into(),
            ),
            Stop::StoreDown => (
                "The gateway cannot write at the moment",
                "The gateway's own store is out of order, so the login was not carried on. Nothing was changed at iTero.".into(),
                "Try again in some minutes, and tell the operator of this gateway.".into(),
            ),
            Stop::Broken => (
                "Something went wrong in the gateway",
                "A fault of the gateway itself; its log has the details.".into(),
                "Start again, and tell the operator of this gateway.".into(),
            ),
        };
        Words { title, what, todo }
    }

    /// The same for the operator who pastes: there is a command instead of a link.
    pub fn pasted_words(&self) -> Words {
        let words = self.words();
        let todo = match self {
            Stop::BadCallback(_) => "Copy the whole address from the browser's address line, and paste it again.".into(),
            Stop::WrongBrowser => {
                return Words {
                    title: "This address belongs to another login",
                    what: "The address that was pasted is the end of another login than the one that this command began.".into(),
                    todo: "Log in at the address that the command printed, and paste the one on which the browser ends.".into(),
                };
            }
            Stop::Expired | Stop::LoginExpired => "Run the command again, and log in within ten minutes.".into(),
            Stop::AlreadyUsed { by: Some(_) } => "There is nothing left to do.".into(),
            Stop::AlreadyUsed { by: None } => "If `accounts list` does not show the account, run the command again.".into(),
            Stop::BadChoice => "Run the command again and choose one of the accounts.".into(),
            Stop::AccountNotListed { .. } => "Log in as a user of that account, or run the command for the account that you use.".into(),
            Stop::PairedElsewhere => "Somebody at the lab has to disconnect (unpair) it in the other application first. Then run the command again.".into(),
            Stop::NameTaken { .. } => "Run the command with another name, or log in as a user of that account.".into(),
            Stop::KnownAs { name, .. } => format!("Run the command with the name {name}."),
            Stop::RealmGone { realm } => {
                return Words {
                    what: format!("The realm {realm} is not in the gateway's configuration any more."),
                    todo: "Run the command again with a realm that is configured.".into(),
                    ..words
                };
            }
            Stop::PlatformDown { .. } => "Wait some minutes, then run the command again.".into(),
            _ => return words,
        };
        let what = words.what.replace("This link", "This login").replace("The link", "The login");
        let title = if matches!(self, Stop::Expired) { "This login is not valid" } else { words.title };
        let title =
            if matches!(self, Stop::AlreadyUsed { .. }) { "This login was already used" } else { title };
        Words { title, what, todo }
    }

    /// Whether the same pasted login goes on with another address.
    pub fn may_paste_again(&self) -> bool {
        matches!(
            self,
            Stop::BadCallback(_) | Stop::WrongBrowser | Stop::LoginExpired | Stop::AlreadyUsed { by: None }
        )
    }

    /// Whether the same start link can lead further.
    pub fn may_start_again(&self) -> bool {
        !matches!(
            self,
            Stop::Expired
                | Stop::LoginExpired
                | Stop::AlreadyUsed { .. }
                | Stop::NameTaken { .. }
                | Stop::RealmGone { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_that_was_late_is_not_sent_back_to_a_link_that_is_over_too() {
        let todo = Stop::LoginExpired.words().todo;
        assert!(!todo.contains("once more"), "{todo}");
        assert!(todo.contains("if its time is not over") && todo.contains("a new one"), "{todo}");
    }

    #[test]
    fn who_sees_another_account_than_the_wanted_one_is_told_so_in_a_sentence() {
        let what = |listed| Stop::AccountNotListed { wanted: AccountId::new(7), listed }.words().what;
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
        for stop in [
            Stop::Expired,
            Stop::LoginExpired,
            Stop::AlreadyUsed { by: None },
            Stop::AlreadyUsed { by: Some(name.clone()) },
            Stop::WrongBrowser,
            Stop::BadCallback("it has no state"),
            Stop::BadChoice,
            Stop::AccountNotListed { wanted: id, listed: 1 },
            Stop::PairedElsewhere,
            Stop::WrongAccountId,
            Stop::NameTaken { name: name.clone(), realm: realm.clone(), id },
            Stop::KnownAs { realm: realm.clone(), id, name },
            Stop::RealmGone { realm },
            Stop::PlatformDown { detail: "504".into() },
            Stop::LoginLost,
            Stop::Cancelled,
        ] {
            let Words { title, what, todo } = stop.pasted_words();
            assert!(![title, &what, &todo].iter().any(|text| text.contains("link")), "{title} {what} {todo}");
        }
    }
}
