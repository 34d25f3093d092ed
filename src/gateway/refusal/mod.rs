//! What the gateway answers by itself. Every refusal has one stable code, one sentence and one hint, decided in one exhaustive
//! match; nothing of a caller's request is reflected in it.

pub mod oauth_error;
mod problem_json;

use std::time::Duration;

use http::StatusCode;
use http::header::HeaderName;

use crate::clock::Timestamp;
use crate::model::account::{AccountName, RealmName, Remedy};
use crate::model::endpoint::Group;

/// An answer that the gateway makes up itself.
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
    ProcedureUnknown,
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
}

/// A refusal as callers and operators see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorInfo {
    pub status: StatusCode,
    pub code: &'static str,
    pub title: &'static str,
    pub hint: &'static str,
    /// RFC 9209's word for it.
    pub proxy_error: &'static str,
}

pub static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

impl Refusal {
    /// Status, code, sentence and hint: the one place where they are decided.
    pub fn info(&self) -> ErrorInfo {
        use Refusal::*;
        match self {
            BadRequest(_) | BadFraming(_) | InvalidByte(_) => info(
                StatusCode::BAD_REQUEST,
                "bad_request",
                "The request cannot be understood.",
                "See detail; nothing was sent to the platform.",
                "http_request_error",
            ),
            AccountNotChosen(_) => info(
                StatusCode::BAD_REQUEST,
                "account_not_chosen",
                "The request does not say for which account it is.",
                "Use the base URL {gateway}/accounts/{name}, or send X-Gateway-Account; choices lists the names.",
                "http_request_error",
            ),
            CallerUnknown(_) => info(
                StatusCode::UNAUTHORIZED,
                "caller_unknown",
                "The gateway does not know who is calling.",
                "Send the caller's key as X-Gateway-Key, Bearer or Basic password, or call from a configured network.",
                "http_request_denied",
            ),
            AccountNeedsLogin { .. } => info(
                StatusCode::UNAUTHORIZED,
                "account_needs_login",
                "The platform no longer takes this account's grant; someone has to log in once.",
                "An operator logs the account in again: fix names the command.",
                "http_request_denied",
            ),
            AccountNotAllowed => info(
                StatusCode::FORBIDDEN,
                "account_not_allowed",
                "This caller may not use this account.",
                "An operator adds the account to the caller's accounts in config.toml.",
                "http_request_denied",
            ),
            CallNotAllowed(_) => info(
                StatusCode::FORBIDDEN,
                "call_not_allowed",
                "This caller may not make this call.",
                "An operator adds the group named in detail to the caller's allow list in config.toml.",
                "http_request_denied",
            ),
            OriginRefused => info(
                StatusCode::FORBIDDEN,
                "origin_refused",
                "Requests that a web page makes in a browser are refused.",
                "Call from a program; it must not send an Origin header.",
                "http_request_denied",
            ),
            AccountUnknown => info(
                StatusCode::NOT_FOUND,
                "account_unknown",
                "There is no such account in this gateway.",
                "Check the name; an operator pairs or imports accounts with genapi-gateway accounts.",
                "http_request_error",
            ),
            MethodNotAllowed => info(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "CONNECT and TRACE are never forwarded.",
                "Use the method that the API documents.",
                "http_request_denied",
            ),
            RequestTimeout => info(
                StatusCode::REQUEST_TIMEOUT,
                "request_timeout",
                "The request did not arrive in time.",
                "Send the head and the body without long pauses.",
                "http_request_error",
            ),
            ContentTooLarge => info(
                StatusCode::PAYLOAD_TOO_LARGE,
                "content_too_large",
                "The request's body is larger than the gateway takes.",
                "Send less at once.",
                "http_request_error",
            ),
            UriTooLong => info(
                StatusCode::URI_TOO_LONG,
                "uri_too_long",
                "The request's target is longer than the gateway takes.",
                "Shorten the path or the query.",
                "http_request_error",
            ),
            HeadTooLarge => info(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "head_too_large",
                "The request's head is larger than the gateway takes.",
                "Send fewer or shorter headers; an operator may raise gateway.max_head.",
                "http_request_error",
            ),
            ProcedureUnknown => info(
                StatusCode::UNPROCESSABLE_ENTITY,
                "procedure_unknown",
                "A V1 scan-request cannot be translated to V2, whose body names the procedure differently.",
                "Send the V2 body to /scan-request without the V1 prefix.",
                "http_request_denied",
            ),
            TooManyRequests(_) => info(
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_requests",
                "The caller is over its limit.",
                "Wait as Retry-After says.",
                "http_request_denied",
            ),
            PlatformUnreachable(_) => info(
                StatusCode::BAD_GATEWAY,
                "platform_unreachable",
                "The platform could not be reached.",
                "Try again; if it lasts, an operator runs genapi-gateway check --connect.",
                "destination_unavailable",
            ),
            PlatformMisbehaved(_) => info(
                StatusCode::BAD_GATEWAY,
                "platform_misbehaved",
                "The platform's answer is not a valid one; the platform may have acted on the request.",
                "Check whether the call took effect before it is repeated.",
                "http_protocol_error",
            ),
            TokenUnavailable(_) => info(
                StatusCode::SERVICE_UNAVAILABLE,
                "token_unavailable",
                "There is no valid token for this account at the moment.",
                "Wait as Retry-After says; genapi-gateway explain ACCOUNT tells why.",
                "destination_unavailable",
            ),
            AccountPaused(_) => info(
                StatusCode::SERVICE_UNAVAILABLE,
                "account_paused",
                "An operator has paused this account here.",
                "genapi-gateway accounts resume starts it again.",
                "destination_unavailable",
            ),
            Draining => info(
                StatusCode::SERVICE_UNAVAILABLE,
                "draining",
                "The gateway is shutting down.",
                "Connect again.",
                "connection_terminated",
            ),
            TooManyConnections => info(
                StatusCode::SERVICE_UNAVAILABLE,
                "too_many_connections",
                "Every connection that the gateway may hold is in use.",
                "Connect again; an operator may raise gateway.max_connections.",
                "connection_limit_reached",
            ),
            Panicked => info(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal_error",
                "The gateway made a mistake; the platform may have acted on the request.",
                "Check whether the call took effect before it is repeated; the gateway's log tells more.",
                "proxy_internal_error",
            ),
            PlatformTimeout => info(
                StatusCode::GATEWAY_TIMEOUT,
                "platform_timeout",
                "The platform did not answer in time; it may have acted on the request.",
                "Check whether the call took effect before it is repeated.",
                "http_response_timeout",
            ),
            Loop => info(
                StatusCode::LOOP_DETECTED,
                "loop",
                "The request has already passed through this gateway.",
                "A route or proxy setting leads the gateway to itself.",
                "proxy_loop_detected",
            ),
        }
    }

