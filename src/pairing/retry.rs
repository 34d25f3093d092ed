//! A control call, repeated as the documents advise, and whether an earlier try may have been carried out.
//! Every call here is safe to send twice: a spent code answers 400, pairing again returns the same tokens
//! (gen-api, sections 2 and 4).

use std::time::Duration;

use crate::access::control_calls::{CallFuture, ControlCalls};
use crate::clock::Clock;
use crate::config;
use crate::model::token::TokenSet;
use crate::platform::PlatformError;

/// How often and how fast. No jitter: one person waits in front of each login.
#[derive(Clone)]
pub(super) struct RetryPolicy {
    clock: Clock,
    attempts: u32,
    base: Duration,
    deadline: Duration,
}

/// What came of it.
pub(super) struct Retried<T> {
    pub result: Result<T, PlatformError>,
    /// An earlier try got no response of its own, so it may have been carried out.
    pub may_have_acted: bool,
}

impl RetryPolicy {
    /// After 500 and 504: at least 1000 ms (gen-api, section 2, status table).
    pub fn of_login(clock: &Clock, retry: &config::RetryConfig) -> Self {
        Self::new(clock, retry, retry.initial_backoff)
    }

    /// Pairing: at least 2000 ms (Authentication and Pairing V2, 4.3.1).
    pub fn of_pairing(clock: &Clock, retry: &config::RetryConfig) -> Self {
        Self::new(clock, retry, retry.pairing_backoff)
    }

    fn new(clock: &Clock, retry: &config::RetryConfig, base: Duration) -> Self {
        Self { clock: clock.clone(), attempts: retry.attempts.max(1), base, deadline: retry.deadline }
    }

    pub async fn retry<'a, T>(&self, mut call: impl FnMut() -> CallFuture<'a, T>) -> Retried<T> {
        let started = self.clock.now();
        let (mut may_have_acted, mut wait, mut sent) = (false, self.base, 0);
        loop {
            let result = call().await;
            sent += 1;
            let Err(trouble) = &result else { return Retried { result, may_have_acted } };
            wait = wait.max(trouble.retry_after.unwrap_or_default());
            let too_late = self.clock.now().since(started) + wait > self.deadline;
            if !trouble.is_retryable() || sent >= self.attempts || too_late {
                return Retried { result, may_have_acted };
            }
            may_have_acted |= trouble.may_have_acted();
            tracing::info!(
                call = trouble.call,
                status = trouble.status,
                wait_ms = wait.as_millis() as u64,
                "a login call is repeated"
            );
            self.clock.sleep(wait).await;
            wait *= 2;
        }
    }
}

impl<T> Retried<T> {
    /// Where the tokens came and the access token among them cannot be used: the refresh token that came
    /// beside it brings another.
    pub async fn or_refreshed(
        self,
        policy: &RetryPolicy,
        calls: &dyn ControlCalls,
        made_of: impl FnOnce(TokenSet) -> T,
    ) -> Self {
        let refresh = self.result.as_ref().err().and_then(|trouble| trouble.refresh.clone());
        let Some(refresh) = refresh else { return self };
        let retried = policy.retry(|| calls.refresh(&refresh)).await;
        let result = retried.result.map(|tokens| {
            let kept = tokens.refresh.clone().or(Some(refresh));
            made_of(TokenSet { refresh: kept, ..tokens })
        });
        Self { result, may_have_acted: self.may_have_acted || retried.may_have_acted }
    }
}
