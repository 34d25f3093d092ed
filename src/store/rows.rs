//! Between rows and records, for every kind of database. A row that does not read or does not unseal names
//! its account and stops nobody else.

use std::time::Duration;

use super::seal::{SealContext, SealError, SealKeys};
use super::{
    AccountRecord, AccountSink, ClampedAccount, GrantRecord, JournalEntry, LoadedAccounts, PendingKind,
    PendingLogin, StoredAccess, StoredRoute,
};
use crate::clock::{Clock, Timestamp};
use crate::model::account::{AccountName, AccountState, ApiVersion, RealmName};
use crate::model::token::{AccessToken, RefreshToken};

/// One row of a database, its columns by number. What does not read is `None`, or the reason for people.
pub trait RowColumns {
    fn text(&self, index: usize) -> Result<Option<&str>, String>;
    fn number(&self, index: usize) -> Result<Option<i64>, String>;
    fn bytes(&self, index: usize) -> Result<Option<&[u8]>, String>;
}

macro_rules! impl_row_columns {
    ($row:ty) => {
        impl $crate::store::rows::RowColumns for $row {
            fn text(&self, index: usize) -> Result<Option<&str>, String> {
                sqlx::Row::try_get(self, index).map_err(|_| $crate::store::rows::does_not_read(index))
            }

            fn number(&self, index: usize) -> Result<Option<i64>, String> {
                sqlx::Row::try_get(self, index).map_err(|_| $crate::store::rows::does_not_read(index))
            }

            fn bytes(&self, index: usize) -> Result<Option<&[u8]>, String> {
                sqlx::Row::try_get(self, index).map_err(|_| $crate::store::rows::does_not_read(index))
            }
        }
    };
}
pub(super) use impl_row_columns;

/// What [`AccountRows::add`] reads, one row per grant; the order is its columns' order.
macro_rules! select_accounts {
    ($rest:literal) => {
        concat!(
            "SELECT a.name, a.current_realm, a.state, a.since, a.why, g.realm, g.account_id, g.generation, ",
            "g.refresh_sealed, g.access_sealed, g.access_expires_at, g.refreshed_at, g.obtained_at, ",
            "g.route_domain, g.route_path, g.route_discovered_at, g.intent_at, a.is_test, ",
            "a.api_version, a.moving_to ",
            "FROM accounts a LEFT JOIN grants g ON g.account = a.name ",
            $rest
        )
    };
}
pub(super) use select_accounts;

/// Gathers rows, those of one account in succession, into accounts.
pub struct AccountRows<'a> {
    keys: &'a SealKeys,
    clock: &'a Clock,
    loaded: LoadedAccounts,
    open: Option<(AccountName, Result<AccountRecord, String>)>,
}

impl<'a> AccountRows<'a> {
    pub fn new(keys: &'a SealKeys, clock: &'a Clock) -> Self {
        Self { keys, clock, loaded: LoadedAccounts::default(), open: None }
    }

    pub fn add(&mut self, row: &impl RowColumns) {
        let name = match read_name(row) {
            Ok(name) => name,
            Err(why) => {
                // Nobody can ask for it by name, so nobody is refused: it can only be reported.
                tracing::error!(why, "the store holds an account whose name is not valid; it is left out");
                return;
            }
        };
        if self.open.as_ref().is_some_and(|(open, _)| *open != name) {
            self.finish_open();
        }
        let account = match self.open.take() {
            Some((_, account)) => account,
            None => read_account(row, &name, self.clock),
        };
        let account = account.and_then(|mut account| {
            account.grants.extend(read_grant(row, &name, self.keys, self.clock)?);
            Ok(account)
        });
        self.open = Some((name, account));
    }

    /// Those that are complete by now.
    pub fn hand_over(&mut self, take: AccountSink<'_>) {
        self.loaded.accounts.drain(..).for_each(take);
    }

    pub fn finish(mut self) -> LoadedAccounts {
        self.finish_open();
        self.loaded
    }

    fn finish_open(&mut self) {
        match self.open.take() {
            None => {}
            Some((name, Err(why))) => self.loaded.broken.push((name, why)),
            Some((name, Ok(account))) if account.current_grant().is_none() => {
                let why = format!("its grant in realm {} is missing", account.current);
                self.loaded.broken.push((name, why));
            }
            Some((_, Ok(account))) => self.loaded.accounts.push(account),
        }
    }
}

pub fn refresh_context<'a>(account: &'a AccountName, realm: &'a RealmName) -> SealContext<'a> {
    SealContext { table: "grants", row: account.as_str(), realm: realm.as_str(), column: "refresh" }
}

