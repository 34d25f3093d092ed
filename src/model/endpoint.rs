//! The vendor's API as a table: one row per call, with the habits that decide retries, links and permissions.
//!
//! Sources: N = migration notice (October 2025), comparison table; S = Authentication and Pairing V2,
//! revision 19. Paths are relative to Domain + Path. A new endpoint is a row here, a row in the sandbox and a
//! row in a test.

use std::time::Duration;

use http::Method;

/// Names a row of the table. Its number is the row's place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointId {
    Discovery,
    RelatedAccounts,
    PairAccount,
    UnpairAccount,
    PracticeConfiguration,
    CreateRx,
    DeleteRx,
    PracticeOrders,
    LabOrders,
    Order,
    DownloadAsset,
    ReturnScan,
    SearchPatient,
    UpdatePatient,
    UpdatePatientByChart,
    Revoke,
    Token,
    Other,
}

/// One row of the vendor's API table. What hangs on an endpoint is a field here; nothing compares names.
#[derive(Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub id: EndpointId,
    /// Stable name: metrics label, log field, `explain`.
    pub name: &'static str,
    /// Methods of this row; empty where no source prints one.
    pub methods: &'static [Method],
    /// `{}` stands for one segment.
    pub template: &'static [&'static str],
    pub group: Group,
    pub retry_safety: RetrySafety,
    /// Whether responses carry links to assets, which become ours.
    pub links: bool,
    /// What the documents advise to wait before a retry after 500/504.
    pub retry_wait: RetryWait,
    /// Its response is a list of orders.
    pub lists_orders: bool,
    /// Its response is a file, which a caller may stop reading.
    pub is_download: bool,
    /// What a V1 call needs where V2 is the route.
    pub v1: V1Difference,
    /// Whether the gateway ever sends such a call to the API host.
    pub is_forwarded: bool,
}

/// How V2 differs from V1 (migration notice, "Gen API V1/V2 Endpoints Comparison").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum V1Difference {
    Same,
    /// The request's body names the procedure, and V2's its MapID code.
    Procedure,
    /// The response lists case types, and V2's does not.
    CaseTypes,
    /// V2's orders have `ProcedureName` and `ProcedureTypeName`.
    OrderFields,
    /// V1 has no such call.
    Absent,
}

/// What a caller's `allow` list names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    Discovery,
    Accounts,
    Pair,
    Unpair,
    Revoke,
    Practice,
    Scans,
    Orders,
    Downloads,
    Patients,
    /// Whatever the table does not know: it passes through as it is.
    Other,
}

/// Whether a call may be sent again after the platform may have seen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetrySafety {
    /// By HTTP's rules: GET, HEAD, OPTIONS, PUT and DELETE are idempotent.
    ByMethod,
    /// A read, whatever its method.
    Read,
    /// Creates something: only with `retry.scan_request = true`.
    OnlyIfConfigured,
    /// Acts: never, whatever its method.
    Never,
}

/// Which of the two documented waits applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryWait {
    /// 1000 ms (S 4.1.2, 4.2.2, 4.2.3, 4.3.2).
    Base,
    /// 2000 ms (S 4.3.1).
    Pairing,
}

impl RetryWait {
    /// The documented wait; never shortened, whatever is configured.
    pub const fn documented(self) -> Duration {
        match self {
            RetryWait::Base => Duration::from_millis(1000),
            RetryWait::Pairing => Duration::from_millis(2000),
        }
    }
}

impl Group {
    pub const ALL: [Group; 11] = [
        Group::Discovery,
        Group::Accounts,
        Group::Pair,
        Group::Unpair,
        Group::Revoke,
        Group::Practice,
        Group::Scans,
        Group::Orders,
        Group::Downloads,
        Group::Patients,
        Group::Other,
    ];

    /// The word in `allow = [...]`.
    pub const fn word(self) -> &'static str {
        match self {
            Group::Discovery => "discovery",
            Group::Accounts => "accounts",
            Group::Pair => "pair",
            Group::Unpair => "unpair",
            Group::Revoke => "revoke",
            Group::Practice => "practice",
            Group::Scans => "scans",
            Group::Orders => "orders",
            Group::Downloads => "downloads",
            Group::Patients => "patients",
            Group::Other => "other",
        }
    }

    pub fn from_word(word: &str) -> Option<Group> {
        Group::ALL.into_iter().find(|group| group.word() == word)
    }

    /// Whether callers may do this by default: these three hit every user of the account (threats,
    /// row 27).
    pub const fn allowed_by_default(self) -> bool {
        !matches!(self, Group::Pair | Group::Unpair | Group::Revoke)
    }
}

const GET: &[Method] = &[Method::GET, Method::HEAD];
const PUT: &[Method] = &[Method::PUT];
const POST: &[Method] = &[Method::POST];
const DELETE: &[Method] = &[Method::DELETE];
/// No source prints the method (gen-api, section 5).
const ANY: &[Method] = &[];

