//! `[gateway]`, `[admin]` and `[public]`: where we listen and how others reach us. No two listeners share a
//! port, and an address that callers cannot use is not handed out to them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use super::reader::{Location, Reader, Reported, Section};
use super::values::{
    addresses, certificate, certificates, covers_everything, is_loopback, is_wide, limit, networks, own_url,
    path, secret_file, secret_source,
};
use super::{
    AdminConfig, CertificateFiles, ForwardProxyConfig, GatewayConfig, GatewayTls, ListenerIdentity,
    PublicConfig, SecretSource, defaults,
};

/// Every address that is listened on so far.
pub(super) type ClaimedAddresses = Vec<(Location, SocketAddr)>;

/// What the other sections need to know of the data listeners, whether the section is valid or not.
pub(super) struct Exposure {
    /// A data listener is open to other machines.
    pub beyond_loopback: bool,
    /// Calls from other machines can arrive, directly or through a trusted balancer.
    pub reachable: bool,
    /// Callers may show a client certificate.
    pub client_certificates: bool,
    pub url: Option<(Location, Url)>,
}

/// The addresses and certificates of `[gateway]`.
struct DataListeners {
    plain: Vec<SocketAddr>,
    secure: Vec<SocketAddr>,
    tls: Result<Option<GatewayTls>, Reported>,
    forward_proxy: Result<Option<ForwardProxyConfig>, Reported>,
    /// Open to other machines.
    beyond_loopback: bool,
    client_certificates: bool,
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn gateway(
    section: Section<'_>,
    taken: &mut ClaimedAddresses,
) -> (Result<GatewayConfig, Reported>, Exposure) {
    let data_listeners = data_listeners(&section, taken);
    let beyond_loopback = data_listeners.beyond_loopback;
    let trusted_proxies = trusted_proxies(&section, beyond_loopback);
    let url = url_of_gateway(&section, &data_listeners);
    let exposure = Exposure {
        beyond_loopback,
        reachable: beyond_loopback || !trusted_proxies.is_empty(),
        client_certificates: data_listeners.client_certificates,
        url: url.clone(),
    };
    let gateway = gateway_settings(&section, data_listeners, trusted_proxies, url.map(|(_, url)| url));
    section.reject_unknown_keys();
    (gateway, exposure)
}

fn gateway_settings(
    section: &Section<'_>,
    data_listeners: DataListeners,
    trusted_proxies: Vec<IpNet>,
    url: Option<Url>,
) -> Result<GatewayConfig, Reported> {
    let workers = section.integer("workers", defaults::WORKERS, 0..=1024);
    let max_connections = section.integer("max_connections", defaults::MAX_CONNECTIONS, 1..=1_000_000);
    // An 8 K bearer has to pass (threats, row 18).
    let max_head = section.size("max_head", defaults::MAX_HEAD, 16 << 10..=1 << 20);
    let max_headers = section.integer("max_headers", defaults::MAX_HEADERS, 32..=1000);
    let replay_limit = section.size("replay_limit", defaults::REPLAY_LIMIT, 0..=64 << 20);
    let timeout = |key, default| section.duration(key, default, SECOND..=HOUR);
    let head_timeout = timeout("head_timeout", defaults::HEAD_TIMEOUT);
    let body_idle_timeout = timeout("body_idle_timeout", defaults::BODY_IDLE_TIMEOUT);
    let keep_alive_timeout = timeout("keep_alive_timeout", defaults::KEEP_ALIVE_TIMEOUT);
    let drain_timeout = section.duration("drain_timeout", defaults::DRAIN_TIMEOUT, Duration::ZERO..=HOUR);
    let account_limit = limit(section, "account_limit");
    Ok(GatewayConfig {
        listen: data_listeners.plain,
        // Without any, what is missing has been reported.
        url: url.ok_or(Reported)?,
        trusted_proxies,
        tls: data_listeners.tls?,
        forward_proxy: data_listeners.forward_proxy?,
        workers,
        max_connections,
        max_head,
        max_headers,
        replay_limit,
        head_timeout,
        body_idle_timeout,
        keep_alive_timeout,
        drain_timeout,
        account_limit: account_limit?,
    })
}

fn data_listeners(section: &Section<'_>, taken: &mut ClaimedAddresses) -> DataListeners {
    let tls = section.section("tls");
    let plain = listen(section, Some(defaults::GATEWAY_LISTEN), tls.present(), taken);
    let secure = if tls.present() { listen(&tls, None, false, taken) } else { Vec::new() };
    let client_certificates = tls.get("client_ca").is_some();
    let read = if tls.present() { gateway_tls(&tls, &secure).map(Some) } else { Ok(None) };
    let proxy = section.section("forward_proxy");
    let proxied = if proxy.present() { listen(&proxy, None, false, taken) } else { Vec::new() };
    let forward_proxy =
        if proxy.present() { forward_proxy(&proxy, &proxied, &tls).map(Some) } else { Ok(None) };
    proxy.reject_unknown_keys();
    tls.reject_unknown_keys();
    if plain.iter().any(is_wide) {
        section.reader.warning(
            &section.location_of("listen"),
            "is plain HTTP beyond loopback: patient data crosses the network in clear",
            "add tls = { listen, cert, key } and point callers there, or keep to a network that is protected otherwise",
        );
    }
    let beyond_loopback = plain.iter().chain(&secure).chain(&proxied).any(is_wide);
    DataListeners { plain, secure, tls: read, forward_proxy, beyond_loopback, client_certificates }
}

fn gateway_tls(section: &Section<'_>, listen: &[SocketAddr]) -> Result<GatewayTls, Reported> {
    let identity = tls_identity(section);
    let client_ca = section.optional("client_ca", certificates);
    Ok(GatewayTls { listen: listen.to_vec(), identity: identity?, client_ca: client_ca? })
}

fn tls_identity(section: &Section<'_>) -> Result<ListenerIdentity, Reported> {
    let Some(ca) = section.get("ca") else { return certificate(section).map(ListenerIdentity::Certificate) };
    // Both are asked for, so that neither counts as unknown.
    if ["cert", "key"].map(|key| section.get(key).is_some()).contains(&true) {
        let fix = "keep cert and key, or ca, whose leaves the gateway makes itself";
        return ca.refuse("stands beside a cert or key, and only one of them can be shown", fix);
    }
    path(&ca).map(ListenerIdentity::Ca)
}

fn forward_proxy(
    section: &Section<'_>,
    listen: &[SocketAddr],
    tls: &Section<'_>,
) -> Result<ForwardProxyConfig, Reported> {
    let own = section.optional("ca", path)?;
    let ca = own.map_or_else(|| tls.optional("ca", path), |own| Ok(Some(own)))?;
    let Some(ca) = ca else {
        let fix = "run genapi-gateway ca init and write ca = \"ca\", here or in tls";
        let what = "is missing, and calls through the proxy are answered with certificates of a private CA";
        section.reader.problem(&section.location_of("ca"), what, fix);
        return Err(Reported);
    };
    Ok(ForwardProxyConfig { listen: listen.to_vec(), ca })
}

/// The private CA of `[gateway]`, of the listener that has one first.
pub(super) fn ca_folder(section: &Section<'_>) -> Option<PathBuf> {
    ["tls", "forward_proxy"]
        .into_iter()
        .find_map(|key| section.section(key).optional("ca", path).ok().flatten())
}

/// The addresses of a listener, entered into `taken`; without a default they have to be there.
fn listen(
    section: &Section<'_>,
    default: Option<&str>,
    may_be_empty: bool,
    taken: &mut ClaimedAddresses,
) -> Vec<SocketAddr> {
    const FIX: &str = "listen = [\"127.0.0.1:8443\"], with the address that others shall reach";
    let listed = match (section.get("listen"), default.and_then(|text| text.parse().ok())) {
        (Some(value), _) => {
            if !may_be_empty && value.is_empty_list() {
                let _ = value.refuse::<()>("leaves no address to listen on", "name an address with its port");
            }
            addresses(&value)
        }
        (None, Some(address)) => vec![(section.location_of("listen"), address)],
        (None, None) => {
            let _ = section.required("listen", FIX);
            Vec::new()
        }
    };
    // Handed-over sockets are bound by the service manager, which may keep [::] to IPv6.
    let dual_stack = (section.reader.env)("LISTEN_FDS").is_none() && both_families_share_a_port();
    for (location, address) in &listed {
        if let Some((other, _)) = taken.iter().find(|(_, claimed)| clash(claimed, address, dual_stack)) {
            let what = format!("{address} is taken by {} already", other.key);
            let fix = if other.key == location.key || address.is_ipv4() == is_ipv4(taken, other) {
                "give each listener a port of its own"
            } else {
                "give each listener a port of its own; [::] takes IPv4 as well, so it can stand alone"
            };
            section.reader.problem(location, what, fix);
        }
        taken.push((location.clone(), *address));
    }
    listed.into_iter().map(|(_, address)| address).collect()
}

fn is_ipv4(taken: &ClaimedAddresses, location: &Location) -> bool {
    taken.iter().any(|(claimed, address)| claimed.key == location.key && address.is_ipv4())
}

/// Port 0 is a new port each time. The unspecified address takes the port on every address of its family, and
/// `[::]` mostly on those of both. An IPv4 address may be written as IPv6.
fn clash(claimed: &SocketAddr, new: &SocketAddr, dual_stack: bool) -> bool {
    let overlap = |a: IpAddr, b: IpAddr| {
        let (a, b) = (a.to_canonical(), b.to_canonical());
        a == b || (a.is_unspecified() && (a.is_ipv4() == b.is_ipv4() || (dual_stack && a.is_ipv6())))
    };
    claimed.port() != 0
        && claimed.port() == new.port()
        && (overlap(claimed.ip(), new.ip()) || overlap(new.ip(), claimed.ip()))
}

/// As the kernel is set; it is on nearly everywhere.
fn both_families_share_a_port() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only").is_ok_and(|only| only.trim() == "0")
}

