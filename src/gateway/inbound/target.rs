//! Parses a request target: strips the account prefix and the path prefixes of old applications, and finds
//! the endpoint's row on the decoded path. The bytes for the platform stay as they were sent. No spelling of
//! a path escapes its place or its row.

use std::borrow::Cow;

use http::{Method, Uri};
use percent_encoding::percent_decode_str;

use crate::model::endpoint::{self, Endpoint, Group};

use super::path_decoding::decode_fully;
use crate::gateway::refusal::Refusal;

/// A parsed request target.
#[derive(Debug, PartialEq, Eq)]
pub struct ParsedTarget<'a> {
    /// The segment after `/accounts/`, decoded.
    pub account: Option<Cow<'a, str>>,
    /// The host of a gateway link (`/accounts/{name}/@{host}/…`).
    pub link_host: Option<&'a str>,
    /// What follows the route's Path (the host alone for a link host): empty, or begins with `/`. As sent.
    pub rest: &'a str,
    /// As sent, without the `?`.
    pub query: Option<&'a str>,
    /// The last prefix that came off was the old platform's V1 one: it says which API the call is of.
    pub v1: bool,
    pub endpoint: &'static Endpoint,
}

/// Prefixes that legacy applications send (gen-api, section 5): alone, stacked, repeated, or none.
const LEGACY_PREFIXES: &[&[&str]] =
    &[&["itero-gen-api", "v2"], &["lab-sw", "v1"], &["api", "third-party", "v2"]];
const V1_PREFIX: &[&str] = &["lab-sw", "v1"];

/// Parses a target. `base` is the path of the gateway's own url, which comes off too.
pub fn parse<'a>(method: &Method, target: &'a Uri, base: &str) -> Result<ParsedTarget<'a>, Refusal> {
    // An absolute-form target's host is ignored: it chooses nothing here (threats, row 5).
    let sent = target.path();
    if !sent.starts_with('/') {
        return Err(Refusal::BadRequest("the request target is not a path"));
    }
    let path = collapse(sent);
    let decoded = decode_fully(path)?;
    let (account, remainder) = strip_account(path, base);
    let (link_host, rest) = if account.is_some() { split_link_host(remainder) } else { (None, remainder) };
    let (rest, v1) = match link_host {
        Some(_) => (rest, false),
        None => strip_legacy(rest),
    };
    let endpoint = match decoded {
        Cow::Borrowed(_) => classify(method, rest),
        Cow::Owned(_) => classify(method, &decode_fully(rest)?),
    };
    // Two slashes are a base URL's own and a path's; before anything else they may as well begin a host.
    if sent.starts_with("//") && account.is_none() && endpoint.group == Group::Other {
        return Err(Refusal::BadRequest("the path begins with //"));
    }
    Ok(ParsedTarget { account, link_host, rest, query: target.query(), v1, endpoint })
}

/// What is left of a path without the gateway's base, an account's prefix and the old platform's.
pub fn without_prefixes<'a>(path: &'a str, base: &str) -> &'a str {
    let (_, rest) = strip_account(collapse(path), base);
    strip_legacy(rest).0
}

/// What follows the route's Path, and its row: an application that follows discovery sends that Path itself.
pub fn strip_route_path<'a>(
    method: &Method,
    rest: &'a str,
    route_path: &str,
    found: &'static Endpoint,
) -> (&'a str, &'static Endpoint) {
    match strip_route_and_legacy(rest, route_path) {
        Some(rest) => (rest, decode_fully(rest).map_or(found, |decoded| classify(method, &decoded))),
        None => (rest, found),
    }
}

fn strip_route_and_legacy<'a>(rest: &'a str, route_path: &str) -> Option<&'a str> {
    strip_path(rest, route_path).map(|rest| strip_legacy(rest).0)
}

/// Whether a path of the platform, sent back to us without its host, ends up where it came from.
pub fn round_trips(path: &str, route_path: &str) -> bool {
    if path.starts_with("//") {
        return false;
    }
    let (rest, _) = strip_legacy(path);
    let rest = strip_route_and_legacy(rest, route_path).unwrap_or(rest);
    path.strip_prefix(route_path) == Some(rest) && (rest.is_empty() || rest.starts_with('/'))
}

