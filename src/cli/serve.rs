//! `serve`: configuration in, exit code out; everything between is `app`.

use std::path::Path;
use std::process::ExitCode;

use crate::app;

use super::EXIT_CONFIG;
use super::api::{self, Failure};

pub fn run(file: &Path) -> ExitCode {
    let config = match api::load(file) {
        Ok(config) => config,
        Err(Failure::Config(text) | Failure::Other(text)) => {
            eprintln!("{text}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match app::run_until_told_to_stop(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
