//! The kinds of values that several sections share: addresses, networks, URLs, digests, files. Each is
//! checked where it is read, so that a fault is reported at its own place.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net};
use url::{Host, Url};

use crate::model::route::without_final_dot;

use super::reader::{Location, Reader, Reported, Section, TomlValue};
use super::{CertificateFiles, RateLimit, SecretSource, pem, placeholders};

/// `["127.0.0.1:8080", "[::1]:8080"]`
pub(super) fn addresses(value: &TomlValue<'_>) -> Vec<(Location, SocketAddr)> {
    const FIX: &str = "write address and port, like \"127.0.0.1:8080\" or \"[::]:8080\"";
    let items = value.items("a list, like [\"127.0.0.1:8080\"]");
    let parsed = items.iter().flatten().filter_map(|item| {
        let text = item.text().ok()?;
        let not_an_address = |_| item.refuse(format!("{text:?} is not an address with a port"), FIX);
        Some((item.location.clone(), text.parse().or_else(not_an_address).ok()?))
    });
    parsed.collect()
}

/// All items of a list, or that at least one of them was reported: each is read, so that all faults are
/// found.
pub(super) fn every<'a, T>(
    items: &[TomlValue<'a>],
    read: impl Fn(&TomlValue<'a>) -> Result<T, Reported>,
) -> Result<Vec<T>, Reported> {
    let read: Vec<Result<T, Reported>> = items.iter().map(read).collect();
    read.into_iter().collect()
}

/// Whether a socket is open to other machines.
pub(super) fn is_wide(address: &SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

/// `["10.1.0.0/16", "192.0.2.7"]`. Callers' addresses are compared as IPv4 where they are that, so a mapped
/// network is IPv4 too.
pub(super) fn networks(value: &TomlValue<'_>) -> Vec<(Location, IpNet)> {
    let items = value.items("a list of networks, like [\"10.1.0.0/16\"]");
    let parsed = items.iter().flatten().filter_map(|item| Some((item.location.clone(), network(item).ok()?)));
    parsed.collect()
}

fn network(item: &TomlValue<'_>) -> Result<IpNet, Reported> {
    let text = item.text()?;
    let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let fix = "write \"10.1.0.0/16\", \"fd00::/8\" or a single address";
    let Some(network) = network.map(unmapped) else {
        return item.refuse(format!("{text:?} is not a network"), fix);
    };
    if network.addr() != network.network() {
        // Nobody can tell which was meant, the network or the one address: too many would be let in, or too
        // few.
        let what = format!("{text:?} is an address within a network and not the network");
        let one = IpNet::from(network.addr());
        return item
            .refuse(what, format!("write \"{}\", or \"{one}\" for that one address", network.trunc()));
    }
    Ok(network)
}

/// `::ffff:10.1.0.0/112` is 10.1.0.0/16. A shorter prefix takes in more than IPv4 and is left alone.
fn unmapped(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let v4 = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    v4.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok()).map_or(network, IpNet::V4)
}

/// Whether a network takes in so much of the internet that it tells nobody apart: wider than any private
/// range, or all of IPv4 written as IPv6.
pub(super) fn covers_everything(network: &IpNet) -> bool {
    match network {
        IpNet::V4(v4) => v4.prefix_len() < 8,
        IpNet::V6(v6) => {
            let mapped = v6.addr().to_ipv4_mapped().is_some();
            v6.prefix_len() < 7 || (mapped && v6.prefix_len() < 96 + 8)
        }
    }
}

/// How somebody reaches a listener of ours: http or https, without anything that cannot stand before a path.
pub(super) fn own_url(value: &TomlValue<'_>) -> Result<Url, Reported> {
    let url = plain_url(value, &["http", "https"])?;
    if url.query().is_some() {
        return value.refuse("carries a query", "end it with the path");
    }
    if url.host_str().is_some_and(|host| matches!(host, "0.0.0.0" | "[::]")) {
        return value.refuse("is an address that nobody can call", "write a name or address of this machine");
    }
    placeholders::warn_of_placeholder_host(value, &url);
    Ok(without_trailing_slash(url))
}

/// A place of the platform's: https on its usual port under a name, unless the realm is a sandbox (threats,
/// rows 7 and 24).
pub(super) fn platform_url(value: &TomlValue<'_>, allow_insecure: bool) -> Result<Url, Reported> {
    let schemes: &[&str] = if allow_insecure { &["https", "http"] } else { &["https"] };
    let url = plain_url(value, schemes)?;
    if !allow_insecure && url.port().is_some() {
        return value.refuse("carries a port", "remove it, or set allow_insecure = true for a sandbox");
    }
    if !allow_insecure && (!matches!(url.host(), Some(Host::Domain(_))) || is_loopback(&url)) {
        let fix = "write the platform's host name, or set allow_insecure = true for a sandbox";
        return value.refuse("is an address instead of a host name", fix);
    }
    let url = without_dot_behind_host(url);
    placeholders::warn_of_placeholder_host(value, &url);
    if let Some(host) = url.host_str() {
        placeholders::warn_of_retired_host(value, host);
    }
    Ok(url)
}

/// A platform URL that paths are appended to.
pub(super) fn platform_base(value: &TomlValue<'_>, allow_insecure: bool) -> Result<Url, Reported> {
    let url = platform_url(value, allow_insecure)?;
    match url.query() {
        Some(_) => value.refuse("carries a query", "end it with the host or the path"),
        None => Ok(without_trailing_slash(url)),
    }
}

/// A URL without user name, password and fragment. It is not shown where it may hold a password.
pub(super) fn plain_url(value: &TomlValue<'_>, schemes: &[&str]) -> Result<Url, Reported> {
    let example = format!("write {}://host…", schemes[0]);
    let Ok(url) = Url::parse(value.text()?) else {
        return value.refuse("is not a URL", example);
    };
    if !schemes.contains(&url.scheme()) {
        return value.refuse(format!("is not {}", schemes.join(" or ")), example);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return value.refuse("carries a user name or password", "remove what stands before the @");
    }
    if url.fragment().is_some() {
        return value.refuse("carries a fragment", "remove the # and what follows it");
    }
    Ok(url)
}

/// The same host, as certificates and allow lists spell it.
fn without_dot_behind_host(mut url: Url) -> Url {
    let host = url.host_str().map(|host| without_final_dot(host).to_owned());
    // A host without its dot is as good a host.
    let _ = url.set_host(host.as_deref());
    url
}

fn without_trailing_slash(mut url: Url) -> Url {
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    url
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = without_final_dot(name);
            name == "localhost" || name.ends_with(".localhost")
        }
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).to_canonical().is_loopback(),
        None => false,
    }
}

