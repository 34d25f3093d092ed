//! Words in, exit code out.

use std::process::ExitCode;

use genapi_gateway::cli;

fn main() -> ExitCode {
    cli::run_command_line(std::env::args_os().collect())
}
