//! The vendor's calls as one table, and which row a path means at which host.
//! Typed from the documents on its own; the gateway's table is another one on purpose.

use serde::{Deserialize, Serialize};

use super::host_role::{FIRST_PATH, HostRole, Platform, Region, V1_PATH, V2_PATH};

/// Every call that the vendor's hosts know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    Authorize,
    LoginPage,
    Exchange,
    Refresh,
    Revoke,
    Discovery,
    RelatedAccounts,
    Pair,
    Unpair,
    PracticeConfiguration,
    ScanRequest,
    DeleteScanRequest,
    OrdersPractice,
    OrdersLab,
    Order,
    Download,
    Return,
    PatientSearch,
    Patients,
    PatientByChartNumber,
    /// A pre-signed download at the storage host.
    Storage,
}

/// Which token a call wants (Authentication & Pairing V2, 4.2.1.3 and 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequiredToken {
    Login,
    Pair,
    Either,
    /// No bearer at all, or one that the handler looks at itself.
    Nothing,
}

impl Endpoint {
    pub fn required_token(self) -> RequiredToken {
        match self {
            Endpoint::Discovery => RequiredToken::Either,
            Endpoint::RelatedAccounts | Endpoint::Pair => RequiredToken::Login,
            Endpoint::Authorize
            | Endpoint::LoginPage
            | Endpoint::Exchange
            | Endpoint::Refresh
            | Endpoint::Revoke
            | Endpoint::Download
            | Endpoint::Storage => RequiredToken::Nothing,
            Endpoint::Unpair
            | Endpoint::PracticeConfiguration
            | Endpoint::ScanRequest
            | Endpoint::DeleteScanRequest
            | Endpoint::OrdersPractice
            | Endpoint::OrdersLab
            | Endpoint::Order
            | Endpoint::Return
            | Endpoint::PatientSearch
            | Endpoint::Patients
            | Endpoint::PatientByChartNumber => RequiredToken::Pair,
        }
    }

    /// The control calls' tables print 401 for a wrong or missing token; data calls are the vendor's unknown.
    pub fn is_data(self) -> bool {
        !matches!(self, Endpoint::Discovery | Endpoint::RelatedAccounts | Endpoint::Pair | Endpoint::Unpair)
    }
}

/// A row of the table: an endpoint with its methods and path.
struct EndpointTemplate {
    endpoint: Endpoint,
    /// The methods that the documents print, or, where they print none, those that make sense.
    methods: &'static [&'static str],
    /// `*` stands for one segment.
    template: &'static str,
    on_v1: bool,
}

#[rustfmt::skip]
const ROWS: &[EndpointTemplate] = &[
    // Migration notice, "Gen API V1/V2 Endpoints Comparison"; methods
    // from Authentication & Pairing V2 where printed.
    row(Endpoint::Discovery, &["GET"], "/api-discovery-by-name-and-version", false),
    row(Endpoint::RelatedAccounts, &["GET"], "/related-accounts", true),
    row(Endpoint::Pair, &["PUT"], "/pair-account", true),
    row(Endpoint::Unpair, &["DELETE"], "/unpair-account", true),
    row(Endpoint::PracticeConfiguration, &["GET"], "/practice-configuration", true),
    row(Endpoint::ScanRequest, &["POST"], "/scan-request", true),
    row(Endpoint::DeleteScanRequest, &["DELETE"], "/scan-request/*", false),
    row(Endpoint::OrdersPractice, &["GET"], "/orders/practice", true),
    row(Endpoint::OrdersLab, &["GET"], "/orders/lab", true),
    row(Endpoint::Order, &["GET"], "/orders/*", true),
    row(Endpoint::Download, &["GET"], "/order/*/download/*", true),
    row(Endpoint::Return, &["POST", "PUT"], "/order/*/return", true),
    row(Endpoint::PatientSearch, &["POST", "GET"], "/patient/search", true),
    row(Endpoint::Patients, &["PUT", "PATCH", "POST"], "/patients", true),
    row(Endpoint::PatientByChartNumber, &["PUT", "PATCH", "POST"], "/patient/by-chart-number", true),
];

const fn row(
    endpoint: Endpoint,
    methods: &'static [&'static str],
    template: &'static str,
    on_v1: bool,
) -> EndpointTemplate {
    EndpointTemplate { endpoint, methods, template, on_v1 }
}

