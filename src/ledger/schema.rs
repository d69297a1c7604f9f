//! The ledger's schema: the program creates and migrates it, and does not touch a schema that someone else owns.

use std::sync::PoisonError;

use anyhow::{Context as _, Result};
use sqlx::postgres::PgConnection;

use super::{Ledger, place};
use crate::base::fault::{Fault, Kind};
use crate::pg;

/// One file for each version of the schema; a row of `pgtend.format` says how many of them were run.
const MIGRATIONS: [&str; 3] = [include_str!("1.sql"), include_str!("2.sql"), include_str!("3.sql")];

impl Ledger {
    /// Returns whether there is a ledger already. Any other query makes one where there is none: in a database that is to be restored, that
    /// would be in the way.
    pub async fn exists(&self) -> Result<bool> {
        let mut connection = self.connect().await?;
        Ok(version(&mut connection).await? > 0)
    }

    /// Returns whether a run has made the schema, without making it.
    pub(super) async fn is_made(&self) -> Result<bool> {
        let looked = async {
            let mut connection = self.connect().await?;
            refuse_foreign(&mut connection).await?;
            version(&mut connection).await
        };
        let looked = tokio::time::timeout(super::QUERY_TIMEOUT, looked).await.unwrap_or_else(|_| {
            Err(Fault::new(Kind::Unreachable, format!("no answer in {} s", super::QUERY_TIMEOUT.as_secs())).into())
        });
        Ok(looked.with_context(|| format!("ledger in {}: cannot look for its schema", self.display()))? > 0)
    }

    /// Returns what a run will find: the schema, or the right to make it. It makes nothing.
    pub async fn readiness(mut self) -> Result<String> {
        self.is_to_read = true;
        if self.is_made().await? {
            self.ready().await?;
            return Ok(format!("{}: schema `pgtend` is in place", self.display()));
        }
        let mut connection = self.connect().await?;
        let (may_create, is_read_only): (bool, bool) = sqlx::query_as(
            "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') OR pg_catalog.to_regnamespace('pgtend') IS NOT NULL,
                    pg_catalog.current_setting('transaction_read_only')::bool",
        )
        .fetch_one(&mut connection)
        .await
        .map_err(pg::in_its_own_words)?;
        if is_read_only {
            return Err(self.not_writable(anyhow::anyhow!("it has no schema `pgtend` yet, and cannot get one")).await)
                .with_context(|| format!("ledger in {}", self.display()));
        }
        if !may_create {
            let message = format!(
                "ledger in {}: it has no schema `pgtend` yet, and the role may not make it: GRANT CREATE on the database once, or let another role run the first job (pgtend grants)",
                self.display()
            );
            return Err(Fault::new(Kind::Permission, message).into());
        }
        Ok(format!("{}: the first run makes the schema `pgtend`", self.display()))
    }

    /// Returns how many other roles may connect to its database, and name some: they can take the locks by which runners know each other. Superusers and those
    /// that may write runs do not count.
    pub async fn strangers(&self) -> Result<Vec<String>> {
        let roles = sqlx::query_scalar(
            "SELECT r.rolname::pg_catalog.text FROM pg_catalog.pg_roles r
             WHERE r.rolcanlogin AND NOT r.rolsuper AND r.rolname OPERATOR(pg_catalog.<>) session_user
               AND pg_catalog.has_database_privilege(r.oid, pg_catalog.current_database(), 'CONNECT')
               AND NOT coalesce(pg_catalog.has_table_privilege(r.oid, pg_catalog.to_regclass('pgtend.runs')::pg_catalog.oid, 'INSERT'), false)
             ORDER BY 1",
        );
        roles.fetch_all(&mut self.connect().await?).await.map_err(pg::in_its_own_words)
    }

    pub(super) async fn migrate(&self) -> Result<()> {
        // This does not use the pool, which retries a refusing server for 20 s, and then does not say that it refused.
        let mut connection = self.settings.connect().await?;
        self.settings.point(&self.pool);
        refuse_foreign(&mut connection).await?;
        let place = place::read(&mut connection).await?;
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = place;
        // The version is read without the lock first: that suffices for a role that may only read and write rows.
        if version(&mut connection).await? == MIGRATIONS.len() {
            return Ok(());
        }
        if self.is_to_read {
            let message = "its schema `pgtend` is of an earlier version, or gone: the next run brings it up to date";
            return Err(Fault::new(Kind::Configuration, message).into());
        }
        // Each statement must see what was committed while this one waited for the lock.
        pg::set(&mut connection, "default_transaction_isolation", "read committed").await?;
        let mut transaction = sqlx::Connection::begin(&mut connection).await?;
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('pgtend ledger', 0)) /* pgtend */")
            .execute(&mut *transaction)
            .await?;
        refuse_foreign(&mut transaction).await?;
        let version = version(&mut transaction).await?;
        for (index, migration) in MIGRATIONS.iter().enumerate().skip(version) {
            pg::execute_script(&mut transaction, migration).await.map_err(|error| {
                let hint = "the role needs CREATE on the database, once; `pgtend grants` prints what it needs later";
                error.context(format!("cannot bring the schema `pgtend` to version {}: {hint}", index + 1))
            })?;
        }
        pg::execute_script(&mut transaction, "DELETE FROM pgtend.format").await?;
        sqlx::query("INSERT INTO pgtend.format VALUES ($1)").bind(MIGRATIONS.len() as i32).execute(&mut *transaction).await?;
        transaction.commit().await?;
        if version < MIGRATIONS.len() {
            tracing::info!("ledger in {}: schema `pgtend` is at version {}", self.display(), MIGRATIONS.len());
        }
        Ok(())
    }
}

/// Refuses a schema that someone else created beforehand, or added a trigger to: its code would run as this role.
async fn refuse_foreign(connection: &mut PgConnection) -> Result<()> {
    let sql = concat!("WITH ", include_str!("../pg/acting_functions.sql"), include_str!("foreign.sql"));
    let found: Option<(String, String, String)> =
        sqlx::query_as(sql).fetch_optional(connection).await.map_err(pg::in_its_own_words)?;
    let Some((object, whose, cure)) = found else { return Ok(()) };
    let message = format!(
        "{object} is not pgtend's own ({whose}), and its code would run with the rights of this role: find out who created it, then {cure}, \
         or name another database in [ledger]"
    );
    Err(Fault::new(Kind::Configuration, message).into())
}

/// Returns the schema's version; 0 when there is none. A version newer than this program is refused.
async fn version(connection: &mut PgConnection) -> Result<usize> {
    // to_regclass would not do: in the transaction that waited for the lock, it would answer from its earlier cache.
    let there: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                        WHERE n.nspname = 'pgtend' AND c.relname = 'format')",
    )
    .fetch_one(&mut *connection)
    .await?;
    if !there {
        return Ok(0);
    }
    let version: Option<i32> =
        sqlx::query_scalar("SELECT max(version) FROM pgtend.format").fetch_one(connection).await.map_err(pg::in_its_own_words)?;
    let version = version.unwrap_or(0) as usize;
    if version > MIGRATIONS.len() {
        return Err(Fault::new(
            Kind::Configuration,
            format!(
                "its schema `pgtend` is version {version}, made by a newer pgtend; this one ({}) knows {}: upgrade this pgtend",
                env!("CARGO_PKG_VERSION"),
                MIGRATIONS.len()
            ),
        )
        .into());
    }
    Ok(version)
}
