//! `[v1]`: what calls under the old V1 prefix need of a platform that speaks V2 (migration notice, "Gen API
//! V1/V2 Endpoints Comparison"). No document prints V1's field names, so they are configuration.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use toml::de::DeValue;

use super::csv::{self, CsvRow};
use super::placeholders::is_placeholder;
use super::reader::{Reported, Section, TomlValue};
use super::values::path;
use super::{defaults, text_file};

/// `[v1]`. Without the section, a V1 scan-request is refused and all else passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V1Config {
    /// `None`: V1 scan-requests are refused.
    pub procedures: Option<Procedures>,
    /// The member of V1's scan-request that names the procedure.
    pub procedure_field: String,
    /// What the member is called in V2, where that differs.
    pub map_id_field: Option<String>,
    /// What V1's practice configuration has and V2's lacks: each member's name and its value as JSON text.
    pub case_types: Vec<(String, String)>,
    /// Whether the fields that V2 adds to orders are removed.
    pub strips_orders: bool,
}

/// Each V1 procedure with the V2 MapID code in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Procedures {
    map_ids: BTreeMap<String, String>,
}

impl Procedures {
    /// The MapID code of a V1 procedure, named as in the file.
    pub fn map_id(&self, procedure: &str) -> Option<&str> {
        self.map_ids.get(procedure).map(String::as_str)
    }

