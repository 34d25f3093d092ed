//! Where text is printed: how broad it may be, whether it has colours, and how moments read there.

use std::io::IsTerminal;

use crate::clock::{Clock, Timestamp};

use super::output_arguments::Style;

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

/// ECMA-48 SGR, by what the word means.
pub(super) fn paint(text: &str, word: &str, colour: bool) -> String {
    let code = match word {
        "ready" | "ok" | "true" | "done" | "imported" | "replaced" => 32,
        "needs_login" | "failed" | "false" | "trouble" => 31,
        "paused" | "note" | "kept" => 33,
        _ => return text.to_owned(),
    };
    if colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

pub(super) fn bold(text: &str, colour: bool) -> String {
    if colour { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn screen(width: usize) -> Screen {
        Screen { width: Some(width), prose: Some(width), colour: false, now: NOW }
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
}
