//! A deadline that is cheap to move. Nearly every deadline is met, and registering a timer and removing it
//! again costs more than all else about it: so the timer stays registered, and if it fires before the current
//! deadline, it is re-armed.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline that can be moved without touching the timer.
#[derive(Default)]
pub struct LazyDeadline {
    /// In the wheel for the deadline or for some moment before it.
    sleep: Option<Pin<Box<Sleep>>>,
    deadline: Option<Instant>,
}

impl LazyDeadline {
    pub fn set(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
        match &mut self.sleep {
            Some(sleep) if sleep.deadline() <= deadline => {}
            Some(sleep) => sleep.as_mut().reset(deadline),
            None => self.sleep = Some(Box::pin(sleep_until(deadline))),
        }
    }

    /// Ready when the deadline has passed; never where none was set.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (Some(sleep), Some(deadline)) = (&mut self.sleep, self.deadline) else { return Poll::Pending };
        while sleep.deadline() < deadline {
            ready!(sleep.as_mut().poll(cx));
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_rings_at_the_last_deadline_that_was_set_be_it_later_or_earlier() {
        let cx = &mut Context::from_waker(Waker::noop());
        let (past, future) = (Instant::now(), Instant::now() + Duration::from_secs(3600));
        let mut timer = LazyDeadline::default();
        assert!(timer.poll(cx).is_pending(), "nobody set it");
        timer.set(future);
        assert!(timer.poll(cx).is_pending());
        timer.set(past);
        std::future::poll_fn(|cx| timer.poll(cx)).await;
        timer.set(future);
        assert_eq!(timer.sleep.as_ref().unwrap().deadline(), past, "it stays in the wheel until it rings");
        assert!(timer.poll(cx).is_pending());
        assert_eq!(timer.sleep.as_ref().unwrap().deadline(), future);
    }
}
