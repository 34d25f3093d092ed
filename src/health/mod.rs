//! The state of the gateway: what `/readyz?verbose`, the metrics and `explain` tell of store, clock, log,
//! tokens and realms. The rule: nobody waits for a result. What is slow is looked at in the background, and
//! what was found last is shown.

pub mod clock;
mod logs;
pub mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Serialize;

use crate::access::registry::AccountRegistry;
use crate::access::renewal::Renewals;
use crate::access::stats::RealmStats;
use crate::clock::Clock;
use crate::config::Config;
use crate::journal::Journal;
use crate::pairing::Pairing;
use crate::store::Store;
use crate::telemetry::log_queue::{LogKind, LogQueue};

use clock::Corrections;
use logs::RecentLosses;
use store::StoreHealth;

/// Probes wait a second as a rule.
const PROBE_TIMEOUT: Duration = Duration::from_millis(700);
/// A reader of the log that works takes its lines within milliseconds.
const STALLED_READER: Duration = Duration::from_secs(2);

/// Whether callers can be served, and what each part says.
#[derive(Debug, Clone, Serialize)]
pub struct Readiness {
    pub ready: bool,
    pub parts: Vec<ReadinessPart>,
}

#[derive(Debug, Clone, Serialize)]
pub struct ReadinessPart {
    pub name: &'static str,
    pub ok: bool,
    pub detail: String,
}

/// What the state of the gateway is read from.
pub struct HealthParts {
    pub clock: Clock,
    pub config: Arc<ArcSwap<Config>>,
    pub store: Arc<dyn Store>,
    pub registry: Arc<AccountRegistry>,
    pub renewals: Renewals,
    pub pairing: Arc<Pairing>,
    pub journal: Journal,
    pub logs: LogQueue,
    pub corrections: Arc<Corrections>,
}

pub struct Health {
    parts: HealthParts,
    store: Arc<StoreHealth>,
    losses: RecentLosses,
    draining: AtomicBool,
}

impl Health {
    pub fn new(parts: HealthParts) -> Self {
        Self {
            parts,
            store: Arc::default(),
            losses: RecentLosses::default(),
            draining: AtomicBool::new(false),
        }
    }

    /// Whether calls can be taken; answers at once.
    pub fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed)
    }

    /// From now on balancers are told to send no more requests.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// What was found last of the store, kept fresh by [`store::watch`].
    pub fn store(&self) -> &Arc<StoreHealth> {
        &self.store
    }

    /// Accounts whose newest tokens are in memory only.
    pub fn unsaved_accounts(&self) -> usize {
        self.parts.renewals.alarms().unsaved_accounts + self.parts.pairing.unsaved()
    }

    /// What ails the store, as far as is known.
    pub fn store_trouble(&self) -> Option<String> {
        self.store.describe_trouble()
    }

    /// That this machine's clock was set lately, as a sentence without its stop.
    pub fn clock_trouble(&self) -> Option<String> {
        self.parts.corrections.recent_clock_change(self.parts.clock.now())
    }

    /// What keeps log lines from being written, as a sentence without its stop. Lines that were lost a while
    /// ago are for the metrics; here stands whether it still happens.
    pub fn log_trouble(&self) -> Option<String> {
        let (lines, entries) = (self.lines_lost(), self.parts.journal.dropped());
        let lately = self.losses.are_recent(lines + entries, self.parts.clock.now());
        let waits = self.parts.logs.blocked_for();
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
                "lines are being lost, since the disk or the reader of the log is too slow: {lines} of the log and \
                 {entries} of the journal since the start"
            )
        })
    }

    /// Every part, with a fresh look at the store. A store in trouble does not make the gateway unready:
    /// calls go on with what is held in memory.
    pub async fn readiness(&self) -> Readiness {
        self.probe_store().await;
        let ready = self.is_ready();
        let mut parts = vec![
            part("listeners", ready, if ready { "accepting" } else { "draining" }.to_owned()),
            self.store_part(),
            self.saved_tokens_part(),
            self.accounts_part(),
            self.logs_part(),
        ];
        parts.extend(self.realm_parts());
        Readiness { ready, parts }
    }

    /// Where the store does not answer in time, the last result is shown.
    async fn probe_store(&self) {
        let (health, store, clock) = (self.store.clone(), self.parts.store.clone(), self.parts.clock.clone());
        let looking = tokio::spawn(async move { health.look(&*store, &clock).await });
        let _ = tokio::time::timeout(PROBE_TIMEOUT, looking).await;
    }

    fn store_part(&self) -> ReadinessPart {
        match self.store_trouble() {
            None => part("store", true, "takes writes".to_owned()),
            Some(trouble) => {
                part("store", false, format!("{trouble}; calls go on with what is held in memory"))
            }
        }
    }

    fn saved_tokens_part(&self) -> ReadinessPart {
        let unsaved = self.unsaved_accounts();
        let detail = match unsaved {
            0 => "all tokens are on the disk".to_owned(),
            1 => "1 account has its newest tokens in memory only: do not stop the gateway".to_owned(),
            some => {
                format!("{some} accounts have their newest tokens in memory only: do not stop the gateway")
            }
        };
        part("saved_tokens", unsaved == 0, detail)
    }

    /// One dead account among many is its own affair; where most of them are dead, something has happened to
    /// all.
    fn accounts_part(&self) -> ReadinessPart {
        let realm_stats = self.parts.registry.realm_stats();
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

    fn logs_part(&self) -> ReadinessPart {
        let trouble = self.log_trouble();
        let lost = self.lines_lost() + self.parts.journal.dropped();
        let is_well = trouble.is_none();
        let detail = trouble.unwrap_or_else(|| match lost {
            0 => "nothing was lost".to_owned(),
            lost => format!("{lost} lines were lost since the start, none of them lately"),
        });
        part("logs", is_well, detail)
    }

    fn realm_parts(&self) -> Vec<ReadinessPart> {
        let alarms = self.parts.renewals.alarms();
        let of_realm = |realm| {
            let trouble = alarms.realms.iter().find(|(name, _)| name == realm);
            let detail =
                trouble.map_or_else(|| "in order".to_owned(), |(_, trouble)| trouble.sentence(realm));
            part("realm", trouble.is_none(), format!("{realm}: {detail}"))
        };
        self.parts.config.load().realms.keys().map(of_realm).collect()
    }

    fn lines_lost(&self) -> u64 {
        self.parts.logs.dropped(LogKind::AccessLog) + self.parts.logs.dropped(LogKind::Event)
    }
}

fn part(name: &'static str, ok: bool, detail: String) -> ReadinessPart {
    ReadinessPart { name, ok, detail }
}
