//! Links in answers become ours, by value: a URL whose host is the account's own Domain or a configured link host is changed, and
//! nothing else is. What is rewritten leads back to exactly the platform address it came from (`ingress` is the other half).
//!
//! A gateway link names its account, not its caller: whoever fetches it is identified like anybody else, by key or by network.

use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, Input, MatchKind};
use http::header::{self, HeaderMap, HeaderValue};

use crate::model::account::AccountName;
use crate::model::route::Route;

use super::ingress;
use super::settings::{Base, RealmRules};

/// Where links of one account point to, there and here.
pub struct Places {
    route: Arc<Route>,
    authority: String,
    realm: Arc<RealmRules>,
    /// `http://gateway:8080/accounts/smile`
    absolute: String,
    /// `/accounts/smile`
    relative: String,
}

/// Finds where a URL may begin. Costly to build, so each worker keeps one per Path.
pub struct Finder {
    automaton: AhoCorasick,
    kinds: Vec<Kind>,
    longest: usize,
}

/// Rewrites a text that comes in pieces. `feed` may keep a tail back, since a match can be split anywhere.
pub struct Rewriter {
    places: Places,
    finder: Rc<Finder>,
    /// Between a URL's beginning and its end nothing is looked at: a pre-signed address may carry one of ours in its query, and
    /// changing that would break its signature.
    inside_url: bool,
    pub count: u64,
}

/// What stands in place of scheme and authority.
struct Address<'t> {
    prefix: &'t str,
    /// Where the prefix alone would not lead back.
    host: Option<&'t str>,
}

impl Address<'_> {
    fn parts(&self) -> [&str; 3] {
        [self.prefix, self.host.map_or("", |_| "/@"), self.host.unwrap_or_default()]
    }

    fn put(&self, escaped: bool, out: &mut Vec<u8>) {
        for part in self.parts() {
            match escaped {
                true => out.extend_from_slice(escape(part).as_bytes()),
                false => out.extend_from_slice(part.as_bytes()),
            }
        }
    }
}

impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts().into_iter().try_for_each(|part| f.write_str(part))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Absolute {
        secure: bool,
        escaped: bool,
    },
    /// A string that begins with the route's Path.
    Relative {
        escaped: bool,
    },
}

/// How much of a URL has to be seen to judge it: scheme, authority (at most 255) and the beginning of its path (Path is at most 256).
const LOOKAHEAD: usize = 768;

impl Places {
    pub fn new(base: &Base, account: &AccountName, route: &Arc<Route>, realm: &Arc<RealmRules>) -> Self {
        Self {
            route: route.clone(),
            authority: route.authority(),
            realm: realm.clone(),
            absolute: format!("{}{}/accounts/{account}", base.origin, base.path),
            relative: format!("{}/accounts/{account}", base.path),
        }
    }

    pub fn path(&self) -> &str {
        self.route.path()
    }

    /// `Location` and `Content-Location`: as in bodies, and every absolute path too, since it means the platform's host.
    pub fn rewrite_locations(&self, headers: &mut HeaderMap) {
        for name in [header::LOCATION, header::CONTENT_LOCATION] {
            let ours =
                headers.get(&name).and_then(|value| value.to_str().ok()).and_then(|url| self.location(url));
            if let Some(value) = ours.and_then(|url| HeaderValue::try_from(url).ok()) {
                headers.insert(name, value);
            }
        }
    }

    fn location(&self, url: &str) -> Option<String> {
        if url.starts_with('/') && !url.starts_with("//") {
            return Some(self.address(&self.relative, &self.authority, url.as_bytes()).to_string() + url);
        }
        let scheme = if self.route.secure() { "https://" } else { "http://" };
        let rest = url.get(scheme.len()..).filter(|_| url[..scheme.len()].eq_ignore_ascii_case(scheme))?;
        let (authority, tail) = rest.split_at(authority_end(rest.as_bytes())?);
        self.is_ours(authority)
            .then(|| self.address(&self.absolute, authority, tail.as_bytes()).to_string() + tail)
    }

