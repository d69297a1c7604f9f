//! Reads a plain-format dump as it streams by: every COPY block's table and rows, the large objects, and the
//! trailer that only a complete dump has.
//!
//! In COPY text format one line is one row (newlines in values are escaped), so counting costs the server
//! nothing, and the count is of the dump's own snapshot. Outside COPY blocks a small lexer knows strings,
//! identifiers, comments and dollar quotes: a function body may well contain a line `COPY x FROM stdin;`.

use memchr::{memchr, memchr_iter, memchr2, memmem};
use serde::{Deserialize, Serialize};

/// One COPY block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableData {
    pub schema: String,
    pub name: String,
    pub rows: u64,
    /// Where the block starts in the uncompressed dump, at `COPY`.
    pub offset: u64,
    /// From there to the end of the line `\.`.
    pub bytes: u64,
}

/// What a dump holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub bytes: u64,
    pub tables: Vec<TableData>,
    pub large_objects: u64,
    /// pg_dump's last line was seen, and nothing after it but comments and psql's own commands.
    pub complete: bool,
}

impl Contents {
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }
}

const TRAILER: &[u8] = b" PostgreSQL database dump complete";
const COPY_END: &[u8] = b"\n\\.\n";
/// A COPY of 1,600 columns with names of 63 quoted characters; a longer one is not pg_dump's.
const STATEMENT_KEPT_BYTES: usize = 1 << 20;
/// Enough of any other statement to tell what it is.
const START_KEPT_BYTES: usize = 64;

/// Feed it all bytes in order, in pieces of any size, then [`Scanner::finish`].
pub struct Scanner {
    state: State,
    contents: Contents,
    /// The statement so far, comments left out: all of a COPY, the start of others.
    statement: Vec<u8>,
    statement_offset: u64,
    comment: Vec<u8>,
    previous: u8,
    backslash_escapes: bool,
}

#[derive(Debug, PartialEq)]
enum State {
    Sql,
    LineComment,
    BlockComment {
        depth: u32,
        previous: u8,
    },
    String {
        escapes: bool,
        escaped: bool,
    },
    Identifier,
    DollarTag {
        tag: Vec<u8>,
    },
    DollarBody {
        closing: Vec<u8>,
        matched: usize,
    },
    /// A psql command: `\restrict …`.
    Command,
    /// After `FROM stdin;`, to the end of the line.
    CopyHeader,
    /// `matched`: how much of `\n\.\n` the bytes so far end with.
    Copy {
        matched: usize,
    },
}

impl Default for Scanner {
    fn default() -> Self {
        Self {
            state: State::Sql,
            contents: Contents::default(),
            statement: Vec::new(),
            statement_offset: 0,
            comment: Vec::new(),
            previous: b'\n',
            backslash_escapes: false,
        }
    }
}

