//! `[realms.NAME]`: where client credentials and tokens may go. What is refused here would otherwise leak
//! them; two realms never share credentials, or one account would be refreshed twice (threats, rows 7, 24,
//! 26).

use std::collections::BTreeMap;
use std::net::IpAddr;

use url::{Host, Url};

use crate::model::account::{RealmGroup, RealmName};
use crate::model::route::{HostPattern, HostPolicy, Route};
use crate::model::token::ClientSecret;

use super::groups::{self, RealmPlace};
use super::reader::{Location, Reader, Reported, Section, TomlValue};
use super::values::{
    certificates, every, is_loopback, plain_url, platform_base, platform_url, secret_source,
};
use super::{Discovery, PinnedRoute, RealmConfig, RealmKind, defaults, placeholders, secret};

/// Domains of Align's (gen-api, section 1): no sandbox stands there.
const VENDOR_DOMAINS: [&str; 2] = ["iterocloud.com", "aligntech.com"];
/// Paths of the listeners that serve the callback.
const RESERVED_PATHS: [&str; 5] =
    ["/healthz", "/readyz", "/metrics", "/connect/authorize", "/connect/choose"];

/// What the other sections need to know of the realms, whether they are valid or not.
pub(super) struct RealmNames {
    /// In the file's order.
    pub known: Vec<String>,
    /// Of those whose group could be read, in the file's order.
    pub places: Vec<RealmPlace>,
    /// Every realm says `allow_insecure`: nothing here is real.
    pub sandbox: bool,
}

pub(super) fn realms(root: &Section<'_>) -> (BTreeMap<RealmName, RealmConfig>, RealmNames) {
    let sections = root.named_sections("realms");
    if sections.is_empty() {
        let fix = "add [realms.global] with the values that Align gave you; see config.toml.example";
        root.reader.problem(
            &root.location_of("realms"),
            "names no realm, so there is no platform to call",
            fix,
        );
    }
    let mut names = RealmNames { known: Vec::new(), places: Vec::new(), sandbox: !sections.is_empty() };
    let mut sited = Vec::new();
    for (name, section) in sections {
        let location = section.location.clone();
        let insecure = section.boolean("allow_insecure", false);
        names.sandbox &= insecure;
        let valid: Result<RealmName, Reported> = section.named(&name);
        let group = groups::group(&section);
        let place = group.as_ref().ok().map(|group| RealmPlace::new(&name, group.clone()));
        names.places.extend(place);
        let realm = realm(section, valid, group, insecure);
        names.known.push(name);
        sited.extend(realm.map(|realm| (location, realm)));
    }
    RealmPlace::complete(&mut names.places, &sited);
    keep_apart(root.reader, &sited);
    groups::keep_apart(root.reader, &sited);
    (sited.into_iter().map(|(_, realm)| (realm.name.clone(), realm)).collect(), names)
}

fn realm(
    section: Section<'_>,
    name: Result<RealmName, Reported>,
    group: Result<Option<RealmGroup>, Reported>,
    insecure: bool,
) -> Result<RealmConfig, Reported> {
    let required = |key, example| section.required(key, example);
    let oauth_base = required("oauth_base", "oauth_base = \"https://prod-identity.iterocloud.com\"");
    let oauth_base = oauth_base.and_then(|value| platform_base(&value, insecure));
    let base_url = required("base_url", "base_url = \"https://prod-iteroapi.iterocloud.com\"");
    let base_url = base_url.and_then(|value| platform_base(&value, insecure));
    let login_page = required("login_page", "login_page = \"…\", the loginPage URL that Align gave you");
    let login_page = login_page.and_then(|value| platform_url(&value, insecure));
    let scope =
        section.or_default("scope", |value| Ok(value.text()?.to_owned()), || defaults::SCOPE.to_owned());
    let authorize_parameters = authorize_parameters(&section);
    let redirect_uri = required("redirect_uri", "redirect_uri = \"…\", as it stands on Align's white list");
    let redirect_uri = redirect_uri.and_then(|value| redirect_uri_of(&value, insecure));
    let client_id = required("client_id", "client_id = \"…\", as Align gave it to you");
    let client_id = client_id.and_then(|value| {
        let text = value.text()?;
        placeholders::warn_of_placeholder(&value, text, false);
        Ok(text.to_owned())
    });
    let client_secret = required("client_secret", "client_secret = { env = \"ITERO_CLIENT_SECRET\" }");
    let client_secret = client_secret.and_then(|value| client_secret_of(&value));
    let hosts = hosts(&section, insecure);
    let link_hosts = section.or_default("link_hosts", |value| patterns(value, insecure), Vec::new);
    let discovery = discovery(&section);
    let route = pinned_route(&section, hosts.as_ref().ok());
    let ca_file = section.optional("ca_file", certificates);
    let resolve = resolve(&section);
    let kind = kind(&section);
    for (key, url) in [("oauth_base", &oauth_base), ("base_url", &base_url)] {
        warn_of_address(&section, key, url.as_ref().ok(), hosts.as_ref().ok());
    }
    section.reject_unknown_keys();
    Ok(RealmConfig {
        name: name?,
        group: group?,
        kind: kind?,
        oauth_base: oauth_base?,
        base_url: base_url?,
        login_page: login_page?,
        scope: scope?,
        authorize_parameters: authorize_parameters?,
        redirect_uri: redirect_uri?,
        client_id: client_id?,
        client_secret: client_secret?,
        hosts: hosts?,
        link_hosts: link_hosts?,
        discovery: discovery?,
        route: route?,
        ca_file: ca_file?,
        resolve: resolve?,
    })
}

