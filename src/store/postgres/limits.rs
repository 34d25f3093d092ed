//! How long work on the database may take, and work that the database rolled back done again.

use std::future::Future;
use std::time::Duration;

use crate::store::StoreError;
use crate::store::unavailable::{StoreUnavailable, UnavailableKind};

/// What a caller waits for at most, whatever the database or the network does: the refresh that waits for it
/// must not grow old.
pub const SHORT: Duration = Duration::from_secs(5);
/// For reading everything: 100,000 accounts at start.
pub const LONG: Duration = Duration::from_secs(120);

/// How often work is done that the database rolled back because of somebody else's.
const ATTEMPTS: u32 = 5;
/// Before it is done again; longer each time.
const PAUSE: Duration = Duration::from_millis(20);

/// Does work again that came to nothing because the database could not put it in order with somebody else's:
/// it says so itself.
pub async fn repeated<T, W>(limit: Duration, work: impl Fn() -> W) -> Result<T, StoreError>
where
    W: Future<Output = Result<T, StoreError>>,
{
    let again = async {
        let mut attempts = 1;
        loop {
            match work().await {
                Err(StoreError::Unavailable(unavailable))
                    if unavailable.is_rolled_back() && attempts < ATTEMPTS =>
                {
                    tracing::debug!(outage = %unavailable, attempts, "the database rolled work back; it is done again");
                    tokio::time::sleep(PAUSE * attempts).await;
                    attempts += 1;
                }
                outcome => return outcome,
            }
        }
    };
    within(limit, again).await
}

pub async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let why = format!("the database gave no answer within {limit:?}");
            Err(StoreError::Unavailable(StoreUnavailable::new(UnavailableKind::Slow, why)))
        }
    }
}
