//! Small text files: secrets, keys, tokens, PEM. Read by one reader, so that a file that an editor or a
//! script left slightly different means the same everywhere, and one that cannot be meant is named. No
//! message ever holds what was read.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// A key or token is one line, a chain of certificates a few KiB; anything beyond is the wrong file.
pub const LARGEST_SECRET: u64 = 64 * 1024;
/// The bundle of all public authorities has a quarter of this.
pub const LARGEST_PEM: u64 = 1024 * 1024;

const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

/// What is wrong with a file's content, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextError {
    /// Follows the file's name: `is empty`.
    pub what: String,
    pub fix: &'static str,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.fix)
    }
}

impl std::error::Error for TextError {}

fn error(what: impl Into<String>, fix: &'static str) -> TextError {
    TextError { what: what.into(), fix }
}

/// The bytes of an open file, `largest` at most: what is larger is refused and never cut.
pub fn read(file: File, largest: u64) -> Result<Vec<u8>, TextError> {
    let unreadable = |fault: io::Error| error(format!("cannot be read ({fault})"), "name a readable file");
    if file.metadata().map_err(unreadable)?.is_dir() {
        return Err(error("is a folder", "name the file in it"));
    }
    let mut bytes = Vec::new();
    file.take(largest + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > largest {
        return Err(error(format!("is larger than {} KiB", largest / 1024), "name the right file"));
    }
    Ok(bytes)
}

/// Opens and reads a file; `NotFound` and the like have the same form.
pub fn read_path(path: &Path, largest: u64) -> Result<Vec<u8>, TextError> {
    let opened = File::open(path);
    let file = opened.map_err(|fault| {
        error(format!("cannot be read ({fault})"), "name a file that the gateway's user can read")
    })?;
    read(file, largest)
}

/// The text of some bytes without the mark that Windows editors set before it.
pub fn decode(bytes: &[u8]) -> Result<&str, TextError> {
    const FIX: &str = "save it as UTF-8 or ASCII (PowerShell: Set-Content -Encoding ascii)";
    let marked = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    // Without a mark: one byte of each pair is zero, as in all ASCII that was written as UTF-16.
    let zero = |at: usize| bytes.len() > 1 && bytes.iter().skip(at).step_by(2).all(|byte| *byte == 0);
    if marked || zero(0) || zero(1) {
        return Err(error("is UTF-16 text", FIX));
    }
    if bytes.contains(&0) {
        return Err(error("holds a NUL byte", "store it as plain text"));
    }
    let text = bytes.strip_prefix(UTF8_MARK).unwrap_or(bytes);
    std::str::from_utf8(text).map_err(|_| error("is not UTF-8 text", FIX))
}

/// The one line that a secret is. Blanks and line breaks around it are an editor's; those within are its own.
pub fn one_line(text: &str) -> Result<&str, TextError> {
    // The mark and the zero-width blank are not white space to Unicode, and as invisible.
    let around = |letter: char| letter.is_whitespace() || matches!(letter, '\u{feff}' | '\u{200b}');
    let line = text.trim_matches(around);
    if line.is_empty() {
        return Err(error("is empty", "put the secret into it, or remove it"));
    }
    if line.contains(['\n', '\r']) {
        return Err(error("holds more than one line", "put the secret alone into it, on one line"));
    }
    match line.chars().find(|letter| letter.is_control() && *letter != '\t') {
        Some('\0') => Err(error("holds a NUL byte", "store it as plain text")),
        Some(other) => {
            let what = format!("holds a control character (U+{:04X})", u32::from(other));
            Err(error(what, "type the secret anew, on one line"))
        }
        None => Ok(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_blanks_and_line_breaks_around_a_secret_are_not_part_of_it() {
        for text in
            ["s3 cret", "\u{feff}s3 cret\r\n", "s3 cret \t\n\n", "  s3 cret\u{a0}", "\n s3 cret\u{200b}\r"]
        {
            assert_eq!(one_line(decode(text.as_bytes()).unwrap()).unwrap(), "s3 cret", "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_a_secret_is_named_and_never_shown() {
        let wide = |text: &str, order: fn(u16) -> [u8; 2]| -> Vec<u8> {
            text.encode_utf16().flat_map(order).collect()
        };
        let table: [(Vec<u8>, &str); 11] = [
            (Vec::new(), "is empty"),
            (b"\xef\xbb\xbf \r\n".to_vec(), "is empty"),
            (wide("\u{feff}canary", u16::to_le_bytes), "UTF-16"),
            (wide("\u{feff}canary", u16::to_be_bytes), "UTF-16"),
            (wide("canary\r\n", u16::to_le_bytes), "UTF-16"),
            (wide("canary", u16::to_be_bytes), "UTF-16"),
            (b"cana\0ry".to_vec(), "NUL"),
            (b"canary\0\n".to_vec(), "NUL"),
            (b"canary\n\nmore".to_vec(), "more than one line"),
            (b"canary\x1b[0m".to_vec(), "U+001B"),
            (b"canary\xe4".to_vec(), "not UTF-8"),
        ];
        for (bytes, what) in table {
            let refused = decode(&bytes).and_then(one_line).unwrap_err();
            assert!(refused.what.contains(what), "{refused}");
            assert!(!refused.to_string().contains("canary"), "{refused}");
        }
    }

    #[test]
    fn a_folder_and_a_large_file_are_named_and_nothing_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_path(folder.path(), 10).unwrap_err().what, "is a folder");
        let path = folder.path().join("large");
        std::fs::write(&path, vec![b'a'; 1025]).unwrap();
        assert_eq!(read_path(&path, 1024).unwrap_err().what, "is larger than 1 KiB");
        assert_eq!(read_path(&path, 1025).unwrap().len(), 1025);
        assert!(read_path(&folder.path().join("none"), 10).unwrap_err().what.contains("No such file"));
    }
}
