//! `serve`: configuration in, exit code out; everything between is `app`.

use std::path::Path;
use std::process::ExitCode;

use crate::app;
use crate::config;

use super::EXIT_CONFIG;

pub fn run(file: &Path) -> ExitCode {
    let loaded = match config::load(file, &config::process_env) {
        Ok(loaded) => loaded,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match app::run_until_told_to_stop(loaded) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