fn trusted_proxies(section: &Section<'_>, beyond_loopback: bool) -> Vec<IpNet> {
    let proxies = section.get("trusted_proxies").map_or(Vec::new(), |value| networks(&value));
    for (location, network) in &proxies {
        if beyond_loopback && covers_everything(network) {
            let what = format!("{network} lets anybody claim any address");
            section.reader.problem(location, what, "name the balancers' own addresses");
        }
    }
    proxies.into_iter().map(|(_, network)| network).collect()
}

/// As configured, else the first address that is listened on, where that is one that can be called.
fn url_of_gateway(section: &Section<'_>, data_listeners: &DataListeners) -> Option<(Location, Url)> {
    let location = section.location_of("url");
    if let Some(value) = section.get("url") {
        return own_url(&value).ok().map(|url| (location, url));
    }
    let (scheme, first) = match (data_listeners.plain.first(), data_listeners.secure.first()) {
        (Some(first), _) => ("http", first),
        (None, Some(first)) => ("https", first),
        (None, None) => return None,
    };
    if first.ip().is_unspecified() {
        let fix = format!(
            "write {scheme}://NAME:{}, the name under which callers reach this machine",
            first.port()
        );
        section.reader.problem(&location, format!("is missing, and nobody can call {first}"), fix);
        return None;
    }
    Url::parse(&format!("{scheme}://{first}")).ok().map(|url| (location, url))
}

