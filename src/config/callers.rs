//! `[[callers]]`: who may call, how each is known, and for which accounts. Nobody can be taken for somebody
//! else, and a configuration that lets anybody in beyond loopback does not start (threats, row 25).

use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use crate::model::account::{AccountId, AccountName, RealmName};
use crate::model::endpoint::Group;
use crate::model::origin::Origin;
use crate::model::redirect_uri::RedirectUri;

use super::defaults::{FACADE_TOKEN_LIFE, FACADE_TOKEN_SIZE};
use super::groups::CallerGroup;
use super::listeners::Exposure;
use super::reader::{Location, Reader, Reported, Section, TomlValue};
use super::realms::RealmNames;
use super::values::{covers_everything, digest, every, limit, networks, own_url};
use super::{AccountPattern, CallerConfig, FacadeConfig};

const KEY_FIX: &str =
    "make a key with `genapi-gateway callers new-key` and write the key_sha256 that it prints";
const FINGERPRINT_FIX: &str = "write the output of `openssl x509 -noout -fingerprint -sha256 -in cert.pem`";

/// The callers that are valid, and whether each that is there has a URL of its own.
pub(super) struct ReadCallers {
    pub callers: Vec<CallerConfig>,
    pub all_have_urls: bool,
}

/// What may identify one caller only.
#[derive(Default)]
struct ClaimedIdentities {
    names: Vec<(String, Location)>,
    /// `what it is` + its value.
    identities: Vec<(Identity, Location)>,
}

#[derive(PartialEq)]
enum Identity {
    Key([u8; 32]),
    CertificateFiles([u8; 32]),
    Network(IpNet),
    FacadeClientId(String),
}

pub(super) fn callers(root: &Section<'_>, realms: &RealmNames, exposure: &Exposure) -> ReadCallers {
    let sections = root.repeated_sections("callers");
    if sections.is_empty() {
        let fix = "add [[callers]] with name, accounts and key_sha256; see config.toml.example";
        root.reader.problem(&root.location_of("callers"), "names no caller, so nobody could call", fix);
    }
    let mut claimed = ClaimedIdentities::default();
    let mut read = ReadCallers { callers: Vec::new(), all_have_urls: !sections.is_empty() };
    for section in sections {
        read.all_have_urls &= section.get("url").is_some();
        read.callers.extend(caller(section, realms, exposure, &mut claimed));
    }
    read
}

fn caller(
    section: Section<'_>,
    realms: &RealmNames,
    exposure: &Exposure,
    claimed: &mut ClaimedIdentities,
) -> Result<CallerConfig, Reported> {
    let reader = section.reader;
    let name = section.required("name", "name = \"lab-sync\"").and_then(|value| name(&value, claimed));
    let group = CallerGroup::of(&section, &realms.places);
    let own_group = group.as_ref().ok();
    let accounts = section.required("accounts", "accounts = [\"smile-*\"]");
    let accounts = accounts.and_then(|value| accounts_of(&value, realms, own_group));
    let key = section.optional("key_sha256", |value| digest(value, KEY_FIX));
    let certificate = section.optional("cert_sha256", |value| digest(value, FINGERPRINT_FIX));
    let networks = section.get("networks").map_or(Vec::new(), |value| networks(&value));
    let facade = facade(&section, realms, own_group);
    let allow = allow(&section);
    let url = section.optional("url", own_url);
    let limit = limit(&section, "limit");
    let origins = origins(&section);

    claimed.claim(
        reader,
        key.ok().flatten().map(|digest| (section.location_of("key_sha256"), Identity::Key(digest))),
    );
    claimed.claim(
        reader,
        certificate
            .ok()
            .flatten()
            .map(|digest| (section.location_of("cert_sha256"), Identity::CertificateFiles(digest))),
    );
    for (location, network) in &networks {
        claimed.claim(reader, Some((location.clone(), Identity::Network(*network))));
    }
    let client_id = facade.iter().flatten().map(|facade| facade.client_id.clone()).next();
    claimed.claim(reader, client_id.map(|id| (section.location_of("facade"), Identity::FacadeClientId(id))));

    must_be_known_somehow(&section, exposure);
    refuse_open_doors(reader, &networks, exposure);
    warn_of_all_accounts(&section, accounts.as_deref().ok(), &networks);
    section.reject_unknown_keys();
    Ok(CallerConfig {
        name: name?,
        reach: group?.reach(),
        accounts: accounts?,
        key: key?,
        networks: networks.into_iter().map(|(_, network)| network).collect(),
        certificate: certificate?,
        facade: facade?,
        allow: allow?,
        url: url?,
        limit: limit?,
        origins: origins?,
    })
}