const fn row(
    id: EndpointId,
    name: &'static str,
    methods: &'static [Method],
    template: &'static [&'static str],
    group: Group,
    retry_safety: RetrySafety,
) -> Endpoint {
    Endpoint {
        id,
        name,
        methods,
        template,
        group,
        retry_safety,
        links: false,
        retry_wait: RetryWait::Base,
        lists_orders: false,
        is_download: false,
        v1: V1Difference::Same,
        is_forwarded: true,
    }
}

use EndpointId as Id;
use Group::*;
use RetrySafety::*;

/// The vendor's API, in the order of [`EndpointId`]. The first row that fits decides; literals stand before
/// templates.
pub static TABLE: [Endpoint; 18] = [
    // S 4.2.2
    Endpoint {
        v1: V1Difference::Absent,
        ..row(Id::Discovery, "discovery", GET, &["api-discovery-by-name-and-version"], Discovery, ByMethod)
    },
    // S 4.2.3
    row(Id::RelatedAccounts, "related_accounts", GET, &["related-accounts"], Accounts, ByMethod),
    // S 4.3.1
    Endpoint {
        retry_wait: RetryWait::Pairing,
        ..row(Id::PairAccount, "pair_account", PUT, &["pair-account"], Pair, ByMethod)
    },
    // S 4.3.2
    row(Id::UnpairAccount, "unpair_account", DELETE, &["unpair-account"], Unpair, ByMethod),
    // N
    Endpoint {
        v1: V1Difference::CaseTypes,
        ..row(
            Id::PracticeConfiguration,
            "practice_configuration",
            GET,
            &["practice-configuration"],
            Practice,
            ByMethod,
        )
    },
    // N: not idempotent, and V1 names the procedure differently
    Endpoint {
        v1: V1Difference::Procedure,
        ..row(Id::CreateRx, "create_rx", POST, &["scan-request"], Scans, OnlyIfConfigured)
    },
    // N
    Endpoint {
        v1: V1Difference::Absent,
        ..row(Id::DeleteRx, "delete_rx", DELETE, &["scan-request", "{}"], Scans, ByMethod)
    },
    // N
    Endpoint {
        links: true,
        lists_orders: true,
        v1: V1Difference::OrderFields,
        ..row(Id::PracticeOrders, "practice_orders", GET, &["orders", "practice"], Orders, ByMethod)
    },
    // N
    Endpoint {
        links: true,
        lists_orders: true,
        v1: V1Difference::OrderFields,
        ..row(Id::LabOrders, "lab_orders", GET, &["orders", "lab"], Orders, ByMethod)
    },
    // N
    Endpoint {
        links: true,
        v1: V1Difference::OrderFields,
        ..row(Id::Order, "order", GET, &["orders", "{}"], Orders, ByMethod)
    },
    // N
    Endpoint {
        is_download: true,
        ..row(
            Id::DownloadAsset,
            "download_asset",
            ANY,
            &["order", "{}", "download", "{}"],
            Downloads,
            ByMethod,
        )
    },
    // N: acts
    row(Id::ReturnScan, "return_scan", ANY, &["order", "{}", "return"], Scans, Never),
    // N: a read, even as POST
    row(Id::SearchPatient, "search_patient", ANY, &["patient", "search"], Patients, Read),
    // N
    row(Id::UpdatePatient, "update_patient", ANY, &["patients"], Patients, ByMethod),
    // N
    row(
        Id::UpdatePatientByChart,
        "update_patient_by_chart",
        ANY,
        &["patient", "by-chart-number"],
        Patients,
        ByMethod,
    ),
    // S 4.1.5: an OAuth call, not an API call; callers that try it through the API host are judged by this
    // row.
    row(Id::Revoke, "revoke", POST, &["oauth2", "revoke"], Revoke, Never),
    // S 4.1.4: what goes to the token endpoint, in whatever spelling and by whatever method, holds refresh
    // tokens. The one spelling that applications use is the facade's.
    Endpoint { is_forwarded: false, ..row(Id::Token, "token", ANY, &["oauth2", "token"], Other, Never) },
    // For every path that the table does not know: the gateway passes it through.
    row(Id::Other, "other", ANY, &["**"], Other, ByMethod),
];

/// The row of an endpoint.
pub fn row_of(id: EndpointId) -> &'static Endpoint {
    &TABLE[id as usize]
}

/// The row of every path that the table does not know.
pub static OTHER: &Endpoint = &TABLE[EndpointId::Other as usize];

/// The row of a call; `path` is what follows the legacy prefix, percent-decoded, with or without slashes at
/// its ends, without a query.
///
/// Segments are compared without regard to letter case, since permissions hang on them and nobody knows
/// whether the platform minds; the path itself is never changed.
pub fn find(method: &Method, path: &str) -> &'static Endpoint {
    let mut segments = [""; LONGEST_TEMPLATE];
    let Some(segments) = split(path, &mut segments) else { return OTHER };
    let fits = |endpoint: &&Endpoint| {
        template_fits(endpoint.template, segments)
            && (endpoint.methods.is_empty() || endpoint.methods.contains(method) || guards(endpoint.group))
    };
    TABLE.iter().find(fits).unwrap_or(OTHER)
}