    /// Our address for a path on a host of the platform, the path itself left off. The short form is taken only where it leads back to
    /// the very same platform path.
    fn address<'t>(&'t self, prefix: &'t str, authority: &'t str, path: &[u8]) -> Address<'t> {
        let short = self.is_own(authority) && ingress::comes_back(&path_of(path), self.route.path());
        Address { prefix, host: (!short).then_some(authority) }
    }

    fn is_own(&self, authority: &str) -> bool {
        let default = if self.route.secure() { ":443" } else { ":80" };
        authority.eq_ignore_ascii_case(&self.authority)
            || authority.strip_suffix(default).is_some_and(|host| host.eq_ignore_ascii_case(&self.authority))
    }

    fn is_ours(&self, authority: &str) -> bool {
        self.is_own(authority) || link_host(authority, &self.route, &self.realm).is_some()
    }
}

/// Host and port of an authority that is one of the realm's link hosts. Ports and the like only where the realm is an insecure one.
pub fn link_host(authority: &str, route: &Route, realm: &RealmRules) -> Option<(String, u16)> {
    let default = if route.secure() { 443 } else { 80 };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (host, port.parse().ok()?),
        _ => (authority, default),
    };
    // A pattern with a star would let anything at all stand before its end.
    if !is_host(host) {
        return None;
    }
    let host = host.to_ascii_lowercase();
    let admitted = realm.link_hosts.iter().any(|pattern| pattern.admits(&host));
    (admitted && (port == default || realm.hosts.allow_insecure)).then_some((host, port))
}

fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => text.split('.').all(is_label),
    }
}

impl Kind {
    fn escaped(self) -> bool {
        match self {
            Kind::Absolute { escaped, .. } | Kind::Relative { escaped } => escaped,
        }
    }
}

impl Finder {
    /// `None` where the patterns cannot be compiled, which no checked Path causes.
    pub fn new(route_path: &str) -> Option<Self> {
        let mut patterns = Vec::new();
        let mut kinds = Vec::new();
        for (scheme, secure) in [("https", true), ("http", false)] {
            for (slashes, escaped) in [("://", false), (":\\/\\/", true)] {
                patterns.push(format!("{scheme}{slashes}"));
                kinds.push(Kind::Absolute { secure, escaped });
            }
        }
        if !route_path.is_empty() {
            patterns.push(format!("\"{route_path}/"));
            kinds.push(Kind::Relative { escaped: false });
            patterns.push(format!("\"{}", escape(&format!("{route_path}/"))));
            kinds.push(Kind::Relative { escaped: true });
        }
        let longest = patterns.iter().map(String::len).max().unwrap_or_default();
        let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(&patterns).ok()?;
        Some(Self { automaton, kinds, longest })
    }
}

impl Rewriter {
    pub fn new(places: Places, finder: Rc<Finder>) -> Self {
        Self { places, finder, inside_url: false, count: 0 }
    }

    /// Rewrites what can be judged and returns how much of `input` that was; the rest comes again, with more behind it.
    pub fn feed(&mut self, input: &[u8], last: bool, out: &mut Vec<u8>) -> usize {
        let mut copied = 0;
        let mut at = 0;
        loop {
            if self.inside_url {
                match url_end(&input[at..]) {
                    End::At(end) => {
                        at += end;
                        self.inside_url = false;
                    }
                    End::Unclear(end) if !last => {
                        out.extend_from_slice(&input[copied..at + end]);
                        return at + end;
                    }
                    End::Unclear(_) | End::Beyond => {
                        out.extend_from_slice(&input[copied..]);
                        return input.len();
                    }
                }
            }
            let Some(found) = self.finder.automaton.find(Input::new(input).range(at..)) else {
                let safe =
                    input.len() - if last { 0 } else { (input.len() - at).min(self.finder.longest - 1) };
                out.extend_from_slice(&input[copied..safe]);
                return safe;
            };
            if !last && input.len() - found.start() < LOOKAHEAD {
                out.extend_from_slice(&input[copied..found.start()]);
                return found.start();
            }
            let kind = self.finder.kinds[found.pattern().as_usize()];
            let window = &input[found.start()..input.len().min(found.start() + LOOKAHEAD)];
            at = found.end();
            self.inside_url = true;
            if let Some((kept, length, ours)) = self.judge(kind, window, found.len()) {
                out.extend_from_slice(&input[copied..found.start() + kept]);
                ours.put(kind.escaped(), out);
                copied = found.start() + length;
                at = copied;
                self.count += 1;
            }
        }
    }

