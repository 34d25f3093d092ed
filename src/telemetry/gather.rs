//! Standard error, a line at a time as a rule; many at once for whoever has many to say. A write per line is most of what a line costs.

use std::cell::RefCell;
use std::io::{self, Write};

thread_local! {
    // What this thread has said and not written, while it gathers. Others write as they speak.
    static GATHERED: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Beyond this much they are written before there are more.
const ENOUGH: usize = 256 * 1024;

/// Where log lines go.
#[derive(Default)]
pub struct Lines(());

/// What is logged on this thread meanwhile is written together.
pub fn gathered(speak: impl FnOnce()) {
    /// Also where `speak` panics: what was said is not lost.
    struct Writes;
    impl Drop for Writes {
        fn drop(&mut self) {
            if let Some(lines) = GATHERED.take() {
                // Nobody is left to be told.
                let _ = io::stderr().write_all(&lines);
            }
        }
    }
    GATHERED.set(Some(Vec::new()));
    let _writes = Writes;
    speak();
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        GATHERED.with_borrow_mut(|gathered| match gathered {
            None => io::stderr().write_all(line),
            Some(lines) => {
                lines.extend_from_slice(line);
                if lines.len() < ENOUGH {
                    return Ok(());
                }
                let written = io::stderr().write_all(lines);
                lines.clear();
                written
            }
        })?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting() -> Option<usize> {
        GATHERED.with_borrow(|gathered| gathered.as_ref().map(Vec::len))
    }

    #[test]
    fn lines_wait_for_each_other_only_while_they_are_gathered() {
        gathered(|| {
            for _ in 0..3 {
                Lines::default().write_all(b"\n").unwrap();
            }
            assert_eq!(waiting(), Some(3));
            Lines::default().write_all(b"\n").unwrap();
            assert_eq!(waiting(), Some(4));
        });
        assert_eq!(waiting(), None);
        assert!(std::panic::catch_unwind(|| gathered(|| panic!("as the test asked"))).is_err());
        assert_eq!(waiting(), None, "a panic does not leave a thread gathering");
    }
}
