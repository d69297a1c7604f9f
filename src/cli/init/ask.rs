//! Questions to a person at a terminal, on stderr; Enter takes the default.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::Result;

use crate::base::fault::{Fault, Kind};
use crate::base::terminal::{say, visible};

/// After so many answers that make no sense, the person wants something else.
const MOST_ATTEMPTS: u32 = 5;

/// Returns whether somebody is there to answer.
pub fn is_possible() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks until `parse` takes the answer.
pub fn question<T>(text: &str, default: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<T> {
    for _ in 0..MOST_ATTEMPTS {
        let mut stderr = std::io::stderr();
        write!(stderr, "{} [{}]: ", visible(text), visible(default))?;
        stderr.flush()?;
        let mut answer = String::new();
        if std::io::stdin().lock().read_line(&mut answer)? == 0 {
            break;
        }
        let answer = answer.trim();
        match parse(if answer.is_empty() { default } else { answer }) {
            Ok(answer) => return Ok(answer),
            Err(mistake) => say(&format!("  {mistake}")),
        }
    }
    Err(Fault::new(
        Kind::Configuration,
        "there was no answer, and nothing was written; give the answers as options (`pgtend init --help`)",
    )
    .into())
}

pub fn yes_or_no(text: &str, default: bool) -> Result<bool> {
    question(text, if default { "yes" } else { "no" }, |answer| match answer.to_lowercase().as_str() {
        "y" | "yes" => Ok(true),
        "n" | "no" => Ok(false),
        _ => Err("say yes or no".to_owned()),
    })
}