/// For each byte: whether every path that continues with it after `route_path` and a slash round-trips. Only
/// letters and digits with which no segment of any prefix begins are sure, since the Path itself may be the
/// beginning of one; `round_trips` judges the others.
pub fn round_trip_safe_bytes(route_path: &str) -> [bool; 256] {
    let words =
        || LEGACY_PREFIXES.iter().flat_map(|prefix| prefix.iter().copied()).chain(route_path.split('/'));
    let begins_prefix = |byte: u8| {
        words().any(|word| word.bytes().next().is_some_and(|first| first.eq_ignore_ascii_case(&byte)))
    };
    let mut safe = [false; 256];
    for byte in (b'0'..=b'z').filter(|byte| byte.is_ascii_alphanumeric() && !begins_prefix(*byte)) {
        safe[usize::from(byte)] = round_trips(&format!("{route_path}/{}", char::from(byte)), route_path);
    }
    safe
}

/// `/accounts/{x}` comes off, repeatedly where it names the same account: an application may put its base URL
/// before a link that already is ours.
fn strip_account<'a>(path: &'a str, base: &str) -> (Option<Cow<'a, str>>, &'a str) {
    let mut account = None;
    let mut rest = path;
    loop {
        let inner = strip_path(rest, base).unwrap_or(rest);
        if !may_begin_with(inner, b"a") {
            break;
        }
        let Some((segment, remainder)) = strip_segments(inner, &["accounts"]).and_then(first_segment) else {
            break;
        };
        match &account {
            None => account = Some(segment),
            Some(first) if first.eq_ignore_ascii_case(&segment) => {}
            Some(_) => break,
        }
        rest = remainder;
    }
    match account {
        Some(_) => (account, collapse(rest)),
        None => (None, collapse(strip_path(path, base).unwrap_or(path))),
    }
}

fn split_link_host(rest: &str) -> (Option<&str>, &str) {
    let Some(tail) = rest.strip_prefix("/@") else { return (None, rest) };
    let end = tail.find('/').unwrap_or(tail.len());
    (Some(&tail[..end]), &tail[end..])
}

fn strip_legacy(path: &str) -> (&str, bool) {
    let (mut rest, mut v1) = (path, false);
    'again: while may_begin_with(rest, b"ila")
        && let Some((first, remainder)) = first_segment(rest)
    {
        for prefix in LEGACY_PREFIXES {
            if first.eq_ignore_ascii_case(prefix[0])
                && let Some(remainder) = strip_segments(remainder, &prefix[1..])
            {
                v1 = *prefix == V1_PREFIX;
                rest = collapse(remainder);
                continue 'again;
            }
        }
        break;
    }
    (rest, v1)
}

/// Whether the first segment may be a word with one of these initials. Only a plain one is recognised here:
/// what is encoded may be any.
fn may_begin_with(path: &str, initials: &[u8]) -> bool {
    match path.as_bytes() {
        [b'/', first, ..] if first.is_ascii_alphanumeric() => initials.contains(&first.to_ascii_lowercase()),
        _ => true,
    }
}

/// One slash where a base URL ended with one and the path began with one.
fn collapse(rest: &str) -> &str {
    let slashes = slashes(rest);
    &rest[slashes.saturating_sub(1)..]
}

/// Strips a plain path that ends at a segment's end.
fn strip_path<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    if prefix.is_empty() {
        return None;
    }
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Strips complete segments, whatever their letter case and encoding.
fn strip_segments<'a>(path: &'a str, words: &[&str]) -> Option<&'a str> {
    words.iter().try_fold(path, |rest, word| {
        let (segment, remainder) = first_segment(rest)?;
        segment.eq_ignore_ascii_case(word).then_some(remainder)
    })
}

fn first_segment(path: &str) -> Option<(Cow<'_, str>, &str)> {
    let slashes = slashes(path);
    let inner = &path[slashes..];
    if inner.is_empty() || slashes == 0 {
        return None;
    }
    let end = memchr::memchr(b'/', inner.as_bytes()).unwrap_or(inner.len());
    let segment = &inner[..end];
    let decoded = match memchr::memchr(b'%', segment.as_bytes()) {
        Some(_) => percent_decode_str(segment).decode_utf8_lossy(),
        None => Cow::Borrowed(segment),
    };
    Some((decoded, &inner[end..]))
}

/// How many slashes a path begins with.
fn slashes(path: &str) -> usize {
    path.bytes().take_while(|byte| *byte == b'/').count()
}

/// The row of a decoded path. Judged as leniently as any platform might read it: parameters, trailing dots
/// and blanks are cut off each segment, and a destructive call is recognised wherever its words stand.
fn classify(method: &Method, decoded: &str) -> &'static Endpoint {
    let lenient =
        |segment: &str| segment.split(';').next().unwrap_or_default().trim_end_matches(['.', ' ']).to_owned();
    let cleaned = if decoded.bytes().any(|byte| matches!(byte, b';' | b'.' | b' ')) {
        Cow::Owned(decoded.split('/').map(lenient).collect::<Vec<_>>().join("/"))
    } else {
        Cow::Borrowed(decoded)
    };
    let (path, _) = strip_legacy(&cleaned);
    let endpoint = endpoint::find(method, path);
    if endpoint.group == Group::Other { destructive(path).unwrap_or(endpoint) } else { endpoint }
}

