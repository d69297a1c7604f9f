//! Splits a dump into the steps of its restore: statements, and the rows of COPY blocks, each with the entry of the dump that it belongs
//! to.

use std::sync::Arc;
use std::{fmt, io};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::lex::{Event, Lexer, STATEMENT_LONGEST_BYTES};
use super::row_sums::RowSums;

/// pg_dump's own tokens have 63 letters; `--restrict-key` accepts more.
const TOKEN_LONGEST_BYTES: usize = 1 << 10;

/// The next step of a restore.
#[derive(Debug)]
pub enum Step {
    /// A statement without its semicolon.
    Statement {
        text: Vec<u8>,
        entry: Arc<Entry>,
    },
    /// `COPY … FROM stdin`: rows follow, up to [`Step::RowsEnd`].
    Copy {
        text: Vec<u8>,
        entry: Arc<Entry>,
    },
    /// Rows in COPY's text format. The last ones end with the line `\.`, after which a server ignores everything.
    Rows(Bytes),
    RowsEnd,
}

/// Steps as they arrive.
pub struct Steps {
    batches: mpsc::Receiver<Vec<Step>>,
    batch: std::vec::IntoIter<Step>,
}

impl Steps {
    pub fn of(batches: mpsc::Receiver<Vec<Step>>) -> Self {
        Self { batches, batch: Vec::new().into_iter() }
    }

    /// The next step; None at the end of the input.
    pub async fn next(&mut self) -> Option<Step> {
        loop {
            if let Some(step) = self.batch.next() {
                return Some(step);
            }
            self.batch = self.batches.recv().await?.into_iter();
        }
    }
}

/// An object of the dump, from the comment above it: `-- Name: p_idx; Type: INDEX; Schema: public; Owner: app`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// `TABLE`, `TABLE DATA`, `FK CONSTRAINT`; empty at the head of the dump.
    pub kind: String,
    /// For display: names are not quoted, and some entries have several (`c c_p_fkey`).
    pub name: String,
    pub schema: Option<String>,
    /// True for a query of our own, which writes the statement to run, if any. No dump can say so.
    pub is_ours: bool,
}

impl Entry {
    fn of_comment(comment: &str) -> Option<Self> {
        let (_, rest) = comment.trim_start().split_once("Name: ")?;
        if !["Name: ", "Data for Name: ", "Statistics for Name: "].iter().any(|start| comment.trim_start().starts_with(start)) {
            return None;
        }
        // Split from the right: a name may hold anything but a line's end.
        let (rest, _owner) = rest.rsplit_once("; Owner: ")?;
        let (rest, schema) = rest.rsplit_once("; Schema: ")?;
        let (name, kind) = rest.rsplit_once("; Type: ")?;
        let schema = (schema != "-").then(|| schema.to_owned());
        Some(Self { kind: kind.to_owned(), name: name.to_owned(), schema, is_ours: false })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match (&self.schema, self.kind.as_str()) {
            (_, "") => f.write_str("the head of the dump"),
            (Some(schema), kind) => write!(f, "{kind} {} in schema {schema}", self.name),
            (None, kind) if self.name.is_empty() => f.write_str(kind),
            (None, kind) => write!(f, "{kind} {}", self.name),
        }
    }
}

/// Takes all bytes of a dump in order, in pieces of any size. It holds at most the longest statement in memory.
pub struct Script {
    lexer: Lexer,
    entry: Arc<Entry>,
    /// Where the rows are summed up; None: nowhere.
    sums: Option<RowSums>,
}

impl Default for Script {
    fn default() -> Self {
        Self { lexer: Lexer::keeping_statements(), entry: Arc::default(), sums: None }
    }
}

impl Script {
    /// One that sums up rows there. The sum of a block is there before its end is passed on.
    pub fn with_sums(sums: Option<RowSums>) -> Self {
        Self { sums, ..Self::default() }
    }

    /// Returns whether no statement and no rows are open.
    pub fn is_at_an_end(&self) -> bool {
        self.lexer.is_between_statements()
    }

