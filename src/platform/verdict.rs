//! What each status of each control call means: the vendor's tables as one function, with blame. Pure; reads no text but OAuth's
//! `error` word.
//!
//! Sources: S1 = Authentication and Pairing V2, revision 19; its section stands beside each row.

use super::{Blame, Trouble, TroubleKind};

/// The control calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    CodeExchange,
    Refresh,
    Revoke,
    Discovery,
    RelatedAccounts,
    Pair,
    Unpair,
}

impl Call {
    /// Stands in logs, metrics and troubles.
    pub fn name(self) -> &'static str {
        match self {
            Call::CodeExchange => "code_exchange",
            Call::Refresh => "refresh",
            Call::Revoke => "revoke",
            Call::Discovery => "discovery",
            Call::RelatedAccounts => "related_accounts",
            Call::Pair => "pair",
            Call::Unpair => "unpair",
        }
    }

    /// Calls that carry the client's credentials instead of a bearer.
    fn is_oauth(self) -> bool {
        matches!(self, Call::CodeExchange | Call::Refresh | Call::Revoke)
    }
}

/// The documented meaning of a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The body counts now.
    Done,
    Trouble(Blame, TroubleKind, &'static str),
}

/// The vendor's status tables. What they do not list is the realm's trouble, so that no grant suffers from it.
pub(super) fn verdict(call: Call, status: u16) -> Verdict {
    use Blame::{Account, Credentials, Grant, Realm};
    use Call::{CodeExchange, Discovery, Pair, RelatedAccounts, Unpair};
    use TroubleKind::{Failed, Forbidden, PairedElsewhere, Refused, TimedOut, Unexpected};

    let (blame, kind, says) = match (call, status) {
        (_, 200) => return Verdict::Done,
        // Nothing is documented in the body of these two, so an answer without one is as good.
        (Call::Revoke | Unpair, 204) => return Verdict::Done,

        (CodeExchange, 400) => (Grant, Refused, "the code is wrong, used or too old"), // S1 4.1.2
        (CodeExchange, 401) => (Credentials, Refused, "the client is not authorized"), // S1 4.1.2
        // 401 in S1 4.1.3. 400 is not listed there; it is what RFC 6749, 5.2 prescribes for the same.
        (Call::Refresh, 400 | 401) => (Grant, Refused, "the refresh token is not accepted"),
        (Call::Revoke, 400 | 401) => (Grant, Refused, "the token is not accepted"), // S1 4.1.5

        (Discovery, 400) => (Account, Unexpected, "the discovery parameters are not accepted"), // S1 4.2.2
        (Discovery, 401) => (Grant, Refused, "the bearer is not accepted"),                     // S1 4.2.2
        (RelatedAccounts, 401) => (Grant, Refused, "the bearer is not accepted"),               // S1 4.2.3
        (Pair | Unpair, 400) => (Account, Unexpected, "the account id is not accepted"), // S1 4.3.1, 4.3.2
        (Pair | Unpair, 401) => (Grant, Refused, "the bearer is not accepted"),          // S1 4.3.1, 4.3.2
        // S1 4.3.1: labs alone, which can be paired with one application.
        (Pair, 409) => (Account, PairedElsewhere, "the account is paired with another application"),

        // Where an expired bearer shows as 403 (S1 4.2.1.2) it was fresh here, so it is a matter of permission. The token
        // endpoint documents none: something in front of it speaks, and grants are kept.
        (call, 403) if call.is_oauth() => (Realm, Forbidden, "the call is forbidden"),
        (_, 403) => (Account, Forbidden, "the account may not do this"),

        (_, 504) => (Realm, TimedOut, "the platform timed out"), // all tables
        (_, 500..=599) => (Realm, Failed, "the platform failed"), // 500 in all tables
        (_, 300..=399) => {
            (Realm, Unexpected, "the platform answered with a redirect, and those are not followed")
        }
        (_, 429) => (Realm, Unexpected, "the platform wants fewer calls"),
        _ => (Realm, Unexpected, "the platform gave an answer that it does not document"),
    };
    Verdict::Trouble(blame, kind, says)
}

