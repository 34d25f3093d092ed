//! Rewrites the links of a text that comes in chunks: candidates are found many bytes at a time and judged
//! one by one.

use std::rc::Rc;

use aho_corasick::{AhoCorasick, Input, Match, MatchKind, Span, packed};

use super::url::{UrlEnd, authority_end, url_end};
use super::{GatewayUrl, LinkContext, Slash, write_with};
use crate::gateway::inbound::target;

/// Finds where a URL may begin. Costly to build, so each worker keeps one per Path.
pub struct LinkMatcher {
    search: MultiSearch,
    marker_kinds: Vec<MarkerKind>,
    longest: usize,
    /// What may follow the Path of a link that surely round-trips.
    safe_bytes: [bool; 256],
    /// By how the text writes a slash.
    built_addresses: [BuiltAddress; 3],
}

/// The address of a download as applications build it by hand: between its two parts stands the order, behind
/// them the kind of file.
struct BuiltAddress {
    before_order: Vec<u8>,
    before_asset: Vec<u8>,
}

impl BuiltAddress {
    fn new(route_path: &str, slash: Slash) -> Self {
        let (mut before_order, mut before_asset) = (Vec::new(), Vec::new());
        write_with(slash, &format!("{route_path}/order/"), &mut before_order);
        write_with(slash, "/download/", &mut before_asset);
        Self { before_order, before_asset }
    }

    /// Whether a link is one: such a link needs not be remembered.
    fn is_address_of(&self, address: &[u8]) -> bool {
        let behind_word = |text: &[u8]| {
            text.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count()
        };
        let Some(order) = address.strip_prefix(&*self.before_order) else { return false };
        let Some(asset) = order[behind_word(order)..].strip_prefix(&*self.before_asset) else { return false };
        asset.get(behind_word(asset)) == Some(&b'"')
    }
}

enum MultiSearch {
    /// Many bytes in a step, where the processor can.
    Packed(packed::Searcher),
    Automaton(AhoCorasick),
}

/// Rewrites a text that comes in chunks. It may keep the end of each back, since a link can be split
/// anywhere.
pub struct Rewriter {
    link_context: LinkContext,
    matcher: Rc<LinkMatcher>,
    tail: Vec<u8>,
    /// Between a URL's beginning and its end nothing is looked at: a pre-signed address may carry one of ours
    /// in its query, and changing that would break its signature.
    inside_url: bool,
    /// The first two bytes, as far as they have come: they tell of wide letters.
    start: [u8; 2],
    started: usize,
    links: LinkCounts,
}

/// What was done about the links of a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// They became ours.
    pub changed: u64,
    /// They lead to the platform, in a form that is not changed: with another scheme, encoded for a query or
    /// for HTML, or in a text of two bytes a letter, which counts once.
    pub passed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MarkerKind {
    /// What stands between a scheme and an authority.
    Absolute(Slash),
    /// The same, encoded in a way that is only counted.
    Foreign,
    /// A string that begins with the route's Path.
    Relative(Slash),
}

/// Found by what follows it, so that its letter case does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Scheme {
    length: usize,
    secure: bool,
}

const LONGEST_SCHEME: usize = "https".len();

const ABSOLUTE: [(&str, Slash); 4] = [
    ("://", Slash::Plain),
    (":\\/\\/", Slash::Escaped),
    (":\\u002f\\u002f", Slash::Unicode),
    (":\\u002F\\u002F", Slash::Unicode),
];

/// Encoded for a query, for HTML, or twice for JSON in JSON.
const FOREIGN: [&str; 8] = [
    "%3A%2F%2F",
    "%3a%2f%2f",
    ":&#x2F;&#x2F;",
    ":&#x2f;&#x2f;",
    ":&#47;&#47;",
    ":\\\\/\\\\/",
    "\\u003a\\u002f\\u002f",
    "\\u003A\\u002F\\u002F",
];

/// How much of a URL has to be seen to judge it: scheme, authority (at most 255) and the beginning of its
/// path (Path is at most 256).
const LOOKAHEAD: usize = 768;

