//! The superuser of a throwaway server, who runs what the restoring role may not: some statements at their places in the dump; owners, grants
//! and publications when everything is restored and no other session is connected; event triggers last.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tempfile::SpooledTempFile;

use super::by_superuser::{self, Turn, When};
use super::refusal::Refusal;
use super::rewrite;
use super::said::Said;
use super::script::Entry;
use super::shown::{said_of, shown};
use crate::base::fault::Kind;
use crate::pg::{self, failure, identifier};

/// Statements that wait are held in memory up to this size, then in a file without a name.
const IN_MEMORY_BYTES: usize = 1 << 20;

/// The time within which all other sessions must have ended.
const ALONE_TIMEOUT: Duration = Duration::from_secs(60);

/// The interval between looks at the other sessions.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Ends all other sessions, and counts them. One that logs in has locks before it is in pg_stat_activity.
const END_OTHERS: &str = "SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(other.pid))
     FROM (SELECT pid FROM pg_catalog.pg_stat_activity WHERE datid IS NOT NULL OR backend_type = 'client backend'
           UNION SELECT pid FROM pg_catalog.pg_locks WHERE pid IS NOT NULL) other
     WHERE other.pid <> pg_catalog.pg_backend_pid()";

/// The names under which statements that wait are counted, for their numbers in the file.
const COUNTED: [&str; 5] = ["owners", "grants", "default privileges", "publications", "event triggers"];

/// The superuser's session, and the statements that wait for the end.
#[derive(Debug)]
pub struct Superuser {
    session: PgConnection,
    /// The entries of pg_amproc that the dump did not make.
    known_functions: Vec<i64>,
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
        let known_functions =
            sqlx::query_scalar("SELECT oid::pg_catalog.int8 FROM pg_catalog.pg_amproc").fetch_all(&mut session).await?;
        Ok(Self { session, known_functions, waiting: SpooledTempFile::new(IN_MEMORY_BYTES), done: BTreeMap::new() })
    }

    /// Takes a statement in the order of the dump, or returns why the superuser does not run it.
    pub async fn take(&mut self, turn: Turn, text: &str, entry: &Entry) -> Result<Option<Refusal>, sqlx::Error> {
        if turn.when != When::AtOnce {
            self.defer(turn, text, entry)?;
            return Ok(None);
        }
        // No other session sees an operator class before its functions have been checked.
        let mut transaction = self.session.begin().await?;
        pg::execute_single(&mut transaction, text.to_owned()).await?;
        let sql = concat!("WITH ", include_str!("support_functions.sql"), " SELECT what FROM unfit ORDER BY 1 LIMIT 1");
        let unfit: Option<String> = sqlx::query_scalar(sql).bind(&self.known_functions).fetch_optional(&mut *transaction).await?;
        if let Some(what) = unfit {
            transaction.rollback().await?;
            return Ok(Some(calls_an_unfit_function(&what, entry)));
        }
        transaction.commit().await?;
        // The owner of a wrapper must be a superuser, and the role that restores needs it for its servers.
        if let Some(wrapper) = by_superuser::wrapper(text) {
            let grant = format!("GRANT USAGE ON FOREIGN DATA WRAPPER {} TO PUBLIC", identifier(&wrapper));
            pg::execute_single(&mut self.session, grant).await?;
        }
        self.count(turn);
        Ok(None)
    }

    /// Runs all that waits, and returns the refusal of the first statement that fails. No session of a superuser may use the database
    /// afterwards: event triggers are in force.
    pub async fn finish(&mut self) -> Result<Option<Refusal>> {
        self.stays_alone().await?;
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

    /// Lets no other role log in, and ends all other sessions: code of the dump could wait in one until a grant gives it more than it has.
    async fn stays_alone(&mut self) -> Result<()> {
        let roles: Vec<String> = sqlx::query_scalar(
            "SELECT rolname::pg_catalog.text FROM pg_catalog.pg_roles WHERE rolcanlogin AND rolname <> session_user",
        )
        .fetch_all(&mut self.session)
        .await?;
        for role in roles {
            pg::execute(&mut self.session, format!("ALTER ROLE {} NOLOGIN", identifier(&role))).await?;
        }
        let begun = Instant::now();
        while sqlx::query_scalar::<_, i64>(END_OTHERS).fetch_one(&mut self.session).await? > 0 {
            anyhow::ensure!(
                begun.elapsed() < ALONE_TIMEOUT,
                "sessions of the restore did not end within {} s, so owners and grants were not restored",
                ALONE_TIMEOUT.as_secs()
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn run(&mut self, Waiting { turn, entry, text }: &Waiting) -> Option<Refusal> {
        let mut done = pg::execute_single(&mut self.session, text.clone()).await;
        if let Err(error) = &done
            && self.makes_missing_roles(error, text).await
        {
            done = pg::execute_single(&mut self.session, text.clone()).await;
        }
        let Err(error) = done else {
            self.count(*turn);
            return None;
        };
        let words = said_of(text, &pg::words_of(&error));
        let message = format!("at {entry}, as a superuser: {words}; the statement: {}", shown(text));
        let ran_its_code = Said::of(&error).is_some_and(|said| said.ran_code());
        Some(Refusal { ran_its_code, kind: failure::kind_of_sqlx(&error), sql_state: code(&error), message, in_store: None })
    }

    /// Creates the roles that a refused statement names and that do not exist; true if there was one. The roles of the dump are there, except
    /// the one that initdb made on the source, on which PostgreSQL records no dependencies.
    pub async fn makes_missing_roles(&mut self, error: &sqlx::Error, text: &str) -> bool {
        if code(error).as_deref() != Some("42704") {
            return false;
        }
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

fn calls_an_unfit_function(what: &str, entry: &Entry) -> Refusal {
    let message = format!(
        "at {entry}: {what} is not restored in a server of its own, where an index would call it without asking for the right to it, or with \
         values of other types than it takes: verify the sets on another server (`scratch` of the job), or by reading them: verify = \
         \"checksum\""
    );
    Refusal { kind: Some(Kind::Permission), message, ..Refusal::default() }
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned())
}