/// The verdict as a result. OAuth's `error` word is more exact than the status: RFC 6749, 5.2 allows 400 and 401 for a refused
/// client, where the vendor's table knows 401 alone and gives it a second meaning at refresh.
pub(super) fn judge(call: Call, status: u16, error_word: Option<&str>) -> Result<(), Trouble> {
    let Verdict::Trouble(blame, kind, says) = verdict(call, status) else { return Ok(()) };
    let (blame, kind, says) = match (call.is_oauth() && kind == TroubleKind::Refused, error_word) {
        (true, Some("invalid_client" | "unauthorized_client")) => {
            (Blame::Credentials, kind, "client id or secret are not accepted")
        }
        (true, Some("invalid_grant")) if call == Call::CodeExchange => {
            (Blame::Grant, kind, "the code is not accepted")
        }
        // Words that speak of neither grant nor secret: no account loses its login over them.
        (true, Some("server_error" | "temporarily_unavailable" | "slow_down")) => {
            (Blame::Realm, TroubleKind::Failed, "the platform failed")
        }
        (true, Some("unsupported_grant_type" | "invalid_scope" | "invalid_client_metadata")) => {
            (Blame::Realm, TroubleKind::Unexpected, "the platform does not take what the documents prescribe")
        }
        _ => (blame, kind, says),
    };
    let detail = match error_word {
        Some(word) => format!("{says} (status {status}, {word})"),
        None => format!("{says} (status {status})"),
    };
    Err(Trouble::new(call, blame, kind, Some(status), detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Blame::{Account, Credentials, Grant, Realm};
    use TroubleKind::{Failed, Forbidden, PairedElsewhere, Refused, TimedOut, Unexpected};

    const ALL: [Call; 7] = [
        Call::CodeExchange,
        Call::Refresh,
        Call::Revoke,
        Call::Discovery,
        Call::RelatedAccounts,
        Call::Pair,
        Call::Unpair,
    ];

    fn of(call: Call, status: u16) -> Option<(Blame, TroubleKind)> {
        match verdict(call, status) {
            Verdict::Done => None,
            Verdict::Trouble(blame, kind, _) => Some((blame, kind)),
        }
    }

    #[test]
    fn every_status_of_the_vendors_tables_has_its_blame() {
        let rows = [
            // S1 4.1.2, code exchange
            (Call::CodeExchange, 200, None),
            (Call::CodeExchange, 400, Some((Grant, Refused))),
            (Call::CodeExchange, 401, Some((Credentials, Refused))),
            (Call::CodeExchange, 500, Some((Realm, Failed))),
            (Call::CodeExchange, 504, Some((Realm, TimedOut))),
            // S1 4.1.3, refresh; 400 by RFC 6749
            (Call::Refresh, 200, None),
            (Call::Refresh, 400, Some((Grant, Refused))),
            (Call::Refresh, 401, Some((Grant, Refused))),
            (Call::Refresh, 500, Some((Realm, Failed))),
            (Call::Refresh, 504, Some((Realm, TimedOut))),
            // S1 4.1.5, revoke
            (Call::Revoke, 200, None),
            (Call::Revoke, 401, Some((Grant, Refused))),
            (Call::Revoke, 500, Some((Realm, Failed))),
            (Call::Revoke, 504, Some((Realm, TimedOut))),
            // S1 4.2.2, discovery
            (Call::Discovery, 200, None),
            (Call::Discovery, 400, Some((Account, Unexpected))),
            (Call::Discovery, 401, Some((Grant, Refused))),
            (Call::Discovery, 500, Some((Realm, Failed))),
            (Call::Discovery, 504, Some((Realm, TimedOut))),
            // S1 4.2.3, related accounts
            (Call::RelatedAccounts, 200, None),
            (Call::RelatedAccounts, 401, Some((Grant, Refused))),
            (Call::RelatedAccounts, 500, Some((Realm, Failed))),
            (Call::RelatedAccounts, 504, Some((Realm, TimedOut))),
            // S1 4.3.1, pair
            (Call::Pair, 200, None),
            (Call::Pair, 400, Some((Account, Unexpected))),
            (Call::Pair, 401, Some((Grant, Refused))),
            (Call::Pair, 409, Some((Account, PairedElsewhere))),
            (Call::Pair, 500, Some((Realm, Failed))),
            (Call::Pair, 504, Some((Realm, TimedOut))),
            // S1 4.3.2, unpair
            (Call::Unpair, 200, None),
            (Call::Unpair, 400, Some((Account, Unexpected))),
            (Call::Unpair, 401, Some((Grant, Refused))),
            (Call::Unpair, 500, Some((Realm, Failed))),
            (Call::Unpair, 504, Some((Realm, TimedOut))),
            // 403 is documented for expired bearers alone (S1 4.2.1.2)
            (Call::Refresh, 403, Some((Realm, Forbidden))),
            (Call::Discovery, 403, Some((Account, Forbidden))),
            (Call::Pair, 403, Some((Account, Forbidden))),
            // Only a lab's pairing knows 409
            (Call::Refresh, 409, Some((Realm, Unexpected))),
        ];
        for (call, status, expected) in rows {
            assert_eq!(of(call, status), expected, "{call:?} {status}");
        }
    }

    #[test]
    fn what_no_table_lists_is_the_realms_trouble_and_costs_no_grant() {
        for call in ALL {
            for status in [201, 202, 301, 302, 307, 404, 405, 408, 410, 418, 422, 429, 502, 503, 599] {
                let (blame, _) = of(call, status).unwrap();
                assert_eq!(blame, Realm, "{call:?} {status}");
            }
        }
        assert_eq!(of(Call::Refresh, 204), Some((Realm, Unexpected)));
        assert_eq!(of(Call::Unpair, 204), None);
    }

    #[test]
    fn the_error_word_tells_a_refused_client_from_a_refused_grant() {
        for status in [400, 401] {
            for call in [Call::CodeExchange, Call::Refresh, Call::Revoke] {
                let trouble = judge(call, status, Some("invalid_client")).unwrap_err();
                assert_eq!(trouble.blame, Credentials, "{call:?} {status}");
            }
            assert_eq!(judge(Call::Refresh, status, Some("invalid_grant")).unwrap_err().blame, Grant);
            assert_eq!(judge(Call::CodeExchange, status, Some("invalid_grant")).unwrap_err().blame, Grant);
        }
        assert_eq!(judge(Call::Refresh, 500, Some("invalid_client")).unwrap_err().blame, Realm);
        assert_eq!(judge(Call::Discovery, 401, Some("invalid_client")).unwrap_err().blame, Grant);
    }

    #[test]
    fn a_trouble_names_call_status_and_error_word() {
        let trouble = judge(Call::Refresh, 400, Some("invalid_grant")).unwrap_err();
        assert_eq!(
            trouble.to_string(),
            "refresh: the refresh token is not accepted (status 400, invalid_grant)"
        );
    }
}