impl LinkMatcher {
    /// `None` where the patterns cannot be compiled, which no checked Path causes.
    pub fn new(route_path: &str) -> Option<Self> {
        let mut patterns = Vec::new();
        let mut marker_kinds = Vec::new();
        for (marker, slash) in ABSOLUTE {
            patterns.push(marker.to_owned());
            marker_kinds.push(MarkerKind::Absolute(slash));
        }
        for marker in FOREIGN {
            patterns.push(marker.to_owned());
            marker_kinds.push(MarkerKind::Foreign);
        }
        if !route_path.is_empty() {
            for slash in [Slash::Plain, Slash::Escaped, Slash::Unicode] {
                let mut pattern = vec![b'"'];
                write_with(slash, &format!("{route_path}/"), &mut pattern);
                patterns.push(String::from_utf8(pattern).ok()?);
                marker_kinds.push(MarkerKind::Relative(slash));
            }
        }
        let longest = patterns.iter().map(String::len).max().unwrap_or_default();
        let search = MultiSearch::new(&patterns)?;
        let safe_bytes = target::round_trip_safe_bytes(route_path);
        let slashes = [Slash::Plain, Slash::Escaped, Slash::Unicode];
        let built_addresses = slashes.map(|slash| BuiltAddress::new(route_path, slash));
        Some(Self { search, marker_kinds, longest, safe_bytes, built_addresses })
    }

    /// Whether there is anything to judge in a complete text.
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.search.find(text, 0).is_some()
    }
}

impl MultiSearch {
    fn new(patterns: &[String]) -> Option<Self> {
        let mut config = packed::Config::new();
        let packed = config.match_kind(packed::MatchKind::LeftmostFirst).builder().extend(patterns).build();
        match packed {
            Some(searcher) => Some(Self::Packed(searcher)),
            None => {
                let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(patterns);
                automaton.ok().map(Self::Automaton)
            }
        }
    }

    fn find(&self, input: &[u8], from: usize) -> Option<Match> {
        match self {
            Self::Packed(searcher) => searcher.find_in(input, Span::from(from..input.len())),
            Self::Automaton(automaton) => automaton.find(Input::new(input).range(from..)),
        }
    }
}

impl Rewriter {
    pub fn new(link_context: LinkContext, matcher: Rc<LinkMatcher>) -> Self {
        Self {
            link_context,
            matcher,
            tail: Vec::new(),
            inside_url: false,
            start: [0; 2],
            started: 0,
            links: LinkCounts::default(),
        }
    }

    /// So far.
    pub fn links(&self) -> LinkCounts {
        self.links
    }

    /// Takes the next chunk; what can be judged of the text by now is appended to `out`.
    pub fn pass(&mut self, mut chunk: &[u8], out: &mut Vec<u8>) {
        if self.started < self.start.len() && !chunk.is_empty() {
            for (place, byte) in self.start[self.started..].iter_mut().zip(chunk) {
                *place = *byte;
                self.started += 1;
            }
            let complete = self.started == self.start.len();
            self.links.passed += u64::from(complete && has_wide_letters(&self.start));
        }
        let mut tail = std::mem::take(&mut self.tail);
        while !tail.is_empty() && !chunk.is_empty() {
            // With so much after it, all of the tail can be judged: a chunk itself is never copied.
            let (more, rest) = chunk.split_at(chunk.len().min(LOOKAHEAD));
            let kept = tail.len();
            tail.extend_from_slice(more);
            let done = self.feed(&tail, false, out);
            if done >= kept {
                chunk = &chunk[done - kept..];
                tail.clear();
            } else {
                chunk = rest;
                tail.drain(..done);
            }
        }
        let done = self.feed(chunk, false, out);
        tail.extend_from_slice(&chunk[done..]);
        self.tail = tail;
    }

