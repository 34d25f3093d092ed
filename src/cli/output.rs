//! Rows for people (a table), for programs (JSON) and for spreadsheets (CSV). A table fits its terminal, or
//! 80 columns where there is none; names are never cut.

use std::io::{IsTerminal, Write};

use serde::Serialize;
use serde_json::Value;

use crate::clock::{Clock, Timestamp};

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

/// How a command prints what it was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    pub format: Format,
    /// Every column, times in full, nothing cut.
    pub wide: bool,
}

impl From<Format> for Style {
    fn from(format: Format) -> Self {
        Self { format, wide: false }
    }
}

/// Where a table is printed.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// Columns of a table; `None` where it may be as broad as it gets.
    pub width: Option<usize>,
    /// Columns of sentences. Where no terminal is, somebody searches in them: there a line is not broken.
    pub prose: Option<usize>,
    pub colour: bool,
    pub now: Timestamp,
}

/// What is assumed where the output is no terminal.
const USUAL_WIDTH: usize = 80;
/// Narrower ones get tables of this width, which wrap.
const LEAST_WIDTH: usize = 40;

impl Screen {
    /// Standard output as it is.
    pub fn of(style: Style) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let measured = terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| width.0.into());
        let width = measured.unwrap_or(USUAL_WIDTH).max(LEAST_WIDTH);
        Self {
            width: (!style.wide).then_some(width),
            prose: (terminal && !style.wide).then_some(width),
            colour: terminal && wants_colour(|name| std::env::var(name).ok()),
            now: Clock::system().now(),
        }
    }

    /// A moment in few characters, or in full where there is room for it.
    pub fn moment(&self, at: Option<Timestamp>) -> String {
        match at {
            None => "-".to_owned(),
            Some(at) if self.width.is_none() => at.to_string(),
            Some(at) => brief(at, self.now),
        }
    }

    /// A word in the colour that says how good it is.
    pub fn tone(&self, word: &str) -> String {
        paint(word, word, self.colour)
    }

    /// Text from the given column on, broken between words; what follows in further lines begins there too.
    pub fn wrapped(&self, indent: usize, text: &str) -> String {
        self.hanging(indent, indent, text)
    }

    /// The same for text that begins further to the right than its further lines.
    pub fn hanging(&self, begins_at: usize, indent: usize, text: &str) -> String {
        let Some(width) = self.prose else { return text.to_owned() };
        let (mut lines, mut column, mut is_first) = (String::new(), begins_at, true);
        for word in words(text) {
            let length = word.chars().count();
            let gap = usize::from(!is_first);
            if column + gap + length > width && column > indent {
                lines.push('\n');
                lines.push_str(&" ".repeat(indent));
                column = indent;
            } else if !is_first {
                lines.push(' ');
                column += 1;
            }
            lines.push_str(word);
            column += length;
            is_first = false;
        }
        lines
    }
}

/// Commands stand between backticks and are copied, so each is one word.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut in_command = false;
    let parts = text.split(move |c: char| {
        in_command ^= c == '`';
        c == ' ' && !in_command
    });
    parts.filter(|word| !word.is_empty())
}

