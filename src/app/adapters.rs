//! What the rooms tell each other: pairing and renewal to the book and the journal, the admin listener to everybody.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::access::registry::AccountRegistry;
use crate::access::renewal::{Cause, RenewError, Renewals};
use crate::access::replace_grant::ReplaceError;
use crate::access::stats::RealmStats;
use crate::admin::view::{CallRequest, CallResponse};
use crate::admin::{Machinery, Part, Readiness};
use crate::clock::Timestamp;
use crate::config::AccountPattern;
use crate::facade::KnownTokens;
use crate::gateway::refusal::RefusalCode;
use crate::journal::{Journal, JournalEvent};
use crate::model::account::{AccountName, RealmName};
use crate::pairing;
use crate::store::last_seen::LastSeen;
use crate::store::rotate::Rotation;
use crate::store::{AccountRecord, NewGrant, StoreError};
use crate::telemetry::log_queue::LogKind;

use super::{Inner, observe};

/// What follows from a pairing, an import, a pause.
pub struct PairingAdapter {
    pub registry: Arc<AccountRegistry>,
    pub renewals: Renewals,
    pub journal: Journal,
    pub known: Arc<KnownTokens>,
}

impl pairing::Hooks for PairingAdapter {
    fn publish(&self, record: &AccountRecord) {
        for grant in &record.grants {
            self.known.learn(grant.refresh.expose(), &record.name);
        }
        self.registry.apply(record.clone());
    }

    fn withdraw(&self, name: &AccountName) {
        self.known.forget(name);
        self.renewals.withdraw(name);
    }

    fn rename(&self, from: &AccountName, record: &AccountRecord) {
        let before = self.registry.by_name(from.as_str());
        self.renewals.withdraw(from);
        self.known.rename(from, &record.name);
        self.publish(record);
        let after = self.registry.by_name(record.name.as_str());
        if let (Some(before), Some(after)) = (before, after) {
            after.activity.learn(&before.activity.read());
        }
    }

    fn until_idle<'a>(&'a self, account: &'a AccountName) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.renewals.until_idle(account))
    }

    fn is_unsaved(&self, account: &AccountName) -> bool {
        self.registry.by_name(account.as_str()).is_some_and(|entry| entry.summary().unsaved)
    }

    fn note(&self, account: &AccountName, event: JournalEvent, detail: String) {
        self.journal.record(account, event, detail);
    }

    fn replace<'a>(
        &'a self,
        grant: NewGrant,
    ) -> Pin<Box<dyn Future<Output = Result<AccountRecord, ReplaceError>> + Send + 'a>> {
        Box::pin(async move {
            let handed_in = grant.refresh.clone();
            let record = self.renewals.replace(grant).await?;
            self.known.learn(handed_in.expose(), &record.name);
            Ok(record)
        })
    }

    fn discover<'a>(
        &'a self,
        account: &'a AccountName,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>> {
        Box::pin(async move {
            let entry = self.registry.by_name(account.as_str()).ok_or("the account is gone")?;
            self.renewals.rediscover(&entry).await.map(|_| ()).map_err(sentence)
        })
    }

    fn renew<'a>(
        &'a self,
        account: &'a AccountName,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>> {
        Box::pin(async move {
            let entry = self.registry.by_name(account.as_str()).ok_or("the account is gone")?;
            let renewed = self.renewals.renew(&entry, entry.generation(), Cause::Operator).await;
            renewed.map(|_| ()).map_err(sentence)
        })
    }
}

fn sentence(problem: RenewError) -> String {
    match problem {
        RenewError::TooSoon { until } => {
            format!("refreshed a moment ago; the next refresh may go out at {until}")
        }
        RenewError::Paused => "the account is paused".to_owned(),
        RenewError::NeedsLogin { why, remedy, .. } => {
            format!("the account needs {}: {why}", remedy.need())
        }
        RenewError::Unavailable { detail, retry_at } => format!("{detail}; next try after {retry_at}"),
        RenewError::StillRunning => "the refresh is still under way".to_owned(),
    }
}

/// What the admin listener asks of the rest.
pub struct Workshop(pub Arc<Inner>);

impl Machinery for Workshop {
    fn metrics(&self) -> String {
        observe::refresh_gauges(&self.0);
        self.0.metrics.encode()
    }

    fn ready(&self) -> bool {
        !self.0.draining.load(Ordering::Relaxed)
    }

    fn readiness(&self) -> Pin<Box<dyn Future<Output = Readiness> + Send + '_>> {
        Box::pin(async {
            self.0.look_at_store().await;
            self.0.readiness()
        })
    }

    fn call(
        &self,
        account: AccountName,
        call: CallRequest,
    ) -> Pin<Box<dyn Future<Output = Result<CallResponse, String>> + Send + '_>> {
        Box::pin(self.0.operator.call(account, call))
    }

    fn rotate_key(&self) -> Pin<Box<dyn Future<Output = Result<Rotation, StoreError>> + Send + '_>> {
        Box::pin(async {
            super::refuse_stale_key(&self.0)?;
            self.0.store.rotate_key().await
        })
    }

    fn store_trouble(&self) -> Option<String> {
        self.0.store_health.describe_trouble()
    }

    fn log_trouble(&self) -> Option<String> {
        self.0.log_trouble()
    }

    fn clock_trouble(&self) -> Option<String> {
        self.0.corrections.recent_clock_change(self.0.shared.clock.now())
    }

    fn has_realm(&self, realm: &RealmName) -> bool {
        self.0.config.load().realms.contains_key(realm)
    }

    fn refusal_word(&self, number: u16) -> &'static str {
        RefusalCode::from_number(number).as_str()
    }

    fn catch_up(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.0.last_seen.catch_up())
    }

    fn callers_naming(&self, account: &AccountName) -> Vec<String> {
        let config = self.0.config.load();
        let literally = |pattern: &AccountPattern| matches!(pattern, AccountPattern::Name(name) if name == account.as_str());
        let naming = config.callers.iter().filter(|caller| caller.accounts.iter().any(literally));
        naming.map(|caller| caller.name.clone()).collect()
    }

    fn callers(&self) -> Vec<(String, LastSeen)> {
        let config = self.0.config.load();
        let names = config.callers.iter().map(|caller| caller.name.clone());
        names.map(|name| (name.clone(), self.0.last_seen.callers.read(&name))).collect()
    }
}