pub const CALLER_NAME_RULE: &str =
    "use letters, digits, '.', '_' and '-', at least one and at most 64: it stands in every log line";

/// Whether a caller may be called so.
pub fn is_caller_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
}

fn name(value: &TomlValue<'_>, claimed: &mut ClaimedIdentities) -> Result<String, Reported> {
    let text = value.text()?;
    if !is_caller_name(text) {
        return value.refuse(format!("{text:?} is not a name"), CALLER_NAME_RULE);
    }
    if let Some((_, other)) = claimed.names.iter().find(|(name, _)| name == text) {
        return value.refuse(format!("{text:?} is the name of {} already", other.key), "choose another name");
    }
    claimed.names.push((text.to_owned(), value.location.clone()));
    Ok(text.to_owned())
}

impl ClaimedIdentities {
    fn claim(&mut self, reader: &Reader<'_>, claimed: Option<(Location, Identity)>) {
        let Some((location, mark)) = claimed else { return };
        if let Some((_, other)) = self.identities.iter().find(|(known, _)| *known == mark) {
            let (what, fix) = match mark {
                Identity::Key(_) => ("key", KEY_FIX),
                Identity::CertificateFiles(_) => ("certificate", "give each caller its own certificate"),
                Identity::Network(_) => ("network", "narrow one of the two, or give the callers keys"),
                Identity::FacadeClientId(_) => ("client_id", "give each caller its own client_id"),
            };
            reader.problem(&location, format!("is the {what} of {} already", other.key), fix);
        }
        self.identities.push((mark, location));
    }
}

fn accounts_of(
    value: &TomlValue<'_>,
    realms: &RealmNames,
    group: Option<&CallerGroup<'_>>,
) -> Result<Vec<AccountPattern>, Reported> {
    let items = value.items("a list of account names, like [\"smile-*\"]")?;
    if items.is_empty() {
        return value.refuse("names no account", "list names or ids; \"*\" for all");
    }
    every(&items, |item| pattern(item, realms, group))
}

fn pattern(
    value: &TomlValue<'_>,
    realms: &RealmNames,
    group: Option<&CallerGroup<'_>>,
) -> Result<AccountPattern, Reported> {
    const FIX: &str = "write a name, a name with *, an id, or realm:id";
    if !value.is_text() {
        return value.wrong_type("a text in quotes, ids too");
    }
    let text = value.text()?;
    if let Some((realm, id)) = text.split_once(':') {
        if !realms.known.iter().any(|known| known == realm) {
            let fix = format!("name one of: {}", realms.known.join(", "));
            return value.refuse(format!("realm {realm:?} is not known"), fix);
        }
        group.map_or(Ok(()), |group| group.refuse_other_group(value, realm))?;
        // One that is not a name has been reported with the realm.
        let realm: RealmName = realm.parse().map_err(|_| Reported)?;
        let Ok(id) = id.parse::<AccountId>() else {
            return value.refuse(format!("{id:?} is not an account id"), FIX);
        };
        return Ok(AccountPattern::Id { realm: Some(realm), id });
    }
    if let Ok(id) = text.parse::<AccountId>() {
        return Ok(AccountPattern::Id { realm: None, id });
    }
    // A pattern is a name once its stars are letters.
    let name = text.replace('*', "a");
    match name.parse::<AccountName>() {
        Ok(_) => Ok(AccountPattern::Name(text.to_owned())),
        Err(problem) => value.refuse(format!("{text:?} names no account: {}", problem.rule), FIX),
    }
}