pub fn access_context<'a>(account: &'a AccountName, realm: &'a RealmName) -> SealContext<'a> {
    SealContext { table: "grants", row: account.as_str(), realm: realm.as_str(), column: "access" }
}

pub fn fallback_context<'a>(account: &'a AccountName, realm: &'a RealmName) -> SealContext<'a> {
    SealContext { table: "fallbacks", row: account.as_str(), realm: realm.as_str(), column: "refresh" }
}

pub fn application_grant_context<'a>(account: &'a AccountName, caller: &'a str) -> SealContext<'a> {
    SealContext { table: "application_grants", row: account.as_str(), realm: caller, column: "refresh" }
}

pub fn callback_url_context<'a>(account: &'a AccountName, caller: &'a str) -> SealContext<'a> {
    SealContext { column: "callback_url", ..application_grant_context(account, caller) }
}

/// `id` in hexadecimal; a payload of one kind does not open as another.
pub fn payload_context(id: &str, kind: PendingKind) -> SealContext<'_> {
    SealContext { table: "pending_logins", row: id, realm: kind_word(kind), column: "payload" }
}

pub fn kind_word(kind: PendingKind) -> &'static str {
    match kind {
        PendingKind::Start => "start",
        PendingKind::State => "state",
        PendingKind::Choice => "choice",
        PendingKind::ApplicationCode => "application_code",
        PendingKind::ApplicationLogin => "application_login",
    }
}

/// A login from its columns `id`, `kind`, `expires_at`, `payload_sealed`; `None` where it does not read or
/// open: it is begun again.
pub fn read_login(keys: &SealKeys, row: &impl RowColumns) -> Option<PendingLogin> {
    let id: [u8; 32] = row.bytes(0).ok()??.try_into().ok()?;
    let kind = row.text(1).ok()??;
    let kind = PendingKind::ALL.into_iter().find(|known| kind_word(*known) == kind)?;
    let expires_at = moment(row.number(2).ok()??).ok()?;
    match keys.unseal(payload_context(&hex::encode(id), kind), row.bytes(3).ok()??) {
        Ok(payload) => Some(PendingLogin { id, kind, expires_at, payload }),
        Err(why) => {
            tracing::warn!(%why, "a pending login does not unseal; it has to be begun again");
            None
        }
    }
}

/// The columns `state`, `since`, `why`.
pub fn state_columns<'a>(
    clock: &Clock,
    state: &'a AccountState,
) -> (&'static str, Option<i64>, Option<&'a str>) {
    match state {
        AccountState::Ready | AccountState::Paused => (state.word(), None, None),
        AccountState::NeedsLogin { since, why } => (state.word(), Some(stored(clock, *since)), Some(why)),
    }
}

/// A moment as it is kept: what outlives the process is the time of day.
pub fn stored(clock: &Clock, at: Timestamp) -> i64 {
    millis(clock.time_of_day(at))
}

/// A database's integers are signed; what lies beyond them is 292 million years off.
pub fn millis(at: Timestamp) -> i64 {
    signed(at.as_millis())
}

pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub fn read_journal(row: &impl RowColumns, clock: &Clock) -> Result<JournalEntry, String> {
    Ok(JournalEntry {
        at: kept_moment(clock, given(row.number(0)?, 0)?)?,
        account: parsed(row, 1)?,
        event: given(row.text(2)?, 2)?.to_owned(),
        detail: given(row.text(3)?, 3)?.to_owned(),
    })
}

/// A moment that lies no further ahead than this is no sign of a wrong clock: a database's response takes its
/// time.
pub const FUTURE_MILLIS: i64 = 2000;

/// An account and by how many milliseconds its newest grant lay in the future. Each account once.
pub fn clamped_accounts(mut rows: Vec<(String, i64)>) -> Vec<ClampedAccount> {
    rows.sort_by(|(one, a), (other, b)| one.cmp(other).then(b.cmp(a)));
    rows.dedup_by(|(later, _), (first, _)| later == first);
    let brought_down = |(name, by): (String, i64)| {
        let by = Duration::from_millis(u64::try_from(by).unwrap_or_default());
        Some(ClampedAccount { account: name.parse().ok()?, by })
    };
    rows.into_iter().filter_map(brought_down).collect()
}

fn read_name(row: &impl RowColumns) -> Result<AccountName, String> {
    parsed(row, 0)
}

