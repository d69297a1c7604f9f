//! Parses, calls, and turns the result into an exit code.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = pgtend::cli::Arguments::parse();
    pgtend::cli::run(arguments)
}