    /// The memory in bytes that it holds: some kilobytes besides the statement that has begun.
    pub fn held_bytes(&self) -> usize {
        self.lexer.held_bytes()
    }

    /// Passes on the steps that end in these bytes. An error says that pg_dump did not write this dump.
    pub fn feed(&mut self, bytes: &[u8], mut emit: impl FnMut(Step)) -> io::Result<()> {
        // To psql it ends a line, or a name.
        if memchr::memchr(0, bytes).is_some() {
            return Err(io::Error::other("the dump has a zero byte that PostgreSQL does not write: somebody changed the set"));
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let in_rows = self.lexer.is_in_rows();
            let (used, event) = self.lexer.step(rest);
            if in_rows {
                emit(Step::Rows(Bytes::copy_from_slice(&rest[..used])));
                self.sums.iter().for_each(|sums| sums.feed(&rest[..used]));
            }
            rest = &rest[used..];
            match event {
                Event::Statement => {
                    let text = self.lexer.take_statement();
                    if text.len() >= STATEMENT_LONGEST_BYTES {
                        return Err(io::Error::other("a statement of the dump is longer than 1 GiB"));
                    }
                    let entry = Arc::clone(&self.entry);
                    let copied = self.lexer.copied();
                    if let (Some(sums), Some(table)) = (&self.sums, copied) {
                        sums.begin(table, &text);
                    }
                    let copies = copied.is_some();
                    emit(if copies { Step::Copy { text, entry } } else { Step::Statement { text, entry } });
                }
                Event::CopyEnds => {
                    self.sums.iter().for_each(RowSums::end);
                    emit(Step::RowsEnd);
                }
                Event::Comment if self.lexer.statement().is_empty() => {
                    if let Some(entry) = Entry::of_comment(&String::from_utf8_lossy(self.lexer.comment())) {
                        self.entry = Arc::new(entry);
                    }
                }
                // psql commands are never executed: they can run programs.
                Event::Command => {
                    let command = String::from_utf8_lossy(self.lexer.comment());
                    if !self.lexer.statement().is_empty() || !restricts(&command) {
                        // What follows its name may be a password.
                        let name: String = command.chars().take_while(char::is_ascii_alphanumeric).take(60).collect();
                        return Err(io::Error::other(format!(
                            "the dump has a psql command that pg_dump does not write: \\{name}"
                        )));
                    }
                }
                // psql continues to read there after the rows.
                Event::CopyBegins if !self.lexer.comment().trim_ascii().is_empty() => {
                    return Err(io::Error::other("the dump has more on the line of a COPY than pg_dump writes"));
                }
                Event::Comment | Event::CopyBegins | Event::None => {}
            }
        }
        Ok(())
    }
}

