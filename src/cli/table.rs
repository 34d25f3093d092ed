//! A table that fits its screen: the broadest columns are cut first, names never.

use super::screen::{Screen, bold, paint};

/// Columns that are never cut: what is in them is copied or compared, and part of it is of no use.
const NEVER_CUT: [&str; 11] =
    ["name", "account", "account id", "realm", "state", "event", "url", "entry", "result", "ok", "test"];

/// Columns that stay when even cutting leaves a table too broad.
const KEPT: [&str; 6] = ["name", "account", "state", "result", "ok", "test"];

const LEAST_CELL: usize = 8;

struct TableColumn<'a> {
    at: usize,
    heading: &'a str,
    width: usize,
}

pub(super) fn table(headings: &[&str], wide: &[&str], rows: &[Vec<String>], screen: Screen) -> String {
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
            .filter(|column| !NEVER_CUT.contains(&column.heading) && column.width > least(column))
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

/// What came from elsewhere must not move the cursor; what is not there is seen to be not there.
pub fn shown(cell: &str) -> String {
    if cell.is_empty() {
        return "-".to_owned();
    }
    cell.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

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
    fn what_is_not_there_is_a_dash() {
        let rows = rows(&[&["a", "", "x"]]);
        assert_eq!(table(&["n", "at", "url"], &[], &rows, screen(80)), "N  AT  URL\na  -   x\n");
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
}
