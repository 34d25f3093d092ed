//! One attempt at the platform. Never retries; that is `retry`'s business.

use std::future::poll_fn;
use std::time::{Duration, Instant};

use http::{Method, StatusCode, Version};

use crate::http1::{self, BodyDecoder, DuplicateHeader, Headers, KnownHeader, ResponseHead};

use super::headers::OutboundHead;
use super::pool::{Checkout, Dial, Io, MAX_IDLE, Pool, PoolKey, UpstreamConnection};
use super::refusal::Refusal;
use super::replay::AttemptBody;
use super::request_writer::{ExchangeError, RequestWriter};
use super::response::body::UpstreamBody;
use super::retry::AttemptOutcome;

/// How long an attempt may wait for what.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From the last byte sent to the answer's head.
    pub response: Duration,
    /// For the platform to take or give the next piece of a body.
    pub idle: Duration,
    /// For the caller to give the next piece of a body that is passed on.
    pub caller: Duration,
}

/// What is to be sent where.
pub struct Attempt<'a> {
    pub key: PoolKey<'a>,
    pub head: OutboundHead<'a>,
    pub body: AttemptBody,
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
    let (responded, sent_whole) = exchange(&mut checkout, &head, body, started_at, &timeouts).await?;
    let received_at = Instant::now();
    let body = decoder(&head.caller.method, &responded).map_err(AttemptOutcome::InvalidResponse)?;
    let connection = &mut checkout.connection;
    connection.reusable = sent_whole && stays_open(&responded, &body);
    connection.max_idle = max_idle(&responded.headers);
    if body.remaining().is_some_and(|remaining| (connection.unread() as u64) > remaining) {
        return Err(AttemptOutcome::InvalidResponse("it sent bytes that belong to no answer"));
    }
    Ok(UpstreamResponse {
        head: responded,
        body: UpstreamBody::new(body, checkout, timeouts.idle, received_at),
        received_at,
    })
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

/// Puts the request on the connection and waits for the head of its answer. Also tells whether all of the request is on its way. Dropped
/// midway, the connection goes with it.
async fn exchange<S: Io>(
    checkout: &mut Checkout<S>,
    head: &OutboundHead<'_>,
    body: AttemptBody,
    started_at: Instant,
    timeouts: &Timeouts,
) -> Result<(ResponseHead, bool), AttemptOutcome> {
    let reused = checkout.reused;
    let connection: &mut UpstreamConnection<S> = &mut checkout.connection;
    connection.reusable = false;
    let (read, written) = (connection.read, connection.written);
    let mut writer = RequestWriter::new(head, body);
    connection.deadline.set((started_at + timeouts.response).into());
    // What leaves at once, as most requests do whole, leaves when the attempt began.
    let (mut progress, mut at_once) = (written, true);
    let outcome = poll_fn(|cx| {
        let outcome = writer.poll_exchange(connection, cx);
        if outcome.is_ready() {
            return outcome;
        }
        if connection.written != progress {
            progress = connection.written;
            let now = if at_once { started_at } else { Instant::now() };
            connection.deadline.set((now + writer.timeouts(timeouts)).into());
        }
        at_once = false;
        connection.deadline.poll(cx).map(|()| Err(ExchangeError::TimedOut))
    })
    .await;
    let error = match outcome {
        Ok(head) => {
            return Ok((head, writer.is_sent()));
        }
        Err(error) => error,
    };
    let progress = ExchangeProgress {
        reused,
        sent: connection.written > written,
        received: connection.read > read,
        awaiting_body: writer.awaiting_body(),
    };
    Err(failure(&progress, error))
}

/// What is known about a failed exchange besides its fault.
struct ExchangeProgress {
    reused: bool,
    sent: bool,
    received: bool,
    awaiting_body: bool,
}

