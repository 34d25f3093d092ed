//! What the findings of `explain` rest on, and the questions that several of them ask of it.

use crate::access::circuit_breaker::OpenReason;
use crate::access::failure_streak::{CallFailure, FailureStreak, NotServed};
use crate::access::registry::Summary;
use crate::access::renewal::Alarms;
use crate::clock::Timestamp;
use crate::model::account::{AccountState, RealmName};

use super::view::{AccountView, Finding};

/// What the findings rest on.
pub(super) struct ExplainInputs<'a> {
    pub view: &'a AccountView,
    pub summary: &'a Summary,
    pub alarms: &'a Alarms,
    /// What ails the store, as a sentence.
    pub store: Option<String>,
    /// What keeps log lines from being written.
    pub log: Option<String>,
    /// That a clock was found to be wrong lately.
    pub clock: Option<String>,
    /// Whether the configuration has the account's realm.
    pub has_realm: bool,
    /// A realm of another group in which the account holds a grant too.
    pub beyond_wall: Option<RealmName>,
    /// Where the account may have been moved to, if it is on an old platform.
    pub new_realm: Option<RealmName>,
    pub now: Timestamp,
}

impl ExplainInputs<'_> {
    pub(super) fn live_until(&self) -> Option<Timestamp> {
        self.summary.expires_at.filter(|until| *until > self.now && !self.is_refused() && self.has_realm)
    }

    /// Whether the platform has refused the token at hand, as far as callers have seen.
    pub(super) fn is_refused(&self) -> bool {
        let streak = self.summary.streak.as_ref().filter(|streak| !self.is_over(streak));
        streak.is_some_and(|streak| streak.what.ends_with_tokens())
    }

    /// Whether callers got no token, up to now.
    pub(super) fn got_no_token(&self) -> bool {
        let streak = self.summary.streak.as_ref().filter(|streak| !self.is_over(streak));
        streak.is_some_and(|streak| streak.what == CallFailure::Refused(NotServed::TokenUnavailable))
    }

    /// Whether what failed has been shown to be over without a caller.
    pub(super) fn is_over(&self, streak: &FailureStreak) -> bool {
        // Calls that waited for the refresh may have given up while it was under way.
        let from = match streak.what {
            CallFailure::Refused(NotServed::TokenUnavailable) if self.summary.last_error.is_none() => {
                streak.since
            }
            _ => streak.last,
        };
        let refreshed_since = self.summary.refreshed_at.is_some_and(|at| at > from);
        streak.well_at.is_some() || (streak.what.ends_with_tokens() && refreshed_since)
    }

    pub(super) fn realm_trouble(&self) -> Option<&(RealmName, OpenReason)> {
        self.alarms.realms.iter().find(|(realm, _)| *realm == self.summary.realm)
    }

    pub(super) fn why_no_token(&self) -> Option<String> {
        let realm = self.realm_trouble().map(|(realm, trouble)| trouble.sentence(realm));
        let renewal = realm.or_else(|| self.summary.last_error.as_ref().map(|(why, _)| why.clone()));
        renewal.or_else(|| {
            self.store
                .as_ref()
                .map(|why| format!("no new token is asked for while the store takes no writes ({why})"))
        })
    }

    /// Whether a refusal is what a finding above is about.
    pub(super) fn is_said(&self, code: &str) -> bool {
        let of_calls = self.summary.streak.as_ref().is_some_and(|streak| match streak.what {
            CallFailure::Refused(known) => known.code() == code,
            CallFailure::Status(_) => false,
        });
        let of_state = match self.view.state {
            AccountState::Ready => false,
            AccountState::Paused => code == "account_paused",
            AccountState::NeedsLogin { .. } => code == "account_needs_login",
        };
        of_calls || of_state || !self.has_realm
    }
}

pub(super) fn fix_of_realm(trouble: &OpenReason) -> &'static str {
    match trouble {
        OpenReason::BadCredentials { .. } => {
            "Compare client_id and client_secret with what Align gave you, correct them, and send SIGHUP. Grants are kept."
        }
        OpenReason::Unavailable { .. } => {
            "It is tried again by itself. `genapi-gateway check --connect` shows whether it is the way there, the certificate or the token endpoint. Grants are kept."
        }
    }
}

pub(super) fn finding(level: &str, what: String, fix: &str) -> Finding {
    Finding { level: level.to_owned(), what, fix: fix.to_owned() }
}
