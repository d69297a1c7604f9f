//! Looks at the text of a dump as it is read: whatever a restore would refuse is refused now, before anybody counts on the set.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use super::claims::Claims;
use crate::base::units;
use crate::task::backup::script::{Script, Step};
use crate::task::backup::tokens::Statement;
use crate::task::backup::{own_bytes, pg_dumps, shown};

/// The text at the head of a dump that is searched for versions.
const HEAD_BYTES: usize = 16 << 10;

/// pg_dump puts values into COPY; the longest other statement is the body of a function.
const STATEMENT_MOST_BYTES: usize = 64 << 20;

/// A source of the dump's text that ends with an error at the first statement that pg_dump does not write.
pub struct Examined<R> {
    source: R,
    head: Vec<u8>,
    script: Script,
    claims: Arc<Mutex<Claims>>,
}

impl<R> Examined<R> {
    /// The claims are complete when the source was read to its end.
    pub fn of(source: R, claims: Arc<Mutex<Claims>>) -> Self {
        Self { source, head: Vec::new(), script: Script::default(), claims }
    }

    fn look(&mut self, bytes: &[u8]) -> Result<(), String> {
        if memchr::memchr(0, bytes).is_some() {
            return Err(
                "it has a zero byte, which PostgreSQL never writes: it is damaged, or a shell has stored it as UTF-16".to_owned()
            );
        }
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        if self.head.len() < HEAD_BYTES {
            self.head.extend_from_slice(&bytes[..bytes.len().min(HEAD_BYTES - self.head.len())]);
            claims.of_head(&self.head);
        }
        let mut refusal = None;
        let fed = self.script.feed(bytes, |step| {
            if refusal.is_none() {
                refusal = examine(step, &mut claims).err();
            }
        });
        // What came before the bytes that cannot be fed comes first.
        refusal.map_or(Ok(()), Err)?;
        fed.map_err(|error| format!("{error}; {HOW}"))?;
        if self.script.held_bytes() > STATEMENT_MOST_BYTES {
            return Err(format!("a statement in it is longer than {}; {HOW}", units::bytes(STATEMENT_MOST_BYTES as u64)));
        }
        Ok(())
    }
}

impl<R: Read> Read for Examined<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.look(&buffer[..count]).map_err(io::Error::other)?;
        Ok(count)
    }
}

/// What pgtend takes.
const HOW: &str = "pgtend takes a dump of one database by pg_dump, with rows as COPY: without --inserts, --create and --clean, and none of pg_dumpall";

fn examine(step: Step, claims: &mut Claims) -> Result<(), String> {
    match step {
        Step::Rows(_) | Step::RowsEnd => Ok(()),
        Step::Copy { text, .. } => {
            let text = own_bytes::text(text);
            if !pg_dumps::copies(&text) {
                return Err(refused(&text));
            }
            claims.of_copy(&Statement::of(&text))
        }
        Step::Statement { text, .. } => {
            let text = own_bytes::text(text);
            let statement = Statement::of(&text);
            if !pg_dumps::writes(&statement) {
                return Err(refused(&text));
            }
            claims.of_statement(&statement)
        }
    }
}

fn refused(text: &str) -> String {
    format!("it has a statement that is not run from a dump: {}; {HOW}", shown::shown(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\n\n-- Dumped from database version 16.2\n\nSET client_encoding = 'UTF8';\n\
        CREATE TABLE public.t (\n    i integer\n);\nALTER TABLE public.t OWNER TO app;\nCOPY public.t (i) FROM stdin;\n1\n\\.\n\n\
        --\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict abc\n";

    fn read(dump: &[u8]) -> (io::Result<usize>, Claims) {
        let claims = Arc::new(Mutex::new(Claims::default()));
        let mut text = Vec::new();
        let read = Examined::of(dump, Arc::clone(&claims)).read_to_end(&mut text);
        assert!(read.is_err() || text == dump);
        let claims = claims.lock().unwrap().clone();
        (read, claims)
    }

    #[test]
    fn a_dump_passes_unchanged_and_says_what_it_needs() {
        let (read, claims) = read(DUMP.as_bytes());
        assert_eq!(read.unwrap(), DUMP.len());
        assert_eq!((claims.server_version.as_deref(), claims.roles.contains("app")), (Some("16.2"), true));
    }

    #[test]
    fn what_no_restore_would_run_is_refused_when_it_is_adopted() {
        for (statement, says) in [
            ("\\! id\n", "psql command that pg_dump does not write: \\"),
            ("\\connect other\n", "\\connect; pgtend takes a dump of one database"),
            ("ALTER ROLE app SUPERUSER;\n", "not run from a dump: ALTER ROLE app SUPERUSER; pgtend"),
            ("DO $$ BEGIN PERFORM 1; END $$;\n", "not run from a dump: DO"),
            ("INSERT INTO public.t VALUES (1);\n", "without --inserts"),
            ("DROP TABLE public.t;\n", "--clean"),
            ("CREATE DATABASE x;\n", "--create"),
            ("COPY pg_catalog.pg_auth_members (roleid) FROM stdin;\n\\.\n", "not run from a dump: COPY"),
            ("COPY public.t FROM PROGRAM 'id';\n", "not run from a dump: COPY"),
            ("SELECT public.f();\n", "not run from a dump: SELECT"),
            ("SET client_encoding = 'SJIS';\n", "not run from a dump: SET"),
            ("SELECT '\0';\n", "zero byte"),
        ] {
            let dump = DUMP.replace("CREATE TABLE", &format!("{statement}CREATE TABLE"));
            let said = read(dump.as_bytes()).0.unwrap_err().to_string();
            assert!(said.contains(says), "{statement}: {said}");
        }
    }

    #[test]
    fn a_statement_without_an_end_takes_no_more_memory_than_any_dump_needs() {
        let mut dump = DUMP.as_bytes().to_vec();
        let endless = io::repeat(b'x').take(1 << 30);
        dump.extend_from_slice(b"CREATE VIEW public.v AS SELECT '");
        let mut examined = Examined::of(dump.chain(endless), Arc::default());
        let said = io::copy(&mut examined, &mut io::sink()).unwrap_err().to_string();
        assert!(said.contains("longer than 67.1 MB"), "{said}");
    }
}
