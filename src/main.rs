//! Words in, exit code out.

use std::process::ExitCode;

use genapi_gateway::cli;

fn main() -> ExitCode {
    cli::typed(std::env::args_os().collect())
}
