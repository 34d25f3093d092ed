//! What a failed login tells the person in front of it, as a table: a row for each way to fail, `{…}` where a
//! value goes.
//! Nothing in a message comes from a request.

use super::outcome::{LoginError, UserMessage};

/// The texts of one failure.
struct FailureText {
    title: &'static str,
    what: &'static str,
    todo: &'static str,
    /// For the operator who pastes: there is a command in place of a link.
    pasted: Option<PastedText>,
}

/// What differs where the redirected URL is pasted.
struct PastedText {
    title: Option<&'static str>,
    what: Option<&'static str>,
    todo: &'static str,
}

const CANCELLED: FailureText = FailureText {
    title: "Login cancelled",
    what: "The login at iTero was cancelled, and nothing was changed.",
    todo: "Try again whenever you like.",
    pasted: None,
};
const EXPIRED: FailureText = FailureText {
    title: "This link is not valid",
    what: "The link is unknown, or its time is over.",
    todo: "Ask whoever sent it for a new one. Check also that the address was copied completely.",
    pasted: Some(PastedText {
        title: Some("This login is not valid"),
        what: Some("The login is unknown, or its time is over."),
        todo: "Run the command again, and log in within ten minutes.",
    }),
};
const LOGIN_EXPIRED: FailureText = FailureText {
    title: "This login has run out",
    what: "The login took longer than ten minutes, or did not begin at this gateway.",
    todo: "Log in again with the link that you were given, if its time is not over, without a long pause. \
         Otherwise ask whoever sent it for a new one.",
    pasted: Some(PastedText {
        title: None,
        what: None,
        todo: "Run the command again, and log in within ten minutes.",
    }),
};
const ALREADY_USED_BY: FailureText = FailureText {
    title: "This link was already used",
    what: "The account {name} was connected with it.",
    todo: "There is nothing left to do. Ask for a new link if another account is to be connected.",
    pasted: Some(PastedText {
        title: Some("This login was already used"),
        what: None,
        todo: "There is nothing left to do.",
    }),
};
const ALREADY_USED: FailureText = FailureText {
    title: "This login was already used",
    what: "Each login counts once. This happens when a page is reloaded or a button is pressed twice.",
    todo: "If an earlier page said that the account is connected, all is well. Otherwise start again with the \
         link that you were given.",
    pasted: Some(PastedText {
        title: Some("This login was already used"),
        what: None,
        todo: "If `accounts list` does not show the account, run the command again.",
    }),
};
const WRONG_BROWSER: FailureText = FailureText {
    title: "This login began in another browser",
    what: "The login can only be finished in the browser in which it was started, with cookies allowed.",
    todo: "Open the link that you were given in this browser, exactly as it is, and log in again.",
    pasted: Some(PastedText {
        title: Some("This address belongs to another login"),
        what: Some(
            "The address that was pasted is the end of another login than the one that this command began.",
        ),
        todo: "Log in at the address that the command printed, and paste the one on which the browser ends.",
    }),
};
const BAD_CALLBACK: FailureText = FailureText {
    title: "That is not an answer of the login page",
    what: "The address is not one that iTero sends a browser to: {fault}.",
    todo: "Start again with the link that you were given.",
    pasted: Some(PastedText {
        title: None,
        what: None,
        todo: "Copy the whole address from the browser's address line, and paste it again.",
    }),
};
const BAD_CHOICE: FailureText = FailureText {
    title: "No such account",
    what: "The account that was chosen is none of those offered.",
    todo: "Start again and choose one of the accounts on the page.",
    pasted: Some(PastedText {
        title: None,
        what: None,
        todo: "Run the command again and choose one of the accounts.",
    }),
};
const LOGIN_REFUSED: FailureText = FailureText {
    title: "iTero refused the login",
    what: "iTero ended the login with the error \"{error}\".",
    todo: "Try again. If it happens again, give the error to Align's support (iTeroAPISupport@aligntech.com).",
    pasted: None,
};
const LOGIN_NOT_ACCEPTED: FailureText = FailureText {
    title: "The login was not accepted",
    what: "iTero did not accept the login any more. Logins are good for a few minutes only.",
    todo: "Log in again, without a pause.",
    pasted: None,
};
const LOGIN_LOST: FailureText = FailureText {
    title: "The login was lost on the way",
    what: "iTero did not answer in time, and the login cannot be used a second time.",
    todo: "Log in again. Nothing else is lost.",
    pasted: None,
};
const CREDENTIALS_REFUSED: FailureText = FailureText {
    title: "iTero does not accept this gateway",
    what: "The client_id or client_secret of this gateway was refused. Your login is not at fault.",
    todo: "Tell the operator of this gateway to check the realm's credentials (genapi-gateway check \
         --connect).",
    pasted: None,
};
const NOT_ENABLED: FailureText = FailureText {
    title: "iTero's services are not enabled for this integration",
    what: "The login worked, but iTero's service discovery found nothing for this integration.",
    todo: "The operator of this gateway has to ask Align's support (iTeroAPISupport@aligntech.com) to enable \
         discovery for the integration, and to check the realm's discovery name and version.",
    pasted: None,
};
const FORBIDDEN: FailureText = FailureText {
    title: "iTero does not allow this",
    what: "The login worked, but iTero forbade the step \"{call}\" (status 403).",
    todo: "Log in as a user who may manage the account's integrations, or ask Align's support \
         (iTeroAPISupport@aligntech.com) whether the integration is enabled for it.",
    pasted: None,
};
const NO_ACCOUNTS: FailureText = FailureText {
    title: "No account to connect",
    what: "The login worked, but iTero lists no account for this user. It lists only accounts that the user \
         belongs to and that Align has enabled for this integration.",
    todo: "Check that you logged in as the right user. If so, ask Align's support \
         (iTeroAPISupport@aligntech.com) to enable the account for this integration.",
    pasted: None,
};
const ACCOUNT_NOT_LISTED_BUT_ONE: FailureText = FailureText {
    title: "A different account was expected",
    what: "This login is for the iTero account {wanted}, and this user can connect another one only.",
    todo: "Log in as a user of that account, or ask for a link for the account that you use.",
    pasted: Some(PastedText {
        title: None,
        what: None,
        todo: "Log in as a user of that account, or run the command for the account that you use.",
    }),
};
const ACCOUNT_NOT_LISTED: FailureText = FailureText {
    title: "A different account was expected",
    what: "This login is for the iTero account {wanted}, which is none of the {several} accounts that this \
         user can connect.",
    todo: "Log in as a user of that account, or ask for a link for the account that you use.",
    pasted: Some(PastedText {
        title: None,
        what: None,
        todo: "Log in as a user of that account, or run the command for the account that you use.",
    }),
};
const PAIRED_ELSEWHERE: FailureText = FailureText {
    title: "The account is connected to another application",
    what: "iTero answered that this account is paired with another application (status 409). A lab can be \
         paired with one at a time.",
    todo: "Somebody at the lab has to disconnect (unpair) it in the other application first. Then open this \
         link again.",
    pasted: Some(PastedText {
        title: None,
        what: None,
        todo: "Somebody at the lab has to disconnect (unpair) it in the other application first. Then run the \
             command again.",
    }),
};
const WRONG_ACCOUNT_ID: FailureText = FailureText {
    title: "iTero does not know this account",
    what: "iTero refused the account's number (status 400).",
    todo: "Start again and choose the account from the list. If it happens again, ask Align's support \
         (iTeroAPISupport@aligntech.com).",
    pasted: None,
};
const PAIRED_NOT_SAVED: FailureText = FailureText {
    title: "The account is paired, and its tokens are still being saved",
    what: "iTero has paired the account. The gateway holds its tokens and goes on saving them.",
    todo: "Try again in a minute: then the account is connected.",
    pasted: None,
};
const BAD_AUTHORIZE: FailureText = FailureText {
    title: "The application asked in an unusual way",
    what: "The address that the application opened for this login is not one that the gateway understands: {fault}.",
    todo: "Begin again in the application. If it happens again, tell the operator of this gateway.",
    pasted: None,
};
const UNKNOWN_CLIENT: FailureText = FailureText {
    title: "The application is not known here",
    what: "The client_id that the application sent is none of this gateway's callers with redirect_uris.",
    todo: "The operator of this gateway has to write the application's client_id and redirect_uris into facade of \
         its caller.",
    pasted: None,
};
const REDIRECT_URI_NOT_LISTED: FailureText = FailureText {
    title: "The application's address is not listed",
    what: "The application wants to be called back at an address that the operator of this gateway has not listed \
         for it. Nobody was logged in.",
    todo: "The operator has to add the redirect_uri, exactly as the application sends it, to redirect_uris in \
         facade of its caller.",
    pasted: None,
};
const NAME_TAKEN: FailureText = FailureText {
    title: "The name is taken",
    what: "The name {name} already stands for the iTero account {id} of realm {realm}. Nothing was changed.",
    todo: "Ask the operator for a link with another name, or log in as a user of that account.",
    pasted: Some(PastedText {
        title: None,
        what: None,
        todo: "Run the command with another name, or log in as a user of that account.",
    }),
};
const KNOWN_AS: FailureText = FailureText {
    title: "The account has another name already",
    what: "The iTero account {id} of realm {realm} is known here as {name}. Nothing was changed.",
    todo: "Ask the operator for a link for {name}.",
    pasted: Some(PastedText { title: None, what: None, todo: "Run the command with the name {name}." }),
};
const REALM_GONE: FailureText = FailureText {
    title: "The realm is no longer configured",
    what: "The realm {realm}, for which this link was made, is not in the gateway's configuration.",
    todo: "Ask whoever sent it for a new one.",
    pasted: Some(PastedText {
        title: None,
        what: Some("The realm {realm} is not in the gateway's configuration any more."),
        todo: "Run the command again with a realm that is configured.",
    }),
};
const ROUTE_REFUSED: FailureText = FailureText {
    title: "iTero named an address that is not allowed",
    what: "Discovery led to an address that this gateway does not trust ({detail}).",
    todo: "The operator of this gateway has to check the realm's allowed_hosts against what Align says.",
    pasted: None,
};
const PLATFORM_DOWN: FailureText = FailureText {
    title: "iTero does not answer",
    what: "iTero could not be reached, or had a fault, and trying again did not help ({detail}).",
    todo: "Wait some minutes, then start again with the same link.",
    pasted: Some(PastedText {
        title: None,
        what: None,
        todo: "Wait some minutes, then run the command again.",
    }),
};
const PLATFORM_MISBEHAVED: FailureText = FailureText {
    title: "iTero gave an answer that makes no sense",
    what: "The answer is not what iTero's documents describe ({detail}).",
    todo: "Try again later. If it stays, the operator of this gateway should show this text to Align's \
         support (iTeroAPISupport@aligntech.com).",
    pasted: None,
};
const STORE_DOWN: FailureText = FailureText {
    title: "The gateway cannot write at the moment",
    what: "The gateway's own store is unavailable, so the login was not carried on. Nothing was changed at \
         iTero.",
    todo: "Try again in some minutes, and tell the operator of this gateway.",
    pasted: None,
};
const BROKEN: FailureText = FailureText {
    title: "Something went wrong in the gateway",
    what: "A fault of the gateway itself; its log has the details.",
    todo: "Start again, and tell the operator of this gateway.",
    pasted: None,
};

