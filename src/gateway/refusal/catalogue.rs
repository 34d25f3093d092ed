//! Every refusal code, once: number, status, title, hint and what else hangs on it. All that shows a refusal
//! derives from this table, and so do the tests of the documentation.

use http::StatusCode;

use crate::access::failure_streak::NotServed;

/// Names a row of the catalogue. Its number is the row's place in it, is stored with the signals of accounts,
/// and never changes: a new code is added at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum RefusalCode {
    BadRequest,
    AccountNotChosen,
    CallerUnknown,
    AccountNeedsLogin,
    AccountNotAllowed,
    CallNotAllowed,
    OriginRefused,
    AccountUnknown,
    MethodNotAllowed,
    RequestTimeout,
    ContentTooLarge,
    UriTooLong,
    HeadTooLarge,
    ProcedureUnknown,
    TooManyRequests,
    PlatformUnreachable,
    PlatformMisbehaved,
    TokenUnavailable,
    AccountPaused,
    Draining,
    PlatformTimeout,
    Loop,
    TooManyConnections,
    InternalError,
    Misdirected,
    ProxyTargetRefused,
    NotInV1,
}

/// What callers and operators see of a refusal code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorInfo {
    pub id: RefusalCode,
    /// Stable name: problem object, reason phrase, log field, metrics label.
    pub code: &'static str,
    pub status: StatusCode,
    pub title: &'static str,
    pub hint: &'static str,
    /// The `error` parameter of `Proxy-Status` (RFC 9209).
    pub proxy_error: &'static str,
    /// The `error` of a token endpoint's response (RFC 6749, 5.2).
    pub oauth_error: &'static str,
    /// Whether the connection ends with the response: what follows a request that makes no sense is not read.
    pub closes_connection: bool,
}