/// Those that the gateway sends itself are no further ones.
const OWN_PARAMETERS: [&str; 6] =
    ["client_id", "response_type", "state", "redirect_uri", "loginPage", "scope"];

fn authorize_parameters(section: &Section<'_>) -> Result<BTreeMap<String, String>, Reported> {
    let mut parameters = BTreeMap::new();
    let mut problem = None;
    for (name, value) in section.named_values("authorize_parameters") {
        if OWN_PARAMETERS.contains(&name.as_str()) {
            let fix = "remove it; scope and login_page are keys of the realm";
            problem = value.refuse::<()>(format!("{name} is sent by the gateway itself"), fix).err();
            continue;
        }
        match value.text() {
            Ok(text) => drop(parameters.insert(name, text.to_owned())),
            Err(reported) => problem = Some(reported),
        }
    }
    problem.map_or(Ok(parameters), Err)
}

fn kind(section: &Section<'_>) -> Result<RealmKind, Reported> {
    let Some(value) = section.get("kind") else { return Ok(RealmKind::New) };
    match value.text()? {
        "new" => Ok(RealmKind::New),
        "old" => Ok(RealmKind::Old),
        other => value.refuse(format!("{other:?} is not a kind of platform"), "write \"new\" or \"old\""),
    }
}

/// On Align's white list, hence https and without a fragment (gen-api, section 2).
fn redirect_uri_of(value: &TomlValue<'_>, insecure: bool) -> Result<Url, Reported> {
    let schemes: &[&str] = if insecure { &["https", "http"] } else { &["https"] };
    let url = plain_url(value, schemes)?;
    if !insecure && is_loopback(&url) {
        let fix =
            "write the white-listed address; where no browser reaches it, paste the redirected URL instead";
        return value.refuse("is a loopback address, which the platform does not redirect to", fix);
    }
    if RESERVED_PATHS.contains(&url.path()) {
        return value
            .refuse(format!("has the path {}, which is the gateway's own", url.path()), "use another path");
    }
    placeholders::warn_of_placeholder_host(value, &url);
    Ok(url)
}

fn client_secret_of(value: &TomlValue<'_>) -> Result<ClientSecret, Reported> {
    let source = secret_source(value)?;
    match secret::read(&source, value.reader.env) {
        Ok(secret) => {
            placeholders::warn_of_placeholder(value, &secret, true);
            Ok(ClientSecret::new(secret))
        }
        Err(problem) => value.refuse(problem.what, problem.fix),
    }
}

fn hosts(section: &Section<'_>, insecure: bool) -> Result<HostPolicy, Reported> {
    let value = section.required("allowed_hosts", "allowed_hosts = [\"*.iterocloud.com\"]")?;
    let allowed = patterns(&value, insecure)?;
    if allowed.is_empty() {
        return value
            .refuse("allows no host, so discovery could lead nowhere", "write [\"*.iterocloud.com\"]");
    }
    Ok(HostPolicy { allowed, allow_insecure: insecure })
}

/// An address among the patterns would never be taken in a realm that is not a sandbox.
fn patterns(value: &TomlValue<'_>, insecure: bool) -> Result<Vec<HostPattern>, Reported> {
    const FIX: &str = "write host names, like \"*.iterocloud.com\"; * stands for one or more labels";
    let items = value.items("a list of host names, like [\"*.iterocloud.com\"]")?;
    every(&items, |item| {
        let pattern = item.parse::<HostPattern>(FIX)?;
        let bare = pattern.to_string();
        let is_address = bare.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        if is_address && !insecure {
            return item.refuse("is an address instead of a host name", FIX);
        }
        Ok(pattern)
    })
}

