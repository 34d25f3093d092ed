//! Finds members in JSON text by their names and leaves the text alone. It is lenient: what is not JSON has
//! no members, and nothing here ever fails for it.

use std::ops::Range;

use memchr::memchr2;

/// A member of an object: where its name and its value stand, quotation marks included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub name: Range<usize>,
    pub value: Range<usize>,
}

/// Every member of that name whose value is a string or a number, at whatever depth, in the order of the
/// text.
pub fn scalar_members(text: &[u8], name: &str) -> Vec<Member> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(quote) = memchr::memchr(b'"', &text[at..]).map(|offset| at + offset) {
        let Some(end) = string_end(text, quote) else { break };
        at = end;
        let colon = skip_blanks(text, end);
        if text.get(colon) != Some(&b':') || !is_string(&text[quote..end], name) {
            continue;
        }
        let begins = skip_blanks(text, colon + 1);
        let ends = match text.get(begins) {
            Some(b'"') => string_end(text, begins),
            Some(b'-' | b'0'..=b'9') => Some(scalar_end(text, begins)),
            _ => None,
        };
        if let Some(ends) = ends {
            found.push(Member { name: quote..end, value: begins..ends });
            at = ends;
        }
    }
    found
}

/// The members of the object that begins at `at`, and where its closing brace stands. `None` for what is no
/// complete object.
pub fn members(text: &[u8], at: usize) -> Option<(Vec<Member>, usize)> {
    let mut found = Vec::new();
    let mut at = after(text, at, b'{')?;
    if text.get(at) == Some(&b'}') {
        return Some((found, at));
    }
    loop {
        let name_end = string_end(text, at)?;
        let value = after(text, skip_blanks(text, name_end), b':')?;
        let value_end = value_end(text, value)?;
        found.push(Member { name: at..name_end, value: value..value_end });
        let next = skip_blanks(text, value_end);
        match text.get(next)? {
            b',' => at = skip_blanks(text, next + 1),
            b'}' => return Some((found, next)),
            _ => return None,
        }
    }
}

/// Whether a string, quotation marks included, says this.
pub fn is_string(literal: &[u8], text: &str) -> bool {
    let inner = literal.get(1..literal.len().saturating_sub(1)).unwrap_or_default();
    inner == text.as_bytes() || inner.contains(&b'\\') && decoded(literal).as_deref() == Some(text)
}

/// What a string says, quotation marks and escapes taken off.
pub fn decoded(literal: &[u8]) -> Option<String> {
    serde_json::from_slice(literal).ok()
}

/// The place behind the closing quotation mark of the string that begins at `at`.
fn string_end(text: &[u8], at: usize) -> Option<usize> {
    if text.get(at) != Some(&b'"') {
        return None;
    }
    let mut from = at + 1;
    loop {
        let found = from + memchr2(b'"', b'\\', text.get(from..)?)?;
        if text[found] == b'"' {
            return Some(found + 1);
        }
        from = found + 2;
    }
}

/// The place behind a value: brackets are counted, and those in strings are not.
fn value_end(text: &[u8], at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = at;
    loop {
        at = match text.get(at)? {
            b'"' => string_end(text, at)?,
            b'{' | b'[' => {
                depth += 1;
                at + 1
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                at + 1
            }
            b',' | b':' if depth > 0 => at + 1,
            b',' | b':' => return None,
            byte if byte.is_ascii_whitespace() => at + 1,
            _ => scalar_end(text, at),
        };
        if depth == 0 {
            return Some(at);
        }
    }
}

fn scalar_end(text: &[u8], at: usize) -> usize {
    let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b':' | b'"') || byte.is_ascii_whitespace();
    text[at..].iter().position(ends).map_or(text.len(), |length| at + length)
}

/// The next thing behind one sign.
fn after(text: &[u8], at: usize, sign: u8) -> Option<usize> {
    (text.get(at) == Some(&sign)).then(|| skip_blanks(text, at + 1))
}

/// Blanks, and the mark that some programs set before a text.
pub fn skip_blanks(text: &[u8], at: usize) -> usize {
    let at = if text[at.min(text.len())..].starts_with(b"\xef\xbb\xbf") { at + 3 } else { at };
    let blanks = text.iter().skip(at).take_while(|byte| byte.is_ascii_whitespace()).count();
    at + blanks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
        scalar_members(text.as_bytes(), name).into_iter().map(|member| &text[member.value]).collect()
    }

    #[test]
    fn a_scalar_is_found_by_its_name_at_any_depth_and_nowhere_else() {
        for (text, found) in [
            (r#"{"Procedure":"Crown"}"#, &["\"Crown\""][..]),
            (r#"{ "Rx" : [ {"Procedure" : 12 } , {"Procedure":-1.5e3}]}"#, &["12", "-1.5e3"]),
            (r#"{"Proc\u0065dure":"a\"b\\"}"#, &[r#""a\"b\\""#]),
            (r#"{"Note":"\"Procedure\":\"x\"","procedure":"y","ProcedureName":"z"}"#, &[]),
            (r#"["Procedure","x"]"#, &[]),
            (r#"{"Procedure":null,"A":{"Procedure":{"Procedure":"in"}}}"#, &["\"in\""]),
            (r#"{"A":"Procedure","Procedure":7"#, &["7"]),
            (r#"{"Procedure":"broken"#, &[]),
            (r#""Procedure\"#, &[]),
            ("", &[]),
        ] {
            assert_eq!(values(text, "Procedure"), found, "{text}");
        }
    }

    #[test]
    fn an_object_is_walked_without_looking_into_its_values() {
        let text = "\u{feff} {\"a\": [1, {\"b\": \"}\"}], \"c\" : \"x\\\"]\" ,\"d\":true}  ".as_bytes();
        let (found, end) = members(text, skip_blanks(text, 0)).unwrap();
        let texts: Vec<(&[u8], &[u8])> =
            found.iter().map(|member| (&text[member.name.clone()], &text[member.value.clone()])).collect();
        let expected: [(&[u8], &[u8]); 3] =
            [(b"\"a\"", b"[1, {\"b\": \"}\"}]"), (b"\"c\"", b"\"x\\\"]\""), (b"\"d\"", b"true")];
        assert_eq!(texts, expected);
        assert_eq!(text[end], b'}');
        assert_eq!(members(b"{ }", 0), Some((vec![], 2)));
        for broken in [
            "",
            "{",
            "[]",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":1]",
            "{\"a\":,}",
            "{a:1}",
            "{\"a\":[}",
            "{\"a\":1 2}",
        ] {
            assert_eq!(members(broken.as_bytes(), 0), None, "{broken}");
        }
    }
}