/// Probes have little patience, a second as a rule.
const PROBE_TIMEOUT: Duration = Duration::from_millis(700);

impl Inner {
    /// A fresh look for whoever asks in detail. Where the answer takes its time, what was known before is told instead.
    async fn look_at_store(&self) {
        let (health, store, clock) =
            (self.store_health.clone(), self.store.clone(), self.shared.clock.clone());
        let looking = tokio::spawn(async move { health.look(&*store, &clock).await });
        let _ = tokio::time::timeout(PROBE_TIMEOUT, looking).await;
    }

    /// The store may be out of order for a while without making the gateway unready: calls go on with what is held in memory.
    fn readiness(&self) -> Readiness {
        let draining = self.draining.load(Ordering::Relaxed);
        let alarms = self.renewals.alarms();
        let unsaved = alarms.unsaved_accounts + self.pairing.unsaved();
        let mut parts = vec![
            part("listeners", !draining, if draining { "draining" } else { "accepting" }.to_owned()),
            part(
                "store",
                self.store_health.describe_trouble().is_none(),
                self.store_health.describe_trouble().map_or_else(
                    || "takes writes".to_owned(),
                    |trouble| format!("{trouble}; calls go on with what is held in memory"),
                ),
            ),
            part(
                "saved_tokens",
                unsaved == 0,
                match unsaved {
                    0 => "all tokens are on the disk".to_owned(),
                    1 => "1 account has its newest tokens in memory only: do not stop the gateway".to_owned(),
                    some => format!(
                        "{some} accounts have their newest tokens in memory only: do not stop the gateway"
                    ),
                },
            ),
        ];
        parts.push(self.accounts_part());
        parts.push(self.logs_part());
        for realm in self.config.load().realms.keys() {
            let trouble = alarms.realms.iter().find(|(name, _)| name == realm);
            let detail =
                trouble.map_or_else(|| "in order".to_owned(), |(_, trouble)| trouble.sentence(realm));
            parts.push(part("realm", trouble.is_none(), format!("{realm}: {detail}")));
        }
        Readiness { ready: !draining, parts }
    }
}

impl Inner {
    /// One dead account among many is its own affair; where most of them are, something has happened to all.
    fn accounts_part(&self) -> Part {
        let realm_stats = self.registry.realm_stats();
        let count = |of: fn(&RealmStats) -> usize| realm_stats.values().map(of).sum::<usize>();
        let (ready, paused) = (count(|it| it.ready), count(|it| it.paused));
        let needs_login = count(|it| it.needs_login);
        let verb = if needs_login == 1 { "needs" } else { "need" };
        let mut detail = format!("{ready} ready, {needs_login} {verb} a login, {paused} paused");
        if needs_login > 0 {
            detail.push_str("; `genapi-gateway accounts list` names them");
        }
        part("accounts", needs_login == 0 || ready > needs_login, detail)
    }

    fn logs_part(&self) -> Part {
        let trouble = self.log_trouble();
        let lost = self.lines_lost() + self.journal.dropped();
        let is_well = trouble.is_none();
        let detail = trouble.unwrap_or_else(|| match lost {
            0 => "nothing was lost".to_owned(),
            lost => format!("{lost} lines were lost since the start, none of them lately"),
        });
        part("logs", is_well, detail)
    }

    fn lines_lost(&self) -> u64 {
        self.logs.dropped(LogKind::AccessLog) + self.logs.dropped(LogKind::Event)
    }

    /// Lines that were lost a while ago are for the metrics; here stands whether it still happens.
    fn log_trouble(&self) -> Option<String> {
        let (lines, entries, waits) = (self.lines_lost(), self.journal.dropped(), self.logs.blocked_for());
        let lately = self.losses.are_recent(lines + entries, self.shared.clock.now());
        if waits >= STALLED_READER {
            let lost = if lines > 0 {
                format!(", and {lines} lines were lost since the start")
            } else {
                String::new()
            };
            return Some(format!("nobody has read the log (standard error) for {} s{lost}", waits.as_secs()));
        }
        lately.then(|| {
            format!(
                "lines are being lost, since the disk or the reader of the log is too slow: {lines} of the log and {entries} of the journal since the start"
            )
        })
    }
}

/// A reader of the log that works takes its lines within milliseconds.
const STALLED_READER: Duration = Duration::from_secs(2);

/// Tells losses of the last minutes from older ones.
#[derive(Default)]
pub struct RecentLosses(Mutex<(u64, Option<Timestamp>)>);

/// After this long without a loss, all is well again.
const LATELY: Duration = Duration::from_secs(100);

impl RecentLosses {
    /// `lost` is the count since the start.
    fn are_recent(&self, lost: u64, now: Timestamp) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lost > known.0 {
            *known = (lost, Some(now));
        }
        known.1.is_some_and(|at| now.since(at) < LATELY)
    }
}

fn part(name: &'static str, ok: bool, detail: String) -> Part {
    Part { name, ok, detail }
}
