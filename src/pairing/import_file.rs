//! Reads an import file, JSON or CSV. The rule: an element that cannot be read spoils only itself, and no
//! text of the file is ever repeated, since any field of it may be a token that stands in the wrong column.

use serde_json::{Map, Value};

use super::import_plan::ImportEntry;
use crate::config::csv::{self, OpenQuoteError};
use crate::model::account::{AccountId, AccountName, RealmName};
use crate::model::token::RefreshToken;

/// What each element has to say; in CSV the header row's words, in any order and case.
const FIELDS: [&str; 4] = ["name", "realm", "account_id", "refresh_token"];

/// Why the file cannot be read as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportFileError {
    #[error("the file is UTF-16 text, as Windows programs write \"Unicode\": save it as UTF-8")]
    Utf16,
    #[error("the file is not UTF-8 text")]
    NotUtf8,
    #[error("the file is empty")]
    Empty,
    #[error("the file is not JSON (line {line}, column {column})")]
    NotJson { line: usize, column: usize },
    #[error("the file is not a JSON array")]
    NotAnArray,
    #[error("the file is not JSON, and as CSV its first line is no header row: {} missing in it", named(.missing))]
    NoHeader { missing: Vec<&'static str> },
    #[error("the header row names {0} twice")]
    DuplicateHeader(&'static str),
    #[error("a quotation mark in line {line} is not closed")]
    OpenQuote { line: usize },
}

fn named(missing: &[&'static str]) -> String {
    format!("{} {}", missing.join(", "), if missing.len() == 1 { "is" } else { "are" })
}

/// Reads an import file; an element that cannot be read is its own error.
pub fn read_import(file: &[u8]) -> Result<Vec<Result<ImportEntry, String>>, ImportFileError> {
    if is_utf16(file) {
        return Err(ImportFileError::Utf16);
    }
    let text = std::str::from_utf8(file).map_err(|_| ImportFileError::NotUtf8)?;
    let text = text.trim_start_matches('\u{feff}');
    match text.trim_start().chars().next() {
        None => Err(ImportFileError::Empty),
        Some('[' | '{') => read_json(text),
        Some(_) => read_csv(text),
    }
}

/// By its mark, or by the zero bytes that stand beside every letter of our field names.
fn is_utf16(file: &[u8]) -> bool {
    let marked = file.starts_with(&[0xff, 0xfe]) || file.starts_with(&[0xfe, 0xff]);
    marked || file.iter().take(64).filter(|byte| **byte == 0).count() > 4
}

fn read_json(text: &str) -> Result<Vec<Result<ImportEntry, String>>, ImportFileError> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| ImportFileError::NotJson { line: error.line(), column: error.column() })?;
    let Value::Array(elements) = value else { return Err(ImportFileError::NotAnArray) };
    Ok(elements.iter().map(read_element).collect())
}

fn read_element(element: &Value) -> Result<ImportEntry, String> {
    let map = element.as_object().ok_or("it is not an object")?;
    let id = match map.get("account_id") {
        Some(Value::Number(number)) => number.to_string(),
        _ => read_text(map, "account_id").map_err(|_| "account_id is missing or no number")?.to_owned(),
    };
    let text = |field| read_text(map, field);
    let test = match map.get(TEST) {
        None | Some(Value::Null) => None,
        Some(Value::Bool(test)) => Some(*test),
        Some(Value::String(word)) => read_test(word)?,
        Some(_) => return Err(ODD_TEST.to_owned()),
    };
    Ok(ImportEntry { test, ..entry(text("name")?, text("realm")?, &id, text("refresh_token")?)? })
}

/// May be left out, and so may its column: whether the account exists to be tested with.
const TEST: &str = "test";
const ODD_TEST: &str = "test is neither true nor false";

fn read_test(word: &str) -> Result<Option<bool>, String> {
    match word.trim().to_ascii_lowercase().as_str() {
        "" => Ok(None),
        "true" | "yes" | "1" => Ok(Some(true)),
        "false" | "no" | "0" => Ok(Some(false)),
        _ => Err(ODD_TEST.to_owned()),
    }
}

fn read_text<'a>(map: &'a Map<String, Value>, field: &str) -> Result<&'a str, String> {
    map.get(field).and_then(Value::as_str).ok_or_else(|| format!("{field} is missing or no string"))
}

fn read_csv(text: &str) -> Result<Vec<Result<ImportEntry, String>>, ImportFileError> {
    let (text, _) = csv::without_separator_line(text);
    let (mut missing, mut fault) = (FIELDS.to_vec(), None);
    for separator in csv::SEPARATORS {
        let rows = match csv::rows(text, separator) {
            Ok(rows) => rows,
            Err(OpenQuoteError { line }) => {
                fault.get_or_insert(ImportFileError::OpenQuote { line });
                continue;
            }
        };
        let Some((header, rows)) = rows.split_first() else { return Err(ImportFileError::Empty) };
        match columns(&header.cells)? {
            Ok(columns) => {
                let test = header.cells.iter().position(|cell| cell.eq_ignore_ascii_case(TEST));
                return Ok(rows.iter().map(|row| read_row(&row.cells, columns, test)).collect());
            }
            Err(absent) if absent.len() < missing.len() => missing = absent,
            Err(_) => {}
        }
    }
    Err(fault.unwrap_or(ImportFileError::NoHeader { missing }))
}

