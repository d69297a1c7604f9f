//! Answers a shell that completes a command line, or parses one, calls, and turns the result into an exit code.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::expect_used, clippy::unwrap_used))]

use std::process::ExitCode;

use clap::Parser;
use pgtend::cli::{self, Arguments};

fn main() -> ExitCode {
    cli::answer_completions();
    match Arguments::try_parse() {
        Ok(arguments) => cli::run(arguments),
        Err(error) => cli::usage(&error),
    }
}
