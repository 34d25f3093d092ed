//! Why a store is unavailable for a while: decided where the database's response is read, so that nobody
//! has to search a text for it.

use std::fmt;

/// Trouble that passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreUnavailable {
    pub kind: UnavailableKind,
    why: String,
    rolled_back: bool,
}

/// What an operator would do something different about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnavailableKind {
    /// It cannot be reached, or it ends what it is asked.
    Down,
    /// It is there, and answers too late.
    Slow,
    /// It can be read only: a replica, a failover under way, an operator's switch.
    ReadOnly,
    /// It takes no further connection.
    TooManyConnections,
    DiskFull,
    Other,
}

impl StoreUnavailable {
    pub fn new(kind: UnavailableKind, why: impl Into<String>) -> Self {
        Self { kind, why: why.into(), rolled_back: false }
    }

    /// Nothing happened, because of somebody else's work at the same time: it may be done again at once.
    #[must_use]
    pub fn rolled_back(self) -> Self {
        Self { rolled_back: true, ..self }
    }

    pub fn is_rolled_back(&self) -> bool {
        self.rolled_back
    }
}

impl UnavailableKind {
    pub const ALL: [Self; 6] =
        [Self::Down, Self::Slow, Self::ReadOnly, Self::TooManyConnections, Self::DiskFull, Self::Other];

    /// Stable, for metrics and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Slow => "slow",
            Self::ReadOnly => "read_only",
            Self::TooManyConnections => "too_many_connections",
            Self::DiskFull => "disk_full",
            Self::Other => "other",
        }
    }
}

impl From<String> for StoreUnavailable {
    fn from(why: String) -> Self {
        Self::new(UnavailableKind::Other, why)
    }
}

impl From<&str> for StoreUnavailable {
    fn from(why: &str) -> Self {
        Self::new(UnavailableKind::Other, why)
    }
}

/// In words.
impl fmt::Display for StoreUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}