impl LoginError {
    /// For the page in the browser.
    pub fn message(&self) -> UserMessage {
        let FailureText { title, what, todo, .. } = self.text();
        self.filled(title, what, todo)
    }

    /// For the operator who pastes.
    pub fn pasted_message(&self) -> UserMessage {
        let text = self.text();
        let Some(pasted) = &text.pasted else { return self.message() };
        self.filled(pasted.title.unwrap_or(text.title), pasted.what.unwrap_or(text.what), pasted.todo)
    }

    fn filled(&self, title: &'static str, what: &str, todo: &str) -> UserMessage {
        let values = self.values();
        UserMessage { title, what: fill(what, &values), todo: fill(todo, &values) }
    }

    fn text(&self) -> &'static FailureText {
        match self {
            LoginError::Cancelled => &CANCELLED,
            LoginError::Expired => &EXPIRED,
            LoginError::LoginExpired => &LOGIN_EXPIRED,
            LoginError::AlreadyUsed { by: Some(_) } => &ALREADY_USED_BY,
            LoginError::AlreadyUsed { by: None } => &ALREADY_USED,
            LoginError::WrongBrowser => &WRONG_BROWSER,
            LoginError::BadCallback(_) => &BAD_CALLBACK,
            LoginError::BadChoice => &BAD_CHOICE,
            LoginError::BadAuthorize(_) => &BAD_AUTHORIZE,
            LoginError::UnknownClient => &UNKNOWN_CLIENT,
            LoginError::RedirectUriNotListed => &REDIRECT_URI_NOT_LISTED,
            LoginError::LoginRefused { .. } => &LOGIN_REFUSED,
            LoginError::LoginNotAccepted => &LOGIN_NOT_ACCEPTED,
            LoginError::LoginLost => &LOGIN_LOST,
            LoginError::CredentialsRefused => &CREDENTIALS_REFUSED,
            LoginError::NotEnabled => &NOT_ENABLED,
            LoginError::Forbidden { .. } => &FORBIDDEN,
            LoginError::NoAccounts => &NO_ACCOUNTS,
            LoginError::AccountNotListed { listed: 1, .. } => &ACCOUNT_NOT_LISTED_BUT_ONE,
            LoginError::AccountNotListed { .. } => &ACCOUNT_NOT_LISTED,
            LoginError::PairedElsewhere => &PAIRED_ELSEWHERE,
            LoginError::WrongAccountId => &WRONG_ACCOUNT_ID,
            LoginError::NameTaken { .. } => &NAME_TAKEN,
            LoginError::KnownAs { .. } => &KNOWN_AS,
            LoginError::RealmGone { .. } => &REALM_GONE,
            LoginError::RouteRefused { .. } => &ROUTE_REFUSED,
            LoginError::PlatformDown { .. } => &PLATFORM_DOWN,
            LoginError::PlatformMisbehaved { .. } => &PLATFORM_MISBEHAVED,
            LoginError::PairedNotSaved => &PAIRED_NOT_SAVED,
            LoginError::StoreDown => &STORE_DOWN,
            LoginError::Broken => &BROKEN,
        }
    }

    /// What goes into the texts, by the name that stands in them.
    fn values(&self) -> Vec<(&'static str, String)> {
        match self {
            LoginError::AlreadyUsed { by: Some(name) } => vec![("name", name.to_string())],
            LoginError::BadCallback(fault) | LoginError::BadAuthorize(fault) => {
                vec![("fault", (*fault).to_owned())]
            }
            LoginError::LoginRefused { error } => vec![("error", error.clone())],
            LoginError::Forbidden { call } => vec![("call", (*call).to_owned())],
            LoginError::AccountNotListed { wanted, listed } => {
                vec![("wanted", wanted.to_string()), ("several", listed.to_string())]
            }
            LoginError::NameTaken { name, realm, id } | LoginError::KnownAs { name, realm, id } => {
                vec![("name", name.to_string()), ("realm", realm.to_string()), ("id", id.to_string())]
            }
            LoginError::RealmGone { realm } => vec![("realm", realm.to_string())],
            LoginError::RouteRefused { detail }
            | LoginError::PlatformDown { detail }
            | LoginError::PlatformMisbehaved { detail } => vec![("detail", detail.clone())],
            LoginError::Cancelled
            | LoginError::Expired
            | LoginError::LoginExpired
            | LoginError::AlreadyUsed { by: None }
            | LoginError::WrongBrowser
            | LoginError::BadChoice
            | LoginError::UnknownClient
            | LoginError::RedirectUriNotListed
            | LoginError::LoginNotAccepted
            | LoginError::LoginLost
            | LoginError::CredentialsRefused
            | LoginError::NotEnabled
            | LoginError::NoAccounts
            | LoginError::PairedElsewhere
            | LoginError::WrongAccountId
            | LoginError::StoreDown
            | LoginError::PairedNotSaved
            | LoginError::Broken => Vec::new(),
        }
    }
}

