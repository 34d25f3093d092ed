//! How a sandbox is set up: addresses, clients, TLS. What may change while it runs is in `behavior`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::behavior::Behavior;
use super::host_role::{HostRole, Platform};
use crate::clock::Clock;

/// The callback of a gateway on its default admin address; white-listed for every default client.
pub const DEFAULT_REDIRECT: &str = "http://127.0.0.1:8081/oauth2/callback";

/// How a sandbox is set up.
#[derive(Clone)]
pub struct SandboxOptions {
    /// Token lives, pauses and stalls all follow this clock.
    pub clock: Clock,
    pub bind: IpAddr,
    /// The first of a row of ports, one per host; None lets the system choose.
    pub ports: Option<u16>,
    /// Ports of an earlier run, by host; they go before `ports`.
    pub same_ports: BTreeMap<HostRole, u16>,
    /// What an earlier run showed over TLS, so that whoever trusted it still does.
    pub identity: Option<TlsIdentity>,
    /// Answers over TLS with a certificate authority of its own; the control port stays plain.
    pub tls: bool,
    /// What the certificate is worth when `tls` is on.
    pub certificate: CertificateKind,
    /// Discovery and links print host names (`eu.iteroapi.sandbox.test`) in place of the address.
    pub host_names: bool,
    pub behavior: Behavior,
    pub clients: Clients,
    /// An HTTP port for people, see `control`.
    pub control: bool,
    /// How many calls are remembered; 0 switches the recording off.
    pub keep_calls: usize,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        Self {
            clock: Clock::system(),
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            ports: None,
            same_ports: BTreeMap::new(),
            identity: None,
            tls: false,
            certificate: CertificateKind::Right,
            host_names: false,
            behavior: Behavior::default(),
            clients: Clients::default(),
            control: false,
            keep_calls: 4096,
        }
    }
}

/// A certificate, its key, and the authority that callers are to trust for it.
#[derive(Clone, Serialize, Deserialize)]
pub struct TlsIdentity {
    pub ca_pem: String,
    pub cert_pem: String,
    pub key_pem: String,
}

/// Certificates that a careful caller must tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateKind {
    Right,
    Expired,
    OtherName,
    /// Signed by an authority that `ca_pem` does not show.
    OtherAuthority,
}

/// One application at one platform. The three platforms never share one.
#[derive(Clone)]
pub struct Client {
    pub id: String,
    pub secret: String,
    /// The white list of redirect URIs (Authentication & Pairing V2, 3.1).
    pub redirect_uris: Vec<String>,
}

impl Client {
    pub fn new(id: &str, secret: &str) -> Self {
        Self {
            id: id.to_owned(),
            secret: secret.to_owned(),
            redirect_uris: vec![DEFAULT_REDIRECT.to_owned()],
        }
    }
}

/// The first application of each platform.
#[derive(Clone)]
pub struct Clients {
    pub new: Client,
    pub old: Client,
    pub china: Client,
}

impl Clients {
    pub fn of(&self, platform: Platform) -> &Client {
        match platform {
            Platform::New => &self.new,
            Platform::Old => &self.old,
            Platform::China => &self.china,
        }
    }
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            new: Client::new("sandbox-client-new", "sandbox-secret-new-platform"),
            old: Client::new("sandbox-client-old", "sandbox-secret-old-platform"),
            china: Client::new("sandbox-client-china", "sandbox-secret-china"),
        }
    }
}
