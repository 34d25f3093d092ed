//! All sockets, bound before anything else starts, so that a taken port is an error and not half a gateway.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use rustls::crypto::CryptoProvider;
use url::Url;

use crate::clock::Clock;
use crate::config::{CertificateFiles, Config, ListenerIdentity};
use crate::server::{
    CaFolder, HANDSHAKE_TIMEOUT, InheritedSockets, ListenerKind, Listeners, ServerLimits, TlsCertificates,
    TlsError, TlsFiles,
};

pub struct Sockets {
    pub data: Listeners,
    pub admin: Listeners,
    pub public: Option<Listeners>,
}

/// The addresses that were bound; with port 0 in the configuration they are found here.
#[derive(Debug, Clone, Default)]
pub struct BoundAddresses {
    pub data: Vec<SocketAddr>,
    pub data_tls: Vec<SocketAddr>,
    pub forward_proxy: Vec<SocketAddr>,
    pub admin: Vec<SocketAddr>,
    pub public: Vec<SocketAddr>,
}

#[derive(Default)]
pub struct ListenerCertificates {
    pub data: Option<Arc<TlsCertificates>>,
    pub forward_proxy: Option<Arc<TlsCertificates>>,
    pub admin: Option<Arc<TlsCertificates>>,
    pub public: Option<Arc<TlsCertificates>>,
}

impl Sockets {
    pub fn bind(config: &Config, inherited: &mut InheritedSockets) -> anyhow::Result<Self> {
        let mut data = Listeners::new(workers(config.gateway.workers));
        for address in &config.gateway.listen {
            data.listen(*address, ListenerKind::Plain, inherited).context("[gateway] listen")?;
        }
        for address in config.gateway.tls.iter().flat_map(|tls| &tls.listen) {
            data.listen(*address, ListenerKind::Tls, inherited).context("[gateway] tls.listen")?;
        }
        for address in config.gateway.forward_proxy.iter().flat_map(|proxy| &proxy.listen) {
            let listened = data.listen(*address, ListenerKind::ForwardProxy, inherited);
            listened.context("[gateway] forward_proxy.listen")?;
        }
        let kind = |tls: bool| if tls { ListenerKind::Tls } else { ListenerKind::Plain };
        let mut admin = Listeners::new(1);
        for address in &config.admin.listen {
            admin.listen(*address, kind(config.admin.tls.is_some()), inherited).context("[admin] listen")?;
        }
        let public = match &config.public {
            None => None,
            Some(public) => {
                let mut listeners = Listeners::new(1);
                for address in &public.listen {
                    let kind = kind(public.tls.is_some());
                    listeners.listen(*address, kind, inherited).context("[public] listen")?;
                }
                Some(listeners)
            }
        };
        for address in inherited.unclaimed() {
            tracing::warn!(%address, "the service manager handed over a socket that no listener of the configuration names");
        }
        Ok(Self { data, admin, public })
    }

    pub fn bound(&self) -> BoundAddresses {
        let all = |listeners: &Listeners| {
            [ListenerKind::Plain, ListenerKind::Tls].map(|kind| listeners.addrs(kind)).concat()
        };
        BoundAddresses {
            data: self.data.addrs(ListenerKind::Plain),
            data_tls: self.data.addrs(ListenerKind::Tls),
            forward_proxy: self.data.addrs(ListenerKind::ForwardProxy),
            admin: all(&self.admin),
            public: self.public.as_ref().map(all).unwrap_or_default(),
        }
    }
}

/// What a listener shows callers, and by which names they come as far as the configuration knows.
pub struct TlsListener {
    /// The table of the configuration.
    pub key: &'static str,
    pub source: CertificateSource,
    pub names: Vec<String>,
}

/// Where a listener's certificates come from.
pub enum CertificateSource {
    Files(TlsFiles),
    Ca(CaFolder),
}

impl CertificateSource {
    pub fn load(self, clock: &Clock) -> Result<Arc<TlsCertificates>, TlsError> {
        match self {
            CertificateSource::Files(files) => TlsCertificates::load(files, provider()),
            CertificateSource::Ca(ca) => TlsCertificates::load_ca(ca, clock.clone(), provider()),
        }
    }
}

