//! What each status of each control call means: the vendor's tables as one function, with blame. Pure; reads
//! no text but OAuth's `error` word.
//!
//! Sources: S1 = Authentication and Pairing V2, revision 19; its section stands beside each row.

use super::control_call::ControlCall;
use super::oauth_errors::{ErrorResponse, RefusalMeaning, meaning};
use super::{Blame, PlatformError, PlatformErrorKind};

/// The documented meaning of a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DocumentedOutcome {
    /// The body counts now.
    Success,
    Failure(Blame, PlatformErrorKind, &'static str),
}

/// The vendor's status tables for calls with a bearer; refusals of the token endpoint have
/// [`super::oauth_errors`] to themselves. What they do not list is the realm's trouble, so that no grant
/// suffers from it.
pub(super) fn documented_outcome(call: ControlCall, status: u16) -> DocumentedOutcome {
    use Blame::{Account, Grant, Realm};
    use ControlCall::{Discovery, Pair, RelatedAccounts, Unpair};
    use PlatformErrorKind::{Failed, Forbidden, PairedElsewhere, Refused, TimedOut, Unexpected};

    let (blame, kind, says) = match (call, status) {
        (_, 200) => return DocumentedOutcome::Success,
        // Nothing is documented in the body of these two, so a response without one is as good.
        (ControlCall::Revoke | Unpair, 204) => return DocumentedOutcome::Success,
        // Whatever carries a sound access token is used.
        (call, 201..=203 | 206..=299) if call.brings_tokens() => return DocumentedOutcome::Success,

        (Discovery, 400) => (Account, Unexpected, "the discovery parameters are not accepted"), // S1 4.2.2
        (Discovery, 401) => (Grant, Refused, "the bearer is not accepted"),                     // S1 4.2.2
        (RelatedAccounts, 401) => (Grant, Refused, "the bearer is not accepted"),               // S1 4.2.3
        (Pair | Unpair, 400) => (Account, Unexpected, "the account id is not accepted"), // S1 4.3.1, 4.3.2
        (Pair | Unpair, 401) => (Grant, Refused, "the bearer is not accepted"),          // S1 4.3.1, 4.3.2
        // S1 4.3.1: labs alone, which can be paired with one application.
        (Pair, 409) => (Account, PairedElsewhere, "the account is paired with another application"),

        // Where an expired bearer shows as 403 (S1 4.2.1.2) it was fresh here, so it is a matter of
        // permission.
        (_, 403) => (Account, Forbidden, "the account may not do this"),

        (_, 504) => (Realm, TimedOut, "the platform timed out"), // all tables
        (_, 500..=599) => (Realm, Failed, "the platform failed"), // 500 in all tables
        (_, 300..=399) => {
            (Realm, Unexpected, "the platform answered with a redirect, and those are not followed")
        }
        (_, 429) => (Realm, Unexpected, "the platform wants fewer calls"),
        _ => (Realm, Unexpected, "the platform gave an answer that it does not document"),
    };
    DocumentedOutcome::Failure(blame, kind, says)
}

