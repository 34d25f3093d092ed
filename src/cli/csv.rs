//! Rows and single values as CSV (RFC 4180) that a spreadsheet does not run.

use serde::Serialize;
use serde_json::Value;

pub(super) fn csv(headings: &[&str], rows: &[Vec<String>]) -> String {
    let headings: Vec<String> = headings.iter().map(|heading| heading.replace(' ', "_")).collect();
    let row =
        |cells: &Vec<String>| cells.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(",") + "\r\n";
    std::iter::once(&headings).chain(rows).map(row).collect()
}

pub(super) fn csv_of_one<T: Serialize>(value: &T) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    let (mut headings, mut cells) = (Vec::new(), Vec::new());
    flatten("", &value, &mut headings, &mut cells);
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    csv(&headings, &[cells])
}

/// Fields of a field get both names; of a list, its texts stand in one cell.
fn flatten(name: &str, value: &Value, headings: &mut Vec<String>, cells: &mut Vec<String>) {
    if let Value::Object(fields) = value {
        for (key, value) in fields {
            let name = if name.is_empty() { key.clone() } else { format!("{name}_{key}") };
            flatten(&name, value, headings, cells);
        }
        return;
    }
    headings.push(name.to_owned());
    cells.push(match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let texts =
                items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned));
            texts.collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    });
}

/// RFC 4180; a leading `=`, `+`, `-` or `@` is defused, since spreadsheets would run it.
fn quoted(cell: &str) -> String {
    let cell =
        if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{cell}") } else { cell.to_owned() };
    if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(cells: &[&[&str]]) -> Vec<Vec<String>> {
        cells.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect()
    }

    #[test]
    fn what_is_not_there_is_nothing() {
        let rows = rows(&[&["a", "", "x"]]);
        assert_eq!(csv(&["n", "at", "url"], &rows), "n,at,url\r\na,,x\r\n");
    }

    #[test]
    fn csv_quotes_and_defuses() {
        let rows = rows(&[&["a,b", "say \"hi\"", "=1+1"]]);
        assert_eq!(
            csv(&["one", "two", "account id"], &rows),
            "one,two,account_id\r\n\"a,b\",\"say \"\"hi\"\"\",'=1+1\r\n"
        );
    }

    #[test]
    fn one_value_is_a_row_of_its_fields() {
        let value = serde_json::json!({"a": 1, "b": {"c": null, "d": "x,y"}, "e": ["p", 2]});
        assert_eq!(csv_of_one(&value), "a,b_c,b_d,e\r\n1,,\"x,y\",p; 2\r\n");
    }
}
