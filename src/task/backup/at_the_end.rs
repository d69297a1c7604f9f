//! What a superuser does at the end of a restore in a server of its own: owners, grants, publications, event triggers.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Seek as _, Write as _};

use anyhow::{Context as _, Result};
use sqlx::postgres::PgConnection;
use tempfile::SpooledTempFile;

use super::by_superuser::{Turn, When};
use super::refusal::Refusal;
use super::script::Entry;
use crate::pg::{self, failure};

/// The statements are held in memory up to this size, then in a file without a name.
const IN_MEMORY_BYTES: usize = 1 << 20;

/// The length up to which a refused statement is repeated.
const SHOWN_CHARS: usize = 200;

/// Statements that wait for the end, and the numbers of those that a superuser has run.
#[derive(Debug)]
pub struct Deferred {
    file: SpooledTempFile,
    pub done: BTreeMap<&'static str, usize>,
}

impl Default for Deferred {
    fn default() -> Self {
        Self { file: SpooledTempFile::new(IN_MEMORY_BYTES), done: BTreeMap::new() }
    }
}

/// A statement that waits.
struct Waiting {
    turn: Turn,
    entry: String,
    text: String,
}

/// The names under which statements are counted, for their numbers in the file.
const COUNTED: [&str; 5] = ["owners", "grants", "default privileges", "publications", "event triggers"];

impl Deferred {
    pub fn count(&mut self, turn: Turn) {
        if let Some(counts) = turn.counts {
            *self.done.entry(counts).or_default() += 1;
        }
    }

    pub fn add(&mut self, turn: Turn, text: &str, entry: &Entry) -> io::Result<()> {
        let counted = turn.counts.and_then(|name| COUNTED.iter().position(|known| *known == name));
        let entry = entry.to_string();
        self.file.write_all(&[u8::from(turn.when == When::Last), counted.map_or(u8::MAX, |at| at as u8)])?;
        for part in [entry.as_str(), text] {
            self.file.write_all(&(part.len() as u64).to_le_bytes())?;
            self.file.write_all(part.as_bytes())?;
        }
        Ok(())
    }

    /// Runs all that waits, and returns the refusal of the first statement that fails. `superuser` leads to the restored database. No session of
    /// a superuser may use that database afterwards: event triggers are in force.
    pub async fn run(&mut self, superuser: &pg::Settings) -> Result<Option<Refusal>> {
        let mut connection = superuser.connect().await.context("cannot connect as the superuser of the server of its own")?;
        pg::set(&mut connection, "search_path", "").await?;
        // Event triggers of the dump do not fire for this session, except those that are enabled ALWAYS: these come last.
        pg::set(&mut connection, "session_replication_role", "replica").await?;
        for when in [When::AtTheEnd, When::Last] {
            self.file.rewind()?;
            while let Some(waiting) = self.next()? {
                if waiting.turn.when == when
                    && let Some(refusal) = self.run_one(&mut connection, &waiting).await
                {
                    return Ok(Some(refusal));
                }
            }
            pg::execute(&mut connection, "RESET SESSION AUTHORIZATION".to_owned()).await?;
        }
        Ok(None)
    }

    async fn run_one(&mut self, connection: &mut PgConnection, waiting: &Waiting) -> Option<Refusal> {
        let Waiting { turn, entry, text } = waiting;
        match pg::execute_single(connection, text.clone()).await {
            Ok(()) => {
                self.count(*turn);
                None
            }
            Err(error) => {
                let shown: String = text.chars().take(SHOWN_CHARS).collect();
                let message = format!("at {entry}, as a superuser: {}; the statement: {shown}", pg::words_of(&error));
                let sql_state = error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned());
                Some(Refusal { kind: failure::kind_of_sqlx(&error), sql_state, message })
            }
        }
    }

    fn next(&mut self) -> io::Result<Option<Waiting>> {
        let mut head = [0; 2];
        match self.file.read(&mut head[..1])? {
            0 => return Ok(None),
            _ => self.file.read_exact(&mut head[1..])?,
        }
        let when = if head[0] == 0 { When::AtTheEnd } else { When::Last };
        let turn = Turn { when, counts: COUNTED.get(usize::from(head[1])).copied() };
        Ok(Some(Waiting { turn, entry: self.part()?, text: self.part()? }))
    }

    fn part(&mut self) -> io::Result<String> {
        let mut length = [0; 8];
        self.file.read_exact(&mut length)?;
        let mut bytes = vec![0; u64::from_le_bytes(length) as usize];
        self.file.read_exact(&mut bytes)?;
        String::from_utf8(bytes).map_err(io::Error::other)
    }
}
