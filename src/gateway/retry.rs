//! What to do after an attempt. Pure: no I/O, no async, no clock; the table of its tests is its documentation, with the vendor's
//! section beside each row. This is the place where a 403 is decided.

use std::time::Duration;

use http::StatusCode;

use crate::access::renewal::{Cause, RenewError};
use crate::clock::Timestamp;
use crate::config;
use crate::model::account::{AccountName, RealmName};
use crate::model::endpoint::{Endpoint, RetryWait};

use super::refusal::Refusal;

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptOutcome {
    Status(StatusCode),
    /// No connection: nothing was sent. A certificate that is refused stays refused.
    ConnectFailed {
        reason: String,
        permanent: bool,
    },
    /// A kept connection turned out to be dead before any byte of an answer came.
    StaleConnection {
        bytes_sent: bool,
    },
    /// The connection broke after the request was sent.
    ConnectionLost,
    TimedOut,
    InvalidResponse(&'static str),
    /// The caller's body broke off or stalled.
    CallerFailed(Refusal),
}

/// What is known about a call besides the last attempt.
#[derive(Debug, Clone, Copy)]
pub struct RetryContext<'a> {
    pub endpoint: &'static Endpoint,
    pub limits: &'a config::RetryConfig,
    /// The row and the method allow that the platform acts twice.
    pub retryable: bool,
    /// The body was kept.
    pub replayable: bool,
    /// Sends so far, the last one included; the silent repeat is not counted.
    pub attempts: u32,
    /// This call has had its renewal.
    pub renewed: bool,
    /// This call has had its silent repeat.
    pub retried_transparently: bool,
    pub elapsed: Duration,
    /// The realm's budget has a repeat left.
    pub budget: bool,
    /// From 0 to 1, drawn by the caller of this function.
    pub jitter: f64,
}

/// The next move.
#[derive(Debug, Clone, PartialEq)]
pub enum RetryDecision {
    /// The answer passes through.
    PassThrough,
    /// The answer passes through, since it cannot be repeated; the renewal starts for the next call.
    PassThroughAndRenew(Cause),
    Renew(Cause),
    /// Then send again; zero for the silent repeat.
    RetryAfter(Duration),
    Refuse(Refusal),
}

/// A second wait is twice the first, and jitter only lengthens: the documented wait is a minimum.
const JITTER: f64 = 0.25;

pub fn next_step(context: &RetryContext<'_>, seen: &AttemptOutcome) -> RetryDecision {
    match seen {
        AttemptOutcome::Status(StatusCode::UNAUTHORIZED) => after_expiry(context, Cause::Unauthorized),
        AttemptOutcome::Status(StatusCode::FORBIDDEN) => after_expiry(context, Cause::Forbidden),
        AttemptOutcome::Status(StatusCode::INTERNAL_SERVER_ERROR | StatusCode::GATEWAY_TIMEOUT) => {
            wait_or(context, RetryDecision::PassThrough)
        }
        AttemptOutcome::Status(_) => RetryDecision::PassThrough,
        AttemptOutcome::ConnectFailed { reason, permanent: true } => {
            RetryDecision::Refuse(Refusal::PlatformUnreachable(reason.clone()))
        }
        AttemptOutcome::ConnectFailed { reason, permanent: false } => {
            wait_or(context, RetryDecision::Refuse(Refusal::PlatformUnreachable(reason.clone())))
        }
        AttemptOutcome::StaleConnection { bytes_sent } => after_stale_connection(context, *bytes_sent),
        AttemptOutcome::ConnectionLost => {
            RetryDecision::Refuse(Refusal::PlatformMisbehaved("the connection ended without a whole answer"))
        }
        AttemptOutcome::TimedOut => RetryDecision::Refuse(Refusal::PlatformTimeout),
        AttemptOutcome::InvalidResponse(what) => RetryDecision::Refuse(Refusal::PlatformMisbehaved(what)),
        AttemptOutcome::CallerFailed(refusal) => RetryDecision::Refuse(refusal.clone()),
    }
}

