//! What to do after an attempt: the one place that says which outcomes are retried, and where a 403 is
//! decided. Pure: no I/O, no async, no clock. The table of its tests is its documentation, with the vendor's
//! section beside each row.

use std::time::Duration;

use http::StatusCode;

use crate::access::renewal::{Cause, RenewError};
use crate::clock::Timestamp;
use crate::config;
use crate::model::account::{AccountName, RealmName};
use crate::model::endpoint::{Endpoint, RetryWait};

use crate::gateway::refusal::Refusal;

/// Why an attempt brought no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptError {
    /// No connection: nothing was sent. A certificate that is refused stays refused.
    ConnectFailed {
        reason: String,
        permanent: bool,
    },
    /// A pooled connection turned out to be closed before any byte of a response came.
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
    /// Attempts so far, the last one included; the transparent retry is not counted.
    pub attempts: u32,
    /// This call has had its renewal.
    pub renewed: bool,
    /// This call has had its transparent retry.
    pub retried_transparently: bool,
    pub elapsed: Duration,
    /// The realm's budget has a retry left.
    pub budget: bool,
    /// From 0 to 1, drawn by the caller of this function.
    pub jitter: f64,
}

/// The next move. It owns the response that it lets pass, so that only a response can.
#[derive(Debug, Clone, PartialEq)]
pub enum RetryDecision<R> {
    PassThrough(R),
    /// The response passes, since the call cannot be repeated; the renewal starts for the next call.
    PassThroughAndRenew(R, Cause),
    /// Where the renewal fails, [`after_failed_renewal`] decides about the response.
    Renew(R, Cause),
    /// Then send again; zero for the transparent retry.
    RetryAfter(Duration),
    Refuse(Refusal),
}

/// A second wait is twice the first, and jitter only lengthens: the documented wait is a minimum.
const JITTER: f64 = 0.25;

/// What a status means for the next move.
enum RetryClass {
    /// The token is not accepted.
    Expired(Cause),
    /// The documents say that a later attempt may succeed.
    Transient,
    /// The vendor's response, whatever it says.
    Final,
}

fn retry_class(status: StatusCode) -> RetryClass {
    match status {
        StatusCode::UNAUTHORIZED => RetryClass::Expired(Cause::Unauthorized),
        StatusCode::FORBIDDEN => RetryClass::Expired(Cause::Forbidden),
        StatusCode::INTERNAL_SERVER_ERROR | StatusCode::GATEWAY_TIMEOUT => RetryClass::Transient,
        _ => RetryClass::Final,
    }
}

/// Whether a response with this status passes in any case.
pub fn is_final(status: StatusCode) -> bool {
    matches!(retry_class(status), RetryClass::Final)
}

/// Decides about an attempt: the status of its response and the response itself, or why there is none.
pub fn next_step<R>(
    context: &RetryContext<'_>,
    outcome: Result<(StatusCode, R), AttemptError>,
) -> RetryDecision<R> {
    match outcome {
        Ok((status, response)) => match retry_class(status) {
            RetryClass::Expired(cause) => after_expiry(context, cause, response),
            RetryClass::Transient => match retry_wait(context) {
                Some(wait) => RetryDecision::RetryAfter(wait),
                None => RetryDecision::PassThrough(response),
            },
            RetryClass::Final => RetryDecision::PassThrough(response),
        },
        Err(error) => match wait_after(context, &error) {
            Some(wait) => RetryDecision::RetryAfter(wait),
            None => RetryDecision::Refuse(error.into_refusal()),
        },
    }
}

/// A refresh is asked for once per call; a second 401 or 403 is the vendor's response. Neither was carried
/// out by the platform, so a POST may be repeated too.
fn after_expiry<R>(context: &RetryContext<'_>, cause: Cause, response: R) -> RetryDecision<R> {
    if context.renewed || context.elapsed >= context.limits.deadline {
        return RetryDecision::PassThrough(response);
    }
    match (context.replayable, cause) {
        (true, cause) => RetryDecision::Renew(response, cause),
        (false, Cause::Unauthorized) => RetryDecision::PassThroughAndRenew(response, cause),
        // Nobody would learn whether that renewal cured anything, and a lasting 403 must not cause one after
        // the other.
        (false, _) => RetryDecision::PassThrough(response),
    }
}

