//! Our stand-in for iTero: tests, `demo`, `sandbox` and the benches run against it.
//! It shares nothing with the gateway but the clock, so that the two can disagree.

mod api;
pub mod assets;
mod behavior;
pub mod browser;
mod compression;
mod context;
mod control;
mod deliver;
mod downloads;
mod duration_text;
pub mod endpoint;
mod fault_replies;
pub mod faults;
pub mod gateway_files;
mod handle;
mod host_role;
mod id_token;
mod invalid_tokens;
mod listeners;
mod login;
mod login_tickets;
mod oauth;
mod options;
mod orders;
mod patients;
mod peer_stream;
mod procedures;
mod quirks;
pub mod record;
mod reply;
mod request;
pub mod saved;
mod serve;
mod state;
mod storage;
#[cfg(test)]
mod tests;
mod tls;
mod tokens;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

pub use behavior::{
    Behavior, DomainForm, DownloadedWhen, LARGEST_TOKEN, LinkForm, NewPlatformDiffers, StatusForm,
};
pub use endpoint::Endpoint;
pub use faults::{Fault, FaultRule, Gate, InvalidTokens};
pub use host_role::{FIRST_PATH, HostRole, Platform, Region, V1_PATH, V2_PATH};
pub use options::{CertificateKind, Client, Clients, DEFAULT_REDIRECT, SandboxOptions};
pub use orders::ASSET_TYPES;
pub use quirks::{BodyEncoding, CustomResponse, ResponseQuirks};
pub use record::{CallEnd, RecordedCall};
pub use state::{AccountKind, AccountSpec, CreatedRx, User};

use context::SandboxContext;
use faults::FaultRules;
use listeners::HostListeners;
use record::CallRecorder;
use state::SandboxState;

/// A running sandbox. Dropping it ends its tasks and connections.
pub struct Sandbox {
    handle: Handle,
    listeners: HostListeners,
}

/// The steering part, for as many tasks as want it. It does not keep the sandbox running.
#[derive(Clone)]
pub struct Handle {
    context: Arc<SandboxContext>,
}

impl std::ops::Deref for Sandbox {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Sandbox {
    /// Binds every address and serves until it is stopped or dropped. It begins without accounts.
    pub async fn start(options: SandboxOptions) -> anyhow::Result<Self> {
        let SandboxOptions {
            clock,
            bind,
            ports,
            same_ports,
            tls,
            identity,
            certificate,
            host_names,
            behavior,
            clients,
            control,
            keep_calls,
        } = options;
        let authority = tls.then(|| tls::authority(bind, certificate, identity)).transpose()?;
        let bound = listeners::bind(bind, ports, &same_ports, control).await?;
        let mut addresses = std::collections::HashMap::new();
        for (role, listener) in &bound {
            addresses.insert(*role, reachable(listener.local_addr()?));
        }
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| anyhow::anyhow!("no random numbers"))?;
        let (identity, acceptor) = authority.map(|made| (made.identity, made.acceptor)).unzip();
        let context = Arc::new(SandboxContext {
            clock,
            identity,
            behavior: ArcSwap::from_pointee(behavior),
            state: Mutex::new(SandboxState::new(&clients)),
            fault_rules: FaultRules::default(),
            recorder: CallRecorder::new(keep_calls),
            addresses,
            tls,
            host_names,
            strict_host_names: bind.is_loopback(),
            storage_key: aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key),
        });
        let listeners = HostListeners::run(context.clone(), acceptor, bound);
        Ok(Self { handle: Handle { context }, listeners })
    }

    /// Ends everything and returns when the sockets are closed.
    pub async fn stop(self) {
        self.listeners.stop().await;
    }

    /// Breaks the host's connections and refuses new ones until [`Sandbox::bring_up`].
    pub async fn take_down(&self, role: HostRole) {
        self.listeners.take_down(role).await;
    }

    /// Listens again at the same address; connections that were still there are broken.
    pub async fn bring_up(&self, role: HostRole) -> std::io::Result<()> {
        self.listeners.bring_up(role).await
    }
}

/// Nobody can connect to "any address", so responses print loopback for it.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
    } else {
        address
    }
}

fn hex(bytes: &[u8]) -> String {
    hex::encode(bytes)
}
