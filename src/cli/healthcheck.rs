//! `healthcheck`: whether the gateway of this configuration is alive, for containers that hold nothing but
//! this binary. It needs no token.

use std::path::Path;
use std::process::ExitCode;

use super::api::{self, CommandResult};
use super::output::say;

pub fn run(config: &Path) -> CommandResult {
    api::alive(config)?;
    say!("alive");
    Ok(ExitCode::SUCCESS)
}
