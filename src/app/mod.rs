//! The composition root: a configuration in, bound sockets, running tasks and a shutdown handle out.
//!
//! Reading order: `start` (this file) → `data_plane` (a request meets gateway or facade) → `adapters` (what rooms tell each other) →
//! `observe` (calls to metrics and signals) → `store_health` → `reload` → `run` (signals, drain).

mod adapters;
mod allocator;
mod connectors;
mod corrections;
mod data_plane;
mod last_seen;
mod listeners;
mod observe;
mod operator;
pub mod preflight;
pub mod realms;
mod reload;
mod replicas;
mod run;
mod store_health;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::access::registry::AccountRegistry;
use crate::access::renewal::{self, Renewals};
use crate::admin::{self, Admin, Guard};
use crate::clock::Clock;
use crate::config::{self, Config, secret};
use crate::facade::{KnownTokens, TokenEndpoint};
use crate::gateway::inbound::token::TokenKey;
use crate::gateway::settings::GatewaySettings;
use crate::gateway::{AccessLog, GatewayShared};
use crate::journal::Journal;
use crate::journal::audit::AuditLog;
use crate::model::account::AccountName;
use crate::model::endpoint;
use crate::pairing::{self, Pairing};
use crate::public;
use crate::server::{self, InheritedSockets, ServerCounters, TlsCertificates, Workers};
use crate::store::cluster::ReplicaId;
use crate::store::{self, Store, StoreError, key_file};
use crate::telemetry::log_queue::LogQueue;
use crate::telemetry::metrics::Metrics;

pub use listeners::BoundAddresses;
pub use run::run_until_stopped;

use adapters::PairingAdapter;
use connectors::RealmConnectors;
use corrections::Corrections;
use last_seen::{CallerActivity, LastSeenSync};
use listeners::Sockets;
use observe::WorkerObservers;
use operator::Operator;
use store_health::StoreHealth;

/// A gateway that runs. Dropping it stops it at once; `stop` drains it.
pub struct Running {
    pub bound: BoundAddresses,
    inner: Arc<Inner>,
    data: Workers,
    admin: Workers,
    public: Option<Workers>,
    tasks: Vec<JoinHandle<()>>,
}

/// What lives as long as the gateway and what a reload changes.
struct Inner {
    config: ArcSwap<Config>,
    store: Arc<dyn Store>,
    registry: Arc<AccountRegistry>,
    renewals: Renewals,
    pairing: Arc<Pairing>,
    known: Arc<KnownTokens>,
    journal: Journal,
    audit: AuditLog,
    metrics: Arc<Metrics>,
    logs: LogQueue,
    shared: Arc<GatewayShared>,
    connectors: RealmConnectors,
    operator: Operator,
    certificates: Vec<Arc<TlsCertificates>>,
    counters: Arc<ServerCounters>,
    store_health: Arc<StoreHealth>,
    losses: adapters::RecentLosses,
    last_seen: Arc<LastSeenSync>,
    corrections: Arc<Corrections>,
    draining: std::sync::atomic::AtomicBool,
}

