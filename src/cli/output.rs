//! Rows for people (a table), for programs (JSON) and for spreadsheets (CSV).

use std::io::Write;

use serde::Serialize;

/// `-o table|json|csv`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Table,
    Json,
    Csv,
}

impl Format {
    pub fn word(self) -> &'static str {
        match self {
            Format::Table => "table",
            Format::Json => "json",
            Format::Csv => "csv",
        }
    }
}

/// Something that is a line of a table.
pub trait Row: Serialize {
    const HEADINGS: &'static [&'static str];

    fn cells(&self) -> Vec<String>;
}

/// Prints all rows at once.
pub fn print<R: Row>(format: Format, rows: &[R]) {
    let text = match format {
        Format::Table => table(R::HEADINGS, &rows.iter().map(Row::cells).collect::<Vec<_>>()),
        Format::Json => json(&rows),
        Format::Csv => csv(R::HEADINGS, &rows.iter().map(Row::cells).collect::<Vec<_>>()),
    };
    write(&text);
}

/// Prints one value: as JSON where asked, else as the given text.
pub fn print_one<T: Serialize>(format: Format, value: &T, text: impl FnOnce() -> String) {
    match format {
        Format::Json => write(&json(value)),
        Format::Table | Format::Csv => write(&text()),
    }
}

fn json<T: Serialize + ?Sized>(value: &T) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_else(|error| error.to_string());
    text.push('\n');
    text
}

/// `println!` that a closed pipe does not turn into a panic.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::output::write(&format!("{}\n", format_args!($($text)*))) };
}
pub(crate) use say;

/// A closed pipe (`| head`) is no failure.
pub fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| shown(cell).chars().count());
        cells.chain([headings[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let headings: Vec<String> = headings.iter().map(|heading| heading.to_uppercase()).collect();
    std::iter::once(&headings).chain(rows).map(|row| line(row, &widths)).collect()
}

fn line(row: &[String], widths: &[usize]) -> String {
    let cells = row.iter().zip(widths).map(|(cell, width)| format!("{:width$}", shown(cell)));
    format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
}

/// What came from elsewhere must not move the cursor; what is not there is seen to be not there.
fn shown(cell: &str) -> String {
    if cell.is_empty() {
        return "-".to_owned();
    }
    cell.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn csv(headings: &[&str], rows: &[Vec<String>]) -> String {
    let headings: Vec<String> = headings.iter().map(|heading| heading.replace(' ', "_")).collect();
    let row =
        |cells: &Vec<String>| cells.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(",") + "\r\n";
    std::iter::once(&headings).chain(rows).map(row).collect()
}

/// RFC 4180; a leading `=`, `+`, `-` or `@` is defused, since spreadsheets would run it.
fn quoted(cell: &str) -> String {
    let cell = match cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{cell}"),
        false => cell.to_owned(),
    };
    match cell.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_control_characters_do_not_reach_the_terminal() {
        let rows = vec![vec!["a".into(), "\u{1b}[2J".into()], vec!["longer".into(), "x".into()]];
        assert_eq!(table(&["name", "state"], &rows), "NAME    STATE\na       \u{fffd}[2J\nlonger  x\n");
    }

    #[test]
    fn what_is_not_there_is_a_dash_in_a_table_and_nothing_in_csv() {
        let rows = vec![vec!["a".into(), String::new(), "x".into()]];
        assert_eq!(table(&["n", "at", "url"], &rows), "N  AT  URL\na  -   x\n");
        assert_eq!(csv(&["n", "at", "url"], &rows), "n,at,url\r\na,,x\r\n");
    }

    #[test]
    fn csv_quotes_and_defuses() {
        let rows = vec![vec!["a,b".into(), "say \"hi\"".into(), "=1+1".into()]];
        assert_eq!(
            csv(&["one", "two", "account id"], &rows),
            "one,two,account_id\r\n\"a,b\",\"say \"\"hi\"\"\",'=1+1\r\n"
        );
    }
}
