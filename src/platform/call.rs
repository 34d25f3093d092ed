//! The control calls and what is the same for all answers to one. Plain values: whoever reads an answer may look here.

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
    pub fn is_oauth(self) -> bool {
        matches!(self, Call::CodeExchange | Call::Refresh | Call::Revoke)
    }

    /// Calls whose answer brings tokens: whatever of it can be used is used.
    pub fn brings_tokens(self) -> bool {
        matches!(self, Call::CodeExchange | Call::Refresh | Call::Pair)
    }
}
