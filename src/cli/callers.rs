//! `callers new-key`: the key goes to the application, its SHA-256 into the configuration.

use std::process::ExitCode;

use aws_lc_rs::digest;
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::output::say;

pub fn new_key(name: &str) -> ExitCode {
    match make_key() {
        Some((key, sha256)) => {
            say!("# The key, for the application alone. It is shown once and kept nowhere:");
            say!("{key}");
            say!("");
            say!("# For the configuration:");
            say!("[[callers]]");
            say!("name       = {name:?}");
            say!("accounts   = [\"…\"]   # names, patterns, or \"*\"");
            say!("key_sha256 = \"{sha256}\"");
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("no random numbers can be had from the system");
            ExitCode::FAILURE
        }
    }
}

/// A key of 256 bits and the hexadecimal SHA-256 of its text.
pub fn make_key() -> Option<(String, String)> {
    let mut bytes = [0u8; 32];
    rand::fill(&mut bytes).ok()?;
    let key = format!("gwk_{}", URL_SAFE_NO_PAD.encode(bytes));
    let hash = digest::digest(&digest::SHA256, key.as_bytes());
    Some((key, hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_differ_and_their_hash_is_that_of_the_printed_text() {
        let (key, sha256) = make_key().unwrap();
        assert_ne!(key, make_key().unwrap().0);
        let again = digest::digest(&digest::SHA256, key.as_bytes());
        let again: String = again.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(sha256, again);
    }
}
