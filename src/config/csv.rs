//! Reads CSV as programs and countries write it: RFC 4180, and what is written in its place. A row knows its
//! line, so that whoever reads it can name the place of a fault. What a cell means is the reader's business.

/// The separators that spreadsheets write, by country and program.
pub const SEPARATORS: [char; 3] = [',', ';', '\t'];

/// A row that holds something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvRow {
    /// Where it begins, from 1.
    pub line: usize,
    /// Without the blanks around them.
    pub cells: Vec<String>,
}

/// A quotation mark that is not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a quotation mark in line {line} is not closed")]
pub struct OpenQuoteError {
    pub line: usize,
}

/// The rows of a text: any line ending, blanks around cells. Blank lines, and lines of separators alone, as a
/// spreadsheet leaves them behind, are no rows. The first row is the header.
///
/// # Errors
/// A quotation mark that is not closed leaves no row to be trusted.
pub fn rows(text: &str, separator: char) -> Result<Vec<CsvRow>, OpenQuoteError> {
    let mut rows = Rows { line: 1, ..Rows::default() };
    let (mut line, mut opened_in) = (1, None);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, opened_in) {
            ('"', Some(_)) if letters.peek() == Some(&'"') => rows.cell.extend(letters.next()),
            ('"', Some(_)) => opened_in = None,
            ('"', None) if rows.cell.trim().is_empty() => {
                rows.cell.clear();
                opened_in = Some(line);
            }
            ('\n' | '\r', None) => rows.end_row(line + usize::from(letter == '\n')),
            (letter, None) if letter == separator => rows.end_cell(),
            (letter, _) => rows.cell.push(letter),
        }
        line += usize::from(letter == '\n');
    }
    if let Some(line) = opened_in {
        return Err(OpenQuoteError { line });
    }
    rows.end_row(line);
    Ok(rows.complete)
}

/// The text without the line for Excel that some programs write in front of the header row, and how many
/// lines that took.
pub fn without_separator_line(text: &str) -> (&str, usize) {
    let declared = text.lines().next().is_some_and(|line| line.to_ascii_lowercase().starts_with("sep="));
    if declared { (text.split_once('\n').map_or("", |(_, rest)| rest), 1) } else { (text, 0) }
}

#[derive(Default)]
struct Rows {
    complete: Vec<CsvRow>,
    /// Where the row that is being read began.
    line: usize,
    cells: Vec<String>,
    cell: String,
}

impl Rows {
    fn end_cell(&mut self) {
        self.cells.push(std::mem::take(&mut self.cell).trim().to_owned());
    }

    fn end_row(&mut self, next_line: usize) {
        self.end_cell();
        let (line, cells) = (self.line, std::mem::take(&mut self.cells));
        if cells.iter().any(|cell| !cell.is_empty()) {
            self.complete.push(CsvRow { line, cells });
        }
        self.line = next_line;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_knows_its_line_whatever_stands_between() {
        let read = rows("a;b\r\n\r\n;\r\n\"x\ny\";1\r2;\"say \"\"so\"\"\"", ';').unwrap();
        let expected: [(usize, [&str; 2]); 3] =
            [(1, ["a", "b"]), (4, ["x\ny", "1"]), (5, ["2", "say \"so\""])];
        let seen: Vec<_> = read.iter().map(|row| (row.line, row.cells.clone())).collect();
        assert_eq!(seen, expected.map(|(line, cells)| (line, cells.map(str::to_owned).to_vec())));
        assert_eq!(rows("a,b\n1,\"2\n", ','), Err(OpenQuoteError { line: 2 }));
        assert_eq!(without_separator_line("SEP=;\r\na;b"), ("a;b", 1));
    }
}