/// Whose fault a failed exchange is.
fn failure(progress: &ExchangeProgress, error: ExchangeError) -> AttemptOutcome {
    match error {
        ExchangeError::CallerBodyFailed => {
            AttemptOutcome::CallerFailed(Refusal::BadFraming("the body broke off or is not framed properly"))
        }
        ExchangeError::TimedOut if progress.awaiting_body => {
            AttemptOutcome::CallerFailed(Refusal::RequestTimeout)
        }
        ExchangeError::TimedOut => AttemptOutcome::TimedOut,
        ExchangeError::SwitchedProtocols => AttemptOutcome::InvalidResponse("it switched protocols unasked"),
        ExchangeError::InvalidHead(_) => {
            AttemptOutcome::InvalidResponse("its answer is not HTTP, or its head is too large")
        }
        ExchangeError::ConnectionEnded => match (progress.reused, progress.sent, progress.received) {
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

/// How an answer's body is told from what follows it (RFC 9112, 6.3). What two readers could understand in two ways is an error
/// (threats, row 3).
fn decoder(method: &Method, head: &ResponseHead) -> Result<BodyDecoder, &'static str> {
    let framing = framing(head.version, &head.headers)?;
    let bodyless =
        *method == Method::HEAD || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    Ok(if bodyless { BodyDecoder::NONE } else { framing })
}

fn framing(version: Version, headers: &Headers) -> Result<BodyDecoder, &'static str> {
    let length = headers
        .get_unique(KnownHeader::ContentLength)
        .map_err(|DuplicateHeader| "its answer has two lengths")?;
    let coding = headers
        .get_unique(KnownHeader::TransferEncoding)
        .map_err(|DuplicateHeader| "its answer has two transfer codings")?;
    match (length, coding) {
        (Some(_), Some(_)) => Err("its answer has a length and a transfer coding"),
        (None, Some(_)) if version != Version::HTTP_11 => {
            Err("its answer has a transfer coding, which its version does not know")
        }
        (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => Ok(BodyDecoder::chunked()),
        (None, Some(_)) => Err("its answer has an unknown transfer coding"),
        (Some(length), None) => {
            http1::parse_content_length(length).map(BodyDecoder::Length).ok_or("its answer has an odd length")
        }
        (None, None) => Ok(BodyDecoder::until_close()),
    }
}

fn stays_open(head: &ResponseHead, body: &BodyDecoder) -> bool {
    let says = |word| head.headers.has_token(KnownHeader::Connection, word);
    let open = head.version == Version::HTTP_11 || says(b"keep-alive");
    open && !says(b"close") && !matches!(body, BodyDecoder::UntilClose { .. })
}

/// How long the connection may lie idle by the platform's own word, less what a request needs to get there in
/// time.
fn max_idle(headers: &Headers) -> Duration {
    if !headers.has(KnownHeader::KeepAlive) {
        return MAX_IDLE;
    }
    let timeout = headers.tokens(KnownHeader::KeepAlive).find_map(|word| {
        let (name, value) = word.split_at(word.iter().position(|byte| *byte == b'=')?);
        let digits = std::str::from_utf8(&value[1..]).ok()?.trim().trim_matches('"');
        let seconds = name.trim_ascii().eq_ignore_ascii_case(b"timeout").then(|| digits.parse().ok())??;
        Some(Duration::from_secs(seconds))
    });
    timeout.map_or(MAX_IDLE, |timeout| MAX_IDLE.min(timeout - IN_TIME.min(timeout / 2)))
}

/// What a request may take to get to the platform.
const IN_TIME: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_alive_is_heeded_with_a_margin() {
        for (says, millis) in [
            ("timeout=5, max=100", 4_000),
            ("max=100,Timeout=5", 4_000),
            ("timeout=\"20\"", 19_000),
            ("timeout = 1", 500),
            ("timeout=0", 0),
            ("timeout=600", 55_000),
            ("timeout=99999999999999999999", 55_000),
            ("timeout=-1", 55_000),
            ("timeout", 55_000),
            ("", 55_000),
        ] {
            let headers = Headers::from_pairs([("Keep-Alive", says)]).unwrap();
            assert_eq!(max_idle(&headers), Duration::from_millis(millis), "{says}");
        }
    }

    #[test]
    fn a_response_whose_length_is_in_doubt_is_not_passed_on() {
        let table: [(&[(&str, &str)], bool); 9] = [
            (&[], true),
            (&[("content-length", "5")], true),
            (&[("transfer-encoding", "chunked")], true),
            (&[("transfer-encoding", "Chunked")], true),
            (&[("content-length", "5"), ("content-length", "5")], false),
            (&[("content-length", "5, 5")], false),
            (&[("content-length", "5"), ("transfer-encoding", "chunked")], false),
            (&[("transfer-encoding", "gzip, chunked")], false),
            (&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], false),
        ];
        for (lines, good) in table {
            let headers = Headers::from_pairs(lines.iter().copied()).unwrap();
            assert_eq!(framing(Version::HTTP_11, &headers).is_ok(), good, "{lines:?}");
        }
    }

    #[test]
    fn a_failed_exchange_is_told_apart_by_what_went_over_the_wire() {
        let seen = |reused, sent, received, error| {
            failure(&ExchangeProgress { reused, sent, received, awaiting_body: false }, error)
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
        let progress = ExchangeProgress { reused: false, sent: true, received: false, awaiting_body: true };
        assert_eq!(
            failure(&progress, ExchangeError::TimedOut),
            AttemptOutcome::CallerFailed(Refusal::RequestTimeout)
        );
    }
}