fn read_account(row: &impl RowColumns, name: &AccountName, clock: &Clock) -> Result<AccountRecord, String> {
    let state = match given(row.text(2)?, 2)? {
        "ready" => AccountState::Ready,
        "paused" => AccountState::Paused,
        "needs_login" => AccountState::NeedsLogin {
            since: kept_moment(clock, given(row.number(3)?, 3)?)?,
            why: given(row.text(4)?, 4)?.to_owned(),
        },
        _ => return Err("its state is not known".to_owned()),
    };
    let is_test = given(row.number(17)?, 17)? != 0;
    // Whatever else a newer gateway may write there, it is no reason to lose an account.
    let version = row.number(18)?.and_then(|number| u16::try_from(number).ok()).and_then(ApiVersion::new);
    let (name, current): (_, RealmName) = (name.clone(), parsed(row, 1)?);
    let moving_to = row.text(19)?.and_then(|realm| realm.parse().ok()).filter(|realm| *realm != current);
    Ok(AccountRecord { name, current, state, is_test, version, moving_to, grants: Vec::new() })
}

fn read_grant(
    row: &impl RowColumns,
    name: &AccountName,
    keys: &SealKeys,
    clock: &Clock,
) -> Result<Option<GrantRecord>, String> {
    let moment = |millis| kept_moment(clock, millis);
    if row.text(5)?.is_none() {
        return Ok(None);
    }
    let realm: RealmName = parsed(row, 5)?;
    let unsealed = |what, context, sealed: &[u8]| {
        keys.unseal(context, sealed)
            .map_err(|why: SealError| format!("its {what} token in realm {realm}: {why}"))
    };
    let refresh = unsealed("refresh", refresh_context(name, &realm), given(row.bytes(8)?, 8)?)?;
    let access = match (row.bytes(9)?, row.number(10)?) {
        (Some(sealed), Some(expires_at)) => {
            // It goes to the wire as it is. One that cannot is none, and the refresh token brings another.
            let token = AccessToken::checked(&unsealed("access", access_context(name, &realm), sealed)?).ok();
            let expires_at = moment(expires_at)?;
            token.map(|token| StoredAccess { token, expires_at })
        }
        _ => None,
    };
    let route = match (row.text(13)?, row.text(14)?) {
        (Some(domain), Some(path)) => Some(StoredRoute {
            domain: domain.to_owned(),
            path: path.to_owned(),
            discovered_at: moment(given(row.number(15)?, 15)?)?,
        }),
        _ => None,
    };
    let grant = GrantRecord {
        account_id: parsed(row, 6)?,
        refresh: RefreshToken::new(refresh),
        access,
        generation: unsigned(given(row.number(7)?, 7)?)?,
        refreshed_at: row.number(11)?.map(moment).transpose()?,
        obtained_at: moment(given(row.number(12)?, 12)?)?,
        route,
        intent: row.number(16)?.map(moment).transpose()?,
        realm,
    };
    Ok(Some(brought_down(grant, clock.now())))
}

/// What lies in the future was noted by a clock that was wrong. It counts as now, and the token's end moves
/// with it, so that a token is never believed to live longer than it was given. The store itself is set right
/// by [`super::Store::clamp_future_times`].
fn brought_down(mut grant: GrantRecord, now: Timestamp) -> GrantRecord {
    let newest = grant.refreshed_at.max(Some(grant.obtained_at)).unwrap_or(grant.obtained_at);
    if newest > now {
        if let Some(access) = &mut grant.access {
            access.expires_at = access.expires_at - newest.since(now);
        }
        grant.refreshed_at = grant.refreshed_at.map(|at| at.min(now));
        grant.obtained_at = grant.obtained_at.min(now);
    }
    grant
}

pub fn does_not_read(index: usize) -> String {
    format!("its column {index} does not read")
}

fn given<T>(value: Option<T>, index: usize) -> Result<T, String> {
    value.ok_or_else(|| does_not_read(index))
}

fn parsed<T: std::str::FromStr>(row: &impl RowColumns, index: usize) -> Result<T, String> {
    given(row.text(index)?, index)?.parse().map_err(|_| format!("its column {index} is not valid"))
}

/// The moment of this process at a time of day that was kept.
fn kept_moment(clock: &Clock, millis: i64) -> Result<Timestamp, String> {
    moment(millis).map(|time| clock.at_time_of_day(time))
}

fn moment(millis: i64) -> Result<Timestamp, String> {
    unsigned(millis).map(Timestamp::from_millis)
}

fn unsigned(number: i64) -> Result<u64, String> {
    u64::try_from(number).map_err(|_| "a number is negative".to_owned())
}