/// Where each of [`FIELDS`] stands in the header row, or those that are missing.
fn columns(header: &[String]) -> Result<Result<[usize; 4], Vec<&'static str>>, ImportFileError> {
    let message: Vec<String> =
        header.iter().map(|cell| cell.to_lowercase().replace([' ', '-'], "_")).collect();
    let (mut columns, mut missing) = ([0; 4], Vec::new());
    for (column, field) in columns.iter_mut().zip(FIELDS) {
        let mut found = message.iter().enumerate().filter(|(_, word)| *word == field);
        match (found.next(), found.next()) {
            (Some((index, _)), None) => *column = index,
            (Some(_), Some(_)) => return Err(ImportFileError::DuplicateHeader(field)),
            (None, _) => missing.push(field),
        }
    }
    Ok(if missing.is_empty() { Ok(columns) } else { Err(missing) })
}

fn read_row(row: &[String], columns: [usize; 4], test: Option<usize>) -> Result<ImportEntry, String> {
    let cell = |number: usize| {
        let cell = row.get(columns[number]).map(String::as_str).filter(|cell| !cell.is_empty());
        cell.ok_or_else(|| format!("{} is missing", FIELDS[number]))
    };
    // Our own CSV puts it in front of what a spreadsheet would run.
    let token = cell(3)?;
    let token =
        token.strip_prefix('\'').filter(|rest| rest.starts_with(['=', '+', '-', '@'])).unwrap_or(token);
    let test = test.and_then(|column| row.get(column)).map_or(Ok(None), |word| read_test(word))?;
    Ok(ImportEntry { test, ..entry(cell(0)?, cell(1)?, cell(2)?, token)? })
}

fn entry(name: &str, realm: &str, account_id: &str, refresh_token: &str) -> Result<ImportEntry, String> {
    let token = refresh_token.trim();
    let name: AccountName = name.trim().parse().map_err(|problem| invalid("name", &problem))?;
    let realm: RealmName = realm.trim().parse().map_err(|problem| invalid("realm", &problem))?;
    let account_id: AccountId =
        account_id.trim().parse().map_err(|_| "account_id is not a whole number".to_owned())?;
    let refresh_token = RefreshToken::checked(token).map_err(|error| error.to_string())?;
    if look_swapped(name.as_str(), token) {
        return Err("name and refresh_token look as if they were swapped".to_owned());
    }
    Ok(ImportEntry { name, realm, account_id, refresh_token, test: None })
}

/// The rule alone: the text may be a token.
fn invalid(field: &str, problem: &crate::model::account::NameError) -> String {
    format!("{field} is not valid: {}", problem.rule)
}

/// A token may be made of letters that a name may have too. Then it is
/// longer than the name, and has more digits.
fn look_swapped(name: &str, token: &str) -> bool {
    let digits = |text: &str| text.bytes().filter(u8::is_ascii_digit).count();
    let has_the_look_of_a_token = name.len() >= LEAST_TOKEN && digits(name) > digits(token);
    token.parse::<AccountName>().is_ok() && name.len() > token.len() && has_the_look_of_a_token
}