/// Binds, opens, loads and starts everything. Runs on the control runtime, which must outlive what it returns.
pub async fn start(
    config: Config,
    clock: Clock,
    inherited: &mut InheritedSockets,
) -> anyhow::Result<Running> {
    let store = store::open(&config.store, clock.clone()).await.context("the store cannot be opened")?;
    let sockets = Sockets::bind(&config, inherited)?;
    let bound = sockets.bound();
    let config = bound.resolve_ports(config);
    let realms = realms::build_all(&config)?;

    // Before the accounts are read, so that nothing falls between.
    let newest_change = match store.cluster() {
        Some(cluster) => cluster.newest_change().await.context("the store cannot be read")?,
        None => 0,
    };
    let corrections = Arc::new(Corrections::default());
    let brought_down = corrections.clamp_future_times(&*store).await;
    let registry = Arc::new(AccountRegistry::new(realms::rules(&config)));
    let mut take = |record| drop(registry.apply(record));
    let broken = store.each_account(&mut take).await.context("the accounts cannot be read")?;
    for (account, why) in &broken {
        tracing::error!(%account, why, "the account's record cannot be read; it is left out and all others are served");
    }
    let journal = Journal::start(store.clone(), clock.clone());
    corrections::note(&brought_down, &journal);
    let audit = AuditLog::open(&config.admin.audit, clock.clone())?;
    let renewals = Renewals::new(renewal::RenewalParts {
        clock: clock.clone(),
        store: store.clone(),
        registry: registry.clone(),
        platforms: realms::control_calls(&realms),
        journal: journal.clone(),
        settings: config.renewal.clone(),
        runtime: Handle::current(),
        replica: ReplicaId::new(&host_name()).context("this gateway cannot be given a name")?,
    });
    let known = store.known_tokens().await.context("the known tokens cannot be read")?;
    // One copy of each long name (short ones are stored in place): there are as many of these as accounts.
    let same_name = |(hash, name): ([u8; 32], AccountName)| {
        let entry = registry.by_name(name.as_str());
        (hash, entry.map_or(name, |entry| entry.name.clone()))
    };
    let known = Arc::new(KnownTokens::load(known.into_iter().map(same_name)));
    let pairing = Pairing::new(pairing::PairingParts {
        clock: clock.clone(),
        store: store.clone(),
        realms: realms::for_pairing(&config, &realms),
        retry: config.retry.clone(),
        hooks: Arc::new(PairingAdapter {
            registry: registry.clone(),
            renewals: renewals.clone(),
            journal: journal.clone(),
            known: known.clone(),
        }),
    });

    let metrics = Arc::new(Metrics::new(&endpoint_names(), env!("CARGO_PKG_VERSION")));
    let callers = Arc::new(CallerActivity::default());
    let observers = Arc::new(WorkerObservers::new(metrics.clone(), callers.clone()));
    let last_seen = Arc::new(LastSeenSync::new(store.clone(), registry.clone(), clock.clone(), callers));
    let (operator_key, operator_caller) = operator::caller()?;
    let secrets = signing_secrets(&config)?;
    // A gateway inside another program (a demo, a test) may have none.
    let logs = match LogQueue::current() {
        Some(queue) => queue,
        None => LogQueue::start(std::io::stderr()).context("the log's thread cannot be started")?,
    };
    let access_log = config.log.access.then(|| AccessLog::new(config.log.format, logs.clone()));
    let shared = Arc::new(GatewayShared::new(
        GatewaySettings::compile(&operator::with(&config, operator_caller.clone())),
        token_key(&secrets).with_process_start(clock.now()),
        clock.clone(),
        &instance(&secrets.0),
        access_log,
    ));
    let facade =
        Arc::new(TokenEndpoint { shared: shared.clone(), known: known.clone(), registry: registry.clone() });
    let connectors = RealmConnectors::new(&realms);
    let maker = Arc::new(data_plane::HandlerFactory {
        shared: shared.clone(),
        registry: registry.clone(),
        renewals: renewals.clone(),
        connectors: connectors.clone(),
        observers,
        facade,
    });
    let operator = Operator::start(maker.clone(), operator_key, operator_caller)?;

    let counters = Arc::new(ServerCounters::default());
    let certificates = listeners::ListenerCertificates::load(&config)?;
    let inner = Arc::new(Inner {
        config: ArcSwap::from_pointee(config.clone()),
        store: store.clone(),
        registry: registry.clone(),
        renewals: renewals.clone(),
        pairing: pairing.clone(),
        known: known.clone(),
        journal: journal.clone(),
        audit: audit.clone(),
        metrics,
        logs,
        shared,
        connectors,
        operator,
        certificates: certificates.all(),
        counters: counters.clone(),
        store_health: Arc::default(),
        losses: adapters::RecentLosses::default(),
        last_seen: last_seen.clone(),
        corrections: corrections.clone(),
        draining: false.into(),
    });
    observe::watch(&inner);

    let token = secret::read_or_make(&config.admin.token, ADMIN_TOKEN_BYTES, &config::process_env);
    let (token, made) = token.context("[admin] token")?;
    if made {
        tracing::info!(token = %config.admin.token, "the admin token was made");
    }
    let admin_state = Arc::new(Admin {
        clock: clock.clone(),
        registry,
        renewals: renewals.clone(),
        store,
        pairing: pairing.clone(),
        audit: Arc::new(audit),
        machinery: Arc::new(adapters::Workshop(inner.clone())),
    });
    let admin_router =
        admin::router(admin_state, Guard::new(&token, clock.clone())).merge(public::routes(pairing.clone()));

    let limits = listeners::limits(&config);
    let data = Workers::start(
        sockets.data,
        server::ServerOptions {
            name: "data",
            limits: limits.clone(),
            trusted_proxies: config.gateway.trusted_proxies.clone().into(),
            tls: certificates.data,
            counters,
        },
        maker,
    )?;
    let control = Handle::current();
    let plain = |name, tls| server::ServerOptions {
        name,
        limits: limits.clone(),
        trusted_proxies: Arc::new([]),
        tls,
        counters: Arc::default(),
    };
    let admin = server::serve_router(
        sockets.admin,
        plain("admin", certificates.admin),
        admin_router,
        control.clone(),
    )?;
    let public = sockets.public.map(|listeners| {
        server::serve_router(
            listeners,
            plain("public", certificates.public),
            public::router(pairing),
            control,
        )
    });
    let public = public.transpose()?;
    let tasks = vec![
        renewals.keep(),
        renewals.watch_quiet_accounts(),
        tokio::spawn(reload::watch_certificates(inner.clone())),
        tokio::spawn(replicas::follow(inner.clone(), newest_change)),
        tokio::spawn(store_health::watch(inner.store_health.clone(), inner.store.clone(), clock.clone())),
        tokio::spawn(corrections.run(inner.store.clone(), clock, journal)),
        tokio::spawn(last_seen.run()),
    ];
    Ok(Running { bound, inner, data, admin, public, tasks })
}

