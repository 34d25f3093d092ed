//! The start, in five stages, each of which returns what the next needs: sockets and store, accounts, control
//! plane, data plane, listeners. What can fail for good fails before the first call is taken.

use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use tokio::runtime::Handle;

use crate::access::application_grant_issuer::ApplicationGrantIssuer;
use crate::access::application_grants::ApplicationGrants;
use crate::access::known_tokens::KnownTokens;
use crate::access::last_seen_sync::{CallerActivity, LastSeenSync};
use crate::access::registry::AccountRegistry;
use crate::access::renewal::{self, Renewals};
use crate::admin::{self, Admin, Guard, OperatorCalls};
use crate::clock::Clock;
use crate::config::{self, Config, secret};
use crate::facade::{AdoptionPace, OAuthFacade};
use crate::gateway::refusal::RefusalCode;
use crate::gateway::settings::GatewaySettings;
use crate::gateway::{self, AccessLog, GatewayShared};
use crate::health::clock::Corrections;
use crate::health::{self, Health, HealthParts};
use crate::journal::Journal;
use crate::journal::audit::AuditLog;
use crate::model::account::{AccountName, RealmName};
use crate::model::endpoint;
use crate::pairing::{self, ApplicationClient, Pairing};
use crate::public;
use crate::server::{self, InheritedSockets, ServerCounters, ServerOptions, TlsCertificates, Workers};
use crate::store::cluster::ReplicaId;
use crate::store::{self, Store};
use crate::telemetry::log_queue::LogQueue;
use crate::telemetry::metrics::Metrics;

use super::connectors::RealmConnectors;
use super::data_plane::HandlerFactory;
use super::listeners::{self, BoundAddresses, ListenerCertificates, Sockets};
use super::observe::{self, WorkerObservers};
use super::operator::{self, Operator};
use super::realms::{self, RealmParts};
use super::signing::{self, SigningSecrets};
use super::{ControlPlane, DataPlane, Lifecycle, Running, RunningState, reload, replicas};

/// 256 bits.
const ADMIN_TOKEN_BYTES: usize = 32;

/// Binds, opens, loads and starts everything. Runs on the control runtime, which must outlive what it
/// returns.
pub async fn start(
    config: Config,
    clock: Clock,
    inherited: &mut InheritedSockets,
) -> anyhow::Result<Running> {
    let (base, sockets) = Base::open(config, clock, inherited).await?;
    let accounts = LoadedAccounts::load(&base).await?;
    let (control, callers) = control_plane(&base, &accounts).await?;
    let (state, front) = data_plane(&base, &accounts, control, callers)?;
    listen(base, accounts, state, front, sockets)
}

/// The first stage: sockets are bound and the store is open, so that a taken port or a locked database is an
/// error and not half a gateway.
struct Base {
    clock: Clock,
    /// With the ports that were bound.
    config: Config,
    bound: BoundAddresses,
    store: Arc<dyn Store>,
    realms: BTreeMap<RealmName, RealmParts>,
}

impl Base {
    async fn open(
        config: Config,
        clock: Clock,
        inherited: &mut InheritedSockets,
    ) -> anyhow::Result<(Self, Sockets)> {
        let store = store::open(&config.store, clock.clone()).await.context("the store cannot be opened")?;
        let sockets = Sockets::bind(&config, inherited)?;
        let bound = sockets.bound();
        let config = bound.resolve_ports(config);
        let via = gateway::via_header(&SigningSecrets::derive(&config)?.instance());
        let realms = realms::build_all(&config, &via)?;
        Ok((Self { clock, config, bound, store, realms }, sockets))
    }
}

/// The second stage: every account is in memory.
struct LoadedAccounts {
    registry: Arc<AccountRegistry>,
    journal: Journal,
    corrections: Arc<Corrections>,
    /// The newest change of another gateway that is in `registry` already.
    newest_change: u64,
}

impl LoadedAccounts {
    async fn load(base: &Base) -> anyhow::Result<Self> {
        let store = &base.store;
        // Before the accounts are read, so that nothing falls between.
        let newest_change = match store.cluster() {
            Some(cluster) => cluster.newest_change().await.context("the store cannot be read")?,
            None => 0,
        };
        let corrections = Arc::new(Corrections::default());
        let corrected = corrections.clamp_future_times(&**store).await;
        let registry = Arc::new(AccountRegistry::new(realms::rules(&base.config)));
        let mut take = |record| drop(registry.apply(record));
        let broken = store.each_account(&mut take).await.context("the accounts cannot be read")?;
        for (account, why) in &broken {
            tracing::error!(%account, why, "the account's record cannot be read; it is left out and all others are served");
        }
        let journal = Journal::start(store.clone(), base.clock.clone());
        health::clock::note(&corrected, &journal);
        Ok(Self { registry, journal, corrections, newest_change })
    }
}

