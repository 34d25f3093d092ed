//! What `serve` says when it has come up.

use std::io::{BufRead, BufReader};
use std::process::Child;

use serde_json::Value;

/// Waits for the line that tells the addresses; standard error has to be
/// a pipe. Panics with all that was said instead.
pub fn until_ready(child: &mut Child) -> Value {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut seen = Vec::new();
    let ready = loop {
        let Some(Ok(line)) = lines.next() else { panic!("it did not start:\n{}", seen.join("\n")) };
        if line.contains("\"message\":\"ready\"") {
            break serde_json::from_str(&line).unwrap();
        } else {
            seen.push(line)
        }
    };
    // A full pipe would stop it.
    std::thread::spawn(move || lines.for_each(drop));
    ready
}
