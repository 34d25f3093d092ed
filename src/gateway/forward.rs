//! One attempt at the platform. Never retries; that is `retry`'s business.

use std::future::poll_fn;
use std::time::{Duration, Instant};

use http::{Method, StatusCode, Version};

use crate::http1::{self, BodyDecoder, DuplicateHeader, Headers, KnownHeader, ResponseHead};

use super::headers::OutboundHead;
use super::pool::{Dial, Lease, Link, MAX_IDLE, Place, Pool, Wire};
use super::refusal::Refusal;
use super::replay::AttemptBody;
use super::response::body::UpstreamBody;
use super::retry::AttemptOutcome;
use super::sending::{Fault, Sending};

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
    pub place: Place<'a>,
    pub head: OutboundHead<'a>,
    pub body: AttemptBody,
    pub started_at: Instant,
    /// Calls that cannot be repeated get a connection that was in use a moment ago, or a new one.
    pub retryable: bool,
    /// A kept connection has just failed: no other one is tried.
    pub fresh: bool,
    pub keep: usize,
    pub timeouts: Timeouts,
}

/// An answer's head, and its body still to come.
pub struct UpstreamResponse<S: Wire> {
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
    let Attempt { place, head, body, started_at, retryable, fresh, keep, timeouts } = attempt;
    let kept = if fresh { None } else { pool.take_out(place, retryable, keep, started_at) };
    let (mut lease, started_at) = match kept {
        Some(lease) => (lease, started_at),
        None => match Box::pin(pool.dial(dial, place, keep)).await {
            Ok(lease) => (lease, Instant::now()),
            Err(error) => {
                return Err(AttemptOutcome::ConnectFailed { reason: error.why, permanent: error.lasting });
            }
        },
    };
    let (responded, sent_whole) = exchange(&mut lease, &head, body, started_at, &timeouts).await?;
    let received_at = Instant::now();
    let body = decoder(&head.caller.method, &responded).map_err(AttemptOutcome::InvalidResponse)?;
    let link = &mut lease.link;
    link.keeps = sent_whole && stays_open(&responded, &body);
    link.max_idle = max_idle(&responded.headers);
    if body.remaining().is_some_and(|remaining| (link.unread() as u64) > remaining) {
        return Err(AttemptOutcome::InvalidResponse("it sent bytes that belong to no answer"));
    }
    Ok(UpstreamResponse {
        head: responded,
        body: UpstreamBody::new(body, lease, timeouts.idle, received_at),
        received_at,
    })
}

/// Why an answer does not show that the vendor's API is there; `None` where it does. Only what was carried
/// out counts, and no web page: another product's host answers too.
pub fn no_proof<S: Wire>(outcome: &Result<UpstreamResponse<S>, AttemptOutcome>) -> Option<String> {
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
async fn exchange<S: Wire>(
    lease: &mut Lease<S>,
    head: &OutboundHead<'_>,
    body: AttemptBody,
    started_at: Instant,
    timeouts: &Timeouts,
) -> Result<(ResponseHead, bool), AttemptOutcome> {
    let reused = lease.reused;
    let link: &mut Link<S> = &mut lease.link;
    link.keeps = false;
    let (read, written) = (link.read, link.written);
    let mut sending = Sending::new(head, body);
    link.alarm.set((started_at + timeouts.response).into());
    // What leaves at once, as most requests do whole, leaves when the attempt began.
    let (mut progress, mut at_once) = (written, true);
    let outcome = poll_fn(|cx| {
        let outcome = sending.poll_exchange(link, cx);
        if outcome.is_ready() {
            return outcome;
        }
        if link.written != progress {
            progress = link.written;
            let now = if at_once { started_at } else { Instant::now() };
            link.alarm.set((now + sending.timeouts(timeouts)).into());
        }
        at_once = false;
        link.alarm.poll(cx).map(|()| Err(Fault::TimedOut))
    })
    .await;
    let fault = match outcome {
        Ok(head) => {
            return Ok((head, sending.is_sent()));
        }
        Err(fault) => fault,
    };
    let progress = ExchangeProgress {
        reused,
        sent: link.written > written,
        received: link.read > read,
        waits_for_caller: sending.waits_for_caller(),
    };
    Err(failure(&progress, fault))
}

/// What is known about a failed exchange besides its fault.
struct ExchangeProgress {
    reused: bool,
    sent: bool,
    received: bool,
    waits_for_caller: bool,
}

/// Whose fault a failed exchange is.
fn failure(progress: &ExchangeProgress, fault: Fault) -> AttemptOutcome {
    match fault {
        Fault::CallerBrokeOff => {
            AttemptOutcome::CallerFailed(Refusal::BadFraming("the body broke off or is not framed properly"))
        }
        Fault::TimedOut if progress.waits_for_caller => AttemptOutcome::CallerFailed(Refusal::RequestTimeout),
        Fault::TimedOut => AttemptOutcome::TimedOut,
        Fault::Switched => AttemptOutcome::InvalidResponse("it switched protocols unasked"),
        Fault::Head(_) => AttemptOutcome::InvalidResponse("its answer is not HTTP, or its head is too large"),
        Fault::Ended => match (progress.reused, progress.sent, progress.received) {
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
        let seen = |reused, sent, received, fault| {
            failure(&ExchangeProgress { reused, sent, received, waits_for_caller: false }, fault)
        };
        assert_eq!(
            seen(true, false, false, Fault::Ended),
            AttemptOutcome::StaleConnection { bytes_sent: false }
        );
        assert_eq!(
            seen(true, true, false, Fault::Ended),
            AttemptOutcome::StaleConnection { bytes_sent: true }
        );
        assert_eq!(seen(true, true, true, Fault::Ended), AttemptOutcome::ConnectionLost);
        assert_eq!(seen(false, true, false, Fault::Ended), AttemptOutcome::ConnectionLost);
        assert!(matches!(seen(false, false, false, Fault::Ended), AttemptOutcome::ConnectFailed { .. }));
        assert_eq!(seen(false, true, false, Fault::TimedOut), AttemptOutcome::TimedOut);
        let progress =
            ExchangeProgress { reused: false, sent: true, received: false, waits_for_caller: true };
        assert_eq!(
            failure(&progress, Fault::TimedOut),
            AttemptOutcome::CallerFailed(Refusal::RequestTimeout)
        );
    }
}
