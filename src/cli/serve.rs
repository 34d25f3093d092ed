//! `serve`: configuration in, exit code out; everything between is `app`.

use std::path::Path;
use std::process::ExitCode;

use crate::app::{self, preflight};
use crate::clock::Clock;
use crate::config;
use crate::server::notify;
use crate::telemetry;

use super::EXIT_CONFIG;

pub fn run(file: &Path) -> ExitCode {
    if let Err(error) = notify::ignore_sighup() {
        telemetry::write_final_message(&format!("signals cannot be listened to: {error}"));
        return ExitCode::FAILURE;
    }
    let loaded = match preflight::load(file, &config::process_env, &Clock::system()) {
        Ok(loaded) => loaded,
        Err(problems) => {
            telemetry::write_final_message(&problems.to_string());
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match app::run_until_stopped(loaded) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::write_final_message(&format!("{error:#}"));
            // A supervisor tries again after 1 and leaves it after 78.
            if preflight::needs_operator(&error) { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}
