//! A gateway configuration that fits a running sandbox, with caller key and import file.
//! Written from the gateway's documented keys and not from its types, like everything here.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use aws_lc_rs::digest;
use serde_json::json;

use super::tokens::random_text;
use super::{AccountSpec, Handle, HostRole, Platform};

/// Files of the matching set, beside `config.toml`.
pub const CONFIG: &str = "config.toml";
pub const IMPORT: &str = "accounts.json";
pub const CALLER_KEY: &str = "caller.key";
const CA: &str = "sandbox-ca.pem";

/// Where the gateway is to listen.
pub struct Addresses {
    pub gateway: String,
    pub admin: String,
    /// Its admin address must be able to take the callback: white-list this with `allow_redirect`.
    pub redirect_uri: String,
}

impl Addresses {
    /// A gateway that takes the callback on its admin address.
    pub fn new(gateway: SocketAddr, admin: SocketAddr) -> Self {
        Self {
            gateway: gateway.to_string(),
            admin: admin.to_string(),
            redirect_uri: format!("http://{admin}/oauth2/callback"),
        }
    }

    /// As they stand in files that an earlier run wrote.
    pub fn written(gateway: &str, admin: &str) -> Self {
        let redirect_uri = format!("http://{admin}/oauth2/callback");
        Self { gateway: gateway.to_owned(), admin: admin.to_owned(), redirect_uri }
    }
}

/// The realm that a platform is called in the configuration.
pub fn realm(platform: Platform) -> &'static str {
    match platform {
        Platform::New => "global",
        Platform::Old => "old",
        Platform::China => "china",
    }
}

/// A name that a gateway takes: lower case, and never all digits.
pub fn account_name(account: &AccountSpec) -> String {
    format!("acct-{}", account.id)
}

/// Writes configuration, client secrets, caller key, certificate authority and import file into `dir`, which
/// holds none of them yet. Every account is paired on the way. Returns the caller's key.
pub fn write(sandbox: &Handle, dir: &Path, addresses: &Addresses) -> anyhow::Result<String> {
    let there = files_in(dir);
    anyhow::ensure!(there.is_empty(), "{} holds {} already", dir.display(), there.join(", "));
    for account in sandbox.accounts() {
        sandbox.grant(account.id);
    }
    let key = new_caller_key();
    write_missing(sandbox, dir, addresses, &key)?;
    Ok(key)
}

pub fn new_caller_key() -> String {
    random_text(24)
}

/// Those files of the matching set that are in a folder.
pub fn files_in(dir: &Path) -> Vec<String> {
    let secrets = Platform::ALL.map(secret_file);
    let names = [CONFIG, CALLER_KEY, IMPORT, CA].map(str::to_owned).into_iter().chain(secrets);
    names.filter(|name| dir.join(name).symlink_metadata().is_ok()).collect()
}

/// Writes what is not there; what is there stays as it is. The
/// import file holds the accounts that are paired.
pub fn write_missing(sandbox: &Handle, dir: &Path, addresses: &Addresses, key: &str) -> anyhow::Result<()> {
    fs::create_dir_all(dir)?;
    write_private(&dir.join(CALLER_KEY), || key.to_owned())?;
    for platform in Platform::ALL {
        write_private(&dir.join(secret_file(platform)), || sandbox.client(platform).secret)?;
    }
    if let Some(pem) = sandbox.ca_pem() {
        write_private(&dir.join(CA), || pem.to_owned())?;
    }
    write_private(&dir.join(IMPORT), || import_of(sandbox, |account| sandbox.is_paired(account.id)))?;
    write_private(&dir.join(CONFIG), || config_toml(sandbox, key, addresses))
}