/// When to send again after an attempt without a response; `None`: not at all.
fn wait_after(context: &RetryContext<'_>, error: &AttemptError) -> Option<Duration> {
    match error {
        AttemptError::ConnectFailed { permanent: false, .. } => retry_wait(context),
        AttemptError::StaleConnection { bytes_sent } => {
            // Whoever creates something must know that it may have been created.
            let harmless = context.retryable || !bytes_sent;
            let may = harmless && context.replayable && !context.retried_transparently;
            may.then_some(Duration::ZERO)
        }
        AttemptError::ConnectFailed { permanent: true, .. }
        | AttemptError::ConnectionLost
        | AttemptError::TimedOut
        | AttemptError::InvalidResponse(_)
        | AttemptError::CallerFailed(_) => None,
    }
}

impl AttemptError {
    fn into_refusal(self) -> Refusal {
        match self {
            AttemptError::ConnectFailed { reason, .. } => Refusal::PlatformUnreachable(reason),
            AttemptError::StaleConnection { bytes_sent: true } => {
                Refusal::PlatformMisbehaved("the kept connection died midway")
            }
            AttemptError::StaleConnection { bytes_sent: false } => {
                Refusal::PlatformUnreachable("the kept connection had died".to_owned())
            }
            AttemptError::ConnectionLost => {
                Refusal::PlatformMisbehaved("the connection ended without a whole answer")
            }
            AttemptError::TimedOut => Refusal::PlatformTimeout,
            AttemptError::InvalidResponse(what) => Refusal::PlatformMisbehaved(what),
            AttemptError::CallerFailed(refusal) => refusal,
        }
    }
}

/// The wait before the next attempt, where attempts, deadline and budget allow one.
fn retry_wait(context: &RetryContext<'_>) -> Option<Duration> {
    let allowed = context.limits.attempts + u32::from(context.renewed);
    let wait = backoff(context);
    let may = context.retryable
        && context.replayable
        && context.attempts < allowed
        && context.elapsed + wait <= context.limits.deadline
        && context.budget;
    may.then_some(wait)
}

fn backoff(context: &RetryContext<'_>) -> Duration {
    let first = match context.endpoint.retry_wait {
        RetryWait::Base => context.limits.initial_backoff,
        RetryWait::Pairing => context.limits.pairing_backoff,
    };
    let doubled = first.saturating_mul(1 << context.attempts.saturating_sub(1).min(8));
    doubled.mul_f64(1.0 + JITTER * context.jitter.clamp(0.0, 1.0))
}

/// What becomes of a response (or of the access that it has shown to be refused) when the renewal that it
/// caused has failed: it passes, or a refusal takes its place.
pub fn after_failed_renewal<R>(
    response: R,
    error: &RenewError,
    cause: Cause,
    now: Timestamp,
    account: &AccountName,
    realm: &RealmName,
) -> Result<R, Refusal> {
    let passes = match error {
        RenewError::TooSoon { .. } => matches!(cause, Cause::Unauthorized | Cause::Forbidden),
        // The token may live on, and 403 may mean what it says.
        RenewError::Unavailable { .. } => cause == Cause::Forbidden,
        RenewError::Paused | RenewError::NeedsLogin { .. } | RenewError::StillRunning => false,
    };
    if passes { Ok(response) } else { Err(renewal_refusal(error, now, account, realm)) }
}

