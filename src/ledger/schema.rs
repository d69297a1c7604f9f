//! The ledger's schema: the program creates and migrates it, and does not touch a schema that someone else owns.

use anyhow::Result;
use sqlx::postgres::PgConnection;

use super::Ledger;
use crate::base::fault::{Fault, Kind};
use crate::pg;

/// One file for each version of the schema; a row of `pgtend.format` says how many of them were run.
const MIGRATIONS: [&str; 1] = [include_str!("1.sql")];

impl Ledger {
    /// Whether there is a ledger already. Any other query makes one where there is none: in a database that is to be restored, that would be
    /// in the way.
    pub async fn exists(&self) -> Result<bool> {
        let mut connection = self.connect().await?;
        Ok(version(&mut connection).await? > 0)
    }

    pub(super) async fn migrate(&self) -> Result<()> {
        // This does not use the pool, which retries a refusing server for 20 s, and then does not say that it refused.
        let mut connection = self.settings.connect().await?;
        self.settings.point(&self.pool);
        refuse_foreign(&mut connection).await?;
        // The version is read without the lock first: that suffices for a role that may only read and write rows.
        if version(&mut connection).await? == MIGRATIONS.len() {
            return Ok(());
        }
        // Each statement must see what was committed while this one waited for the lock.
        pg::set(&mut connection, "default_transaction_isolation", "read committed").await?;
        let mut transaction = sqlx::Connection::begin(&mut connection).await?;
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('pgtend ledger', 0))").execute(&mut *transaction).await?;
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
    let found: Option<(String, String, String)> =
        sqlx::query_as(include_str!("foreign.sql")).fetch_optional(connection).await.map_err(pg::in_its_own_words)?;
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
