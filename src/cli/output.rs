//! Writes data and tables to stdout.

use std::io::{ErrorKind, IsTerminal as _, Write as _};

use anyhow::Result;
use comfy_table::{ContentArrangement, Table};

use crate::base::terminal;

/// Writes data to stdout, with control characters made visible. A reader that has gone (`pgtend jobs | head -1`) is not an error.
pub fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(terminal::visible(text).as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Formats columns under headers, fitted to the terminal.
pub fn table(headers: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(headers.to_vec());
    if let Some(size) = terminal_width() {
        table.set_width(size);
    }
    table.add_rows(rows);
    table.trim_fmt().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Returns whether stderr gets colour: on a terminal, unless NO_COLOR is set.
pub fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn terminal_width() -> Option<u16> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|size| size.ws_col).filter(|width| *width > 0)
}