/// The rows that are recognised wherever their words stand in a path: callers have to be allowed them one by
/// one, or they are never forwarded.
pub fn guarded() -> impl Iterator<Item = &'static Endpoint> {
    TABLE.iter().filter(|row| guards(row.group) || !row.is_forwarded)
}

/// A destructive call is recognised by its path alone, so that no odd method slips past its permission.
const fn guards(group: Group) -> bool {
    !group.allowed_by_default()
}

const LONGEST_TEMPLATE: usize = 4;

/// `None` for a path of more segments than any row has.
fn split<'s, 'p>(path: &'p str, segments: &'s mut [&'p str; LONGEST_TEMPLATE]) -> Option<&'s [&'p str]> {
    let mut count = 0;
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        *segments.get_mut(count)? = segment;
        count += 1;
    }
    Some(&segments[..count])
}

fn template_fits(template: &[&str], segments: &[&str]) -> bool {
    let fits =
        |(expected, segment): (&&str, &&str)| *expected == "{}" || segment.eq_ignore_ascii_case(expected);
    template.len() == segments.len() && template.iter().zip(segments).all(fits)
}

impl Endpoint {
    /// Whether the call may be sent again although the platform may have acted on it.
    pub fn retryable(&self, method: &Method, scan_request_too: bool) -> bool {
        match self.retry_safety {
            RetrySafety::ByMethod => method.is_idempotent() && *method != Method::TRACE,
            RetrySafety::Read => true,
            RetrySafety::OnlyIfConfigured => scan_request_too,
            RetrySafety::Never => false,
        }
    }

    /// `/orders/{}`: what the access log prints instead of the caller's path.
    pub fn template(&self) -> String {
        self.template.iter().fold(String::new(), |path, segment| path + "/" + segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_is_longer_than_a_path_that_is_looked_at() {
        let longest = TABLE.iter().map(|row| row.template.len()).max();
        assert_eq!(longest, Some(LONGEST_TEMPLATE));
    }

    #[test]
    fn every_call_of_the_vendors_table_is_found() {
        let calls = [
            ("GET", "/api-discovery-by-name-and-version", "discovery"),
            ("GET", "/related-accounts", "related_accounts"),
            ("GET", "/related-accounts/", "related_accounts"),
            ("PUT", "/pair-account", "pair_account"),
            ("DELETE", "/unpair-account", "unpair_account"),
            ("GET", "/practice-configuration", "practice_configuration"),
            ("POST", "/scan-request", "create_rx"),
            ("DELETE", "/scan-request/17", "delete_rx"),
            ("GET", "/orders/practice", "practice_orders"),
            ("GET", "/orders/lab", "lab_orders"),
            ("GET", "/orders/17", "order"),
            ("GET", "/order/9/download/IDE", "download_asset"),
            ("POST", "/order/9/return", "return_scan"),
            ("POST", "/patient/search", "search_patient"),
            ("GET", "patient/search", "search_patient"),
            ("PUT", "/patients", "update_patient"),
            ("PUT", "/patient/by-chart-number", "update_patient_by_chart"),
            ("GET", "/something/new", "other"),
            ("GET", "/", "other"),
            ("GET", "", "other"),
        ];
        for (method, path, name) in calls {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(find(&method, path).name, name, "{method} {path}");
        }
    }

    #[test]
    fn a_destructive_call_is_recognised_whatever_its_method_slashes_and_letter_case() {
        for path in ["/unpair-account", "//unpair-account//", "/Unpair-Account", "/UNPAIR-ACCOUNT/"] {
            for method in [Method::DELETE, Method::POST, Method::GET] {
                assert_eq!(find(&method, path).group, Group::Unpair, "{method} {path}");
            }
        }
        assert_eq!(find(&Method::POST, "/oauth2/revoke").group, Group::Revoke);
    }

    #[test]
    fn only_what_cannot_act_twice_is_repeated() {
        let retryable = |method: Method, path: &str| find(&method, path).retryable(&method, false);
        assert!(retryable(Method::GET, "/orders/lab"));
        assert!(retryable(Method::DELETE, "/scan-request/1"));
        assert!(retryable(Method::POST, "/patient/search"));
        assert!(!retryable(Method::POST, "/scan-request"));
        assert!(!retryable(Method::GET, "/order/1/return"));
        assert!(!retryable(Method::POST, "/patients"));
        assert!(retryable(Method::PUT, "/pair-account"));
        assert!(find(&Method::POST, "/scan-request").retryable(&Method::POST, true));
    }

    #[test]
    fn every_id_is_the_place_of_its_row() {
        for (place, row) in TABLE.iter().enumerate() {
            assert_eq!(row.id as usize, place, "{}", row.name);
        }
        assert_eq!((OTHER.name, OTHER.id), ("other", EndpointId::Other));
    }

    #[test]
    fn names_are_unique_and_words_round_trip() {
        let mut names: Vec<_> = TABLE.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len());
        for group in Group::ALL {
            assert_eq!(Group::from_word(group.word()), Some(group));
        }
    }
}