/// A call whose row in the table is known.
#[derive(Debug, PartialEq)]
pub struct LocatedCall {
    pub endpoint: Endpoint,
    /// The API prefix that was used.
    pub prefix: String,
    /// The path's variable segments.
    pub segments: Vec<String>,
}

impl LocatedCall {
    pub fn is_v2(&self) -> bool {
        self.prefix != V1_PATH
    }
}

/// What a path and a method mean at a host.
#[derive(Debug, PartialEq)]
pub enum Located {
    At(LocatedCall),
    WrongMethod(&'static [&'static str]),
    Nowhere,
}

/// Finds the row for a call. `form` is the body of a token call, which alone tells exchange from refresh.
/// `region_paths` are the Paths that discovery names.
pub fn locate(role: HostRole, method: &str, path: &str, form: &[u8], region_paths: &[&str]) -> Located {
    // A HEAD is a GET whose body is kept back.
    let method = if method == "HEAD" { "GET" } else { method };
    match role {
        HostRole::Identity(_) => identity(method, path, form),
        HostRole::Storage => fixed(method, path, Endpoint::Storage, &["GET"]),
        HostRole::Control => Located::Nowhere,
        HostRole::Base(Platform::New) => first_calls(method, path),
        HostRole::OldV1 => within(V1_PATH, method, path, true),
        HostRole::Region(Region::China) | HostRole::Base(_) => within(V2_PATH, method, path, false),
        HostRole::Region(_) => {
            let below = |prefix: &&str| path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
            let prefix = region_paths.iter().copied().find(below);
            prefix.map_or(Located::Nowhere, |prefix| within(prefix, method, path, false))
        }
    }
}

fn identity(method: &str, path: &str, form: &[u8]) -> Located {
    match path {
        "/oauth2/authorize" => fixed(method, path, Endpoint::Authorize, &["GET"]),
        "/oauth2/revoke" => fixed(method, path, Endpoint::Revoke, &["POST"]),
        "/oauth2/token" => {
            let refresh = form_urlencoded::parse(form)
                .any(|(name, value)| name == "grant_type" && value == "refresh_token");
            let endpoint = if refresh { Endpoint::Refresh } else { Endpoint::Exchange };
            fixed(method, path, endpoint, &["POST"])
        }
        "/login" => fixed(method, path, Endpoint::LoginPage, &["GET"]),
        _ if path.starts_with("/login/") => fixed(method, path, Endpoint::LoginPage, &["POST"]),
        _ => Located::Nowhere,
    }
}

/// What the new platform's `base_url` knows: "Do not use the baseURL" (migration notice) for anything else.
fn first_calls(method: &str, path: &str) -> Located {
    match path.strip_prefix(FIRST_PATH) {
        Some(rest) => match table(FIRST_PATH, method, rest, false) {
            Located::At(call) if call.endpoint.is_data() => Located::Nowhere,
            located => located,
        },
        None => Located::Nowhere,
    }
}

/// An API host: its own prefix, with the first calls' prefix stacked
/// upon it where an old base URL leads to that.
fn within(prefix: &str, method: &str, path: &str, v1: bool) -> Located {
    let Some(rest) = path.strip_prefix(prefix) else { return Located::Nowhere };
    match rest.strip_prefix(FIRST_PATH) {
        Some(stacked) => match table(prefix, method, stacked, v1) {
            Located::At(call) if call.endpoint.is_data() => Located::Nowhere,
            located => located,
        },
        None => table(prefix, method, rest, v1),
    }
}

fn table(prefix: &str, method: &str, rest: &str, v1: bool) -> Located {
    // The specification's summary (4.5.3, 4.5.4) prints these with a trailing slash.
    let rest = match rest {
        "/related-accounts/" | "/pair-account/" | "/unpair-account/" => &rest[..rest.len() - 1],
        _ => rest,
    };
    let mut allowed: &'static [&'static str] = &[];
    for row in ROWS.iter().filter(|row| row.on_v1 || !v1) {
        let Some(segments) = segments_of(row.template, rest) else { continue };
        if row.methods.contains(&method) {
            return Located::At(LocatedCall { endpoint: row.endpoint, prefix: prefix.to_owned(), segments });
        }
        allowed = row.methods;
        // `/orders/practice` must not be taken for an order of that id.
        if segments.is_empty() {
            break;
        }
    }
    if allowed.is_empty() { Located::Nowhere } else { Located::WrongMethod(allowed) }
}