    /// The code alone: log field, metrics label, reason phrase.
    pub fn code(&self) -> &'static str {
        self.info().code
    }

    /// Whether the connection must end after this answer: what comes behind a request that makes no sense is not listened to.
    pub fn closes(&self) -> bool {
        use Refusal::*;
        matches!(
            self,
            BadRequest(_)
                | BadFraming(_)
                | InvalidByte(_)
                | MethodNotAllowed
                | RequestTimeout
                | ContentTooLarge
                | UriTooLong
                | HeadTooLarge
                | Draining
        )
    }

    /// What is particular about this one.
    pub fn detail(&self) -> Option<String> {
        use Refusal::*;
        match self {
            BadRequest(what) | BadFraming(what) | CallerUnknown(what) | PlatformMisbehaved(what) => {
                Some((*what).to_owned())
            }
            CallNotAllowed(group) => Some(format!("group {}", group.word())),
            PlatformUnreachable(why) | InvalidByte(why) => Some(why.clone()),
            AccountNeedsLogin { account, since, .. } => Some(format!("account {account}, since {since}")),
            AccountPaused(account) => Some(format!("account {account}")),
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

/// Every code, in an order that is only ever added to: an account's signals keep a code by its place here.
const CODES: [&str; 23] = [
    "bad_request",
    "account_not_chosen",
    "caller_unknown",
    "account_needs_login",
    "account_not_allowed",
    "call_not_allowed",
    "origin_refused",
    "account_unknown",
    "method_not_allowed",
    "request_timeout",
    "content_too_large",
    "uri_too_long",
    "head_too_large",
    "procedure_unknown",
    "too_many_requests",
    "platform_unreachable",
    "platform_misbehaved",
    "token_unavailable",
    "account_paused",
    "draining",
    "platform_timeout",
    "loop",
    "too_many_connections",
];

/// A code as a small number.
pub fn code_number(code: &str) -> u16 {
    CODES.iter().position(|known| *known == code).map_or(u16::MAX, |at| at as u16)
}

/// The code behind a number of [`code_number`].
pub fn code_by_number(number: u16) -> &'static str {
    CODES.get(usize::from(number)).copied().unwrap_or("internal_error")
}

const fn info(
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    hint: &'static str,
    proxy_error: &'static str,
) -> ErrorInfo {
    ErrorInfo { status, code, title, hint, proxy_error }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Response;
    use http::header::HeaderValue;

    use super::*;
    use crate::http1::ReasonPhrase;

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
            ProcedureUnknown,
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
        ]
    }

    fn render(refusal: &Refusal) -> Response<Bytes> {
        refusal.response(&HeaderValue::from_static("r-1"), false, |bytes| bytes)
    }

    #[test]
    fn every_refusal_carries_its_code_in_body_and_reason_phrase() {
        for refusal in all() {
            let response = render(&refusal);
            let code = refusal.code();
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
    fn every_code_has_a_number_that_leads_back_to_it() {
        for refusal in all() {
            assert_eq!(code_by_number(code_number(refusal.code())), refusal.code());
        }
    }

    #[test]
    fn a_whole_refusal_reads_like_this() {
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
            assert_eq!(asks, matches!(refusal, Refusal::CallerUnknown(_)), "{}", refusal.code());
            assert_eq!(response.headers().contains_key("connection"), refusal.closes());
        }
    }

    #[test]
    fn a_head_request_gets_the_same_head_and_no_body() {
        let whole = render(&Refusal::Loop);
        let head = Refusal::Loop.response(&HeaderValue::from_static("r-1"), true, |bytes| bytes);
        assert_eq!(whole.headers(), head.headers());
        assert!(head.body().is_empty());
    }

    #[test]
    fn a_dead_grant_names_the_command_that_fixes_it() {
        let problem: serde_json::Value = serde_json::from_slice(render(&all()[4]).body()).unwrap();
        assert_eq!(problem["fix"], "genapi-gateway accounts pair --realm global --name smile");
    }
}