/// In the order of [`RefusalCode`].
pub static CATALOGUE: [ErrorInfo; 27] = [
    ErrorInfo {
        id: RefusalCode::BadRequest,
        code: "bad_request",
        status: StatusCode::BAD_REQUEST,
        title: "The request cannot be understood.",
        hint: "See detail; nothing was sent to the platform.",
        proxy_error: "http_request_error",
        oauth_error: "invalid_request",
        closes_connection: true,
    },
    ErrorInfo {
        id: RefusalCode::AccountNotChosen,
        code: "account_not_chosen",
        status: StatusCode::BAD_REQUEST,
        title: "The request does not say for which account it is.",
        hint: "Use the base URL {gateway}/accounts/{name}, or send X-Gateway-Account; choices lists the names.",
        proxy_error: "http_request_error",
        oauth_error: "invalid_request",
        closes_connection: false,
    },
    ErrorInfo {
        id: RefusalCode::CallerUnknown,
        code: "caller_unknown",
        status: StatusCode::UNAUTHORIZED,
        title: "The gateway does not know who is calling.",
        hint: "Send the caller's key as X-Gateway-Key, Bearer or Basic password, or call from a configured network.",
        proxy_error: "http_request_denied",
        oauth_error: "invalid_client",
        closes_connection: false,
    },
    ErrorInfo {
        id: RefusalCode::AccountNeedsLogin,
        code: "account_needs_login",
        status: StatusCode::UNAUTHORIZED,
        title: "The platform no longer takes this account's grant; someone has to log in once.",
        hint: "An operator logs the account in again: fix names the command.",
        proxy_error: "http_request_denied",
        oauth_error: "invalid_grant",
        closes_connection: false,
    },
    ErrorInfo {
        id: RefusalCode::AccountNotAllowed,
        code: "account_not_allowed",
        status: StatusCode::FORBIDDEN,
        title: "This caller may not use this account.",
        hint: "An operator adds the account to the caller's accounts in config.toml.",
        proxy_error: "http_request_denied",
        oauth_error: "unauthorized_client",
        closes_connection: false,
    },
    ErrorInfo {
        id: RefusalCode::CallNotAllowed,
        code: "call_not_allowed",
        status: StatusCode::FORBIDDEN,
        title: "This caller may not make this call.",
        hint: "An operator adds the group named in detail to the caller's allow list in config.toml.",
        proxy_error: "http_request_denied",
        oauth_error: "unauthorized_client",
        closes_connection: false,
    },
    ErrorInfo {
        id: RefusalCode::OriginRefused,
        code: "origin_refused",
        status: StatusCode::FORBIDDEN,
        title: "Requests that a web page makes in a browser are refused.",
        hint: "Call from a program; it must not send an Origin header.",
        proxy_error: "http_request_denied",
        oauth_error: "unauthorized_client",
        closes_connection: false,
    },
    ErrorInfo {
        id: RefusalCode::AccountUnknown,
        code: "account_unknown",
        status: StatusCode::NOT_FOUND,
        title: "There is no such account in this gateway.",
        hint: "Check the name; an operator pairs or imports accounts with genapi-gateway accounts.",
        proxy_error: "http_request_error",
        oauth_error: "invalid_grant",
        closes_connection: false,
    },
    ErrorInfo {
        id: RefusalCode::MethodNotAllowed,
        code: "method_not_allowed",
        status: StatusCode::METHOD_NOT_ALLOWED,
        title: "CONNECT and TRACE are never forwarded.",
        hint: "Use the method that the API documents.",
        proxy_error: "http_request_denied",
        oauth_error: "invalid_request",
        closes_connection: true,
    },
    ErrorInfo {
        id: RefusalCode::RequestTimeout,
        code: "request_timeout",
        status: StatusCode::REQUEST_TIMEOUT,
        title: "The request did not arrive in time.",
        hint: "Send the head and the body without long pauses.",
        proxy_error: "http_request_error",
        oauth_error: "invalid_request",
        closes_connection: true,
    },
    ErrorInfo {
        id: RefusalCode::ContentTooLarge,
        code: "content_too_large",
        status: StatusCode::PAYLOAD_TOO_LARGE,
        title: "The request's body is larger than the gateway takes.",
        hint: "Send less at once.",
        proxy_error: "http_request_error",
        oauth_error: "invalid_request",
        closes_connection: true,
    },
    ErrorInfo {
        id: RefusalCode::UriTooLong,
        code: "uri_too_long",
        status: StatusCode::URI_TOO_LONG,
        title: "The request's target is longer than the gateway takes.",
        hint: "Shorten the path or the query.",
        proxy_error: "http_request_error",
        oauth_error: "invalid_request",
        closes_connection: true,
    },
    ErrorInfo {
        id: RefusalCode::HeadTooLarge,
        code: "head_too_large",
        status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        title: "The request's head is larger than the gateway takes.",
        hint: "Send fewer or shorter headers; an operator may raise gateway.max_head.",
        proxy_error: "http_request_error",
        oauth_error: "invalid_request",
        closes_connection: true,
    },
    ErrorInfo {
        id: RefusalCode::ProcedureUnknown,
        code: "procedure_unknown",
        status: StatusCode::UNPROCESSABLE_ENTITY,
        title: "A V1 scan-request cannot be translated to V2, whose body names the procedure differently.",
        hint: "Send the V2 body to /scan-request without the V1 prefix; an operator lists V1 procedures with their MapID codes in [v1] procedures.",
        proxy_error: "http_request_denied",
        oauth_error: "invalid_request",
        closes_connection: false,
    },
    ErrorInfo {
        id: RefusalCode::TooManyRequests,
        code: "too_many_requests",
        status: StatusCode::TOO_MANY_REQUESTS,
        title: "The caller is over its limit.",
        hint: "Wait as Retry-After says.",
        proxy_error: "http_request_denied",
        oauth_error: "temporarily_unavailable",
        closes_connection: false,
    },
    ErrorInfo {
        id: RefusalCode::PlatformUnreachable,
        code: "platform_unreachable",
        status: StatusCode::BAD_GATEWAY,
        title: "The platform could not be reached.",
        hint: "Try again; if it lasts, an operator runs genapi-gateway check --connect.",
        proxy_error: "destination_unavailable",
        oauth_error: "temporarily_unavailable",
        closes_connection: false,
    },
    ErrorInfo {
        id: RefusalCode::PlatformMisbehaved,
        code: "platform_misbehaved",
        status: StatusCode::BAD_GATEWAY,
        title: "The platform's answer is not a valid one; the platform may have acted on the request.",
        hint: "Check whether the call took effect before it is repeated.",
        proxy_error: "http_protocol_error",
        oauth_error: "server_error",
        closes_connection: false,
    },
    ErrorInfo {
        id: RefusalCode::TokenUnavailable,
        code: "token_unavailable",
        status: StatusCode::SERVICE_UNAVAILABLE,
        title: "There is no valid token for this account at the moment.",
        hint: "Wait as Retry-After says; genapi-gateway explain ACCOUNT tells why.",
        proxy_error: "destination_unavailable",
        oauth_error: "temporarily_unavailable",
        closes_connection: false,
    },
    ErrorInfo {
        id: RefusalCode::AccountPaused,
        code: "account_paused",
        status: StatusCode::SERVICE_UNAVAILABLE,
        title: "An operator has paused this account here.",
        hint: "genapi-gateway accounts resume starts it again.",
        proxy_error: "destination_unavailable",
        oauth_error: "temporarily_unavailable",
        closes_connection: false,
    },
    ErrorInfo {
        id: RefusalCode::Draining,
        code: "draining",
        status: StatusCode::SERVICE_UNAVAILABLE,
        title: "The gateway is shutting down.",
        hint: "Connect again.",
        proxy_error: "connection_terminated",
        oauth_error: "temporarily_unavailable",
        closes_connection: true,
    },
    ErrorInfo {
        id: RefusalCode::PlatformTimeout,
        code: "platform_timeout",
        status: StatusCode::GATEWAY_TIMEOUT,
        title: "The platform did not answer in time; it may have acted on the request.",
        hint: "Check whether the call took effect before it is repeated.",
        proxy_error: "http_response_timeout",
        oauth_error: "temporarily_unavailable",
        closes_connection: false,
    },
    ErrorInfo {
        id: RefusalCode::Loop,
        code: "loop",
        status: StatusCode::LOOP_DETECTED,
        title: "The request has already passed through this gateway.",
        hint: "A route or proxy setting leads the gateway to itself.",
        proxy_error: "proxy_loop_detected",
        oauth_error: "invalid_request",
        closes_connection: false,
    },
    ErrorInfo {
        id: RefusalCode::TooManyConnections,
        code: "too_many_connections",
        status: StatusCode::SERVICE_UNAVAILABLE,
        title: "Every connection that the gateway may hold is in use.",
        hint: "Connect again; an operator may raise gateway.max_connections.",
        proxy_error: "connection_limit_reached",
        oauth_error: "temporarily_unavailable",
        closes_connection: false,
    },
    ErrorInfo {
        id: RefusalCode::InternalError,
        code: "internal_error",
        status: StatusCode::INTERNAL_SERVER_ERROR,
        title: "The gateway made a mistake; the platform may have acted on the request.",
        hint: "Check whether the call took effect before it is repeated; the gateway's log tells more.",
        proxy_error: "proxy_internal_error",
        oauth_error: "server_error",
        closes_connection: false,
    },
    ErrorInfo {
        id: RefusalCode::Misdirected,
        code: "misdirected",
        status: StatusCode::MISDIRECTED_REQUEST,
        title: "The request is for another host than the one it was sent to.",
        hint: "Open a connection of its own to the host that serves it; see detail.",
        proxy_error: "http_request_error",
        oauth_error: "invalid_request",
        closes_connection: true,
    },
    ErrorInfo {
        id: RefusalCode::ProxyTargetRefused,
        code: "proxy_target_refused",
        status: StatusCode::FORBIDDEN,
        title: "This is no proxy for that host or port.",
        hint: "Use it for the hosts that /proxy.pac lists; an operator adds others with genapi-gateway ca init --host.",
        proxy_error: "http_request_denied",
        oauth_error: "invalid_request",
        closes_connection: true,
    },
    ErrorInfo {
        id: RefusalCode::NotInV1,
        code: "not_in_v1",
        status: StatusCode::NOT_FOUND,
        title: "V1 of the API has no such call.",
        hint: "Send it without the V1 prefix /lab-sw/v1: it is a call of V2.",
        proxy_error: "http_request_denied",
        oauth_error: "invalid_request",
        closes_connection: false,
    },
];