/// `config.toml` for a gateway with one caller, known by `caller_key`.
pub fn config_toml(sandbox: &Handle, caller_key: &str, addresses: &Addresses) -> String {
    let key_sha256 = super::hex(digest::digest(&digest::SHA256, caller_key.as_bytes()).as_ref());
    let realms: String = Platform::ALL.map(|platform| realm_toml(sandbox, platform, addresses)).concat();
    format!(
        r#"# Matches a running sandbox. For load tests and trials only: it trusts what no real platform may do.
[gateway]
listen = ["{gateway}"]
url = "http://{gateway}"

[admin]
listen = ["{admin}"]
token = {{ file = "admin.token" }}

[store]
url = "sqlite:gateway.db"
key = {{ file = "gateway.key" }}

# The real platform wants a minute at least between two refreshes of an account.
[renewal]
min_gap = "0s"
{realms}
[[callers]]
name = "sandbox-caller"
accounts = ["*"]
key_sha256 = "{key_sha256}"
"#,
        gateway = addresses.gateway,
        admin = addresses.admin,
    )
}

/// The import file: every account with a pair refresh token, made on the spot where there was none.
pub fn import_json(sandbox: &Handle) -> String {
    import_of(sandbox, |_| true)
}

fn import_of(sandbox: &Handle, wanted: impl Fn(&AccountSpec) -> bool) -> String {
    let entry = |account: AccountSpec| {
        let token = sandbox.grant(account.id)?;
        Some(json!({
            "name": account_name(&account),
            "realm": realm(account.platform),
            "account_id": account.id.to_string(),
            "refresh_token": token,
        }))
    };
    let entries: serde_json::Value =
        sandbox.accounts().into_iter().filter(wanted).filter_map(entry).collect();
    format!("{entries:#}\n")
}

fn realm_toml(sandbox: &Handle, platform: Platform, addresses: &Addresses) -> String {
    let client = sandbox.client(platform);
    let hosts = hosts_of(sandbox, platform);
    let allowed: Vec<String> = hosts.iter().map(|(host, _)| format!("{host:?}")).collect();
    let mut text = format!(
        r#"
[realms.{realm}]
kind = "{kind}"
oauth_base = "{oauth_base}"
base_url = "{base_url}"
login_page = "{login_page}"
redirect_uri = "{redirect_uri}"
client_id = "{client_id}"
client_secret = {{ file = "{secret}" }}
allowed_hosts = [{allowed}]
allow_insecure = true
"#,
        realm = realm(platform),
        kind = if platform == Platform::New { "new" } else { "old" },
        oauth_base = sandbox.oauth_base(platform),
        base_url = sandbox.base_url(platform),
        login_page = sandbox.login_page(platform),
        redirect_uri = addresses.redirect_uri,
        client_id = client.id,
        secret = secret_file(platform),
        allowed = allowed.join(", "),
    );
    if sandbox.ca_pem().is_some() {
        text.push_str(&format!("ca_file = \"{CA}\"\n"));
    }
    let named = hosts.iter().filter(|(host, ip)| host != ip);
    let resolved: Vec<String> = named.map(|(host, ip)| format!("{host:?} = {ip:?}")).collect();
    if !resolved.is_empty() {
        text.push_str(&format!("resolve = {{ {} }}\n", resolved.join(", ")));
    }
    text
}

/// Host as URLs print it, and the address behind it, of each host of a platform; each once.
fn hosts_of(sandbox: &Handle, platform: Platform) -> Vec<(String, String)> {
    let mut hosts: Vec<(String, String)> = Vec::new();
    for role in HostRole::ALL.into_iter().filter(|role| role.platform() == Some(platform)) {
        let Some(address) = sandbox.address(role) else { continue };
        let Ok(url) = url::Url::parse(&sandbox.origin(role)) else { continue };
        let host = (url.host_str().unwrap_or_default().to_owned(), address.ip().to_string());
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts
}

fn secret_file(platform: Platform) -> String {
    format!("client-{}.secret", realm(platform))
}

/// Readable by its owner alone: a gateway refuses looser secrets.
fn write_private(path: &Path, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    match create_private(path) {
        Ok(mut file) => Ok(file.write_all(text().as_bytes())?),
        Err(fault) if fault.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(fault) => Err(fault).with_context(|| format!("{} cannot be written", path.display())),
    }
}

pub(super) fn create_private(path: &Path) -> std::io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