/// The third stage: what renews and pairs accounts.
async fn control_plane(
    base: &Base,
    accounts: &LoadedAccounts,
) -> anyhow::Result<(ControlPlane, Arc<CallerActivity>)> {
    let (registry, journal, store) = (&accounts.registry, &accounts.journal, &base.store);
    let renewals = Renewals::new(renewal::RenewalParts {
        clock: base.clock.clone(),
        store: store.clone(),
        registry: registry.clone(),
        platforms: realms::control_calls(&base.realms),
        journal: journal.clone(),
        settings: base.config.renewal.clone(),
        runtime: Handle::current(),
        replica: ReplicaId::new(&host_name()).context("this gateway cannot be given a name")?,
    });
    let known_tokens = Arc::new(load_known_tokens(&**store, registry).await?);
    let pairing = Pairing::new(pairing::PairingParts {
        clock: base.clock.clone(),
        store: store.clone(),
        realms: realms::for_pairing(&base.config, &base.realms),
        applications: ApplicationClient::all(&base.config.callers),
        retry: base.config.retry.clone(),
        registry: registry.clone(),
        renewals: renewals.clone(),
        journal: journal.clone(),
        known_tokens: known_tokens.clone(),
    });
    let callers = Arc::new(CallerActivity::default());
    let last_seen = LastSeenSync::new(store.clone(), registry.clone(), base.clock.clone(), callers.clone());
    let control = ControlPlane {
        store: store.clone(),
        registry: registry.clone(),
        renewals,
        pairing,
        application_grants: ApplicationGrantIssuer::new(
            store.clone(),
            known_tokens.application_grants.clone(),
            journal.clone(),
            Handle::current(),
        ),
        known_tokens,
        journal: journal.clone(),
        last_seen: Arc::new(last_seen),
    };
    Ok((control, callers))
}

async fn load_known_tokens(store: &dyn Store, registry: &AccountRegistry) -> anyhow::Result<KnownTokens> {
    let known = store.known_tokens().await.context("the known tokens cannot be read")?;
    // One copy of each long name (short ones are stored in place): there are as many of these as accounts.
    let same_name = |(hash, name): ([u8; 32], AccountName)| {
        let account = registry.by_name(name.as_str());
        (hash, account.map_or(name, |account| account.name.clone()))
    };
    let grants = store.application_grants(None).await.context("the grants of applications cannot be read")?;
    let grants = ApplicationGrants::load(grants).shared(store.cluster().is_some());
    Ok(KnownTokens::load(known.into_iter().map(same_name), grants))
}

/// What the listeners are given.
struct Front {
    factory: Arc<HandlerFactory>,
    operator: OperatorCalls,
    certificates: ListenerCertificates,
}

/// The fourth stage: the request path, its metrics and its logs.
fn data_plane(
    base: &Base,
    accounts: &LoadedAccounts,
    control: ControlPlane,
    callers: Arc<CallerActivity>,
) -> anyhow::Result<(Arc<RunningState>, Front)> {
    let names: Vec<&str> = endpoint::TABLE.iter().map(|row| row.name).collect();
    let metrics = Arc::new(Metrics::new(&names, env!("CARGO_PKG_VERSION")));
    // A gateway inside another program (a demo, a test) may have none.
    let logs = match LogQueue::current() {
        Some(queue) => queue,
        None => LogQueue::start(std::io::stderr()).context("the log's thread cannot be started")?,
    };
    let (operator_key, operator) = operator::caller()?;
    let shared = gateway_shared(base, &control, operator.clone(), &logs)?;
    let connectors = RealmConnectors::new(&base.realms);
    let factory = Arc::new(HandlerFactory {
        shared: shared.clone(),
        registry: control.registry.clone(),
        renewals: control.renewals.clone(),
        connectors: connectors.clone(),
        observers: Arc::new(WorkerObservers::new(metrics.clone(), callers)),
        facade: Arc::new(OAuthFacade {
            shared: shared.clone(),
            known_tokens: control.known_tokens.clone(),
            issuer: control.application_grants.clone(),
            registry: control.registry.clone(),
            pairing: control.pairing.clone(),
            runtime: Handle::current(),
            adoption_pace: AdoptionPace::default(),
        }),
    });
    let certificates = ListenerCertificates::load(&base.config, &base.clock)?;
    let counters = Arc::new(ServerCounters::default());
    let data = DataPlane { shared, connectors, operator, counters, certificates: certificates.all() };
    let lifecycle = lifecycle(base, accounts, &control, metrics, logs)?;
    let operator = Operator::start(factory.clone(), operator_key)?;
    let state = Arc::new(RunningState { control, data, lifecycle });
    observe::watch(&state, &accounts.corrections);
    Ok((state, Front { factory, operator, certificates }))
}

