//! The superuser of a server of its own, who runs what the role that restores may not: some statements at their places in the dump; owners, grants
//! and publications when all is restored; event triggers last.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Seek as _, Write as _};

use anyhow::{Context as _, Result};
use sqlx::postgres::PgConnection;
use tempfile::SpooledTempFile;

use super::by_superuser::{self, Turn, When};
use super::refusal::Refusal;
use super::rewrite;
use super::script::Entry;
use crate::pg::{self, failure, identifier};

/// Statements that wait are held in memory up to this size, then in a file without a name.
const IN_MEMORY_BYTES: usize = 1 << 20;

/// The length up to which a refused statement is repeated.
const SHOWN_CHARS: usize = 200;

/// The names under which statements that wait are counted, for their numbers in the file.
const COUNTED: [&str; 5] = ["owners", "grants", "default privileges", "publications", "event triggers"];

/// The superuser's session, and the statements that wait for the end.
#[derive(Debug)]
pub struct Superuser {
    session: PgConnection,
    waiting: SpooledTempFile,
    /// The numbers of statements that were run, by what they are about.
    pub done: BTreeMap<&'static str, usize>,
}

/// A statement that waits.
struct Waiting {
    turn: Turn,
    entry: String,
    text: String,
}

impl Superuser {
    /// `settings` lead to the database that is restored into.
    pub async fn open(settings: &pg::Settings) -> Result<Self> {
        let mut session = settings.connect().await.context("cannot connect as the superuser of the server of its own")?;
        // No name of the dump is found without its schema.
        pg::set(&mut session, "search_path", "").await?;
        // Event triggers of the dump do not fire for this session, except those that are enabled ALWAYS or REPLICA: these come last.
        pg::set(&mut session, "session_replication_role", "replica").await?;
        Ok(Self { session, waiting: SpooledTempFile::new(IN_MEMORY_BYTES), done: BTreeMap::new() })
    }

    /// Takes a statement in the order of the dump.
    pub async fn take(&mut self, turn: Turn, text: &str, entry: &Entry) -> Result<(), sqlx::Error> {
        if turn.when != When::AtOnce {
            return Ok(self.defer(turn, text, entry)?);
        }
        pg::execute_single(&mut self.session, text.to_owned()).await?;
        // The owner of a wrapper must be a superuser, and the role that restores needs it for its servers.
        if let Some(wrapper) = by_superuser::wrapper(text) {
            let grant = format!("GRANT USAGE ON FOREIGN DATA WRAPPER {} TO PUBLIC", identifier(&wrapper));
            pg::execute_single(&mut self.session, grant).await?;
        }
        self.count(turn);
        Ok(())
    }

    /// Runs all that waits, and returns the refusal of the first statement that fails. No session of a superuser may use the database
    /// afterwards: event triggers are in force.
    pub async fn finish(&mut self) -> Result<Option<Refusal>> {
        for when in [When::AtTheEnd, When::Last] {
            self.waiting.rewind()?;
            while let Some(waiting) = self.next()? {
                if waiting.turn.when == when
                    && let Some(refusal) = self.run(&waiting).await
                {
                    return Ok(Some(refusal));
                }
            }
            pg::execute(&mut self.session, "RESET SESSION AUTHORIZATION".to_owned()).await?;
        }
        Ok(None)
    }

    async fn run(&mut self, Waiting { turn, entry, text }: &Waiting) -> Option<Refusal> {
        let mut done = pg::execute_single(&mut self.session, text.clone()).await;
        if done.as_ref().err().and_then(code).as_deref() == Some("42704") && self.makes_roles_of(text).await {
            done = pg::execute_single(&mut self.session, text.clone()).await;
        }
        let Err(error) = done else {
            self.count(*turn);
            return None;
        };
        let shown: String = text.chars().take(SHOWN_CHARS).collect();
        let message = format!("at {entry}, as a superuser: {}; the statement: {shown}", pg::words_of(&error));
        Some(Refusal { kind: failure::kind_of_sqlx(&error), sql_state: code(&error), message })
    }

    /// Creates the roles that a statement names and that do not exist; true if there was one. The roles of the dump are there, except the one that
    /// initdb made on the source, on which PostgreSQL records no dependencies.
    async fn makes_roles_of(&mut self, text: &str) -> bool {
        let mut has_made = false;
        for role in rewrite::role_names(text) {
            let sql = format!("CREATE ROLE {} NOLOGIN", identifier(&role));
            has_made |= pg::execute_single(&mut self.session, sql).await.is_ok();
        }
        has_made
    }

    fn count(&mut self, turn: Turn) {
        if let Some(counts) = turn.counts {
            *self.done.entry(counts).or_default() += 1;
        }
    }

    fn defer(&mut self, turn: Turn, text: &str, entry: &Entry) -> io::Result<()> {
        let counted = turn.counts.and_then(|name| COUNTED.iter().position(|known| *known == name));
        let entry = entry.to_string();
        self.waiting.write_all(&[u8::from(turn.when == When::Last), counted.map_or(u8::MAX, |at| at as u8)])?;
        for part in [entry.as_str(), text] {
            self.waiting.write_all(&(part.len() as u64).to_le_bytes())?;
            self.waiting.write_all(part.as_bytes())?;
        }
        Ok(())
    }

    fn next(&mut self) -> io::Result<Option<Waiting>> {
        let mut head = [0; 2];
        match self.waiting.read(&mut head[..1])? {
            0 => return Ok(None),
            _ => self.waiting.read_exact(&mut head[1..])?,
        }
        let when = if head[0] == 0 { When::AtTheEnd } else { When::Last };
        let turn = Turn { when, counts: COUNTED.get(usize::from(head[1])).copied() };
        Ok(Some(Waiting { turn, entry: self.part()?, text: self.part()? }))
    }

    fn part(&mut self) -> io::Result<String> {
        let mut length = [0; 8];
        self.waiting.read_exact(&mut length)?;
        let mut bytes = vec![0; u64::from_le_bytes(length) as usize];
        self.waiting.read_exact(&mut bytes)?;
        String::from_utf8(bytes).map_err(io::Error::other)
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned())
}
