//! The session that a restore runs in: how it is prepared, and what may fail in it without ending its transaction.

use std::collections::HashSet;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use sqlx::postgres::PgConnection;

use super::manifest::Manifest;
use super::rewrite::Server;
use super::script::{Step, Steps};
use super::{facts, own_bytes};
use crate::pg;
use crate::pg::schemas::{self, Held, Schema};

/// Memory for index builds of the restore's own session. An ivfflat index over 11,000 vectors of 1,536 dimensions fails with the server's
/// default of 64 MB ("memory required is 65 MB"); a larger setting stays. A throwaway server says how much is free (pg/throwaway/memory.rs).
const BUILD_MEMORY: &str = "512MB";

/// Placed around a statement whose failure must not end the surrounding transaction.
const SAVEPOINT: &str = "SAVEPOINT pgtend";
const BACK: &str = "ROLLBACK TO SAVEPOINT pgtend";
const RELEASE: &str = "RELEASE SAVEPOINT pgtend";

pub struct Session {
    pub connection: PgConnection,
    pub server: Server,
    pub silence: Silence,
    /// Our own transaction around everything, with the number that the server gave it.
    transaction: Option<String>,
    /// The schemas of the database, whose names statements of our transaction go by.
    held: Held,
    /// True if the session is inside a `BEGIN; … COMMIT;` of the dump.
    in_block: bool,
    pub has_sent_commit: bool,
}

/// The way to keep event triggers from firing for the restore itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// `event_triggers = off`, from the start: 17 and newer, for superusers.
    Off,
    /// `session_replication_role = replica`, from the moment when the dump creates the first one: for superusers.
    Replica,
    No,
}

/// Returns whether the source's generated columns, indexes and checks may depend on this setting of its database, as with `pg_dump --create |
/// psql`. Other settings are applied at the end; most would only interfere before. None of those that say what the text of a value means, which a dump
/// writes for their defaults: with array_nulls off, {NULL} is the text NULL (arrayfuncs.c), and with xmloption = document, fragments are refused.
fn computes(setting: &str) -> bool {
    const NAMES: [&str; 6] = ["default_text_search_config", "lc_monetary", "lc_numeric", "lc_time", "timezone", "xmlbinary"];
    setting.contains('.') || NAMES.contains(&setting.to_ascii_lowercase().as_str())
}

/// The end of a block of rows.
pub enum Copied {
    All,
    /// The dump ended before the block did.
    CutShort,
    Not(sqlx::Error),
}

impl Session {
    /// Connects, and prepares the session. `of_part`: what is in the database already stays as it is, in these schemas. An error is the target's or the network's.
    pub async fn open(
        settings: &pg::Settings,
        in_transaction: bool,
        of_part: Option<&[Schema]>,
        manifest: &Manifest,
    ) -> Result<Self> {
        let mut connection = connect(settings, manifest, 1).await?;
        let known = facts::setting_names(&mut connection).await?;
        let tablespaces: Vec<String> = sqlx::query_scalar(
            "SELECT spcname::pg_catalog.text FROM pg_catalog.pg_tablespace
             WHERE pg_catalog.has_tablespace_privilege(oid, 'CREATE')
                OR oid = (SELECT dattablespace FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())",
        )
        .fetch_all(&mut connection)
        .await?;
        let silence = silence(&mut connection, known.contains("event_triggers")).await?;
        let (mut transaction, mut held) = (None, Held::default());
        if in_transaction {
            pg::execute(&mut connection, "BEGIN".to_owned()).await?;
            transaction = Some(transaction_number(&mut connection).await?);
            let schemas = match of_part {
                Some(schemas) => schemas.to_vec(),
                None => schemas::living(&mut connection, None).await?,
            };
            held = schemas::hold(&mut connection, schemas).await?;
        }
        if of_part.is_none() {
            public_as_in_15(&mut connection, &manifest.pg_dump_version).await?;
        }
        let (is_superuser, owners) = rights(&mut connection).await?;
        let server = Server { settings: known, tablespaces: tablespaces.into_iter().collect(), is_superuser, owners };
        Ok(Self { connection, server, silence, transaction, held, in_block: false, has_sent_commit: false })
    }