/// SHA-256 of nothing: what a script writes whose variable was empty.
const DIGEST_OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// 64 hexadecimal digits, also with the colons that `openssl x509 -fingerprint` prints. The text is never
/// shown: a key put here by mistake would be in the log.
pub(super) fn digest(value: &TomlValue<'_>, fix: &str) -> Result<[u8; 32], Reported> {
    let text = value.text()?.replace(':', "").to_ascii_lowercase();
    if text == DIGEST_OF_NOTHING {
        return value.refuse("is the SHA-256 of an empty text", fix);
    }
    let refused = || value.refuse("is not a SHA-256 of 64 hexadecimal digits", fix);
    if text.len() != 64 || !text.is_ascii() {
        return refused();
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()));
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(read) => *byte = read,
            None => return refused(),
        }
    }
    if placeholders::is_placeholder_digest(&bytes) {
        value.warn("is a placeholder: nothing that could be sent has this SHA-256", fix);
    }
    Ok(bytes)
}

/// A path; relative ones start at the file's folder.
pub(super) fn path(value: &TomlValue<'_>) -> Result<PathBuf, Reported> {
    Ok(value.reader.folder.join(value.text()?))
}

/// A PEM file that holds a certificate at least.
pub(super) fn certificates(value: &TomlValue<'_>) -> Result<PathBuf, Reported> {
    let path = path(value)?;
    match pem::certificates(&path) {
        Ok(()) => Ok(path),
        Err((what, fix)) => value.refuse(what, fix),
    }
}

/// `cert` and `key` of a `tls` table.
pub(super) fn certificate(section: &Section<'_>) -> Result<CertificateFiles, Reported> {
    let cert = section.required("cert", "cert = \"chain.pem\"").and_then(|value| certificates(&value));
    let key = section.required("key", "key = \"key.pem\"").and_then(|value| private_key(&value));
    Ok(CertificateFiles { cert: cert?, key: key? })
}

