//! The control calls and what is the same for all responses to one. Plain values: whoever reads a response
//! may look here.

/// The control calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ControlCall {
    CodeExchange,
    Refresh,
    Revoke,
    Discovery,
    RelatedAccounts,
    Pair,
    Unpair,
    /// One of the API's own reads, made for a comparison.
    Read,
}

impl ControlCall {
    /// Stands in logs, metrics and troubles.
    pub fn name(self) -> &'static str {
        match self {
            ControlCall::CodeExchange => "code_exchange",
            ControlCall::Refresh => "refresh",
            ControlCall::Revoke => "revoke",
            ControlCall::Discovery => "discovery",
            ControlCall::RelatedAccounts => "related_accounts",
            ControlCall::Pair => "pair",
            ControlCall::Unpair => "unpair",
            ControlCall::Read => "read",
        }
    }

    /// Calls that carry the client's credentials instead of a bearer.
    pub fn is_oauth(self) -> bool {
        matches!(self, ControlCall::CodeExchange | ControlCall::Refresh | ControlCall::Revoke)
    }

    /// Calls whose response brings tokens: whatever of it can be used is used.
    pub fn brings_tokens(self) -> bool {
        matches!(self, ControlCall::CodeExchange | ControlCall::Refresh | ControlCall::Pair)
    }
}