/// Loopback beside a wider listen: callers on other machines would be sent links to themselves. Fine where
/// each has a URL of its own.
pub(super) fn refuse_unreachable_url(reader: &Reader<'_>, exposure: &Exposure, callers_have_urls: bool) {
    let Some((location, url)) = &exposure.url else { return };
    if exposure.beyond_loopback && is_loopback(url) && !callers_have_urls {
        let what =
            format!("{url} cannot be reached by callers on other machines, although listen lets them in");
        let fix = "write the name under which callers reach this machine, or give every caller a url";
        reader.problem(location, what, fix);
    }
}

pub(super) fn admin(section: Section<'_>, taken: &mut ClaimedAddresses) -> Result<AdminConfig, Reported> {
    let tls = tls(&section);
    let listen = listen(&section, Some(defaults::ADMIN_LISTEN), false, taken);
    let token = secret_or_default(&section, "token", defaults::ADMIN_TOKEN_FILE);
    let url = section.optional("url", own_url);
    let audit = section.or_default("audit", path, || section.reader.folder.join(defaults::AUDIT_FILE));
    // Not refused: probes and scrapers come from outside in a cluster, and a network policy may guard the
    // way.
    if listen.iter().any(is_wide) && matches!(tls, Ok(None)) {
        section.reader.warning(
            &section.location_of("listen"),
            "is plain HTTP beyond loopback: the admin token crosses the network in clear",
            "listen on 127.0.0.1 and use an ssh tunnel, or add tls = { cert, key }",
        );
    }
    section.reject_unknown_keys();
    Ok(AdminConfig { listen, token: token?, url: url?, tls: tls?, audit: audit? })
}

