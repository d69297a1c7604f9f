//! The ledger's schema: made and brought up to date by the program, and left alone where it is somebody else's.

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
        // Not the pool's, which tries a server that refuses for 20 s, and then does not say so.
        let mut connection = self.settings.connect().await?;
        self.settings.point(&self.pool);
        refuse_foreign(&mut connection).await?;
        // Without the lock first: a role that may only read and write rows gets by with that.
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

/// A schema that somebody else made beforehand, or put a trigger into, is not written to: its code would run as this role.
async fn refuse_foreign(connection: &mut PgConnection) -> Result<()> {
    let found: Option<(String, String, String)> =
        sqlx::query_as(include_str!("foreign.sql")).fetch_optional(connection).await.map_err(pg::in_its_own_words)?;
    let Some((object, whose, cure)) = found else { return Ok(()) };
    let message = format!(
        "{object} is not pgtend's own ({whose}), and its code would run with the rights of this role: look who made it, then {cure}, \
         or name another database in [ledger]"
    );
    Err(Fault::new(Kind::Configuration, message).into())
}

/// The schema's version; 0 when there is none. A newer one than this program knows is refused.
async fn version(connection: &mut PgConnection) -> Result<usize> {
    // Not to_regclass: in the transaction that waited for the lock it would answer from what it cached before.
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
