//! The responses that the gateway makes up itself. Each has one code of the catalogue; nothing of a caller's
//! request is reflected in it, save the procedure that a V1 call names.

mod catalogue;
pub mod oauth_error;
mod problem_json;

use std::fmt;
use std::time::Duration;

use http::header::HeaderName;

use crate::clock::Timestamp;
use crate::model::account::{AccountName, RealmName, Remedy};
use crate::model::endpoint::{Endpoint, Group};

pub use catalogue::{CATALOGUE, ErrorInfo, RefusalCode};

/// A response that the gateway makes up itself, with what is particular about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    BadRequest(&'static str),
    /// Like `BadRequest`, but where the next request begins is in doubt: the connection ends.
    BadFraming(&'static str),
    /// Like `BadFraming`; names the byte of the head and its place.
    InvalidByte(String),
    /// No account was named, or an ambiguous one; the caller's choices.
    AccountNotChosen(Vec<String>),
    CallerUnknown(&'static str),
    AccountNeedsLogin {
        account: AccountName,
        realm: RealmName,
        since: Timestamp,
        remedy: Remedy,
    },
    AccountNotAllowed,
    CallNotAllowed(Group),
    OriginRefused,
    AccountUnknown,
    MethodNotAllowed,
    RequestTimeout,
    ContentTooLarge,
    UriTooLong,
    HeadTooLarge,
    ProcedureUnknown(ProcedureProblem),
    TooManyRequests(Duration),
    PlatformUnreachable(String),
    PlatformMisbehaved(&'static str),
    TokenUnavailable(Duration),
    AccountPaused(AccountName),
    Draining,
    /// Every connection that the gateway may hold is in use.
    TooManyConnections,
    /// A fault of ours; the log has it.
    Panicked,
    PlatformTimeout,
    Loop,
    /// The host in the head is not the one that the connection was opened for.
    Misdirected(&'static str),
    /// The forward proxy was asked for a host that is not one of its own.
    ProxyTargetRefused,
    /// A call under the V1 prefix that V2 alone has.
    NotInV1(&'static Endpoint),
}

/// Why a V1 scan-request cannot become one of V2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcedureProblem {
    /// No list of procedures is configured.
    NoList,
    /// The body is compressed, and is not read.
    Compressed,
    NotListed {
        /// As the caller wrote it; cut where it is longer than any real one.
        procedure: String,
        known: Vec<String>,
    },
}

pub static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

impl Refusal {
    /// The row of the catalogue that stands for it.
    pub fn code(&self) -> RefusalCode {
        use Refusal::*;
        match self {
            BadRequest(_) | BadFraming(_) | InvalidByte(_) => RefusalCode::BadRequest,
            AccountNotChosen(_) => RefusalCode::AccountNotChosen,
            CallerUnknown(_) => RefusalCode::CallerUnknown,
            AccountNeedsLogin { .. } => RefusalCode::AccountNeedsLogin,
            AccountNotAllowed => RefusalCode::AccountNotAllowed,
            CallNotAllowed(_) => RefusalCode::CallNotAllowed,
            OriginRefused => RefusalCode::OriginRefused,
            AccountUnknown => RefusalCode::AccountUnknown,
            MethodNotAllowed => RefusalCode::MethodNotAllowed,
            RequestTimeout => RefusalCode::RequestTimeout,
            ContentTooLarge => RefusalCode::ContentTooLarge,
            UriTooLong => RefusalCode::UriTooLong,
            HeadTooLarge => RefusalCode::HeadTooLarge,
            ProcedureUnknown(_) => RefusalCode::ProcedureUnknown,
            TooManyRequests(_) => RefusalCode::TooManyRequests,
            PlatformUnreachable(_) => RefusalCode::PlatformUnreachable,
            PlatformMisbehaved(_) => RefusalCode::PlatformMisbehaved,
            TokenUnavailable(_) => RefusalCode::TokenUnavailable,
            AccountPaused(_) => RefusalCode::AccountPaused,
            Draining => RefusalCode::Draining,
            TooManyConnections => RefusalCode::TooManyConnections,
            Panicked => RefusalCode::InternalError,
            PlatformTimeout => RefusalCode::PlatformTimeout,
            Loop => RefusalCode::Loop,
            Misdirected(_) => RefusalCode::Misdirected,
            ProxyTargetRefused => RefusalCode::ProxyTargetRefused,
            NotInV1(_) => RefusalCode::NotInV1,
        }
    }

    pub fn info(&self) -> &'static ErrorInfo {
        self.code().info()
    }

    /// What is particular about this one.
    pub fn detail(&self) -> Option<String> {
        use Refusal::*;
        match self {
            BadRequest(what)
            | BadFraming(what)
            | CallerUnknown(what)
            | PlatformMisbehaved(what)
            | Misdirected(what) => Some((*what).to_owned()),
            CallNotAllowed(group) => Some(format!("group {}", group.word())),
            PlatformUnreachable(why) | InvalidByte(why) => Some(why.clone()),
            AccountNeedsLogin { account, since, .. } => Some(format!("account {account}, since {since}")),
            AccountPaused(account) => Some(format!("account {account}")),
            ProcedureUnknown(problem) => Some(problem.to_string()),
            NotInV1(endpoint) => Some(format!("{} is a call of V2 alone", endpoint.template())),
            _ => None,
        }
    }

    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Refusal::TooManyRequests(wait) | Refusal::TokenUnavailable(wait) => Some(*wait),
            Refusal::Draining | Refusal::TooManyConnections => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

impl fmt::Display for ProcedureProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoList => f.write_str("no list of V1 procedures is configured"),
            Self::Compressed => f.write_str("the body is compressed; send it as it is"),
            Self::NotListed { procedure, known } => {
                write!(f, "procedure {procedure:?} is not one of the known ones: {}", known.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Response;
    use http::header::HeaderValue;

    use super::*;
    use crate::http1::ReasonPhrase;
    use std::collections::HashSet;

    fn all() -> Vec<Refusal> {
        use Refusal::*;
        let account: AccountName = "smile".parse().unwrap();
        vec![
            BadRequest("x"),
            BadFraming("x"),
            AccountNotChosen(vec!["a".into(), "b".into()]),
            CallerUnknown("x"),
            AccountNeedsLogin {
                account: account.clone(),
                realm: "global".parse().unwrap(),
                since: Timestamp::from_millis(0),
                remedy: Remedy::Login,
            },
            AccountNotAllowed,
            CallNotAllowed(Group::Unpair),
            OriginRefused,
            AccountUnknown,
            MethodNotAllowed,
            RequestTimeout,
            ContentTooLarge,
            UriTooLong,
            HeadTooLarge,
            ProcedureUnknown(ProcedureProblem::NoList),
            TooManyRequests(Duration::from_millis(1)),
            PlatformUnreachable("x".into()),
            PlatformMisbehaved("x"),
            TokenUnavailable(Duration::from_millis(1500)),
            AccountPaused(account),
            Draining,
            TooManyConnections,
            Panicked,
            PlatformTimeout,
            Loop,
            InvalidByte("x".into()),
            Misdirected("x"),
            ProxyTargetRefused,
            NotInV1(crate::model::endpoint::OTHER),
        ]
    }

    fn render(refusal: &Refusal) -> Response<Bytes> {
        refusal.response(&HeaderValue::from_static("r-1"), false, |bytes| bytes)
    }

    #[test]
    fn every_row_of_the_catalogue_is_tried_here() {
        let tried: HashSet<RefusalCode> = all().iter().map(Refusal::code).collect();
        let untried: Vec<_> = CATALOGUE.iter().filter(|row| !tried.contains(&row.id)).collect();
        assert_eq!(untried, Vec::<&ErrorInfo>::new());
    }

    #[test]
    fn every_refusal_carries_its_code_in_body_and_reason_phrase() {
        for refusal in all() {
            let response = render(&refusal);
            let code = refusal.code().as_str();
            let reason = response.extensions().get::<ReasonPhrase>().unwrap();
            assert_eq!(reason.0, code.as_bytes());
            let problem: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
            assert_eq!(problem["code"], code);
            assert_eq!(problem["status"], response.status().as_u16());
            assert_eq!(response.headers()["x-request-id"], "r-1");
            assert!(response.headers().contains_key("proxy-status"), "{code}");
        }
    }

    #[test]
    fn a_complete_refusal_reads_like_this() {
        let response = render(&Refusal::TokenUnavailable(Duration::from_millis(1500)));
        let mut headers: Vec<String> = response
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        headers.sort();
        assert_eq!(response.status(), 503);
        assert_eq!(
            headers,
            [
                "cache-control: no-store".to_owned(),
                format!("content-length: {}", response.body().len()),
                "content-type: application/problem+json".to_owned(),
                "proxy-status: genapi-gateway; error=destination_unavailable".to_owned(),
                "retry-after: 2".to_owned(),
                "x-request-id: r-1".to_owned(),
            ]
        );
    }

    #[test]
    fn only_an_unknown_caller_is_asked_for_a_password_and_doubtful_framing_ends_the_connection() {
        for refusal in all() {
            let response = render(&refusal);
            let asks = response.headers().contains_key("www-authenticate");
            assert_eq!(asks, matches!(refusal, Refusal::CallerUnknown(_)), "{}", refusal.code().as_str());
            assert_eq!(response.headers().contains_key("connection"), refusal.info().closes_connection);
        }
    }

    #[test]
    fn a_head_request_gets_the_same_head_and_no_body() {
        let full = render(&Refusal::Loop);
        let head = Refusal::Loop.response(&HeaderValue::from_static("r-1"), true, |bytes| bytes);
        assert_eq!(full.headers(), head.headers());
        assert!(head.body().is_empty());
    }

    #[test]
    fn a_dead_grant_names_the_command_that_fixes_it() {
        let problem: serde_json::Value = serde_json::from_slice(render(&all()[4]).body()).unwrap();
        assert_eq!(problem["fix"], "genapi-gateway accounts pair --realm global --name smile");
    }
}
