//! Prints rows for people (a table), for programs (JSON) and for spreadsheets (CSV).

use std::io::Write;

use serde::Serialize;

use crate::clock::Timestamp;

use super::csv::{csv, csv_of_one};
pub use super::output_arguments::{Format, Style};
pub use super::screen::{Screen, brief};
pub use super::table::shown;
use super::table::table;

/// `1 account`, `2 accounts`.
pub fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Something that is a line of a table.
pub trait TableRow: Serialize {
    const HEADINGS: &'static [&'static str];
    /// Those of the headings that a table has with `--wide` alone.
    const WIDE: &'static [&'static str] = &[];

    fn cells(&self) -> Vec<String>;

    /// The cells of a table without `--wide`.
    fn brief(&self, _now: Timestamp) -> Vec<String> {
        self.cells()
    }
}

/// Prints all rows at once.
pub fn print<R: TableRow>(style: impl Into<Style>, rows: &[R]) {
    let style = style.into();
    let all = || rows.iter().map(TableRow::cells).collect::<Vec<_>>();
    let text = match style.format {
        Format::Table if style.wide => table(R::HEADINGS, &[], &all(), Screen::of(style)),
        Format::Table => {
            let screen = Screen::of(style);
            let rows: Vec<_> = rows.iter().map(|row| row.brief(screen.now)).collect();
            table(R::HEADINGS, R::WIDE, &rows, screen)
        }
        Format::Json => json(&rows),
        Format::Csv => csv(R::HEADINGS, &all()),
    };
    write(&text);
}

/// Prints one value: as the given text, as JSON, or as CSV of one row whose columns are the JSON's fields.
pub fn print_one<T: Serialize>(style: impl Into<Style>, value: &T, text: impl FnOnce() -> String) {
    match style.into().format {
        Format::Json => write(&json(value)),
        Format::Csv => write(&csv_of_one(value)),
        Format::Table => write(&text()),
    }
}

fn json<T: Serialize + ?Sized>(value: &T) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_else(|error| error.to_string());
    text.push('\n');
    text
}

/// What does not end a command, on standard error; a program that reads JSON gets it as JSON.
pub fn warn(format: Format, text: &str) {
    match format {
        Format::Json => print_error(&serde_json::json!({ "warning": text }).to_string()),
        Format::Table | Format::Csv => print_error(&format!("warning: {text}")),
    }
}

/// A line on standard error; where nobody reads it the exit code still tells.
pub fn print_error(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
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