fn segments_of(template: &str, path: &str) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let mut path_parts = path.split('/');
    for part in template.split('/') {
        let given = path_parts.next()?;
        match part {
            "*" if !given.is_empty() => found.push(given.to_owned()),
            _ if part == given => {}
            _ => return None,
        }
    }
    path_parts.next().is_none().then_some(found)
}

fn fixed(method: &str, path: &str, endpoint: Endpoint, methods: &'static [&'static str]) -> Located {
    if methods.contains(&method) {
        Located::At(LocatedCall { endpoint, prefix: String::new(), segments: vec![path.to_owned()] })
    } else {
        Located::WrongMethod(methods)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(role: HostRole, method: &str, path: &str) -> Option<Endpoint> {
        match locate(role, method, path, b"", &[V2_PATH]) {
            Located::At(call) => Some(call.endpoint),
            _ => None,
        }
    }

    #[test]
    fn the_new_base_url_knows_discovery_and_pairing_alone() {
        let base = HostRole::Base(Platform::New);
        let discovery = "/api/third-party/v2/api-discovery-by-name-and-version";
        assert_eq!(at(base, "GET", discovery), Some(Endpoint::Discovery));
        assert_eq!(at(base, "GET", "/api/third-party/v2/related-accounts/"), Some(Endpoint::RelatedAccounts));
        assert_eq!(at(base, "GET", "/api/third-party/v2/orders/lab"), None);
        assert_eq!(at(base, "GET", "/itero-gen-api/v2/orders/lab"), None);
    }

    #[test]
    fn the_old_base_url_takes_api_calls_and_the_stacked_form_of_the_first_ones() {
        let base = HostRole::Base(Platform::Old);
        assert_eq!(at(base, "GET", "/itero-gen-api/v2/orders/lab"), Some(Endpoint::OrdersLab));
        let stacked = "/itero-gen-api/v2/api/third-party/v2/related-accounts";
        assert_eq!(at(base, "GET", stacked), Some(Endpoint::RelatedAccounts));
        assert_eq!(at(base, "GET", "/itero-gen-api/v2/api/third-party/v2/orders/lab"), None);
    }

    #[test]
    fn v1_has_neither_discovery_nor_delete() {
        assert_eq!(at(HostRole::OldV1, "GET", "/lab-sw/v1/orders/lab"), Some(Endpoint::OrdersLab));
        assert_eq!(at(HostRole::OldV1, "GET", "/lab-sw/v1/api-discovery-by-name-and-version"), None);
        assert_eq!(at(HostRole::OldV1, "DELETE", "/lab-sw/v1/scan-request/7"), None);
        assert_eq!(at(HostRole::OldV1, "GET", "/itero-gen-api/v2/orders/lab"), None);
    }

    #[test]
    fn a_doubled_or_missing_prefix_leads_nowhere() {
        let europe = HostRole::Region(Region::Europe);
        assert_eq!(at(europe, "GET", "/itero-gen-api/v2/itero-gen-api/v2/orders/lab"), None);
        assert_eq!(at(europe, "GET", "/orders/lab"), None);
        assert_eq!(at(europe, "GET", "/itero-gen-api/v2/orders/lab/"), None);
        let wrong = locate(europe, "POST", "/itero-gen-api/v2/orders/practice", b"", &[V2_PATH]);
        assert_eq!(wrong, Located::WrongMethod(&["GET"]));
    }

    #[test]
    fn the_body_tells_a_refresh_from_an_exchange() {
        let identity = HostRole::Identity(Platform::New);
        let refresh = locate(
            identity,
            "POST",
            "/oauth2/token",
            b"refresh_token=x&grant_type=refresh_token",
            &[V2_PATH],
        );
        assert!(matches!(refresh, Located::At(LocatedCall { endpoint: Endpoint::Refresh, .. })));
        let exchange =
            locate(identity, "POST", "/oauth2/token", b"grant_type=authorization_code&code=x", &[V2_PATH]);
        assert!(matches!(exchange, Located::At(LocatedCall { endpoint: Endpoint::Exchange, .. })));
    }
}
