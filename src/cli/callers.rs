//! `callers new-key`: the key goes to the application, its SHA-256 into the configuration.

use std::process::ExitCode;

use aws_lc_rs::digest;
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::config;

use super::api::{CliError, CommandResult};
use super::output::{self, Style};

/// What is printed once and kept nowhere.
#[derive(serde::Serialize)]
struct NewKey<'a> {
    name: &'a str,
    key: String,
    key_sha256: String,
}

/// Refuses the names that `check` would refuse.
pub fn new_key(name: &str, style: Style) -> CommandResult {
    if !config::is_caller_name(name) {
        return Err(CliError::other(format!(
            "{name:?} is not a name for a caller: {}",
            config::CALLER_NAME_RULE
        )));
    }
    let (key, key_sha256) =
        make_key().ok_or_else(|| CliError::other("no random numbers can be had from the system"))?;
    let made = NewKey { name, key, key_sha256 };
    output::print_one(style, &made, || {
        format!(
            "# The key, for the application alone. It is shown once and kept nowhere:\n{}\n\n# For the configuration:\n\
             [[callers]]\nname       = {name:?}\naccounts   = [\"…\"]   # names, patterns, or \"*\"\nkey_sha256 = \"{}\"\n",
            made.key, made.key_sha256
        )
    });
    Ok(ExitCode::SUCCESS)
}

/// A key of 256 bits and the hexadecimal SHA-256 of its text.
pub fn make_key() -> Option<(String, String)> {
    let mut bytes = [0u8; 32];
    rand::fill(&mut bytes).ok()?;
    let key = format!("gwk_{}", URL_SAFE_NO_PAD.encode(bytes));
    let hash = digest::digest(&digest::SHA256, key.as_bytes());
    Some((key, hex::encode(hash)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_differ_and_their_hash_is_that_of_the_printed_text() {
        let (key, sha256) = make_key().unwrap();
        assert_ne!(key, make_key().unwrap().0);
        let again = digest::digest(&digest::SHA256, key.as_bytes());
        let again = hex::encode(again);
        assert_eq!(sha256, again);
    }
}
