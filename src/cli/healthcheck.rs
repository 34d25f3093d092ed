//! `healthcheck`: whether the gateway of this configuration is alive, for containers that hold nothing but this binary. It needs no token.

use std::path::Path;
use std::process::ExitCode;

use super::EXIT_CONFIG;
use super::api::{self, Failure};
use super::output::say;

pub fn run(config: &Path) -> ExitCode {
    match api::alive(config) {
        Ok(()) => {
            say!("alive");
            ExitCode::SUCCESS
        }
        Err(Failure::Config(text)) => {
            eprintln!("{text}");
            ExitCode::from(EXIT_CONFIG)
        }
        Err(Failure::Other(text)) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
