//! Gives the copy the target's properties and its name. All of that and two renames are one transaction: at every moment one of the two databases has the name.
//! While it runs, the server lets new sessions of both wait, and those of the target then find the new one.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnection;

use super::beside;
use super::copy::{self, Fresh};
use super::decide;
use super::keys::Refresh;
use super::mark::{self, Mark, What};
use super::state::{self, Session};
use crate::base::fault::{Fault, Kind};
use crate::pg::{self, failure, identifier, literal};
use crate::task::backup::facts::DatabaseFacts;
use crate::task::backup::{new_database, properties};
use crate::work::RunContext;

/// The number of attempts while sessions come and go. PostgreSQL itself waits for five seconds in each.
const TRIES: u32 = 4;

/// The pause between two looks at the sessions.
const LOOK: Duration = Duration::from_millis(200);

/// A session that waits for the lock of the database lets everyone who connects wait behind it.
const LOCK_TIMEOUT: &str = "5s";

/// A swap under way.
pub struct Swap<'a, 'r> {
    pub run: &'a RunContext<'r>,
    pub keys: &'a Refresh,
    pub copy: &'a Fresh,
    /// The oid of the target when the run began.
    pub target_oid: Option<i64>,
}

/// What has become of the replaced database.
pub struct Swapped {
    pub old_name: String,
    pub terminated: usize,
}

impl Swap<'_, '_> {
    pub async fn swap(&self, server: &mut PgConnection) -> Result<Swapped> {
        let (run, name) = (self.run, self.run.settings.database());
        let (facts, own_pid) = run.or_cancelled(beside::target(run, server)).await?;
        beside::ensure_same(name, facts.database.oid, self.target_oid)?;
        run.or_cancelled(new_database::close(server, &self.copy.name)).await?;
        let sessions = run.or_cancelled(self.wait(server, own_pid)).await?;
        if !sessions.is_empty() && !self.keys.terminate {
            return Err(decide::still_connected(name, &sessions).into());
        }
        if let Some(session) = sessions.iter().find(|session| session.is_of_pgtend) {
            let message = format!("{name} is not replaced: pgtend itself is at work in it, in server process {session}");
            return Err(Fault::new(Kind::Busy, message).into());
        }
        if let Some(refusal) = decide::unreadable(name, &sessions) {
            return Err(refusal.into());
        }
        // A signal does not interrupt it: it takes seconds, and is all or nothing.
        self.exchange(server, sessions.len()).await
    }