/// From what an application can refresh in time to the vendor's own hour.
const TOKEN_LIVES: RangeInclusive<Duration> = Duration::from_secs(60)..=FACADE_TOKEN_LIFE;
/// The size that the vendor documents for its own (Authentication and Pairing V2, 4.1.2).
const LONGEST_TOKEN: usize = 8 * 1024;

fn facade(
    section: &Section<'_>,
    realms: &RealmNames,
    group: Option<&CallerGroup<'_>>,
) -> Result<Option<FacadeConfig>, Reported> {
    let given = section.section("facade");
    if !given.present() {
        return Ok(None);
    }
    let client_id = given.required("client_id", "client_id = \"…\", as the application sends it");
    let client_id = client_id.and_then(|value| value.text().map(str::to_owned));
    let secret = given.required("client_secret_sha256", "client_secret_sha256 = \"…\"");
    let fix = "write the SHA-256 of the secret that the application sends, as `sha256sum` prints it";
    let client_secret = secret.and_then(|value| digest(&value, fix));
    let redirect_uris = redirect_uris(&given);
    let redirects = redirect_uris.as_deref().unwrap_or_default();
    let realm = group.map_or(Err(Reported), |group| login_realm(&given, realms, group, redirects));
    let adopt = given.boolean("adopt", false);
    let id_token = given.boolean("id_token", false);
    let token_life = given.duration("token_life", FACADE_TOKEN_LIFE, TOKEN_LIVES);
    let token_size = given.size("token_size", FACADE_TOKEN_SIZE, 0..=LONGEST_TOKEN);
    given.reject_unknown_keys();
    Ok(Some(FacadeConfig {
        client_id: client_id?,
        client_secret: client_secret?,
        redirect_uris: redirect_uris?,
        realm: realm?,
        adopt,
        id_token,
        token_life,
        token_size,
    }))
}

/// Where the login of an application may end.
fn redirect_uris(facade: &Section<'_>) -> Result<Vec<RedirectUri>, Reported> {
    let Some(value) = facade.get("redirect_uris") else { return Ok(Vec::new()) };
    let items = value.items("a list of addresses, like [\"http://127.0.0.1:5000/cb\"]")?;
    every(&items, |item| {
        let text = item.text()?;
        let uri: RedirectUri = match text.parse() {
            Ok(uri) => uri,
            Err(problem) => {
                let fix = "write the redirect_uri exactly as the application sends it";
                return item.refuse(format!("{text:?} is no redirect URI: {problem}"), fix);
            }
        };
        if uri.is_unprotected() {
            let what = "carries the codes of logins over a network in the clear";
            item.warn(what, "use https where the application can be reached by it");
        }
        Ok(uri)
    })
}

/// The realm of an application's logins: the one that is named, or the first of its group on the new
/// platform, where new accounts are.
fn login_realm(
    facade: &Section<'_>,
    realms: &RealmNames,
    group: &CallerGroup<'_>,
    redirect_uris: &[RedirectUri],
) -> Result<Option<RealmName>, Reported> {
    let Some(value) = facade.get("realm") else {
        if let (Some(chosen), [_, _, ..], [_, ..]) = (group.newest(), &*group.realms(), redirect_uris) {
            let what =
                format!("is missing, so people log in at realm {chosen:?}, the first on the new platform");
            let fix = format!("name one of: {}", group.realms().join(", "));
            facade.reader.warning(&facade.location_of("realm"), what, fix);
        }
        return Ok(group.newest().and_then(|name| name.parse().ok()));
    };
    let text = value.text()?;
    if !realms.known.iter().any(|name| name == text) {
        let fix = format!("name one of: {}", realms.known.join(", "));
        return value.refuse(format!("realm {text:?} is not known"), fix);
    }
    group.refuse_other_group(&value, text)?;
    // One that is not a name has been reported with the realm.
    Ok(Some(text.parse().map_err(|_| Reported)?))
}

