//! Tolerant reading of what the token endpoint says. Strings follow JSON's rules; whatever is odd around them
//! costs nobody a token: a byte order mark, another charset, a name that comes twice, `NaN`, a comma too
//! many, text behind the object.

use std::borrow::Cow;

/// A value as far as it could be read.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum LooseJson {
    Text(String),
    /// A number, a word such as `null`, or whatever else stands where a value belongs, as it is spelled.
    Word(String),
    Object(Vec<(String, LooseJson)>),
    Array(Vec<LooseJson>),
}

/// One value and how it was written.
#[derive(Debug, PartialEq)]
pub(super) struct LooseDocument {
    pub value: LooseJson,
    /// The text ends in the middle of a value: bytes are missing.
    pub cut: bool,
    /// The outermost bracket was closed.
    pub closed: bool,
    /// For people: what differs from one JSON document in UTF-8.
    pub flaws: Vec<&'static str>,
}

/// Deeper nesting than any token response has is not followed.
const DEEPEST: usize = 16;

/// `None` where no object, array or string begins, as with a web page.
pub(super) fn read(bytes: &[u8]) -> Option<LooseDocument> {
    let (text, mut flaws) = decode(bytes);
    let mut reader =
        LooseParser { text: text.trim_start(), at: 0, cut: false, unclosed: false, sloppy: false };
    if !reader.text.starts_with(['{', '[', '"']) {
        return None;
    }
    let value = reader.value(0)?;
    if !reader.rest().trim().is_empty() {
        flaws.push("something stands behind the JSON");
    }
    if reader.sloppy || reader.unclosed || reader.cut {
        flaws.push("it is not sound JSON");
    }
    match value {
        // An object that was written out twice.
        LooseJson::Text(inner) if inner.trim_start().starts_with('{') => {
            let inner = read(inner.as_bytes())?;
            flaws.extend(inner.flaws.iter());
            flaws.push("the object stands in a string");
            Some(LooseDocument { flaws, ..inner })
        }
        value => {
            Some(LooseDocument { value, cut: reader.cut, closed: !reader.cut && !reader.unclosed, flaws })
        }
    }
}

impl LooseJson {
    pub fn text(&self) -> Option<&str> {
        match self {
            LooseJson::Text(text) => Some(text),
            LooseJson::Word(_) | LooseJson::Object(_) | LooseJson::Array(_) => None,
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, LooseJson::Word(word) if word == "null")
    }

    /// Every value under a name, the last first, since that is the one that most readers keep. Names in
    /// another spelling (`AccessToken`, `access-token `) come after those that are spelled right.
    pub fn all(&self, name: &str) -> Vec<&LooseJson> {
        let LooseJson::Object(members) = self else { return Vec::new() };
        let plain = |name: &str| -> String {
            name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
        };
        let (exact, wanted) = (members.iter().rev().filter(|(found, _)| found == name), plain(name));
        let other = members.iter().rev().filter(|(found, _)| found != name && plain(found) == wanted);
        exact.chain(other).map(|(_, value)| value).collect()
    }

    /// This value and those in it, from the outside in.
    pub fn walk(&self) -> Vec<&LooseJson> {
        let mut found = vec![self];
        let mut next = 0;
        while let Some(value) = found.get(next).copied() {
            match value {
                LooseJson::Object(members) => found.extend(members.iter().map(|(_, value)| value)),
                LooseJson::Array(items) => found.extend(items),
                LooseJson::Text(_) | LooseJson::Word(_) => {}
            }
            next += 1;
        }
        found
    }
}

/// The text, whatever its charset: tokens are ASCII, so in all that occur they read the same.
fn decode(bytes: &[u8]) -> (Cow<'_, str>, Vec<&'static str>) {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = bytes.as_chunks::<2>().0.iter().map(|pair| unit(*pair));
        let text = char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        (Cow::Owned(text), vec!["it is UTF-16"])
    };
    match bytes {
        [0xEF, 0xBB, 0xBF, rest @ ..] => {
            (String::from_utf8_lossy(rest), vec!["it begins with a byte order mark"])
        }
        [0xFE, 0xFF, rest @ ..] => wide(rest, u16::from_be_bytes),
        [0xFF, 0xFE, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0, 1..=255, ..] => wide(bytes, u16::from_be_bytes),
        [1..=255, 0, ..] => wide(bytes, u16::from_le_bytes),
        _ => match String::from_utf8_lossy(bytes) {
            Cow::Borrowed(text) => (Cow::Borrowed(text), Vec::new()),
            text @ Cow::Owned(_) => (text, vec!["it is not UTF-8"]),
        },
    }
}