    /// Where in `window` our address begins, up to where it replaces what stands there, and the address.
    fn judge<'t>(
        &'t self,
        kind: Kind,
        window: &'t [u8],
        matched: usize,
    ) -> Option<(usize, usize, Address<'t>)> {
        match kind {
            Kind::Relative { .. } => {
                let places = &self.places;
                Some((1, 1, places.address(&places.relative, &places.authority, &window[1..])))
            }
            Kind::Absolute { secure, .. } => {
                let end = matched + authority_end(&window[matched..])?;
                let authority = std::str::from_utf8(&window[matched..end]).ok()?;
                if secure != self.places.route.secure() || !self.places.is_ours(authority) {
                    return None;
                }
                Some((0, end, self.places.address(&self.places.absolute, authority, &window[end..])))
            }
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('/', "\\/")
}

/// Where an authority ends, if it ends the way one does: `https://eu.iterocloud.com.evil.test` is one whole other host,
/// `https://eu.iterocloud.com@evil.test` and `https://eu.iterocloud.com\@evil.test` are tricks.
fn authority_end(text: &[u8]) -> Option<usize> {
    let part = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
    let end = text.iter().position(|b| !part(b)).unwrap_or(text.len());
    let ends = match text.get(end) {
        None => true,
        Some(b'/' | b'?' | b'#' | b'"' | b'\'' | b'<' | b'>' | b',' | b')' | b'&') => true,
        Some(b'\\') => matches!(text.get(end + 1), Some(b'/' | b'"' | b'n' | b'r' | b't')),
        Some(b) => b.is_ascii_whitespace(),
    };
    (ends && end > 0).then_some(end)
}

/// The beginning of a URL's path, without escapes, query and fragment.
fn path_of(text: &[u8]) -> Cow<'_, str> {
    let end = match url_end(text) {
        End::At(end) | End::Unclear(end) => end,
        End::Beyond => text.len(),
    };
    let ends = |b: &u8| matches!(b, b'?' | b'#' | b'\'' | b',' | b')' | b'&');
    let path = &text[..text[..end].iter().position(ends).unwrap_or(end)];
    if !path.contains(&b'\\') {
        return String::from_utf8_lossy(path);
    }
    let mut path = String::from_utf8_lossy(path).replace("\\/", "/");
    path.truncate(path.find('\\').unwrap_or(path.len()));
    Cow::Owned(path)
}

enum End {
    At(usize),
    /// A backslash stands last: what follows decides.
    Unclear(usize),
    Beyond,
}

/// One look-up for each byte: most of a rewritten body is looked at here.
static MAY_END_URL: [bool; 256] = {
    let mut ends = [false; 256];
    let mut byte = 0;
    while byte < ends.len() {
        ends[byte] = byte <= b' ' as usize || matches!(byte as u8, b'"' | b'<' | b'>' | b'\\');
        byte += 1;
    }
    ends
};