    /// Returns whether a transaction of the dump is open.
    pub fn is_in_block(&self) -> bool {
        self.in_block
    }

    /// Returns whether all runs in a transaction of ours.
    pub fn is_one_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// Fails where the name of a schema means another one by now; asks only where other sessions can change these names.
    pub async fn prove_names(&mut self) -> Result<()> {
        if self.held.is_exact() { Ok(()) } else { self.held.prove(&mut self.connection).await }
    }

    pub async fn execute(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        pg::execute_single(&mut self.connection, own_bytes::query(sql).into_owned()).await
    }

    /// The same; a failure leaves the surrounding transaction as it was.
    pub async fn execute_guarded(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        self.save().await?;
        let done = self.execute(sql).await;
        self.end_statement(&done).await?;
        done
    }

    /// The number that a query returns as its only result; also guarded.
    pub async fn number_guarded(&mut self, sql: String) -> Option<u64> {
        self.save().await.ok()?;
        let rows = pg::fetch_all_as::<(i64,)>(&mut self.connection, sql).await;
        if self.is_in_transaction() {
            self.execute(if rows.is_ok() { RELEASE } else { BACK }).await.ok()?;
        }
        rows.ok()?.first().map(|(rows,)| *rows as u64)
    }

    /// Returns whether all of these roles exist.
    pub async fn has_roles(&mut self, names: &[String]) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar(
            "SELECT NOT EXISTS (SELECT FROM pg_catalog.unnest($1::pg_catalog.text[]) name
                                WHERE name NOT IN (SELECT rolname FROM pg_catalog.pg_roles))",
        )
        .bind(names)
        .fetch_one(&mut self.connection)
        .await
    }

    /// Handles BEGIN or COMMIT of the dump, which are left out inside our own transaction: they would end it.
    pub async fn transaction_of_dump(&mut self, text: &str) -> Result<(), sqlx::Error> {
        if self.transaction.is_none() {
            self.execute(text).await?;
            self.in_block = text == "BEGIN";
        }
        Ok(())
    }

    /// Takes the steps up to the end of the block, whatever the server says. Rows that the server refuses are discarded here.
    pub async fn copy(&mut self, statement: &str, steps: &mut Steps, is_guarded: bool) -> Result<Copied, sqlx::Error> {
        if is_guarded {
            self.save().await?;
        }
        let copied = copy(&mut self.connection, statement, steps).await;
        match &copied {
            Copied::All if is_guarded => self.end_statement(&Ok(())).await?,
            Copied::Not(sqlx::Error::Database(_)) if is_guarded && self.is_in_transaction() => self.execute(BACK).await?,
            _ => {}
        }
        Ok(copied)
    }

    /// Commits as the last step. False when the transaction is not the one that was begun: earlier statements are not in it.
    pub async fn commit(&mut self) -> Result<bool> {
        let Some(begun) = self.transaction.take() else { return Ok(true) };
        if transaction_number(&mut self.connection).await? != begun {
            return Ok(false);
        }
        self.held.prove(&mut self.connection).await?;
        self.has_sent_commit = true;
        self.execute("COMMIT").await?;
        Ok(true)
    }

    pub fn is_in_transaction(&self) -> bool {
        self.transaction.is_some() || self.in_block
    }

    async fn save(&mut self) -> Result<(), sqlx::Error> {
        if self.is_in_transaction() { self.execute(SAVEPOINT).await } else { Ok(()) }
    }

    /// A broken connection has no savepoint to return to.
    async fn end_statement(&mut self, done: &Result<(), sqlx::Error>) -> Result<(), sqlx::Error> {
        match done {
            Ok(()) if self.is_in_transaction() => self.execute(RELEASE).await,
            Err(sqlx::Error::Database(_)) if self.is_in_transaction() => self.execute(BACK).await,
            _ => Ok(()),
        }
    }
}

