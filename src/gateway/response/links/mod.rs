//! Rewrites links in responses, by value: a URL whose host is the account's own Domain or a configured link
//! host becomes ours, and nothing else is changed. What is rewritten leads back to exactly the platform
//! address it came from (`target` is the other half).
//!
//! A gateway link names its account, not its caller: whoever fetches it is identified like anybody else, by
//! key or by network.

mod fields;
mod rewriter;
mod url;

use std::fmt;
use std::sync::Arc;

use crate::model::account::{AccountName, RealmName};
use crate::model::route::Route;

use crate::gateway::download_links::{DownloadLink, DownloadLinks, address_in_json};
use crate::gateway::inbound::{link_host, target};
use crate::gateway::settings::{BaseUrl, RealmPolicy};
use url::{authority_end, path_of};

pub use fields::ADDRESS_FIELDS;
pub use rewriter::{LinkCounts, LinkMatcher, Rewriter, has_wide_letters};

/// Where links of one account point to, there and here.
pub struct LinkContext {
    route: Arc<Route>,
    authority: String,
    realm: Arc<RealmPolicy>,
    /// `http://gateway:8080/accounts/smile`
    absolute: String,
    /// `/accounts/smile`
    relative: String,
    /// Where links to downloads are remembered.
    memory: Option<LinkMemory>,
}

struct LinkMemory {
    links: Arc<DownloadLinks>,
    account: AccountName,
    realm_name: RealmName,
}

/// What replaces scheme and authority of a platform URL.
struct GatewayUrl<'t> {
    prefix: &'t str,
    /// Where the prefix alone would not lead back.
    host: Option<&'t str>,
}

impl GatewayUrl<'_> {
    fn parts(&self) -> [&str; 3] {
        [self.prefix, self.host.map_or("", |_| "/@"), self.host.unwrap_or_default()]
    }

    fn write(&self, slash: Slash, out: &mut Vec<u8>) {
        for part in self.parts() {
            write_with(slash, part, out);
        }
    }
}

/// How a text writes a slash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slash {
    Plain,
    /// `\/`
    Escaped,
    /// `\u002f`
    Unicode,
}

impl Slash {
    fn as_str(self) -> &'static str {
        match self {
            Slash::Plain => "/",
            Slash::Escaped => "\\/",
            Slash::Unicode => "\\u002f",
        }
    }
}

impl fmt::Display for GatewayUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts().into_iter().try_for_each(|part| f.write_str(part))
    }
}

impl LinkContext {
    pub fn new(base: &BaseUrl, account: &AccountName, route: &Arc<Route>, realm: &Arc<RealmPolicy>) -> Self {
        Self {
            route: route.clone(),
            authority: route.authority(),
            realm: realm.clone(),
            absolute: format!("{}{}/accounts/{account}", base.origin, base.path),
            relative: format!("{}/accounts/{account}", base.path),
            memory: None,
        }
    }

    /// Links to downloads are remembered for applications that build the address by hand.
    pub fn remembering(self, links: &Arc<DownloadLinks>, account: &AccountName, realm: &RealmName) -> Self {
        let memory = LinkMemory { links: links.clone(), account: account.clone(), realm_name: realm.clone() };
        Self { memory: Some(memory), ..self }
    }

    /// A link whose address begins with `text`; `host` where it is not the account's own short form.
    #[cold]
    fn remember(&self, host: Option<&str>, text: &[u8]) {
        let Some(memory) = &self.memory else { return };
        let Some(path_and_query) = address_in_json(text) else { return };
        let authority = host.unwrap_or(&self.authority).to_owned();
        memory.links.saw(&memory.account, &memory.realm_name, DownloadLink { authority, path_and_query });
    }

    /// Our address for a path on a host of the platform, the path itself left off. The short form is taken
    /// only where it leads back to the very same platform path.
    fn gateway_url<'t>(&'t self, prefix: &'t str, authority: &'t str, path: &[u8]) -> GatewayUrl<'t> {
        let short = self.is_own(authority) && target::round_trips(&path_of(path), self.route.path());
        GatewayUrl { prefix, host: (!short).then_some(authority) }
    }

    /// What nearly all links are: the account's own authority, its Path, and something that is no prefix. The
    /// others are judged at length.
    fn surely_round_trips(&self, rest: &[u8], safe_bytes: &[bool; 256]) -> bool {
        let behind = rest
            .strip_prefix(self.authority.as_bytes())
            .and_then(|path| path.strip_prefix(self.route.path().as_bytes()));
        matches!(behind, Some([b'/', next, ..]) if safe_bytes[usize::from(*next)])
    }

    fn is_own(&self, authority: &str) -> bool {
        link_host::is_authority_of(authority, &self.route)
    }

    fn is_rewritten_host(&self, authority: &str) -> bool {
        self.is_own(authority) || link_host::parse(authority, &self.route, &self.realm).is_some()
    }
}

fn write_with(slash: Slash, text: &str, out: &mut Vec<u8>) {
    if slash == Slash::Plain {
        return out.extend_from_slice(text.as_bytes());
    }
    for (count, part) in text.split('/').enumerate() {
        if count > 0 {
            out.extend_from_slice(slash.as_str().as_bytes());
        }
        out.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::testing;
    use crate::model::route::HostPolicy;

    pub(super) fn link_context_at(domain: &str, path: &str, base: &str, insecure: bool) -> LinkContext {
        let policy = HostPolicy {
            allowed: vec!["*.iterocloud.com".parse().unwrap(), "127.0.0.1".parse().unwrap()],
            allow_insecure: insecure,
        };
        let realm = RealmPolicy {
            hosts: policy.clone(),
            link_hosts: vec!["files.iterocloud.com".parse().unwrap()],
            discovery: testing::config().realms.values().next().unwrap().discovery.clone(),
        };
        let route = Arc::new(Route::parse(domain, path, &policy).unwrap());
        LinkContext::new(
            &BaseUrl::new(&base.parse().unwrap()),
            &"smile".parse().unwrap(),
            &route,
            &Arc::new(realm),
        )
    }

    pub(super) fn link_context() -> LinkContext {
        link_context_at("https://eu.iterocloud.com", "/itero-gen-api/v2", "http://gw:8080", false)
    }
}
