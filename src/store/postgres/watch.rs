//! Hears of changes by other gateways. Notifications only hurry what polling does anyway: a connection can
//! die without a sound.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::mpsc;

use super::target::DatabaseTarget;
use super::{PostgresStore, store_error, within};
use crate::model::account::AccountName;
use crate::store::StoreError;
use crate::store::cluster::ClusterStore;

const CHANNEL: &str = "genapi_gateway";
/// Without notifications: others see new tokens within a second (one indexed row is read).
const POLL: Duration = Duration::from_millis(500);
/// With them: for what they lose.
const POLL_BESIDE: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

enum Notifications<'a> {
    /// No address to listen at: a pooler that hands sessions around would swallow notifications.
    None,
    Closed(&'a DatabaseTarget),
    Open(&'a DatabaseTarget, Box<PgListener>),
}

#[derive(PartialEq)]
enum WakeReason {
    Heard,
    Time,
    Ended,
}

impl PostgresStore {
    pub(super) async fn tell_changes(&self, mut seen: u64, told: mpsc::Sender<Vec<AccountName>>) {
        let mut notifications = match &self.listen {
            Some(target) => Notifications::Closed(target),
            None => Notifications::None,
        };
        let mut in_trouble = false;
        let mut why = WakeReason::Heard;
        loop {
            notifications = notifications.opened().await;
            // After the ear is open, so that nothing falls between.
            match self.changes_since(seen).await {
                Ok(changes) => {
                    if let Notifications::Open(target, _) = notifications
                        && why == WakeReason::Time
                        && !changes.accounts.is_empty()
                    {
                        tracing::debug!("a change was not heard of; listening anew");
                        notifications = Notifications::Closed(target);
                    }
                    if std::mem::take(&mut in_trouble) {
                        tracing::info!("changes by other gateways are seen again");
                    }
                    seen = changes.newest;
                    if !changes.accounts.is_empty() && told.send(changes.accounts).await.is_err() {
                        return;
                    }
                }
                Err(trouble) => {
                    if !std::mem::replace(&mut in_trouble, true) {
                        tracing::warn!(%trouble, "changes by other gateways cannot be seen; it is tried again");
                    }
                }
            }
            why = self.until_due(&mut notifications, &told).await;
            if why == WakeReason::Ended {
                return;
            }
        }
    }

    async fn until_due(
        &self,
        notifications: &mut Notifications<'_>,
        told: &mpsc::Sender<Vec<AccountName>>,
    ) -> WakeReason {
        let pause = match notifications {
            Notifications::Open(..) => POLL_BESIDE,
            Notifications::None | Notifications::Closed(_) => POLL,
        };
        tokio::select! {
            () = told.closed() => WakeReason::Ended,
            () = self.clock.sleep(pause) => WakeReason::Time,
            () = notifications.notified() => WakeReason::Heard,
        }
    }
}

impl<'a> Notifications<'a> {
    async fn opened(self) -> Self {
        let Notifications::Closed(target) = self else { return self };
        match within(CONNECT_TIMEOUT, listen(target)).await {
            Ok(listener) => Notifications::Open(target, Box::new(listener)),
            Err(trouble) => {
                tracing::debug!(%trouble, "no notifications; changes are polled for");
                Notifications::Closed(target)
            }
        }
    }

    /// Returns at a notification, or when the connection went: then there may be something to see as well.
    async fn notified(&mut self) {
        let Notifications::Open(target, listener) = self else { return std::future::pending().await };
        match listener.try_recv().await {
            Ok(Some(_)) => while listener.next_buffered().is_some() {},
            Ok(None) | Err(_) => *self = Notifications::Closed(target),
        }
    }
}

async fn listen(target: &DatabaseTarget) -> Result<PgListener, StoreError> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .max_lifetime(None)
        .idle_timeout(None)
        .acquire_timeout(CONNECT_TIMEOUT)
        .connect_lazy_with(target.options().clone());
    let mut listener = PgListener::connect_with(&pool).await.map_err(store_error)?;
    listener.eager_reconnect(false);
    listener.ignore_pool_close_event(true);
    listener.listen(CHANNEL).await.map_err(store_error)?;
    Ok(listener)
}