fn private_key(value: &TomlValue<'_>) -> Result<PathBuf, Reported> {
    let path = path(value)?;
    if let Err((what, fix)) = pem::private_key(&path) {
        return value.refuse(what, fix);
    }
    warn_if_world_readable(value, &path);
    Ok(path)
}

/// Certificate tools write keys with the mode that the umask leaves, and refusing them would stop sound
/// installations: a warning.
fn warn_if_world_readable(value: &TomlValue<'_>, path: &Path) {
    if super::secret::open_to_others(path) {
        let what = format!("{} can be read by everybody on this machine", path.display());
        value.warn(what, format!("chmod 600 {}", path.display()));
    }
}

/// `{ file = "…" }` or `{ env = "…" }`. A relative file that is missing beside the configuration is looked
/// for among the service manager's credentials (`LoadCredential=`, CREDENTIALS_DIRECTORY).
pub(super) fn secret_source(value: &TomlValue<'_>) -> Result<SecretSource, Reported> {
    if value.is_text() {
        let name = value.location.key.rsplit('.').next().unwrap_or_default().to_owned();
        let fix = format!(
            "write the secret alone into a file (chmod 600) and {name} = {{ file = \"…\" }}, or {name} = {{ env = \"…\" }}"
        );
        return value.refuse("holds the secret itself", fix);
    }
    let section = value.table()?;
    let (file, env) = (section.get("file"), section.get("env"));
    section.reject_unknown_keys();
    match (file, env) {
        (Some(file), None) => Ok(SecretSource::File(secret_file(value.reader, file.text()?))),
        (None, Some(name)) => Ok(SecretSource::Env(name.text()?.to_owned())),
        _ => {
            value.refuse("needs a file or an env, and not both", "write { file = \"…\" } or { env = \"…\" }")
        }
    }
}

/// Beside the configuration, else among the service manager's credentials, else (to be made) beside the
/// configuration.
pub(super) fn secret_file(reader: &Reader<'_>, name: &str) -> PathBuf {
    let beside = reader.folder.join(name);
    if Path::new(name).is_relative() && !beside.exists() {
        let credentials = (reader.env)("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let handed_over = credentials.map(|folder| folder.join(name));
        if let Some(found) = handed_over.filter(|path| path.exists()) {
            return found;
        }
    }
    beside
}

/// `{ per_second, burst, max_concurrent }`
pub(super) fn limit(section: &Section<'_>, key: &'static str) -> Result<Option<RateLimit>, Reported> {
    const MOST: std::ops::RangeInclusive<usize> = 1..=1_000_000;
    let given = section.section(key);
    if !given.present() {
        return Ok(None);
    }
    let number = |key| given.get(key).map(|_| given.integer(key, 1, MOST) as u32);
    let (per_second, max_concurrent) = (number("per_second"), number("max_concurrent"));
    // Without a burst of their own, as many calls as a second allows may come together.
    let burst = number("burst").or(per_second).unwrap_or(1);
    let (empty, location) = (per_second.is_none() && max_concurrent.is_none(), section.location_of(key));
    given.reject_unknown_keys();
    if empty {
        let fix = format!("{key} = {{ per_second = 50, max_concurrent = 20 }}, or remove it");
        section.reader.problem(&location, "limits nothing", fix);
        return Err(Reported);
    }
    Ok(Some(RateLimit { per_second, burst, max_concurrent }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_tells_nobody_apart_is_recognised_in_every_spelling() {
        for wide in ["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "::/0", "2000::/3", "::ffff:0:0/96"] {
            assert!(covers_everything(&wide.parse().unwrap()), "{wide}");
        }
        for narrow in ["10.0.0.0/8", "fc00::/7", "fd00::/8", "192.0.2.7/32", "::1/128", "::ffff:10.0.0.0/104"]
        {
            assert!(!covers_everything(&narrow.parse().unwrap()), "{narrow}");
        }
    }

    #[test]
    fn loopback_is_recognised_by_name_and_by_address() {
        for near in ["http://localhost:1", "http://a.localhost", "http://127.8.0.1", "http://[::1]/x"] {
            assert!(is_loopback(&near.parse().unwrap()), "{near}");
        }
        for far in ["http://localhost.example.com", "http://10.0.0.1", "http://[fd00::1]"] {
            assert!(!is_loopback(&far.parse().unwrap()), "{far}");
        }
    }
}