/// A refresh is asked for once per call; a second 401 or 403 is the vendor's answer. Neither was carried out by the platform, so a
/// POST may be repeated too.
fn after_expiry(context: &RetryContext<'_>, cause: Cause) -> RetryDecision {
    if context.renewed || context.elapsed >= context.limits.deadline {
        return RetryDecision::PassThrough;
    }
    match (context.replayable, cause) {
        (true, cause) => RetryDecision::Renew(cause),
        (false, Cause::Unauthorized) => RetryDecision::PassThroughAndRenew(cause),
        // Nobody would learn whether that renewal cured anything, and a lasting 403 must not cause one after the other.
        (false, _) => RetryDecision::PassThrough,
    }
}

fn after_stale_connection(context: &RetryContext<'_>, bytes_sent: bool) -> RetryDecision {
    let harmless = context.retryable || !bytes_sent;
    match harmless && context.replayable && !context.retried_transparently {
        true => RetryDecision::RetryAfter(Duration::ZERO),
        // Whoever creates something must know that it may have been created.
        false if bytes_sent => {
            RetryDecision::Refuse(Refusal::PlatformMisbehaved("the kept connection died midway"))
        }
        false => {
            RetryDecision::Refuse(Refusal::PlatformUnreachable("the kept connection had died".to_owned()))
        }
    }
}

fn wait_or(context: &RetryContext<'_>, otherwise: RetryDecision) -> RetryDecision {
    let allowed = context.limits.attempts + u32::from(context.renewed);
    let wait = pause(context);
    let may = context.retryable
        && context.replayable
        && context.attempts < allowed
        && context.elapsed + wait <= context.limits.deadline
        && context.budget;
    if may { RetryDecision::RetryAfter(wait) } else { otherwise }
}

fn pause(context: &RetryContext<'_>) -> Duration {
    let first = match context.endpoint.retry_wait {
        RetryWait::Base => context.limits.initial_backoff,
        RetryWait::Pairing => context.limits.pairing_backoff,
    };
    let doubled = first.saturating_mul(1 << context.attempts.saturating_sub(1).min(8));
    doubled.mul_f64(1.0 + JITTER * context.jitter.clamp(0.0, 1.0))
}

/// What a call becomes when its renewal did not succeed: `None` lets the vendor's answer pass.
pub fn without_renewal(
    problem: &RenewError,
    cause: Cause,
    now: Timestamp,
    account: &AccountName,
    realm: &RealmName,
) -> Option<Refusal> {
    let has_response = matches!(cause, Cause::Unauthorized | Cause::Forbidden);
    match problem {
        RenewError::TooSoon { .. } if has_response => None,
        RenewError::TooSoon { until } => Some(Refusal::TokenUnavailable(until.since(now))),
        RenewError::Paused => Some(Refusal::AccountPaused(account.clone())),
        RenewError::NeedsLogin { since, remedy, .. } => {
            let (account, realm) = (account.clone(), realm.clone());
            Some(Refusal::AccountNeedsLogin { account, realm, since: *since, remedy: *remedy })
        }
        // The token may live on, and 403 may mean what it says.
        RenewError::Unavailable { .. } if cause == Cause::Forbidden => None,
        RenewError::Unavailable { retry_at, .. } => Some(Refusal::TokenUnavailable(retry_at.since(now))),
        RenewError::StillRunning => Some(Refusal::TokenUnavailable(STILL_RUNNING)),
    }
}

