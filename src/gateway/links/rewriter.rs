//! Texts whose links become ours, piece by piece: found many bytes at a time, judged one by one.

use std::rc::Rc;

use aho_corasick::{AhoCorasick, Input, Match, MatchKind, Span, packed};

use super::url::{End, authority_end, url_end};
use super::{Address, Places, escape};
use crate::gateway::ingress;

/// Finds where a URL may begin. Costly to build, so each worker keeps one per Path.
pub struct Finder {
    search: Search,
    kinds: Vec<Kind>,
    longest: usize,
    /// What may stand behind the Path of a link that surely leads back.
    sure: [bool; 256],
}

enum Search {
    /// Many bytes in a step, where the processor can.
    Packed(packed::Searcher),
    Automaton(AhoCorasick),
}

/// Rewrites a text that comes in pieces. Of each it may keep a tail back, since a link can be split anywhere.
pub struct Rewriter {
    places: Places,
    finder: Rc<Finder>,
    tail: Vec<u8>,
    /// Between a URL's beginning and its end nothing is looked at: a pre-signed address may carry one of ours in its query, and
    /// changing that would break its signature.
    inside_url: bool,
    links: u64,
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
        let search = Search::new(&patterns)?;
        Some(Self { search, kinds, longest, sure: ingress::sure_to_come_back(route_path) })
    }

    /// Whether there is anything to judge in a whole text.
    pub fn finds_any(&self, text: &[u8]) -> bool {
        self.search.find(text, 0).is_some()
    }
}

impl Search {
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
    pub fn new(places: Places, finder: Rc<Finder>) -> Self {
        Self { places, finder, tail: Vec::new(), inside_url: false, links: 0 }
    }

    /// How many links became ours so far.
    pub fn links(&self) -> u64 {
        self.links
    }

    /// The next piece; what can be judged of the text by now goes behind `out`.
    pub fn pass(&mut self, mut piece: &[u8], out: &mut Vec<u8>) {
        let mut tail = std::mem::take(&mut self.tail);
        while !tail.is_empty() && !piece.is_empty() {
            // With so much behind it, all of the tail can be judged: a piece itself is never copied.
            let (more, rest) = piece.split_at(piece.len().min(LOOKAHEAD));
            let kept = tail.len();
            tail.extend_from_slice(more);
            let done = self.feed(&tail, false, out);
            if done >= kept {
                piece = &piece[done - kept..];
                tail.clear();
            } else {
                piece = rest;
                tail.drain(..done);
            }
        }
        let done = self.feed(piece, false, out);
        tail.extend_from_slice(&piece[done..]);
        self.tail = tail;
    }

    /// The text has ended.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let tail = std::mem::take(&mut self.tail);
        self.feed(&tail, true, out);
    }

    /// Rewrites what can be judged and returns how much of `input` that was; the rest comes again, with more behind it.
    fn feed(&mut self, input: &[u8], last: bool, out: &mut Vec<u8>) -> usize {
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
            let Some(found) = self.finder.search.find(input, at) else {
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
                self.links += 1;
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
        let places = &self.places;
        match kind {
            Kind::Relative { .. } => {
                Some((1, 1, places.address(&places.relative, &places.authority, &window[1..])))
            }
            Kind::Absolute { secure, .. } => {
                if secure == places.route.secure()
                    && places.surely_leads_back(&window[matched..], &self.finder.sure)
                {
                    let end = matched + places.authority.len();
                    return Some((0, end, Address { prefix: &places.absolute, host: None }));
                }
                let end = matched + authority_end(&window[matched..])?;
                let authority = std::str::from_utf8(&window[matched..end]).ok()?;
                if secure != places.route.secure() || !places.is_ours(authority) {
                    return None;
                }
                Some((0, end, places.address(&places.absolute, authority, &window[end..])))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{places, places_at};
    use super::*;

    fn rewriter(places: Places) -> Rewriter {
        let finder = Finder::new(places.route.path()).unwrap();
        Rewriter::new(places, Rc::new(finder))
    }

    fn whole(places: Places, text: &str) -> String {
        let (mut rewriter, mut out) = (rewriter(places), Vec::new());
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

    const SAMPLE: &str = r#"[{"u":"https://eu.iterocloud.com/itero-gen-api/v2/order/9/download/IDE","n":"\u00e4\"x"},
        {"u":"https:\/\/eu.iterocloud.com\/storage\/1","f":"https://store.test/a?u=https://eu.iterocloud.com/x"},
        "\/itero-gen-api\/v2\/order\/1","https://files.iterocloud.com","http","https:","/itero-gen-api/v2/x"]"#;

    fn in_pieces(sample: &[u8], cuts: &[usize]) -> Vec<u8> {
        let mut rewriter = rewriter(places());
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
                "https://", "order/1", "lab-sw/v1", "\"/itero-gen-api/v2", "\"\\/itero-gen-api\\/v2\\/", "http://", "files.iterocloud.com", "@", ".",
            ]), 0..60),
            seeds in prop::collection::vec(0usize..4000, 0..6),
        ) {
            let text = parts.concat();
            let mut cuts: Vec<usize> = seeds.iter().map(|seed| seed % (text.len() + 1)).collect();
            cuts.sort_unstable();
            let expected = whole(places(), &text);
            let finder = Finder::new(places().route.path()).unwrap();
            prop_assert!(finder.finds_any(text.as_bytes()) || expected == text);
            prop_assert_eq!(in_pieces(text.as_bytes(), &cuts), expected.into_bytes());
        }
    }
}