fn allow(section: &Section<'_>) -> Result<Vec<Group>, Reported> {
    let Some(value) = section.get("allow") else {
        return Ok(Group::ALL.into_iter().filter(|group| group.allowed_by_default()).collect());
    };
    let items = value.items("a list of words, like [\"orders\", \"downloads\"]")?;
    if items.is_empty() {
        return value.refuse("allows nothing", "list what this caller may do, or remove allow");
    }
    every(&items, group)
}

fn group(value: &TomlValue<'_>) -> Result<Group, Reported> {
    let word = value.text()?;
    let Some(group) = Group::from_word(word) else {
        let known = Group::ALL.map(Group::word).join(", ");
        return value.refuse(format!("{word:?} is no group of calls"), format!("use some of: {known}"));
    };
    if !group.allowed_by_default() {
        let what = format!("lets this caller {word}, which hits every user of the account");
        value.warn(what, "remove the word unless the application really does that by itself");
    }
    Ok(group)
}

/// Pages are let in by the key alone: whatever else a caller is known by, a browser would show for any page.
fn origins(section: &Section<'_>) -> Result<Vec<Origin>, Reported> {
    let Some(value) = section.get("origins") else { return Ok(Vec::new()) };
    let items = value.items("a list of origins, like [\"https://viewer.example.com\"]")?;
    let origins = every(&items, origin);
    if section.get("key_sha256").is_none() && !items.is_empty() {
        let what =
            "can never match: a page is let in by the caller's key as X-Gateway-Key, and there is none";
        return value.refuse(what, KEY_FIX);
    }
    origins
}

fn origin(value: &TomlValue<'_>) -> Result<Origin, Reported> {
    let text = value.text()?;
    let origin: Origin = match text.parse() {
        Ok(origin) => origin,
        Err(problem) => {
            let fix = "write scheme and host as the page sends them in Origin, like \"https://viewer.example.com\" or \"file://\"";
            return value.refuse(format!("{text:?} is no origin: {problem}"), fix);
        }
    };
    if origin.is_anonymous() {
        let what = "lets in every local and sandboxed page that knows the key";
        value.warn(what, "name the page's own origin where it has one");
    }
    Ok(origin)
}

fn must_be_known_somehow(section: &Section<'_>, exposure: &Exposure) {
    let by_certificate = section.get("cert_sha256").is_some();
    let otherwise = ["key_sha256", "facade"].iter().any(|key| section.get(key).is_some())
        || section.get("networks").is_some_and(|value| !value.is_empty_list());
    if !by_certificate && !otherwise {
        let what = "has nothing to be known by";
        section.reader.problem(&section.location, what, format!("{KEY_FIX}; or add networks"));
    }
    if by_certificate && !exposure.client_certificates {
        let location = section.location_of("cert_sha256");
        let fix = "add client_ca to [gateway] tls, so that callers are asked for their certificate";
        section.reader.problem(&location, "can never match: no listener takes client certificates", fix);
    }
}

fn refuse_open_doors(reader: &Reader<'_>, networks: &[(Location, IpNet)], exposure: &Exposure) {
    for (location, network) in networks {
        if exposure.reachable && covers_everything(network) {
            let what = format!("{network} lets anybody in who can reach the listener");
            let fix = "name the networks of the callers, or give them keys, or listen on loopback only";
            reader.problem(location, what, fix);
        }
    }
}

fn warn_of_all_accounts(
    section: &Section<'_>,
    accounts: Option<&[AccountPattern]>,
    networks: &[(Location, IpNet)],
) {
    let all = |pattern: &AccountPattern| *pattern == AccountPattern::Name("*".to_owned());
    if !networks.is_empty() && accounts.is_some_and(|accounts| accounts.iter().any(all)) {
        section.reader.warning(
            &section.location_of("accounts"),
            "gives all accounts to whoever stands in that network",
            "name the accounts, or give the caller a key instead of a network",
        );
    }
}