/// <https://no-color.org>: any value but an empty one.
fn wants_colour(variable: impl Fn(&str) -> Option<String>) -> bool {
    variable("NO_COLOR").is_none_or(|value| value.is_empty())
        && variable("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// `in 58 min`, `3 h ago`: what is asked of a moment in a table is how far away it is.
pub fn brief(at: Timestamp, now: Timestamp) -> String {
    let (ahead, apart) = if at > now { (true, at.since(now)) } else { (false, now.since(at)) };
    // To the nearest: a link of seven days that was made a second ago ends in seven.
    let (seconds, minutes) = (apart.as_secs(), (apart.as_secs() + 30) / 60);
    let distance = match seconds {
        0 => return "now".to_owned(),
        1..60 => format!("{seconds} s"),
        60..7200 => format!("{minutes} min"),
        7200..172_800 => format!("{} h", (minutes + 30) / 60),
        _ => format!("{} days", (minutes + 720) / 1440),
    };
    if ahead { format!("in {distance}") } else { format!("{distance} ago") }
}

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

/// Columns that are never cut: what is in them is copied or compared, and part of it is of no use.
const WHOLE: [&str; 10] =
    ["name", "account", "account id", "realm", "state", "event", "url", "entry", "result", "ok"];
/// Columns that stay when even cutting leaves a table too broad.
const KEPT: [&str; 5] = ["name", "account", "state", "result", "ok"];
const LEAST_CELL: usize = 8;

struct TableColumn<'a> {
    at: usize,
    heading: &'a str,
    width: usize,
}

fn table(headings: &[&str], wide: &[&str], rows: &[Vec<String>], screen: Screen) -> String {
    let visible = headings.iter().enumerate().filter(|(_, heading)| !wide.contains(*heading));
    let mut columns: Vec<TableColumn> = visible
        .map(|(at, heading)| {
            let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| shown(cell).chars().count());
            TableColumn { at, heading, width: cells.chain([heading.len()]).max().unwrap_or(0) }
        })
        .collect();
    if let Some(limit) = screen.width {
        fit(&mut columns, limit);
    }
    let heads: Vec<String> = headings.iter().map(|heading| heading.to_uppercase()).collect();
    let mut text = line(&heads, &columns, |_, padded, _| bold(padded, screen.colour));
    for row in rows {
        text.push_str(&line(row, &columns, |heading, padded, word| match heading {
            "state" | "result" | "ok" | "level" => paint(padded, word, screen.colour),
            _ => padded.to_owned(),
        }));
    }
    text
}

/// Cuts the broadest columns first, then leaves columns out from the right.
fn fit(columns: &mut Vec<TableColumn<'_>>, limit: usize) {
    loop {
        let total: usize = columns.iter().map(|column| column.width + 2).sum::<usize>().saturating_sub(2);
        let Some(excess) = total.checked_sub(limit).filter(|excess| *excess > 0) else { return };
        let least = |column: &TableColumn<'_>| column.heading.len().max(LEAST_CELL);
        let cuttable = columns
            .iter_mut()
            .filter(|column| !WHOLE.contains(&column.heading) && column.width > least(column))
            .max_by_key(|column| column.width);
        if let Some(column) = cuttable {
            column.width = least(column).max(column.width.saturating_sub(excess));
            continue;
        }
        let Some(last) = columns.iter().rposition(|column| !KEPT.contains(&column.heading)) else { return };
        columns.remove(last);
    }
}