/// What a call came to that was not carried out; `row` is its verdict.
pub(super) fn failure(
    call: ControlCall,
    status: u16,
    error_response: &ErrorResponse,
    row: (Blame, PlatformErrorKind, &'static str),
) -> PlatformError {
    let (blame, kind, says) = row;
    if call.is_oauth() {
        return refusal(call, status, error_response);
    }
    PlatformError::new(call, blame, kind, Some(status), detail(says, status, error_response))
}

/// What the token endpoint did not grant, whatever the status.
pub(super) fn refusal(call: ControlCall, status: u16, error_response: &ErrorResponse) -> PlatformError {
    let RefusalMeaning { blame, kind, says, named } = meaning(call, status, error_response);
    PlatformError {
        named,
        ..PlatformError::new(call, blame, kind, Some(status), detail(says, status, error_response))
    }
}

fn detail(says: &str, status: u16, error_response: &ErrorResponse) -> String {
    match &error_response.word {
        Some(word) => format!("{says} (status {status}, {word})"),
        None => format!("{says} (status {status})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Blame::{Account, Grant, Realm};
    use PlatformErrorKind::{Failed, Forbidden, PairedElsewhere, Refused, TimedOut, Unexpected};

    const ALL: [ControlCall; 7] = [
        ControlCall::CodeExchange,
        ControlCall::Refresh,
        ControlCall::Revoke,
        ControlCall::Discovery,
        ControlCall::RelatedAccounts,
        ControlCall::Pair,
        ControlCall::Unpair,
    ];

    fn of(call: ControlCall, status: u16) -> Option<(Blame, PlatformErrorKind)> {
        match documented_outcome(call, status) {
            DocumentedOutcome::Success => None,
            DocumentedOutcome::Failure(blame, kind, _) => Some((blame, kind)),
        }
    }

    #[test]
    fn every_status_of_the_vendors_tables_has_its_blame() {
        let rows = [
            // S1 4.2.2, discovery
            (ControlCall::Discovery, 200, None),
            (ControlCall::Discovery, 400, Some((Account, Unexpected))),
            (ControlCall::Discovery, 401, Some((Grant, Refused))),
            (ControlCall::Discovery, 500, Some((Realm, Failed))),
            (ControlCall::Discovery, 504, Some((Realm, TimedOut))),
            // S1 4.2.3, related accounts
            (ControlCall::RelatedAccounts, 200, None),
            (ControlCall::RelatedAccounts, 401, Some((Grant, Refused))),
            (ControlCall::RelatedAccounts, 500, Some((Realm, Failed))),
            (ControlCall::RelatedAccounts, 504, Some((Realm, TimedOut))),
            // S1 4.3.1, pair
            (ControlCall::Pair, 200, None),
            (ControlCall::Pair, 400, Some((Account, Unexpected))),
            (ControlCall::Pair, 401, Some((Grant, Refused))),
            (ControlCall::Pair, 409, Some((Account, PairedElsewhere))),
            (ControlCall::Pair, 500, Some((Realm, Failed))),
            (ControlCall::Pair, 504, Some((Realm, TimedOut))),
            // S1 4.3.2, unpair
            (ControlCall::Unpair, 200, None),
            (ControlCall::Unpair, 400, Some((Account, Unexpected))),
            (ControlCall::Unpair, 401, Some((Grant, Refused))),
            (ControlCall::Unpair, 500, Some((Realm, Failed))),
            (ControlCall::Unpair, 504, Some((Realm, TimedOut))),
            // 403 is documented for expired bearers alone (S1 4.2.1.2)
            (ControlCall::Discovery, 403, Some((Account, Forbidden))),
            (ControlCall::Pair, 403, Some((Account, Forbidden))),
            // Only a lab's pairing knows 409
            (ControlCall::Unpair, 409, Some((Realm, Unexpected))),
        ];
        for (call, status, expected) in rows {
            assert_eq!(of(call, status), expected, "{call:?} {status}");
        }
    }

    #[test]
    fn what_no_table_lists_is_the_realms_trouble_and_costs_no_grant() {
        for call in ALL {
            for status in [204, 301, 302, 307, 404, 405, 408, 410, 418, 422, 429, 502, 503, 599] {
                if of(call, status).is_none() {
                    continue;
                }
                let (blame, _) = of(call, status).unwrap();
                assert_eq!(blame, Realm, "{call:?} {status}");
            }
        }
        for status in [201, 202, 203, 206, 226] {
            for call in ALL {
                assert_eq!(of(call, status).is_none(), call.brings_tokens(), "{call:?} {status}");
            }
        }
        assert_eq!(of(ControlCall::Refresh, 204), Some((Realm, Unexpected)));
        assert_eq!((of(ControlCall::Unpair, 204), of(ControlCall::Revoke, 204)), (None, None));
    }

    #[test]
    fn a_trouble_names_call_status_and_error_word() {
        let error =
            refusal(ControlCall::Refresh, 400, &ErrorResponse::of_body(br#"{"error":"invalid_grant"}"#));
        assert_eq!(
            error.to_string(),
            "refresh: the refresh token is not accepted (status 400, invalid_grant)"
        );
        assert!(error.named);
        let (error_response, row) =
            (ErrorResponse::of_body(br#"{"error":"invalid_client"}"#), (Grant, Refused, "no"));
        let elsewhere = failure(ControlCall::Discovery, 401, &error_response, row);
        assert_eq!(
            (elsewhere.blame, elsewhere.named),
            (Grant, false),
            "a bearer, not the client's credentials"
        );
    }
}
