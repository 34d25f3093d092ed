//! Refresh tokens of answers that were not as documented. One that came may have taken the place of the one that was sent, or it may be
//! nobody's.
//!
//! The rule guarded here: it is used, and the one before it is kept beside it until a refresh has proven the new one.

use crate::journal::JournalEvent;
use crate::platform::PlatformError;
use crate::store::NewTokens;

use super::fallback_tokens;
use super::renewal_task::RenewalTask;
use super::snapshot::Snapshot;

impl RenewalTask {
    /// After tokens of an odd answer were committed as `generation`.
    pub(super) async fn keep_the_one_before(&self, before: &Snapshot, tokens: &NewTokens, generation: u64) {
        fallback_tokens::keep_the_one_before(
            &*self.context.store,
            self.now(),
            &self.account.name,
            before,
            tokens,
            generation,
        )
        .await;
    }

    /// After an answer whose access token could not be used. Its refresh token takes the place of the one that was sent; the access token
    /// at hand goes on serving.
    pub(super) async fn keep_received_token(&self, before: &Snapshot, error: &PlatformError) {
        let Some(came) = error.refresh.as_ref().filter(|came| **came != before.refresh && !before.unsaved)
        else {
            return;
        };
        match fallback_tokens::put_in_place(
            &*self.context.store,
            self.now(),
            &self.account.name,
            before,
            came,
        )
        .await
        {
            Ok(Some(generation)) => {
                self.account.take_refresh(before, came, generation);
                let detail = "an answer without a usable access token brought a refresh token: it is tried next, and the one before \
                              it is kept until then";
                self.journal(JournalEvent::RefreshTokenKept, detail.to_owned());
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(account = %self.account.name, error = %error, "the refresh token of an odd answer could not be kept");
            }
        }
    }
}
