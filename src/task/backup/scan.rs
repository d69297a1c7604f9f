//! Reads a plain-format dump as it streams by: every COPY block's table and rows, the large objects, and the
//! trailer that only a complete dump has.
//!
//! In COPY text format one line is one row (newlines in values are escaped), so counting costs the server nothing, and the count is that of
//! the dump's own snapshot. The lexer tells a COPY block from text that only looks like one.

use memchr::{memchr, memchr_iter};
use serde::{Deserialize, Serialize};

use super::lex::{Event, Lexer};
use super::row_sum::{RowLines, RowsHash};

/// The COPY blocks of a table that follow one another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableData {
    pub schema: String,
    pub name: String,
    pub rows: u64,
    /// The position where the first block starts in the uncompressed dump, at `COPY`.
    pub offset: u64,
    /// The length from there to the end of the last block's line `\.`.
    pub bytes: u64,
    /// The number of blocks: several in a dump by several sessions, and of a table that pg_dump loads by the root of its partitions.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub copies: u64,
    /// The sum of the rows' hashes; None where it may not be told, as of an encrypted dump, and in sets of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_hash: Option<RowsHash>,
}

fn one() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_one(copies: &u64) -> bool {
    *copies == 1
}

impl TableData {
    /// Returns whether both say the same, but for the hash of the rows, which not every scanner makes.
    pub fn has_the_rows_of(&self, other: &Self) -> bool {
        let Self { schema, name, rows, offset, bytes, copies, rows_hash: _ } = self;
        (schema, name, rows, offset, bytes, copies)
            == (&other.schema, &other.name, &other.rows, &other.offset, &other.bytes, &other.copies)
    }

    fn is_of(&self, other: &Self) -> bool {
        (&self.schema, &self.name) == (&other.schema, &other.name)
    }
}

/// The tables of a manifest as a [`Scanner`] lists them. Up to format 2, each block stood by itself.
pub fn joined(tables: &[TableData]) -> Vec<TableData> {
    let mut joined: Vec<TableData> = Vec::new();
    for table in tables {
        match joined.last_mut().filter(|last| last.is_of(table)) {
            Some(last) => {
                last.rows = last.rows.saturating_add(table.rows);
                last.bytes = (table.offset + table.bytes).saturating_sub(last.offset);
                last.copies = last.copies.saturating_add(table.copies);
                last.rows_hash = last.rows_hash.zip(table.rows_hash).map(|(one, other)| one.plus(other));
            }
            None => joined.push(table.clone()),
        }
    }
    joined
}

/// The contents of a dump.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub bytes: u64,
    pub tables: Vec<TableData>,
    pub large_objects: u64,
    /// True if pg_dump's last line was seen, followed only by comments and psql's own commands.
    pub complete: bool,
    /// True if there was a zero byte. PostgreSQL writes none, and psql ends a line at it: such a dump is not complete.
    pub has_zero_byte: bool,
}

impl Contents {
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }
}

/// The memory limit for tables; a dump with more is not complete. The largest manifest that is read, 64 MiB, could not hold half of it.
const TABLES_BYTES_MOST: usize = 256 << 20;

const TRAILER: &[u8] = b" PostgreSQL database dump complete";

/// Takes all bytes in order, in pieces of any size; [`Scanner::finish`] ends it.
pub struct Scanner {
    lexer: Lexer,
    contents: Contents,
    statement_offset: u64,
    tables_bytes: usize,
    /// At most this many tables are kept.
    tables_most: usize,
    /// The rows of the block so far; None where rows are counted only.
    lines: Option<RowLines>,
}

impl Default for Scanner {
    fn default() -> Self {
        Self::of_at_most(usize::MAX)
    }
}

impl Scanner {
    /// A scanner for a dump that should hold fewer tables: it keeps no more than these.
    pub fn of_at_most(tables_most: usize) -> Self {
        let (lexer, contents) = (Lexer::keeping_starts(), Contents::default());
        Self { lexer, contents, statement_offset: 0, tables_bytes: 0, tables_most, lines: None }
    }