/// What a call without a token becomes when its renewal has failed.
pub fn renewal_refusal(
    error: &RenewError,
    now: Timestamp,
    account: &AccountName,
    realm: &RealmName,
) -> Refusal {
    match error {
        RenewError::TooSoon { until } => Refusal::TokenUnavailable(until.since(now)),
        RenewError::Paused => Refusal::AccountPaused(account.clone()),
        RenewError::NeedsLogin { since, remedy, .. } => {
            let (account, realm) = (account.clone(), realm.clone());
            Refusal::AccountNeedsLogin { account, realm, since: *since, remedy: *remedy }
        }
        RenewError::Unavailable { retry_at, .. } => Refusal::TokenUnavailable(retry_at.since(now)),
        RenewError::StillRunning => Refusal::TokenUnavailable(STILL_RUNNING),
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

    type Outcome = Result<(StatusCode, ()), AttemptError>;
    type Decision = RetryDecision<()>;

    const S: fn(u16) -> Outcome = |status| Ok((StatusCode::from_u16(status).unwrap(), ()));
    const PASS: Decision = RetryDecision::PassThrough(());

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

    fn renew(cause: Cause) -> Decision {
        RetryDecision::Renew((), cause)
    }

    fn wait(millis: u64) -> Decision {
        RetryDecision::RetryAfter(Duration::from_millis(millis))
    }

    fn unreachable() -> Decision {
        RetryDecision::Refuse(Refusal::PlatformUnreachable("down".into()))
    }

    /// Method, path, what was seen, what follows. S = Authentication and Pairing V2; N = migration notice.
    #[test]
    fn each_first_response_has_its_next_step() {
        let table = [
            (Method::GET, "/orders/lab", S(200), PASS),
            (Method::GET, "/orders/lab", S(401), renew(Cause::Unauthorized)), // S 4.2.2: expired
            (Method::GET, "/orders/lab", S(403), renew(Cause::Forbidden)),    // N: expired shows as 403 too
            (Method::POST, "/scan-request", S(401), renew(Cause::Unauthorized)), // was not carried out
            (Method::POST, "/scan-request", S(403), renew(Cause::Forbidden)),
            (Method::GET, "/orders/lab", S(400), PASS), // S 4.2.2: wrong parameters
            (Method::GET, "/orders/lab", S(404), PASS),
            (Method::PUT, "/pair-account", S(409), PASS), // S 4.3.1: paired elsewhere
            (Method::GET, "/orders/lab", S(429), PASS),   // documented nowhere
            (Method::GET, "/orders/lab", S(302), PASS),   // never followed
            (Method::GET, "/orders/lab", S(500), wait(1000)), // S 4.2.2: retry
            (Method::GET, "/orders/lab", S(502), PASS),   // documented nowhere
            (Method::GET, "/orders/lab", S(503), PASS),
            (Method::GET, "/orders/lab", S(504), wait(1000)), // S 4.2.2: after about 1000 ms
            (Method::PUT, "/pair-account", S(504), wait(2000)), // S 4.3.1: after about 2000 ms
            (Method::DELETE, "/scan-request/1", S(504), wait(1000)),
            (Method::POST, "/patient/search", S(504), wait(1000)), // N: a read
            (Method::POST, "/scan-request", S(504), PASS),         // N: may have created the RX
            (Method::POST, "/patients", S(500), PASS),
            (Method::GET, "/order/1/return", S(504), PASS), // N: acts, whatever its method
        ];
        let limits = limits();
        for (method, path, seen, step) in table {
            let context = context(&limits, method.clone(), path);
            assert_eq!(next_step(&context, seen.clone()), step, "{method} {path} {seen:?}");
        }
    }

    #[test]
    fn each_first_failure_has_its_next_step() {
        let down: Outcome = Err(AttemptError::ConnectFailed { reason: "down".into(), permanent: false });
        let misbehaved = |what| RetryDecision::Refuse(Refusal::PlatformMisbehaved(what));
        let table = [
            (Method::GET, "/orders/lab", down.clone(), wait(1000)),
            (Method::POST, "/scan-request", down, unreachable()),
            (
                Method::GET,
                "/orders/lab",
                Err(AttemptError::ConnectFailed { reason: "down".into(), permanent: true }),
                unreachable(),
            ),
            (Method::GET, "/orders/lab", Err(AttemptError::StaleConnection { bytes_sent: true }), wait(0)),
            (
                Method::POST,
                "/scan-request",
                Err(AttemptError::StaleConnection { bytes_sent: false }),
                wait(0),
            ),
            (
                Method::POST,
                "/scan-request",
                Err(AttemptError::StaleConnection { bytes_sent: true }),
                misbehaved("the kept connection died midway"), // may have created the RX
            ),
            (
                Method::GET,
                "/orders/lab",
                Err(AttemptError::ConnectionLost),
                misbehaved("the connection ended without a whole answer"),
            ),
            (
                Method::GET,
                "/orders/lab",
                Err(AttemptError::TimedOut),
                RetryDecision::Refuse(Refusal::PlatformTimeout),
            ),
            (Method::GET, "/orders/lab", Err(AttemptError::InvalidResponse("x")), misbehaved("x")),
        ];
        let limits = limits();
        for (method, path, seen, step) in table {
            let context = context(&limits, method.clone(), path);
            assert_eq!(next_step(&context, seen.clone()), step, "{method} {path} {seen:?}");
        }
    }

    #[test]
    fn a_second_403_is_the_vendors_response_and_passes_through() {
        let limits = limits();
        let renewed =
            RetryContext { renewed: true, attempts: 2, ..context(&limits, Method::GET, "/orders/lab") };
        assert_eq!(next_step(&renewed, S(403)), PASS);
        assert_eq!(next_step(&renewed, S(401)), PASS);
    }

    #[test]
    fn a_body_that_was_not_kept_passes_401_through_and_starts_the_renewal() {
        let limits = limits();
        let once = RetryContext { replayable: false, ..context(&limits, Method::PUT, "/patients") };
        assert_eq!(next_step(&once, S(401)), RetryDecision::PassThroughAndRenew((), Cause::Unauthorized));
        assert_eq!(next_step(&once, S(403)), PASS);
        assert_eq!(next_step(&once, S(500)), PASS);
    }

    #[test]
    fn waits_double_and_jitter_only_lengthens_them() {
        let limits = limits();
        let first = context(&limits, Method::GET, "/orders/lab");
        assert_eq!(next_step(&RetryContext { attempts: 2, ..first }, S(500)), wait(2000));
        assert_eq!(next_step(&RetryContext { jitter: 1.0, ..first }, S(500)), wait(1250));
    }

    #[test]
    fn no_repeat_beyond_attempts_deadline_or_budget_and_one_more_after_a_renewal() {
        let limits = limits();
        let first = context(&limits, Method::GET, "/orders/lab");
        let reply = |context| assert_eq!(next_step(&context, S(500)), PASS);
        reply(RetryContext { attempts: 3, ..first });
        reply(RetryContext { attempts: 4, renewed: true, ..first });
        reply(RetryContext { elapsed: Duration::from_millis(19_001), ..first });
        reply(RetryContext { budget: false, ..first });
        assert_eq!(next_step(&RetryContext { attempts: 3, renewed: true, ..first }, S(500)), wait(4000));
        assert_eq!(next_step(&RetryContext { elapsed: Duration::from_secs(20), ..first }, S(401)), PASS);
        let silent = RetryContext { retried_transparently: true, ..first };
        assert_ne!(next_step(&silent, Err(AttemptError::StaleConnection { bytes_sent: true })), wait(0));
    }

    #[test]
    fn a_failed_renewal_passes_the_response_or_says_whose_trouble_it_is() {
        let now = Timestamp::from_millis(1_000_000);
        let later = now + Duration::from_secs(7);
        let (name, realm) = ("smile".parse().unwrap(), "global".parse().unwrap());
        let code = |error: RenewError, cause| {
            let refusal = match cause {
                Cause::NoToken => Err(renewal_refusal(&error, now, &name, &realm)),
                cause => after_failed_renewal((), &error, cause, now, &name, &realm),
            };
            refusal.err().map(|refusal| refusal.code().as_str())
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
