//! Who may speak to the admin API: the holder of the admin token, from a program and not from somebody else's
//! page.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::{constant_time, digest};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};

use crate::clock::{Clock, Timestamp};

use super::error::ApiError;

/// The admin token as a digest, and how many wrong ones were tried.
pub struct Guard {
    digest: [u8; 32],
    clock: Clock,
    /// Failures of the present minute: minute number in the upper half, count in the lower.
    failures: AtomicU64,
}

/// Wrong tokens a minute before those who send them are told to wait: far above a mistyped configuration.
const FAILURES_PER_MINUTE: u64 = 30;
const MINUTE: Duration = Duration::from_secs(60);

impl Guard {
    pub fn new(token: &str, clock: Clock) -> Arc<Self> {
        Arc::new(Self { digest: sha256(token), clock, failures: AtomicU64::new(0) })
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        refuse_foreign_pages(headers)?;
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| sha256(token.trim()));
        match given {
            // Whatever others try meanwhile: 256 bits are not found by trying, and a stranger must not lock
            // the operator out.
            Some(given) if constant_time::verify_slices_are_equal(&given, &self.digest).is_ok() => Ok(()),
            Some(_) if self.count_failure(self.clock.now()) > FAILURES_PER_MINUTE => Err(ApiError::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_requests",
                "Too many wrong admin tokens were tried within a minute.",
            )
            .fix("Wait a minute; the right token works all the same.")),
            _ => Err(ApiError::new(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "The admin token is missing or wrong.",
            )
            .fix("Send `Authorization: Bearer` with the text of the file that [admin] token names.")),
        }
    }

    /// Returns how many wrong tokens this minute has seen. Its first one is worth a line, and the one that
    /// makes the rest wait.
    fn count_failure(&self, now: Timestamp) -> u64 {
        let count = |seen: u64| if seen >> 32 == minute(now) { (seen & u64::from(u32::MAX)) + 1 } else { 1 };
        let next = |seen: u64| Some((minute(now) << 32) | count(seen).min(u64::from(u32::MAX)));
        let count = self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).map_or(1, count);
        if count == 1 || count == FAILURES_PER_MINUTE + 1 {
            tracing::warn!(this_minute = count, "somebody tries wrong admin tokens");
        }
        count
    }
}

fn minute(now: Timestamp) -> u64 {
    (now.as_millis() / MINUTE.as_millis() as u64) & u64::from(u32::MAX)
}

fn sha256(text: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    bytes
}

/// A browser names the page that a call comes from; the API is for programs.
fn refuse_foreign_pages(headers: &HeaderMap) -> Result<(), ApiError> {
    let cross_site =
        headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none");
    if headers.contains_key(header::ORIGIN) || cross_site {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "origin_refused",
            "The admin API is not for web pages.",
        )
        .fix("Call it from a program, without an Origin header."));
    }
    Ok(())
}

/// Lets a call through or answers it.
pub async fn require_token(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    guard.check(request.headers())?;
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    fn guard() -> (Arc<Guard>, Clock) {
        let clock = Clock::manual(Timestamp::from_millis(1_000_000));
        (Guard::new("right", clock.clone()), clock)
    }

    #[test]
    fn only_the_complete_token_opens() {
        let (guard, _) = guard();
        assert!(guard.check(&headers(&[("authorization", "Bearer right")])).is_ok());
        for wrong in ["Bearer righ", "Bearer right2", "Bearer", "Basic right", "right", "Bearer "] {
            assert_eq!(
                guard.check(&headers(&[("authorization", wrong)])).unwrap_err().status,
                StatusCode::UNAUTHORIZED
            );
        }
        assert_eq!(guard.check(&headers(&[])).unwrap_err().status, StatusCode::UNAUTHORIZED);
    }

    #[test]
    fn guessing_is_throttled_for_a_minute_and_locks_nobody_out() {
        let (guard, clock) = guard();
        let try_wrong = || guard.check(&headers(&[("authorization", "Bearer wrong")])).unwrap_err().status;
        for _ in 0..FAILURES_PER_MINUTE {
            assert_eq!(try_wrong(), StatusCode::UNAUTHORIZED);
        }
        assert_eq!(try_wrong(), StatusCode::TOO_MANY_REQUESTS);
        assert!(guard.check(&headers(&[("authorization", "Bearer right")])).is_ok());
        clock.advance(MINUTE);
        assert_eq!(try_wrong(), StatusCode::UNAUTHORIZED);
    }

    #[test]
    fn a_call_from_a_web_page_is_refused_even_with_the_token() {
        let (guard, _) = guard();
        for page in [("origin", "https://evil.test"), ("sec-fetch-site", "cross-site")] {
            let headers = headers(&[("authorization", "Bearer right"), page]);
            assert_eq!(guard.check(&headers).unwrap_err().status, StatusCode::FORBIDDEN);
        }
    }
}