/// The refresh goes on; most take a second or two.
const STILL_RUNNING: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::model::account::Remedy;
    use crate::model::endpoint;

    const S: fn(u16) -> AttemptOutcome =
        |status| AttemptOutcome::Status(StatusCode::from_u16(status).unwrap());

    fn limits() -> config::RetryConfig {
        config::RetryConfig {
            attempts: 3,
            initial_backoff: Duration::from_millis(1000),
            pairing_backoff: Duration::from_millis(2000),
            deadline: Duration::from_secs(20),
            budget: 0.2,
            scan_request: false,
        }
    }

    fn context<'a>(limits: &'a config::RetryConfig, method: Method, path: &str) -> RetryContext<'a> {
        let endpoint = endpoint::find(&method, path);
        RetryContext {
            endpoint,
            limits,
            retryable: endpoint.retryable(&method, limits.scan_request),
            replayable: true,
            attempts: 1,
            renewed: false,
            retried_transparently: false,
            elapsed: Duration::ZERO,
            budget: true,
            jitter: 0.0,
        }
    }

    fn wait(millis: u64) -> RetryDecision {
        RetryDecision::RetryAfter(Duration::from_millis(millis))
    }

    fn unreachable() -> RetryDecision {
        RetryDecision::Refuse(Refusal::PlatformUnreachable("down".into()))
    }

    /// Method, path, what was seen, what follows. S = Authentication and Pairing V2; N = migration notice.
    #[test]
    fn each_first_response_has_its_next_step() {
        let down = AttemptOutcome::ConnectFailed { reason: "down".into(), permanent: false };
        let misbehaved = |what| RetryDecision::Refuse(Refusal::PlatformMisbehaved(what));
        let table = [
            (Method::GET, "/orders/lab", S(200), RetryDecision::PassThrough),
            (Method::GET, "/orders/lab", S(401), RetryDecision::Renew(Cause::Unauthorized)), // S 4.2.2: expired
            (Method::GET, "/orders/lab", S(403), RetryDecision::Renew(Cause::Forbidden)), // N: expired shows as 403 too
            (Method::POST, "/scan-request", S(401), RetryDecision::Renew(Cause::Unauthorized)), // was not carried out
            (Method::POST, "/scan-request", S(403), RetryDecision::Renew(Cause::Forbidden)),
            (Method::GET, "/orders/lab", S(400), RetryDecision::PassThrough), // S 4.2.2: wrong parameters
            (Method::GET, "/orders/lab", S(404), RetryDecision::PassThrough),
            (Method::PUT, "/pair-account", S(409), RetryDecision::PassThrough), // S 4.3.1: paired elsewhere
            (Method::GET, "/orders/lab", S(429), RetryDecision::PassThrough),   // documented nowhere
            (Method::GET, "/orders/lab", S(302), RetryDecision::PassThrough),   // never followed
            (Method::GET, "/orders/lab", S(500), wait(1000)),                   // S 4.2.2: retry
            (Method::GET, "/orders/lab", S(502), RetryDecision::PassThrough),   // documented nowhere
            (Method::GET, "/orders/lab", S(503), RetryDecision::PassThrough),
            (Method::GET, "/orders/lab", S(504), wait(1000)), // S 4.2.2: after about 1000 ms
            (Method::PUT, "/pair-account", S(504), wait(2000)), // S 4.3.1: after about 2000 ms
            (Method::DELETE, "/scan-request/1", S(504), wait(1000)),
            (Method::POST, "/patient/search", S(504), wait(1000)), // N: a read
            (Method::POST, "/scan-request", S(504), RetryDecision::PassThrough), // N: may have created the RX
            (Method::POST, "/patients", S(500), RetryDecision::PassThrough),
            (Method::GET, "/order/1/return", S(504), RetryDecision::PassThrough), // N: acts, whatever its method
            (Method::GET, "/orders/lab", down.clone(), wait(1000)),
            (Method::POST, "/scan-request", down, unreachable()),
            (
                Method::GET,
                "/orders/lab",
                AttemptOutcome::ConnectFailed { reason: "down".into(), permanent: true },
                unreachable(),
            ),
            (Method::GET, "/orders/lab", AttemptOutcome::StaleConnection { bytes_sent: true }, wait(0)),
            (Method::POST, "/scan-request", AttemptOutcome::StaleConnection { bytes_sent: false }, wait(0)),
            (
                Method::POST,
                "/scan-request",
                AttemptOutcome::StaleConnection { bytes_sent: true },
                misbehaved("the kept connection died midway"), // may have created the RX
            ),
            (
                Method::GET,
                "/orders/lab",
                AttemptOutcome::ConnectionLost,
                misbehaved("the connection ended without a whole answer"),
            ),
            (
                Method::GET,
                "/orders/lab",
                AttemptOutcome::TimedOut,
                RetryDecision::Refuse(Refusal::PlatformTimeout),
            ),
            (Method::GET, "/orders/lab", AttemptOutcome::InvalidResponse("x"), misbehaved("x")),
        ];
        let limits = limits();
        for (method, path, seen, step) in table {
            let context = context(&limits, method.clone(), path);
            assert_eq!(next_step(&context, &seen), step, "{method} {path} {seen:?}");
        }
    }

    #[test]
    fn a_second_403_is_the_vendors_response_and_passes_through() {
        let limits = limits();
        let renewed =
            RetryContext { renewed: true, attempts: 2, ..context(&limits, Method::GET, "/orders/lab") };
        assert_eq!(next_step(&renewed, &S(403)), RetryDecision::PassThrough);
        assert_eq!(next_step(&renewed, &S(401)), RetryDecision::PassThrough);
    }

    #[test]
    fn a_body_that_was_not_kept_passes_401_through_and_starts_the_renewal() {
        let limits = limits();
        let once = RetryContext { replayable: false, ..context(&limits, Method::PUT, "/patients") };
        assert_eq!(next_step(&once, &S(401)), RetryDecision::PassThroughAndRenew(Cause::Unauthorized));
        assert_eq!(next_step(&once, &S(403)), RetryDecision::PassThrough);
        assert_eq!(next_step(&once, &S(500)), RetryDecision::PassThrough);
    }

    #[test]
    fn waits_double_and_jitter_only_lengthens_them() {
        let limits = limits();
        let first = context(&limits, Method::GET, "/orders/lab");
        assert_eq!(next_step(&RetryContext { attempts: 2, ..first }, &S(500)), wait(2000));
        assert_eq!(next_step(&RetryContext { jitter: 1.0, ..first }, &S(500)), wait(1250));
    }

    #[test]
    fn no_repeat_beyond_attempts_deadline_or_budget_and_one_more_after_a_renewal() {
        let limits = limits();
        let first = context(&limits, Method::GET, "/orders/lab");
        let reply = |context| assert_eq!(next_step(&context, &S(500)), RetryDecision::PassThrough);
        reply(RetryContext { attempts: 3, ..first });
        reply(RetryContext { attempts: 4, renewed: true, ..first });
        reply(RetryContext { elapsed: Duration::from_millis(19_001), ..first });
        reply(RetryContext { budget: false, ..first });
        assert_eq!(next_step(&RetryContext { attempts: 3, renewed: true, ..first }, &S(500)), wait(4000));
        assert_eq!(
            next_step(&RetryContext { elapsed: Duration::from_secs(20), ..first }, &S(401)),
            RetryDecision::PassThrough
        );
        let silent = RetryContext { retried_transparently: true, ..first };
        assert_ne!(next_step(&silent, &AttemptOutcome::StaleConnection { bytes_sent: true }), wait(0));
    }

    #[test]
    fn a_failed_renewal_passes_the_response_or_says_whose_trouble_it_is() {
        let now = Timestamp::from_millis(1_000_000);
        let later = now + Duration::from_secs(7);
        let (name, realm) = ("smile".parse().unwrap(), "global".parse().unwrap());
        let code = |problem: RenewError, cause| {
            without_renewal(&problem, cause, now, &name, &realm).map(|refusal| refusal.code().as_str())
        };
        let unavailable = RenewError::Unavailable { retry_at: later, detail: "x".into() };
        let dead = RenewError::NeedsLogin { since: now, why: "x".into(), remedy: Remedy::Login };
        let table = [
            (RenewError::TooSoon { until: later }, Cause::Unauthorized, None),
            (RenewError::TooSoon { until: later }, Cause::Forbidden, None),
            (RenewError::TooSoon { until: later }, Cause::NoToken, Some("token_unavailable")),
            (unavailable.clone(), Cause::Unauthorized, Some("token_unavailable")),
            (unavailable.clone(), Cause::Forbidden, None),
            (unavailable, Cause::NoToken, Some("token_unavailable")),
            (dead.clone(), Cause::Unauthorized, Some("account_needs_login")),
            (dead, Cause::Forbidden, Some("account_needs_login")),
            (RenewError::Paused, Cause::NoToken, Some("account_paused")),
            (RenewError::StillRunning, Cause::Forbidden, Some("token_unavailable")),
        ];
        for (problem, cause, expected) in table {
            assert_eq!(code(problem.clone(), cause), expected, "{problem:?} {cause:?}");
        }
    }
}
