//! The sums of the rows of a dump, as it streams into a restore: at its end the rows of the copy are compared with them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::own_bytes;
use super::row_sum::{RowLines, RowSum};
use super::tokens::columns_of;

/// The memory limit for names of tables and columns. Tables above it are only counted: 100,000 of ten columns are some 20 MiB.
const NAMES_BYTES_MOST: usize = 64 << 20;

/// The rows of one table, by all of its COPY blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfTable {
    pub sum: RowSum,
    /// The columns in the order of the blocks; None where not all blocks have the same.
    pub columns: Option<Vec<String>>,
}

/// The sums by schema and table. Whoever reads the dump fills them, and whoever restores it reads them: all clones are the same.
#[derive(Clone, Default)]
pub struct RowSums(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    tables: BTreeMap<(String, String), OfTable>,
    names_bytes: usize,
    /// The block that has begun.
    block: Option<Block>,
}

struct Block {
    table: (String, String),
    columns: Option<Vec<String>>,
    lines: RowLines,
}

impl RowSums {
    /// A block begins with this COPY statement.
    pub fn begin(&self, table: &(String, String), statement: &[u8]) {
        let statement = own_bytes::text(statement.to_vec());
        let columns = (!own_bytes::has_some(&statement)).then(|| columns_of(&statement));
        self.inner().block = Some(Block { table: table.clone(), columns, lines: RowLines::default() });
    }

    /// Takes rows of the block, with the line that ends them.
    pub fn feed(&self, bytes: &[u8]) {
        if let Some(block) = &mut self.inner().block {
            block.lines.feed(bytes);
        }
    }

    pub fn end(&self) {
        let mut inner = self.inner();
        let Some(Block { table, columns, lines }) = inner.block.take() else { return };
        let sum = lines.end();
        if let Some(of_table) = inner.tables.get_mut(&table) {
            of_table.sum.add(sum);
            if of_table.columns != columns {
                of_table.columns = None;
            }
            return;
        }
        let of_columns: usize = columns.iter().flatten().map(|column| size_of::<String>() + column.len()).sum();
        inner.names_bytes += size_of::<OfTable>() + table.0.len() + table.1.len() + of_columns;
        if inner.names_bytes <= NAMES_BYTES_MOST {
            inner.tables.insert(table, OfTable { sum, columns });
        }
    }

    /// None where the dump has no rows of that table, or too many tables.
    pub fn of(&self, table: &(String, String)) -> Option<OfTable> {
        self.inner().tables.get(table).cloned()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_a_table_are_summed_and_their_columns_are_kept_if_they_are_the_same() {
        let sums = RowSums::default();
        let table = |name: &str| ("s".to_owned(), name.to_owned());
        for (name, statement, rows) in [
            ("t", "COPY s.t (a, b) FROM stdin", "1\t2\n\\.\n"),
            ("other", "COPY s.other (a) FROM stdin", "1\n\\.\n"),
            ("t", "COPY s.t (a, b) FROM stdin", "3\t4\n5\t6\n\\.\n"),
            ("other", "COPY s.other (b) FROM stdin", "\\.\n"),
            ("none", "COPY s.none  FROM stdin", "\n\n\\.\n"),
        ] {
            sums.begin(&table(name), statement.as_bytes());
            sums.feed(&rows.as_bytes()[..1]);
            sums.feed(&rows.as_bytes()[1..]);
            sums.end();
        }
        let mut sum = RowSum::default();
        ["5\t6", "1\t2", "3\t4"].iter().for_each(|row| sum.add_row(row.as_bytes()));
        let of = |name| sums.of(&table(name)).unwrap();
        assert_eq!(of("t"), OfTable { sum, columns: Some(vec!["a".into(), "b".into()]) });
        assert_eq!((of("other").sum.rows, of("other").columns), (1, None));
        assert_eq!((of("none").sum.rows, of("none").columns), (2, Some(vec![])));
        assert_eq!(sums.of(&table("missing")), None);
    }
}
