//! Takes the fields that V2 adds to orders out of a JSON text that comes in chunks. Every other byte passes
//! in its order; a field goes with one of the commas beside it.

use memchr::{memchr2, memchr3};

use super::json_text::is_string;

/// "V2 return body includes two more tags" (migration notice, "Gen API V1/V2 Endpoints Comparison").
const ADDED_IN_V2: [&str; 2] = ["ProcedureName", "ProcedureTypeName"];

/// No name that is looked for is longer, however it is escaped and whatever blanks stand around it.
const MOST_HELD: usize = 1024;

/// Removes members by their names, at whatever depth.
pub struct FieldStripper {
    state: StripState,
    /// What may be the beginning of such a member: the comma before it, blanks, its name.
    held: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StripState {
    /// Anywhere outside strings.
    Between,
    /// In a string that is no name that is looked for.
    InString {
        escaped: bool,
    },
    /// Behind `{`, or a comma that is held.
    BeforeName {
        first: bool,
    },
    InName {
        first: bool,
        begins: usize,
        escaped: bool,
    },
    /// A name that is looked for has ended; a colon makes a member of it.
    BehindName {
        first: bool,
    },
    /// In the value of a member that goes.
    Skipping {
        first: bool,
        value: SkippedValue,
    },
    /// Behind the first member of an object, which went: the comma behind it goes too.
    BehindSkipped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SkippedValue {
    NotBegun,
    Scalar,
    /// A string, or something with brackets around it.
    Bracketed {
        depth: usize,
        in_string: bool,
        escaped: bool,
    },
}

impl Default for FieldStripper {
    fn default() -> Self {
        Self { state: StripState::Between, held: Vec::new() }
    }
}

impl FieldStripper {
    /// Takes the next chunk, and puts behind `out` what is sure to stay.
    pub fn pass(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let mut rest = chunk;
        while !rest.is_empty() {
            let taken = self.step(rest, out);
            rest = &rest[taken..];
        }
    }

    /// The text is over: what was held is no member.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
    }

    /// Takes a byte at least, or changes the state.
    fn step(&mut self, rest: &[u8], out: &mut Vec<u8>) -> usize {
        match self.state {
            StripState::Between => self.between(rest, out),
            StripState::InString { escaped } => self.in_string(rest, escaped, out),
            StripState::BeforeName { first } => self.before_name(rest[0], first, out),
            StripState::InName { first, begins, escaped } => {
                self.in_name(rest[0], first, begins, escaped, out)
            }
            StripState::BehindName { first } => self.behind_name(rest[0], first, out),
            StripState::Skipping { first, value } => self.skip(rest[0], first, value),
            StripState::BehindSkipped => self.behind_skipped(rest[0]),
        }
    }

    fn between(&mut self, rest: &[u8], out: &mut Vec<u8>) -> usize {
        let Some(at) = memchr3(b'"', b'{', b',', rest) else {
            out.extend_from_slice(rest);
            return rest.len();
        };
        let (kept, state) = match rest[at] {
            b'"' => (at + 1, StripState::InString { escaped: false }),
            b'{' => (at + 1, StripState::BeforeName { first: true }),
            _ => (at, StripState::BeforeName { first: false }),
        };
        out.extend_from_slice(&rest[..kept]);
        self.held.extend_from_slice(&rest[kept..=at]);
        self.state = state;
        at + 1
    }

    fn in_string(&mut self, rest: &[u8], escaped: bool, out: &mut Vec<u8>) -> usize {
        if escaped {
            out.push(rest[0]);
            self.state = StripState::InString { escaped: false };
            return 1;
        }
        let Some(at) = memchr2(b'"', b'\\', rest) else {
            out.extend_from_slice(rest);
            return rest.len();
        };
        out.extend_from_slice(&rest[..=at]);
        self.state =
            if rest[at] == b'"' { StripState::Between } else { StripState::InString { escaped: true } };
        at + 1
    }

    fn before_name(&mut self, byte: u8, first: bool, out: &mut Vec<u8>) -> usize {
        match byte {
            b'"' => {
                self.hold(byte, StripState::InName { first, begins: self.held.len(), escaped: false }, out)
            }
            byte if byte.is_ascii_whitespace() => self.hold(byte, self.state, out),
            _ => self.release(StripState::Between, out),
        }
    }

    fn in_name(&mut self, byte: u8, first: bool, begins: usize, escaped: bool, out: &mut Vec<u8>) -> usize {
        if escaped || byte != b'"' {
            let escaped = !escaped && byte == b'\\';
            return self.hold(byte, StripState::InName { first, begins, escaped }, out);
        }
        self.held.push(byte);
        if ADDED_IN_V2.iter().any(|name| is_string(&self.held[begins..], name)) {
            self.state = StripState::BehindName { first };
        } else {
            self.release(StripState::Between, out);
        }
        1
    }

    fn behind_name(&mut self, byte: u8, first: bool, out: &mut Vec<u8>) -> usize {
        match byte {
            b':' => {
                self.held.clear();
                self.state = StripState::Skipping { first, value: SkippedValue::NotBegun };
                1
            }
            byte if byte.is_ascii_whitespace() => self.hold(byte, self.state, out),
            // A string in a list.
            _ => self.release(StripState::Between, out),
        }
    }

    fn skip(&mut self, byte: u8, first: bool, value: SkippedValue) -> usize {
        let over = if first { StripState::BehindSkipped } else { StripState::Between };
        let go_on = |value| StripState::Skipping { first, value };
        let (state, taken) = match (value, byte) {
            (SkippedValue::NotBegun, byte) if byte.is_ascii_whitespace() => (go_on(value), 1),
            (SkippedValue::NotBegun, b'"') => {
                (go_on(SkippedValue::Bracketed { depth: 0, in_string: true, escaped: false }), 1)
            }
            (SkippedValue::NotBegun, b'{' | b'[') => {
                (go_on(SkippedValue::Bracketed { depth: 1, in_string: false, escaped: false }), 1)
            }
            (SkippedValue::NotBegun | SkippedValue::Scalar, b',' | b'}' | b']') => (over, 0),
            (SkippedValue::NotBegun, _) => (go_on(SkippedValue::Scalar), 1),
            (SkippedValue::Scalar, byte) if byte.is_ascii_whitespace() => (over, 0),
            (SkippedValue::Scalar, _) => (go_on(value), 1),
            (SkippedValue::Bracketed { depth, in_string, escaped }, byte) => {
                let (depth, in_string, escaped) = match (in_string, escaped, byte) {
                    (true, true, _) => (depth, true, false),
                    (true, false, b'\\') => (depth, true, true),
                    (_, _, b'"') => (depth, !in_string, false),
                    (false, _, b'{' | b'[') => (depth + 1, false, false),
                    (false, _, b'}' | b']') => (depth - 1, false, false),
                    _ => (depth, in_string, false),
                };
                let ended = depth == 0 && !in_string;
                (if ended { over } else { go_on(SkippedValue::Bracketed { depth, in_string, escaped }) }, 1)
            }
        };
        self.state = state;
        taken
    }

    fn behind_skipped(&mut self, byte: u8) -> usize {
        match byte {
            b',' => self.state = StripState::BeforeName { first: true },
            byte if byte.is_ascii_whitespace() => {}
            _ => {
                self.state = StripState::Between;
                return 0;
            }
        }
        1
    }

    /// Keeps a byte back, unless that is more than any member needs.
    fn hold(&mut self, byte: u8, state: StripState, out: &mut Vec<u8>) -> usize {
        self.held.push(byte);
        self.state = state;
        if self.held.len() > MOST_HELD {
            let state = match state {
                StripState::InName { escaped, .. } => StripState::InString { escaped },
                _ => StripState::Between,
            };
            self.release(state, out);
        }
        1
    }

    /// Lets what was held pass; the byte at hand is looked at again.
    fn release(&mut self, state: StripState, out: &mut Vec<u8>) -> usize {
        out.append(&mut self.held);
        self.state = state;
        0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stripped(text: &[u8], cuts: &[usize]) -> String {
        let (mut stripper, mut out, mut from) = (FieldStripper::default(), Vec::new(), 0);
        for cut in cuts.iter().copied().chain([text.len()]) {
            stripper.pass(&text[from..cut], &mut out);
            from = cut;
        }
        stripper.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_two_fields_go_with_one_comma_wherever_the_text_is_cut() {
        for (v2, v1) in [
            (
                r#"[{"A": 1.50, "ProcedureName": "x, \"}", "ProcedureTypeName": "a\u002fb" , "B":[]}]"#,
                r#"[{"A": 1.50 , "B":[]}]"#,
            ),
            (r#"{ "ProcedureName":null , "ProcedureTypeName" : {"a":["}"]},"B":2}"#, r#"{"B":2}"#),
            (r#"{"ProcedureName":12}"#, "{}"),
            (r#"{"A":{"ProcedureName":true },"B":1}"#, r#"{"A":{},"B":1}"#),
            (r#"{"Proc\u0065dureName":"x","A":1}"#, r#"{"A":1}"#),
            (r#"{"A":1,"ProcedureName":-3.5}"#, r#"{"A":1}"#),
        ] {
            let expected: serde_json::Value = serde_json::from_str(v1).unwrap();
            for cut in 0..=v2.len() {
                let out = stripped(v2.as_bytes(), &[cut]);
                assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap(), expected, "{out}");
                assert_eq!(out, stripped(v2.as_bytes(), &[]), "{cut}");
            }
        }
        let text = r#"{"A": 1.50, "ProcedureName": "x" , "B" : [ 1 ]}"#;
        assert_eq!(stripped(text.as_bytes(), &[]), r#"{"A": 1.50 , "B" : [ 1 ]}"#);
    }

    #[test]
    fn nothing_else_is_touched() {
        let blanks = format!("{{\"A\":1,{}\"ProcedureName\":1}}", " ".repeat(2 * MOST_HELD));
        let long = format!("{{\"{}\\\"\":1}}", "x".repeat(2 * MOST_HELD));
        for text in [
            r#"["ProcedureName","ProcedureTypeName" ,"x"]"#,
            r#"{"procedureName":1,"ProcedureNames":2,"Procedure":"ProcedureName"}"#,
            r#"{"A":"\"ProcedureName\":1,","B":"{\"ProcedureName\":1}"}"#,
            r#"{"A":1,"ProcedureName"}"#,
            r#"{"A":1,"ProcedureNa"#,
            "<a>ProcedureName, \"ProcedureName\"</a>",
            "{ , {, , }",
            &blanks,
            &long,
        ] {
            assert_eq!(stripped(text.as_bytes(), &[]), text);
        }
    }

    proptest! {
        #[test]
        fn any_text_in_any_chunks_passes_as_if_it_came_in_one(
            parts in prop::collection::vec(prop::sample::select(vec![
                "{", "}", "[", "]", ",", ":", " ", "\"", "\\", "\"ProcedureName\"", "\"ProcedureTypeName\":", "1", "\"x\"",
            ]), 0..60),
            seeds in prop::collection::vec(0usize..4000, 0..6),
        ) {
            let text = parts.concat();
            let mut cuts: Vec<usize> = seeds.iter().map(|seed| seed % (text.len() + 1)).collect();
            cuts.sort_unstable();
            prop_assert_eq!(stripped(text.as_bytes(), &cuts), stripped(text.as_bytes(), &[]));
        }
    }
}
