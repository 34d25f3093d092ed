//! What must reach the store is tried until it does: giving up would lose what the platform has handed out.

use std::future::Future;
use std::time::Duration;

use crate::clock::Clock;

use super::pacing::backoff;

/// The pauses between tries to save something: doubled from a second up to `longest`. Without jitter, since
/// all share one store, and it takes their commits one after the other anyway.
pub struct SaveRetry {
    clock: Clock,
    longest: Duration,
    failures: u32,
}

impl SaveRetry {
    pub fn new(clock: &Clock, longest: Duration) -> Self {
        Self { clock: clock.clone(), longest, failures: 0 }
    }

    /// Pauses after a try that failed. Returns how many have failed so far.
    pub async fn pause(&mut self) -> u32 {
        self.failures = self.failures.saturating_add(1);
        self.clock.sleep(backoff(self.failures, self.longest, 0.0)).await;
        self.failures
    }

    /// Tries until `save` has a result; `None` says that the store did not take it. `save` is given how many
    /// tries have failed.
    pub async fn until_saved<T, F>(mut self, mut save: impl FnMut(u32) -> F) -> T
    where
        F: Future<Output = Option<T>>,
    {
        loop {
            if let Some(saved) = save(self.failures).await {
                return saved;
            }
            self.pause().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use std::cell::Cell;

    #[tokio::test]
    async fn a_store_that_refuses_is_tried_again_with_pauses_that_double_up_to_the_longest() {
        let clock = Clock::manual(Timestamp::from_millis(0));
        let tries = Cell::new(Vec::new());
        let save = |failures| {
            let now = clock.now().as_secs();
            let mut so_far = tries.take();
            so_far.push(now);
            tries.set(so_far);
            std::future::ready((failures == 5).then_some(now))
        };
        let saving = SaveRetry::new(&clock, Duration::from_secs(4)).until_saved(save);
        let passing = async {
            loop {
                clock.until_sleeping(1).await;
                clock.advance(Duration::from_secs(1));
                // The sleeper has its turn before time goes on.
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
            }
        };
        let saved = tokio::select! {
            saved = saving => saved,
            () = passing => unreachable!(),
        };
        assert_eq!((saved, tries.take()), (15, vec![0, 1, 3, 7, 11, 15]));
    }
}
