//! What the parts of a running sandbox share, and the view of it that one listener has.
//! No request is read or answered here.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use super::behavior::{Behavior, DownloadedWhen};
use super::faults::FaultRules;
use super::host_role::{HostRole, Platform, Region};
use super::options::TlsIdentity;
use super::orders::Order;
use super::record::CallRecorder;
use super::state::{AccountKind, SandboxState};
use crate::clock::{Clock, Timestamp};

/// What all listeners share.
pub struct SandboxContext {
    pub clock: Clock,
    pub behavior: ArcSwap<Behavior>,
    pub state: Mutex<SandboxState>,
    pub fault_rules: FaultRules,
    pub recorder: CallRecorder,
    pub addresses: HashMap<HostRole, SocketAddr>,
    pub tls: bool,
    pub host_names: bool,
    /// False when bound wider than loopback: it can then be called by names that it never heard of.
    pub strict_host_names: bool,
    pub storage_key: aws_lc_rs::hmac::Key,
    /// What it shows when it answers over TLS.
    pub identity: Option<TlsIdentity>,
}

impl SandboxContext {
    pub fn state(&self) -> MutexGuard<'_, SandboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `host:port` as responses print it.
    pub fn authority(&self, role: HostRole) -> String {
        let Some(address) = self.addresses.get(&role) else { return String::new() };
        if self.host_names && role != HostRole::Control {
            format!("{}:{}", role.host_name(), address.port())
        } else {
            address.to_string()
        }
    }

    pub fn origin(&self, role: HostRole) -> String {
        let scheme = if self.tls && role != HostRole::Control { "https" } else { "http" };
        format!("{scheme}://{}", self.authority(role))
    }

    pub fn login_page(&self, platform: Platform) -> String {
        format!("{}/login", self.origin(HostRole::Identity(platform)))
    }
}

/// One host of the sandbox: the role it plays, and what it shares with the others.
pub struct VirtualHost {
    pub role: HostRole,
    pub context: Arc<SandboxContext>,
}

impl VirtualHost {
    pub fn now(&self) -> Timestamp {
        self.context.clock.now()
    }

    pub fn clock(&self) -> &Clock {
        &self.context.clock
    }

    pub fn behavior(&self) -> Arc<Behavior> {
        self.context.behavior.load_full()
    }

    /// The region that this host answers for, where it answers for one.
    pub fn region(&self) -> Option<Region> {
        match self.role {
            HostRole::Region(region) => Some(region),
            _ => None,
        }
    }

    /// Called when a download's first and last byte go out.
    pub fn on_download_progress(&self, order_id: u64, reached: DownloadedWhen) {
        if self.behavior().lab_list_flips_on != reached {
            return;
        }
        let Some(order) = Order::by_order_id(order_id) else { return };
        if let Some(practice) = self.context.state().accounts.get_mut(&order.account)
            && practice.account.kind == AccountKind::Lab
        {
            practice.downloaded.insert(order_id);
        }
    }
}
