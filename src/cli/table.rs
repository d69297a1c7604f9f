//! Tables for people: as wide as they are, or folded to the width of a terminal.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width};

/// Tables of so few columns are wrapped within these: the last is prose.
const FEW_COLUMNS: usize = 4;

/// No column is made narrower than this many letters.
const LEAST_WIDTH: usize = 8;

/// comfy-table's blanks at both sides of a cell.
const PADDING: usize = 2;

/// What stands below its row begins so.
const BELOW: &str = "    ";

/// Formats columns under headings, for a width if there is one. Where many columns do not fit, the last of them stands below its row, and long cells of the
/// others are wrapped.
pub fn fitted(headings: &[&str], rows: &[Vec<String>], width: Option<u16>) -> String {
    let widths: Vec<usize> = (0..headings.len()).map(|column| natural_width(headings[column], rows, column)).collect();
    let is_wider = |width: u16| widths.iter().map(|width| width + PADDING).sum::<usize>() > usize::from(width);
    match width {
        Some(width) if headings.len() > FEW_COLUMNS && is_wider(width) => folded(headings, rows, &widths, width),
        _ => plain(headings, rows, width),
    }
}

fn natural_width(heading: &str, rows: &[Vec<String>], column: usize) -> usize {
    let cells = rows.iter().filter_map(|row| row.get(column)).map(String::as_str);
    cells.chain([heading]).flat_map(str::lines).map(|line| line.chars().count()).max().unwrap_or_default()
}

fn plain(headings: &[&str], rows: &[Vec<String>], width: Option<u16>) -> String {
    let mut table = new();
    table.set_header(headings.to_vec());
    if let Some(width) = width {
        table.set_width(width);
    }
    table.add_rows(rows.iter().cloned());
    text_of(&table)
}

fn folded(headings: &[&str], rows: &[Vec<String>], widths: &[usize], width: u16) -> String {
    let last = headings.len() - 1;
    let widths = narrowed(widths[..last].to_vec(), usize::from(width).saturating_sub(last * PADDING));
    let headings: Vec<String> = headings.iter().map(|heading| (*heading).to_owned()).collect();
    let mut text = String::new();
    for row in [&headings].into_iter().chain(rows) {
        text += &in_columns(&row[..last.min(row.len())], &widths);
        text += &below(row.get(last).map_or("", String::as_str), width);
    }
    text
}

/// Takes from the widest columns until all fit, or none can give more.
fn narrowed(mut widths: Vec<usize>, all: usize) -> Vec<usize> {
    while widths.iter().sum::<usize>() > all {
        match widths.iter_mut().max() {
            Some(widest) if *widest > LEAST_WIDTH => *widest -= 1,
            _ => break,
        }
    }
    widths
}

/// One row, which may need several lines.
fn in_columns(cells: &[String], widths: &[usize]) -> String {
    let mut table = new();
    table.add_row(cells.to_vec());
    let fixed = |width: &usize| ColumnConstraint::Absolute(Width::Fixed(u16::try_from(width + PADDING).unwrap_or(u16::MAX)));
    table.set_constraints(widths.iter().map(fixed));
    text_of(&table)
}

fn below(cell: &str, width: u16) -> String {
    if cell.is_empty() {
        return String::new();
    }
    let mut table = new();
    table.set_width(width.saturating_sub(BELOW.len() as u16)).add_row([cell]);
    text_of(&table).lines().map(|line| format!("{BELOW}{}\n", line.trim_start())).collect()
}

fn new() -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table
}

fn text_of(table: &Table) -> String {
    table.trim_fmt().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADINGS: [&str; 6] = ["RUN", "JOB", "STARTED", "TRIGGER", "OUTCOME", "WHAT"];

    fn rows() -> Vec<Vec<String>> {
        let row =
            |what: &str| ["17", "backup-nightly-of-all", "2026-11-23 21:50:15 UTC", "manual", "failed", what].map(str::to_owned);
        vec![
            row("pg_dump exited with 1: connection to the server at \"10.0.0.1\", port 5432 was lost").to_vec(),
            row("").to_vec(),
        ]
    }

    #[test]
    fn a_table_that_does_not_fit_has_its_last_column_below_and_breaks_no_word() {
        for width in [80, 60] {
            let text = fitted(&HEADINGS, &rows(), Some(width));
            assert!(text.lines().all(|line| line.chars().count() <= usize::from(width)), "{width}:\n{text}");
            for word in ["21:50:15", "manual", "OUTCOME", "connection", "5432", "10.0.0.1"] {
                assert!(text.contains(word), "{word} at {width}:\n{text}");
            }
            assert!(text.contains("\n    pg_dump exited with 1:") && text.contains("\n    WHAT\n"), "{text}");
        }
    }

    #[test]
    fn a_table_that_fits_or_is_not_for_a_terminal_has_a_line_for_each_row() {
        for width in [None, Some(200)] {
            assert_eq!(fitted(&HEADINGS, &rows(), width).lines().count(), 3);
        }
    }
}