fn discovery(section: &Section<'_>) -> Result<Discovery, Reported> {
    let given = section.section("discovery");
    let absolute_path = |value: &TomlValue<'_>| match value.text()? {
        path if path.starts_with('/') && !path.contains(['?', '#']) => Ok(path.to_owned()),
        _ => value.refuse("is not an absolute path without a query", "begin it with /"),
    };
    let path = given.or_default("path", absolute_path, || defaults::DISCOVERY_PATH.to_owned());
    let text = |key, default: &str| given.or_default(key, TomlValue::text_or_number, || default.to_owned());
    let name = text("name", defaults::DISCOVERY_NAME);
    let version = text("version", defaults::DISCOVERY_VERSION);
    given.reject_unknown_keys();
    Ok(Discovery { path: path?, name: name?, version: version? })
}

fn pinned_route(section: &Section<'_>, hosts: Option<&HostPolicy>) -> Result<Option<PinnedRoute>, Reported> {
    let given = section.section("route");
    if !given.present() {
        return Ok(None);
    }
    let text = |key, example| given.required(key, example).and_then(|value| value.text().map(str::to_owned));
    let domain = text("domain", "route = { domain = \"https://gateway-cus.aligntech.com\", path = \"…\" }");
    let path = text("path", "route = { domain = \"…\", path = \"/lab-sw/v1\" }");
    let location = given.location.clone();
    let host =
        domain.as_deref().ok().map(|domain| domain.trim_start_matches("https://").split(['/', ':']).next());
    if let (Some(value), Some(Some(host))) = (given.get("domain"), host) {
        placeholders::warn_of_retired_host(&value, host);
    }
    given.reject_unknown_keys();
    let route = PinnedRoute { domain: domain?, path: path? };
    if let Err(problem) = Route::parse(&route.domain, &route.path, hosts.ok_or(Reported)?) {
        let fix = "write an https Domain within allowed_hosts, and its Path beginning with /";
        section.reader.problem(&location, problem.to_string(), fix);
        return Err(Reported);
    }
    Ok(Some(route))
}

fn resolve(section: &Section<'_>) -> Result<BTreeMap<String, IpAddr>, Reported> {
    let entries: Vec<Result<(String, IpAddr), Reported>> = section
        .named_values("resolve")
        .into_iter()
        .map(|(host, value)| {
            let address = value.parse::<IpAddr>("write the IP address of that host, without a port");
            let name = match Host::parse(&host) {
                Ok(Host::Domain(name)) if !host.contains('*') => Ok(name),
                _ => value.refuse(format!("{host:?} is not a host name"), "write \"host\" = \"address\""),
            };
            Ok((name?, address?))
        })
        .collect();
    entries.into_iter().collect()
}

/// Not refused, since the configuration is the operator's word: but most such cases are slips.
fn warn_of_address(section: &Section<'_>, key: &'static str, url: Option<&Url>, hosts: Option<&HostPolicy>) {
    let (Some(url), Some(hosts)) = (url, hosts) else { return };
    let Some(host) = url.host_str() else { return };
    let location = section.location_of(key);
    if !hosts.allows(host) {
        let what = format!("{host} is not in allowed_hosts, and gets credentials or tokens all the same");
        section.reader.warning(&location, what, "add it to allowed_hosts, or correct it");
    }
    let vendors = |domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    if hosts.allow_insecure && VENDOR_DOMAINS.into_iter().any(vendors) {
        let what = format!("{host} is Align's, and allow_insecure lets tokens go anywhere in clear");
        section.reader.warning(&location, what, "remove allow_insecure from this realm");
    }
}

/// Two realms with the same credentials would refresh one account twice; two that allow the same hosts could
/// be led to use the wrong bearer there.
fn keep_apart(reader: &Reader<'_>, realms: &[(Location, RealmConfig)]) {
    for (at, (location, realm)) in realms.iter().enumerate() {
        for (_, other) in &realms[..at] {
            if realm.oauth_base == other.oauth_base && realm.client_id == other.client_id {
                let what = format!("has the oauth_base and client_id of realm {}", other.name);
                let fix = "keep one of the two; one set of credentials is one realm";
                reader.problem(location, what, fix);
            }
            let shared = realm.hosts.allowed.iter().find(|pattern| other.hosts.allowed.contains(pattern));
            let sandbox = realm.hosts.allow_insecure && other.hosts.allow_insecure;
            // Of two groups that is no doubt but a fault, which `groups` reports.
            if let Some(shared) = shared.filter(|_| !sandbox && realm.group == other.group) {
                let what = format!("allows {shared}, as realm {} does", other.name);
                let fix = "list under each realm its own hosts, so that no token can cross over";
                reader.warning(location, what, fix);
            }
        }
    }
}
