//! The entry of `[retention]` in the list of tasks.

use anyhow::Result;
use sqlx::PgConnection;

use super::Retention;
use crate::base::fault::{Fault, Kind};
use crate::config::Config;
use crate::pg::table::with_schema;
use crate::pg::{self, identifier};
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
        let mut lines = Vec::new();
        for table in tables {
            lines.extend(usage_of_schema(connection, table, role).await?);
            lines.push(format!("GRANT SELECT, UPDATE, DELETE ON {} TO {role};", with_schema(table)));
        }
        for table in self.referring(connection).await? {
            lines.push("-- to keep rows that this table refers to".to_owned());
            lines.extend(usage_of_schema(connection, &table, role).await?);
            lines.push(format!("GRANT SELECT ON {table} TO {role};"));
        }
        lines.push(format!(
            "-- to see replication and WAL archiving, so that it can slow down for them\nGRANT pg_monitor TO {role};"
        ));
        Ok(lines)
    }

    fn touched(&self) -> Vec<Touched<'_>> {
        let tables = std::iter::once(&self.table).chain(&self.cascade);
        tables.map(|table| Touched { finds_names: true, ..Touched::new(table, DELETE, &["4"], false) }).collect()
    }

    fn does(&self) -> Does {
        Does::Retention { table: self.table.clone() }
    }

    /// Consents to a first run, which deletes the most.
    fn agree(&mut self) {
        self.agreed = true;
    }
}

/// Grants USAGE on the schema, which a role needs to name the table. In `public` every role usually has it.
async fn usage_of_schema(connection: &mut PgConnection, table: &str, role: &str) -> Result<Option<String>> {
    let schema: Option<String> = sqlx::query_scalar(
        "SELECT n.nspname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = pg_catalog.to_regclass($1) AND n.nspname <> 'pg_catalog'
           AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(n.nspacl) x WHERE x.grantee = 0 AND x.privilege_type = 'USAGE')",
    )
    .bind(with_schema(table))
    .fetch_optional(connection)
    .await?;
    Ok(schema.map(|schema| format!("GRANT USAGE ON SCHEMA {} TO {role};", identifier(&schema))))
}