/// Puts each value where its name stands in braces. A value is never read as a template itself.
fn fill(template: &str, values: &[(&str, String)]) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let (name, behind) = after.split_once('}').unwrap_or((after, ""));
        if let Some((_, value)) = values.iter().find(|(known, _)| *known == name) {
            filled.push_str(value);
        }
        rest = behind;
    }
    filled + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::account::{AccountId, AccountName, RealmName};

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

    #[test]
    fn every_place_in_a_text_is_filled_and_a_value_is_taken_as_it_is() {
        let (name, realm): (AccountName, RealmName) = ("smile".parse().unwrap(), "global".parse().unwrap());
        let id = AccountId::new(7);
        for error in [
            LoginError::AlreadyUsed { by: Some(name.clone()) },
            LoginError::BadCallback("it has no state"),
            LoginError::BadAuthorize("it is too long"),
            LoginError::LoginRefused { error: "server_error".into() },
            LoginError::Forbidden { call: "pair" },
            LoginError::AccountNotListed { wanted: id, listed: 1 },
            LoginError::AccountNotListed { wanted: id, listed: 3 },
            LoginError::NameTaken { name: name.clone(), realm: realm.clone(), id },
            LoginError::KnownAs { realm: realm.clone(), id, name },
            LoginError::RealmGone { realm },
            LoginError::RouteRefused { detail: "a.example".into() },
            LoginError::PlatformDown { detail: "504".into() },
            LoginError::PlatformMisbehaved { detail: "no token".into() },
        ] {
            let text = error.text();
            let pasted = text.pasted.as_ref();
            let pasted = pasted.map(|text| [text.what.unwrap_or_default(), text.todo]).unwrap_or_default();
            for template in [text.what, text.todo].into_iter().chain(pasted) {
                let named = template.split('{').skip(1).map(|rest| rest.split_once('}').unwrap().0);
                for name in named {
                    assert!(error.values().iter().any(|(known, _)| *known == name), "{name}: {template}");
                }
            }
        }
        let odd = LoginError::PlatformDown { detail: "{detail} {name}".into() };
        assert!(odd.message().what.contains("({detail} {name})"), "{}", odd.message().what);
    }
}