    /// A scanner that hashes rows, too.
    pub fn that_hashes() -> Self {
        Self { lines: Some(RowLines::default()), ..Self::default() }
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        self.contents.has_zero_byte |= memchr(0, bytes).is_some();
        let mut rest = bytes;
        while !rest.is_empty() {
            let in_rows = self.lexer.is_in_rows();
            let (used, event) = self.lexer.step(rest);
            if in_rows && let Some(table) = self.contents.tables.last_mut() {
                table.rows += memchr_iter(b'\n', &rest[..used]).count() as u64;
                if let Some(lines) = &mut self.lines {
                    lines.feed(&rest[..used]);
                }
            }
            // Within a statement bytes are taken one by one.
            if self.lexer.statement().len() == 1 && !in_rows {
                self.statement_offset = self.contents.bytes;
            }
            self.contents.bytes += used as u64;
            rest = &rest[used..];
            match event {
                Event::Statement => self.end_statement(),
                Event::CopyEnds => self.end_copy(),
                Event::Comment if self.lexer.comment() == TRAILER => self.contents.complete = true,
                _ => {}
            }
        }
    }

    /// Returns whether what came so far ends like a complete dump.
    pub fn is_complete(&self) -> bool {
        self.contents.complete && !self.contents.has_zero_byte && self.lexer.is_between_statements()
    }

    pub fn finish(mut self) -> Contents {
        // A dump cut inside a block or a statement is not complete, whatever was seen before.
        let is_whole = self.lexer.is_between_statements() && self.tables_bytes <= TABLES_BYTES_MOST;
        self.contents.complete &= is_whole && !self.contents.has_zero_byte;
        self.contents
    }

    fn end_copy(&mut self) {
        let end = self.contents.bytes;
        let of_block = self.lines.as_mut().map(|lines| std::mem::take(lines).end().hash);
        if let Some(table) = self.contents.tables.last_mut() {
            table.rows_hash = of_block.map(|hash| table.rows_hash.unwrap_or_default().plus(hash));
            // The newline after `\.` ends no row.
            table.rows = table.rows.saturating_sub(1);
            table.bytes = end.saturating_sub(table.offset);
        }
    }