    /// The V1 procedures that are known, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.map_ids.keys().map(String::as_str)
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Procedures {
    fn from(pairs: [(&str, &str); N]) -> Self {
        let owned = |(procedure, map_id): (&str, &str)| (procedure.to_owned(), map_id.to_owned());
        Self { map_ids: pairs.into_iter().map(owned).collect() }
    }
}

/// A clinic has dozens of procedures.
const LARGEST_LIST: u64 = 1024 * 1024;

pub(super) fn v1(section: Section<'_>) -> Result<V1Config, Reported> {
    let procedures = section.optional("procedures", procedures);
    let field = |value: &TomlValue<'_>| value.text().map(str::to_owned);
    let procedure_field =
        section.or_default("procedure_field", field, || defaults::V1_PROCEDURE_FIELD.to_owned());
    let map_id_field = section.optional("map_id_field", field);
    let case_types = section.optional("case_types", case_types);
    let strips_orders = section.or_default("orders", strips_orders, || defaults::V1_STRIPS_ORDERS);
    section.reject_unknown_keys();
    Ok(V1Config {
        procedures: procedures?,
        procedure_field: procedure_field?,
        map_id_field: map_id_field?,
        case_types: case_types?.unwrap_or_default(),
        strips_orders: strips_orders?,
    })
}

fn strips_orders(value: &TomlValue<'_>) -> Result<bool, Reported> {
    match value.text()? {
        "pass" => Ok(false),
        "strip" => Ok(true),
        _ => value.refuse("is neither \"pass\" nor \"strip\"", "write \"pass\" or \"strip\""),
    }
}

/// A fault of the list: its line (0 for the file as a whole), what is wrong, and what to do.
type ListFault = (usize, String, &'static str);

fn procedures(value: &TomlValue<'_>) -> Result<Procedures, Reported> {
    let file = path(value)?;
    let text = text_of(value, &file)?;
    let mut faults = Vec::new();
    let map_ids = read_procedures(&text, &mut faults);
    for (line, what, fix) in &faults {
        value.reader.problem_in(&file, *line, &value.location.key, what, fix);
    }
    if faults.is_empty() { Ok(Procedures { map_ids }) } else { Err(Reported) }
}

fn text_of(value: &TomlValue<'_>, file: &Path) -> Result<String, Reported> {
    let bytes = text_file::read_path(file, LARGEST_LIST);
    let text = bytes.and_then(|bytes| text_file::decode(&bytes).map(str::to_owned));
    text.or_else(|error| value.refuse(format!("{}: {}", file.display(), error.what), error.fix))
}

const COLUMNS: [&str; 2] = ["procedure", "map_id"];
const HEADER_FIX: &str = "begin the file with a header row: procedure,map_id";

/// The pairs of a list; every fault of it is found in one run.
fn read_procedures(text: &str, faults: &mut Vec<ListFault>) -> BTreeMap<String, String> {
    let (text, skipped) = csv::without_separator_line(text);
    let mut pairs: BTreeMap<String, (String, usize)> = BTreeMap::new();
    let Some((rows, columns)) = with_header(text, skipped, faults) else { return BTreeMap::new() };
    for row in &rows {
        let line = row.line + skipped;
        let cell = |column: usize| row.cells.get(columns[column]).map_or("", String::as_str);
        let (procedure, map_id) = (cell(0), cell(1));
        for (name, text) in COLUMNS.into_iter().zip([procedure, map_id]) {
            if text.is_empty() {
                faults.push((line, format!("{name} is missing"), "fill it in or remove the line"));
            } else if is_left_over(text) {
                faults.push((line, format!("{name} {text:?} is a placeholder"), "write the real one"));
            }
        }
        match pairs.get(procedure) {
            Some((_, first)) => {
                let what = format!("procedure {procedure:?} stands in line {first} already");
                faults.push((line, what, "keep one of the two lines"));
            }
            None => drop(pairs.insert(procedure.to_owned(), (map_id.to_owned(), line))),
        }
    }
    if pairs.is_empty() && faults.is_empty() {
        faults.push((0, "holds no procedure".to_owned(), "write a line for each V1 procedure"));
    }
    pairs.into_iter().map(|(procedure, (map_id, _))| (procedure, map_id)).collect()
}

/// The rows below the header, and where the two columns stand in them.
fn with_header(text: &str, skipped: usize, faults: &mut Vec<ListFault>) -> Option<(Vec<CsvRow>, [usize; 2])> {
    let mut open_quote = None;
    for separator in csv::SEPARATORS {
        let mut rows = match csv::rows(text, separator) {
            Ok(rows) if rows.is_empty() => break,
            Ok(rows) => rows,
            Err(error) => {
                open_quote = Some(error);
                continue;
            }
        };
        let header = rows.remove(0);
        let words: Vec<String> = header.cells.iter().map(|cell| column_word(cell)).collect();
        let place = |column: &str| words.iter().position(|word| *word == column_word(column));
        if let [Some(procedure), Some(map_id)] = COLUMNS.map(place) {
            return Some((rows, [procedure, map_id]));
        }
    }
    faults.push(match open_quote {
        Some(error) => {
            (error.line + skipped, "holds a quotation mark that is not closed".to_owned(), "close it")
        }
        None => (1, "has no header row with procedure and map_id".to_owned(), HEADER_FIX),
    });
    None
}

/// `MapID`, `map_id` and `Map Id` are one.
fn column_word(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
}

/// Numbers are codes, whatever their digits, and an insert is a thing that dentists make.
fn is_left_over(text: &str) -> bool {
    let word = text.to_ascii_lowercase();
    let is_real = text.bytes().all(|byte| byte.is_ascii_digit()) || word.starts_with("insert");
    !is_real && is_placeholder(text)
}

/// The members as a table in the configuration, or a JSON file with an object.
fn case_types(value: &TomlValue<'_>) -> Result<Vec<(String, String)>, Reported> {
    const FIX: &str = "write what V1 answered: { CaseTypes = [{ Id = 1, Name = \"Restorative\" }] }, or a JSON file with such an object";
    let json = if value.is_text() {
        let file = path(value)?;
        let text = text_of(value, &file)?;
        match serde_json::from_str(&text) {
            Ok(json) => json,
            Err(error) => {
                let what = format!("is not JSON (column {})", error.column());
                value.reader.problem_in(&file, error.line(), &value.location.key, &what, FIX);
                return Err(Reported);
            }
        }
    } else {
        json_of(value.node.get_ref())
    };
    match json {
        Some(Value::Object(members)) if !members.is_empty() => {
            Ok(members.into_iter().map(|(name, value)| (name, value.to_string())).collect())
        }
        _ => value.refuse("is no object with members", FIX),
    }
}

/// `None` for what JSON cannot hold: moments, and numbers that are none.
fn json_of(node: &DeValue<'_>) -> Option<Value> {
    Some(match node {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Integer(number) => Value::from(i64::from_str_radix(number.as_str(), number.radix()).ok()?),
        DeValue::Float(number) => Value::from(number.as_str().parse::<f64>().ok()?),
        DeValue::Boolean(is) => Value::from(*is),
        DeValue::Datetime(_) => return None,
        DeValue::Array(items) => {
            Value::Array(items.iter().map(|item| json_of(item.get_ref())).collect::<Option<_>>()?)
        }
        DeValue::Table(table) => {
            let member = |(name, item): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
                Some((AsRef::<str>::as_ref(name.get_ref()).to_owned(), json_of(item.get_ref())?))
            };
            Value::Object(table.iter().map(member).collect::<Option<_>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, Vec<String>> {
        let mut faults = Vec::new();
        let pairs = read_procedures(text, &mut faults);
        if faults.is_empty() {
            return Ok(pairs.into_iter().collect());
        }
        Err(faults.into_iter().map(|(line, what, _)| format!("{line}: {what}")).collect())
    }

    #[test]
    fn a_list_is_read_as_programs_and_countries_write_it() {
        let expected = [("Crown".to_owned(), "FR".to_owned()), ("Study, large".to_owned(), "SM".to_owned())];
        for text in [
            "procedure,map_id\nCrown,FR\n\"Study, large\",SM\n",
            "Procedure;MapID\r\nCrown;FR\r\nStudy, large;SM\r\n",
            "sep=;\nnote;Map Id;PROCEDURE\nx;FR;Crown\n;SM;Study, large\n\n;;\n",
            "map_id\tprocedure\nFR\t Crown \nSM\tStudy, large",
        ] {
            assert_eq!(read(text).unwrap(), expected, "{text:?}");
        }
        assert_eq!(read("procedure,map_id\n111,222\nInsert,IN").unwrap().len(), 2);
    }

    #[test]
    fn every_fault_of_a_list_is_named_with_its_line() {
        let table: [(&str, &[&str]); 6] = [
            ("", &["1: has no header row with procedure and map_id"]),
            ("Crown,FR\n", &["1: has no header row with procedure and map_id"]),
            ("procedure,map_id\n", &["0: holds no procedure"]),
            ("procedure,map_id\n\"Crown,FR\n", &["2: holds a quotation mark that is not closed"]),
            (
                "procedure,map_id\nCrown,FR\n\nCrown,FR\nBridge\n,SM\n",
                &[
                    "4: procedure \"Crown\" stands in line 2 already",
                    "5: map_id is missing",
                    "6: procedure is missing",
                ],
            ),
            (
                "sep=,\nprocedure,map_id\nCrown,<MapID>\nchangeme,FR\n",
                &["3: map_id \"<MapID>\" is a placeholder", "4: procedure \"changeme\" is a placeholder"],
            ),
        ];
        for (text, faults) in table {
            assert_eq!(read(text).unwrap_err(), faults, "{text:?}");
        }
    }
}
