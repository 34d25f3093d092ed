//! Who may speak to the admin API: the holder of the admin token, from a program and not from somebody else's page.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::{constant_time, digest};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};

use crate::clock::{Clock, Timestamp};

use super::problem::Problem;

/// The admin token as a digest, and how many wrong ones were tried.
pub struct Guard {
    digest: [u8; 32],
    clock: Clock,
    /// Failures of the present minute: minute number in the upper half, count in the lower.
    failures: AtomicU64,
}

/// Wrong tokens a minute before everybody has to wait: far above a mistyped configuration, far below guessing 256 bits.
const FAILURES_PER_MINUTE: u64 = 30;
const MINUTE: Duration = Duration::from_secs(60);

impl Guard {
    pub fn new(token: &str, clock: Clock) -> Arc<Self> {
        Arc::new(Self { digest: sha256(token), clock, failures: AtomicU64::new(0) })
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        refuse_foreign_pages(headers)?;
        let now = self.clock.now();
        if self.recent_failures(now) >= FAILURES_PER_MINUTE {
            return Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_requests",
                "too many wrong admin tokens",
            )
            .fix("Wait a minute."));
        }
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| sha256(token.trim()));
        match given {
            Some(given) if constant_time::verify_slices_are_equal(&given, &self.digest).is_ok() => Ok(()),
            given => {
                if given.is_some() {
                    self.count_failure(now);
                }
                Err(Problem::new(
                    StatusCode::UNAUTHORIZED,
                    "unauthorized",
                    "the admin token is missing or wrong",
                )
                .fix("Send `Authorization: Bearer` with the text of the file that [admin] token names."))
            }
        }
    }

    fn recent_failures(&self, now: Timestamp) -> u64 {
        let seen = self.failures.load(Ordering::Relaxed);
        if seen >> 32 == minute(now) { seen & u64::from(u32::MAX) } else { 0 }
    }

    fn count_failure(&self, now: Timestamp) {
        let next = (minute(now) << 32) | (self.recent_failures(now) + 1);
        self.failures.store(next, Ordering::Relaxed);
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
fn refuse_foreign_pages(headers: &HeaderMap) -> Result<(), Problem> {
    let cross_site =
        headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none");
    if headers.contains_key(header::ORIGIN) || cross_site {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "origin_refused",
            "the admin API is not for web pages",
        ));
    }
    Ok(())
}

/// Lets a call through or answers it.
pub async fn require_token(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
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
    fn only_the_whole_token_opens() {
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
    fn guessing_is_throttled_for_a_minute() {
        let (guard, clock) = guard();
        for _ in 0..FAILURES_PER_MINUTE {
            assert!(guard.check(&headers(&[("authorization", "Bearer wrong")])).is_err());
        }
        let right = headers(&[("authorization", "Bearer right")]);
        assert_eq!(guard.check(&right).unwrap_err().status, StatusCode::TOO_MANY_REQUESTS);
        clock.advance(MINUTE);
        assert!(guard.check(&right).is_ok());
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