/// Opens a session beside that of a restore by `count` others; that one has this silence. Each has its share of the memory for builds.
pub async fn open_beside(settings: &pg::Settings, manifest: &Manifest, silence: Silence, count: usize) -> Result<PgConnection> {
    let mut connection = connect(settings, manifest, count.max(1)).await?;
    if silence == Silence::Off {
        pg::set(&mut connection, "event_triggers", "off").await?;
    }
    Ok(connection)
}

/// Runs a statement with as much memory as the restore's own session has for it.
pub async fn with_all_memory(connection: &mut PgConnection, sql: String) -> Result<(), sqlx::Error> {
    const NAME: &str = "maintenance_work_mem";
    let set = "SELECT pg_catalog.set_config($1, $2, false)";
    let before: String =
        sqlx::query_scalar("SELECT pg_catalog.current_setting($1)").bind(NAME).fetch_one(&mut *connection).await?;
    pg::query(more_memory(1)).execute(&mut *connection).await?;
    pg::execute_single(&mut *connection, sql).await?;
    sqlx::query(set).bind(NAME).bind(before).execute(connection).await.map(drop)
}

/// `sessions`: among so many the memory for builds is divided.
async fn connect(settings: &pg::Settings, manifest: &Manifest, sessions: usize) -> Result<PgConnection> {
    let mut connection = settings.connect_for(pg::Purpose::Restore).await?;
    let of_source = manifest.server.database.settings.iter().filter_map(|setting| setting.split_once('='));
    // What pgtend itself asks a throwaway server for is not the source's to say.
    for (name, value) in of_source.filter(|(name, _)| computes(name) && !name.to_ascii_lowercase().starts_with("pgtend.")) {
        if let Err(error) = pg::set(&mut connection, name, value).await {
            tracing::debug!("the restore's session goes without {name}: {error:#}");
        }
    }
    pg::execute(&mut connection, more_memory(sessions)).await?;
    Ok(connection)
}

/// Raises the memory for builds to this session's share; a larger setting stays.
fn more_memory(sessions: usize) -> String {
    format!(
        "SELECT pg_catalog.set_config('maintenance_work_mem', pg_catalog.concat(share OPERATOR(pg_catalog./) 1024, 'kB'), false)
         FROM (SELECT pg_catalog.pg_size_bytes(coalesce(pg_catalog.current_setting('pgtend.build_memory', true), '{BUILD_MEMORY}')) OPERATOR(pg_catalog./) {sessions} AS share) w
         WHERE pg_catalog.pg_size_bytes(pg_catalog.current_setting('maintenance_work_mem')) OPERATOR(pg_catalog.<) share"
    )
}

/// Returns whether this role is a superuser, and the roles that it can make owners of new objects.
async fn rights(connection: &mut PgConnection) -> Result<(bool, HashSet<String>)> {
    // Since PostgreSQL 16, membership has a separate right to SET ROLE.
    let membership = if pg::Server::of(connection).await?.major() >= 16 { "SET" } else { "MEMBER" };
    let owners: Vec<String> =
        sqlx::query_scalar("SELECT rolname::pg_catalog.text FROM pg_catalog.pg_roles WHERE pg_catalog.pg_has_role(oid, $1)")
            .bind(membership)
            .fetch_all(&mut *connection)
            .await?;
    let is_superuser: bool =
        sqlx::query_scalar("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user").fetch_one(connection).await?;
    Ok((is_superuser, owners.into_iter().collect()))
}

