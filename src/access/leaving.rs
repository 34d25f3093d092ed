//! Accounts that go, or are handed to somebody else, while they are refreshed. The rule: what goes does not come back.

use std::sync::Arc;
use std::time::Duration;

use crate::model::account::AccountName;

use super::locked;
use super::renewal::Renewals;

/// A refresh under way is waited for so long.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

impl Renewals {
    /// Takes an account out of the book for good. A flight under way may put back what it read before, so it is looked at again after it.
    pub fn withdraw(&self, name: &AccountName) {
        let shared = Arc::clone(self.shared());
        let entry = shared.book.by_name(name.as_str());
        shared.book.remove(name.as_str());
        let Some(mut under_way) = entry.and_then(|entry| locked(&entry.flight).clone()) else { return };
        let name = name.clone();
        self.shared().runtime.spawn(async move {
            let _ = under_way.wait_for(Option::is_some).await;
            if let Ok(None) = shared.store.account(&name).await {
                shared.book.remove(name.as_str());
            }
        });
    }

    /// Returns when no refresh of the account is under way here, or after ten seconds.
    pub async fn until_idle(&self, name: &AccountName) {
        let Some(entry) = self.shared().book.by_name(name.as_str()) else { return };
        let Some(mut under_way) = locked(&entry.flight).clone() else { return };
        tokio::select! {
            biased;
            _ = under_way.wait_for(Option::is_some) => {}
            () = self.shared().clock.sleep(LONGEST_WAIT) => {}
        }
    }
}