fn line(row: &[String], columns: &[TableColumn<'_>], dress: impl Fn(&str, &str, &str) -> String) -> String {
    let mut text = String::new();
    for (number, column) in columns.iter().enumerate() {
        let cell = shown(row.get(column.at).map_or("", String::as_str));
        let cut = cut(&cell, column.width);
        let is_last = number + 1 == columns.len();
        let padded = if is_last { cut.clone() } else { format!("{cut:width$}", width = column.width) };
        text.push_str(&dress(column.heading, &padded, &cell));
        if !is_last {
            text.push_str("  ");
        }
    }
    format!("{}\n", text.trim_end())
}

/// At most so many characters; an ellipsis says that there is more.
fn cut(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    cell.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// ECMA-48 SGR, by what the word means.
fn paint(text: &str, word: &str, colour: bool) -> String {
    let code = match word {
        "ready" | "ok" | "true" | "done" | "imported" | "replaced" => 32,
        "needs_login" | "failed" | "false" | "trouble" => 31,
        "paused" | "note" | "kept" => 33,
        _ => return text.to_owned(),
    };
    if colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

fn bold(text: &str, colour: bool) -> String {
    if colour { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// What came from elsewhere must not move the cursor; what is not there is seen to be not there.
pub fn shown(cell: &str) -> String {
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

fn csv_of_one<T: Serialize>(value: &T) -> String {
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

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn screen(width: usize) -> Screen {
        Screen { width: Some(width), prose: Some(width), colour: false, now: NOW }
    }

    fn rows(cells: &[&[&str]]) -> Vec<Vec<String>> {
        cells.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect()
    }

    #[test]
    fn columns_line_up_and_control_characters_do_not_reach_the_terminal() {
        let rows = rows(&[&["a", "\u{1b}[2J"], &["longer", "x"]]);
        let text = table(&["name", "state"], &[], &rows, screen(80));
        assert_eq!(text, "NAME    STATE\na       \u{fffd}[2J\nlonger  x\n");
    }

    #[test]
    fn what_is_not_there_is_a_dash_in_a_table_and_nothing_in_csv() {
        let rows = rows(&[&["a", "", "x"]]);
        assert_eq!(table(&["n", "at", "url"], &[], &rows, screen(80)), "N  AT  URL\na  -   x\n");
        assert_eq!(csv(&["n", "at", "url"], &rows), "n,at,url\r\na,,x\r\n");
    }

    #[test]
    fn a_table_is_no_broader_than_its_screen_and_names_are_not_cut() {
        let name = "n".repeat(64);
        let long = "why ".repeat(40);
        let rows = rows(&[&[&name, "needs_login", &long, "2 days ago"], &["b", "ready", "", "now"]]);
        for width in [80, 100, 200] {
            let text = table(&["name", "state", "detail", "last call"], &[], &rows, screen(width));
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}: {text}");
            assert!(text.contains(&name) && text.contains("needs_login"), "{text}");
            assert_eq!(text.contains('…'), width > 80, "what cannot be told in eight characters is left out");
        }
        let unlimited = Screen { width: None, ..screen(0) };
        let text = table(&["name", "state", "detail", "last call"], &[], &rows, unlimited);
        assert!(text.contains(long.trim_end()), "{text}");
    }

    #[test]
    fn columns_for_wide_tables_are_left_out_of_others() {
        let rows = rows(&[&["a", "https://somewhere"]]);
        assert_eq!(table(&["name", "route"], &["route"], &rows, screen(80)), "NAME\na\n");
    }

    #[test]
    fn colours_say_how_good_a_state_is_and_change_no_width() {
        let rows = rows(&[&["ready", "x"], &["needs_login", "y"]]);
        let dressed = table(&["state", "at"], &[], &rows, Screen { colour: true, ..screen(80) });
        assert!(dressed.contains("\u{1b}[32mready      \u{1b}[0m  x"), "{dressed:?}");
        let plain = dressed.split('\u{1b}').map(|part| part.split_once('m').map_or(part, |(_, rest)| rest));
        assert_eq!(plain.collect::<String>(), table(&["state", "at"], &[], &rows, screen(80)));
    }

    #[test]
    fn no_color_and_a_dumb_terminal_are_obeyed() {
        let with = |name: &'static str, value: &'static str| {
            wants_colour(move |asked| (asked == name).then(|| value.to_owned()))
        };
        assert!(with("NO_COLOR", "") && with("TERM", "xterm"));
        assert!(!with("NO_COLOR", "1") && !with("TERM", "dumb"));
    }

    #[test]
    fn moments_are_told_by_their_distance() {
        let seconds = |seconds: u64| std::time::Duration::from_secs(seconds);
        for (away, ahead, ago) in [
            (0, "now", "now"),
            (45, "in 45 s", "45 s ago"),
            (3500, "in 58 min", "58 min ago"),
            (3 * 3600, "in 3 h", "3 h ago"),
            (90 * 86400, "in 90 days", "90 days ago"),
            (7 * 86400 - 1, "in 7 days", "7 days ago"),
        ] {
            assert_eq!(brief(NOW + seconds(away), NOW), ahead);
            assert_eq!(brief(NOW, NOW + seconds(away)), ago);
        }
    }

    #[test]
    fn text_is_broken_between_words_only() {
        let text = "one two three https://example.test/a/very/long/address/that/is/one/word four";
        let broken = screen(40).wrapped(4, text);
        assert_eq!(broken.split("\n    ").collect::<Vec<_>>().join(" "), text);
        let long = broken.lines().filter(|line| line.chars().count() > 40).count();
        assert_eq!(long, 1, "an address stays whole: {broken}");
        assert_eq!(screen(40).hanging(30, 8, "enough for a line"), "enough for\n        a line");
        assert_eq!(Screen { prose: None, ..screen(0) }.wrapped(4, text), text);
        let command = "Type `genapi-gateway accounts list` and look.";
        assert_eq!(
            screen(40).wrapped(8, command),
            "Type\n        `genapi-gateway accounts list`\n        and look."
        );
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
