//! One attempt at the platform. Never retries; that is `retry`'s business.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::body::LiveBody;
use super::pool::{Dial, Lease, Link, Place, Pool, Wire};
use super::refusal::Refusal;
use super::replay::{OutBody, Watch};
use super::retry::Seen;
use http::header::{self, HeaderMap};
use http::response::Parts;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

/// How long an attempt may wait for what.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
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
    pub request: Request<OutBody>,
    pub began: Instant,
    /// Calls that cannot be repeated get a connection that was in use a moment ago, or a new one.
    pub repeatable: bool,
    /// A kept connection has just failed: no other one is tried.
    pub fresh: bool,
    pub keep: usize,
    pub patience: Patience,
}

/// An answer's head, and its body still to come.
pub struct Answer<S: Wire> {
    pub head: Parts,
    pub body: LiveBody<S>,
}

/// Sends once and waits for the head of the answer.
pub async fn send<D: Dial>(
    pool: &Pool<D::Stream>,
    dial: &D,
    attempt: Attempt<'_>,
) -> Result<Answer<D::Stream>, Seen> {
    let Attempt { place, request, began, repeatable, fresh, keep, patience } = attempt;
    let kept = if fresh { None } else { pool.take_out(place, repeatable, keep, began) };
    let (mut lease, began) = match kept {
        Some(lease) => (lease, began),
        None => match Box::pin(pool.dial(dial, place, keep)).await {
            Ok(lease) => (lease, Instant::now()),
            Err(error) => return Err(Seen::NotSent { why: error.why, lasting: error.lasting }),
        },
    };
    let answer = exchange(&mut lease, request, began, &patience).await?;
    let (head, incoming) = answer.into_parts();
    examine(&head)?;
    if lease.link.spoke_out_of_turn() {
        return Err(Seen::Misbehaved("it sent bytes that belong to no answer"));
    }
    Ok(Answer { head, body: LiveBody::new(incoming, lease, patience.idle) })
}

/// Puts the request on the connection and moves it until the head has come. Dropped midway, the connection goes with it.
async fn exchange<D>(
    lease: &mut Lease<D>,
    request: Request<OutBody>,
    began: Instant,
    patience: &Patience,
) -> Result<Response<Incoming>, Seen>
where
    D: Wire,
{
    let reused = lease.reused;
    let link: &mut Link<D> = &mut lease.link;
    let (read, written) = (link.meter.read.get(), link.meter.written.get());
    let watch = request.body().watch();
    let mut answer = pin!(link.sender.try_send_request(request));
    let mut timer = pin!(tokio::time::sleep_until((began + patience.response).into()));
    let mut progress = written;
    let outcome = poll_fn(|cx| {
        let ended = link.poll(cx).is_ready();
        if let Poll::Ready(outcome) = answer.as_mut().poll(cx) {
            return Poll::Ready(Some(outcome));
        }
        if ended {
            return Poll::Ready(None);
        }
        if link.meter.written.get() != progress {
            progress = link.meter.written.get();
            restart(timer.as_mut(), watch.as_deref(), patience);
        }
        timer.as_mut().poll(cx).map(|()| None)
    })
    .await;
    let error = match outcome {
        Some(Ok(answer)) => return Ok(answer),
        Some(Err(error)) => Some((error.message().is_some(), error.into_error())),
        None => None,
    };
    let trace = Trace {
        reused,
        sent: link.meter.written.get() > written,
        came: link.meter.read.get() > read,
        ended: link.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready(),
    };
    Err(failure(&trace, watch, error))
}

/// A request that takes its time to send is not late as long as its bytes move.
fn restart(timer: Pin<&mut tokio::time::Sleep>, watch: Option<&Watch>, patience: &Patience) {
    let limit = match watch {
        Some(watch) if !watch.ended.get() && watch.waits_for_caller.get() => patience.caller,
        Some(watch) if !watch.ended.get() => patience.idle,
        _ => patience.response,
    };
    timer.reset(tokio::time::Instant::now() + limit);
}

/// What is known about a failed exchange besides hyper's error.
struct Trace {
    reused: bool,
    sent: bool,
    came: bool,
    ended: bool,
}

/// Whose fault a failed exchange is. No error and a living connection: the time was up.
fn failure(trace: &Trace, watch: Option<Rc<Watch>>, error: Option<(bool, hyper::Error)>) -> Seen {
    if watch.as_ref().is_some_and(|watch| watch.failed.get()) {
        return Seen::CallerFailed(Refusal::BadFraming("the body broke off or is not framed properly"));
    }
    let Some((never_taken, error)) = error else {
        let caller_stalls = watch.is_some_and(|watch| !watch.ended.get() && watch.waits_for_caller.get());
        return match (trace.ended, caller_stalls) {
            (true, _) => Seen::Lost,
            (false, true) => Seen::CallerFailed(Refusal::RequestTimeout),
            (false, false) => Seen::TimedOut,
        };
    };
    if error.is_parse() || error.is_parse_too_large() {
        return Seen::Misbehaved("its answer is not HTTP, or its head is too large");
    }
    let unsent = never_taken || !trace.sent;
    match (trace.reused, unsent, trace.came) {
        (true, true, _) => Seen::DeadConnection { anything_sent: false },
        (true, false, false) => Seen::DeadConnection { anything_sent: true },
        (false, true, _) => {
            Seen::NotSent { why: "the new connection broke at once".to_owned(), lasting: false }
        }
        _ => Seen::Lost,
    }
}

/// What hyper lets through and a gateway must not pass on (threats, row 3).
fn examine(head: &Parts) -> Result<(), Seen> {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Seen::Misbehaved("it switched protocols unasked"));
    }
    framing(&head.headers).map_err(Seen::Misbehaved)
}

fn framing(headers: &HeaderMap) -> Result<(), &'static str> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (lengths.next(), lengths.next(), codings.next(), codings.next()) {
        (_, Some(_), _, _) => Err("its answer has two lengths"),
        (Some(_), _, Some(_), _) => Err("its answer has a length and a transfer coding"),
        (_, _, _, Some(_)) => Err("its answer has two transfer codings"),
        (_, _, Some(coding), None) if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            Err("its answer has an unknown transfer coding")
        }
        (Some(length), None, None, None) if !length.as_bytes().iter().all(u8::is_ascii_digit) => {
            Err("its answer has an odd length")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_whose_length_is_in_doubt_is_not_passed_on() {
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
            let headers: HeaderMap = lines
                .iter()
                .map(|(name, value)| (name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap()))
                .collect();
            assert_eq!(framing(&headers).is_ok(), good, "{lines:?}");
        }
    }

    #[test]
    fn a_failed_exchange_is_told_apart_by_what_went_over_the_wire() {
        let dead = Trace { reused: true, sent: true, came: false, ended: true };
        assert_eq!(failure(&dead, None, None), Seen::Lost);
        let late = Trace { reused: false, sent: true, came: false, ended: false };
        assert_eq!(failure(&late, None, None), Seen::TimedOut);
        let stalled = Rc::new(Watch::default());
        stalled.waits_for_caller.set(true);
        assert_eq!(failure(&late, Some(stalled), None), Seen::CallerFailed(Refusal::RequestTimeout));
        let broken = Rc::new(Watch::default());
        broken.failed.set(true);
        assert_eq!(
            failure(&late, Some(broken), None).clone(),
            Seen::CallerFailed(Refusal::BadFraming("the body broke off or is not framed properly"))
        );
    }
}
