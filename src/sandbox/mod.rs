//! Our stand-in for iTero: tests, `demo`, `sandbox` and the benches run against it.
//! It shares nothing with the gateway but the clock, so that the two can disagree.

mod api;
pub mod assets;
pub mod browser;
mod control;
mod deliver;
pub mod endpoint;
pub mod faults;
mod habits;
mod handle;
mod http;
mod junk;
mod listeners;
mod login;
pub mod matching;
mod oauth;
mod odd;
mod options;
mod orders;
mod patients;
mod place;
pub mod record;
mod reply;
mod request;
pub mod saved;
mod site;
mod span;
mod storage;
#[cfg(test)]
mod tests;
mod tls;
mod tokens;
mod world;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

pub use endpoint::Endpoint;
pub use faults::{Fault, Gate, Junk, Script};
pub use habits::{DomainForm, Flip, Habits, LARGEST_TOKEN, LinkForm, StatusForm};
pub use odd::{Odd, Packing, Speaker};
pub use options::{Certificate, Client, Clients, DEFAULT_REDIRECT, Options};
pub use orders::ASSET_TYPES;
pub use place::{FIRST_PATH, Place, Platform, Region, V1_PATH, V2_PATH};
pub use record::{Call, End};
pub use world::{Account, CreatedRx, Kind, User};

use faults::Scripts;
use listeners::Listeners;
use record::Ledger;
use site::Shared;
use world::World;

/// A running sandbox. Dropping it ends its tasks and connections.
pub struct Sandbox {
    handle: Handle,
    listeners: Listeners,
}

/// The steering part, for as many tasks as want it. It does not keep the sandbox running.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl std::ops::Deref for Sandbox {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Sandbox {
    /// Binds every address and serves until it is stopped or dropped. It begins without accounts.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let Options {
            clock,
            bind,
            ports,
            same_ports,
            tls,
            identity,
            certificate,
            host_names,
            habits,
            clients,
            control,
            keep_calls,
        } = options;
        let authority = tls.then(|| tls::authority(bind, certificate, identity)).transpose()?;
        let bound = listeners::bind(bind, ports, &same_ports, control).await?;
        let mut addresses = std::collections::HashMap::new();
        for (place, listener) in &bound {
            addresses.insert(*place, reachable(listener.local_addr()?));
        }
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| anyhow::anyhow!("no random numbers"))?;
        let (identity, acceptor) = authority.map(|made| (made.identity, made.acceptor)).unzip();
        let shared = Arc::new(Shared {
            clock,
            identity,
            habits: ArcSwap::from_pointee(habits),
            world: Mutex::new(World::new(&clients)),
            scripts: Scripts::default(),
            ledger: Ledger::new(keep_calls),
            addresses,
            tls,
            host_names,
            knows_its_names: bind.is_loopback(),
            storage_key: aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key),
        });
        let listeners = Listeners::run(shared.clone(), acceptor, bound);
        Ok(Self { handle: Handle { shared }, listeners })
    }

    /// Ends everything and returns when the sockets are closed.
    pub async fn stop(self) {
        self.listeners.stop().await;
    }

    /// Breaks the place's connections and refuses new ones until [`Sandbox::bring_up`].
    pub async fn take_down(&self, place: Place) {
        self.listeners.take_down(place).await;
    }

    /// Listens again at the same address; connections that were still there are broken.
    pub async fn bring_up(&self, place: Place) -> std::io::Result<()> {
        self.listeners.bring_up(place).await
    }
}

/// Nobody can connect to "any address", so answers print loopback for it.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip().is_unspecified() {
        true => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port()),
        false => address,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