/// Every listener that speaks TLS.
pub fn tls_listeners(config: &Config) -> Vec<TlsListener> {
    let files = |pair: &CertificateFiles, client_ca: Option<&PathBuf>| {
        CertificateSource::Files(TlsFiles {
            cert: pair.cert.clone(),
            key: pair.key.clone(),
            client_ca: client_ca.cloned(),
        })
    };
    let name = |url: &Url| (url.scheme() == "https").then(|| url.host_str().map(str::to_owned)).flatten();
    let mut found = Vec::new();
    if let Some(tls) = &config.gateway.tls {
        let callers = config.callers.iter().filter_map(|caller| caller.url.as_ref());
        let mut names: Vec<_> =
            std::iter::once(&config.gateway.url).chain(callers).filter_map(name).collect();
        names.sort();
        names.dedup();
        let client_ca = tls.client_ca.as_ref();
        let source = match &tls.identity {
            ListenerIdentity::Certificate(pair) => files(pair, client_ca),
            ListenerIdentity::Ca(folder) => {
                CertificateSource::Ca(CaFolder { folder: folder.clone(), client_ca: client_ca.cloned() })
            }
        };
        found.push(TlsListener { key: "gateway.tls", source, names });
    }
    if let Some(proxy) = &config.gateway.forward_proxy {
        let client_ca = config.gateway.tls.as_ref().and_then(|tls| tls.client_ca.clone());
        let source = CertificateSource::Ca(CaFolder { folder: proxy.ca.clone(), client_ca });
        // By the CA's own names alone: what leads through a proxy is no URL of ours.
        found.push(TlsListener { key: "gateway.forward_proxy", source, names: Vec::new() });
    }
    if let Some(pair) = &config.admin.tls {
        let names = config.admin.url.iter().filter_map(name).collect();
        found.push(TlsListener { key: "admin.tls", source: files(pair, None), names });
    }
    if let Some((public, pair)) =
        config.public.as_ref().and_then(|public| Some((public, public.tls.as_ref()?)))
    {
        let names = name(&public.url).into_iter().collect();
        found.push(TlsListener { key: "public.tls", source: files(pair, None), names });
    }
    found
}

impl BoundAddresses {
    /// Port 0 in our own URLs stands for the port that was bound. For a sandbox and tests.
    pub fn resolve_ports(&self, mut config: Config) -> Config {
        let data = self.data.first().or(self.data_tls.first()).copied();
        let browser = self.public.first().or(self.admin.first()).copied();
        resolve_ports(&mut config.gateway.url, data);
        for realm in config.realms.values_mut() {
            resolve_ports(&mut realm.redirect_uri, browser);
        }
        config
    }
}

impl ListenerCertificates {
    pub fn load(config: &Config, clock: &Clock) -> anyhow::Result<Self> {
        let mut loaded = Self::default();
        for TlsListener { key, source, .. } in tls_listeners(config) {
            let certificates = source.load(clock).context("a certificate cannot be loaded")?;
            let place = match key {
                "gateway.tls" => &mut loaded.data,
                "gateway.forward_proxy" => &mut loaded.forward_proxy,
                "admin.tls" => &mut loaded.admin,
                _ => &mut loaded.public,
            };
            *place = Some(certificates);
        }
        Ok(loaded)
    }

    pub fn all(&self) -> Vec<Arc<TlsCertificates>> {
        [&self.data, &self.forward_proxy, &self.admin, &self.public].into_iter().flatten().cloned().collect()
    }
}

/// 0 stands for one per core.
fn workers(configured: usize) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        some => some,
    }
}

fn resolve_ports(url: &mut Url, bound: Option<SocketAddr>) {
    if let (Some(0), Some(bound)) = (url.port(), bound) {
        // Only a URL without a host has no port to set, and a configuration holds none.
        let _ = url.set_port(Some(bound.port()));
    }
}

pub fn provider() -> Arc<CryptoProvider> {
    rustls::crypto::aws_lc_rs::default_provider().into()
}

pub fn limits(config: &Config) -> ServerLimits {
    let gateway = &config.gateway;
    ServerLimits {
        max_connections: gateway.max_connections,
        max_head: gateway.max_head,
        max_headers: gateway.max_headers,
        head_timeout: gateway.head_timeout,
        body_idle_timeout: gateway.body_idle_timeout,
        keep_alive_timeout: gateway.keep_alive_timeout,
        drain_timeout: gateway.drain_timeout,
        handshake_timeout: HANDSHAKE_TIMEOUT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_of_workers_means_one_per_core() {
        assert_eq!(workers(0), std::thread::available_parallelism().unwrap().get());
        assert_eq!(workers(3), 3);
    }
}
