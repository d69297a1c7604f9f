//! What a command says that failed. With `--json` it also prints a document, unless it has printed one: stdout then holds exactly one, however it ends.

use std::process::ExitCode;

use super::global::Global;
use super::output::{self, print_json};
use super::outputs::common::{Error, Failure};
use crate::base::fault::Kind;
use crate::base::terminal::{self, say};
use crate::base::toml_file::Problems;
use crate::pg::failure;

/// The exit code for a command line that makes no sense (sysexits.h).
const USAGE: u8 = 64;

pub fn command(global: &Global, error: &anyhow::Error) -> ExitCode {
    let problems = error.downcast_ref::<Problems>();
    if global.json && !output::has_printed() {
        let kind = failure::kind_of(error).map_or("failed", Kind::name);
        let (message, hint) = (failure::in_a_line(error), hint(error));
        let error = Error { message: &message, kind, exit_code: failure::code(error), hint: hint.as_deref() };
        let _ = print_json(&Failure { error, problems: problems.map(Problems::mistakes).unwrap_or_default() });
    }
    match problems {
        Some(problems) => {
            // Its colours are escape sequences, and its text is from the user's own files.
            eprint!("{}", problems.render(output::colour()));
            say(&problems.to_string());
        }
        None => say(&format!("pgtend: {}", terminal::as_one_entry(&failure::in_a_line(error)))),
    }
    failure::exit_code(error)
}

/// Says what is wrong with a command line. `--help` and `--version` come this way, too, and are no mistakes.
pub fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if std::env::args_os().any(|argument| argument == "--json") {
        let said = error.render().to_string();
        let message = said.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let tip = said.lines().find_map(|line| line.trim_start().strip_prefix("tip: "));
        let hint = tip.unwrap_or("--help shows what is allowed, with examples");
        let error = Error { message, kind: "usage", exit_code: USAGE, hint: Some(hint) };
        let _ = print_json(&Failure { error, problems: Vec::new() });
    }
    let _ = error.print();
    ExitCode::from(USAGE)
}

/// Says what to do, where the message itself may not.
fn hint(error: &anyhow::Error) -> Option<String> {
    if let Some(Problems(problems)) = error.downcast_ref::<Problems>() {
        return match problems.as_slice() {
            [one] => one.hint.clone(),
            _ => Some("`pgtend check` shows each mistake at its place".to_owned()),
        };
    }
    let said = match failure::kind_of(error)? {
        Kind::Unreachable => "`pgtend doctor` says what does not answer, and what to do",
        Kind::Permission => "`pgtend grants` prints the SQL for a role that may do what the jobs do",
        _ => return None,
    };
    Some(said.to_owned())
}
