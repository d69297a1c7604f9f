//! Writes data and tables to stdout.

use std::borrow::Cow;
use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use serde::Serialize;

use super::table;
use crate::base::terminal;

/// Something was written to stdout.
static HAS_PRINTED: AtomicBool = AtomicBool::new(false);

/// Returns whether this command has written anything to stdout.
pub fn has_printed() -> bool {
    HAS_PRINTED.load(Ordering::Relaxed)
}

/// Writes data to stdout, with control characters made visible. A reader that has gone (`pgtend jobs | head -1`) is not an error.
pub fn print(text: &str) -> Result<()> {
    HAS_PRINTED.store(true, Ordering::Relaxed);
    let text = terminal::visible(text);
    let text = if is_coloured(&std::io::stdout()) { Cow::Owned(coloured(&text)) } else { text };
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Writes a document to stdout as JSON.
pub fn print_json(document: &impl Serialize) -> Result<()> {
    print(&format!("{:#}\n", serde_json::to_value(document)?))
}

/// Formats columns under headers, fitted to the terminal.
pub fn table(headers: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    table::fitted(headers, &rows.collect::<Vec<_>>(), terminal_width())
}

/// Returns whether stderr gets colour: on a terminal, unless NO_COLOR is set.
pub fn colour() -> bool {
    is_coloured(&std::io::stderr())
}

fn is_coloured(stream: &impl std::io::IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const GREEN: &str = "\x1b[32m";
const PLAIN: &str = "\x1b[0m";

/// Colours the words for how something is, where they stand alone between two blanks, as in a table. No more than a colour comes of what others write.
fn coloured(text: &str) -> String {
    let of_line = |line: &str| line.split("  ").map(coloured_cell).collect::<Vec<_>>().join("  ");
    text.split('\n').map(of_line).collect::<Vec<_>>().join("\n")
}

fn coloured_cell(cell: &str) -> String {
    let word = cell.trim();
    let colour = match word {
        "FAILED" | "MISTAKE" | "failed" | "timed out" | "crashed" | "damaged" => RED,
        "WARNING" | "skipped" | "cancelled" => YELLOW,
        "ok" | "succeeded" | "intact" => GREEN,
        _ => return cell.to_owned(),
    };
    cell.replacen(word, &format!("{colour}{word}{PLAIN}"), 1)
}

fn terminal_width() -> Option<u16> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|size| size.ws_col).filter(|width| *width > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_how_something_is_get_a_colour_where_they_stand_alone() {
        let table = " FAILED  database app  it failed\n ok      store local\n";
        let expected = " \x1b[31mFAILED\x1b[0m  database app  it failed\n \x1b[32mok\x1b[0m      store local\n";
        assert_eq!(coloured(table), expected);
        assert_eq!(coloured("{ \"state\": \"ok\" }\n"), "{ \"state\": \"ok\" }\n");
    }
}
