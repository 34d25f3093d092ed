//! One attempt at the platform. Never retries; that is `retry`'s business.

use std::time::Instant;

use crate::http1::client::{
    Dial, ExchangeError, FailedExchange, Io, OutgoingBody, OutgoingRequest, Pool, PoolKey, Timeouts, exchange,
};
use crate::http1::{KnownHeader, ResponseHead, WriteBuffer};

use super::headers::{OutboundFraming, OutboundHead};
use super::refusal::Refusal;
use super::response::body::UpstreamBody;
use super::retry::AttemptOutcome;

/// What is to be sent where.
pub struct Attempt<'a> {
    pub key: PoolKey<'a>,
    pub head: OutboundHead<'a>,
    pub body: OutgoingBody,
    pub started_at: Instant,
    /// Calls that cannot be repeated get a connection that was in use a moment ago, or a new one.
    pub retryable: bool,
    /// A kept connection has just failed: no other one is tried.
    pub fresh: bool,
    pub max_idle_per_host: usize,
    pub timeouts: Timeouts,
}

/// An answer's head, and its body still to come.
pub struct UpstreamResponse<S: Io> {
    pub head: ResponseHead,
    pub body: UpstreamBody<S>,
    /// When the head was here.
    pub received_at: Instant,
}

/// Sends once and waits for the head of the answer.
pub async fn send<D: Dial>(
    pool: &Pool<D::Stream>,
    dial: &D,
    attempt: Attempt<'_>,
) -> Result<UpstreamResponse<D::Stream>, AttemptOutcome> {
    let Attempt { key, head, body, started_at, retryable, fresh, max_idle_per_host, timeouts } = attempt;
    let kept = if fresh { None } else { pool.checkout(key, retryable, max_idle_per_host, started_at) };
    let (mut checkout, started_at) = match kept {
        Some(checkout) => (checkout, started_at),
        None => match Box::pin(pool.dial(dial, key, max_idle_per_host)).await {
            Ok(checkout) => (checkout, Instant::now()),
            Err(error) => {
                return Err(AttemptOutcome::ConnectFailed {
                    reason: error.reason,
                    permanent: error.permanent,
                });
            }
        },
    };
    let mut up_to_bearer = WriteBuffer::new();
    head.write_up_to_bearer(&mut up_to_bearer);
    let request = OutgoingRequest {
        head: up_to_bearer,
        last_value: head.gateway_headers.bearer.as_bytes(),
        chunked: head.gateway_headers.framing == OutboundFraming::Chunked,
        body,
    };
    let exchanged = exchange(&mut checkout, &head.caller.method, request, started_at, &timeouts).await;
    let response = exchanged.map_err(|failed| attempt_outcome(&failed))?;
    let received_at = Instant::now();
    let body = UpstreamBody::new(response.body, checkout, timeouts.idle, received_at);
    Ok(UpstreamResponse { head: response.head, body, received_at })
}

/// Why an answer does not show that the vendor's API is there; `None` where it does. Only what was carried
/// out counts, and no web page: another product's host answers too.
pub fn no_proof<S: Io>(outcome: &Result<UpstreamResponse<S>, AttemptOutcome>) -> Option<String> {
    match outcome {
        Ok(response) if !response.head.status.is_success() => {
            Some(format!("it answers a call with status {}", response.head.status.as_u16()))
        }
        Ok(response) => {
            let kind = response.head.headers.get(KnownHeader::ContentType).unwrap_or_default();
            let is_page = kind.get(..9).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/html"));
            is_page.then(|| "it answers a call with a web page".to_owned())
        }
        Err(AttemptOutcome::ConnectFailed { reason, .. }) => Some(reason.clone()),
        Err(AttemptOutcome::TimedOut) => Some("it does not answer a call in time".to_owned()),
        Err(_) => Some("it answers a call with what is no valid answer".to_owned()),
    }
}

/// Whose fault a failed exchange is.
fn attempt_outcome(failed: &FailedExchange) -> AttemptOutcome {
    use AttemptOutcome::InvalidResponse;
    match failed.error {
        ExchangeError::CallerBodyFailed => {
            AttemptOutcome::CallerFailed(Refusal::BadFraming("the body broke off or is not framed properly"))
        }
        ExchangeError::TimedOut if failed.awaiting_body => {
            AttemptOutcome::CallerFailed(Refusal::RequestTimeout)
        }
        ExchangeError::TimedOut => AttemptOutcome::TimedOut,
        ExchangeError::SwitchedProtocols => InvalidResponse("it switched protocols unasked"),
        ExchangeError::InvalidHead(_) => InvalidResponse("its answer is not HTTP, or its head is too large"),
        ExchangeError::InvalidFraming(error) => InvalidResponse(error.reason()),
        ExchangeError::UnexpectedBytes => InvalidResponse("it sent bytes that belong to no answer"),
        ExchangeError::ConnectionEnded => match (failed.reused, failed.sent, failed.received) {
            (true, false, _) => AttemptOutcome::StaleConnection { bytes_sent: false },
            (true, true, false) => AttemptOutcome::StaleConnection { bytes_sent: true },
            (false, false, _) => AttemptOutcome::ConnectFailed {
                reason: "the new connection broke at once".to_owned(),
                permanent: false,
            },
            _ => AttemptOutcome::ConnectionLost,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_exchange_is_told_apart_by_what_went_over_the_wire() {
        let seen = |reused, sent, received, error| {
            attempt_outcome(&FailedExchange { error, reused, sent, received, awaiting_body: false })
        };
        assert_eq!(
            seen(true, false, false, ExchangeError::ConnectionEnded),
            AttemptOutcome::StaleConnection { bytes_sent: false }
        );
        assert_eq!(
            seen(true, true, false, ExchangeError::ConnectionEnded),
            AttemptOutcome::StaleConnection { bytes_sent: true }
        );
        assert_eq!(seen(true, true, true, ExchangeError::ConnectionEnded), AttemptOutcome::ConnectionLost);
        assert_eq!(seen(false, true, false, ExchangeError::ConnectionEnded), AttemptOutcome::ConnectionLost);
        assert!(matches!(
            seen(false, false, false, ExchangeError::ConnectionEnded),
            AttemptOutcome::ConnectFailed { .. }
        ));
        assert_eq!(seen(false, true, false, ExchangeError::TimedOut), AttemptOutcome::TimedOut);
        let failed = FailedExchange {
            error: ExchangeError::TimedOut,
            reused: false,
            sent: true,
            received: false,
            awaiting_body: true,
        };
        assert_eq!(attempt_outcome(&failed), AttemptOutcome::CallerFailed(Refusal::RequestTimeout));
    }
}