/// 256 bits.
const ADMIN_TOKEN_BYTES: usize = 32;

fn endpoint_names() -> Vec<&'static str> {
    endpoint::TABLE.iter().map(|row| row.name).collect()
}

/// Gateway tokens are signed with a secret that follows from the store's key, so that they outlive a restart and every replica reads
/// them. Those that follow from older keys still read, so that a change of keys ends no token: first that of the sealing key.
fn signing_secrets(config: &Config) -> Result<([u8; 32], Vec<[u8; 32]>), StoreError> {
    let environment = |name: &str| std::env::var_os(name);
    let mut secrets = key_file::derive(&config.store.key, "gateway tokens, version 1", &environment)?;
    let signing = secrets.remove(0);
    Ok((signing, secrets))
}

fn token_key((signing, older): &([u8; 32], Vec<[u8; 32]>)) -> TokenKey {
    older.iter().fold(TokenKey::new(signing), TokenKey::with_older_key)
}

/// Before a rotation: the key that seals here is the one that stands first in the file now.
fn refuse_stale_key(inner: &Inner) -> Result<(), StoreError> {
    let (first, _) = signing_secrets(&inner.config.load())?;
    if instance(&first) == inner.shared.instance {
        Ok(())
    } else {
        Err(StoreError::Refused(
            "the first line of the store's key is not the key that this gateway seals with: restart the gateway, so that it \
             takes the new one, then rotate"
                .to_owned(),
        ))
    }
}

/// Tells people where a lease is held.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "gateway".to_owned(),
        name => name.to_owned(),
    }
}

/// Names this gateway in `Via`: the same for all replicas, and another one for a gateway that may rightly stand behind this one.
fn instance(secret: &[u8; 32]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret);
    digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

impl Running {
    pub fn data_addr(&self) -> Option<SocketAddr> {
        self.bound.data.first().copied()
    }

    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.bound.admin.first().copied()
    }

    /// The configuration in force, with the ports that were bound.
    pub fn config(&self) -> Arc<Config> {
        self.inner.config.load_full()
    }

    pub fn registry(&self) -> &Arc<AccountRegistry> {
        &self.inner.registry
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    pub fn journal(&self) -> &Journal {
        &self.inner.journal
    }
}
