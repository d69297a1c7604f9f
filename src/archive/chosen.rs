//! Some of a batch's rows: all are set aside in a table, where the server says by the filters which go back; these go by the numbers of their
//! lines in the object.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use sqlx::{PgConnection, Row as _};

use super::filter::Filter;
use crate::pg;

/// The name of a temporary table for rows that are still to be filtered. No other table has it.
pub(super) const ASIDE: &str = "pg_temp.\"pgtend rows that come back\"";

/// Its column for the number of a row's line in the object, from 1.
const LINE: &str = "\"pgtend line\"";

/// Makes the table, which is gone after the transaction, with columns of `table`.
pub(super) async fn make_aside(connection: &mut PgConnection, table: &str, columns: &[String]) -> Result<()> {
    let names = columns.iter().map(|column| pg::identifier(column)).collect::<Vec<_>>().join(", ");
    for sql in [
        format!("CREATE TEMPORARY TABLE {ASIDE} ON COMMIT DROP AS SELECT {names} FROM {table} WITH NO DATA"),
        format!("ALTER TABLE {ASIDE} ADD COLUMN {LINE} bigint GENERATED ALWAYS AS IDENTITY"),
    ] {
        pg::execute_counting(connection, sql).await.map_err(pg::in_its_own_words)?;
    }
    Ok(())
}

/// Counts the rows of the batch that the table does not have, by the SQL of [`super::primary_key::same_key`].
pub(super) async fn still_missing(connection: &mut PgConnection, by_key: &str) -> Result<u64> {
    let sql = format!("SELECT pg_catalog.count(*)::pg_catalog.text FROM {ASIDE} aside WHERE NOT EXISTS ({by_key})");
    let count = pg::fetch_text(connection, sql).await?.unwrap_or_default();
    count.parse().context("the server returned no count of rows")
}

/// The lines that go back. One bit each: a batch may have a hundred million.
#[derive(Default)]
pub(super) struct Chosen {
    bits: Vec<u64>,
    count: u64,
    /// The lines that were fed before.
    fed: u64,
}

impl Chosen {
    /// Returns the rows of [`ASIDE`] that match the filter and none of the filters of rows that are back, and whose key, if that decides, the table
    /// does not have.
    pub async fn of_aside(connection: &mut PgConnection, filter: &Filter, back: &[Filter], by_key: Option<&str>) -> Result<Self> {
        let but = back.iter().map(|filter| format!(" AND NOT {}", filter.sql())).collect::<String>();
        let absent = by_key.map(|by_key| format!(" AND NOT EXISTS ({by_key})")).unwrap_or_default();
        let query = pg::query(format!("SELECT {LINE} FROM {ASIDE} aside WHERE {}{but}{absent}", filter.sql()));
        let mut lines = query.fetch(connection);
        let mut chosen = Self::default();
        while let Some(line) = lines.try_next().await.map_err(pg::in_its_own_words)? {
            chosen.add(u64::try_from(line.try_get::<i64, _>(0)?)?);
        }
        Ok(chosen)
    }

    /// Adds a line by its number, from 1. Each is added once.
    fn add(&mut self, number: u64) {
        let at = number.saturating_sub(1);
        let word = (at / 64) as usize;
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        self.bits[word] |= 1 << (at % 64);
        self.count += 1;
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    fn has(&self, at: u64) -> bool {
        self.bits.get((at / 64) as usize).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// Returns what belongs to chosen lines; a line may come in pieces.
    pub fn feed(&mut self, bytes: &[u8]) -> Bytes {
        let mut chosen = Vec::with_capacity(bytes.len());
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.has(self.fed) {
                chosen.extend_from_slice(piece);
            }
            self.fed += u64::from(piece.ends_with(b"\n"));
        }
        chosen.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_lines_pass_whatever_pieces_they_come_in() {
        let text: String = (1..=200).map(|number| format!("row {number}\n")).collect();
        let expected: String = [1, 2, 64, 65, 200].map(|number| format!("row {number}\n")).concat();
        for size in [1, 3, 7, 64, 10_000] {
            let mut chosen = Chosen::default();
            [1, 2, 64, 65, 200].into_iter().for_each(|number| chosen.add(number));
            let passed: Vec<u8> = text.as_bytes().chunks(size).flat_map(|piece| chosen.feed(piece)).collect();
            assert_eq!(String::from_utf8(passed).unwrap(), expected, "in pieces of {size}");
            assert_eq!(chosen.count(), 5);
        }
    }
}