impl RefusalCode {
    pub fn info(self) -> &'static ErrorInfo {
        &CATALOGUE[usize::from(self.number())]
    }

    pub fn as_str(self) -> &'static str {
        self.info().code
    }

    pub const fn number(self) -> u16 {
        self as u16
    }

    /// What the code says about its account; `None` where it is about the caller, its request or the gateway.
    pub fn not_served(self) -> Option<NotServed> {
        match self {
            Self::PlatformUnreachable => Some(NotServed::PlatformUnreachable),
            Self::PlatformMisbehaved => Some(NotServed::PlatformMisbehaved),
            Self::PlatformTimeout => Some(NotServed::PlatformTimeout),
            Self::TokenUnavailable => Some(NotServed::TokenUnavailable),
            Self::AccountNeedsLogin => Some(NotServed::AccountNeedsLogin),
            Self::BadRequest
            | Self::AccountNotChosen
            | Self::CallerUnknown
            | Self::AccountNotAllowed
            | Self::CallNotAllowed
            | Self::OriginRefused
            | Self::AccountUnknown
            | Self::MethodNotAllowed
            | Self::RequestTimeout
            | Self::ContentTooLarge
            | Self::UriTooLong
            | Self::HeadTooLarge
            | Self::ProcedureUnknown
            | Self::TooManyRequests
            | Self::AccountPaused
            | Self::Draining
            | Self::Loop
            | Self::TooManyConnections
            | Self::InternalError
            | Self::Misdirected
            | Self::ProxyTargetRefused
            | Self::NotInV1 => None,
        }
    }

    /// The code of a stored number. One that is not in the catalogue was written by a later version, or is
    /// how earlier ones wrote `internal_error`.
    pub fn from_number(number: u16) -> Self {
        CATALOGUE.get(usize::from(number)).map_or(RefusalCode::InternalError, |info| info.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_account_failed_with_is_called_as_callers_saw_it() {
        let not_served = CATALOGUE.iter().filter_map(|info| Some((info.code, info.id.not_served()?.code())));
        let (codes, names): (Vec<_>, Vec<_>) = not_served.unzip();
        assert_eq!(codes, names);
        assert_eq!(codes.len(), 5);
    }

    #[test]
    fn every_code_has_a_number_that_leads_back_to_it() {
        for (place, info) in CATALOGUE.iter().enumerate() {
            assert_eq!(usize::from(info.id.number()), place, "{}", info.code);
            assert_eq!(info.id.info(), info);
            assert_eq!(RefusalCode::from_number(info.id.number()), info.id);
        }
        assert_eq!(RefusalCode::from_number(u16::MAX), RefusalCode::InternalError);
    }

    #[test]
    fn codes_are_unique() {
        for (place, info) in CATALOGUE.iter().enumerate() {
            assert!(CATALOGUE[..place].iter().all(|other| other.code != info.code), "{}", info.code);
        }
    }
}