impl Scanner {
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut position = 0;
        while position < bytes.len() {
            let rest = &bytes[position..];
            let used = match self.state {
                State::Copy { matched } => self.copy(rest, matched),
                State::String { escaped: false, .. } => self.string(rest),
                _ => {
                    self.sql(rest[0]);
                    1
                }
            };
            self.contents.bytes += used as u64;
            if self.state == (State::Copy { matched: COPY_END.len() }) {
                self.end_copy();
            }
            self.previous = rest[used - 1];
            position += used;
        }
    }

    pub fn finish(mut self) -> Contents {
        // A dump cut inside a block or a statement is not complete, whatever was seen before.
        self.contents.complete &=
            matches!(self.state, State::Sql | State::LineComment | State::Command) && self.statement.is_empty();
        self.contents
    }

    /// Bytes of a COPY block up to its end or the end of `bytes`; returns how many were used.
    fn copy(&mut self, bytes: &[u8], mut matched: usize) -> usize {
        let mut used = 0;
        // Across the border of two pieces, byte by byte.
        while matched > 0 && matched < COPY_END.len() && used < bytes.len() {
            let byte = bytes[used];
            matched = if byte == COPY_END[matched] { matched + 1 } else { usize::from(byte == b'\n') };
            self.count_rows(usize::from(byte == b'\n'));
            used += 1;
            if used > 1 && matched == 1 {
                break;
            }
        }
        if matched < COPY_END.len() && used < bytes.len() {
            // A newline that was just counted may be the first byte of the end.
            let from = used - usize::from(matched == 1 && used > 0);
            let rest = &bytes[from..];
            match memmem::find(rest, COPY_END) {
                Some(at) => {
                    let end = from + at + COPY_END.len();
                    self.count_rows(memchr_iter(b'\n', &bytes[used..end]).count());
                    used = end;
                    matched = COPY_END.len();
                }
                None => {
                    self.count_rows(memchr_iter(b'\n', &bytes[used..]).count());
                    matched = (1..COPY_END.len()).rev().find(|length| rest.ends_with(&COPY_END[..*length])).unwrap_or(0);
                    used = bytes.len();
                }
            }
        }
        self.state = State::Copy { matched };
        used
    }

    fn count_rows(&mut self, newlines: usize) {
        if let Some(table) = self.contents.tables.last_mut() {
            table.rows += newlines as u64;
        }
    }

    fn end_copy(&mut self) {
        let end = self.contents.bytes;
        if let Some(table) = self.contents.tables.last_mut() {
            // The newline after `\.` ends no row.
            table.rows -= 1;
            table.bytes = end - table.offset;
        }
        self.state = State::Sql;
    }

    /// Inside a string: skips to what may end it. Large objects are strings of megabytes.
    fn string(&mut self, bytes: &[u8]) -> usize {
        let State::String { escapes, .. } = self.state else { return 1 };
        let next = if escapes { memchr2(b'\'', b'\\', bytes) } else { memchr(b'\'', bytes) };
        match next {
            // A doubled quote ends one string and starts the next, which comes to the same.
            Some(at) if bytes[at] == b'\'' => {
                self.state = State::Sql;
                at + 1
            }
            Some(at) => {
                self.state = State::String { escapes, escaped: true };
                at + 1
            }
            None => bytes.len(),
        }
    }

    fn sql(&mut self, byte: u8) {
        match &mut self.state {
            State::Sql => self.top(byte),
            State::LineComment if byte == b'\n' => {
                if self.comment == TRAILER {
                    self.contents.complete = true;
                }
                self.state = State::Sql;
            }
            State::LineComment => {
                if self.comment.len() <= TRAILER.len() {
                    self.comment.push(byte);
                }
            }
            State::BlockComment { depth, previous } => {
                let delimiter = match (*previous, byte) {
                    (b'*', b'/') => Some(*depth - 1),
                    (b'/', b'*') => Some(*depth + 1),
                    _ => None,
                };
                // A byte that ended one delimiter starts no other: `/*/` is not a whole comment.
                *previous = if delimiter.is_some() { 0 } else { byte };
                *depth = delimiter.unwrap_or(*depth);
                if *depth == 0 {
                    self.state = State::Sql;
                }
            }
            State::String { escaped, .. } => *escaped = false,
            State::Identifier => {
                self.keep(byte);
                if byte == b'"' {
                    self.state = State::Sql;
                }
            }
            State::DollarTag { tag } => {
                let continues = is_identifier_byte(byte) && !(tag.is_empty() && byte.is_ascii_digit());
                if byte == b'$' {
                    let closing = [b"$", tag.as_slice(), b"$"].concat();
                    self.state = State::DollarBody { closing, matched: 0 };
                } else if continues {
                    tag.push(byte);
                } else {
                    // `$1`, or a stray dollar.
                    self.state = State::Sql;
                    self.top(byte);
                }
            }
            State::DollarBody { closing, matched } => {
                // No dollar inside a tag, so a mismatch can only start anew at a dollar.
                *matched = if byte == closing[*matched] { *matched + 1 } else { usize::from(byte == b'$') };
                if *matched == closing.len() {
                    self.state = State::Sql;
                }
            }
            State::Command if byte == b'\n' => self.state = State::Sql,
            State::Command => {}
            State::CopyHeader => {
                if byte == b'\n' {
                    self.state = State::Copy { matched: 1 };
                }
            }
            // Taken by `copy`.
            State::Copy { .. } => {}
        }
    }

    fn top(&mut self, byte: u8) {
        if self.statement.is_empty() {
            if byte.is_ascii_whitespace() {
                return;
            }
            if byte == b'\\' {
                self.state = State::Command;
                return;
            }
            self.statement_offset = self.contents.bytes;
        }
        match byte {
            b'-' if self.previous == b'-' && self.statement.last() == Some(&b'-') => {
                self.statement.pop();
                self.comment.clear();
                self.state = State::LineComment;
                return;
            }
            b'*' if self.previous == b'/' && self.statement.last() == Some(&b'/') => {
                self.statement.pop();
                self.state = State::BlockComment { depth: 1, previous: 0 };
                return;
            }
            b';' => {
                self.end_statement();
                return;
            }
            b'\'' => {
                let prefixed = matches!(self.previous, b'e' | b'E')
                    && !self.statement.iter().rev().nth(1).is_some_and(|before| is_identifier_byte(*before));
                self.state = State::String { escapes: prefixed || self.backslash_escapes, escaped: false };
            }
            b'"' => self.state = State::Identifier,
            b'$' if !is_identifier_byte(self.previous) => self.state = State::DollarTag { tag: Vec::new() },
            _ => {}
        }
        self.keep(byte);
    }

    /// Keeps a byte of the statement: always its last two, for what they say of the next.
    fn keep(&mut self, byte: u8) {
        let limit = if self.statement.starts_with(b"COPY ") { STATEMENT_KEPT_BYTES } else { START_KEPT_BYTES };
        if self.statement.len() >= limit {
            let length = self.statement.len();
            self.statement.swap(length - 2, length - 1);
            self.statement.pop();
        }
        self.statement.push(byte);
    }

    fn end_statement(&mut self) {
        let statement = std::mem::take(&mut self.statement);
        if statement.is_empty() {
            return;
        }
        self.contents.complete = false;
        if let Some((schema, name)) = copied_table(&statement) {
            let offset = self.statement_offset;
            self.contents.tables.push(TableData { schema, name, rows: 0, offset, bytes: 0 });
            self.state = State::CopyHeader;
        } else if statement.starts_with(b"SELECT pg_catalog.lo_open(") {
            self.contents.large_objects += 1;
        } else if statement.starts_with(b"SET standard_conforming_strings = off") {
            self.backslash_escapes = true;
        }
    }
}

fn is_identifier_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Schema and name out of pg_dump's `COPY public."we""ird" (a, b) FROM stdin`; a table without columns has no
/// list. None for anything else.
fn copied_table(statement: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(statement.strip_prefix(b"COPY ")?).ok()?.strip_suffix(" FROM stdin")?;
    let (schema, rest) = unquote(text)?;
    let (name, rest) = unquote(rest.strip_prefix('.')?)?;
    (rest.starts_with(' ') || rest.is_empty()).then_some((schema, name))
}

/// One identifier at the start of `text`, without its quotes, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let end = text.find(['.', ' ']).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut name = String::new();
    loop {
        let (before, after) = rest.split_once('"')?;
        name += before;
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        assert!(!scan(&format!("{trailer}SELECT 1;\n")).complete);
        assert!(!scan(&format!("{trailer}COPY public.a (x) FROM stdin;\n1\n")).complete);
        assert!(!scan("COPY public.a (x) FROM stdin;\n-- PostgreSQL database dump complete\n").complete, "as a value it is none");
        assert!(!scan("COMMENT ON TABLE t IS '\n-- PostgreSQL database dump complete\n';\n").complete);
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