fn gateway_shared(
    base: &Base,
    control: &ControlPlane,
    operator: config::CallerConfig,
    logs: &LogQueue,
) -> anyhow::Result<Arc<GatewayShared>> {
    let secrets = SigningSecrets::derive(&base.config)?;
    let log = &base.config.log;
    Ok(Arc::new(GatewayShared::new(
        GatewaySettings::compile(&operator::with(&base.config, operator)),
        secrets
            .token_key()
            .with_process_start(base.clock.now())
            .with_application_grants(control.known_tokens.application_grants.clone()),
        base.clock.clone(),
        &secrets.instance(),
        log.access.then(|| AccessLog::new(log.format, logs.clone())),
    )))
}

fn lifecycle(
    base: &Base,
    accounts: &LoadedAccounts,
    control: &ControlPlane,
    metrics: Arc<Metrics>,
    logs: LogQueue,
) -> anyhow::Result<Lifecycle> {
    let config = Arc::new(ArcSwap::from_pointee(base.config.clone()));
    let health = Arc::new(Health::new(HealthParts {
        clock: base.clock.clone(),
        config: config.clone(),
        store: control.store.clone(),
        registry: control.registry.clone(),
        renewals: control.renewals.clone(),
        pairing: control.pairing.clone(),
        journal: control.journal.clone(),
        logs: logs.clone(),
        corrections: accounts.corrections.clone(),
    }));
    let audit = AuditLog::open(&base.config.admin.audit, base.clock.clone())?;
    Ok(Lifecycle { config, health, metrics, logs, audit })
}

/// The fifth stage: calls are taken, and what runs beside them begins.
fn listen(
    base: Base,
    accounts: LoadedAccounts,
    state: Arc<RunningState>,
    front: Front,
    sockets: Sockets,
) -> anyhow::Result<Running> {
    let Front { factory, operator, certificates } = front;
    let limits = listeners::limits(&base.config);
    let options = |name, tls: Option<Arc<TlsCertificates>>| ServerOptions {
        name,
        limits: limits.clone(),
        trusted_proxies: Arc::new([]),
        tls,
        forward_proxy: None,
        counters: Arc::default(),
    };
    let data_options = ServerOptions {
        trusted_proxies: base.config.gateway.trusted_proxies.clone().into(),
        counters: state.data.counters.clone(),
        forward_proxy: certificates.forward_proxy,
        ..options("data", certificates.data)
    };
    let pairing = state.control.pairing.clone();
    let token = admin_token(&base.config)?;
    let router = admin::router(admin_state(&base, &state, operator), Guard::new(&token, base.clock.clone()))
        .merge(public::routes(pairing.clone()));
    let data = Workers::start(sockets.data, data_options, factory)?;
    let control = Handle::current();
    let admin_options = options("admin", certificates.admin);
    let admin = server::serve_router(sockets.admin, admin_options, router, control.clone())?;
    let public = sockets.public.map(|listeners| {
        let options = options("public", certificates.public);
        server::serve_router(listeners, options, public::router(pairing), control)
    });
    let public = public.transpose()?;
    let LoadedAccounts { journal, corrections, newest_change, .. } = accounts;
    let (store, clock) = (&base.store, &base.clock);
    let store_health = state.lifecycle.health.store().clone();
    let tasks = vec![
        state.control.renewals.start_scheduler(),
        state.control.renewals.watch_quiet_accounts(),
        tokio::spawn(reload::watch_certificates(state.clone())),
        tokio::spawn(replicas::follow(state.control.clone(), newest_change)),
        tokio::spawn(health::store::watch(store_health, store.clone(), clock.clone())),
        tokio::spawn(corrections.run(store.clone(), clock.clone(), journal)),
        tokio::spawn(state.control.last_seen.clone().run()),
    ];
    Ok(Running { bound: base.bound, state, data, admin, public, tasks })
}

/// Reads the admin token, or makes it at the first start.
fn admin_token(config: &Config) -> anyhow::Result<String> {
    let token = secret::read_or_make(&config.admin.token, ADMIN_TOKEN_BYTES, &config::process_env);
    let (token, made) = token.context("[admin] token")?;
    if made {
        tracing::info!(token = %config.admin.token, "the admin token was made");
    }
    Ok(token)
}

fn admin_state(base: &Base, state: &Arc<RunningState>, operator: OperatorCalls) -> Arc<Admin> {
    let (control, lifecycle) = (&state.control, &state.lifecycle);
    let (config, instance) = (lifecycle.config.clone(), state.data.shared.instance.clone());
    let observed = state.clone();
    Arc::new(Admin {
        clock: base.clock.clone(),
        config: lifecycle.config.clone(),
        registry: control.registry.clone(),
        renewals: control.renewals.clone(),
        store: control.store.clone(),
        pairing: control.pairing.clone(),
        last_seen: control.last_seen.clone(),
        health: lifecycle.health.clone(),
        audit: Arc::new(lifecycle.audit.clone()),
        operator,
        refusal_code: |number| RefusalCode::from_number(number).as_str(),
        scrape: Box::new(move || observe::encode(&observed)),
        refuse_stale_key: Box::new(move || signing::refuse_stale_key(&config, &instance)),
    })
}

/// Tells people where a lease is held.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "gateway".to_owned(),
        name => name.to_owned(),
    }
}
