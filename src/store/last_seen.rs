//! When what last happened to an account or a caller, over all gateways that share a store.
//!
//! The rule guarded here: of each moment the newest stays, whoever brings it and in whatever order, so nobody
//! has to agree with anybody.

use crate::clock::{Clock, Timestamp};
use crate::model::account::AccountName;

use super::rows::stored;

/// Whose moments these are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Account(AccountName),
    Caller(String),
}

/// What was seen of one account or caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastSeenRecord {
    pub subject: Subject,
    pub moments: LastSeen,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LastSeen {
    pub last_call_at: Option<Timestamp>,
    pub last_success_at: Option<Timestamp>,
    /// The gateway's own number of a refusal code, and when.
    pub last_refusal: Option<(u16, Timestamp)>,
    /// Number of links in the last order list (65535 stands for more), and when.
    pub last_list: Option<(u16, Timestamp)>,
    pub unfinished_download_at: Option<Timestamp>,
}

/// What the store knows, and where to go on from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LastSeenPage {
    pub seen: Vec<LastSeenRecord>,
    pub up_to: Timestamp,
}

/// Rows per transaction, so that a commit of tokens never waits long.
pub const BATCH: usize = 500;

/// Kind, name, and the seven numbers in the order of the columns; 0 is never.
pub(super) type LastSeenRow = (String, String, i64, i64, i64, i64, i64, i64, i64);

impl LastSeen {
    pub fn merged(&self, other: &LastSeen) -> LastSeen {
        LastSeen {
            last_call_at: self.last_call_at.max(other.last_call_at),
            last_success_at: self.last_success_at.max(other.last_success_at),
            last_refusal: newer(self.last_refusal, other.last_refusal),
            last_list: newer(self.last_list, other.last_list),
            unfinished_download_at: self.unfinished_download_at.max(other.unfinished_download_at),
        }
    }
}

fn newer(one: Option<(u16, Timestamp)>, other: Option<(u16, Timestamp)>) -> Option<(u16, Timestamp)> {
    if other.map(|(_, at)| at) > one.map(|(_, at)| at) { other } else { one }
}

impl LastSeenRecord {
    pub(super) fn row(&self, clock: &Clock) -> LastSeenRow {
        let (kind, name) = match &self.subject {
            Subject::Account(name) => ("account", name.as_str()),
            Subject::Caller(name) => ("caller", name.as_str()),
        };
        let at = |moment: Option<Timestamp>| moment.map_or(0, |at| stored(clock, at));
        let number = |stamped: Option<(u16, Timestamp)>| stamped.map_or(0, |(number, _)| i64::from(number));
        let moment = |stamped: Option<(u16, Timestamp)>| at(stamped.map(|(_, at)| at));
        let it = &self.moments;
        (
            kind.to_owned(),
            name.to_owned(),
            at(it.last_call_at),
            at(it.last_success_at),
            number(it.last_refusal),
            moment(it.last_refusal),
            number(it.last_list),
            moment(it.last_list),
            at(it.unfinished_download_at),
        )
    }

    /// `None` for a row that means nothing here: a newer gateway may know other kinds. What lies in the
    /// future was noted by a clock that was wrong, and counts as now.
    pub(super) fn of_row(row: LastSeenRow, clock: &Clock) -> Option<Self> {
        let (kind, name, call, success, refusal, refusal_at, links, list_at, download) = row;
        let subject = match kind.as_str() {
            "account" => Subject::Account(name.parse().ok()?),
            "caller" => Subject::Caller(name),
            _ => return None,
        };
        let now = clock.now();
        let at = |millis: i64| {
            let noted = u64::try_from(millis).ok().filter(|at| *at > 0)?;
            Some(clock.at_time_of_day(Timestamp::from_millis(noted)).min(now))
        };
        let stamped = |number: i64, millis| Some((u16::try_from(number).unwrap_or(u16::MAX), at(millis)?));
        let moments = LastSeen {
            last_call_at: at(call),
            last_success_at: at(success),
            last_refusal: stamped(refusal, refusal_at),
            last_list: stamped(links, list_at),
            unfinished_download_at: at(download),
        };
        Some(Self { subject, moments })
    }
}