/// The destructive row whose words begin consecutive segments, letters and digits alone compared: nobody
/// knows which signs a platform drops, folds or cuts at, and no harmless call is spelled like these (threats,
/// row 27).
fn destructive(path: &str) -> Option<&'static Endpoint> {
    let letters = |text: &str| -> String {
        text.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
    };
    let segments: Vec<String> = path.split('/').map(letters).filter(|segment| !segment.is_empty()).collect();
    let matches = |endpoint: &&'static Endpoint| {
        let words: Vec<String> = endpoint.template.iter().map(|word| letters(word)).collect();
        let begins =
            |window: &[String]| window.iter().zip(&words).all(|(segment, word)| segment.starts_with(word));
        segments.windows(words.len()).any(begins)
    };
    endpoint::guarded().find(matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<'a>(uri: &'a Uri) -> Result<ParsedTarget<'a>, Refusal> {
        parse(&Method::GET, uri, "")
    }

    fn rest(path: &str) -> String {
        let uri: Uri = path.parse().unwrap();
        at(&uri).unwrap().rest.to_owned()
    }

    #[test]
    fn every_prefix_that_an_old_application_sends_comes_off() {
        for (sent, goes) in [
            ("/orders/lab", "/orders/lab"),
            ("/itero-gen-api/v2/orders/lab", "/orders/lab"),
            ("/lab-sw/v1/orders/lab", "/orders/lab"),
            ("/api/third-party/v2/related-accounts/", "/related-accounts/"),
            ("/itero-gen-api/v2/api/third-party/v2/orders/lab", "/orders/lab"),
            ("/api/third-party/v2/itero-gen-api/v2/orders/lab", "/orders/lab"),
            ("/itero-gen-api/v2/itero-gen-api/v2//orders/lab", "/orders/lab"),
            ("/Itero-Gen-Api/V2/orders/lab", "/orders/lab"),
            ("/itero%2Dgen-api/v2/orders/lab", "/orders/lab"),
            ("/itero-gen-api/v2", ""),
            ("/itero-gen-api/v2/", "/"),
            ("/itero-gen-api/v22/orders", "/itero-gen-api/v22/orders"),
            ("/itero-gen-api", "/itero-gen-api"),
            ("/", "/"),
            ("/a%2fb/c%20d", "/a%2fb/c%20d"),
        ] {
            assert_eq!(rest(sent), goes, "{sent}");
        }
    }

    #[test]
    fn every_prefix_begins_with_one_of_the_initials_that_are_looked_for() {
        for prefix in LEGACY_PREFIXES {
            assert!(may_begin_with(&format!("/{}", prefix[0].to_uppercase()), b"ila"), "{prefix:?}");
        }
        assert!(may_begin_with("/%69tero-gen-api", b"ila") && may_begin_with("//lab-sw", b"ila"));
        assert!(!may_begin_with("/orders", b"ila"));
    }

    #[test]
    fn an_account_prefix_names_the_account() {
        for (sent, account, goes) in [
            ("/accounts/smile/orders/lab", "smile", "/orders/lab"),
            ("/accounts/global%3A12/itero-gen-api/v2/orders/lab", "global:12", "/orders/lab"),
            ("/accounts/smile", "smile", ""),
            ("/accounts/smile/accounts/smile/orders/lab", "smile", "/orders/lab"),
            ("/accounts/smile/accounts/other/x", "smile", "/accounts/other/x"),
            ("/accounts/Smile/accounts/smile/orders/lab", "Smile", "/orders/lab"),
            ("/accounts/smile//orders/lab", "smile", "/orders/lab"),
            ("/accounts/smile///orders/lab", "smile", "/orders/lab"),
            ("/accounts/smile//itero-gen-api/v2//orders/lab", "smile", "/orders/lab"),
            ("//accounts/smile/orders/lab", "smile", "/orders/lab"),
            ("/accounts//smile//x//y", "smile", "/x//y"),
            ("http://elsewhere.test/accounts/smile/orders/lab", "smile", "/orders/lab"),
        ] {
            let uri: Uri = sent.parse().unwrap();
            let located = at(&uri).unwrap();
            assert_eq!((located.account.as_deref(), located.rest), (Some(account), goes), "{sent}");
        }
        let uri: Uri = "/accounts".parse().unwrap();
        assert_eq!(at(&uri).unwrap().account, None);
    }

    #[test]
    fn the_path_of_our_own_url_comes_off() {
        for (sent, account, goes) in [
            ("/itero/accounts/smile/orders/lab", Some("smile"), "/orders/lab"),
            ("/itero/orders/lab", None, "/orders/lab"),
            ("/orders/lab", None, "/orders/lab"),
            ("/itero//orders/lab", None, "/orders/lab"),
            ("/itero//accounts/smile//orders/lab", Some("smile"), "/orders/lab"),
            ("//orders/lab", None, "/orders/lab"),
            ("//itero-gen-api/v2/orders/lab", None, "/orders/lab"),
            ("/iteros/orders/lab", None, "/iteros/orders/lab"),
            ("/itero/accounts/smile/itero/accounts/smile/orders/lab", Some("smile"), "/orders/lab"),
        ] {
            let uri: Uri = sent.parse().unwrap();
            let located = parse(&Method::GET, &uri, "/itero").unwrap();
            assert_eq!((located.account.as_deref(), located.rest), (account, goes), "{sent}");
        }
    }

    #[test]
    fn what_is_sure_to_come_back_does_whatever_follows() {
        let beginnings = ["/api", "/api/third-party", "/itero-gen-api", "/lab-sw"];
        let others = ["/itero-gen-api/v2", "/v3", "/order", "/9", "/lab-sw/v1/api", "/x/y", ""];
        for path in others.into_iter().chain(beginnings) {
            let safe = round_trip_safe_bytes(path);
            let bytes = (0..=u8::MAX).filter(|byte| safe[usize::from(*byte)]);
            for byte in bytes {
                for rest in [
                    "",
                    "rder/1",
                    "/itero-gen-api/v2/x",
                    "//lab-sw/v1",
                    "%2f..",
                    "tero-gen-api/v2",
                    "hird-party/v2/x",
                    "2/x",
                    "1/x",
                ] {
                    let link = format!("{path}/{}{rest}", char::from(byte));
                    assert!(round_trips(&link, path), "{link}");
                }
            }
        }
        assert!(round_trip_safe_bytes("/itero-gen-api/v2")[usize::from(b'o')]);
        assert!(!round_trip_safe_bytes("/itero-gen-api/v2")[usize::from(b'I')]);
        assert!(!round_trip_safe_bytes("/lab-sw/v1/api")[usize::from(b'o')]);
    }

    #[test]
    fn a_link_host_keeps_its_complete_path() {
        let uri: Uri = "/accounts/smile/@files.iterocloud.com/itero-gen-api/v2/a%2Fb?x=%41".parse().unwrap();
        let located = at(&uri).unwrap();
        assert_eq!(located.link_host, Some("files.iterocloud.com"));
        assert_eq!((located.rest, located.query), ("/itero-gen-api/v2/a%2Fb", Some("x=%41")));
        let uri: Uri = "/accounts/smile//@files.iterocloud.com//x".parse().unwrap();
        assert_eq!(at(&uri).unwrap().rest, "//x", "the platform's own slashes stay");
        let uri: Uri = "/@files.iterocloud.com/x".parse().unwrap();
        assert_eq!(at(&uri).unwrap().link_host, None, "only behind an account");
    }

    #[test]
    fn path_tricks_are_refused_in_every_spelling() {
        for bad in [
            "//evil.test/x",
            "//evil.test/orders/lab",
            "///evil.test",
            "/a/../b",
            "/a/./b",
            "/..",
            "/%2e%2e/x",
            "/.%2e/x",
            "/%2E./x",
            "/a%2f..%2fb",
            "/%252e%252e/x",
            "/a\\b",
            "/a%5cb",
            "/a%255Cb",
            "/a%00b",
            "/a%0d%0aX:y",
            "/a/..;x/b",
            "/accounts/smile/../other/x",
            "/accounts/%2e%2e/x",
            "/x%2525252525252561",
            "/a/..%20/b",
            "/a/%2e%2e%20/b",
            "/a/%c0%ae%c0%ae/b",
            "/a/%e0%80%ae./b",
            "/a/..%c0%afb",
            "/a/%u002e%u002e/b",
            "/a/%25u002e%25u002e/b",
            "/a%u005cb",
            "*",
        ] {
            let uri: Uri = bad.parse().unwrap();
            assert_eq!(at(&uri).map_err(|refusal| refusal.code().as_str()), Err("bad_request"), "{bad}");
        }
        for good in
            ["/a..b/c", "/...", "/.well-known/x", "/a%20b", "/100%25", "/%zz", "/a%", "/%u12", "/ä%C3%A4"]
        {
            let Ok(uri) = good.parse::<Uri>() else { continue };
            assert!(at(&uri).is_ok(), "{good}");
        }
    }

    #[test]
    fn no_spelling_of_a_destructive_call_slips_past_its_row() {
        for path in [
            "/unpair-account",
            "/unpair%2daccount",
            "/%75npair-account/",
            "/unpair%252Daccount",
            "/UNPAIR-account",
            "/x//unpair-account",
            "/itero-gen-api%2fv2%2funpair-account",
            "/v3/unpair-account",
            "/unpair-account;a=b",
            "/unpair-account.",
            "/unpair-account%20",
            "/unpair-account%3f",
            "/unpair-account%23x",
            "/unpair-account%c2%a0",
            "/unpair-account%ef%bc%8f",
            "/unpair-account/10001",
            "/unpair-account&x=y",
            "/unpair%u002daccount",
            "/unpair%c0%adaccount",
            "/unpair-account%",
            "/accounts/smile/@eu.iterocloud.com/itero-gen-api/v2/unpair-account",
        ] {
            let uri: Uri = path.parse().unwrap();
            assert_eq!(at(&uri).unwrap().endpoint.group, Group::Unpair, "{path}");
        }
        let uri: Uri = "/v3/oauth2/revoke".parse().unwrap();
        assert_eq!(at(&uri).unwrap().endpoint.group, Group::Revoke);
        let uri: Uri = "/oauth2/revoke%3f".parse().unwrap();
        assert_eq!(at(&uri).unwrap().endpoint.group, Group::Revoke);
        let uri: Uri = "/x/pair-account%3f".parse().unwrap();
        assert_eq!(at(&uri).unwrap().endpoint.group, Group::Pair);
        let uri: Uri = "/order/1%2freturn".parse().unwrap();
        assert_eq!(at(&uri).unwrap().endpoint.name, "return_scan");
    }

    #[test]
    fn no_spelling_of_the_token_endpoint_leads_to_the_platform() {
        for path in
            ["/oauth2/token", "/oauth2//token", "/OAuth2/Token", "/x/oauth2/token%3f", "/oauth2%2ftoken/"]
        {
            let uri: Uri = path.parse().unwrap();
            for method in [Method::GET, Method::POST, Method::PUT] {
                assert_eq!(parse(&method, &uri, "").unwrap().endpoint.name, "token", "{method} {path}");
            }
        }
    }

    #[test]
    fn the_last_prefix_says_whether_a_call_is_one_of_v1() {
        for (path, v1) in [
            ("/lab-sw/v1/scan-request", true),
            ("/Lab-SW/%761//scan-request", true),
            ("/itero-gen-api/v2/lab-sw/v1/scan-request", true),
            ("/lab-sw/v1/itero-gen-api/v2/scan-request", false),
            ("/itero-gen-api/v2/scan-request", false),
        ] {
            let uri: Uri = path.parse().unwrap();
            let located = parse(&Method::POST, &uri, "").unwrap();
            assert_eq!((located.v1, located.endpoint.name), (v1, "create_rx"), "{path}");
        }
    }

    #[test]
    fn a_path_that_discovery_told_comes_off_and_does_not_come_twice() {
        let (rest, endpoint) = strip_route_path(&Method::GET, "/v3/orders/lab", "/v3", endpoint::OTHER);
        assert_eq!((rest, endpoint.name), ("/orders/lab", "lab_orders"));
        let (rest, endpoint) = strip_route_path(&Method::GET, "/v33/orders/lab", "/v3", endpoint::OTHER);
        assert_eq!((rest, endpoint.name), ("/v33/orders/lab", "other"));
    }

    #[test]
    fn a_link_comes_back_only_where_the_platform_path_is_rebuilt_exactly() {
        for (path, route, back) in [
            ("/itero-gen-api/v2/order/9/download/IDE", "/itero-gen-api/v2", true),
            ("/v3/order/9", "/v3", true),
            ("/order/9", "", true),
            ("/storage/x", "/itero-gen-api/v2", false),
            ("/itero-gen-api/v2/api/third-party/v2/x", "/itero-gen-api/v2", false),
            ("/itero-gen-api/v2//x", "/itero-gen-api/v2", false),
            ("/Itero-gen-api/v2/x", "/itero-gen-api/v2", false),
            ("//x", "", false),
            ("", "/v3", false),
        ] {
            assert_eq!(round_trips(path, route), back, "{path} {route}");
        }
    }
}
