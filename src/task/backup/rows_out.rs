//! Writes the rows of one table as SQL for psql, or as CSV. The bytes of a dump are untrusted: all but a COPY into this table is refused,
//! and so are rows that PostgreSQL did not write, which psql may read in another way than we do.

use std::io::{self, Write};

use super::csv::{self, CsvRows};
use super::pg_dumps;
use super::script::{Script, Step};
use super::set::Set;
use super::tokens::{Statement, columns_of, copied_table};
use crate::base::units;
use crate::pg;
use crate::pg::copy_text::Written;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// COPY … FROM stdin with its rows, for psql
    Sql,
    /// PostgreSQL's CSV in the encoding of the dump, with a line of names
    Csv,
}

/// Takes the COPY statements of a table with their rows, in pieces of any size.
pub struct RowsOut {
    table: (String, String),
    script: Script,
    /// None for SQL.
    csv: Option<CsvRows>,
    format: Format,
    /// Of the first COPY.
    columns: Option<Vec<String>>,
    is_in_rows: bool,
    /// The table that COPY names, as in SQL; None: the one of the set.
    copied_as: Option<String>,
    written: Written,
    pub rows: u64,
    out: Box<dyn Write + Send>,
}

impl RowsOut {
    pub fn new(set: &Set, table: (String, String), format: Format, mut out: Box<dyn Write + Send>) -> io::Result<Self> {
        if format == Format::Sql {
            out.write_all(head(set, &table).as_bytes())?;
        }
        let script = Script::default();
        let written = Written::default();
        Ok(Self { table, script, csv: None, format, columns: None, is_in_rows: false, copied_as: None, written, rows: 0, out })
    }

    /// Has COPY name another table, given as in SQL.
    pub fn copied_as(self, table: Option<String>) -> Self {
        Self { copied_as: table, ..self }
    }

    pub fn feed(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut steps = Vec::new();
        self.script.feed(bytes, |step| steps.push(step))?;
        steps.into_iter().try_for_each(|step| self.step(step))
    }

    /// Returns an error unless these are as many rows as the manifest says, to their end.
    pub fn finish(mut self, rows: u64) -> io::Result<()> {
        if self.is_in_rows || self.rows != rows {
            let (found, written) = (units::plural(self.rows, "row"), units::count(rows));
            return Err(io::Error::other(format!("the set holds {found} of the table, and its manifest says {written}")));
        }
        self.out.flush()
    }

    fn step(&mut self, step: Step) -> io::Result<()> {
        match step {
            Step::Copy { text, .. } => self.copy(&text),
            Step::Rows(rows) => {
                self.written.feed(&rows)?;
                self.rows += memchr::memchr_iter(b'\n', &rows).count() as u64;
                match &mut self.csv {
                    Some(csv) => csv.feed(&rows, &mut self.out),
                    None => self.out.write_all(&rows),
                }
            }
            Step::RowsEnd => {
                // The line `\.` is not a row.
                self.rows = self.rows.saturating_sub(1);
                self.is_in_rows = false;
                Ok(())
            }
            Step::Statement { .. } => Err(not_of_the_table()),
        }
    }

    fn copy(&mut self, text: &[u8]) -> io::Result<()> {
        let statement = String::from_utf8_lossy(text);
        if copied_table(text).as_ref() != Some(&self.table) || !pg_dumps::copies(&statement) {
            return Err(not_of_the_table());
        }
        let columns = columns_of(&statement);
        let is_first = self.columns.is_none();
        if *self.columns.get_or_insert_with(|| columns.clone()) != columns {
            return Err(io::Error::other("two COPY statements of the table have different columns"));
        }
        self.is_in_rows = true;
        self.written = Written::default();
        match self.format {
            Format::Sql => {
                match &self.copied_as {
                    Some(table) => self.out.write_all(with_table(&statement, table).as_bytes())?,
                    None => self.out.write_all(text)?,
                }
                self.out.write_all(b";\n")
            }
            Format::Csv => {
                self.csv = Some(CsvRows::new(columns.len()));
                if is_first { self.out.write_all(&csv::header(&columns)) } else { Ok(()) }
            }
        }
    }
}

fn not_of_the_table() -> io::Error {
    io::Error::other("where the manifest says that the rows of the table are, the dump holds something else")
}

/// The settings that the rows were written for.
fn head(set: &Set, (schema, name): &(String, String)) -> String {
    let encoding = set.manifest.text_encoding();
    format!(
        "{}\n\nSET client_encoding = '{encoding}';\nSET xmloption = content;\nSET row_security = off;\nSELECT pg_catalog.set_config('search_path', '', false);\n\n",
        pg::comment(&format!("Rows of {schema}.{name} in the set {}", set.name))
    )
}

/// `COPY s.t (a) FROM stdin` with another table in place of `s.t`.
fn with_table(copy: &str, table: &str) -> String {
    let statement = Statement::of(copy);
    let rest =
        statement.qualified(1).and_then(|(_, _, after)| statement.tokens.get(after)).map_or(copy.len(), |token| token.at.start);
    format!("COPY {table} {}", &copy[rest..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_names_another_table() {
        for (copy, expected) in [
            ("COPY public.t (a, \"b \"\" c\") FROM stdin", "COPY \"s\".\"x\" (a, \"b \"\" c\") FROM stdin"),
            ("COPY \"S ( x\".\"t (\" (\"(\") FROM stdin", "COPY \"s\".\"x\" (\"(\") FROM stdin"),
            ("COPY public.t  FROM stdin", "COPY \"s\".\"x\" FROM stdin"),
        ] {
            assert_eq!(with_table(copy, "\"s\".\"x\""), expected);
        }
    }
}