/// No real token is shorter.
const LEAST_TOKEN: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Result<ImportEntry, String>> {
        read_import(text.as_bytes()).unwrap()
    }

    #[test]
    fn an_element_that_cannot_be_read_spoils_only_itself_and_is_never_quoted() {
        let text = r#"[
            {"name": "smile", "realm": "global", "account_id": "12", "refresh_token": "rt-1"},
            {"name": "S3cret!", "realm": "global", "account_id": 12, "refresh_token": "smile"},
            {"name": "grin", "realm": "S3CRET", "account_id": 12, "refresh_token": "rt-2"},
            {"name": "grin", "realm": "global", "account_id": 12, "refresh_token": 5550001},
            {"name": "grin", "realm": "global", "account_id": 1.5, "refresh_token": "s3cret"},
            {"name": "grin", "realm": "global", "account_id": "s3cret", "refresh_token": "12"},
            {"name": "grin", "realm": "global", "account_id": 12, "refresh_token": "s3 cret"},
            "s3cret"
        ]"#;
        let entries = read(text);
        assert_eq!(entries.len(), 8);
        assert_eq!(entries[0].as_ref().unwrap().account_id, AccountId::new(12));
        for entry in &entries[1..] {
            let why = entry.as_ref().unwrap_err();
            assert!(!why.to_lowercase().contains("s3") && !why.contains("555"), "{why}");
        }
    }

    #[test]
    fn a_token_of_letters_that_a_name_may_have_is_not_taken_for_one() {
        for token in ["3f2504e0-4f89-11d3-9a0c-0305e82c3301", "s3cret-20261130", "r1.a8f3c2"] {
            let swapped = look_swapped(token, "smile");
            assert_eq!(swapped, token.len() >= LEAST_TOKEN, "{token}");
        }
        for (name, token) in
            [("praxis-dr-mueller-berlin-mitte-2", "3f2504e0-4f89-11d3"), ("smile-berlin", "an-older-token")]
        {
            assert!(!look_swapped(name, token), "{name}");
        }
    }

    #[test]
    fn csv_is_read_as_programs_and_countries_write_it() {
        for text in [
            "name,realm,account_id,refresh_token\nsmile,global,12,rt-1\n",
            "\u{feff}Name;Realm;Account ID;Refresh-Token\r\n\r\n smile ; global ; 12 ; rt-1 \r\n;;;\r\n",
            "refresh_token\taccount_id\tremark\trealm\tname\rrt-1\t12\tx\tglobal\tsmile",
            "\"NAME\",\"REALM\",\"ACCOUNT_ID\",\"REFRESH_TOKEN\"\n\"smile\",\"global\",\"12\",\"rt-1\"",
            "sep=;\r\nname;realm;account_id;refresh_token;remark\r\nsmile;global;12;rt-1;\"a \"\"b\"\";\nc\"\r\n",
        ] {
            let entries = read(text);
            let [Ok(entry)] = &*entries else { panic!("{text:?}: {entries:?}") };
            let read = (entry.name.as_str(), entry.realm.as_str(), entry.account_id.as_u64());
            assert_eq!((read, entry.refresh_token.expose()), (("smile", "global", 12), "rt-1"), "{text:?}");
        }
    }

    #[test]
    fn whether_an_account_is_to_be_tested_with_may_be_said_in_either_form() {
        let json = |test: &str| {
            let element = format!(
                r#"[{{"name": "smile", "realm": "global", "account_id": 1, "refresh_token": "rt-1"{test}}}]"#
            );
            read(&element)[0].as_ref().map(|entry| entry.test).map_err(|why| why.clone())
        };
        for (text, test) in
            [("", None), (", \"test\": true", Some(true)), (", \"test\": \"no\"", Some(false))]
        {
            assert_eq!(json(text), Ok(test), "{text}");
        }
        assert_eq!(json(", \"test\": 7"), Err(ODD_TEST.to_owned()));
        let rows = read(
            "name,realm,account_id,refresh_token,Test\na,global,1,rt-1,true\nb,global,2,rt-2,\nc,global,3,rt-3,s3cret\n",
        );
        let tests: Vec<_> =
            rows.iter().map(|row| row.as_ref().map(|entry| entry.test).map_err(|why| why.as_str())).collect();
        assert_eq!(tests, [Ok(Some(true)), Ok(None), Err(ODD_TEST)]);
    }

    #[test]
    fn a_row_of_csv_that_cannot_be_read_spoils_only_itself() {
        let rows = "name;realm;account_id;refresh_token\nS3cret,;global;1;rt\n;global;1;rt\nsmile;global;1;rt\nsmile";
        let why: Vec<_> = read(rows).into_iter().map(|row| row.err()).collect();
        assert_eq!(why.len(), 4);
        assert!(why[0].as_ref().is_some_and(|why| !why.contains("S3")), "{why:?}");
        assert_eq!(why[1].as_deref(), Some("name is missing"));
        assert_eq!((&why[2], why[3].as_deref()), (&None, Some("refresh_token is missing")));
    }

    #[test]
    fn what_is_no_import_file_is_refused_by_what_it_is() {
        use ImportFileError::*;
        let refused = |file: &[u8]| read_import(file).unwrap_err();
        assert_eq!(refused(b"{}"), NotAnArray);
        assert_eq!(refused(b"[\n{]"), NotJson { line: 2, column: 2 });
        assert_eq!(refused(b"\"s3cret\""), NoHeader { missing: FIELDS.to_vec() });
        assert_eq!(refused(b"smile,global,12,rt-1\n"), NoHeader { missing: FIELDS.to_vec() });
        assert_eq!(refused(b"name;realm;account_id\n"), NoHeader { missing: vec!["refresh_token"] });
        assert_eq!(refused(b"name,realm,account_id,Name,refresh_token\n"), DuplicateHeader("name"));
        assert_eq!(refused(b"name,realm,account_id,refresh_token\n\"a,b\n"), OpenQuote { line: 2 });
        assert_eq!(refused(b"\xef\xbb\xbf \n"), Empty);
        assert_eq!(refused(b"name\xff"), NotUtf8);
        let utf16: Vec<u8> = "name,realm".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(refused(&utf16), Utf16);
        assert_eq!(refused(&[&[0xff, 0xfe], &*utf16].concat()), Utf16);
        assert!(read("\u{feff}[]").is_empty());
        assert!(read("name,realm,account_id,refresh_token\n").is_empty());
        assert!(!refused(b"s3cret,x").to_string().contains("s3"));
    }
}
