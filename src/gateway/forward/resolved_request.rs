//! A call whose caller, account and endpoint are known, and where an attempt at it goes.

use std::borrow::Cow;
use std::sync::Arc;

use http::Method;
use http::header::HeaderValue;

use crate::access::Access;
use crate::access::registry::Account;
use crate::clock::Timestamp;
use crate::gateway::inbound::link_host;
use crate::gateway::inbound::permission::check_allowed;
use crate::gateway::inbound::target::{self, ParsedTarget};
use crate::gateway::refusal::Refusal;
use crate::gateway::settings::{CallerRules, GatewaySettings, RealmPolicy};
use crate::http1::RequestHead;
use crate::model::endpoint::{Endpoint, V1Difference};
use crate::model::route::Route;

/// A call whose caller, account and endpoint are known.
pub struct ResolvedRequest<'a> {
    pub settings: &'a GatewaySettings,
    pub head: &'a RequestHead,
    pub rules: &'a Arc<CallerRules>,
    pub realm: &'a Arc<RealmPolicy>,
    pub account: Arc<Account>,
    pub endpoint: &'static Endpoint,
    /// What has to be done about a V1 call on its way to V2 and back.
    pub v1: V1Difference,
    pub started: Timestamp,
    target: ParsedTarget<'a>,
}

/// Where one attempt goes.
pub struct UpstreamTarget<'a> {
    /// Lower case, without the port.
    pub host: Cow<'a, str>,
    pub port: u16,
    /// Host and port as the Host header has them.
    pub authority: HeaderValue,
    pub path: [&'a str; 2],
}

/// The old platform's V1 base (gen-api, section 1): where it is the route, V1 bodies are what the platform
/// expects.
const V1_PATH: &str = "/lab-sw/v1";

impl<'a> ResolvedRequest<'a> {
    /// Fixes the row now that the route's Path is known, and asks again whether the caller may.
    pub fn new(
        settings: &'a GatewaySettings,
        head: &'a RequestHead,
        rules: &'a Arc<CallerRules>,
        target: ParsedTarget<'a>,
        account: Arc<Account>,
        access: &Access,
        started: Timestamp,
    ) -> Result<Self, Refusal> {
        // An account's realm is gone only while a reload takes it away.
        let realm = settings.realm(access.realm()).ok_or(Refusal::AccountUnknown)?;
        // The account may have gone to a realm of another group since it was chosen.
        if !rules.reaches(access.realm()) {
            return Err(Refusal::AccountNotAllowed);
        }
        let endpoint = match target.link_host {
            Some(_) => target.endpoint,
            None => {
                target::strip_route_path(&head.method, target.rest, access.route().path(), target.endpoint).1
            }
        };
        check_allowed(rules, endpoint)?;
        let crosses = target.v1 && access.route().path() != V1_PATH;
        let v1 = if crosses { endpoint.v1 } else { V1Difference::Same };
        if v1 == V1Difference::Absent {
            return Err(Refusal::NotInV1(endpoint));
        }
        Ok(Self { settings, head, rules, realm, account, endpoint, v1, target, started })
    }

    /// Whether the response's body will be rewritten, so that it has to come in one part and as plain text.
    pub fn rewrites_response(&self) -> bool {
        self.endpoint.links || self.adds_case_types()
    }

    /// Whether the response is to have the members that V1's has.
    pub fn adds_case_types(&self) -> bool {
        self.v1 == V1Difference::CaseTypes && !self.settings.v1.case_types.is_empty()
    }

    /// Whether the fields that V2 adds to orders are to go.
    pub fn strips_orders(&self) -> bool {
        self.v1 == V1Difference::OrderFields && self.settings.v1.strips_orders
    }

    pub fn is_read(&self) -> bool {
        matches!(self.head.method, Method::GET | Method::HEAD)
    }

    pub fn retryable(&self) -> bool {
        self.endpoint.retryable(&self.head.method, self.settings.retry.scan_request)
    }

    /// Whether it goes to the account's route, and not to a link's host.
    pub fn takes_the_route(&self) -> bool {
        self.target.link_host.is_none()
    }

    /// As sent, without the `?`.
    pub fn query(&self) -> Option<&'a str> {
        self.target.query
    }

    /// The path that goes to the account's route: the route's Path, and what follows it.
    pub fn platform_path<'r>(&'r self, route: &'r Route) -> [&'r str; 2] {
        self.path(route)
    }

    /// Whether the target is spelled as links of the gateway's are: `/accounts/{name}`, Path, and the rest.
    pub fn is_spelled_like_a_link(&self, route: &Route) -> bool {
        let [path, rest] = self.path(route);
        let parts = [&*self.rules.url.path, "/accounts/", self.account.name.as_str(), path, rest];
        let left = parts.iter().try_fold(self.head.uri.path(), |text, part| text.strip_prefix(part));
        left == Some("")
    }

    /// Derived anew for each attempt: a renewal may have moved the account to another region.
    pub fn target<'r>(&'r self, route: &'r Route) -> Result<UpstreamTarget<'r>, Refusal> {
        let (host, port) = self.host(route)?;
        let authority = match self.target.link_host {
            Some(_) if (&*host, port) != (route.host(), route.port()) => {
                HeaderValue::try_from(route.authority_of(&host, port))
                    .map_err(|_| Refusal::BadRequest("odd link host"))?
            }
            _ => route.host_header().clone(),
        };
        Ok(UpstreamTarget { host, port, authority, path: self.path(route) })
    }

    fn host<'r>(&self, route: &'r Route) -> Result<(Cow<'r, str>, u16), Refusal> {
        let own = || (Cow::Borrowed(route.host()), route.port());
        match self.target.link_host {
            None => Ok(own()),
            Some(authority) if link_host::is_authority_of(authority, route) => Ok(own()),
            // Checked again on the way in: whoever made up this link does not decide where the bearer goes.
            Some(authority) => link_host::parse(authority, route, self.realm)
                .map(|(host, port)| (Cow::Owned(host), port))
                .ok_or(Refusal::BadRequest("the link's host is not one of this account's")),
        }
    }

    /// The route's Path, and what follows it.
    fn path<'r>(&'r self, route: &'r Route) -> [&'r str; 2] {
        let ParsedTarget { link_host, rest, .. } = self.target;
        match link_host {
            Some(_) => ["", rest],
            None => {
                let (rest, _) =
                    target::strip_route_path(&self.head.method, rest, route.path(), self.endpoint);
                [route.path(), rest]
            }
        }
    }
}
