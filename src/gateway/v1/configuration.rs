//! V1's practice configuration made of V2's: the members that V2 does not have any more are put in, and all
//! that came stays as it is.

use super::json_text::{Member, is_string, members, skip_blanks};

/// The text with those members that are not there, each a name and a JSON text, at the end of the `Data`
/// object, or of the whole where there is none (the frame of Authentication and Pairing V2, 4.2.3). `None`
/// where nothing is to be added, or there is no object to add it to.
pub fn with_members(text: &[u8], wanted: &[(String, String)]) -> Option<Vec<u8>> {
    let (found, end) = configuration(text)?;
    let is_there = |name: &str| found.iter().any(|member| is_string(&text[member.name.clone()], name));
    let mut out = text[..end].to_vec();
    let mut count = found.len();
    for (name, value) in wanted.iter().filter(|(name, _)| !is_there(name)) {
        let comma = if count == 0 { "" } else { "," };
        let name = serde_json::Value::from(name.as_str());
        out.extend_from_slice(format!("{comma}{name}:{value}").as_bytes());
        count += 1;
    }
    out.extend_from_slice(&text[end..]);
    (count > found.len()).then_some(out)
}

/// The members of the configuration itself, and where it ends.
fn configuration(text: &[u8]) -> Option<(Vec<Member>, usize)> {
    let (found, end) = members(text, skip_blanks(text, 0))?;
    let data = found.iter().find(|member| is_string(&text[member.name.clone()], "Data"));
    match data {
        Some(data) if text[data.value.start] == b'{' => members(text, data.value.start),
        // Something else than a configuration.
        Some(_) => None,
        None => Some((found, end)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_v1_listed_is_added_where_it_is_missing() {
        let wanted = [("CaseTypes".to_owned(), "[1]".to_owned()), ("X".to_owned(), "{}".to_owned())];
        let added =
            |text: &str| with_members(text.as_bytes(), &wanted).map(|out| String::from_utf8(out).unwrap());
        for (v2, v1) in [
            (
                r#"{"Data": {"A": 1.50 }, "Status": 1}"#,
                r#"{"Data": {"A": 1.50 ,"CaseTypes":[1],"X":{}}, "Status": 1}"#,
            ),
            (r#"{"A":1}"#, r#"{"A":1,"CaseTypes":[1],"X":{}}"#),
            (r#"{"Data":{}}"#, r#"{"Data":{"CaseTypes":[1],"X":{}}}"#),
            (r#"{"CaseTypes":[],"A":2}"#, r#"{"CaseTypes":[],"A":2,"X":{}}"#),
        ] {
            assert_eq!(added(v2).as_deref(), Some(v1));
        }
        for text in
            [r#"{"X":1,"CaseTypes":2}"#, r#"{"Data":null}"#, r#"{"Data":[]}"#, "[]", "", "<a>", r#"{"A":1"#]
        {
            assert_eq!(added(text), None, "{text}");
        }
    }
}