/// A token that is there has to be readable and nobody else's; one that is not there yet is made at start.
pub(super) fn refuse_bad_token(section: &Section<'_>, admin: &AdminConfig) {
    let location = section.location_of("token");
    match (super::secret::read(&admin.token, section.reader.env), &admin.token) {
        // It opens everything, and nothing but its length stands against guessing.
        (Ok(token), _) if token.len() < SHORT_TOKEN => {
            let fix = "remove the file, and a good one is made at the next start";
            section.reader.warning(&location, format!("{} holds a short token", admin.token), fix);
        }
        (Ok(_), _) => {}
        (Err(problem), SecretSource::File(_)) if problem.missing => {}
        (Err(problem), _) => section.reader.problem(&location, problem.what, problem.fix),
    }
}

/// 128 bits in base64.
const SHORT_TOKEN: usize = 22;

pub(super) fn public(
    section: Section<'_>,
    sandbox: bool,
    taken: &mut ClaimedAddresses,
) -> Result<PublicConfig, Reported> {
    let tls = tls(&section);
    let listen = listen(&section, None, false, taken);
    let url =
        section.required("url", "url = \"https://gateway.example.com\", as the clinics' browsers see it");
    let url = url.and_then(|value| {
        let url = own_url(&value)?;
        if url.scheme() == "https" || (sandbox && is_loopback(&url)) {
            return Ok(url);
        }
        value.refuse("is not https: logins would cross the internet in clear", "write https://…")
    });
    if listen.iter().any(is_wide) && matches!(tls, Ok(None)) {
        section.reader.warning(
            &section.location_of("listen"),
            "is plain HTTP beyond loopback",
            "add tls = { cert, key }, or make sure that only the proxy that ends TLS can reach it",
        );
    }
    section.reject_unknown_keys();
    Ok(PublicConfig { listen, url: url?, tls: tls? })
}

fn tls(section: &Section<'_>) -> Result<Option<CertificateFiles>, Reported> {
    let tls = section.section("tls");
    let read = if tls.present() { certificate(&tls).map(Some) } else { Ok(None) };
    tls.reject_unknown_keys();
    read
}

pub(super) fn secret_or_default(
    section: &Section<'_>,
    key: &'static str,
    default: &str,
) -> Result<SecretSource, Reported> {
    section.or_default(key, secret_source, || SecretSource::File(secret_file(section.reader, default)))
}