    /// Waits until nobody is in the target, and returns who still is.
    async fn wait(&self, server: &mut PgConnection, own_pid: i32) -> Result<Vec<Session>> {
        let started = Instant::now();
        let phase = self.run.progress.phase("swap", None);
        loop {
            let sessions = state::sessions(server, self.run, own_pid).await?;
            if sessions.is_empty() || started.elapsed() >= self.keys.wait.0 {
                return Ok(sessions);
            }
            phase.say(&format!("waits for {}", sessions.iter().map(Session::to_string).collect::<Vec<_>>().join(", ")));
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn exchange(&self, server: &mut PgConnection, terminated: usize) -> Result<Swapped> {
        let name = self.run.settings.database();
        let (at, old_name) = free_name(server, name).await?;
        let mut other = match self.keys.terminate {
            true => Some(beside::another(self.run, server).await?),
            false => None,
        };
        pg::set(server, "lock_timeout", LOCK_TIMEOUT).await?;
        let mut tries = 0;
        let error = loop {
            tries += 1;
            match self.exchange_once(server, other.as_mut(), &old_name, at).await {
                Ok(()) => return Ok(Swapped { old_name, terminated }),
                // 55006: being accessed by other users; 55P03: the lock was not had in time.
                Err(error) if tries < TRIES && (is_in_use(&error) || error.is::<Changed>()) => {
                    tracing::info!("{name} is not replaced yet: {}", failure::in_a_line(&error));
                }
                Err(error) => break error,
            }
        };
        // The answer to a COMMIT may have been lost.
        if self.has_the_name().await? {
            return Ok(Swapped { old_name, terminated });
        }
        Err(match is_in_use(&error) || error.is::<Changed>() {
            true => {
                let message = format!("{name} is in use and is not replaced: {}", failure::in_a_line(&error));
                Fault::new(Kind::Deferred, message).into()
            }
            false => error.context(format!("{name} was not replaced")),
        })
    }

    /// Gives the empty copy all that it is to have, and takes it back: what this role may not give shows before hours of a restore.
    pub async fn try_out(&self, server: &mut PgConnection, target: &DatabaseFacts) -> Result<()> {
        let name = self.run.settings.database();
        let carried = properties::statements(server, &self.copy.name, &without_marks(target.clone())).await;
        let me: String = sqlx::query_scalar("SELECT current_user::pg_catalog.text").fetch_one(&mut *server).await?;
        pg::execute(server, "BEGIN ISOLATION LEVEL READ COMMITTED".to_owned()).await?;
        let tried = async {
            for (what, sql) in carried {
                carry(server, &what, sql, &me).await.map_err(|error| not_carried(error, name, &what))?;
            }
            anyhow::Ok(())
        };
        let tried = tried.await;
        pg::execute(server, "ROLLBACK".to_owned()).await?;
        tried
    }

    /// Reads the target's properties, and makes the exchange with them, unless they were changed in between.
    async fn exchange_once(
        &self,
        server: &mut PgConnection,
        other: Option<&mut PgConnection>,
        old_name: &str,
        at: DateTime<Utc>,
    ) -> Result<()> {
        let name = self.run.settings.database();
        let seen = self.properties(server).await?;
        let (facts, _) = beside::target(self.run, server).await?;
        let facts = without_marks(facts.database);
        beside::ensure_same(name, facts.oid, self.target_oid)?;
        let carried = properties::statements(server, &self.copy.name, &facts).await;
        let me: String = sqlx::query_scalar("SELECT current_user::pg_catalog.text").fetch_one(&mut *server).await?;
        let old = Mark {
            replaced_by: Some(self.copy.oid),
            comment: facts.comment.clone(),
            ..copy::mark_of(self.run, self.keys, What::Old, at)
        };
        pg::execute(server, "BEGIN ISOLATION LEVEL READ COMMITTED".to_owned()).await?;
        let exchanged = async {
            self.rename_target(server, other, old_name).await?;
            anyhow::ensure!(self.properties(server).await? == seen, Changed);
            for (what, sql) in carried {
                carry(server, &what, sql, &me).await.map_err(|error| not_carried(error, name, &what))?;
            }
            for sql in after_the_rename(&self.copy.name, name, &facts, old_name, &old) {
                pg::execute(server, sql).await?;
            }
            self.are_those(server, old_name).await
        };
        let exchanged = exchanged.await;
        match exchanged {
            Ok(()) => pg::execute(server, "COMMIT".to_owned()).await,
            Err(error) => {
                // Without a connection the server does it.
                let _ = pg::execute(server, "ROLLBACK".to_owned()).await;
                Err(error)
            }
        }
    }

    /// All that the new database is to have of the target, whatever the target's name. Behind the rename nobody can change it: who tries waits.
    async fn properties(&self, server: &mut PgConnection) -> Result<Option<String>> {
        let properties = sqlx::query_scalar(
            "SELECT pg_catalog.jsonb_build_array(
                 pg_catalog.to_jsonb(d) - '{datname,datfrozenxid,datminmxid}'::pg_catalog.text[],
                 (SELECT pg_catalog.jsonb_agg(pg_catalog.to_jsonb(s) ORDER BY s.setrole) FROM pg_catalog.pg_db_role_setting s WHERE s.setdatabase = d.oid),
                 pg_catalog.shobj_description(d.oid, 'pg_database'),
                 (SELECT pg_catalog.jsonb_agg(pg_catalog.to_jsonb(l) ORDER BY l.provider) FROM pg_catalog.pg_shseclabel l
                  WHERE l.classoid = 'pg_catalog.pg_database'::pg_catalog.regclass AND l.objoid = d.oid))::pg_catalog.text
             FROM pg_catalog.pg_database d WHERE d.oid::pg_catalog.int8 = $1",
        );
        Ok(properties.bind(self.target_oid).fetch_optional(server).await?)
    }

    /// Renames the target. From then on nobody can connect to it before the end of the transaction; those who are connected are terminated
    /// meanwhile, where that was asked for.
    async fn rename_target(&self, server: &mut PgConnection, other: Option<&mut PgConnection>, old_name: &str) -> Result<()> {
        let name = self.run.settings.database();
        let renaming = pg::execute(server, format!("ALTER DATABASE {} RENAME TO {}", identifier(name), identifier(old_name)));
        let Some(other) = other else { return renaming.await };
        tokio::pin!(renaming);
        loop {
            tokio::select! {
                // The server ends it after its lock_timeout, or five seconds later.
                renamed = &mut renaming => return renamed,
                () = tokio::time::sleep(LOOK) => terminate(other, self.run).await,
            }
        }
    }

    /// Fails if the two names do not belong to the two databases that the run knows.
    async fn are_those(&self, server: &mut PgConnection, old_name: &str) -> Result<()> {
        let sql = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_database
                   WHERE datname = $1 AND oid::pg_catalog.int8 = $2 OR datname = $3 AND oid::pg_catalog.int8 = $4";
        let found: i64 = sqlx::query_scalar(sql)
            .bind(self.run.settings.database())
            .bind(self.copy.oid)
            .bind(old_name)
            .bind(self.target_oid)
            .fetch_one(server)
            .await?;
        anyhow::ensure!(found == 2, "another process has renamed one of the two databases: run it again");
        Ok(())
    }

    async fn has_the_name(&self) -> Result<bool> {
        let look = async {
            let mut server = self.run.lasting_settings().connect().await?;
            state::oid(&mut server, self.run.settings.database()).await
        };
        let found: Result<Option<i64>> = look.await;
        let found = found.with_context(|| format!("cannot tell whether {} was replaced", self.run.settings.database()))?;
        Ok(found == Some(self.copy.oid))
    }
}

/// Somebody has changed the target's grants, settings, comment or owner while the swap began.
#[derive(Debug, thiserror::Error)]
#[error("its owner, grants, settings or comment are being changed")]
struct Changed;

/// The same without a mark of an earlier swap as its comment: somebody has gone back to an old database.
fn without_marks(facts: DatabaseFacts) -> DatabaseFacts {
    DatabaseFacts { comment: mark::without_marks(facts.comment), ..facts }
}

/// Gives the new database one property, in the transaction. A grant by another role sets the role.
async fn carry(server: &mut PgConnection, what: &str, sql: String, me: &str) -> Result<()> {
    tracing::debug!("{what}: {sql}");
    let sets_role = sql.starts_with("SET LOCAL ROLE ");
    pg::execute(server, sql).await?;
    if sets_role {
        pg::execute(server, format!("SET LOCAL ROLE {}", identifier(me))).await?;
    }
    Ok(())
}

fn not_carried(error: anyhow::Error, target: &str, what: &str) -> anyhow::Error {
    // Without a state, the connection is gone.
    if pg::sql_state(&error).is_none() || is_in_use(&error) {
        return error;
    }
    let why = failure::in_a_line(&error);
    let message = format!("{target} is not replaced, as the new database cannot be given all of its properties: {what}: {why}");
    Fault::new(Kind::Permission, message).into()
}

/// The statements that follow these, in the same transaction.
fn after_the_rename(copy: &str, name: &str, facts: &DatabaseFacts, old_name: &str, old: &Mark) -> Vec<String> {
    let (name, old_name) = (identifier(name), identifier(old_name));
    let mut statements = vec![
        format!("COMMENT ON DATABASE {old_name} IS {}", literal(&old.to_comment())),
        format!("ALTER DATABASE {} RENAME TO {name}", identifier(copy)),
        format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"),
    ];
    if facts.is_template {
        // PostgreSQL drops no template.
        statements.push(format!("ALTER DATABASE {old_name} IS_TEMPLATE false"));
    }
    statements
}

/// The time of the swap, and the name of the old database by it. Names have whole seconds, and an earlier swap may have had this one.
async fn free_name(server: &mut PgConnection, target: &str) -> Result<(DateTime<Utc>, String)> {
    for _ in 0..TRIES {
        let at = state::clock(server).await?;
        let name = mark::old_name(target, at);
        if state::oid(server, &name).await?.is_none() {
            return Ok((at, name));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    anyhow::bail!("there is a database of each name that {target} could have from now on")
}

fn is_in_use(error: &anyhow::Error) -> bool {
    matches!(pg::sql_state(error).as_deref(), Some("55006" | "55P03"))
}

/// Terminates the sessions in the target, unless one is of pgtend: which others belong to the same run does not show. One that this role may not terminate keeps the database from being renamed, and
/// the server then says so.
async fn terminate(other: &mut PgConnection, run: &RunContext<'_>) {
    let database = run.settings.database();
    let sessions = match state::sessions(other, run, 0).await {
        Ok(sessions) => sessions,
        Err(error) => return tracing::debug!("sessions in {database}: {error:#}"),
    };
    if let Some(session) = sessions.iter().find(|session| session.is_of_pgtend) {
        return tracing::info!("pgtend itself is at work in {database}, in server process {session}: no session is terminated");
    }
    if let Some(session) = sessions.iter().find(|session| !session.is_readable) {
        return tracing::info!("whether session {session} in {database} is of pgtend cannot be read: no session is terminated");
    }
    for session in sessions {
        let ended: Result<bool, _> =
            sqlx::query_scalar("SELECT pg_catalog.pg_terminate_backend($1)").bind(session.pid).fetch_one(&mut *other).await;
        match ended {
            Ok(_) => tracing::info!("terminated session {session} in {database}"),
            Err(error) => tracing::debug!("session {session} in {database}: {error}"),
        }
    }
}
