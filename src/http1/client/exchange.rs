//! One request and the head of its response, over one connection. Never retries.

use std::future::poll_fn;
use std::time::Instant;

use http::Method;

use super::connection::UpstreamConnection;
use super::dial::Io;
use super::exchange_error::{ExchangeError, FailedExchange};
use super::keep_alive::{max_idle, persists};
use super::pool::Checkout;
use super::request_writer::{OutgoingRequest, RequestWriter, Timeouts};
use crate::http1::framing::response_body;
use crate::http1::parse::{BodyDecoder, ResponseHead};

/// A response's head, and how its body is delimited.
pub struct IncomingResponse {
    pub head: ResponseHead,
    pub body: BodyDecoder,
}

/// Puts the request on the connection and waits for the head of its response. Dropped midway, the connection
/// goes with it.
pub async fn exchange<S: Io>(
    checkout: &mut Checkout<S>,
    method: &Method,
    request: OutgoingRequest<'_>,
    started_at: Instant,
    timeouts: &Timeouts,
) -> Result<IncomingResponse, FailedExchange> {
    let reused = checkout.reused;
    let connection: &mut UpstreamConnection<S> = &mut checkout.connection;
    connection.reusable = false;
    let (read, written) = (connection.read, connection.written);
    let mut writer = RequestWriter::new(request);
    connection.deadline.set((started_at + timeouts.response).into());
    // What leaves at once, as most requests do completely, leaves when the exchange began.
    let (mut progress, mut at_once) = (written, true);
    let outcome = poll_fn(|cx| {
        let outcome = writer.poll_exchange(connection, cx);
        if outcome.is_ready() {
            return outcome;
        }
        if connection.written != progress {
            progress = connection.written;
            let now = if at_once { started_at } else { Instant::now() };
            connection.deadline.set((now + writer.timeout(timeouts)).into());
        }
        at_once = false;
        connection.deadline.poll(cx).map(|()| Err(ExchangeError::TimedOut))
    })
    .await;
    let received = outcome.and_then(|head| receive(connection, method, head, writer.is_sent()));
    received.map_err(|error| FailedExchange {
        error,
        reused,
        sent: connection.written > written,
        received: connection.read > read,
        awaiting_body: writer.awaiting_body(),
    })
}

fn receive<S: Io>(
    connection: &mut UpstreamConnection<S>,
    method: &Method,
    head: ResponseHead,
    is_sent: bool,
) -> Result<IncomingResponse, ExchangeError> {
    let body = response_body(method, &head).map_err(ExchangeError::InvalidFraming)?;
    connection.reusable = is_sent && persists(&head, &body);
    connection.max_idle = max_idle(&head.headers);
    if body.remaining().is_some_and(|remaining| connection.unread() as u64 > remaining) {
        return Err(ExchangeError::UnexpectedBytes);
    }
    Ok(IncomingResponse { head, body })
}
