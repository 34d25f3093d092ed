//! The composition root: a configuration in, bound sockets, running tasks and a shutdown handle out.
//!
//! Reading order: `start` (five stages) → `data_plane` (a request meets gateway or token endpoint) →
//! `observe` (calls to metrics and activity) → `reload` → `replicas` → `run` (signals, drain).

mod allocator;
mod connectors;
mod data_plane;
mod legacy_host;
mod listeners;
mod observe;
mod operator;
pub mod preflight;
pub mod realms;
mod reload;
mod replicas;
mod run;
mod signing;
mod start;

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::task::JoinHandle;

use crate::access::application_grant_issuer::ApplicationGrantIssuer;
use crate::access::known_tokens::KnownTokens;
use crate::access::last_seen_sync::LastSeenSync;
use crate::access::registry::AccountRegistry;
use crate::access::renewal::Renewals;
use crate::config::{CallerConfig, Config};
use crate::gateway::GatewayShared;
use crate::health::Health;
use crate::journal::Journal;
use crate::journal::audit::AuditLog;
use crate::pairing::Pairing;
use crate::server::{ServerCounters, TlsCertificates, Workers};
use crate::store::Store;
use crate::telemetry::log_queue::LogQueue;
use crate::telemetry::metrics::Metrics;

pub use listeners::BoundAddresses;
pub use run::run_until_stopped;
pub use start::start;

use connectors::RealmConnectors;

/// A gateway that runs. Dropping it stops it at once; `stop` drains it.
pub struct Running {
    pub bound: BoundAddresses,
    state: Arc<RunningState>,
    data: Workers,
    admin: Workers,
    public: Option<Workers>,
    tasks: Vec<JoinHandle<()>>,
}

/// What lives as long as the gateway.
struct RunningState {
    control: ControlPlane,
    data: DataPlane,
    lifecycle: Lifecycle,
}

/// What accounts are known, and what keeps their access alive: on the control runtime.
#[derive(Clone)]
struct ControlPlane {
    store: Arc<dyn Store>,
    registry: Arc<AccountRegistry>,
    renewals: Renewals,
    pairing: Arc<Pairing>,
    known_tokens: Arc<KnownTokens>,
    application_grants: ApplicationGrantIssuer,
    journal: Journal,
    last_seen: Arc<LastSeenSync>,
}

/// What the workers share, and what a reload swaps under them.
struct DataPlane {
    shared: Arc<GatewayShared>,
    connectors: RealmConnectors,
    /// The caller that stands for the operator; no configuration has it.
    operator: CallerConfig,
    counters: Arc<ServerCounters>,
    certificates: Vec<Arc<TlsCertificates>>,
}

/// The configuration in force, and what monitors the whole: health, metrics, logs.
struct Lifecycle {
    config: Arc<ArcSwap<Config>>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    logs: LogQueue,
    audit: AuditLog,
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
        self.state.lifecycle.config.load_full()
    }

    pub fn registry(&self) -> &Arc<AccountRegistry> {
        &self.state.control.registry
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.state.control.store
    }

    pub fn journal(&self) -> &Journal {
        &self.state.control.journal
    }
}
