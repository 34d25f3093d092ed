//! Hears of changes by other gateways. Notifications only hurry what polling does anyway: a connection can die without a sound.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::mpsc;

use super::link::Place;
use super::{PostgresStore, fault, within};
use crate::model::account::AccountName;
use crate::store::{Store, StoreError};

const CHANNEL: &str = "genapi_gateway";
/// Without notifications: others see new tokens within a second (one indexed row is read).
const POLL: Duration = Duration::from_millis(500);
/// With them: for what they lose.
const POLL_BESIDE: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

enum Ear<'a> {
    /// No address to listen at: a pooler that hands sessions around would swallow notifications.
    None,
    Closed(&'a Place),
    Open(&'a Place, Box<PgListener>),
}

#[derive(PartialEq)]
enum Why {
    Heard,
    Time,
    Ended,
}

impl PostgresStore {
    pub(super) async fn tell_changes(&self, mut seen: u64, told: mpsc::Sender<Vec<AccountName>>) {
        let mut ear = match &self.listen {
            Some(place) => Ear::Closed(place),
            None => Ear::None,
        };
        let mut in_trouble = false;
        let mut why = Why::Heard;
        loop {
            ear = ear.opened().await;
            // After the ear is open, so that nothing falls between.
            match self.changes_since(seen).await {
                Ok(changes) => {
                    if let Ear::Open(place, _) = ear
                        && why == Why::Time
                        && !changes.accounts.is_empty()
                    {
                        tracing::debug!("a change was not heard of; listening anew");
                        ear = Ear::Closed(place);
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
            why = self.until_due(&mut ear, &told).await;
            if why == Why::Ended {
                return;
            }
        }
    }

    async fn until_due(&self, ear: &mut Ear<'_>, told: &mpsc::Sender<Vec<AccountName>>) -> Why {
        let pause = match ear {
            Ear::Open(..) => POLL_BESIDE,
            Ear::None | Ear::Closed(_) => POLL,
        };
        tokio::select! {
            () = told.closed() => Why::Ended,
            () = self.clock.sleep(pause) => Why::Time,
            () = ear.heard() => Why::Heard,
        }
    }
}

impl<'a> Ear<'a> {
    async fn opened(self) -> Self {
        let Ear::Closed(place) = self else { return self };
        match within(CONNECT_TIMEOUT, listen(place)).await {
            Ok(listener) => Ear::Open(place, Box::new(listener)),
            Err(trouble) => {
                tracing::debug!(%trouble, "no notifications; changes are polled for");
                Ear::Closed(place)
            }
        }
    }

    /// Returns at a notification, or when the connection went: then there may be something to see as well.
    async fn heard(&mut self) {
        let Ear::Open(place, listener) = self else { return std::future::pending().await };
        match listener.try_recv().await {
            Ok(Some(_)) => while listener.next_buffered().is_some() {},
            Ok(None) | Err(_) => *self = Ear::Closed(place),
        }
    }
}

async fn listen(place: &Place) -> Result<PgListener, StoreError> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .max_lifetime(None)
        .idle_timeout(None)
        .acquire_timeout(CONNECT_TIMEOUT)
        .connect_lazy_with(place.options().clone());
    let mut listener = PgListener::connect_with(&pool).await.map_err(fault)?;
    listener.eager_reconnect(false);
    listener.ignore_pool_close_event(true);
    listener.listen(CHANNEL).await.map_err(fault)?;
    Ok(listener)
}