/// Returns whether it is `restrict TOKEN` or `unrestrict TOKEN`, without another command on the line.
fn restricts(command: &str) -> bool {
    let token = command.strip_prefix("restrict ").or_else(|| command.strip_prefix("unrestrict "));
    token.is_some_and(|token| {
        !token.is_empty() && token.len() <= TOKEN_LONGEST_BYTES && token.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(dump: &str, size: usize) -> io::Result<Vec<String>> {
        let mut script = Script::default();
        let mut said: Vec<String> = Vec::new();
        let mut in_rows = false;
        for piece in dump.as_bytes().chunks(size) {
            script.feed(piece, |step| match step {
                Step::Statement { text, entry } => said.push(format!("{entry}: {}", String::from_utf8_lossy(&text))),
                Step::Copy { text, entry } => said.push(format!("{entry}: {}", String::from_utf8_lossy(&text))),
                Step::Rows(rows) if in_rows => *said.last_mut().unwrap() += &String::from_utf8_lossy(&rows),
                Step::Rows(rows) => {
                    in_rows = true;
                    said.push(String::from_utf8_lossy(&rows).into_owned());
                }
                Step::RowsEnd => in_rows = false,
            })?;
        }
        Ok(said)
    }

    const DUMP: &str = "--\n-- PostgreSQL database dump\n--\n\\restrict abc\nSET a = 1;\n\
        --\n-- Name: f(text, \"a; Type: b\"); Type: FUNCTION; Schema: s; Owner: o\n--\n\n\
        CREATE FUNCTION s.f() AS $_$ BEGIN; -- Name: x; Type: INDEX; Schema: y; Owner: z\n; END $_$;\n\
        --\n-- Data for Name: t; Type: TABLE DATA; Schema: s; Owner: o\n--\n\n\
        COPY s.t (a) FROM stdin;\n1\n-- Name: n; Type: INDEX; Schema: y; Owner: z\n;\n\\.\n\n\
        --\n-- Name: e; Type: EXTENSION; Schema: -; Owner: -\n--\n\nCREATE EXTENSION e;\n\\unrestrict abc\n";

    #[test]
    fn statements_and_rows_come_with_their_entry_however_the_bytes_are_cut() {
        let expected = [
            "the head of the dump: SET a = 1",
            "FUNCTION f(text, \"a; Type: b\") in schema s: CREATE FUNCTION s.f() AS $_$ BEGIN; -- Name: x; Type: INDEX; Schema: y; Owner: z\n; END $_$",
            "TABLE DATA t in schema s: COPY s.t (a) FROM stdin",
            "1\n-- Name: n; Type: INDEX; Schema: y; Owner: z\n;\n\\.\n",
            "EXTENSION e: CREATE EXTENSION e",
        ];
        for size in [1, 2, 3, 7, 64, 10_000] {
            assert_eq!(steps(DUMP, size).unwrap(), expected, "pieces of {size}");
        }
    }

    #[test]
    fn strings_whose_backslashes_escape_say_so() {
        let said = |dump: &str| {
            let said = steps(&format!("SET standard_conforming_strings = off;\n{dump};\n"), 3).unwrap();
            said[1].strip_prefix("the head of the dump: ").unwrap().to_owned()
        };
        assert_eq!(said("SELECT 'a', 'it''s \\'; b', E'\\'c', x'0\\'"), "SELECT 'a',  E'it''s \\'; b', E'\\'c', x'0\\'");
        assert_eq!(said("SELECT 'a'\n'b\\'c'"), "SELECT  E'a'\n'b\\'c'");
        assert_eq!(said("SELECT 'a' -- c\n'b\\'c'"), "SELECT  E'a' \n'b\\'c'");
        assert_eq!(said("SELECT date'a\\'c'"), "SELECT date E'a\\'c'");
    }

    #[test]
    fn commands_of_psql_are_refused() {
        for command in [
            "\\! touch /tmp/x\n",
            "\\connect other\n",
            "SELECT 1;\n\\copy t from program 'x'\n",
            // Found with fuzz/: each runs in `gunzip -c dump.sql.gz | psql`.
            "SELECT 1 \\! id\n;\n",
            "SELECT 1\n\\g |id\n",
            "\\restrict abc \\! id\n",
            "\\unrestrict abc \\\\ DROP TABLE t;\n",
            "-- a comment's end is a carriage return, too\r\\! id\n",
            "COPY public.a (x) FROM stdin;\n1\n\\.\r\n\\! id\n\\.\n",
            "SELECT E'a'\n'\\''\n\\! id\n--';\n",
            "SELECT $e'\\''\n\\! id\n-- ';\n",
        ] {
            for size in [1, 3, 100] {
                let error = steps(command, size).expect_err(command).to_string();
                assert!(error.contains("psql command"), "{command}: {error}");
            }
        }
        for dump in ["COPY public.a (x) FROM stdin;\n\0\n\\.\n", "SELECT '\0';\n", "-- \0\n"] {
            assert!(steps(dump, 4).unwrap_err().to_string().contains("zero byte"), "{dump:?}");
        }
        let after_copy = "COPY public.a (x) FROM stdin; \\! id\n1\n\\.\n";
        assert!(steps(after_copy, 100).unwrap_err().to_string().contains("line of a COPY"));
        assert_eq!(steps("CREATE FUNCTION f() AS $$\n\\! x\n$$;\n", 5).unwrap().len(), 1, "in a body it is none");
    }
}