    /// The text has ended.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let tail = std::mem::take(&mut self.tail);
        self.feed(&tail, true, out);
    }

    /// Rewrites what can be judged and returns how much of `input` that was; the rest comes again, with more
    /// after it.
    fn feed(&mut self, input: &[u8], last: bool, out: &mut Vec<u8>) -> usize {
        let mut copied = 0;
        let mut at = 0;
        loop {
            if self.inside_url {
                match url_end(&input[at..]) {
                    UrlEnd::At(end) => {
                        at += end;
                        self.inside_url = false;
                    }
                    UrlEnd::Unclear(end) if !last => {
                        out.extend_from_slice(&input[copied..at + end]);
                        return at + end;
                    }
                    UrlEnd::Unclear(_) | UrlEnd::Beyond => {
                        out.extend_from_slice(&input[copied..]);
                        return input.len();
                    }
                }
            }
            let Some(found) = self.matcher.search.find(input, at) else {
                let kept = LONGEST_SCHEME + self.matcher.longest - 1;
                let safe = input.len() - if last { 0 } else { (input.len() - at).min(kept) };
                out.extend_from_slice(&input[copied..safe]);
                return safe;
            };
            let marker = self.matcher.marker_kinds[found.pattern().as_usize()];
            let scheme = scheme_before(&input[at..found.start()]);
            let begins = match (marker, scheme) {
                (MarkerKind::Relative(_), _) => found.start(),
                (_, Some(scheme)) => found.start() - scheme.length,
                (_, None) => {
                    at = found.end();
                    continue;
                }
            };
            if !last && input.len() - begins < LOOKAHEAD {
                out.extend_from_slice(&input[copied..begins]);
                return begins;
            }
            let window = &input[begins..input.len().min(begins + LOOKAHEAD)];
            let matched = found.end() - begins;
            at = found.end();
            self.inside_url = marker != MarkerKind::Foreign;
            let secure = scheme.is_some_and(|scheme| scheme.secure);
            match self.judge(marker, secure, window, matched) {
                UrlMatch::Ours { kept, length, slash, gateway_url } => {
                    out.extend_from_slice(&input[copied..begins + kept]);
                    gateway_url.write(slash, out);
                    copied = begins + length;
                    self.remember(slash, gateway_url.host, &input[copied..]);
                    at = copied;
                    self.links.changed += 1;
                }
                UrlMatch::Passed => self.links.passed += 1,
                UrlMatch::NotOurs => {}
            }
        }
    }

    /// Where a link leads whose address nobody builds by hand.
    fn remember(&self, slash: Slash, host: Option<&str>, address: &[u8]) {
        if !self.matcher.built_addresses[slash as usize].is_address_of(address) {
            self.link_context.remember(host, address);
        }
    }

    fn judge<'t>(
        &'t self,
        marker: MarkerKind,
        secure: bool,
        window: &'t [u8],
        matched: usize,
    ) -> UrlMatch<'t> {
        let link_context = &self.link_context;
        let slash = match marker {
            MarkerKind::Relative(slash) => {
                let gateway_url =
                    link_context.gateway_url(&link_context.relative, &link_context.authority, &window[1..]);
                return UrlMatch::Ours { kept: 1, length: 1, slash, gateway_url };
            }
            MarkerKind::Foreign if link_context.is_rewritten_host(&foreign_authority(&window[matched..])) => {
                return UrlMatch::Passed;
            }
            MarkerKind::Foreign => return UrlMatch::NotOurs,
            MarkerKind::Absolute(slash) => slash,
        };
        if secure == link_context.route.secure()
            && link_context.surely_round_trips(&window[matched..], &self.matcher.safe_bytes)
        {
            let length = matched + link_context.authority.len();
            let gateway_url = GatewayUrl { prefix: &link_context.absolute, host: None };
            return UrlMatch::Ours { kept: 0, length, slash, gateway_url };
        }
        let Some(end) = authority_end(&window[matched..]) else { return UrlMatch::NotOurs };
        let length = matched + end;
        let authority = std::str::from_utf8(&window[matched..length]).unwrap_or_default();
        if !link_context.is_rewritten_host(authority) {
            return UrlMatch::NotOurs;
        }
        if secure != link_context.route.secure() {
            return UrlMatch::Passed;
        }
        let gateway_url = link_context.gateway_url(&link_context.absolute, authority, &window[length..]);
        UrlMatch::Ours { kept: 0, length, slash, gateway_url }
    }
}

/// What a URL that was found turns out to be.
enum UrlMatch<'t> {
    /// Of it, `kept` bytes stay, and the address takes the place of what follows them up to `length`.
    Ours {
        kept: usize,
        length: usize,
        slash: Slash,
        gateway_url: GatewayUrl<'t>,
    },
    Passed,
    NotOurs,
}

/// The scheme that a text ends with, if it is one of HTTP's.
fn scheme_before(text: &[u8]) -> Option<Scheme> {
    let ends_with = |scheme: &[u8]| {
        text.len().checked_sub(scheme.len()).is_some_and(|at| text[at..].eq_ignore_ascii_case(scheme))
    };
    match (ends_with(b"https"), ends_with(b"http")) {
        (true, _) => Some(Scheme { length: 5, secure: true }),
        (_, true) => Some(Scheme { length: 4, secure: false }),
        _ => None,
    }
}

