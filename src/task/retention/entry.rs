//! The entry of `[retention]` in the list of tasks.

use anyhow::Result;
use sqlx::PgConnection;

use super::Retention;
use crate::base::fault::{Fault, Kind};
use crate::config::Config;
use crate::pg;
use crate::pg::table::with_schema;
use crate::work::touched::DELETE;
use crate::work::{Does, Entry, Memberships, Touched};

impl Entry for Retention {
    async fn check(&self, connection: &mut PgConnection, _settings: &pg::Settings, _config: &Config) -> Result<String> {
        let table = &self.table;
        let there: Option<bool> = sqlx::query_scalar(
            "SELECT has_table_privilege(to_regclass($1), 'SELECT') AND has_table_privilege(to_regclass($1), 'UPDATE')
                AND has_table_privilege(to_regclass($1), 'DELETE')",
        )
        .bind(with_schema(table))
        .fetch_one(connection)
        .await?;
        match there {
            Some(true) => Ok(format!("may read, lock and delete rows of {table}")),
            Some(false) => {
                let message =
                    format!("GRANT SELECT, UPDATE, DELETE ON {table} TO the role: the job locks rows, then deletes them");
                Err(Fault::new(Kind::Permission, message).into())
            }
            None => Err(Fault::new(Kind::Configuration, format!("there is no table {table}")).into()),
        }
    }

    async fn grants(&self, connection: &mut PgConnection, role: &str, _memberships: &mut Memberships) -> Result<Vec<String>> {
        // SELECT … FOR UPDATE needs the UPDATE privilege.
        let tables = std::iter::once(&self.table).chain(&self.cascade);
        let mut lines: Vec<String> =
            tables.map(|table| format!("GRANT SELECT, UPDATE, DELETE ON {} TO {role};", with_schema(table))).collect();
        for table in self.referring(connection).await? {
            lines.push(format!("-- to keep rows that this table refers to\nGRANT SELECT ON {table} TO {role};"));
        }
        lines.push(format!(
            "-- to see replication and WAL archiving, so that it can slow down for them\nGRANT pg_monitor TO {role};"
        ));
        Ok(lines)
    }

    fn touched(&self) -> Vec<Touched<'_>> {
        let tables = std::iter::once(&self.table).chain(&self.cascade);
        tables.map(|table| Touched::new(table, DELETE, &["4"], false)).collect()
    }

    fn does(&self) -> Does {
        Does::Retention { table: self.table.clone() }
    }

    /// To a first run, which deletes the most.
    fn agree(&mut self) {
        self.agreed = true;
    }
}
