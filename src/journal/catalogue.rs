//! The stable words of the journal and of the audit log. Scripts and outside tools depend on them.
//!
//! The rule: a word stands here once. Documents and tests take the lists from [`JournalEvent::ALL`] and
//! [`AuditAct::ALL`].

use std::fmt;

use serde::{Serialize, Serializer};

/// Declares an enum whose variants each have a stable word, with the list of all of them.
macro_rules! catalogue {
    ($(#[$of_type:meta])* $name:ident { $($(#[$of_variant:meta])* $variant:ident => $word:literal,)+ }) => {
        $(#[$of_type])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$of_variant])* $variant,)+
        }

        impl $name {
            /// Every one, in the order of declaration.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The stable word.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.word())
            }
        }
    };
}

catalogue! {
    /// What happened to an account.
    JournalEvent {
        /// A login made a grant.
        Paired => "paired",
        /// A refresh token was taken over.
        Imported => "imported",
        /// The account got another name.
        Renamed => "renamed",
        /// The account is marked as one to test with, or no longer.
        TestAccount => "test_account",
        /// The account was removed here.
        Removed => "removed",
        /// The token of an import stands in the place of the one before.
        TokenReplaced => "token_replaced",
        /// A link for a login was made.
        Invited => "invited",
        /// An application holds a grant of the gateway's own.
        ApplicationConnected => "application_connected",
        /// An application's grant has ended; the account stays paired.
        ApplicationDetached => "application_detached",
        /// New tokens came.
        Refreshed => "refreshed",
        /// The first failure of a row.
        RefreshFailed => "refresh_failed",
        /// A token response was not as documented.
        TokenAnswerOdd => "token_answer_odd",
        /// A refresh was cut off, or its response was lost.
        RefreshInterrupted => "refresh_interrupted",
        /// Somebody else saved newer tokens meanwhile.
        RefreshSuperseded => "refresh_superseded",
        /// The refresh token of a commit that came too late was kept.
        FallbackKept => "fallback_kept",
        /// A kept refresh token takes the place of a refused one.
        FallbackAdopted => "fallback_adopted",
        /// A refresh token came without an access token.
        RefreshTokenKept => "refresh_token_kept",
        /// The platform refuses a standby grant.
        UnusedGrantRefused => "unused_grant_refused",
        /// The refresh token was refused together with others.
        RefusalSuspected => "refusal_suspected",
        /// The platform does not take the grant.
        NeedsLogin => "needs_login",
        /// The platform takes the grant again.
        LoginRestored => "login_restored",
        /// A stored time lay in the future.
        MomentCorrected => "moment_corrected",
        /// The store did not take new tokens.
        TokensUnsaved => "tokens_unsaved",
        /// The store has taken them since.
        TokensSaved => "tokens_saved",
        /// Calls go to another Domain or Path.
        RouteChanged => "route_changed",
        /// Discovery names a route that does not answer as the API does.
        RouteNotProven => "route_not_proven",
        /// Discovery names the route in use again.
        RouteConfirmed => "route_confirmed",
        /// Calls find no connection to the route in use.
        RouteUnreachable => "route_unreachable",
        /// Discovery failed; the route in use is kept.
        DiscoveryFailed => "discovery_failed",
        /// An operator paused the account.
        Paused => "paused",
        /// An operator resumed the account.
        Resumed => "resumed",
        /// Discovery is asked for another version of the API.
        VersionChanged => "version_changed",
        /// Calls go to another realm's grant.
        Switched => "switched",
        /// The account is marked as moving to another realm, where it has no grant yet.
        MoveStarted => "move_started",
        /// The old realm's token ended, as is expected of an account that is moving.
        OldTokenEnded => "old_token_ended",
        /// Calls go to the realm that the account was moved to.
        Moved => "moved",
        /// A move was taken back.
        MovedBack => "moved_back",
        /// Refresh tokens were given out.
        Exported => "exported",
        /// The pairing was ended at the platform.
        Unpaired => "unpaired",
        /// The grant was revoked at the platform.
        Revoked => "revoked",
    }
}

catalogue! {
    /// What an operator does.
    AuditAct {
        /// A login is started, or its link made.
        Pair => "pair",
        /// A login is finished by hand.
        FinishPairing => "finish_pairing",
        /// A link for a login is made.
        Invite => "invite",
        /// Refresh tokens are taken over.
        Import => "import",
        /// Likewise, in the place of tokens that accounts have.
        ImportWithReplace => "import_with_replace",
        /// A list of accounts is given out.
        Export => "export",
        /// Likewise with refresh tokens.
        ExportWithRefreshTokens => "export_with_refresh_tokens",
        Pause => "pause",
        Resume => "resume",
        Renew => "renew",
        Discover => "discover",
        /// Accounts get another version of the API.
        Version => "version",
        /// One call is made as an account.
        Call => "call",
        /// The same reads are made on two platforms.
        Compare => "compare",
        /// Calls go to another realm's grant.
        Switch => "switch",
        /// Accounts are moved to another realm, or a move there begins.
        Move => "move",
        /// Moves are taken back.
        MoveBack => "move_back",
        Unpair => "unpair",
        Revoke => "revoke",
        /// An account is marked as one to test with, or no longer.
        Test => "test",
        Remove => "remove",
        Rename => "rename",
        Backup => "backup",
        Restore => "restore",
        /// The store is copied into another.
        Migrate => "migrate",
        RotateKey => "rotate_key",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::APPLICATION_DETACHED;
    use std::collections::HashSet;

    #[test]
    fn the_event_that_a_store_notes_by_itself_has_the_journals_word() {
        assert_eq!(APPLICATION_DETACHED, JournalEvent::ApplicationDetached.word());
    }

    #[test]
    fn every_word_stands_for_one_thing_and_is_fit_for_a_script() {
        let events = JournalEvent::ALL.iter().map(|event| event.word());
        let acts = AuditAct::ALL.iter().map(|act| act.word());
        for words in [events.collect::<Vec<_>>(), acts.collect()] {
            assert_eq!(words.iter().collect::<HashSet<_>>().len(), words.len(), "{words:?}");
            let is_plain = |word: &str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            assert!(words.iter().all(|word| is_plain(word)), "{words:?}");
        }
    }
}