/// Host and port of an encoded URL, as far as they can be read without taking the encoding off.
fn foreign_authority(url: &[u8]) -> String {
    let count = |text: &[u8], part: fn(&u8) -> bool| text.iter().take_while(|byte| part(byte)).count();
    let (host, behind) = url.split_at(count(url, |b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-')));
    let port = [&b":"[..], b"%3A", b"%3a"].into_iter().find_map(|colon| behind.strip_prefix(colon));
    let port = port.map(|port| &port[..count(port, u8::is_ascii_digit)]).unwrap_or_default();
    let colon = if port.is_empty() { "" } else { ":" };
    format!("{}{colon}{}", String::from_utf8_lossy(host), String::from_utf8_lossy(port))
}

/// UTF-16 and UTF-32 begin with a mark, or with a zero beside the first letter.
pub fn has_wide_letters(text: &[u8]) -> bool {
    matches!(text, [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, ..] | [_, 0, ..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{link_context, link_context_at};
    use super::*;

    fn rewriter(link_context: LinkContext) -> Rewriter {
        let matcher = LinkMatcher::new(link_context.route.path()).unwrap();
        Rewriter::new(link_context, Rc::new(matcher))
    }

    fn complete_text(link_context: LinkContext, text: &str) -> String {
        let (mut rewriter, mut out) = (rewriter(link_context), Vec::new());
        assert_eq!(rewriter.feed(text.as_bytes(), true, &mut out), text.len());
        String::from_utf8(out).unwrap()
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
            (
                r#""https:\u002f\u002feu.iterocloud.com\u002Fitero-gen-api\u002fv2\u002Fx""#,
                r#""http:\u002f\u002fgw:8080\u002faccounts\u002fsmile\u002Fitero-gen-api\u002fv2\u002Fx""#,
            ),
            (
                r#""\u002fitero-gen-api\u002fv2\u002forder""#,
                r#""\u002faccounts\u002fsmile\u002fitero-gen-api\u002fv2\u002forder""#,
            ),
            (
                r#""HTTPS://EU.ITEROCLOUD.COM/itero-gen-api/v2/x" "Https:\/\/eu.iterocloud.com.:443\/itero-gen-api\/v2\/x""#,
                r#""http://gw:8080/accounts/smile/itero-gen-api/v2/x" "http:\/\/gw:8080\/accounts\/smile\/itero-gen-api\/v2\/x""#,
            ),
            (
                r#""{\u0022a\u0022:\u0022https://eu.iterocloud.com/itero-gen-api/v2/x\u0022,\u0022b\u0022:\u0022https://files.iterocloud.com/y\u003Cz\u0020https://eu.iterocloud.com/itero-gen-api/v2/z""#,
                r#""{\u0022a\u0022:\u0022http://gw:8080/accounts/smile/itero-gen-api/v2/x\u0022,\u0022b\u0022:\u0022http://gw:8080/accounts/smile/@files.iterocloud.com/y\u003Cz\u0020http://gw:8080/accounts/smile/itero-gen-api/v2/z""#,
            ),
            ("<u>https://eu.iterocloud.com</u>", "<u>http://gw:8080/accounts/smile/@eu.iterocloud.com</u>"),
            (
                r#"{\"a\":\"https://eu.iterocloud.com/itero-gen-api/v2/x\"}"#,
                r#"{\"a\":\"http://gw:8080/accounts/smile/itero-gen-api/v2/x\"}"#,
            ),
        ];
        for (from, to) in table {
            assert_eq!(complete_text(link_context(), from), to);
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
            r#""https:\u002f\u002feu.iterocloud.com\u002e.evil.test\u002fx""#,
            r#""https:\u002f\u002feu.iterocloud.com\u0040evil.test\u002fx""#,
            r#""https:\u002f\u002feu.iterocloud.com\u00""#,
            r#""ftps://eu.iterocloud.com/itero-gen-api/v2/x""#,
            "://eu.iterocloud.com/x",
            r#""https://evil-eu.iterocloud.com/x""#,
            r#""http://eu.iterocloud.com/itero-gen-api/v2/x""#,
            r#""https://store.test/a?sig=1&next=https://eu.iterocloud.com/itero-gen-api/v2/x""#,
            r#""https:\/\/store.test\/a?next=https:\/\/eu.iterocloud.com\/itero-gen-api\/v2\/x""#,
            r#""https://store.test/a?b=1\u0026next=https://eu.iterocloud.com/itero-gen-api/v2/x\u00e4https://eu.iterocloud.com/x""#,
            r#""order/9/download/IDE""#,
            r#""/other/x""#,
            r#""Path":"/itero-gen-api/v2""#,
            "https://",
            "https:",
            "",
        ] {
            assert_eq!(complete_text(link_context(), text), text);
        }
    }

    #[test]
    fn a_link_in_a_form_that_is_not_changed_is_counted_and_passes_byte_for_byte() {
        for (text, passed) in [
            ("https%3A%2F%2Feu.iterocloud.com%2Fitero-gen-api%2Fv2%2Fx", 1),
            ("HTTPS%3a%2f%2fEU.iterocloud.com%3a443%2fx", 1),
            (
                "<a href='https:&#x2F;&#x2F;eu.iterocloud.com&#x2F;x'>https:&#47;&#47;files.iterocloud.com&#47;</a>",
                2,
            ),
            (r#"{\"a\":\"https:\\/\\/eu.iterocloud.com\\/x\"}"#, 1),
            (r#""https\u003a\u002f\u002feu.iterocloud.com\u002fx""#, 1),
            (r#""http://eu.iterocloud.com/itero-gen-api/v2/x""#, 1),
            ("https%3A%2F%2Fstore.test%2Fx", 0),
            ("https%3A%2F%2Feu.iterocloud.com.evil.test%2Fx", 0),
            (r#""https://store.test/?next=https%3A%2F%2Feu.iterocloud.com%2Fx""#, 0),
            ("\u{0}{\u{0}}", 1),
        ] {
            for size in [1, text.len()] {
                let (mut rewriter, mut out) = (rewriter(link_context()), Vec::new());
                text.as_bytes().chunks(size).for_each(|chunk| rewriter.pass(chunk, &mut out));
                rewriter.finish(&mut out);
                assert_eq!(String::from_utf8(out).unwrap(), text);
                assert_eq!(rewriter.links(), LinkCounts { changed: 0, passed }, "{text}");
            }
        }
    }

    #[test]
    fn an_insecure_realm_has_http_and_ports() {
        let link_context = || link_context_at("http://127.0.0.1:9001", "/v3", "http://gw/base", true);
        assert_eq!(
            complete_text(
                link_context(),
                r#""http://127.0.0.1:9001/v3/x" "http:\/\/127.0.0.1:9002\/v3\/x" "/v3/y""#
            ),
            r#""http://gw/base/accounts/smile/v3/x" "http:\/\/127.0.0.1:9002\/v3\/x" "/base/accounts/smile/v3/y""#
        );
    }

    const SAMPLE: &str = r#"[{"u":"https://eu.iterocloud.com/itero-gen-api/v2/order/9/download/IDE","n":"\u00e4\"x"},
        {"u":"https:\/\/eu.iterocloud.com\/storage\/1","f":"https://store.test/a?u=https://eu.iterocloud.com/x"},
        "\/itero-gen-api\/v2\/order\/1","https://files.iterocloud.com","http","https:","/itero-gen-api/v2/x"]"#;

    fn in_chunks(sample: &[u8], cuts: &[usize]) -> Vec<u8> {
        let mut rewriter = rewriter(link_context());
        let (mut out, mut from) = (Vec::new(), 0);
        for cut in cuts.iter().copied().chain([sample.len()]) {
            rewriter.pass(&sample[from..cut], &mut out);
            from = cut;
        }
        rewriter.finish(&mut out);
        out
    }

    #[test]
    fn a_match_split_at_any_place_is_found() {
        let padded = format!("{SAMPLE}{}", " ".repeat(2 * LOOKAHEAD));
        let expected = complete_text(link_context(), &padded).into_bytes();
        for cut in 0..padded.len() {
            assert_eq!(in_chunks(padded.as_bytes(), &[cut]), expected, "{cut}");
        }
        let every: Vec<usize> = (1..padded.len()).collect();
        assert_eq!(in_chunks(padded.as_bytes(), &every), expected);
    }

    proptest! {
        #[test]
        fn any_text_in_any_chunks_is_rewritten_as_if_it_came_in_one(
            parts in prop::collection::vec(prop::sample::select(vec![
                "https://eu.iterocloud.com", "https:\\/\\/eu.iterocloud.com", "/itero-gen-api/v2/", "\"", "\\", "/", "x", " ",
                "https://", "HTTPS://", "://", "\\u002f", "https%3A%2F%2Feu.iterocloud.com", "order/1", "lab-sw/v1", "\"/itero-gen-api/v2", "\"\\/itero-gen-api\\/v2\\/", "http://", "\\u0022", "\\u0026", "\\u00", "files.iterocloud.com", "@", ".",
            ]), 0..60),
            seeds in prop::collection::vec(0usize..4000, 0..6),
        ) {
            let text = parts.concat();
            let mut cuts: Vec<usize> = seeds.iter().map(|seed| seed % (text.len() + 1)).collect();
            cuts.sort_unstable();
            let expected = complete_text(link_context(), &text);
            let matcher = LinkMatcher::new(link_context().route.path()).unwrap();
            prop_assert!(matcher.is_match(text.as_bytes()) || expected == text);
            prop_assert_eq!(in_chunks(text.as_bytes(), &cuts), expected.into_bytes());
        }
    }
}
