//! What other gateways on the same store change, this one takes over: tokens, routes, states, accounts that
//! come and go.

use tokio::sync::mpsc;

use crate::model::account::AccountName;

use super::ControlPlane;

/// Changes that wait to be read; each is read once, however often it is announced.
const QUEUE: usize = 64;

pub async fn follow(control: ControlPlane, seen: u64) {
    let store = control.store.clone();
    let Some(cluster) = store.cluster() else { return };
    let (told, mut heard) = mpsc::channel(QUEUE);
    let watching = cluster.watch(seen, told);
    let taking_over = async {
        while let Some(names) = heard.recv().await {
            for name in names {
                control.take_over(&name).await;
            }
        }
    };
    tokio::join!(watching, taking_over);
}

impl ControlPlane {
    /// Trouble only delays: a renewal reads the store again before it asks the platform.
    async fn take_over(&self, name: &AccountName) {
        match self.store.account(name).await {
            Ok(Some(record)) => {
                if self.registry.by_name(name.as_str()).is_none() {
                    self.learn_tokens_of(name).await;
                }
                for grant in &record.grants {
                    self.known_tokens.learn(&grant.refresh, name);
                }
                self.registry.apply(record);
                self.application_grants.reload_account(name).await;
            }
            Ok(None) => {
                self.known_tokens.forget(name);
                self.registry.remove(name.as_str());
            }
            Err(trouble) => {
                tracing::warn!(account = %name, %trouble, "what another gateway changed cannot be read yet");
            }
        }
    }

    /// An account that is new here may be one that got another name: applications hold older tokens of it.
    async fn learn_tokens_of(&self, name: &AccountName) {
        match self.store.known_tokens().await {
            Ok(known) => self.known_tokens.extend(known.into_iter().filter(|(_, holder)| holder == name)),
            Err(trouble) => {
                tracing::warn!(account = %name, %trouble, "the tokens that applications hold of it cannot be read yet");
            }
        }
    }
}