struct LooseParser<'a> {
    text: &'a str,
    at: usize,
    cut: bool,
    unclosed: bool,
    sloppy: bool,
}

impl<'a> LooseParser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip(&mut self, skipped: impl Fn(char) -> bool) {
        self.at = self.text.len() - self.rest().trim_start_matches(skipped).len();
    }

    fn take(&mut self, wanted: char) -> bool {
        self.skip(char::is_whitespace);
        let there = self.rest().starts_with(wanted);
        if there {
            self.at += wanted.len_utf8();
        }
        there
    }

    fn value(&mut self, depth: usize) -> Option<LooseJson> {
        if depth > DEEPEST {
            self.cut = true;
            return None;
        }
        if self.take('{') {
            Some(self.object(depth))
        } else if self.take('[') {
            Some(self.array(depth))
        } else if self.take('"') {
            self.string().map(LooseJson::Text)
        } else {
            self.word()
        }
    }

    fn object(&mut self, depth: usize) -> LooseJson {
        let mut members = Vec::new();
        let mut separated = true;
        while !self.take('}') {
            if self.take(',') {
                self.sloppy |= separated;
                separated = true;
                continue;
            }
            if !self.take('"') {
                // The end of the text between two members, or something that no reader could make sense of.
                self.unclosed = true;
                self.cut |= !self.rest().is_empty();
                break;
            }
            self.sloppy |= !separated;
            let Some(name) = self.string() else { break };
            if !self.take(':') {
                self.cut = true;
                break;
            }
            let Some(value) = self.value(depth + 1) else { break };
            members.push((name.trim().to_owned(), value));
            if self.cut {
                break;
            }
            separated = false;
        }
        LooseJson::Object(members)
    }

    fn array(&mut self, depth: usize) -> LooseJson {
        let mut items = Vec::new();
        while !self.take(']') {
            if self.take(',') {
                continue;
            }
            if self.rest().is_empty() || self.rest().starts_with('}') {
                // The end of the text, or a bracket that closes nothing: there is no value to go on with.
                self.unclosed = true;
                self.cut |= !self.rest().is_empty();
                break;
            }
            let Some(item) = self.value(depth + 1) else { break };
            items.push(item);
            if self.cut {
                break;
            }
        }
        LooseJson::Array(items)
    }

    /// Behind its opening quote.
    fn string(&mut self) -> Option<String> {
        let rest = self.rest();
        let mut escaped = false;
        let end = rest.bytes().position(|byte| match byte {
            _ if escaped => {
                escaped = false;
                false
            }
            b'\\' => {
                escaped = true;
                false
            }
            byte => byte == b'"',
        });
        let Some(end) = end else {
            self.cut = true;
            self.at = self.text.len();
            return None;
        };
        let start = self.at - 1;
        self.at += end + 1;
        Some(serde_json::from_str(&self.text[start..self.at]).unwrap_or_else(|_| {
            // A raw line break, or an escape that JSON does not know.
            self.sloppy = true;
            rest[..end].to_owned()
        }))
    }

    fn word(&mut self) -> Option<LooseJson> {
        self.skip(char::is_whitespace);
        let rest = self.rest();
        let end = rest.find([',', '}', ']', '"', '{', '[', ':', '\n', '\r']).unwrap_or(rest.len());
        let word = rest[..end].trim();
        if word.is_empty() && !rest.starts_with([',', '}', ']']) {
            self.cut = true;
            return None;
        }
        self.at += end;
        self.sloppy |= serde_json::from_str::<serde_json::Value>(word).is_err();
        Some(LooseJson::Word(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn loose_json(value: &Value) -> LooseJson {
        match value {
            Value::String(text) => LooseJson::Text(text.clone()),
            Value::Array(items) => LooseJson::Array(items.iter().map(loose_json).collect()),
            Value::Object(members) => LooseJson::Object(
                members.iter().map(|(name, value)| (name.clone(), loose_json(value))).collect(),
            ),
            word => LooseJson::Word(word.to_string()),
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[a-z_\"\\\\]{1,8}", inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
            #[test]
            fn sound_json_is_read_as_every_reader_reads_it(value in json(), pretty in any::<bool>()) {
                let array = serde_json::json!([value]);
                let text = if pretty {
    serde_json::to_string_pretty(&array).unwrap()
    } else {
    array.to_string()
    };
                let read = read(text.as_bytes()).unwrap();
                prop_assert_eq!(&read.value, &loose_json(&array));
                prop_assert_eq!((read.cut, read.flaws), (false, Vec::new()));
            }

            #[test]
            fn no_brackets_at_all_bring_it_down(text in "[\\[\\]{}:,\"a ]{0,40}") {
                let _ = read(text.as_bytes());
            }

            #[test]
            fn no_bytes_at_all_bring_it_down(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
                let _ = read(&bytes);
                let _ = read(&[b"{\"a\":", bytes.as_slice()].concat());
            }

            #[test]
            fn every_beginning_of_a_response_is_read_without_inventing_anything(end in 0usize..60) {
                let text = r#"{"access_token":"aaaa","expires_in":3600,"refresh_token":"rrrr"}"#;
                if let Some(read) = read(&text.as_bytes()[..end]) {
                    for (name, wanted) in [("access_token", "aaaa"), ("refresh_token", "rrrr")] {
                        prop_assert!(read.value.all(name).iter().all(|value| value.text() == Some(wanted)));
                    }
                }
            }
        }

    #[test]
    fn a_bracket_that_closes_nothing_ends_a_list() {
        let read = read(b"{\"a\":[}").unwrap();
        assert!(read.cut && !read.closed);
        assert!(super::read(b"[}").is_some_and(|read| read.value == LooseJson::Array(Vec::new())));
    }

    fn access(bytes: &[u8]) -> Option<String> {
        let read = read(bytes)?;
        Some(read.value.all("access_token").first()?.text()?.to_owned())
    }

    #[test]
    fn oddities_around_a_string_do_not_hide_it() {
        let wide = |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            r#"{"access_token":"t"}"#.encode_utf16().flat_map(bytes).collect()
        };
        for text in [
            "\u{feff}{\"access_token\":\"t\"}".as_bytes(),
            b"\r\n {\"access_token\":\"t\"}\n\0trailing {\"access_token\":\"other\"}",
            b"{\"access_token\":\"t\",}",
            b"{\"access_token\":\"t\"",
            b"{\"expires_in\":NaN,\"access_token\":\"t\"}",
            b"{\"expires_in\":1e999,\"x\":+.5,\"access_token\":\"t\"}",
            b"{\"scope\":\"caf\xe9\",\"access_token\":\"t\"}",
            b"{\"Access-Token \":\"t\"}",
            b"{\"ACCESS_TOKEN\":\"t\"}",
            b"{\"accessToken\":\"wrong\",\"access_token\":\"t\"}",
            b"\"{\\\"access_token\\\":\\\"t\\\"}\"",
            &wide(u16::to_be_bytes),
            &wide(u16::to_le_bytes),
            &[b"\xff\xfe".as_slice(), &wide(u16::to_le_bytes)].concat(),
        ] {
            assert_eq!(access(text).as_deref(), Some("t"), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn what_is_no_json_at_all_and_what_is_cut_off_are_told() {
        for page in ["", "   ", "<html>{\"access_token\":\"t\"}</html>", "access_token", "null"] {
            assert_eq!(read(page.as_bytes()), None, "{page}");
        }
        for cut in
            ["{\"access_token\":\"t", "{\"access_token\":\"t\",\"refr", "{\"a\":\"t\",\"b\":", "{\"a\" 1}"]
        {
            assert!(read(cut.as_bytes()).unwrap().cut, "{cut}");
        }
        assert!(read("[".repeat(100_000).as_bytes()).is_none_or(|read| read.cut));
    }
}