    fn end_statement(&mut self) {
        self.contents.complete = false;
        let statement = self.lexer.take_statement();
        if let Some((schema, name)) = self.lexer.copied() {
            if let Some(last) = self.contents.tables.last_mut().filter(|last| (&last.schema, &last.name) == (schema, name)) {
                last.copies += 1;
                return;
            }
            self.tables_bytes += size_of::<TableData>() + schema.len() + name.len();
            if self.tables_bytes <= TABLES_BYTES_MOST && self.contents.tables.len() < self.tables_most {
                let (schema, name, offset) = (schema.clone(), name.clone(), self.statement_offset);
                self.contents.tables.push(TableData { schema, name, rows: 0, offset, bytes: 0, copies: 1, rows_hash: None });
            }
        } else if statement.starts_with(b"SELECT pg_catalog.lo_open(") {
            self.contents.large_objects += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// In pieces of one size, and every other size must say the same.
    fn scan(dump: &str) -> Contents {
        let in_pieces = |size: usize| {
            let mut scanner = Scanner::default();
            dump.as_bytes().chunks(size).for_each(|piece| scanner.feed(piece));
            scanner.finish()
        };
        let whole = in_pieces(dump.len().max(1));
        for size in [1, 2, 3, 4, 5, 7, 16] {
            assert_eq!(in_pieces(size), whole, "pieces of {size}");
        }
        whole
    }

    fn rows(dump: &str) -> Vec<(String, u64)> {
        scan(dump).tables.into_iter().map(|table| (format!("{}.{}", table.schema, table.name), table.rows)).collect()
    }

    #[test]
    fn rows_are_counted_in_each_copy_block() {
        let dump = "COPY public.a (x) FROM stdin;\n1\n2\n\\.\n\n\nCOPY public.empty (x) FROM stdin;\n\\.\n\nCOPY s.none  FROM stdin;\n\n\n\\.\n";
        assert_eq!(rows(dump), [("public.a".into(), 2), ("public.empty".into(), 0), ("s.none".into(), 2)]);
    }

    #[test]
    fn values_that_look_like_the_end_are_rows() {
        let dump = "COPY public.a (x, y) FROM stdin;\n\\\\.\n\\\\.\\n\\\\.\t\\N\n.\n\\.x\n\\.\nSELECT 1;\n";
        assert_eq!(rows(dump), [("public.a".into(), 4)]);
    }

    #[test]
    fn hostile_names_are_read_as_postgres_wrote_them() {
        let dump = "COPY \"Schéma.1\".\"we\"\"ird; drop\" (\"a b\", \"FROM stdin;\", c) FROM stdin;\nx\n\\.\n";
        assert_eq!(rows(dump), [("Schéma.1.we\"ird; drop".into(), 1)]);
    }

    #[test]
    fn copy_in_bodies_strings_and_comments_is_not_data() {
        for text in [
            "CREATE FUNCTION f() AS $_$\nCOPY public.x (a) FROM stdin;\n1\n$_$;\n",
            "COMMENT ON TABLE t IS 'it''s;\nCOPY public.x (a) FROM stdin;\n1\n';\n",
            "CREATE VIEW v AS SELECT E'\\';\nCOPY public.x (a) FROM stdin;\n';\n",
            "-- it's\n/*/ COPY /* nested; */ '\nCOPY public.x (a) FROM stdin;\n */\n",
            "CREATE TABLE \"x;\nCOPY public.x (a) FROM stdin;\n\" (a int);\n",
            "CREATE FUNCTION g(int) AS $$ $1; $a$\nCOPY public.x (a) FROM stdin;\n$a $$;\n",
            "SELECT 'none';\nCOPY public.x (a) TO stdout;\n",
            "\\restrict it's;\n",
            "CREATE FUNCTION f() RETURNS void\n    LANGUAGE sql\n    BEGIN ATOMIC\n SELECT CASE WHEN true THEN 1 END AS a;\nCOPY public.x (a) FROM stdin;\nEND;\n",
            "CREATE RULE r AS ON INSERT TO t DO ALSO ( SELECT 1;\nCOPY public.x (a) FROM stdin;\n);\n",
            "CREATE VIEW v AS SELECT E'it''s \\' ;\nCOPY public.x (a) FROM stdin;\n';\n",
            "CREATE VIEW v AS SELECT a$b$ FROM c$b$;\n",
            // Found with fuzz/, beside psql's own rules.
            "CREATE FUNCTION f(begin atomic) RETURNS int AS 'x';\n",
            "COMMENT ON TABLE t IS E'a'\n'\\'';\n",
            "COMMENT ON TABLE t IS E'a' -- c\n'\\'';\n",
            "-- a comment ends here\rSELECT 'a\n';\n",
        ] {
            let dump = format!("{text}COPY public.real (a) FROM stdin;\nrow\n\\.\n");
            assert_eq!(rows(&dump), [("public.real".into(), 1)], "{text}");
        }
    }

    #[test]
    fn long_statements_keep_the_lexer_right() {
        let long = "x".repeat(5000);
        let dump = format!(
            "CREATE VIEW v AS SELECT '{long}', E'\\'; ', {long}e'\\' ; SELECT 1 -- it's {long}\n;\nCOPY public.a (x) FROM stdin;\n1\n\\.\n"
        );
        assert_eq!(rows(&dump), [("public.a".into(), 1)]);
    }

    #[test]
    fn old_strings_with_backslashes_are_known_by_their_setting() {
        let dump = "SET standard_conforming_strings = off;\nSELECT 'it\\'s;\nCOPY public.x (a) FROM stdin;\n';\nCOPY public.a (x) FROM stdin;\n\\.\n";
        assert_eq!(rows(dump), [("public.a".into(), 0)]);
    }

    #[test]
    fn only_the_trailer_makes_a_dump_complete() {
        let trailer = "--\n-- PostgreSQL database dump complete\n--\n\n";
        assert!(scan(&format!("SELECT 1;\n{trailer}")).complete);
        assert!(scan(&format!("SELECT 1;\n{trailer}\\unrestrict abc\n\n")).complete);
        assert!(!scan("SELECT 1;\n").complete);
        assert!(!scan(&format!("COPY public.a (x) FROM stdin;\n\0\n\\.\n{trailer}")).complete);
        assert!(!scan(&format!("{trailer}SELECT 1;\n")).complete);
        assert!(!scan(&format!("{trailer}COPY public.a (x) FROM stdin;\n1\n")).complete);
        assert!(!scan("COPY public.a (x) FROM stdin;\n-- PostgreSQL database dump complete\n").complete, "as a value it is none");
        assert!(!scan("COMMENT ON TABLE t IS '\n-- PostgreSQL database dump complete\n';\n").complete);
        // Found with fuzz/: psql runs a last line without an end.
        assert!(!scan(&format!("SELECT 1;\n{trailer}\\! id")).complete);
    }

    #[test]
    fn what_no_dump_holds_takes_no_more_memory_however_long_it_is() {
        let mut scanner = Scanner::default();
        scanner.feed(b"SELECT $");
        (0..100).for_each(|_| scanner.feed(&[b'a'; 1 << 20]));
        assert!(scanner.lexer.held_bytes() < 1 << 20, "{}", scanner.lexer.held_bytes());
        let tag = "a".repeat(5000);
        let dump = format!("SELECT ${tag}$ ' ${tag}$;\n-- PostgreSQL database dump complete\n");
        assert!(!scan(&dump).complete, "the tag is too long to know where the string ends");
        for statement in ["SELECT 1$$ ' $$", "SELECT 1e'\\''", "SELECT $1$$ ' $$"] {
            let dump = format!("{statement};\n-- PostgreSQL database dump complete\n");
            assert!(!scan(&dump).complete, "{statement}: versions read it in different ways");
        }
        // A gigabyte of empty tables comes out of a megabyte of gzip.
        let mut scanner = Scanner { tables_bytes: TABLES_BYTES_MOST - 1000, ..Scanner::default() };
        (0..100).for_each(|number| scanner.feed(format!("COPY public.a{number} (x) FROM stdin;\n\\.\n").as_bytes()));
        scanner.feed(b"-- PostgreSQL database dump complete\n");
        let contents = scanner.finish();
        assert!(!contents.complete && contents.tables.len() < 100, "{} tables", contents.tables.len());
    }

    #[test]
    fn no_more_tables_are_kept_than_a_manifest_has_and_one() {
        let mut scanner = Scanner::of_at_most(3);
        (0..1000).for_each(|number| scanner.feed(format!("COPY public.a{number} (x) FROM stdin;\n1\n\\.\n").as_bytes()));
        assert_eq!(scanner.finish().tables.len(), 3);
        for (letters, complete) in [(63, true), (64, false)] {
            let tag = "a".repeat(letters);
            assert_eq!(scan(&format!("SELECT ${tag}$ ' ${tag}$;\n-- PostgreSQL database dump complete\n")).complete, complete);
        }
    }

    #[test]
    fn blocks_know_their_place() {
        let dump = "-- ö\nCOPY public.a (x) FROM stdin;\n1\n\\.\n\nSELECT 1;\n";
        let contents = scan(dump);
        let table = &contents.tables[0];
        assert_eq!(&dump[table.offset as usize..][..table.bytes as usize], "COPY public.a (x) FROM stdin;\n1\n\\.\n");
        assert_eq!(contents.bytes as usize, dump.len());
    }

    #[test]
    fn blocks_of_one_table_that_follow_one_another_are_one_entry() {
        let dump = "COPY public.a (x) FROM stdin;\n1\n\\.\n\n--\n\nCOPY public.a (x) FROM stdin;\n2\n3\n\\.\nCOPY public.b (x) FROM stdin;\n\\.\nCOPY public.a (x) FROM stdin;\n4\n\\.\n";
        let tables = scan(dump).tables;
        let said: Vec<(&str, u64, u64)> = tables.iter().map(|table| (table.name.as_str(), table.rows, table.copies)).collect();
        assert_eq!(said, [("a", 3, 2), ("b", 0, 1), ("a", 1, 1)]);
        assert!(dump[tables[0].offset as usize..][..tables[0].bytes as usize].ends_with("3\n\\.\n"));
        // As a manifest of format 2 says it.
        let mut single = tables.clone();
        single.insert(0, TableData { rows: 1, bytes: 35, copies: 1, ..tables[0].clone() });
        single[1] = TableData { rows: 2, offset: 40, bytes: tables[0].bytes - 40, copies: 1, ..tables[0].clone() };
        assert_eq!(joined(&single), tables);
    }

    #[test]
    fn the_rows_of_a_table_are_hashed_wherever_they_are_cut_and_in_whatever_order_they_come() {
        let hashes = |dump: &str, size: usize| {
            let mut scanner = Scanner::that_hashes();
            dump.as_bytes().chunks(size).for_each(|piece| scanner.feed(piece));
            let contents = scanner.finish();
            contents.tables.into_iter().map(|table| table.rows_hash.unwrap()).collect::<Vec<_>>()
        };
        let dump = "COPY public.a (x) FROM stdin;\n1\nlong row\n\\.\nCOPY public.b (x) FROM stdin;\n\\.\n";
        let of_one_block = hashes(dump, dump.len());
        assert_eq!(of_one_block[1], RowsHash::default(), "it has no rows");
        for size in [1, 2, 3, 7, 30] {
            assert_eq!(hashes(dump, size), of_one_block, "pieces of {size}");
        }
        let others = "COPY public.a (x) FROM stdin;\nlong row\n\\.\n\n--\nCOPY public.a (x) FROM stdin;\n1\n\\.\n";
        assert_eq!(hashes(others, 5)[0], of_one_block[0]);
        assert_ne!(hashes(&others.replace("\n1\n", "\n2\n"), 5)[0], of_one_block[0]);
    }

    #[test]
    fn large_objects_are_counted() {
        assert_eq!(scan("SELECT pg_catalog.lo_open('1', 131072);\nSELECT pg_catalog.lowrite(0, '\\x00');\nSELECT pg_catalog.lo_close(0);\n").large_objects, 1);
    }

    proptest! {
        /// However the bytes are cut into pieces, the count is that of the lines.
        #[test]
        fn any_rows_in_any_pieces_are_counted(lines in proptest::collection::vec("(\\\\\\\\\\.|\\\\\\.[a-z]|[a-z.]|\\\\N|){0,4}", 0..40), size in 1_usize..20) {
            prop_assume!(lines.iter().all(|line| line != "\\."));
            let mut dump = "COPY public.a (x) FROM stdin;\n".to_owned();
            for line in &lines {
                dump += line;
                dump += "\n";
            }
            dump += "\\.\n\nCOPY public.b (x) FROM stdin;\n1\n\\.\n";
            let mut scanner = Scanner::default();
            dump.as_bytes().chunks(size).for_each(|piece| scanner.feed(piece));
            let contents = scanner.finish();
            prop_assert_eq!(contents.tables.iter().map(|table| table.rows).collect::<Vec<_>>(), vec![lines.len() as u64, 1]);
        }
    }
}
