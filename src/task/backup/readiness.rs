//! Whether a dump of this database by this role will work, as far as that can be asked beforehand: for
//! `check --connect`, and for saying what to do when it has not.

use anyhow::Result;
use sqlx::postgres::PgConnection;

use super::{Backup, Verify};
use crate::fault::{Fault, Kind};
use crate::units;

/// More than a dump needs, so that the application has some of its own.
const LOCKS_SPARE: f64 = 1.25;

#[derive(Clone, Debug, Default, sqlx::FromRow)]
pub struct Readiness {
    pub role: String,
    pub may_create_databases: bool,
    /// Tables and sequences.
    pub unreadable: Vec<String>,
    /// Tables of which this role would see some rows only.
    pub row_security: Vec<String>,
    pub unreadable_large_objects: i64,
    pub a_large_object: Option<i64>,
    pub locks_needed: i64,
    pub locks_per_transaction: i64,
    pub lock_holders: i64,
    pub has_pg_cron: bool,
}

pub async fn read(connection: &mut PgConnection) -> Result<Readiness> {
    Ok(sqlx::query_as(include_str!("readiness.sql")).fetch_one(connection).await?)
}

/// The first thing that would keep the job's runs from working, as an error.
pub async fn check(connection: &mut PgConnection, backup: &Backup) -> Result<String> {
    let ready = read(connection).await?;
    let refuse = |kind: Kind, message: String| Err(Fault::new(kind, message).into());
    let is_whole_database = backup.filters.schemas.is_empty() && backup.filters.exclude_tables.is_empty();
    if let Some(message) = ready.unreadable_in_words().filter(|_| is_whole_database) {
        return refuse(Kind::Permission, message);
    }
    // With `schemas`, pg_dump takes no large objects.
    if let Some(message) = ready.large_objects_in_words().filter(|_| backup.filters.schemas.is_empty()) {
        return refuse(Kind::Permission, message);
    }
    if let Some(message) = ready.locks_in_words().filter(|_| is_whole_database) {
        return refuse(Kind::Configuration, message);
    }
    if backup.verify != Verify::Restore {
        return Ok("can read everything the job dumps".to_owned());
    }
    if ready.has_pg_cron {
        let message = "verify = \"restore\" cannot work: pg_cron may be in the one database only that cron.database_name says, \
                       and the scratch database is another; take verify = \"checksum\", or restore by hand with --without EXTENSION pg_cron";
        return refuse(Kind::Configuration, message.to_owned());
    }
    if backup.scratch.is_none() && !ready.may_create_databases {
        let message = "verify = \"restore\" needs CREATEDB for its scratch database: ALTER ROLE … CREATEDB, name another server with `scratch`, or verify = \"checksum\"";
        return refuse(Kind::Permission, message.to_owned());
    }
    if backup.scratch.is_none() {
        let others: Vec<String> = sqlx::query_scalar(
            "SELECT DISTINCT pg_catalog.pg_get_userbyid(relowner)::text FROM pg_catalog.pg_class
             WHERE oid >= 16384 AND relnamespace <> 'pg_toast'::pg_catalog.regnamespace AND NOT CASE WHEN pg_catalog.current_setting('server_version_num')::pg_catalog.int4 >= 160000
                          THEN pg_catalog.pg_has_role(relowner, 'SET') ELSE pg_catalog.pg_has_role(relowner, 'MEMBER') END ORDER BY 1",
        )
        .fetch_all(&mut *connection)
        .await?;
        if !others.is_empty() {
            let message = format!(
                "verify = \"restore\" gives tables back to their owners, and the role is not a member of {}: GRANT them to it, or verify = \"checksum\"",
                others.join(", ")
            );
            return refuse(Kind::Permission, message);
        }
    }
    Ok("can read everything the job dumps".to_owned())
}

impl Readiness {
    pub fn unreadable_in_words(&self) -> Option<String> {
        let some = self.unreadable.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        (!self.unreadable.is_empty()).then(|| {
            format!(
                "the role {} cannot read {} relations ({some}{}): GRANT pg_read_all_data TO it",
                self.role,
                self.unreadable.len(),
                if self.unreadable.len() > 5 { ", …" } else { "" }
            )
        })
    }

    pub fn large_objects_in_words(&self) -> Option<String> {
        let one = self.a_large_object.filter(|_| self.unreadable_large_objects > 0)?;
        Some(format!(
            "the role {role} cannot read {} large objects (such as {one}), and pg_read_all_data does not cover them: their owner or a \
             superuser runs GRANT SELECT ON LARGE OBJECT {one} TO {role} for each, or the backup connects as a superuser or a \
             member of their owner",
            units::count(self.unreadable_large_objects as u64),
            role = self.role,
        ))
    }

    pub fn locks_in_words(&self) -> Option<String> {
        let holds = self.locks_per_transaction * self.lock_holders;
        (self.locks_needed > holds).then(|| {
            format!(
                "the server's lock table holds {} locks, and a dump needs {}, one for each table and sequence: set \
                 max_locks_per_transaction = {} and restart the server",
                units::count(holds as u64),
                units::count(self.locks_needed as u64),
                self.locks_per_transaction_to_set()
            )
        })
    }

    fn locks_per_transaction_to_set(&self) -> i64 {
        let wanted = (self.locks_needed as f64 * LOCKS_SPARE / self.lock_holders.max(1) as f64).ceil() as i64;
        wanted.max(self.locks_per_transaction * 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_table_is_compared_with_what_a_dump_needs() {
        let ready =
            |needed: i64| Readiness { locks_needed: needed, locks_per_transaction: 10, lock_holders: 32, ..Readiness::default() };
        assert_eq!(ready(320).locks_in_words(), None);
        let message = ready(3000).locks_in_words().unwrap();
        assert!(message.contains("holds 320 locks") && message.contains("needs 3,000"), "{message}");
        assert!(message.contains("max_locks_per_transaction = 118 "), "{message}");
    }
}
