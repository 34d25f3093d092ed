//! Makes one attempt at the platform. Never retries; that is decided in `retry`.

use std::time::Instant;

use crate::http1::client::{
    Dial, ExchangeError, FailedExchange, Io, OutgoingBody, OutgoingRequest, Pool, PoolKey, Timeouts, exchange,
};
use crate::http1::{ResponseHead, WriteBuffer};

use super::RetryState;
use super::headers::{GatewayHeaders, OutboundFraming, OutboundHead};
use super::replay::ReplayableBody;
use super::resolved_request::{ResolvedRequest, UpstreamTarget};
use super::retry::{self, AttemptError};
use super::upstream_body::{ResponseBodyError, UpstreamBody};
use crate::access::Access;
use crate::gateway::access_log::RequestLog;
use crate::gateway::refusal::Refusal;
use crate::gateway::worker::Gateway;

/// What is to be sent where.
struct Attempt<'a> {
    key: PoolKey<'a>,
    head: OutboundHead<'a>,
    body: OutgoingBody,
    started_at: Instant,
    /// Calls that cannot be retried get a connection that was in use a moment ago, or a new one.
    retryable: bool,
    /// A pooled connection has just failed: no other one is tried.
    fresh: bool,
    max_idle_per_host: usize,
    timeouts: Timeouts,
}

/// A response's head, and its body still to come.
pub struct UpstreamResponse<S: Io> {
    pub head: ResponseHead,
    pub body: UpstreamBody<S>,
    /// When the head was here.
    pub received_at: Instant,
}

/// Responses up to this size that may be retried are buffered, so that the retry can reuse the connection.
const SMALL_RESPONSE: usize = 64 * 1024;

impl<D: Dial> Gateway<D> {
    /// One send with this access.
    pub(super) async fn attempt(
        &self,
        request: &ResolvedRequest<'_>,
        access: &Access,
        body: &ReplayableBody,
        state: &mut RetryState,
        log: &mut RequestLog,
    ) -> Result<Result<UpstreamResponse<D::Stream>, AttemptError>, Refusal> {
        let route = access.route();
        let target = request.target(route)?;
        let settings = request.settings;
        let timeouts = Timeouts {
            response: settings.response_timeout,
            idle: settings.idle_timeout,
            caller: settings.body_idle,
        };
        state.attempts += 1;
        log.attempts += 1;
        let UpstreamTarget { host, port, authority, path } = target;
        let head = OutboundHead {
            caller: request.head,
            path,
            query: request.query(),
            gateway_headers: GatewayHeaders {
                host: authority,
                bearer: access.expose_bearer(),
                via: &self.via,
                request_id: &log.request_id,
                framing: body.framing(),
                links: request.rewrites_response(),
            },
        };
        let started_at = Instant::now();
        let attempt = Attempt {
            head,
            body: body.attempt_body(),
            key: PoolKey { partition: access.realm().as_str(), host: &host, port, secure: route.secure() },
            started_at,
            retryable: request.retryable() && body.replayable(),
            fresh: state.retried_transparently,
            max_idle_per_host: settings.pool,
            timeouts,
        };
        let mut outcome = send(&self.pool, &self.dial, attempt).await;
        let ended = outcome.as_ref().map_or_else(|_| Instant::now(), |response| response.received_at);
        log.platform += ended.saturating_duration_since(started_at);
        if let Ok(response) = &mut outcome
            && !retry::is_final(response.head.status)
            && let Err(error) = Box::pin(response.body.buffer_up_to(SMALL_RESPONSE)).await
        {
            outcome = Err(buffering_failed(error));
        }
        Ok(outcome)
    }
}

/// Sends once and waits for the head of the response.
async fn send<D: Dial>(
    pool: &Pool<D::Stream>,
    dial: &D,
    attempt: Attempt<'_>,
) -> Result<UpstreamResponse<D::Stream>, AttemptError> {
    let Attempt { key, head, body, started_at, retryable, fresh, max_idle_per_host, timeouts } = attempt;
    let kept = if fresh { None } else { pool.checkout(key, retryable, max_idle_per_host, started_at) };
    let (mut checkout, started_at) = match kept {
        Some(checkout) => (checkout, started_at),
        None => match Box::pin(pool.dial(dial, key, max_idle_per_host)).await {
            Ok(checkout) => (checkout, Instant::now()),
            Err(error) => {
                return Err(AttemptError::ConnectFailed { reason: error.reason, permanent: error.permanent });
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
    let response = exchanged.map_err(|failed| attempt_error(&failed))?;
    let received_at = Instant::now();
    let body = UpstreamBody::new(response.body, checkout, timeouts.idle, received_at);
    Ok(UpstreamResponse { head: response.head, body, received_at })
}

/// Whose fault a failed exchange is.
fn attempt_error(failed: &FailedExchange) -> AttemptError {
    use AttemptError::InvalidResponse;
    match failed.error {
        ExchangeError::CallerBodyFailed => {
            AttemptError::CallerFailed(Refusal::BadFraming("the body broke off or is not framed properly"))
        }
        ExchangeError::TimedOut if failed.awaiting_body => {
            AttemptError::CallerFailed(Refusal::RequestTimeout)
        }
        ExchangeError::TimedOut => AttemptError::TimedOut,
        ExchangeError::SwitchedProtocols => InvalidResponse("it switched protocols unasked"),
        ExchangeError::InvalidHead(_) => InvalidResponse("its answer is not HTTP, or its head is too large"),
        ExchangeError::InvalidFraming(error) => InvalidResponse(error.reason()),
        ExchangeError::UnexpectedBytes => InvalidResponse("it sent bytes that belong to no answer"),
        ExchangeError::ConnectionEnded => match (failed.reused, failed.sent, failed.received) {
            (true, false, _) => AttemptError::StaleConnection { bytes_sent: false },
            (true, true, false) => AttemptError::StaleConnection { bytes_sent: true },
            (false, false, _) => AttemptError::ConnectFailed {
                reason: "the new connection broke at once".to_owned(),
                permanent: false,
            },
            _ => AttemptError::ConnectionLost,
        },
    }
}

fn buffering_failed(error: ResponseBodyError) -> AttemptError {
    match error {
        ResponseBodyError::Stalled => AttemptError::TimedOut,
        ResponseBodyError::Truncated | ResponseBodyError::Damaged => AttemptError::ConnectionLost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_exchange_is_told_apart_by_what_went_over_the_wire() {
        let seen = |reused, sent, received, error| {
            attempt_error(&FailedExchange { error, reused, sent, received, awaiting_body: false })
        };
        assert_eq!(
            seen(true, false, false, ExchangeError::ConnectionEnded),
            AttemptError::StaleConnection { bytes_sent: false }
        );
        assert_eq!(
            seen(true, true, false, ExchangeError::ConnectionEnded),
            AttemptError::StaleConnection { bytes_sent: true }
        );
        assert_eq!(seen(true, true, true, ExchangeError::ConnectionEnded), AttemptError::ConnectionLost);
        assert_eq!(seen(false, true, false, ExchangeError::ConnectionEnded), AttemptError::ConnectionLost);
        assert!(matches!(
            seen(false, false, false, ExchangeError::ConnectionEnded),
            AttemptError::ConnectFailed { .. }
        ));
        assert_eq!(seen(false, true, false, ExchangeError::TimedOut), AttemptError::TimedOut);
        let failed = FailedExchange {
            error: ExchangeError::TimedOut,
            reused: false,
            sent: true,
            received: false,
            awaiting_body: true,
        };
        assert_eq!(attempt_error(&failed), AttemptError::CallerFailed(Refusal::RequestTimeout));
    }
}