fn url_end(text: &[u8]) -> End {
    let mut at = 0;
    while let Some(found) = text[at..].iter().position(|b| MAY_END_URL[usize::from(*b)]) {
        at += found;
        match (text[at], text.get(at + 1)) {
            (b'\\', None) => return End::Unclear(at),
            (b'\\', Some(b'/' | b'u')) => at += 2,
            _ => return End::At(at),
        }
    }
    End::Beyond
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gateway::testing;
    use crate::model::route::HostPolicy;

    fn places_at(domain: &str, path: &str, base: &str, insecure: bool) -> Places {
        let policy = HostPolicy {
            allowed: vec!["*.iterocloud.com".parse().unwrap(), "127.0.0.1".parse().unwrap()],
            allow_insecure: insecure,
        };
        let realm = RealmRules {
            hosts: policy.clone(),
            link_hosts: vec!["files.iterocloud.com".parse().unwrap()],
            discovery: testing::config().realms.values().next().unwrap().discovery.clone(),
        };
        let route = Arc::new(Route::parse(domain, path, &policy).unwrap());
        Places::new(&Base::new(&base.parse().unwrap()), &"smile".parse().unwrap(), &route, &Arc::new(realm))
    }

    fn places() -> Places {
        places_at("https://eu.iterocloud.com", "/itero-gen-api/v2", "http://gw:8080", false)
    }

    fn rewriter(places: Places) -> Rewriter {
        let finder = Finder::new(places.route.path()).unwrap();
        Rewriter::new(places, Rc::new(finder))
    }

    fn whole(places: Places, text: &str) -> String {
        let mut out = Vec::new();
        assert_eq!(rewriter(places).feed(text.as_bytes(), true, &mut out), text.len());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_link_host_is_a_host_and_a_port_and_nothing_that_only_ends_like_one() {
        let realm = |insecure| RealmRules {
            hosts: HostPolicy { allowed: Vec::new(), allow_insecure: insecure },
            link_hosts: vec!["*.link.test".parse().unwrap(), "[::1]".parse().unwrap()],
            discovery: testing::config().realms.values().next().unwrap().discovery.clone(),
        };
        let route = &*places().route;
        for (authority, insecure, host) in [
            ("a.link.test", false, Some(("a.link.test", 443))),
            ("A.b.LINK.test:443", false, Some(("a.b.link.test", 443))),
            ("a.link.test:9", true, Some(("a.link.test", 9))),
            ("a.link.test:9", false, None),
            ("link.test", true, None),
            (".link.test", true, None),
            ("a..link.test", true, None),
            ("a.link.test.", true, None),
            ("evil.test@a.link.test", true, None),
            ("evil.test%2fa.link.test", true, None),
            ("evil.test%00a.link.test", true, None),
            ("evil.test\\a.link.test", true, None),
            ("evil.test:80@a.link.test", true, None),
            ("*.link.test", true, None),
            ("a.link.test:+9", true, None),
            ("a.link.test:", true, None),
            ("a.link.test:9:9", true, None),
            ("a.link.test:65536", true, None),
            ("[::1].link.test", true, None),
            ("", true, None),
        ] {
            let expected = host.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(link_host(authority, route, &realm(insecure)), expected, "{authority}");
        }
    }

    #[test]
    fn a_link_of_the_account_becomes_ours_in_the_form_it_had() {
        let table = [
            (
                r#"{"a":"https://eu.iterocloud.com/itero-gen-api/v2/order/9/download/IDE?x=1"}"#,
                r#"{"a":"http://gw:8080/accounts/smile/itero-gen-api/v2/order/9/download/IDE?x=1"}"#,
            ),
            (
                r#"{"a":"https:\/\/eu.iterocloud.com\/itero-gen-api\/v2\/order\/9"}"#,
                r#"{"a":"http:\/\/gw:8080\/accounts\/smile\/itero-gen-api\/v2\/order\/9"}"#,
            ),
            (
                r#""https://EU.iterocloud.com:443/itero-gen-api/v2/x""#,
                r#""http://gw:8080/accounts/smile/itero-gen-api/v2/x""#,
            ),
            (
                r#""https://eu.iterocloud.com/storage/x""#,
                r#""http://gw:8080/accounts/smile/@eu.iterocloud.com/storage/x""#,
            ),
            (
                r#""https://files.iterocloud.com/itero-gen-api/v2/x""#,
                r#""http://gw:8080/accounts/smile/@files.iterocloud.com/itero-gen-api/v2/x""#,
            ),
            (r#""/itero-gen-api/v2/order/9""#, r#""/accounts/smile/itero-gen-api/v2/order/9""#),
            (r#""\/itero-gen-api\/v2\/order\/9""#, r#""\/accounts\/smile\/itero-gen-api\/v2\/order\/9""#),
            ("<u>https://eu.iterocloud.com</u>", "<u>http://gw:8080/accounts/smile/@eu.iterocloud.com</u>"),
            (
                r#"{\"a\":\"https://eu.iterocloud.com/itero-gen-api/v2/x\"}"#,
                r#"{\"a\":\"http://gw:8080/accounts/smile/itero-gen-api/v2/x\"}"#,
            ),
        ];
        for (from, to) in table {
            assert_eq!(whole(places(), from), to);
        }
    }

    #[test]
    fn what_is_not_the_accounts_own_stays_as_it_is() {
        for text in [
            r#""https://eu.iterocloud.com.evil.test/itero-gen-api/v2/x""#,
            r#""https://eu.iterocloud.com@evil.test/x""#,
            r#""https://user:pw@eu.iterocloud.com/x""#,
            r#""https://eu.iterocloud.com\\@evil.test/x""#,
            r#""https://eu.iterocloud.com%2eevil.test/x""#,
            r#""https://eu.iterocloud.com:8443/x""#,
            r#""https://us.iterocloud.com/itero-gen-api/v2/x""#,
            r#""https://evil-eu.iterocloud.com/x""#,
            r#""http://eu.iterocloud.com/itero-gen-api/v2/x""#,
            r#""https://store.test/a?sig=1&next=https://eu.iterocloud.com/itero-gen-api/v2/x""#,
            r#""https:\/\/store.test\/a?next=https:\/\/eu.iterocloud.com\/itero-gen-api\/v2\/x""#,
            r#""order/9/download/IDE""#,
            r#""/other/x""#,
            r#""Path":"/itero-gen-api/v2""#,
            "https://",
            "https:",
            "",
        ] {
            assert_eq!(whole(places(), text), text);
        }
    }

    #[test]
    fn an_insecure_realm_has_http_and_ports() {
        let places = || places_at("http://127.0.0.1:9001", "/v3", "http://gw/base", true);
        assert_eq!(
            whole(places(), r#""http://127.0.0.1:9001/v3/x" "http:\/\/127.0.0.1:9002\/v3\/x" "/v3/y""#),
            r#""http://gw/base/accounts/smile/v3/x" "http:\/\/127.0.0.1:9002\/v3\/x" "/base/accounts/smile/v3/y""#
        );
    }

    #[test]
    fn locations_are_treated_alike() {
        let table = [
            (
                "https://eu.iterocloud.com/itero-gen-api/v2/x?y#z",
                "http://gw:8080/accounts/smile/itero-gen-api/v2/x?y#z",
            ),
            ("/itero-gen-api/v2/x", "/accounts/smile/itero-gen-api/v2/x"),
            ("/login", "/accounts/smile/@eu.iterocloud.com/login"),
            ("https://store.test/x", "https://store.test/x"),
            ("//eu.iterocloud.com/x", "//eu.iterocloud.com/x"),
            ("x", "x"),
        ];
        for (from, to) in table {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, from.parse().unwrap());
            places().rewrite_locations(&mut headers);
            assert_eq!(headers[header::LOCATION], to);
        }
    }

    const SAMPLE: &str = r#"[{"u":"https://eu.iterocloud.com/itero-gen-api/v2/order/9/download/IDE","n":"\u00e4\"x"},
        {"u":"https:\/\/eu.iterocloud.com\/storage\/1","f":"https://store.test/a?u=https://eu.iterocloud.com/x"},
        "\/itero-gen-api\/v2\/order\/1","https://files.iterocloud.com","http","https:","/itero-gen-api/v2/x"]"#;

    fn in_pieces(sample: &[u8], cuts: &[usize]) -> Vec<u8> {
        let mut rewriter = rewriter(places());
        let (mut out, mut held, mut from) = (Vec::new(), Vec::new(), 0);
        for cut in cuts.iter().copied().chain([sample.len()]) {
            held.extend_from_slice(&sample[from..cut]);
            from = cut;
            let done = rewriter.feed(&held, false, &mut out);
            held.drain(..done);
        }
        assert_eq!(rewriter.feed(&held, true, &mut out), held.len());
        out
    }

    #[test]
    fn a_match_split_at_any_place_is_found() {
        let padded = format!("{SAMPLE}{}", " ".repeat(2 * LOOKAHEAD));
        let expected = whole(places(), &padded).into_bytes();
        for cut in 0..padded.len() {
            assert_eq!(in_pieces(padded.as_bytes(), &[cut]), expected, "{cut}");
        }
        let every: Vec<usize> = (1..padded.len()).collect();
        assert_eq!(in_pieces(padded.as_bytes(), &every), expected);
    }

    proptest! {
        #[test]
        fn any_text_in_any_pieces_is_rewritten_as_if_it_were_whole(
            parts in prop::collection::vec(prop::sample::select(vec![
                "https://eu.iterocloud.com", "https:\\/\\/eu.iterocloud.com", "/itero-gen-api/v2/", "\"", "\\", "/", "x", " ",
                "https://", "\"/itero-gen-api/v2", "\"\\/itero-gen-api\\/v2\\/", "http://", "files.iterocloud.com", "@", ".",
            ]), 0..60),
            seeds in prop::collection::vec(0usize..4000, 0..6),
        ) {
            let text = parts.concat();
            let mut cuts: Vec<usize> = seeds.iter().map(|seed| seed % (text.len() + 1)).collect();
            cuts.sort_unstable();
            let mut expected = Vec::new();
            rewriter(places()).feed(text.as_bytes(), true, &mut expected);
            prop_assert_eq!(in_pieces(text.as_bytes(), &cuts), expected);
        }
    }
}