/// Since PostgreSQL 15 only its owner may create objects in the schema public of a new database, and pg_dump of 15 and newer writes the
/// differences from that, whatever the versions of source and target (getNamespaces in pg_dump.c): a REVOKE in a database of 14 is not in
/// its dump.
async fn public_as_in_15(connection: &mut PgConnection, pg_dump_version: &str) -> Result<()> {
    let is_of_15 = major_of(pg_dump_version).is_some_and(|major| major >= 15);
    if !is_of_15 || pg::Server::of(connection).await?.major() >= 15 {
        return Ok(());
    }
    let has_public: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'public')")
        .fetch_one(&mut *connection)
        .await?;
    if has_public {
        pg::execute(connection, "REVOKE CREATE ON SCHEMA public FROM PUBLIC".to_owned()).await?;
    }
    Ok(())
}

/// 18 of `pg_dump (PostgreSQL) 18.4 (Debian 18.4-1)`.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split(' ').find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    number.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

/// Disables event triggers where the role may, and says how.
pub async fn silence(connection: &mut PgConnection, has_setting: bool) -> Result<Silence> {
    let setting = if has_setting { "event_triggers" } else { "session_replication_role" };
    // has_parameter_privilege exists since 15. Trying without asking would log an error on the server at each restore.
    let may = match pg::Server::of(connection).await?.major() {
        15.. => format!("pg_catalog.has_parameter_privilege({}, 'SET') OR", pg::literal(setting)),
        _ => String::new(),
    };
    let may = pg::fetch_text(
        connection,
        format!("SELECT ({may} pg_catalog.current_setting('is_superuser') OPERATOR(pg_catalog.=) 'on')::pg_catalog.text"),
    )
    .await?;
    Ok(match (may.as_deref() == Some("true"), has_setting) {
        (false, _) => Silence::No,
        (true, true) => {
            pg::set(connection, "event_triggers", "off").await?;
            Silence::Off
        }
        (true, false) => Silence::Replica,
    })
}

async fn copy(connection: &mut PgConnection, statement: &str, steps: &mut Steps) -> Copied {
    let mut failed = None;
    match pg::copy_in_by(connection, statement).await {
        Ok(mut into) => {
            while let Some(rows) = next_rows(steps).await {
                match rows {
                    // A server that has refused a row reads and discards the rest.
                    Some(rows) if failed.is_none() => failed = into.send(rows).await.err(),
                    Some(_) => {}
                    None => {
                        return match (failed, into.finish().await) {
                            (Some(error), _) | (None, Err(error)) => Copied::Not(error),
                            (None, Ok(_)) => Copied::All,
                        };
                    }
                }
            }
            let _ = into.abort("the dump ends here").await;
            Copied::CutShort
        }
        Err(error) => {
            pass_rows(steps).await;
            Copied::Not(error)
        }
    }
}

/// Takes the rows of a block and discards them.
pub async fn pass_rows(steps: &mut Steps) {
    while let Some(rows) = next_rows(steps).await {
        if rows.is_none() {
            break;
        }
    }
}

/// `Some(None)` at the end of the block, None at the end of the dump.
pub async fn next_rows(steps: &mut Steps) -> Option<Option<Bytes>> {
    match steps.next().await? {
        Step::Rows(rows) => Some(Some(rows)),
        Step::RowsEnd => Some(None),
        // This does not occur inside a block.
        Step::Statement { .. } | Step::Copy { .. } => None,
    }
}

async fn transaction_number(connection: &mut PgConnection) -> Result<String> {
    let number = sqlx::query_scalar("SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text").fetch_one(connection).await;
    number.context("cannot read the transaction's number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_of_a_pg_dump_is_read_from_what_it_says_of_itself() {
        for (version, major) in [
            ("pg_dump (PostgreSQL) 18.4", Some(18)),
            ("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some(15)),
            ("pg_dump (PostgreSQL) 19beta1", Some(19)),
            ("", None),
        ] {
            assert_eq!(major_of(version), major, "{version}");
        }
    }
}
