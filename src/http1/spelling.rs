//! The lines of a head as they were sent: letter case, blanks and all. `http` folds names, and old programs compare them as they stand.
//! A field that nobody has changed leaves as the line that it came as, in one copy.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::head::write_field;

/// The lines of one head.
#[derive(Clone, Default)]
pub struct Spelling {
    head: Bytes,
    lines: Vec<Line>,
}

#[derive(Clone, Copy)]
struct Line {
    /// Where it begins in the head. Heads are bounded far below 4 GiB.
    start: u32,
    /// Behind its CR LF.
    end: u32,
    name: u32,
}

impl Spelling {
    /// Of a head that nobody sent: every name in lower case.
    pub const fn none() -> Self {
        Self { head: Bytes::new(), lines: Vec::new() }
    }

    pub(super) fn new(head: Bytes) -> Self {
        Self { head, lines: Vec::with_capacity(16) }
    }

    /// A line from `start` to `end`, its CR LF included, that begins with a name of this length.
    pub(super) fn add(&mut self, start: usize, end: usize, name: usize) {
        self.lines.push(Line { start: start as u32, end: end as u32, name: name as u32 });
    }

    fn line(&self, line: &Line) -> &[u8] {
        &self.head[line.start as usize..line.end as usize]
    }

    fn name(&self, line: &Line) -> &[u8] {
        &self.line(line)[..line.name as usize]
    }

    /// The line from which a value was cut, looked for from `from` on: values are never copied, so its place in memory tells.
    fn line_of(&self, value: &HeaderValue, from: usize) -> Option<usize> {
        let place = (value.as_bytes().as_ptr() as usize).wrapping_sub(self.head.as_ptr() as usize);
        // An empty value could stand at the edge of two lines, or anywhere.
        if value.is_empty() || place >= self.head.len() {
            return None;
        }
        let holds = |line: &Line| (line.start as usize..line.end as usize).contains(&place);
        let (before, behind) = self.lines.split_at(from.min(self.lines.len()));
        match behind.iter().position(holds) {
            Some(at) => Some(from + at),
            None => before.iter().position(holds),
        }
    }

    fn line_named(&self, name: &HeaderName) -> Option<&Line> {
        let plain = name.as_str().as_bytes();
        self.lines
            .iter()
            .find(|line| line.name as usize == plain.len() && self.name(line).eq_ignore_ascii_case(plain))
    }
}

/// Writes fields as a head spelled them, fastest when they come in their order.
pub struct Speller<'a> {
    spelling: &'a Spelling,
    next: usize,
}

impl<'a> Speller<'a> {
    pub fn of(spelling: &'a Spelling) -> Self {
        Self { spelling, next: 0 }
    }

    /// A field of the head, or one whose value has been changed since.
    pub fn write(&mut self, out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
        match self.spelling.line_of(value, self.next) {
            Some(at) => {
                self.next = at + 1;
                out.extend_from_slice(self.spelling.line(&self.spelling.lines[at]));
            }
            None => self.write_new(out, name, value),
        }
    }

    /// A field of ours, under the name that the head used for it, if it did; in lower case else.
    pub fn write_new(&mut self, out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
        let spelled = self.spelling.line_named(name).map(|line| self.spelling.name(line));
        write_field(out, spelled.unwrap_or_else(|| name.as_str().as_bytes()), value.as_bytes());
    }
}

impl std::fmt::Debug for Spelling {
    /// Lines hold what no log may.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Spelling of {} fields", self.lines.len())
    }
}
