//! Parses, calls, and turns the result into an exit code.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::expect_used, clippy::unwrap_used))]

use std::process::ExitCode;

use clap::Parser;
use pgtend::cli::{self, Arguments};

fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(arguments) => cli::run(arguments),
        Err(error) => {
            // --help and --version come this way, too, and are no mistakes. clap's own code for a mistake is 2.
            let code = if error.use_stderr() { 64 } else { 0 };
            let _ = error.print();
            ExitCode::from(code)
        }
    }
}
